"""``ccnn resize``: a trained run at another width, as a run that ``test`` and ``predict`` take."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from torch import nn

from ccnn_irregular import integral
from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import parameter_count
from ccnn_irregular.pipelines.train.arguments import Words
from ccnn_irregular.pipelines.train.checkpoint import load_weights, read_checkpoint, save_checkpoint
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.registry import task_class
from ccnn_irregular.pipelines.train.reports import write_json, write_text
from ccnn_irregular.pipelines.train.run import run_task
from ccnn_irregular.pipelines.train.run_folder import RunFolder
from ccnn_irregular.pipelines.train.texts import read_json

__all__ = ["run"]

# Options of networks that are numbers of channels of hidden layers, and what resizing does with them.
_WIDTHS = ("hidden_channels", "channels")
# What a checkpoint needs to train on, which a resized network cannot.
_BATCHES = 16  # whose statistics become those of the norms
_OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks")


def run(arguments: list[str]) -> None:
    """Convert the run's network, resize it, and write it into a folder of its own."""
    parser = ArgumentParser(prog="ccnn resize", allow_abbrev=False, description=__doc__)
    parser.add_argument("--run_dir", type=str, required=True, help="folder of the trained run")
    parser.add_argument("--ratio", type=float, required=True, help="share of the channels that is kept, 0.5 for half")
    parser.add_argument("--output", type=str | None, help="folder of the smaller run (default: RUN_DIR_RATIO)")
    options = parser.parse_args(arguments)
    source = RunFolder(Path(options.run_dir))
    require(0 < options.ratio <= 1, "ratio", "lie above 0, and at 1 at most", options.ratio)
    require(source.best.is_file(), "run_dir", "be a folder of ccnn fit with best.ckpt", options.run_dir)
    target = RunFolder(Path(options.output or f"{options.run_dir.rstrip('/')}_{options.ratio:g}"))
    require(not target.path.exists(), "output", "be a folder that does not exist yet", target.path)
    module, batches = _opened(source)
    converted = integral.convert(module, batches[0])
    try:
        _write(source, target, module, options.ratio)
        empty, _ = _opened(target, weights=False)
        integral.resize(converted, sizes=_sizes(integral.channel_groups(converted), empty))
        smaller = integral.discretise(converted)
        integral.recalibrate(smaller, batches)
        _write(source, target, smaller, options.ratio)
        found, _ = _opened(target)  # as test and predict load it
    except ValueError as error:
        shutil.rmtree(target.path, ignore_errors=True)
        reject("run_dir", "hold a network whose options give all of its layers' widths", f"{error}")
    before, after = parameter_count(module.network), parameter_count(found.network)
    say(f"{integral.channel_groups(converted)}\n{before:,} parameters are now {after:,}: {target.path}")


def _opened(folder: RunFolder, weights: bool = True) -> tuple[Any, list[Any]]:
    """The module of a run, with its weights or as it starts, and some batches of what it was trained on."""
    words = Words("validate", (), None, str(folder.path), None, (), ())
    found: dict[str, Any] = {}

    class Opened(task_class(words.task_name())):  # type: ignore[misc]  # a class that is looked up
        """The run's options, read as ``ccnn validate`` reads them; nothing is validated."""

        def before_validate(self) -> None:
            pass

        def validate(self, model: Any, datamodule: Any, ckpt_path: str, **_: Any) -> None:
            found["model"] = model.eval()
            if weights:
                datamodule.setup("fit")
                load_weights(model, ckpt_path)
                found["batches"] = list(itertools.islice(datamodule.train_dataloader(), _BATCHES))

    run_task(Opened, words)
    return found["model"], found.get("batches", [])


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
    summary = read_json(source.summary) if source.summary.is_file() else {}
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
