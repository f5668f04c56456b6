"""Pairs of volumes and labels: both layouts, canonical order for any orientation, and files that are wrong."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ccnn_irregular.adapters.nifti import read_nifti, write_nifti
from ccnn_irregular.adapters.scan_files import scan_files
from ccnn_irregular.datasets.decathlon import canonical, find_pairs, like_file, read_labels, read_volume

nibabel = pytest.importorskip("nibabel")

SIZES, STEPS = (7, 6, 5), (1.0, 1.5, 3.0)


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], oblique: bool = False) -> NDArray[np.float64]:
    """Voxel axis k runs along world axis ``order[k]``, forwards or backwards."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, column] = sign * STEPS[world]
    affine[:3, 3] = (10.0, -20.0, 5.0)
    if oblique:
        cosine, sine = np.cos(0.2), np.sin(0.2)
        affine[:3, :3] = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ affine[:3, :3]
    return affine


def stored(array: NDArray[Any], order: tuple[int, ...], signs: tuple[int, ...]) -> NDArray[Any]:
    """An array in canonical order as a file of that orientation stores it."""
    turned = array.transpose(*order) if array.ndim == 3 else array.transpose(*order, 3)
    return turned[tuple(slice(None, None, sign) for sign in signs)]


def ramp() -> NDArray[np.float32]:
    return np.arange(np.prod(SIZES), dtype=np.float32).reshape(SIZES)


def save(path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def save_pair(root: Path, name: str, **labels: Any) -> None:
    """A volume and labels in the plain layout; keywords change the label volume."""
    array = labels.get("array", (ramp() % 3).astype(np.uint8))
    save(root / "images" / f"{name}.nii.gz", ramp())
    save(root / "labels" / f"{name}.nii.gz", array, labels.get("affine"))


def save_decathlon(root: Path, **changes: Any) -> None:
    entries = []
    for name in ("b", "a"):
        save(root / "imagesTr" / f"{name}.nii.gz", ramp())
        save(root / "labelsTr" / f"{name}.nii.gz", (ramp() % 3).astype(np.uint8))
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    content = {"training": entries, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "test": []}
    (root / "dataset.json").write_text(json.dumps(content | changes))


def listed(image: str) -> dict[str, str]:
    """An entry of ``dataset.json``."""
    return {"image": image, "label": "./labelsTr/a.nii.gz"}


# --------------------------------------------------------------------------------------------------- what is right

ORIENTATIONS = [
    (order, signs)
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    if signs[0] == 1 or order == (0, 1, 2)  # 28 of 48: every order, every combination of signs
]


@pytest.mark.parametrize("oblique", [False, True])
def test_every_orientation_is_the_same_volume_and_goes_back_to_its_own_file(tmp_path: Path, oblique: bool) -> None:
    labels = (ramp() % 3).astype(np.uint8)
    for order, signs in ORIENTATIONS:
        affine = affine_of(order, signs, oblique)
        path = save(tmp_path / "image.nii.gz", stored(ramp(), order, signs), affine)
        image = read_nifti(path)
        values, grid = canonical(image)
        np.testing.assert_array_equal(values[0].numpy(), ramp())
        assert grid.sizes == SIZES
        assert grid.steps == pytest.approx(STEPS)
        there = read_labels(save(tmp_path / "l.nii.gz", stored(labels, order, signs), affine), image, range(3))
        np.testing.assert_array_equal(there.numpy(), labels)
        write_nifti(like_file(there, image), tmp_path / "back.nii.gz")
        back = nibabel.load(tmp_path / "back.nii.gz")
        assert back.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(back.dataobj), stored(labels, order, signs))
        np.testing.assert_allclose(back.affine, affine, atol=1e-5)


def test_scanner_coordinates_are_kept_where_the_axes_run_along_them(tmp_path: Path) -> None:
    affine = affine_of((0, 1, 2), (-1, 1, 1))
    _, grid = canonical(read_nifti(save(tmp_path / "a.nii.gz", ramp(), affine)))
    # The voxel of largest index is the one furthest to the left.
    assert grid.starts == pytest.approx((10.0 - 6 * 1.0, -20.0, 5.0))


def test_modalities_are_channels(tmp_path: Path) -> None:
    both = np.stack([ramp(), -ramp()], axis=-1)
    order, signs = (2, 0, 1), (1, -1, 1)
    image = read_nifti(save(tmp_path / "a.nii.gz", stored(both, order, signs), affine_of(order, signs)))
    values, _ = canonical(image)
    np.testing.assert_array_equal(values.numpy(), np.stack([ramp(), -ramp()]))
    labels = torch.from_numpy((ramp() % 2).astype(np.uint8))
    assert like_file(labels, image).dims == image.dims[:3]


def test_both_layouts(tmp_path: Path) -> None:
    save_pair(tmp_path / "plain", "two")
    save_pair(tmp_path / "plain", "one")
    (tmp_path / "plain" / "images" / "._one.nii.gz").write_bytes(b"left by macOS")
    task = find_pairs(tmp_path / "plain")
    assert [pair.name for pair in task.pairs] == ["one", "two"]
    assert task.classes == ()
    assert [path.name for path in scan_files(tmp_path / "plain" / "images")] == ["one.nii.gz", "two.nii.gz"]

    save_decathlon(tmp_path / "Task04")
    task = find_pairs(tmp_path / "Task04")
    assert [pair.name for pair in task.pairs] == ["a", "b"]
    assert task.classes == ("background", "Anterior", "Posterior")
    volume = read_volume(task.pairs[0], range(3))
    assert volume.values.dtype == torch.float32
    assert volume.labels is not None
    np.testing.assert_array_equal(volume.labels.numpy(), ramp() % 3)


def test_the_hippocampus_volumes(shared_data: Path) -> None:
    root = shared_data / "medical" / "hippocampus"
    if not root.is_dir():
        pytest.skip(f"no hippocampus volumes: {root} is not a folder")
    pairs = find_pairs(root).pairs
    assert len(pairs) == 208
    volumes = [read_volume(pair, range(3)) for pair in pairs[:12]]
    assert len({volume.grid.sizes for volume in volumes}) > 6
    for volume in volumes:
        assert volume.grid.steps == (1.0, 1.0, 1.0)
        assert volume.labels is not None
        assert volume.labels.shape == volume.grid.sizes
        assert volume.labels.unique().tolist() == [0, 1, 2]


# --------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"array": np.zeros((7, 6, 4), np.uint8)}, r"one\.nii\.gz must have the shape of the image, \[7, 6, 5\], got"),
        ({"affine": np.diag([1.0, 1.0, 1.2, 1.0])}, "must lie in the same space as the image"),
        ({"array": np.full(SIZES, 3, np.uint8)}, r"must be among 0 \.\.\. 2, got \[3\]"),
        ({"array": np.full(SIZES, 1.5, np.float32)}, r"must be among 0 \.\.\. 2, got \[1\.5\]"),
        ({"array": np.full(SIZES, np.nan, np.float32)}, r"must be among 0 \.\.\. 2, got \[nan\]"),
    ],
    ids=["shape", "affine", "unknown", "fraction", "nan"],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: dict[str, Any], message: str) -> None:
    save_pair(tmp_path, "one", **labels)
    with pytest.raises(ValueError, match=message):
        read_volume(find_pairs(tmp_path).pairs[0], range(3))


def test_images_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    save_pair(tmp_path, "one")
    pair, image = find_pairs(tmp_path).pairs[0], tmp_path / "images" / "one.nii.gz"
    holes = ramp()
    holes[1, 2, 3] = np.nan
    save(image, holes)
    with pytest.raises(ValueError, match=r"voxels of .*one\.nii\.gz must be finite, got 1 that are not"):
        read_volume(pair, range(3))
    save(image, ramp().reshape(*SIZES, 1, 1).repeat(2, 4))
    with pytest.raises(ValueError, match="must be a 3-D or 4-D volume, got 5-D data"):
        read_volume(pair, range(3))
    raw = nibabel.Nifti1Image(ramp(), np.eye(4))
    raw.header.set_sform(np.diag([1.0, 0.0, 1.0, 1.0]), 1)
    raw.header.set_qform(None, 0)
    raw.header["srow_y"] = 0
    nibabel.save(nibabel.Nifti1Image(ramp(), None, raw.header), image)
    with pytest.raises(ValueError, match="must not be singular"):
        read_volume(pair, range(3))
    image.write_bytes(b"no volume")
    with pytest.raises(ValueError, match="must be a complete NIfTI file"):
        read_volume(pair, range(3))


def test_a_missing_partner_is_named(tmp_path: Path) -> None:
    save_pair(tmp_path, "one")
    save(tmp_path / "images" / "two.nii.gz", ramp())
    with pytest.raises(ValueError, match=r"labels must hold a file for each one beside it, got none for 1 of 2: two"):
        find_pairs(tmp_path)
    (tmp_path / "images" / "two.nii.gz").rename(tmp_path / "labels" / "three.nii.gz")
    with pytest.raises(ValueError, match=r"images must hold a file for each one beside it, got none for 1 of 2: three"):
        find_pairs(tmp_path)


def test_a_folder_of_neither_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="root must be an existing folder"):
        find_pairs(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"must hold dataset\.json"):
        find_pairs(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError, match=r"images must hold scans: NIfTI .*, got none"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": {"0": "background", "2": "x"}}, ValueError, r"must be 0, 1, 2, \.\.\., got \[0, 2\]"),
        ({"training": []}, ValueError, "must list training pairs"),
        ({"training": [{"image": "./imagesTr/a.nii.gz"}]}, ValueError, "must list 'training' pairs"),
        ({"training": "none"}, ValueError, "must list 'training' pairs"),
        ({"training": [listed("../x.nii.gz")]}, ValueError, "inside its folder"),
        ({"training": [listed("imagesTr/c.nii.gz")]}, FileNotFoundError, r"c\.nii\.gz"),
        ({"training": [listed("imagesTr/a.nii.gz")] * 2}, ValueError, "each image once"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, changes: Any, error: type[Exception], message: str) -> None:
    save_decathlon(tmp_path, **changes)
    with pytest.raises(error, match=message):
        find_pairs(tmp_path)


def test_labels_of_another_volume_are_not_written(tmp_path: Path) -> None:
    image = read_nifti(save(tmp_path / "a.nii.gz", ramp()))
    with pytest.raises(ValueError, match="labels must have the image's shape"):
        like_file(torch.zeros(SIZES[::-1], dtype=torch.uint8), image)
    for value in (-1, 2**31):
        with pytest.raises(ValueError, match=r"labels must lie in 0 \.\.\. 2147483647, got"):
            like_file(torch.full(SIZES, value), image)
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(ValueError, match=r"labels must be integers \(labels.long\(\) of a mask"):
            like_file(torch.ones(SIZES, dtype=dtype), image)


@pytest.mark.parametrize(
    ("largest", "stored"),
    [(255, np.uint8), (256, np.int16), (260, np.int16), (32767, np.int16), (32768, np.int32), (70000, np.int32)],
)
def test_labels_of_any_number_are_read_and_written_as_they_are(tmp_path: Path, largest: int, stored: type) -> None:
    labels = np.zeros(SIZES, np.int32)
    labels[1:4, 2:5, 3] = largest
    labels[0, 0, 0] = 4
    image = read_nifti(save(tmp_path / "image.nii.gz", ramp()))
    read = read_labels(save(tmp_path / "labels.nii.gz", labels), image, range(largest + 1))
    np.testing.assert_array_equal(read, labels)
    for given in (read, read.long()):
        write_nifti(like_file(given, image), tmp_path / "back.nii.gz")
        back = nibabel.load(tmp_path / "back.nii.gz")
        assert back.get_data_dtype() == stored
        np.testing.assert_array_equal(np.asanyarray(back.dataobj), labels)


@pytest.mark.parametrize("value", [1.5, np.nan, -1.0, 3.0])
def test_labels_that_are_no_class_are_refused(tmp_path: Path, value: float) -> None:
    labels = np.ones(SIZES, np.float32)
    labels[0, 0, 0] = value
    image = read_nifti(save(tmp_path / "image.nii.gz", ramp()))
    with pytest.raises(ValueError, match=r"labels .*labels\.nii\.gz must be among 0 \.\.\. 2, got"):
        read_labels(save(tmp_path / "labels.nii.gz", labels), image, range(3))
