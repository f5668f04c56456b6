"""What the plots show, read back from the drawn objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccnn_irregular.kernels import SIREN, GaussianMask, Kernel
from ccnn_irregular.plotting import plot_kernel, plot_receptive_field, plot_samples


def kernel(d: int = 1, mask: bool = True, **options) -> Kernel:
    return Kernel(SIREN(d, 8), GaussianMask([2.0] * d) if mask else None, extent=[6.0] * d, **options)


def test_a_kernel_is_drawn_over_its_support_in_units() -> None:
    drawn = kernel()
    axes = plot_kernel(drawn, unit="h", channels=[3])
    line = axes.get_lines()[0]
    support = float(drawn.support[0])
    offsets, values = line.get_data()
    assert (offsets[0], offsets[-1]) == (-support, support)
    with torch.no_grad():
        wanted = drawn(torch.as_tensor(offsets, dtype=torch.float32)[:, None])[:, 3]
    np.testing.assert_allclose(values, wanted, atol=1e-6)
    assert axes.get_xlabel() == "offset, query minus sample (h)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["channel 3", "mask (scaled)"]


def test_only_the_strongest_channels_are_drawn_by_default() -> None:
    labels = [text.get_text() for text in plot_kernel(kernel(shape=(2, 4))).get_legend().get_texts()]
    assert len(labels) == 7
    assert labels[-1] == "mask (scaled)"


def test_a_causal_receptive_field_looks_back_only() -> None:
    axes = plot_receptive_field(kernel(causal_axes=(0,)), unit="h")
    offsets, strength = axes.get_lines()[0].get_data()
    assert strength[offsets < -1e-3].max() == 0
    assert strength.max() == 1.0
    assert axes.get_title().startswith("90 % within ")
    assert axes.get_title().endswith(" h")


def test_a_kernel_without_mask_needs_a_reach() -> None:
    with pytest.raises(ValueError, match="reach must be positive and finite"):
        plot_receptive_field(kernel(mask=False))
    offsets = plot_receptive_field(kernel(mask=False), reach=3.0).get_lines()[0].get_xdata()
    assert (offsets[0], offsets[-1]) == (-3.0, 3.0)


def test_bad_kernels_and_channels() -> None:
    with pytest.raises(ValueError, match="kernel must have one coordinate axis to be drawn as a curve, got 2 axes"):
        plot_kernel(kernel(d=2))
    with pytest.raises(ValueError, match=r"channels must name at most 6 channels of 0\.\.7, got \[8\]"):
        plot_kernel(kernel(), channels=[8])


def test_samples_are_drawn_where_they_were_observed() -> None:
    times = np.array([0.0, 1.5, 4.0])
    values = np.array([[1.0, np.nan], [2.0, 5.0], [np.nan, 6.0]])
    figure = plot_samples(times, values, names=["HR", "pH"], units=["1/min", ""], time_unit="h")
    first, second = figure.axes
    np.testing.assert_array_equal(first.get_lines()[0].get_data(), [[0.0, 1.5], [1.0, 2.0]])
    np.testing.assert_array_equal(second.get_lines()[0].get_data(), [[1.5, 4.0], [5.0, 6.0]])
    assert [axes.get_ylabel() for axes in figure.axes] == ["HR\n1/min", "pH"]
    assert second.get_xlabel() == "time (h)"


def test_samples_of_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"times and values must be \(N,\) and \(N, C\), got \(\(2,\), \(3, 1\)\)"):
        plot_samples(np.zeros(2), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="names, units and panels must number 2"):
        plot_samples(np.zeros(3), np.zeros((3, 2)), names=["one"])
