"""Your own clouds with a label for each point: what the files tell, parts by file or by area, discs and pieces."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.geometric_weights import CloudSampling
from ccnn_irregular.datasets.cloud_files import CloudFile, cloud_paths, open_cloud, stray_paths
from ccnn_irregular.datasets.processing.terrain import ground_features
from ccnn_irregular.pipelines.tasks.cloud_classification.data import CloudChanges
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import UNLABELLED, LabelBatch
from ccnn_irregular.pipelines.tasks.clouds.batch import cloud_batch, labelled_points, pieces_loader
from ccnn_irregular.pipelines.tasks.clouds.labels import (
    LABEL_FIELDS,
    Labels,
    chosen_classes,
    ignored_codes,
)
from ccnn_irregular.pipelines.tasks.clouds.pieces import Piece, ReadCloud, measures, pieces, strips
from ccnn_irregular.pipelines.tasks.clouds.reading import Columns, Read, varies
from ccnn_irregular.pipelines.train.batches import EqualBatches, drawn_loader
from ccnn_irregular.pipelines.train.data import Evaluated, Part, TaskData
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.sample_keys import row_keys

__all__ = ["CloudFiles", "tell_left_out"]

# Fields that are channels where all training files have them and they are not the same everywhere.
_FIELDS = ("intensity", "return_number", "number_of_returns", "red", "green", "blue", "nir", "nx", "ny", "nz")
# The features of the terrain are made for points about 1 m apart.
_TERRAIN_SPACING = 1.0
# In distances of neighbouring points: the first level of the network, and the discs of training.
_LEVEL, _RADIUS = 2.0, 20.0
_FEWEST_DISCS, _MOST_DISCS, _COVERED = 32, 512, 4
_CALIBRATION_DISCS = 8
_FEWEST_FILES = 3  # that are split by file
_NAMED = 8  # files that are left out
_WEIGHED = ("values", "weights")


class CloudFiles(TaskData[LabelBatch, None]):
    """Clouds in the files of :mod:`ccnn_irregular.datasets.cloud_files`, with a label for each point.

    Files are split, never points at random: neighbours are alike. Of fewer than three files each is cut into three
    strips along its longer side. Training reads discs about random points, tests and predictions overlapping pieces, in
    which each point is answered once.

    Args:
        root: a file, or a folder of files.
        label: field that holds the labels; null = the first of classification, label, labels, class, semantic,
            is_ground and y that all files have.
        classes: labels to be told apart, by their codes or words or, of LAS, by ASPRS names ("ground"): all others are
            ignored. null = all that are not ignored.
        ignore: labels that are neither trained on nor counted; null = of LAS those "never classified" (0).
        fields: that are channels, such as intensity red green blue; null = intensity, returns, colours and normals
            where all training files have them.
        terrain: nine features of the terrain as channels: height above a plane below a point, slope and roughness of
            the plane, at radii of 6, 12 and 24 spacings; see ``ground_features``.
        spacing: typical distance of neighbouring points, coordinate units; null = as in the training files.
        radius: of the discs of training, seen from above; null = 20 spacings.
        discs: in an epoch; null = as many as cover the training files 4 times, 32 at least and 512 at most.
        weights: quadrature weights: "surface", "volume" or "even", see ``cloud_weights``.
        changes: of discs in training.
        split: into parts by "file" or by "area"; null = by file from three files on.
        validation: share that chooses the best epoch.
        test: share held out for the test.
        seed: of the split and of all random choices.
        batch_size: discs a step.
        evaluate: what ``ccnn test`` looks at: the part kept for the "test", or "all" points of the files.
    """

    rows_are = "points"
    told = ("in_channels", "classes", "spacing")
    described = (
        *("root", "split", "validation", "test", "seed", "weights", "terrain", "changes"),
        *("label", "classes", "ignore", "fields", "evaluate"),
    )

    def __init__(
        self,
        root: str,
        label: str | None = None,
        classes: list[int | str] | None = None,
        ignore: list[int | str] | None = None,
        fields: list[str] | None = None,
        terrain: bool = True,
        spacing: float | None = None,
        radius: float | None = None,
        discs: int | None = None,
        weights: CloudSampling = "surface",
        changes: CloudChanges | None = None,
        split: Literal["file", "area"] | None = None,
        validation: float = 0.15,
        test: float = 0.2,
        seed: int = 0,
        batch_size: int = 8,
        evaluate: Evaluated = "test",
    ) -> None:
        super().__init__(evaluate)
        for name, size in (("spacing", spacing), ("radius", radius), ("discs", discs), ("batch_size", batch_size)):
            require(size is None or size > 0, f"data.{name}", "be positive", size)
        require(weights in get_args(CloudSampling), "weights", f"be one of {get_args(CloudSampling)}", repr(weights))
        for name, share in (("validation", validation), ("test", test)):
            require(0 < share < 1, f"data.{name}", "lie in (0, 1)", share)
        require(validation + test < 1, "data.validation + data.test", "be below 1", validation + test)
        channels = terrain or fields is None or bool(fields)
        require(channels, "data.fields", "name a field, or data.terrain be true: points need a value", fields)
        self.root = root
        self.label = label
        self.chosen_classes = classes
        self.ignore = ignore
        self.fields = fields
        self.terrain = terrain
        self.spacing = spacing
        self.radius = radius
        self.discs = discs
        self.weights: CloudSampling = weights
        self.changes = CloudChanges() if changes is None else changes
        self.split = split
        self.validation = validation
        self.test = test
        self.seed = seed
        self.batch_size = batch_size
        self.read: Read | None = None
        self.parts: dict[str, list[ReadCloud]] = {}

    # What is read

    def setup(self, stage: str) -> None:
        """Read the files once and split; what they tell of how to read them is taken in training alone.

        Raises:
            ValueError, FileNotFoundError: from the readers, with the file at fault.
        """
        if self.parts or (stage == "predict" and self.read is not None):
            return  # predict reads its files one by one
        columns = [self._columns(cloud) for cloud in self._clouds()]
        if self.read is None:
            self.read = self._told(columns)
        clouds = [self._cloud(column, labelled=True) for column in columns]
        if self.takes_all(stage):
            self.parts = {"train": [], "validation": [], "test": clouds}
        else:
            self.parts = self._split(clouds)
        for part, held in self.parts.items():
            labelled = any((cloud.labels != UNLABELLED).any() for cloud in held)
            rule = "hold points with a label (other shares of data.validation and data.test, or another data.seed)"
            require(labelled or not held, f"the {part} part of {self.root}", rule, [cloud.name for cloud in held])
        self._places = [self._by_place(cloud) for cloud in self.parts["train"]]

    def _clouds(self) -> Iterator[CloudFile]:
        """The clouds of the root; other files, and clouds without points, are named and left out."""
        left_out, read = [path.name for path in stray_paths(self.root)], 0
        for path in cloud_paths(self.root):
            cloud = open_cloud(path, may_be_empty=True)
            if np.isfinite(cloud.coordinates).all(1).any():
                read += 1
                yield cloud
            else:
                left_out.append(f"{path.name} (no points)")
        require(read > 0, self.root, "hold a cloud with a point that has a place", ", ".join(left_out))
        tell_left_out(self.root, left_out)

    @property
    def reading(self) -> Read:
        """How files are read; known once the training files, or a checkpoint, were."""
        if self.read is None:
            reject("the data module", "be set up, or have the state of a checkpoint", "neither")
        return self.read

    def state_dict(self) -> dict[str, Any]:
        """How files are read, for the checkpoint."""
        return self.reading.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read files as those of the training were; what a test typed of ``ignore`` counts."""
        read = Read.from_state(state)
        if self.ignore is not None:
            ignored = ignored_codes(read.classes.field, self.ignore)
            read = replace(read, classes=replace(read.classes, ignored=ignored))
        self.read = read

    def _columns(self, cloud: CloudFile, *, labelled: bool = True) -> Columns:
        """Take out of a file what may be needed."""
        here = np.isfinite(cloud.coordinates).all(1)
        known = self.read
        wanted = self.fields if known is None else known.fields
        fields = [name for name in _FIELDS if name in cloud.fields] if wanted is None else wanted
        given = self.label if known is None else known.classes.field
        labels = [name for name in LABEL_FIELDS if name in cloud.fields] if given is None else [given]
        return Columns(
            cloud.path,
            cloud.coordinates[here],
            {name: Labels.of(cloud.field(name)[here]) for name in labels} if labelled else {},
            {name: self._numbers(cloud, name)[here] for name in fields},
        )

    @staticmethod
    def _numbers(cloud: CloudFile, name: str) -> NDArray[np.float32]:
        column = cloud.field(name)
        require(column.dtype.kind in "biuf", f"field {name!r} of {cloud.path}", "hold numbers", column.dtype)
        return column.astype(np.float32)

    def _told(self, files: Sequence[Columns]) -> Read:
        """How the training files are to be read."""
        names = [name for name in LABEL_FIELDS if all(name in file.labels for file in files)]
        if self.label is None and not names:
            with_none = next(file.path for file in files if not file.labels)
            reject("data.label", f"name the field that holds the labels: {', '.join(LABEL_FIELDS)} is none", with_none)
        field = names[0] if self.label is None else self.label
        counts: Counter[str] = Counter()
        for file in files:
            counts.update(file.labels[field].counts())
        fields = self.fields
        if fields is None:
            common = [name for name in _FIELDS if all(name in file.fields for file in files)]
            fields = [name for name in common if varies([file.fields[name] for file in files])]
        spacing = self.spacing
        if spacing is None:
            areas = np.concatenate([measures(file.places, "surface") for file in files])
            spacing = float(np.sqrt(np.median(areas)))
        require(spacing > 0, "data.spacing", "be given where most points share their places", spacing)
        radius = _RADIUS * spacing if self.radius is None else self.radius
        classes = chosen_classes(field, counts, self.chosen_classes, self.ignore)
        return Read(classes, tuple(fields), self.terrain, spacing, radius, self.weights)

    def _cloud(self, columns: Columns, *, labelled: bool) -> ReadCloud:
        """A file as the network reads it."""
        read, places = self.reading, columns.places
        centred = places - (places.min(0) + places.max(0)) / 2
        values = [columns.fields[name][:, None] for name in read.fields]
        for name, column in zip(read.fields, values, strict=True):
            bad = int((~np.isfinite(column)).sum())
            require(
                not bad, f"field {name!r} of {columns.path}", "be finite (--data.fields leaves it out)", f"{bad} not"
            )
        if read.terrain:
            values.append(ground_features(centred * (_TERRAIN_SPACING / read.spacing)))
        name = columns.path.name
        labels = np.full(len(places), UNLABELLED)
        if labelled:
            labels = read.classes.numbers(columns.labels[read.classes.field], name)
        weights = measures(places, read.weights)
        return ReadCloud(name, centred, np.concatenate(values, axis=1), labels, weights, row_keys(places))

    def _split(self, clouds: list[ReadCloud]) -> dict[str, list[ReadCloud]]:
        by_file = len(clouds) >= _FEWEST_FILES if self.split is None else self.split == "file"
        if not by_file:
            cut = [strips(cloud, self.validation, self.test) for cloud in clouds]
            return {part: [one[part] for one in cut] for part in ("train", "validation", "test")}
        few = f"be 'area' for fewer than {_FEWEST_FILES} files"
        require(len(clouds) >= _FEWEST_FILES, "data.split", few, f"'file' for {len(clouds)}")
        order = np.random.default_rng(self.seed).permutation(len(clouds))
        held, watched = (max(1, round(share * len(clouds))) for share in (self.test, self.validation))
        require(held + watched < len(clouds), "data.validation and data.test", "leave a file to train on", len(clouds))
        numbers = {"test": order[:held], "validation": order[held : held + watched], "train": order[held + watched :]}
        return {part: [clouds[number] for number in sorted(chosen)] for part, chosen in numbers.items()}

    @staticmethod
    def _by_place(cloud: ReadCloud) -> tuple[NDArray[np.int64], cKDTree]:
        """Rows of the labelled points, counted by their places: the order of the file does not matter."""
        order = np.lexsort(cloud.places.T)
        return order[cloud.labels[order] != UNLABELLED], cKDTree(cloud.places[:, :2])

    # What training and tests ask

    def sizes(self) -> dict[str, int]:
        return {"classes": len(self.reading.classes.codes), "in_channels": self.reading.channels}

    def inferred(self) -> dict[str, Any]:
        # Not rounded: points of files lie on lattices of centimetres, and none should lie on the edge of a voxel.
        return {**self.sizes(), "spacing": _LEVEL * self.reading.spacing}

    def keys(self, part: str) -> NDArray[np.uint64]:
        """A key of the place of each point, ``(B, 1)``."""
        held = [cloud.keys for cloud in self.parts[part]]
        return np.concatenate([np.zeros(0, np.uint64), *held])[:, None]

    def outcomes(self, part: Any, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return row_keys(keys, np.concatenate([np.zeros(0, np.int64), *(cloud.labels for cloud in self.parts[part])]))

    def part_sizes(self) -> dict[str, int]:
        return {part: sum(len(cloud.places) for cloud in clouds) for part, clouds in self.parts.items()}

    def class_counts(self, part: str) -> NDArray[np.int64]:
        """Points of each class in a part."""
        labels = np.concatenate([cloud.labels for cloud in self.parts[part]])
        return np.bincount(labels[labels != UNLABELLED], minlength=len(self.reading.classes.codes))

    def summary(self) -> str:
        """What was read, each with the option that decides it."""
        read, parts = self.reading, self.part_sizes()
        files = {part: len({cloud.name for cloud in clouds}) for part, clouds in self.parts.items()}
        counts = self.class_counts("train")
        classes = ", ".join(f"{name}: {count}" for name, count in zip(read.classes.titles, counts, strict=True))
        ignored = ", ".join(read.classes.ignored) or "none"
        channels = [*read.fields, *(["9 features of the terrain"] if read.terrain else [])]
        return "\n".join(
            [
                f"{self.root}: "
                + ", ".join(f"{count} points {part} ({files[part]} files)" for part, count in parts.items()),
                f"labels: field {read.classes.field} (--data.label)",
                f"classes, training points: {classes} (--data.classes); ignored: {ignored} (--data.ignore)",
                f"channels: {', '.join(channels)} (--data.fields, --data.terrain)",
                f"distance of neighbouring points: {read.spacing:.4g} (--data.spacing)",
                f"discs in an epoch: {self.training_discs} (--data.discs) of radius {read.radius:.4g} (--data.radius)",
            ]
        )

    def describe(self) -> dict[str, Any]:
        """What was read and how it was split."""
        names = {part: sorted({cloud.name for cloud in clouds}) for part, clouds in self.parts.items()}
        return super().describe() | {"read as": self.reading.state(), "files": names}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.reading.classes.titles

    @property
    def training_discs(self) -> int:
        """Discs in an epoch."""
        if self.discs is not None:
            return self.discs
        area = sum(float(cloud.weights.sum()) for cloud in self.parts["train"])
        return int(np.clip(math.ceil(_COVERED * area / (math.pi * self.reading.radius**2)), _FEWEST_DISCS, _MOST_DISCS))

    def training_values(self) -> tuple[Tensor, Tensor]:
        """Values of the points that are trained on, and their quadrature weights."""
        values, weights = (np.concatenate([getattr(cloud, name) for cloud in self.parts["train"]]) for name in _WEIGHED)
        return torch.from_numpy(values), torch.from_numpy(weights)

    def typical_batch(self) -> LabelBatch:
        """Some discs of the first epoch."""
        return self.training_batch(torch.arange(min(_CALIBRATION_DISCS, self.training_discs)), 0)

    def loader(self, part: Part, variant: None = None) -> DataLoader[LabelBatch]:
        """Discs drawn from the training part; any other part in pieces, of which points without label are no part."""
        if part == "train":
            batches = EqualBatches(np.arange(self.training_discs), self.batch_size, self.seed)
            return drawn_loader(self.training_batch, batches)
        clouds = [cloud for name, held in self.parts.items() if part in (name, "all") for cloud in held]
        cut = [
            (cloud, piece) for cloud in clouds for piece in self.pieces(cloud) if labelled_points(cloud, piece).any()
        ]
        return pieces_loader(cut)

    def pieces(self, cloud: ReadCloud) -> list[Piece]:
        """The pieces in which a cloud is read."""
        return list(pieces(cloud.places, self.reading.radius))

    def to_answer(self, cloud: CloudFile) -> tuple[DataLoader[LabelBatch], NDArray[np.int64]]:
        """The pieces of a file that needs no labels, and the row of the file of each point in their answers."""
        rows = np.flatnonzero(np.isfinite(cloud.coordinates).all(1))
        if not len(rows):
            return pieces_loader([]), rows
        read = self._cloud(self._columns(cloud, labelled=False), labelled=False)
        cut = self.pieces(read)
        answered = np.concatenate([piece.read[piece.answered] for piece in cut])
        return pieces_loader([(read, piece) for piece in cut]), rows[answered]

    def training_batch(self, index: Tensor, epoch: int) -> LabelBatch:
        """Discs of the training part by their number, changed at random, anew in every epoch."""
        draws, radius = Draws(self.seed, epoch, index), self.reading.radius
        ends = np.cumsum([len(rows) for rows, _ in self._places])
        drawn = np.floor(draws.uniform("discs") * ends[-1]).astype(np.int64)
        owners = np.searchsorted(ends, drawn, side="right")
        discs, places = [], []
        for number, owner in zip(drawn, owners, strict=True):
            cloud, (rows, tree) = self.parts["train"][owner], self._places[owner]
            middle = cloud.places[rows[number - ends[owner]]]
            near = np.array(tree.query_ball_point(middle[:2], radius), np.int64)
            disc = cloud.rows(near[np.lexsort(cloud.places[near].T)])
            discs.append(disc)
            places.append(disc.places - middle)
        counts = np.array([len(place) for place in places])
        moved = self.changes.moved(np.concatenate(places), counts, draws)
        return cloud_batch(discs, moved, ids=index)


def tell_left_out(root: str | Path, names: Sequence[str]) -> None:
    """Say which files of a folder are not read, where there are any."""
    if names:
        more = f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
        say(f"left out of {root}: {', '.join(names[:_NAMED])}{more}")
