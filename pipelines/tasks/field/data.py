"""Fields for training: random parts are hidden again and again; what is kept for the test is never seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular import datasets
from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.xarray import Reading
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.stations import StationColumns, StationSet
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.hiding import GroupHiding, PlaceHiding, uniform_rows
from ccnn_irregular.pipelines.tasks.field.parts import PARTS, FieldParts
from ccnn_irregular.pipelines.tasks.field.records import BroughtInLine, as_they_are, bring_in_line
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader, drawn_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.sample_keys import row_keys, text_keys

__all__ = ["STATIONS", "FieldDataModule"]

# All that is kept of a part in place of some fields of it, with values as the network gets them or as they were read.
FieldVariant = Literal["whole", "as read"]

_SHARES = ("held", "held_units", "watched", "watched_units")
_HALF = 0.5  # of the stations, which are dealt into two groups at least
_FOLDS = 10  # groups of units, of which one at a time is asked for where all are evaluated
STATIONS = "stations"  # the data set of tables


class FieldDataModule(TaskData[FieldBatch, FieldVariant]):
    """Fields of a data set, of which random parts are hidden, and the places kept for validation and test.

    Two ways to test. With ``test_fields`` whole fields are kept: a part of each is shown, the rest is asked for.
    Without, places and units (stations, profiles) of all fields are kept, and asked for from all others.

    With ``records`` the stations of the training part are dealt into round(1 / ``hide_units``) groups, and one group is
    hidden at a time: from all months, so that what is observed is brought in line without it, as in the test without
    the stations kept. What is asked for is brought in line with what is observed.

    Differences from a mean (``FieldSet.reference``) are taken from the mean over the training part of each group, or
    over the part it is in: nothing that is kept for the test tells of training.

    Args:
        dataset: name of a registered data set of fields: "stations" (a table of your own), "cube" (netCDF or zarr),
            "ghcnm", "argo", "simulated_fields".
        table: the file of "stations": CSV, CSV.gz, Parquet, or netCDF with a discrete sampling geometry.
        columns: of that table.
        root: the file (cube; ghcnm: the ``.dat`` file) or the folder (argo).
        options: of the data set's loader, such as ``drop_flagged`` of "ghcnm": see ``ccnn datasets NAME``.
        variables: of a cube or a table, or the one parameter of the floats.
        axes: dimensions of a cube that are coordinates of a field; of a table among latitude, longitude, x, y,
            level and time.
        fields: dimension of a cube along which its fields follow one another.
        stacked: dimensions of a cube that become channels.
        records: bring the values of stations in line by what their records tell, see ``bring_in_line``.
        test_fields: numbers of the fields kept for the test.
        held: share of the places kept for the test, where no fields are.
        held_units: share of the stations or profiles kept for the test, where no fields are.
        watched: share of the places for validation, out of the others.
        watched_units: share of the stations or profiles for validation.
        hide: shares of a field's places hidden in training, smallest and largest; [0, 0] with ``records``.
        hide_units: share of its stations or profiles hidden in training.
        show: share of the places of a test field that is shown.
        queries: places asked for in a step of training at most, the same number for each field of it.
        draws: fields drawn in an epoch.
        batch_size: fields a step.
        watched_fields: fields that are looked at in validation at most, spread evenly over all.
        seed: of what is kept, of what is shown of test fields, and of what is hidden in training.
        evaluate: what is tested or predicted: what is kept for the "test", or "all" places: in a test each tenth of the
            stations from the others.
        predict_from: for ``ccnn predict``: "all" that is known, or what the "test" shows.
        reading: how the file of a cube is read where it leaves it open.
    """

    rows_are = "places"
    described = ("dataset", "root", "evaluate", "test_fields", "hide", "hide_units", "show", "seed", *_SHARES)

    def __init__(
        self,
        dataset: str = STATIONS,
        root: str | None = None,
        table: str | None = None,
        columns: StationColumns | None = None,
        options: dict[str, Any] | None = None,
        variables: Sequence[str] = (),
        axes: Sequence[str] = (),
        fields: str | None = None,
        stacked: Sequence[str] = (),
        records: bool = False,
        test_fields: Sequence[int] = (),
        held: float = 0.0,
        held_units: float = 0.0,
        watched: float = 0.0,
        watched_units: float = 0.0,
        hide: Sequence[float] = (0.1, 0.5),
        hide_units: float = 0.0,
        show: float = 0.05,
        queries: int = 2000,
        draws: int = 32,
        batch_size: int = 1,
        watched_fields: int = 32,
        seed: int = 0,
        evaluate: Evaluated = "test",
        predict_from: Literal["all", "test"] = "all",
        reading: Reading | None = None,
    ) -> None:
        super().__init__(evaluate)
        self._known = datasets.get(dataset, FieldSet)
        if dataset == STATIONS:
            rule = "be given for stations: --data.table FILE (CSV, Parquet or netCDF)"
            require(table is not None or root is not None, "data.table", rule, table)
            require(table is None or root in (None, table), "data.root", "be left out beside data.table", root)
            root = root or table
        else:
            require(table is None, "data.table", f"be left out for {dataset}, which reads data.root", table)
            require(columns is None, "data.columns", f"be left out for {dataset}", columns)
        self._known.require_root(root)
        named = {"variables": tuple(variables), "axes": tuple(axes), "fields": fields, "stacked": tuple(stacked)}
        self._cut: dict[str, Any] = {**named, "reading": reading, "columns": columns}
        self._known.require_options({**{name: value for name, value in self._cut.items() if value}, **(options or {})})
        shares = dict(zip(_SHARES, (held, held_units, watched, watched_units), strict=True))
        for name, share in shares.items():
            require(0 <= share < 1, name, "lie in [0, 1)", share)
        bounded = len(hide) == 2 and 0 <= hide[0] <= hide[1] < 1
        require(bounded, "hide", "be two shares in [0, 1), the smaller one first", list(hide))
        require(hide[1] > 0 or hide_units > 0, "hide", "hide something, or hide_units", list(hide))
        require(0 <= hide_units < 1, "hide_units", "lie in [0, 1)", hide_units)
        rule = "be [0, 0] with records, from which the rest of a station's record would tell; hide_units hides it whole"
        require(not records or hide[1] == 0, "hide", rule, list(hide))
        require(not records or hide_units <= _HALF, "hide_units", "be at most 0.5 with records", hide_units)
        require(0 < show < 1, "show", "lie in (0, 1)", show)
        positive = {"queries": queries, "draws": draws, "batch_size": batch_size, "watched_fields": watched_fields}
        for name, number in positive.items():
            require(number >= 1, name, "be at least 1", number)
        tested = bool(test_fields) != (held > 0 or held_units > 0)
        require(tested, "test_fields", "be given, or held or held_units, but not both", (list(test_fields), held))
        require(watched > 0 or watched_units > 0, "watched", "be positive, or watched_units", watched)
        self.dataset, self.root, self.options = dataset, root, dict(options or {})
        self.records = records
        self.test_fields = tuple(test_fields)
        self.held, self.held_units, self.watched, self.watched_units = held, held_units, watched, watched_units
        self.hide, self.hide_units, self.show = tuple(hide), hide_units, show
        self.queries, self.draws, self.batch_size, self.seed = queries, draws, batch_size, seed
        self.watched_fields = watched_fields
        self.predict_from = predict_from
        self.undivided = False
        self._parts: FieldParts | None = None
        self._brought: dict[Part, BroughtInLine] = {}

    def follow(self, axes: Sequence[str], variables: Sequence[str]) -> None:
        """Read a table as the one that a network was trained on: its coordinates and its columns of values."""
        if self.dataset == STATIONS and self._parts is None:
            self._cut |= {"axes": tuple(axes), "variables": self._cut["variables"] or tuple(variables)}

    def setup(self, stage: str) -> None:
        """Read the files once, and decide what is kept.

        Raises:
            ValueError, FileNotFoundError: from the readers; too few observations to hide some.
        """
        if self._parts is not None:
            return
        fields = self._read()
        partly = int((fields.known & fields.values.isnan().any(1)).sum())
        rule = "be left out, or data.variables name one, where channels are not measured together"
        require(not self.records or partly == 0, "records", rule, f"{partly} places of which some are known")
        self.undivided = self.takes_all(stage) and (stage == "test" or self.predict_from == "all")
        if self.undivided:
            self._parts = FieldParts.undivided(fields)
            return
        outside = [number for number in self.test_fields if not 0 <= number < len(fields)]
        require(not outside, "test_fields", f"be numbers of the {len(fields)} fields, from 0 on", outside)
        shares = {name: getattr(self, name) for name in _SHARES}
        parts = FieldParts.of(fields, shares, self.test_fields, self.show, self.seed)
        counts = parts.counts(parts.usable)
        rule = "hold a field of at least 2 known places for training, to hide some of"
        require(int(counts.max()) >= 2, "the data", rule, f"at most {int(counts.max())}")
        trained = torch.nonzero(counts >= 2).flatten()
        most = max(1, self.queries // self.batch_size)
        self.hiding = (
            GroupHiding(parts, self.hide_units, self.seed, most)
            if self.records
            else PlaceHiding(parts, trained, (self.hide[0], self.hide[1]), self.hide_units, most)
        )
        watched = torch.nonzero(parts.counts(parts.known("validation")) > 0).flatten()
        self._watched_fields = watched[torch.isin(watched, trained)]
        rule = "leave a place for validation in some field"
        require(len(self._watched_fields) > 0, "watched", rule, shares)
        self._parts = parts

    def _read(self) -> FieldSet:
        options = self._known.in_training(self.options, seed=self.seed, **self._cut)
        fields: FieldSet = self._known.read(self.root, **options)
        return fields

    @property
    def parts(self) -> FieldParts:
        """What was read, in parts; ``setup`` comes first."""
        if self._parts is None:
            reject("the data module", "be set up (setup('fit')) before its fields are asked for", "no fields yet")
        return self._parts

    @property
    def samples(self) -> FieldSet:
        """What was read; ``setup`` comes first."""
        return self.parts.fields

    def sizes(self) -> dict[str, int]:
        return {"channels": len(self.samples.channels)}

    def typical_batch(self) -> FieldBatch:
        """The first one of the validation, whose places tell the error of the first guess."""
        return next(iter(self.loader("validation")))

    def training_values(self) -> tuple[Tensor, Tensor | None]:
        """Known values of the training part ``(n, C)``."""
        return self.samples.values[self.parts.usable], None

    def keys(self, part: Literal["train", "validation", "test"]) -> NDArray[np.uint64]:
        """A key of each known place that a part asks for, ``(B, 1)``.

        Scattered places are told by their field's name and their coordinates, those of a grid by their values too: two
        cubes may share their grid. A single field is named after its file, so its name is left out.
        """
        fields, rows = self.samples, self.parts.known(part)
        if part == "test" and not self.undivided:
            rows &= ~self.parts.shown
        names = text_keys(fields.names if len(fields) > 1 else [""])[self.parts.field[rows].numpy()]
        columns = [names, fields.coordinates[rows].numpy()]
        if fields.shape is not None or len(fields) == 1:
            columns.append(fields.values[rows].numpy())
        return row_keys(*columns)[:, None]

    def outcomes(self, part: Any, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        rows = self.parts.known(part)
        return row_keys(self.samples.coordinates[rows].numpy(), self.samples.values[rows].numpy())

    def part_sizes(self) -> dict[str, int]:
        counts = [int(self.parts.known(part).sum()) for part in PARTS]
        return dict(zip(("training", "validation", "test"), counts, strict=True))

    def summary(self) -> str:
        sizes = ", ".join(f"{size} {name}" for name, size in self.part_sizes().items())
        fields = f"{len(self.samples)} fields of {', '.join(self.samples.channels)} over {', '.join(self.samples.axes)}"
        named = " (--data.variables, .axes, .fields, .stacked)" if self.dataset == "cube" else ""
        told = f"{fields}{named}; known places: {sizes}"
        return "\n".join([*self.samples.about, told]) if isinstance(self.samples, StationSet) else told

    def describe(self) -> dict[str, Any]:
        about = {name: getattr(self, name) for name in self.described}
        return about | {"fields": len(self.samples), "known places": self.part_sizes()}

    def loader(self, part: Part, variant: FieldVariant | None = None) -> DataLoader[FieldBatch]:
        """Fields of a part in batches.

        "train" has some places hidden at random, "validation" up to ``watched_fields`` fields and ``queries`` places
        of each, "test" all that is asked for in the test. "all" asks for every place of the fields (of the test
        fields, where some are kept) from what ``predict_from`` names.

        Args:
            part: "train", "validation", "test" or "all".
            variant: "whole" = everything that is kept of the part, "as read" = that, and observed values as they were
                read, not brought in line.

        Raises:
            ValueError: a variant of the training part.
        """
        if part == "train":
            require(variant is None, "variant", "be left out for the training part", repr(variant))
            return drawn_loader(self._drawn, EqualBatches(np.arange(self.draws), self.batch_size, self.seed))
        if part == "test" and self.undivided:
            return self._folds(variant)
        numbers, most = self._fields_of(part), None
        if part == "validation" and variant is None:
            spread = np.linspace(0, len(numbers) - 1, min(len(numbers), self.watched_fields))
            numbers, most = numbers[spread.astype(np.int64)], self.queries
        in_line = self._in_line(part) if self.records and variant != "as read" else as_they_are(self.samples)
        take = partial(self._taken, part=part, in_line=in_line, most=most)
        return batch_loader(take, EqualBatches(numbers.numpy(), self.batch_size, None))

    def _folds(self, variant: FieldVariant | None) -> DataLoader[FieldBatch]:
        """Every known place, asked for from the places of the other units: these are dealt into groups."""
        fields, parts = self.samples, self.parts
        known = torch.nonzero(fields.known).flatten()
        units, unit = parts.units[known].unique(return_inverse=True)
        require(len(units) > 1, "the data", "hold known places of two stations to test all of them", len(units))
        dealt = torch.randperm(len(units), generator=torch.Generator().manual_seed(self.seed)) % _FOLDS
        fold = torch.full((len(parts.units),), -1)
        fold[known] = dealt[unit]
        counts = torch.stack([parts.counts(fold == group) for group in range(int(dealt.max()) + 1)], 1)
        pairs = torch.nonzero((counts > 0) & (counts < counts.sum(1, keepdim=True)))
        plain = not self.records or variant == "as read"
        in_line = [
            as_they_are(fields) if plain else bring_in_line(fields, fields.known & (fold != group))
            for group in range(counts.shape[1])
        ]

        def take(numbers: Tensor) -> FieldBatch:
            chosen = pairs[numbers]
            spans = [(*fields.splits[field : field + 2].tolist(), group) for field, group in chosen.tolist()]
            hidden = [fold[first:last] == group for first, last, group in spans]
            in_fold = [fold[first:last] >= 0 for first, last, _ in spans]
            observed = [
                span[0] + torch.nonzero(a & ~b).flatten() for span, a, b in zip(spans, in_fold, hidden, strict=True)
            ]
            asked = [span[0] + torch.nonzero(rows).flatten() for span, rows in zip(spans, hidden, strict=True)]
            lines = [in_line[group] for *_, group in spans]
            return FieldBatch.of(fields, observed, asked, lines, [fields.values] * len(spans))

        return batch_loader(take, EqualBatches(np.arange(len(pairs)), self.batch_size, None))

    def asking(self, places: Tensor, field: Tensor, at_once: int = 50_000) -> Iterator[FieldBatch]:
        """Any places of the fields, asked for from all that ``predict_from`` names; ``rows`` are numbers of places.

        Args:
            places: float64 ``(M, d)``.
            field: int64 ``(M,)``, of each place; those of fields in which nothing is observed are left out.
            at_once: places in a batch at most.
        """
        fields, shown = self.samples, self.shown("all")
        in_line = self._in_line("all") if self.records else as_they_are(fields)
        observed_in = self.parts.counts(shown) > 0
        for number in field.unique().tolist():
            if number < 0 or not observed_in[number]:
                continue
            first, last = fields.splits[number : number + 2].tolist()
            seen = first + torch.nonzero(shown[first:last]).flatten()
            for rows in torch.nonzero(field == number).flatten().split(at_once):
                yield FieldBatch.at(
                    fields.coordinates[seen], in_line.values[seen], in_line.noise[seen], places[rows], rows
                )

    def _drawn(self, numbers: Tensor, epoch: int) -> FieldBatch:
        """Training fields for the draws ``numbers`` of an epoch, a random part of each hidden and asked for."""
        observed, asked, in_line = zip(*self.hiding.drawn(Draws(self.seed, epoch, numbers)), strict=True)
        return FieldBatch.of(self.samples, observed, asked, in_line, [source.values for source in in_line])

    def _fields_of(self, part: Part) -> Tensor:
        """Numbers of the fields of which a part asks for something and shows something."""
        parts = self.parts
        if part == "validation":
            return self._watched_fields
        if part == "test":
            asked = parts.counts(parts.known("test")) > 0
            return torch.nonzero(asked & (parts.counts(parts.shown) > 0)).flatten()
        some = bool(self.test_fields) and not self.undivided
        numbers = torch.tensor(self.test_fields) if some else torch.arange(len(self.samples))
        return numbers[parts.counts(self.shown(part))[numbers] > 0]

    def shown(self, part: Part) -> Tensor:
        """Places that the network is shown where a part is asked for, bool ``(N,)``; ``setup`` comes first."""
        if part == "validation":
            return self.parts.usable
        from_all = part == "all" and self.predict_from == "all"
        return self.samples.known if from_all else self.parts.shown

    def _in_line(self, part: Part) -> BroughtInLine:
        """Values brought in line with what a part shows."""
        if part not in self._brought:
            self._brought[part] = bring_in_line(self.samples, self.shown(part))
        return self._brought[part]

    def _taken(self, numbers: Tensor, part: Part, in_line: BroughtInLine, most: int | None) -> FieldBatch:
        """The fields ``numbers``; ``most`` places of each that are asked for, spread evenly, or all of them."""
        parts, shown = self.parts, self.shown(part)
        asked = torch.ones_like(shown) if part == "all" else parts.known(part)
        if part == "test":
            asked &= ~shown
        if part == "validation" and self.test_fields:
            rows = parts.rows(numbers)
            keys = uniform_rows(Draws(self.seed, 0, numbers), "watched", [len(places) for places in rows])
            shown = shown.clone()
            shown[torch.cat(rows)] &= torch.cat(keys) < 1 - sum(self.hide) / 2
        spans = [self.samples.splits[number : number + 2].tolist() for number in numbers.tolist()]
        observed = [first + torch.nonzero(shown[first:last]).flatten() for first, last in spans]
        queries = [first + torch.nonzero(asked[first:last]).flatten() for first, last in spans]
        queries = [rows[:: max(1, -(-len(rows) // most))] if most else rows for rows in queries]
        wanted = [self.samples.values] * len(spans)
        return FieldBatch.of(self.samples, observed, queries, [in_line] * len(spans), wanted)
