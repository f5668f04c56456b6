"""Estimators of scikit-learn for irregular series: tables of measurements in, classes or numbers out.

    from ccnn_irregular.estimators import SeriesClassifier

    model = SeriesClassifier().fit(table, labels)     # pandas: id, time, variable, value; labels by id
    model.predict_proba(new_table)                    # a row for each id of the new table

Needs the packages of ``pip install 'ccnn-irregular[train]'``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.tables import Columns, Tables, from_frames
from ccnn_irregular.datasets.tables.assembly import label_frame
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables, inferred_text
from ccnn_irregular.pipelines.tasks.series.in_memory import train_in_memory
from ccnn_irregular.pipelines.tasks.series.module import SCHEDULE, SeriesModel
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import Schema
from ccnn_irregular.pipelines.train.schedule import Schedule

__all__ = ["SeriesClassifier", "SeriesRegressor"]

_NO_TABLE = "be a frame (id, time, variable, value), an array, or ids where the estimator has a table"


class _SeriesEstimator(BaseEstimator):
    """What classifier and regressor share; see ``SeriesClassifier``."""

    _kinds: tuple[str, ...]

    def __init__(
        self,
        *,
        table: pd.DataFrame | None = None,
        statics: pd.DataFrame | None = None,
        columns: Columns | None = None,
        layout: str = "auto",
        time_since: str | None = None,
        unit: str | None = None,
        repeats: str = "refuse",
        categories: Sequence[str] = (),
        members: int = 1,
        hidden_channels: int = 32,
        blocks: int = 2,
        dropout: float = 0.2,
        network_options: Mapping[str, Any] | None = None,
        learning_rate: float = 1.5e-3,
        weight_decay: float = 0.2,
        max_epochs: int = 20,
        patience: int = 10,
        batch_size: int = 64,
        validation: float = 0.1,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.table = table
        self.statics = statics
        self.columns = columns
        self.layout = layout
        self.time_since = time_since
        self.unit = unit
        self.repeats = repeats
        self.categories = categories
        self.members = members
        self.hidden_channels = hidden_channels
        self.blocks = blocks
        self.dropout = dropout
        self.network_options = network_options
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.patience = patience
        self.batch_size = batch_size
        self.validation = validation
        self.random_state = random_state
        self.verbose = verbose

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        defaults = inspect.signature(type(self)).parameters
        given = {name: value for name, value in self.get_params(deep=False).items() if name in defaults}
        shown = [f"{name}={_shown(value)}" for name, value in given.items() if not _same(value, defaults[name].default)]
        told = f"{type(self).__name__}({', '.join(shown)})"
        return f"{told}, fitted: {self.network_.extra_repr()}" if hasattr(self, "network_") else told

    def fit(self, X: Any, y: Any) -> Any:
        """Train on series and their labels.

        Args:
            X: a long or wide frame; ids, of series in ``table``; or an array ``(n, T)`` or ``(n, C, T)`` of series with
                T samples one apart, nan where missing.
            y: labels of a frame: a Series by id, a mapping, or a frame of id, label and, where a label holds from what
                was known by then, time. Else one for each entry of X.

        Returns:
            The estimator.

        Raises:
            ValueError: see ``ccnn_irregular.datasets.tables.from_frames``; labels of another kind.
        """
        X = self._checked(X, fitting=True)
        labels = self._labels(X, y)
        data = SeriesTables.of(
            self._read(X, labels, fitting=True),
            labels_are=self._kind(y),
            time_since=self.time_since,
            categories=tuple(self.categories),
            test=0.0,
            validation=self.validation,
            batch_size=self.batch_size,
            split_seed=self.random_state,
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            data.setup("fit")
            options = data.inferred() | dict(self.network_options or {})
            options["schema"] = Schema(**options["schema"])
            require(
                options["schema"].kind in self._kinds, "y", f"be {' or '.join(self._kinds)}", options["schema"].kind
            )
            if self.verbose:
                print(inferred_text(options["schema"], options))
            sizes = {name: getattr(self, name) for name in ("members", "hidden_channels", "blocks", "dropout")}
            network = SeriesNetwork(**(sizes | options))
            schedule = Schedule(self.learning_rate, self.weight_decay, 1.0, SCHEDULE.final_share, decay_generators=True)
            model = SeriesModel(network, schedule)
            found = train_in_memory(
                model, data, max_epochs=self.max_epochs, patience=self.patience, verbose=self.verbose
            )
            self.n_iter_, self.best_score_ = found
            self.network_ = network
        self.schema_ = network.schema
        self._note_classes(label_frame(labels, self.columns or Columns())[0]["label"])
        return self

    def _note_classes(self, labels: pd.Series) -> None:
        """Keep the classes as they were given."""

    def _labels(self, X: Any, y: Any) -> pd.DataFrame:
        """A frame of id, label and time."""
        require(y is not None, "y", "be given: requires y to be passed, but the target y is None", None)
        if _is_table(X):
            if isinstance(y, pd.DataFrame):
                return y
            series = pd.Series(y) if isinstance(y, Mapping) else y
            rule = "be a Series by id, a mapping, or a frame of id and label where X is a table"
            require(isinstance(series, pd.Series), "y", rule, type(y).__name__)
            return pd.DataFrame({"id": series.index, "label": series.to_numpy()})
        labels = column_or_1d(y, warn=True)
        self._require_labels(labels)
        require(len(labels) == len(X), "y", f"hold {len(X)} labels, one for each entry of X", len(labels))
        return pd.DataFrame({"id": _ids(X), "label": labels})

    def _require_labels(self, labels: NDArray[Any]) -> None:
        """Refuse labels that scikit-learn would refuse."""

    def _kind(self, y: Any) -> str | None:
        raise NotImplementedError(f"{type(self).__name__} must say what its labels are: _kind")

    def _read(self, X: Any, labels: pd.DataFrame | None, fitting: bool = False) -> Tables:
        """Series of X, with labels."""
        unit = self.unit if fitting else self.schema_.unit
        since = (self.time_since if fitting else self.schema_.since) or None
        options: dict[str, Any] = {"unit": unit, "since": None if since == "label" else since, "repeats": self.repeats}
        names: dict[str, Any] = {"columns": self.columns, "layout": self.layout}
        if _is_table(X):
            return from_frames(X, labels, self.statics, **names, **options)
        if X.ndim == 1:
            return _only(from_frames(self.table, None, self.statics, **names, **options), _ids(X), labels)
        return from_frames(_frame_of(X), labels, unit=unit or "sample", since="given")

    def _checked(self, X: Any, fitting: bool = False) -> Any:
        """A frame as it is, an array of ids, or an array of numbers."""
        if isinstance(X, pd.DataFrame):
            return X
        if self.table is not None:
            return column_or_1d(X)
        finite = {"ensure_all_finite": "allow-nan", "allow_nd": True, "ensure_min_samples": 2 if fitting else 1}
        array = validate_data(self, X, reset=fitting, dtype=np.float32, **finite)
        require(array.ndim in (2, 3), "X", _NO_TABLE, f"an array of shape {array.shape}")
        return array

    def _answers(self, X: Any, times: pd.DataFrame | None = None) -> tuple[NDArray[np.float64], Any]:
        """Answers of the network, and an index of ids where X is a table."""
        check_is_fitted(self, "network_")
        X = self._checked(X)
        data = SeriesTables.of(self._read(X, times), self.schema_, evaluate="all", batch_size=self.batch_size)
        data.setup("predict")
        with torch.no_grad():
            found = torch.cat([self.network_.answers(batch) for batch in data.loader("test")]).numpy()
        ids = data.ids("test")
        if times is not None:
            found, ids = found[: len(times)], ids[: len(times)]
        if _is_table(X):
            return found, pd.Index(ids, name="id")
        order = pd.Index(ids).get_indexer(pd.Index(_ids(X)))
        return found[order], None


class SeriesClassifier(ClassifierMixin, _SeriesEstimator):
    """Classes of irregular series by an ensemble of continuous convolutions.

    What is not given is taken from the training series: variables, unit, latent grid, widths of kernels, statics.

    Args:
        table: frame that holds all series, where X is an array of ids, as for ``cross_val_score`` with folds of ids.
        statics: frame of an id and its numbers and categories a row.
        columns: names of the columns of the frames; None = the usual ones.
        layout: "long", "wide", or "auto".
        time_since: "given", "first" or "label", see ``ccnn_irregular.pipelines.tasks.series``.
        unit: of the times.
        repeats: "refuse", "mean", "first" or "last" of several values of a variable at one time.
        categories: columns of the statics whose numbers are names of something.
        members: number of networks whose mean answers.
        hidden_channels: channels of each.
        blocks: residual blocks of each.
        dropout: in the blocks and the head.
        network_options: further arguments of ``SeriesNetwork``, such as ``{"width": 3.0, "nodes": 96}``.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW.
        max_epochs: passes over the training series.
        patience: epochs without a gain on the validation series before training stops.
        batch_size: samples a step.
        validation: share of the series that chooses the best epoch.
        random_state: seed of weights, draws and the split.
        verbose: print what was inferred, and progress.

    Attributes:
        classes_: ``(K,)``, sorted.
        network_: the trained network.
        schema_: what it reads and answers.
        n_iter_: epochs that were trained.
        best_score_: of the validation series.
    """

    _kinds = ("binary", "classes")

    def _note_classes(self, labels: pd.Series) -> None:
        by_text = {_as_text(value): value for value in labels.dropna().unique()}
        self.classes_ = np.array([by_text[name] for name in self.schema_.classes])

    def _kind(self, y: Any) -> None:
        return None

    def _require_labels(self, labels: NDArray[Any]) -> None:
        _require_finite(labels)
        check_classification_targets(labels)

    def predict_proba(self, X: Any, times: pd.DataFrame | None = None) -> Any:
        """Probabilities of the classes ``(n, K)``: a frame by id where X is a table, else an array in the order of X.

        Args:
            X: as in ``fit``.
            times: of a table: frame of id and time, to be answered from what was known by then.
        """
        found, index = self._answers(X, times)
        if self.schema_.kind == "binary":
            found = np.concatenate([1 - found, found], axis=1)
        return found if index is None else pd.DataFrame(found, index, columns=list(self.classes_))

    def predict(self, X: Any, times: pd.DataFrame | None = None) -> Any:
        """The class of the highest probability: a Series by id where X is a table, else an array in the order of X."""
        found = self.predict_proba(X, times)
        chosen = self.classes_[np.asarray(found).argmax(1)]
        return pd.Series(chosen, found.index) if isinstance(found, pd.DataFrame) else chosen

    def __sklearn_tags__(self) -> Any:
        return _tags(super().__sklearn_tags__(), "classifier_tags")


def _shown(value: Any) -> str:
    """A value of an argument, of a table its size alone."""
    return f"<table of {len(value):,} rows>" if isinstance(value, pd.DataFrame) else repr(value)


def _same(value: Any, default: Any) -> bool:
    """Whether an argument is as the class has it."""
    return value is default or (type(value) is type(default) and bool(value == default))


def _require_finite(labels: NDArray[Any]) -> None:
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        reject("y", "be finite", "Input y contains NaN or infinity")


class SeriesRegressor(RegressorMixin, _SeriesEstimator):
    """Numbers of irregular series by an ensemble of continuous convolutions; arguments as of ``SeriesClassifier``."""

    _kinds = ("number",)

    def _kind(self, y: Any) -> str:
        return "number"

    def _require_labels(self, labels: NDArray[Any]) -> None:
        _require_finite(np.asarray(labels, np.float64))

    def predict(self, X: Any, times: pd.DataFrame | None = None, return_std: bool = False) -> Any:
        """Numbers ``(n,)``: a Series by id where X is a table, else an array in the order of X.

        With ``return_std`` these and their standard deviation, in the same form: the root mean square of the errors at
        the validation series, alike for all.
        """
        found, index = self._answers(X, times)
        deviation = np.full(len(found), float(self.network_.deviation))
        given = (found[:, 0], deviation) if return_std else (found[:, 0],)
        shown = tuple(answer if index is None else pd.Series(answer, index) for answer in given)
        return shown if return_std else shown[0]

    def __sklearn_tags__(self) -> Any:
        return _tags(super().__sklearn_tags__(), "regressor_tags")


def _is_table(X: Any) -> bool:
    """A frame whose rows are no samples."""
    return isinstance(X, pd.DataFrame)


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)


def _ids(X: Any) -> list[str]:
    """Ids of the samples of X: their own, or numbers of the rows of an array."""
    return [str(entry) for entry in X] if np.ndim(X) == 1 else [str(number) for number in range(len(X))]


def _only(read: Tables, ids: list[str], labels: pd.DataFrame | None) -> Tables:
    """Some of the series, with labels."""
    series = read.series
    index = series.positions(ids)
    missing = [name for name, place in zip(ids, index, strict=True) if place < 0]
    require(not missing, "X", "hold ids of the table", ", ".join(missing[:5]))
    chosen = np.unique(index)
    rows, owner = series.rows_of(chosen)
    part = {name: getattr(series, name)[rows] for name in ("times", "variable", "values")}
    splits = np.searchsorted(owner, np.arange(len(chosen) + 1))
    kept = {"ids": series.ids[chosen], "origins": series.origins[chosen], "splits": splits}
    return Tables(type(series)(**{**vars(series), **part, **kept}), read.statics, labels, read.notes)


def _frame_of(array: NDArray[np.float32]) -> pd.DataFrame:
    """A wide frame of an array ``(n, T)`` or ``(n, C, T)``, times one apart."""
    channels = array[:, None] if array.ndim == 2 else array
    count, width, length = channels.shape
    frame = pd.DataFrame(channels.transpose(0, 2, 1).reshape(-1, width), columns=[f"channel {k}" for k in range(width)])
    return frame.assign(id=np.repeat(np.arange(count), length), time=np.tile(np.arange(length, dtype=float), count))


def _tags(tags: Any, kind: str) -> Any:
    tags.input_tags.allow_nan = True
    tags.input_tags.three_d_array = True
    getattr(tags, kind).poor_score = True  # in the few steps that a check allows
    return tags
