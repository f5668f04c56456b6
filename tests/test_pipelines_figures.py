"""What the plots of a test show, read back from the drawn objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pipelines_stand_in import STAYS, StandIn

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines.tasks.series import figures
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.samples import Samples
from ccnn_irregular.pipelines.train.figures import save


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    root = tmp_path_factory.mktemp("simulated")
    simulated_icu.write(root, stays=20, seed=1)
    options = {"cache": False, "progress": False}
    data = SeriesTables(str(root), source="physionet2012", source_options=options, evaluate="all")
    data.schema = STAYS["schema"]
    data.setup("test")
    return data.samples


def drawn() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    risks = generator.random(500) ** 2
    return (generator.random(500) < risks).astype(np.int64), risks


@pytest.mark.parametrize("since_cut", [False, True])
def test_the_risk_over_time_ends_at_the_prediction(stays: Samples, since_cut: bool) -> None:
    torch.manual_seed(0)
    network = StandIn(**STAYS | ({"start": -48.0} if since_cut else {}))
    assert network.training
    stays = replace(stays, since_cut=since_cut)
    figure = figures.risk_over_time(network, stays, 3, "simulated")
    hours, risks = figure.axes[-1].get_lines()[0].get_data()
    assert np.asarray(hours).tolist() == (list(range(-47, 1)) if since_cut else list(range(1, 49)))
    with torch.no_grad():
        assert risks[-1] == pytest.approx(float(network.answers(stays.batch(torch.tensor([3])))[0, 0]), abs=1e-6)
    last = stays.judged_by(np.array([3]))[0]
    first = stays.known_by(np.full(len(stays), last - 47 if since_cut else 1.0)).batch(torch.tensor([3]))
    with torch.no_grad():
        assert risks[0] == pytest.approx(float(network.answers(first)[0, 0]), abs=1e-6)
    assert figure.get_suptitle().startswith(f"simulated, {stays.series.ids[3]}, label ")


def test_a_stay_without_any_measurement_can_be_drawn(stays: Samples) -> None:
    empty = int(np.flatnonzero(np.diff(stays.series.splits) == 0)[0])
    figures.risk_over_time(StandIn(**STAYS), stays, empty, "simulated").canvas.draw()


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
        figure = draw(labels, risks, "what was tested")
        assert figure.axes[0].get_title() == "what was tested"
        assert save(figure, tmp_path / "new" / f"{draw.__name__}.png").stat().st_size > 1000
    assert all(path.suffix == ".png" for path in (tmp_path / "new").iterdir())
