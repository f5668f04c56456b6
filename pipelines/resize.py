"""``ccnn resize``: a trained run at another width, for ``test`` and ``predict``; or measured at several widths."""

from __future__ import annotations

import copy
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from torch import nn

from ccnn_irregular import integral
from ccnn_irregular._checks import require
from ccnn_irregular._reprs import parameter_count
from ccnn_irregular.pipelines.train import figures
from ccnn_irregular.pipelines.train.checkpoint import read_checkpoint, save_checkpoint
from ccnn_irregular.pipelines.train.evaluation import ResultTable, say
from ccnn_irregular.pipelines.train.module import timed
from ccnn_irregular.pipelines.train.opened import opened, task_of
from ccnn_irregular.pipelines.train.registry import task_class
from ccnn_irregular.pipelines.train.reports import write_csv, write_json, write_text
from ccnn_irregular.pipelines.train.run import quiet
from ccnn_irregular.pipelines.train.run_folder import RunFolder
from ccnn_irregular.pipelines.train.texts import read_json
from ccnn_irregular.pipelines.train.widths import unheard

__all__ = ["run"]

# Options of networks that are numbers of channels of hidden layers, and what resizing does with them.
_WIDTHS = ("hidden_channels", "channels")
# What a checkpoint needs to train on, which a resized network cannot.
_BATCHES = 16  # whose statistics become those of the norms
_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)
_TIMED = 5  # batches
_RATES = 0.03, 0.003  # with which places are tuned, and those of a network that was trained for all widths
_OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks")


def run(arguments: list[str]) -> None:
    """Convert the run's network, then write it at another width into a folder of its own, or measure it at several."""
    parser = ArgumentParser(prog="ccnn resize", allow_abbrev=False, description=__doc__)
    parser.add_argument("--run_dir", type=str, required=True, help="folder of the trained run")
    parser.add_argument("--ratio", type=float | None, help="share of the channels that is kept, 0.5 for half")
    parser.add_argument("--sweep", type=bool, default=False, help="measure several ratios instead, and draw them")
    text = "training batches by which the places are tuned where channels are sampled; weights stay"
    parser.add_argument("--tune", type=int, default=0, help=text)
    parser.add_argument("--output", type=str | None, help="folder of the smaller run (default: RUN_DIR_RATIO)")
    options = parser.parse_args(arguments)
    source = RunFolder(Path(options.run_dir))
    options_given = (("--ratio", options.ratio is not None), ("--sweep", options.sweep))
    asked = [name for name, is_given in options_given if is_given]
    require(
        len(asked) == 1, "ccnn resize", "be given one of --ratio 0.5 and --sweep true", " and ".join(asked) or "none"
    )
    require(options.sweep or 0 < options.ratio <= 1, "ratio", "lie above 0, and at 1 at most", options.ratio)
    require(options.tune >= 0, "tune", "be a number of batches, 0 for none", options.tune)
    require(source.best.is_file(), "run_dir", "be a folder of ccnn fit with best.ckpt", options.run_dir)
    if options.sweep:
        _sweep(source, options.tune)
    else:
        target = Path(options.output or f"{options.run_dir.rstrip('/')}_{options.ratio:g}")
        require(not target.exists(), "output", "be a folder that does not exist yet", target)
        _resize(source, RunFolder(target), options.ratio, options.tune)


def _resize(source: RunFolder, target: RunFolder, ratio: float, steps: int) -> None:
    """Write the run of a narrower network."""
    module, data, batches = _read(source)
    converted = _converted(module, batches[0])
    try:
        _write(source, target, module, ratio, steps)
        empty, _ = opened(target, weights=False)
        integral.resize(converted, sizes=_sizes(integral.channel_groups(converted), empty))
        smaller = _plain(converted, data, batches, steps)
        _write(source, target, smaller, ratio, steps)
        found, _ = opened(target)  # as test and predict load it
    except ValueError as error:
        shutil.rmtree(target.path, ignore_errors=True)
        rule = "hold a network whose options give all of its layers' widths (in Python, integral.resize takes any)"
        kind, cause = type(module.network).__name__, str(error).partition("\n")[0]
        raise ValueError(f"run_dir must {rule}, got {source.path} with a {kind}: {cause}") from error
    task = task_class(task_of(source))
    scores = [_validated(one, data)[task.monitor] for one in (module, found)]
    before, after = parameter_count(module.network), parameter_count(found.network)
    say(f"{integral.channel_groups(converted)}\n{before:,} parameters are now {after:,}: {target.path}")
    say(f"validation {task.monitor_label} {scores[0]:.4f} as trained, {scores[1]:.4f} now")
    say(f"next: ccnn test --run_dir {target.path}")


def _sweep(source: RunFolder, steps: int) -> None:
    """Validate the network as trained and at several widths, on the CPU: a table, ``sweep.csv`` and ``sweep.png``."""
    module, data, batches = _read(source)
    task = task_class(task_of(source))
    converted = _converted(module, batches[0])
    rows = [_measured("as trained", module, data, batches[0])]
    for ratio in _RATIOS:
        smaller = _plain(integral.resize(copy.deepcopy(converted), ratio), data, batches, steps)
        rows.append(_measured(f"{ratio:.0%}", smaller, data, batches[0]))
    done = f"places tuned by {steps} batches, " if steps else ""
    title = f"{source.path} at other widths: weights stay, {done}statistics of norms are measured anew"
    head, numbers = list(rows[0]), [list(row.values()) for row in rows]
    shown = [[row[0], f"{row[1]:,}", f"{row[2]:.4f}", *(f"{value:.4f}" for value in row[3:])] for row in numbers]
    ResultTable(title, [name.replace("_", " ") for name in head], shown).print()
    path = source.path / (f"sweep_tuned_{steps}" if steps else "sweep")
    write_csv(path.with_suffix(".csv"), head, numbers)
    label = f"validation {task.monitor_label}"
    scores = [row[task.monitor] for row in rows]
    picture = figures.width_sweep(scores, label, numbers, title.replace(": ", "\n"), path.with_suffix(".png"))
    say(f"{path.with_suffix('.csv')}\n{picture}\nnext: ccnn resize --run_dir {source.path} --ratio 0.5")


def _measured(channels: str, model: Any, data: Any, batch: Any) -> dict[str, Any]:
    """A row of the sweep: channels kept, size, time and the metrics of the validation part."""
    size = {"channels": channels, "parameters": parameter_count(model.network)}
    return size | {"seconds_a_batch": _seconds(model, batch)} | _validated(model, data)


def _validated(model: Any, data: Any) -> dict[str, float]:
    """Metrics of the validation part."""
    with quiet():
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        (found,) = trainer.validate(model, datamodule=data, verbose=False)
    return dict(found)


def _plain(resized: nn.Module, data: Any, batches: list[Any], steps: int) -> nn.Module:
    """The network of plain layers, once its places are tuned by as many batches, and statistics of norms measured."""
    if steps:
        _tune_places(resized, data, steps)
    smaller = integral.discretise(resized)
    integral.recalibrate(smaller, [(batch,) for batch in batches])  # a batch may be a tuple itself
    return smaller


def _tune_places(resized: Any, data: Any, steps: int) -> None:
    """Let training move the places where channels are sampled: some hundred numbers in all."""
    optimiser = torch.optim.Adam(integral.learn_partitions(resized.train()), lr=_RATES[_of_all_widths(resized)])
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 1e-2, steps)
    endless = itertools.chain.from_iterable(data.train_dataloader() for _ in itertools.count())
    with unheard(resized):
        for number, batch in enumerate(itertools.islice(endless, steps)):
            optimiser.zero_grad()
            resized.training_step(batch, number).backward()
            optimiser.step()
            schedule.step()
    resized.eval()


def _seconds(model: Any, batch: Any) -> float:
    """Median time of the network's answer to a batch."""
    with torch.inference_mode():
        return float(np.median([timed(model.eval(), batch)[1] for _ in range(_TIMED + 1)][1:]))


def _read(source: RunFolder) -> tuple[Any, Any, list[Any]]:
    """A run's module, its data, and some batches of what it was trained on."""
    module, data = opened(source)
    data.setup("fit")
    return module, data, list(itertools.islice(data.train_dataloader(), _BATCHES))


def _converted(module: Any, batch: Any) -> nn.Module:
    """The module with weights that are functions; channels of one that was trained for all widths are in order."""
    return integral.convert(module, (batch,), order=None if _of_all_widths(module) else integral.shortest_path)


def _of_all_widths(module: Any) -> bool:
    return bool(module.schedule.least_width < 1)


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


def _write(source: RunFolder, target: RunFolder, module: nn.Module, ratio: float, steps: int) -> None:
    """The checkpoint, the configuration and the summary of the smaller run."""
    content = {name: value for name, value in read_checkpoint(source.best).items() if name not in _OF_TRAINING}
    state = module.state_dict()
    content["state_dict"] = {name: state[name] for name in content["state_dict"]}
    content["hyper_parameters"] = _narrowed(content["hyper_parameters"], ratio)
    config = source.saved_config()
    assert config is not None
    target.path.mkdir(parents=True, exist_ok=True)
    save_checkpoint(content, target.best)
    config |= {"model": _narrowed(config["model"], ratio), "run_dir": str(target.path)}
    write_text(target.config, yaml.safe_dump(config, sort_keys=False))
    summary = read_json(source.summary) if source.summary.is_file() else {}
    summary.pop("best", None)  # of the full network
    made = {"from": str(source.path), "ratio": ratio, "tuned_by_batches": steps}
    write_json(target.summary, summary | {"checkpoint": str(target.best), "resized": made})


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
