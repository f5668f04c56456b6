"""Prediction from file to file: blocks and whole agree, a killed run resumes, nothing is overwritten."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from ccnn_irregular import KernelSpec
from ccnn_irregular.adapters.xarray import Reading, open_cube
from ccnn_irregular.pipelines.tasks.downscale import files as predict_files
from ccnn_irregular.pipelines.tasks.downscale.blocks import Blocks, Budget, as_bytes, plan_blocks
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingBatch
from ccnn_irregular.pipelines.tasks.downscale.fields import Fields, Plane, coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.files import predict_file
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork, FieldFormat
from ccnn_irregular.pipelines.tasks.downscale.output import PartialOutput

pytest.importorskip("dask")
pytest.importorskip("zarr")
pytestmark = pytest.mark.filterwarnings("ignore:variable .* has non-conforming '_FillValue'")

ROOMY = 1 << 40


def coarse_fields(
    times: int = 3, rows: int = 40, *, falling: bool = False, periodic: bool = False, closed: bool = False
) -> xr.Dataset:
    """Coarse fields in time and level, with everything in the attributes that has to come back."""
    columns = 24
    values = np.random.default_rng(0).standard_normal((times, 2, rows, columns)).cumsum(2).astype("float32")
    step = 15.0 if periodic else 1.0
    longitude = np.arange(columns) * step
    if closed:
        values, longitude = np.concatenate([values, values[..., :1]], -1), np.append(longitude, 360.0)
    latitude = np.linspace(-20, 19, rows)
    coordinates = {
        "time": ("time", xr.date_range("2001-01-01", periods=times, freq="6h"), {"standard_name": "time"}),
        "level": ("level", np.array([500, 850]), {"units": "hPa", "axis": "Z"}),
        "latitude": ("latitude", latitude[::-1] if falling else latitude, {"units": "degrees_north", "bounds": "b"}),
        "longitude": ("longitude", longitude.astype("float32"), {"units": "degrees_east"}),
        "height": 2.0,
    }
    dims = ("time", "level", "latitude", "longitude")
    dataset = xr.Dataset({"t": (dims, values, {"units": "K", "long_name": "temperature"})}, coordinates, {"title": "x"})
    dataset["time"].encoding = {"units": "hours since 1990-01-01", "calendar": "standard", "dtype": "int64"}
    return dataset


def trained(
    dataset: xr.Dataset,
    *,
    factor: int = 2,
    coarse: Any = "means",
    width: float = 0.6,
    plane: Plane | None = None,
    given: torch.Tensor | None = None,
) -> DownscalingNetwork:
    """A network with random weights that takes itself for one trained on such fields, or on those given."""
    torch.manual_seed(0)
    plane = Fields.of(dataset, ["t"]).plane if plane is None else plane
    width = width * plane.steps[1]
    network = DownscalingNetwork(
        1, 4, 1, kernel=KernelSpec(extent=[2.0, 2 * width], width=[0.6, width], omega_0=2.0, hidden=8)
    )
    network.format = FieldFormat(("t",), ("K",), factor, coarse, plane.steps, ("degrees", "degrees"))
    part = torch.from_numpy(Fields.of(dataset, ["t"]).read({"time": slice(0, 1)})) if given is None else given
    fine = plane.refined(factor, coarse)
    noise = torch.randn(len(part), 1, *fine.sizes)
    alike = torch.ones(fine.sizes), torch.ones(len(part), 1, fine.sizes[0], 1)
    network.prepare(DownscalingBatch(part, noise, plane.grid(), fine.grid(), *alike))
    torch.nn.init.normal_(network.cnn.output.weight)
    return network.eval().requires_grad_(False)


def in_memory(network: DownscalingNetwork, dataset: xr.Dataset) -> np.ndarray:
    """The whole cube at once, in the order of the file."""
    fields = Fields.of(dataset, ["t"])
    assert network.format is not None
    fine = fields.plane.refined(network.format.factor, network.format.coarse)
    answer = network(torch.from_numpy(fields.read({})), fields.plane.grid(), fine.grid()).numpy()
    times, levels = fields.sizes
    return fine.unpacked(answer).reshape(times, levels, *fine.unpacked(answer).shape[2:])


def written(dataset: xr.Dataset, folder: Path, suffix: str, name: str = "coarse") -> Path:
    path = folder / f"{name}{suffix}"
    if suffix == ".zarr":
        dataset.to_zarr(path, consolidated=False, encoding={"t": {"chunks": (2, 1, 16, 25)}})
    else:
        dataset.to_netcdf(path, engine="h5netcdf")
    return path


def checkpoint(folder: Path, content: bytes = b"weights") -> Path:
    (folder / "some.ckpt").write_bytes(content)
    return folder / "some.ckpt"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> list[Blocks]:
    """Blocks of a sample and a few rows, whatever fits."""
    made: list[Blocks] = []

    def few(budget: Budget, counts: Any, chunks: Any, memory: int) -> Blocks:
        blocks = Blocks(tuple(counts), (2, 1), budget.sizes[0], 10, 1, 1)
        made.append(blocks)
        return blocks

    monkeypatch.setattr(predict_files, "plan_blocks", few)
    return made


@pytest.mark.parametrize(
    ("case", "coarse", "suffixes"),
    [
        ({}, "means", (".zarr", ".zarr")),
        ({"falling": True}, "nodes", (".nc", ".zarr")),
        ({"falling": True, "periodic": True}, "means", (".zarr", ".nc")),
        ({"periodic": True, "closed": True}, "nodes", (".nc", ".nc")),
    ],
    ids=str,
)
def test_blocks_give_what_the_whole_gives(
    case: dict[str, bool], coarse: str, suffixes: tuple[str, str], tmp_path: Path, small_blocks: list[Blocks]
) -> None:
    dataset = coarse_fields(**case)
    network = trained(dataset, coarse=coarse)
    source, target = written(dataset, tmp_path, suffixes[0]), tmp_path / f"fine{suffixes[1]}"
    assert 2 * network.reach([1.0, 1.0])[0] + 10 < 40, "no block sees everything"
    predict_file(network, source, target, checkpoint=checkpoint(tmp_path), memory=ROOMY)
    assert len(small_blocks[0]) == 2 * 2 * 4
    wanted = in_memory(network, dataset)
    with open_cube(target) as found:
        assert found["t"].dtype == np.float32
        assert found["t"].attrs == dataset["t"].attrs
        assert found.attrs["title"] == "x"
        np.testing.assert_array_equal(found["time"], dataset["time"])
        assert found["time"].encoding["units"] == "hours since 1990-01-01"
        assert found["latitude"].attrs == {"units": "degrees_north"}
        assert found["longitude"].dtype == np.float32
        assert float(found["height"]) == 2.0
        scale = float(np.abs(wanted).max())
        assert wanted.std() > 0.05 * scale
        np.testing.assert_allclose(found["t"], wanted, rtol=0, atol=1e-5 * scale)
        if coarse == "nodes":
            np.testing.assert_allclose(found["latitude"][::2], dataset["latitude"], rtol=0, atol=1e-9)
        else:
            np.testing.assert_allclose(found["latitude"].coarsen(latitude=2).mean(), dataset["latitude"], atol=1e-9)
    assert not (tmp_path / f"fine{suffixes[1]}.partial").exists()


def test_degrees_west_and_south_come_back_as_such(tmp_path: Path, small_blocks: list[Blocks]) -> None:
    """A file in degrees west and south is answered as the same one in degrees east and north, at its own numbers."""
    east = coarse_fields(times=1)
    mirrored = {
        name: (name, -east[name].values, {"units": unit})
        for name, unit in (("latitude", "degrees_south"), ("longitude", "degreesW"))
    }
    network, found = trained(east), []
    for name, dataset in (("east", east), ("west", east.assign_coords(mirrored))):
        source, target = written(dataset, tmp_path, ".nc", name), tmp_path / f"{name}_fine.nc"
        predict_file(network, source, target, checkpoint=checkpoint(tmp_path), memory=ROOMY)
        found.append(open_cube(target).load())
    np.testing.assert_array_equal(found[0]["t"], found[1]["t"])
    for name, unit in (("latitude", "degrees_south"), ("longitude", "degreesW")):
        np.testing.assert_array_equal(found[1][name], -found[0][name])
        assert found[1][name].attrs == {"units": unit}


def test_a_file_of_fine_fields_is_made_coarse_first(tmp_path: Path, small_blocks: list[Blocks]) -> None:
    for coarse in ("means", "nodes"):
        fine = coarse_fields(rows=60, falling=True)
        boxes = fine.coarsen(latitude=2, longitude=2).mean()
        dataset = boxes if coarse == "means" else fine.isel(latitude=slice(1, None, 2), longitude=slice(0, None, 2))
        network = trained(dataset, coarse=coarse)
        name = f"{coarse}.zarr"
        source = written(fine, tmp_path, ".nc", coarse)
        predict_file(network, source, tmp_path / name, checkpoint=checkpoint(tmp_path), memory=ROOMY, coarsen=True)
        wanted = in_memory(network, dataset.astype("float32"))
        with open_cube(tmp_path / name) as found:
            np.testing.assert_allclose(found["t"], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("case", "coarse", "coarsen"),
    [
        ({}, "means", False),
        ({"falling": True}, "nodes", False),
        ({"periodic": True}, "means", True),
        ({"falling": True, "periodic": True}, "nodes", True),
    ],
    ids=str,
)
def test_missing_values_stay_missing(
    case: dict[str, bool], coarse: Any, coarsen: bool, tmp_path: Path, small_blocks: list[Blocks]
) -> None:
    """Blocks and whole agree with gaps too: over land, clouds, and entries where nothing is known."""
    dataset = coarse_fields(rows=80 if coarsen else 40, **case)
    values, rng = dataset["t"].to_numpy(), np.random.default_rng(0)
    values[:, :, 5:29, 3:14] = np.nan
    values[rng.random(values.shape) < 0.3] = np.nan
    values[1, 0] = np.nan
    dataset["t"].encoding = {"_FillValue": np.float32(-999.0)}
    fields = Fields.of(dataset, ["t"])
    given = torch.from_numpy(np.ascontiguousarray(fields.read({})))
    plane = fields.plane.coarsened(2, coarse) if coarsen else fields.plane
    fine = plane.refined(2, coarse)
    own = given
    if coarsen:
        given = coarsened_values(own, 2, coarse, plane.sizes)
    network = trained(dataset, coarse=coarse, plane=plane, given=given)
    assert 2 * network.reach([1.0, 1.0])[0] + 10 < 40, "no block sees everything"
    wanted = network(given, plane.grid(), fine.grid())
    if coarsen:
        wanted[own[..., : fine.sizes[0], : fine.sizes[1]].isnan()] = torch.nan
    elif coarse == "means":
        known = given.isfinite().repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert torch.equal(wanted.isfinite(), known)
    assert 0.1 < float(wanted.isnan().double().mean()) < 0.7
    source, target = written(dataset, tmp_path, ".nc"), tmp_path / "fine.zarr"
    predict_file(network, source, target, checkpoint=checkpoint(tmp_path), memory=ROOMY, coarsen=coarsen)
    expected = fine.unpacked(wanted.numpy())
    with open_cube(target) as found:
        assert found["t"].encoding["_FillValue"] == np.float32(-999.0)
        assert found["t"].attrs == dataset["t"].attrs
        answer = found["t"].to_numpy().reshape(expected.shape)
        np.testing.assert_array_equal(np.isnan(answer), np.isnan(expected))
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5 * np.nanmax(np.abs(expected)))


def planned(budget: Budget, counts: Any, *_: Any) -> Blocks:
    """Blocks that a killed run and the one that resumes it agree on."""
    return Blocks(tuple(counts), (2, 1), budget.sizes[0], 32, 1, 1)


KILLED = """
import time, torch
from pathlib import Path
from ccnn_irregular.pipelines.tasks.downscale import files as predict_files
from ccnn_irregular.pipelines.tasks.downscale.blocks import Blocks

predict_files.plan_blocks = lambda budget, counts, *_: Blocks(tuple(counts), (2, 1), budget.sizes[0], 32, 1, 1)
answer = predict_files._Prediction.answer

def announced(self, *arguments):
    print("computing", flush=True)
    time.sleep(0.02)
    return answer(self, *arguments)

predict_files._Prediction.answer = announced
network = torch.load("network.pt", weights_only=False)
file, checkpoint = Path("coarse.zarr"), Path("network.pt")
predict_files.predict_file(network, file, Path("killed.zarr"), checkpoint=checkpoint, memory=1 << 40)
"""


def test_a_killed_run_resumes_to_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the middle; what was finished is not computed again, and nothing shows in the result."""
    dataset = coarse_fields(times=24, rows=64)
    source, network = written(dataset, tmp_path, ".zarr"), trained(dataset)
    torch.save(network, tmp_path / "network.pt")
    total = 12 * 2 * 2
    process = subprocess.Popen([sys.executable, "-c", KILLED], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    begun = 0
    while begun < 20:
        begun += next(process.stdout) == "computing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    partial = tmp_path / "killed.zarr.partial"
    before = (partial / "finished.txt").read_text().split()
    assert 19 <= len(before) < total
    assert not (tmp_path / "killed.zarr").exists()
    # As if the kill had come while a line was being written: a block whose number is not whole is computed again.
    with (partial / "finished.txt").open("a") as stream:
        stream.write("4")
    computed: list[int] = []
    answer = predict_files._Prediction.answer

    def counted(self: Any, *arguments: Any) -> Any:
        computed.append(arguments[1])
        return answer(self, *arguments)

    monkeypatch.setattr(predict_files._Prediction, "answer", counted)
    monkeypatch.setattr(predict_files, "plan_blocks", planned)
    for name, wanted in (("killed.zarr", total - len(before)), ("whole.zarr", total)):
        computed.clear()
        predict_file(network, source, tmp_path / name, checkpoint=tmp_path / "network.pt", memory=ROOMY)
        assert len(computed) == wanted
    with open_cube(tmp_path / "killed.zarr") as resumed, open_cube(tmp_path / "whole.zarr") as uninterrupted:
        np.testing.assert_allclose(resumed["t"], uninterrupted["t"], rtol=0, atol=1e-6)
        expected = in_memory(network, dataset)
        np.testing.assert_allclose(resumed["t"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_partial_output_of_something_else_is_refused(
    tmp_path: Path, small_blocks: list[Blocks], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = coarse_fields()
    network, source = trained(dataset), written(dataset, tmp_path, ".nc")
    target, mine = tmp_path / "fine.zarr", checkpoint(tmp_path)
    answer, asked = predict_files._Prediction.answer, []

    def interrupted(self: Any, *arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return answer(self, *arguments)

    monkeypatch.setattr(predict_files._Prediction, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_file(network, source, target, checkpoint=mine, memory=ROOMY)
    assert "interrupted after 3 blocks in" in capsys.readouterr().out.replace("\n", "")
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"other weights")
    rule = r"must hold a partial output of the same input, checkpoint and options.*got another "
    with pytest.raises(ValueError, match=rule + "checkpoint"):
        predict_file(network, source, target, checkpoint=other, memory=ROOMY)
    doubled = dataset.copy(deep=True)
    doubled["t"].data[:] *= 2
    changed = written(doubled, tmp_path, ".nc", "changed")
    with pytest.raises(ValueError, match=rule + "input"):
        predict_file(network, changed, target, checkpoint=mine, memory=ROOMY)
    with pytest.raises(ValueError, match=r"predict.memory must be at least 1 B: the partial output has blocks"):
        predict_file(network, source, target, checkpoint=mine, memory=0)
    predict_file(network, source, target, checkpoint=mine, memory=ROOMY)
    assert len(asked) == 3 + 1 + len(small_blocks[0]) - 3
    with pytest.raises(ValueError, match=r"output must not be there: nothing is overwritten, got"):
        predict_file(network, source, target, checkpoint=mine, memory=ROOMY)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    dataset = coarse_fields()
    network, source = trained(dataset), written(dataset, tmp_path, ".nc")
    with (
        PartialOutput(tmp_path / "fine.zarr").locked(),
        pytest.raises(ValueError, match="output must be written by one process at a time, got another one at work in"),
    ):
        predict_file(network, source, tmp_path / "fine.zarr", checkpoint=checkpoint(tmp_path), memory=ROOMY)


def test_fields_that_the_network_was_not_trained_on_are_refused(tmp_path: Path) -> None:
    dataset = coarse_fields()
    network = trained(dataset)
    infinite = dataset.copy(deep=True)
    infinite["t"].data[1, 0, 3, 4] = np.inf
    cases = {
        "units must be those trained on, .*'K'.*, got .*'degC'": dataset.assign(t=dataset.t.assign_attrs(units="degC")),
        "steps of the coarse nodes must be those trained on, .*got": dataset.isel(latitude=slice(None, None, 2)),
        r"variables must be of the fields \['u'\], got 't'": dataset.rename(t="u"),
        "variable 't' must be finite or missing, got 1 of .* infinite": infinite,
        "'latitude' must be uniform": dataset.assign_coords(
            latitude=dataset.latitude**3 / float(abs(dataset.latitude).max()) ** 2
        ),
    }
    for number, (message, changed) in enumerate(cases.items()):
        changed["latitude"].attrs = dataset["latitude"].attrs
        changed.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        with pytest.raises(ValueError, match=message):
            predict_file(
                network,
                tmp_path / f"{number}.nc",
                tmp_path / "fine.nc",
                checkpoint=checkpoint(tmp_path),
                memory=ROOMY,
            )
        assert not (tmp_path / "fine.nc").exists()
    with pytest.raises(ValueError, match=r"output must end in .nc or .zarr, got fine.grib"):
        predict_file(network, tmp_path / "0.nc", Path("fine.grib"), checkpoint=checkpoint(tmp_path), memory=ROOMY)


def test_blocks_follow_from_the_memory() -> None:
    budget = Budget((200, 400), 10, 4, 1, 2, 8, (20, 20), taken=10**9)
    for memory in (1.4e9, 2e9, 4e9, 64e9):
        blocks = plan_blocks(budget, (30, 7), (4, 1), int(memory))
        assert blocks.memory <= memory
        assert blocks.memory == budget.total(blocks.row_step, int(np.prod(blocks.steps)), blocks.batch)
        spans = list(blocks.spans())
        assert len(spans) == len(blocks)
        seen = np.zeros((30, 7, 200), int)
        for (a, b), (c, d), (e, f) in spans:
            seen[a:b, c:d, e:f] += 1
        assert (seen == 1).all()
    assert blocks.row_step == 200
    assert blocks.steps[0] % 4 == 0 or blocks.steps[0] == 30
    with pytest.raises(
        ValueError, match=r"predict.memory must be at least .* [MG]iB, which the smallest block takes, got"
    ):
        plan_blocks(budget, (30, 7), (4, 1), int(1.1e9))


def test_sizes() -> None:
    assert [as_bytes(text) for text in ("4GiB", "1.5 MB", "100")] == [4 * 2**30, 1_500_000, 100]
    for text in ("4 gigs", "-1GB", "", "GiB"):
        with pytest.raises(ValueError, match="memory must be a size such as 4GiB or 500MB, got"):
            as_bytes(text)


def test_reading_options_reach_the_file(tmp_path: Path) -> None:
    """Values outside the valid range are missing unless the options say otherwise; another way is another output."""
    dataset = coarse_fields(times=2)
    dataset["t"].attrs |= {"valid_range": np.array([-1e3, 1e3], "f4"), "actual_range": np.array([0.0, 1.0])}
    dataset["latitude"].attrs["valid_min"] = -20.0
    dataset["t"][0, 0, 5, 5] = 2e3
    network = trained(coarse_fields(times=2))
    source, options = written(dataset, tmp_path, ".nc"), {"checkpoint": checkpoint(tmp_path), "memory": ROOMY}
    predict_file(network, source, tmp_path / "masked.zarr", **options)
    predict_file(network, source, tmp_path / "all.zarr", **options, reading=Reading(valid_range=False))
    with open_cube(tmp_path / "masked.zarr") as masked, open_cube(tmp_path / "all.zarr") as everything:
        np.testing.assert_array_equal(np.argwhere(np.isnan(masked["t"][0, 0].values)).min(0), [10, 10])
        assert int(masked["t"].isnull().sum()) == 4
        assert int(everything["t"].isnull().sum()) == 0
        assert masked["t"].attrs == {"units": "K", "long_name": "temperature"}
        assert masked["latitude"].attrs == {"units": "degrees_north"}


def test_fractions_of_months_of_a_file(tmp_path: Path) -> None:
    dataset = coarse_fields(times=2)
    network = trained(dataset)
    dataset["time"] = ("time", [12.0, 13.5], {"units": "months since 2001-01-01"})
    source, options = written(dataset, tmp_path, ".nc"), {"checkpoint": checkpoint(tmp_path), "memory": ROOMY}
    predict_file(network, source, tmp_path / "fine.nc", **options, reading=Reading(months="calendar"))
    with open_cube(tmp_path / "fine.nc") as found:
        np.testing.assert_array_equal(found["time"].values, np.array(["2002-01-01", "2002-02-15"], "datetime64[ns]"))
    with pytest.raises(ValueError, match=r"be whole numbers, or be told .* got \[13.5"):
        predict_file(network, source, tmp_path / "refused.nc", **options)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian", "all_leap"])
def test_dates_of_model_calendars_come_back(calendar: str, suffix: str, tmp_path: Path) -> None:
    dataset = coarse_fields(times=2)
    network = trained(dataset)
    dates = xr.date_range("2001-02-28", periods=2, freq="D", calendar=calendar, use_cftime=True)
    dataset["time"] = ("time", dates, {"standard_name": "time"})
    source, options = written(dataset, tmp_path, ".nc"), {"checkpoint": checkpoint(tmp_path), "memory": ROOMY}
    predict_file(network, source, tmp_path / f"fine{suffix}", **options)
    with open_cube(tmp_path / f"fine{suffix}") as found:
        assert found["time"].values.tolist() == list(dates)
        assert str(found["time"].values[1])[:10] == {"360_day": "2001-02-29", "all_leap": "2001-02-29"}.get(
            calendar, "2001-03-01"
        )


def test_a_fill_value_of_zero_is_not_the_results(tmp_path: Path) -> None:
    dataset = coarse_fields(times=1)
    dataset["t"].encoding = {"_FillValue": np.float32(0)}
    network = trained(dataset)
    source = written(dataset, tmp_path, ".nc")
    predict_file(network, source, tmp_path / "fine.nc", checkpoint=checkpoint(tmp_path), memory=ROOMY)
    with open_cube(tmp_path / "fine.nc") as found:
        assert np.isnan(found["t"].encoding["_FillValue"])
