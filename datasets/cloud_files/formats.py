"""Which reader reads which file, by the end of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.cloud_files.cloud_file import CloudFile
from ccnn_irregular.datasets.cloud_files.las import open_las
from ccnn_irregular.datasets.cloud_files.pcd import open_pcd
from ccnn_irregular.datasets.cloud_files.ply import open_ply
from ccnn_irregular.datasets.cloud_files.tables import TEXTS, holds_points, open_npz, open_table

__all__ = ["SUFFIXES", "cloud_paths", "open_cloud", "stray_paths"]

_READERS: dict[str, Callable[[Path], CloudFile]] = {
    ".las": open_las,
    ".laz": open_las,
    ".ply": open_ply,
    ".pcd": open_pcd,
    **dict.fromkeys(TEXTS, open_table),
    ".npz": open_npz,
}
SUFFIXES = tuple(_READERS)
# A format that is often met, without a reader -> what turns it into one that has one.
_CONVERTED = {
    ".e57": "pdal translate FILE.e57 FILE.laz",
    ".xyz": "a first line that names the columns, and the name FILE.txt",
    ".pts": "a first line that names the columns in place of the number of points, and the name FILE.txt",
}


def open_cloud(path: str | Path, *, may_be_empty: bool = False) -> CloudFile:
    """Read a cloud by the end of its name: one of ``SUFFIXES``, in small or capital letters.

    Args:
        path: of the file.
        may_be_empty: whether a file without any point is read too.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the package that reads the format is not installed; with the line that installs it.
        ValueError: a format without a reader, a file that is damaged or has no points; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"a cloud must be an existing file, got {path}")
    suffix = _suffix(path)
    if suffix is None:
        instead = _CONVERTED.get(path.suffix.lower())
        rule = f"end in {', '.join(SUFFIXES)}" + (f" ({instead} makes it one)" if instead else "")
        reject(f"the name of {path}", rule, repr(path.suffix))
    cloud = _READERS[suffix](path)
    require(may_be_empty or len(cloud.coordinates) > 0, f"{path}", "hold a point", "none")
    return cloud


def cloud_paths(root: str | Path) -> list[Path]:
    """The clouds of a folder and the folders in it, sorted; or the one file that ``root`` is.

    Files of other names are left out, and texts whose first line is words that are no names of x, y and z: a README.

    Raises:
        FileNotFoundError: nothing is there, or a folder without clouds.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"root must be a cloud or a folder of clouds, got {root}, which does not exist")
    found = [path for path in _files(root) if _is_cloud(path)]
    if not found:
        raise FileNotFoundError(f"{root} must hold clouds ({', '.join(SUFFIXES)}), got none")
    return found


def stray_paths(root: str | Path) -> list[Path]:
    """The files of a folder and the folders in it that ``cloud_paths`` leaves out, hidden ones too."""
    return [path for path in _files(Path(root)) if not _is_cloud(path)] if Path(root).is_dir() else []


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _is_cloud(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    suffix = _suffix(path)
    return suffix is not None and (suffix not in TEXTS or holds_points(path))


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
