"""``--data.evaluate all``: every row of a source is tested or predicted, by its own name; nothing is overwritten."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pipelines_tasks import TASKS, answers, new_model, write_volumes

from ccnn_irregular.datasets import registry, simulated_icu
from ccnn_irregular.datasets.samples import RaggedSeries
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.content import labelled_as
from ccnn_irregular.pipelines.tasks.classification.data import SampleDataModule
from ccnn_irregular.pipelines.train.outputs import earlier, record, record_path, require_own

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:ccnn_irregular"),
]

# Tasks whose data modules take all of a source.
WHOLE = (
    *("tables", "numbers", "stays", "series", "images", "scans", "segmentation", "downscale", "forecast"),
    *("shapes", "own_classes", "tile", "clouds"),
)
QUIET = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")


@pytest.mark.parametrize("name", WHOLE)
def test_the_test_part_holds_every_row_and_the_others_none(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    split, whole = (task.data(tmp_path, 4) for _ in range(2))
    split.setup("fit")
    whole.evaluate = "all"
    whole.setup("test")
    count = {one: sum(len(data.keys(part)) for part in ("train", "validation", "test")) for one, data in
             (("split", split), ("whole", whole))}  # fmt: skip
    assert len(whole.keys("test")) == count["whole"] == count["split"] > len(split.keys("test"))
    keys = [np.concatenate([data.keys(part) for part in ("train", "validation", "test")]) for data in (split, whole)]
    assert sorted(keys[0].tolist()) == sorted(keys[1].tolist())
    if name not in ("downscale", "clouds"):  # which predict files, and have rows without names
        ids = whole.ids("test")
        assert len(set(ids)) == len(ids) == count["whole"]
        assert set(split.ids("test")) < set(ids)


@pytest.mark.parametrize(
    "name", ["tables", "numbers", "stays", "series", "images", "scans", "forecast", "shapes", "own_classes"]
)
def test_answers_to_all_rows_are_those_to_each_row_by_its_id(name: str, tmp_path: Path) -> None:
    task, model = TASKS[name], new_model(TASKS[name])
    split, whole = (task.data(tmp_path, 5) for _ in range(2))
    split.setup("fit")
    model.prepare(split)
    whole.evaluate = "all"
    whole.load_state_dict(split.state_dict())  # as of a checkpoint
    whole.setup("predict")
    found = [answers(model, data.loader("test")) for data in (split, whole)]
    if name == "forecast":  # of places of each series
        rows = [torch.cat([batch.asked.ids[batch.asked.sample_index()] for batch in data.loader("test")]) for data in
                (split, whole)]  # fmt: skip
        kept = torch.isin(rows[1], rows[0])
        order = [part[one.argsort(stable=True)] for part, one in ((found[0], rows[0]), (found[1][kept], rows[1][kept]))]
    else:
        place = {one: row for row, one in enumerate(whole.ids("test"))}
        order = [found[0], found[1][[place[one] for one in split.ids("test")]]]
    torch.testing.assert_close(order[1], order[0], rtol=1e-4, atol=1e-5)


def test_rows_of_sorted_sources_keep_their_places_in_the_file() -> None:
    """Series whose label is their first value: the id leads back to the line of the file."""
    values = torch.arange(40.0)[:, None].repeat(1, 3).reshape(-1, 1)
    labels = torch.arange(40) % 2
    series = RaggedSeries.uniform(values, 1.0, torch.arange(41) * 3, labels, ("even", "odd"), "s")
    dataset = registry.DataSet(
        name="numbered_lines", about="", load=lambda: series, samples=RaggedSeries, ordered=False
    )  # fmt: skip
    registry.register(dataset, replace=True)
    for evaluate in ("test", "all"):
        data = SampleDataModule("numbered_lines", evaluate=evaluate)  # type: ignore[arg-type]
        data.setup("test")
        batches = torch.cat([batch.values[::3, 0] for batch in data.loader("test")])
        assert batches.tolist() == data.ids("test")
    assert data.ids("test") == list(range(40))


def test_labels_are_counted_as_in_the_checkpoint() -> None:
    values, splits = torch.zeros(6, 1), torch.arange(4) * 2
    series = RaggedSeries.uniform(values, 1.0, splits, torch.tensor([1, 0, -1]), ("b", "c", "unused"), "s")
    found = labelled_as(series, ("a", "b", "c"))
    assert found.labels.tolist() == [2, 1, -1]
    assert found.classes == ("a", "b", "c")
    assert found.describe()["classes"] == {"a": 0, "b": 1, "c": 1}
    with pytest.raises(
        ValueError, match="labels must be of the classes that the checkpoint was trained on, a, b, got c"
    ):
        labelled_as(series, ("a", "b"))


# ------------------------------------------------------------------------------------------------------------ outputs


def test_only_outputs_of_its_own_are_overwritten(tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "out.csv", tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    require_own(path)
    path.write_text("id,label\n")
    with pytest.raises(ValueError, match=r"output must .*--output names another file, got .*no out.csv.json tells"):
        require_own(path)
    record(path, "series", checkpoint, {"root": "there"})
    require_own(path)
    told = json.loads(record_path(path).read_text())
    assert told["checkpoint"] == str(checkpoint)
    assert told["checkpoint sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert told["data"] == {"root": "there"}
    assert earlier(path) == told
    path.write_text("id,label\nmine\n")
    assert earlier(path) is None
    with pytest.raises(ValueError, match="which was changed since it was written"):
        require_own(path)
    path.unlink()
    record_path(path).write_text('{"made by": "somebody"}')
    with pytest.raises(ValueError, match="none of its records"):
        require_own(path)
    with pytest.raises(ValueError, match="be a file, not a folder"):
        require_own(tmp_path)


# ----------------------------------------------------------------------------------------------------------- commands


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open() as lines:
        return list(csv.DictReader(lines))


def test_strokes_that_training_never_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--data.count", "60", "--model.network.init_args.hidden_channels", "4", "--model.network.init_args.copies",
             "1", "--model.network.init_args.blocks", "1", "--trainer.max_epochs", "1"]  # fmt: skip
    cli.main(["fit", "--config", "simulated_strokes", *QUIET, *small])
    new = ["--config", "simulated_strokes", *QUIET, "--data.split_seed", "7", "--data.count", "33"]
    cli.main(["test", *new, "--data.evaluate", "all", "--output", "new"])
    report = json.loads(Path("new/metrics.json").read_text())
    assert report["results"][0]["n"] == report["overlap"]["tested"] == 33
    assert report["overlap"]["trained_on"] == 0
    assert report["data"]["samples"] == {"train": 0, "validation": 0, "test": 33}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["test", *new, "--data.evaluate", "all", "--test.drop", "0.5", "--test.resample", "true"])
    assert "test.resample must be left out with data.evaluate all" in capsys.readouterr().err
    cli.main(["predict", *new])
    rows = rows_of("runs/simulated_strokes/predictions.csv")
    assert [row["id"] for row in rows] == [str(number) for number in range(33)]
    assert rows == rows_of("new/predictions.csv")
    told = json.loads(Path("runs/simulated_strokes/predictions.csv.json").read_text())
    assert told["checkpoint"] == "runs/simulated_strokes/best.ckpt"
    assert told["data"]["split_seed"] == 7
    cli.main(["predict", *new])  # over its own output
    Path("mine.csv").write_text("do not touch\n")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["predict", *new, "--output", "mine.csv"])
    assert "--output names another file" in capsys.readouterr().err
    assert Path("mine.csv").read_text() == "do not touch\n"
    cli.main(["predict", "--config", "simulated_strokes", *QUIET, "--data.evaluate", "test", "--output", "part.csv"])
    assert 0 < len(rows_of("part.csv")) < 60


def test_volumes_with_and_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_volumes(tmp_path / "old", 6)
    rng = np.random.default_rng(8)
    write_volumes(tmp_path / "new", 5)
    import nibabel

    for path in (tmp_path / "new" / "images").iterdir():  # other ones than those trained on
        image = nibabel.load(path)
        noisy = np.asarray(image.dataobj, np.float32) + 0.1 * rng.standard_normal(image.shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(noisy, image.affine), path)
    config = {
        "task": "segmentation",
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {
            "network": {
                "class_path": "ccnn_irregular.pipelines.tasks.segmentation.network.ContinuousSegmenter",
                "init_args": {"in_channels": 1, "classes": 2, "channels": [4], "blocks": [0]},
            }
        },
        "data": {"root": "old", "classes": ["nothing", "box"], "validation": 0.2, "test": 0.2},
    }
    Path("boxes.yaml").write_text(yaml.safe_dump(config))
    cli.main(["fit", "--config", "boxes.yaml"])
    cli.main(["test", "--config", "boxes.yaml", "--data.root", "new", "--data.evaluate", "all"])
    report = json.loads(Path("runs/boxes/test_all/metrics.json").read_text())
    assert report["data"]["names"]["test"] == [f"case_{number}" for number in range(5)]
    assert {row["n"] for row in report["results"]} == {5}
    shutil.rmtree("new/labels")
    cli.main(["predict", "--config", "boxes.yaml", "--data.root", "new"])
    written = sorted(path.name for path in Path("runs/boxes/predictions").glob("*.nii.gz"))
    assert written == [f"case_{number}.nii.gz" for number in range(5)]
    told = json.loads(Path("runs/boxes/predictions/case_0.nii.gz.json").read_text())
    assert told["checkpoint"] == "runs/boxes/best.ckpt"


def test_stays_without_outcomes_get_forecasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulated_icu.write(tmp_path / "stays", stays=24, seed=2)
    run = ["--config", "physionet2012_forecast", *QUIET]
    small = ["--data.root", "stays", "--data.options", "{sets: [a], cache: false, progress: false}",
             "--model.network.init_args.hidden_channels", "4", "--trainer.max_epochs", "1"]  # fmt: skip
    cli.main(["fit", *run, *small])
    simulated_icu.write(tmp_path / "new", stays=9, seed=3)
    for outcomes in (tmp_path / "new").glob("Outcomes*"):
        outcomes.unlink()
    cli.main(["predict", *run, "--data.root", "new", "--predict.times", "30", "--output", "new.csv"])
    stays = {path.stem for path in (tmp_path / "new" / "set-a").glob("*.txt")}
    assert {row["id"] for row in rows_of("new.csv")} == stays - {"SIMULATED"}
    assert len(stays) == 10


# ------------------------------------------------------------------------------------------- what is refused, and why


def test_what_a_classification_cannot_read_is_refused_by_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    values[:, 1] = torch.nan
    labels = torch.arange(40) % 2
    series = RaggedSeries.uniform(values, 0.1, torch.arange(41) * 3, labels, ("a", "b"), "s")
    dataset = registry.DataSet(name="never_measured", about="", load=lambda: series, samples=RaggedSeries)
    registry.register(dataset, replace=True)
    data = SampleDataModule("never_measured", validation=0.2, test=0.2)
    data.setup("fit")
    with pytest.raises(
        ValueError, match=r"channel 1 \(from 0 on\) must be measured in some sample of the training part"
    ):
        new_model(TASKS["series"]).require_trainable(data)
    with pytest.raises(ValueError, match=r"data\.window must be null where values are missing"):
        SampleDataModule("never_measured", window=0.3).setup("fit")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "simulated_strokes", "--trainer.precision", "bf16-true"])
    said = capsys.readouterr().err
    assert "trainer.precision must be one of 32-true, bf16-mixed, 16-mixed" in said
    assert "--trainer.precision bf16-mixed keeps them" in said
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "simulated_strokes", "--trainer.precision", "64-true"])
    assert "weights are float64 in each; for values in float64, call network.double()" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
