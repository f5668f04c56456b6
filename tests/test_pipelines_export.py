"""``ccnn export``: trained networks as files whose answers, in PyTorch and in onnxruntime, are those of the network."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pipelines_commands import refused
from test_pipelines_classification import QUIET, TINY
from test_pipelines_segmentation import TINY as LEVELS
from test_pipelines_segmentation import pairs
from torch import Tensor

from ccnn_irregular import Grid
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.export.costs import flops
from ccnn_irregular.pipelines.export.files import METADATA
from ccnn_irregular.pipelines.export.networks import _Intensities
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.segmentation.batch import VolumeBatch, standardised
from ccnn_irregular.pipelines.train.opened import opened
from ccnn_irregular.pipelines.train.outputs import sha256
from ccnn_irregular.pipelines.train.run_folder import RunFolder

__all__ = ["pairs"]  # what the tests there need is needed here

pytestmark = [
    pytest.mark.usefixtures("in_tmp_path"),
    pytest.mark.filterwarnings(r"ignore:.*torch.*onnx.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def without_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.export notes of each step of its own would be kept by pytest, a large part of the time."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)


def fitted(config: str, *options: str) -> Path:
    """A run of a few batches."""
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "4", *QUIET]
    cli.main(["fit", "--config", config, *options, *few])
    return Path("runs", config)


def exported(run: Path, form: str, name: str, *options: str) -> Path:
    cli.main(["export", "--run_dir", str(run), "--format", form, "--output", name, *options])
    return Path(name)


def by_onnxruntime(path: Path, *inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return torch.from_numpy(session.run(None, {n: i.numpy() for n, i in zip(names, inputs, strict=True)})[0])


def by_torch(path: Path, *inputs: Tensor) -> Tensor:
    return torch.export.load(str(path)).module()(*inputs)


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(str(path)).graph.node}


def assert_same(found: Tensor, expected: Tensor, share: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm()) <= share * float(expected.norm())


def test_images(capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted("simulated_shapes", "--data.count", "60", *TINY)
    capsys.readouterr()
    path = exported(run, "onnx", "net.onnx")
    told = capsys.readouterr().out
    assert "as trained, PyTorch" in told
    assert "exported, onnxruntime" in told
    assert "nothing left out" in told
    model, data = opened(RunFolder(run))
    data.setup("fit")
    batch = data.typical_batch()
    with torch.no_grad():
        expected = model.network(batch)
    assert_same(by_onnxruntime(path, batch.values), expected)
    assert_same(by_onnxruntime(path, batch.values[:1]), expected[:1])
    assert not {name for name in operators(path) if "DFT" in name}
    stored = {entry.key: json.loads(entry.value) for entry in onnx.load(str(path)).metadata_props}
    assert stored["classes"] == list(data.classes)
    assert (stored["size"], stored["spacing"]) == ([28, 28], [1.0, 1.0])
    assert (stored["channels"], stored["unit"], stored["task"]) == (1, data.samples.unit, "classification")
    assert stored["checkpoint sha256"] == sha256(run / "best.ckpt")
    assert json.loads(Path("net.onnx.json").read_text())["made by"] == "ccnn export"

    tiles = exported(run, "shiftwise", "tiles.pt2", "--tolerance", "0.05", "--width", "3")
    told = capsys.readouterr().out
    assert "tiles" in told
    assert "of what its kernel could make of the largest value" in told
    assert_same(by_torch(tiles, batch.values), expected, 0.3)
    extra = {METADATA: ""}
    torch.export.load(str(tiles), extra_files=extra)
    assert json.loads(extra[METADATA])["tolerance"] == 0.05
    # Its own output is written anew; anything else is left as it is.
    before = tiles.read_bytes()
    tiles.write_bytes(before + b" ")
    wrong = refused(capsys, "export", "--run_dir", str(run), "--format", "shiftwise", "--output", "tiles.pt2")
    assert "which was changed since it was written" in wrong
    assert tiles.read_bytes() == before + b" "


def test_recordings_shorter_than_their_window(capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted("simulated_digits", "--data.count", "200", *TINY)
    path = exported(run, "torch", "net.pt2")
    model, data = opened(RunFolder(run))
    data.setup("fit")
    batch = data.typical_batch()
    lengths = batch.sampled[:, 0].sum(1)
    assert len(lengths.unique()) > 1
    with torch.no_grad():
        expected = model.network(batch)
        assert_same(by_torch(path, batch.values, lengths), expected)
    grid = batch.domain
    asked = ["--size", str(grid.sizes[0]), "--spacing", str(grid.steps[0])]
    whole = exported(run, "torch", "whole.pt2", *asked)  # no data are read
    everywhere = SampleBatch(batch.values, grid, batch.labels)
    with torch.no_grad():
        assert_same(by_torch(whole, batch.values), model.network(everywhere))


def test_volumes_with_labels(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", *QUIET]
    cli.main(["fit", "--config", "segmentation", "--data.root", str(pairs), *LEVELS, "--data.validation", "0.15", *few])
    run = Path("runs/segmentation")
    said = refused(capsys, "export", "--run_dir", str(run), "--format", "onnx", "--output", "net.onnx")
    assert "the run's volumes must lie on one grid, or the one on which they will come be given with --size" in said
    asked = ["--size", "9", "8", "7", "--spacing", "1", "1.5", "2"]
    path = exported(run, "onnx", "net.onnx", *asked)
    model, _ = opened(RunFolder(run))
    grid = Grid([9, 8, 7], [1.0, 1.5, 2.0])
    volumes = 50 + 20 * torch.randn(2, 1, *grid.sizes)
    with torch.no_grad():
        batches = [model.standardised(VolumeBatch("", one[None], grid, grid, None)) for one in volumes]
        expected = torch.cat([model.network(batch) for batch in batches])
    assert_same(by_onnxruntime(path, volumes), expected)
    tiles = exported(run, "shiftwise", "net.pt2", *asked, "--tolerance", "0")
    assert_same(by_torch(tiles, volumes), expected)
    wrong = ["--run_dir", str(run), "--format", "onnx", "--output", "b.onnx", "--size", "9", "--spacing", "1"]
    assert "size must have 3 entries, one for each axis of the network" in refused(capsys, "export", *wrong)


def test_what_cannot_be_exported_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted("simulated_strokes", "--data.count", "60", *TINY)
    given = ["export", "--run_dir", str(run), "--format"]
    said = refused(capsys, *given, "torch", "--output", "net.pt2")
    assert "which no option makes of this one (ccnn predict answers for files; of series" in said
    assert "train with --data.window LENGTH and --model.network.init_args.presence false" in said
    assert "--size" not in said
    again = refused(capsys, *given, "torch", "--output", "net.pt2", "--size", "20", "--spacing", "0.1")
    assert again == said
    assert "output must end in .onnx for onnx, got net.pt2" in refused(capsys, *given, "onnx", "--output", "net.pt2")
    said = refused(capsys, *given, "onnx", "--output", "net.onnx", "--size", "20")
    assert "size and spacing must be given together" in said
    Path("net.onnx").write_text("mine")
    assert "of which no net.onnx.json tells" in refused(capsys, *given, "onnx", "--output", "net.onnx")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("task: classification", "task: series"))
    said = refused(capsys, *given, "torch", "--output", "net.pt2")
    assert "one of the task series: each series has times of its own; ccnn predict answers for files" in said
    assert not Path("net.pt2").exists()


def test_series_of_a_network_for_grids_ask_for_the_grid(capsys: pytest.CaptureFixture[str]) -> None:
    absent = ["--model.network.init_args.presence", "false"]
    run = fitted("simulated_strokes", "--data.count", "60", *TINY, *absent)
    given = ["export", "--run_dir", str(run), "--format", "torch", "--output", "net.pt2"]
    said = refused(capsys, *given)
    assert "series, each at times of its own with weights of its own" in said
    assert "--data.window" in said
    cli.main([*given, "--size", "20", "--spacing", "0.1"])
    assert Path("net.pt2").is_file()


@pytest.mark.parametrize("compressed", [True, False])
def test_intensities_are_standardised_as_in_training(compressed: bool) -> None:
    draw = np.random.default_rng(0)
    rare = np.where(draw.random((5, 6, 7)) < 0.005, 9.0, 0.0)
    rare[0, 0, 0] = 9.0
    volumes = {
        "ordinary": draw.normal(100, 20, (5, 6, 7)),
        "large": 1e6 + draw.normal(0, 50, (5, 6, 7)),
        "outliers": np.where(draw.random((5, 6, 7)) < 0.02, 1e5, draw.normal(0, 1, (5, 6, 7))),
        "empty but for one voxel": rare,
        "constant": np.full((5, 6, 7), 0.1),
    }
    layer = _Intensities(5 * 6 * 7, compressed)
    for name, volume in volumes.items():
        values = torch.tensor(volume, dtype=torch.float32)[None]
        expected = standardised(values, "compressed" if compressed else "clipped")
        assert torch.allclose(layer(values[None])[0], expected, atol=2e-5, rtol=2e-5), name


def test_operations_of_transforms_are_counted() -> None:
    def run(values: Tensor, weight: Tensor) -> Any:
        return torch.fft.irfft(torch.fft.rfft(values), n=64), torch.nn.functional.conv1d(values, weight)

    counted = flops(run, (torch.randn(2, 3, 64), torch.randn(4, 3, 1)))
    transforms = 2 * (5 * 2 * 3 * 64 * 6) // 2
    assert counted == transforms + 2 * 2 * 4 * 3 * 64
