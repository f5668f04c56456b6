"""Medical volumes: NIfTI and HDF5 files as DataArrays in millimetres, and back to NIfTI.

Nothing is resampled or reordered: an array has the file's voxels in the file's order. Where the voxel axes run along
the scanner's, whatever the order and the direction, coordinates are the scanner's (RAS+: x to the right, y to the
front, z to the top). Where they are oblique, coordinates are millimetres along the voxel axes from the first voxel, in
which distances are as true.

A file may place its voxels twice: by the sform, an affine, and by the qform, a rotation. Programs disagree on which of
the two they read, so both are kept in the attributes, and both follow what is cut out or thinned.

What describes the scan (affines, timing of the slices, unit of time) is kept in attributes, which a computed result
keeps. What describes the stored values (intent, display range, description) is kept in the encoding, which it loses.
"""

from __future__ import annotations

import math
import os
import secrets
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import parsing, refuse_file, require_unfolds
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.hdf5_sources import require_sources
from ccnn_irregular.adapters.nifti_space import (
    VOXEL,
    WORLD,
    affine_of,
    file_affine,
    file_indices,
    require_affine,
    space_axes,
    space_of,
)
from ccnn_irregular.adapters.nifti_times import SCAN_FIELDS, TIMES, header_times, scan_fields, slice_fields, time_fields

__all__ = ["affine_of", "read_hdf5", "read_nifti", "write_nifti"]

Floats = NDArray[np.float64]

_MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1e3, "micron": 1e-3}
_SUFFIXES = (".nii", ".nii.gz")
_NIFTI2_HEADER = 540  # bytes
_MOST_NODES = 2**15 - 1  # sizes are int16 in NIfTI-1
_SCAN = ("affine", "qform", "qform_code", "sform_code", "voxel_axes", "space_units", "time_units", "pixdim4",
         "volumes", *SCAN_FIELDS)  # fmt: skip
_VALUE_FIELDS = ("intent_code", "intent_p1", "intent_p2", "intent_p3", "intent_name", "cal_max", "cal_min", "descrip",
                 "aux_file")  # fmt: skip
_HDF5_SPACINGS = {"element_size_mm": 1.0, "element_size_um": 1e-3}


def read_nifti(path: str | Path, *, like: xr.DataArray | None = None) -> xr.DataArray:
    """Read a NIfTI-1 or NIfTI-2 volume as an array in millimetres.

    Args:
        path: ``.nii``, ``.nii.gz``, or the ``.hdr`` or ``.img`` file of a pair.
        like: an image the file belongs to, as its labels: it must have the same space, voxel by voxel.

    Returns:
        Dimensions in the file's order: "x", "y", "z" where the voxel axes run along the scanner's, else "i", "j",
        "k"; a fourth one is "t" with times from the header's ``toffset`` on where it has a unit of time and a step,
        else "volume" without coordinates; for a kernel in seconds say ``.ccnn(time_unit="seconds")``, times are days
        unless that says otherwise. Integers without a scale factor stay integers; scaled values are floats.
        Attributes: ``affine`` (16 numbers, row by row, voxel indices to millimetres: the sform, or the qform where
        there is no sform), ``qform`` (likewise, where its code is not 0), ``qform_code``, ``sform_code``,
        ``voxel_axes``, ``volumes`` (how many, where they have no times); as in the header, where they say something:
        ``space_units`` ("unknown" is taken for mm), ``time_units``, ``pixdim4``, ``toffset``, ``dim_info``,
        ``slice_code``, ``slice_start``, ``slice_end``, ``slice_duration``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no NIfTI file, a damaged one, not 3-D or 4-D, an affine that is singular or not finite, complex or
            colour voxels, another space than ``like``'s.

    Warns:
        UserWarning: voxel axes that are not perpendicular, so distances across them are not Euclidean; a qform beside
            an sform that is no rotation, which is left out.
    """
    path = Path(path)
    image = _loaded(path)
    require(image.ndim in (3, 4), str(path), "be a 3-D or 4-D volume", f"{image.ndim}-D data {image.shape}")
    header = image.header
    scale = np.diag([*([_MILLIMETRES[header.get_xyzt_units()[0]]] * 3), 1.0])
    affine = np.asarray(image.affine, np.float64)
    require_affine(str(path), affine)
    dims, coordinates = space_of(scale @ affine, image.shape[:3])
    attributes = {
        "affine": (scale @ affine).reshape(-1).tolist(),
        "qform_code": int(header["qform_code"]),
        "sform_code": int(header["sform_code"]),
        **scan_fields(header),
    }
    if attributes["qform_code"]:
        _add_qform(path, attributes, header, scale)
    times = header_times(header)
    if times is not None:
        dims = (*dims, "t")
        about = {"axis": "T", "standard_name": "time", "units": TIMES[attributes["time_units"]]}
        coordinates["t"] = ("t", times, about)
        attributes.pop("toffset", None)  # the first time says it
    elif image.ndim == 4:
        dims = (*dims, "volume")
        attributes["volumes"] = image.shape[3]
    attributes["voxel_axes"] = " ".join(dims)
    values, encoding = _voxels(path, image)
    array = xr.DataArray(values, coordinates, dims, path.name.partition(".")[0], attributes)
    array.encoding = {"source": str(path), **encoding}
    if like is not None:
        require_same_space(path, array, like)
    return array


def write_nifti(array: xr.DataArray, path: str | Path, *, like: xr.DataArray | None = None) -> None:
    """Write an array with the affines of the file it came from, under a temporary name that is renamed at the end.

    Both affines, sform and qform, keep their codes and follow what was cut out or thinned; so do ``toffset`` and the
    time step in ``pixdim[4]``. The file is NIfTI-1, or NIfTI-2 where the array is as it was read from one or has an
    axis too long for NIfTI-1.

    Args:
        array: with the dimensions it was read with, in any order. A dimension "channel" becomes the fourth. A scalar
            coordinate "t", as ``array.isel(t=3)`` leaves it, is the time of the volume.
        path: ``.nii`` or ``.nii.gz``.
        like: the image whose affines, codes and other attributes of ``read_nifti`` are taken, for arrays that have
            lost theirs.

    Raises:
        ValueError: dimensions or coordinates other than those of a volume, coordinates or times that are not uniform,
            times that fall or are not in seconds, milliseconds or microseconds, a dtype that NIfTI does not have,
            another suffix, ``like`` in another space.

    Warns:
        UserWarning: the order of the slices in time (``slice_code``) is left out, since slices were cut away.
    """
    path = Path(path)
    suffix = next((ending for ending in reversed(_SUFFIXES) if path.name.endswith(ending)), None)
    require(suffix is not None, "path", f"end in one of {_SUFFIXES}", path.name)
    if like is not None:
        array = _with_scan_of(like, array)
    affine, indices = file_affine(array), file_indices(array)
    axes = space_axes(array)
    rest = [str(dim) for dim in array.dims if dim not in axes]
    lacking = [dim for dim in axes if dim not in array.dims]
    require(not lacking and len(rest) <= 1, "dimensions", f"be {axes} and one more at most", list(array.dims))
    values = array.transpose(*axes, *rest).to_numpy()
    values = values.astype(np.uint8) if values.dtype.kind == "b" else values
    kept = values.dtype.kind in "iuf" and values.dtype.str[1:] not in ("f2", "i8", "u8")
    require(kept, "array", "be of a dtype that NIfTI viewers read: floats, or integers of up to 32 bits", values.dtype)
    fields = time_fields(array, rest) | slice_fields(array, axes, indices)
    image = _image(values, affine @ indices, int(array.encoding.get("nifti_version", 1)))
    _set_affines(image, array.attrs, affine, indices)
    _set_fields(image.header, array.attrs, fields, rest)
    unchanged = values.shape == array.encoding.get("original_shape") and bool((indices == np.eye(4)).all())
    _set_about_values(image.header, array.encoding, unchanged)
    nibabel = import_optional("nibabel", "a NIfTI file", "files")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part{suffix}")
    try:
        nibabel.save(image, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_hdf5(
    path: str | Path,
    dataset: str,
    *,
    spacing: Sequence[float] | None = None,
    dims: Sequence[str] | None = None,
) -> xr.DataArray:
    """Read a volume of an HDF5 file as an array in millimetres.

    Args:
        path: of the file.
        dataset: name of the dataset in it, "volumes/raw" for instance.
        spacing: distance of neighbouring voxels along the first three axes, millimetres; None = the dataset's attribute
            ``element_size_mm`` or ``element_size_um``.
        dims: names of the axes; None = "z", "y", "x", and "channel" for a fourth.

    Returns:
        The dataset with coordinates in millimetres from the first voxel, and its attributes.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no HDF5 file, a damaged one, a dataset that is not there or that cannot be read (an encryption or
            compression filter this machine lacks), one whose values lie in other files that are missing, not 3-D or
            4-D, no spacing.
    """
    path = Path(path)
    h5py = import_optional("h5py", "an HDF5 file")
    if not path.exists():
        raise FileNotFoundError(f"path must be an HDF5 file, got {path}, which does not exist")
    if not h5py.is_hdf5(path):
        reject(str(path), "be an HDF5 file", "one without its signature, another format or an encrypted file")
    what = "HDF5 file with filters that are known"
    with parsing(path, what):
        file = h5py.File(path, "r")
    with file:
        found: list[str] = []
        with parsing(path, what):
            file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        require(dataset in found, "dataset", f"be one of {found} in {path}", repr(dataset))
        with parsing(path, what):
            stored = file[dataset]
            shape, dtype, inside = stored.shape or (), stored.dtype, not stored.external and not stored.is_virtual
        require(len(shape) in (3, 4), f"{path} {dataset!r}", "be a 3-D or 4-D volume", f"{len(shape)}-D data")
        require(dtype.kind in "biuf", f"{path} {dataset!r}", "hold numbers", dtype)
        require_sources(path, stored)
        if inside:
            require_unfolds(path, path.stat().st_size, math.prod(shape) * dtype.itemsize, "HDF5 file")
        with parsing(path, what):
            attributes, values = dict(stored.attrs), stored[...]
    names = tuple(dims) if dims is not None else ("z", "y", "x", "channel")[: values.ndim]
    unique = len(names) == values.ndim == len(set(names))
    require(unique, "dims", f"name each of the {values.ndim} axes once", names)
    steps = _spacing(path, attributes, spacing)
    coordinates = {}
    for name, size, step in zip(names, values.shape, steps, strict=False):
        axis = name.upper() if name in WORLD else None
        about = {"units": "mm", "long_name": "from the first voxel", **({"axis": axis} if axis else {})}
        coordinates[name] = (name, step * np.arange(size), about)
    array = xr.DataArray(values, coordinates, names, dataset.rpartition("/")[2], attributes)
    array.encoding = {"source": str(path)}
    return array


def _spacing(path: Path, attributes: dict[str, Any], spacing: Sequence[float] | None) -> list[float]:
    if spacing is None:
        named = next((name for name in _HDF5_SPACINGS if name in attributes), None)
        if named is None:
            rule = f"be given where the dataset of {path} has no attribute {' or '.join(_HDF5_SPACINGS)}"
            reject("spacing", rule, f"the attributes {sorted(attributes)}")
        steps = [float(step) * _HDF5_SPACINGS[named] for step in np.ravel(attributes[named])]
    else:
        steps = [float(step) for step in spacing]
    positive = len(steps) == 3 and all(np.isfinite(step) and step > 0 for step in steps)
    require(positive, "spacing", "be three positive numbers of millimetres", steps)
    return steps


def _loaded(path: Path) -> Any:
    nibabel = import_optional("nibabel", "a NIfTI file", "files")
    if not path.exists():
        raise FileNotFoundError(f"path must be a NIfTI file, got {path}, which does not exist")
    with parsing(path, "NIfTI file"):
        image = nibabel.load(path)
        if isinstance(image, nibabel.Nifti1Pair):
            image.header.get_xyzt_units()  # of a code that means something
    require(isinstance(image, nibabel.Nifti1Pair), str(path), "be a NIfTI file", type(image).__name__)
    return image


def _voxels(path: Path, image: Any) -> tuple[NDArray[Any], dict[str, Any]]:
    """Read voxels in the type that holds them exactly, and how they were stored."""
    stored = image.get_data_dtype()
    require(stored.kind in "biuf", f"voxels of {path}", "be real numbers", stored)
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    scaled = (slope, intercept) != (1, 0)
    told = math.prod(image.shape) * stored.itemsize
    holds = Path(image.file_map["image"].filename)
    require(holds.is_file(), str(path), f"be a NIfTI file, with {holds.name} beside it", "it alone")
    require_unfolds(path, holds.stat().st_size, told, "NIfTI file")
    with parsing(path, "NIfTI file"):
        if not scaled:
            values = np.asarray(image.dataobj.get_unscaled())
        else:
            exact = np.can_cast(stored, np.float32)
            values = image.get_fdata(caching="unchanged", dtype=np.float32 if exact else np.float64)
    if values.shape != image.shape:
        refuse_file(path, f"hold voxels of its shape {image.shape}", values.shape)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    encoding: dict[str, Any] = {"stored_dtype": str(stored), "original_shape": values.shape}
    encoding |= {name: image.header[name].item() for name in _VALUE_FIELDS}
    encoding["nifti_version"] = 2 if image.header.sizeof_hdr == _NIFTI2_HEADER else 1
    encoding["nifti_extensions"] = tuple(image.header.extensions)
    if scaled:
        encoding |= {"scl_slope": float(slope), "scl_inter": float(intercept)}
    return values, encoding


def _add_qform(path: Path, attributes: dict[str, Any], header: Any, scale: Floats) -> None:
    """Keep the second affine of a file; warn where it makes no sense, and keep the sform alone."""
    try:
        qform = scale @ np.asarray(header.get_qform(), np.float64)
        require_affine(f"the qform of {path}", qform)
    except ValueError as error:
        text = f"the qform of {path} is left out, its sform places the voxels: {error}"
        warnings.warn(text, UserWarning, stacklevel=3)
        attributes["qform_code"] = 0
    else:
        attributes["qform"] = qform.reshape(-1).tolist()


def _with_scan_of(like: xr.DataArray, array: xr.DataArray) -> xr.DataArray:
    """Add the attributes of an image that say where and when its voxels were taken."""
    taken = {name: like.attrs[name] for name in _SCAN if name in like.attrs}
    if "affine" in array.attrs and str(taken.get("voxel_axes", "")).startswith(" ".join(VOXEL)):
        # Along oblique axes millimetres count from the first voxel of the file, so they hold in its space alone.
        far = float(np.abs(file_affine(array) - file_affine(like)).max())
        require(far <= 1e-2, "like", "lie in the array's space", f"affines {far:.3g} mm apart")
    kept = {name: value for name, value in array.attrs.items() if name not in _SCAN}
    result = array.copy(deep=False)
    result.attrs = kept | taken
    return result


def _image(values: NDArray[Any], affine: Floats, version: int) -> Any:
    nibabel = import_optional("nibabel", "a NIfTI file", "files")
    long = max(values.shape) > _MOST_NODES
    kind = nibabel.Nifti2Image if version == 2 or long else nibabel.Nifti1Image
    return kind(values, affine, dtype=values.dtype)


def _set_affines(image: Any, attributes: dict[Any, Any], affine: Floats, indices: Floats) -> None:
    """Write both affines, each with its code."""
    qform_code = int(attributes.get("qform_code", 0)) if "qform" in attributes else 0
    sform_code = int(attributes.get("sform_code", 0))
    if qform_code:
        qform = np.array(attributes["qform"], np.float64).reshape(4, 4)
        image.set_qform(qform @ indices, qform_code)
    if sform_code or qform_code:
        image.set_sform(affine @ indices if sform_code else None, sform_code)
    elif np.allclose(image.header.get_base_affine(), affine @ indices, atol=1e-4):
        # A file that places its voxels by their sizes alone; one that was cut says where it lies ("aligned", a new
        # image's code).
        image.set_sform(None, 0)


def _set_fields(header: Any, attributes: dict[Any, Any], fields: dict[str, Any], rest: list[str]) -> None:
    """Write units, times and slices."""
    space = str(attributes.get("space_units", "mm"))
    header.set_xyzt_units(space, fields.pop("time_units", None))
    if "pixdim4" in fields:
        header["pixdim"][4] = fields.pop("pixdim4")
    header["dim_info"] = int(attributes.get("dim_info", 0))
    for name, value in fields.items():
        header[name] = value


def _set_about_values(header: Any, encoding: dict[Any, Any], unchanged: bool) -> None:
    """Write what the file said of its values, for an array that still holds them as they were read.

    Extensions may list the file's own voxels, so they go only where no voxel did.
    """
    for name in _VALUE_FIELDS:
        if name in encoding:
            header[name] = encoding[name]
    if unchanged:
        header.extensions.extend(encoding.get("nifti_extensions", ()))


def require_same_space(path: Path, array: xr.DataArray, like: xr.DataArray) -> None:
    """Refuse an array whose voxels are not those of the image ``like``."""
    axes = space_axes(array)
    theirs = str(like.attrs.get("voxel_axes", "")).split()[:3]
    shape, wanted = [array.sizes[dim] for dim in axes], [like.sizes.get(dim) for dim in theirs]
    require(shape == wanted, str(path), f"have the shape of the image, {wanted}", shape)
    far = float(np.abs(affine_of(array) - affine_of(like)).max())
    require(far <= 1e-2, str(path), "lie in the same space as the image, voxel by voxel", f"affines {far:.3g} mm apart")
