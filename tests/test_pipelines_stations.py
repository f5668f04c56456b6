"""A table of stations of one's own: fit, test, and answers at a table's places, on a grid and on a file's grid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import yaml
from jsonargparse import ArgumentParser
from test_datasets_stations import ghcn_table

from ccnn_irregular.datasets.stations import StationColumns, load
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis
from ccnn_irregular.pipelines.tasks.field.module import FieldReconstruction
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.field.sizes import FieldSizes, fitting_network, network_options
from ccnn_irregular.pipelines.train.arguments import join_lists
from ccnn_irregular.pipelines.train.checkpoint import read_checkpoint

QUIET = ["--trainer.enable_progress_bar", "false"]
SHORT = [
    "--trainer.max_epochs",
    "1",
    "--data.draws",
    "8",
    "--data.watched_fields",
    "3",
    "--model.sizes.hidden_channels",
    "4",
]


def observed(stations: int, seed: int, months: int = 6) -> pd.DataFrame:
    """A smooth field over Texas at stations of random places, with a little noise and some months missing."""
    rng = np.random.default_rng(seed)
    latitude, longitude = rng.uniform(26, 36, stations).round(3), rng.uniform(-106, -94, stations).round(3)
    rows = []
    for month in range(months):
        values = 15 + month - 0.8 * (latitude - 30) + 2 * np.sin(latitude / 2 + month) * np.cos(longitude / 3)
        values += 0.2 * rng.normal(size=stations)
        texts = [f"{value:.3f}" if rng.random() > 0.1 else "" for value in values]
        rows += [
            (f"{number:04d}", f"2001-{month + 1:02d}-01", latitude[number], longitude[number], texts[number])
            for number in range(stations)
        ]
    return pd.DataFrame(rows, columns=["station", "date", "lat", "lon", "tavg"])


@dataclass
class Run:
    """A trained run, and the table it was trained on."""

    folder: Path
    table: Path
    told: str

    @property
    def words(self) -> list[str]:
        return ["--run_dir", str(self.folder), *QUIET]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("stations")
    observed(40, 0).to_csv(folder / "mine.csv", index=False)
    words = ["--config", "stations", "--data.table", str(folder / "mine.csv"), "--run_dir", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        told: list[str] = []
        patch.setattr("ccnn_irregular.pipelines.tasks.field.task.say", lambda text: told.append(str(text)))
        cli.main(["fit", *words, *QUIET, *SHORT])
    return Run(folder / "run", folder / "mine.csv", "\n".join(told))


def test_what_is_found_is_told_with_the_option_and_kept_in_the_checkpoint(run: Run) -> None:
    for option in ("correlation", "neighbours", "latent_step"):
        assert f"--model.sizes.{option}" in run.told
    assert "degrees" in run.told
    options = read_checkpoint(run.folder / "best.ckpt")["hyper_parameters"]
    network = options["network"]["init_args"]
    assert [axis["name"] for axis in network["axes"]] == ["latitude", "longitude"]
    assert list(options["variables"]) == ["tavg"]
    assert network["latent"]["periodic"] == [False, False]
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert saved["model"]["network"] is None  # as typed, so that the same command goes on


def test_the_test_counts_intervals_and_never_asks_for_a_station_that_was_seen(run: Run) -> None:
    cli.main(["test", *run.words])
    (score,) = json.loads((run.folder / "test" / "metrics.json").read_text())["scores"]
    assert score["channel"] == "tavg"
    assert 0.5 < score["coverage"] <= 1
    assert score["network"] / 3 < score["deviation"] < 3 * score["network"]
    data = FieldDataModule(table=str(run.table), held_units=0.2, watched_units=0.1, hide=[0, 0], hide_units=0.2)
    data.setup("fit")
    parts = [set(data.samples.units[data.parts.known(part)].tolist()) for part in ("train", "validation", "test")]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_all_of_a_new_table_is_tested_each_station_from_the_others(run: Run, tmp_path: Path) -> None:
    frame = observed(14, 1)
    frame["lon"] = frame["lon"] % 360  # the other convention, the same places
    frame.to_csv(tmp_path / "new.csv", index=False)
    cli.main(["test", *run.words, "--data.table", str(tmp_path / "new.csv"), "--data.evaluate", "all"])
    (score,) = json.loads((run.folder / "test_new_all" / "metrics.json").read_text())["scores"]
    assert score["n"] == int((frame["tavg"] != "").sum())
    assert score["network"] < 1.5
    assert (run.folder / "test" / "metrics.json").is_file() or not (run.folder / "test").exists()


def test_rows_trained_on_are_refused_as_a_whole_source(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["test", *run.words, "--data.evaluate", "all"])
    assert "be others than those that" in capsys.readouterr().err


def test_folds_ask_for_every_known_place_once_from_other_stations(tmp_path: Path) -> None:
    observed(13, 2).to_csv(tmp_path / "a.csv", index=False)
    data = FieldDataModule(table=str(tmp_path / "a.csv"), held_units=0.2, watched_units=0.1, evaluate="all")
    data.setup("test")
    rows = []
    for batch in data.loader("test"):
        for seen, asked in batch.spans():
            there = {tuple(place) for place in batch.observed.coordinates[seen].tolist()}
            assert there.isdisjoint(tuple(place) for place in batch.query.coordinates[asked].tolist())
        rows += batch.rows.tolist()
    assert sorted(rows) == torch.nonzero(data.samples.known).flatten().tolist()


def test_each_row_of_a_table_is_answered_in_its_place(run: Run, tmp_path: Path) -> None:
    """Against kriging of the network called by hand; ids and texts are those of the file."""
    frame = pd.DataFrame(
        {
            "code": ["007", "008", "009", "010"],
            "lon": ["-100.0", "260.5", "-98", "-99"],
            "lat": ["30.00", "31", "", "29.5"],
            "date": ["2001-03-01", "2001-01-01", "2001-02-01", "1999-01-01"],
        }
    )
    frame.to_csv(tmp_path / "places.csv", index=False)
    words = [*run.words, "--predict.table", str(tmp_path / "places.csv"), "--output", str(tmp_path / "out.csv")]
    cli.main(["predict", *words])
    found = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(found[frame.columns.tolist()], frame, check_dtype=False)
    assert (found["tavg_estimate"] != "").tolist() == [True, True, False, False]
    assert list(found.columns[-2:]) == ["tavg_estimate", "tavg_std"]
    network = network_of(run)
    table = pd.read_csv(run.table).dropna()
    for row, month, place in ((0, "2001-03-01", [30.0, -100.0]), (1, "2001-01-01", [31.0, -99.5])):
        there = table[table["date"] == month]
        places = torch.tensor(there[["lat", "lon"]].to_numpy())
        value, deviation = network.interpolate(places, torch.tensor(there[["tavg"]].to_numpy()), torch.tensor([place]))
        # The correction is a convolution of float32, whose engine follows from the number of places.
        np.testing.assert_allclose(float(found["tavg_estimate"][row]), float(value), rtol=0, atol=2e-3)
        np.testing.assert_allclose(float(found["tavg_std"][row]), float(deviation), rtol=1e-6)


def test_a_table_of_places_has_names_of_its_own(tmp_path: Path) -> None:
    """The training table names its columns in its own way, that of the places in the usual one."""
    frame = observed(12, 4).rename(columns={"lat": "Breite", "lon": "Laenge", "date": "Tag"})
    frame.to_csv(tmp_path / "mine.csv", index=False)
    words = ["--data.table", str(tmp_path / "mine.csv"), "--run_dir", str(tmp_path / "run"), *QUIET]
    named = [f"--data.columns.{role}={name}" for role, name in (("latitude", "Breite"), ("longitude", "Laenge"))]
    cli.main(["fit", "--config", "stations", *words, *named, "--data.columns.time", "Tag", *SHORT])
    places = pd.DataFrame({"Lat": [30.0, 31.0], "Lon": [-100.0, -99.0], "time": ["2001-03-01", "2001-01-01"]})
    places.to_csv(tmp_path / "places.csv", index=False)
    output = ["--predict.table", str(tmp_path / "places.csv"), "--output", str(tmp_path / "out.csv")]
    cli.main(["predict", "--run_dir", str(tmp_path / "run"), *QUIET, *output])
    found = pd.read_csv(tmp_path / "out.csv")
    pd.testing.assert_frame_equal(found[places.columns.tolist()], places)
    assert np.isfinite(found["tavg_estimate"]).all()


def network_of(run: Run) -> FieldNetwork:
    data = FieldDataModule(table=str(run.table), held_units=0.2, watched_units=0.1, hide=[0, 0], hide_units=0.2)
    data.setup("fit")
    network = fitting_network(data.samples, data.parts.usable, FieldSizes(hidden_channels=4))
    model = FieldReconstruction(network)
    model.load_state_dict(read_checkpoint(run.folder / "best.ckpt")["state_dict"])
    return model.eval().network


def test_without_places_every_row_of_the_table_is_answered(run: Run, tmp_path: Path) -> None:
    """A new table, of other stations, rows missing and in any order."""
    frame = observed(12, 3).sample(frac=1, random_state=0)
    frame.to_csv(tmp_path / "new.csv.gz", index=False)
    cli.main(["predict", *run.words, "--data.table", str(tmp_path / "new.csv.gz"), "--output", str(tmp_path / "o.csv")])
    found = pd.read_csv(tmp_path / "o.csv", dtype=str, keep_default_na=False)
    assert found["station"].tolist() == frame["station"].tolist()
    assert found["tavg"].tolist() == frame["tavg"].tolist()
    assert np.isfinite(found["tavg_estimate"].astype(float)).all()
    missing = found["tavg"] == ""
    deviations = found["tavg_std"].astype(float)
    assert deviations[missing].mean() > 1.1 * deviations[~missing].mean() > 0  # what was read is known best


def test_grids_are_answered_with_coordinates_and_attributes(run: Run, tmp_path: Path) -> None:
    like = xr.Dataset(
        {"orog": (("lat", "lon"), np.zeros((3, 4)))},
        {
            "lat": ("lat", [35.0, 33.0, 31.0], {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("lon", [254.0, 256.0, 258.0, 260.0], {"units": "degrees_east", "standard_name": "longitude"}),
        },
        {"title": "a grid"},
    )
    like.to_netcdf(tmp_path / "like.nc")
    cli.main(["predict", *run.words, "--predict.like", str(tmp_path / "like.nc"), "--output", str(tmp_path / "a.nc")])
    bounds = ["--predict.grid", "2", "--predict.bounds", "31", "35", "-106", "-100", "--predict.times", "2001-03-01"]
    cli.main(["predict", *run.words, *bounds, "--output", str(tmp_path / "b.nc")])
    with xr.open_dataset(tmp_path / "a.nc") as first, xr.open_dataset(tmp_path / "b.nc") as second:
        assert first["tavg"].dims == ("time", "lat", "lon")
        assert first.sizes == {"time": 6, "lat": 3, "lon": 4}
        xr.testing.assert_identical(first["lat"], like["lat"])
        assert first.attrs["title"] == "a grid"
        assert str(run.folder / "best.ckpt") in first.attrs["source"]
        assert second["latitude"].values.tolist() == [31, 33, 35]
        assert second["longitude"].values.tolist() == [-106, -104, -102, -100]
        assert second["longitude"].attrs["units"] == "degrees_east"
        for name in ("tavg", "tavg_std"):
            here = first[name].sel(time="2001-03-01").squeeze().values[::-1]
            np.testing.assert_allclose(second[name].squeeze().values, here, rtol=0, atol=2e-3)
            assert np.isfinite(here).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--predict.grid", "2", "--predict.table", "x.csv"], "name one of --predict.like, .grid and .table"),
        (["--predict.bounds", "1", "2"], "be left out without --predict.grid"),
        (["--predict.grid", "2", "--predict.times", "1990-01-01"], "be among those of the observations: 2001-01-01"),
        (["--predict.grid", "1", "2", "3"], "be one number, or one for each of latitude, longitude"),
    ],
)
def test_places_that_make_no_sense_are_refused(
    run: Run, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["predict", *run.words, *words])
    assert message in " ".join(capsys.readouterr().err.split())


def test_deviations_cover_nine_of_ten_after_fitting() -> None:
    """Heavy tails, whose quantiles are known: 0.9 of them lie within the interval, whatever the scale before."""
    network = FieldNetwork(2, [FieldAxis("y"), FieldAxis("x")])
    rng = torch.Generator().manual_seed(0)
    deviations = 0.1 + torch.rand(20_000, 2, generator=rng, dtype=torch.float64)
    noise = torch.from_numpy(np.random.default_rng(0).standard_t(3, (20_000, 2)))
    targets = deviations * noise * torch.tensor([0.01, 300.0])
    targets[::7, 0] = torch.nan
    network.fit_spread(torch.zeros_like(targets), deviations, targets)
    fresh = torch.from_numpy(np.random.default_rng(1).standard_t(3, (20_000, 2))) * torch.tensor([0.01, 300.0])
    covered = (fresh.abs() <= 1.6448536 * network.spread).double().mean(0)
    torch.testing.assert_close(covered, torch.full((2,), 0.9, dtype=torch.float64), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="be known somewhere in every channel"):
        network.fit_spread(targets, deviations, torch.full_like(targets, torch.nan))


def test_a_channel_that_is_missing_somewhere_leaves_the_others_as_they_are() -> None:
    """Two channels read at different stations are answered as each would be alone."""
    torch.manual_seed(0)
    places, queries = torch.rand(30, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    values = torch.stack([places.sum(1), places[:, 0].sin()], 1)
    values[::2, 0], values[1::2, 1] = torch.nan, torch.nan
    axes = [FieldAxis("y"), FieldAxis("x")]
    both = FieldNetwork(2, axes, neighbours=30, correlation=[0.5, 1.0], nugget=1e-2)
    alone = FieldNetwork(1, axes, neighbours=15, correlation=[0.5, 1.0], nugget=1e-2)
    found, left = both.interpolate(places, values, queries)
    for channel in range(2):
        known = values[:, channel].isfinite()
        value, deviation = alone.interpolate(places[known], values[known, channel : channel + 1], queries)
        torch.testing.assert_close(found[:, channel], value[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(left[:, channel], deviation[:, 0], rtol=1e-5, atol=1e-6)


def test_channels_that_are_not_read_together_are_trained_and_tested(tmp_path: Path) -> None:
    frame = observed(30, 5)
    frame["rain"] = np.where(np.arange(len(frame)) % 3 == 0, "", frame["lat"].round(1).astype(str))
    frame.to_csv(tmp_path / "two.csv", index=False)
    words = ["--config", "stations", "--data.table", str(tmp_path / "two.csv"), "--run_dir", str(tmp_path / "run")]
    cli.main(["fit", *words, *QUIET, *SHORT, "--model.sizes.latent_step", "0"])
    cli.main(["test", "--run_dir", str(tmp_path / "run"), *QUIET])
    scores = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())["scores"]
    assert [score["channel"] for score in scores] == ["tavg", "rain"]
    assert all(np.isfinite(score["network"]) and np.isfinite(score["coverage"]) for score in scores)
    assert scores[0]["n"] != scores[1]["n"]


def test_profiles_of_tracks_go_through_all_commands(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (
            f"F{number}",
            365.0 * number / 8 + day,
            10 + number / 2 + day / 50,
            200 - number + day / 40,
            depth,
            20 - depth / 20,
        )
        for number in range(8)
        for day in range(0, 50, 10)
        for depth in rng.choice([2, 5, 10, 20, 50, 100, 200], 4, replace=False)
    ]
    frame = pd.DataFrame(rows, columns=["float", "time", "lat", "lon", "depth", "temp"])
    frame["temp"] += rng.normal(size=len(frame)) / 10
    frame.to_parquet(tmp_path / "floats.parquet")
    words = [
        "--config",
        "stations",
        "--data.table",
        str(tmp_path / "floats.parquet"),
        "--data.columns.time_unit",
        "days",
    ]
    folder = ["--run_dir", str(tmp_path / "run")]
    cli.main(["fit", *words, *folder, *QUIET, *SHORT])
    cli.main(["test", *folder, *QUIET])
    (score,) = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())["scores"]
    assert np.isfinite(score["network"])
    cli.main(["predict", *folder, *QUIET, "--output", str(tmp_path / "out.parquet")])
    found = pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(found[frame.columns.tolist()], frame)
    assert np.isfinite(found[["temp_estimate", "temp_std"]]).all(axis=None)
    steps = ["--predict.grid", "2", "2", "50", "100", "--output", str(tmp_path / "grid.nc")]
    cli.main(["predict", *folder, *QUIET, *steps])
    with xr.open_dataset(tmp_path / "grid.nc") as grid:
        assert set(grid["temp"].dims) == {"latitude", "longitude", "level", "time"}
        assert np.isfinite(grid["temp"].values).all()


def test_sizes_follow_the_training_rows_and_can_be_set(tmp_path: Path) -> None:
    rows = [(10.0 * row, 3.0 * column, row + column) for row in range(12) for column in range(9)]
    pd.DataFrame(rows, columns=["y", "x", "z_value"]).to_csv(tmp_path / "plane.csv", index=False)
    data = FieldDataModule(table=str(tmp_path / "plane.csv"), held_units=0.2, watched_units=0.1)
    data.setup("fit")
    options, told = network_options(data.samples, torch.ones(len(rows), dtype=torch.bool), FieldSizes())
    assert options["correlation"] == [3.0, 12.0, 48.0]  # the next station is 3 away
    latent = options["latent"]["init_args"]
    for axis, extent in enumerate((110.0, 24.0)):
        assert latent["starts"][axis] < 0
        assert latent["starts"][axis] + latent["steps"][axis] * (latent["sizes"][axis] - 1) > extent
    assert any("3 units of x" in line or "3 x" in line or "3 " in line for line in told)
    chosen = FieldSizes(correlation=(5.0,), latent_step=0, neighbours=7)
    options, _ = network_options(data.samples, torch.ones(len(rows), dtype=torch.bool), chosen)
    assert (options["correlation"], options["latent"], options["neighbours"]) == ([5.0], None, 7)


def test_a_table_around_the_globe_has_a_periodic_grid_and_a_region_across_the_date_line_has_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, longitudes, periodic in (
        ("globe", rng.uniform(-180, 180, 200), True),
        ("fiji", 180 + rng.uniform(-9, 9, 200), False),
    ):
        frame = pd.DataFrame({"lat": rng.uniform(-20, 20, 200), "lon": (longitudes + 180) % 360 - 180})
        frame["t"] = frame["lat"] / 10 + np.cos(np.radians(frame["lon"]))
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        data = FieldDataModule(table=str(tmp_path / f"{name}.csv"), held_units=0.2, watched_units=0.1)
        data.setup("fit")
        network = fitting_network(data.samples, data.parts.usable)
        assert network.latent is not None
        assert network.latent.axes[1].periodic is periodic
        if not periodic:
            assert 160 < network.latent.starts[1] < 175
            with torch.no_grad():  # the correction is the same on both sides of the line
                features = torch.rand(1, 16, *network.latent.sizes)
                here = network._correct(features, Points(torch.tensor([[1.0, 179.0], [2.0, 181.0]])))
                there = network._correct(features, Points(torch.tensor([[1.0, -181.0], [2.0, -179.0]])))
            torch.testing.assert_close(here, there)
            assert float(here.abs().max()) > 0


def test_ghcn_as_a_table_has_the_figures_of_its_own_reader(shared_data: Path, tmp_path: Path) -> None:
    """A step of training, errors and deviations at the stations kept for the test, from the same observed values."""
    frame, path = ghcn_table(shared_data, tmp_path, 2007)
    frame.to_csv(tmp_path / "ghcn.csv", index=False)
    shares = {
        "held_units": 0.2,
        "watched_units": 0.1,
        "hide": [0, 0],
        "hide_units": 0.2,
        "draws": 4,
        "watched_fields": 4,
    }
    own = FieldDataModule("ghcnm", str(path), options={"least": 4}, **shares)  # type: ignore[arg-type]
    anomalies = {"variables": ["temperature"], "options": {"anomalies": True, "least": 4}}
    table = FieldDataModule(table=str(tmp_path / "ghcn.csv"), **shares, **anomalies)  # type: ignore[arg-type]
    figures = []
    for data in (own, table):
        data.setup("fit")
        axes = [FieldAxis("latitude", "latitude"), FieldAxis("longitude", "longitude")]
        model = FieldReconstruction(FieldNetwork(1, axes, neighbours=12, correlation=[2.2, 13.5], nugget=0.055))
        model.prepare(data)
        squares, _ = model._squares(next(iter(data.loader("train"))))
        squares.mean().backward()
        slope = model.network.kriging.width_change.grad
        model.fit_spread(data)
        batches = list(data.loader("test"))
        values, deviations = (torch.cat(part) for part in zip(*map(model.network.predict, batches), strict=True))
        off = values - torch.cat([batch.targets for batch in batches])
        covered = (off.abs() < 1.645 * deviations).double().mean()
        assert slope is not None
        figures.append([len(off), off.square().mean().sqrt(), covered, squares.mean().item(), *slope])
    torch.testing.assert_close(torch.tensor(figures[1]), torch.tensor(figures[0]), rtol=1e-6, atol=1e-9)
    assert figures[0][0] > 100


def test_each_part_has_a_station_however_few_there_are(tmp_path: Path) -> None:
    for seed in range(6):
        observed(6, seed).to_csv(tmp_path / "few.csv", index=False)
        shares = {"held_units": 0.1, "watched_units": 0.1, "hide": [0, 0], "hide_units": 0.2, "seed": seed}
        data = FieldDataModule(table=str(tmp_path / "few.csv"), **shares)  # type: ignore[arg-type]
        data.setup("fit")
        units = [set(data.samples.units[data.parts.known(part)].tolist()) for part in ("train", "validation", "test")]
        assert list(map(len, units)) in ([4, 1, 1], [3, 2, 1], [3, 1, 2], [2, 2, 2], [2, 1, 3], [2, 3, 1])
        assert len(set().union(*units)) == 6


def test_columns_of_the_command_line_reach_the_table(tmp_path: Path) -> None:
    frame = observed(20, 4).rename(columns={"lat": "phi", "lon": "lambda"})
    frame.to_csv(tmp_path / "a.csv", index=False)
    columns = StationColumns(latitude="phi", longitude="lambda")
    data = FieldDataModule(table=str(tmp_path / "a.csv"), columns=columns, held_units=0.2, watched_units=0.1)
    data.setup("fit")
    assert data.samples.channels == ("tavg",)
    with pytest.raises(ValueError, match=r"be given for stations: --data\.table FILE"):
        FieldDataModule(held_units=0.2, watched_units=0.1)
    with pytest.raises(ValueError, match=r"data\.table must be left out for argo"):
        FieldDataModule("argo", "folder", table="a.csv", held_units=0.2, watched_units=0.1)


@pytest.mark.parametrize("words", [["-9999"], ["=-9999"], ["-9999", "-999", "n/m"], ["[-9999]"], ["[]"]])
def test_what_is_missing_is_typed_as_the_message_says(words: list[str]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(FieldDataModule, "data")
    option = "--data.columns.missing"
    typed = [option + words[0]] if words[0].startswith("=") else [option, *words]
    rest = ["--data.table", "a.csv", "--data.held_units", "0.2", "--data.watched_units=0.1"]
    columns = parser.parse_args(join_lists([*typed, *rest], parser)).data.columns
    expected = {"[]": [], "=-9999": [-9999], "[-9999]": [-9999]}.get(words[0], [-9999, -999, "n/m"][: len(words)])
    assert list(columns.missing) == expected


def test_german_tables_are_read_answered_and_written_as_they_are(run: Run, tmp_path: Path) -> None:
    """The same table with decimal commas, and the answers of the same run."""
    frame = observed(12, 8).assign(date=lambda table: table["date"] + "T12:00")
    frame.to_csv(tmp_path / "iso.csv", index=False)
    german = frame.astype(str).assign(date=pd.to_datetime(frame["date"]).dt.strftime("%d.%m.%Y %H:%M"))
    for name in ("lat", "lon", "tavg"):
        german[name] = german[name].str.replace(".", ",")
    german.loc[german["tavg"] == "", "tavg"] = "n/m"
    german.to_csv(tmp_path / "german.csv", index=False, sep=";")
    with pytest.raises(ValueError, match=r"column 'lat' .* --data\.columns\.decimal , reads decimal commas.*'\d\d,\d"):
        load(tmp_path / "german.csv")
    with pytest.raises(ValueError, match=r"--data\.columns\.missing '\[\"n/m\"\]'"):
        load(tmp_path / "german.csv", variables=["tavg"], columns=StationColumns(decimal=","))
    columns = StationColumns(decimal=",", missing=("n/m",))
    with pytest.raises(ValueError, match=r"--data\.columns\.time_format .* got '01\.01\.2001 12:00' in row 1"):
        load(tmp_path / "german.csv", columns=columns)
    options = ["--data.columns.decimal", ",", "--data.columns.time_format", "%d.%m.%Y %H:%M"]
    options += ["--data.columns.missing", "n/m"]
    for name, typed in (("iso", []), ("german", options)):
        words = ["--data.table", str(tmp_path / f"{name}.csv"), "--output", str(tmp_path / f"{name}_answers.csv")]
        cli.main(["predict", *run.words, *words, *typed])
    answers = pd.read_csv(tmp_path / "german_answers.csv", sep=";", decimal=",")
    truth = pd.read_csv(tmp_path / "iso_answers.csv")
    np.testing.assert_allclose(answers["tavg_estimate"], truth["tavg_estimate"])
    assert answers["date"].tolist() == german["date"].tolist()
    thousands = german.assign(tavg="1.234")
    thousands.to_csv(tmp_path / "thousands.csv", index=False, sep=";")
    with pytest.raises(ValueError, match=r"must hold numbers .*'1\.234' in row 1"):
        load(tmp_path / "thousands.csv", variables=["tavg"], columns=columns)
