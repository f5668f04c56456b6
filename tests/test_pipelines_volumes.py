"""Classification of volumes: batches of equal grids, other voxel sizes, several filters of one channel, end to end."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from ccnn_irregular import KernelSpec, convolve
from ccnn_irregular.datasets import simulated_volumes
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedVolumes, average_cells
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.augmentation import Augmentation
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule
from ccnn_irregular.pipelines.tasks.classification.network import (
    ContinuousClassifier,
    FixedKernelClassifier,
    GridOptions,
)
from ccnn_irregular.pipelines.tasks.classification.sampling import Sampling
from ccnn_irregular.pipelines.train.batches import AlikeBatches
from ccnn_irregular.pipelines.train.draws import Draws

pytestmark = pytest.mark.usefixtures("in_tmp_path")
QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


# -------------------------------------------------------------------------------------------------------- batches


def test_batches_hold_one_kind_and_every_sample_once() -> None:
    samples = np.arange(100, 141)
    kinds = np.random.default_rng(0).integers(0, 3, 41)
    kind_of = dict(zip(samples.tolist(), kinds.tolist(), strict=True))
    batches = AlikeBatches(samples, kinds, 4, shuffle_seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        drawn = [batch.tolist() for batch in batches]
        assert sorted(itertools.chain(*drawn)) == samples.tolist()
        assert len(drawn) == len(batches) == sum(-(-int(count) // 4) for count in np.bincount(kinds))
        assert all(len({kind_of[one] for one in batch}) == 1 and len(batch) <= 4 for batch in drawn)
        epochs.append(drawn)
    assert epochs[0] == epochs[2] != epochs[1]
    assert [kind_of[batch[0]] for batch in epochs[0]] != sorted(kind_of[batch[0]] for batch in epochs[0])
    plain = AlikeBatches(samples, kinds, 4, None)
    drawn = [batch.tolist() for batch in plain]
    assert list(itertools.chain(*drawn)) == samples.tolist()
    assert len(drawn) == len(plain)


def test_scans_come_in_batches_of_one_grid_and_are_tested_in_order() -> None:
    data = SampleDataModule("simulated_volumes", count=90, batch_size=8)
    data.setup("fit")
    assert isinstance(data.samples, RaggedVolumes)
    batches = list(data.train_dataloader())
    assert sum(len(batch) for batch in batches) == len(data.part("train"))
    assert {batch.domain for batch in batches} == set(data.samples.grids)
    assert all(batch.values.shape[2:] == batch.domain.sizes for batch in batches)  # type: ignore[union-attr]
    held = data.sampled_part("test", Sampling())
    tested = list(data.loader("test"))
    assert torch.equal(torch.cat([batch.labels for batch in tested]), held.labels)
    assert torch.equal(tested[0].values[0], held.volume(0))  # type: ignore[union-attr]
    typical = data.typical_batch()
    assert 1 <= len(typical) <= 8
    with pytest.raises(ValueError, match=r"test\.volume_size must be asked for volumes only"):
        data.sampled_part("test", Sampling(volume_size=(4, 4, 4)))
    with pytest.raises(ValueError, match=r"test\.rate must be asked for series only"):
        data.sampled_part("test", Sampling(rate=2.0))


def test_official_validation_parts_are_used_as_such(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 5), ("val", 3), ("test", 4)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 2)[:, None]
    np.savez(tmp_path / "nodulemnist3d.npz", **arrays)
    data = SampleDataModule("medmnist3d", str(tmp_path), options={"name": "nodule"}, validation=0.5)
    data.setup("fit")
    for part, prefix in (("train", "train"), ("validation", "val")):
        values = data.part(part).values  # type: ignore[arg-type]
        np.testing.assert_array_equal(values[:, 0].numpy(), arrays[f"{prefix}_images"] / np.float32(255))
    assert len(data.sampled_part("test", Sampling(volume_size=(14, 28, 28)))) == 4
    assert data.describe()["samples"] == {"train": 5, "validation": 3, "test": 4}
    assert data.describe()["options"] == {"name": "nodule"}


# -------------------------------------------------------------------------------------------------------- networks


def test_one_channel_for_several_filters_is_transformed_once_with_the_same_result() -> None:
    torch.manual_seed(0)
    kernel = KernelSpec(extent=[4.0, 4.0, 4.0], width=[1.5, 1.0, 2.0], omega_0=0.5)(3).double()
    source, query = Grid((6, 7, 5), (1.0, 1.5, 2.0)), Grid((3, 4, 5), (2.0, 2.5, 2.0), (0.3, 0.0, 0.5))
    one = torch.randn(2, 1, *source.sizes, dtype=torch.float64, requires_grad=True)
    for grid in (None, query):
        results = [
            convolve(kernel, values, source, grid, engine=engine)  # type: ignore[arg-type]
            for values, engine in (
                (one.expand(-1, 3, *source.sizes), "fft"),
                (one.repeat(1, 3, 1, 1, 1), "fft"),
                (one.repeat(1, 3, 1, 1, 1), "reference"),
            )
        ]
        parameters = [one, *kernel.parameters()]
        factor = torch.randn_like(results[0].detach())
        slopes = [torch.autograd.grad((result * factor).sum(), parameters) for result in results]
        for result, slope in zip(results[1:], slopes[1:], strict=True):
            torch.testing.assert_close(result, results[0])
            torch.testing.assert_close(slope, slopes[0])
    with torch.no_grad():
        torch.testing.assert_close(convolve(kernel, one.expand(-1, 3, *source.sizes), source, query), results[0])


def classifier() -> ContinuousClassifier:
    torch.manual_seed(0)
    latent = GridOptions([6, 6, 6], [4.0, 4.0, 4.0], [-10.0, -10.0, -10.0])
    kernel = KernelSpec(extent=[12.0] * 3, width=[2.5] * 3, omega_0=0.3, hidden=8)
    return ContinuousClassifier(1, 6, 8, 1, kernel=kernel, copies=4, latent=latent)


def test_answers_hardly_depend_on_the_voxels() -> None:
    scans = simulated_volumes.textured_shapes(12, seed=1, voxels=[(1.0, 1.0, 1.0)], noise=0.0).stacked()
    network = classifier()
    network.prepare(SampleBatch.of(scans), (scans.values, None))
    # Kernels below what voxels of 2 mm carry, as alias_penalty makes them.
    network.eval()
    with torch.no_grad():
        assert float(network.energy_above([2.0] * 3)) < 0.05
        answers = network(SampleBatch.of(scans))
        for sizes in ((12, 24, 24), (16, 20, 24), (12, 12, 12)):
            other = network(SampleBatch.of(average_cells(scans, sizes)))
            assert float((other - answers).std() / answers.std()) < 0.15
        shuffled = network(SampleBatch.of(scans).to("cpu")).roll(1, 0)
    assert float((shuffled - answers).std() / answers.std()) > 0.5


def test_empty_volumes_train_and_are_answered() -> None:
    values = torch.zeros(8, 1, 10, 10, 10)
    values[4:, :, 3:7, 3:7, 3:7] = 1
    grid = Grid((10, 10, 10), (2.4,) * 3, (-10.8,) * 3)
    batch = SampleBatch(values, grid, torch.arange(8) % 6)
    for network in (classifier(), FixedKernelClassifier(1, 6, 3, 4, 1)):
        network.prepare(batch, (values, None))
        logits = network(batch)
        torch.nn.functional.cross_entropy(logits, batch.labels).backward()
        slopes = [one.grad for one in network.parameters() if one.grad is not None]
        assert bool(logits.isfinite().all())
        assert all(bool(slope.isfinite().all()) for slope in slopes)
        assert any(bool((slope != 0).any()) for slope in slopes)


def test_mirroring_follows_the_axes_that_are_named() -> None:
    torch.manual_seed(0)
    scans = simulated_volumes.textured_shapes(60, seed=1, voxels=[(4.0, 4.0, 4.0)]).stacked()
    changed = Augmentation(flip=(0, 2))(SampleBatch.of(scans), Draws(0, 0, torch.arange(len(scans)))).values
    kinds = {(): 0, (0,): 0, (2,): 0, (0, 2): 0}
    for before, after in zip(scans.values, changed, strict=True):
        (axes,) = [
            one for one in kinds if torch.equal(after, before.flip([1 + axis for axis in one]) if one else before)
        ]
        kinds[axes] += 1
    assert all(5 <= count <= 30 for count in kinds.values())
    with pytest.raises(ValueError, match=r"flip must name axes of the grid, 0 to 2, each once, got \(3,\)"):
        Augmentation(flip=(3,))(SampleBatch.of(scans), Draws(0, 0, torch.arange(len(scans))))


# ------------------------------------------------------------------------------------------------------ end to end


def test_voxels_of_another_size_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Boxes along axis 0 and along axis 2, ten voxels a side; the official file's names and a few empty grids."""
    rng = np.random.default_rng(0)
    grids, labels = np.zeros((44, 10, 10, 10), np.uint8), np.arange(44) % 2
    for grid, label in zip(grids[:-2], labels[:-2], strict=True):
        low = rng.integers(1, 5, 3)
        long, short = slice(1, 9), [slice(start, start + 3) for start in low]
        grid[(long, short[1], short[2]) if label else (short[0], short[1], long)] = 1
    np.savez(tmp_path / "modelnet10_voxels.npz", X_train=grids, y_train=labels, X_test=grids[:20], y_test=labels[:20])
    network = "--model.network.init_args"
    options = [
        *("--config", "volumes", *QUIET, "--data.root", str(tmp_path), "--data.validation", "0.25"),
        *("--trainer.max_epochs", "6", f"{network}.hidden_channels", "8", f"{network}.blocks", "1"),
        *(f"{network}.copies", "3", f"{network}.kernel.hidden", "8", "--data.batch_size", "8"),
        *(f"{network}.latent", "{sizes: [5, 5, 5], steps: [2.0, 2.0, 2.0], starts: [0.5, 0.5, 0.5]}"),
    ]
    with pytest.warns(UserWarning, match="20 of the samples to test on are in the training or validation part"):
        cli.main(["fit", *options])
    cli.main(["test", *options, "--test.volume_size", "5x10x10", "8x8x8"])
    printed = capsys.readouterr().out
    assert "5 x 10 x 10 voxels" in printed
    assert "20 of 20 test samples equal one trained on or validated with, 0 with another label" in printed
    assert "without them: none are left" in printed
    report = json.loads(Path("runs/volumes/test/metrics.json").read_text())
    results, overlap = report["results"], report["overlap"]
    assert overlap["twins"] == overlap["trained_on"] + overlap["chose_epoch"] == 20
    assert [one["sampling"] for one in results] == ["as trained", "5 x 10 x 10 voxels", "8 x 8 x 8 voxels"]
    assert all(one["accuracy"] >= 0.8 for one in results)


def test_a_folder_of_scans_of_several_voxels_is_learned(tmp_path: Path) -> None:
    """Bright and dark rods along the first and the last axis, each file with voxels and sizes of its own."""
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    for number in range(40):
        steps = (2.0, 1.0, 1.0) if number % 3 else (1.0, 1.5, 1.5)
        sizes = [int(12 / step) for step in steps]
        values = 100 * number + rng.normal(0, 1, sizes)
        middle = [slice(size // 3, 2 * size // 3) for size in sizes]
        middle[0 if number % 2 else 2] = slice(None)
        values[tuple(middle)] += 10
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.diag([*steps, 1])), tmp_path / f"{number}.nii")
        lines.append(f"{number}.nii,{'along x' if number % 2 else 'along z'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    network = "--model.network.init_args"
    options = [
        *("--config", "simulated_volumes", *QUIET, "--data.dataset", "volume_folder", "--data.root", str(tmp_path)),
        *(
            "--data.options.standardise",
            "true",
            "--data.test",
            "0.25",
            "--data.batch_size",
            "8",
            f"{network}.classes",
            "2",
        ),
        *(f"{network}.hidden_channels", "8", f"{network}.blocks", "1", f"{network}.kernel.hidden", "8"),
        *(f"{network}.latent", "{sizes: [6, 6, 6], steps: [2.0, 2.0, 2.0], starts: [-5.0, -5.0, -5.0]}"),
        *("--trainer.max_epochs", "8"),
    ]
    cli.main(["fit", *options])
    cli.main(["test", *options])
    (result,) = json.loads(Path("runs/simulated_volumes/test/metrics.json").read_text())["results"]
    assert (result["n"], result["accuracy"] >= 0.9) == (10, True)


def test_sizes_of_volumes_are_refused_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    data = SampleDataModule("simulated_shapes", count=90)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"test\.volume_size must be asked for volumes only"):
        data.sampled_part("test", Sampling(volume_size=(7, 7, 7)))
    grid = Grid((4, 4, 4), (1.0,) * 3)
    volumes = GriddedSamples(torch.zeros(1, 1, 4, 4, 4), grid, torch.zeros(1).long(), ("a",), "mm")
    with pytest.raises(ValueError, match=r"test\.image_size must be asked for images only"):
        data._prepare(volumes, Sampling(image_size=(7, 7)))
