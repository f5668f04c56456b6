"""The grid of the strongest kernels: which ones, in what order, and that what is drawn is the kernel in its units."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from ccnn_irregular import CCNN, SIREN, GaussianMask, Kernel, KernelSpec
from ccnn_irregular.networks_unet import ContinuousUNet
from ccnn_irregular.plotting_kernels import layer_titles, plot_strongest_kernels


def scaled(d: int, factors: list[float], width: float = 1.0) -> Kernel:
    """Kernels that differ by a factor: the first channel times each of them."""
    torch.manual_seed(0)
    kernel = Kernel(SIREN(d, len(factors), 4), GaussianMask([width] * d), extent=[3.0] * d)
    with torch.no_grad():
        output = kernel.generator.output
        output.weight.copy_(output.weight[:1] * torch.tensor(factors)[:, None])
        output.bias.copy_(torch.tensor(factors))
    return kernel


def titles(figure: object) -> list[str]:
    """Layer and channel of each panel."""
    return [axes.get_title().partition(", largest")[0].replace("\n", ", ") for axes in figure.axes if axes.get_title()]  # type: ignore[attr-defined]


def test_the_eight_of_largest_norm_are_shown_layer_by_layer() -> None:
    kernels = {"a": scaled(1, [1.0, -9.0, 2.0, 0.1, 5.0]), "b": scaled(1, [3.0, 8.0, 0.2, -7.0, 6.0])}
    figure = plot_strongest_kernels(kernels)
    found = titles(figure)
    sizes = {("a", 1): 9, ("a", 4): 5, ("a", 2): 2, ("a", 0): 1, ("b", 1): 8, ("b", 3): 7, ("b", 4): 6, ("b", 0): 3}
    assert found == [f"{name}, channel {channel}" for name, channel in sizes]
    assert titles(plot_strongest_kernels(kernels, most=2)) == ["a, channel 1", "b, channel 1"]
    assert figure.get_suptitle() == "the 8 strongest of 10 kernels, by layer"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mask, as high as the largest value"]
    assert figure.axes[0].get_ylabel() == "kernel value"


def test_the_norm_does_not_depend_on_how_finely_a_kernel_weighs() -> None:
    """A kernel twice as wide and half as high has the same integral: there is no unit in the order."""
    narrow, wide = scaled(1, [1.0]), scaled(1, [1.0], width=2.0)
    for factor, first in ((0.45, "narrow"), (0.55, "wide")):
        with torch.no_grad():  # the same generator, read at half the offset
            kernels = {"narrow": narrow, "wide": Kernel(wide.generator, wide.mask, extent=[6.0], scale=factor)}
        assert titles(plot_strongest_kernels(kernels, most=1)) == [f"{first}, channel 0"]


def test_a_curve_is_the_kernel_over_its_reach_in_units() -> None:
    kernel = scaled(1, [1.0, 2.0])
    figure = plot_strongest_kernels({"stem": kernel}, unit="h", title="kernels")
    axes = figure.axes[0]
    offsets, values = axes.get_lines()[-1].get_data()
    wanted = kernel(torch.as_tensor(offsets)[:, None].float())[:, 1].detach().numpy()
    np.testing.assert_allclose(values, wanted, rtol=1e-5)
    assert offsets[-1] == pytest.approx(float(kernel.support[0]))
    assert axes.get_xlabel() == "offset (h)"
    assert axes.get_title().endswith(f"largest {np.abs(wanted).max():.3g}")
    assert figure.get_suptitle() == "kernels"


@pytest.mark.parametrize("d", [2, 3])
def test_an_image_is_the_plane_of_the_first_two_axes_through_the_origin(d: int) -> None:
    kernel = scaled(d, [1.0])
    figure = plot_strongest_kernels({"stem": kernel}, unit="mm", names=("x", "y"))
    axes = figure.axes[0]
    image = axes.images[0]
    half = float(kernel.support[0])
    assert image.get_extent() == pytest.approx([-half, half, -half, half])
    nodes = np.linspace(-half, half, image.get_array().shape[0])
    place = torch.zeros(d)
    place[0], place[1] = float(nodes[50]), float(nodes[30])  # rows of the image run along axis 1
    largest = float(axes.get_title().split()[-1])
    assert image.get_array()[30, 50] * largest == pytest.approx(float(kernel(place[None])[0, 0].detach()), rel=0.02)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (mm)", "y (mm)")
    assert figure.axes[-1].get_ylabel() == "share of the largest value"


def test_labels_of_ticks_do_not_overlap() -> None:
    figure = plot_strongest_kernels({"stem": scaled(2, [1.0] * 8, width=123.0)}, unit="m")
    figure.canvas.draw()
    for axes in figure.axes[:8]:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        inside = [box for box in boxes if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(inside))


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="kernels must hold one at least"):
        plot_strongest_kernels({})
    with pytest.raises(ValueError, match=r"kernels must all have one to three axes, got \[1, 2\]"):
        plot_strongest_kernels({"a": scaled(1, [1.0]), "b": scaled(2, [1.0])})
    with pytest.raises(ValueError, match=r"kernels must all have one to three axes, got \[4\]"):
        plot_strongest_kernels({"a": scaled(4, [1.0])})
    with pytest.raises(ValueError, match=r"kernels\['a'\] must have a mask that ends"):
        plot_strongest_kernels({"a": Kernel(SIREN(1, 1, 4), extent=[1.0])})
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        plot_strongest_kernels({"a": scaled(1, [1.0])}, most=0)


def test_titles_are_those_of_a_reader_and_tell_all_layers_apart() -> None:
    recipe = KernelSpec(extent=1.0, width=0.3, omega_0=5.0)
    plain = CCNN(1, 4, 1, kernel=recipe, blocks=2, head="anywhere").kernels()
    assert list(layer_titles(plain).values()) == [
        *("first convolution", "block 1 of 2", "block 2 of 2", "last convolution"),
    ]
    unet = ContinuousUNet(1, 2, channels=(4, 6, 8), steps=[1.0, 1.0], blocks=(0, 1, 2)).kernels()
    titles_of = layer_titles(unet)
    assert titles_of["downs.1"] == "from level 2 down to 3"
    assert titles_of["ups.0"] == "from level 2 up to 1"
    assert titles_of["down_levels.2.blocks.1"] == "level 3 on the way down, block 2"
    assert len(set(titles_of.values())) == len(unet)
    assert not any("." in title or "_" in title for title in titles_of.values())
    assert layer_titles(["mine"]) == {"mine": "mine"}
