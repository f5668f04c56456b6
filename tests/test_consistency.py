"""The consistency check: exact engines agree on the full grid, fewer samples cost accuracy, weights buy it back."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from pipelines_stand_in import STAYS
from torch import nn

from ccnn_irregular import (
    CCNN,
    ENGINES,
    SIREN,
    ContinuousConv,
    GaussianMask,
    Grid,
    Kernel,
    KernelSpec,
    SeparableContinuousConv,
)
from ccnn_irregular.adapters.xarray_files import Reading
from ccnn_irregular.consistency import ConsistencyReport, Field
from ccnn_irregular.networks import ResidualBlock
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.consistency import checkpoint_layer, read_netcdf, read_npz, smooth_layer
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.plotting import plot_consistency
from ccnn_irregular.plotting_maps import plot_answer_maps
from ccnn_irregular.testing import check_consistency

NAN = float("nan")
SMALL = Grid([16, 18], [1.0, 0.5], [1.0, -2.0], [False, True])
PLANE = Grid([40, 36], [0.5, 0.25], [1.0, -2.0], [False, True])
FAST = ["neighbours", "fft", "spectral"]
# KeOps compiles for seconds; one test takes it along.
EXACT = ["reference", "neighbours", "fft"]


def smooth(grid: Grid) -> torch.Tensor:
    """A Gaussian on the axes that end, a cosine and an offset on those that repeat."""
    nodes = grid.nodes()
    field = torch.full((grid.count,), 0.3, dtype=torch.float64)
    bump = torch.ones_like(field)
    for axis, one in enumerate(grid.axes):
        place = (nodes[:, axis] - one.start) / (one.size * one.step)
        if one.periodic:
            field += 0.5 * torch.cos(2 * math.pi * place)
        else:
            bump *= torch.exp(-((place - 0.45) ** 2) / 0.05)
    return (field + bump).reshape(grid.sizes)


def conv(grid: Grid, dtype: torch.dtype = torch.float64, steps: float = 3.0, **options) -> ContinuousConv:
    torch.manual_seed(0)
    width = [steps * step for step in grid.steps]
    kernel = Kernel(SIREN(grid.d, 1, 16, omega_0=2.0), GaussianMask(width), extent=[3 * w for w in width], **options)
    return ContinuousConv(kernel, bias=False).to(dtype)


def errors(report: ConsistencyReport, **wanted: object) -> list[float]:
    """Errors of the rows whose attributes are ``wanted``, in order."""
    rows = [row for row in report.rows if all(getattr(row, name) == value for name, value in wanted.items())]
    assert rows
    return [row.error for row in rows if row.error is not None]


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize(
    "grid", [Grid([101], [0.1]), Grid([64], [0.1], periodic=True), PLANE, Grid([9, 12, 10], [1.0, 0.5, 2.0])]
)
def test_engines_agree_on_the_full_grid(grid: Grid, dtype: torch.dtype, exact: float) -> None:
    layer = conv(grid, dtype, steps=2.0)
    report = check_consistency(
        layer, smooth(grid), grid, engines=[*EXACT, "spectral"], keep=[1.0], jitter=[], rtol=1e-4
    )
    assert [row.engine for row in report.rows] == [*EXACT, "spectral"]
    assert {row.rule for row in report.rows} == {"cell_volumes"}
    for row in report.rows:
        allowed = 2e-4 if row.engine == "spectral" else exact
        assert row.error is not None
        assert row.engine_error is not None
        assert max(row.error, row.engine_error) <= allowed, row
        assert row.largest_error is not None
        assert row.largest_error <= 2 * allowed
        assert row.nodes == grid.count
    assert report.interpolation is None


def test_keops_takes_part() -> None:
    grid = Grid([30], [0.1])
    report = check_consistency(conv(grid), smooth(grid), grid, engines=["keops", "fft"], keep=[1.0], jitter=[])
    assert max(errors(report)) < 1e-12
    assert len(report.rows) == 2


@pytest.mark.parametrize("grid", [Grid([400], [0.1], periodic=True), PLANE])
def test_fewer_samples_are_worse_and_weights_are_better(grid: Grid) -> None:
    # Wide enough that a fifth of the nodes can resolve it.
    layer = conv(grid, steps=25.0 if grid.d == 1 else 4.0)
    report = check_consistency(layer, smooth(grid), grid, engines=FAST, keep=[1, 0.5, 0.2], jitter=[])
    rule = "trapezoid" if grid.d == 1 else "voronoi"
    half, fifth = errors(report, rule=rule, engine="neighbours")
    assert 1e-6 < half < fifth < 0.2
    plain = errors(report, rule="plain_mean")
    assert half < plain[0] / 3
    assert fifth < plain[1] / 1.5
    # Half of the nodes without weights is half of the answer, a fifth of them a fifth.
    assert errors(report, rule="no weights") == pytest.approx([0.5, 0.8], abs=0.05)
    # At the same sampling, engines differ by rounding, or by rtol.
    for row in report.rows:
        if row.engine_error is not None:
            assert row.engine_error < (2e-3 if row.engine == "spectral" else 1e-12), row


def test_jittered_samples_with_weights_are_better() -> None:
    report = check_consistency(
        conv(PLANE, steps=4.0), smooth(PLANE), PLANE, engines=FAST, keep=[], jitter=[0, 0.25, 0.5]
    )
    small, large = errors(report, rule="voronoi", engine="neighbours")
    assert small < large < 0.01
    plain = errors(report, rule="plain_mean")
    assert small < plain[0] / 3
    assert large < plain[1] / 3
    assert errors(report, rule="cell_volumes", engine="neighbours")[0] < 1e-12  # jitter 0 is the full grid
    assert report.interpolation is not None
    assert report.interpolation.method == "cubic"
    assert 0 < report.interpolation.answer < 1e-3


@pytest.mark.parametrize(("factor", "wrong"), [(0.5, 0.5), (0.0, 1.0), (-1.0, 2.0)])
def test_a_wrong_engine_shows(factor: float, wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = type(ENGINES["neighbours"]).apply
    monkeypatch.setattr(type(ENGINES["neighbours"]), "apply", lambda *given: factor * right(*given))
    report = check_consistency(
        conv(PLANE), smooth(PLANE), PLANE, engines=[*EXACT, "spectral"], keep=[1, 0.5], jitter=[]
    )
    for row in report.rows:
        if row.engine == "neighbours":
            assert row.engine_error is None or row.engine_error == pytest.approx(wrong)
        elif row.rule == "cell_volumes":
            assert row.error is not None
            assert row.error < 2e-3
    assert errors(report, engine="neighbours", kept=1) == pytest.approx([wrong])


def test_a_wrong_answer_of_the_full_grid_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    right = type(ENGINES["fft"]).apply
    monkeypatch.setattr(type(ENGINES["fft"]), "apply", lambda *given: 0.5 * right(*given))
    report = check_consistency(conv(PLANE), smooth(PLANE), PLANE, engines=EXACT, keep=[1], jitter=[])
    own = {row.engine: row.engine_error for row in report.rows}
    assert own["fft"] == pytest.approx(0.5)
    assert own["neighbours"] == pytest.approx(0, abs=1e-12)
    assert errors(report, engine="neighbours") == pytest.approx([1.0])


def test_what_has_no_value_weighs_nothing() -> None:
    values = smooth(PLANE)
    values[10:25, 12:30] = NAN
    report = check_consistency(conv(PLANE, steps=4.0), values, PLANE, engines=EXACT, keep=[1, 0.5], jitter=[0.25])
    valid = int((~values.isnan()).sum())
    assert {row.nodes for row in report.rows if row.kept == 1 and row.jitter == 0} == {valid}
    # Points without the missing nodes against the FFT of the field with zeros there: two ways to the same sum.
    assert max(errors(report, rule="cell_volumes")) < 1e-12
    assert errors(report, kept=0.5, rule="voronoi")[0] < 0.1
    assert errors(report, jitter=0.25, rule="voronoi")[0] < 0.02
    assert report.interpolation is not None
    assert report.interpolation.method == "linear"
    assert f"{PLANE.count - valid} of {PLANE.count} nodes have no value" in str(report)


def test_the_answer_is_the_sum_over_the_valid_nodes() -> None:
    """A probe layer sees the same values and weights that the sum over all pairs is made of."""
    grid, values = Grid([6, 5], [0.5, 0.4]), torch.arange(30.0).reshape(6, 5)
    values[2, 3] = NAN
    layer = conv(grid)
    report = check_consistency(layer, values, grid, engines=["neighbours"], keep=[1.0], jitter=[], queries=29)
    nodes, flat = grid.nodes(), values.flatten()
    valid = ~flat.isnan()
    with torch.no_grad():
        kernel_values = layer.kernel((nodes[valid][:, None] - nodes[None, valid]).reshape(-1, 2)).reshape(29, 29)
    wanted = (kernel_values * 0.5 * 0.4) @ flat[valid].double()
    assert report.size == pytest.approx(float(wanted.square().mean().sqrt()), rel=1e-12)
    assert report.compared == 29


@pytest.mark.parametrize("head", ["dense", "classify"])
@pytest.mark.parametrize("latent", [None, Grid([8, 9], [2.0, 1.0], [1.0, -2.0])])
@pytest.mark.parametrize("holes", [False, True])
def test_networks(head: str, latent: Grid | None, holes: bool) -> None:
    torch.manual_seed(1)
    kernel = KernelSpec(extent=[6.0, 3.0], width=[2.0, 1.0], omega_0=2.0, generator="siren", hidden=8)
    network = CCNN(1, 2, 2, kernel=kernel, blocks=1, latent=latent, head=head).double()
    network.calibrate(SMALL)
    values = smooth(SMALL)
    if holes:
        values[3:9, 3:9] = NAN
    before = {name: one.clone() for name, one in network.state_dict().items()}
    report = check_consistency(network, values, SMALL, engines=FAST, keep=[1, 0.5], jitter=[0.25])
    assert errors(report, rule="cell_volumes", engine="neighbours")[0] < 1e-11
    assert errors(report, rule="cell_volumes", engine="spectral")[0] < 2e-3
    weighed = errors(report, kept=0.5, rule="voronoi")[0]
    assert weighed < errors(report, rule="no weights")[0] / 3
    assert errors(report, jitter=0.25, rule="voronoi")[0] < 0.05
    # The network is as it was.
    assert network.training
    assert all(bool((one == before[name]).all()) for name, one in network.state_dict().items())
    assert {module.solver.engine for module in network.modules() if isinstance(module, ContinuousConv)} == {"auto"}


def test_layers_of_several_channels() -> None:
    torch.manual_seed(0)
    kernel = KernelSpec(extent=[6.0, 3.0], width=[1.5, 0.75], omega_0=2.0, generator="siren")(2)
    values = torch.stack([smooth(PLANE), 1 - smooth(PLANE).square()]).numpy()
    for layer in (SeparableContinuousConv(kernel, 3), ResidualBlock(2, kernel), nn.Sequential(ContinuousConv(kernel))):
        if isinstance(layer, nn.Sequential):
            with pytest.raises(TypeError):  # not called as layer(values, source)
                check_consistency(layer, values, PLANE, engines=FAST, keep=[1], jitter=[])
            continue
        report = check_consistency(layer, values, PLANE, engines=FAST, keep=[1, 0.5], jitter=[])
        assert max(errors(report, rule="cell_volumes")) < 1e-3
        assert errors(report, rule="voronoi")[0] < errors(report, rule="no weights")[0] / 3


def test_what_is_too_expensive_or_does_not_serve_is_left_out() -> None:
    options = {"engines": FAST, "keep": [1], "jitter": [], "limit_seconds": 1e-9}
    # An error that no approximation promises.
    report = check_consistency(conv(PLANE), smooth(PLANE), PLANE, rtol=1e-14, **options)
    notes = {row.engine: row.note for row in report.rows}
    assert notes["spectral"].startswith("left out: rtol 1e-14 ")
    assert notes["neighbours"] == "left out: predicted to take longer than 1e-09 s"
    assert all(row.error is None and row.seconds is None for row in report.rows)
    assert "left out: predicted to take longer" in str(report)
    with pytest.raises(ValueError, match="report must hold an evaluated sampling besides the full grid"):
        plot_consistency(report)
    values = smooth(PLANE)
    values[0, 0] = NAN
    block = ResidualBlock(1, conv(PLANE).kernel)
    with pytest.raises(ValueError, match="limit_seconds must allow for the exact answer from all nodes with a value"):
        check_consistency(block, values, PLANE, engines=FAST, keep=[1], jitter=[], limit_seconds=1e-9)


@pytest.mark.parametrize("grid", [PLANE, Grid([200], [0.1]), Grid([6, 5, 4, 8], [1.0, 2.0, 0.5, 1.0])])
def test_weights_fill_the_grid(grid: Grid) -> None:
    for sampling in (Field(smooth(grid), grid).thinned(0.3), Field(smooth(grid), grid).jittered(0.4)):
        rule = {1: "trapezoid", 2: "voronoi", 4: "density_compensation"}[grid.d]
        assert next(iter(sampling.weights)) == rule
        for name in (rule, "plain_mean"):
            assert float(sampling.weights[name].sum()) == pytest.approx(grid.count * grid.cell_volume)


def test_weights_know_no_seam() -> None:
    """On axes that repeat, samples that are moved round keep their weights."""
    from ccnn_irregular.consistency.field import _recommended

    for grid in (Grid([300], [1.0], periodic=True), Grid([20, 24], [1.0, 1.0], periodic=True)):
        rng = torch.Generator().manual_seed(0)
        sizes = torch.tensor(grid.sizes, dtype=torch.float64)
        positions = torch.rand(60, grid.d, generator=rng, dtype=torch.float64) * sizes - 0.5
        moved = torch.remainder(positions + 7.3 + 0.5, sizes) - 0.5
        assert torch.allclose(_recommended(positions, grid)[1], _recommended(moved, grid)[1], rtol=1e-6)


def test_jittered_values_are_those_of_the_function() -> None:
    field = Field(smooth(PLANE), PLANE, seed=3)
    sampling = field.jittered(0.5)
    starts, steps = torch.tensor(PLANE.starts), torch.tensor(PLANE.steps)
    place = (sampling.coordinates - starts) / (torch.tensor(PLANE.sizes) * steps)
    wanted = 0.3 + 0.5 * torch.cos(2 * math.pi * place[:, 1]) + torch.exp(-((place[:, 0] - 0.45) ** 2) / 0.05)
    assert float((sampling.values[:, 0] - wanted).abs().max()) < 2e-4
    offsets = (sampling.coordinates - PLANE.nodes()) / steps
    offsets[:, 1] -= 36 * torch.round(offsets[:, 1] / 36)
    assert 0.49 < float(offsets.abs().max()) <= 0.5 + 1e-12
    assert float(sampling.coordinates[:, 0].min()) >= 1.0
    assert torch.equal(Field(smooth(PLANE), PLANE, seed=3).jittered(0.5).values, sampling.values)
    assert not torch.equal(Field(smooth(PLANE), PLANE, seed=4).jittered(0.5).values, sampling.values)


def test_thinned_samples_are_nodes_and_nested() -> None:
    field = Field(smooth(PLANE), PLANE)
    many, few = field.thinned(0.5), field.thinned(0.1)
    assert set(few.nodes.tolist()) < set(many.nodes.tolist())
    assert len(few.nodes) == round(0.1 * PLANE.count)
    assert torch.equal(few.coordinates, PLANE.nodes()[few.nodes])
    assert torch.equal(few.values[:, 0], smooth(PLANE).flatten()[few.nodes])
    assert torch.all(field.queries(50).diff() > 0)


def test_every_second_node_of_a_line_is_interpolated() -> None:
    grid = Grid([10], [1.0])
    values, left_out = Field(torch.arange(10.0).square(), grid).from_every_second_node()
    # The last node lies beyond the last one that is kept.
    assert left_out.tolist() == [False, True, False, True, False, True, False, True, False, False]
    assert values[0].tolist() == pytest.approx([float(k * k) for k in range(10)], abs=1e-9)  # a cubic is exact


def test_progress_and_csv() -> None:
    said: list[tuple[int, int, str]] = []
    report = check_consistency(
        conv(PLANE),
        smooth(PLANE),
        PLANE,
        engines=FAST,
        keep=[1, 0.5],
        jitter=[],
        progress=lambda *what: said.append(what),
    )
    assert said[0] == (0, 2, "full grid: neighbours")
    assert said[-1] == (1, 2, "50 % of the nodes: no weights")
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(rows) == len(report.rows)
    for text, row in zip(rows, report.rows, strict=True):
        assert (text["sampling"], text["engine"], text["rule"]) == (row.sampling, row.engine, row.rule)
        assert float(text["error"]) == row.error
        assert (text["engine_error"] == "") == (row.engine_error is None)
    assert len(str(report).splitlines()[0].split()) > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": [0.5, 0.0]}, r"keep must lie in \(0, 1\], got 0.0"),
        ({"keep": [1.5]}, r"keep must lie in \(0, 1\], got 1.5"),
        ({"keep": [NAN]}, r"keep must lie in \(0, 1\], got nan"),
        ({"jitter": [-0.1]}, "jitter must not be negative, and finite, got -0.1"),
        ({"jitter": [math.inf]}, "jitter must not be negative, and finite, got inf"),
        ({"keep": [], "jitter": []}, "keep and jitter must name at least one sampling, got none"),
        ({"engines": ["magic"]}, "engines must be of reference, neighbours, .*, got 'magic'"),
        ({"queries": 0}, "queries must be at least 1, got 0"),
        ({"rtol": 1.0}, "rtol must lie between 0 and 1, got 1.0"),
        ({"limit_seconds": 0}, "limit_seconds must be positive, got 0"),
        (
            {"values": torch.full(PLANE.sizes, NAN)},
            "values must hold at least one node with a value, got nan everywhere",
        ),
        ({"values": torch.full(PLANE.sizes, math.inf)}, "values must be finite or nan, got inf"),
        ({"values": torch.zeros(4, 4)}, r"values must have shape \(C, \*sizes\) with sizes \(40, 36\), got \(4, 4\)"),
        (
            {"values": torch.zeros(PLANE.sizes)},
            "layer must answer with something else than zeros, got zeros everywhere",
        ),
        ({"layer": nn.Linear(2, 2)}, "layer must hold a continuous convolution, got Linear"),
        ({"layer": conv(Grid([9], [1.0]))}, "layer must have kernels of the grid's 2 axes, got 1"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    given = {"layer": conv(PLANE), "values": smooth(PLANE), "grid": PLANE} | options
    with pytest.raises(ValueError, match=message):
        check_consistency(given.pop("layer"), given.pop("values"), given.pop("grid"), **given)


def test_a_sampling_without_any_value_is_refused() -> None:
    values = torch.full((50,), NAN)
    values[7] = 1.0
    grid = Grid([50], [1.0])
    missed = next(seed for seed in range(20) if Field(torch.arange(50.0), grid, seed).thinned(0.02).nodes[0] != 7)
    with pytest.raises(ValueError, match="keep must leave at least one node with a value, got none of 1 nodes"):
        Field(values, grid, missed).thinned(0.02)


def test_plots_show_the_rows() -> None:
    values = smooth(PLANE)
    layer = conv(PLANE, torch.float32)
    report = check_consistency(layer, values, PLANE, engines=FAST, keep=[1, 0.5, 0.2], jitter=[0.25])
    figure = plot_consistency(report, title="a field")
    thinned, jittered = figure.axes
    (line,) = [line for line in thinned.get_lines() if line.get_color() == "#0072B2"]
    np.testing.assert_array_equal(line.get_xdata(), [0.5, 0.2])
    assert list(line.get_ydata()) == errors(report, rule="voronoi", engine="neighbours", jitter=0)
    assert thinned.get_xscale() == thinned.get_yscale() == "log"
    assert [label.get_text() for label in thinned.get_xticklabels()] == ["20 %", "50 %", "100 %"]
    assert jittered.get_xlabel() == "largest displacement (grid steps)"
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"sampling: voronoi", "sampling: no weights", "engine: spectral", "engine: neighbours"} <= labels


def test_maps_show_the_answers_and_their_difference() -> None:
    full = np.arange(12.0).reshape(3, 4)
    full[0, 0] = NAN
    grid = Grid([3, 4], [1.0, 2.0], [10.0, 20.0])
    figure = plot_answer_maps(
        full, full + 1, grid, sampling="half", names=("lat", "lon"), units=("deg", "deg"), unit="K"
    )
    images = [axes.get_images()[0] for axes in figure.axes[:3]]
    np.testing.assert_array_equal(images[2].get_array().filled(NAN)[1], np.ones(4))
    assert images[0].get_clim() == images[1].get_clim() == (1.0, 12.0)
    assert images[2].get_clim() == (-1.0, 1.0)
    assert images[0].get_extent() == [19.0, 27.0, 9.5, 12.5]
    assert figure.axes[2].get_xlabel() == "lon (deg)"
    assert [axes.get_ylabel() for axes in figure.axes[3:]] == ["answer (K)", "difference (K)"]
    with pytest.raises(ValueError, match="grid must have two axes to be drawn as a map, got 1"):
        plot_answer_maps(full, full, Grid([3], [1.0]), sampling="half")
    with pytest.raises(ValueError, match=r"full and sampled must have the grid's shape \(3, 4\)"):
        plot_answer_maps(full[:2], full, grid, sampling="half")


# Files and the command line.


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    grid = Grid([24, 30], [2.0, 12.0], [-23.0, 0.0], [False, True])
    values = smooth(grid).numpy()
    np.savez("one.npz", field=values)
    np.savez("two.npz", field=values, other=values[0])
    whole = Path("one.npz").read_bytes()
    Path("cut.npz").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2  # of the values: the list of what is inside is whole
    Path("end.npz").write_bytes(whole[:middle] + bytes(255 - byte for byte in whole[middle:][:4]) + whole[middle + 4 :])
    np.savez("deep.npz", field=np.zeros((2,) * 5))
    np.savez("words.npz", field=np.array(["a", "b"]))
    levels = np.stack([values, 2 * values])
    data = xarray.Dataset(
        {
            "t": (("level", "latitude", "longitude"), levels[:, ::-1], {"units": "K"}),
            "deep": (tuple("abcde"), np.zeros((2,) * 5)),
            "monthly": (("time",), np.arange(6.0)),
            "daily": (("day", "x"), np.ones((5, 4)), {"units": "m"}),
            "flat": (("x", "one"), np.ones((4, 1))),
            "empty": (("x",), np.full(4, NAN)),
        },
        {
            "level": [200, 500],
            "latitude": ("latitude", 23.0 - 2.0 * np.arange(24), {"units": "degrees_north"}),
            "longitude": ("longitude", 12.0 * np.arange(30), {"units": "degrees_east"}),
            "time": np.array([f"2001-{month:02}-01" for month in range(1, 7)], dtype="datetime64[ns]"),
            "day": np.array([f"2001-01-{day:02}" for day in range(3, 8)], dtype="datetime64[ns]"),
        },
    )
    data.to_netcdf("field.nc", engine="h5netcdf")
    return tmp_path


def test_a_netcdf_variable_is_read_onto_its_axes(files: Path) -> None:
    read = read_netcdf(files / "field.nc", "t", ["level=500"])
    assert read.grid == Grid([24, 30], [2.0, 12.0], [-23.0, 0.0], [False, True])
    np.testing.assert_array_equal(read.values, 2 * smooth(read.grid).numpy())  # latitudes fall in the file
    assert (read.name, read.unit, read.axes) == ("t level=500", "K", ("latitude", "longitude"))
    assert read.units == ("degrees_north", "degrees_east")
    assert "axis 'latitude' falls in the file and was flipped" in read.notes
    assert "axis 'longitude' goes round the globe and repeats after 360 degrees" in read.notes
    np.testing.assert_array_equal(read_netcdf(files / "field.nc", "t", [], ["level=1"]).values, read.values)
    daily = read_netcdf(files / "field.nc", "daily")
    assert daily.units == ("days since 2001-01-03", "node")
    assert daily.grid == Grid([5, 4], [1.0, 1.0])
    assert read_netcdf(files / "field.nc", "daily", ["day=2001-01-05"]).axes == ("x",)
    flat = read_netcdf(files / "field.nc", "flat")
    assert (flat.axes, flat.notes) == (("x",), ("axis 'one' of length 1 was dropped",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("field.nc",), "variable must be named, since the file holds t, deep, monthly, daily, flat, empty, got none"),
        (("field.nc", "--variable", "z"), "variable must be one of those in the file: t, deep, monthly, daily, flat"),
        (("field.nc", "--variable", "t", "--select", "level=300"), "select level must be one of 200, 500 (or --index"),
        (("field.nc", "--variable", "t", "--select", "level=low"), "select level must be one of 200, 500 (or --index"),
        (
            ("field.nc", "--variable", "t", "--select", "height=1"),
            "select must name an axis of the variable: level, lat",
        ),
        (("field.nc", "--variable", "t", "--select", "level"), "select must have the form axis=value, got 'level'"),
        (("field.nc", "--variable", "t", "--index", "level=2"), "index level must be a number from 0 to 1, got '2'"),
        (
            ("field.nc", "--variable", "daily", "--select", "x=1"),
            "select x must be done with index, since that axis has",
        ),
        (
            ("field.nc", "--variable", "deep"),
            "variable must have 1 to 4 axes longer than 1 (select nodes of the others)",
        ),
        (("field.nc", "--variable", "flat", "--index", "x=1"), "variable must have 1 to 4 axes longer than 1"),
        (("field.nc", "--variable", "empty"), "values must hold at least one node with a value, got nan everywhere"),
        (
            ("field.nc", "--variable", "monthly"),
            "axis 'time' must be uniform from 0 to 151 over 6 nodes, got node 2 at 59, 1.4 days, ",
        ),
        (("two.npz",), "array must be named, since the file holds field, other, got none"),
        (("two.npz", "--variable", "z"), "array must be one of those in the file: field, other, got 'z'"),
        (("deep.npz",), "variable must have 1 to 4 axes longer than 1"),
        (("cut.npz", "--spacing", "1"), "cut.npz must be a complete .npz file of numbers, got a damaged one"),
        (("end.npz",), "end.npz must be a complete .npz file of numbers, got a damaged one"),
        (("words.npz",), "array 'field' must hold numbers, got <U1"),
        (("one.npz", "--spacing", "1", "2", "3"), "spacing must be one number, or one for each of 2 axes"),
        (("one.npz", "--spacing", "0"), "step must be positive and finite, got 0.0"),
        (("one.npz", "--periodic", "2"), "periodic must name axes from 0 to 1, got [2]"),
        (("one.npz", "--select", "x=1"), "select and index must be used with netCDF files, got ['x=1']"),
        (("one.npz", "--keep", "1.2"), "keep must lie in (0, 1], got 1.2"),
        (("one.npz", "--jitter", "-1"), "jitter must not be negative, and finite, got -1.0"),
        (("one.npz", "--kernel-width", "1", "2", "3"), "kernel_width must be one number, or one for each of 2 axes"),
        (("one.npz", "--checkpoint", "none.ckpt"), "checkpoint must be a file, got none.ckpt"),
        (("one.npz", "--checkpoint", "one.npz"), "checkpoint must be one that 'ccnn fit' wrote, got one.npz"),
        (("none.nc",), "file must exist, got none.nc"),
        (("one.npz", "--output", "."), "output must be a new or empty folder (--overwrite replaces the results in it)"),
    ],
)
def test_bad_files_and_options(
    files: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["consistency", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (files / "consistency").exists()


def test_the_command_writes_table_report_and_pictures(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "consistency",
        "field.nc",
        "--variable",
        "t",
        "--index",
        "level=1",
        "--keep",
        "1",
        "0.5",
        "--jitter",
        "0",
    ]
    cli.main([*command, "--kernel-width", "4", "24", "--engines", *FAST, "--output", "out"])
    printed = capsys.readouterr().out
    names = {path.name for path in (files / "out").iterdir()}
    assert names == {"consistency.csv", "report.txt", "errors.png", "maps.png"}
    report = (files / "out" / "report.txt").read_text()
    assert report in printed.replace("\r", "")
    assert "t level=1 (K)" in report
    assert "longitude: 30 nodes, step 12 degrees_east, from 0 degrees_east, repeats" in report
    with (files / "out" / "consistency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["engine"] for row in rows] == [*FAST, "neighbours", "spectral", "neighbours", "neighbours"]
    assert all(float(row["error"]) < 2e-3 for row in rows[:3])
    for picture in ("errors.png", "maps.png"):
        assert (files / "out" / picture).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(SystemExit):
        cli.main([*command, "--output", "out"])
    assert "output must be a new or empty folder" in capsys.readouterr().err
    cli.main([*command, "--engines", "fft", "neighbours", "--anomaly", "--output", "out", "--overwrite"])
    assert "was subtracted" in (files / "out" / "report.txt").read_text()


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian", "standard"])
def test_a_date_of_any_calendar_is_chosen(calendar: str, tmp_path: Path) -> None:
    times = xarray.date_range("2001-02-20", periods=12, freq="D", calendar=calendar, use_cftime=True)
    cube = xarray.Dataset({"t": (("time", "x"), np.arange(60.0).reshape(12, 5))}, {"time": times})
    cube.to_netcdf(tmp_path / "days.nc", engine="h5netcdf")
    for text, row in (("2001-02-21", 1), ("2001-02-28T00:00", 8), ("2001-03", 11 if calendar == "360_day" else 9)):
        read = read_netcdf(tmp_path / "days.nc", "t", [f"time={text}"])
        np.testing.assert_array_equal(read.values, 5 * row + np.arange(5.0))
    with pytest.raises(ValueError, match="select time must be one of 2001-02-20"):
        read_netcdf(tmp_path / "days.nc", "t", ["time=2001-04-31"])


def test_a_model_year_of_360_days_is_uniform(tmp_path: Path) -> None:
    time = {"units": "days since 1970-01-01", "calendar": "360_day", "bounds": "time_bnds"}
    ends = 30.0 * np.stack([np.arange(5) - 0.5, np.arange(5) + 0.5], axis=1)
    variables = {"t": (("time",), np.arange(5.0)), "time_bnds": (("time", "ends"), ends)}
    data = xarray.Dataset(variables, {"time": ("time", 30.0 * np.arange(5), time)})
    data.to_netcdf(tmp_path / "model.nc", engine="h5netcdf")
    read = read_netcdf(tmp_path / "model.nc")
    assert read.grid == Grid([5], [30.0])
    assert read.units == ("days since 1970-01-01",)


@pytest.mark.parametrize(
    ("nodes", "units", "step", "unit"),
    [
        ([0, 66_000, 132_000, 198_000], "days since 1690-01-01", 66_000, "days since 1690-01-01"),
        ([0, 6, 12, 18], "hours since 2490-06-01", 0.25, "days since 2490-06-01"),
        ([0, 12, 24, 36], "months since 2001-01-01", 365, "days since 2001-01-01"),
    ],
)
def test_times_far_apart_far_off_and_in_months(
    nodes: list[int], units: str, step: float, unit: str, tmp_path: Path
) -> None:
    data = xarray.Dataset({"t": ("time", np.arange(4.0))}, {"time": ("time", nodes, {"units": units})})
    data.to_netcdf(tmp_path / "far.nc", engine="h5netcdf")
    read = read_netcdf(tmp_path / "far.nc")
    assert read.grid == Grid([4], [step])
    assert read.units == (unit,)


def test_fractions_of_months_as_the_command_says(tmp_path: Path) -> None:
    """Shares of the month they are in: 15.5, 14 and 15.5 days of January, February and March."""
    time = {"units": "months since 2001-01-01"}
    data = xarray.Dataset({"t": ("time", np.arange(7.0))}, {"time": ("time", np.arange(7) / 14 + 1, time)})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    read = read_netcdf(tmp_path / "a.nc", reading=Reading(months="calendar"))
    assert read.grid == Grid([7], [2.0])
    assert read.units == ("days since 2001-02-01",)
    month = 365.242198781 / 12
    mean = read_netcdf(tmp_path / "a.nc", reading=Reading(months="mean"))
    assert mean.grid.axes[0].step == pytest.approx(month / 14, rel=1e-9)
    with pytest.raises(ValueError, match=r"be whole numbers, or be told .* got \[1.07"):
        read_netcdf(tmp_path / "a.nc")
    words = [str(tmp_path / "a.nc"), "--keep", "1", "--jitter", "0", "--engines", "neighbours", "--kernel-width", "4"]
    cli.main(["consistency", *words, "--months", "calendar", "--output", str(tmp_path / "report")])
    assert (tmp_path / "report" / "report.txt").exists()


@pytest.mark.parametrize("units", ["degrees_west", "degreesW"])
def test_degrees_west_are_longitudes(units: str, tmp_path: Path) -> None:
    degrees = np.arange(0.0, 360, 30)
    data = xarray.Dataset({"t": ("lon", np.arange(12.0))}, {"lon": ("lon", degrees, {"units": units})})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    read = read_netcdf(tmp_path / "a.nc")
    assert read.grid == Grid([12], [30.0], [-330.0], periodic=[True])
    assert read.units == ("degrees_east",)
    np.testing.assert_array_equal(read.values, np.arange(12.0)[::-1])


def test_reading_options_of_the_command(tmp_path: Path) -> None:
    """Values outside the valid range, and a variable in a group."""
    values = np.array([1.0, 2.0, 99.0, 4.0, 5.0])
    data = xarray.Dataset({"t": (("x",), values, {"valid_max": 50.0})}, {"x": np.arange(5.0)})
    data.to_netcdf(tmp_path / "a.nc", group="run", engine="h5netcdf")
    read = read_netcdf(tmp_path / "a.nc", reading=Reading(group="run"))
    np.testing.assert_array_equal(read.values, [1, 2, NAN, 4, 5])
    with pytest.raises(ValueError, match=r"in one group, or be opened with group=.*'/run'"):
        read_netcdf(tmp_path / "a.nc")
    words = [str(tmp_path / "a.nc"), "--keep", "1", "--jitter", "0", "--engines", "neighbours", "--kernel-width", "2"]
    for name, more in (("masked", []), ("all", ["--all-values"])):
        cli.main(["consistency", *words, "--group", "run", *more, "--output", str(tmp_path / name)])
    reports = [(tmp_path / name / "report.txt").read_text() for name in ("masked", "all")]
    assert reports[0] != reports[1]


def test_an_array_of_an_npz_file(files: Path) -> None:
    read = read_npz(files / "one.npz", None, [2.0, 12.0], [1])
    assert read.grid == Grid([24, 30], [2.0, 12.0], periodic=[False, True])
    np.testing.assert_array_equal(read.values, smooth(Grid([24, 30], [2.0, 12.0], periodic=[False, True])).numpy())


def test_the_smooth_kernel_averages() -> None:
    offsets = torch.linspace(-3, 3, 6001)[:, None]
    drawn = [smooth_layer(Grid([61], [0.1]), [0.8], seed).kernel(offsets).detach() for seed in range(3)]
    for values in drawn:
        assert float(values.min()) > -1e-6  # rounding at the mask's end
        assert float(values.sum() * 1e-3) == pytest.approx(1, rel=1e-3)
    assert not torch.allclose(drawn[0], drawn[1])


def checkpoint(path: Path, network: SeriesNetwork, arguments: dict, class_path: str) -> Path:
    """A file like those of ``ccnn fit``."""
    options = {"class_path": class_path, "init_args": arguments}
    state = {f"network.{name}": one for name, one in network.state_dict().items()}
    torch.save({"hyper_parameters": {"network": options}, "state_dict": state}, path)
    return path


def test_a_kernel_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = STAYS | {"width": 4.0, "hidden_channels": 8, "blocks": 1, "knots": 2}
    torch.manual_seed(3)
    network = SeriesNetwork(**arguments)
    arguments["schema"] = asdict(arguments["schema"])
    wanted = network.kernels()["stem"]
    name = "ccnn_irregular.pipelines.tasks.series.network.SeriesNetwork"
    path = checkpoint(tmp_path / "best.ckpt", network, arguments, name)
    layer = checkpoint_layer(path, "stem")
    offsets = torch.linspace(-5, 5, 11)[:, None]
    assert torch.equal(layer.kernel(offsets), wanted(offsets))
    assert torch.equal(checkpoint_layer(path, "members.0.cnn.stem.depthwise").kernel(offsets), wanted(offsets))
    with pytest.raises(ValueError, match=r"layer must be one of .*stem, blocks\.0\.conv, got 'head'"):
        checkpoint_layer(path, "head")
    other = checkpoint(tmp_path / "other.ckpt", network, arguments, "os.system")
    with pytest.raises(ValueError, match=f"checkpoint must hold a {name}, got os.system"):
        checkpoint_layer(other, "stem")
    np.savez("series.npz", smooth(Grid([96], [0.5])).numpy())
    command = ["consistency", "series.npz", "--spacing", "0.5", "--checkpoint", "best.ckpt", "--engines", *FAST]
    cli.main([*command, "--keep", "1", "0.5", "--jitter", "0.25", "--output", "out"])
    with (tmp_path / "out" / "consistency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["error"]) < 2e-3 for row in rows[:3])
    assert not (tmp_path / "out" / "maps.png").exists()
    assert "The kernel has 111 channels" in (tmp_path / "out" / "report.txt").read_text()


def test_a_measured_field(shared_data: Path) -> None:
    path = shared_data / "climate" / "xarray_eraint_uvz.nc"
    if not path.is_file():
        pytest.skip(f"no ERA-Interim file: {path} is absent")
    read = read_netcdf(path, "z", ["level=500"], ["month=0"])
    assert read.grid.sizes == (241, 480)
    assert read.grid.periodic == (False, True)
    assert read.unit == "m**2 s**-2"
    layer = smooth_layer(read.grid, [3.0])
    report = check_consistency(layer, read.values, read.grid, engines=FAST[:2], keep=[1, 0.2], jitter=[], queries=64)
    assert max(errors(report, rule="cell_volumes")) < 2e-3
    weighed, plain, none = (errors(report, kept=0.2, rule=rule)[0] for rule in ("voronoi", "plain_mean", "no weights"))
    assert weighed < plain / 3
    assert plain < none


def test_the_error_falls_with_the_gaps() -> None:
    """Trapezoid weights on random nodes of a line: the error falls faster than one over the root of their number."""
    line = Grid([4000], [0.01], periodic=True)
    layer = conv(line, steps=120.0)
    report = check_consistency(
        layer, smooth(line), line, engines=["neighbours"], keep=[0.4, 0.05], jitter=[], queries=64
    )
    many, few = errors(report, rule="trapezoid")
    assert many < few / 8
