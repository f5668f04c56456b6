"""What earlier versions wrote, checkpoints and configurations of runs, is read by this one."""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from ccnn_irregular import KernelSpec, Solver, datasets
from ccnn_irregular.kernels import GaussianMask
from ccnn_irregular.pipelines.train.earlier import config_argument, migrated, migrated_config, migrated_data

OLD = "ccnn_irregular.pipelines"
RISK = {
    "class_path": f"{OLD}.icu.network.ICURiskNetwork",
    "init_args": {
        "members": 1, "hidden_channels": 4, "blocks": 1, "width": 5.0, "extent": 20.0, "omega_0": 8.0,
        "generator": "siren", "generator_hidden": 6, "dropout": 0.2, "knots": 2, "cap": 6.0, "hours": 48.0,
        "step": 4.0, "thinning": 0.8, "series_dropout": 0.1,
    },
}  # fmt: skip
SERIES = {
    "class_path": f"{OLD}.classification.network.ContinuousClassifier",
    "init_args": {
        "in_channels": 1, "classes": 3, "hidden_channels": 4, "blocks": 1, "extent": [0.5], "width": None,
        "omega_0": 9.0, "generator": "magnet", "generator_hidden": 6, "mask": "cropped", "causal": True,
        "dropout": 0.1, "copies": 2, "latent": {"sizes": [20], "steps": [0.1], "starts": None},
        "filter_bank": {
            "grid": {"sizes": [40], "steps": [0.05], "starts": None}, "channels": 3, "width": [0.04],
            "omega_0": 2.0, "extent": None,
        },
        "rtol": 1e-4,
    },
}  # fmt: skip
FIELD = {
    "class_path": f"{OLD}.field.network.FieldNetwork",
    "init_args": {
        "channels": 1, "axes": [{"name": "y", "kind": "plain"}], "latent": None, "extent": [], "width": [],
        "omega_0": 1.0, "generator": "siren", "generator_hidden": 16,
    },
}  # fmt: skip
VOLUMES = {
    "class_path": f"{OLD}.segmentation.network.ContinuousSegmenter",
    "init_args": {
        "in_channels": 1, "classes": 2, "channels": [4], "steps": [1.0, 1.0, 2.0], "blocks": [0], "width": 0.7,
        "omega_0": 5.0, "generator": "siren", "generator_hidden": 6, "dropout": 0.0,
    },
}  # fmt: skip
CLOUDS = {
    "class_path": f"{OLD}.clouds.networks.CloudClassifier",
    "init_args": {
        "in_channels": 1, "classes": 3, "reading": 0.4, "spacing": 0.5, "positions": [0, 1, 2], "channels": [4],
        "width": 0.8, "blocks": 1, "dropout": 0.0, "generator": "siren", "generator_hidden": 6, "omega_0": 5.0,
    },
}  # fmt: skip
FINER = {
    "class_path": f"{OLD}.downscale.network.DownscalingNetwork",
    "init_args": {
        "in_channels": 1, "hidden_channels": 4, "blocks": 1, "extent": [8.0, 9.0], "width": [3.0, 2.0],
        "omega_0": 3.0, "generator": "magnet", "generator_hidden": 6, "dropout": 0.0,
    },
}  # fmt: skip
ALL = [SERIES, FIELD, VOLUMES, CLOUDS, FINER]


def built(options: dict[str, Any]) -> Any:
    """The network of some options, as the command line builds it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    return parser.instantiate(parser.parse_object({"network": options})).network


# Every option of a data module, as a run folder keeps them.
UNTOLD = {
    "medmnist3d": "organ", "volume_table": "labels.csv", "hdf5_dataset": "volume", "standardise": False,
    "held_speakers": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"dataset": "mnist", **UNTOLD}, {"dataset": "mnist", "options": None}),
        (
            {"dataset": "medmnist3d", **UNTOLD, "medmnist3d": "nodule"},
            {"dataset": "medmnist3d", "options": {"name": "nodule"}},
        ),
        (
            {"dataset": "volume_folder", **UNTOLD, "standardise": True, "volume_table": "table.csv"},
            {"dataset": "volume_folder", "options": {"table": "table.csv", "standardise": True}},
        ),
        (
            {"dataset": "spoken_digits", "held_speakers": ["theo"]},
            {"dataset": "spoken_digits", "options": {"held_speakers": ["theo"]}},
        ),
        ({"dataset": "ghcnm", "drop_flagged": False}, {"dataset": "ghcnm", "options": {"drop_flagged": False}}),
        ({"dataset": "solids", "count": 3}, {"dataset": "simulated_solids", "count": 3}),
        ({"dataset": "terrain"}, {"dataset": "simulated_terrain"}),
        ({"dataset": "simulated", "held": 0.2}, {"dataset": "simulated_fields", "held": 0.2}),
    ],
)
def test_options_of_data_are_those_of_the_loader(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert migrated_data(old) == new
    assert migrated_data(new) == new
    config = migrated_config({"task": "any", "data": old})
    assert config["data"] == new
    datasets.get(new["dataset"]).require_options(new.get("options") or {})


def test_options_of_another_data_set_are_not_lost() -> None:
    data = migrated_data({"dataset": "mnist", **UNTOLD, "held_speakers": ["theo"]})
    with pytest.raises(ValueError, match="options of mnist must be among download, progress, got held_speakers"):
        datasets.get("mnist").require_options(data["options"])


@pytest.mark.parametrize("options", ALL, ids=lambda options: options["class_path"].rpartition(".")[2])
def test_options_of_before_build_the_network_of_now(options: dict[str, Any]) -> None:
    now = migrated(options)
    package, _, name = now["class_path"].rpartition(".")
    network = built(now)
    assert type(network) is getattr(importlib.import_module(package), name)
    assert migrated(now) == now
    assert not set(now["init_args"]) & {"extent", "width", "omega_0", "generator", "generator_hidden", "rtol"}


def test_each_option_goes_where_it_belongs() -> None:
    series = built(migrated(SERIES))
    assert series.kernel == KernelSpec((0.5,), None, 9.0, "magnet", 6, "cropped", causal=True)
    # A filter bank stated its width and frequency; the rest was the network's.
    bank = KernelSpec((0.5,), (0.04,), 2.0, "magnet", 6, "cropped", causal=True)
    assert series.filter_bank.kernel == bank
    assert series.cnn.stem.depthwise.solver == Solver(rtol=1e-4)
    assert built(migrated(FIELD)).kernel is None
    stem = next(iter(built(migrated(VOLUMES)).kernels().values()))
    assert stem.exact_numbers("extent") == pytest.approx([2.1, 2.1, 4.2])
    assert isinstance(stem.mask, GaussianMask)
    assert stem.mask.exact_numbers("initial_width") == pytest.approx([0.7, 0.7, 1.4])
    clouds = built(migrated(CLOUDS)).cnn.encoder.finest
    assert clouds.mask.exact_numbers("initial_width") == pytest.approx([0.4] * 3)
    torch.testing.assert_close(clouds.extent, clouds.support)


def test_a_run_that_is_resumed_has_the_options_of_before() -> None:
    """Every key that this version would write, so that nothing differs."""
    for options in ALL:
        now = migrated(options)["init_args"]
        recipes = [now["kernel"]] if now["kernel"] is not None else []
        recipes += [now["filter_bank"]["kernel"]] if "filter_bank" in now else []
        assert all(recipe.keys() == {one.name for one in fields(KernelSpec)} for recipe in recipes)


def test_the_network_of_the_risk_is_named_with_what_to_train(tmp_path: Path) -> None:
    """It has become a preset of the task of series."""
    (tmp_path / "before.yaml").write_text(yaml.safe_dump({"task": "risk", "model": {"network": RISK}}))
    for call in (lambda: migrated(RISK), lambda: config_argument(tmp_path / "before.yaml")):
        with pytest.raises(
            ValueError, match=r"model.network must be a SeriesNetwork: .*ccnn fit --config physionet2012"
        ):
            call()


def test_other_networks_are_left_alone() -> None:
    mine = {"class_path": "my_package.Network", "init_args": {"extent": [1.0]}}
    assert migrated(mine) == mine
    assert migrated_config({"drop": 0.1, "network": mine}) == {"drop": 0.1, "network": mine}
    assert migrated_config("no configuration") == "no configuration"


def test_a_configuration_of_before_is_given_by_its_content(tmp_path: Path) -> None:
    before, now = tmp_path / "before.yaml", tmp_path / "now.yaml"
    content = {"task": "downscale", "model": {"learning_rate": 0.1, "network": FINER}, "data": {"root": "x"}}
    before.write_text(yaml.safe_dump(content))
    text = config_argument(before)
    schedule = {"learning_rate": 0.1, "mask_rate": 1.0, "decay_generators": False}
    expected = {**content, "model": {"network": migrated(FINER), "schedule": schedule}}
    assert yaml.safe_load(text.removeprefix("--config=")) == expected
    now.write_text(yaml.safe_dump(expected))
    assert config_argument(now) == f"--config={now}"
