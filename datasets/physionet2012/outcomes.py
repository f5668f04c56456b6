"""The outcomes files of the challenge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import DamagedFileError
from ccnn_irregular.datasets.physionet2012.wording import some

__all__ = ["DEATH", "OUTCOMES", "read_outcomes", "require_same_ids"]

OUTCOMES = ("SAPS-I", "SOFA", "Length_of_stay", "Survival", "In-hospital_death")
DEATH = "In-hospital_death"


def read_outcomes(path: Path) -> dict[str, np.ndarray]:
    """Columns of an outcomes file, with RecordID, sorted by it."""
    columns = ("RecordID", *OUTCOMES)
    try:
        header, *lines = path.read_bytes().decode("ascii").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        rule = f"be plain text, got byte 0x{error.object[error.start]:02x}"
        raise DamagedFileError(f"{path} must {rule}", path) from error
    require(header == ",".join(columns), f"{path.name}, line 1", f"be {','.join(columns)}", repr(header[:80]))
    table = np.array([_outcome_row(path.name, number, line) for number, line in enumerate(lines, 2)], np.int32)
    table = table.reshape(-1, len(columns))
    table = table[np.argsort(table[:, 0], kind="stable")]
    repeated = table[1:, 0][np.diff(table[:, 0]) == 0]
    require(len(repeated) == 0, path.name, "list every record once", f"repeated: {some(repeated.tolist())}")
    outcomes = {name: table[:, column] for column, name in enumerate(columns)}
    outcomes[DEATH] = outcomes[DEATH].astype(np.int8)
    return outcomes


def _outcome_row(name: str, number: int, line: str) -> list[int]:
    fields = line.split(",")
    try:
        row = [int(entry) for entry in fields]
    except ValueError:
        row = []
    good = len(row) == 1 + len(OUTCOMES) and all(abs(entry) < 2**31 for entry in row)
    require(good, f"{name}, line {number}", f"hold {1 + len(OUTCOMES)} integers", repr(line[:80]))
    require(row[-1] in (0, 1), f"{name}, line {number}", f"have {DEATH} 0 or 1", row[-1])
    return row


def require_same_ids(name: str, listed: np.ndarray, present: list[int]) -> None:
    """Refuse outcomes without a record, and records without an outcome."""
    without_outcome = np.setdiff1d(present, listed).tolist()
    without_record = np.setdiff1d(listed, present).tolist()
    if without_outcome or without_record:
        reject(
            name,
            f"list exactly the {len(present)} records of its set",
            f"{len(without_outcome)} records without outcome ({some(without_outcome)}) "
            f"and {len(without_record)} outcomes without record ({some(without_record)})",
        )
