"""Check that an HDF5 file has all its values: HDF5 itself reads missing ones as fill values, without a word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import parsing
from ccnn_irregular.adapters.xarray_missing import default_fill

__all__ = ["groups_with_values", "require_filters", "require_sources", "require_written"]

# In the name of a source: a number that counts files.
_NUMBER = "%b"
_UNLIMITED = 2**64 - 1


def groups_with_values(file: Any) -> list[str]:
    """List the paths of the groups that hold datasets, without the root."""
    import h5py

    found: set[str] = set()

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and "/" in name:
            found.add("/" + name.rpartition("/")[0])

    with parsing(file.filename, "HDF5 file"):
        file.visititems(look)
    return sorted(found)


def require_filters(path: Path, group: Any) -> None:
    """Refuse values compressed or encrypted by filters of other programs, which HDF5 only finds out when reading."""
    import h5py

    lacking: dict[str, list[int]] = {}
    for name, dataset in _datasets(path, group):
        with parsing(path, "HDF5 file"):
            plan = dataset.id.get_create_plist()
            filters = [plan.get_filter(place)[0] for place in range(plan.get_nfilters())]
        missing = [number for number in filters if not h5py.h5z.filter_avail(number)]
        lacking.update({name: missing} if missing else {})
    require(not lacking, str(path), "be stored with HDF5 filters that are installed", f"filters by number {lacking}")


def require_sources(path: Path, group: Any) -> None:
    """Refuse datasets whose values lie in other files that are missing, or that hold less.

    Raises:
        ValueError: with the name of the dataset and of the file.
    """
    for name, dataset in _datasets(path, group):
        _require_sources(path, name, dataset)


def require_written(path: Path, group: Any, names: Sequence[str]) -> None:
    """Refuse datasets of which parts were never written, unless they read as missing.

    A single number is let through: those that only carry attributes are never written.

    Args:
        path: of the file.
        group: of it.
        names: of the datasets, those that are variables.
    """
    for name, dataset in _datasets(path, group):
        if name not in names or dataset.size in (None, 0, 1) or dataset.dtype.kind not in "iuf":
            continue
        unwritten = _unwritten(dataset)
        if unwritten is None or _reads_as_missing(dataset):
            continue
        rule = f"be written, or be opened with missing_chunks=True, where what is missing reads as {dataset.fillvalue}"
        reject(f"all values of {name!r} in {path}", rule, unwritten)


def _datasets(path: Path, group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the datasets of a group with their names.

    Raises:
        ValueError: a link that leads nowhere.
    """
    import h5py

    if isinstance(group, h5py.Dataset):
        yield group.name.rpartition("/")[2], group
        return
    for name in group:
        try:
            item = group[name]
        except (KeyError, OSError):
            link = group.get(name, getlink=True)
            target = f"{link.path} of {link.filename}" if isinstance(link, h5py.ExternalLink) else link.path
            reject(f"link {name!r} in {path}", "lead to an object that exists", target)
        if isinstance(item, h5py.Dataset):
            yield name, item


def _require_sources(path: Path, name: str, dataset: Any) -> None:
    what = f"dataset {name!r} of {path}"
    rule = "have the files that its values lie in, next to it"
    for file, offset, size in dataset.external or ():
        source = Path(_prefix("HDF5_EXTFILE_PREFIX", path)[0]) / os.fsdecode(file)
        require(source.is_file(), what, rule, f"none at {source}")
        needed = offset + (dataset.nbytes if size == _UNLIMITED else size)
        held = source.stat().st_size
        require(held >= needed, what, rule, f"{source} of {held} bytes in place of {needed}")
    if not dataset.is_virtual:
        return
    for part in dataset.virtual_sources():
        sources = _virtual_files(path, part.file_name)
        require(bool(sources), what, rule, f"none named {part.file_name}")
        for source in sources:
            _require_part(what, rule, source, part)


def _require_part(what: str, rule: str, source: Path, part: Any) -> None:
    """Refuse a source without the dataset, with a smaller one, or with one whose own sources are missing."""
    import h5py

    with parsing(source, f"HDF5 file, of which {what} takes values"):
        file = h5py.File(source, "r")
    with file:
        inner = file.get(part.dset_name) if _NUMBER not in part.dset_name else None
        if inner is None:
            require(_NUMBER in part.dset_name, what, rule, f"{source} without {part.dset_name!r}")
            return
        got = f"{part.dset_name!r} in {source} of shape {inner.shape}, which is less than was taken from it"
        require(_holds(part, inner), what, rule, got)
        _require_sources(source, part.dset_name, inner)


def _holds(part: Any, source: Any) -> bool:
    """Tell whether a source holds what the virtual dataset takes from it."""
    import h5py

    if part.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        return _count(part.vspace) in (source.size, None)
    try:
        last = part.src_space.get_select_bounds()[1]
    except ValueError:  # an unlimited selection has no end
        return True
    return len(last) == source.ndim and all(index < size for index, size in zip(last, source.shape, strict=True))


def _count(space: Any) -> int | None:
    """Count the selected entries; None = unlimited."""
    try:
        return int(space.get_select_npoints())
    except RuntimeError:
        return None


def _virtual_files(path: Path, name: str) -> list[Path]:
    """List the files of a source where HDF5 looks for them; an empty list where any is missing."""
    if name == ".":
        return [path]
    given = Path(name)
    folders = [Path(folder) for folder in (*_prefix("HDF5_VDS_PREFIX", path), str(path.parent), ".")]
    # Files that were moved together keep their names only.
    candidates = [given, *(folder / given.name for folder in folders)] if given.is_absolute() else [
        folder / given for folder in folders
    ]  # fmt: skip
    for candidate in candidates:
        if _NUMBER not in name:
            if candidate.is_file():
                return [candidate]
            continue
        pattern = re.compile(re.escape(candidate.name).replace(_NUMBER, r"(\d+)"))
        numbered = {
            int(match[1]): file
            for file in candidate.parent.glob("*")
            if (match := pattern.fullmatch(file.name)) is not None
        }
        if numbered:
            whole = sorted(numbered) == list(range(len(numbered)))
            return [numbered[number] for number in sorted(numbered)] if whole else []
    return []


def _prefix(variable: str, path: Path) -> list[str]:
    """List the folders that an environment variable names, as HDF5 reads it."""
    return [part.replace("${ORIGIN}", str(path.parent)) for part in os.environ.get(variable, "").split(":")]


def _unwritten(dataset: Any) -> str | None:
    """Describe which part of a dataset was never written; None = nothing, as far as HDF5 knows."""
    import h5py

    if dataset.external:
        return None
    if dataset.is_virtual:
        counts = [_count(part.vspace) for part in dataset.virtual_sources()]
        held = sum(count for count in counts if count is not None)
        return f"sources for {held} of {dataset.size}" if None not in counts and held < dataset.size else None
    if dataset.chunks is None:
        compact = dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT
        return "none" if dataset.id.get_storage_size() == 0 and not compact else None
    count = int(np.prod([-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]))
    held = dataset.id.get_num_chunks()
    return f"{held} of {count} chunks" if held < count else None


def _reads_as_missing(dataset: Any) -> bool:
    """Tell whether values that were never written are masked when they are read."""
    fill = np.asarray(dataset.fillvalue)
    if fill.dtype.kind == "f" and bool(np.isnan(fill)):
        return True
    named = [np.ravel(dataset.attrs[key]) for key in ("_FillValue", "missing_value") if key in dataset.attrs]
    defaults = default_fill(dataset.dtype)
    return any(bool((value == fill).any()) for value in named) or (defaults is not None and bool(fill == defaults))
