"""The promises of docs/design.md on some of the random cases that its table is drawn from, the hardest among them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import promises

# One pair alone holds a sample's result; a quiet past of values that hardly grow; few queries; values that cancel.
HARD = [707, 340, 46, 53]


@pytest.mark.parametrize("seed", HARD)
def test_spectral_keeps_its_promise_where_it_is_hard(seed: int) -> None:
    error = promises.worst_error(promises.random_case(seed), "spectral")
    assert error is not None
    assert error < 2


@pytest.mark.parametrize("seed", range(14))
def test_spectral_keeps_its_promise(seed: int) -> None:
    assert (promises.worst_error(promises.random_case(seed), "spectral") or 0.0) < 2


@pytest.mark.parametrize("seed", range(14))
@pytest.mark.parametrize("engine", ["reference", "neighbours", "fft"])
def test_exact_engines_err_by_rounding(engine: str, seed: int) -> None:
    assert (promises.worst_error(promises.random_case(seed, grid=engine == "fft"), engine) or 0.0) < 400
