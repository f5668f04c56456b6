"""Options of networks and data as earlier versions wrote them, into checkpoints and the configurations of runs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import yaml

from ccnn_irregular._checks import reject
from ccnn_irregular._files import refuse_file
from ccnn_irregular.pipelines.train.schedule import Schedule
from ccnn_irregular.pipelines.train.texts import read_yaml

__all__ = ["config_argument", "migrated", "migrated_config", "migrated_data", "read_config"]

_SECTIONS = ("trainer", "model", "data", "early_stopping")

_TASKS = "ccnn_irregular.pipelines.tasks"
# Each network that earlier versions trained -> the module that holds it now.
_MODULES = {
    "ContinuousClassifier": f"{_TASKS}.classification.network",
    "FixedKernelClassifier": f"{_TASKS}.classification.network",
    "ContinuousSegmenter": f"{_TASKS}.segmentation.network",
    "FixedKernelSegmenter": f"{_TASKS}.segmentation.network",
    "FieldNetwork": f"{_TASKS}.field.network",
    "DownscalingNetwork": f"{_TASKS}.downscale.network",
    "CloudClassifier": f"{_TASKS}.cloud_classification.network",
    "CloudSegmenter": f"{_TASKS}.cloud_segmentation.network",
    "PointNetClassifier": f"{_TASKS}.cloud_classification.baselines",
}
# Each option that was a network's own -> its name in the recipe of the kernels.
_OF_KERNEL = {
    "extent": "extent",
    "width": "width",
    "omega_0": "omega_0",
    "generator": "generator",
    "generator_hidden": "hidden",
    "mask": "mask",
    "causal": "causal",
}
_OF_SCHEDULE = tuple(field.name for field in dataclasses.fields(Schedule))
# What no option told.
_UNTOLD = {
    "extent": None,
    "mask": "smooth",
    "threshold": None,
    "learned_mean": False,
    "causal": False,
    "isotropic": False,
}
# Each data set that had another name -> its name in the registry.
_DATASETS = {"solids": "simulated_solids", "terrain": "simulated_terrain", "simulated": "simulated_fields"}
# Each option that all data sets had for the sake of one -> its name in the loader of that one, and what no option told.
_OF_DATASET: dict[str, tuple[str, Any]] = {
    "medmnist3d": ("name", "organ"),
    "volume_table": ("table", "labels.csv"),
    "hdf5_dataset": ("hdf5_dataset", "volume"),
    "standardise": ("standardise", False),
    "held_speakers": ("held_speakers", []),
    "drop_flagged": ("drop_flagged", True),
}
# Kernels of the U-net ended at this many widths.
_UNET_EXTENT = 3.0


def migrated(network: dict[str, Any]) -> dict[str, Any]:
    """Options of a network as this version writes them; those of this version, and of other networks, unchanged.

    Args:
        network: ``class_path`` and ``init_args``, of a checkpoint or a configuration.

    Raises:
        ValueError: a network that is no more, with what to train in its place.
    """
    package, _, name = str(network.get("class_path")).rpartition(".")
    if package.startswith("ccnn_irregular.pipelines.") and name == "ICURiskNetwork":
        rule = "be a SeriesNetwork: stays in intensive care are a preset of the task series (ccnn fit --config"
        reject("model.network", f"{rule} physionet2012 trains it anew; the version that wrote this one reads it)", name)
    if not package.startswith("ccnn_irregular.pipelines.") or name not in _MODULES:
        return network
    arguments = dict(network.get("init_args") or {})
    recipe = {new: arguments.pop(old) for old, new in _OF_KERNEL.items() if old in arguments}
    if recipe:
        recipe = {**_UNTOLD, **recipe}
        if name == "ContinuousSegmenter":
            recipe["extent"] = _UNET_EXTENT * recipe["width"]
        # A field without a latent grid has no kernels, and had no lengths.
        arguments["kernel"] = None if recipe["extent"] == [] else recipe
    if "rtol" in arguments:
        arguments["solver"] = {"engine": "auto", "rtol": arguments.pop("rtol")}
    if recipe and arguments.get("filter_bank"):
        arguments["filter_bank"] = _filter_bank(arguments["filter_bank"], recipe)
    return {**network, "class_path": f"{_MODULES[name]}.{name}", "init_args": arguments}


def migrated_data(data: dict[str, Any]) -> dict[str, Any]:
    """Options of a data module as this version writes them; those of this version unchanged.

    What a loader does not take stays among its options, where it is refused.
    """
    old = {name: data[name] for name in _OF_DATASET if name in data}
    told = {_OF_DATASET[name][0]: value for name, value in old.items() if value != _OF_DATASET[name][1]}
    kept = {name: value for name, value in data.items() if name not in old}
    options = {"options": {**(data.get("options") or {}), **told} or None} if old else {}
    return {**kept, **options, "dataset": _DATASETS.get(data["dataset"], data["dataset"])}


def migrated_config(config: Any) -> Any:
    """A configuration, or what a checkpoint keeps under ``model``, with the options of network and data migrated."""
    if not isinstance(config, dict):
        return config
    changed = {"model": migrated_config(config["model"])} if "model" in config else {}
    if isinstance(config.get("data"), dict):
        data = migrated_data(config["data"]) if "dataset" in config["data"] else config["data"]
        # What a test looks at when nothing is said, under its former name.
        changed["data"] = {name: value for name, value in data.items() if (name, value) != ("evaluate", "held_out")}
    if not isinstance(config.get("network"), dict):
        return {**config, **changed}
    changed["network"] = migrated(config["network"])
    schedule = {name: config[name] for name in _OF_SCHEDULE if name in config}
    if schedule:  # what no option told
        schedule = {"mask_rate": 1.0, "decay_generators": False} | schedule
    kept = {name: value for name, value in config.items() if name not in schedule}
    return {**kept, **changed, **({"schedule": schedule} if schedule else {})}


def read_config(path: Path) -> dict[str, Any]:
    """A configuration, its options as this version writes them.

    Raises:
        DamagedFileError: see ``read_yaml``; sections that hold no options.
    """
    content = read_yaml(path)
    for name in _SECTIONS:
        if not isinstance(content.get(name, {}), dict | None):
            refuse_file(path, f"hold options below {name}", repr(content[name])[:80])
    try:
        migrated: dict[str, Any] = migrated_config(content)
    except (TypeError, AttributeError, KeyError) as error:  # of nested options of another type than any version wrote
        refuse_file(path, "be a configuration of ccnn", repr(error))
    return migrated


def config_argument(path: str | os.PathLike[str], *, behind_another: bool = False) -> str:
    """``--config`` for a file, by its content where an earlier version wrote it.

    The grids of a file ``behind_another`` say themselves whether they repeat: they do not inherit the other's globe.
    """
    content, now = read_yaml(Path(path)), read_config(Path(path))
    now = _whole_grids(now) if behind_another else now
    return f"--config={path if now == content else yaml.safe_dump(now, sort_keys=False)}"


def _whole_grids(options: Any) -> Any:
    """Options in which each grid with sizes of its own has ``periodic`` too."""
    if not isinstance(options, dict):
        return options
    whole = {name: _whole_grids(value) for name, value in options.items()}
    arguments = whole.get("init_args")
    if isinstance(arguments, dict) and {"sizes", "steps"} <= arguments.keys():
        whole["init_args"] = {"periodic": False} | arguments
    return whole


def _filter_bank(options: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """A filter bank, whose kernels took what they did not state from the network's."""
    lengths = {name: options[name] for name in ("extent", "width", "omega_0") if options.get(name) is not None}
    rest = {name: value for name, value in options.items() if name not in ("extent", "width", "omega_0")}
    return {**rest, "kernel": {**recipe, **lengths}}
