"""GRIB files as Datasets, through cfgrib: never by an index of another day, never one field silently for another."""

from __future__ import annotations

import glob
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import xarray as xr

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import parsing, refuse_file
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_values import named_values

__all__ = ["GRIB", "open_grib"]

GRIB = b"GRIB"
"""How every GRIB file begins."""

# What cfgrib tells fields apart by; of those that agree in all of it, it takes the first.
_KEYS = ("shortName", "typeOfLevel", "level", "number", "dataDate", "dataTime", "endStep", "stepType", "gridType")
_SHOWN = 3
_END, _SHORTEST, _LONG = b"7777", 20, 0x800000
_BETWEEN = 1 << 12  # bytes that are searched at a time for the next message


def open_grib(path: Path, chunks: Any, variables: Sequence[str] | None = None) -> xr.Dataset:
    """Open a GRIB file, its messages indexed anew: an index file beside it is neither read nor written.

    Args:
        path: of the file.
        chunks: as for ``open_cube``.
        variables: those that are wanted, where fields of several kinds of levels share the file; None = all.

    Raises:
        ImportError: cfgrib is not installed.
        ValueError: a damaged file, two fields of one variable, place and end of step (accumulations of unlike length),
            fields that do not fit into one Dataset.
    """
    cfgrib = import_optional("cfgrib", "a GRIB file", "formats")
    _require_whole(path)
    _require_told_apart(path)
    # An index is trusted by its date alone: beside a file that was replaced by an older one it reads other fields.
    _announce_stale_index(path)
    with parsing(path, "GRIB file"):
        parts = cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": ""}, chunks=chunks)
        parts = [named_values(path, part) for part in parts]
    require(bool(parts), str(path), "hold a field", "none")
    if variables is not None:
        parts = [part for part in parts if set(variables) & set(map(str, part.data_vars))]
        require(bool(parts), "variables", f"be among those of {path}", list(variables))
    return parts[0] if len(parts) == 1 else _joined(path, parts)


def _require_whole(path: Path) -> None:
    """Refuse messages whose lengths contradict each other: eccodes repairs some, and ends the process over others."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            head = file.read(_BETWEEN)
            gap = head.find(GRIB)
            if gap != 0:  # texts may stand between messages
                place += gap if gap > 0 else max(len(head) - 3, 1)
                continue
            edition = head[7] if len(head) > 7 else 0
            length = int.from_bytes(head[8:16] if edition == 2 else head[4:7], "big")
            if edition not in (1, 2) or not _fits(file, place, length, size, edition):
                refuse_file(path, "be a complete GRIB file", f"a damaged message at byte {place}")
            place += length


def _fits(file: BinaryIO, place: int, length: int, size: int, edition: int) -> bool:
    """Whether a message ends where its head says, and each of its sections where the next begins."""
    if edition == 1 and length & _LONG:  # ECMWF counts those of more than 8 MB in another way
        return True
    end = place + length - len(_END)
    if length < _SHORTEST or end + len(_END) > size:
        return False
    file.seek(end)
    if file.read(len(_END)) != _END:
        return False
    at = place + 16
    while edition == 2 and at < end:
        file.seek(at)
        section = int.from_bytes(file.read(4), "big")
        if section < 5 or section > end - at:
            return False
        at += section
    return edition == 1 or at == end


def _announce_stale_index(path: Path) -> None:
    """Warn of an index file from before the file came to its place: other programs may read by it."""
    came = path.stat().st_ctime  # st_mtime may be that of the file it was copied from
    stale = [
        index.name for index in path.parent.glob(f"{glob.escape(path.name)}.*.idx") if index.stat().st_mtime < came
    ]
    if stale:
        text = (
            f"{', '.join(stale)} was written before {path} came there: it is not read here; delete it, for cfgrib may"
        )
        warnings.warn(text, UserWarning, stacklevel=3)


def _require_told_apart(path: Path) -> None:
    """Refuse fields between which cfgrib does not choose but takes the first."""
    eccodes = import_optional("eccodes", "a GRIB file", "formats")
    ranges: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    with parsing(path, "GRIB file"), path.open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
            defined = (eccodes.codes_is_defined(message, key) for key in _KEYS)
            key = tuple(
                eccodes.codes_get(message, name) if known else None for name, known in zip(_KEYS, defined, strict=True)
            )
            ranges[key].append(str(eccodes.codes_get(message, "stepRange")))
            eccodes.codes_release(message)
    doubled = {key: found for key, found in ranges.items() if len(found) > 1}
    if not doubled:
        return
    key, found = next(iter(doubled.items()))
    name, date = key[0], key[4]
    if len(set(found)) == 1:
        reject(str(path), "hold each field once", f"{len(found)} of {name} on {date} at step {found[0]}")
    rule = (
        "hold accumulations and means of one length, since two that end at one step have one place; choose with "
        f"grib_copy -w stepRange={'/'.join(dict.fromkeys(copies[0] for copies in doubled.values()))} FILE OUT, say"
    )
    others = f", and {len(doubled) - 1} more" if len(doubled) > 1 else ""
    reject(str(path), rule, f"{name} on {date} over the steps {' and '.join(found[:_SHOWN])}{others}")


def _joined(path: Path, parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Fields of several kinds of levels as one Dataset; the scalar level of each is left to its attributes."""
    bare = []
    for part in parts:
        levels = [
            name
            for name, coordinate in part.coords.items()
            if not coordinate.dims and name not in ("time", "step", "valid_time")
        ]
        bare.append(part.drop_vars(levels))
    names = [sorted(map(str, part.data_vars)) for part in bare]
    try:
        return xr.merge(bare, join="exact", compat="no_conflicts", combine_attrs="drop_conflicts")
    except (ValueError, xr.MergeError) as error:
        rule = "hold fields that fit together, or be opened with variables= of one kind"
        raise ValueError(f"{path} must {rule}, got {names}: {str(error).splitlines()[0]}") from error
