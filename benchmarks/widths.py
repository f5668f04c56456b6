"""Accuracy of a trained classification run at other widths: integral resizing beside removal of the smallest channels.

    python benchmarks/widths.py RUN [--rows 2000]

RUN is a folder of ``ccnn fit``. Nothing is trained: the first ROWS test rows are classified at each width, before the
statistics of batch norms are measured anew, and after it (on sixteen batches of the training part).
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ccnn_irregular import integral
from ccnn_irregular.integral.layout import channels_first, reordered
from ccnn_irregular.pipelines.train.opened import opened
from ccnn_irregular.pipelines.train.run_folder import RunFolder

RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)


def smallest_removed(model: nn.Module, converted: nn.Module, like: nn.Module) -> nn.Module:
    """The network without the channels of smallest L1 norm over all weights along them, of the sizes of ``like``."""
    groups = integral.channel_groups(converted)
    plan, sizes = groups.plan, groups.numbers()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    norms = {number: torch.zeros(plan.groups[number].channels, dtype=torch.float64) for number in sizes}
    for weight in plan.weights:
        values = tensors[weight.name].detach().double().reshape(weight.shape)
        for axis, along in weight.axes.items():
            for segment, rows in zip(along.segments, channels_first(values, axis, along), strict=True):
                if segment.group in norms and len(weight.shape) > 1:
                    norms[segment.group] += rows.abs().sum(1) / rows.abs().mean().clamp(min=1e-30)
    kept = {number: found.topk(sizes[number]).indices.sort().values for number, found in norms.items()}
    with torch.no_grad():
        for weight in plan.weights:
            values = tensors[weight.name].detach().reshape(weight.shape)
            for axis, along in weight.axes.items():
                values = reordered(values, axis, along, kept)
            layer, _, name = weight.name.rpartition(".")
            own: Tensor = getattr(like.get_submodule(layer), name)
            own.copy_(values.reshape(own.shape))
    return like


def accuracy(model: Any, batches: list[Any]) -> tuple[float, float]:
    """Percent of the rows, and milliseconds a batch."""
    right = total = 0
    seconds = []
    with torch.inference_mode():
        for batch in batches:
            started = time.perf_counter()
            found = model.eval()(batch).argmax(-1)
            seconds.append(time.perf_counter() - started)
            right += int((found == batch.labels).sum())
            total += len(batch.labels)
    return 100 * right / total, 1e3 * float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    options = parser.parse_args()
    model, data = opened(RunFolder(options.run))
    data.setup("fit")
    training = list(itertools.islice(data.train_dataloader(), 16))
    data.setup("test")
    tested = list(itertools.islice(data.loader("test"), -(-options.rows // len(training[0].labels))))
    sort = None if model.schedule.least_width < 1 else integral.shortest_path
    converted = integral.convert(model, training[0], order=sort)
    unsorted = integral.convert(model, training[0], order=None)
    print("channels   integral  recalibrated  ms/batch   smallest removed  recalibrated")
    for ratio in RATIOS:
        row = []
        for kind in ("integral", "smallest"):
            small = integral.discretise(integral.resize(converted if kind == "integral" else unsorted, ratio))
            if kind == "smallest":
                small = smallest_removed(model, unsorted, small)
            before, _ = accuracy(small, tested)
            integral.recalibrate(small, training)
            row += [before, *accuracy(small, tested)]
        print(f"{ratio:8.0%} {row[0]:10.2f} {row[1]:13.2f} {row[2]:9.1f} {row[3]:18.2f} {row[4]:13.2f}", flush=True)


if __name__ == "__main__":
    main()
