"""Estimators of scikit-learn for irregular series."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from ccnn_irregular.estimators import SeriesClassifier, SeriesRegressor

SMALL: dict[str, Any] = {"max_epochs": 1, "hidden_channels": 4, "blocks": 1, "batch_size": 256, "validation": 0.3}
_FRAMES = "a frame is a table of measurements here, not one row a sample"
LEFT_OUT = {
    "check_array_api_input": "needs SCIPY_ARRAY_API=1 before SciPy is imported",
    "check_classifier_data_not_an_array": _FRAMES,
    "check_regressor_data_not_an_array": _FRAMES,
}
# Kernels are about as wide as these short arrays are long.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def table(count: int = 40, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """A long table whose pulse tells the label, and labels by id; ids are no numbers in a row."""
    rng = np.random.default_rng(seed)
    ids = 1000 + 7 * np.arange(count)
    labels = pd.Series(np.where(np.arange(count) % 2, "ill", "well"), ids)
    series = np.repeat(np.arange(count), 8)
    values = rng.normal(size=len(series)) + 3.0 * (series % 2)
    columns = {"id": ids[series], "time": rng.uniform(0, 48, len(series)), "variable": "pulse", "value": values}
    return pd.DataFrame(columns).sample(frac=1, random_state=0), labels


@parametrize_with_checks(
    [SeriesClassifier(**SMALL), SeriesRegressor(**SMALL)], expected_failed_checks=lambda _: LEFT_OUT
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_a_table_is_fitted_and_another_one_answered_by_its_own_ids() -> None:
    frame, labels = table(100)  # enough to calibrate by
    model = SeriesClassifier(**(SMALL | {"max_epochs": 8, "batch_size": 7, "learning_rate": 0.01}))
    assert model.fit(frame, labels) is model
    assert model.classes_.tolist() == ["ill", "well"]
    new, truth = table(12, seed=1)
    chances = model.predict_proba(new)
    assert chances.index.tolist() == [str(one) for one in truth.index]
    assert chances.columns.tolist() == ["ill", "well"]
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    answers = model.predict(new)
    assert answers.tolist() == chances.idxmax(axis=1).tolist()
    assert (answers.to_numpy() == truth.to_numpy()).mean() > 0.8
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.predict_proba(new), chances)


def test_folds_are_of_ids() -> None:
    frame, labels = table(24)
    model = SeriesClassifier(table=frame, **SMALL)
    scores = cross_val_score(
        model, labels.index.to_numpy(), labels.to_numpy(), cv=KFold(2, shuffle=True, random_state=0)
    )
    assert scores.shape == (2,)
    part = labels.index[:20].to_numpy()
    alone = clone(model).fit(part, labels[part].to_numpy())
    backwards = alone.predict_proba(part[::-1])
    np.testing.assert_allclose(backwards[::-1], alone.predict_proba(part))
    with pytest.raises(ValueError, match="X must hold ids of the table, got 5"):
        alone.predict([5])


def test_labels_at_times_and_statics() -> None:
    frame, labels = table()
    statics = pd.DataFrame({"id": labels.index, "ward": np.where(np.arange(40) % 3, "A", "B")})
    timed = pd.DataFrame({"id": labels.index, "label": labels.to_numpy(), "time": 24.0})
    model = SeriesClassifier(statics=statics, **SMALL).fit(frame, timed)
    assert model.schema_.since == "label"
    assert model.schema_.statics == {"ward": ["A", "B"]}
    asked = pd.DataFrame({"id": labels.index[:3], "time": [10.0, 20.0, 30.0]})
    late = frame.assign(value=frame["value"].where(frame["time"] <= 10, 100.0))
    found = [model.predict_proba(one, asked).iloc[0].to_numpy() for one in (frame, late)]
    np.testing.assert_array_equal(*found)


def test_numbers_are_in_units_of_the_labels() -> None:
    frame, labels = table()
    numbers = pd.Series(np.linspace(500, 520, 40), labels.index)
    answers = SeriesRegressor(**SMALL).fit(frame, numbers).predict(frame)
    assert answers.index.tolist() == [str(one) for one in labels.index]
    assert answers.between(490, 530).all()


def test_bad_input_is_refused() -> None:
    frame, labels = table()
    with pytest.raises(ValueError, match="y must be a Series by id, a mapping, or a frame of id and label"):
        SeriesClassifier(**SMALL).fit(frame, labels.to_numpy())
    with pytest.raises(ValueError, match="y must be binary or classes, got number"):
        SeriesClassifier(**SMALL).fit(frame, pd.Series(np.linspace(0, 1, 40), labels.index))
