"""Rules for grids: cells, products of rules per axis, latitude and longitude."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccnn_irregular._checks import require, require_finite
from ccnn_irregular.quadrature.lines import gauss_legendre

__all__ = ["cell_volumes", "product_rule", "spherical_areas"]


def cell_volumes(sizes: tuple[int, ...], steps: tuple[float, ...]) -> Tensor:
    """Give each node of a uniform grid the volume of its cell, ``prod(steps)``.

    Exact for functions that are constant on each cell (midpoint rule).

    Args:
        sizes: number of nodes per axis.
        steps: distance of neighbouring nodes per axis, in coordinate units.

    Returns:
        float64 ``sizes``.
    """
    require(all(size >= 1 for size in sizes), "sizes", "be at least 1 on every axis", sizes)
    require(len(sizes) == len(steps), "steps", f"have one entry per axis, {len(sizes)}", steps)
    require(all(step > 0 for step in steps), "steps", "be positive", steps)
    return torch.full(sizes, float(torch.tensor(steps, dtype=torch.float64).prod()), dtype=torch.float64)


def product_rule(*weights: Tensor) -> Tensor:
    """Multiply the weights of one rule per axis: ``w[i, j, ...] = w_0[i] w_1[j] ...``.

    Exact for products (and sums of products) of functions that the rules of the axes integrate exactly.

    Args:
        weights: one ``(n,)`` tensor per axis, in the units of that axis.

    Returns:
        float64 ``(n_0, n_1, ...)``, in the product of the units; in row-major order as ``Grid.nodes``.

    Raises:
        ValueError: no axis, weights that are not 1-D or not finite.
    """
    require(len(weights) >= 1, "weights", "be given for at least one axis", "none")
    product = torch.ones((), dtype=torch.float64, device=weights[0].device)
    for axis, line in enumerate(weights):
        require(line.ndim == 1, f"weights of axis {axis}", "have shape (n,)", tuple(line.shape))
        require_finite(f"weights of axis {axis}", line)
        product = product[..., None] * line.to(torch.float64)
    return product


def spherical_areas(
    latitudes: Tensor,
    longitudes: Tensor | float | None = None,
    *,
    radius: float = 1.0,
    globe: bool = False,
    gaussian: bool = False,
) -> Tensor:
    """Compute the areas of the cells of a latitude-longitude grid on a sphere.

    Cells end half-way between neighbouring nodes and their area is exact, so functions that are constant on
    each cell are integrated exactly. The outermost cells reach half a gap beyond their node but never across
    a pole. With ``globe`` they reach the poles, longitudes close around the globe, and areas sum to
    ``4 pi radius^2``. With ``gaussian`` the bands are those of the Gauss-Legendre rule in the sine of the
    latitude: exact for polynomials in it of degree ``2 n - 1``; they too cover the sphere from pole to pole.

    Args:
        latitudes: ``(n,)`` in degrees from -90 to 90, rising or falling.
        longitudes: ``(m,)`` in degrees, increasing, over at most 360; or the width of all cells in degrees;
            None = whole bands (360).
        radius: radius of the sphere; areas have its unit squared.
        globe: the grid covers the whole sphere.
        gaussian: the latitudes are the Gaussian ones, to within a hundredth of their distance.

    Returns:
        float64 ``(n, m)`` with ``m`` longitudes, else ``(n,)``.

    Raises:
        ValueError: latitudes or longitudes not finite, not in order or out of range; a single one where its
            cell's width is not known; latitudes that are not Gaussian; ``radius`` not positive.
    """
    require(math.isfinite(radius) and radius > 0, "radius", "be positive and finite", radius)
    require(latitudes.ndim == 1 and len(latitudes) >= 1, "latitudes", "have shape (n,)", tuple(latitudes.shape))
    require_finite("latitudes", latitudes)
    latitudes = latitudes.detach().to(torch.float64)
    farthest = float(latitudes.abs().max())
    require(farthest <= 90, "latitudes", "lie between -90 and 90 degrees", farthest)
    falling = len(latitudes) > 1 and bool(latitudes[1] < latitudes[0])
    rising = latitudes.flip(0) if falling else latitudes
    require(bool((rising.diff() > 0).all()), "latitudes", "rise or fall strictly", "a turn or a repeated value")
    if gaussian:
        sines, bands = (rule.to(latitudes.device) for rule in gauss_legendre(len(latitudes)))
        nodes = torch.rad2deg(torch.arcsin(sines))
        gap = 180 / len(nodes)
        off = float((rising - nodes).abs().max())
        require(off <= 0.01 * gap, "latitudes", "be the Gaussian latitudes", f"one that is {off:.3g} degrees off")
    else:
        require(globe or len(rising) > 1, "latitudes", "be at least 2, unless they cover the globe", len(rising))
        edges = _edges(rising).clamp(-90, 90)
        if globe:
            edges[0], edges[-1] = -90, 90
        # sin b - sin a, without cancellation for thin bands.
        middle, half = torch.deg2rad(edges[1:] + edges[:-1]) / 2, torch.deg2rad(edges.diff()) / 2
        bands = 2 * torch.cos(middle) * torch.sin(half)
    bands = radius**2 * (bands.flip(0) if falling else bands)
    if not isinstance(longitudes, Tensor):
        width = 360.0 if longitudes is None else longitudes
        require(0 < width <= 360, "longitudes", "be a width of more than 0 and at most 360 degrees", width)
        return bands * math.radians(width)
    shape = tuple(longitudes.shape)
    require(longitudes.ndim == 1 and len(longitudes) >= 1, "longitudes", "have shape (m,)", shape)
    require_finite("longitudes", longitudes)
    longitudes = longitudes.detach().to(torch.float64)
    span = float(longitudes[-1] - longitudes[0])
    require(bool((longitudes.diff() > 0).all()), "longitudes", "increase strictly", "a fall or a repeated value")
    if globe:
        require(span < 360, "longitudes", "span less than 360 degrees on a globe", span)
        gaps = torch.cat([longitudes, longitudes[:1] + 360]).diff()
        widths = (gaps + gaps.roll(1)) / 2
    else:
        require(len(longitudes) > 1, "longitudes", "be at least 2, a width, or cover the globe", len(longitudes))
        widths = _edges(longitudes).diff()
        covered = float(widths.sum())
        require(covered <= 360 + 1e-3, "longitudes", "have cells of at most 360 degrees together", covered)
    return product_rule(bands, torch.deg2rad(widths))


def _edges(nodes: Tensor) -> Tensor:
    """Return the ends of the cells around rising nodes: half-way between them, and half a gap beyond the outermost."""
    if len(nodes) == 1:
        return nodes.repeat(2)
    middle = (nodes[1:] + nodes[:-1]) / 2
    return torch.cat([2 * nodes[:1] - middle[:1], middle, 2 * nodes[-1:] - middle[-1:]])
