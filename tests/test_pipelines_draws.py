"""Random numbers of samples: the generator against integers of Python, and what each number depends on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular.datasets.reading.content import content_id
from ccnn_irregular.pipelines.train.batches import AlikeBatches, EqualBatches, drawn_loader
from ccnn_irregular.pipelines.train.draws import Draws, hashed
from ccnn_irregular.pipelines.train.run_folder import EpochSeed

IDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6, unique=True)


def mixed(state: int) -> int:
    """The output function of SplitMix64, in integers without bounds."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_the_mixing_is_that_of_splitmix64() -> None:
    """The first numbers of the generator from seed 1234567, as published with its reference implementation."""
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [mixed((1234567 + n * 0x9E3779B97F4A7C15) % 2**64) for n in range(1, 6)] == wanted


@given(seed=st.integers(0, 2**64), epoch=st.integers(0, 2**31), ids=IDS, width=st.integers(1, 3))
def test_numbers_are_those_of_a_generator_for_each_sample(seed: int, epoch: int, ids: list[int], width: int) -> None:
    counts = np.arange(len(ids))  # the first sample has none
    found = Draws(seed, epoch, np.array(ids)).uniform("noise", counts, width=width)
    wanted = []
    for count, one in zip(counts.tolist(), ids, strict=True):
        key = mixed(hashed(seed, epoch, "noise") ^ mixed(one * 0x9E3779B97F4A7C15 % 2**64))
        states = [(key + n * 0x9E3779B97F4A7C15) % 2**64 for n in range(1, count * width + 1)]
        wanted += [((mixed(state) >> 12) + 0.5) / 2**52 for state in states]
    np.testing.assert_array_equal(found.reshape(-1), wanted)


@given(ids=IDS, data=st.data())
def test_numbers_of_a_sample_do_not_depend_on_the_others(ids: list[int], data: st.DataObject) -> None:
    numbers = dict(zip(ids, Draws(3, 5, np.array(ids)).uniform("turn", width=2).tolist(), strict=True))
    noise = dict(zip(ids, Draws(3, 5, np.array(ids)).normal("shift", np.full(len(ids), 4), width=2).reshape(-1, 8),
                     strict=True))  # fmt: skip
    some = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=4, unique=True))
    again = Draws(3, 5, torch.tensor(some))
    assert again.uniform("turn", width=2).tolist() == [numbers[one] for one in some]
    # Fewer rows of a sample are the first ones.
    few = again.normal("shift", np.full(len(some), 3), width=2).reshape(-1, 6)
    np.testing.assert_array_equal(few, [noise[one][:6] for one in some])


def test_seeds_epochs_ids_and_purposes_give_other_numbers() -> None:
    """Not their sums: seed 0 in epoch 1 is not seed 1 in epoch 0."""
    keys = {
        (seed, epoch, one, purpose): float(Draws(seed, epoch, np.array([one])).uniform(purpose)[0])
        for seed in range(6)
        for epoch in range(6)
        for one in range(6)
        for purpose in ("turn", "shift")
    }
    assert len(set(keys.values())) == len(keys)
    assert hashed(1, 2, "3") != hashed(1, "23") != hashed(12, "3")
    assert content_id("ab", "c") != content_id("a", "bc") != content_id(b"abc")
    assert content_id("case_01") == content_id(b"case_01")


def test_numbers_are_uniform_and_samples_are_unlike_each_other() -> None:
    numbers = Draws(0, 1, np.arange(500)).uniform("a", np.full(500, 400)).reshape(500, 400)
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 0.01
    assert 0 < numbers.min() < numbers.max() < 1
    # Correlations of pairs of samples, and of neighbouring numbers: normal with variance 1 / 400.
    for table in (numbers, numbers.T):
        pairs = np.corrcoef(table)[np.triu_indices(len(table), 1)] * np.sqrt(table.shape[1])
        assert abs(float(pairs.std()) - 1) < 0.02
        assert float(np.abs(pairs).max()) < 6
    noise = Draws(0, 1, np.arange(50)).normal("a", np.full(50, 400), width=3)
    assert noise.dtype == np.float32
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01


@pytest.mark.parametrize(
    ("seed", "epoch", "ids", "message"),
    [
        (-1, 0, np.arange(2), "seed must not be negative, got -1"),
        (0, -1, np.arange(2), "epoch must not be negative, got -1"),
        (0, 0, np.arange(2.0), r"ids must be int64 of one axis, got float64 \(2,\)"),
        (0, 0, np.zeros((2, 1), np.int64), r"ids must be int64 of one axis, got int64 \(2, 1\)"),
    ],
)
def test_what_is_refused(seed: int, epoch: int, ids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Draws(seed, epoch, ids)


def test_the_global_generators_start_each_epoch_of_each_seed_elsewhere() -> None:
    numbers = []
    for seed in range(8):
        for epoch in range(8):
            trainer: Any = SimpleNamespace(current_epoch=epoch)
            EpochSeed(seed).on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
            numbers.append((float(torch.rand(())), float(np.random.random())))  # noqa: NPY002  # the global one is meant
    assert len({one for one, _ in numbers}) == len({other for _, other in numbers}) == 64


def test_batches_know_their_epoch_in_worker_processes_too() -> None:
    def take(indices: Tensor, epoch: int) -> tuple[list[int], list[float]]:
        return indices.tolist(), Draws(0, epoch, indices).uniform("turn").tolist()

    found = []
    for size, workers in ((1, 0), (4, 0), (4, 1)):
        kinds = np.arange(9) % 2
        for batches in (EqualBatches(np.arange(9), size, 0), AlikeBatches(np.arange(9), kinds, size, 0)):
            plain = drawn_loader(take, batches)
            loader: Any = DataLoader(plain.dataset, sampler=plain.sampler, batch_size=None, num_workers=workers)
            for epoch in (0, 1):
                loader.sampler.set_epoch(epoch)
                pairs = [pair for indices, numbers in loader for pair in zip(indices, numbers, strict=True)]
                found.append((epoch, sorted(pairs)))
    for epoch in (0, 1):
        first, *others = [pairs for one, pairs in found if one == epoch]
        assert len(first) == 9
        assert all(pairs == first for pairs in others)
    assert not {number for _, number in found[0][1]} & {number for _, number in found[1][1]}
