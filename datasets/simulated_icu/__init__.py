"""A simulated ICU cohort in the files of the PhysioNet/CinC Challenge 2012, for tests, examples and method studies.

Nothing in it is measured on anybody: record ids start at 900001 and every written set holds a file SIMULATED.txt, which
the report of the loader lists. The loader is :mod:`ccnn_irregular.datasets.physionet2012`.
The model is described in :mod:`ccnn_irregular.datasets.simulated_icu.model`.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccnn_irregular._checks import require
from ccnn_irregular.datasets import physionet2012
from ccnn_irregular.datasets.physionet2012 import OUTCOMES, SERIES, Cohort
from ccnn_irregular.datasets.physionet2012.record import HEADER
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.simulated_icu.model import (
    STEP_MINUTES,
    STEPS,
    Patients,
    Rows,
    draw_outcomes,
    draw_patients,
    draw_rows,
    draw_severity,
)

__all__ = ["FIRST_RECORD_ID", "load", "write"]

FIRST_RECORD_ID = 900001
_IDS_PER_SET = 100_000
_SETS = ("a", "b", "c")
_NOTE = (
    "SIMULATED data: drawn from a random model, not measured on any patient.\n"
    "Written by ccnn_irregular.datasets.simulated_icu: set {letter}, {stays} stays, seed {seed}.\n"
)


def write(
    root: str | Path,
    *,
    stays: int = 2000,
    seed: int = 0,
    sets: Sequence[str] = ("a",),
    archive: bool = False,
) -> None:
    """Write simulated sets: ``set-<name>/`` (or ``set-<name>.tar.gz``) and ``Outcomes-<name>.txt``.

    The files depend on ``stays``, ``seed`` and the name of the set only. As in the real sets some statics are -1
    (missing), some (time, parameter) pairs occur twice, and (in sets of 20 or more) some stay has no measurement.

    Args:
        root: folder, made if need be; may hold nothing of the sets to be written yet.
        stays: stays per set, 1 to 100,000.
        seed: not negative.
        sets: any of "a", "b", "c"; each is another draw with other record ids.
        archive: write ``.tar.gz`` archives instead of folders.

    Raises:
        FileExistsError: a file or folder of one of the sets stands in ``root`` already.
    """
    require(1 <= stays <= _IDS_PER_SET, "stays", f"lie in 1..{_IDS_PER_SET}", stays)
    require(seed >= 0, "seed", "not be negative", seed)
    known = len(sets) > 0 and set(sets) <= set(_SETS) and len(set(sets)) == len(sets)
    require(known, "sets", f"be different ones of {_SETS}", repr(sets))
    root = Path(root)
    for letter in sets:
        for name in (f"set-{letter}", f"set-{letter}.tar.gz", f"Outcomes-{letter}.txt"):
            if (root / name).exists():
                raise FileExistsError(f"root must not hold {name} yet, got {root} with it")
    root.mkdir(parents=True, exist_ok=True)
    for letter in sets:
        rng = np.random.default_rng([seed, _SETS.index(letter)])
        patients = draw_patients(stays, rng)
        severity = draw_severity(patients, rng)
        record_ids = FIRST_RECORD_ID + _IDS_PER_SET * _SETS.index(letter) + np.arange(stays)
        files = {"SIMULATED.txt": _NOTE.format(letter=letter, stays=stays, seed=seed)}
        files |= _record_files(record_ids, patients, draw_rows(patients, severity, rng), rng)
        (_write_archive if archive else _write_folder)(root, f"set-{letter}", files)
        outcomes = _outcome_file(record_ids, draw_outcomes(patients, severity, rng))
        (root / f"Outcomes-{letter}.txt").write_text(outcomes, encoding="ascii", newline="\n")


def load(count: int = 200, *, seed: int = 0, sets: Sequence[str] = ("a",)) -> Cohort:
    """Simulated stays as ``physionet2012.load`` reads them: ``count`` a set, see :func:`write`."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder, stays=count, seed=seed, sets=sets)
        return physionet2012.load(folder, sets, cache=False, progress=False)


def _record_files(record_ids: np.ndarray, patients: Patients, rows: Rows, rng: np.random.Generator) -> dict[str, str]:
    """File name -> text of every stay."""
    order = np.lexsort((rows.series, rows.minute, rows.stay))
    clock = [f"{minute // 60:02}:{minute % 60:02}" for minute in range(STEPS * STEP_MINUTES)]
    columns = (rows.minute[order].tolist(), rows.series[order].tolist(), rows.text[order].tolist())
    lines = [f"{clock[minute]},{SERIES[series]},{text}\n" for minute, series, text in zip(*columns, strict=True)]
    splits = np.searchsorted(rows.stay[order], np.arange(len(record_ids) + 1)).tolist()
    heads = _heads(record_ids, patients, rng)
    return {
        f"{record_id}.txt": head + "".join(lines[start:stop])
        for record_id, head, start, stop in zip(record_ids, heads, splits, splits[1:], strict=False)
    }


def _heads(record_ids: np.ndarray, patients: Patients, rng: np.random.Generator) -> list[str]:
    """Header and descriptors of every stay; a missing descriptor is -1."""
    stays = len(record_ids)
    descriptors = {
        "RecordID": [str(record_id) for record_id in record_ids],
        "Age": [f"{age:.0f}" for age in patients.age],
        "Gender": _with_gaps([f"{male:.0f}" for male in patients.male], rng.random(stays) < 0.001),
        "Height": _with_gaps([f"{height:.1f}" for height in patients.height], rng.random(stays) < 0.47),
        "ICUType": [f"{icu_type + 1}" for icu_type in patients.icu_type],
        "Weight": _with_gaps([f"{weight:.1f}" for weight in patients.weight], rng.random(stays) < 0.08),
    }
    columns = [[f"00:00,{name},{entry}\n" for entry in column] for name, column in descriptors.items()]
    return [f"{HEADER}\n" + "".join(entries) for entries in zip(*columns, strict=True)]


def _with_gaps(entries: list[str], missing: np.ndarray) -> list[str]:
    return ["-1" if gap else entry for entry, gap in zip(entries, missing, strict=True)]


def _outcome_file(record_ids: np.ndarray, outcomes: dict[str, np.ndarray]) -> str:
    table = np.column_stack([record_ids, *(outcomes[name] for name in OUTCOMES)]).tolist()
    lines = [",".join(map(str, row)) for row in table]
    return "\n".join([",".join(("RecordID", *OUTCOMES)), *lines]) + "\n"


def _write_folder(root: Path, name: str, files: dict[str, str]) -> None:
    (root / name).mkdir()
    for file_name, text in files.items():
        (root / name / file_name).write_text(text, encoding="ascii", newline="\n")


def _write_archive(root: Path, name: str, files: dict[str, str]) -> None:
    """No dates go into the archive, so that equal files give equal bytes."""
    with (
        (root / f"{name}.tar.gz").open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for file_name, text in files.items():
            content = text.encode("ascii")
            entry = tarfile.TarInfo(f"{name}/{file_name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


register(
    DataSet(
        name="simulated_icu",
        about="simulated intensive-care stays in the form of physionet2012",
        load=load,
        samples=Cohort,
        shape="37 series, 5 descriptors, 48 hours",
    )
)
