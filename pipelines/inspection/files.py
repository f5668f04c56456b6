"""Files of series, recordings, clouds, scans and cubes."""

from __future__ import annotations

import gzip
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._optional import import_optional
from ccnn_irregular.pipelines.inspection.found import CLASS_NAMES, LISTED, Found, suffix_of

__all__ = ["arrays", "broken_scans", "class_counts", "cube", "dicom", "las", "nifti", "nrrd", "pcd", "pictures", "ply",
           "recording", "series"]  # fmt: skip

_BLOCK = 1 << 22  # bytes
_TAIL = 1 << 16  # bytes at the end of a picture
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}  # marks that a whole picture ends in, maybe before a note of a camera
_MOST_VALUES = 10**8  # of a variable whose missing ones are counted


def series(path: Path) -> Found:
    """Series in the text format of the UEA & UCR archive."""
    from ccnn_irregular.datasets import ts_files

    found = Found("series of the UEA & UCR archive")
    found.next = f"ccnn fit --config series --data.source ts --data.table {path} --run_dir runs/mine"
    try:
        told = ts_files.load(path).describe()
    except ValueError as error:
        found.doubts.append(str(error))
        return found
    found.facts = {name: str(told[name]) for name in ("samples", "channels", "lengths", "unit", "classes")}
    return found


def recording(path: Path) -> Found:
    """A wav file: rate, length, channels."""
    from scipy.io import wavfile

    try:
        rate, values = wavfile.read(path, mmap=True)
    except ValueError as error:
        return Found("a wav file", doubts=[str(error)])
    channels = 1 if values.ndim == 1 else values.shape[1]
    facts = {"rate": f"{rate} Hz", "length": f"{len(values) / rate:.3f} s", "channels": str(channels)}
    return Found(f"a recording, {values.dtype}", facts)


def arrays(path: Path) -> Found:
    """Arrays of NumPy, or a cloud of points in them."""
    with np.load(path, allow_pickle=False) as content:
        shapes = {name: content[name].shape for name in content.files}
        facts = {name: f"{content[name].dtype} {shapes[name]}" for name in content.files[:LISTED]}
    if any(len(shape) == 2 and shape[1] == 3 for shape in shapes.values()):
        return Found(
            "a cloud of points", facts, next=f"ccnn fit --config clouds --data.root {path} --run_dir runs/mine"
        )
    return Found("arrays of NumPy", facts, next=f"ccnn consistency {path} --spacing STEP [STEP ...]")


def _cloud(path: Path, what: str, points: int, ends: tuple[Any, Any], fields: list[str], classes: Any) -> Found:
    if not points:
        return Found(what, {"points": "0", "fields": ", ".join(fields)}, ["no points"])
    low, high = (np.asarray(end, np.float64) for end in ends)
    facts = {"points": f"{points:,}", "extent": " x ".join(f"{size:.6g}" for size in high - low)}
    facts["from"] = ", ".join(f"{one:.10g}" for one in low)
    facts["fields"] = ", ".join(fields)
    if classes is not None:
        numbers, counts = np.unique(classes, return_counts=True)
        facts["classes"] = ", ".join(f"{number} ({count})" for number, count in zip(numbers, counts, strict=True))
    doubts = ["one class only: nothing to learn from"] if classes is not None and len(numbers) < 2 else []
    doubts += ["an axis without any extent"] if points > 1 and bool((high == low).any()) else []
    command = f"ccnn fit --config clouds --data.root {path.parent} --run_dir runs/mine"
    return Found(what, facts, doubts, command)


def _ends(places: NDArray[Any]) -> tuple[Any, Any]:
    """The lowest and the highest coordinates; nan without points."""
    return (np.nanmin(places, 0), np.nanmax(places, 0)) if len(places) else (np.nan, np.nan)


def las(path: Path) -> Found:
    """A tile of LAS or LAZ: extent, fields, classes."""
    laspy = import_optional("laspy", "reading LAS and LAZ", "formats")
    tile = laspy.read(path)
    fields = list(tile.point_format.dimension_names)
    found = _cloud(path, f"a LAS {tile.header.version} tile", len(tile.points),
                   (tile.header.mins, tile.header.maxs), fields, np.asarray(tile.classification))  # fmt: skip
    crs = tile.header.parse_crs() if find_pyproj() else None
    return found if crs is None else Found(found.what, {**found.facts, "system": crs.name}, found.doubts, found.next)


def find_pyproj() -> bool:
    """Whether laspy can read a coordinate system."""
    from importlib.util import find_spec

    return find_spec("pyproj") is not None


def ply(path: Path) -> Found:
    """The vertices of a PLY file."""
    vertices = import_optional("plyfile", "reading PLY", "formats").PlyData.read(path)["vertex"]
    places = np.stack([vertices[axis] for axis in "xyz"], 1)
    fields = [field.name for field in vertices.properties]
    named = next((name for name in CLASS_NAMES if name in fields), None)
    classes = None if named is None else vertices[named]
    return _cloud(path, "a PLY cloud or mesh", len(places), _ends(places), fields, classes)


def pcd(path: Path) -> Found:
    """A PCD file of any of its three kinds."""
    cloud = import_optional("pypcd4", "reading PCD", "formats").PointCloud.from_path(path)
    places = cloud.numpy(("x", "y", "z"))
    fields = list(cloud.fields)
    named = next((name for name in CLASS_NAMES if name in fields), None)
    classes = None if named is None else cloud.numpy((named,))[:, 0]
    return _cloud(path, "a PCD cloud", len(places), _ends(places), fields, classes)


def nifti(path: Path) -> Found:
    """A NIfTI volume: voxels, steps, axes, what looks wrong in its header."""
    nibabel = import_optional("nibabel", "reading NIfTI", "files")
    image = nibabel.load(path)
    steps = ", ".join(f"{step:.4g}" for step in image.header.get_zooms()[:3])
    facts = {
        "voxels": " x ".join(map(str, image.shape)),
        "steps": f"{steps} {image.header.get_xyzt_units()[0]}",
        "axes": "".join(nibabel.aff2axcodes(image.affine)),
        "type": str(image.get_data_dtype()),
    }
    doubts = [] if image.header.get_xyzt_units()[0] == "mm" else ["the unit of the voxels is not mm"]
    doubts += (
        [] if int(image.header["sform_code"]) or int(image.header["qform_code"]) else ["no affine: qform, sform 0"]
    )
    command = f"ccnn predict --run_dir runs/mine --predict.input {path} --output labels.nii.gz"
    if lacking := _lacking_bytes(image):
        return Found("a NIfTI volume that is cut off", facts, [lacking, *doubts])
    return Found("a NIfTI volume", facts, doubts, command)


def _lacking_bytes(image: Any) -> str:
    """What to say of voxels that the header tells of and the file does not hold; "" where it is whole."""
    path = Path(image.file_map["image"].filename)
    wanted = image.dataobj.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    held = _unpacked_size(path, wanted) if path.suffix == ".gz" else path.stat().st_size
    return "" if held >= wanted else f"{held:,} bytes of the {wanted:,} that its header asks for: copy the file again"


def _unpacked_size(path: Path, most: int) -> int:
    """Bytes of a gzip file that can be unpacked, as its end says or counted block by block up to so many."""
    if int.from_bytes(_end_of(path, 4), "little") == most:
        return most
    count = 0
    with gzip.open(path) as stream:
        try:
            while count < most and (block := stream.read(_BLOCK)):
                count += len(block)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            pass  # cut off or damaged: what came before it counts
    return count


def _end_of(path: Path, size: int) -> bytes:
    """The last bytes of a file."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - size))
        return stream.read(size)


def broken_scans(root: Path, scans: Sequence[Path]) -> list[str]:
    """Which NIfTI scans cannot be read or are cut off, by their headers and sizes."""
    nibabel = import_optional("nibabel", "reading NIfTI", "files")
    told = []
    for path in scans:
        try:
            lacking = _lacking_bytes(nibabel.load(path))
        except Exception as error:  # of any type, as libraries raise over damaged bytes
            lacking = " ".join(str(error).replace(str(path), "").split())
        told += [f"{path.relative_to(root).as_posix()}: {lacking}"] if lacking else []
    return [*told[:LISTED], *([f"{len(told) - LISTED} more broken scans"] if len(told) > LISTED else [])]


def class_counts(root: Path, held: Sequence[Path]) -> str:
    """How many files the folder of each class holds."""
    counts = Counter(file.relative_to(root).parts[0] for file in held if file.parent != root)
    names = sorted(counts)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(f"{name} ({counts[name]})" for name in names[:LISTED]) + more


def pictures(root: Path, held: Sequence[Path]) -> Found:
    """Pictures in a folder for each class: counts, sizes and what is broken, by the beginning and the end of each."""
    image = import_optional("PIL.Image", "reading images", "files")
    sizes, modes, broken = set(), Counter[str](), []
    for path in held:
        try:
            with image.open(path) as picture:
                size, mode, end = picture.size[::-1], picture.mode, _ENDS.get(picture.format, b"")
        except Exception:  # of any type, as libraries raise over damaged bytes
            broken.append(path)
            continue
        sizes.add(size)
        modes[mode] += 1
        broken += [path] if end not in _end_of(path, _TAIL) else []
    found = Found("pictures in a folder for each class", {"classes": class_counts(root, held)})
    if sizes:
        ends = [" x ".join(map(str, size)) for size in (min(sizes), max(sizes))]
        found.facts["sizes"] = f"{' to '.join(dict.fromkeys(ends))} pixels along y and x"
        found.facts["modes"] = ", ".join(f"{count} {mode}" for mode, count in modes.most_common(LISTED))
    stray = [path for path in held if len(path.relative_to(root).parts) != 2]
    for what, files in (("pictures outside of a folder of their class", stray), ("no whole pictures", broken)):
        names = [path.relative_to(root).as_posix() for path in files]
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        found.doubts += [f"{what}: {', '.join(names[:LISTED])}{more}"] if names else []
    found.next = f"ccnn fit --config shiftwise_images --data.root {root}"
    return found


def nrrd(path: Path) -> Found:
    """A volume in NRRD or MetaImage, by its header."""
    reader = import_optional("SimpleITK", "reading NRRD and MetaImage", "formats").ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    facts = {"voxels": " x ".join(map(str, reader.GetSize())), "steps": str(reader.GetSpacing())}
    return Found(
        "a volume", facts, next=f"ccnn predict --run_dir runs/mine --predict.input {path} --output labels.nii.gz"
    )


def dicom(path: Path) -> Found:
    """One slice of a DICOM series, by its header."""
    header = import_optional("pydicom", "reading DICOM", "formats").dcmread(path, stop_before_pixels=True)
    names = ("Modality", "SeriesDescription", "Rows", "Columns", "PixelSpacing", "SliceThickness")
    facts = {name: str(header[name].value) for name in names if name in header}
    return Found("a slice of a DICOM series; name its folder", facts, next=f"ccnn inspect {path.parent}")


def cube(path: Path) -> Found:
    """A cube in netCDF, zarr, HDF5 or GRIB: axes, variables, units, missing values."""
    import ccnn_irregular.adapters.xarray as adapter

    if suffix_of(path) in (".grib", ".grb", ".grib2"):
        import_optional("cfgrib", "reading GRIB", "formats")
        xarray = import_optional("xarray", "reading GRIB", "files")
        dataset = xarray.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""})
    else:
        dataset = adapter.open_cube(path)
    count = len(dataset.data_vars)
    found = Found(f"a cube of {count} variable{'s' * (count != 1)}")
    gaps = False
    for name, coordinate in dataset.coords.items():
        if coordinate.dims == (name,):
            found.facts[str(name)] = _axis(coordinate)
    fields = dataset.ccnn._fields(dataset)
    for name in fields[:LISTED]:
        variable = dataset[name]
        sizes = " x ".join(f"{dim} {size}" for dim, size in variable.sizes.items())
        found.facts[name] = f"{variable.dtype}, {sizes}, unit {variable.attrs.get('units', 'not stated')}"
        if variable.size <= _MOST_VALUES and (missing := float(variable.isnull().mean())):
            found.facts[name] += f", {missing:.1%} missing"
            gaps = True
    unitless = [name for name in fields if "units" not in dataset[name].attrs]
    found.doubts += [f"no unit: {', '.join(unitless[:LISTED])}"] if unitless else []
    found.doubts += _without_axes(dataset, fields)
    if fields:
        fits = [f"ccnn fit --config downscale_climate --data.path {path}"]
        if gaps:  # first what fills them
            fits.insert(0, f"ccnn fit --config cubes --data.root {path} --run_dir runs/mine")
        consistency = f"ccnn consistency {path} --variable {fields[0]}"
        found.next = "; ".join([*fits, consistency] if gaps else [consistency, *fits])
    return found


def _without_axes(dataset: Any, fields: Sequence[str]) -> list[str]:
    """Why the axes of variables are not recognised, each reason once."""
    reasons: dict[str, list[str]] = {}
    for name in fields:
        try:
            dataset[name].ccnn.frame()
        except ValueError as error:
            reasons.setdefault(str(error), []).append(name)
    return [f"{', '.join(names[:LISTED])}: {reason}" for reason, names in reasons.items()]


def _axis(coordinate: Any) -> str:
    """Size, ends, step or gaps of an axis."""
    values = coordinate.to_numpy()
    unit = coordinate.attrs.get("units", "")
    ends = [str(one)[: len("2001-01-01T00:00:00")] for one in (values[0], values[-1])]
    shown = f"{len(values)} from {ends[0]} to {ends[1]} {unit}".rstrip()
    if len(values) < 3 or values.dtype.kind not in "iufM":
        return shown
    gaps = np.diff(values).astype(np.float64)
    if values.dtype.kind == "M":
        gaps, unit = np.diff(values) / np.timedelta64(1, "D"), "days"
    even = bool(np.abs(gaps - gaps.mean()).max() <= 1e-3 * abs(gaps.mean()))
    return f"{shown}, {'even steps' if even else f'gaps from {gaps.min():.6g} to {gaps.max():.6g} {unit}'.rstrip()}"
