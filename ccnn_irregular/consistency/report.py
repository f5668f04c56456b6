"""What a check of consistency found: rows, a table, CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields

from ccnn_irregular.consistency.field import Rule

__all__ = ["ConsistencyReport", "Interpolation", "Row"]


@dataclass(frozen=True)
class Row:
    """One evaluation: a sampling, its weights and an engine.

    Attributes:
        sampling: in words.
        kept: share of the grid's nodes that was sampled.
        jitter: largest displacement of a sample per axis, in grid steps.
        nodes: number of samples that hold a value.
        rule: quadrature rule of the weights; "no weights" = the full grid's cell volume for every sample.
        engine: name in ``ENGINES``.
        error: L2 norm of the difference to the full grid's answer, relative to that answer's L2 norm; None = not run.
        largest_error: largest difference, relative to the largest value of the full grid's answer.
        engine_error: as ``error``, to the same sampling's own sum over all pairs in float64 (a layer that cannot be
            asked at queries: to the first engine that ran on this sampling, None for that one).
        seconds: of the one evaluation, planning (and compiling) included.
        predicted: seconds of planning and a forward pass by the planner, or None where the engine does not serve.
        note: why it was not run, or an empty string.
    """

    sampling: str
    kept: float
    jitter: float
    nodes: int
    rule: Rule
    engine: str
    error: float | None = None
    largest_error: float | None = None
    engine_error: float | None = None
    seconds: float | None = None
    predicted: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Interpolation:
    """How well values between the nodes are known: every second node is left out and interpolated from the others.

    Attributes:
        method: "cubic" or "linear".
        values: relative L2 error of the interpolated values at the left-out nodes.
        answer: relative L2 error of the layer's answer from the field with its left-out nodes interpolated.
    """

    method: str
    values: float
    answer: float


@dataclass(frozen=True)
class ConsistencyReport:
    """What ``check_consistency`` found, printed as a table.

    Attributes:
        rows: one for each sampling, rule and engine.
        compared: number of places (or outputs) that were compared on the full grid.
        size: root mean square of the full grid's answer there.
        spread: its standard deviation there, channel by channel; errors relative to the variation of the answer are
            those of the rows times ``size / spread``.
        rtol: error that "spectral" was allowed.
        interpolation: error of values between the nodes; None without jitter.
        notes: what a reader should know, one sentence each.
    """

    rows: tuple[Row, ...]
    compared: int
    size: float
    spread: float
    rtol: float
    interpolation: Interpolation | None
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        heads = ("sampling", "samples", "weights", "engine", "error", "largest", "engine's own", "seconds", "predicted")
        cells = []
        for row in self.rows:
            errors = [_shown(value, ".1e") for value in (row.error, row.largest_error, row.engine_error)]
            seconds = [_shown(value, ".2g") for value in (row.seconds, row.predicted)]
            cells.append((row.sampling, str(row.nodes), row.rule, row.engine, *errors, *seconds))
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = []
        for line, note in zip((heads, *cells), ("", *(row.note for row in self.rows)), strict=True):
            padded = [
                f"{cell:>{width}}" if place >= 4 or place == 1 else f"{cell:<{width}}"
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            lines.append("  ".join([*padded, note]).rstrip())
        return "\n".join([*lines, "", *self.notes])

    def to_csv(self) -> str:
        """The rows as CSV, one column for each attribute of ``Row``; an empty cell is None."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(["" if value is None else value for value in astuple(row)] for row in self.rows)
        return text.getvalue()


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
