"""Batches of clouds, and of one piece of a cloud after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import UNLABELLED, LabelBatch
from ccnn_irregular.pipelines.tasks.clouds.pieces import Piece, ReadCloud
from ccnn_irregular.pipelines.train.batches import EqualBatches, batch_loader

__all__ = ["cloud_batch", "labelled_points", "pieces_loader"]


def labelled_points(cloud: ReadCloud, piece: Piece) -> NDArray[np.bool_]:
    """Which points of a piece are answered in it and have a label."""
    return piece.answered & (cloud.labels[piece.read] != UNLABELLED)


def pieces_loader(cut: Sequence[tuple[ReadCloud, Piece]]) -> DataLoader[LabelBatch]:
    """A loader of one piece after the other; points that are answered elsewhere have no label."""

    def take(index: Tensor) -> LabelBatch:
        cloud, piece = cut[int(index[0])]
        held = cloud.rows(piece.read)
        answered = torch.from_numpy(piece.answered)
        batch = cloud_batch([held], held.places - held.places.mean(0), answered=answered)
        batch.labels[~answered] = UNLABELLED
        return batch

    return batch_loader(take, EqualBatches(np.arange(len(cut)), 1, None))


def cloud_batch(
    clouds: Sequence[ReadCloud], places: NDArray[np.float64], ids: Tensor | None = None, answered: Tensor | None = None
) -> LabelBatch:
    """Clouds one after the other, their points at ``places``; see ``LabelBatch``."""
    names = ("values", "labels", "weights")
    values, labels, weights = (torch.from_numpy(np.concatenate([getattr(c, n) for c in clouds])) for n in names)
    splits = torch.tensor([0, *(len(cloud.places) for cloud in clouds)]).cumsum(0)
    return LabelBatch(values, Points(torch.from_numpy(places), weights, splits), labels, ids, answered)
