"""What the plots of a test show, read back from the drawn objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pipelines_stand_in import StandIn

from ccnn_irregular.datasets import physionet2012, simulated_icu
from ccnn_irregular.datasets.physionet2012 import SERIES
from ccnn_irregular.pipelines.tasks.risk import figures
from ccnn_irregular.pipelines.tasks.risk.data import StayBatch
from ccnn_irregular.pipelines.tasks.risk.module import BinaryRisk
from ccnn_irregular.pipelines.train.figures import save


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> StayBatch:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=20, seed=1)
    return StayBatch.from_cohort(physionet2012.load(root, cache=False, progress=False))


def drawn() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    risks = generator.random(500) ** 2
    return (generator.random(500) < risks).astype(np.int64), risks


def test_the_risk_over_time_ends_at_the_prediction(stays: StayBatch) -> None:
    torch.manual_seed(0)
    model = BinaryRisk(StandIn())
    assert model.training
    figure = figures.patient_risk(model, stays, int(stays.record_ids[3]), "simulated")
    hours, risks = figure.axes[-1].get_lines()[0].get_data()
    assert np.asarray(hours).tolist() == list(range(1, 49))
    assert risks[-1] == pytest.approx(float(model.eval().probabilities(stays.take(torch.tensor([3])))[0]), abs=1e-6)
    first = stays.take(torch.tensor([3])).known_by(torch.tensor([1.0], dtype=torch.float64))
    assert risks[0] == pytest.approx(float(model.probabilities(first)[0]), abs=1e-6)
    assert figure.get_suptitle().startswith(f"simulated, record {int(stays.record_ids[3])}, ")


def test_a_stay_without_any_measurement_can_be_drawn(stays: StayBatch) -> None:
    empty = int(torch.nonzero(stays.splits.diff() == 0)[0])
    figures.patient_risk(BinaryRisk(StandIn()), stays, int(stays.record_ids[empty]), "simulated").canvas.draw()


def test_every_series_has_a_unit() -> None:
    assert set(figures.UNITS) == set(SERIES)


def test_calibration_groups_hold_equally_many_stays() -> None:
    labels, risks = drawn()
    axes = figures.calibration(labels, risks, "data").axes[0]
    points = axes.containers[0].lines[0].get_xydata()
    tenths = np.sort(risks).reshape(10, 50).mean(1)
    np.testing.assert_allclose(points[:, 0], tenths)
    assert points[:, 1].mean() == pytest.approx(labels.mean())


def test_wilson_intervals_hold_the_share_they_are_of() -> None:
    low, high = figures._wilson(np.array([0.0, 0.3, 1.0]), np.array([30, 30, 30]))
    np.testing.assert_allclose(low, [0.0, 0.1666, 0.8865], atol=1e-4)
    np.testing.assert_allclose(high, [0.1135, 0.4788, 1.0], atol=1e-4)


def test_titles_say_what_was_tested(tmp_path: Path) -> None:
    labels, risks = drawn()
    for draw in (figures.roc, figures.precision_recall, figures.calibration):
        figure = draw(labels, risks, "simulated_cohort")
        assert figure.axes[0].get_title() == f"simulated_cohort: 500 stays, {labels.sum()} deaths"
        assert save(figure, tmp_path / "new" / f"{draw.__name__}.png").stat().st_size > 1000
    assert all(path.suffix == ".png" for path in (tmp_path / "new").iterdir())
