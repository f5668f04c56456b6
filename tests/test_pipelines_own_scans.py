"""Scans of one's own in mixed formats, from fit to answers for files that training never saw."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from test_adapters_scans import write_slice

from ccnn_irregular.adapters.scans import read_scan
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.train.checkpoint import read_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:ccnn_irregular"),
]


def run(line: str) -> None:
    """The command in the folder ``run``, on the CPU and quiet."""
    cli.main(
        [
            *shlex.split(line),
            *["--run_dir", "run", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"],
        ]
    )


def write_scan(folder: Path, number: int, values: np.ndarray, voxels: tuple[float, float, float]) -> Path:
    """In one of four formats, by its number."""
    name, kind = f"scan{number:02}", number % 4
    if kind == 0:
        (folder / name).mkdir(parents=True)
        for k in range(values.shape[2]):
            stated = {"PixelSpacing": [voxels[1], voxels[0]], "RescaleSlope": 1, "RescaleIntercept": 0}
            write_slice(folder / name / f"{k}.dcm", values[:, :, k].T, (0, 0, k * voxels[2]), **stated)
        return folder / name
    path = folder / f"{name}{('', '.nii.gz', '.nrrd', '.mha')[kind]}"
    if kind == 1:
        nibabel.save(nibabel.Nifti1Image(values, np.diag([-voxels[0], -voxels[1], voxels[2], 1.0])), path)
    else:
        image = sitk.GetImageFromArray(values.T)
        image.SetSpacing(voxels)
        sitk.WriteImage(image, str(path))
    return path


def scans(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, tuple[float, float, float]]]:
    found = []
    for number in range(count):
        values = rng.normal(100, 10, (7, 8, 5)) + 60 * (number % 2) * rng.random((7, 8, 5))
        voxels = (round(rng.uniform(0.9, 1.25), 3), round(rng.uniform(0.9, 1.17), 3), round(rng.uniform(2, 5), 3))
        found.append((values.astype(np.int16), voxels))
    return found


def test_classes_of_scans_in_mixed_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, count in (("old", 12), ("new", 4)):
        Path(folder).mkdir()
        names = [write_scan(Path(folder), n, *one).name for n, one in enumerate(scans(rng, count))]
        if folder == "old":
            rows = "".join(f"{name},{('even', 'odd')[n % 2]}\n" for n, name in enumerate(names))
            Path("old/labels.csv").write_text("file,label\n" + rows)
    run(
        "fit --config scan_classes --data.root old --model.network.init_args.hidden_channels 4 --trainer.max_epochs 1 "
        "--model.network.init_args.copies 2 --model.network.init_args.blocks 1"
    )
    told = capsys.readouterr().out
    for name in ("in_channels 1", "classes 2", "kernel {", "latent {"):
        assert name in told
        assert f"(--model.network.init_args.{name.split()[0]})" in told
    latent = read_checkpoint("run/best.ckpt")["hyper_parameters"]["network"]["init_args"]["latent"]
    ends = [s + step * (n - 1) for s, step, n in zip(latent["starts"], latent["steps"], latent["sizes"], strict=True)]
    assert ends[1] >= 3.5 * 0.9 - 1e-3  # covers the largest scan, 8 voxels of 0.9 mm at least along y
    run("predict --data.root new --output answers.csv")
    with Path("answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == sorted(path.name for path in Path("new").iterdir())
    assert "label" not in rows[0]
    Path("new/labels.csv").write_text("file,label\n" + "".join(f"{row['id']},odd\n" for row in rows))
    run("test --data.root new --data.evaluate all")
    assert (Path("run") / "test_all" / "metrics.json").is_file()


def test_voxels_of_scans_in_mixed_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for folder, count in (("old", 5), ("new", 4)):
        Path(folder, "images").mkdir(parents=True)
        Path(folder, "labels").mkdir()
        for number, (values, voxels) in enumerate(scans(rng, count)):
            path = write_scan(Path(folder, "images"), number, values, voxels)
            mask = sitk.GetImageFromArray((300 * (values > 110) + 7 * (values > 150)).astype(np.int16).T)
            mask.SetSpacing(voxels)
            sitk.WriteImage(mask, str(Path(folder, "labels", f"scan{number:02}.nrrd")))
            assert read_scan(path).shape == values.shape
    run(
        "fit --config scans --data.root old --data.validation 0.2 --model.network.init_args.channels [4,4] "
        "--model.network.init_args.blocks [0,0] --trainer.max_epochs 1"
    )
    told = capsys.readouterr().out
    for name in ("in_channels 1", "classes 3", "steps ["):
        assert f"{name}" in told
        assert f"(--model.network.init_args.{name.split()[0]})" in told
    assert "background in 5, label 300 in" in told
    assert "(--data.classes names them)" in told
    run("predict --predict.input new/images --output labels")
    run("predict --predict.input new/images/scan00 --output one.mha")
    # Each in its own format, DICOM as NIfTI, where other programs see it at the place of the scan.
    assert {path.name for path in Path("labels").iterdir() if path.suffix != ".json"} == {
        "scan00.nii.gz", "scan01.nii.gz", "scan02.nrrd", "scan03.mha"
    }  # fmt: skip
    for name in ("scan02.nrrd", "scan03.mha"):
        ours, scan = (sitk.ReadImage(f"{folder}/{name}") for folder in ("labels", "new/images"))
        for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(ours, geometry)(), getattr(scan, geometry)(), rtol=0, atol=1e-9)
        assert set(np.unique(sitk.GetArrayFromImage(ours))) <= {0, 300, 307}
    nifti, scan = nibabel.load("labels/scan01.nii.gz"), nibabel.load("new/images/scan01.nii.gz")
    np.testing.assert_array_equal(nifti.affine, scan.affine)
    assert nifti.shape == scan.shape
    series = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames("new/images/scan00"))
    for ours in map(sitk.ReadImage, ("labels/scan00.nii.gz", "one.mha")):
        for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(ours, geometry)(), getattr(series, geometry)(), rtol=0, atol=1e-5)
    first, second = (sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in ("labels/scan00.nii.gz", "one.mha"))
    assert np.array_equal(first, second)
    run("test --data.root new --data.evaluate all")
    with Path("run/test_all/dice.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_scan_of_one_voxel_goes_through_all_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    for folder in ("old", "new"):
        Path(folder, "images").mkdir(parents=True)
        Path(folder, "labels").mkdir()
        for number in range(10):
            shape = (1, 1, 1) if number % 2 else (4, 3, 2)
            values = rng.normal(100, 10, shape).astype(np.float32)
            labels = (rng.random(shape) < 0.5).astype(np.uint8)
            labels.flat[0] = number % 2
            for kind, array in (("images", values), ("labels", labels)):
                nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), f"{folder}/{kind}/{number}.nii")
        rows = "".join(f"{number}.nii,{('a', 'b')[number // 2 % 2]}\n" for number in range(10))
        Path(folder, "images", "labels.csv").write_text("file,label\n" + rows)
    run(
        "fit --config scans --data.root old --data.validation 0.3 --model.network.init_args.channels [4] "
        "--model.network.init_args.blocks [0] --trainer.max_epochs 1"
    )
    run("predict --predict.input new/images --output labels")
    for number in range(10):
        answer, image = (nibabel.load(path) for path in (f"labels/{number}.nii.gz", f"new/images/{number}.nii"))
        assert answer.shape == image.shape
        assert set(np.unique(answer.get_fdata())) <= {0, 1}
    run("test --data.root new --data.evaluate all")
    run(
        "fit --restart true --config scan_classes --data.root old/images --model.network.init_args.hidden_channels 4 "
        "--model.network.init_args.copies 2 --model.network.init_args.blocks 1 --trainer.max_epochs 1 "
        "--data.validation 0.3 --data.test 0.3 --data.options.standardise false"
    )
    run("predict --data.root new/images --output answers.csv")
    with Path("answers.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [f"{number}.nii" for number in range(10)]
    run("test --data.root new/images --data.evaluate all")
