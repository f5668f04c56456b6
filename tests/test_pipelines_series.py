"""The task of one's own series: from tables to predictions on tables that training never saw."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pipelines_tasks import own_series, own_tables, write_tables
from torchmetrics.functional.classification import multiclass_calibration_error

from ccnn_irregular.datasets.tables import from_frames
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.evaluation import evaluate
from ccnn_irregular.pipelines.tasks.series.figures import mistakes, predicted_numbers
from ccnn_irregular.pipelines.tasks.series.module import SeriesModel
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import Samples, Schema, beyond, timing_of
from ccnn_irregular.pipelines.tasks.series.utility import best_threshold, normalised_utility

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
SMALL = ["--trainer.max_epochs", "2", "--model.network.init_args.members", "1"]
SMALL += ["--model.network.init_args.hidden_channels", "8", "--model.network.init_args.blocks", "1"]


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fit(folder: Path, *options: str) -> list[str]:
    """Train on tables in a folder; the words that name the run."""
    run = ["--run_dir", str(folder / "run"), *QUIET]
    cli.main(["fit", "--config", "series", *run, *SMALL, "--data.validation", "0.2", *options])
    return run


# ------------------------------------------------------------------------------------------------------- command line


def test_fit_test_and_predict_on_tables_never_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, labels = write_tables(tmp_path)
    ages = pd.DataFrame({"id": [f"own{one:03d}" for one in range(40)], "age": np.arange(40.0), "ward": list("AB") * 20})
    ages.to_csv(tmp_path / "statics.csv", index=False)
    options = [
        "--data.table",
        str(table),
        "--data.labels",
        str(labels),
        "--data.statics",
        str(tmp_path / "statics.csv"),
    ]
    run = fit(tmp_path, *options)
    told = capsys.readouterr().out
    assert "labels are binary: 0, 1; the positive class is 1 (--data.classes 1 0 makes it 0)" in told
    assert "2 variables: SpO2, pulse (--data.variables)" in told
    assert "statics: age, ward (2 categories)" in told
    assert "a long table: id = id, time = time, variable = variable, value = value" in told

    cli.main(["test", *run])
    held = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert held["n"] == 8
    assert held["overlap"]["trained_on"] == 0

    new, new_labels = write_tables(tmp_path, "new", count=9, seed=1)
    with new.open("a") as file:
        file.write("extra,3.0,lactate,2.5\n")  # a series of a variable that training did not have
    with pytest.warns(UserWarning, match="variables that training did not have are left out: lactate"):
        cli.main(
            ["test", *run, "--data.table", str(new), "--data.labels", str(new_labels), "--output", str(tmp_path / "t")]
        )
    found = lines(tmp_path / "t" / "predictions.csv")
    assert [line["id"] for line in found] == [f"new{one:03d}" for one in range(9)]
    assert [line["label"] for line in found] == ["0", "1"] * 4 + ["0"]

    capsys.readouterr()
    with pytest.warns(UserWarning, match="left out: lactate"):
        cli.main(["predict", *run, "--data.table", str(new), "--output", str(tmp_path / "p.csv")])
    assert "no label" not in capsys.readouterr().out  # none were named
    answered = lines(tmp_path / "p.csv")
    assert [line["id"] for line in answered] == ["extra", *(f"new{one:03d}" for one in range(9))]
    risks = {line["id"]: float(line["probability_1"]) for line in answered}
    assert all(line["prediction"] == str(int(risks[line["id"]] >= 0.5)) for line in answered)
    assert all(risks[line["id"]] == pytest.approx(float(line["probability_1"]), abs=2e-6) for line in found)


def test_the_run_resumes_and_typed_options_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, labels = write_tables(tmp_path)
    options = ["--data.table", str(table), "--data.labels", str(labels), "--model.network.init_args.width", "5.5"]
    fit(tmp_path, *options)
    assert "width 5.5 (" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="max_epochs was 2 and is 3"):
        fit(tmp_path, *options, "--trainer.max_epochs", "3")
    assert "resuming from" in capsys.readouterr().out
    saved = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["hyper_parameters"]["network"]["init_args"]
    assert saved["schema"]["variables"] == ["SpO2", "pulse"]
    assert saved["width"] == 5.5


@pytest.mark.parametrize("kind", ["classes", "number"])
def test_classes_and_numbers(tmp_path: Path, kind: str) -> None:
    table, labels = write_tables(tmp_path)
    words = pd.read_csv(labels)
    words["label"] = np.array(["low", "mid", "high"])[np.arange(40) % 3] if kind == "classes" else np.arange(40) / 7
    words.to_csv(labels, index=False)
    run = fit(tmp_path, "--data.table", str(table), "--data.labels", str(labels))
    cli.main(["test", *run])
    figures = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())["metrics"]
    cli.main(["predict", *run, "--output", str(tmp_path / "p.csv")])
    found = lines(tmp_path / "p.csv")
    assert len(found) == 40
    if kind == "classes":
        chances = np.array([[float(line[f"probability_{name}"]) for name in ("high", "low", "mid")] for line in found])
        np.testing.assert_allclose(chances.sum(1), 1, atol=3e-6)
        assert [line["prediction"] for line in found] == [("high", "low", "mid")[one] for one in chances.argmax(1)]
        names = {"accuracy", "macro F1", "log loss", "calibration error", "Brier score", "share of the commonest class"}
        assert set(figures) == names
        assert all(
            0 <= figures[name]["low"] <= figures[name]["high"] <= 1 for name in names - {"log loss", "Brier score"}
        )
    else:
        assert all(abs(float(line["prediction"]) - 2.8) < 3 for line in found)
        assert max(len(line["prediction"].lstrip("-0.").replace(".", "")) for line in found) == 7  # digits of float32
        names = {"RMSE", "mean absolute error", "R2", "RMSE of the training mean", "within the 90 % interval"}
        assert set(figures) == names
        network = kept_deviation(tmp_path / "run" / "best.ckpt")
        assert all(float(line["standard_deviation"]) == pytest.approx(network, rel=1e-5) for line in found)
    pictures = {path.name for path in (tmp_path / "run" / "test").glob("*.png")}
    own = {"predictions.png"} if kind == "number" else set()
    assert pictures - {"mistakes.png"} == {"receptive_fields.png", "kernels.png"} | own


def kept_deviation(path: Path) -> float:
    """The standard deviation that a checkpoint keeps."""
    return float(torch.load(path, weights_only=True)["state_dict"]["network.deviation"])


def test_the_standard_deviation_is_that_of_the_errors_at_validation_series() -> None:
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(20), 3), "time": np.tile([0.0, 1.0, 2.0], 20), "x": np.arange(60.0)}
    )
    labels = pd.DataFrame({"id": np.arange(20), "label": np.linspace(-3, 7, 20)})
    data = SeriesTables.of(from_frames(frame, labels), labels_are="number", validation=0.3)
    data.setup("fit")
    model = SeriesModel(
        SeriesNetwork(**{**data.inferred(), "schema": data.schema, "width": 1.0}, hidden_channels=4, blocks=1)
    )
    model.network.prepare(data.typical_batch(), data.training_values())
    told = model.calibrate(data)
    answers = torch.cat([model.network.eval().answers(batch) for batch in data.loader("validation")])[:, 0]
    errors = answers.detach().numpy() - data.targets("validation")
    assert float(model.network.deviation) == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)
    assert "by 5 validation samples" in told
    earlier = {name: value for name, value in model.network.state_dict().items() if name != "deviation"}
    fresh = SeriesNetwork(**{**data.inferred(), "schema": data.schema, "width": 1.0}, hidden_channels=4, blocks=1)
    fresh.load_state_dict(earlier)  # of a version that did not know it
    assert float(fresh.deviation) == 0


def test_numbers_are_drawn_under_their_name_over_their_range() -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "time": [0.0, 0.0], "x": [1.0, 2.0]})
    read = from_frames(frame, pd.DataFrame({"id": ["a", "b"], "CRP (mg/l)": [1.4, 8.6]}))
    assert read.label_name == "CRP (mg/l)"
    truth = np.linspace(1.4, 8.6, 30)
    figure = predicted_numbers(truth + 0.5, truth, 1.0, "mine", read.label_name)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("CRP (mg/l), true", "CRP (mg/l), predicted")
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert 1 < low < 1.4
        assert 9.1 < high < 9.5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["predicted = true", "90 % interval"]


def test_the_worst_mistakes_of_series_and_numbers_come_first() -> None:
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(20), 3), "time": np.tile([0.0, 1.0, 2.0], 20), "x": np.arange(60.0)}
    )
    labels = pd.DataFrame({"id": np.arange(20), "label": np.linspace(-3, 7, 20)})
    data = SeriesTables.of(from_frames(frame, labels), labels_are="number", evaluate="all")
    data.schema = Schema(["x"], {}, "number", [], "h", "numbers", "given")
    data.setup("test")
    network = SeriesNetwork(data.schema, 0.0, 1.0, 4, 3.0, 1.0, 1.0, hidden_channels=4, blocks=1)
    answers = data.targets("test")[:, None] + np.where(np.arange(20) == 7, 5.0, 0.1 * (np.arange(20) == 3))[:, None]
    figure = mistakes(answers, network, data)["mistakes.png"]
    titles = [axes.get_title().partition(":")[0] for axes in figure.axes if axes.get_title()]
    assert titles == [data.ids("test")[7], data.ids("test")[3]]
    times, values = figure.axes[0].get_lines()[0].get_data()
    assert figure.axes[0].get_xlabel() == "time (h)"
    assert times.tolist() == [0.0, 1.0, 2.0]
    x = np.arange(60.0)
    row = int(data.ids("test")[7])
    assert values.tolist() == x[3 * row : 3 * row + 3].tolist()  # as measured
    assert figure.axes[0].get_ylabel() == "x"
    assert mistakes(data.targets("test")[:, None], network, data) == {}


def test_labels_at_times_are_answered_at_these_times(tmp_path: Path) -> None:
    table, labels = write_tables(tmp_path)
    timed = pd.read_csv(labels)
    timed = pd.concat([timed.assign(prediction_time=12.0), timed.assign(prediction_time=30.0)])
    timed.to_csv(labels, index=False)
    run = fit(tmp_path, "--data.table", str(table), "--data.labels", str(labels))
    new, asked = write_tables(tmp_path, "new", count=3, seed=1)
    pd.DataFrame({"id": ["new000", "new001"], "prediction_time": [20.0, 10.5]}).to_csv(asked, index=False)
    cli.main(
        ["predict", *run, "--data.table", str(new), "--data.labels", str(asked), "--output", str(tmp_path / "p.csv")]
    )
    found = [(line["id"], line["time"]) for line in lines(tmp_path / "p.csv")]
    assert found == [("new000", "20.0"), ("new001", "10.5"), ("new002", "")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.table", "{table}"], "data.labels must name a table of labels to learn from, got None"),
        (["--data.table", "none.csv"], "tables must be files or folders that exist, got none.csv"),
        (
            ["--data.table", "{table}", "--data.labels", "{labels}", "--data.columns.id", "who"],
            "columns.id must name a col",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, labels = write_tables(tmp_path)
    words = [word.format(table=table, labels=labels) for word in options]
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "series", "--run_dir", str(tmp_path / "run"), *QUIET, *words])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------------ samples


def samples(cuts: list[float], since_cut: bool = False) -> Samples:
    frame = pd.DataFrame(
        {"id": [1, 1, 1, 2], "time": [0.0, 2, 5, 3], "a": [1.0, np.nan, 3, 4], "b": [np.nan, 6.0, 7, np.nan]}
    )
    series = from_frames(frame).series
    index = np.arange(2)
    return Samples(series, np.zeros((2, 0), np.float32), index, np.array(cuts), np.zeros(2), since_cut)


def test_a_batch_holds_what_was_known_by_the_cut() -> None:
    batch = samples([2.0, np.inf]).batch(torch.tensor([1, 0]))
    assert batch.times.tolist() == [3.0, 0.0, 2.0]
    assert batch.splits.tolist() == [0, 1, 3]
    np.testing.assert_array_equal(batch.values, [[4, np.nan], [1, np.nan], [np.nan, 6]])
    later = samples([2.0, np.inf], since_cut=True).batch(torch.tensor([0, 1]))
    assert later.times.tolist() == [-2.0, 0.0, 0.0]


def test_no_value_after_the_cut_is_seen(tmp_path: Path) -> None:
    data, model = own_tables(tmp_path, 8), own_series().eval()
    data.setup("fit")
    data.samples.cuts[:] = 10.0
    chosen = torch.arange(len(data.samples))
    before = model(data.samples.batch(chosen))
    data.samples.series.values[data.samples.series.times > 10] = 1e3
    assert torch.equal(model(data.samples.batch(chosen)), before)


def test_timing_serves_the_preset_of_intensive_care() -> None:
    """Hourly rows of 48 hours have the grid and the kernels of the network of the risk."""
    hours = np.tile(np.arange(0.0, 48.5, 0.5), 20)
    frame = pd.DataFrame({"id": np.repeat(np.arange(20), 97), "time": hours, "x": 1.0})
    series = from_frames(frame).series
    found = Samples(series, np.zeros((20, 0), np.float32), np.arange(20), np.full(20, np.inf), np.zeros(20))
    timing = timing_of(found, np.arange(20))
    assert (timing.start, timing.step, timing.nodes) == (0.0, 1.0, 48)
    assert (timing.extent, timing.width, timing.cap) == (24.0, 6.0, 6.0)
    assert beyond(found, np.arange(20), 0.0, 48.0) == 0.0
    assert beyond(found, np.arange(20), 0.0, 24.0) == pytest.approx(48 / 97)


def test_series_are_split_whole_and_whatever_their_order(tmp_path: Path) -> None:
    table, labels = write_tables(tmp_path)
    twice = pd.read_csv(labels)
    twice = pd.concat([twice.assign(time=5.0), twice.assign(time=20.0)])
    twice.to_csv(labels, index=False)
    parts = []
    for order in (0, 1):
        pd.read_csv(labels).sample(frac=1, random_state=order).to_csv(labels, index=False)
        pd.read_csv(table).sample(frac=1, random_state=order).to_csv(table, index=False)
        data = SeriesTables(str(table), str(labels), validation=0.2)
        data.setup("fit")
        parts.append({part: set(data.ids(part)) for part in ("train", "validation", "test")})
    assert parts[0] == parts[1]
    assert sum(map(len, parts[0].values())) == 40
    assert not parts[0]["train"] & parts[0]["test"]


def test_only_training_series_make_the_schema(tmp_path: Path) -> None:
    table, labels = write_tables(tmp_path)
    data = SeriesTables(str(table), str(labels), validation=0.2)
    data.setup("fit")
    tested = data.ids("test")
    with table.open("a") as file:
        file.writelines(f"{one},1.0,only in the test,1\n" for one in tested)
    again = SeriesTables(str(table), str(labels), validation=0.2)
    with pytest.warns(UserWarning, match="variables that training did not have are left out: only in the test"):
        again.setup("fit")
    assert again.schema == data.schema


def test_many_variables_are_those_of_the_most_series() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": np.repeat(np.arange(30), 5), "time": np.tile(np.arange(5.0), 30)})
    for number in range(6):
        frame[f"v{number}"] = np.where(frame["id"] % 6 >= number, rng.normal(size=150), np.nan)
    labels = pd.DataFrame({"id": np.arange(30), "label": np.arange(30) % 2})
    data = SeriesTables.of(from_frames(frame, labels), most_variables=2, validation=0.3)
    with pytest.warns(UserWarning, match=r"left out"):
        data.setup("fit")
    assert data.schema is not None
    assert data.schema.variables == ["v0", "v1"]


# --------------------------------------------------------------------------------------------------------- evaluation


def test_figures_are_those_of_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(0)
    schema = Schema(["x"], {}, "number", [], "h", "numbers", "given")
    targets, answers = rng.normal(size=50), rng.normal(size=(50, 1))
    found = evaluate(answers, targets, np.arange(50), schema, 0.3).figures["metrics"]
    assert found["RMSE"].value == pytest.approx(metrics.root_mean_squared_error(targets, answers[:, 0]))
    assert found["R2"].value == pytest.approx(metrics.r2_score(targets, answers[:, 0]))
    assert found["RMSE"].low < found["RMSE"].value < found["RMSE"].high
    chances = rng.dirichlet(np.ones(3), 50)
    classes, several = (
        rng.integers(0, 3, 50).astype(float),
        Schema(["x"], {}, "classes", list("abc"), "h", "numbers", "given"),
    )
    found = evaluate(chances, classes, np.arange(50) // 2, several, 0.0).figures["metrics"]
    assert found["log loss"].value == pytest.approx(metrics.log_loss(classes, chances))
    of_classes = torch.from_numpy(chances), torch.from_numpy(classes).long()
    error = multiclass_calibration_error(*of_classes, 3, n_bins=10, norm="l1")
    assert found["calibration error"].value == pytest.approx(float(error), abs=1e-6)
    truth = np.eye(3)[classes.astype(int)]
    assert found["Brier score"].value == pytest.approx(np.square(chances - truth).sum(1).mean())
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(classes, chances.argmax(1)))


def test_a_network_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="schema must be given where no table is read, got None"):
        SeriesNetwork()


def test_other_tables_meet_what_was_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, labels = write_tables(tmp_path)
    run = fit(tmp_path, "--data.table", str(table), "--data.labels", str(labels))
    copy = tmp_path / "copy.parquet"
    frame: Any = pd.read_csv(table)
    frame.pivot_table("value", ["id", "time"], "variable").reset_index().to_parquet(copy)
    with pytest.raises(SystemExit):
        cli.main(["test", *run, "--data.table", str(copy), "--data.labels", str(labels)])
    assert "that were trained on" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------- utility of alarms of sepsis


def utility_by_hand(alarms: list[int], labels: list[int]) -> float:
    """The published definition, hour by hour."""
    onset = labels.index(1) + 6 if 1 in labels else None
    total = 0.0
    for hour, alarm in enumerate(alarms):
        since = None if onset is None else hour - onset
        if since is None or since > 3:
            total -= 0.05 * alarm * (since is None)
        elif since <= -6:
            total += alarm * max((since + 12) / 6, -0.05)
        else:
            total += (3 - since) / 9 if alarm else -2 * (since + 6) / 9
    return total


def test_the_utility_is_that_of_the_challenge() -> None:
    rng = np.random.default_rng(0)
    labels = [[0] * 20 + [1] * 12, [0] * 15, [1] * 8, [0] * 3 + [1] * 4]
    stays = np.repeat(np.arange(4), [len(one) for one in labels])
    flat = np.concatenate(labels).astype(float)
    alarms = rng.random(len(flat)) < 0.4
    best = [[int(1 in one and abs(hour - one.index(1) - 1.5) <= 7.5) for hour in range(len(one))] for one in labels]
    given, ideal, none = (
        sum(utility_by_hand(list(a), y) for a, y in zip(chosen, labels, strict=True))
        for chosen in (
            [alarms[stays == one].astype(int).tolist() for one in range(4)],
            best,
            [[0] * len(y) for y in labels],
        )
    )
    assert normalised_utility(alarms, flat, stays) == pytest.approx((given - none) / (ideal - none))
    assert normalised_utility(np.concatenate(best) > 0, flat, stays) == pytest.approx(1.0)
    risks = rng.random(len(flat)).round(1)
    every = [normalised_utility(risks >= one, flat, stays) for one in np.unique(risks)]
    assert normalised_utility(risks >= best_threshold(risks, flat, stays), flat, stays) == pytest.approx(max(every))


def test_labels_that_lack_are_told(tmp_path: Path) -> None:
    table, labels = write_tables(tmp_path)
    pd.read_csv(labels)[10:].to_csv(labels, index=False)
    data = SeriesTables(str(table), str(labels))
    data.setup("fit")
    options = {"start": 0.0, "step": 1.0, "nodes": 48, "extent": 24.0, "width": 6.0, "cap": 6.0}
    assert data.inferred_lines({}, options).startswith("10 series without a label are left out: own000, own001")
    other = SeriesTables(str(table), evaluate="all")
    other.schema = data.schema
    with pytest.raises(ValueError, match=r"data.labels must name a table of labels to test by"):
        other.setup("test")
