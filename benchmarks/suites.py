"""Which problems are measured with which methods, at four scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from problems import Problem, gridded

__all__ = ["SUITES", "Cases", "Scale", "SuiteName", "Task", "Timing", "tasks"]

SuiteName = Literal["points", "compact", "ragged", "grids", "error"]
Scale = Literal["full", "quick", "tiny", "gpu"]
SUITES: tuple[SuiteName, ...] = ("points", "compact", "ragged", "grids", "error")

_SUPPORT = 0.25
_COMPACT_SUPPORT = 0.05  # about 50 neighbours a point at this many points in 3-D
_COMPACT_POINTS = 100_000
_HOURS = 6.0
_CASES_PER_TASK = 50


@dataclass(frozen=True)
class Timing:
    """One method on one problem, measured there, or at a smaller size and extrapolated.

    Attributes:
        measured: the problem that is measured in its place; its row must come earlier.
        order: the time grows with this power of the size.
        law: why, in words.
    """

    problem: Problem
    method: str
    measured: Problem | None = None
    order: int = 1
    law: str = ""

    @property
    def key(self) -> str:
        """What the task is, unlike any other of its suite."""
        return f"{self.problem.name} | {self.method}"

    def job(self, device: str, judges: str | None) -> dict[str, Any]:
        """What ``measure.py`` is told."""
        problem = self.problem.as_dict()
        return {"kind": "time", "problem": problem, "method": self.method, "device": device, "judges": judges}


@dataclass(frozen=True)
class Cases:
    """A task of many rows without times: random cases, or rules of quadrature under refinement."""

    key: str
    fields: tuple[tuple[str, Any], ...]

    def job(self, device: str, judges: str | None) -> dict[str, Any]:
        """What ``measure.py`` is told; these run on CPUs."""
        return dict(self.fields)


Task = Timing | Cases


@dataclass(frozen=True)
class _Sizes:
    """Sizes at one scale. Pairwise methods are measured at the first sizes and extrapolated to ``points``.

    ``transform`` is the non-uniform FFT that is measured beside the package's own.
    """

    points: tuple[int, ...]
    auto_up_to: int
    keops: tuple[int, ...]
    blocked: tuple[int, ...]
    graph: tuple[int, ...]
    reference: int
    rtols: tuple[float, ...]
    compact: tuple[int, ...]
    series: tuple[int, ...]
    series_measured: tuple[int, ...]
    grid: tuple[int, int, int, int]
    batch: tuple[int, int, int, int]
    cases: int
    channels: int = 16
    series_channels: int = 64
    transform: str = "finufft"


_SIZES: dict[Scale, _Sizes] = {
    "full": _Sizes(
        points=(1_000, 10_000, 100_000, 1_000_000),
        auto_up_to=100_000,
        keops=(1_000, 3_000),
        blocked=(1_000, 2_000),
        graph=(1_000, 2_000),
        reference=100_000,
        rtols=(1e-1, 1e-2, 1e-4),
        compact=(10_000, 100_000),
        series=(16, 64, 256, 1024),
        series_measured=(16, 64),
        grid=(16_384, 192, 48, 20),
        batch=(4, 4, 4, 1),
        cases=200,
    ),
    "quick": _Sizes(
        points=(1_000, 10_000),
        auto_up_to=10_000,
        keops=(1_000,),
        blocked=(1_000,),
        graph=(1_000,),
        reference=10_000,
        rtols=(1e-2,),
        compact=(10_000,),
        series=(16, 64),
        series_measured=(16,),
        grid=(4_096, 64, 20, 8),
        batch=(4, 4, 4, 1),
        cases=50,
    ),
    "tiny": _Sizes(
        points=(60, 120),
        auto_up_to=60,
        keops=(60,),
        blocked=(60,),
        graph=(60,),
        reference=120,
        rtols=(1e-2,),
        compact=(120,),
        series=(2, 4),
        series_measured=(2,),
        grid=(48, 12, 7, 5),
        batch=(2, 2, 2, 1),
        cases=5,
        channels=2,
        series_channels=3,
    ),
    "gpu": _Sizes(
        points=(10_000, 100_000, 1_000_000),
        auto_up_to=100_000,
        keops=(10_000, 30_000),
        blocked=(10_000,),
        graph=(3_000,),
        reference=100_000,
        rtols=(1e-2, 1e-4),
        compact=(10_000, 100_000),
        series=(64, 256, 1024),
        series_measured=(64, 256, 1024),
        grid=(16_384, 192, 48, 20),
        batch=(4, 4, 4, 1),
        cases=0,
        transform="cufinufft",
    ),
}


def tasks(suite: SuiteName, scale: Scale) -> list[Task]:
    """The tasks of a suite in the order in which they run, each once."""
    make = {"points": _points, "compact": _compact, "ragged": _ragged, "grids": _grids, "error": _error}[suite]
    return list({task.key: task for task in make(_SIZES[scale])}.values())


def _points(sizes: _Sizes) -> Iterator[Task]:
    for d in (1, 2, 3):
        base = Problem("points", d, sizes.points[0], sizes.channels, _SUPPORT)
        for size in sizes.points:
            for method in ("spectral", sizes.transform, *(("auto",) if size <= sizes.auto_up_to else ())):
                yield Timing(base.sized(size), method)
        for method, measured in (
            ("keops", sizes.keops),
            ("blocked torch", sizes.blocked),
            ("torch-geometric", sizes.graph),
        ):
            yield from _pairwise(base, method, measured, sizes.points)
        # The same number of points, scattered and on a grid.
        side = gridded(sizes.reference, d)
        yield Timing(base.sized(side**d), "spectral")
        yield Timing(Problem("grid", d, side, sizes.channels, _SUPPORT), "fft")
    for rtol in sizes.rtols:
        problem = Problem("points", 3, sizes.reference, sizes.channels, _SUPPORT, rtol=rtol)
        yield Timing(problem, "spectral")
        yield Timing(problem, sizes.transform)


def _compact(sizes: _Sizes) -> Iterator[Task]:
    for size in sizes.compact:
        support = _COMPACT_SUPPORT * (_COMPACT_POINTS / size) ** (1 / 3)
        problem = Problem("points", 3, size, sizes.channels, support)
        for method in ("auto", "neighbours", "torch-geometric"):
            yield Timing(problem, method)
        yield from _pairwise(problem, "keops", sizes.keops[-1:], (size,))
        yield Timing(problem, "spectral")


def _pairwise(base: Problem, method: str, measured: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[Task]:
    for size in measured:
        yield Timing(base.sized(size), method)
    for size in wanted:
        if size > measured[-1]:
            yield Timing(
                base.sized(size), method, base.sized(measured[-1]), 2, "pairs grow with the square of the points"
            )


def _ragged(sizes: _Sizes) -> Iterator[Task]:
    base = Problem("ragged", 1, sizes.series[0], sizes.series_channels, _HOURS)
    for size in sizes.series:
        for method in ("auto", "spectral"):
            yield Timing(base.sized(size), method)
        for method in ("padded torch", "blocked torch", "keops"):
            problem = base.sized(size)
            if size in sizes.series_measured:
                yield Timing(problem, method)
            else:
                smaller = base.sized(sizes.series_measured[-1])
                yield Timing(problem, method, smaller, 1, "pairs grow with the number of series")


def _grids(sizes: _Sizes) -> Iterator[Task]:
    for d, (size, batch) in enumerate(zip(sizes.grid, sizes.batch, strict=True), start=1):
        compact = Problem("grid", d, size, sizes.channels, 0.1, batch)
        for method in ("fft", "fft, kernel given", "rfftn-irfftn", "fft, uncropped", "direct convolution"):
            yield Timing(compact, method)
        wide = Problem("grid", d, size, sizes.channels, 1.0, batch)
        for method in ("fft", "fft, kernel given", "rfftn-irfftn"):
            yield Timing(wide, method)


def _error(sizes: _Sizes) -> Iterator[Task]:
    for first in range(0, sizes.cases, _CASES_PER_TASK):
        count = min(_CASES_PER_TASK, sizes.cases - first)
        fields = (("kind", "random"), ("first", first), ("count", count))
        yield Cases(f"random cases {first} to {first + count - 1}", fields)
    yield Cases("Gaussian * Gaussian", (("kind", "refinement"),))
