"""The neighbour lists: equal to the full sum, with the pairs of the support only, and refusals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import hypothesis.strategies as st
import pytest
import torch
from contract_cases import run, seeded, small_kernel, uniform
from hypothesis import given
from tested_device import DEVICE, convolve, explain, make_plan
from torch import Tensor

from ccnn_irregular import SIREN, GaussianMask, Kernel, Points
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels.masks import Mask
from ccnn_irregular.operators.engines import neighbours, reference
from ccnn_irregular.testing import assert_all_close, assert_close


@final
class BoxMask(Mask):
    """1 in a box: the least that a mask promises, with corners that no ellipsoid holds."""

    def __init__(self, reach: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("reach", torch.tensor(tuple(reach)))

    @property
    def support(self) -> Tensor:
        return self.reach  # type: ignore[return-value]

    def formula(self, offsets: Any, operations: Any) -> Any:
        scaled = offsets * operations.vector(1 / self.reach)
        value = 1.0
        for axis in range(len(self.support)):
            component = operations.component(scaled, axis)
            value = value * operations.step(1 - component) * operations.step(1 + component)
        return value


def ragged(
    lengths: Sequence[int], d: int, seed: int, *, leaf: bool = True, periods: Sequence[float | None] | None = None
) -> Points:
    """Points in a box of edge 4, centred at 1, that ask for gradients."""
    coordinates, weights = uniform(sum(lengths), d, low=-1, high=3, seed=seed), uniform(sum(lengths), seed=seed + 50)
    if leaf:
        coordinates, weights = coordinates.requires_grad_(), weights.requires_grad_()
    return Points(coordinates, weights, torch.tensor([0, *lengths]).cumsum(0), periods=periods)


def compact_kernel(d: int, *, reach: float = 0.8, **options: Any) -> Kernel:
    """Kernel whose support is about ``reach`` on each axis, a little different on each."""
    in_widths = math.sqrt(-2 * math.log(0.01))
    return small_kernel(d, width=[(reach + 0.1 * axis) / in_widths for axis in range(d)], **options)


def pairs_of(plan: Any) -> int:
    return int(plan.geometry.pairs.pairs[-1])


def compare(kernel: Kernel, values: Tensor, source: Domain, query: Domain | None = None) -> dict[str, Tensor]:
    """The neighbour lists give the full sum and its gradients, to the table of tolerances."""
    expected = run(kernel, values, source, query, "reference")
    actual = run(kernel, values, source, query, "neighbours")
    assert_all_close(actual, expected)
    return actual


def test_places_of_a_whole_period_or_just_below_none() -> None:
    times = torch.tensor([[0.0], [2.0], [-1e-20], [4.0], [-2.0], [1.9]], dtype=torch.float64)
    source = Points(times, periods=[2.0])
    compare(compact_kernel(1, reach=0.3), seeded(6, 2), source)
    assert pairs_of(make_plan(compact_kernel(1, reach=0.3), source, engine="neighbours")) == 36


def test_equal_points_all_count() -> None:
    places = uniform(4, 2, seed=10)
    source = Points(places.repeat(20, 1).requires_grad_())
    kernel = compact_kernel(2, reach=1e-3)
    compare(kernel, seeded(80, 2, requires_grad=True), source)
    assert pairs_of(make_plan(kernel, source, engine="neighbours")) == 4 * 20**2


@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 3),
    lengths=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5).filter(
        lambda pairs: any(query for _, query in pairs)
    ),
    reach=st.floats(0.01, 5.0),
    shift=st.sampled_from([0.0, 1e6]),
    causal=st.booleans(),
)
def test_any_ragged_batch(
    seed: int, d: int, lengths: list[tuple[int, int]], reach: float, shift: float, causal: bool
) -> None:
    kernel = compact_kernel(d, reach=reach, causal_axes=(d - 1,) if causal else ())
    source, query = (ragged([one[side] for one in lengths], d, seed + side, leaf=False) for side in (0, 1))
    source = Points(source.coordinates + shift, source.weights, source.splits)
    query = Points(query.coordinates + shift, splits=query.splits)
    values = seeded(source.count, 2, seed=seed)
    actual = convolve(kernel, values, source, query, engine="neighbours")
    assert_close(actual, convolve(kernel, values, source, query, engine="reference"), scale=1.0)


@pytest.mark.parametrize("box", [False, True])
def test_only_pairs_within_the_support_are_kept(box: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Several blocks of the search and of the sum, and a prediction from points drawn at random.
    monkeypatch.setattr(neighbours, "_PAIRS_PER_SEARCH", 100)
    monkeypatch.setattr(reference, "_PAIRS_PER_BLOCK", 60)
    kernel = compact_kernel(3)
    if box:
        kernel = Kernel(kernel.generator, BoxMask([0.8, 0.9, 1.0]), extent=[1.0] * 3).double()
    source, query = ragged([150, 50, 0], 3, 11), ragged([60, 70, 80], 3, 12)
    scaled = (query.coordinates[:, None] - source.coordinates[None]).detach() / kernel.support.double()
    near = scaled.abs().amax(-1) <= 1 if box else scaled.square().sum(-1) <= 1
    near &= query.sample_index()[:, None] == source.sample_index()[None]
    plan = make_plan(kernel, source, query, engine="neighbours")
    assert pairs_of(plan) == int(near.sum()) > 400
    listed = plan.geometry.pairs
    assert listed.partners.dtype == torch.int32
    assert torch.equal(listed.pairs.diff().cpu(), near.sum(1))
    assert torch.equal(listed.partners.long().cpu(), near.nonzero()[:, 1])
    compare(kernel, seeded(200, 2, requires_grad=True), source, query)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("repeats", [False, True])
def test_points_among_themselves_find_each_other_and_their_doubles(box: bool, repeats: bool) -> None:
    kernel = compact_kernel(2)
    if box:
        kernel = Kernel(kernel.generator, BoxMask([0.8, 0.9]), extent=[1.0] * 2).double()
    points = ragged([40, 0, 30, 1], 2, 17, leaf=False)
    places = points.coordinates.clone()
    places[10:14] = places[3]
    period = 2.5 if repeats else None
    points = Points(places, points.weights, points.splits, periods=(period, None))
    offset = places[:, None] - places[None]
    if period:
        offset[..., 0] -= period * torch.round(offset[..., 0] / period)
    scaled = offset / kernel.support.double()
    near = scaled.abs().amax(-1) <= 1 if box else scaled.square().sum(-1) <= 1
    near &= points.sample_index()[:, None] == points.sample_index()[None]
    listed = make_plan(kernel, points, engine="neighbours").geometry.pairs
    assert torch.equal(listed.pairs.diff().cpu(), near.sum(1))
    assert torch.equal(listed.partners.long().cpu(), near.nonzero()[:, 1])
    assert int(near.sum()) > 3 * points.count
    compare(kernel, seeded(71, 2, requires_grad=True), points, points)


def test_pairs_of_the_future_are_dropped() -> None:
    times = (torch.arange(50, dtype=torch.float64) * 0.1)[:, None]
    source = Points(times)
    both = pairs_of(make_plan(compact_kernel(1, reach=0.55), source, engine="neighbours"))
    past = pairs_of(make_plan(compact_kernel(1, reach=0.55, causal_axes=(0,)), source, engine="neighbours"))
    assert 2 * past == both + 50


def test_a_plan_serves_smaller_kernels_and_refuses_larger_ones() -> None:
    kernel = compact_kernel(2, causal_axes=(1,))
    assert isinstance(kernel.mask, GaussianMask)
    source, values = ragged([30, 20], 2, 13), seeded(50, 2)
    plan = make_plan(kernel, source, engine="neighbours")
    with torch.no_grad():
        kernel.mask.log_scale -= 0.3
    smaller = convolve(kernel, values, source, plan=plan)
    assert_close(smaller, convolve(kernel, values, source, engine="reference"))
    with torch.no_grad():
        kernel.mask.log_scale += 0.5
    with pytest.raises(
        ValueError, match=r"plan must be made anew when the kernel's support on axis 0 grows beyond 0\.8"
    ):
        convolve(kernel, values, source, plan=plan)
    wide = small_kernel(2, width=[0.1, 0.1], causal_axes=(1,))
    wide.extent *= 10
    with pytest.raises(ValueError, match="extent on the causal axis 1 grows beyond"):
        convolve(wide, values, source, plan=plan)
    with pytest.raises(ValueError, match="not causal on axis 1"):
        convolve(small_kernel(2, width=[0.1, 0.1]), values, source, plan=plan)
    boxed = Kernel(kernel.generator, BoxMask([0.1, 0.1]), extent=[0.1] * 2, causal_axes=(1,)).double()
    with pytest.raises(ValueError, match="plan must be made with a kernel of this mask"):
        convolve(boxed, values, source, plan=plan)


def test_gradients_of_gradients() -> None:
    kernel = compact_kernel(1)
    source, query = Points(uniform(6, 1, seed=14)), Points(uniform(4, 1, seed=15))

    def function(values: Tensor) -> Tensor:
        return convolve(kernel, values, source, query, engine="neighbours").square()

    values = seeded(6, 2, requires_grad=True)
    repeated = 0.0 if DEVICE.type == "cpu" else 1e-12  # a GPU adds up gradients in any order
    assert torch.autograd.gradcheck(function, values, nondet_tol=repeated)
    assert torch.autograd.gradgradcheck(function, values, nondet_tol=repeated)


def test_auto_takes_it_for_compact_kernels_and_explains() -> None:
    torch.manual_seed(0)
    source = Points(torch.rand(20000, 3, dtype=torch.float64))
    width = 0.06 / math.sqrt(-2 * math.log(0.01))
    compact = Kernel(SIREN(3, 16, 32), GaussianMask([width] * 3), extent=[0.06] * 3)
    table = explain(compact, source)
    assert table.choice == "neighbours"
    cost = table.costs["neighbours"]
    assert not isinstance(cost, str)
    found = pairs_of(make_plan(compact, source, engine="neighbours"))
    predicted = float(cost.note.split()[1]) * source.count
    assert predicted == pytest.approx(found, rel=0.1)
    assert 4 * found < cost.bytes < 2**30
    smooth = Kernel(SIREN(3, 16, 32, omega_0=3.0), GaussianMask([10 * width] * 3), extent=[0.85] * 3)
    assert make_plan(smooth, source).engine == "spectral"
