"""Records of all sets merged to one cohort."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ccnn_irregular._checks import require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.physionet2012.cohort import Cohort, LoadReport, offsets
from ccnn_irregular.datasets.physionet2012.outcomes import OUTCOMES, read_outcomes, require_same_ids
from ccnn_irregular.datasets.physionet2012.record import SERIES, Record, RecordFault, parse_record
from ccnn_irregular.datasets.physionet2012.sources import RecordText, Source, read_source
from ccnn_irregular.datasets.physionet2012.wording import some

__all__ = ["OnBadRecord", "Repeats", "parse"]

Repeats = Literal["mean", "first", "last"]
OnBadRecord = Literal["stop", "skip"]

_MINUTES_PER_HOUR = 60
_LONGEST_RECORD = 100 * _MINUTES_PER_HOUR  # minutes that HH:MM can express


def parse(sources: list[Source], on_bad_record: OnBadRecord, repeats: Repeats, progress: bool) -> Cohort:
    """All records of the sources, which share none; see ``physionet2012.load`` for the options."""
    parsed = [_parse_source(source, on_bad_record, progress) for source in sources]
    records = [record for part in parsed for record in part.records]
    record_ids = np.array([record.record_id for record in records], np.int64)
    require(len(records) > 0, "the sets", "hold at least one record that can be read", "none")
    ids, counts = np.unique(record_ids, return_counts=True)
    shared = ids[counts > 1]
    require(len(shared) == 0, "the sets", "share no record", f"{len(shared)} shared ones: {some(shared.tolist())}")

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


def _parse_source(source: Source, on_bad_record: OnBadRecord, progress: bool) -> _ParsedSet:
    texts, ignored = read_source(source)
    # Before the long part, so that a wrong outcomes file is found at once.
    outcomes = None if source.outcomes is None else read_outcomes(source.outcomes)
    if source.outcomes is not None and outcomes is not None:
        require_same_ids(source.outcomes.name, outcomes["RecordID"], [text.record_id for text in texts])

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
    splits = offsets(np.bincount(stay[new_row], minlength=len(records)))
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


def _joined_outcomes(parsed: list[_ParsedSet]) -> dict[str, np.ndarray] | None:
    parts = [part.outcomes for part in parsed if part.outcomes is not None]
    return {name: np.concatenate([part[name] for part in parts]) for name in OUTCOMES} if parts else None


def _with_progress(texts: list[RecordText], label: str, progress: bool) -> Iterable[RecordText]:
    if not progress:
        return texts
    quiet: dict[str, Any] = {"leave": False, "disable": None}  # one line of a terminal, none in a pipe
    bar: Iterator[RecordText] = import_optional("tqdm", "a progress bar").tqdm(texts, desc=label, unit="stay", **quiet)
    return bar
