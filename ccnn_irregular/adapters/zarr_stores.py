"""Check that a zarr store on disk is whole, and find the value that stands for missing ones."""

from __future__ import annotations

import base64
import json
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ccnn_irregular._checks import require

__all__ = ["groups_with_arrays", "lacking_arrays", "missing_parts", "quiet_about_foreign_files", "stated_fill"]

# What zarr gives as the fill value of arrays whose writer gave none.
_ZERO_KINDS = "iuf"
_METADATA = ("zarr.json", ".zarray")
# A gap in a coordinate this many times its other gaps is no step that its writer took.
_LARGE_GAP = 2.0


@contextmanager
def quiet_about_foreign_files() -> Iterator[None]:
    """Silence zarr's warnings about files of the operating system in a store, which are no part of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component of a Zarr hierarchy")
        yield


def groups_with_arrays(group: Any) -> list[str]:
    """List the paths of the groups below a group that hold arrays."""
    return sorted(
        {
            "/" + name.rpartition("/")[0]
            for name, member in group.members(max_depth=None)
            if _is_array(member) and "/" in name
        }
    )


def _is_array(member: Any) -> bool:
    return hasattr(member, "chunks")


def lacking_arrays(path: Path) -> list[str]:
    """List the arrays that the consolidated metadata of a group names and the folder lacks."""
    named: list[str] = []
    if (path / "zarr.json").is_file():
        content = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        known = (content.get("consolidated_metadata") or {}).get("metadata", {})
        named = [name for name, entry in known.items() if entry.get("node_type") == "array"]
    elif (path / ".zmetadata").is_file():
        known = json.loads((path / ".zmetadata").read_text(encoding="utf-8")).get("metadata", {})
        named = [name.removesuffix("/.zarray") for name in known if name.endswith("/.zarray")]
    return [name for name in sorted(named) if not any((path / name / file).is_file() for file in _METADATA)]


def missing_parts(path: Path, group: Any) -> dict[str, str]:
    """Describe how many stored objects of each array are missing; whole arrays are left out.

    A stored object is a shard, or a chunk of an array without shards. Stores leave out objects that hold the fill value
    only: an array of one number without any object is whole, and so is a coordinate of which that value is the next
    step (times that were appended one by one, from 0 on).

    Args:
        path: folder of the group.
        group: opened.
    """
    found = {}
    for name, array in group.arrays():
        missing, count = _missing_objects(path / name, array)
        if missing and not _left_out(name, array, missing):
            found[name] = f"{len(missing)} of {count}{' shards' if array.shards else ''}"
    return found


def _missing_objects(folder: Path, array: Any) -> tuple[list[tuple[int, ...]], int]:
    """Return the places of the stored objects that are missing or empty, and the number of all."""
    sizes = array.shards or array.chunks
    counts = [-(-size // step) for size, step in zip(array.shape, sizes, strict=True)]
    key = array.metadata.encode_chunk_key
    filled = set(_filled_files(folder))
    return [place for place in np.ndindex(*counts) if key(place) not in filled], int(np.prod(counts, dtype=int))


def _filled_files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the names of the files in a folder and below that are not empty; stores have millions."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _filled_files(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.stat().st_size > 0:
                yield prefix + entry.name


def _left_out(name: str, array: Any, missing: list[tuple[int, ...]]) -> bool:
    """Tell whether a missing object is a single number that a writer left out because it is the fill value."""
    if array.size == 1:
        return True
    if array.ndim != 1 or (array.shards or array.chunks) != (1,) or len(missing) > 1 or array.dtype.kind not in "iuf":
        return False
    nodes = np.asarray(array[:], dtype=np.float64)
    (place,) = missing[0]
    gaps = np.diff(nodes)
    if not (gaps > 0).all() and not (gaps < 0).all():
        return False
    others = np.delete(np.abs(gaps), [gap for gap in (place - 1, place) if 0 <= gap < len(gaps)])
    beside = np.abs(gaps[max(0, place - 1) : place + 1]).max()
    return bool(beside <= _LARGE_GAP * others.max()) if len(others) else place == 0


def stated_fill(array: Any, zero_fill_missing: bool) -> Any:
    """Return the value that an array's writer calls missing, or None.

    The attribute ``_FillValue`` says so. In format 2, where xarray keeps that value as the array's fill value, a fill
    value says so too, unless it is 0: arrays whose writer gave none have that.

    Args:
        array: zarr array.
        zero_fill_missing: whether 0 counts too.
    """
    attribute = array.attrs.get("_FillValue")
    if attribute is not None:
        return _decoded(attribute, array.dtype)
    fill = array.fill_value
    if array.metadata.zarr_format != 2 or fill is None or array.dtype.kind not in "iufSU":
        return None
    zero = array.dtype.kind in _ZERO_KINDS and fill == 0
    return None if zero and not zero_fill_missing else fill


def _decoded(attribute: Any, dtype: np.dtype[Any]) -> Any:
    """Convert an attribute to a value: a number, a list of one (NCZarr), or bytes in base 64 (xarray in format 3)."""
    value = attribute[0] if isinstance(attribute, list) and len(attribute) == 1 else attribute
    if dtype.kind not in "iuf":
        return value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                (value,) = struct.unpack("<d", base64.standard_b64decode(value))
            except (ValueError, struct.error):
                require(False, "_FillValue of an array", "be a number", repr(attribute))
    if dtype.kind in "iu":
        whole = float(value).is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
        return dtype.type(int(value)) if whole else None
    return dtype.type(value)
