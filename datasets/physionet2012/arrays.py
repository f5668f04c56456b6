"""A cohort as the arrays of a cache file, and the file's name and fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ccnn_irregular.datasets.physionet2012.cohort import Cohort, LoadReport
from ccnn_irregular.datasets.physionet2012.outcomes import OUTCOMES
from ccnn_irregular.datasets.physionet2012.record import SERIES
from ccnn_irregular.datasets.physionet2012.sources import Source

__all__ = ["cache_file", "fingerprint", "from_arrays", "to_arrays"]


def fingerprint(sources: list[Source], options: str) -> str:
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


def cache_file(folder: Path, sources: list[Source], options: str) -> Path:
    """One file per place and options, so that a changed source replaces its old cache."""
    places = [str((source.archive or source.folder or Path()).resolve()) for source in sources]
    key = hashlib.sha256("\0".join([options, *places]).encode()).hexdigest()[:16]
    return folder / f"physionet2012-{''.join(source.letter for source in sources)}-{key}.h5"


def to_arrays(cohort: Cohort) -> dict[str, np.ndarray]:
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


def from_arrays(arrays: dict[str, np.ndarray]) -> Cohort:
    """The cohort that ``to_arrays`` took apart."""
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
