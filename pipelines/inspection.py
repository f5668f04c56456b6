"""``ccnn inspect FILE | FOLDER``: what it holds, what looks wrong in it, and the command to type next."""

from __future__ import annotations

import textwrap
import warnings
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ccnn_irregular._checks import reject
from ccnn_irregular._optional import import_optional

__all__ = ["Found", "inspected", "run"]

_WIDTH = 118
_ROWS = 200_000  # of a table that are looked at
_MOST_VALUES = 10**8  # of a variable whose missing ones are counted
_LISTED = 12  # columns, variables or files that are told one by one
# Names of columns, in small letters, by what they usually mean.
_USUAL = {
    "id": ("id", "subject_id", "patient_id", "patientid", "stay_id", "record_id", "recordid", "icustay_id", "station"),
    "time": ("time", "charttime", "timestamp", "datetime", "date", "t", "hours", "offset"),
    "variable": ("variable", "parameter", "itemid", "code", "name", "feature"),
    "value": ("value", "valuenum", "numeric_value", "values"),
    "latitude": ("lat", "latitude"),
    "longitude": ("lon", "long", "longitude", "lng"),
    "x": ("x", "easting"),
    "y": ("y", "northing"),
    "z": ("z", "height", "elevation"),
    "class": ("label", "class", "classification"),
}
_TABLES = (".csv", ".tsv", ".txt", ".parquet")
_CLOUDS = (".las", ".laz", ".ply", ".pcd")
_SCANS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm")
_CUBES = (".nc", ".nc4", ".cdf", ".zarr", ".grib", ".grb", ".grib2", ".h5", ".hdf5")
# Formats without a reader: the package and the line that convert them. {0} = the file, {1} = its name without suffix.
_CONVERTED = {
    ".xlsx": ("openpyxl", "pandas.read_excel('{0}').to_csv('{1}.csv', index=False)"),
    ".mat": ("scipy", "numpy.savez('{1}.npz', **scipy.io.loadmat('{0}', simplify_cells=True))"),
    ".edf": ("mne", "mne.io.read_raw_edf('{0}').to_data_frame().to_csv('{1}.csv', index=False)"),
    ".sav": ("pyreadstat", "pandas.read_spss('{0}').to_parquet('{1}.parquet')"),
    ".dta": ("pandas", "pandas.read_stata('{0}').to_parquet('{1}.parquet')"),
    ".rds": ("pyreadr", "next(iter(pyreadr.read_r('{0}').values())).to_csv('{1}.csv', index=False)"),
    ".feather": ("pyarrow", "pandas.read_feather('{0}').to_parquet('{1}.parquet')"),
    ".tif": ("rioxarray", "rioxarray.open_rasterio('{0}').to_dataset(name='band').to_netcdf('{1}.nc')"),
    ".obj": ("trimesh", "trimesh.load('{0}').export('{1}.ply')"),
    ".stl": ("trimesh", "trimesh.load('{0}').export('{1}.ply')"),
    ".e57": ("pye57", "pandas.DataFrame(pye57.E57('{0}').read_scan_raw(0)).to_csv('{1}.csv', index=False)"),
    ".shp": ("geopandas", "geopandas.read_file('{0}').get_coordinates().to_csv('{1}.csv', index=False)"),
    ".mp3": ("soundfile", "soundfile.write('{1}.wav', *soundfile.read('{0}'))"),
    ".flac": ("soundfile", "soundfile.write('{1}.wav', *soundfile.read('{0}'))"),
}


@dataclass
class Found:
    """What a file or a folder is.

    Attributes:
        what: in a few words.
        facts: what it holds, by a word for each.
        doubts: what looks wrong.
        next: what to type; None = nothing in this package reads it.
    """

    what: str
    facts: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    next: str | None = None

    def lines(self) -> list[str]:
        """For the console."""
        rows = {"is": self.what, **self.facts}
        rows |= {"looks wrong" if not number else " " * number: doubt for number, doubt in enumerate(self.doubts)}
        rows |= {"type next": self.next} if self.next else {}
        margin = max(map(len, rows)) + 2
        options: dict[str, Any] = {"subsequent_indent": " " * margin, "break_on_hyphens": False}
        return [
            line
            for name, text in rows.items()
            for line in textwrap.wrap(text, _WIDTH, initial_indent=name.ljust(margin), **options)
        ]


def run(arguments: list[str]) -> None:
    """Print what a path is."""
    parser = ArgumentParser(prog="ccnn inspect", allow_abbrev=False, description="what a file or folder holds")
    parser.add_argument("path", type=Path, help="a file or a folder")
    path = parser.parse_args(arguments).path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong is told in words of our own
        print("\n".join(inspected(path).lines()))


def inspected(path: Path) -> Found:
    """What a file or a folder is.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError, ImportError: a file that breaks its format, or a reader that is not installed.
    """
    if not path.exists():
        raise FileNotFoundError(f"path must be a file or a folder, got {path}")
    suffix = _suffix(path)
    if suffix in _CUBES:
        return _cube(path)
    if path.is_dir():
        return _folder(path)
    readers: Mapping[tuple[str, ...], Callable[[Path], Found]] = {
        _TABLES: _table, (".ts",): _series, (".wav",): _recording, (".npz",): _arrays, (".las", ".laz"): _tile,
        (".ply",): _ply, (".pcd",): _pcd, (".nii", ".nii.gz"): _scan, (".dcm",): _slice, (".psv",): _table,
        (".nrrd", ".mha", ".mhd"): _sitk,
    }  # fmt: skip
    for suffixes, reader in readers.items():
        if suffix in suffixes:
            return reader(path)
    if suffix in _CONVERTED:
        package, line = _CONVERTED[suffix]
        made = line.format(path, path.with_suffix(""))
        text = f'pip install {package}; python -c "import {_imports(line)}; {made}"'
        return Found(f"a {suffix} file, which has no reader here", {"convert it": text})
    return Found(f"a file of {path.stat().st_size:,} bytes whose suffix {suffix!r} is not known")


def _imports(line: str) -> str:
    return ", ".join(name for name in ("pandas", "numpy", "scipy.io", "mne", "pyreadr", "rioxarray", "trimesh", "pye57",
                                       "geopandas", "soundfile") if f"{name}." in line)  # fmt: skip


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz") if not path.name.lower().endswith(".nii.gz") else path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


# ------------------------------------------------------------------------------------------------------------- tables


def _table(path: Path) -> Found:
    pandas = import_optional("pandas", "reading tables", "files")
    if _suffix(path) == ".parquet":
        import_optional("pyarrow", "reading Parquet", "formats")
        frame = pandas.read_parquet(path)
    else:
        separator = "|" if _suffix(path) == ".psv" else None
        frame = pandas.read_csv(path, sep=separator, engine="python" if separator is None else "c", nrows=_ROWS)
    found = Found(
        f"a table of {len(frame):,}{' or more' if len(frame) == _ROWS else ''} rows, {frame.shape[1]} columns"
    )
    meant = _meant(list(map(str, frame.columns)))
    if "time" in meant and not pandas.api.types.is_numeric_dtype(frame[meant["time"]]):
        words = frame[meant["time"]]
        frame[meant["time"]] = dates = pandas.to_datetime(words, errors="coerce", utc=True, format="ISO8601")
        bad = words[dates.isna() & words.notna()]
        found.doubts += [f"{len(bad):,} times that are no dates of ISO 8601, such as {bad.iloc[0]}"] if len(bad) else []
    for name in list(frame.columns)[:_LISTED]:
        found.facts[str(name)] = _column(pandas, frame[name])
    if frame.shape[1] > _LISTED:
        found.facts["..."] = f"{frame.shape[1] - _LISTED} more columns"
    _name_table(path, pandas, frame, meant, found)
    return found


def _meant(columns: list[str]) -> dict[str, str]:
    """The column of each usual meaning."""
    by_word = {name.strip().lower(): name for name in reversed(columns)}
    return {
        meaning: by_word[next(word for word in words if word in by_word)]
        for meaning, words in _USUAL.items()
        if set(words) & set(by_word)
    }


def _column(pandas: Any, column: Any) -> str:
    """Type, range and share of missing values."""
    missing = float(column.isna().mean())
    told = f", {missing:.1%} missing" if missing else ""
    known = column.dropna()
    if not len(known):
        return f"empty{told}"
    if pandas.api.types.is_numeric_dtype(column) or pandas.api.types.is_datetime64_any_dtype(column):
        return f"{column.dtype}, {known.min()} to {known.max()}{told}"
    words = known.astype(str)
    shown = ", ".join(f"{word} ({count})" for word, count in words.value_counts().head(4).items())
    return f"{words.nunique()} words: {shown}{', ...' if words.nunique() > 4 else ''}{told}"


def _name_table(path: Path, pandas: Any, frame: Any, meant: Mapping[str, str], found: Found) -> None:
    """What kind of table it is, what looks wrong in one of that kind, and the command."""
    rest = [str(name) for name in frame.columns if str(name) not in meant.values()]
    if {"latitude", "longitude"} <= set(meant) or ({"x", "y", "time"} <= set(meant)):
        found.what += ", values at places"
        found.doubts += _wrong_places(frame, meant)
        found.next = f"ccnn fit --config stations --data.table {path} --run_dir runs/mine"
    elif {"id", "time"} <= set(meant):
        long = {"variable", "value"} <= set(meant)
        keys = [meant[name] for name in ("id", "time", *(["variable"] if long else []))]
        found.what += f", series in {'long' if long else 'wide'} form"
        found.facts["series"] = f"{frame[meant['id']].nunique():,}, by the column {meant['id']}"
        found.facts["variables"] = str(frame[meant["variable"]].nunique()) if long else f"{len(rest)} columns"
        found.facts["gaps"] = _gaps(pandas, frame, meant)
        twice = int(frame.duplicated(keys).sum())
        found.doubts += [f"{twice:,} rows repeat another one's {', '.join(keys)}: --data.repeats mean"] if twice else []
        found.next = f"ccnn fit --config series --data.table {path} --data.labels LABELS.csv --run_dir runs/mine"
    elif {"x", "y", "z"} <= set(meant):
        found.what += ", a cloud of points"
        found.next = f"ccnn fit --config clouds --data.root {path.parent} --run_dir runs/mine"
    elif _suffix(path) == ".psv":
        found.what += ", a stay of the PhysioNet challenge of 2019"
        found.next = f"ccnn fit --config series --data.source psv --data.table {path.parent} --run_dir runs/mine"
    else:
        found.doubts.append("no column is called id and time, latitude and longitude, or x, y and z: rename some")
    infinite = [str(name) for name in frame.select_dtypes("number") if np.isinf(frame[name].to_numpy(float)).any()]
    found.doubts += [f"infinite values in {', '.join(infinite)}"] if infinite else []
    coded = [str(name) for name in frame.select_dtypes("number") if frame[name].isin([-9999, -999, 9999, 99999]).any()]
    found.doubts += [f"{', '.join(coded)}: -9999 or the like, perhaps a mark of missing values"] if coded else []


def _gaps(pandas: Any, frame: Any, meant: Mapping[str, str]) -> str:
    """Median and largest gap within a series."""
    held = pandas.DataFrame({"id": frame[meant["id"]], "time": frame[meant["time"]]})
    ordered = held.drop_duplicates().sort_values(["id", "time"])
    gaps = ordered.groupby("id")["time"].diff().dropna()
    return f"{gaps.median()} the median one, {gaps.max()} the longest" if len(gaps) else "none: one time a series"


def _wrong_places(frame: Any, meant: Mapping[str, str]) -> list[str]:
    limits = {"latitude": (-90, 90), "longitude": (-180, 360)}
    return [
        f"{meant[name]} beyond {low} to {high}"
        for name, (low, high) in limits.items()
        if name in meant and not frame[meant[name]].dropna().between(low, high).all()
    ]


# ------------------------------------------------------------------------------------------------- series, recordings


def _series(path: Path) -> Found:
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


def _recording(path: Path) -> Found:
    from scipy.io import wavfile

    try:
        rate, values = wavfile.read(path, mmap=True)
    except ValueError as error:
        return Found("a wav file", doubts=[str(error)])
    channels = 1 if values.ndim == 1 else values.shape[1]
    facts = {"rate": f"{rate} Hz", "length": f"{len(values) / rate:.3f} s", "channels": str(channels)}
    return Found(f"a recording, {values.dtype}", facts)


def _arrays(path: Path) -> Found:
    with np.load(path) as content:
        shapes = {name: content[name].shape for name in content.files}
        facts = {name: f"{content[name].dtype} {shapes[name]}" for name in content.files[:_LISTED]}
    if any(len(shape) == 2 and shape[1] == 3 for shape in shapes.values()):
        return Found(
            "a cloud of points", facts, next=f"ccnn fit --config clouds --data.root {path} --run_dir runs/mine"
        )
    return Found("arrays of NumPy", facts, next=f"ccnn consistency {path} --spacing STEP [STEP ...]")


# ------------------------------------------------------------------------------------------------------------- clouds


def _cloud(path: Path, what: str, points: int, ends: tuple[Any, Any], fields: list[str], classes: Any) -> Found:
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


def _tile(path: Path) -> Found:
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


def _ply(path: Path) -> Found:
    vertices = import_optional("plyfile", "reading PLY", "formats").PlyData.read(path)["vertex"]
    places = np.stack([vertices[axis] for axis in "xyz"], 1)
    fields = [one.name for one in vertices.properties]
    named = next((name for name in _USUAL["class"] if name in fields), None)
    classes = None if named is None else vertices[named]
    return _cloud(path, "a PLY cloud or mesh", len(places), (places.min(0), places.max(0)), fields, classes)


def _pcd(path: Path) -> Found:
    cloud = import_optional("pypcd4", "reading PCD", "formats").PointCloud.from_path(path)
    places = cloud.numpy(("x", "y", "z"))
    fields = list(cloud.fields)
    named = next((name for name in _USUAL["class"] if name in fields), None)
    classes = None if named is None else cloud.numpy((named,))[:, 0]
    return _cloud(path, "a PCD cloud", len(places), (np.nanmin(places, 0), np.nanmax(places, 0)), fields, classes)


# -------------------------------------------------------------------------------------------------------------- scans


def _scan(path: Path) -> Found:
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
    return Found("a NIfTI volume", facts, doubts, command)


def _sitk(path: Path) -> Found:
    reader = import_optional("SimpleITK", "reading NRRD and MetaImage", "formats").ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    facts = {"voxels": " x ".join(map(str, reader.GetSize())), "steps": str(reader.GetSpacing())}
    return Found(
        "a volume", facts, next=f"ccnn predict --run_dir runs/mine --predict.input {path} --output labels.nii.gz"
    )


def _slice(path: Path) -> Found:
    header = import_optional("pydicom", "reading DICOM", "formats").dcmread(path, stop_before_pixels=True)
    names = ("Modality", "SeriesDescription", "Rows", "Columns", "PixelSpacing", "SliceThickness")
    facts = {name: str(header[name].value) for name in names if name in header}
    return Found("a slice of a DICOM series; name its folder", facts, next=f"ccnn inspect {path.parent}")


# -------------------------------------------------------------------------------------------------------------- cubes


def _cube(path: Path) -> Found:
    import ccnn_irregular.adapters.xarray as adapter

    if _suffix(path) in (".grib", ".grb", ".grib2"):
        import_optional("cfgrib", "reading GRIB", "formats")
        xarray = import_optional("xarray", "reading GRIB", "files")
        dataset = xarray.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""})
    else:
        dataset = adapter.open_cube(path)
    found = Found(f"a cube of {len(dataset.data_vars)} variables")
    for name, coordinate in dataset.coords.items():
        if coordinate.dims == (name,):
            found.facts[str(name)] = _axis(coordinate)
    fields = dataset.ccnn._fields(dataset)
    for name in fields[:_LISTED]:
        variable = dataset[name]
        sizes = " x ".join(f"{dim} {size}" for dim, size in variable.sizes.items())
        found.facts[name] = f"{variable.dtype}, {sizes}, unit {variable.attrs.get('units', 'not stated')}"
        if variable.size <= _MOST_VALUES and (missing := float(variable.isnull().mean())):
            found.facts[name] += f", {missing:.1%} missing"
    unitless = [name for name in fields if "units" not in dataset[name].attrs]
    found.doubts += [f"no unit: {', '.join(unitless[:_LISTED])}"] if unitless else []
    found.doubts += _without_axes(dataset, fields)
    if fields:
        found.next = (
            f"ccnn consistency {path} --variable {fields[0]}; ccnn fit --config downscale_climate --data.path {path}"
        )
    return found


def _without_axes(dataset: Any, fields: Sequence[str]) -> list[str]:
    """Why the axes of variables are not recognised, each reason once."""
    reasons: dict[str, list[str]] = {}
    for name in fields:
        try:
            dataset[name].ccnn.frame()
        except ValueError as error:
            reasons.setdefault(str(error), []).append(name)
    return [f"{', '.join(names[:_LISTED])}: {reason}" for reason, names in reasons.items()]


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


# ------------------------------------------------------------------------------------------------------------ folders


def _folder(path: Path) -> Found:
    names = {entry.name for entry in path.iterdir()}
    if "dataset.json" in names or {"images", "imagesTr"} & names:
        return _scans(path)
    if any(name.startswith("Outcomes-") or name.startswith("set-") for name in names):
        return Found("stays of the PhysioNet challenge of 2012", {"holds": ", ".join(sorted(names)[:_LISTED])},
                     next=f"ccnn fit --config physionet2012 --data.root {path}")  # fmt: skip
    files = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    counts = Counter(map(_suffix, files))
    found = Found(
        f"a folder of {len(files):,} files", {"files": ", ".join(f"{n} {s}" for s, n in counts.most_common(6))}
    )
    series = f"ccnn fit --config series --data.table {path} --run_dir runs/mine --data.source"
    kinds = {
        "a MEDS data set": (".parquet", f"{series} meds --data.labels FILE"),
        "stays of the PhysioNet challenge of 2019": (".psv", f"{series} psv"),
        "WFDB records": (".hea", f"{series} wfdb --data.labels FILE"),
        "series of the UEA & UCR archive": (".ts", f"{series} ts"),
    }
    for what, (suffix, command) in kinds.items():
        if counts[suffix] and (what != "a MEDS data set" or (path / "data").is_dir()):
            return Found(what, found.facts, next=command)
    for suffixes, command in (
        (_SCANS, f"ccnn predict --run_dir runs/mine --predict.input {path} --output labels"),
        (_CLOUDS, f"ccnn fit --config clouds --data.root {path} --run_dir runs/mine"),
        ((".csv", ".parquet"), f"ccnn fit --config series --data.table {path} --data.labels FILE --run_dir runs/mine"),
        ((".nc",), f"ccnn fit --config downscale_climate --data.path {path}"),
    ):
        ours = sorted(file for file in files if _suffix(file) in suffixes)
        if ours:
            first = inspected(ours[0])
            return Found(found.what, {**found.facts, "the first": f"{ours[0].relative_to(path)}, {first.what}",
                                      **first.facts}, first.doubts, command)  # fmt: skip
    if not files:
        reject("path", "hold files", f"the empty folder {path}")
    return found


def _scans(path: Path) -> Found:
    from ccnn_irregular.datasets.decathlon import find_images, find_pairs

    found = Found("scans", {"images": str(len(find_images(path)))})
    found.next = f"ccnn predict --run_dir runs/mine --data.root {path}"
    if (path / "dataset.json").is_file() or (path / "labels").is_dir():
        pairs = find_pairs(path)
        found.what, found.facts["with labels"] = "scans with labels", str(len(pairs))
        found.facts["classes"] = ", ".join(pairs.classes) or "not named: --data.classes background ..."
        found.next = f"ccnn fit --config segmentation --data.root {path} --run_dir runs/mine"
    first = _scan(find_images(path)[0])
    found.facts |= {f"first: {name}": text for name, text in first.facts.items()}
    found.doubts += first.doubts
    return found
