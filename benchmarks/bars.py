"""The targets beside what was measured: ``python benchmarks/bars.py``. Every line compares rows of one run."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import results
from results import Row

__all__ = ["Bar", "bars", "finufft", "main", "report"]

_FORWARD, _BOTH = "forward_s", "forward_backward_s"
_STAGES = (("plan", "plan_s"), ("forward", _FORWARD), ("forward + backward", _BOTH), ("memory", "peak_mib"))
_TIMES = ((_FORWARD, "forward"), (_BOTH, "forward + backward"))


@dataclass(frozen=True)
class Bar:
    """One target.

    Attributes:
        what: what is compared.
        measured: the figure, or None where rows are missing.
        target: the bound it is held to.
        at_least: whether the figure must not be below the bound; else not above.
        note: which rows were extrapolated, what else holds.
        also: a second condition that must hold.
    """

    what: str
    measured: float | None
    target: float
    at_least: bool = False
    note: str = ""
    also: bool = True

    @property
    def reached(self) -> str:
        """ "yes", "no" or "not measured"."""
        if self.measured is None or math.isnan(self.measured):
            return "not measured"
        within = self.measured >= self.target if self.at_least else self.measured <= self.target
        return "yes" if within and self.also else "no"


def bars(suites: dict[str, list[Row]]) -> list[Bar]:
    """Yield all targets, from the rows of each suite."""
    points, compact, ragged, grids, error = (
        _Rows(suites.get(name, [])) for name in ("points", "compact", "ragged", "grids", "error")
    )
    return [
        *_against_keops(points),
        *_against_graph(compact),
        *_slopes(points),
        *_largest(points),
        *_against_padding(ragged),
        *_scattered(points),
        *_random(error),
        *_against_bare(grids),
        *_cropping(grids),
        *_refinement(error),
    ]


class _Rows:
    """Rows of one suite, found by their fields."""

    def __init__(self, rows: list[Row]) -> None:
        runs = {row["run"] for row in rows}
        if len(runs) > 1:
            raise ValueError(f"rows must be of one run, got {sorted(runs)}")
        self.rows = [row for row in rows if row["status"] in ("ok", "extrapolated")]
        self.all = rows

    def find(self, method: str, **fields: object) -> Row | None:
        """Find the row of a method with the given fields, the largest of several; numbers are compared as numbers."""
        found = [
            row
            for row in self.rows
            if row["method"] == method and all(results.same(row[name], value) for name, value in fields.items())
        ]
        return max(found, key=lambda row: float(row["size"]), default=None)

    def dimensions(self, **fields: object) -> list[int]:
        """List the numbers of axes that have rows."""
        rows = [row for row in self.rows if all(results.same(row[name], value) for name, value in fields.items())]
        return sorted({int(row["d"]) for row in rows})


def _ratio(above: Row | None, below: Row | None, field: str) -> float | None:
    if above is None or below is None or not above[field] or not below[field]:
        return None
    return float(above[field]) / float(below[field])


def _origin(*rows: Row | None) -> str:
    """Say which rows were extrapolated, and from what size."""
    return "; ".join(
        f"{row['method']} extrapolated from {row['measured_size']}: {row['law']}"
        for row in rows
        if row is not None and row["status"] == "extrapolated"
    )


def _plan(row: Row | None) -> str:
    return "" if row is None or not row["plan_s"] else f"{row['method']} plans {float(row['plan_s']):.3g} s"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _against_keops(points: _Rows) -> Iterator[Bar]:
    fields = {"kind": "points", "d": 3, "size": 100_000, "rtol": 1e-3}
    ours, keops = points.find("spectral", **fields), points.find("keops", **fields)
    accurate = ours is not None and float(ours["relative_error"]) <= 1e-3
    for field, name in _TIMES:
        what = f"100,000 points in 3-D, support 0.25: KeOps / spectral, {name}"
        error = f"error {float(ours['relative_error']):.1e}" if ours is not None else ""
        note = _joined(error, _plan(ours), _origin(keops))
        yield Bar(what, _ratio(keops, ours, field), 1000, at_least=True, note=note, also=accurate)


def _against_graph(compact: _Rows) -> Iterator[Bar]:
    fields = {"d": 3, "size": 100_000}
    ours, graph = compact.find("auto", **fields), compact.find("torch-geometric", **fields)
    note = _joined("" if ours is None else ours["note"], _plan(ours), _plan(graph))
    what = "100,000 points in 3-D, about 50 neighbours: auto / torch-geometric"
    yield Bar(f"{what}, forward + backward", _ratio(ours, graph, _BOTH), 1.0, note=note)
    yield Bar(f"{what}, peak memory", _ratio(ours, graph, "peak_mib"), 0.5, note=note)


def _slopes(points: _Rows) -> Iterator[Bar]:
    for d in (1, 2, 3):
        rows = [points.find("spectral", kind="points", d=d, size=10**power, rtol=1e-3) for power in (4, 5, 6)]
        what = f"slope of log time (forward + backward) over log points, 10^4 to 10^6, {d}-D"
        found = [(math.log(float(row["size"])), math.log(float(row[_BOTH]))) for row in rows if row is not None]
        yield Bar(what, _slope(found) if len(found) == len(rows) else None, 1.15)


def _slope(pairs: list[tuple[float, float]]) -> float:
    """Fit the slope of a line by least squares."""
    mean_x, mean_y = (sum(axis) / len(pairs) for axis in zip(*pairs, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in pairs)
    return sum((x - mean_x) * (y - mean_y) for x, y in pairs) / spread


def _largest(points: _Rows) -> Iterator[Bar]:
    row = points.find("spectral", kind="points", d=3, size=1_000_000, rtol=1e-3)
    memory = None if row is None else float(row["process_mib"]) / 1024
    note = "" if row is None else f"the whole process; {float(row['peak_mib']) / 1024:.2f} GiB beyond packages and data"
    yield Bar("1,000,000 points in 3-D, forward + backward: peak memory, GiB", memory, 8.0, note=note)


def _against_padding(ragged: _Rows) -> Iterator[Bar]:
    ours, padded = ragged.find("spectral", size=64), ragged.find("padded torch", size=64)
    what = "64 series, 64 channels: padding + blocked sum / spectral, forward + backward"
    yield Bar(what, _ratio(padded, ours, _BOTH), 50, at_least=True, note=_joined(_plan(ours), _origin(padded)))


def _scattered(points: _Rows) -> Iterator[Bar]:
    for d in (1, 2, 3):
        grid = points.find("fft", kind="grid", d=d)
        count = None if grid is None else int(float(grid["points"]))
        ours = None if count is None else points.find("spectral", kind="points", d=d, size=count, rtol=1e-3)
        for field, name in _TIMES:
            nodes = "" if count is None else f"{count} nodes"
            yield Bar(f"points / grid of as many nodes, {d}-D, {name}", _ratio(ours, grid, field), 4.0, note=nodes)


def _random(error: _Rows) -> Iterator[Bar]:
    cases = [row for row in error.rows if row["problem"].startswith("random case")]
    refused = sum(row["problem"].startswith("random case") and row["status"] == "refused" for row in error.all)
    worst = max(cases, key=_excess, default=None)
    note = "" if worst is None else f"worst: rtol {float(worst['rtol']):.1e} {worst['dtype']}, {worst['note']}"
    what = f"largest error / rtol of {len(cases)} random cases ({refused} more refused)"
    yield Bar(what, None if worst is None else _excess(worst), 2.0, note=note)


def _excess(row: Row) -> float:
    return float(row["relative_error"]) / float(row["rtol"])


def _against_bare(grids: _Rows) -> Iterator[Bar]:
    for d in (1, 2, 3, 4):
        for support in (0.1, 1.0):
            ours = grids.find("fft, kernel given", d=d, support=support)
            bare = grids.find("rfftn-irfftn", d=d, support=support)
            what = f"grid {d}-D, support {support:.0%} of the axis: fft, kernel given / rfftn-irfftn, forward"
            yield Bar(what, _ratio(ours, bare, _FORWARD), 1.3)


def _cropping(grids: _Rows) -> Iterator[Bar]:
    for d in (1, 2, 3, 4):
        ours, whole = grids.find("fft", d=d, support=0.1), grids.find("fft, uncropped", d=d, support=0.1)
        for field, name in _TIMES:
            what = f"grid {d}-D, support 10% of the axis: uncropped / cropped, {name}"
            yield Bar(what, _ratio(whole, ours, field), 2.0, at_least=True)


def _refinement(error: _Rows) -> Iterator[Bar]:
    rules: dict[str, list[Row]] = {}
    for row in error.rows:
        if row["problem"].startswith("Gaussian * Gaussian"):
            rules.setdefault(row["note"], []).append(row)
    for rule, rows in rules.items():
        finest = min(float(row["relative_error"]) for row in rows)
        if rule in ("trapezoid", "simpson"):
            stated = 2.0 if rule == "trapezoid" else 4.0
            pairs = [(-math.log(float(row["size"]) - 1), math.log(float(row["relative_error"]))) for row in rows[-3:]]
            note = f"stated order {stated:g}; finest error {finest:.1e}"
            yield Bar(f"Gaussian * Gaussian, {rule}: order", _slope(pairs), stated - 0.05, at_least=True, note=note)
        else:
            sizes = " ".join(f"{int(row['size'])}: {float(row['relative_error']):.0e}" for row in rows)
            yield Bar(f"Gaussian * Gaussian, {rule}: smallest error", finest, 1e-12, note=f"nodes per axis {sizes}")


def finufft(points: list[Row]) -> Iterator[str]:
    """Compare FINUFFT with the spectral engine, line by line: there is no target, the faster engine is kept."""
    found = _Rows(points)
    for other in found.rows:
        ours = found.find("spectral", problem=other["problem"]) if other["method"] == "finufft" else None
        if ours is not None:
            ratios = [f"{name} {_ratio(other, ours, field):.2g}" for name, field in _STAGES]
            errors = f"errors {float(other['relative_error']):.1e} and {float(ours['relative_error']):.1e}"
            yield f"{other['problem']}: {', '.join(ratios)}; {errors}; {other['note']}"


def report(folder: Path, device: str, *, markdown: bool = False) -> Iterator[str]:
    """Return the lines of the report on the rows in ``folder``.

    Raises:
        ValueError: no rows there, or rows of several runs in one file.
    """
    suites = {name: results.read(path) for name, path in results.files(folder, device).items()}
    machines = dict.fromkeys(results.described(rows[0]) for rows in suites.values() if rows)
    if not machines:
        raise ValueError(f"{folder} holds no results: run benchmarks/run.py first")
    yield from machines
    table = bars(suites)
    if markdown:
        yield from ("", "| what | measured | target | reached | note |", "|---|---|---|---|---|")
    width = max(len(bar.what) for bar in table)
    for bar in table:
        measured = "-" if bar.measured is None else f"{bar.measured:.3g}"
        target = f"{'>=' if bar.at_least else '<='} {bar.target:g}"
        if markdown:
            yield f"| {bar.what} | {measured} | {target} | {bar.reached} | {bar.note} |"
        else:
            yield f"{bar.what:<{width}}  {measured:>9}  {target:>9}  {bar.reached:<12}  {bar.note}".rstrip()
    yield from ("", "FINUFFT / spectral (above 1: the spectral engine needs less)", "")
    yield from (f"- {line}" if markdown else line for line in finufft(suites["points"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=results.RESULTS, help="folder of the CSV files")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--markdown", action="store_true", help="print a table for a Markdown file")
    options = parser.parse_args()
    try:
        print(*report(options.folder, options.device, markdown=options.markdown), sep="\n")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
