"""Fields for training: random parts are hidden again and again; what is kept for the test is never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.xarray import Reading
from ccnn_irregular.datasets import argo, cube, ghcnm
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.simulated_fields import smooth_fields
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.field.records import BroughtInLine, as_they_are, bring_in_line, referred_to
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader, drawn_loader
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.sample_keys import row_keys, text_keys

__all__ = ["FieldBatch", "FieldDataModule"]

FieldSource = Literal["cube", "ghcnm", "argo", "simulated"]

_TRAIN, _WATCHED, _TEST = 0, 1, 2
_HALF = 0.5  # of the stations, which are dealt into two groups at least


@dataclass(frozen=True)
class FieldBatch:
    """Some fields, each with places where it is observed and others where it is asked for.

    Attributes:
        observed: where, with one sample a field.
        values: float64 ``(n, C)`` there.
        query: where values are wanted, in the same samples.
        targets: float64 ``(m, C)``, the values there, or nan.
        rows: int64 ``(m,)``, rows of the queries in the set of fields.
        noise: float64 ``(n, C)``, variance of the noise of ``values`` relative to the usual one.
        weights: float64 ``(m,)``, what each query counts in scores, see ``FieldSet.areas``.
    """

    observed: Points
    values: Tensor
    query: Points
    targets: Tensor
    rows: Tensor
    noise: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return self.observed.samples

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FieldBatch:
        """The same batch on ``device``."""
        return FieldBatch(
            self.observed.to(device),
            self.values.to(device, non_blocking=non_blocking),
            self.query.to(device),
            self.targets.to(device, non_blocking=non_blocking),
            self.rows.to(device, non_blocking=non_blocking),
            self.noise.to(device, non_blocking=non_blocking),
            self.weights.to(device, non_blocking=non_blocking),
        )


class FieldDataModule(LightningDataModule):
    """Fields of a data set, of which random parts are hidden, and the places kept for validation and test.

    Two ways to test. With ``test_fields`` whole fields are kept: a part of each is shown, the rest is asked for.
    Without, places and units (stations, profiles) of all fields are kept, and asked for from all others.

    With ``records`` the stations of the training part are dealt into round(1 / ``hide_units``) groups, and one group is
    hidden at a time: from all months, so that what is observed is brought in line without it, as in the test without
    the stations kept. What is asked for is brought in line with what is observed.

    Differences from a mean (``FieldSet.reference``) are taken from the mean over the training part of each group, or
    over the part it is in: nothing that is kept for the test tells of training.

    Args:
        dataset: "cube" (netCDF or zarr), "ghcnm", "argo" or "simulated".
        root: the file (cube; ghcnm: the ``.dat`` file) or the folder (argo).
        variables: of a cube, or the one parameter of the floats.
        axes: dimensions of a cube that are coordinates of a field.
        fields: dimension of a cube along which its fields follow one another.
        stacked: dimensions of a cube that become channels.
        drop_flagged: leave out station values that failed a quality check.
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
        predict_from: for ``ccnn predict``: "all" that is known, or what the "test" shows.
        reading: how the file of a cube is read where it leaves it open.
    """

    rows_are: ClassVar[str] = "places"

    def __init__(
        self,
        dataset: FieldSource,
        root: str | None = None,
        variables: Sequence[str] = (),
        axes: Sequence[str] = (),
        fields: str | None = None,
        stacked: Sequence[str] = (),
        drop_flagged: bool = True,
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
        predict_from: Literal["all", "test"] = "all",
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        require(dataset in get_args(FieldSource), "dataset", f"be one of {get_args(FieldSource)}", repr(dataset))
        require(root is not None or dataset == "simulated", "root", "be given (--data.root PATH)", root)
        shares = {"held": held, "held_units": held_units, "watched": watched, "watched_units": watched_units}
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
        self.dataset, self.root = dataset, root
        self.variables, self.axes, self.fields, self.stacked = tuple(variables), tuple(axes), fields, tuple(stacked)
        self.drop_flagged, self.records = drop_flagged, records
        self.test_fields = tuple(test_fields)
        self.shares = shares
        self.hide, self.hide_units, self.show = tuple(hide), hide_units, show
        self.queries, self.draws, self.batch_size, self.seed = queries, draws, batch_size, seed
        self.watched_fields = watched_fields
        self.predict_from = predict_from
        self.reading = reading or Reading()
        self._set: FieldSet | None = None

    def setup(self, stage: str) -> None:
        """Read the files once, and decide what is kept.

        Raises:
            ValueError, FileNotFoundError: from the readers; too few observations to hide some.
        """
        if self._set is not None:
            return
        fields = self._read()
        outside = [number for number in self.test_fields if not 0 <= number < len(fields)]
        require(not outside, "test_fields", f"be numbers of the {len(fields)} fields, from 0 on", outside)
        self._in_order = _in_order(fields)
        # A place that is a unit of its own is known by its rank too.
        alone = len(fields.units.unique()) == len(fields.units)
        self._units = self._in_order.argsort() if alone else fields.units
        self.part = self._parts(fields)
        self._set = referred_to(fields, self.part)
        counts = self._counts(self._usable_in_training())
        self.training_fields = torch.nonzero(counts >= 2).flatten()
        rule = "hold a field of at least 2 known places for training, to hide some of"
        require(len(self.training_fields) > 0, "the data", rule, f"at most {int(counts.max())}")
        if self.records:
            self._group = self._dealt()
            self._fields_and_groups = self._pairs()
        self._watched_field = torch.nonzero(self._counts((self.part == _WATCHED) & fields.known) > 0).flatten()
        here = torch.isin(self._watched_field, self.training_fields)
        self._watched_field = self._watched_field[here]
        require(len(self._watched_field) > 0, "watched", "leave a place for validation in some field", self.shares)

    def _read(self) -> FieldSet:
        if self.dataset == "simulated":
            return smooth_fields(seed=self.seed)
        assert self.root is not None
        if self.dataset == "cube":
            named = self.variables, self.axes
            return cube.load(self.root, *named, fields=self.fields, stacked=self.stacked, reading=self.reading)
        if self.dataset == "ghcnm":
            return ghcnm.load_fields(self.root, drop_flagged=self.drop_flagged)
        return argo.load_fields(self.root, self.variables)

    def _parts(self, fields: FieldSet) -> Tensor:
        """Part of each place: training, validation or test, int64 ``(N,)``."""
        generator = torch.Generator().manual_seed(self.seed)
        by_unit = torch.rand(int(self._units.max()) + 1, generator=generator)[self._units]
        by_place = torch.empty(len(fields.units))
        by_place[self._in_order] = torch.rand(len(fields.units), generator=generator)
        shares = self.shares
        part = torch.full((len(fields.units),), _TRAIN)
        watched = (by_unit < shares["held_units"] + shares["watched_units"]) | (
            by_place < shares["held"] + shares["watched"]
        )
        part[watched] = _WATCHED
        part[(by_unit < shares["held_units"]) | (by_place < shares["held"])] = _TEST
        if self.test_fields:
            part[torch.isin(self._field_of(fields), torch.tensor(self.test_fields))] = _TEST
        return part

    @staticmethod
    def _field_of(fields: FieldSet) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(fields)), fields.splits.diff())

    def _dealt(self) -> Tensor:
        """Group of each place's station, int64 ``(N,)``; -1 for stations without a place for training."""
        units = self.samples.units
        used = units[self._usable_in_training()].unique()
        order = torch.randperm(len(used), generator=torch.Generator().manual_seed(self.seed))
        group = torch.full((int(units.max()) + 1,), -1)
        group[used[order]] = torch.arange(len(used)) % round(1 / self.hide_units)
        return group[units]

    def _pairs(self) -> Tensor:
        """Fields and the groups that can be hidden in them, where something else is left; int64 ``(P, 2)``."""
        usable = self._usable_in_training()
        groups = int(self._group.max()) + 1
        counts = torch.stack([self._counts(usable & (self._group == group)) for group in range(groups)], 1)
        pairs = torch.nonzero((counts > 0) & (counts < counts.sum(1, keepdim=True)))
        rule = "hold stations of two groups in some month, to hide one of (more stations, or a larger hide_units)"
        require(len(pairs) > 0, "the data", rule, f"{len(self.samples)} months of {groups} groups")
        return pairs

    def _counts(self, chosen: Tensor) -> Tensor:
        """Chosen places of each field, int64 ``(F,)``."""
        fields = self.samples
        return torch.zeros(len(fields), dtype=torch.int64).index_add_(0, self._field_of(fields), chosen.long())

    @property
    def samples(self) -> FieldSet:
        """What was read; ``setup`` comes first."""
        if self._set is None:
            reject("the data module", "be set up (setup('fit')) before its fields are asked for", "no fields yet")
        return self._set

    def training_values(self) -> Tensor:
        """Known values of the training part ``(n, C)``."""
        return self.samples.values[(self.part == _TRAIN) & self.samples.known]

    def keys(self, part: Literal["train", "validation", "test"]) -> NDArray[np.uint64]:
        """A key of each known place that a part asks for, ``(B, 1)``.

        Scattered places are told by their field's name and their coordinates, those of a grid by their values too: two
        cubes may share their grid. A single field is named after its file, so its name is left out.
        """
        fields, known = self.samples, self.samples.known
        asked = {
            "train": (self.part == _TRAIN) & known,
            "validation": (self.part == _WATCHED) & known,
            "test": (self.part == _TEST) & known & ~self._shown_in_test(),
        }
        rows = asked[part]
        names = text_keys(fields.names if len(fields) > 1 else [""])[self._field_of(fields)[rows].numpy()]
        columns = [names, fields.coordinates[rows].numpy()]
        if fields.shape is not None or len(fields) == 1:
            columns.append(fields.values[rows].numpy())
        return row_keys(*columns)[:, None]

    def description(self) -> dict[str, Any]:
        """What was read and how it was split, for the JSON."""
        known = self.samples.known
        parts = {"training": _TRAIN, "validation": _WATCHED, "test": _TEST}
        sizes = {name: int((known & (self.part == part)).sum()) for name, part in parts.items()}
        about = {
            name: getattr(self, name)
            for name in ("dataset", "root", "test_fields", "hide", "hide_units", "show", "seed")
        }
        return about | self.shares | {"fields": len(self.samples), "known places": sizes}

    def train_dataloader(self) -> DataLoader[FieldBatch]:
        return drawn_loader(self._drawn, EqualBatches(np.arange(self.draws), self.batch_size, self.seed))

    def val_dataloader(self) -> DataLoader[FieldBatch]:
        numbers = self._watched_field.numpy()
        spread = numbers[np.linspace(0, len(numbers) - 1, min(len(numbers), self.watched_fields)).astype(np.int64)]
        collate = partial(self._watched, in_line=self._in_training, most=self.queries)
        return batch_loader(collate, EqualBatches(spread, self.batch_size, None))

    def test_loader(self, *, as_read: bool = False) -> DataLoader[FieldBatch]:
        """Fields of the test, everything that is asked for; ``as_read`` leaves observed values as they were read."""
        fields = self.samples
        asked = self._counts((self.part == _TEST) & fields.known) > 0
        shown = self._counts(self._shown_in_test()) > 0
        numbers = torch.nonzero(asked & shown).flatten().numpy()
        collate = partial(self._tested, in_line=as_they_are(self.samples) if as_read else self._in_test)
        return batch_loader(collate, EqualBatches(numbers, self.batch_size, None))

    def validation_loader(self, *, as_read: bool = False) -> DataLoader[FieldBatch]:
        """All that is kept for validation, of which ``val_dataloader`` has some fields; ``as_read`` as for the test."""
        in_line = as_they_are(self.samples) if as_read else self._in_training
        collate = partial(self._watched, in_line=in_line, most=None)
        return batch_loader(collate, EqualBatches(self._watched_field.numpy(), self.batch_size, None))

    def predict_loader(self) -> DataLoader[FieldBatch]:
        """Every place of the fields (of the test fields, where there are any)."""
        counts = self._counts(self._shown())
        numbers = torch.tensor(self.test_fields) if self.test_fields else torch.arange(len(self.samples))
        numbers = numbers[counts[numbers] > 0]
        return batch_loader(self._filled, EqualBatches(numbers.numpy(), self.batch_size, None))

    def _drawn(self, numbers: Tensor, epoch: int) -> FieldBatch:
        """Training fields, a random part of each hidden and asked for, anew in every epoch.

        Args:
            numbers: of the draws of an epoch.
            epoch: from 0 on.
        """
        draws = Draws(self.seed, epoch, numbers)
        return self._group_hidden(draws) if self.records else self._some_hidden(draws)

    def _some_hidden(self, draws: Draws) -> FieldBatch:
        """Hide a share of the training places of a field, and units; at least one place stays and one is hidden."""
        chosen = self.training_fields[_drawn_rows(draws, "field", len(self.training_fields))]
        least, most = self.hide
        shares = least + (most - least) * draws.uniform("share")
        found = self._training_rows(chosen)
        known = [self._units[rows].unique(return_inverse=True) for rows in found]
        keys = _split(draws, "places", [len(rows) for rows in found])
        of_units = _split(draws, "units", [len(units) for units, _ in known])
        observed, asked = [], []
        for rows, (_, unit), key, of_unit, share in zip(found, known, keys, of_units, shares, strict=True):
            order = key.argsort()
            hidden = torch.arange(len(rows)) < round(float(share) * len(rows))
            hidden |= (of_unit < self.hide_units)[unit[order]]
            hidden[0], hidden[-1] = True, False
            observed.append(rows[order[~hidden]])
            asked.append(rows[order[hidden]][: self._asked_at_most])
        as_read = [as_they_are(self.samples)] * len(chosen)
        return self._batch(observed, asked, as_read, [self.samples.values] * len(chosen))

    def _group_hidden(self, draws: Draws) -> FieldBatch:
        """Hide one group of stations in each field.

        What is asked for is brought in line as what is observed is: the deviation of a station from its neighbours is
        nothing that they could tell.
        """
        chosen = self._fields_and_groups[_drawn_rows(draws, "field and group", len(self._fields_and_groups))]
        found = self._training_rows(chosen[:, 0])
        keys = _split(draws, "places", [len(rows) for rows in found])
        groups = chosen[:, 1].tolist()
        observed, asked = [], []
        for rows, key, group in zip(found, keys, groups, strict=True):
            hidden = self._group[rows] == group
            observed.append(rows[~hidden])
            asked.append(rows[hidden][key[hidden].argsort()][: self._asked_at_most])
        in_line = [self._without_group[group] for group in groups]
        return self._batch(observed, asked, in_line, [one.values for one in in_line])

    def _training_rows(self, numbers: Tensor) -> list[Tensor]:
        """Rows of some fields that training may use, those of each in the order of their places."""
        usable = self._usable_in_training()
        return [rows[usable[rows]] for rows in self._rows(numbers)]

    @property
    def _asked_at_most(self) -> int:
        """Places of one field that a step of training asks for."""
        return max(1, self.queries // self.batch_size)

    def _rows(self, numbers: Tensor) -> list[Tensor]:
        """Rows of some fields, those of each in the order of their places."""
        return [self._in_order[slice(*self.samples.splits[one : one + 2].tolist())] for one in numbers.tolist()]

    def _usable_in_training(self) -> Tensor:
        return (self.part == _TRAIN) & self.samples.known

    def _watched(self, numbers: Tensor, in_line: BroughtInLine, most: int | None) -> FieldBatch:
        usable = self._usable_in_training()
        if self.test_fields:
            rows = self._rows(numbers)
            keys = _split(Draws(self.seed, 0, numbers), "watched", [len(one) for one in rows])
            usable = usable.clone()
            usable[torch.cat(rows)] &= torch.cat(keys) < 1 - sum(self.hide) / 2
        watched = (self.part == _WATCHED) & self.samples.known
        return self._asked(numbers, usable, watched, in_line, most)

    def _tested(self, numbers: Tensor, in_line: BroughtInLine) -> FieldBatch:
        shown = self._shown_in_test()
        return self._asked(numbers, shown, (self.part == _TEST) & self.samples.known & ~shown, in_line)

    def _filled(self, numbers: Tensor) -> FieldBatch:
        return self._asked(numbers, self._shown(), torch.ones_like(self.part, dtype=torch.bool), self._in_prediction)

    @cached_property
    def _without_group(self) -> list[BroughtInLine]:
        """Training values brought in line without each of the groups, whose own are brought in line with the rest."""
        usable = self._usable_in_training()
        hidden = [self._group == group for group in range(int(self._group.max()) + 1)]
        return [bring_in_line(self.samples, usable & ~one, usable & one) for one in hidden]

    @cached_property
    def _in_training(self) -> BroughtInLine:
        return self._with_records(self._usable_in_training())

    @cached_property
    def _in_test(self) -> BroughtInLine:
        return self._with_records(self._shown_in_test())

    @cached_property
    def _in_prediction(self) -> BroughtInLine:
        return self._with_records(self._shown()) if self.predict_from == "all" else self._in_test

    def _with_records(self, usable: Tensor) -> BroughtInLine:
        return bring_in_line(self.samples, usable) if self.records else as_they_are(self.samples)

    def _shown(self) -> Tensor:
        return self.samples.known if self.predict_from == "all" else self._shown_in_test()

    def _shown_in_test(self) -> Tensor:
        """Places that are shown in the test, bool ``(N,)``."""
        known = self.samples.known
        if not self.test_fields:
            return known & (self.part != _TEST)
        generator = torch.Generator().manual_seed(self.seed)
        shown = self._in_order[torch.rand(len(known), generator=generator).argsort()]
        kept = torch.zeros_like(known)
        for number in self.test_fields:
            first, last = self.samples.splits[number : number + 2].tolist()
            rows = shown[(shown >= first) & (shown < last)]
            rows = rows[known[rows]]
            kept[rows[: max(1, round(self.show * len(rows)))]] = True
        return kept

    def _asked(
        self, numbers: Tensor, shown: Tensor, asked: Tensor, in_line: BroughtInLine, most: int | None = None
    ) -> FieldBatch:
        spans = [self.samples.splits[number : number + 2].tolist() for number in numbers.tolist()]
        observed = [first + torch.nonzero(shown[first:last]).flatten() for first, last in spans]
        queries = [first + torch.nonzero(asked[first:last]).flatten() for first, last in spans]
        queries = [rows[:: max(1, -(-len(rows) // most))] if most else rows for rows in queries]
        return self._batch(observed, queries, [in_line] * len(spans), [self.samples.values] * len(spans))

    def _batch(
        self, observed: list[Tensor], asked: list[Tensor], in_line: list[BroughtInLine], wanted: list[Tensor]
    ) -> FieldBatch:
        """Rows of each field that are observed and asked for, and where their values are taken from."""
        fields = self.samples

        def points(parts: list[Tensor]) -> tuple[Points, Tensor]:
            splits = torch.tensor([0, *(len(rows) for rows in parts)]).cumsum(0)
            rows = torch.cat(parts)
            return Points(fields.coordinates[rows], splits=splits), rows

        source, _ = points(observed)
        query, rows = points(asked)
        values = torch.cat([one.values[seen] for one, seen in zip(in_line, observed, strict=True)])
        noise = torch.cat([one.noise[seen] for one, seen in zip(in_line, observed, strict=True)])
        targets = torch.cat([one[seen] for one, seen in zip(wanted, asked, strict=True)])
        return FieldBatch(source, values, query, targets, rows, noise, fields.weights(rows))


def _in_order(fields: FieldSet) -> Tensor:
    """Rows by field and place, int64 ``(N,)``: what is drawn for places must not depend on the order of a file.

    As maps are read: latitudes from north to south, all else from small to large.
    """
    field = torch.repeat_interleave(torch.arange(len(fields)), fields.splits.diff())
    columns = [
        -column if name == "latitude" else column
        for name, column in zip(fields.axes, fields.coordinates.T.numpy(), strict=True)
    ]
    return torch.from_numpy(np.lexsort((*columns[::-1], field.numpy())))


def _split(draws: Draws, purpose: str, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """Uniform numbers for so many rows of each sample."""
    return torch.from_numpy(draws.uniform(purpose, np.array(counts, np.int64))).split(list(counts))


def _drawn_rows(draws: Draws, purpose: str, count: int) -> Tensor:
    """One of so many rows for each sample, int64."""
    return torch.from_numpy(np.floor(draws.uniform(purpose) * count).astype(np.int64))
