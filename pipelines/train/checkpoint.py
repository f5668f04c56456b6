"""Checkpoints: written whole, and checked before they are read; the weights and options in them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import nn

from ccnn_irregular._files import DamagedFileError, parsing
from ccnn_irregular.pipelines.train.earlier import migrated_config
from ccnn_irregular.pipelines.train.reports import whole

__all__ = [
    "WholeCheckpoints",
    "first_whole",
    "load_weights",
    "read_checkpoint",
    "save_checkpoint",
    "save_weights",
    "saved_options",
]


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, as ``save_checkpoint`` and ``read_checkpoint`` do it.

    Its own writes into the folder for temporary files and moves the result, which is a copy where that folder is
    another file system: a kill, or a full disk, leaves half a checkpoint under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint to a local path."""
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; nothing but plain values and tensors, whatever is asked."""
        return read_checkpoint(path)


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint beside its final name and rename it, once its bytes are on the disk.

    Raises:
        OSError: no room, or no right to write; what stood there is as before.
    """
    with whole(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint as plain values and tensors, once its checksums were found right.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or no checkpoint of ``ccnn fit``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"ckpt_path must be a trained checkpoint, got no file {path}; train one with ccnn fit, or name one with "
            f"--ckpt_path or its folder with --run_dir"
        )
    rule = "be a checkpoint written by ccnn fit, and undamaged"
    try:
        with parsing(path, "checkpoint"):
            damage = _damage(Path(path))
            content = None if damage is not None else torch.load(path, map_location="cpu", weights_only=True)
    except DamagedFileError as error:
        damage = str(error.__cause__)
    else:
        if isinstance(content, dict):
            return content
        damage = damage or f"it holds a {type(content).__name__}"
    raise DamagedFileError(f"ckpt_path must {rule}, got {path}: {damage}", path)


def _damage(path: Path) -> str | None:
    """What is wrong with the archive that ``torch.save`` writes, whose checksums ``torch.load`` does not compare."""
    with zipfile.ZipFile(path) as archive:
        # Nothing that grows when it is read: torch.save stores.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            return "its entries are compressed, which torch.save does not do"
        broken = archive.testzip()
    return None if broken is None else f"the bytes of {broken} are not those that were written"


def first_whole(paths: Iterable[Path]) -> tuple[Path | None, list[str]]:
    """The first checkpoint that can be read, and what is wrong with those before it; missing files are passed over."""
    wrong = []
    for path in paths:
        try:
            read_checkpoint(path)
        except FileNotFoundError:
            continue
        except ValueError as error:
            wrong.append(str(error))
        else:
            return path, wrong
    return None, wrong


def saved_options(path: str | Path) -> dict[str, Any]:
    """Options of the model that a checkpoint was trained with; none where it was written from Python."""
    options: dict[str, Any] = dict(migrated_config(read_checkpoint(path).get("hyper_parameters", {})))
    options.pop("_instantiator", None)
    return options


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Weights and normalisation of a checkpoint, into a model that was built from its options.

    Not left to the trainer, which would ask for the callbacks of the training run as well.

    Raises:
        ValueError: the checkpoint is of another network.
    """
    try:
        model.load_state_dict(read_checkpoint(path)["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"ckpt_path must hold the weights of the configured network, got {path}: {error}") from error


def save_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of a model into a checkpoint in place of its own; the file is there whole or not at all."""
    save_checkpoint(read_checkpoint(path) | {"state_dict": model.state_dict()}, path)
