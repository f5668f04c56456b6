"""Medical volumes: NIfTI and HDF5 files as DataArrays in millimetres, and back to NIfTI.

Nothing is resampled or reordered: an array has the file's voxels in the file's order. Where the voxel axes run along
the scanner's, whatever the order and the direction, coordinates are the scanner's (RAS+: x to the right, y to the
front, z to the top). Where they are oblique, coordinates are millimetres along the voxel axes from the first voxel, in
which distances are as true; the affine is kept in the attributes and written back.
"""

from __future__ import annotations

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
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.hdf5_sources import require_sources

__all__ = ["affine_of", "read_hdf5", "read_nifti", "write_nifti"]

Floats = NDArray[np.float64]

_WORLD = ("x", "y", "z")
_VOXEL = ("i", "j", "k")
_CF_AXES = ("X", "Y", "Z")
_MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1e3, "micron": 1e-3}
_TIMES = {"sec": "seconds", "msec": "milliseconds", "usec": "microseconds"}
# Sine of the angle from which a voxel axis counts as oblique, and two of them as not perpendicular.
_ALIGNED, _PERPENDICULAR = 1e-4, 1e-3
_SUFFIXES = (".nii", ".nii.gz")
_HDF5_SPACINGS = {"element_size_mm": 1.0, "element_size_um": 1e-3}


def read_nifti(path: str | Path, *, like: xr.DataArray | None = None) -> xr.DataArray:
    """A NIfTI volume as an array in millimetres.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        like: an image the file belongs to, as its labels: it must have the same space, voxel by voxel.

    Returns:
        Dimensions in the file's order: "x", "y", "z" where the voxel axes run along the scanner's, else "i", "j",
        "k"; a fourth one is "t" with times where the header has a unit of time, else "volume" without coordinates.
        Integers without a scale factor stay integers; scaled values are floats. Attributes: ``affine`` (16 numbers, row
        by row, voxel indices to millimetres), ``qform_code``, ``sform_code``, ``voxel_axes``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no NIfTI file, a damaged one, not 3-D or 4-D, an affine that is singular or not finite, complex or
            colour voxels, another space than ``like``'s.

    Warns:
        UserWarning: voxel axes that are not perpendicular, so distances across them are not Euclidean.
    """
    path = Path(path)
    image = _loaded(path)
    require(image.ndim in (3, 4), str(path), "be a 3-D or 4-D volume", f"{image.ndim}-D data {image.shape}")
    space, time = image.header.get_xyzt_units()
    affine = np.asarray(image.affine, np.float64)
    scale = np.diag([*([_MILLIMETRES[space]] * 3), 1.0])
    _require_affine(str(path), affine)
    dims, coordinates = _space(scale @ affine, image.shape[:3])
    if image.ndim == 4:
        if time in _TIMES:
            dims = (*dims, "t")
            times = float(image.header.get_zooms()[3]) * np.arange(image.shape[3])
            coordinates["t"] = ("t", times, {"axis": "T", "standard_name": "time", "units": _TIMES[time]})
        else:
            dims = (*dims, "volume")
    values, encoding = _voxels(path, image)
    attributes = {
        "affine": (scale @ affine).reshape(-1).tolist(),
        "qform_code": int(image.header["qform_code"]),
        "sform_code": int(image.header["sform_code"]),
        "voxel_axes": " ".join(dims),
    }
    array = xr.DataArray(values, coordinates, dims, path.name.partition(".")[0], attributes)
    array.encoding = {"source": str(path), **encoding}
    if like is not None:
        _require_same_space(path, array, like)
    return array


def affine_of(array: xr.DataArray) -> Floats:
    """The affine from voxel indices to millimetres that fits the array's coordinates, ``(4, 4)``.

    That of the file it was read from, moved and stretched where the array was cut or thinned since; axes in the order
    of the attribute ``voxel_axes``.

    Raises:
        ValueError: attributes or coordinates are missing, or the coordinates are not uniform.
    """
    for name in ("affine", "voxel_axes"):
        require(name in array.attrs, "attributes", f"hold {name!r}, as after read_nifti", sorted(map(str, array.attrs)))
    affine = np.array(array.attrs["affine"], np.float64).reshape(4, 4)
    _require_affine("affine", affine)
    dims = str(array.attrs["voxel_axes"]).split()[:3]
    result, sizes = affine.copy(), np.linalg.norm(affine[:3, :3], axis=0)
    for axis, dim in enumerate(dims):
        require(dim in array.coords, "coordinates", f"hold the voxel axes {dims}", sorted(map(str, array.coords)))
        nodes = np.atleast_1d(array[dim].to_numpy().astype(np.float64))
        if dim in _VOXEL:
            places = nodes / sizes[axis]
        else:
            row = _WORLD.index(dim)
            places = (nodes - affine[row, 3]) / affine[row, axis]
        steps = np.diff(places)
        step = float(steps.mean()) if len(steps) else 1.0
        uniform = bool(np.allclose(steps, step, rtol=0, atol=1e-3 * abs(step))) and step != 0
        require(uniform, f"coordinate {dim!r}", "be uniform", "gaps that differ")
        first = round(places[0], 6)  # what was not cut keeps the affine to the last digit
        result[:3, 3] += affine[:3, axis] * first
        result[:3, axis] *= round(step, 6)
    return result


def write_nifti(array: xr.DataArray, path: str | Path, *, like: xr.DataArray | None = None) -> None:
    """Write an array with the affine of the file it came from, under a temporary name that is renamed at the end.

    Args:
        array: with the dimensions it was read with, in any order; what was cut or thinned moves the affine along.
            A dimension "channel" becomes the fourth.
        path: ``.nii`` or ``.nii.gz``.
        like: the image whose affine and codes are taken, for arrays that have lost their attributes.

    Raises:
        ValueError: dimensions or coordinates other than those of a volume, a dtype that NIfTI does not have, another
            suffix.
    """
    path = Path(path)
    suffix = next((one for one in reversed(_SUFFIXES) if path.name.endswith(one)), None)
    require(suffix is not None, "path", f"end in one of {_SUFFIXES}", path.name)
    if like is not None:
        array = array.assign_attrs({name: like.attrs[name] for name in like.attrs if name in _SPATIAL})
    affine = affine_of(array)
    axes = str(array.attrs["voxel_axes"]).split()[:3]
    rest = [str(dim) for dim in array.dims if dim not in axes]
    lacking = [dim for dim in axes if dim not in array.dims]
    require(not lacking and len(rest) <= 1, "dimensions", f"be {axes} and one more at most", list(array.dims))
    values = array.transpose(*axes, *rest).to_numpy()
    values = values.astype(np.uint8) if values.dtype.kind == "b" else values
    nibabel = import_optional("nibabel", "a NIfTI file", "files")
    kept = values.dtype.kind in "iuf" and values.dtype.str[1:] not in ("f2", "i8", "u8")
    require(kept, "array", "be of a dtype that NIfTI viewers read: floats, or integers of up to 32 bits", values.dtype)
    image = nibabel.Nifti1Image(values, affine, dtype=values.dtype)
    image.set_sform(affine, int(array.attrs.get("sform_code", 1)) or 1)
    _set_qform(image, affine, int(array.attrs.get("qform_code", 0)))
    time = next((name for name, unit in _TIMES.items() if "t" in rest and array["t"].attrs.get("units") == unit), None)
    image.header.set_xyzt_units("mm", time)
    if time is not None and array.sizes["t"] > 1:
        image.header["pixdim"][4] = float(array["t"][1] - array["t"][0])
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part{suffix}")
    try:
        nibabel.save(image, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


_SPATIAL = ("affine", "qform_code", "sform_code", "voxel_axes")


def read_hdf5(
    path: str | Path,
    dataset: str,
    *,
    spacing: Sequence[float] | None = None,
    dims: Sequence[str] | None = None,
) -> xr.DataArray:
    """A volume of an HDF5 file as an array in millimetres.

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
    try:
        with h5py.File(path, "r") as file:
            found: list[str] = []
            file.visititems(lambda name, one: found.append(name) if isinstance(one, h5py.Dataset) else None)
            require(dataset in found, "dataset", f"be one of {found}", repr(dataset))
            stored = file[dataset]
            require(stored.ndim in (3, 4), f"{path} {dataset!r}", "be a 3-D or 4-D volume", f"{stored.ndim}-D data")
            require(stored.dtype.kind in "biuf", f"{path} {dataset!r}", "hold numbers", stored.dtype)
            require_sources(path, stored)
            attributes, values = dict(stored.attrs), stored[...]
    except OSError as error:
        raise ValueError(f"{path} must be a complete HDF5 file with filters that are known, got {error}") from error
    names = tuple(dims) if dims is not None else ("z", "y", "x", "channel")[: values.ndim]
    unique = len(names) == values.ndim == len(set(names))
    require(unique, "dims", f"name each of the {values.ndim} axes once", names)
    steps = _spacing(path, attributes, spacing)
    coordinates = {}
    for name, size, step in zip(names, values.shape, steps, strict=False):
        axis = name.upper() if name in _WORLD else None
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
        steps = [float(one) * _HDF5_SPACINGS[named] for one in np.ravel(attributes[named])]
    else:
        steps = [float(one) for one in spacing]
    positive = len(steps) == 3 and all(np.isfinite(one) and one > 0 for one in steps)
    require(positive, "spacing", "be three positive numbers of millimetres", steps)
    return steps


def _loaded(path: Path) -> Any:
    nibabel = import_optional("nibabel", "a NIfTI file", "files")
    if not path.exists():
        raise FileNotFoundError(f"path must be a NIfTI file, got {path}, which does not exist")
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, OSError, EOFError) as error:
        raise ValueError(f"{path} must be a NIfTI file, got {error}") from error
    except np.linalg.LinAlgError as error:
        raise ValueError(f"affine of {path} must not be singular, got {error}") from error
    require(isinstance(image, nibabel.Nifti1Pair), str(path), "be a NIfTI file", type(image).__name__)
    return image


def _voxels(path: Path, image: Any) -> tuple[NDArray[Any], dict[str, Any]]:
    """Voxels in the type that holds them, and how they were stored."""
    stored = image.get_data_dtype()
    require(stored.kind in "biuf", f"voxels of {path}", "be real numbers", stored)
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    scaled = (slope, intercept) != (1, 0)
    try:
        if not scaled:
            values = np.asarray(image.dataobj.get_unscaled())
        else:
            exact = np.can_cast(stored, np.float32)
            values = image.get_fdata(caching="unchanged", dtype=np.float32 if exact else np.float64)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} must be a complete NIfTI file, got {error}") from error
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    encoding: dict[str, Any] = {"stored_dtype": str(stored)}
    if scaled:
        encoding |= {"scl_slope": float(slope), "scl_inter": float(intercept)}
    return values, encoding


def _require_affine(what: str, affine: Floats) -> None:
    require(bool(np.isfinite(affine).all()), f"affine of {what}", "be finite", affine.tolist())
    directions = affine[:3, :3]
    sizes = np.linalg.norm(directions, axis=0)
    volume = abs(float(np.linalg.det(directions)))
    singular = bool((sizes == 0).any()) or volume <= 1e-6 * float(sizes.prod())
    require(not singular, f"affine of {what}", "not be singular", directions.tolist())


def _space(affine: Floats, shape: Sequence[int]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names of the voxel axes and their coordinates in millimetres."""
    directions = affine[:3, :3]
    sizes = np.linalg.norm(directions, axis=0)
    cosines = directions / sizes
    angles = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if angles > _PERPENDICULAR:
        off = float(np.degrees(np.arcsin(min(1.0, angles))))
        text = f"voxel axes are up to {off:.2g} degrees from perpendicular: distances across them are not Euclidean"
        warnings.warn(text, UserWarning, stacklevel=3)
    worlds = _nearest_axes(cosines)
    along = np.abs(cosines[worlds, range(3)])
    aligned = bool((np.sqrt((1 - along**2).clip(0)) <= _ALIGNED).all())
    names = tuple(_WORLD[world] for world in worlds) if aligned else _VOXEL
    coordinates: dict[str, Any] = {}
    for axis, (name, world) in enumerate(zip(names, worlds, strict=True)):
        index = np.arange(shape[axis])
        if aligned:
            nodes, about = affine[world, 3] + affine[world, axis] * index, "scanner coordinate, RAS+"
        else:
            nodes, about = sizes[axis] * index, "along the voxel axis, from the first voxel"
        coordinates[name] = (name, nodes, {"axis": _CF_AXES[world], "units": "mm", "long_name": about})
    return names, coordinates


def _nearest_axes(cosines: Floats) -> list[int]:
    """The world axis nearest to each voxel axis, each taken once."""
    linear_sum_assignment = import_optional("scipy.optimize", "orientations").linear_sum_assignment
    return [int(one) for one in linear_sum_assignment(-np.abs(cosines.T))[1]]


def _set_qform(image: Any, affine: Floats, code: int) -> None:
    """The quaternion where the file had one and it can say the same; sheared axes it cannot."""
    image.set_qform(None, 0)
    if code:
        image.set_qform(affine, code, strip_shears=True)
        if not np.allclose(image.get_qform(), affine, atol=1e-3):
            image.set_qform(None, 0)


def _require_same_space(path: Path, array: xr.DataArray, like: xr.DataArray) -> None:
    axes = str(array.attrs["voxel_axes"]).split()[:3]
    theirs = str(like.attrs.get("voxel_axes", "")).split()[:3]
    shape, wanted = [array.sizes[dim] for dim in axes], [like.sizes.get(dim) for dim in theirs]
    require(shape == wanted, str(path), f"have the shape of the image, {wanted}", shape)
    far = float(np.abs(affine_of(array) - affine_of(like)).max())
    require(far <= 1e-2, str(path), "lie in the same space as the image, voxel by voxel", f"affines {far:.3g} mm apart")
