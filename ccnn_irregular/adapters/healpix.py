"""Places of HEALPix pixels: 12 base squares on the sphere, each cut into ``nside`` x ``nside`` pixels of equal area.

The geometry is that of Gorski et al., Astrophys. J. 622, 2005, sections 4 and 5.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require

__all__ = ["Order", "healpix_places"]

Order = Literal["nested", "ring"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Of each base square: the ring of its southern corner in units of nside, and its longitude in eighths of a turn.
_SOUTH = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_EAST = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])


def healpix_places(pixels: Integers, nside: int, order: Order) -> tuple[Floats, Floats]:
    """Compute the latitudes and longitudes (0 to 360) of pixel centres, degrees.

    Args:
        pixels: int64 ``(n,)``, numbers from 0 to ``12 nside^2 - 1``.
        nside: pixels along the side of a base square; in the nested order a power of two.
        order: how pixels are numbered: along the sides of squares of squares, or along rings of one latitude.

    Raises:
        ValueError: another order, a number or an ``nside`` that is out of range.
    """
    require(order in get_args(Order), "order", f"be one of {get_args(Order)}", repr(order))
    require(nside >= 1, "nside", "be at least 1", nside)
    power = nside & (nside - 1) == 0
    require(order == "ring" or power, "nside", "be a power of two in the nested order", nside)
    count = 12 * nside**2
    outside = pixels[(pixels < 0) | (pixels >= count)]
    require(len(outside) == 0, "pixels", f"lie between 0 and {count - 1}", outside[:1])
    ring, eighths = _nested(pixels, nside) if order == "nested" else _rings(pixels, nside)
    # Rings near a pole have 4, 8, 12 ... pixels, those between the caps 4 nside each.
    north, south = ring < nside, ring > 3 * nside
    along = np.where(north, ring, np.where(south, 4 * nside - ring, nside))
    cap = along**2 / (3 * nside**2)
    sine = np.where(north, 1 - cap, np.where(south, cap - 1, (2 * nside - ring) * 2 / (3 * nside)))
    # The cosine of the latitude from the cap itself: next to a pole nothing is left of it in the sine.
    cosine = np.where(north | south, np.sqrt(cap * (2 - cap)), np.sqrt(1 - sine**2))
    return np.degrees(np.arctan2(sine, cosine)), np.remainder(45.0 * eighths / along, 360.0)


def _nested(pixels: Integers, nside: int) -> tuple[Integers, Integers]:
    """Return the ring of each pixel, from 1 at the north, and its place on the ring in half pixels."""
    square, inside = np.divmod(pixels, nside**2)
    x, y = np.zeros_like(inside), np.zeros_like(inside)
    for bit in range(int(nside).bit_length() - 1):
        x |= (inside >> 2 * bit & 1) << bit
        y |= (inside >> 2 * bit + 1 & 1) << bit
    ring = _SOUTH[square] * nside - x - y - 1
    along = np.minimum(np.minimum(ring, 4 * nside - ring), nside)
    return ring, _EAST[square] * along + x - y


def _rings(pixels: Integers, nside: int) -> tuple[Integers, Integers]:
    """Do as ``_nested`` does, for pixels numbered ring after ring."""
    cap, count = 2 * nside * (nside - 1), 12 * nside**2
    south = pixels >= count - cap
    # A southern cap is a northern one counted from the last pixel.
    mirrored = np.where(south, count - 1 - pixels, pixels)
    polar = mirrored < cap
    number = np.where(polar, mirrored, 0)
    ring = ((1 + np.sqrt(1 + 2 * number)) / 2).astype(np.int64)
    # A root that is rounded may end in the next ring.
    ring += np.where(2 * ring * (ring + 1) <= number, 1, 0) - np.where(2 * ring * (ring - 1) > number, 1, 0)
    place = number - 2 * ring * (ring - 1)
    eighths = np.where(south, 8 * ring - 2 * place - 1, 2 * place + 1)
    row, column = np.divmod(pixels - cap, 4 * nside)
    middle = nside + row
    # Every second ring begins half a pixel further east.
    shifted = 2 * column + 1 - (middle - nside) % 2
    return (
        np.where(polar, np.where(south, 4 * nside - ring, ring), middle),
        np.where(polar, eighths, shifted),
    )
