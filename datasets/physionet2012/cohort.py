"""Intensive-care stays as they are returned, and what the load merged and left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.physionet2012.outcomes import DEATH
from ccnn_irregular.datasets.physionet2012.record import SERIES, STATICS
from ccnn_irregular.datasets.physionet2012.wording import listed
from ccnn_irregular.datasets.samples.protocol import summary
from ccnn_irregular.datasets.samples.series import RaggedSeries

__all__ = ["Cohort", "LoadReport", "offsets"]

_NAMES_SHOWN = 5


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
            listed("stays without measurements kept", self.empty_stays),
            listed("bad records skipped", self.skipped),
            listed("other files ignored", self.ignored_files),
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
        return None if self.outcomes is None else self.outcomes[DEATH].astype(np.int64)

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
            coordinates=torch.from_numpy(np.insert(self.times, first, -1 / 60)[:, None]),
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
        splits = offsets(lengths)
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


def offsets(lengths: np.ndarray) -> np.ndarray:
    """Where each of several stays begins and ends, (B + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
