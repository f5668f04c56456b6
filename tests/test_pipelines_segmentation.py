"""``ccnn`` on simulated volumes end to end: learn, test with slices removed, label files; the parts it is made of."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from pipelines_commands import refused
from scipy.ndimage import map_coordinates
from torchmetrics.functional.classification import multiclass_f1_score

from ccnn_irregular.adapters.nifti import read_nifti
from ccnn_irregular.datasets.decathlon import Volume, canonical, read_labels
from ccnn_irregular.datasets.processing.interpolation import NodeMethod
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.segmentation.augmentation import VolumeAugmentation
from ccnn_irregular.pipelines.tasks.segmentation.batch import (
    Intensities,
    VolumeBatch,
    resampled_batch,
    standardised,
    thinned_grid,
    thinnings,
)
from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeDataModule
from ccnn_irregular.pipelines.tasks.segmentation.figures import typical_cases
from ccnn_irregular.pipelines.tasks.segmentation.files import FileJob, predict_files
from ccnn_irregular.pipelines.tasks.segmentation.module import Segmentation, VoxelResampling, dice, soft_dice_loss
from ccnn_irregular.pipelines.tasks.segmentation.network import ContinuousSegmenter, FixedKernelSegmenter
from ccnn_irregular.pipelines.tasks.segmentation.surfaces import surface_distance
from ccnn_irregular.pipelines.tasks.segmentation.task import Scores, SliceSampling, _results
from ccnn_irregular.pipelines.train.draws import Draws

nibabel = pytest.importorskip("nibabel")

pytestmark = pytest.mark.usefixtures("in_tmp_path")

NETWORK = "--model.network.init_args"
RATE = ["--model.schedule.learning_rate", "0.02"]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
TINY = [f"{NETWORK}.channels", "[4, 8]", f"{NETWORK}.blocks", "[0, 1]", f"{NETWORK}.kernel.hidden", "8"]


def simulated_pairs(root: Path, count: int, seed: int = 0) -> Path:
    """Bright ellipsoids of random size and place, voxels of random size, stored in random orientations.

    Label 1 is the half to the front, label 2 the half to the back: the network has to know the axes.
    """
    generator = np.random.default_rng(seed)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        sizes, steps = generator.integers(13, 17, 3), generator.uniform(0.9, 1.1, 3)
        middle = sizes * steps * generator.uniform(0.4, 0.6, 3)
        nodes = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(sizes, steps, strict=True)), indexing="ij"), -1)
        inside = (((nodes - middle) / generator.uniform(3.0, 5.0, 3)) ** 2).sum(-1) < 1
        labels = np.where(inside, np.where(nodes[..., 1] > middle[1], 1, 2), 0).astype(np.uint8)
        values = inside + 0.2 * generator.standard_normal(inside.shape)
        values = (10 ** generator.uniform(0, 4) * (values + 2)).astype(np.float32)
        order, signs = generator.permutation(3), generator.choice([1, -1], 3)
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for column, world in enumerate(order):
            affine[world, column] = signs[column] * steps[world]
        turn = tuple(slice(None, None, int(sign)) for sign in signs)
        for folder, array in (("images", values), ("labels", labels)):
            image = nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(order)[turn]), affine)
            nibabel.save(image, root / folder / f"case_{number:02}.nii.gz")
    return root


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated_pairs(tmp_path_factory.mktemp("pairs"), 16)


@pytest.fixture(scope="module")
def trained(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained run."""
    run = tmp_path_factory.mktemp("run") / "simulated"
    handler = signal.getsignal(signal.SIGINT)
    config = ["--config", "segmentation", *TINY, "--data.root", str(pairs), "--data.validation", "0.15", *QUIET]
    cli.main(
        ["fit", *config, "--run_dir", str(run), "--trainer.max_epochs", "6", "--model.schedule.learning_rate", "0.02"]
    )
    signal.signal(signal.SIGINT, handler)
    return run


def test_volumes_of_one_subject_are_in_one_part(pairs: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"case_{number:02}" for number in range(16)]
    for trial in range(20):
        groups = dict(zip(names, rng.integers(8, size=16).astype(str), strict=True))
        lines = [f"{name},{group}\n" for name, group in groups.items()]
        (tmp_path / "groups.csv").write_text("name,group\n" + "".join(rng.permutation(lines)) + "other,9\n")
        data = VolumeDataModule(str(pairs), ["0", "1", "2"], validation=0.2, test=0.25, split_seed=trial,
                                groups=str(tmp_path / "groups.csv"), in_memory=False)  # fmt: skip
        data.setup("fit")
        parts = {part: data.part(part) for part in ("train", "validation", "test")}  # type: ignore[arg-type]
        assert sorted(itertools.chain(*parts.values())) == list(range(16))
        subjects = [{groups[names[one]] for one in part} for part in parts.values()]
        assert all(not first & second for first, second in itertools.combinations(subjects, 2))
        largest = max(list(groups.values()).count(group) for group in groups.values())
        assert 4 <= len(parts["test"]) < 4 + largest
        assert 3 <= len(parts["validation"]) < 3 + largest
        assert data.describe()["split by"] == "group"
    alone = VolumeDataModule(str(pairs), ["0", "1", "2"], validation=0.2, test=0.25, split_seed=3, in_memory=False)
    alone.setup("fit")
    order = np.random.default_rng(3).permutation(16)
    assert (alone.part("test"), alone.part("validation")) == (sorted(order[:4]), sorted(order[4:7]))
    assert "not known" in alone.describe()["split by"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volume,group\n", "the first line of .* must be name,group, got"),
        ("name,group\ncase_00,a\ncase_00,b\n", "line 3 must name a sample that no line before it names, got 'case_00'"),
        ("name,group\ncase_00\n", "line 2 must hold a name and a group"),
        ("name,group\ncase_00,a,b\n", "line 2 must hold a name and a group"),
        ("name,group\ncase_00,a\n", r"name the group of every sample, got none for case_01, case_02, case_03, \.\.\."),
        ("name,group\n" + "".join(f"case_{n:02},a\n" for n in range(16)), "groups must leave volumes to each part"),
    ],
)
def test_groups_that_do_not_tell_are_refused(text: str, message: str, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(text)
    data = VolumeDataModule(str(pairs), ["0", "1", "2"], groups=str(tmp_path / "groups.csv"), in_memory=False)
    with pytest.raises(ValueError, match=message):
        data.setup("fit")
    missing = VolumeDataModule(str(pairs), ["0", "1", "2"], groups=str(tmp_path / "none.csv"), in_memory=False)
    with pytest.raises(FileNotFoundError, match="groups must be an existing CSV file"):
        missing.setup("fit")


def options(run: Path) -> list[str]:
    return ["--config", str(run / "config.yaml"), "--run_dir", str(run), "--trainer.enable_progress_bar", "false"]


# ------------------------------------------------------------------------------------------------------ end to end


def test_ellipsoids_are_learned_in_every_orientation_and_with_slices_missing(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["best"]["val_dice"] > 0.7
    assert summary["data"]["volumes"] == {"test": 3, "validation": 2, "train": 11}

    cli.main(["test", *options(trained), "--output", "out", "--test.thin", "1,1,2", "2,1,1"])
    printed = capsys.readouterr().out
    assert "1 of 2 along z" in printed
    report = json.loads(Path("out/metrics.json").read_text())
    found = {(one["sampling"], one["label"]): one for one in report["results"]}
    assert found["all slices", "anterior"]["dice"] > 0.7
    assert found["all slices", "posterior"]["dice"] > 0.7
    for sampling in ("1 of 2 along z", "1 of 2 along x"):
        assert found[sampling, "mean of the labels"]["dice"] > 0.6
        one = found[sampling, "anterior"]
        assert one["difference"] == pytest.approx(one["dice"] - found["all slices", "anterior"]["dice"])
    with Path("out/dice.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3
    mean = np.mean([float(row["posterior"]) for row in rows if row["sampling"] == "all slices"])
    assert mean == pytest.approx(found["all slices", "posterior"]["dice"], abs=1e-5)
    figures = {path.name for path in Path("out").glob("*.png")}
    assert {"dice.png", "kernels.png", "worst.png", "median.png", "best-thin-2-1-1.png"} <= figures


def test_predict_writes_labels_on_the_voxels_of_each_file_and_goes_on_where_it_stopped(
    trained: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", *options(trained), "--predict.input", str(pairs / "images"), "--output", "labelled"]
    cli.main(command)
    assert "16 label volumes written: labelled" in capsys.readouterr().out
    scores = []
    for path in sorted((pairs / "images").iterdir()):
        image = read_nifti(path)
        found = read_labels(Path("labelled") / path.name, image, range(3))  # refuses another shape or space
        scores.append(dice(found, read_labels(pairs / "labels" / path.name, image, range(3)), 3))
    assert np.mean(scores) > 0.65
    assert nibabel.load("labelled/case_00.nii.gz").get_data_dtype() == np.uint8
    names = {path.name for path in (pairs / "images").iterdir()}
    assert {path.name for path in Path("labelled").iterdir()} == names | {f"{name}.json" for name in names}

    kept, again = Path("labelled/case_03.nii.gz"), Path("labelled/case_05.nii.gz")
    before = kept.stat().st_mtime_ns
    again.unlink()
    os.utime(Path("labelled/case_07.nii.gz"), (0, 0))
    cli.main(command)
    printed = capsys.readouterr().out
    assert "14 of 16 written before by this checkpoint, younger than their input" in printed
    assert "2 label volumes written" in printed
    assert again.is_file()
    assert kept.stat().st_mtime_ns == before


def test_labels_lie_where_the_image_does_for_readers_of_either_affine(tmp_path: Path) -> None:
    class Halves(torch.nn.Module):
        """Labels without learning: 1 to the right of the middle."""

        network, device = SimpleNamespace(in_channels=1), torch.device("cpu")

        def predict_step(self, batch: VolumeBatch, index: int) -> SimpleNamespace:
            labels = torch.zeros(batch.grid.sizes, dtype=torch.int64)
            labels[batch.grid.sizes[0] // 2 :] = 1
            return SimpleNamespace(labels=labels)

    scanner, template = np.diag([-2.0, 2.0, 3.0, 1.0]), np.diag([1.5, 2.5, 2.0, 1.0])
    scanner[:3, 3], template[:3, 3] = [10, -20, 30], [-90, -126, -72]
    volume = nibabel.Nifti1Image(np.random.default_rng(0).random((6, 5, 4), np.float32), template)
    volume.set_sform(template, 4)
    volume.set_qform(scanner, 1)
    volume.header["cal_max"], volume.header["intent_code"] = 0.5, 3
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"of the image"))
    nibabel.save(volume, tmp_path / "image.nii")
    (tmp_path / "checkpoint").touch()
    job = FileJob(tmp_path / "image.nii", tmp_path / "labels.nii")
    predict_files(Halves(), [job], tmp_path / "checkpoint", range(2))  # type: ignore[arg-type]
    labels = nibabel.load(tmp_path / "labels.nii")
    header = labels.header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 4)
    np.testing.assert_allclose(labels.get_qform(), scanner, atol=1e-5)
    np.testing.assert_allclose(labels.get_sform(), template, atol=1e-5)
    assert (float(header["cal_max"]), int(header["intent_code"]), len(header.extensions)) == (0, 0, 0)
    assert int(labels.dataobj[5, 0, 0]) == 1
    assert int(labels.dataobj[0, 0, 0]) == 0


def test_predict_labels_one_file_and_the_test_part(
    trained: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pairs / "images" / "case_01.nii.gz"
    cli.main(["predict", *options(trained), "--predict.input", str(image), "--output", "one.nii"])
    assert read_nifti("one.nii", like=read_nifti(image)).dtype == np.uint8
    cli.main(["predict", *options(trained), "--data.evaluate", "test", "--output", "held"])
    names = json.loads((trained / "summary.json").read_text())["data"]["names"]["test"]
    assert sorted(path.name for path in Path("held").glob("*.nii.gz")) == [f"{name}.nii.gz" for name in names]
    capsys.readouterr()


def test_what_predict_refuses(trained: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", *options(trained)]
    images = pairs / "images"
    file = str(images / "case_01.nii.gz")
    before = Path(file).read_bytes()
    assert "must be another file than the input" in refused(
        capsys, *command, "--predict.input", file, "--output", file
    )  # fmt: skip
    same = refused(capsys, *command, "--predict.input", str(images), "--output", str(images))
    assert "must be another folder than the input's" in same
    wrong = refused(capsys, *command, "--predict.input", file, "--output", "one.mgz")
    assert "end in one of .nii.gz, .nii, .nrrd, .mha" in wrong
    assert "must be a scan or a folder" in refused(capsys, *command, "--predict.input", "none.nii.gz")
    Path("empty").mkdir()
    assert "predict.input empty must be or hold scans: NIfTI" in refused(
        capsys, *command, "--predict.input", "empty", "--output", "x"
    )
    both = nibabel.Nifti1Image(np.zeros((5, 5, 5, 2), np.float32), np.eye(4))
    nibabel.save(both, "both.nii.gz")
    message = refused(capsys, *command, "--predict.input", "both.nii.gz", "--output", "x.nii.gz")
    assert "channels of both.nii.gz must be the network's 1, got 2" in message
    assert not Path("x.nii.gz").exists()
    assert Path(file).read_bytes() == before


def test_the_baseline_learns_too_and_bad_options_are_named(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", "segmentation_baseline", "--data.root", str(pairs), "--data.validation", "0.15", *QUIET]
    short = ["--trainer.max_epochs", "2", f"{NETWORK}.channels", "[4, 8]", "--model.schedule.learning_rate", "0.02"]
    cli.main(["fit", *config, *short, "--run_dir", "base"])
    cli.main(["test", *config, "--run_dir", "base", "--test.thin", "1,1,2", "--test.resample", "true"])
    results = json.loads(Path("base/test/metrics.json").read_text())["results"]
    ways = list(dict.fromkeys((one["sampling"], one["resample"] is not None) for one in results))
    assert [name.partition(", resampled (")[0] for name, _ in ways] == ["all slices", *["1 of 2 along z"] * 2]
    assert [resampled for _, resampled in ways] == [False, False, True]
    assert all(one["seconds"] > 0 for one in results)
    with Path("base/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert "test.thin must be three positive integers" in refused(
        capsys, "test", *config, "--run_dir", "base", "--test.thin", "1,2"
    )  # fmt: skip
    wrong = refused(capsys, "fit", *config, *short, "--run_dir", "other", "--data.classes", "[a, b]")
    assert "must be among 0 ... 1, got [2]" in wrong
    assert not Path("other").exists()
    assert "classes must be the data's 4" in refused(
        capsys, "fit", *config, *short, "--run_dir", "other", "--data.classes", "[a, b, c, d]"
    )  # fmt: skip
    assert "query must be the given voxels" in refused(
        capsys, "fit", *config, *short, "--run_dir", "other", "--model.augmentation.thin", "1",
        "--model.augmentation.resample", "false",
    )  # fmt: skip


def test_the_baseline_has_the_same_budget() -> None:
    found = [yaml.safe_load((cli.CONFIGS / f"segmentation{end}.yaml").read_text()) for end in ("", "_baseline")]
    counts = []
    for options in found:
        parser = ArgumentParser()
        parser.add_class_arguments(Segmentation, "model")
        network = parser.instantiate(parser.parse_object({"model": options["model"]})).model.network
        counts.append(sum(parameter.numel() for parameter in network.parameters()))
        del options["model"]["network"]
    assert counts[1] >= counts[0]
    assert found[1]["model"]["augmentation"].pop("resample") is True
    assert found[1] == found[0]


# ---------------------------------------------------------------------------------------------------- data and parts


def test_the_split_depends_on_the_seed_alone_and_parts_are_disjoint(pairs: Path) -> None:
    def parts(seed: int, in_memory: bool = True) -> list[list[int]]:
        data = VolumeDataModule(str(pairs), ["a", "b", "c"], validation=0.15, split_seed=seed, in_memory=in_memory)
        data.setup("fit")
        return [data.part("train"), data.part("validation"), data.part("test")]

    first = parts(0)
    assert sorted(itertools.chain(*first)) == list(range(16))
    assert first == parts(0, in_memory=False) != parts(1)


def test_volumes_are_the_same_from_memory_and_from_the_files(pairs: Path) -> None:
    batches = []
    for in_memory in (True, False):
        data = VolumeDataModule(str(pairs), ["a", "b", "c"], validation=0.15, in_memory=in_memory)
        data.setup("fit")
        batches.append(next(iter(data.loader("test", (1, 2, 1)))))
    assert batches[0].grid == batches[1].grid == batches[0].query
    torch.testing.assert_close(batches[0].values, batches[1].values)
    assert batches[0].values.shape[3] == math.ceil(data.volume(data.part("test")[0]).grid.sizes[1] / 2)


def test_all_volumes_come_by_name_whatever_part_they_are_in(pairs: Path) -> None:
    data = VolumeDataModule(str(pairs), ["a", "b", "c"], validation=0.15, in_memory=False)
    data.setup("fit")
    found = list(data.loader("all", (1, 1, 2)))
    assert [batch.name for batch in found] == [pair.name for pair in data.pairs]
    assert found[3].grid.sizes[2] == math.ceil(data.volume(3).grid.sizes[2] / 2)


def test_too_few_volumes_and_missing_names_are_refused(pairs: Path, tmp_path: Path) -> None:
    few = VolumeDataModule(str(simulated_pairs(tmp_path / "few", 2)), ["a", "b", "c"])
    with pytest.raises(ValueError, match="validation and test must leave a volume to each part"):
        few.setup("fit")
    with pytest.raises(ValueError, match="must be set up before"):
        VolumeDataModule(str(pairs)).volume(0)


def test_standardised_values_have_no_unit_and_outliers_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 20, 20, 20, generator=generator)
    first = standardised(values)
    torch.testing.assert_close(standardised(1e5 * values + 3e4), first, rtol=1e-3, atol=1e-3)
    low, high = np.percentile(values[0], (1, 99))
    cut = np.clip(values[0].double().numpy(), low, high)
    inner = (values[0] > low) & (values[0] < high)
    wanted = ((values[0].double() - cut.mean()) / cut.std())[inner]
    torch.testing.assert_close(first[0][inner].double(), wanted, rtol=1e-5, atol=1e-6)
    clipped = standardised(values, "clipped")[0]
    torch.testing.assert_close(clipped.double().numpy(), (cut - cut.mean()) / cut.std(), rtol=1e-5, atol=1e-6)
    values[0, 0, 0, 0] = 1e9
    assert float(standardised(values)[0, 0, 0, 0]) < 30
    torch.testing.assert_close(standardised(values)[0, 1:], first[0, 1:], rtol=1e-2, atol=1e-2)
    assert standardised(torch.full((1, 3, 3, 3), 7.0)).abs().max() == 0


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_an_object_of_less_than_a_hundredth_of_the_voxels_stays_visible(noise: float) -> None:
    """The same object in a crop, where it is a tenth, and in the full field: brighter than all around it in both."""
    generator = torch.Generator().manual_seed(0)
    full = noise * torch.randn(1, 48, 48, 48, generator=generator)
    full[0, 20:28, 20:28, 20:28] += 2.0
    inside = torch.zeros(48, 48, 48, dtype=torch.bool)
    inside[20:28, 20:28, 20:28] = True
    assert float(inside.double().mean()) < 0.01
    box = (slice(15, 33),) * 3
    crop, crop_inside = full[(slice(None), *box)], inside[box]
    for values, where in ((full, inside), (crop, crop_inside)):
        result = standardised(values)[0]
        contrast = float(result[where].mean() - result[~where].mean()) / max(float(result[~where].std()), 1e-3)
        assert contrast > 3
        # What is brighter stays brighter, so a threshold that parts object and background does so still.
        assert bool((values[0].flatten()[result.flatten().argsort()].diff() >= -1e-5).all())
        assert float(result.abs().max()) < 10
    gone = standardised(full, "clipped")[0]
    assert float(gone[inside].mean()) <= float(gone[~inside].max())


def test_a_checkpoint_is_read_with_the_intensities_it_was_trained_with() -> None:
    def made(intensities: Intensities) -> Segmentation:
        return Segmentation(FixedKernelSegmenter(1, 2, channels=[2]), intensities=intensities)

    saved = made("clipped").state_dict()
    again = made("compressed")
    again.load_state_dict(saved)
    assert again.intensities == "clipped"
    del saved["_extra_state"]  # as checkpoints from before the choice have it
    older = made("compressed")
    older.load_state_dict(saved)
    assert older.intensities == "clipped"
    batch = batch_of((6, 5, 4))
    torch.testing.assert_close(older.standardised(batch).values[0], standardised(batch.values[0], "clipped"))
    newer = made("clipped")
    newer.load_state_dict(made("compressed").state_dict())
    assert newer.intensities == "compressed"
    with pytest.raises(ValueError, match=r"intensities must be one of \('compressed', 'clipped'\), got 'cut'"):
        made("cut")  # type: ignore[arg-type]


def test_more_than_256_classes_are_predicted_as_what_they_are() -> None:
    class Certain(torch.nn.Module):
        classes, in_channels = 300, 1

        def forward(self, batch: VolumeBatch) -> torch.Tensor:
            labels = torch.arange(batch.grid.count).reshape(1, *batch.grid.sizes) % 300
            return torch.nn.functional.one_hot(labels, 300).movedim(-1, 1).float()

    found = Segmentation(Certain()).predict_step(batch_of((8, 8, 8)), 0).labels
    assert found.dtype == torch.int16
    np.testing.assert_array_equal(found.flatten(), np.arange(512) % 300)


def test_a_validation_part_without_labels_is_refused(tmp_path: Path) -> None:
    root = simulated_pairs(tmp_path, 6)
    for path in (root / "labels").iterdir():
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
    data = VolumeDataModule(str(root), classes=["nothing", "a"], validation=0.2)
    data.setup("fit")
    (name,) = (data.pairs[number].name for number in data.part("validation"))
    rule = rf"the 1 validation volumes \({name}\) must hold a voxel of a label: Dice"
    with pytest.raises(ValueError, match=rule):
        Segmentation(FixedKernelSegmenter(1, 2, channels=[2])).require_trainable(data)


def test_volumes_that_were_trained_on_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "test", *options(trained), "--data.split_seed", "1")
    assert "volumes that were trained on" in message
    assert "data.split_seed = 0 there and 1 here" in message


def test_a_label_that_no_validation_volume_holds_is_named_and_left_out(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = ["--data.classes", "[background, anterior, posterior, tail]", f"{NETWORK}.classes", "4"]
    config = ["--config", "segmentation", "--data.root", str(pairs), "--data.validation", "0.15", *classes, *TINY]
    with pytest.warns(UserWarning, match=r"no voxel of the 2 validation volumes \(case_.*\) has the label 3 'tail'"):
        cli.main(["fit", *config, *QUIET, "--run_dir", "run", "--trainer.max_epochs", "3"])
    assert json.loads(Path("run/summary.json").read_text())["end"]["finished"]
    with Path("run/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        assert "val_dice_tail" not in row
        assert all(math.isfinite(float(value)) for value in row.values())
        mean = (float(row["val_dice_anterior"]) + float(row["val_dice_posterior"])) / 2
        assert float(row["val_dice"]) == pytest.approx(mean, abs=1e-6)


def test_thinned_nodes_are_nodes_of_the_grid() -> None:
    grid = Grid((7, 6), (1.0, 0.5), (3.0, -1.0))
    thin = thinned_grid(grid, (2, 3), (1, 0))
    assert thin == Grid((3, 2), (2.0, 1.5), (4.0, -1.0))
    assert thinned_grid(grid, (1, 1)) == grid
    assert thinnings(["1,1,2", "3,1,1"]) == [(1, 1, 2), (3, 1, 1)]
    for wrong in ("1,2", "0,1,1", "1,1,x", 2):
        with pytest.raises(ValueError, match=r"test\.thin must be three positive integers"):
            thinnings([wrong])


def batch_of(sizes: tuple[int, ...] = (8, 7, 9)) -> VolumeBatch:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, *sizes, generator=generator)
    labels = (values[0] > 0).to(torch.uint8)
    return VolumeBatch.of(Volume("one", values, Grid(sizes, (1.0, 1.0, 2.0), (5.0, 0.0, 0.0)), labels))


def test_augmentation_takes_slices_away_and_keeps_values_where_they_were() -> None:
    batch = batch_of()
    seen = set()
    for epoch in range(60):
        changed = VolumeAugmentation(thin=1.0)(batch, Draws(0, epoch, batch.ids))
        assert changed.query == batch.grid
        assert changed.labels is batch.labels
        axis = next(one for one in range(3) if changed.grid.sizes[one] != batch.grid.sizes[one])
        begin = round((changed.grid.starts[axis] - batch.grid.starts[axis]) / batch.grid.steps[axis])
        places = torch.arange(begin, batch.grid.sizes[axis], 2)
        torch.testing.assert_close(changed.values, batch.values.index_select(2 + axis, places))
        seen.add((axis, begin))
    assert seen == {(axis, begin) for axis in range(3) for begin in range(2)}


def test_augmentation_for_fixed_kernels_takes_the_labels_of_the_slices_away_too() -> None:
    batch = batch_of()
    assert batch.labels is not None
    # Each voxel has a value of its own, which says what its label is.
    label_of = dict(zip(batch.values.flatten().tolist(), batch.labels.flatten().tolist(), strict=True))
    for epoch in range(10):
        kept = VolumeAugmentation(thin=1.0, kept_only=True)(batch, Draws(0, epoch, batch.ids))
        assert kept.labels is not None
        assert kept.labels.shape[1:] == kept.values.shape[2:] == kept.grid.sizes == kept.query.sizes
        assert [label_of[value] for value in kept.values.flatten().tolist()] == kept.labels.flatten().tolist()


@pytest.mark.parametrize("sizes", [(8, 7, 9), (9, 12, 8)])
def test_augmentation_for_fixed_kernels_resamples_what_it_changed(sizes: tuple[int, ...]) -> None:
    batch = batch_of(sizes)
    assert batch.labels is not None
    seen = set()
    for epoch in range(12):
        thinned = VolumeAugmentation(thin=1.0, resample=True)(batch, Draws(0, epoch, batch.ids))
        assert (thinned.grid, thinned.query) == (batch.grid, batch.grid)
        assert torch.equal(thinned.labels, batch.labels)  # type: ignore[arg-type]
        # The slices that were taken away lie on lines between those that stayed.
        for axis, begin in itertools.product(range(3), range(2)):
            values = np.moveaxis(batch.values[0, 0].numpy(), axis, -1)
            places, kept = np.arange(values.shape[-1]), np.arange(values.shape[-1])[begin::2]
            filled = np.apply_along_axis(
                lambda line, kept=kept, places=places: np.interp(places, kept, line[kept]), -1, values
            )
            if np.allclose(np.moveaxis(filled, -1, axis), thinned.values[0, 0], atol=1e-5):
                seen.add((axis, begin))
    assert len(seen) >= 4
    for epoch in range(6):
        stretched = VolumeAugmentation(stretch=0.3, resample=True)(batch, Draws(0, epoch, batch.ids))
        assert stretched.grid == stretched.query
        assert stretched.grid.steps == batch.grid.steps
        assert stretched.labels is not None
        assert stretched.labels.shape[1:] == stretched.values.shape[2:] == stretched.grid.sizes
        assert stretched.grid.sizes != batch.grid.sizes


def test_resampled_volumes_and_labels_are_those_of_scipy() -> None:
    batch = batch_of((6, 9, 5))
    thin = VolumeBatch.of(Volume("one", batch.values[0], batch.grid, batch.labels[0]), (2, 3, 1))  # type: ignore[index]
    back = resampled_batch(thin, batch.grid.steps)
    assert back.grid.sizes == (5, 7, 5)
    nodes = np.meshgrid(*(axis.nodes().numpy() for axis in back.grid.axes), indexing="ij")
    places = [(one - axis.start) / axis.step for one, axis in zip(nodes, thin.grid.axes, strict=True)]
    wanted = map_coordinates(thin.values[0, 0].numpy(), places, order=1, mode="nearest")
    np.testing.assert_allclose(back.values[0, 0], wanted, rtol=1e-5, atol=1e-6)
    assert back.labels is not None
    nearest = tuple(np.round(one).astype(int) for one in places)
    np.testing.assert_array_equal(back.labels[0], thin.labels[0].numpy()[nearest])  # type: ignore[index]


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_answers_of_a_resampled_volume_come_back_to_its_own_voxels(method: NodeMethod) -> None:
    """A network that asks each voxel alone: values and answers at voxels that are there before and after."""

    def network(read: VolumeBatch) -> torch.Tensor:
        assert read.grid.steps == (1.0, 1.0, 1.0)
        return torch.cat([-read.values, read.values], dim=1)

    whole = batch_of((8, 7, 9))
    whole = replace(whole, grid=Grid((8, 7, 9), (1.0,) * 3), query=Grid((8, 7, 9), (1.0,) * 3))
    volume = Volume("one", whole.values[0], whole.grid, whole.labels[0])  # type: ignore[index]
    for thin in ((1, 1, 2), (3, 1, 1), (1, 4, 1)):
        batch = VolumeBatch.of(volume, thin)
        found = VoxelResampling((1.0, 1.0, 1.0), method).probabilities(network, batch)
        wanted = torch.cat([-batch.values, batch.values], dim=1).softmax(1)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    # Voxels between those of the training: each answer is the mean of its two neighbours.
    between = replace(whole, grid=Grid((8, 7, 9), (1.0, 1.0, 0.5)), query=Grid((8, 7, 9), (1.0, 1.0, 0.5)))
    found = VoxelResampling((1.0, 1.0, 1.0), "linear").probabilities(network, between)
    torch.testing.assert_close(found[..., 1:-1:2], (found[..., :-2:2] + found[..., 2::2]) / 2)


def test_surface_distance_of_moved_and_grown_boxes() -> None:
    labels, moved, grown = (torch.zeros(12, 12, 12, dtype=torch.int64) for _ in range(3))
    labels[3:8, 3:8, 3:8], moved[3:8, 3:8, 5:10], grown[2:9, 2:9, 2:9] = 1, 1, 1
    steps = (1.0, 2.0, 0.5)
    assert surface_distance(labels, labels, 3, steps)[0] == 0
    assert np.isnan(surface_distance(labels, labels, 3, steps)[1])
    for found in (moved, grown):
        places = []
        for one in (found, labels):
            # Faces by hand: a voxel with all six neighbours inside is no surface.
            padded = torch.nn.functional.pad(one, (1,) * 6)
            inner = torch.stack([padded.roll(shift, axis) for axis in range(3) for shift in (-1, 1)]).all(0)[
                1:-1, 1:-1, 1:-1
            ]
            places.append(torch.nonzero((one == 1) & ~inner) * torch.tensor(steps))
        apart = torch.cdist(*places)
        wanted = torch.cat([apart.amin(0), apart.amin(1)]).mean()
        assert surface_distance(found, labels, 2, steps)[0] == pytest.approx(float(wanted))
    with pytest.raises(ValueError, match="predicted must have the labels' shape"):
        surface_distance(labels[:2], labels, 2, steps)


def test_augmentation_stretches_coordinates_and_changes_intensities_within_bounds() -> None:
    batch = batch_of()
    plain = VolumeAugmentation()(batch, Draws(0, 0, batch.ids))
    assert plain.grid == batch.grid
    torch.testing.assert_close(plain.values, batch.values)
    for epoch in range(10):
        augmentation = VolumeAugmentation(stretch=0.1, contrast=0.2, brightness=0.3, gamma=1.5)
        changed = augmentation(batch, Draws(0, epoch, batch.ids))
        ratios = np.divide(changed.grid.steps, batch.grid.steps)
        assert (np.abs(ratios - 1) <= 0.1).all()
        assert len(set(ratios.tolist())) == 3
        assert changed.grid == changed.query
        # Order is kept: what was brighter is brighter.
        assert torch.equal(changed.values.flatten().argsort(), batch.values.flatten().argsort())
    noisy = VolumeAugmentation(noise=0.5)(batch, Draws(0, 0, batch.ids)).values - batch.values
    assert 0 < float(noisy.std()) < 0.6
    for wrong in ({"thin": 1.5}, {"stretch": 1.0}, {"noise": -0.1}, {"gamma": 0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            VolumeAugmentation(**wrong)


def test_dice_is_that_of_torchmetrics_and_nan_for_a_label_nobody_has() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, labels = torch.randint(4, (2, 5, 6, 7), generator=generator)
    wanted = multiclass_f1_score(predicted.flatten(), labels.flatten(), 4, average="none")[1:]
    np.testing.assert_allclose(dice(predicted, labels, 4), wanted.numpy(), rtol=1e-6)
    assert np.isnan(dice(predicted, labels, 5)).tolist() == [False, False, False, True]
    assert dice(torch.zeros(3).long(), torch.ones(3).long(), 2).tolist() == [0.0]
    with pytest.raises(ValueError, match="predicted must have the labels' shape"):
        dice(predicted[:2], labels, 4)


def test_soft_dice_of_certain_answers_is_dice() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, labels = torch.randint(3, (2, 1, 12, 12, 12), generator=generator)
    logits = 100.0 * torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1)
    loss = float(soft_dice_loss(logits, labels))
    assert loss == pytest.approx(1 - dice(predicted, labels, 3).mean(), abs=2e-3)
    assert float(soft_dice_loss(logits, predicted)) == pytest.approx(0, abs=1e-6)


def test_means_of_the_table_leave_out_volumes_without_a_label() -> None:
    full = np.array([[0.8, np.nan], [0.6, 0.4]])
    tables = {SliceSampling(): Scores(full, 2 * full, 0.1), SliceSampling((1, 1, 2)): Scores(full - 0.1, full, 0.2)}
    results = _results(tables, ("nothing", "a", "b"))
    found = {(one.sampling, one.label): one for one in results}
    assert found["all slices", "a"].dice == pytest.approx(0.7)
    assert (found["all slices", "b"].dice, found["all slices", "b"].n) == (pytest.approx(0.4), 1)
    assert found["all slices", "mean of the labels"].dice == pytest.approx((0.8 + 0.5) / 2)
    assert found["1 of 2 along z", "a"].difference == pytest.approx(-0.1)
    assert (found["1 of 2 along z", "a"].surface, found["1 of 2 along z", "a"].seconds) == (pytest.approx(0.7), 0.2)
    assert found["all slices", "b"].surface == pytest.approx(0.8)
    assert typical_cases(np.array([0.5, np.nan, 0.9, 0.7])) == {"worst": 0, "median": 3, "best": 2}


@pytest.mark.parametrize("sizes", [(8, 8, 8), (9, 7, 13), (5, 6, 3)])
def test_both_networks_answer_at_every_voxel_of_any_size(sizes: tuple[int, ...]) -> None:
    batch = batch_of(sizes)
    for network in (ContinuousSegmenter(1, 3, (4, 6), blocks=(0, 1)), FixedKernelSegmenter(1, 3, (4, 6))):
        network.prepare(batch)
        assert network(batch).shape == (1, 3, *sizes)


def test_a_turned_file_is_the_same_volume(pairs: Path) -> None:
    """Answers follow the anatomy and not the order of the voxels in the file."""
    image = read_nifti(pairs / "images" / "case_02.nii.gz")
    turned = image.transpose(*image.dims[::-1]).isel({image.dims[0]: slice(None, None, -1)})
    for a, b in zip(canonical(image), canonical(turned), strict=True):
        assert a == b if isinstance(a, Grid) else torch.equal(a, b)  # type: ignore[arg-type]
