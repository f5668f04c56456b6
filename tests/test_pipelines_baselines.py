"""The statistics of the trees against a loop over stays and series, and the command from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pipelines_tasks import write_tables

from ccnn_irregular.datasets import physionet2012, simulated_icu
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.series import baselines
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables

QUICK = ["--trees.seeds", "2", "--trees.iterations", "5"]


def reader(*sets: str) -> str:
    return f"{{sets: [{', '.join(sets)}], progress: false, cache: false}}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=100, seed=2, sets=("a", "b"))
    return root


def test_features_equal_those_of_a_loop(root: Path) -> None:
    cohort = physionet2012.load(root, ("a",), cache=False, progress=False).select(range(30))
    data = SeriesTables(str(root), source="physionet2012", source_options={"cache": False, "progress": False})
    data.setup("fit")
    got = baselines.features(data.samples.take(np.arange(30)))
    assert got.shape == (30, 8 * 37 + 5)
    assert got.dtype == np.float32
    for stay in range(30):
        rows = slice(cohort.splits[stay], cohort.splits[stay + 1])
        for series in range(37):
            column = cohort.values[rows, series]
            seen, hours = column[~np.isnan(column)].astype(np.float64), cohort.times[rows][~np.isnan(column)]
            wanted = np.full(8, np.nan)
            wanted[6] = len(seen)
            if len(seen):
                wanted[:6] = seen.mean(), seen.min(), seen.max(), seen.std(), seen[0], seen[-1]
                wanted[7] = hours[-1]
            np.testing.assert_allclose(got[stay, series : 8 * 37 : 37], wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[:, 8 * 37 :], cohort.statics)


def test_the_baseline_on_held_out_stays(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    data = ["--data.table", str(root), "--data.source_options", reader("a", "b")]
    cli.main(["baseline", "simulated_icu", *data, *QUICK, "--output", str(output)])
    report = json.loads((output / "metrics.json").read_text())
    assert list(report["metrics"]) == ["trees 0", "trees 1", "trees mean"]
    assert report["n"] == 50
    assert report["trained_on"] == 150
    assert report["data"]["source_options"]["sets"] == ["a", "b"]
    assert len((output / "predictions.csv").read_text().splitlines()) == 51
    assert "trees mean" in capsys.readouterr().out


def test_the_baseline_on_another_folder(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    data = ["--data.table", str(root), "--data.source_options", reader("a")]
    data += ["--test.table", str(root), "--test.source_options", reader("b")]
    cli.main(["baseline", "simulated_icu", *data, *QUICK, "--output", str(output)])
    report = json.loads((output / "metrics.json").read_text())
    assert (report["n"], report["trained_on"]) == (100, 100)
    assert (report["test"]["table"], report["test"]["source_options"]["sets"]) == (str(root), ["b"])


def test_stays_that_the_trees_are_trained_on_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copy").symlink_to(root, target_is_directory=True)
    data = ["--data.table", str(root), "--data.source_options", reader("a")]
    data += ["--test.table", str(tmp_path / "copy"), "--test.source_options", reader("a", "b")]
    with pytest.raises(SystemExit, match="2"):
        cli.main(["baseline", "simulated_icu", *data, *QUICK, "--output", str(tmp_path / "out")])
    message = capsys.readouterr().err
    assert "the 200 series to test on must be others than those to train on" in message
    assert "got 100 of 200 series that were trained on" in message
    assert not (tmp_path / "out").exists()
    cli.main(["baseline", "simulated_icu", *data, *QUICK, "--output", str(tmp_path / "out"), "--allow_overlap", "true"])
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["overlap"]["trained_on"] == 100


def test_bad_input(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["baseline", "simulated_icu", "--data.table", str(root), "--trees.seeds", "0"])
    assert "trees.seeds must be at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["baseline", "no_such_configuration"])
    assert "config must be a YAML file or a name that ccnn --help lists, got " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["classes", "number"])
def test_classes_and_numbers_have_trees_too(kind: str, tmp_path: Path) -> None:
    table, labels = write_tables(tmp_path)
    rows = pd.read_csv(labels)
    rows["label"] = np.array(["low", "mid", "high"])[np.arange(40) % 3] if kind == "classes" else np.arange(40) / 7
    rows.to_csv(labels, index=False)
    data = ["--data.table", str(table), "--data.labels", str(labels), "--data.validation", "0.2"]
    cli.main(["baseline", "series", *data, *QUICK, "--output", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert ("accuracy" if kind == "classes" else "RMSE") in report["metrics"]["trees mean"]
    assert (report["n"], report["trained_on"]) == (8, 32)
