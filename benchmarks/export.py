"""Trained runs exported: score, numbers, operations and latency before and after, in PyTorch and onnxruntime.

    python benchmarks/export.py RUN_DIR ... [--tolerance 0.01] [--rows 1000]

Each run of the tasks classification and segmentation is tested on its own test part: as trained, as ordinary
convolutions, and shift-wise at the tolerance. Volumes are exported each on its own grid; the file for onnxruntime is of
the first one's. Milliseconds: median of a batch of one, with as many threads as PyTorch has.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._reprs import parameter_count
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines.export.costs import flops, seconds, stored
from ccnn_irregular.pipelines.export.files import read_onnx, write
from ccnn_irregular.pipelines.export.networks import Exporter, Trained, trained
from ccnn_irregular.pipelines.tasks.segmentation.module import dice
from ccnn_irregular.pipelines.train.opened import opened
from ccnn_irregular.pipelines.train.run_folder import RunFolder

Answers = Callable[..., Tensor]


@dataclass(frozen=True)
class Row:
    """A part of the test rows: inputs on one grid, labels."""

    inputs: tuple[Tensor, ...]
    grid: Grid
    labels: Tensor


def rows(data: Any, most: int) -> Iterator[Row]:
    """The test part, at most so many samples or volumes."""
    for batch in data.loader("test"):
        if most <= 0:
            return
        most -= len(batch)
        sampled = getattr(batch, "sampled", None)
        lengths = () if sampled is None else (sampled[:, 0].sum(1),)
        grid = batch.grid if hasattr(batch, "grid") else batch.domain
        yield Row((batch.values, *lengths), grid, batch.labels)


def score(logits: Tensor, labels: Tensor) -> float:
    """Accuracy of a batch of samples, or mean Dice of a volume, percent."""
    if logits.ndim == 2:
        return 100 * float((logits.argmax(1) == labels).float().mean())
    return 100 * float(np.nanmean(dice(logits.argmax(1), labels, logits.shape[1])))


def measure(folder: Path, tolerance: float, most: int) -> None:
    """Print the rows of a run."""
    model, data = opened(RunFolder(folder))
    data.setup("test")
    parts = list(rows(data, most))
    padded = len(parts[0].inputs) > 1
    one = tuple(given[:1] for given in parts[0].inputs)
    with torch.no_grad():
        expected = [_scored(trained(model, part.grid, Exporter(), padded=padded).before, part) for part in parts]
    forms = {"exported": Exporter(), f"shift-wise, {tolerance:g}": Exporter(tolerance)}
    firsts = {name: trained(model, parts[0].grid, exporter, padded=padded) for name, exporter in forms.items()}
    network = firsts["exported"]
    _print(folder.name, "as trained, PyTorch", _mean(expected, parts), parameter_count(model.network),
           network.before, network.before, one)  # fmt: skip
    for name, exporter in forms.items():
        first = firsts[name]
        found = [_scored(_on(part, parts[0], first, model, exporter, padded), part) for part in parts]
        _print(folder.name, f"{name}, PyTorch", _mean(found, parts), stored(first.after), first.after, first.after, one)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, "network.onnx")
            write(path, first, {})
            session = read_onnx(path, torch.get_num_threads())
        alike = [part for part in parts if part.grid == parts[0].grid]
        got = _mean([_scored(session, part) for part in alike], alike)
        said = f"{name}, onnxruntime" + ("" if len(alike) == len(parts) else f" ({len(alike)} of {len(parts)} volumes)")
        _print(folder.name, said, got, stored(first.after), first.after, session, one)


def _on(part: Row, first: Row, known: Trained, model: Any, exporter: Exporter, padded: bool) -> Answers:
    """The exported network on the grid of some rows."""
    return known.after if part.grid == first.grid else trained(model, part.grid, exporter, padded=padded).after


def _scored(answers: Answers, part: Row) -> float:
    with torch.no_grad():
        return score(answers(*part.inputs), part.labels)


def _mean(scores: list[float], parts: list[Row]) -> float:
    return float(np.average(scores, weights=[len(part.labels) for part in parts]))


def _print(run: str, name: str, found: float, count: int, counted: Answers, timed: Answers, one: Any) -> None:
    with torch.no_grad():
        taken = 1e3 * seconds(lambda: timed(*one))
    cost = flops(counted, one) / 1e9
    print(f"| {run} | {name} | {found:.2f} | {count:,} | {cost:.3g} | {taken:.3g} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--rows", type=int, default=1000, help="samples or volumes of the test part, at most")
    options = parser.parse_args()
    print("| run | network | score % | numbers | GFLOP | ms, one sample |\n|---|---|---|---|---|---|")
    for run in options.runs:
        measure(run, options.tolerance, options.rows)


if __name__ == "__main__":
    main()
