"""The files of the sets: where they lie, and the text of each record in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.physionet2012.wording import some
from ccnn_irregular.datasets.reading.archive import read_archive

__all__ = ["RecordText", "Source", "checked_sets", "find_source", "read_source"]

_SETS = ("a", "b", "c")


@dataclass(frozen=True)
class Source:
    """Where one set lies: an archive, a folder or both, and its outcomes file if wanted."""

    letter: str
    archive: Path | None
    folder: Path | None
    outcomes: Path | None

    def files(self) -> list[Path]:
        """Every file whose bytes decide what is loaded, in a fixed order."""
        single = [path for path in (self.archive, self.outcomes) if path is not None]
        return single + (_folder_files(self.folder) if self.folder is not None else [])


def checked_sets(sets: Sequence[str]) -> tuple[str, ...]:
    """The sets asked for, each once."""
    letters = tuple(sets)
    good = len(letters) > 0 and set(letters) <= set(_SETS) and len(set(letters)) == len(letters)
    require(good, "sets", f"be different ones of {_SETS}", repr(sets))
    return letters


def find_source(root: Path, letter: str, outcomes: bool) -> Source:
    """Where a set lies in ``root``; its outcomes file too, if wanted."""
    if not root.is_dir():
        raise FileNotFoundError(f"root must be an existing folder, got {root}")
    archive, folder = root / f"set-{letter}.tar.gz", root / f"set-{letter}"
    if not archive.is_file() and not folder.is_dir():
        found = some(sorted(path.name for path in root.iterdir())) or "an empty folder"
        raise FileNotFoundError(
            f"{root} must hold {archive.name} or the folder {folder.name} (download=True fetches it), got {found}"
        )
    labels = root / f"Outcomes-{letter}.txt"
    if outcomes and not labels.is_file():
        raise FileNotFoundError(
            f"{root} must hold {labels.name} (or load with outcomes=False), got set {letter} without it"
        )
    return Source(
        letter,
        archive if archive.is_file() else None,
        folder if folder.is_dir() else None,
        labels if outcomes else None,
    )


def _folder_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


@dataclass(frozen=True)
class RecordText:
    """The unparsed file of one stay; ``name`` is what an error calls it."""

    name: str
    record_id: int
    text: bytes


def read_source(source: Source) -> tuple[list[RecordText], list[str]]:
    """Records in the order of their ids, and the names of other files."""
    packed, unpacked = None, None
    if source.archive is not None:
        packed = _sort_out(source.letter, f"{source.archive.name}: ", read_archive(source.archive))
    if source.folder is not None:
        contents = {f"{source.folder.name}/{path.name}": path.read_bytes() for path in _folder_files(source.folder)}
        unpacked = _sort_out(source.letter, "", contents)
    if packed is not None and unpacked is not None:
        _require_same(source.letter, packed[0], unpacked[0])
    found = packed or unpacked
    assert found is not None
    return found


def _sort_out(letter: str, prefix: str, contents: dict[str, bytes]) -> tuple[list[RecordText], list[str]]:
    records: dict[int, RecordText] = {}
    ignored = []
    for name, text in contents.items():
        path = PurePosixPath(name)
        if path.suffix == ".txt" and path.stem.isdecimal() and path.parent.name in ("", f"set-{letter}"):
            record_id = int(path.stem)
            require(record_id not in records, f"set {letter}", "hold every record once", f"{record_id} twice")
            records[record_id] = RecordText(prefix + name, record_id, text)
        else:
            ignored.append(prefix + name)
    require(len(records) > 0, f"set {letter}", "hold records <RecordID>.txt", f"none among {len(contents)} files")
    return [records[record_id] for record_id in sorted(records)], sorted(ignored)


def _require_same(letter: str, packed: list[RecordText], unpacked: list[RecordText]) -> None:
    in_archive = {record.record_id: record.text for record in packed}
    in_folder = {record.record_id: record.text for record in unpacked}
    different = [key for key in sorted(in_archive | in_folder) if in_archive.get(key) != in_folder.get(key)]
    require(
        len(different) == 0,
        f"set-{letter}.tar.gz and the folder set-{letter}",
        "hold the same records where both are present (remove one of them)",
        f"{len(different)} different ones: {some(different)}",
    )
