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

from ccnn_irregular.adapters.nifti import read_nifti
from ccnn_irregular.adapters.scans import read_scan
from ccnn_irregular.pipelines import cli

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:\s*By default only one Jsonargparse:DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:[\s\S]*removed in\s+v5\.0\.0:DeprecationWarning"),
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


def test_classes_of_scans_in_mixed_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, count in (("old", 20), ("new", 8)):
        Path(folder).mkdir()
        names = [write_scan(Path(folder), n, *one).name for n, one in enumerate(scans(rng, count))]
        if folder == "old":
            rows = "".join(f"{name},{('even', 'odd')[n % 2]}\n" for n, name in enumerate(names))
            Path("old/labels.csv").write_text("file,label\n" + rows)
    run(
        "fit --config simulated_volumes --data.dataset volume_folder --data.root old --data.options.standardise true "
        "--model.network.init_args.classes 2 --model.network.init_args.hidden_channels 4 --trainer.max_epochs 1 "
        "--model.network.init_args.latent '{sizes: [4, 4, 4], steps: [4, 2, 2], starts: [-6, -3, -3]}' "
        "--model.network.init_args.copies 2 --model.network.init_args.blocks 1"
    )
    run("predict --data.root new --output answers.csv")
    with Path("answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == sorted(path.name for path in Path("new").iterdir())
    assert "label" not in rows[0]
    Path("new/labels.csv").write_text("file,label\n" + "".join(f"{row['id']},odd\n" for row in rows))
    run("test --data.root new --data.evaluate all")
    assert (Path("run") / "test_all" / "metrics.json").is_file()


def test_voxels_of_scans_in_mixed_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for folder, count in (("old", 5), ("new", 4)):
        Path(folder, "images").mkdir(parents=True)
        Path(folder, "labels").mkdir()
        for number, (values, voxels) in enumerate(scans(rng, count)):
            path = write_scan(Path(folder, "images"), number, values, voxels)
            mask = sitk.GetImageFromArray((values > 110).astype(np.uint8).T)
            mask.SetSpacing(voxels)
            sitk.WriteImage(mask, str(Path(folder, "labels", f"scan{number:02}.nrrd")))
            assert read_scan(path).shape == values.shape
    run(
        "fit --config segmentation --data.root old --data.validation 0.2 --data.classes '[background, bright]' "
        "--model.network.init_args.classes 2 --model.network.init_args.channels [4,4] --trainer.max_epochs 1 "
        "--model.network.init_args.blocks [0,0] --model.network.init_args.steps [1.0,1.0,3.0]"
    )
    run("predict --predict.input new/images --output labels")
    run("predict --predict.input new/images/scan00 --output one.nii.gz")
    for number in range(4):
        (path,) = Path("new/images").glob(f"scan{number:02}*")
        read_nifti(Path("labels") / f"scan{number:02}.nii.gz", like=read_scan(path))  # refuses another space
    assert np.array_equal(read_nifti("one.nii.gz").to_numpy(), read_nifti("labels/scan00.nii.gz").to_numpy())
    run("test --data.root new --data.evaluate all")
    with Path("run/test_all/dice.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
