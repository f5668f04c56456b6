"""Coarse and fine gridded fields for training: from a file, or simulated; patches of them, split by time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.xarray import Reading
from ccnn_irregular.datasets import simulated_fronts
from ccnn_irregular.domains import Grid
from ccnn_irregular.operators.planning.memory import as_size, available_memory
from ccnn_irregular.pipelines.tasks.downscale.fields import Coarse, Fields, Plane, coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.gaps import answerable
from ccnn_irregular.pipelines.tasks.downscale.network import FieldFormat
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.sample_keys import row_keys

__all__ = ["DownscalingBatch", "DownscalingDataModule"]

# Bytes held per byte of float32 values: as they are read, as they stay, coarse ones beside them.
_HELD = 4
_LEAST_PATCH = 8
# Parts that are cut into patches.
_TRAINED = ("train", "validation")
# Patches the network is prepared with.
_PREPARED_WITH = 64


@dataclass
class DownscalingBatch:
    """Coarse fields and the fine ones they come from.

    Attributes:
        coarse: ``(B, C, rows, columns)`` on ``source``, nan where nothing is known.
        fine: ``(B, C, rows, columns)`` on ``query``, nan where it counts nothing.
        source: the coarse grid.
        query: the fine grid.
        weights: float32 ``(rows, columns)`` of the query: what a known node counts in the loss.
        areas: float32 ``(B, 1, rows, 1)``, the area it stands for, by which it counts in the validation as well.
    """

    coarse: Tensor
    fine: Tensor
    source: Grid
    query: Grid
    weights: Tensor
    areas: Tensor

    def __len__(self) -> int:
        return len(self.coarse)

    def to(self, device: Any, **_: Any) -> DownscalingBatch:
        """On another device."""
        moved: list[Any] = [part.to(device) if isinstance(part, Tensor) else part for part in vars(self).values()]
        return DownscalingBatch(*moved)


class DownscalingDataModule(TaskData[DownscalingBatch, None]):
    """Fine fields, made coarse; the last entries along one dimension, by its coordinate, are tested on.

    Missing values (nan) of a fine field are unknown samples: coarse nodes are made of the known ones, and neither loss
    nor scores count the others. Patches that know nothing are not drawn.

    The validation shares no node with training. It is the first entries along ``split``, farthest from the test, where
    its share of the training part is one entry at least. Otherwise (one month in the training part, say) it is the last
    columns of the plane, as many as the share and one patch at least: patches are cut from both sides of the border, so
    that training reads nothing of them, and neither side's margin there is scored.

    Args:
        path: netCDF file, zarr store, or folder of netCDF files; None = simulated fronts.
        variables: which are the channels; may be left out for simulated fields.
        select: values of coordinates that are kept, such as {level: 500}.
        factor: fine nodes per coarse node along each axis.
        coarse: what a coarse node knows: the fine "nodes" there, or "means" over factor x factor fine nodes.
        split: dimension whose last entries are tested on; None = the first that is not horizontal.
        test: share of the entries along it.
        validation: share of the training part that marks the best epoch.
        split_seed: of simulated fields.
        patch: coarse nodes along both axes of the patches a field is cut into; None = whole fields.
        margin: coarse nodes at the edges of a patch that the loss leaves out: they see less than the inner ones.
        batch_size: patches a step.
        shuffle_seed: of the order of the training patches.
        count: number of simulated fields.
        reading: how the files are read where they leave it open.
        evaluate: what test and predict look at: the part kept for the "test", or "all" of the source.
    """

    rows_are = "fields"
    described = (
        *("path", "variables", "select", "evaluate", "factor", "coarse", "split", "test", "validation", "split_seed"),
        "patch",
    )

    def __init__(
        self,
        path: str | None = None,
        variables: list[str] | None = None,
        select: dict[str, float | str] | None = None,
        factor: int = 4,
        coarse: Coarse = "means",
        split: str | None = None,
        test: float = 0.2,
        validation: float = 0.15,
        split_seed: int = 0,
        patch: int | None = None,
        margin: int = 0,
        batch_size: int = 8,
        shuffle_seed: int = 0,
        count: int = 80,
        reading: Reading | None = None,
        evaluate: Evaluated = "test",
    ) -> None:
        super().__init__(evaluate)
        require(factor >= 2, "factor", "be at least 2", factor)
        require(coarse in ("nodes", "means"), "coarse", "be 'nodes' or 'means'", repr(coarse))
        for name, share in (("test", test), ("validation", validation)):
            require(0 < share < 1, name, "lie in (0, 1)", share)
        require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
        require(margin >= 0, "margin", "not be negative", margin)
        least = max(_LEAST_PATCH, 2 * margin + 1)
        require(patch is None or patch >= least, "patch", f"be at least {least} coarse nodes", patch)
        require(patch is not None or margin == 0, "margin", "be 0 for whole fields", margin)
        self.path, self.variables, self.select = path, tuple(variables or ()), dict(select or {})
        self.factor, self.coarse, self.split = factor, coarse, split
        self.test, self.validation, self.split_seed = test, validation, split_seed
        self.patch, self.margin, self.batch_size = patch, margin, batch_size
        self.shuffle_seed, self.count = shuffle_seed, count
        self.reading = reading or Reading()
        self._ready = False

    def setup(self, stage: str) -> None:
        """Read the fields, once.

        Raises:
            FileNotFoundError, ValueError: see ``open_cube`` and ``Fields.of``; too few fields; more than fits; a
                variable that is missing everywhere in the training or in the test part.
        """
        if self._ready:
            return
        fields = self._opened()
        require(len(fields.samples) > 0, "split", "name a dimension that is not horizontal", "fields without one")
        split = self.split or fields.samples[0]
        require(split in fields.samples, "split", f"be of the dimensions {fields.samples}", repr(split))
        fields = _sorted_along(fields, split)
        entries = fields.dataset.sizes[split]
        everything = self.takes_all(stage)
        tested = entries if everything else max(1, round(self.test * entries))
        require(everything or entries > tested, "data", f"have 2 entries or more along {split!r}", entries)
        _require_memory(fields)
        self.coarse_plane = fields.plane.coarsened(self.factor, self.coarse)
        self.fine_plane = self.coarse_plane.refined(self.factor, self.coarse)
        self.units = fields.attributes()
        self.variables = fields.variables
        if not everything:
            self.training = self._cut(fields.read({split: slice(0, entries - tested)}), "training")
        sizes = [entries - tested if dim == split else fields.dataset.sizes[dim] for dim in fields.samples]
        self._entry = np.indices(sizes)[fields.samples.index(split)].ravel()
        self.testing = self._cut(fields.read({split: slice(entries - tested, entries)}), "test")
        self.split = split
        if everything:
            none = np.empty((0, 3), np.int64)
            self.training, self.patches, self.validated = self.testing[:0], dict.fromkeys(_TRAINED, none), "nothing"
        else:
            self.patches = self._patches()
        self._ready = True

    def _opened(self) -> Fields:
        if self.path is None:
            dataset = simulated_fronts.fronts(self.count, seed=self.split_seed)
            return Fields.of(dataset, self.variables or ("front",))
        dataset = self.reading.open(self.path)
        for name, value in self.select.items():
            known = sorted(map(str, dataset.indexes))
            require(name in known, "select", f"name coordinates of {known}", repr(name))
            try:
                dataset = dataset.sel({name: value})
            except KeyError:
                reject(f"select.{name}", f"be of {list(dataset[name].values[:20])}", repr(value))
            if dataset.sizes.get(name) == 1:  # a day of cftime is a stretch of one node, that of datetime64 the node
                dataset = dataset.isel({name: 0})
        return Fields.of(dataset, self.variables)

    def _cut(self, values: NDArray[np.float32], part: str) -> Tensor:
        """Fine fields that the coarse ones belong to; nan also where no coarse node that is known is the next one."""
        rows, columns = self.fine_plane.sizes
        fine = torch.from_numpy(values)[..., :rows, :columns].contiguous()
        if bool(fine.isnan().any()):
            coarse = coarsened_values(fine, self.factor, self.coarse, self.coarse_plane.sizes)
            fine.masked_fill_(~answerable(coarse, self.coarse_plane.grid(), self.fine_plane.grid()), torch.nan)
        for name, missing in zip(self.variables, _missing(fine), strict=True):
            rule = f"be known somewhere in the {part} fields"
            require(missing < fine[:, 0].numel(), f"variable {name!r}", rule, f"{missing} missing values and no other")
        return fine

    def _patches(self) -> dict[str, NDArray[np.int64]]:
        """Rows ``(field, first coarse row, first coarse column)`` of the training and the validation part.

        Without those whose inner part, which the loss looks at, knows nothing.
        """
        fields, columns = self._parts()
        found = {}
        for part in _TRAINED:
            rows = self._tiled(fields[part], columns[part])
            rule = f"hold patches that know something for {part}: give smaller ones with data.patch"
            require(len(rows) > 0, "data", rule, f"none of {len(self.training)} fields")
            found[part] = rows
        return found

    def _parts(self) -> tuple[dict[str, NDArray[np.int64]], dict[str, tuple[int, int]]]:
        """Fields of the training and of the validation part, and their coarse columns from where to where."""
        everything, wide = np.arange(len(self.training)), self.coarse_plane.sizes[1]
        entries = int(self._entry.max()) + 1
        watched = round(self.validation * entries)
        if self.patch is None:
            rule = "have 2 entries or more for training and validation, or be cut into patches with data.patch"
            require(entries >= 2, "data", rule, f"{entries} along {self.split!r}")
            watched = max(watched, 1)
        if watched:
            rule = "leave an entry for training"
            require(watched < entries, "validation", rule, f"{self.validation} of {entries} along {self.split!r}")
            first = self._entry < watched
            self.validated = f"the first {watched} of {entries} entries along {self.split}"
            return {"train": everything[~first], "validation": everything[first]}, {
                part: (0, wide) for part in _TRAINED
            }
        assert self.patch is not None
        stretch = max(self.patch, round(self.validation * wide))
        rule = f"be at least {stretch + self.patch} coarse nodes wide, for a patch of training beside the validation"
        require(wide - stretch >= self.patch, "data", f"{rule}: give a smaller data.patch", wide)
        self.validated = f"the last {stretch} of {wide} coarse columns"
        return dict.fromkeys(_TRAINED, everything), {
            "train": (0, wide - stretch),
            "validation": (wide - stretch, wide),
        }

    def _tiled(self, fields: NDArray[np.int64], columns: tuple[int, int]) -> NDArray[np.int64]:
        """Patches that cover some coarse columns of some fields, where their inner parts know something."""
        firsts = [
            _tiles(0, self.coarse_plane.sizes[0], self.patch, self.margin),
            _tiles(*columns, self.patch, self.margin),
        ]
        rows = np.stack([numbers.ravel() for numbers in np.meshgrid(fields, *firsts, indexing="ij")], axis=1)
        return rows[self._known(fields, firsts).ravel()] if any(self.missing()["training"].values()) else rows

    def _known(self, fields: NDArray[np.int64], firsts: list[NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Whether the loss finds a known value, ``(fields, first rows, first columns)``."""
        (high, wide), k, edge = self._tile()[1].sizes, self.factor, self.margin * self.factor
        known = (~self.training[fields].isnan()).any(1)
        inner = [
            known[:, a * k + edge : a * k + high - edge, b * k + edge : b * k + wide - edge].flatten(1).any(1)
            for a in firsts[0]
            for b in firsts[1]
        ]
        return torch.stack(inner, 1).numpy().reshape(len(known), len(firsts[0]), len(firsts[1]))

    def _tile(self) -> tuple[Plane, Plane]:
        """Coarse and fine plane of the first patch."""
        plane = self.coarse_plane
        sizes = plane.sizes if self.patch is None else (self.patch, self.patch)
        part = plane.patch((0, min(sizes[0], plane.sizes[0])), (0, min(sizes[1], plane.sizes[1])))
        return part, part.refined(self.factor, self.coarse)

    def batch(self, rows: NDArray[np.int64]) -> DownscalingBatch:
        """The patches at ``rows`` of ``patches``, all on the grid of the first tile."""
        part, fine_part = self._tile()
        high, wide = fine_part.sizes
        k = self.factor
        fine = torch.stack([self.training[n, :, a * k : a * k + high, b * k : b * k + wide] for n, a, b in rows])
        weights = torch.ones(high, wide)
        if self.margin:
            edge = self.margin * k
            weights = torch.zeros(high, wide)
            weights[edge : high - edge, edge : wide - edge] = 1.0
        areas = self.fine_plane.areas().float()
        areas = torch.stack([areas[a * k : a * k + high] for _, a, _ in rows])[:, None]
        coarse = coarsened_values(fine, k, self.coarse, part.sizes)
        return DownscalingBatch(coarse, fine, part.grid(), fine_part.grid(), weights, areas)

    def whole(self, fine: Tensor) -> DownscalingBatch:
        """Whole fine fields ``(B, C, rows, columns)`` and their coarse ones."""
        planes = self.coarse_plane, self.fine_plane
        coarse = coarsened_values(fine, self.factor, self.coarse, planes[0].sizes)
        areas = planes[1].areas().float().expand(len(fine), 1, -1, 1)
        return DownscalingBatch(coarse, fine, planes[0].grid(), planes[1].grid(), torch.ones(planes[1].sizes), areas)

    def loader(self, part: Part, variant: None = None) -> DataLoader[DownscalingBatch]:
        """Patches of "train" and of "validation"; whole fields of "test" and of "all", one a batch."""
        if part in _TRAINED:
            rows = self.patches[part]
            seed = self.shuffle_seed if part == "train" else None
            batches = EqualBatches(np.arange(len(rows)), self.batch_size, seed)
            return batch_loader(lambda chosen: self.batch(rows[chosen.numpy()]), batches)
        fields = self.testing if part == "test" else torch.cat([self.training, self.testing])
        return batch_loader(lambda chosen: self.whole(fields[chosen]), EqualBatches(np.arange(len(fields)), 1, None))

    def typical_batch(self) -> DownscalingBatch:
        """Some patches, spread evenly over those of training."""
        rows = self.patches["train"]
        spread = np.linspace(0, len(rows) - 1, min(len(rows), _PREPARED_WITH)).round().astype(np.int64)
        return self.batch(rows[spread])

    def sizes(self) -> dict[str, int]:
        return {"in_channels": len(self.variables)}

    def format(self) -> FieldFormat:
        """What is read, for the checkpoint."""
        plane = self.coarse_plane
        return FieldFormat(
            self.variables,
            tuple(self.units[name] for name in self.variables),
            self.factor,
            self.coarse,
            plane.steps,
            (plane.rows.unit, plane.columns.unit),
        )

    def missing(self) -> dict[str, dict[str, int]]:
        """Number of fine values that count nothing, for the training and the test part, by variable."""
        parts = {"training": self.training, "test": self.testing}
        return {part: dict(zip(self.variables, _missing(fine), strict=True)) for part, fine in parts.items()}

    def keys(self, part: Literal["train", "validation", "test"]) -> NDArray[np.uint64]:
        """A key of the values of each fine field of which a part has patches, ``(B, 1)``."""
        fields = self.testing if part == "test" else self.training[np.unique(self.patches[part][:, 0])]
        return row_keys(fields.numpy())[:, None]

    def part_sizes(self) -> dict[str, int]:
        sizes = {"training fields": len(self.training), "test fields": len(self.testing)}
        return sizes | {f"{name} patches": len(rows) for name, rows in self.patches.items()}

    def summary(self) -> str:
        sizes = ", ".join(f"{size} {name}" for name, size in self.part_sizes().items())
        planes = " to ".join(" x ".join(map(str, plane.sizes)) for plane in (self.coarse_plane, self.fine_plane))
        return f"{', '.join(self.variables)}, {planes} nodes: {sizes}"

    def describe(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.described} | {
            "sizes": self.part_sizes(),
            "validated on": self.validated,
            "coarse nodes": self.coarse_plane.sizes,
            "fine nodes": self.fine_plane.sizes,
            "missing values": self.missing(),
        }


def _sorted_along(fields: Fields, dim: str) -> Fields:
    """Entries by their coordinate, where there is one: what is tested on does not depend on their order in the file."""
    index = fields.dataset.indexes.get(dim)
    if index is None or index.is_monotonic_increasing:
        return fields
    return replace(fields, dataset=fields.dataset.sortby(dim))


def _tiles(start: int, stop: int, patch: int | None, margin: int) -> NDArray[np.int64]:
    """First nodes of patches whose inner parts cover a stretch of an axis; the last one ends where it does."""
    if patch is None or patch >= stop - start:
        return np.array([start])
    return np.append(np.arange(start, stop - patch, patch - 2 * margin), stop - patch)


def _missing(fine: Tensor) -> list[int]:
    """Missing values of each channel of ``(N, C, rows, columns)``."""
    return [int(fine[:, channel].isnan().sum()) for channel in range(fine.shape[1])]


def _require_memory(fields: Fields) -> None:
    size = 4 * len(fields.variables) * int(np.prod(fields.sizes)) * int(np.prod(fields.plane.sizes))
    free = available_memory(torch.device("cpu"))
    rule = f"fit into the free memory {as_size(free)} (data.select and data.variables take less)"
    require(_HELD * size <= free, "data", rule, f"{as_size(_HELD * size)}")
