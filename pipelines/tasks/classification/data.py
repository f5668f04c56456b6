"""Labelled series and images for training: one data module for all data sets, and other samplings of the test part."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular import datasets
from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.samples import (
    GriddedSamples,
    Parts,
    RaggedSeries,
    RaggedVolumes,
    as_sequences,
    permute_sequences,
    split_stratified,
)
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.pipelines.tasks.classification.content import (
    carved,
    grid_numbers,
    joined,
    labelled_as,
    names_of,
    sample_keys,
    sampled_points,
)
from ccnn_irregular.pipelines.tasks.classification.sampling import Reading, Samples, Sampling, on_one_grid
from ccnn_irregular.pipelines.tasks.classification.sizes import suited_lengths
from ccnn_irregular.pipelines.train.batches import AlikeBatches, EqualBatches, batch_loader
from ccnn_irregular.pipelines.train.content_order import in_order_of_content
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.equal_samples import split_together
from ccnn_irregular.pipelines.train.sample_keys import row_keys

__all__ = ["SampleBatch", "SampleDataModule"]

_CALIBRATION_SAMPLES = 64  # that a network is calibrated on, at most


@dataclasses.dataclass(frozen=True)
class SampleBatch:
    """B labelled samples and where they were taken.

    Attributes:
        values: float32, ``(N, C)`` on Points, ``(B, C, *sizes)`` on a grid; nan where missing, on Points only.
        domain: the points of all samples laid end to end, or the grid they share. Points have a weight per channel
            where values are missing.
        labels: ``(B,)`` int64.
        ids: ``(B,)`` int64, what each sample is known by in all batches, or None where nothing is drawn for it.
        sampled: bool ``(B, 1, *sizes)``, where the values of samples on a grid were sampled and do not pad; None =
            everywhere.
    """

    values: Tensor
    domain: Points | Grid
    labels: Tensor
    ids: Tensor | None = None
    sampled: Tensor | None = None

    @staticmethod
    def of(samples: Samples, cap: float | None = None, ids: Tensor | None = None) -> SampleBatch:
        """All of ``samples``; ``cap`` as of ``RaggedSeries.points``."""
        if isinstance(samples, RaggedVolumes):
            samples = samples.stacked()
        if isinstance(samples, GriddedSamples):
            return SampleBatch(samples.values, samples.grid, samples.labels, ids, samples.sampled())
        domain = sampled_points(samples.coordinates, samples.values, samples.splits, cap)
        return SampleBatch(samples.values, domain, samples.labels, ids)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SampleBatch:
        """The same batch on ``device``; a grid has none."""
        values, labels = (one.to(device, non_blocking=non_blocking) for one in (self.values, self.labels))
        sampled = None if self.sampled is None else self.sampled.to(device, non_blocking=non_blocking)
        return dataclasses.replace(self, values=values, domain=self.domain.to(device), labels=labels, sampled=sampled)


class SampleDataModule(TaskData[SampleBatch, Sampling]):
    """Samples of one of the data sets, in parts for training, validation and test.

    Official parts are used as such. Where a data set has an official test part alone, the validation part is carved out
    of the rest; where it has none, the samples are split at random into three. Both splits are stratified, keep equal
    samples in one part (see ``equal_samples``), and depend on ``split_seed`` and the samples alone: ``ts_files`` and
    ``volume_folder`` are sorted by what they hold first, so that the order of files and rows does not matter. Volumes
    that lie on grids of their own come in batches of equal grids.

    Args:
        dataset: name of a registered data set of labelled series, samples on a grid or volumes, see ``ccnn datasets``;
            ``simulated_...`` are made on the spot and need no root.
        root: folder of the official files; for ``ts_files`` the files, separated by commas (all of them are split).
        count: samples of a simulated data set.
        options: of the data set's loader, such as ``held_speakers`` of spoken digits: see ``ccnn datasets NAME``.
        reading: images as they are, as sequences of pixels in reading order, or in a permuted order.
        window: put series that are uniformly sampled on one grid of this length (coordinate units) each: what is
            longer is cut, what is shorter is followed by zeros. None keeps series of unequal length as points.
        cap: coordinate units one point may stand for at most.
        validation: share of the training part, or of all samples, that chooses the best epoch.
        test: share of all samples, where the data set has no official test part.
        split_seed: seed of the split and of the order of the batches.
        drop_seed: seed of the samples that are dropped, and of the gaps, in tests.
        batch_size: samples a step.
        download: fetch official files with published checksums where they are missing.
        evaluate: what test and predict look at: the part kept for the "test", or "all" of the source.
    """

    told, told_by_word = ("in_channels", "classes", "kernel"), ("latent",)
    described = (
        *("dataset", "root", "evaluate", "reading", "window", "cap", "validation", "test", "split_seed", "drop_seed"),
    )

    def __init__(
        self,
        dataset: str,
        root: str | None = None,
        count: int = 300,
        options: dict[str, Any] | None = None,
        reading: Reading = "as_is",
        window: float | None = None,
        cap: float | None = None,
        validation: float = 0.1,
        test: float = 0.15,
        split_seed: int = 0,
        drop_seed: int = 0,
        batch_size: int = 64,
        download: bool = False,
        evaluate: Evaluated = "test",
    ) -> None:
        super().__init__(evaluate)
        self._known = datasets.get(dataset, RaggedSeries, GriddedSamples, RaggedVolumes)
        self._known.require_root(root)
        require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
        self._known.require_options(options or {})
        require(0 < validation < 1, "validation", "lie in (0, 1)", validation)
        require(window is None or window > 0, "window", "be positive", window)
        self.dataset = dataset
        self.root = root
        self.count = count
        self.options: Mapping[str, Any] = dict(options or {})
        self.reading: Reading = reading
        self.window = window
        self.cap = cap
        self.validation = validation
        self.test = test
        self.split_seed = split_seed
        self.drop_seed = drop_seed
        self.batch_size = batch_size
        self.download = download
        self._read: Samples | None = None
        self._held: Samples | None = None
        self._parts: Parts | None = None
        self._prepared: Samples | None = None
        self._read_keys: NDArray[np.uint64] | None = None
        self._held_keys: NDArray[np.uint64] | None = None

    def setup(self, stage: str) -> None:
        """Read the files once and split.

        Raises:
            ValueError, FileNotFoundError: from the reader, with the file at fault.
        """
        if self._read is not None:
            return
        everything = self.takes_all(stage)
        samples, watched, held = self._load(everything, self.needs_labels(stage))
        keys = sample_keys(samples)
        if everything:
            rows = torch.arange(len(samples))
            self._parts = Parts(rows[:0], rows[:0], rows)
        elif watched is not None:
            assert held is not None
            counts = (len(samples), len(watched))
            samples = joined(samples, watched)
            self._parts = Parts(torch.arange(counts[0]), torch.arange(counts[0], sum(counts)), torch.arange(len(held)))
        elif held is None:
            self._parts = Parts(*split_together(keys, samples.labels, partial(self._in_three, samples.classes)))
        else:
            train, aside = split_together(keys, samples.labels, partial(self._in_two, samples.classes))
            self._parts = Parts(train, aside, torch.arange(len(held)))
        if self.trained_classes is not None:
            samples = labelled_as(samples, self.trained_classes)
            held = None if held is None else labelled_as(held, self.trained_classes)
        self._held = held
        self._read_keys = keys if watched is None else np.concatenate([keys, sample_keys(watched)])
        self._held_keys = self._read_keys if held is None else sample_keys(held)
        self._read = samples
        self._prepared = self._prepare(samples, Sampling())

    def _in_three(self, classes: Sequence[str], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shares = {"validation": self.validation, "test": self.test}
        parts = split_stratified(labels, **shares, seed=self.split_seed, classes=classes)
        return parts.train, parts.validation, parts.test

    def _in_two(self, classes: Sequence[str], labels: Tensor) -> tuple[Tensor, Tensor]:
        return carved(labels, self.validation, self.split_seed, classes)

    def _load(self, everything: bool, labelled: bool) -> tuple[Samples, Samples | None, Samples | None]:
        """Samples to train on, and the official parts for validation and test where there are such.

        Where files and rows may stand in any order they are put in one that does not depend on it: it decides which
        samples are in which part, and what is drawn for each. With ``everything`` they are all together, as they stand.
        """
        known = self._known
        defaults = {"count": self.count, "seed": self.split_seed, "labelled": labelled}
        options = known.in_training(self.options, download=self.download, **defaults)

        def read(part: str | None) -> Samples:
            samples: Samples = known.read(self.root, part, **options)
            return samples

        if known.split and not everything:
            return read("train"), read("validation") if "validation" in known.split else None, read("test")
        if known.split:
            return reduce(joined, map(read, known.split)), None, None
        samples = read("all" if known.parts else None)
        if isinstance(samples, RaggedSeries) and samples.ids is None:
            samples = dataclasses.replace(samples, ids=torch.arange(len(samples)))
        return samples if everything or known.ordered else in_order_of_content(samples), None, None

    def _prepare(self, samples: Samples, sampling: Sampling) -> Samples:
        """``samples`` as the network is to read them, sampled otherwise if so wanted."""
        samples = sampling.brought_back(sampling.otherwise(samples, self.reading), samples)
        if self._known.features is not None:
            samples = self._known.features(samples)
        if self.reading != "as_is":
            if not isinstance(samples, GriddedSamples) or samples.grid.d != 2:
                reject("reading", "be 'as_is' where the samples are no images", repr(self.reading))
            samples = as_sequences(samples)
            if self.reading == "permuted":
                samples = permute_sequences(samples)
        if self.window is not None:
            if not isinstance(samples, RaggedSeries):
                reject("window", "be None where samples lie on grids already", self.window)
            samples = on_one_grid(samples, self.window)
        return sampling.brought_back(sampling.thinned(samples, self.drop_seed), samples)

    @property
    def samples(self) -> Samples:
        """What is trained on and validated with; ``setup`` comes first."""
        if self._prepared is None:
            reject("the data module", "be set up (setup('fit')) before its samples are asked for", "no samples yet")
        return self._prepared

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels mean."""
        return self.samples.classes

    def sizes(self) -> dict[str, int]:
        return {"classes": len(self.classes), "in_channels": int(self.samples.values.shape[1])}

    def inferred(self) -> dict[str, Any]:
        return {**self.sizes(), **suited_lengths(self.part("train"))}

    def part(self, part: Literal["train", "validation"]) -> Samples:
        """The samples of a part, as they were taken."""
        assert self._parts is not None
        return self.samples.subset(getattr(self._parts, part))

    def training_values(self) -> tuple[Tensor, None]:
        """Values of the training part, ``(N, C, ...)``, nan where they only pad a sample."""
        part = self.part("train")
        sampled = part.sampled() if isinstance(part, GriddedSamples) else None
        return part.values if sampled is None else torch.where(sampled, part.values, torch.nan), None

    def sampled_part(self, part: Part, sampling: Sampling) -> Samples:
        """The samples of a part that is not trained on, or of all parts one after the other, sampled as asked."""
        assert self._parts is not None
        assert self._read is not None
        if part == "all":
            return self._everything(sampling)
        source = self._read if part == "validation" or self._held is None else self._held
        index = getattr(self._parts, part)
        if sampling.drop or sampling.gap:
            # Dropped before the split, as the literature has it: see drop_samples.
            return self._prepare(source, sampling).subset(index)
        return self._prepare(source.subset(index), sampling)

    def _everything(self, sampling: Sampling) -> Samples:
        """All samples in the order of the files, the official test part last."""
        assert self._read is not None
        read = self._prepare(self._read, sampling)
        return read if self._held is None else joined(read, self._prepare(self._held, sampling))

    def ids(self, part: Part) -> Sequence[Any]:
        """What the source calls each sample, or its number there."""
        assert self._parts is not None
        assert self._read is not None
        if part == "all":
            held = [] if self._held is None else names_of(self._held)
            return [*names_of(self._read), *held]
        names = names_of(self._held if part == "test" and self._held is not None else self._read)
        return [names[row] for row in getattr(self._parts, part).tolist()]

    def keys(self, part: Literal["train", "validation", "test"]) -> NDArray[np.uint64]:
        """A key of the content of each sample as it was read, ``(B, 1)``; labels are no part of it."""
        keys = self._held_keys if part == "test" else self._read_keys
        assert keys is not None
        assert self._parts is not None
        return keys[getattr(self._parts, part).numpy()][:, None]

    def outcomes(self, part: Any, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return row_keys(keys, self.labels(part).numpy())

    def labels(self, part: Literal["train", "validation", "test"]) -> Tensor:
        """Labels of a part, ``(B,)``."""
        assert self._parts is not None
        assert self._read is not None
        source = self._held if part == "test" and self._held is not None else self._read
        return source.labels[getattr(self._parts, part)]

    def values_told(self) -> dict[str, Any]:
        asked = {"reading": self.reading, "window": self.window}
        changed = {name: value for name, value in asked.items() if value not in ("as_is", None)}
        return self._known.values(self._known.in_training(self.options)) | changed

    def part_sizes(self) -> dict[str, int]:
        assert self._parts is not None
        return {field.name: len(getattr(self._parts, field.name)) for field in dataclasses.fields(Parts)}

    def describe(self) -> dict[str, Any]:
        """With the options of the data set, where some are given."""
        return super().describe() | ({"options": self.options} if self.options else {})

    def summary(self) -> str:
        return f"{self.samples!r}: {', '.join(f'{size} {name}' for name, size in self.part_sizes().items())}"

    def loader(self, part: Part, variant: Sampling | None = None) -> DataLoader[SampleBatch]:
        """A part in batches; one that is not trained on can be sampled otherwise.

        Raises:
            ValueError: samples of the training part are asked for otherwise.
        """
        assert self._parts is not None
        if part == "train":
            require(variant is None, "variant", "be left out for the training part", variant)
            return self._in_batches(self.samples, self._parts.train, self.split_seed)
        if part == "validation" and variant is None:
            return self._in_batches(self.samples, self._parts.validation, None)
        held = self.sampled_part(part, variant or Sampling())
        return self._in_batches(held, torch.arange(len(held)), None)

    def _in_batches(self, samples: Samples, rows: Tensor, shuffle_seed: int | None) -> DataLoader[SampleBatch]:
        """``rows`` of ``samples``, which are their ids."""
        batches = self._batches(samples, rows.numpy(), shuffle_seed)
        return batch_loader(lambda chosen: self.as_batch(samples.subset(chosen), chosen), batches)

    def _batches(
        self, samples: Samples, indices: NDArray[np.int64], shuffle_seed: int | None
    ) -> AlikeBatches | EqualBatches:
        """``indices`` into ``samples`` in batches."""
        if isinstance(samples, RaggedVolumes):
            return AlikeBatches(indices, grid_numbers(samples)[indices], self.batch_size, shuffle_seed)
        return EqualBatches(indices, self.batch_size, shuffle_seed)

    def typical_batch(self) -> SampleBatch:
        """Training samples spread evenly over the part, at most 64; of volumes those of the commonest grid."""
        part, count = self.part("train"), _CALIBRATION_SAMPLES
        if isinstance(part, RaggedVolumes):
            kinds = grid_numbers(part)
            part = part.subset(torch.from_numpy(kinds == np.bincount(kinds).argmax()))
            count = min(count, self.batch_size)
        spread = torch.linspace(0, len(part) - 1, min(len(part), count)).round().long()
        return self.as_batch(part.subset(spread))

    def as_batch(self, samples: Samples, ids: Tensor | None = None) -> SampleBatch:
        """All of ``samples`` as one batch."""
        return SampleBatch.of(samples, self.cap, ids)
