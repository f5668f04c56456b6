"""What a checkpoint was trained on, and how much of that a test meets again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require

__all__ = ["ENTRY", "KeyedData", "Overlap", "TrainedOn"]

# Its name in a checkpoint.
ENTRY = "trained_on"
Part = Literal["train", "validation", "test"]
Keys = NDArray[np.int64]

# Keys that are kept of a part: 2 MB. Of more rows those with the smallest keys are kept: a random choice, and the same
# one wherever a row is met, so that its share of the overlap is seen exactly.
_MOST = 2**18
_VERSION = 1


@runtime_checkable
class KeyedData(Protocol):
    """A data module whose rows are known again."""

    @property
    def rows_are(self) -> str:
        """What a row is, for messages ("stays")."""

    def keys(self, part: Part) -> NDArray[np.uint64]:
        """``(B, K)``, the keys of each row of a part, any of which tells it; see ``sample_keys``. After ``setup``."""


@dataclass(frozen=True)
class Overlap:
    """How many rows of a test were met in training.

    Attributes:
        rows_are: what a row is.
        tested: rows of the test.
        trained_on: of these, in the training part.
        chose_epoch: of the others, in the validation part.
        twins: of both, those that the run's own test part shares with its training, since the data hold them twice.
        looked_at: rows that were looked up: all, or where a part has too many to be kept, a random choice.
    """

    rows_are: str
    tested: int
    trained_on: int
    chose_epoch: int
    twins: int
    looked_at: int

    @property
    def met(self) -> int:
        """Number of rows that were trained on or chose the epoch."""
        return self.trained_on + self.chose_epoch

    def __str__(self) -> str:
        drawn = "" if self.looked_at == self.tested else f" (looked up, drawn from {self.tested})"
        counts = f"{self.trained_on} of {self.looked_at} {self.rows_are}{drawn} that were trained on"
        counts += f" and {self.chose_epoch} that chose the best epoch" if self.chose_epoch else ""
        twins = f"; the data hold {self.twins} of them twice, in both parts of the run itself" if self.twins else ""
        return counts + twins


@dataclass(frozen=True)
class TrainedOn:
    """The rows a network was trained and validated on.

    Attributes:
        rows_are: what a row is.
        train: int64 ``(n, K)``, keys of the training part; of a large part those below ``below``.
        validation: the same of the part that chose the best epoch.
        twins: keys that the run's own test part shares with these, since the data hold a sample twice.
        below: keys from this number on (as unsigned ones) are not kept; None = all are.
        outcomes: sums of keys of all rows with what is to be learned of them, of both parts; None = not known.
    """

    rows_are: str
    train: Keys
    validation: Keys
    twins: Keys
    below: int | None = None
    outcomes: tuple[int, int] | None = None

    @staticmethod
    def of(data: KeyedData) -> TrainedOn:
        """What training on ``data`` meets. ``setup`` comes first."""
        parts = {part: data.keys(part) for part in ("train", "validation", "test")}
        below = _threshold(max(len(keys) for keys in parts.values()))
        kept = {part: _kept(keys, below) for part, keys in parts.items()}
        tested = kept["test"]
        met = _found(tested, kept["train"]) | _found(tested, kept["validation"])
        signed = {part: keys.view(np.int64) for part, keys in kept.items()}
        outcomes = (_outcomes(data, parts, "train"), _outcomes(data, parts, "validation"))
        return TrainedOn(data.rows_are, signed["train"], signed["validation"], signed["test"][met], below, outcomes)

    @staticmethod
    def from_checkpoint(checkpoint: dict[str, Any], path: str) -> TrainedOn:
        """What a checkpoint says.

        Raises:
            ValueError: it says nothing, or not in this form.
        """
        rule = "say what it was trained on, as those of this version do: train it again"
        if ENTRY not in checkpoint:
            reject(f"the checkpoint {path}", rule, "one that says nothing")
        state = checkpoint[ENTRY]
        names = ("train", "validation", "twins")
        sound = isinstance(state, dict) and state.get("version") == _VERSION and isinstance(state.get("rows_are"), str)
        sound = sound and all(_are_keys(state.get(name)) for name in names)
        sound = sound and (state.get("below") is None or isinstance(state["below"], int))
        require(sound, f"{ENTRY!r} in the checkpoint {path}", "hold the keys of its rows", repr(state)[:200])
        keys = {name: state[name].numpy() for name in names}
        outcomes = state.get("outcomes")
        told = None if outcomes is None else (int(outcomes[0]), int(outcomes[1]))
        return TrainedOn(state["rows_are"], **keys, below=state.get("below"), outcomes=told)

    def state(self) -> dict[str, Any]:
        """For the checkpoint: tensors and plain values."""
        keys = {name: torch.from_numpy(getattr(self, name).copy()) for name in ("train", "validation", "twins")}
        told = None if self.outcomes is None else list(self.outcomes)
        return {"version": _VERSION, "rows_are": self.rows_are, "below": self.below, "outcomes": told, **keys}

    def same_as(self, other: TrainedOn) -> bool:
        """Whether both have the same rows in the same parts, in any order."""
        pairs = ((self.train, other.train), (self.validation, other.validation))
        return all(a.shape == b.shape and np.array_equal(_sorted(a), _sorted(b)) for a, b in pairs)

    def same_outcomes(self, other: TrainedOn) -> bool:
        """Whether both are to learn the same of their rows, as far as both tell."""
        return None in (self.outcomes, other.outcomes) or self.outcomes == other.outcomes

    def own_twins(self) -> int:
        """Rows of the run's own test part that its training meets too."""
        return len(self.twins)

    def overlap(self, tested: NDArray[np.uint64], *, chosen: bool = True) -> Overlap:
        """How many rows with the keys ``tested`` ``(B, K)`` were met.

        Args:
            tested: of the rows of a test.
            chosen: count rows of the validation part too.
        """
        looked_at = _kept(tested, self.below)
        trained = _found(looked_at, self.train)
        watched = _found(looked_at, self.validation) & ~trained & chosen
        twins = int(((trained | watched) & _found(looked_at, self.twins)).sum())
        return Overlap(self.rows_are, len(tested), int(trained.sum()), int(watched.sum()), twins, len(looked_at))


def _outcomes(data: KeyedData, parts: dict[str, NDArray[np.uint64]], part: Part) -> int:
    """A sum over all rows of a part, in any order, that another outcome of any of them changes."""
    outcomes = getattr(data, "outcomes", None)  # a module of the caller's own may tell none
    found = None if outcomes is None else outcomes(part, parts[part])
    return int((parts[part][:, 0] if found is None else found).sum(dtype=np.uint64).astype(np.int64))


def _threshold(rows: int) -> int | None:
    return None if rows <= _MOST else 2**64 // rows * _MOST


def _kept(keys: NDArray[np.uint64], below: int | None) -> NDArray[np.uint64]:
    return keys if below is None else keys[keys[:, 0] < np.uint64(below)]


def _found(keys: NDArray[Any], among: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a row has one of the keys of a row of ``among`` in the same column, ``(B,)``."""
    if keys.shape[1] != among.shape[1]:
        return np.zeros(len(keys), bool)  # rows of another kind
    columns = zip(keys.T.view(np.int64), among.T.view(np.int64), strict=True)
    return np.any([np.isin(mine, others) for mine, others in columns], axis=0)


def _are_keys(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.ndim == 2


def _sorted(keys: Keys) -> Keys:
    return keys[np.lexsort(keys.T)]
