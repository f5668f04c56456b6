"""Scans of every format: the same places and values, refused by name where they are no stack of voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import xarray as xr
import zarr
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ccnn_irregular.adapters.nifti import read_nifti, write_nifti
from ccnn_irregular.adapters.nifti_space import affine_of
from ccnn_irregular.adapters.scan_files import is_scan, scan_files, scan_name
from ccnn_irregular.adapters.scans import read_scan, write_scan
from ccnn_irregular.datasets import volume_folder
from ccnn_irregular.datasets.decathlon import canonical

VALUES = np.random.default_rng(0).integers(0, 2000, (6, 5, 4)).astype(np.int16)  # i, j, k
SERIES = generate_uid()


def place(array: xr.DataArray, index: tuple[int, int, int]) -> np.ndarray:
    """Where a voxel of the file is, millimetres, RAS."""
    return (affine_of(array) @ [*index, 1.0])[:3]


def write_slice(path: Path, pixels: np.ndarray, position: Any, **changed: Any) -> None:
    """One CT slice of 0.7 x 0.9 mm pixels (columns x rows); ``pixels`` are rows by columns."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID, SERIES
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = *pixels.shape, 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.PixelSpacing, one.ImageOrientationPatient = [0.9, 0.7], [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient, one.SliceThickness = list(position), 9.0  # thicker than the slices are apart
    one.RescaleSlope, one.RescaleIntercept = 2, -1024
    one.PixelData = pixels.astype("<i2").tobytes()
    for name, value in changed.items():
        setattr(one, name, value)
    one.save_as(path, enforce_file_format=True)


def write_series(folder: Path, positions: list[Any], **changed: Any) -> Path:
    folder.mkdir(parents=True)
    names = np.random.default_rng(1).permutation(len(positions))  # the order of the files says nothing
    for number, position in enumerate(positions):
        write_slice(folder / f"{names[number]:03}.dcm", VALUES[:, :, number % 4].T, position, **changed)
    return folder


def test_a_dicom_series_lies_where_simpleitk_puts_it(tmp_path: Path) -> None:
    tilt = np.deg2rad(20)  # an oblique stack, whose slices follow its normal
    down = [0, np.cos(tilt), np.sin(tilt)]
    normal = np.cross([1, 0, 0], down)
    folder = write_series(
        tmp_path / "ct", [np.array([3.0, -4.0, 5.0]) + 2.5 * k * normal for k in range(4)],
        ImageOrientationPatient=[1, 0, 0, *down],
    )  # fmt: skip
    array = read_scan(folder)
    np.testing.assert_array_equal(array.to_numpy(), VALUES * 2.0 - 1024)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    for index in ((0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 3), (2, 3, 1)):
        wanted = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        np.testing.assert_allclose(place(array, index), wanted, atol=1e-4)
    assert float(array[2, 3, 1]) == image.GetPixel(2, 3, 1)


def test_a_single_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    array = read_scan(write_series(tmp_path / "one", [(0, 0, 7)]))
    assert array.shape == (6, 5, 1)
    assert np.linalg.norm(affine_of(array)[:3, 2]) == 9.0


STACK = [(0, 0, 2.5 * k) for k in range(6)]


@pytest.mark.parametrize(
    ("positions", "changed", "message"),
    [
        ([(0, 0.4 * k, 2.5 * k) for k in range(6)], {}, "gantry tilt.*9.1 degrees"),
        ([one for one in STACK if one[2] != 5.0], {}, r"lack no slice.*5 mm between \d{3}\.dcm and \d{3}\.dcm"),
        ([*STACK, (0, 0, 5.0)], {}, "one slice at each place"),
        ([*STACK[:-1], (0, 0, 12.8)], {}, "2.8 mm between"),
        (STACK[:2], {"NumberOfFrames": 2}, "dcm2niix"),
        (STACK[:2], {"ModalityLUTSequence": []}, "not by a table"),
        (STACK[:2], {"SamplesPerPixel": 3}, "colour"),
        (STACK[:2], {"PixelSpacing": []}, r"\d{3}\.dcm must be a complete DICOM file"),
        (STACK[:2], {"ImageOrientationPatient": [1, 0, 0]}, r"\d{3}\.dcm must be a complete DICOM file"),
    ],
)
def test_slices_that_are_no_stack_are_refused_by_name(
    positions: list[Any], changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_scan(write_series(tmp_path / "bad", positions, **changed))


def test_two_series_in_a_folder_and_slices_that_differ_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "two", STACK[:3])
    write_slice(folder / "scout.dcm", VALUES[:, :, 0].T, (0, 0, 90), SeriesInstanceUID=generate_uid())
    with pytest.raises(ValueError, match=r"a folder of its own.*2 series"):
        read_scan(folder)
    folder = write_series(tmp_path / "other", STACK[:3])
    write_slice(folder / "z.dcm", VALUES[:, :, 0].T, (0, 0, 7.5), PixelSpacing=[1.0, 1.0])
    with pytest.raises(ValueError, match="PixelSpacing of the slices"):
        read_scan(folder)
    damaged = folder / "z.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    (folder / "notes.txt").write_text("no slice")
    with pytest.raises(ValueError, match=r"z\.dcm|PixelSpacing"):
        read_scan(folder)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".nhdr"])
def test_nrrd_and_metaimage_are_the_nifti_of_the_same_image(suffix: str, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(VALUES.T)
    image.SetSpacing((0.7, 0.9, 3.3))
    image.SetOrigin((10.0, -20.0, 5.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    for name in (f"scan{suffix}", "scan.nii.gz"):
        sitk.WriteImage(image, str(tmp_path / name))
    array, nifti = read_scan(tmp_path / f"scan{suffix}"), read_nifti(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(affine_of(array), affine_of(nifti), atol=1e-4)
    xr.testing.assert_allclose(array.drop_attrs(), nifti.drop_attrs())
    (values, grid), (others, its_grid) = canonical(array), canonical(nifti)
    assert grid.steps == its_grid.steps
    np.testing.assert_array_equal(values, others)


def test_a_header_in_ras_and_one_without_spacing(tmp_path: Path) -> None:
    header = "NRRD0004\ntype: short\ndimension: 3\n{}sizes: 6 5 4\nendian: little\nencoding: raw\n{}\n"
    data = VALUES.ravel(order="F").astype("<i2").tobytes()
    directions = "space directions: (0.7,0,0) (0,0.9,0) (0,0,3)\nspace origin: (1,2,3)\n"
    path = tmp_path / "ras.nrrd"
    path.write_bytes(header.format("space: right-anterior-superior\n", directions).encode() + data)
    array = read_scan(path)
    np.testing.assert_allclose(place(array, (1, 1, 1)), [1.7, 2.9, 6.0])
    np.testing.assert_array_equal(array.to_numpy(), VALUES)
    path.write_bytes(header.format("", "").encode() + data)
    with pytest.raises(ValueError, match="how large its voxels are"):
        read_scan(path)
    path.write_bytes(header.format("space: right-anterior-superior\n", directions).encode() + data[:50])
    with pytest.raises(ValueError, match=r"complete \.nrrd file"):
        read_scan(path)


def write_ome(path: Path, version: str, **changed: Any) -> Path:
    """An image of two channels, voxels of 0.5 x 0.5 x 2 um, with a coarser level beside it."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    data = np.stack([VALUES.T, VALUES.T + 1])[None]  # t, c, z, y, x
    group.create_array("0", data=data)
    group.create_array("1", data=data[..., ::2, ::2])
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    steps = [
        {"type": "scale", "scale": [1, 1, 2.0, 0.5, 0.5]},
        {"type": "translation", "translation": [0, 0, 10, 0, 5]},
    ]
    levels = [{"path": "0", "coordinateTransformations": steps}, {"path": "1", "coordinateTransformations": steps}]
    image = {"axes": axes, "datasets": levels, "version": version} | changed
    group.attrs.update({"ome": {"multiscales": [image]}} if version == "0.5" else {"multiscales": [image]})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_keeps_scale_and_translation(version: str, tmp_path: Path) -> None:
    array = read_scan(write_ome(tmp_path / "cells.ome.zarr", version))
    assert array.dims == ("x", "y", "z", "volume")
    np.testing.assert_array_equal(array.to_numpy()[..., 0], VALUES)
    np.testing.assert_allclose(place(array, (2, 1, 3)), [0.006, 0.0005, 0.016])
    values, grid = canonical(array)
    assert values.shape == (2, 6, 5, 4)
    np.testing.assert_allclose(grid.steps, [5e-4, 5e-4, 2e-3])


def test_an_ome_zarr_that_does_not_say_enough_is_refused(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.zarr", "0.4")
    group = zarr.open_group(path)
    image = group.attrs["multiscales"][0]
    for axis in image["axes"]:
        axis.pop("unit", None)
    group.attrs["multiscales"] = [image]
    with pytest.raises(ValueError, match="unit of axis x"):
        read_scan(path)
    zarr.open_group(tmp_path / "b.zarr", mode="w")
    with pytest.raises(ValueError, match="be one OME-Zarr image"):
        read_scan(tmp_path / "b.zarr")


def test_a_folder_of_every_format_is_one_data_set(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    write_series(root / "ct", STACK[:4])
    nibabel.save(nibabel.Nifti1Image(VALUES, np.diag([0.7, 0.9, 2.5, 1])), root / "mr.nii.gz")
    image = sitk.GetImageFromArray(VALUES.T)
    image.SetSpacing((0.7, 0.9, 2.5))
    sitk.WriteImage(image, str(root / "pet.mha"))
    (root / "notes.txt").write_text("no scan")
    (root / ".hidden.nii").write_text("macOS")
    assert [scan_name(path) for path in scan_files(root)] == ["ct", "mr", "pet"]
    assert not is_scan(root)
    unlabelled = volume_folder.load(root, labelled=False)
    assert unlabelled.names == ("ct", "mr.nii.gz", "pet.mha")
    assert unlabelled.labels.tolist() == [-1, -1, -1]
    (root / "labels.csv").write_text("file,label\nct,sick\npet.mha,well\nmr.nii.gz,well\n")
    labelled = volume_folder.load(root)
    assert [labelled.classes[label] for label in labelled.labels] == ["sick", "well", "well"]
    assert {grid.steps for grid in labelled.grids} == {(2.5, 0.9, 0.7)}


def test_results_are_written_as_nifti_on_the_voxels_of_any_scan(tmp_path: Path) -> None:
    array = read_scan(write_series(tmp_path / "ct", STACK[:4]))
    write_nifti((array > 0).astype(np.uint8), tmp_path / "mask.nii.gz", like=array)
    back = read_nifti(tmp_path / "mask.nii.gz", like=array)
    np.testing.assert_array_equal(back.to_numpy(), array.to_numpy() > 0)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_results_lie_where_the_scan_does_in_every_format_that_is_written(suffix: str, tmp_path: Path) -> None:
    """An oblique stack, whole, and cut, thinned and turned, as SimpleITK reads what was written."""
    image = sitk.GetImageFromArray(VALUES.T)
    turn = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.3, 0.4)
    image.SetDirection(turn.GetMatrix())
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetOrigin((3.0, -40.0, 500.0))
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    array = read_scan(tmp_path / "scan.nrrd")
    write_scan(array, tmp_path / f"whole{suffix}")
    whole = sitk.ReadImage(str(tmp_path / f"whole{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(whole), VALUES.T)
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(whole, geometry)(), getattr(image, geometry)(), rtol=0, atol=1e-4)
    first, second, third = array.dims
    part = array.isel({first: slice(1, 6, 2), second: slice(None, None, -1)}).transpose(third, first, second)
    write_scan(part, tmp_path / f"part{suffix}")
    written = sitk.ReadImage(str(tmp_path / f"part{suffix}"))
    for index in ((0, 0, 0), (2, 0, 0), (0, 4, 0), (0, 0, 3), (1, 3, 2)):
        i, j, k = 1 + 2 * index[0], 4 - index[1], index[2]
        place = written.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(place, image.TransformIndexToPhysicalPoint((i, j, k)), rtol=0, atol=1e-4)
        assert written.GetPixel(index) == VALUES[i, j, k]
    assert {path.name for path in tmp_path.iterdir()} == {"scan.nrrd", f"whole{suffix}", f"part{suffix}"}


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.float32), np.eye(4)), tmp_path / "a.nii")
    array = read_scan(tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"path must end in one of .*\.nrrd"):
        write_scan(array, tmp_path / "b.dcm")
    with pytest.raises(ValueError, match="array must have the dimensions"):
        write_scan(array, tmp_path / "b.mha")
