"""Pictures of volumes: true proportions, the right slices, colours where labels are, a scale bar of true length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel
from ccnn_irregular.plotting_volumes import plot_disagreement, plot_kernel_slices, plot_prediction, plot_slices

pytest.importorskip("matplotlib")

GRID = Grid((6, 8, 4), (1.0, 2.0, 5.0), (10.0, -4.0, 0.0))


def ramp() -> NDArray[np.float64]:
    return np.arange(6 * 8 * 4, dtype=float).reshape(GRID.sizes)


def labels() -> NDArray[np.int64]:
    """One voxel of label 2 and a row of label 1."""
    array = np.zeros(GRID.sizes, np.int64)
    array[1:5, 3, 2], array[4, 6, 2] = 1, 2
    return array


def shown(axes: Any) -> list[NDArray[Any]]:
    return [np.asarray(image.get_array()) for image in axes.images]


def test_slices_are_those_asked_for_at_their_true_proportions() -> None:
    figure = plot_slices(ramp(), GRID, at=(1, 2, 3))
    planes = [ramp()[1].T, ramp()[:, 2].T, ramp()[:, :, 3].T]
    edges = [(-5, 11, -2.5, 17.5), (9.5, 15.5, -2.5, 17.5), (9.5, 15.5, -5, 11)]
    titles = ["x = 11 mm", "y = 0 mm", "z = 15 mm"]
    for axes, plane, box, title in zip(figure.axes, planes, edges, titles, strict=True):
        np.testing.assert_array_equal(shown(axes)[0], plane)
        assert tuple(axes.images[0].get_extent()) == pytest.approx(box)
        assert axes.get_aspect() == 1
        assert axes.get_title() == title
        bar = axes.lines[-1].get_xdata()
        assert f"{bar[1] - bar[0]:g} mm" == axes.texts[0].get_text()
        assert 0.1 < (bar[1] - bar[0]) / (box[1] - box[0]) <= 0.3


def test_labels_choose_the_slices_and_have_a_colour_each() -> None:
    figure = plot_slices(ramp(), GRID, labels=labels(), names=["first", "second"])
    assert [axes.get_title() for axes in figure.axes] == ["x = 14 mm", "y = 2 mm", "z = 10 mm"]
    overlay = shown(figure.axes[2])[1]
    np.testing.assert_array_equal(overlay[..., 3] > 0, labels()[:, :, 2].T > 0)
    assert not np.array_equal(overlay[3, 2], overlay[6, 4])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]


def test_an_array_with_coordinates_needs_no_grid() -> None:
    nodes = [start + step * np.arange(n) for start, step, n in zip(GRID.starts, GRID.steps, GRID.sizes, strict=True)]
    array = xr.DataArray(ramp(), dict(zip("xyz", nodes, strict=True)), ("x", "y", "z"))
    for one in (array, array.isel(y=slice(None, None, -1))):
        figure = plot_slices(one, at=(1, 2, 3))
        np.testing.assert_array_equal(shown(figure.axes[0])[0], ramp()[1].T)


def test_disagreement_counts_and_colours_each_kind() -> None:
    predicted = labels()
    predicted[1, 3, 2], predicted[0, 3, 2], predicted[2, 3, 2] = 0, 1, 2
    figure = plot_disagreement(ramp(), predicted, labels(), GRID)
    counts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert counts == ["agree: 3", "missed: 1", "too much: 1", "other label: 1"]
    assert figure.axes[2].get_title() == "z = 10 mm"
    overlay = shown(figure.axes[2])[1]
    assert len({tuple(overlay[3, x]) for x in range(6)}) == 5  # four kinds, and nothing
    assert "agree: 5" in plot_disagreement(ramp(), labels(), labels(), GRID).legends[0].get_texts()[0].get_text()


def test_truth_stands_above_the_prediction_on_the_same_slices() -> None:
    truth, predicted = labels(), np.roll(labels(), 1, axis=1)
    figure = plot_prediction(ramp(), predicted, truth, GRID, names=["left", "right"], title="case")
    rows = np.array(figure.axes).reshape(3, 3)
    assert [row[0].get_ylabel().split("\n")[0] for row in rows] == ["truth", "predicted", "difference"]
    at = [float(axes.get_title().split()[2]) for axes in rows[0]]
    places = [round((value - axis.start) / axis.step) for value, axis in zip(at, GRID.axes, strict=True)]
    for normal in range(3):
        grey = [np.asarray(row[normal].images[0].get_array()) for row in rows]
        np.testing.assert_array_equal(grey[0], grey[1])
        drawn = [np.asarray(row[normal].images[1].get_array())[..., 3] > 0 for row in rows]
        wanted = [np.take(one, places[normal], normal).T > 0 for one in (truth, predicted)]
        np.testing.assert_array_equal(drawn, [*wanted, wanted[0] | wanted[1]])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    both = (truth > 0) & (predicted > 0)
    assert texts == [
        "left",
        "right",
        f"agree: {int((both & (truth == predicted)).sum())}",
        f"missed: {int(((truth > 0) & (predicted == 0)).sum())}",
        f"too much: {int(((truth == 0) & (predicted > 0)).sum())}",
        f"other label: {int((both & (truth != predicted)).sum())}",
    ]
    assert figure.get_suptitle() == "case"


def test_kernels_are_drawn_to_scale_with_a_row_each() -> None:
    kernels = {
        "fine": Kernel(SIREN(3, 2, 4), GaussianMask([1.0, 1.0, 1.0]), extent=[3.0] * 3),
        "coarse": Kernel(SIREN(3, 5, 4), GaussianMask([4.0, 4.0, 4.0]), extent=[12.0] * 3),
    }
    figure = plot_kernel_slices(kernels, channels=3)
    panels = np.array(figure.axes).reshape(2, 3)
    assert [len(axes.images) for axes in panels.flat] == [1, 1, 0, 1, 1, 1]
    assert panels[0, 0].get_title(loc="left").startswith("fine: 6.07 x 6.07 x 6.07 mm")
    fine, coarse = shown(panels[0, 0])[0], shown(panels[1, 0])[0]
    assert panels[0, 0].images[0].get_extent() == panels[1, 0].images[0].get_extent()
    # The fine kernel ends at a quarter of the picture.
    assert np.abs(fine[0:20]).max() == 0
    assert np.abs(coarse[0:20]).max() > 0
    middle = kernels["fine"](kernels["fine"].extent.new_zeros(1, 3)).detach().numpy()[0]
    assert fine[30, 30] == pytest.approx(float(middle[0]), rel=1e-5)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="grid must be given where values have no coordinates"):
        plot_slices(ramp())
    with pytest.raises(ValueError, match=r"values must have the grid's shape \(6, 8, 4\)"):
        plot_slices(ramp()[1:], GRID)
    with pytest.raises(ValueError, match="grid must have three axes"):
        plot_slices(ramp()[0], Grid((8, 4), (1.0, 1.0)))
    with pytest.raises(ValueError, match="labels must have the volume's shape"):
        plot_slices(ramp(), GRID, labels=labels()[1:])
    with pytest.raises(ValueError, match="at must be three indices inside"):
        plot_slices(ramp(), GRID, at=(0, 8, 0))
    with pytest.raises(ValueError, match="predicted and labels must have the volume's shape"):
        plot_disagreement(ramp(), labels()[1:], labels(), GRID)
    with pytest.raises(ValueError, match="predicted and labels must have the volume's shape"):
        plot_prediction(ramp(), labels()[1:], labels(), GRID)
    with pytest.raises(ValueError, match="kernels must hold one at least"):
        plot_kernel_slices({})
    flat = Kernel(SIREN(1, 2, 4), GaussianMask([1.0]), extent=[3.0])
    with pytest.raises(ValueError, match=r"kernels\['flat'\] must have two or three axes, got 1"):
        plot_kernel_slices({"flat": flat})
    endless = Kernel(SIREN(3, 2, 4), None, extent=[3.0] * 3)
    with pytest.raises(ValueError, match="have a mask that ends"):
        plot_kernel_slices({"endless": endless})


def test_the_dimensions_of_an_array_name_the_axes() -> None:
    array = xr.DataArray(
        np.random.default_rng(0).normal(size=(4, 6, 8)),
        dims=("z", "y", "x"),
        coords={"z": 3.0 * np.arange(4), "y": np.arange(6.0), "x": np.arange(8.0)},
    )
    panels = plot_slices(array, at=(1, 2, 3)).axes
    assert [axes.get_title().split(" = ")[0] for axes in panels] == ["z", "y", "x"]
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels] == [("y", "x"), ("z", "x"), ("z", "y")]
    assert panels[0].get_title() == "z = 3 mm"
    assert plot_slices(array.to_numpy(), Grid([4, 6, 8], [3.0, 1.0, 1.0])).axes[0].get_title().startswith("x = ")
