"""Time, peak memory and error of every method, side by side in one run: ``make bench``.

Each suite is a CSV file in ``benchmarks/results``. A run that was interrupted goes on where it stopped; ``--fresh``
starts anew. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import bars
import measure
import plots
import results
from results import Row
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from suites import SUITES, Scale, SuiteName, Task, Timing, tasks

__all__ = ["TooSlow", "line", "main", "run_suite"]

Runner = Callable[[dict[str, Any]], list[Row]]

_TIMES = ("forward_s", "forward_backward_s")
_ERROR_LINES = 3

# Freed memory stays with the process. By default arrays of some megabytes go back to the system, or not, by chance, and
# to fetch their pages anew takes as long as a transform: the same measurement in two processes differed by a factor 2.
_KEEP_PAGES = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824"


class TooSlow(Exception):
    """A measurement reached its time limit."""


def run_suite(
    suite: SuiteName,
    scale: Scale,
    path: Path,
    *,
    runner: Runner,
    judges: Path | None = None,
    device: str = "cpu",
    threads: int = 1,
    fresh: bool = False,
    without: tuple[str, ...] = (),
    show: Callable[[str, Row | None], None] = lambda what, row: None,
) -> list[Row]:
    """Measure what ``path`` does not hold yet; every finished task is written at once.

    Args:
        suite: name of the suite.
        scale: sizes of its problems.
        path: CSV file.
        runner: turns a job of ``measure.py`` into rows.
        judges: folder for exact results shared by the methods of a problem.
        device: "cpu" or a CUDA device.
        threads: number of threads of every method.
        fresh: ignore what is there.
        without: methods to leave out.
        show: called with what is measured now, and again with each of its rows.

    Raises:
        ValueError: rows in ``path`` come from another machine, other versions or other code.
    """
    identity = results.machine(device, threads)
    rows: list[Row] = [] if fresh else list(results.read(path))
    for row in rows:
        different = [name for name in results.IDENTITY if row[name] != identity[name]]
        if different:
            what = ", ".join(f"{name} {row[name]!r} there, {identity[name]!r} here" for name in different)
            raise ValueError(f"{path} holds another run ({what}): add --fresh to replace it")
    run = rows[0]["run"] if rows else results.now()
    finished = results.done(rows)
    rows = [row for row in rows if row["task"] in finished]
    for task in tasks(suite, scale):
        if isinstance(task, Timing) and task.method in without:
            continue
        if task.key in finished:
            show(task.key, None)
            continue
        show(task.key, None)
        common = {"suite": suite, "task": task.key, "run": run, "date": results.now(), **identity}
        new = [{**_described(task), **row, **common} for row in _rows(task, rows, runner, device, judges)]
        rows += new
        results.write(path, rows)
        for row in new:
            show(task.key, row)
    return rows


def _rows(task: Task, rows: list[Row], runner: Runner, device: str, judges: Path | None) -> list[Row]:
    if isinstance(task, Timing) and task.measured is not None:
        return [_extrapolated(task, rows)]
    try:
        return runner(task.job(device, None if judges is None else str(judges)))
    except TooSlow as error:
        return [{"status": "too slow", "note": str(error)}]
    except RuntimeError as error:
        return [{"status": "failed", "note": str(error)}]


def _described(task: Task) -> Row:
    """Return the fields of a row that are known before it is measured."""
    if not isinstance(task, Timing):
        return {}
    problem = task.problem
    names = ("kind", "d", "size", "channels", "batch", "support", "rtol", "dtype")
    return {
        "problem": problem.name,
        "method": task.method,
        "points": problem.nodes * problem.batch,
        **{name: getattr(problem, name) for name in names},
    }


def _extrapolated(task: Timing, rows: list[Row]) -> Row:
    """Extrapolate times to a size that was not measured, by the method's complexity."""
    assert task.measured is not None
    base = next((row for row in rows if row["task"] == Timing(task.measured, task.method).key), None)
    if base is None or base["status"] != "ok":
        return {"status": "absent", "note": "nothing to extrapolate from"}
    factor = (task.problem.size / task.measured.size) ** task.order
    return {
        "status": "extrapolated",
        **{name: float(base[name]) * factor for name in _TIMES},
        "measured_size": task.measured.size,
        "law": task.law,
        "note": base["note"],
    }


def isolated(threads: int, limit: float) -> Runner:
    """Run a job in a separate process, stopped after ``limit`` seconds."""

    def runner(job: dict[str, Any]) -> list[Row]:
        command = [sys.executable, str(Path(measure.__file__)), json.dumps(job | {"threads": threads})]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "GLIBC_TUNABLES": _KEEP_PAGES}
        try:
            process = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            raise TooSlow(f"stopped after {limit:g} s") from None
        if process.returncode != 0:
            lines = process.stderr.strip().splitlines()[-_ERROR_LINES:]
            raise RuntimeError(" / ".join(lines) or f"ended with {process.returncode}")
        answer: list[Row] = json.loads(process.stdout.splitlines()[-1])["rows"]
        return answer

    return runner


def line(row: Row) -> str:
    """Format a row for the terminal."""
    if row["status"] not in ("ok", "extrapolated"):
        return f"{row['problem']}, {row['method']}: {row['status']}: {row['note']}"
    parts = [
        f"{name} {float(row[field]):.3g} s"
        for name, field in (("plan", "plan_s"), ("forward", "forward_s"), ("with backward", "forward_backward_s"))
        if field in row
    ]
    if "peak_mib" in row:
        parts.append(f"{float(row['peak_mib']):.0f} MiB")
    if "relative_error" in row:
        parts.append(f"error {float(row['relative_error']):.1e}")
    mark = " (extrapolated)" if row["status"] == "extrapolated" else ""
    return f"{row['problem']}, {row['method']}{mark}: {', '.join(parts)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=SUITES, help="suites to run; all by default")
    parser.add_argument("--scale", choices=get_args(Scale), default="full", help="sizes of the problems")
    parser.add_argument("--quick", action="store_const", dest="scale", const="quick", help="short for --scale quick")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--without", nargs="+", default=(), metavar="METHOD", help="methods to leave out")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=results.cores(), help="threads of every method")
    parser.add_argument("--limit", type=float, default=400.0, help="seconds after which a measurement is stopped")
    parser.add_argument("--output", type=Path, default=results.RESULTS, help="folder of the CSV files")
    options = parser.parse_args()
    folder = options.output if options.scale == "full" else options.output / options.scale
    runner = isolated(options.threads, options.limit)
    console = Console()
    total = sum(len(tasks(suite, options.scale)) for suite in options.suite)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress, tempfile.TemporaryDirectory() as judges:
        bar = progress.add_task("", total=total)
        started: set[tuple[str, str]] = set()

        for suite in options.suite:

            def show(what: str, row: Row | None, suite: str = suite) -> None:
                if row is None:
                    progress.update(bar, description=what, completed=len(started))
                    started.add((suite, what))
                elif not row.get("problem", "").startswith("random case"):
                    progress.console.print(line(row), highlight=False, soft_wrap=True)

            path = results.files(folder, options.device)[suite]
            try:
                run_suite(
                    suite,
                    options.scale,
                    path,
                    runner=runner,
                    judges=Path(judges),
                    device=options.device,
                    threads=options.threads,
                    fresh=options.fresh,
                    without=tuple(options.without),
                    show=show,
                )
            except ValueError as error:
                sys.exit(str(error))
            except KeyboardInterrupt:
                console.print(f"Stopped. {path} keeps what is done; the same command goes on from there.")
                sys.exit(130)
        progress.update(bar, completed=total, description="done")
    print(*bars.report(folder, options.device), "", *plots.draw(folder, options.device), sep="\n")


if __name__ == "__main__":
    main()
