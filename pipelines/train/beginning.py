"""A run that begins with the weights of an earlier one."""

from __future__ import annotations

from pathlib import Path

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.train.checkpoint import read_checkpoint
from ccnn_irregular.pipelines.train.run_folder import RunFolder
from ccnn_irregular.pipelines.train.trained_on import KeyedData, TrainedOn

__all__ = ["first_weights"]


def first_weights(start_from: str, data: KeyedData) -> str:
    """The checkpoint that a run begins with.

    Args:
        start_from: a checkpoint, or the folder of a run.
        data: what is to be trained on. ``setup`` comes first.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: it was trained on other rows: some of those kept for the test may be among them.
    """
    path = Path(start_from)
    path = RunFolder(path).best if path.is_dir() else path
    before = TrainedOn.from_checkpoint(read_checkpoint(path), str(path))
    rule = f"have been trained on the {data.rows_are} of this run, in the same parts (data.split_seed and shares)"
    require(before.same_as(TrainedOn.of(data)), "start_from", rule, f"{path}, trained on others")
    return str(path)
