"""Maps: coastlines where they are to be had, plain axes where not."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from urllib.error import URLError

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ccnn_irregular.plotting_maps import plot_field_maps

COAST = np.array([[-100.0, 30.0], [-98.0, 31.0], [-96.0, 28.0]])


def install_cartopy(monkeypatch: pytest.MonkeyPatch, *, online: bool) -> list[str]:
    """A cartopy of one coast; returns the resolutions that are asked for."""
    asked: list[str] = []

    def natural_earth(resolution: str, category: str, name: str) -> str:
        assert (category, name) == ("physical", "coastline")
        asked.append(resolution)
        if not online:
            raise URLError("no network")
        return "coast.shp"

    line = types.SimpleNamespace(coords=COAST)
    several = types.SimpleNamespace(geoms=[types.SimpleNamespace(coords=COAST + 1), line])
    reader = types.SimpleNamespace(geometries=lambda: iter([line, several]))
    for name in ("cartopy", "cartopy.io", "cartopy.io.shapereader"):
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    vars(sys.modules["cartopy.io.shapereader"]).update(natural_earth=natural_earth, Reader=lambda _: reader)
    return asked


def drawn(names: tuple[str, str] = ("latitude", "longitude"), *, wide: bool = False) -> Figure:
    rng = np.random.default_rng(0)
    low, high = ([-60.0, 20.0], [60.0, 340.0]) if wide else ([26.0, -105.0], [36.0, -94.0])
    seen, asked = rng.uniform(low, high, (30, 2)), rng.uniform(low, high, (20, 2))
    return plot_field_maps(seen, seen[:, 0], asked, asked[:, 0], asked[:, 0] + 0.1, names=names, unit="K")


def coasts(figure: Figure) -> list[list[np.ndarray]]:
    """Vertices of the lines of each map."""
    found = []
    for axes in figure.axes[:4]:
        lines = [one for one in axes.collections if isinstance(one, LineCollection)]
        found.append([np.asarray(path.vertices) for one in lines for path in one.get_paths()])
    return found


def test_maps_get_the_coast_within_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = install_cartopy(monkeypatch, online=True)
    figure = drawn()
    assert asked == ["50m"]
    for lines in coasts(figure):
        assert len(lines) == 9  # three lines, each at home and one turn to either side
        assert any(np.array_equal(one, COAST) for one in lines)
        assert any(np.array_equal(one, COAST + np.array([360, 0])) for one in lines)
    west, east = figure.axes[0].get_xlim()
    assert -107 < west < -103
    assert -96 < east < -92
    drawn(wide=True)
    assert asked == ["50m", "110m"]


def test_without_network_maps_are_drawn_plain_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    install_cartopy(monkeypatch, online=False)
    with pytest.warns(UserWarning, match="without coastlines, which cartopy could not read: .*no network"):
        figure = drawn()
    assert coasts(figure) == [[], [], [], []]


def test_other_axes_and_machines_without_cartopy_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = install_cartopy(monkeypatch, online=True)
    assert coasts(drawn(("time", "pressure"))) == [[], [], [], []]
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    assert coasts(drawn()) == [[], [], [], []]
    assert asked == []


def test_a_field_on_a_grid_is_an_image_on_its_coordinates() -> None:
    rows, columns = np.array([30.0, 31.0, 33.0]), np.array([-5.0, 0.0, 5.0, 10.0])
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)[
        ::-1
    ]  # north first, as files have it
    truth = 10 * places[:, 0] + places[:, 1]
    seen = np.arange(12) % 5 == 0
    figure = plot_field_maps(
        places[seen],
        truth[seen],
        places[~seen],
        truth[~seen],
        truth[~seen] + 0.5,
        names=("y", "x"),
        units=("m", None),
        unit="K",
        nodes=(rows, columns),
    )
    observed, full, found, error = (axes.collections[0] for axes in figure.axes[:4])
    grid = 10 * rows[:, None] + columns
    known = seen[::-1].reshape(3, 4)
    np.testing.assert_array_equal(np.ma.getmaskarray(observed.get_array()), ~known)
    np.testing.assert_allclose(full.get_array(), grid)
    np.testing.assert_allclose(found.get_array(), np.where(known, grid, grid + 0.5))
    np.testing.assert_allclose(error.get_array()[~known], 0.5)
    assert full.get_clim() == found.get_clim() == observed.get_clim()
    corners = full.get_coordinates()
    assert corners[0, 0].tolist() == [-7.5, 29.5]
    assert corners[2, 0, 1] == 32.0  # half way from 31 to 33
    assert [axes.get_ylabel() for axes in figure.axes[:4:2]] == ["y (m)"] * 2
    assert figure.axes[2].get_xlabel() == "x"
    assert [axes.get_ylabel() for axes in figure.axes[4:]] == ["value, reconstructed too (K)", "error (K)"]


def test_places_without_a_value_are_not_drawn_and_change_no_colour() -> None:
    """As two variables that are not measured together have them."""
    rng = np.random.default_rng(1)
    seen, asked = rng.uniform(0, 10, (30, 2)), rng.uniform(0, 10, (20, 2))
    values, truth = rng.uniform(8, 22, 30), rng.uniform(8, 22, 20)
    values[[0, 7]], truth[3] = np.nan, np.nan
    estimates = np.where(np.isnan(truth), 15.0, truth + 0.5)
    figure = plot_field_maps(seen, values, asked, truth, estimates, names=("y", "x"), unit="")
    observed, known, found, error = (axes.collections[0] for axes in figure.axes[:4])
    assert [len(one.get_offsets()) for one in (observed, known, found, error)] == [28, 19, 20, 19]
    assert all(np.isfinite(np.ma.filled(one.get_array(), np.nan)).all() for one in (observed, known, found, error))
    low, high = np.percentile(np.concatenate([values, truth])[~np.isnan(np.concatenate([values, truth]))], [0.5, 99.5])
    assert observed.get_clim() == known.get_clim() == found.get_clim() == (low, high)
    assert figure.axes[0].get_title() == "28 observations"
    assert figure.axes[3].get_title() == "error, root mean square 0.5"
    assert figure.axes[5].get_ylabel() == "error"
    with pytest.raises(ValueError, match="observations must hold a value"):
        plot_field_maps(seen, np.full(30, np.nan), asked, truth, estimates, names=("y", "x"))
