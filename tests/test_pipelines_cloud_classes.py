"""Your own clouds with a class each: folders, tables, clouds of torch-geometric; every file is answered by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from ccnn_irregular import datasets
from ccnn_irregular.datasets import registry
from ccnn_irregular.datasets.samples import ShapePool
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.cloud_classification.data import ShapeDataModule

QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
SMALL = [
    *("--trainer.max_epochs", "4", "--data.points", "128", "--data.changes.fewest", "100", "--data.batch_size", "8"),
    *("--model.network.init_args.channels", "[8, 16]", "--model.network.init_args.kernel.hidden", "8"),
    *("--model.network.init_args.spacing", "0.5", "--model.network.init_args.reading", "0.3"),
    *("--model.schedule.learning_rate", "0.02"),
]


def cloud(kind: str, seed: int, count: int = 150) -> NDArray[np.float64]:
    """A ball's surface or a thin rod, somewhere, of some size."""
    rng = np.random.default_rng(seed)
    ball = rng.standard_normal((count, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    rod = np.column_stack([0.1 * ball[:, :2], rng.uniform(-1, 1, count)])
    return rng.uniform(1, 50) * (ball if kind == "ball" else rod) + rng.uniform(1e5, 2e5, 3)


def write_ply(path: Path, places: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.empty(len(places), [("x", "f8"), ("y", "f8"), ("z", "f8")])
    table["x"], table["y"], table["z"] = places.T
    plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")]).write(str(path))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in ``run``, trained on a folder for each class."""
    folder = tmp_path_factory.mktemp("classes")
    for number in range(16):
        for kind in ("ball", "rod"):
            write_ply(folder / "clouds" / kind / f"{number}.ply", cloud(kind, number))
    root = ["--data.root", str(folder / "clouds"), "--run_dir", str(folder / "run")]
    cli.main(["fit", "--config", "cloud_classes", *root, *SMALL, *QUIET])
    return folder


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets that a test registers are gone after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_every_file_is_answered_by_its_name(trained: Path) -> None:
    for number, kind in enumerate(("rod", "ball", "rod")):
        write_ply(Path(f"new/scan_{number}.ply"), cloud(kind, 100 + number))
    command = ["predict", "--run_dir", str(trained / "run"), *QUIET]
    cli.main([*command, "--data.root", "new", "--output", "classes.csv"])
    found = rows("classes.csv")
    assert [row["id"] for row in found] == ["scan_0.ply", "scan_1.ply", "scan_2.ply"]
    assert [row["prediction"] for row in found] == ["rod", "ball", "rod"]
    assert list(found[0]) == ["id", "prediction", "probability_ball", "probability_rod"]
    # One file alone is answered as it is beside others.
    cli.main([*command, "--data.root", "new/scan_1.ply", "--output", "one.csv"])
    assert rows("one.csv") == [found[1]]


def test_a_new_source_is_tested_by_a_table(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ["ball", "rod", "rod", "ball"]
    for number, kind in enumerate(kinds):
        write_ply(Path(f"new/{number}.ply"), cloud(kind, 200 + number))
    lines = [f"{number}.ply,{kind}" for number, kind in enumerate(kinds)]
    Path("new/labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    command = ["test", "--run_dir", str(trained / "run"), "--data.root", "new", "--data.evaluate", "all", *QUIET]
    cli.main(command)
    report = json.loads((trained / "run" / "test_all" / "metrics.json").read_text())
    assert report["weighted"][0]["n"] == 4
    assert report["weighted"][0]["accuracy"] == 1.0
    Path("new/labels.csv").write_text("file,label\n0.ply,cube\n")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(command)
    assert "be of the classes that the checkpoint was trained on, ball, rod, got cube" in capsys.readouterr().err


def test_classes_and_names_of_files(trained: Path) -> None:
    pool = datasets.load("cloud_folder", trained / "clouds")
    assert pool.classes == ("ball", "rod")
    assert pool.names[:2] == ("ball/0.ply", "ball/1.ply")
    assert torch.bincount(pool.labels).tolist() == [16, 16]
    assert float(pool.places.abs().max()) == pytest.approx(1.0)
    nothing = datasets.load("cloud_folder", trained / "clouds", labelled=False)
    assert nothing.names == pool.names
    assert set(nothing.labels.tolist()) == {-1}


def test_a_list_of_torch_geometric_is_trained_on() -> None:
    clouds = [Data(pos=cloud(kind, n), y=y) for n in range(10) for y, kind in enumerate(("ball", "rod"))]
    names = [f"scan {number}" for number in range(20)]
    pool = ShapePool.from_data(clouds, ["ball", "rod"], names)
    datasets.register(datasets.DataSet(name="mine", about="scans", load=lambda: pool, samples=ShapePool), replace=True)
    data = ShapeDataModule("mine", points=50)
    data.setup("fit")
    assert data.inferred() == {"classes": 2, "in_channels": 1}
    assert sorted(name for part in ("train", "validation", "test") for name in data.ids(part)) == sorted(names)
    from_files = np.asarray(pool.places[:150])
    wanted = cloud("ball", 0)
    wanted = (wanted - (wanted.min(0) + wanted.max(0)) / 2) / (np.ptp(wanted, axis=0).max() / 2)
    np.testing.assert_allclose(from_files, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Data(pos=torch.zeros(4, 2), y=0), r"pos of cloud 0 must have shape \(N, 3\), got \(4, 2\)"),
        (Data(y=0), "pos of cloud 0 must have shape"),
        (Data(pos=torch.zeros(4, 3)), r"y of cloud 0 must lie in 0\.\.1, got None"),
        (Data(pos=torch.zeros(4, 3), y=5), r"y of cloud 0 must lie in 0\.\.1, got 5"),
    ],
)
def test_clouds_that_do_not_fit_are_named(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ShapePool.from_data([given], ["ball", "rod"])


def test_files_that_do_not_fit_are_named() -> None:
    write_ply(Path("clouds/a.ply"), cloud("ball", 0))
    with pytest.raises(
        ValueError, match=r"a\.ply must lie in a folder of clouds named by its class, or .* labels\.csv"
    ):
        datasets.load("cloud_folder", "clouds")
    Path("clouds/labels.csv").write_text("file,label\nb.ply,ball\n")
    with pytest.raises(FileNotFoundError, match=r"b\.ply"):
        datasets.load("cloud_folder", "clouds")
    Path("clouds/labels.csv").write_text("file,label\na.ply,ball\n")
    with pytest.raises(ValueError, match="be among rod, cone, got ball"):
        datasets.load("cloud_folder", "clouds", classes=["rod", "cone"])
