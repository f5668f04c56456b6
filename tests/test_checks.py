"""Bad input is refused, each time with a message that names the argument, the rule and what was got."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from contract_cases import seeded, small_kernel, uniform

import ccnn_irregular
from ccnn_irregular import (
    CCNN,
    SIREN,
    Axis,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    MAGNet,
    Points,
    Product,
    SeparableContinuousConv,
    convolve,
    explain,
    make_plan,
)
from ccnn_irregular._checks import reject, require, require_finite
from ccnn_irregular._optional import import_optional
from ccnn_irregular.quadrature import cell_volumes, trapezoid


def spoiled(row: int, value: float, count: int = 6, columns: int = 2) -> torch.Tensor:
    tensor = uniform(count, columns, seed=1)
    tensor[row, 0] = value
    return tensor


def points(count: int = 6, d: int = 1, **keywords: object) -> Points:
    return Points(uniform(count, d, seed=1), **keywords)  # type: ignore[arg-type]


def splits(*entries: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(entries, dtype=dtype)


GEOMETRY: dict[str, tuple[Callable[[], object], str]] = {
    "zero step": (lambda: Grid((4, 4), (1.0, 0.0)), "step must be positive and finite, got 0.0"),
    "negative step": (lambda: Grid((4,), (-0.5,)), "step must be positive and finite, got -0.5"),
    "nan step": (lambda: Grid((4,), (math.nan,)), "step must be positive and finite, got nan"),
    "infinite step": (lambda: Axis(4, math.inf), "step must be positive and finite, got inf"),
    "float size": (lambda: Grid((4.0,), (1.0,)), "size must be an integer, got 4.0"),  # type: ignore[arg-type]
    "size zero": (lambda: Grid((4, 0), (1.0, 1.0)), "size must be at least 1, got 0"),
    "negative size": (lambda: Axis(-3, 1.0), "size must be at least 1, got -3"),
    "fractional size": (lambda: Grid((4.5,), (1.0,)), "size must be an integer, got 4.5"),  # type: ignore[arg-type]
    "fractional axis": (lambda: Axis(4.5, 1.0), "size must be an integer, got 4.5"),  # type: ignore[arg-type]
    "nan start": (lambda: Grid((4,), (1.0,), (math.nan,)), "start must be finite, got nan"),
    "no axes": (lambda: Grid((), ()), "sizes must name at least one axis, got ()"),
    "too few steps": (lambda: Grid((4, 4), (1.0,)), "steps must have one entry per axis, 2, got (1.0,)"),
    "too many starts": (lambda: Grid((4,), (1.0,), (0.0, 0.0)), "starts must have one entry per axis, 1"),
    "too few flags": (lambda: Grid((4, 4), (1, 1), periodic=[True]), "periodic must have one entry per axis, 2"),
    "flat coordinates": (lambda: Points(torch.zeros(4)), "coordinates must have shape (N, d), got (4,)"),
    "boolean coordinates": (
        lambda: Points(torch.zeros(4, 1, dtype=torch.bool)),
        "coordinates must be floating point or integers, got torch.bool",
    ),
    "nanoseconds since 1970": (
        lambda: Points(torch.tensor([[1_600_000_000_000_000_001]])),
        "coordinates must be at most 2^53, which float64 holds exactly: subtract an origin first, got 1.6e+18",
    ),
    "coordinates in words": (lambda: Points(np.array([["a"]])), "coordinates must hold numbers, got <U1"),
    "a list of coordinates": (
        lambda: Points([[0.0]]),  # type: ignore[arg-type]
        "coordinates must be a tensor or a NumPy array, got list",
    ),
    "nan coordinates": (lambda: Points(spoiled(3, math.nan)), "coordinates must be finite, got nan at rows [3] of 6"),
    "infinite coordinates": (
        lambda: Points(spoiled(5, -math.inf)),
        "coordinates must be finite, got inf at rows [5] of 6",
    ),
    "many nan coordinates": (
        lambda: Points(torch.full((9, 1), math.nan)),
        "coordinates must be finite, got nan at rows [0, 1, 2, 3, 4, ...] of 9",
    ),
    "too few weights": (lambda: points(weights=torch.ones(5)), "weights must have shape (N,) or (N, C) with N = 6"),
    "negative weights": (lambda: points(weights=-torch.ones(6)), "weights must not be negative"),
    "nan weights": (lambda: points(weights=spoiled(2, math.nan)), "weights must be finite, got nan at rows [2] of 6"),
    "int32 splits": (lambda: points(splits=splits(0, 6, dtype=torch.int32)), "splits must be int64, got torch.int32"),
    "float splits": (lambda: points(splits=torch.tensor([0.0, 6.0])), "splits must be int64, got torch.float32"),
    "late splits": (lambda: points(splits=splits(1, 6)), "splits must start at 0, got 1"),
    "short splits": (lambda: points(splits=splits(0, 5)), "splits must end at the number of points 6, got 5"),
    "falling splits": (lambda: points(splits=splits(0, 4, 2, 6)), "splits must never fall, got a fall after entry 1"),
    "lone split": (lambda: points(splits=splits(0)), "splits must have shape (B + 1,) with B >= 1, got (1,)"),
    "zero period": (lambda: points(periods=[0.0]), "periods must be positive, got (0.0,)"),
    "too many periods": (lambda: points(periods=[1.0, None]), "periods must have one entry per axis, 1"),
}

QUADRATURE: dict[str, tuple[Callable[[], object], str]] = {
    "unsorted": (
        lambda: trapezoid(torch.tensor([0.0, 2.0, 1.0, 3.0])),
        "positions must be sorted within a sample, got 2 followed by 1 at row 2",
    ),
    "repeated": (
        lambda: trapezoid(torch.tensor([0.0, 2.0, 2.0, 3.0])),
        "positions must be distinct within a sample, got 2 followed by 2 at row 2",
    ),
    "unsorted in the second sample": (
        lambda: trapezoid(torch.tensor([0.0, 5.0, 1.0, 0.5]), splits=splits(0, 2, 4)),
        "positions must be sorted within a sample, got 1 followed by 0.5 at row 3",
    ),
    "nan": (lambda: trapezoid(torch.tensor([0.0, math.nan])), "positions must be finite, got nan at rows [1] of 2"),
    "two axes": (lambda: trapezoid(torch.zeros(3, 1)), "positions must have shape (N,), got (3, 1)"),
    "observed not bool": (
        lambda: trapezoid(torch.arange(3.0), observed=torch.ones(3, 2)),
        "observed must be bool, got torch.float32",
    ),
    "observed too long": (
        lambda: trapezoid(torch.arange(3.0), observed=torch.ones(4, 2, dtype=torch.bool)),
        "observed must have shape (N, C) with N = 3, got (4, 2)",
    ),
    "cap zero": (lambda: trapezoid(torch.arange(3.0), cap=0.0), "cap must be positive and finite, got 0.0"),
    "cap nan": (lambda: trapezoid(torch.arange(3.0), cap=math.nan), "cap must be positive and finite, got nan"),
    "cap infinite": (lambda: trapezoid(torch.arange(3.0), cap=math.inf), "cap must be positive and finite, got inf"),
    "falling splits": (lambda: trapezoid(torch.arange(3.0), splits=splits(0, 2, 1, 3)), "splits must never fall"),
    "cells of size zero": (lambda: cell_volumes((0,), (1.0,)), "sizes must be at least 1 on every axis"),
    "cells of step zero": (lambda: cell_volumes((2,), (0.0,)), "steps must be positive"),
    "cells without step": (lambda: cell_volumes((2, 2), (1.0,)), "steps must have one entry per axis, 2"),
}

KERNELS: dict[str, tuple[Callable[[], object], str]] = {
    "no layers": (lambda: SIREN(1, 1, layers=0), "layers must be at least 1, got 0"),
    "no MAGNet layers": (lambda: MAGNet(1, 1, layers=0), "layers must be at least 1, got 0"),
    "no axes": (lambda: SIREN(0, 1), "d must be at least 1, got 0"),
    "no channels": (lambda: MAGNet(1, 0), "out_channels must be at least 1, got 0"),
    "omega zero": (lambda: SIREN(1, 1, omega_0=0.0), "omega_0 must be positive, got 0.0"),
    "MAGNet omega zero": (lambda: MAGNet(1, 1, omega_0=0.0), "omega_0 must be positive, got 0.0"),
    "spread zero": (lambda: MAGNet(1, 1, spread=0.0), "spread must be positive, got 0.0"),
    "width zero": (lambda: GaussianMask([1.0, 0.0]), "width must be positive and finite, got (1.0, 0.0)"),
    "width nan": (lambda: GaussianMask([math.nan]), "width must be positive and finite"),
    "no width": (lambda: GaussianMask([]), "width must have one entry per axis, got ()"),
    "threshold one": (
        lambda: GaussianMask([1.0], threshold=1.0),
        "threshold must lie between 1e-30 and 1 - 1e-11, got 1.0",
    ),
    "extent of another d": (lambda: Kernel(SIREN(2, 1), extent=[1.0]), "extent must have one entry per axis, 2"),
    "extent zero": (lambda: Kernel(SIREN(1, 1), extent=[0.0]), "extent must be positive and finite, got (0.0,)"),
    "mask of another d": (
        lambda: Kernel(SIREN(2, 1), GaussianMask([1.0]), extent=[1.0, 1.0]),
        "mask must have the generator's 2 axes, got 1",
    ),
    "shape": (
        lambda: Kernel(SIREN(1, 6), extent=[1.0], shape=(2, 2)),
        "shape must be (C,) or (D, C) with product 6, got (2, 2)",
    ),
    "causal axis": (lambda: Kernel(SIREN(1, 1), extent=[1.0], causal_axes=[1]), "causal_axes must lie in 0..0"),
    "offsets of another d": (
        lambda: small_kernel(2)(torch.zeros(3, 1)),
        "offsets must have shape (..., 2), got (3, 1)",
    ),
    "separable of a full kernel": (
        lambda: SeparableContinuousConv(small_kernel(1, shape=(2, 3)), 4),
        "kernel must be depthwise, of shape (C,), got (2, 3)",
    ),
    "calibration out of reach": (
        lambda: ContinuousConv(small_kernel(1)).calibrate(points(), Points(torch.full((3, 1), 99.0))),
        "source must reach the queries within the kernel's support",
    ),
    "latent grid of another d": (
        lambda: CCNN(1, 4, 1, kernel=KernelSpec(extent=[1.0], width=[1.0]), latent=Grid((4, 4), (1.0, 1.0))),
        "kernel.extent must be one number or one per axis, 2, got (1.0,)",
    ),
    "widths of another d": (
        lambda: CCNN(1, 4, 1, kernel=KernelSpec(extent=[1.0, 1.0], width=[1.0])),
        "kernel.width must have one entry per axis, as kernel.extent has, got (1.0,)",
    ),
}

KERNEL = small_kernel(1)
WEIGHTED_NAN = seeded(6, 2)
WEIGHTED_NAN[4, 1] = math.nan
GRID = Grid((8,), (0.5,))
RING = Grid((8,), (0.5,), periodic=True)
GRID_NAN = seeded(3, 2, 8)
GRID_NAN[1, 0, 5] = math.inf

CONVOLUTIONS: dict[str, tuple[Callable[[], object], str]] = {
    "channels on points": (
        lambda: convolve(KERNEL, seeded(6, 3), points()),
        "values must have shape (6, 2), got (6, 3)",
    ),
    "rows on points": (lambda: convolve(KERNEL, seeded(5, 2), points()), "values must have shape (6, 2), got (5, 2)"),
    "channels on a grid": (
        lambda: convolve(KERNEL, seeded(1, 3, 8), GRID),
        "values must have shape (B, 2, 8), got (1, 3, 8)",
    ),
    "length of a grid": (
        lambda: convolve(KERNEL, seeded(1, 2, 9), GRID),
        "values must have shape (B, 2, 8), got (1, 2, 9)",
    ),
    "no batch axis": (lambda: convolve(KERNEL, seeded(2, 8), GRID), "values must have shape (B, 2, 8), got (2, 8)"),
    "shape on a product": (
        lambda: convolve(small_kernel(2), seeded(6, 2, 7), Product(points(), GRID)),
        "values must have shape (6, 2, 8), got (6, 2, 7)",
    ),
    "float64 values, float32 kernel": (
        lambda: convolve(small_kernel(1, dtype=torch.float32), seeded(6, 2), points()),
        "values must have the kernel's dtype torch.float32, got torch.float64",
    ),
    "float32 values, float64 kernel": (
        lambda: convolve(KERNEL, seeded(1, 2, 8, dtype=torch.float32), GRID),
        "values must have the kernel's dtype torch.float64, got torch.float32",
    ),
    "nan with weight": (
        lambda: convolve(KERNEL, WEIGHTED_NAN, points()),
        "values must be finite, got nan at rows [4] of 6",
    ),
    "nan with weight in its channel": (
        lambda: convolve(KERNEL, WEIGHTED_NAN, points(weights=torch.tensor([[0.0, 1.0]] * 6))),
        "values must be finite, got nan at rows [4] of 6",
    ),
    "inf on a grid": (lambda: convolve(KERNEL, GRID_NAN, GRID), "values must be finite, got inf at rows [1] of 3"),
    "weights per channel": (
        lambda: convolve(KERNEL, seeded(6, 2), points(weights=torch.ones(6, 3))),
        "weights must have one column per channel, 2, got 3",
    ),
    "axes of the source": (
        lambda: convolve(KERNEL, seeded(6, 2), points(d=2)),
        "source must have the kernel's 1 axes, got 2",
    ),
    "axes of the query": (
        lambda: convolve(KERNEL, seeded(6, 2), points(), points(d=2)),
        "query must have the source's 1 axes, got 2",
    ),
    "samples of the query": (
        lambda: convolve(KERNEL, seeded(6, 2), points(splits=splits(0, 2, 6)), points()),
        "query must have one sample per sample of the source, 2, got 1",
    ),
    "samples of the query for a grid": (
        lambda: convolve(KERNEL, seeded(3, 2, 8), GRID, points(splits=splits(0, 2, 6))),
        "query must have one sample per entry, 3, got 2",
    ),
    "period of the query": (
        lambda: convolve(KERNEL, seeded(1, 2, 8), RING, Grid((8,), (0.25,), periodic=True)),
        "query must have the source's period 4.0 on axis 0, got 2.0",
    ),
    "period of the query alone": (
        lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, RING),
        "query must have the source's period None on axis 0, got 4.0",
    ),
    "support over half a period": (
        lambda: convolve(small_kernel(1, width=(1.0,)), seeded(1, 2, 8), RING),
        "kernel must have a support of at most half the period 4 on axis 0, got 3.03",
    ),
    "no mask on a period": (
        lambda: convolve(small_kernel(1, masked=False), seeded(1, 2, 8), RING),
        "kernel must have a support of at most half the period 4 on axis 0, got inf",
    ),
    "support over half a period of points": (
        lambda: convolve(small_kernel(1, width=(1.0,)), seeded(6, 2), points(periods=[2.0])),
        "kernel must have a support of at most half the period 2 on axis 0",
    ),
    "support over half a period of a product": (
        lambda: convolve(small_kernel(2, width=(9.0, 1.0)), seeded(6, 2, 8), Product(points(), RING)),
        "kernel must have a support of at most half the period 4 on axis 1",
    ),
    "unknown engine": (
        lambda: convolve(KERNEL, seeded(6, 2), points(), engine="fast"),  # type: ignore[arg-type]
        "engine must be 'auto' or one of ['fft', 'keops', 'neighbours', 'reference'",
    ),
    "fft on points": (
        lambda: convolve(KERNEL, seeded(6, 2), points(), engine="fft"),
        "engine 'fft' cannot be used: both domains must be grids (from Points(n=6, d=1, samples=1, ",
    ),
    "fft to points": (
        lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, points(), engine="fft"),
        "engine 'fft' cannot be used: both domains must be grids",
    ),
    "fft between unrelated steps": (
        lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, Grid((8,), (0.5 * math.pi,)), engine="fft"),
        "engine 'fft' cannot be used: step ratio 3.14159 on axis 0 is no fraction up to 1/64",
    ),
    "plan of another source": (
        lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, plan=make_plan(KERNEL, RING)),
        "plan must be made for this source",
    ),
    "plan of other points": (
        lambda: convolve(KERNEL, seeded(6, 2), points(), plan=make_plan(KERNEL, points())),
        "plan must be made for this source",
    ),
    "plan of another query": (
        lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, Grid((4,), (1.0,)), plan=make_plan(KERNEL, GRID)),
        "plan must be made for this query",
    ),
    "plan of another engine": (
        lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, engine="reference", plan=make_plan(KERNEL, GRID)),
        "plan must be made for engine 'reference', got 'fft'",
    ),
    "plan of unknown engine": (
        lambda: make_plan(KERNEL, GRID, engine="nufft"),  # type: ignore[arg-type]
        "engine must be 'auto' or one of",
    ),
    "explain other axes": (lambda: explain(small_kernel(2), GRID), "source must have the kernel's 2 axes, got 1"),
    "rtol zero": (lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, rtol=0.0), "rtol must lie between 0 and 1, got 0.0"),
    "rtol one": (lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, rtol=1.0), "rtol must lie between 0 and 1, got 1.0"),
    "rtol nan": (lambda: convolve(KERNEL, seeded(1, 2, 8), GRID, rtol=math.nan), "rtol must lie between 0 and 1"),
}


def network(channels: int, dtype: torch.dtype = torch.float32) -> CCNN:
    return CCNN(channels, 4, 1, kernel=KernelSpec(extent=[1.0], width=[0.5], hidden=4), blocks=1).to(dtype)


NETWORKS: dict[str, tuple[Callable[[], object], str]] = {
    "channels": (
        lambda: network(3)(seeded(6, 2, dtype=torch.float32), points()),
        "values must have 3 channels on axis 1, got (6, 2)",
    ),
    "float64 values on a float32 model": (
        lambda: network(2)(seeded(6, 2), points()),
        "values must have the kernel's dtype torch.float32, got torch.float64",
    ),
    "float64 values on a float32 model, grid": (
        lambda: network(2)(seeded(1, 2, 8), GRID),
        "values must have the kernel's dtype torch.float32, got torch.float64",
    ),
    "axes": (
        lambda: network(2)(seeded(6, 2, dtype=torch.float32), points(d=2)),
        "source must have the kernel's 1 axes, got 2",
    ),
    "nan": (
        lambda: network(2, torch.float64)(WEIGHTED_NAN, points()),
        "values must be finite, got nan at rows [4] of 6",
    ),
}

ALL = {
    f"{part}: {what}": case
    for part, cases in {
        "geometry": GEOMETRY,
        "quadrature": QUADRATURE,
        "kernels": KERNELS,
        "convolve": CONVOLUTIONS,
        "networks": NETWORKS,
    }.items()
    for what, case in cases.items()
}


@pytest.mark.parametrize(("call", "message"), ALL.values(), ids=ALL.keys())
def test_refused_with_message(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_forward_refuses_a_nan_only_where_it_carries_weight() -> None:
    unread = points(weights=torch.tensor([[1.0, 1.0]] * 4 + [[1.0, 0.0]] + [[1.0, 1.0]]))
    result = convolve(KERNEL, WEIGHTED_NAN, unread, engine="reference")
    assert bool(torch.isfinite(result).all())


def test_half_a_period_is_not_too_wide() -> None:
    width = 0.999 * 2.0 / math.sqrt(-2 * math.log(0.01))
    result = convolve(small_kernel(1, width=(width,)), seeded(1, 2, 8), RING)
    assert bool(result.any())


def test_explain_says_what_a_kernel_too_wide_costs() -> None:
    assert explain(small_kernel(1, masked=False), RING).choice == "fft"


def test_message_form() -> None:
    with pytest.raises(ValueError, match=r"^step must be positive, got -1$"):
        reject("step", "be positive", -1)
    require(True, "step", "be positive", -1)


def test_finite_values_whose_sum_overflows_pass() -> None:
    require_finite("values", torch.full((4, 2), 1e38, dtype=torch.float32))
    require_finite("values", torch.zeros(0, 3))
    require_finite("values", torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"values must be finite, got inf at rows \[0\] of 1"):
        require_finite("values", torch.tensor(math.inf))


def test_missing_optional_package_names_the_install_line() -> None:
    with pytest.raises(
        ImportError, match=r"Plots needs the package 'no_such_package'.*pip install 'ccnn-irregular\[plots\]'"
    ):
        import_optional("no_such_package", "Plots", "plots")
    with pytest.raises(ImportError, match=r"pip install 'ccnn-irregular'$"):
        import_optional("no_such_package", "Sums")
    assert import_optional("math", "Sums") is math


def test_public_names() -> None:
    wanted = {"Axis", "Grid", "Points", "Product", "SIREN", "MAGNet", "GaussianMask", "Kernel", "convolve", "explain"}
    wanted |= {"ENGINES", "ContinuousConv", "SeparableContinuousConv", "CCNN"}
    assert wanted <= set(ccnn_irregular.__all__)
    assert {"reference", "keops", "fft"} <= set(ccnn_irregular.ENGINES)
    for name, engine in ccnn_irregular.ENGINES.items():
        assert engine.name == name
