"""One's own tables as samples in three parts: what is read, how it is split, and what a network takes from it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets import tables
from ccnn_irregular.datasets.tables import Columns, LongSeries, Tables, Targets
from ccnn_irregular.datasets.tables.frames import listed
from ccnn_irregular.datasets.tables.times import SECONDS
from ccnn_irregular.pipelines.tasks.series.parts import split_series
from ccnn_irregular.pipelines.tasks.series.samples import (
    Indices,
    Samples,
    Schema,
    SeriesBatch,
    beyond,
    inferred_text,
    sample_numbers,
    timing_of,
    values_by_variable,
)
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.sample_keys import ragged_keys, row_keys, text_keys

__all__ = ["SeriesTables"]

_TYPICAL = 64


class SeriesTables(TaskData[SeriesBatch, None]):
    """Series, labels and statics of one's own tables.

    Args:
        table: files or folders of values: long (id, time, variable, value) or wide (id, time, a column a variable).
        labels: table of an id and a label a row; with a time, the label is judged by what was known by then.
        statics: table of an id and its numbers and categories a row.
        source: format of the table, see ``ccnn_irregular.datasets.tables.SOURCES``.
        source_options: of the format's reader: sets, on_bad_record and cache of physionet2012, step and unit of ts.
        columns: names of columns; found by their usual names where they are not given.
        layout: of the table; auto = long where columns of variables and of values are found.
        time_since: given = times as the table has them; first = since the first row of each series; label = since the
            label's time, or the last row. Default: label where labels have times, else given, of dates first.
        unit: of the times; of dates one of s, min, h, d (default: what suits the typical series).
        repeats: what counts of several values of one variable of a series at one time; refuse = an error names them.
        variables: those to read; default: all that the training series have.
        most_variables: of more than these, those that the most training series have are taken.
        static_columns: columns of the statics to take; default: all.
        categories: columns of the statics whose numbers are names of something.
        labels_are: what labels are; default: binary for two values, classes for words and few whole numbers, else
            number.
        classes: names of the classes in their order; of two the last one is the outcome whose probability is told.
        evaluate: see ``TaskData``; all, where a test is of other tables than those of the training.
        test: share of the series that training never sees.
        validation: share of the rest that chooses the best epoch.
        split_seed: seed of the split and of the order of the batches.
        batch_size: samples a step.
    """

    rows_are = "series"
    described: ClassVar[tuple[str, ...]] = (
        *("table", "labels", "statics", "source", "source_options", "repeats"),
        *("evaluate", "test", "validation", "split_seed"),
    )

    told = ("schema", "start", "step", "nodes", "extent", "width", "cap")

    def __init__(
        self,
        table: str | list[str],
        labels: str | None = None,
        statics: str | None = None,
        source: Literal["table", "meds", "psv", "ts", "wfdb", "physionet2012"] = "table",
        source_options: dict[str, Any] | None = None,
        columns: Columns = Columns(),  # noqa: B008
        layout: Literal["auto", "long", "wide"] = "auto",
        time_since: Literal["given", "first", "label"] | None = None,
        unit: str | None = None,
        repeats: Literal["refuse", "mean", "first", "last"] = "refuse",
        variables: list[str] | None = None,
        most_variables: int = 256,
        static_columns: list[str] | None = None,
        categories: tuple[str, ...] = (),
        labels_are: Literal["binary", "classes", "number"] | None = None,
        classes: list[str] | None = None,
        evaluate: Evaluated = "test",
        test: float = 0.2,
        validation: float = 0.1,
        split_seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        super().__init__(evaluate)
        require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
        require(most_variables >= 1, "most_variables", "be at least 1", most_variables)
        self.table, self.labels, self.statics, self.source = table, labels, statics, source
        self.source_options = dict(source_options or {})
        self.columns, self.layout, self.time_since, self.unit = columns, layout, time_since, unit
        self.repeats, self.variables, self.most_variables = repeats, variables, most_variables
        self.static_columns, self.categories = static_columns, categories
        self.labels_are, self.classes = labels_are, classes
        self.test, self.validation = test, validation
        self.split_seed, self.batch_size = split_seed, batch_size
        self.schema: Schema | None = None
        self.tables: Tables | None = None
        self._labelled = True
        self._samples: Samples | None = None

    @staticmethod
    def of(read: Tables, schema: Schema | None = None, **options: Any) -> SeriesTables:
        """A data module of tables that are read already, in the form of a schema where one is given."""
        data = SeriesTables("frames", **options)
        data.tables, data.schema = read, schema
        return data

    # What is read

    def setup(self, stage: str) -> None:
        """Read the tables once; of a schema that is set its variables, statics and classes, in its units.

        Raises:
            ValueError, FileNotFoundError: from the reader, with the option, the file or the rows at fault.
        """
        if self._samples is not None:
            return
        self._labelled = self.needs_labels(stage)
        self.read()
        if self.schema is None:
            self.schema = self.inferred_schema()
        self._conform(self.schema)
        if self.takes_all(stage):
            if self.needs_labels(stage) and self._found is None:
                reject("data.labels", "name a table of labels to test by (ccnn predict needs none)", self.labels)
            if not self.needs_labels(stage):
                self._answer_all()
            known = self.needs_labels(stage) & np.isnan(self.samples.targets)
            none = np.zeros(0, np.int64)
            self._split = {"train": none, "validation": none, "test": np.flatnonzero(~known)}

    def read(self) -> Tables:
        """The tables, whatever a network takes of them; read once."""
        if self.tables is None:
            known = self.schema
            since = self.time_since if known is None else known.since
            self.tables = tables.read(
                self.table,
                self.labels,
                self.statics,
                source=self.source,
                source_options=self.source_options,
                own_labels=self._labelled,
                columns=self.columns,
                layout=self.layout,
                variables=self.variables,
                unit=self.unit if known is None else known.unit,
                since=None if since == "label" else since,
                repeats=self.repeats,
            )
        return self.tables

    @property
    def title(self) -> str:
        """Of what is read, for titles."""
        return Path(self.table if isinstance(self.table, str) else self.table[0]).name

    @property
    def series(self) -> LongSeries:
        """All series, as read."""
        return self.read().series

    def _targets(self) -> Targets | None:
        """Labels as numbers; None where there are none."""
        labels = self.read().labels
        if labels is None or "label" not in labels:
            return None
        known = self.schema
        kind, classes = (self.labels_are, self.classes) if known is None else (known.kind, known.classes or None)
        return tables.targets_of(labels["label"], kind, classes)

    def _rows(self) -> tuple[Indices, NDArray[np.float64]]:
        """Series and time of each label: of all series, once each, where there are no labels."""
        read, series = self.read(), self.read().series
        if read.labels is None:
            return np.arange(len(series)), np.full(len(series), np.inf)
        index = series.positions(read.labels["id"])
        if read.label_instants is None:
            return index, np.full(len(index), np.inf)
        cuts = read.label_instants - np.nan_to_num(series.origins[index])
        return index, cuts / (1.0 if series.kind == "numbers" else SECONDS[series.unit])

    # What is learned from the training rows

    def inferred_schema(self) -> Schema:
        """Variables, statics and labels of the training series.

        Raises:
            ValueError: no labels; no variable or static in the training series.
        """
        read, found = self.read(), self._targets()
        if found is None:
            reject("data.labels", "name a table of labels to learn from", self.labels)
        index, _ = self._rows()
        training = np.unique(index[self._parts(found)["train"]])
        names = self._training_variables(training)
        statics: dict[str, list[str]] = {}
        if read.statics is not None:
            rows = read.statics.reindex(read.series.ids[training])
            statics = tables.statics_schema(rows, self.static_columns, self.categories)
        require(bool(names or statics), "the table", "hold values of the series to train on", "none")
        series = read.series
        times = read.label_instants is not None
        default = "label" if times else "given" if series.kind == "numbers" else "first"
        since = self.time_since or default
        return Schema(names, statics, found.kind, list(found.classes), series.unit, series.kind, since)

    def _training_variables(self, training: Indices) -> list[str]:
        """Names of what was measured in training, those of the most series where there are many."""
        series = self.read().series
        rows, owner = series.rows_of(training)
        pairs = np.unique(series.variable[rows] * len(training) + owner)
        counts = np.bincount(pairs // max(len(training), 1), minlength=len(series.variables))
        order = np.argsort(-counts, kind="stable")
        kept = order[: self.most_variables].tolist()
        if left := int((counts[order[self.most_variables :]] > 0).sum()):
            text = f"{left} variables that fewer training series have are left out (data.most_variables takes more)"
            warnings.warn(text, UserWarning, stacklevel=2)
        return sorted(series.variables[number] for number in kept if counts[number])

    def inferred(self) -> dict[str, Any]:
        """Arguments of ``SeriesNetwork`` that follow from the training rows, by their names; ``setup`` comes first."""
        assert self.schema is not None
        timing = timing_of(self.samples, self.indices("train"))
        timings = {name: getattr(timing, name) for name in ("start", "step", "nodes", "extent", "width", "cap")}
        return {"schema": asdict(self.schema), **timings}

    def inferred_lines(self, taken: dict[str, Any], options: dict[str, Any]) -> str:
        assert self.schema is not None
        share = beyond(self.samples, self.indices("train"), options["start"], options["step"] * options["nodes"])
        if share > 0.01:
            warnings.warn(
                f"{share:.0%} of the training rows lie outside the latent grid (start, step, nodes)", stacklevel=2
            )
        return "\n".join([*self._without_label(), inferred_text(self.schema, options)])

    def _without_label(self) -> list[str]:
        """What to say of series that nothing is learned from."""
        left = np.delete(self.series.ids, np.unique(self.samples.index[~np.isnan(self.samples.targets)])).tolist()
        return [f"{len(left)} series without a label are left out: {listed(left)}"] if left else []

    def state_dict(self) -> dict[str, Any]:
        """What tables are read for, for the checkpoint."""
        return {} if self.schema is None else {"schema": asdict(self.schema)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.schema = Schema(**state_dict["schema"])

    # Samples

    def _conform(self, schema: Schema) -> None:
        read = self.read()
        series = read.series
        rule = f"be {schema.times}, as in training"
        require(series.kind == schema.times or not len(series.values), "times", rule, series.kind)
        schema.tell_differences(series)
        index, cuts = self._rows()
        found = self._targets()
        targets = np.full(len(index), np.nan) if found is None else found.values
        matrix = tables.statics_matrix(read.statics, series.ids, schema.statics)
        since_cut = schema.since == "label"
        conformed = series.with_variables(schema.variables)
        numbers = sample_numbers(series.ids, index, cuts)
        self._samples = Samples(conformed, matrix, index, cuts, targets, since_cut, numbers)
        self._found = found

    @property
    def samples(self) -> Samples:
        """All rows of the labels, or all series; ``setup`` comes first."""
        if self._samples is None:
            reject("the data module", "be set up before its samples are asked for", "no samples yet")
        return self._samples

    @cached_property
    def _split(self) -> dict[str, Indices]:
        """Rows of each part, made when first asked for: tables that are tested whole need none."""
        if self._found is None:
            reject("data.labels", "name a table of labels (ccnn predict needs none)", self.labels)
        return self._parts(self._found)

    def _parts(self, found: Targets) -> dict[str, Indices]:
        """Rows of the labels in each part. Series are split, by their classes: none is in two parts."""
        index, cuts = self._rows()
        known = ~np.isnan(found.values)
        require(bool(known.any()), "data.labels", "hold labels", "missing ones only")
        series, place = np.unique(index[known], return_inverse=True)
        strata = np.zeros(len(series), np.int64)
        if found.kind != "number":
            np.maximum.at(strata, place, found.values[known].astype(np.int64))
        split = split_series(strata, found.classes, validation=self.validation, test=self.test, seed=self.split_seed)
        order = np.lexsort((cuts[known], place))  # by series and time, wherever the labels stand in their table
        rows = np.flatnonzero(known)[order]
        return {name: rows[np.isin(place[order], chosen)] for name, chosen in split.items()}

    def indices(self, part: Part) -> Indices:
        """Samples of a part; the test part is what ``evaluate`` names, as far as labels are known."""
        return np.arange(len(self.samples)) if part == "all" else self._split[part]

    def targets(self, part: Part) -> NDArray[np.float64]:
        """Labels of a part as numbers."""
        return self.samples.targets[self.indices(part)]

    def _answer_all(self) -> None:
        """Add a sample of each series that the labels do not name, judged by all of its rows."""
        samples = self.samples
        missing = np.setdiff1d(np.arange(len(samples.series)), samples.index)
        index = np.append(samples.index, missing)
        cuts = np.append(samples.cuts, np.full(len(missing), np.inf))
        targets = np.append(samples.targets, np.full(len(missing), np.nan))
        numbers = sample_numbers(samples.series.ids, index, cuts)
        self._samples = replace(samples, index=index, cuts=cuts, targets=targets, numbers=numbers)

    def ids(self, part: Part) -> list[str]:
        """The series of each sample of a part."""
        return [str(name) for name in self.samples.series.ids[self.samples.index[self.indices(part)]]]

    def named(self, numbers: Sequence[int]) -> list[str]:
        assert self.samples.numbers is not None
        known = dict(zip(self.samples.numbers.tolist(), self.samples.index.tolist(), strict=True))
        return [str(self.samples.series.ids[known[number]]) for number in numbers]

    def written_times(self, part: Part) -> list[str] | None:
        """Times of the labels of a part as the table has them, "" of a sample without one; None = labels have none."""
        if (labels := self.read().labels) is None or "time" not in labels:
            return None
        written = labels["time"].astype(str).tolist()
        return [written[row] if row < len(written) else "" for row in self.indices(part).tolist()]

    def loader(self, part: Part, variant: None = None) -> DataLoader[SeriesBatch]:
        require(len(rows := self.indices(part)) > 0, f"the part {part!r}", "hold at least one sample", "none")
        batches = EqualBatches(rows, self.batch_size, self.split_seed if part == "train" else None)
        return batch_loader(self.samples.batch, batches)

    def keys(self, part: Part) -> NDArray[np.uint64]:
        """Two keys for each series of a part, ``(B, 2)``: of all that was measured, and of its id and statics.

        The first is the same under another id, the second where repeated values were read in another way. An id alone
        tells no series: tables of different makers count from the same number on.
        """
        samples, series = self.samples, self.samples.series
        chosen = np.unique(samples.index[self.indices(part)])
        rows, owner = series.rows_of(chosen)
        splits = np.searchsorted(owner, np.arange(len(chosen) + 1))
        names = text_keys(series.variables)[series.variable[rows]]
        measured = ragged_keys(splits, series.times[rows], names, series.values[rows])
        ids, statics = text_keys(str(name) for name in series.ids[chosen]), samples.statics[chosen]
        empty = np.diff(splits) == 0  # nothing else tells these from one another
        measured[empty] = row_keys(ids, statics)[empty]
        described = ~np.isnan(statics).all(1) if statics.shape[1] else np.zeros(len(ids), bool)
        return np.stack([measured, np.where(described, row_keys(ids, statics), measured)], 1)

    def outcomes(self, part: Any, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return self.samples.outcome_keys(self.indices(part))

    def sizes(self) -> dict[str, int]:
        """Nothing: the network's schema is this one's."""
        return {}

    def typical_batch(self) -> SeriesBatch:
        """The first training samples."""
        return self.samples.batch(torch.from_numpy(self.indices("train")[:_TYPICAL]))

    def training_values(self) -> Any:
        """Values of each variable, statics and labels of the training samples."""
        rows = self.indices("train")
        chosen = np.unique(self.samples.index[rows])
        columns = values_by_variable(self.samples.series, chosen)
        return columns, self.samples.statics[chosen], self.samples.targets[rows]

    def part_sizes(self) -> dict[str, int]:
        return {part: len(self.indices(part)) for part in ("train", "validation", "test")}

    def summary(self) -> str:
        """What was found in the tables."""
        read, series = self.read(), self.read().series
        lines = [*read.notes, f"{len(series)} series, {len(series.values)} values of {len(series.variables)} variables"]
        empty = series.ids[np.diff(series.splits) == 0].tolist()
        lines += [f"{len(empty)} series without values: {listed(empty)}"] if empty else []
        unlabelled = int(np.isnan(self.samples.targets).sum()) if self._found is not None else 0
        lines += [f"{unlabelled} of {len(self.samples)} samples have no label"] if unlabelled else []
        return "\n".join(lines)
