"""Any path: by which reader it is looked at, and the command."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ccnn_irregular._checks import reject
from ccnn_irregular.adapters.scan_files import ITK, NIFTI
from ccnn_irregular.datasets.image_folder import SUFFIXES
from ccnn_irregular.pipelines.inspection import files, tables
from ccnn_irregular.pipelines.inspection.found import LISTED, Found, suffix_of

__all__ = ["inspected", "run"]

_TABLES = (".csv", ".tsv", ".txt", ".parquet")
_CLOUDS = (".las", ".laz", ".ply", ".pcd")
_SCANS = (*NIFTI, *ITK, ".dcm")
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
    suffix = suffix_of(path)
    if suffix in _CUBES:
        return _read(files.cube, path)
    if path.is_dir():
        return _folder(path)
    readers: Mapping[tuple[str, ...], Callable[[Path], Found]] = {
        (*_TABLES, ".psv"): tables.table,
        (".ts",): files.series,
        (".wav",): files.recording,
        (".npz",): files.arrays,
        (".las", ".laz"): files.las,
        (".ply",): files.ply,
        (".pcd",): files.pcd,
        NIFTI: files.nifti,
        (".dcm",): files.dicom,
        ITK: files.nrrd,
    }
    for suffixes, reader in readers.items():
        if suffix in suffixes:
            return _read(reader, path)
    if suffix in _CONVERTED:
        package, line = _CONVERTED[suffix]
        made = line.format(path, path.with_suffix(""))
        text = f'pip install {package}; python -c "import {_imports(line)}; {made}"'
        return Found(f"a {suffix} file, which has no reader here", {"convert it": text})
    return Found(f"a file of {path.stat().st_size:,} bytes whose suffix {suffix!r} is not known")


def _read(reader: Callable[[Path], Found], path: Path) -> Found:
    """What ``reader`` finds; whatever the library behind it raises for a damaged file becomes one line."""
    try:
        return reader(path)
    except (ImportError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        if isinstance(error, ValueError) and str(path) in told:
            raise ValueError(told) from error
        raise ValueError(f"{path} must be a whole file in the format of its suffix, got {told or error!r}") from error


def _imports(line: str) -> str:
    return ", ".join(name for name in ("pandas", "numpy", "scipy.io", "mne", "pyreadr", "rioxarray", "trimesh", "pye57",
                                       "geopandas", "soundfile") if f"{name}." in line)  # fmt: skip


def _folder(path: Path) -> Found:
    names = {entry.name for entry in path.iterdir()}
    if "dataset.json" in names or {"images", "imagesTr"} & names:
        return _scans(path)
    if any(name.startswith("Outcomes-") or name.startswith("set-") for name in names):
        sets = ", ".join(letter for letter in "abc" if any(name.startswith(f"set-{letter}") for name in names))
        chosen = "" if sets == "a, b" else f' --data.source_options.sets "[{sets}]"'
        return Found("stays of the PhysioNet challenge of 2012", {"holds": ", ".join(sorted(names)[:LISTED])},
                     next=f"ccnn fit --config physionet2012 --data.table {path}{chosen}")  # fmt: skip
    if {"config.yaml", "best.ckpt"} <= names:
        return Found("a run of ccnn fit", {"holds": ", ".join(sorted(names)[:LISTED])},
                     next=f"ccnn test --run_dir {path}")  # fmt: skip
    held = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    counts = Counter(map(suffix_of, held))
    found = Found(
        f"a folder of {len(held):,} file{'s' * (len(held) != 1)}",
        {"files": ", ".join(f"{n} {s}" for s, n in counts.most_common(6))},
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
    source = f"--data.root {path} --run_dir runs/mine"
    images = sorted(file for file in held if suffix_of(file) in SUFFIXES)
    if any(file.parent != path for file in images) and not any(counts[suffix] for suffix in (*_SCANS, *_CLOUDS)):
        return files.pictures(path, images)
    scans = sorted(file for file in held if suffix_of(file) in (*NIFTI, *ITK))
    folders = {file.parent for file in scans}
    in_classes = 1 < len(folders) <= len(scans) / 2 and {folder.parent for folder in folders} == {path}
    if scans and ("labels.csv" in names or in_classes):
        return _scans_of_classes(path, scans, f"ccnn fit --config scan_classes {source}")
    if "labels.csv" in names and counts[".dcm"]:
        return Found("scans with a class each", found.facts, next=f"ccnn fit --config scan_classes {source}")
    classes = {file.relative_to(path).parts[0] for file in held if len(file.relative_to(path).parts) > 1}
    if any(counts[suffix] for suffix in _CLOUDS) and ("labels.csv" in names or len(classes) > 1):
        return Found("clouds with a class each", found.facts, next=f"ccnn fit --config cloud_classes {source}")
    for suffixes, command in (
        (_SCANS, f"ccnn predict --run_dir runs/mine --predict.input {path} --output labels"),
        (_CLOUDS, f"ccnn fit --config clouds --data.root {path} --run_dir runs/mine"),
        ((".csv", ".parquet"), f"ccnn fit --config series --data.table {path} --data.labels FILE --run_dir runs/mine"),
        ((".nc",), f"ccnn fit --config downscale_climate --data.path {path}"),
    ):
        ours = sorted(file for file in held if suffix_of(file) in suffixes)
        if ours:
            first = inspected(ours[0])
            return Found(found.what, {**found.facts, "the first": f"{ours[0].relative_to(path)}, {first.what}",
                                      **first.facts}, first.doubts, command)  # fmt: skip
    if not held:
        reject("path", "hold files", f"the empty folder {path}")
    return found


def _scans_of_classes(path: Path, scans: Sequence[Path], command: str) -> Found:
    """Scans beside a table of their classes, or in a folder for each."""
    found = Found("scans with a class each", {"scans": str(len(scans))}, next=command)
    if not (path / "labels.csv").is_file():
        found.what, found.facts["classes"] = "scans in a folder for each class", files.class_counts(path, scans)
        row = f"{scans[-1].relative_to(path).as_posix()},{scans[-1].parent.name}"
        found.doubts.append(f"no labels.csv beside the folders: a line file,label and a line a scan, such as {row}")
    found.doubts += files.broken_scans(path, [scan for scan in scans if suffix_of(scan) in NIFTI])
    return found


def _scans(path: Path) -> Found:
    from ccnn_irregular.datasets.decathlon import find_images, find_pairs

    found = Found("scans", {"images": str(len(find_images(path)))})
    found.next = f"ccnn predict --run_dir runs/mine --data.root {path}"
    if (path / "dataset.json").is_file() or (path / "labels").is_dir():
        pairs = find_pairs(path)
        found.what, found.facts["with labels"] = "scans with labels", str(len(pairs))
        found.facts["classes"] = ", ".join(pairs.classes) or "the labels (--data.classes names them)"
        found.next = f"ccnn fit --config scans --data.root {path} --run_dir runs/mine"
    first = inspected(find_images(path)[0])
    found.facts |= {f"first: {name}": text for name, text in first.facts.items()}
    found.doubts += first.doubts
    return found
