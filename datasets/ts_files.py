"""Text files ``.ts`` of the UEA & UCR time series classification archive, unequal lengths and time stamps included.

The format is described at https://www.timeseriesclassification.com. Files without time stamps are parsed by sktime,
which is optional: ``pip install 'ccnn-irregular[files]'``. Those with time stamps are parsed here, since sktime makes
dates of all stamps but whole numbers: days of the years 2001 and 2003 of 2001.5 and 2003.25.

    Bagnall A, Dau HA, Lines J, et al. The UEA multivariate time series classification archive, 2018. arXiv:1811.00075.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import DamagedFileError, parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import RaggedSeries

__all__ = ["load"]

Floats = NDArray[np.float64]

# A sample with its stamp. A colon ends a channel, but those within a sample are of a time of day.
_SAMPLE = re.compile(r"\(\s*([^()]+?)\s*,\s*([^(),]+?)\s*\)")
_SAMPLES = re.compile(r"\s*(?:\([^()]*\)\s*(?:,\s*\([^()]*\)\s*)*)?")
_BETWEEN_CHANNELS = re.compile(r":(?![^(]*\))")
_LAYOUT = "(stamp,value),(stamp,value),...:class, with a part before the class for every channel"
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?")
# Day, time, fraction of a second, zone.
_DATE = re.compile(
    r"(\d{4}-\d\d(?:-\d\d)?)"
    r"(?:[ t](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?(?: ?(z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?))?)?"
)


def load(*paths: str | Path, step: float = 1.0, unit: str = "sample") -> RaggedSeries:
    """Series of one or several files of one problem, for example ``X_TRAIN.ts``, laid end to end in their order.

    Where the files have time stamps, coordinates are the stamps themselves (numbers: whole, decimal, negative,
    scientific) or seconds since the first sample of the series (dates after ISO 8601: ``yyyy-mm-dd``, with or without a
    time, a fraction of a second and a zone). Where they have none, samples are ``step`` apart from 0 on. Missing values
    (``?``) are nan, and so is a channel at the times of others. Classes are those of the header, in its order and in
    lower case.

    Args:
        paths: ``.ts`` files.
        step: distance of neighbouring samples without time stamps, in ``unit``; the format does not hold it.
        unit: of the coordinates; "s" is returned where the time stamps are dates.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is no complete ``.ts`` file with class labels; stamps that are neither numbers nor dates, or
            of both kinds, dates with and without a zone, whole numbers that float64 does not hold; times do not
            rise; the files disagree on classes, channels or time stamps.
        ImportError: a file without time stamps, and sktime is not installed.
    """
    require(len(paths) > 0, "paths", "name at least one file", "none")
    require(step > 0, "step", "be positive", step)
    files = [_read(Path(path)) for path in paths]
    for name, meaning in (("classes", "classes"), ("stamps", "time stamps"), ("channels", "number of channels")):
        found = {getattr(file, name) for file in files}
        require(len(found) == 1, "the files", f"agree on their {meaning}", sorted(found))
    cases = [case for file in files for case in file.cases]
    stamps = files[0].stamps
    times = np.concatenate([case.times for case in cases])
    return RaggedSeries(
        values=torch.from_numpy(np.concatenate([case.values for case in cases])),
        coordinates=torch.from_numpy(times * step if stamps == "none" else times)[:, None],
        splits=torch.tensor([0, *np.cumsum([len(case.times) for case in cases]).tolist()], dtype=torch.int64),
        labels=torch.from_numpy(np.concatenate([file.labels for file in files])),
        classes=files[0].classes,
        unit="s" if stamps == "dates" else unit,
    )


@dataclass(frozen=True)
class _Case:
    """One series: times ``(N,)``, counts of samples where there are no stamps, and values ``(N, C)``."""

    times: Floats
    values: NDArray[np.float32]


@dataclass(frozen=True)
class _File:
    """What one file holds; its stamps are "none", "numbers" or "dates"."""

    cases: list[_Case]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    stamps: str
    channels: int


def _read(path: Path) -> _File:
    classes, stamped = _header(path)
    stamps, cases, names = _stamped(path) if stamped else ("none", *_unstamped(path))
    unknown = sorted(set(names) - set(classes))
    require(not unknown, path.name, f"label its series with the classes of its header {classes}", unknown)
    index = {name: position for position, name in enumerate(classes)}
    labels = np.array([index[name] for name in names], np.int64)
    return _File(cases, labels, classes, stamps, channels=cases[0].values.shape[1])


def _header(path: Path) -> tuple[tuple[str, ...], bool]:
    """Class names and whether there are time stamps; sktime reads them too, but does not hand them out."""
    if not path.is_file():
        raise FileNotFoundError(f"paths must name existing .ts files, got {path}")
    tags: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.lower().split()
            if words and words[0].startswith("@"):
                tags[words[0]] = words[1:]
            if words == ["@data"]:
                break
        else:
            reject(path.name, "be a .ts file with a line @data", "a file without it")
    classes = tags.get("@classlabel", [])
    require(classes[:1] == ["true"] and len(classes) > 1, path.name, "list its classes (@classLabel true ...)", classes)
    return tuple(classes[1:]), tags.get("@timestamps") == ["true"]


def _unstamped(path: Path) -> tuple[list[_Case], list[str]]:
    """Series and classes of a file without time stamps."""
    reader = import_optional("sktime.datasets", f"reading {path.name}", "files")
    with parsing(path, ".ts file"):
        table, names = reader.load_from_tsfile(str(path), return_data_type="nested_univ")
    cases = []
    for number, channels in enumerate(table.to_numpy().tolist(), 1):
        times = [np.arange(len(channel), dtype=np.float64) for channel in channels]
        values = [channel.to_numpy(np.float32) for channel in channels]
        name = f"{path.name}, series {number}"
        lengths = [len(channel) for channel in times]
        require(len(set(lengths)) == 1, name, "have as many samples in all channels, or time stamps", lengths)
        cases.append(_case(name, times, values))
    return cases, names.tolist()


def _stamped(path: Path) -> tuple[str, list[_Case], list[str]]:
    """Kind of the stamps, series and classes of a file with time stamps."""
    rows: list[list[list[tuple[str, str]]]] = []
    classes = []
    try:
        for number, line in _data_lines(path):
            row, name = _samples(line)
            if not row or len(row) != len(rows[0] if rows else row):
                raise ValueError(f"line {number} is not {_LAYOUT}")
            rows.append(row)
            classes.append(name)
        values = [[[float("nan" if text == "?" else text) for _, text in channel] for channel in row] for row in rows]
    except ValueError as error:
        raise _damaged(path, error) from error
    if not rows:
        raise _damaged(path, "it holds no series")
    kind, times = _times(path.name, [[[stamp for stamp, _ in channel] for channel in row] for row in rows])
    names = (f"{path.name}, series {number}" for number in itertools.count(1))
    return kind, [_case(*one) for one in zip(names, times, values, strict=False)], classes


def _data_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines below @data, in lower case as sktime reads them."""
    lines = enumerate(path.read_text(encoding="utf-8").lower().split("\n"), 1)
    below = itertools.dropwhile(lambda line: line[1].split() != ["@data"], lines)
    return ((number, line.strip()) for number, line in itertools.islice(below, 1, None) if line.strip())


def _samples(line: str) -> tuple[list[list[tuple[str, str]]], str]:
    """Stamps and values of each channel, and the class; no channel at all where a line is damaged."""
    *channels, name = _BETWEEN_CHANNELS.split(line)
    row = [_SAMPLE.findall(channel) for channel in channels]
    whole = (
        _SAMPLES.fullmatch(channel) and len(samples) == channel.count("(")
        for channel, samples in zip(channels, row, strict=True)
    )
    return (row if all(whole) else []), name.strip()


def _case(name: str, times: Sequence[Floats], values: Sequence[Sequence[float] | NDArray[np.float32]]) -> _Case:
    """A row for each time of any channel, nan where a channel has none; times must rise in each."""
    rising = all(bool((np.diff(channel) > 0).all()) for channel in times)
    require(rising, name, "have times that rise", "times that do not")
    every = np.unique(np.concatenate(times))
    require(len(every) > 0, name, "hold at least one sample", "none")
    table = np.full((len(every), len(times)), np.nan, np.float32)
    for number, (channel, found) in enumerate(zip(times, values, strict=True)):
        table[np.searchsorted(every, channel), number] = np.asarray(found, np.float32)
    return _Case(every, table)


def _damaged(path: Path, why: object) -> ValueError:
    return DamagedFileError(f"{path} must be a complete .ts file, got a damaged one: {why}", path)


def _times(name: str, stamps: list[list[list[str]]]) -> tuple[str, list[list[Floats]]]:
    """Kind of the stamps of a file, "numbers" or "dates", and times by series and channel."""
    every = [stamp for row in stamps for channel in row for stamp in channel]
    number = next((stamp for stamp in every if _NUMBER.fullmatch(stamp)), None)
    date = next((stamp for stamp in every if _DATE.fullmatch(stamp)), None)
    neither = next((stamp for stamp in every if not (_NUMBER.fullmatch(stamp) or _DATE.fullmatch(stamp))), None)
    rule = "be numbers, or dates like 2007-01-31, 2007-01-31 23:59:59.5 or 2007-01-31T23:59:59+01:00"
    require(neither is None, f"time stamps of {name}", rule, repr(neither))
    both = number is not None and date is not None
    require(not both, f"time stamps of {name}", "be all numbers or all dates", f"{number!r} and {date!r}")
    if date is None:
        times = _numbers(name, every)
    else:
        whole, fraction = _dates(name, every)
        # Seconds since the first sample of the series, the difference taken before float64 rounds.
        sizes = [sum(map(len, row)) for row in stamps]
        origin = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
        times = (whole - whole[origin]) + (fraction - fraction[origin])
    parts = iter(np.split(times, np.cumsum([len(channel) for row in stamps for channel in row])[:-1]))
    return "numbers" if date is None else "dates", [[next(parts) for _ in row] for row in stamps]


def _numbers(name: str, stamps: list[str]) -> Floats:
    """Numbers as they stand; whole ones may be too long for float64."""
    numbers = np.array(stamps, dtype=np.float64)
    for index in np.flatnonzero(~(np.abs(numbers) < 2.0**53)).tolist():
        kept = bool(np.isfinite(numbers[index])) and (
            not stamps[index].lstrip("+-").isdecimal() or int(stamps[index]) == int(numbers[index])
        )
        rule = "be numbers that float64 holds: count from a later origin or in a larger unit"
        require(kept, f"time stamps of {name}", rule, stamps[index])
    return numbers


def _dates(name: str, stamps: list[str]) -> tuple[NDArray[np.int64], Floats]:
    """Whole seconds since 1970, of UTC where there are zones, and the fractions."""
    found = [match.groups() for match in map(_DATE.fullmatch, stamps) if match is not None]
    zoned = [zone is not None for *_, zone in found]
    both = {flag: stamps[zoned.index(flag)] for flag in set(zoned)}
    require(len(both) == 1, f"time stamps of {name}", "be all with a zone or all without", sorted(both.values()))
    try:
        moments = np.array([f"{day}T{time}" if time else day for day, time, *_ in found], dtype="datetime64[s]")
    except ValueError as error:
        raise ValueError(f"time stamps of {name} must be dates of the calendar, got {error}") from error
    fractions = np.array([float(f"0.{digits}") if digits else 0.0 for *_, digits, _ in found])
    return moments.astype(np.int64) - np.array([_offset(zone) for *_, zone in found]), fractions


def _offset(zone: str | None) -> int:
    """Seconds that local time is ahead of UTC."""
    if zone is None or zone == "z":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    seconds = 3600 * int(digits[:2]) + 60 * int(digits[2:])
    return -seconds if zone[0] == "-" else seconds


def _load_listed(root: str | Path, *, step: float = 1.0, unit: str = "sample") -> RaggedSeries:
    """:func:`load` of the files whose paths stand in ``root``, separated by commas."""
    return load(*str(root).split(","), step=step, unit=unit)


register(
    DataSet(
        name="ts_files",
        about="series of any .ts file with class labels, with or without time stamps",
        load=_load_listed,
        samples=RaggedSeries,
        shape="as in the files",
        ordered=False,
        files="the .ts files, whose paths are separated by commas",
        size="of the files",
        licence="as stated in the file",
        source="https://www.timeseriesclassification.com",
    )
)
