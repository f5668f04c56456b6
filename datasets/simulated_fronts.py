"""Simulated gridded fields with fronts narrower than a coarse grid: what a network can learn to make finer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.cube import fields_of
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import FieldSet

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["fronts", "load_fields"]

_WAVES = 48


def fronts(
    count: int = 80,
    *,
    seed: int = 0,
    size: int = 64,
    step: float = 1.0,
    length: float = 7.0,
    width: float = 0.12,
) -> xr.Dataset:
    """Fields of two air masses that meet in fronts, with a smooth variation inside them.

    Each is tanh(s / width) + r / 4, where s and r are sums of plane waves with random directions and phases and
    standard deviation 1. Both are functions of continuous places: another ``step`` looks at the same fields.

    Args:
        count: fields, along "time".
        seed: of everything, not negative.
        size: nodes along x and along y.
        step: distance of neighbouring nodes, km.
        length: a wave's wavelength over 2 pi is about this, km.
        width: of the fronts, in units of s: about ``width * length`` km.

    Returns:
        Variable "front" float32 ``(time, y, x)``, with coordinates in days and km.

    Raises:
        ValueError: a number that is not positive.
    """
    import xarray as xr

    for name, given in (("count", count), ("size", size), ("step", step), ("length", length), ("width", width)):
        require(given > 0, name, "be positive", given)
    rng = np.random.default_rng(seed)
    nodes = step * np.arange(size, dtype=np.float64)
    values = np.stack([_field(rng, nodes, length, width) for _ in range(count)])
    coordinates = {
        "time": ("time", np.arange(float(count)), {"axis": "T", "units": "days"}),
        "y": ("y", nodes, {"axis": "Y", "units": "km"}),
        "x": ("x", nodes, {"axis": "X", "units": "km"}),
    }
    variable = (("time", "y", "x"), values.astype(np.float32), {"units": "1", "long_name": "simulated front"})
    return xr.Dataset({"front": variable}, coordinates, {"title": "simulated, measured nowhere"})


def load_fields(count: int = 80, *, seed: int = 0) -> FieldSet:
    """The same as fields on the plane, ``count`` of them, see :func:`fronts`."""
    return fields_of(fronts(count, seed=seed), ["front"], ["y", "x"], fields="time")


def _field(rng: np.random.Generator, nodes: NDArray[np.float64], length: float, width: float) -> NDArray[np.float64]:
    separating, varying = (_waves(rng, nodes, length) for _ in range(2))
    return np.tanh(separating / width) + varying / 4


def _waves(rng: np.random.Generator, nodes: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    """A sum of plane waves at every pair of nodes; wave numbers are normal with standard deviation 1 / length."""
    numbers = rng.standard_normal((2, _WAVES)) / length
    phases = rng.uniform(0, 2 * math.pi, _WAVES)
    along_y = np.exp(1j * (nodes[:, None] * numbers[0] + phases))
    along_x = np.exp(1j * nodes[:, None] * numbers[1])
    return math.sqrt(2 / _WAVES) * (along_y @ along_x.T).real


register(
    DataSet(
        name="simulated_fronts",
        about="simulated gridded fields with fronts narrower than a coarse grid",
        load=load_fields,
        samples=FieldSet,
        shape="1 channel on 64 x 64 nodes in km",
    )
)
