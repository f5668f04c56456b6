"""Series of a registered data set in three random parts: the data module of tasks that read ``RaggedSeries``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import require
from ccnn_irregular.datasets import registry
from ccnn_irregular.datasets.physionet2012 import Cohort
from ccnn_irregular.datasets.samples import Parts, RaggedSeries, split_stratified
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader
from ccnn_irregular.pipelines.train.content_order import in_order_of_content
from ccnn_irregular.pipelines.train.data import Batch, Evaluated, Part, TaskData, Variant
from ccnn_irregular.pipelines.train.sample_keys import ragged_keys

__all__ = ["AskedTimes", "SeriesData"]


@dataclass
class AskedTimes:
    """When all variables of each series are to be predicted.

    Attributes:
        times: rising; None = when they were observed.
    """

    times: list[float] | None = None


class SeriesData(TaskData[Batch, Variant], Generic[Batch, Variant]):
    """Irregular series, split at random and stratified by their labels. A subclass implements ``batch``.

    Stays of an intensive care unit come as series of 41 variables, see ``physionet2012.Cohort.as_series``.

    Args:
        dataset: name of a registered data set of series, see ``ccnn_irregular.datasets.registry``.
        root: folder of its files; None for what is simulated.
        options: of its loader, such as ``{sets: [a, b]}``.
        test: share of all series that is never trained on.
        validation: share of all series that chooses the best epoch.
        split_seed: seed of the split and of the order of the batches.
        batch_size: series a step.
        evaluate: what test and predict look at: the part kept for the "test", or "all" of the source.
    """

    rows_are = "series"
    described: ClassVar[tuple[str, ...]] = (
        *("dataset", "root", "options", "evaluate", "test", "validation", "split_seed"),
    )
    scaled_by: ClassVar[tuple[Part, ...]] = ("train",)  # parts whose values are handed to the network

    def __init__(
        self,
        dataset: str,
        root: str | None = None,
        options: dict[str, Any] | None = None,
        test: float = 0.2,
        validation: float = 0.2,
        split_seed: int = 0,
        batch_size: int = 64,
        evaluate: Evaluated = "test",
    ) -> None:
        super().__init__(evaluate)
        require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
        self.dataset, self.root, self.options = dataset, root, dict(options or {})
        self.test, self.validation, self.split_seed = test, validation, split_seed
        self.batch_size = batch_size

    def batch(self, series: RaggedSeries, variant: Variant | None = None) -> Batch:
        """Make a batch of some series."""
        raise NotImplementedError(f"{type(self).__name__} must implement batch, see SeriesData")

    def setup(self, stage: str) -> None:
        """Read the series once, and split them.

        Raises:
            ValueError, FileNotFoundError: from the registry or the reader, with the option or the file at fault.
        """
        if hasattr(self, "series"):
            return
        known = registry.get(self.dataset, RaggedSeries, Cohort)
        defaults = known.taken(outcomes=self.needs_labels(stage))
        found = registry.load(known, self.root, **{**defaults, **self.options})
        series: RaggedSeries = found.as_series() if isinstance(found, Cohort) else found
        rows = torch.arange(len(series))
        self.series = series if series.ids is not None else replace(series, ids=rows)
        if not known.ordered and not self.takes_all(stage):  # the split must not follow from the order of a file
            self.series = in_order_of_content(self.series)
        if self.takes_all(stage):
            self.parts = Parts(rows[:0], rows[:0], rows)
        else:
            shares = {"validation": self.validation, "test": self.test}
            self.parts = split_stratified(
                self.series.labels, **shares, seed=self.split_seed, classes=self.series.classes
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the variables; numbers where the data set has none."""
        return self.series.channels or tuple(map(str, range(self.series.values.shape[1])))

    def part(self, *parts: Part) -> RaggedSeries:
        """The series of one part, or of several."""
        return self.series.subset(torch.cat([self._index(part) for part in parts]))

    def _index(self, part: Part) -> Tensor:
        if part == "all":
            return torch.arange(len(self.series))
        index: Tensor = getattr(self.parts, part)
        return index

    def loader(self, part: Part, variant: Variant | None = None) -> DataLoader[Batch]:
        batches = EqualBatches(self._index(part).numpy(), self.batch_size, self.split_seed if part == "train" else None)
        return batch_loader(lambda index: self.batch(self.series.subset(index), variant), batches)

    def ids(self, part: Part) -> list[int]:
        ids = self.part(part).ids
        assert ids is not None
        return ids.tolist()

    def keys(self, part: Part) -> NDArray[np.uint64]:
        """One key for each series, of all that was observed."""
        if len(self._index(part)) == 0:
            return np.empty((0, 1), np.uint64)
        series = self.part(part)
        return ragged_keys(series.splits.numpy(), series.coordinates.numpy(), series.values.numpy())[:, None]

    def sizes(self) -> dict[str, int]:
        return {"in_channels": self.series.values.shape[1]}

    def typical_batch(self) -> Batch:
        """The first training series."""
        return self.batch(self.series.subset(self.parts.train[: self.batch_size]))

    def training_values(self) -> tuple[Tensor, None]:
        return self.part(*self.scaled_by).values, None

    def part_sizes(self) -> dict[str, int]:
        return {part: len(self._index(part)) for part in ("train", "validation", "test")}

    def summary(self) -> str:
        return f"{self.dataset}: {self.series}"
