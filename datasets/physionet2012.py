"""PhysioNet/Computing in Cardiology Challenge 2012: mortality of ICU patients from their first 48 hours.

The official layout is read as it comes: a folder with ``set-a.tar.gz`` (or the unpacked folder ``set-a`` of
``<RecordID>.txt`` files) and ``Outcomes-a.txt``, likewise for b and c. Each set holds 4,000 stays.

    Silva I, Moody G, Scott DJ, Celi LA, Mark RG. Predicting In-Hospital Mortality of ICU Patients: The
    PhysioNet/Computing in Cardiology Challenge 2012. Computing in Cardiology 2012; 39:245-248.
    https://physionet.org/content/challenge-2012/1.0.0/ (Open Data Commons Attribution License v1.0)

Units are those of the official description. Values are kept as recorded: implausible ones are not cleaned here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from ccnn_irregular._cache_folder import cache_folder
from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets._physionet2012_record import SERIES, STATICS, Record, RecordFault, parse_record
from ccnn_irregular.datasets.reading import cache as stored
from ccnn_irregular.datasets.reading.archive import read_archive
from ccnn_irregular.datasets.reading.download import download_file
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples.protocol import summary
from ccnn_irregular.datasets.samples.series import RaggedSeries

__all__ = ["OUTCOMES", "SERIES", "SHA256", "STATICS", "URL", "Cohort", "LoadReport", "fetch", "load"]

Repeats = Literal["mean", "first", "last"]
OnBadRecord = Literal["stop", "skip"]

URL = "https://physionet.org/files/challenge-2012/1.0.0"
SHA256: Mapping[str, str] = {
    "set-a.tar.gz": "8cb250f179cd0952b4b9ebcf8954b63d70383131670fac1cfee13deaa13ca920",
    "set-b.tar.gz": "b1637a2a423a8e76f8f087896cfc5fdf28f88519e1f4e874fbda69b2a64dac30",
    "set-c.tar.gz": "a4a56b95bcee4d50a3874fe298bf2998f2ed0dd98a676579573dc10419329ee1",
    "Outcomes-a.txt": "2613ea60ccda29f87571a7d6b09ad130858a8ccd66325bd073365925026883c2",
    "Outcomes-b.txt": "1305f29734da374a809483229a99f33a9230aa8d4fa74b1a2d6ad788136423d5",
    "Outcomes-c.txt": "0b32dcb7753c0f18f2f5fde498a28618b8879c5e527ce0dae8ad120dd7e205c9",
}
OUTCOMES = ("SAPS-I", "SOFA", "Length_of_stay", "Survival", "In-hospital_death")
_DEATH = "In-hospital_death"

_SETS = ("a", "b", "c")
_MINUTES_PER_HOUR = 60
_LONGEST_RECORD = 100 * _MINUTES_PER_HOUR  # minutes that HH:MM can express
_NAMES_SHOWN = 5
# Part of every cache fingerprint: raise it when the same files and options should give another cohort.
_PARSER_VERSION = 1


@dataclass(frozen=True)
class LoadReport:
    """What was read, merged and left out; ``print(cohort.report)`` shows it.

    Attributes:
        stays: number of stays of each set.
        rows: distinct (stay, time) pairs.
        measurements: observed (stay, time, parameter) values after merging.
        repeated_pairs: (stay, time, parameter) combinations that the files hold more than once.
        unnamed_rows: rows dropped because their parameter name is empty.
        empty_stays: record ids of stays without any measurement, which are kept with zero rows.
        skipped: one message per record left out by ``on_bad_record="skip"``.
        ignored_files: files of the set that are not named ``<RecordID>.txt``.
        from_cache: whether the arrays came from a cache file (not compared).
    """

    stays: dict[str, int]
    rows: int
    measurements: int
    repeated_pairs: int
    unnamed_rows: int
    empty_stays: tuple[int, ...]
    skipped: tuple[str, ...]
    ignored_files: tuple[str, ...]
    from_cache: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        stays = ", ".join(f"{count} of set {letter}" for letter, count in self.stays.items())
        lines = [
            f"stays: {stays}" + (" (from the cache)" if self.from_cache else ""),
            f"rows (stay, time): {self.rows}; measurements: {self.measurements}",
            f"repeated (stay, time, parameter) merged: {self.repeated_pairs}",
            f"rows without a parameter name dropped: {self.unnamed_rows}",
            _listed("stays without measurements kept", self.empty_stays),
            _listed("bad records skipped", self.skipped),
            _listed("other files ignored", self.ignored_files),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Cohort:
    """A ragged batch of B stays with N rows (distinct times) in all.

    Attributes:
        record_ids: (B,) int64.
        splits: (B + 1,) int64; the rows of stay b are ``splits[b]:splits[b + 1]``. A stay may have no row.
        times: (N,) float64, hours since admission, strictly increasing within a stay.
        values: (N, 37) float32, columns as in SERIES; nan = not observed.
        statics: (B, 5) float32, columns as in STATICS (years; 0 = female, 1 = male; cm; 1 coronary care, 2 cardiac
            surgery recovery, 3 medical, 4 surgical ICU; admission weight in kg); nan = missing.
        outcomes: column of the outcomes file -> (B,) array: In-hospital_death int8 (1 = died), the others int32 as
            recorded (Length_of_stay and Survival in days; -1 = missing, for Survival: no death recorded).
            None where no outcomes were asked for.
        sources: (B,) str, the set each stay came from: "a", "b" or "c".
        report: what the load merged and left out; a selection keeps the report of the load it was taken from.
    """

    record_ids: np.ndarray
    splits: np.ndarray
    times: np.ndarray
    values: np.ndarray
    statics: np.ndarray
    outcomes: dict[str, np.ndarray] | None
    sources: np.ndarray
    report: LoadReport

    def __len__(self) -> int:
        return len(self.record_ids)

    @property
    def labels(self) -> np.ndarray | None:
        """Whether the patient died in hospital, (B,) int64 index into ``classes``; None without outcomes."""
        return None if self.outcomes is None else self.outcomes[_DEATH].astype(np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels mean."""
        return ("survived", "died")

    @property
    def unit(self) -> str:
        """Of the times."""
        return "h"

    def as_series(self) -> RaggedSeries:
        """The stays as series of 41 variables: SERIES, then age, gender, height and unit.

        Descriptors are variables too, observed once, a minute before admission; the admission weight is a value of the
        series "Weight". Labels are in-hospital deaths, or 0 for all where no outcomes were read.
        """
        first, others = self.splits[:-1], [name for name in STATICS if name not in SERIES]
        described = np.full((len(self), len(SERIES) + len(others)), np.nan, np.float32)
        channels = (*SERIES, *others)
        described[:, [channels.index(name) for name in STATICS]] = self.statics
        values = np.pad(self.values, ((0, 0), (0, len(others))), constant_values=np.nan)
        series = RaggedSeries(
            values=torch.from_numpy(np.insert(values, first, described, axis=0)),
            coordinates=torch.from_numpy(np.insert(self.times, first, -1 / _MINUTES_PER_HOUR)[:, None]),
            splits=torch.from_numpy(self.splits + np.arange(len(self) + 1)),
            labels=torch.from_numpy(np.zeros(len(self), np.int64) if self.labels is None else self.labels),
            classes=self.classes,
            unit=self.unit,
            channels=channels,
            ids=torch.from_numpy(self.record_ids),
        )
        return series.keep(~series.values.isnan().all(1))

    def describe(self) -> dict[str, Any]:
        """What they are, as plain values."""
        return summary(self, rows=len(self.times), measurements=int(np.count_nonzero(~np.isnan(self.values))))

    def select(self, indices: npt.ArrayLike) -> Cohort:
        """The stays at ``indices``, in that order.

        Args:
            indices: integers in 0..B-1 (repeats allowed), or a bool mask of shape (B,).
        """
        chosen = np.asarray(indices)
        if chosen.dtype == bool:
            require(chosen.shape == (len(self),), "indices", f"be a mask of shape ({len(self)},)", chosen.shape)
            chosen = np.flatnonzero(chosen)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        require(chosen.ndim == 1 and chosen.dtype.kind in "iu", "indices", "be 1-D integers or bools", chosen.dtype)
        outside = chosen[(chosen < 0) | (chosen >= len(self))]
        require(len(outside) == 0, "indices", f"lie in 0..{len(self) - 1}", outside[:_NAMES_SHOWN])

        lengths = np.diff(self.splits)[chosen]
        splits = _offsets(lengths)
        rows = np.arange(splits[-1]) + np.repeat(self.splits[chosen] - splits[:-1], lengths)
        outcomes = None if self.outcomes is None else {name: column[chosen] for name, column in self.outcomes.items()}
        return Cohort(
            record_ids=self.record_ids[chosen],
            splits=splits,
            times=self.times[rows],
            values=self.values[rows],
            statics=self.statics[chosen],
            outcomes=outcomes,
            sources=self.sources[chosen],
            report=self.report,
        )


def load(
    root: str | Path,
    sets: Sequence[str] = ("a",),
    *,
    outcomes: bool = True,
    on_bad_record: OnBadRecord = "stop",
    repeats: Repeats = "mean",
    cache: Path | Literal[False] | None = None,
    download: bool = False,
    progress: bool = True,
) -> Cohort:
    """Load whole sets of the challenge.

    Where both ``set-a.tar.gz`` and ``set-a/`` stand in ``root``, they must hold the same records; which of two
    different ones was meant is not guessed.

    Args:
        root: folder with the official files.
        sets: any of "a", "b", "c"; stays come in this order, by record id within a set.
        outcomes: read the outcomes files too; False for a set without labels.
        on_bad_record: "stop" raises at the first record that breaks the format; "skip" leaves such records (and their
            outcomes) out and lists them in the report.
        repeats: what becomes of several values of one parameter at one time: their mean, the first or the last of them.
        cache: folder for the parsed arrays (HDF5); None for ``$CCNN_CACHE`` or the user's cache folder; False for
            none. A cache file counts only while the bytes of all source files and the options are unchanged.
        download: fetch missing files from PhysioNet into ``root`` first, see :func:`fetch`.
        progress: show progress bars.

    Raises:
        FileNotFoundError: ``root``, a set or an outcomes file does not exist.
        ValueError: a file breaks the format (the message names file and line), an archive is damaged or unsafe, or
            the outcomes belong to other records.
    """
    letters = _checked_sets(sets)
    require(on_bad_record in get_args(OnBadRecord), "on_bad_record", "be 'stop' or 'skip'", repr(on_bad_record))
    require(repeats in get_args(Repeats), "repeats", "be 'mean', 'first' or 'last'", repr(repeats))
    root = Path(root)
    if download:
        fetch(root, letters, outcomes=outcomes, progress=progress)
    sources = [_find_source(root, letter, outcomes) for letter in letters]

    if cache is False:
        return _parse(sources, on_bad_record, repeats, progress)
    options = f"physionet2012 version {_PARSER_VERSION}, {on_bad_record}, {repeats}, outcomes {outcomes}"
    fingerprint = _fingerprint(sources, options)
    cache_file = _cache_file(cache_folder() if cache is None else Path(cache), sources, options)
    arrays = stored.read(cache_file, fingerprint)
    if arrays is not None:
        return _from_arrays(arrays)
    cohort = _parse(sources, on_bad_record, repeats, progress)
    stored.write(cache_file, fingerprint, _to_arrays(cohort))
    return cohort


def fetch(
    root: str | Path,
    sets: Sequence[str] = ("a",),
    *,
    outcomes: bool = True,
    url: str = URL,
    sha256: Mapping[str, str] = SHA256,
    progress: bool = True,
) -> None:
    """Download the official files that ``root`` lacks; files that are there are left alone.

    Args:
        root: folder to download to, made if need be.
        sets: any of "a", "b", "c".
        outcomes: fetch the outcomes files too.
        url: where the files lie, without a final slash; for mirrors.
        sha256: file name -> SHA256 in hexadecimal digits; a file with another checksum is not kept.
        progress: show progress bars.

    Raises:
        ValueError: a downloaded file has another checksum.
        OSError: the server cannot be reached or refuses.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for letter in _checked_sets(sets):
        names = [] if (root / f"set-{letter}").is_dir() else [f"set-{letter}.tar.gz"]
        names += [f"Outcomes-{letter}.txt"] if outcomes else []
        for name in names:
            if not (root / name).exists():
                download_file(f"{url}/{name}", sha256[name], root / name, progress=progress)


# ---------------------------------------------------------------------------------------------- finding the files


@dataclass(frozen=True)
class _Source:
    """Where one set lies: an archive, a folder or both, and its outcomes file if wanted."""

    letter: str
    archive: Path | None
    folder: Path | None
    outcomes: Path | None

    def files(self) -> list[Path]:
        """Every file whose bytes decide what is loaded, in a fixed order."""
        single = [path for path in (self.archive, self.outcomes) if path is not None]
        return single + (_folder_files(self.folder) if self.folder is not None else [])


def _checked_sets(sets: Sequence[str]) -> tuple[str, ...]:
    letters = tuple(sets)
    good = len(letters) > 0 and set(letters) <= set(_SETS) and len(set(letters)) == len(letters)
    require(good, "sets", f"be different ones of {_SETS}", repr(sets))
    return letters


def _find_source(root: Path, letter: str, outcomes: bool) -> _Source:
    if not root.is_dir():
        raise FileNotFoundError(f"root must be an existing folder, got {root}")
    archive, folder = root / f"set-{letter}.tar.gz", root / f"set-{letter}"
    if not archive.is_file() and not folder.is_dir():
        found = _some(sorted(path.name for path in root.iterdir())) or "an empty folder"
        raise FileNotFoundError(
            f"{root} must hold {archive.name} or the folder {folder.name} (download=True fetches it), got {found}"
        )
    labels = root / f"Outcomes-{letter}.txt"
    if outcomes and not labels.is_file():
        raise FileNotFoundError(
            f"{root} must hold {labels.name} (or load with outcomes=False), got set {letter} without it"
        )
    return _Source(
        letter,
        archive if archive.is_file() else None,
        folder if folder.is_dir() else None,
        labels if outcomes else None,
    )


def _folder_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


@dataclass(frozen=True)
class _RecordText:
    """The unparsed file of one stay; ``name`` is what an error calls it."""

    name: str
    record_id: int
    text: bytes


def _read_source(source: _Source) -> tuple[list[_RecordText], list[str]]:
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


def _sort_out(letter: str, prefix: str, contents: dict[str, bytes]) -> tuple[list[_RecordText], list[str]]:
    records: dict[int, _RecordText] = {}
    ignored = []
    for name, text in contents.items():
        path = PurePosixPath(name)
        if path.suffix == ".txt" and path.stem.isdecimal() and path.parent.name in ("", f"set-{letter}"):
            record_id = int(path.stem)
            require(record_id not in records, f"set {letter}", "hold every record once", f"{record_id} twice")
            records[record_id] = _RecordText(prefix + name, record_id, text)
        else:
            ignored.append(prefix + name)
    require(len(records) > 0, f"set {letter}", "hold records <RecordID>.txt", f"none among {len(contents)} files")
    return [records[record_id] for record_id in sorted(records)], sorted(ignored)


def _require_same(letter: str, packed: list[_RecordText], unpacked: list[_RecordText]) -> None:
    in_archive = {record.record_id: record.text for record in packed}
    in_folder = {record.record_id: record.text for record in unpacked}
    different = [key for key in sorted(in_archive | in_folder) if in_archive.get(key) != in_folder.get(key)]
    require(
        len(different) == 0,
        f"set-{letter}.tar.gz and the folder set-{letter}",
        "hold the same records where both are present (remove one of them)",
        f"{len(different)} different ones: {_some(different)}",
    )


# ------------------------------------------------------------------------------------------------------- parsing


def _parse(sources: list[_Source], on_bad_record: OnBadRecord, repeats: Repeats, progress: bool) -> Cohort:
    parsed = [_parse_source(source, on_bad_record, progress) for source in sources]
    records = [record for part in parsed for record in part.records]
    record_ids = np.array([record.record_id for record in records], np.int64)
    require(len(records) > 0, "the sets", "hold at least one record that can be read", "none")
    ids, counts = np.unique(record_ids, return_counts=True)
    shared = ids[counts > 1]
    require(len(shared) == 0, "the sets", "share no record", f"{len(shared)} shared ones: {_some(shared.tolist())}")

    splits, times, values, repeated_pairs = _merge(records, repeats)
    report = LoadReport(
        stays={source.letter: len(part.records) for source, part in zip(sources, parsed, strict=True)},
        rows=len(times),
        measurements=int(np.count_nonzero(~np.isnan(values))),
        repeated_pairs=repeated_pairs,
        unnamed_rows=sum(record.unnamed_rows for record in records),
        empty_stays=tuple(record_ids[np.diff(splits) == 0].tolist()),
        skipped=tuple(message for part in parsed for message in part.skipped),
        ignored_files=tuple(name for part in parsed for name in part.ignored),
    )
    return Cohort(
        record_ids=record_ids,
        splits=splits,
        times=times,
        values=values,
        statics=np.stack([record.statics for record in records]),
        outcomes=_joined_outcomes(parsed),
        sources=np.repeat([source.letter for source in sources], [len(part.records) for part in parsed]),
        report=report,
    )


@dataclass(frozen=True)
class _ParsedSet:
    records: list[Record]
    skipped: list[str]
    ignored: list[str]
    outcomes: dict[str, np.ndarray] | None


def _parse_source(source: _Source, on_bad_record: OnBadRecord, progress: bool) -> _ParsedSet:
    texts, ignored = _read_source(source)
    # Before the long part, so that a wrong outcomes file is found at once.
    outcomes = None if source.outcomes is None else _read_outcomes(source.outcomes)
    if source.outcomes is not None and outcomes is not None:
        _require_same_ids(source.outcomes.name, outcomes["RecordID"], [text.record_id for text in texts])

    records, skipped = [], []
    for text in _with_progress(texts, f"set {source.letter}", progress):
        try:
            records.append(parse_record(text.text, text.record_id))
        except RecordFault as fault:
            message = f"{text.name}, {fault}"
            if on_bad_record == "stop":
                raise ValueError(message) from fault
            skipped.append(message)
    if outcomes is not None:
        rows = np.searchsorted(outcomes["RecordID"], [record.record_id for record in records])
        outcomes = {name: outcomes[name][rows] for name in OUTCOMES}
    return _ParsedSet(records, skipped, ignored, outcomes)


def _merge(records: list[Record], repeats: Repeats) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Splits, times and values of a cohort, and how many (stay, time, parameter) combinations occurred repeatedly."""
    stay = np.repeat(np.arange(len(records)), [len(record.minutes) for record in records])
    minutes = np.concatenate([record.minutes for record in records])
    series = np.concatenate([record.series for record in records])
    recorded = np.concatenate([record.values for record in records])

    # Records are in order of stay and time, so a new row starts wherever this key grows.
    new_row = np.diff(stay * _LONGEST_RECORD + minutes, prepend=-1) > 0
    row = np.cumsum(new_row) - 1
    splits = _offsets(np.bincount(stay[new_row], minlength=len(records)))
    times = minutes[new_row] / _MINUTES_PER_HOUR

    cell = row * len(SERIES) + series
    order = np.argsort(cell, kind="stable")  # stable: the order in the file decides what "first" and "last" are
    start = np.flatnonzero(np.diff(cell[order], prepend=-1) > 0)
    count = np.diff(start, append=len(cell))
    if repeats == "mean":
        merged = np.add.reduceat(recorded[order], start) / count if len(start) else recorded
    else:
        merged = recorded[order[start if repeats == "first" else start + count - 1]]
    values = np.full((len(times), len(SERIES)), np.nan, np.float32)
    values.reshape(-1)[cell[order[start]]] = merged
    return splits, times, values, int(np.count_nonzero(count > 1))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


# ------------------------------------------------------------------------------------------------------ outcomes


def _read_outcomes(path: Path) -> dict[str, np.ndarray]:
    """Columns of an outcomes file, with RecordID, sorted by it."""
    columns = ("RecordID", *OUTCOMES)
    try:
        header, *lines = path.read_bytes().decode("ascii").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} must be plain text, got byte 0x{error.object[error.start]:02x}") from error
    require(header == ",".join(columns), f"{path.name}, line 1", f"be {','.join(columns)}", repr(header[:80]))
    table = np.array([_outcome_row(path.name, number, line) for number, line in enumerate(lines, 2)], np.int32)
    table = table.reshape(-1, len(columns))
    table = table[np.argsort(table[:, 0], kind="stable")]
    repeated = table[1:, 0][np.diff(table[:, 0]) == 0]
    require(len(repeated) == 0, path.name, "list every record once", f"repeated: {_some(repeated.tolist())}")
    outcomes = {name: table[:, column] for column, name in enumerate(columns)}
    outcomes[_DEATH] = outcomes[_DEATH].astype(np.int8)
    return outcomes


def _outcome_row(name: str, number: int, line: str) -> list[int]:
    fields = line.split(",")
    try:
        row = [int(entry) for entry in fields]
    except ValueError:
        row = []
    good = len(row) == 1 + len(OUTCOMES) and all(abs(entry) < 2**31 for entry in row)
    require(good, f"{name}, line {number}", f"hold {1 + len(OUTCOMES)} integers", repr(line[:80]))
    require(row[-1] in (0, 1), f"{name}, line {number}", f"have {_DEATH} 0 or 1", row[-1])
    return row


def _require_same_ids(name: str, listed: np.ndarray, present: list[int]) -> None:
    without_outcome = np.setdiff1d(present, listed).tolist()
    without_record = np.setdiff1d(listed, present).tolist()
    if without_outcome or without_record:
        reject(
            name,
            f"list exactly the {len(present)} records of its set",
            f"{len(without_outcome)} records without outcome ({_some(without_outcome)}) "
            f"and {len(without_record)} outcomes without record ({_some(without_record)})",
        )


def _joined_outcomes(parsed: list[_ParsedSet]) -> dict[str, np.ndarray] | None:
    parts = [part.outcomes for part in parsed if part.outcomes is not None]
    return {name: np.concatenate([part[name] for part in parts]) for name in OUTCOMES} if parts else None


# --------------------------------------------------------------------------------------------------------- cache


def _fingerprint(sources: list[_Source], options: str) -> str:
    """SHA256 over the options and over names and contents of all source files.

    Contents rather than modification times: reading the bytes is cheap beside parsing them, and a file restored with
    an old date cannot pass for the one that was parsed.
    """
    digest = hashlib.sha256(options.encode())
    for source in sources:
        digest.update(f"\0set {source.letter}".encode())
        for path in source.files():
            content = path.read_bytes()
            digest.update(f"\0{path.parent.name}/{path.name}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _cache_file(folder: Path, sources: list[_Source], options: str) -> Path:
    """One file per place and options, so that a changed source replaces its old cache."""
    places = [str((source.archive or source.folder or Path()).resolve()) for source in sources]
    key = hashlib.sha256("\0".join([options, *places]).encode()).hexdigest()[:16]
    return folder / f"physionet2012-{''.join(source.letter for source in sources)}-{key}.h5"


def _to_arrays(cohort: Cohort) -> dict[str, np.ndarray]:
    """Values go without their nan, which are most of the table."""
    cells = np.flatnonzero(~np.isnan(cohort.values))
    arrays = {
        "record_ids": cohort.record_ids,
        "splits": cohort.splits,
        "times": cohort.times,
        "cells": cells,
        "observed": cohort.values.reshape(-1)[cells],
        "statics": cohort.statics,
        "sources": cohort.sources.astype("S1"),
        "report": np.frombuffer(json.dumps(asdict(cohort.report)).encode(), np.uint8),
    }
    return arrays | {f"outcome {name}": column for name, column in (cohort.outcomes or {}).items()}


def _from_arrays(arrays: dict[str, np.ndarray]) -> Cohort:
    values = np.full((len(arrays["times"]), len(SERIES)), np.nan, np.float32)
    values.reshape(-1)[arrays["cells"]] = arrays["observed"]
    stored: dict[str, Any] = json.loads(arrays["report"].tobytes())
    lists = {key: tuple(entry) for key, entry in stored.items() if isinstance(entry, list)}
    outcomes = {name: arrays[f"outcome {name}"] for name in OUTCOMES if f"outcome {name}" in arrays}
    return Cohort(
        record_ids=arrays["record_ids"],
        splits=arrays["splits"],
        times=arrays["times"],
        values=values,
        statics=arrays["statics"],
        outcomes=outcomes or None,
        sources=arrays["sources"].astype("U1"),
        report=LoadReport(**{**stored, **lists, "from_cache": True}),
    )


# -------------------------------------------------------------------------------------------------------- wording


def _some(items: Sequence[object]) -> str:
    """The first few items, for a message."""
    return ", ".join(map(str, items[:_NAMES_SHOWN])) + (", ..." if len(items) > _NAMES_SHOWN else "")


def _listed(label: str, items: Sequence[object]) -> str:
    return f"{label}: {len(items)}" + (f" ({_some(items)})" if items else "")


def _with_progress(texts: list[_RecordText], label: str, progress: bool) -> Iterable[_RecordText]:
    if not progress:
        return texts
    bar: Iterator[_RecordText] = import_optional("tqdm", "a progress bar").tqdm(texts, desc=label, unit="stay")
    return bar


register(
    DataSet(
        name="physionet2012",
        about="intensive-care stays: vital signs and laboratory values at irregular times, and who died",
        load=load,
        samples=Cohort,
        shape="37 series, 5 descriptors, 48 hours",
        files="set-a.tar.gz (or the folder set-a) and Outcomes-a.txt, likewise for b and c",
        size="20 MB",
        licence="ODC-By 1.0",
        source="https://physionet.org/content/challenge-2012/1.0.0",
        fetch=fetch,
        checksum="SHA256 in the module",
    )
)
