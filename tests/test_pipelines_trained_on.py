"""What was trained on is known again: keys of samples, counts against sets of ids, and what ``ccnn`` refuses."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pipelines_stand_in  # noqa: F401  # trusted by being imported
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pipelines_commands import refused, write_config
from pipelines_stand_in import StandIn

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.data import SampleDataModule
from ccnn_irregular.pipelines.tasks.cloud_classification.data import ShapeDataModule
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import Discs, LabelDataModule
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingDataModule
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeDataModule
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.train import trained_on
from ccnn_irregular.pipelines.train.sample_keys import ragged_keys, row_keys, text_keys
from ccnn_irregular.pipelines.train.trained_on import ENTRY, TrainedOn

pytestmark = pytest.mark.usefixtures("in_tmp_path")

STAYS = 80


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=STAYS, seed=5, sets=("a", "b"))
    return root


# ---------------------------------------------------------------------------------------------------------------- keys


@given(arrays.arrays(np.float32, (20, 3), elements=st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.0**-40, np.nan, np.inf])))
def test_rows_have_equal_keys_where_they_are_equal_and_only_there(rows: np.ndarray) -> None:
    equal = (rows[:, None] == rows) | (np.isnan(rows[:, None]) & np.isnan(rows))
    keys = row_keys(rows[:, :1], rows[:, 1:])
    np.testing.assert_array_equal(keys[:, None] == keys, equal.all(2))
    np.testing.assert_array_equal(keys, row_keys(rows.astype(np.float32)))


def test_round_numbers_do_not_share_keys_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    for dtype in (np.float32, np.float64, np.int64, np.uint8):
        rows = generator.integers(0, 200, (40_000, 3)).astype(dtype)
        whole = row_keys(rows)
        assert len(np.unique(whole)) == len(np.unique(rows, axis=0))
        with monkeypatch.context() as patch:
            patch.setattr("ccnn_irregular.pipelines.train.sample_keys._WORDS_AT_ONCE", 1000)
            np.testing.assert_array_equal(row_keys(rows), whole)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_keys_of_samples_are_blind_to_the_order_of_their_rows(lengths: list[int], random: Any) -> None:
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.array([random.randint(0, 2) for _ in range(splits[-1])], np.float64)
    samples = [values[first:last] for first, last in itertools.pairwise(splits)]
    keys = ragged_keys(splits, values)
    shuffled = np.concatenate([random.sample(one.tolist(), len(one)) for one in samples] or [[]])
    np.testing.assert_array_equal(keys, ragged_keys(splits, shuffled))
    bags = [tuple(sorted(one)) for one in samples]
    np.testing.assert_array_equal(keys[:, None] == keys, [[one == other for other in bags] for one in bags])


def test_texts() -> None:
    keys = text_keys(["a", "b", "a", ""])
    assert keys[0] == keys[2]
    assert len(set(keys.tolist())) == 3


# ------------------------------------------------------------------------------------------- what a checkpoint says


def told(train: np.ndarray, validation: np.ndarray | None = None, below: int | None = None) -> TrainedOn:
    none = np.empty((0, train.shape[1]), np.int64)
    return TrainedOn("rows", train, none if validation is None else validation, none, below)


def test_the_state_goes_through_a_file_that_holds_plain_values_only(tmp_path: Path) -> None:
    keys = np.arange(10, dtype=np.int64).reshape(5, 2)
    torch.save({ENTRY: told(keys, keys[:1], 2**63 + 5).state()}, tmp_path / "one.ckpt")
    content = torch.load(tmp_path / "one.ckpt", weights_only=True)
    again = TrainedOn.from_checkpoint(content, "one.ckpt")
    assert (again.rows_are, again.below) == ("rows", 2**63 + 5)
    np.testing.assert_array_equal(again.train, keys)
    with pytest.raises(
        ValueError, match=r"the checkpoint x\.ckpt must say what it was trained on.* train it again, got"
    ):
        TrainedOn.from_checkpoint({}, "x.ckpt")
    for change in ({"version": 7}, {"train": [1, 2]}, {"train": torch.zeros(3)}, {"rows_are": 3}, {"below": "x"}):
        with pytest.raises(ValueError, match=r"'trained_on' in the checkpoint x\.ckpt must hold the keys of its rows"):
            TrainedOn.from_checkpoint({ENTRY: content[ENTRY] | change}, "x.ckpt")


class Numbers:
    """A data module of nothing but keys."""

    rows_are = "numbers"

    def __init__(self, **parts: np.ndarray) -> None:
        self.parts = parts

    def keys(self, part: str) -> np.ndarray:
        return row_keys(self.parts[part])[:, None]


def test_of_large_parts_a_random_choice_is_kept_that_sees_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_on, "_MOST", 2000)
    train, test = np.arange(20_000), np.arange(15_000, 25_000)
    one = TrainedOn.of(Numbers(train=train, validation=np.arange(-3, 0), test=np.arange(30_000, 30_100)))
    assert len(one.train) == pytest.approx(2000, abs=200)
    found = one.overlap(row_keys(test)[:, None])
    assert found.tested == 10_000
    assert found.looked_at == pytest.approx(1000, abs=150)
    assert found.trained_on / found.looked_at == pytest.approx(0.5, abs=0.06)
    assert "(looked up, drawn from 10000)" in str(found)


def test_what_the_data_hold_twice_is_told_apart() -> None:
    one = TrainedOn.of(Numbers(train=np.arange(10), validation=np.arange(10, 15), test=np.array([3, 12, 50, 51])))
    assert one.own_twins() == 2
    own = one.overlap(row_keys(np.array([3, 12, 50, 51]))[:, None])
    assert (own.tested, own.trained_on, own.chose_epoch, own.twins) == (4, 1, 1, 2)
    other = one.overlap(row_keys(np.array([3, 4, 50]))[:, None])
    assert (other.met, other.twins) == (2, 1)
    assert str(other) == (
        "2 of 3 numbers that were trained on; the data hold 1 of them twice, in both parts of the run itself"
    )
    # Rows of another kind, and of the validation part where only training counts.
    assert one.overlap(np.zeros((4, 2), np.uint64)).met == 0
    assert one.overlap(row_keys(np.arange(10, 15))[:, None], chosen=False).met == 0


# ------------------------------------------------------------------------------------------ the counts of all tasks


def stays(root: Path, **options: Any) -> SeriesTables:
    reader = {"cache": False, "progress": False}
    reader |= {name: options.pop(name) for name in ("sets", "repeats") if name in options}
    shares = {"test": 0.25, "validation": 0.25}
    return SeriesTables(str(root), source="physionet2012", source_options=reader, **shares | options)


def ids(data: SeriesTables, *parts: str) -> set[int]:
    return {int(one) for part in parts for one in data.ids(part)}  # type: ignore[arg-type]


def series_file(path: Path, seed: int = 0) -> str:
    header = ["@problemName Test", "@timeStamps false", "@univariate true", "@dimensions 1", "@equalLength false",
              "@classLabel true a b", "@data"]  # fmt: skip
    generator = np.random.default_rng(seed)
    lines = [f"{','.join(f'{x:.3f}' for x in generator.standard_normal(5 + n % 3))}:{'ab'[n % 2]}" for n in range(60)]
    path.write_text("\n".join([*header, *lines]) + "\n")
    return str(path)


def volumes(root: Path) -> Path:
    nibabel = pytest.importorskip("nibabel")
    generator = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(12):
        values = generator.standard_normal((4, 5, 6)).astype(np.float32)
        for folder, array in (("images", values), ("labels", (values > 0).astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), root / folder / f"case_{number:02}.nii.gz")
    return root


def compared(trained: Any, tested: Any) -> tuple[int, int, int]:
    """Rows tested, and those of them in the training and in the validation part of another data module."""
    trained.setup("fit")
    tested.setup("test")
    overlap = TrainedOn.of(trained).overlap(tested.keys("test"))
    assert overlap.looked_at == overlap.tested
    return overlap.tested, overlap.trained_on, overlap.chose_epoch


def counts(test: set[Any], train: set[Any], validation: set[Any]) -> tuple[int, int, int]:
    """The same of sets of names."""
    return len(test), len(test & train), len(test & validation)


def test_stays(root: Path, tmp_path: Path) -> None:
    run = stays(root)
    assert compared(run, stays(root)) == (20, 0, 0)
    other = stays(root, split_seed=1)
    found = compared(run, other)
    assert found == counts(ids(other, "test"), ids(run, "train"), ids(run, "validation"))
    assert found[1] > 5

    # One set of two, all of a folder, and the same stays read in another way.
    both = stays(root, sets=("a", "b"), repeats="first")
    assert compared(run, both) == counts(ids(both, "test"), ids(run, "train"), ids(run, "validation"))
    assert compared(run, stays(root, evaluate="all")) == (STAYS, 45, 15)
    assert compared(run, stays(root, sets=("b",), evaluate="all")) == (STAYS, 0, 0)

    # Under another name, with the lines of each record in another order and with other record ids.
    copy = tmp_path / "elsewhere"
    (copy / "set-a").mkdir(parents=True)
    for path in sorted((root / "set-a").glob("9*.txt")):
        head, *lines = path.read_text().splitlines()
        statics = [line for line in lines if line.startswith("00:00")]
        later = [line for line in lines if not line.startswith("00:00")]
        times: dict[str, list[str]] = {}
        for line in later:
            times.setdefault(line[:5], []).append(line)
        turned = [line for time in sorted(times) for line in reversed(times[time])]
        number = str(int(path.stem) + 50_000)
        text = "\n".join([head, *statics, *turned]).replace(f"RecordID,{path.stem}", f"RecordID,{number}")
        (copy / "set-a" / f"{number}.txt").write_text(text + "\n")
    outcomes = (root / "Outcomes-a.txt").read_text().splitlines()
    renamed = [outcomes[0], *(f"{int(one.partition(',')[0]) + 50_000},{one.partition(',')[2]}" for one in outcomes[1:])]
    (copy / "Outcomes-a.txt").write_text("\n".join(renamed) + "\n")
    # But for stays without any observation, which nothing but their number tells from one another.
    series = run.samples.series
    seen = {int(one) for one in series.ids[np.diff(series.splits) > 0]}
    wanted = counts(ids(run, "all"), ids(run, "train") & seen, ids(run, "validation") & seen)
    assert compared(run, stays(copy, evaluate="all")) == wanted
    assert wanted[1] >= 44

    # Another cohort counts its records from the same number on: these are other patients.
    simulated_icu.write(tmp_path / "others", stays=STAYS, seed=6)
    others = stays(tmp_path / "others", evaluate="all")
    assert compared(run, others) == (STAYS, 0, 0)
    assert ids(others, "all") == ids(run, "all")


def test_series(tmp_path: Path) -> None:
    pytest.importorskip("sktime", reason="the extra 'files' is not installed")
    first = series_file(tmp_path / "first.ts")
    run = SampleDataModule("ts_files", first)
    assert compared(run, SampleDataModule("ts_files", first)) == (9, 0, 0)
    other = SampleDataModule("ts_files", first, split_seed=1)
    found = compared(run, other)

    def names(data: SampleDataModule, part: str) -> set[bytes]:
        rows = data._read.subset(getattr(data._parts, part))  # type: ignore[union-attr]
        ends = rows.splits.tolist()
        return {rows.values[a:b].numpy().tobytes() for a, b in itertools.pairwise(ends)}

    assert found == counts(names(other, "test"), names(run, "train"), names(run, "validation"))
    assert found[1] > 0
    # The same series in another order, under another name, between others.
    lines = Path(first).read_text().splitlines()
    (tmp_path / "second.ts").write_text("\n".join([*lines[:7], *reversed(lines[7:])]) + "\n")
    third = series_file(tmp_path / "third.ts", seed=1)
    mixed = SampleDataModule("ts_files", f"{third},{tmp_path / 'second.ts'}", split_seed=1)
    assert compared(run, mixed) == counts(names(mixed, "test"), names(run, "train"), names(run, "validation"))


@pytest.mark.parametrize("dataset", ["simulated_strokes", "simulated_shapes", "simulated_volumes"])
def test_samples_of_all_kinds(dataset: Any) -> None:
    run, other = (SampleDataModule(dataset, count=60, test=test, validation=0.2) for test in (0.2, 0.5))
    found = compared(run, other)
    kept = [set(getattr(run._parts, part).tolist()) for part in ("train", "validation")]
    assert found == counts(set(other._parts.test.tolist()), *kept)  # type: ignore[union-attr]
    assert found[1] > 5
    assert compared(run, SampleDataModule(dataset, count=60, test=0.2, split_seed=1))[1:] == (0, 0)  # drawn anew


def test_volumes(tmp_path: Path) -> None:
    root = volumes(tmp_path / "pairs")
    options = {"classes": ["background", "object"], "validation": 0.2}
    run = VolumeDataModule(str(root), **options)  # type: ignore[arg-type]
    other = VolumeDataModule(str(root), split_seed=1, in_memory=False, **options)  # type: ignore[arg-type]
    found = compared(run, other)
    assert found == counts(set(other.part("test")), set(run.part("train")), set(run.part("validation")))
    assert found[1] > 0
    shutil.copytree(root, tmp_path / "copy")
    for folder in ("images", "labels"):
        for path in sorted((tmp_path / "copy" / folder).iterdir()):
            path.rename(path.with_name(f"{100 - int(path.name[5:7])}.nii.gz"))
    renamed = VolumeDataModule(str(tmp_path / "copy"), test=0.7, **options)  # type: ignore[arg-type]
    renamed.setup("test")
    meant = {100 - int(renamed.pairs[number].name) for number in renamed.part("test")}
    assert compared(run, renamed) == counts(meant, set(run.part("train")), set(run.part("validation")))


def test_shapes_and_points() -> None:
    run, other = (
        ShapeDataModule("simulated_solids", count=80, places=64, validation=0.2, test=share) for share in (0.2, 0.5)
    )
    found = compared(run, other)
    kept = [set(run._parts[part].tolist()) for part in ("train", "validation")]
    assert found == counts(set(other._parts["test"].tolist()), *kept)
    assert found[1] > 0

    discs = Discs(radius=20.0, count=4)
    tile, turned = (
        LabelDataModule("simulated_terrain", count=500, discs=discs, reverse=reverse) for reverse in (False, True)
    )
    found = compared(tile, turned)
    rows = {part: set(tile.rows[part].tolist()) for part in ("train", "validation")}
    assert found == counts(set(turned.rows["test"].tolist()), rows["train"], rows["validation"])
    assert found[1] > 200
    assert compared(tile, LabelDataModule("simulated_terrain", count=500, discs=discs))[1:] == (0, 0)
    # The points of a tile in another order, about a mean that is rounded otherwise.
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(turned.parts["test"].coordinates)))
    cut = turned.parts["test"].rows(order, torch.tensor([0, len(order)]))
    cut.coordinates.add_(1e-11)
    turned.parts["test"] = cut
    assert compared(tile, turned) == found


def test_places() -> None:
    run = FieldDataModule("simulated_fields", held=0.2, watched=0.1)
    other = FieldDataModule("simulated_fields", held=0.5, watched=0.1)
    found = compared(run, other)
    parts = [set(torch.nonzero(run.parts.part == part).flatten().tolist()) for part in (0, 1)]
    assert found == counts(set(torch.nonzero(other.parts.part == 2).flatten().tolist()), *parts)
    assert found[1] > 500
    assert compared(run, FieldDataModule("simulated_fields", held=0.2, watched=0.1))[1:] == (0, 0)
    # Whole fields kept: what is shown of them is no answer.
    fields = FieldDataModule("simulated_fields", test_fields=[0, 11], watched=0.1)
    tested, trained, _ = compared(run, fields)
    assert tested == 2 * 380
    assert trained > 400


def cube(path: Path, times: slice, shift: float = 0.0) -> str:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    values = np.random.default_rng(0).standard_normal((9, 6, 7)) + shift
    axes = {"time": np.arange(9), "y": np.arange(6.0), "x": np.arange(7.0)}
    xr.Dataset({"t": (tuple(axes), values)}, axes).isel(time=times).to_netcdf(path, engine="h5netcdf")
    return str(path)


def test_places_of_a_cube_under_another_name_and_in_another_order(tmp_path: Path) -> None:
    options: dict[str, Any] = {"variables": ["t"], "axes": ["y", "x"], "fields": "time", "watched": 0.1}
    run = FieldDataModule("cube", cube(tmp_path / "a.nc", slice(0, 6)), test_fields=[5], **options)
    mixed = FieldDataModule("cube", cube(tmp_path / "b.nc", slice(None, None, -1)), test_fields=[0, 8], **options)
    tested, trained, watched = compared(run, mixed)  # the times 8, of which nothing is known, and 0
    assert tested == 2 * 40
    assert 35 <= trained + watched <= 40
    # The same grid and times in another simulation.
    simulation = FieldDataModule("cube", cube(tmp_path / "c.nc", slice(None), 1.0), test_fields=[0], **options)
    assert compared(run, simulation)[1:] == (0, 0)


def test_gridded_fields() -> None:
    run, other = (DownscalingDataModule(count=20, test=share) for share in (0.2, 0.5))
    assert compared(run, DownscalingDataModule(count=20, test=0.2)) == (4, 0, 0)
    tested, trained, watched = compared(run, other)
    assert (tested, trained + watched) == (10, 6)
    assert trained > 0


# ---------------------------------------------------------------------------------------------------------- ``ccnn``


@pytest.fixture
def config(root: Path, tmp_path: Path) -> str:
    model = {"network": {"class_path": f"{StandIn.__module__}.StandIn"}}
    return write_config(
        tmp_path / "tiny.yaml", root, trainer={"max_epochs": 1}, model=model, data={"split_seed": 0, "batch_size": 64}
    )


def report(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "metrics.json").read_text())


def test_a_test_takes_the_options_of_its_run_and_refuses_what_was_trained_on(
    config: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["fit", "--config", config, "--data.split_seed", "3", "--seed_everything", "4"])
    quick = ["--test.resamples", "20"]
    # The file says 0; what is not typed is the run's, and that is told. No option is needed but the run.
    tried = ["--config", config], ["--run_dir", "runs/tiny"], ["--config", config, "--ckpt_path", "runs/tiny/last.ckpt"]
    for run in tried:
        capsys.readouterr()
        cli.main(["test", *run, *quick, "--output", "out"])
        told = "data.split_seed = 3 as in runs/tiny, not 0 as in" in capsys.readouterr().out
        assert told == ("--config" in run)
        found = report("out")
        assert found["data"]["split_seed"] == 3
        assert found["seed"] == 4
        assert found["overlap"] == {"rows_are": "series", "tested": 20, "trained_on": 0, "chose_epoch": 0, "twins": 0,
                                    "looked_at": 20}  # fmt: skip

    trained, here = stays(root, split_seed=3), stays(root)
    for data in (trained, here):
        data.setup("fit")
    _, met, watched = counts(ids(here, "test"), ids(trained, "train"), ids(trained, "validation"))
    other = ["--config", config, "--data.split_seed", "0"]
    message = refused(capsys, "test", *other, "--output", "no")
    assert f"got {met} of 20 series that were trained on and {watched} that chose the best epoch" in message
    assert "data.split_seed = 3 there and 0 here" in message
    assert "--allow_overlap true goes on" in message
    assert not Path("no").exists()
    capsys.readouterr()
    cli.main(["test", *other, *quick, "--allow_overlap", "true", "--output", "counted"])
    assert f"note: among these are {met} of 20 series that were trained on" in capsys.readouterr().out
    assert report("counted")["overlap"]["trained_on"] == met

    # The validation part of another split, and another folder: all of it.
    assert "series that were trained on" in refused(capsys, "validate", *other)
    cli.main(["validate", "--config", config])
    everything = ["--config", config, "--data.evaluate", "all"]
    assert "got 45 of 80 series" in refused(capsys, "test", *everything)
    cli.main(["test", *everything, "--data.source_options.sets", "[b]", *quick, "--output", "b"])
    assert report("b")["overlap"]["trained_on"] == 0
    capsys.readouterr()
    cli.main(["predict", "--config", config, "--output", "risks.csv"])
    assert (
        "note: among these are 45 of 80 series that were trained on and 15 that chose the best epoch"
        in capsys.readouterr().out
    )

    # A checkpoint that does not say what it was trained on.
    content = torch.load("runs/tiny/best.ckpt", weights_only=True)
    del content[ENTRY]
    torch.save(content, "runs/tiny/best.ckpt")
    assert "must say what it was trained on" in refused(capsys, "test", "--config", config)
    cli.main(["test", "--config", config, *quick, "--allow_overlap", "true", "--output", "old"])
    assert report("old")["overlap"] is None


def test_a_run_does_not_go_on_with_other_rows(
    config: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root, tmp_path / "moving")
    data = ["--data.table", str(tmp_path / "moving")]
    cli.main(["fit", "--config", config, *data])
    shutil.rmtree(tmp_path / "moving")
    simulated_icu.write(tmp_path / "moving", stays=STAYS, seed=9)
    message = refused(capsys, "fit", "--config", config, *data, "--trainer.max_epochs", "2")
    assert "must hold a run whose files are what it began with" in message
    Path("runs/tiny/data.json").unlink()  # as of a version that kept none
    with pytest.warns(UserWarning, match="max_epochs was 1 and is 2"):
        message = refused(capsys, "fit", "--config", config, *data, "--trainer.max_epochs", "2")
    assert "the rows to train and to validate on must be what the run began with" in message
    # Nothing is said about a run that did not begin.
    assert json.loads(Path("runs/tiny/summary.json").read_text())["end"]["finished"]


def test_stays_that_the_data_hold_twice_are_told_and_counted(
    config: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = tmp_path / "twice"
    shutil.copytree(root, twice)
    outcomes = (twice / "Outcomes-a.txt").read_text().splitlines()
    for line in outcomes[1:]:
        record, _, rest = line.partition(",")
        text = (twice / "set-a" / f"{record}.txt").read_text()
        again = str(int(record) + 50_000)
        (twice / "set-a" / f"{again}.txt").write_text(text.replace(f"RecordID,{record}", f"RecordID,{again}"))
        outcomes.append(f"{again},{rest}")
    (twice / "Outcomes-a.txt").write_text("\n".join(outcomes) + "\n")
    with pytest.warns(UserWarning, match=r"of the series to test on are in the training or validation part too"):
        cli.main(["fit", "--config", config, "--data.table", str(twice)])
    cli.main(["test", "--config", config, "--test.resamples", "20", "--output", "out"])
    found = report("out")["overlap"]
    assert found["twins"] == found["trained_on"] + found["chose_epoch"] > 10
    # Another split meets what the run's own does not.
    assert "series that were trained on" in refused(capsys, "test", "--config", config, "--data.split_seed", "1")


TASKS: dict[str, tuple[list[str], list[str]]] = {
    "simulated_strokes": (["--data.count", "60"], ["--data.test", "0.4"]),
    "simulated_clouds": (["--data.count", "60", "--data.points", "32", "--data.places", "64", "--data.changes.fewest",
                          "16"], ["--data.test", "0.4"]),
    "simulated_terrain": (["--data.count", "600", "--data.discs.count", "8"], ["--data.reverse", "true"]),
    "field": (["--data.draws", "4", "--model.network.init_args.neighbours", "6"], ["--data.held", "0.5"]),
    "downscale": (["--data.count", "10"], ["--data.test", "0.5"]),
    "simulated_forecast": (["--data.options", "{count: 40}"], ["--data.split_seed", "1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_every_task_refuses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    small, other = TASKS[name]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    cli.main(["fit", "--config", name, "--trainer.max_epochs", "1", *small, *quiet])
    cli.main(["test", "--config", name, *quiet, "--output", "out"])
    found = report("out")["overlap"]
    assert (found["trained_on"], found["chose_epoch"]) == (0, 0)
    assert found["tested"] > 0
    message = refused(capsys, "test", "--config", name, *quiet, *other)
    assert "that were trained on" in message
    option = other[0].removeprefix("--")
    assert f"{option} = " in message
