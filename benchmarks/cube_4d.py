"""A 4-D convolution on a real cube at full size: month x level x latitude x longitude, three variables.

    python benchmarks/cube_4d.py xarray_eraint_uvz.nc

Levels and latitudes (which weigh by their area) are the points of a ``Product``, months and longitudes its grid. Prints
for each variable the seconds and the peak memory of the process for the engine chosen and for the lazy array in blocks,
and their largest differences from the sum over all pairs at some nodes, relative to the result's standard deviation.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel, Points, Product, Solver, convolve, explain
from ccnn_irregular.adapters.xarray import open_cube

AXES = {"month": "time", "level": "vertical"}
ORDER = ["level", "latitude", "month", "longitude"]
WIDTHS = [150.0, 1.5, 4.0, 2.0]  # hPa, degrees, months, degrees
NODES = 64


def layer(rtol: float) -> ContinuousConv:
    torch.manual_seed(1)
    kernel = Kernel(SIREN(4, 1, 8, omega_0=2.0), GaussianMask(WIDTHS), extent=[3 * width for width in WIDTHS])
    return ContinuousConv(kernel.double(), solver=Solver(rtol=rtol)).double()


def exact(cube: xr.DataArray, conv: ContinuousConv, nodes: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Compute the sum over all pairs at the nodes, and the numbers of the nodes in the order of the samples."""
    samples = cube.ccnn(axes=AXES, order=ORDER).to_samples()
    assert isinstance(samples.domain, Product)
    everything = samples.domain.as_points()
    query = Points(everything.coordinates[nodes], periods=everything.periods)
    values = samples.values.movedim(1, -1).reshape(-1, 1)
    with torch.no_grad():
        wanted = convolve(conv.kernel, values, everything, query, engine="reference")[:, 0]
    return wanted.numpy(), nodes.numpy()


def at_nodes(result: xr.DataArray, cube: xr.DataArray, nodes: np.ndarray) -> np.ndarray:
    frame = cube.ccnn(axes=AXES, order=ORDER).frame()
    return frame.packed(result.transpose(*frame.dims).to_numpy())[0, 0].reshape(-1)[nodes]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--rtol", type=float, default=1e-3)
    parser.add_argument("--variables", nargs="+", default=["z", "u", "v"])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "variable .* has non-conforming '_FillValue'")
    dataset, conv = open_cube(options.path), layer(options.rtol)
    for number, name in enumerate(options.variables):
        cube = dataset[name].load().drop_encoding()
        accessor = cube.ccnn(axes=AXES, order=ORDER)
        if number == 0:
            print(f"{dict(cube.sizes)}\n{explain(conv.kernel, accessor.to_samples().domain, rtol=options.rtol)}")
        nodes = torch.randint(0, cube.size, (NODES,), generator=torch.Generator().manual_seed(0))
        wanted, places = exact(cube, conv, nodes)
        for kind in ("auto", "spectral", "blocks of 80 x 120"):
            conv.solver = replace(conv.solver, engine="spectral" if kind == "spectral" else "auto")
            started = time.perf_counter()
            lazy = cube.chunk(latitude=80, longitude=120) if kind.startswith("blocks") else cube
            result = lazy.ccnn(axes=AXES, order=ORDER).convolve(conv).compute(scheduler="synchronous")
            seconds = time.perf_counter() - started
            error = np.abs(at_nodes(result, cube, places) - wanted).max() / float(result.std())
            print(
                f"{name} {kind}: {seconds:.1f} s, peak {peak():.2f} GiB, largest difference {error:.1e} of std",
                flush=True,
            )


if __name__ == "__main__":
    main()
