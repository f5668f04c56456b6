"""GRIB files of one's own from fit to answers for files that training never saw: gaps filled, fields made finer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ccnn_irregular.adapters.xarray_files import open_cube
from ccnn_irregular.datasets.cube import load
from ccnn_irregular.pipelines import cli

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:ccnn_irregular"),
]

QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
MISSING = 9999.0
Field = Callable[[NDArray[np.float64], NDArray[np.float64], int], NDArray[np.float64]]


def smooth(latitude: NDArray[np.float64], longitude: NDArray[np.float64], day: int) -> NDArray[np.float64]:
    return 280 + 5 * np.sin(latitude / 4 + day) + 3 * np.cos(longitude / 5 - day)


def write(path: Path, days: range, *, step: float = 1.0, size: int = 12, gaps: bool = False) -> Path:
    """Temperatures at 2 m, a message a day, as ECMWF writes them: from north to south, missing values by a bitmap."""
    rng = np.random.default_rng(len(days))
    nodes = step * np.arange(size)
    latitude, longitude = (one.ravel() for one in np.meshgrid(60 - nodes, 5 + nodes, indexing="ij"))
    with path.open("wb") as file:
        for day in days:
            handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            keys = {
                "Ni": size,
                "Nj": size,
                "latitudeOfFirstGridPointInDegrees": 60,
                "latitudeOfLastGridPointInDegrees": 60 - nodes[-1],
                "longitudeOfFirstGridPointInDegrees": 5,
                "longitudeOfLastGridPointInDegrees": 5 + nodes[-1],
                "iDirectionIncrementInDegrees": step,
                "jDirectionIncrementInDegrees": step,
                "shortName": "2t",
                "dataDate": 20200101 + day,
                "bitsPerValue": 24,
            }
            values = smooth(latitude, longitude, day)
            if gaps:
                keys |= {"bitmapPresent": 1, "missingValue": MISSING}
                values[rng.random(len(values)) < 0.3] = MISSING
            for name, value in keys.items():
                eccodes.codes_set(handle, name, value)
            eccodes.codes_set_values(handle, values)
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return path


def test_gaps_of_grib_are_filled_with_nothing_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("old.grib"), range(8), gaps=True)
    write(Path("new.grib"), range(20, 23), gaps=True)
    run = ["--run_dir", "run", *QUIET]
    short = ["--trainer.max_epochs", "1", "--data.draws", "4", "--data.watched_fields", "2"]
    cli.main(["fit", "--config", "cubes", "--data.root", "old.grib", *run, *short, "--model.sizes.latent_step", "0"])
    assert "8 fields of t2m over latitude, longitude (--data.variables, .axes, .fields, .stacked)" in (
        capsys.readouterr().out
    )
    cli.main(["predict", *run, "--data.root", "new.grib", "--output", "answers.nc"])
    given = open_cube("new.grib")
    with xr.open_dataset("answers.nc", engine="h5netcdf") as answers:
        assert answers.t2m.shape == given.t2m.shape == (3, 12, 12)
        for name in given.coords:
            np.testing.assert_array_equal(answers[name].values, given[name].values)
            assert answers[name].attrs == given[name].attrs
        assert answers.latitude.attrs["units"] == "degrees_north"
        places = np.meshgrid(given.latitude, given.longitude, indexing="ij")
        truth = np.stack([smooth(*places, day) for day in range(20, 23)])
        gaps = given.t2m.isnull().values
        assert 0.2 < gaps.mean() < 0.4
        assert np.abs(answers.t2m.values - truth)[gaps].mean() < 0.5
        np.testing.assert_array_equal(answers.t2m.values[~gaps], given.t2m.values[~gaps])
        assert bool((answers.t2m_std > 0).all())
    told = f"{gaps.sum()} values estimated, {(~gaps).sum()} as measured (--predict.smoothed true estimates them too)"
    assert told in capsys.readouterr().out
    cli.main(["predict", *run, "--data.root", "new.grib", "--output", "smooth.nc", "--predict.smoothed", "true"])
    with xr.open_dataset("smooth.nc", engine="h5netcdf") as smoothed:
        changed = np.abs(smoothed.t2m.values - given.t2m.values)[~gaps]
        assert 0 < changed.max() < 2
    drawn: list[Figure] = []
    monkeypatch.setattr("ccnn_irregular.pipelines.tasks.field.figures.save", lambda figure, path: drawn.append(figure))
    cli.main(["test", *run, "--data.root", "new.grib", "--data.evaluate", "all"])
    for figure in drawn:
        _, known, found, _ = (axes.collections[0] for axes in figure.axes[:4])
        assert np.ma.getmaskarray(known.get_array()).any()
        assert not np.ma.getmaskarray(found.get_array()).any()
        assert figure.axes[1].get_title() == "truth (grey: not known)"
        assert figure.axes[2].get_title() == "reconstruction, observations kept"
    assert len(drawn) == 3


def test_dimensions_are_found_or_asked_for(tmp_path: Path) -> None:
    cube = xr.Dataset(
        {name: (("level", "lat", "time", "lon"), np.random.default_rng(0).normal(size=(2, 4, 3, 5))) for name in "tu"},
        {
            "level": ("level", [850.0, 500.0], {"units": "hPa"}),
            "lat": ("lat", np.arange(4.0), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(5.0), {"units": "degrees_east"}),
            "time": np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ns]"),
        },
    )
    cube["mask"] = (("other",), np.ones(3))
    cube.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    found = load(tmp_path / "a.nc")
    named = load(tmp_path / "a.nc", ["t", "u"], ["lat", "lon"], fields="time", stacked=["level"])
    assert found.axes == ("latitude", "longitude")
    assert found.channels == named.channels
    np.testing.assert_array_equal(found.values, named.values)
    np.testing.assert_array_equal(found.coordinates, named.coordinates)
    cube["orog"] = (("lat", "lon"), np.zeros((4, 5)))
    cube.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"have the same dimensions \(--data.variables NAME .* orog \(lat, lon\)"):
        load(tmp_path / "b.nc")
    assert load(tmp_path / "b.nc", ["orog"]).names == ("b",)
    with pytest.raises(ValueError, match=r"data\.variables must be among those of .*: mask, orog, t, u, got tos"):
        load(tmp_path / "b.nc", ["tos"])
    xr.Dataset({"t": ("place", np.zeros(3))}).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"be named \(--data.axes NAME NAME.*got t \(place\)"):
        load(tmp_path / "c.nc")


def test_grib_is_made_finer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("fine.grib"), range(12))
    write(Path("coarse.grib"), range(20, 23), step=3.0, size=5)
    network = "--model.network.init_args."
    small = ["--trainer.max_epochs", "1", "--data.batch_size", "4", f"{network}hidden_channels", "4"]
    small += [f"{network}blocks", "1", "--data.coarse", "nodes", f"{network}kernel.hidden", "4"]
    run = ["--run_dir", "run", *QUIET]
    cli.main(
        ["fit", "--config", "downscale_climate", "--data.path", "fine.grib", "--data.variables", "t2m", *run, *small]
    )
    cli.main(["test", *run])
    cli.main(["predict", *run, "--predict.input", "coarse.grib", "--output", "answers.nc"])
    given = open_cube("coarse.grib")
    with xr.open_dataset("answers.nc", engine="h5netcdf") as answers:
        assert answers.t2m.sizes["time"] == 3
        np.testing.assert_array_equal(answers.time.values, given.time.values)
        places = np.meshgrid(answers.latitude, answers.longitude, indexing="ij")
        truth = np.stack([smooth(*places, day) for day in range(20, 23)])
        inner = (slice(None), slice(3, -3), slice(3, -3))
        assert np.abs(answers.t2m.values - truth)[inner].mean() < 1.0
        assert answers.latitude.values[0] == given.latitude.values[0]  # north first, as in the file
        assert abs(float(np.diff(answers.latitude)[0])) == pytest.approx(1.0)
