"""``ccnn resize``: a trained run at another width, for ``test`` and ``predict``; or measured at several widths."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from ccnn_irregular import integral
from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import parameter_count
from ccnn_irregular.pipelines.train import figures
from ccnn_irregular.pipelines.train.arguments import Words
from ccnn_irregular.pipelines.train.checkpoint import load_weights, read_checkpoint, save_checkpoint
from ccnn_irregular.pipelines.train.evaluation import ResultTable, say
from ccnn_irregular.pipelines.train.module import timed
from ccnn_irregular.pipelines.train.registry import task_class
from ccnn_irregular.pipelines.train.reports import write_csv, write_json, write_text
from ccnn_irregular.pipelines.train.run import quiet, run_task
from ccnn_irregular.pipelines.train.run_folder import RunFolder

__all__ = ["run"]

# Options of networks that are numbers of channels of hidden layers, and what resizing does with them.
_WIDTHS = ("hidden_channels", "channels")
# What a checkpoint needs to train on, which a resized network cannot.
_BATCHES = 16  # whose statistics become those of the norms
_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)
_TIMED = 5  # batches
_OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks")


def run(arguments: list[str]) -> None:
    """Convert the run's network, then write it at another width into a folder of its own, or measure it at several."""
    parser = ArgumentParser(prog="ccnn resize", allow_abbrev=False, description=__doc__)
    parser.add_argument("--run_dir", type=str, required=True, help="folder of the trained run")
    parser.add_argument("--ratio", type=float | None, help="share of the channels that is kept, 0.5 for half")
    parser.add_argument("--sweep", type=bool, default=False, help="measure several ratios instead, and draw them")
    parser.add_argument("--output", type=str | None, help="folder of the smaller run (default: RUN_DIR_RATIO)")
    options = parser.parse_args(arguments)
    source = RunFolder(Path(options.run_dir))
    require(options.sweep == (options.ratio is None), "ratio", "be given, or --sweep true", options.ratio)
    require(options.sweep or 0 < options.ratio <= 1, "ratio", "lie above 0, and at 1 at most", options.ratio)
    require(source.best.is_file(), "run_dir", "be a folder of ccnn fit with best.ckpt", options.run_dir)
    if options.sweep:
        _sweep(source)
    else:
        target = Path(options.output or f"{options.run_dir.rstrip('/')}_{options.ratio:g}")
        require(not target.exists(), "output", "be a folder that does not exist yet", target)
        _resize(source, RunFolder(target), options.ratio)


def _resize(source: RunFolder, target: RunFolder, ratio: float) -> None:
    """Write the run of a narrower network."""
    opened = _opened(source)
    converted = opened.converted()
    try:
        _write(source, target, opened.module, ratio)
        empty = _opened(target, weights=False).module
        integral.resize(converted, sizes=_sizes(integral.channel_groups(converted), empty))
        smaller = integral.discretise(converted)
        integral.recalibrate(smaller, opened.batches)
        _write(source, target, smaller, ratio)
        found = _opened(target).module  # as test and predict load it
    except ValueError as error:
        shutil.rmtree(target.path, ignore_errors=True)
        reject("run_dir", "hold a network whose options give all of its layers' widths", f"{error}")
    before, after = parameter_count(opened.module.network), parameter_count(found.network)
    say(f"{integral.channel_groups(converted)}\n{before:,} parameters are now {after:,}: {target.path}")


def _sweep(source: RunFolder) -> None:
    """Measure the network at several widths on the validation part: a table, ``sweep.csv`` and ``sweep.png``."""
    opened = _opened(source)
    monitor, label = opened.task.monitor, opened.task.monitor_label
    converted = opened.converted()
    rows = []
    for ratio in _RATIOS:
        smaller = integral.discretise(integral.resize(converted, ratio))
        integral.recalibrate(smaller, opened.batches)
        with quiet():
            (found,) = opened.task.trainer.validate(smaller, datamodule=opened.task.datamodule, verbose=False)
        rows.append([ratio, parameter_count(smaller.network), _seconds(smaller, opened.batches[0]), *found.values()])
    head = ["ratio", "parameters", "seconds_a_batch", *found]
    title = f"{source.path}: validation {label} at other widths, nothing is trained"
    shown = [[f"{row[0]:g}", f"{row[1]:,}", f"{row[2]:.4f}", *(f"{value:.4f}" for value in row[3:])] for row in rows]
    ResultTable(title, [name.replace("_", " ") for name in head], shown, words=0).print()
    write_csv(source.path / "sweep.csv", head, rows)
    scores = [row[head.index(monitor)] for row in rows]
    picture = figures.width_sweep(scores, f"validation {label}", rows, source.path / "sweep.png")
    say(f"{source.path / 'sweep.csv'}\n{picture}\nnext: ccnn resize --run_dir {source.path} --ratio 0.5")


def _seconds(model: Any, batch: Any) -> float:
    """Median time of the network's answer to a batch."""
    with torch.inference_mode():
        return float(np.median([timed(model.eval(), batch)[1] for _ in range(_TIMED + 1)][1:]))


@dataclass
class _Opened:
    """A run as ``ccnn validate`` reads it.

    Attributes:
        task: with its trainer and data.
        module: with its weights, or as it starts.
        batches: some of those it was trained on, on the module's device.
    """

    task: Any
    module: Any
    batches: list[Any]

    def converted(self) -> nn.Module:
        """The module with weights that are functions; channels of one that was trained for all widths are in order."""
        trained = self.module.schedule.least_width < 1
        return integral.convert(self.module, self.batches[0], order=None if trained else integral.shortest_path)


def _opened(folder: RunFolder, weights: bool = True) -> _Opened:
    """A run; without ``weights``, and batches, as it starts."""
    words = Words("validate", (), None, str(folder.path), None, (), ())
    found: list[_Opened] = []

    class Opened(task_class(words.task_name())):  # type: ignore[misc]  # a class that is looked up
        """The run's options, read as ``ccnn validate`` reads them; nothing is validated."""

        def before_validate(self) -> None:
            pass

        def validate(self, model: Any, datamodule: Any, ckpt_path: str, **_: Any) -> None:
            batches: list[Any] = []
            if weights:
                datamodule.setup("fit")
                load_weights(model, ckpt_path)
                batches = list(itertools.islice(datamodule.train_dataloader(), _BATCHES))
            found.append(_Opened(self, model.eval(), batches))

    run_task(Opened, words)
    return found[0]


def _sizes(groups: integral.ChannelGroups, wanted: nn.Module) -> dict[str, int]:
    """The sizes of all groups in a network that the narrowed options give."""
    tensors = [*wanted.named_parameters(), *wanted.named_buffers()]
    shapes = {name: tensor.shape for name, tensor in tensors}
    sizes = {}
    for weight in groups.plan.weights:
        whole = all(count == 1 for count in weight.joined)
        for axis, plan in weight.axes.items() if whole else ():
            (first, *others) = plan.segments
            if first.group is not None and not others and plan.cut == 1:
                sizes[groups.plan.groups[first.group].name] = shapes[weight.name][axis] // first.repeat
    return sizes


def _write(source: RunFolder, target: RunFolder, module: nn.Module, ratio: float) -> None:
    """The checkpoint, the configuration and the summary of the smaller run."""
    content = {name: value for name, value in read_checkpoint(source.best).items() if name not in _OF_TRAINING}
    own = module.state_dict()
    content["state_dict"] = {name: own[name] for name in content["state_dict"]}
    content["hyper_parameters"] = _narrowed(content["hyper_parameters"], ratio)
    config = source.saved_config()
    assert config is not None
    target.path.mkdir(parents=True, exist_ok=True)
    save_checkpoint(content, target.best)
    config |= {"model": _narrowed(config["model"], ratio), "run_dir": str(target.path)}
    write_text(target.config, yaml.safe_dump(config, sort_keys=False))
    summary = json.loads(source.summary.read_text(encoding="utf-8")) if source.summary.is_file() else {}
    write_json(
        target.summary,
        summary | {"checkpoint": str(target.best), "resized": {"from": str(source.path), "ratio": ratio}},
    )


def _narrowed(options: Any, ratio: float) -> Any:
    """Options with every number of hidden channels times ``ratio``, rounded as ``integral.resize`` does."""
    if not isinstance(options, dict):
        return options
    return {
        name: _width(value, ratio) if name in _WIDTHS else _narrowed(value, ratio) for name, value in options.items()
    }


def _width(value: Any, ratio: float) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_width(one, ratio) for one in value)
    return max(1, round(value * ratio)) if isinstance(value, int) else value
