"""Medical and microscopy volumes of any common format as arrays in millimetres, alike in everything but their file.

NIfTI (nibabel), DICOM series (pydicom), NRRD and MetaImage (SimpleITK), OME-Zarr (zarr). What ``read_scan`` returns is
what ``read_nifti`` returns, so ``write_scan`` writes results beside any of them, on the voxels of the input.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import parsing, refuse_file
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.nifti import affine_of, read_nifti, require_same_space, write_nifti
from ccnn_irregular.adapters.nifti_space import require_affine, space_of
from ccnn_irregular.adapters.scan_files import ITK, NIFTI, SCANS, is_dicom, is_scan, scan_name

__all__ = ["WRITTEN", "read_scan", "write_scan"]

WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Suffixes of the formats that are written."""

Floats = NDArray[np.float64]
# DICOM and ITK count to the left and to the back, NIfTI to the right and to the front.
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# What a header says of the size of voxels; without it SimpleITK takes 1 mm.
_SPACINGS = (b"space directions:", b"spacings:", b"elementspacing", b"elementsize")
_MILLIMETRES = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "meter": 1e3}
_META, _MOST_DIMS = (".mha", ".mhd"), 4
# Lines of a MetaImage that hold a number for each axis, and for each pair of axes.
_META_ROWS = ("dimsize", "elementspacing", "elementsize", "offset", "position", "origin", "centerofrotation")
_META_MATRICES = ("transformmatrix", "rotation", "orientation")
# Departures of slices: sine of the angle of a tilt, share of the gap between neighbours, and what a missing one leaves.
_TILTED, _UNEVEN, _MISSING = 1e-3, 0.02, 1.5


def read_scan(path: str | Path, *, like: xr.DataArray | None = None) -> xr.DataArray:
    """Read a scan as an array in millimetres; its axes to the right, the front and the top where they run so.

    Args:
        path: a NIfTI, NRRD or MetaImage file; a folder of the slices of one DICOM series; an OME-Zarr image.
        like: an image in whose space, voxel by voxel, the scan must lie (labels on their image).

    Returns:
        As from ``read_nifti``: three voxel axes with coordinates in millimetres, and "volume" where there are channels;
        attributes ``affine`` and ``voxel_axes``. DICOM values are rescaled (Hounsfield units in CT).

    Raises:
        FileNotFoundError: nothing is there.
        ImportError: the package that reads the format is not installed.
        ValueError: another format, a damaged file, voxels without a size in a unit, a series that is no stack of
            parallel slices at equal distances (tilted gantry, missing or doubled slices), several series in a folder.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path must be a scan, got {path}, which does not exist")
    if path.name.endswith(NIFTI):
        return read_nifti(path, like=like)
    if path.name.endswith(ITK):
        array = _read_itk(path)
    elif path.is_dir() and path.name.endswith(".zarr"):
        array = _read_ome(path)
    elif is_scan(path):
        array = _read_dicom(path)
    else:
        reject(str(path), f"be {SCANS}", "another format")
    if like is not None:
        require_same_space(path, array, like)
    return array


def write_scan(array: xr.DataArray, path: str | Path) -> None:
    """Write a volume on the voxels it was read with, under a temporary name that is renamed at the end.

    Args:
        array: as ``read_scan`` returned it, or one like it of three dimensions; of NIfTI see ``write_nifti``.
        path: ends in ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha``.

    Raises:
        ValueError: another suffix, an array of other dimensions, or see ``write_nifti``.
    """
    path = Path(path)
    require(path.name.endswith(WRITTEN), "path", f"end in one of {WRITTEN}", path.name)
    if path.name.endswith(NIFTI):
        write_nifti(array, path)
        return
    sitk = import_optional("SimpleITK", f"{path.suffix} files", "formats")
    names = str(array.attrs["voxel_axes"]).split()[:3]
    require(set(names) == set(array.dims), "array", f"have the dimensions {names}", list(array.dims))
    affine = _TO_RAS @ affine_of(array)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.transpose(*reversed(names)).to_numpy())
    image.SetSpacing(steps.tolist())
    image.SetDirection((affine[:3, :3] / steps).reshape(-1).tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        sitk.WriteImage(image, str(part), useCompression=True)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _array(path: Path, values: NDArray[Any], affine: Floats) -> xr.DataArray:
    """Values ``(i, j, k)`` or ``(i, j, k, channels)`` with the affine that places them, millimetres, RAS+."""
    require(values.dtype.kind in "biuf", f"voxels of {path}", "be real numbers", values.dtype)
    require_affine(str(path), affine)
    dims, coordinates = space_of(affine, values.shape[:3])
    dims = (*dims, "volume") if values.ndim == 4 else dims
    attributes = {
        "affine": affine.reshape(-1).tolist(),
        "qform_code": 0,
        "sform_code": 1,
        "voxel_axes": " ".join(dims),
    }
    attributes |= {"volumes": values.shape[3]} if values.ndim == 4 else {}
    array = xr.DataArray(values, coordinates, dims, scan_name(path), attributes)
    array.encoding = {"source": str(path)}
    return array


# NRRD and MetaImage


def _read_itk(path: Path) -> xr.DataArray:
    sitk = import_optional("SimpleITK", f"{path.suffix} files", "formats")
    with path.open("rb") as file:
        header = file.read(1 << 16).lower()
    if path.name.endswith(_META):
        _require_meta_header(path, header)
    rule = "say how large its voxels are (space directions, spacings or ElementSpacing, in mm)"
    require(any(word in header for word in _SPACINGS), str(path), rule, "no such line; SimpleITK would take 1 mm")
    with parsing(path, f"{path.suffix} file"):
        image = sitk.ReadImage(str(path))
    require(image.GetDimension() == 3, str(path), "be a 3-D volume", f"{image.GetDimension()}-D data")
    values = np.swapaxes(sitk.GetArrayFromImage(image), 0, 2)  # k, j, i to i, j, k; channels stay last
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return _array(path, values, _TO_RAS @ affine)


def _require_meta_header(path: Path, header: bytes) -> None:
    """Refuse a MetaImage whose header contradicts itself: ITK ends the process over some of these."""
    head, _, rest = header.partition(b"elementdatafile")
    lines = [line.partition(b"=")[::2] for line in head.splitlines()]
    given = {name.strip().decode("ascii", "replace"): value.split() for name, value in lines}
    dims = given.get("ndims", [])
    plain = rest[:1] in b" =" and len(dims) == 1 and dims[0].isdigit() and 1 <= int(dims[0]) <= _MOST_DIMS
    count = int(dims[0]) if plain else 0
    wanted = {name: count for name in _META_ROWS} | {name: count**2 for name in _META_MATRICES}
    wrong = [name for name, number in wanted.items() if name in given and len(given[name]) != number]
    sizes = given.get("dimsize", [])
    if not plain or wrong or not all(size.isdigit() and int(size) > 0 for size in sizes) or len(sizes) != count:
        what = ", ".join(wrong) or "NDims or DimSize"
        refuse_file(path, "be a complete MetaImage", f"a damaged one: {what} in its header is none of {count} axes")


# OME-Zarr


def _read_ome(path: Path) -> xr.DataArray:
    zarr = import_optional("zarr", "OME-Zarr", "files")
    with parsing(path, "OME-Zarr image"):
        group = zarr.open_group(path, mode="r")
        images = dict(group.attrs).get("ome", dict(group.attrs)).get("multiscales", [])
    require(len(images) == 1, str(path), "be one OME-Zarr image (multiscales)", f"{len(images)} of them")
    names, units, finest, steps = _ome_layout(path, images[0])
    with parsing(path, "OME-Zarr image"):
        values = np.asarray(group[finest][...])
        scale, start = np.ones(values.ndim), np.zeros(values.ndim)
        for kind, numbers in steps:
            scale, start = (scale * numbers, start * numbers) if kind == "scale" else (scale, start + numbers)
    fits = scale.shape == start.shape == (len(names),) and values.ndim == len(names)
    require(fits, str(path), "have a number for each of its axes", f"{values.ndim} axes of data, named {names}")
    for axis in reversed([number for number, name in enumerate(names) if name not in ("c", "z", "y", "x")]):
        require(values.shape[axis] == 1, f"axis {names[axis]} of {path}", "have one entry", values.shape[axis])
        values = values.squeeze(axis)
    kept = [name for name in names if name in ("c", "z", "y", "x")]
    require({"x", "y", "z"} <= set(kept), str(path), "have the axes z, y and x", list(names))
    affine = np.eye(4)
    for row, name in enumerate("xyz"):
        unit = units[names.index(name)]
        require(unit in _MILLIMETRES, f"unit of axis {name} of {path}", f"be one of {sorted(_MILLIMETRES)}", unit)
        affine[row, row] = scale[names.index(name)] * _MILLIMETRES[unit]
        affine[row, 3] = start[names.index(name)] * _MILLIMETRES[unit]
    order = [kept.index(name) for name in ("x", "y", "z", "c") if name in kept]
    return _array(path, values.transpose(order), affine)


def _ome_layout(path: Path, image: Any) -> tuple[list[str], list[Any], str, list[tuple[str, Floats]]]:
    """Names and units of the axes, the path of the finest level, and the steps that place it: scales, translations."""
    try:
        axes = [(str(axis["name"]), axis.get("unit")) for axis in image["axes"]]
        level = image["datasets"][0]  # the first is the finest
        given = [*level["coordinateTransformations"], *image.get("coordinateTransformations", [])]
        for step in given:
            known = step["type"] in ("scale", "translation") and step["type"] in step
            require(known, f"{path}", "be placed by a scale and a translation that stand in its attributes", step)
        with parsing(path, "OME-Zarr image"):
            steps = [(step["type"], np.array(step[step["type"]], np.float64)) for step in given]
        return [name for name, _ in axes], [unit for _, unit in axes], str(level["path"]), steps
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        refuse_file(path, "be an OME-Zarr image", f"attributes that do not place it: {error!r}")


# DICOM


def _read_dicom(path: Path) -> xr.DataArray:
    """The slices of one series, sorted along their normal; the distance between them is that of their positions."""
    slices = _slices(path)
    first = slices[0]
    row, column = np.array(first.ImageOrientationPatient, np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    corners = np.array([image.ImagePositionPatient for image in slices], np.float64)
    order = np.argsort(corners @ normal)
    slices, corners = [slices[number] for number in order], corners[order]
    gap = _gap(path, slices, corners, normal)
    affine = np.eye(4)
    down, right = (float(step) for step in first.PixelSpacing)  # between rows, between columns
    affine[:3, :4] = np.column_stack([row * right, column * down, normal * gap, corners[0]])
    values = np.stack([_rescaled(path, image).T for image in slices], axis=2)
    return _array(path, values, _TO_RAS @ affine)


_OF_A_SLICE = (
    "PixelData", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SeriesInstanceUID",
    "Rows", "Columns", "SamplesPerPixel",
)  # fmt: skip

_NUMBERS = {"Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3}


def _slices(path: Path) -> list[Any]:
    """The images of the one series that is there."""
    pydicom = import_optional("pydicom", "DICOM series", "formats")
    files = sorted(file for file in path.iterdir() if is_dicom(file)) if path.is_dir() else [path]
    found = []
    for file in files:
        with parsing(file, "DICOM file"):
            one = pydicom.dcmread(file)
            list(one)  # elements are converted when they are first asked for
        lacking = [name for name in _OF_A_SLICE if name not in one]
        if "NumberOfFrames" in one and int(one.NumberOfFrames) > 1:
            reject(str(file), "hold one slice (dcm2niix converts files of many frames to NIfTI)", "many frames")
        require(not lacking, str(file), "be a slice of a series", f"one without {', '.join(lacking)}")
        require(
            one.SamplesPerPixel == 1, str(file), "hold one number a pixel", f"{one.SamplesPerPixel}, a colour image"
        )
        with parsing(file, "DICOM file"):
            for name, count in _NUMBERS.items():
                np.array(np.ravel(getattr(one, name)), np.float64).reshape(count)
        found.append(one)
    series = {str(one.SeriesInstanceUID) for one in found}
    require(len(series) == 1, str(path), "hold one series (give each a folder of its own)", f"{len(series)} series")
    for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        stated = np.array([np.ravel(getattr(one, name)) for one in found], np.float64)
        alike = bool(np.allclose(stated, stated[0], rtol=1e-4, atol=1e-4))
        require(alike, f"{name} of the slices in {path}", "be the same", np.unique(stated, axis=0)[:3].tolist())
    return found


def _gap(path: Path, slices: Sequence[Any], corners: Floats, normal: Floats) -> float:
    """Distance of neighbouring slices along their normal, millimetres; refused where they are no stack."""
    if len(slices) == 1:
        stated = getattr(slices[0], "SpacingBetweenSlices", None) or getattr(slices[0], "SliceThickness", None)
        if stated is None:
            reject(str(path), "say how thick its single slice is", "neither SpacingBetweenSlices nor SliceThickness")
        return float(stated)
    gaps = np.diff(corners @ normal)
    gap = float(np.median(gaps))

    def place(number: int) -> str:
        return f"{Path(slices[number].filename).name} and {Path(slices[number + 1].filename).name}"

    least, most = int(gaps.argmin()), int(gaps.argmax())
    if gaps[least] < _UNEVEN * gap or gap <= 0:
        reject(str(path), "hold one slice at each place (several times or echoes are scans of their own)", place(least))
    across = corners[-1] - corners[0]
    aside = float(np.linalg.norm(across - (across @ normal) * normal) / np.linalg.norm(across))
    if aside > _TILTED:
        angle = np.degrees(np.arcsin(min(1.0, aside)))
        rule = "be scanned without gantry tilt: its voxels are no boxes (dcm2niix corrects it, writing NIfTI)"
        reject(str(path), rule, f"slices that are shifted against each other by {angle:.2g} degrees")
    if gaps[most] > _MISSING * gap:
        rule = "lack no slice: its slices are {:.4g} mm apart"
        reject(str(path), rule.format(gap), f"{gaps[most]:.4g} mm between {place(most)}")
    if np.abs(gaps - gap).max() > _UNEVEN * gap:
        worst = int(np.abs(gaps - gap).argmax())
        reject(str(path), f"have slices {gap:.4g} mm apart", f"{gaps[worst]:.4g} mm between {place(worst)}")
    return float((corners[-1] - corners[0]) @ normal) / (len(slices) - 1)


def _rescaled(path: Path, one: Any) -> NDArray[Any]:
    """Pixels ``(rows, columns)`` in the unit of the modality."""
    require(
        "ModalityLUTSequence" not in one, str(path), "be rescaled by a slope, not by a table", "ModalityLUTSequence"
    )
    with parsing(one.filename, "DICOM file whose pixels can be unpacked"):
        pixels: NDArray[Any] = one.pixel_array
    size = (int(one.Rows), int(one.Columns))
    require(pixels.shape == size, str(one.filename), f"hold {size[0]} x {size[1]} pixels", f"the shape {pixels.shape}")
    slope, intercept = float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))
    return (pixels * slope + intercept).astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)
