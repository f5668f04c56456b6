"""The text of one PhysioNet/CinC Challenge 2012 record: ``Time,Parameter,Value`` lines of one ICU stay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import numpy as np

__all__ = ["HEADER", "SERIES", "STATICS", "UNITS", "Record", "RecordFault", "parse_record"]

HEADER = "Time,Parameter,Value"
# fmt: off
SERIES: tuple[str, ...] = (
    "ALP", "ALT", "AST", "Albumin", "BUN", "Bilirubin", "Cholesterol", "Creatinine", "DiasABP", "FiO2", "GCS",
    "Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "MAP", "MechVent", "Mg", "NIDiasABP", "NIMAP", "NISysABP", "Na",
    "PaCO2", "PaO2", "Platelets", "RespRate", "SaO2", "SysABP", "Temp", "TroponinI", "TroponinT", "Urine", "WBC",
    "Weight", "pH",
)
# fmt: on
UNITS: dict[str, str] = {
    "Albumin": "g/dL",
    "ALP": "IU/L",
    "ALT": "IU/L",
    "AST": "IU/L",
    "Bilirubin": "mg/dL",
    "BUN": "mg/dL",
    "Cholesterol": "mg/dL",
    "Creatinine": "mg/dL",
    "DiasABP": "mmHg",
    "FiO2": "0-1",
    "GCS": "3-15",
    "Glucose": "mg/dL",
    "HCO3": "mmol/L",
    "HCT": "%",
    "HR": "1/min",
    "K": "mEq/L",
    "Lactate": "mmol/L",
    "MAP": "mmHg",
    "Mg": "mmol/L",
    "MechVent": "0/1",
    "Na": "mEq/L",
    "NIDiasABP": "mmHg",
    "NIMAP": "mmHg",
    "NISysABP": "mmHg",
    "PaCO2": "mmHg",
    "PaO2": "mmHg",
    "pH": "",
    "Platelets": "1000/uL",
    "RespRate": "1/min",
    "SaO2": "%",
    "SysABP": "mmHg",
    "Temp": "deg C",
    "TroponinI": "ug/L",
    "TroponinT": "ug/L",
    "Urine": "mL",
    "WBC": "1000/uL",
    "Weight": "kg",
}  # fmt: skip
STATICS = ("Age", "Gender", "Height", "ICUType", "Weight")

# Weight is the one name that is a descriptor (its first row at 00:00) and a time series (all other rows).
_DESCRIPTORS = STATICS[:-1]
_CODES = {name: code for code, name in enumerate((*SERIES, *_DESCRIPTORS, "RecordID"))}
_WEIGHT = _CODES["Weight"]
_FIRST_DESCRIPTOR = len(SERIES)
_RECORD_ID = _CODES["RecordID"]
_MINUTES = {f"{hour:02}:{minute:02}": 60 * hour + minute for hour in range(100) for minute in range(60)}
_PLAIN_TEXT = bytes(range(32, 127)) + b"\n"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LARGEST = float(np.finfo(np.float32).max)
_MISSING = -1.0


class RecordFault(ValueError):
    """A line breaks the format; the text is ``line <number>: <what> must <rule>, got <what was found>``."""

    def __init__(self, line: int, argument: str, rule: str, got: object) -> None:
        super().__init__(f"line {line}: {argument} must {rule}, got {got}")


@dataclass(frozen=True)
class Record:
    """One stay.

    Attributes:
        record_id: the number in the RecordID row.
        statics: (5,) float32, in the order of STATICS; nan = missing (-1 or no row).
        minutes: (n,) int64 since admission, never falling.
        series: (n,) int64 index into SERIES.
        values: (n,) float64 as written in the file.
        unnamed_rows: rows with an empty parameter name, which are left out of the arrays.
    """

    record_id: int
    statics: np.ndarray
    minutes: np.ndarray
    series: np.ndarray
    values: np.ndarray
    unnamed_rows: int


def parse_record(text: bytes, record_id: int) -> Record:
    """Parse the file of the stay ``record_id``.

    The first Weight row at 00:00 is the admission weight and becomes a static; every other Weight row is a measurement.

    Raises:
        RecordFault: the first line found to break the format.
    """
    rows = _rows(text)
    lines: Sequence[int] = range(2, len(rows) + 2)  # numbers in the file, where line 1 is the header
    total = len(rows)
    if any(not row[1] for row in rows):
        lines = [line for line, row in zip(lines, rows, strict=True) if row[1]]
        rows = [row for row in rows if row[1]]
    if not rows:
        raise RecordFault(1, "the record", f"hold the row 00:00,RecordID,{record_id}", "no named row at all")

    minutes, codes, values = _columns(rows, lines)
    _require_order(minutes, rows, lines)
    _require_descriptors(minutes, codes, rows, lines)
    _require_record_id(codes, values, record_id, lines)

    statics = np.full(len(STATICS), np.nan, np.float32)
    described = (codes >= _FIRST_DESCRIPTOR) & (codes < _RECORD_ID)
    statics[codes[described] - _FIRST_DESCRIPTOR] = values[described]
    measured = codes < _FIRST_DESCRIPTOR
    admission_weight = np.flatnonzero((codes == _WEIGHT) & (minutes == 0))[:1]
    if len(admission_weight):
        statics[-1] = values[admission_weight[0]]
        measured[admission_weight] = False
    statics[statics == _MISSING] = np.nan
    return Record(record_id, statics, minutes[measured], codes[measured], values[measured], total - len(rows))


def _rows(text: bytes) -> list[list[str]]:
    """The three fields of every line below the header."""
    text = text.replace(b"\r\n", b"\n")
    if foreign := text.translate(None, _PLAIN_TEXT):
        line = text[: text.index(foreign[:1])].count(b"\n") + 1
        raise RecordFault(line, "the record", "be plain text", f"byte 0x{foreign[0]:02x}")
    header, *lines = text.decode("ascii").removesuffix("\n").split("\n")
    if header != HEADER:
        raise RecordFault(1, "the header", f"be {HEADER}", _shown(header))
    rows = [line.split(",") for line in lines]
    for index, row in enumerate(rows):
        if len(row) != 3:
            raise RecordFault(index + 2, "a row", "have 3 fields", f"{len(row)} in {_shown(lines[index])}")
    return rows


def _columns(rows: list[list[str]], lines: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minutes (int64), codes (int64) and values (float64) of the rows."""
    times, names, numbers = zip(*rows, strict=True)
    minutes = [_MINUTES.get(time) for time in times]
    if None in minutes:
        bad = minutes.index(None)
        raise RecordFault(lines[bad], "the time", "be HH:MM", _shown(times[bad]))
    codes = [_CODES.get(name) for name in names]
    if None in codes:
        bad = codes.index(None)
        raise RecordFault(lines[bad], "the parameter", f"be one of the {len(_CODES)} known names", _shown(names[bad]))
    values = np.array([_number(number) for number in numbers])
    if np.isnan(values).any():
        bad = int(np.isnan(values).argmax())
        raise RecordFault(lines[bad], f"the value of {names[bad]}", "be a finite number", _shown(numbers[bad]))
    return np.array(minutes, np.int64), np.array(codes, np.int64), values


@lru_cache(maxsize=2**16)  # a set of 1.8 million rows holds only some ten thousand distinct values
def _number(text: str) -> float:
    """The number written in ``text``; nan unless it is a plain decimal that float32 can hold."""
    if not _NUMBER.fullmatch(text):
        return float("nan")
    number = float(text)
    return number if abs(number) <= _LARGEST else float("nan")


def _require_order(minutes: np.ndarray, rows: list[list[str]], lines: Sequence[int]) -> None:
    falls = np.flatnonzero(np.diff(minutes) < 0)
    if len(falls):
        bad = int(falls[0]) + 1
        raise RecordFault(lines[bad], "the time", "not run backwards", f"{rows[bad][0]} after {rows[bad - 1][0]}")


def _require_descriptors(minutes: np.ndarray, codes: np.ndarray, rows: list[list[str]], lines: Sequence[int]) -> None:
    seen: set[int] = set()
    for index in np.flatnonzero(codes >= _FIRST_DESCRIPTOR).tolist():
        name = rows[index][1]
        if minutes[index] != 0:
            raise RecordFault(lines[index], f"the descriptor {name}", "stand at 00:00", rows[index][0])
        if codes[index] in seen:
            raise RecordFault(lines[index], f"the descriptor {name}", "occur once", "a second row")
        seen.add(codes[index])


def _require_record_id(codes: np.ndarray, values: np.ndarray, record_id: int, lines: Sequence[int]) -> None:
    found = np.flatnonzero(codes == _RECORD_ID)
    if len(found) == 0:
        _reject_record_id(2, record_id, "no such row")
    if values[found[0]] != record_id:
        _reject_record_id(lines[int(found[0])], record_id, f"{values[found[0]]:.0f}")


def _reject_record_id(line: int, record_id: int, got: str) -> NoReturn:
    raise RecordFault(line, "RecordID", f"be the {record_id} of the file name", got)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
