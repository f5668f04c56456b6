"""The metrics against scikit-learn and torchmetrics, the bootstrap against resampling one by one, the files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics.functional.classification import binary_calibration_error

from ccnn_irregular.pipelines.tasks.series import risks as evaluation
from ccnn_irregular.pipelines.tasks.series.evaluation import write_predictions
from ccnn_irregular.pipelines.tasks.series.risks import METRICS, evaluate
from ccnn_irregular.pipelines.tasks.series.samples import Schema
from ccnn_irregular.pipelines.train.evaluation import ResultTable
from ccnn_irregular.pipelines.train.reports import write_json


def drawn(seed: int, stays: int = 300, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels and risks with many ties, zeros and ones among them."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(stays) < 0.2).astype(np.int64)
    risks = np.clip(np.round(generator.normal(0.2 + 0.3 * labels, 0.3), decimals), 0, 1)
    return labels, risks


def expected(labels: np.ndarray, risks: np.ndarray) -> dict[str, float]:
    precision, recall, _ = metrics.precision_recall_curve(labels, risks)
    return {
        "auroc": metrics.roc_auc_score(labels, risks),
        "auprc": metrics.average_precision_score(labels, risks),
        "min_se_ppv": np.minimum(precision, recall).max(),
        "ece": float(binary_calibration_error(torch.from_numpy(risks), torch.from_numpy(labels), n_bins=10, norm="l1")),
        "brier": metrics.brier_score_loss(labels, risks),
    }


@pytest.mark.parametrize("decimals", [0, 1, 2, 12])
def test_weighted_metrics_equal_the_metrics_of_the_repeated_stays(decimals: int) -> None:
    labels, risks = drawn(decimals, decimals=decimals)
    weights = np.random.default_rng(1).integers(0, 4, (20, len(labels)))
    got = evaluation.weighted_metrics(labels, risks, weights.astype(np.float64))
    for row, counts in enumerate(weights):
        wanted = expected(np.repeat(labels, counts), np.repeat(risks, counts))
        for name in METRICS:
            assert got[name][row] == pytest.approx(wanted[name], abs=1e-6 if name == "ece" else 1e-12), name


def test_point_estimates_are_the_library_ones() -> None:
    labels, risks = drawn(7)
    assert evaluation.point_estimates(labels, risks) == pytest.approx(expected(labels, risks), abs=1e-12)


def test_the_interval_of_the_mean_is_the_known_one() -> None:
    # The Brier score is a mean: its bootstrap interval is close to value +- 1.96 standard errors.
    labels, risks = drawn(3, stays=2000)
    got = evaluate(labels, risks, resamples=4000)["brier"]
    errors = (risks - labels) ** 2
    half = 1.96 * errors.std() / np.sqrt(len(errors))
    assert got.low == pytest.approx(errors.mean() - half, abs=0.1 * half)
    assert got.high == pytest.approx(errors.mean() + half, abs=0.1 * half)


def test_the_bootstrap_is_repeatable_and_does_not_depend_on_how_many_fit_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, risks = drawn(4)
    first = evaluation.bootstrap(labels, risks, resamples=50, seed=5)
    monkeypatch.setattr(evaluation, "_PAIRS_AT_ONCE", 7 * len(labels))
    second = evaluation.bootstrap(labels, risks, resamples=50, seed=5)
    other = evaluation.bootstrap(labels, risks, resamples=50, seed=6)
    for name in METRICS:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-12)
        assert (first[name] != other[name]).any()


def test_resamples_without_deaths_are_left_out() -> None:
    labels = np.array([1] + [0] * 9)
    got = evaluate(labels, np.linspace(0.9, 0.1, 10))
    assert got["auroc"].value == got["auroc"].low == got["auroc"].high == 1.0


@pytest.mark.parametrize(
    ("labels", "risks", "message"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], "labels must hold both classes, got 0 of the outcome in 3 samples"),
        ([0, 1], [0.1, 1.2], r"probabilities must be in \[0, 1\], got \[1.2\]"),
        ([0, 1], [0.1, float("nan")], r"probabilities must be in \[0, 1\], got \[nan\]"),
        ([0, 1], [0.1], r"labels and probabilities must have one shape \(B,\)"),
    ],
)
def test_bad_input(labels: list[int], risks: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(np.array(labels), np.array(risks))


def test_files_are_complete_and_leave_nothing_behind(tmp_path) -> None:
    labels, risks = drawn(1, stays=50)
    write_json(tmp_path / "new" / "m.json", {"metrics": evaluate(labels, risks, resamples=20)})
    schema = Schema(["x"], {}, "binary", ["0", "1"], "h", "numbers", "given")
    write_predictions(tmp_path / "new" / "p.csv", [f"a{one}" for one in range(50)], risks[:, None], schema)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["m.json", "p.csv"]
    assert set(json.loads((tmp_path / "new" / "m.json").read_text())["metrics"]["auroc"]) == {"value", "low", "high"}
    lines = (tmp_path / "new" / "p.csv").read_text().splitlines()
    assert lines[0] == "id,prediction,probability_0,probability_1"
    assert lines[1] == f"a0,{int(risks[0] >= 0.5)},{1 - risks[0]:.6f},{risks[0]:.6f}"
    assert len(lines) == 51


def test_samples_of_one_series_are_drawn_together() -> None:
    """Rows that stand for one series thrice are no more certain than the series."""
    labels, risks = drawn(5, stays=100)
    once = evaluate(labels, risks, resamples=300)
    thrice = evaluate(np.repeat(labels, 3), np.repeat(risks, 3), np.repeat(np.arange(100), 3), resamples=300)
    for name, one in once.items():
        assert (thrice[name].value, thrice[name].low, thrice[name].high) == pytest.approx(
            (one.value, one.low, one.high)
        )


def test_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    intervals = evaluate(*drawn(1), resamples=20)
    evaluation.table({"trees mean": intervals}, "title").print()
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    for word in " ".join(METRICS.values()).split():
        assert word in printed
    for name, one in intervals.items():
        assert f"{one.value:.3f}" in printed, name
        assert f"{one.low:.3f}-{one.high:.3f}" in printed, name


def test_no_number_is_cut_off_in_a_narrow_console(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    cells = ("rate 4000, resampled (polyphase)", "99.33", "97.60 - 99.82", "-10.00", "123.4")
    ResultTable("title", ("sampling", "accuracy %", "95 % interval", "difference", "seconds"), [cells]).print()
    ResultTable("empty", ("sampling", ""), []).print()
    printed = capsys.readouterr().out
    assert all(number in printed for number in cells[1:])
    assert all(word in printed for word in cells[0].split())


def test_no_word_of_a_head_is_cut_off_in_a_narrow_console(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    head = ("channel", "best baseline in validation", "ratio", "in 90 % intervals")
    ResultTable("title", head, [("t2m (degC)", "linear", "0.147", "95.6")], words=2).print()
    printed = capsys.readouterr().out
    assert all(word in printed for word in " ".join(head).split())
