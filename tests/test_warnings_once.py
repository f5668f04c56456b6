"""What is said once: networks trained without calibration, uneven points without weights, plans made over and over."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ccnn_irregular import CCNN, ContinuousConv, Grid, Kernel, KernelSpec, Points, convolve, make_plan
from ccnn_irregular.adapters.geometric_networks import CloudCCNN
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.operators import replanning
from ccnn_irregular.operators.engines import Engine, Plan

SPEC = KernelSpec(extent=2.0, width=0.6, omega_0=1.0, generator="siren", hidden=6)
GRID = Grid([32], [0.25])


@contextmanager
def said(about: str) -> Iterator[list[str]]:
    """Texts of the warnings that hold ``about``; others are errors."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(one.message) for one in caught]
    assert all(about in text for text in texts), texts


# ---- calibration ----


def ccnn() -> CCNN:
    torch.manual_seed(0)
    return CCNN(2, 8, 3, kernel=SPEC, blocks=1)


VALUES = torch.randn(4, 2, 32, generator=torch.Generator().manual_seed(0))
VOLUME = Grid([6, 5, 4], [1.0] * 3)


def test_a_network_trained_without_calibration_is_told_of_once() -> None:
    network = ccnn()
    with said("CCNN is trained without having been calibrated") as texts:
        for _ in range(3):
            network(VALUES, GRID)
    assert len(texts) == 1
    assert "Call calibrate(source, values) once, before training" in texts[0]


def test_answers_without_training_are_no_reason() -> None:
    network = ccnn()
    with said("nothing") as texts:
        network.eval()(VALUES, GRID)
        with torch.no_grad():
            network.train()(VALUES, GRID)
    assert not texts


def _calibrated(network: CCNN) -> CCNN:
    network.calibrate(GRID, VALUES)
    return network


def _loaded(network: CCNN) -> CCNN:
    network.load_state_dict(ccnn().state_dict())
    return network


@pytest.mark.parametrize(
    "make",
    [
        _calibrated,
        _loaded,
        lambda network: copy.deepcopy(_calibrated(network)),
        lambda network: _calibrated(network).double().float(),
    ],
)
def test_calibrated_or_loaded_networks_are_trained_in_silence(make: Callable[[CCNN], CCNN]) -> None:
    with said("nothing") as texts:
        make(ccnn())(VALUES, GRID).sum().backward()
    assert not texts


def test_one_layer_left_out_is_enough() -> None:
    network = ccnn()
    network.stem.calibrate(GRID)
    with said("calibrated") as texts:
        network(VALUES, GRID)
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("network", "run"),
    [
        (
            lambda: ContinuousUNet(1, 2, channels=(4, 4), blocks=(0, 1), steps=(1.0,) * 3),
            lambda model, name: getattr(model, name)(torch.randn(1, 1, *VOLUME.sizes), VOLUME),
        ),
        (
            lambda: CloudCCNN(1, 2, channels=(4, 4), spacing=0.3),
            lambda model, name: getattr(model, name)(None, torch.rand(60, 3)),
        ),
    ],
)
def test_other_networks_are_told_of_too(
    network: Callable[[], torch.nn.Module], run: Callable[[torch.nn.Module, str], object]
) -> None:
    torch.manual_seed(0)
    first, second = network(), network()
    with said("without having been calibrated") as texts:
        run(first, "forward")
        run(first, "forward")
    assert len(texts) == 1
    with said("nothing") as texts:
        run(second, "calibrate")
        run(second, "forward")
    assert not texts


# ---- density ----


def warned(places: NDArray[np.float64], splits: list[int] | None = None) -> bool:
    """Whether a convolution from these places, without weights, is told of; and of nothing else, and once."""
    points = Points(torch.as_tensor(places), splits=None if splits is None else torch.tensor(splits))
    kernel = KernelSpec(extent=[0.5] * points.d, width=0.2, omega_0=1.0, generator="siren", hidden=4)(1)
    query = Points(points.coordinates[:2], splits=torch.tensor([0, 2] + [2] * (points.samples - 1)))
    with said("uneven density and carry no weights") as texts:
        for _ in range(2):
            make_plan(kernel, points, query, engine="reference")
    assert len(texts) <= 1
    return bool(texts)


def on_sphere(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    vectors = rng.normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


EVEN: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "line": lambda rng, n: np.sort(rng.random((n, 1)), axis=0),
    "square": lambda rng, n: rng.random((n, 2)),
    "cube": lambda rng, n: rng.random((n, 3)),
    "strip": lambda rng, n: rng.random((n, 2)) * [50, 1],
    "sphere": on_sphere,
    "line in space": lambda rng, n: rng.random((n, 1)) * [1.0, 2.0, 3.0],
    "repeated": lambda rng, n: np.repeat(rng.random((n // 10 + 1, 2)), 10, axis=0),
    "stations by hours": lambda rng, n: np.column_stack(
        [np.repeat(1e3 * rng.random((n // 24 + 2, 2)), 24, axis=0), np.tile(np.arange(24.0), n // 24 + 2)]
    ),
}


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(EVEN)), n=st.integers(100, 1500), seed=st.integers(0, 2**32 - 1))
def test_uniform_random_points_are_no_reason_to_warn(name: str, n: int, seed: int) -> None:
    assert not warned(EVEN[name](np.random.default_rng(seed), n))


def test_grids_given_as_points_and_ragged_batches_are_even() -> None:
    nodes = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)
    assert not warned(nodes)
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 40, 50)
    times = np.concatenate([np.sort(rng.random(length) * 48) for length in lengths])[:, None]
    assert not warned(times, [0, *lengths.cumsum().tolist()])


@settings(max_examples=30, deadline=None)
@given(n=st.integers(300, 3000), d=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_a_cluster_that_is_a_hundred_times_as_dense_is_told_of(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    side = 0.01 ** (1 / d)  # half of the points in a hundredth of the space
    assert warned(np.concatenate([rng.random((n // 2, d)), side * rng.random((n // 2, d))]))


def test_bursts_of_measurements_are_told_of() -> None:
    rng = np.random.default_rng(0)
    stays = [np.sort(np.r_[rng.random(10) * 48, 20 + 2 * rng.random(20)]) for _ in range(40)]
    assert warned(np.concatenate(stays)[:, None], list(range(0, 1201, 30)))


def test_weights_and_few_points_and_queries_are_not_looked_at() -> None:
    rng = np.random.default_rng(0)
    uneven = torch.as_tensor(np.sort(rng.random(400)) ** 4)[:, None]
    kernel = SPEC(1)
    for source, query in (
        (Points(uneven, torch.ones(400)), None),
        (Points(uneven[:60]), None),
        (GRID, Points(uneven)),
        (Points(uneven, torch.ones(400)).to("cpu"), None),
    ):
        make_plan(kernel, source, query, engine="reference")
    with said("uneven") as texts:
        ContinuousConv(SPEC(1, 2))(torch.ones(400, 1), Points(uneven).to("cpu"))
    assert len(texts) == 1
    assert "density_compensation" in texts[0]


# ---- plans ----


class _Clock:
    """Seconds that pass while plans are made and sums computed, as asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, planning: float, computing: float) -> None:
        self.now = 0.0
        monkeypatch.setattr(replanning, "time", self)
        self.takes(monkeypatch, Engine, "prepare", planning)
        self.takes(monkeypatch, Plan, "convolve", computing)

    def perf_counter(self) -> float:
        return self.now

    def takes(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, seconds: float) -> None:
        owners = [owner, *owner.__subclasses__()]
        for one in owners:
            if name in vars(one):
                original = vars(one)[name]

                def slow(*args: object, original: Callable[..., object] = original, **kwargs: object) -> object:
                    self.now += seconds
                    return original(*args, **kwargs)

                monkeypatch.setattr(one, name, slow)


def points_of(seed: int) -> Points:
    return Points(torch.rand(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def run(kernel: Kernel, points: Points, times: int, **options: object) -> None:
    for _ in range(times):
        convolve(kernel, torch.ones(points.count, 1), points, **options)  # type: ignore[arg-type]


def test_plans_that_take_longer_than_sums_are_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _Clock(monkeypatch, planning=0.4, computing=0.1)
    kernel, points = SPEC(1).requires_grad_(False), points_of(0)
    with said("engine 'auto' has made") as texts:
        run(kernel, points, 3)  # of three plans two were needless: 0.8 s
        assert not texts
        run(kernel, points, 20)
    assert len(texts) == 1
    assert "4 plans for the same domains, 1.2 s in all; the last took 0.4 s, its sum 0.1 s" in texts[0]
    assert "plan = make_plan(kernel, source, query)" in texts[0]
    plan = make_plan(kernel, points)
    run(kernel, points, 20, plan=plan)  # what the text says to type


@pytest.mark.parametrize(("planning", "computing"), [(0.4, 0.5), (0.001, 0.0)])
def test_plans_that_cost_less_than_sums_or_next_to_nothing_are_not(
    monkeypatch: pytest.MonkeyPatch, planning: float, computing: float
) -> None:
    _Clock(monkeypatch, planning, computing)
    run(SPEC(1), points_of(1), 30)


def test_plans_that_have_to_be_made_anew_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _Clock(monkeypatch, planning=2.0, computing=0.1)
    kernel = SPEC(1).requires_grad_(False)
    for seed in range(5):  # other points each time
        run(kernel, points_of(seed), 1)
    source = points_of(6)
    for seed in range(5):  # other queries
        convolve(kernel, torch.ones(40, 1), source, points_of(seed))
    for _ in range(5):  # points that move
        source.coordinates.mul_(1.01)
        run(kernel, source, 1)
    learned = Points(points_of(7).coordinates.requires_grad_())
    run(kernel, learned, 5)
    run(kernel, points_of(8), 5, engine="reference")


def test_a_network_makes_its_plans_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no plan, so there is nothing to be said."""
    _Clock(monkeypatch, planning=2.0, computing=0.1)
    torch.manual_seed(0)
    network = CCNN(1, 4, 2, kernel=SPEC, blocks=1, latent=GRID, head="anywhere").eval().requires_grad_(False)
    source, query = points_of(0), points_of(1)
    for _ in range(4):
        network(torch.ones(40, 1), source, query)


def test_watching_costs_next_to_nothing() -> None:
    kernel, points = SPEC(1).requires_grad_(False), points_of(0)
    plan = make_plan(kernel, points, engine="reference")
    started = time.perf_counter()
    for _ in range(200):
        watch = replanning.Replanning()
        watch.planned()
        watch.computed(kernel, plan)
    assert (time.perf_counter() - started) / 200 < 2e-4  # microseconds, on a machine that does much else
