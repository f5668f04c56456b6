"""The globe, its seam and its turns: the one place that decides them, for lines, clouds, queries and files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require

__all__ = ["GLOBE", "Rising", "Turn", "longitude_line", "on_circle", "one_turn"]

Floats = NDArray[np.float64]

GLOBE = 360.0
# Share of the smallest gap by which the first meridian, stored again at the end, may be off.
_REPEATED = 1e-2
# The widest gap between neighbours belongs to a ring around the globe if it is at most this many times the next one.
_RING = 1.5


@final
@dataclass(frozen=True)
class Turn:
    """Longitudes in any order, moved by whole turns so that none lies across their widest gap from the others.

    Attributes:
        degrees: float64 ``(n,)``, in the order given, rising eastwards from the first longitude after the widest gap.
        gap: width of the widest gap between neighbours on the circle, degrees; 360 for a single place.
        globe: whether they go round the globe: the widest gap is one like others, and at most half a turn.
    """

    degrees: Floats
    gap: float
    globe: bool

    @property
    def period(self) -> float | None:
        """Return the period of scattered longitudes: 360 where two of them can be nearer the other way round."""
        return GLOBE if self.gap < GLOBE / 2 else None


def one_turn(longitudes: Floats) -> Turn:
    """Bring longitudes of any turns, -180 to 180 or 0 to 360 or both, into one stretch of the circle.

    They are cut in their widest gap: [0, 1, 359] are the stretch from 359 to 361, not one from 0 to 359.
    Numbers that lie like that already stay as they are.
    """
    circle = np.unique(np.remainder(longitudes, GLOBE))
    gaps = np.diff(circle, append=circle[0] + GLOBE)
    widest = int(gaps.argmax())
    gap, others = float(gaps[widest]), np.delete(gaps, widest)
    globe = len(others) > 0 and gap <= min(GLOBE / 2, _RING * float(others.max()))
    if np.ptp(longitudes) <= GLOBE - gap * (1 - 1e-9):
        return Turn(longitudes, gap, globe)
    first = circle[(widest + 1) % len(circle)]
    return Turn(first + np.remainder(longitudes - first, GLOBE), gap, globe)


@final
@dataclass(frozen=True)
class Rising:
    """The entries of an axis as nodes that rise.

    Attributes:
        nodes: float64 ``(n,)``; longitudes rise by less than a turn.
        falling: whether the axis holds them the other way round.
        closed: whether the axis holds one more, the first meridian again.
        first: place of the first node among the axis' entries, rising and without the repeated one.
        globe: whether they go round the globe.
    """

    nodes: Floats
    falling: bool
    closed: bool
    first: int
    globe: bool


def longitude_line(name: str, longitudes: Floats) -> Rising:
    """Bring the longitudes of an axis, in the order of a file, into a rising line.

    Around the globe the line begins where the axis does, elsewhere after the widest gap, wherever the file cuts the
    circle: 0, 1, 2, 357, 358, 359 are the line from 357 to 362.

    Args:
        name: of the coordinate, for errors.
        longitudes: float64 ``(n,)`` degrees, n >= 1, finite.

    Raises:
        ValueError: they span more than the globe, or rise and fall.
    """
    at = f"longitudes {name!r}"
    steps = np.diff(longitudes)
    falls, rises = int((steps < 0).sum()), int((steps > 0).sum())
    # Of three places one rises and one falls where there is a jump: the way is the one that stays within a turn.
    falling = falls > rises or (falls == rises and bool(longitudes[-1] > longitudes[0]))
    eastward = longitudes[::-1] if falling else longitudes
    # The plain numbers, a turn further at each fall: rounding nothing where there is none.
    eastward = eastward + GLOBE * np.concatenate([[0], np.cumsum(np.diff(eastward) < 0)])
    gaps = np.diff(eastward)
    span = float(eastward[-1] - eastward[0])
    closed = len(gaps) > 1 and abs(GLOBE - span) <= _REPEATED * float(gaps.min())
    if span > GLOBE and not closed:
        jumps = np.flatnonzero(np.diff(longitudes) * (-1 if falling else 1) < 0)
        rule = "rise or fall throughout, but for one jump by a turn"
        require(len(jumps) == 0, at, rule, f"a turn after entry {jumps[:1]}")
        require(False, at, "span at most the globe, 360 degrees", f"{span:g}")
    nodes = eastward[:-1] if closed else eastward
    turn = one_turn(nodes)
    # A jump may have made the numbers one turn too large, or the widest gap may lie inside.
    first = 0 if turn.globe else int(turn.degrees.argmin())
    if first:
        nodes = np.concatenate([nodes[first:], nodes[:first] + GLOBE])
    return Rising(nodes, falling, closed, first, turn.globe)


def on_circle(longitudes: Floats, centre: float) -> Floats:
    """Move longitudes into the turn about ``centre``, degrees."""
    return centre + np.remainder(longitudes - centre + GLOBE / 2, GLOBE) - GLOBE / 2
