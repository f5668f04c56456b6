"""The registry of data sets: what is known by name, what is refused, data sets of one's own, the documentation."""

from __future__ import annotations

import dataclasses
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ccnn_irregular import Grid, datasets
from ccnn_irregular.datasets import DataSet, cifar, mnist, registry, simulated_samples
from ccnn_irregular.datasets.samples import GriddedSamples, LabelledClouds, RaggedSeries, RaggedVolumes, Samples
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.data import SampleDataModule

NAMES = datasets.names()
SIMULATED = [name for name in NAMES if not datasets.get(name).needs_root]
# What stands beside the data sets in the folder.
BESIDE = {"cloud_files", "processing", "reading", "registry", "samples", "tables"}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets that a test registers are gone after it."""
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


def waves(count: int = 60, *, seed: int = 0, rate: float = 20.0) -> RaggedSeries:
    """Sines of two frequencies, one second each."""
    labels = torch.arange(count) % 2
    times = torch.arange(int(rate), dtype=torch.float64) / rate
    phases = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = torch.sin(2 * torch.pi * ((1 + 2 * labels[:, None]) * times + phases)).float()
    splits = torch.arange(count + 1) * len(times)
    return RaggedSeries.uniform(values.reshape(-1, 1), 1 / rate, splits, labels, ("slow", "fast"), "s")


def stored(root: str | Path, part: str = "train", *, scale: float = 1.0) -> GriddedSamples:
    """Images of a ``.npy`` file for each part, which all have the label 0."""
    values = torch.from_numpy(np.load(Path(root) / f"{part}.npy")) * scale
    labels = torch.arange(len(values)) % 2
    return GriddedSamples(values, Grid(values.shape[2:], (1.0, 1.0)), labels, ("even", "odd"), "pixel")


# ------------------------------------------------------------------------------------------------- what is there


def test_every_module_of_a_data_set_registers_it() -> None:
    modules = {module.name for module in pkgutil.iter_modules(datasets.__path__) if not module.name.startswith("_")}
    assert {datasets.get(name).module.rpartition(".")[2] for name in NAMES} == modules - BESIDE


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_described(name: str) -> None:
    described = datasets.describe(name)
    assert described["name"] == name
    assert all(isinstance(text, str) for text in described.values())
    known = datasets.get(name)
    for key in ("about", "shape", "parts", "files", "size", "licence", "source", "checksum", "module"):
        assert described[key], key
    assert (known.fetch is None) == (known.checksum == "none")
    assert "not stated" not in (described["files"], described["source"], described["shape"])


def test_the_documentation_follows_the_registry(repository: Path) -> None:
    columns = ("about", "parts", "files", "size", "licence", "checksum")
    rows = []
    for name in NAMES:
        cells = {key: text.replace("<", "&lt;") for key, text in datasets.describe(name).items()}
        about, *rest = (cells[column] for column in columns)
        rows.append(f"| {' | '.join([f'`{name}`', about, '`' + cells['samples'] + '`', *rest])} |")
    text = (repository / "docs" / "datasets.md").read_text(encoding="utf-8")
    table = text.partition("## All data sets")[2].partition("\n`fetch`")[0]
    assert [line for line in table.splitlines() if line.startswith("| `")] == rows


def test_configurations_name_data_sets_that_are_known() -> None:
    for path in sorted(cli.CONFIGS.glob("*.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8")).get("data", {})
        if "dataset" in data:
            assert data["dataset"] in NAMES, path.name
            datasets.get(data["dataset"]).require_options(data.get("options", {}))


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_data_sets_repeat_with_their_seed_and_follow_the_protocol(name: str) -> None:
    known = datasets.get(name)
    made, again, other = (datasets.load(name, count=12, seed=seed) for seed in (1, 1, 2))
    assert isinstance(made, known.samples)
    assert isinstance(made, Samples)
    about = made.describe()
    assert json.loads(json.dumps(about)) == about
    assert (about["kind"], about["samples"], about["unit"]) == (known.samples.__name__, len(made), made.unit)
    if made.labels is not None:
        labels = np.asarray(made.labels)
        assert list(about["classes"]) == list(made.classes)
        assert list(about["classes"].values()) == np.bincount(labels, minlength=len(made.classes)).tolist()
    first, second, third = (np.asarray(_values(one)) for one in (made, again, other))
    np.testing.assert_array_equal(first, second)
    assert first.shape != third.shape or not np.array_equal(first, third, equal_nan=True)


def _values(samples: Any) -> Any:
    return samples.places if hasattr(samples, "places") else samples.values


def test_by_name_the_same_is_read_as_by_the_module() -> None:
    by_name, by_module = datasets.load("simulated_shapes", count=9, seed=3), simulated_samples.shapes(9, seed=3)
    assert torch.equal(by_name.values, by_module.values)
    assert by_name.grid == by_module.grid
    # The coefficients are made after the recordings are read.
    mfcc = datasets.get("speech_commands_mfcc").features
    assert mfcc is not None
    assert datasets.get("speech_commands").features is None


def test_a_module_stands_for_its_data_set(tmp_path: Path) -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=np.arange(4), x_test=images, y_test=np.arange(4))
    assert datasets.load(mnist, tmp_path, "test").labels.tolist() == [0, 1, 2, 3]
    assert datasets.get(mnist) is datasets.get("mnist")
    with pytest.raises(ValueError, match=r"dataset must be one of the names in .*cifar: cifar10, cifar100"):
        datasets.describe(cifar)
    with pytest.raises(ValueError, match="dataset must be a module that registers a data set, got json"):
        datasets.load(json)


def test_the_registry_loads_no_heavy_package() -> None:
    heavy = ["torch_geometric", "xarray", "h5py", "lightning", "sklearn", "pooch", "nibabel", "matplotlib", "sktime"]
    code = (
        "import sys\nfrom ccnn_irregular import datasets\nassert 'mnist' in datasets.names()\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert process.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("mnits",), {}, r"dataset must be one of argo, .*, mnist, .*, got 'mnits'"),
        (("mnist",), {}, r"root must be given \(--data\.root\) for mnist; it holds the four IDX files .*, got None"),
        (("mnist", "nowhere"), {}, "root must be an existing folder, got nowhere"),
        (("mnist", "nowhere", "validation"), {}, "part must be one of train, test, got 'validation'"),
        (("mnist", "nowhere"), {"rate": 3}, "options of mnist must be among download, progress, got rate"),
        (("ts_files", "a.ts", "test"), {}, "part must be left out: ts_files has no parts, got 'test'"),
        (("cube", "a.nc"), {"axis": ["x"]}, "options of cube must be among variables, axes, fields, stacked, reading"),
        (("simulated_strokes", "folder"), {}, "root must be left out for simulated_strokes, which reads no files"),
        (("simulated_strokes",), {"size": 3}, "options of simulated_strokes must be among count, seed, rate, noise, "),
        (
            ("spoken_digits", "x"),
            {"download": True},
            "spoken_digits must be downloaded by hand, for no checksum is ",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_can(
    arguments: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        datasets.load(*arguments, **options)


def test_only_samples_of_the_right_kind_are_known_to_a_task() -> None:
    assert datasets.names(LabelledClouds) == ("lidar_ground", "shapenet_part", "simulated_terrain")
    with pytest.raises(ValueError, match="dataset must be one of lidar_ground, shapenet_part, simulated_terrain, got"):
        datasets.get("mnist", LabelledClouds)
    with pytest.raises(ValueError, match=r"dataset must be one of character_trajectories, cifar10.*got 'argo'"):
        SampleDataModule("argo", "folder")


@pytest.mark.parametrize("name", NAMES)
def test_files_are_fetched_only_where_a_checksum_is_published(name: str, tmp_path: Path) -> None:
    known = datasets.get(name)
    if known.fetch is not None:
        with pytest.raises(ValueError, match=f"options of fetching {name} must be among .*progress, got speed"):
            datasets.fetch(name, tmp_path, speed=3)
    else:
        expected = (
            "be downloaded by hand, for no checksum is published; its root holds" if known.needs_root else "files"
        )
        with pytest.raises(ValueError, match=f"{name} must .*{expected}"):
            datasets.fetch(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fetching_asks_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(cifar, "download_missing", lambda root, url, sums, progress: asked.append((root, *sums)))
    datasets.fetch("cifar100", tmp_path, progress=False)
    assert asked == [(tmp_path, "cifar-100-binary.tar.gz")]


# ------------------------------------------------------------------------------------------ data sets of one's own


def test_the_page_on_a_new_data_set_is_followed_literally(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs" / "extending.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", page.partition("## A new data set")[2], flags=re.MULTILINE)[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "mine"}
    for block in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
        exec(block, names)  # what a reader pastes
    assert "mine" in datasets.names(RaggedSeries)
    assert names["samples"].splits.diff().min() >= 25
    command = re.search(r"^```sh\nccnn (.*?)\n```", section, flags=re.DOTALL | re.MULTILINE)
    assert command is not None
    network = "--model.network.init_args"
    names["main"]([
        *shlex.split(command[1].replace("\\\n", " ")),
        *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *(f"{network}.hidden_channels", "4", f"{network}.blocks", "1", f"{network}.kernel.hidden", "4"),
    ])  # fmt: skip
    about = json.loads(Path("runs/mine/summary.json").read_text())["data"]
    assert about["dataset"] == "mine"
    assert about["options"] == {"shortest": 25}
    assert sum(about["samples"].values()) == len(names["samples"])
    capsys.readouterr()
    cli.main(["datasets", "mine"])
    printed = capsys.readouterr().out
    assert "sines of two frequencies at irregular times" in printed
    assert "series.npz with values, times, splits and labels" in printed


def test_published_parts_of_ones_own_are_followed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("validation", 4), ("test", 6)):
        np.save(tmp_path / f"{part}.npy", rng.random((count, 1, 5, 5), np.float32))
    parts = ("train", "validation", "test")
    datasets.register(
        DataSet(name="mine", about="images", load=stored, samples=GriddedSamples, parts=parts, files="three files")
    )
    data = SampleDataModule("mine", str(tmp_path), options={"scale": 2.0})
    data.setup("fit")
    for part in ("train", "validation"):
        np.testing.assert_array_equal(data.part(part).values.numpy(), 2 * np.load(tmp_path / f"{part}.npy"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"root must be given .* for mine; it holds three files"):
        SampleDataModule("mine")


def test_a_name_is_taken_once_and_parts_can_be_followed() -> None:
    mine = DataSet(name="mine", about="waves", load=waves, samples=RaggedSeries)
    assert datasets.register(mine) is mine
    with pytest.raises(ValueError, match=r"name must be free \(replace=True takes it over\), got 'mine'"):
        datasets.register(mine)
    assert datasets.register(mine, replace=True) is mine
    refused: list[tuple[dict[str, Any], str]] = [
        ({"name": "mnist"}, "name must be free"),
        ({"name": "my waves"}, "name must hold letters, digits and underscores only, got 'my waves'"),
        ({"parts": ("train", "test")}, "load must have an argument 'part' where parts are named, got"),
        ({"load": stored, "parts": ("train", "validation")}, "parts must hold 'train' and 'test', or be split at rand"),
    ]
    for changed, message in refused:
        given: dict[str, Any] = {"name": "other", "about": "", "load": waves, "samples": RaggedSeries}
        with pytest.raises(ValueError, match=message):
            datasets.register(DataSet(**given | changed))


@pytest.mark.parametrize("module", [registry, datasets])
def test_the_package_offers_what_the_registry_offers(module: ModuleType) -> None:
    assert sorted(module.__all__) == ["DataSet", "describe", "fetch", "get", "load", "names", "register"]


# -------------------------------------------------------------------------------------------------------- joining


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simulated_strokes", {"rate": 20.0}),
        ("simulated_shapes", {"sizes": (4, 5)}),
        ("simulated_volumes", {"voxels": [[6, 6, 6], [6, 8, 12]]}),
    ],
)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=6), st.lists(st.integers(0, 11), min_size=1, max_size=6))
def test_joined_samples_are_those_of_both(
    name: str, options: dict[str, Any], first: list[int], second: list[int]
) -> None:
    samples = _loaded(name, **options)
    head, tail = (samples.subset(torch.tensor(rows)) for rows in (first, second))
    joined, expected = head.joined(tail), samples.subset(torch.tensor(first + second))
    for field, value in vars(expected).items():
        found = getattr(joined, field)
        assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value


_LOADED: dict[str, Any] = {}


def _loaded(name: str, **options: Any) -> Any:
    """Twelve samples, made once."""
    if name not in _LOADED:
        _LOADED[name] = datasets.load(name, count=12, **options)
    return _LOADED[name]


def test_series_keep_what_their_source_calls_them() -> None:
    stays = datasets.load("simulated_icu", count=12).as_series()
    halves = stays.subset(torch.arange(5)), stays.subset(torch.arange(5, 12))
    joined = halves[0].joined(halves[1])
    assert joined.ids is not None
    assert joined.ids.tolist() == stays.ids.tolist()
    assert joined.channels == stays.channels
    with pytest.raises(ValueError, match="samples to be joined must all have ids, or none, got ids of one part"):
        halves[0].joined(dataclasses.replace(halves[1], ids=None))
    with pytest.raises(ValueError, match="samples to be joined must have the same channels"):
        halves[0].joined(dataclasses.replace(halves[1], channels=()))


def test_what_is_not_alike_is_not_joined() -> None:
    images = simulated_samples.shapes(4)
    lengths = torch.tensor([3, 1])
    series = GriddedSamples(torch.zeros(2, 1, 3), Grid((3,), (1.0,)), torch.tensor([0, 1]), ("a", "b"), "s", lengths)
    full = GriddedSamples(series.values, series.grid, series.labels, series.classes, "s")
    joined = full.joined(series).lengths
    assert joined is not None
    assert joined.tolist() == [3, 3, 3, 1]
    with pytest.raises(ValueError, match="samples to be joined must have the same classes"):
        images.joined(series)
    with pytest.raises(ValueError, match="samples to be joined must lie on one grid"):
        images.joined(simulated_samples.shapes(4, sizes=(14, 14)))
    volumes = datasets.load("simulated_volumes", count=2)
    assert isinstance(volumes, RaggedVolumes)
    other = RaggedVolumes(volumes.values, volumes.grids, volumes.labels, volumes.classes, "voxel")
    with pytest.raises(ValueError, match="samples to be joined must have the same unit"):
        volumes.joined(other)
