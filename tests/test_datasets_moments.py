"""Standardising, wherever it is done: constants become nothing, tiny and huge values keep their shape; by NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ccnn_irregular import Grid
from ccnn_irregular.datasets import volume_folder
from ccnn_irregular.datasets.physionet2012 import STATICS
from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.pipelines.tasks.classification.standardise import Standardise
from ccnn_irregular.pipelines.train.series_network import StandardScore

# What float32 holds: none of these is a sum of few powers of two, so that means of them are rounded.
CONSTANTS = [0.1, -37.3, 1e-30, 3e22, 1e38]
SIZES = [1e-30, 1e-12, 1.0, 1e12, 1e19, 1e25, 1e38]


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.floats(-1e3, 1e3)))
def test_moments_are_numpys(columns: np.ndarray) -> None:
    mean, deviation = mean_and_deviation(torch.from_numpy(columns))
    np.testing.assert_allclose(mean, columns.mean(0), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(deviation, columns.std(0), rtol=1e-9, atol=1e-10)


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.floats(-1e3, 1e3)), st.data())
def test_rows_that_count_twice_are_two_rows(columns: np.ndarray, data: st.DataObject) -> None:
    counts = data.draw(arrays(np.int64, len(columns), elements=st.integers(0, 3)).filter(lambda one: one.sum() > 0))
    mean, deviation = mean_and_deviation(torch.from_numpy(columns), torch.from_numpy(counts / 7))
    rows = np.repeat(columns, counts, axis=0)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(deviation, rows.std(0), rtol=1e-9, atol=1e-6)


def test_moments_leave_nan_out_and_change_nothing() -> None:
    columns = torch.tensor([[1.0, torch.nan, torch.nan], [3.0, 5.0, torch.nan]], dtype=torch.float64)
    before = columns.clone()
    mean, deviation = mean_and_deviation(columns)
    assert mean[:2].tolist() == [2.0, 5.0]
    assert deviation[:2].tolist() == [1.0, 0.0]
    assert bool(mean[2].isnan() & deviation[2].isnan())
    torch.testing.assert_close(columns, before, equal_nan=True)


@pytest.mark.parametrize("constant", [*CONSTANTS, 1e200])
def test_a_constant_has_no_deviation(constant: float) -> None:
    mean, deviation = mean_and_deviation(torch.full((1003, 1), constant, dtype=torch.float64))
    assert (float(mean), float(deviation)) == (constant, 0.0)


@pytest.mark.parametrize("constant", CONSTANTS)
def test_a_constant_channel_is_standardised_to_zero(constant: float) -> None:
    values = torch.full((7, 2, 143), constant)
    values[:, 1] = torch.randn(7, 143, generator=torch.Generator().manual_seed(0))
    standardise = Standardise(2)
    standardise.fit(values)
    result = standardise(values, Grid((143,), (1.0,)))
    assert float(result[:, 0].abs().max()) == 0
    assert float(standardise.scale[0]) == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("each", [False, True])
def test_the_unit_does_not_matter(size: float, each: bool) -> None:
    generator = np.random.default_rng(0)
    plain = generator.uniform(-1, 1, (5, 1, 400)) * generator.uniform(0.5, 1, (5, 1, 1))
    values = torch.from_numpy(size * plain).float()
    exact = values.double().numpy() / size
    standardise = Standardise(1, each)
    standardise.fit(values)
    result = standardise(values, Grid((400,), (1.0,)))
    scale = exact.std((1, 2), keepdims=True) if each else exact.std()
    np.testing.assert_allclose(result, (exact - exact.mean()) / scale, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("constant", CONSTANTS)
def test_a_sample_without_contrast_does_not_become_one_of_full_contrast(constant: float) -> None:
    values = constant * torch.linspace(0.5, 1.5, 600).reshape(3, 1, 200)
    values[1] = constant
    standardise = Standardise(1, each=True)
    standardise.fit(values)
    result = standardise(values, Grid((200,), (1.0,)))
    exact = values.double().numpy() / constant
    wanted = (exact[1] - exact.mean()) / exact.std()
    np.testing.assert_allclose(result[1], np.sign(constant) * wanted, rtol=1e-3, atol=1e-4)


def test_a_static_that_is_the_same_for_all_stays_scores_zero() -> None:
    generator = np.random.default_rng(0)
    statics = generator.normal(60, 10, (1001, len(STATICS))).astype(np.float32)
    statics[:, 2] = 170.3
    statics[:, 3] = np.nan
    score = StandardScore(len(STATICS), {STATICS.index("ICUType"): 4})
    score.fit(statics)
    result = score(torch.from_numpy(statics))[:, : len(STATICS)]
    assert float(result[:, 2].abs().max()) == 0
    assert float(result[:, 3].abs().max()) == 0
    exact = statics[:, 0].astype(np.float64)
    np.testing.assert_allclose(result[:, 0], (exact - exact.mean()) / exact.std(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["constant", "huge", "tiny"])
def test_volumes_of_a_folder(tmp_path: Path, kind: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).normal(5, 2, (6, 7, 8))
    values = {"constant": np.full(values.shape, 0.1), "huge": 1e30 * values, "tiny": 1e-30 * values}[kind]
    values = values.astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "one.nii")
    (tmp_path / "labels.csv").write_text("file,label\none.nii,a\n")
    found = volume_folder.load(tmp_path, standardise=True).volume(0)[0].numpy()
    exact = values.astype(np.float64).T
    exact = np.zeros_like(exact) if kind == "constant" else (exact - exact.mean()) / exact.std()
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
