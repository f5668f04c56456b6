"""What a downscaling network is compared with: splines of SciPy through the coarse nodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from ccnn_irregular.domains import Axis, Grid

__all__ = ["spline"]

# Nodes an axis that repeats goes on for at both ends: what a cubic spline does there is gone after ten.
_AROUND = 12


def spline(values: NDArray[np.float32], source: Grid, query: Grid, degree: int) -> NDArray[np.float64]:
    """The tensor-product spline of ``degree`` (1 linear, 3 cubic) through ``(..., rows, columns)`` at the query.

    Beyond the ends of an axis its last polynomial goes on: fine nodes lie there, half a coarse step away at most.
    Missing values have to be ``filled``.
    """
    result = values.astype(np.float64)
    for place, (nodes, wanted) in enumerate(zip(source.axes, query.axes, strict=True), values.ndim - 2):
        result = _along(result, place, nodes, wanted, degree)
    return result


def _along(values: NDArray[np.float64], place: int, nodes: Axis, wanted: Axis, degree: int) -> NDArray[np.float64]:
    places = nodes.nodes().numpy()
    if nodes.periodic:
        around = min(_AROUND, nodes.size)
        index = np.arange(-around, nodes.size + around)
        values = values.take(index % nodes.size, place)
        places = nodes.start + nodes.step * index
    fitted = make_interp_spline(places, values, k=degree, axis=place)
    # SciPy puts the wanted places where the axis was.
    return np.asarray(fitted(wanted.nodes().numpy()))
