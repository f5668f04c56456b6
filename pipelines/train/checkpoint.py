"""Reading a checkpoint: its weights, and the options it was trained with, also of earlier versions."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ccnn_irregular._checks import reject
from ccnn_irregular.pipelines.train.earlier import migrated_config

__all__ = ["load_weights", "read_checkpoint", "save_weights", "saved_options"]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint as plain values and tensors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no checkpoint of ``ccnn fit``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"ckpt_path must be a trained checkpoint, got no file {path}; train one with ccnn fit, or name one with "
            f"--ckpt_path or its folder with --run_dir"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"ckpt_path must be a checkpoint written by ccnn fit, got {path}: {error}") from error
    if not isinstance(content, dict):
        reject("ckpt_path", "be a checkpoint written by ccnn fit", f"{path}, which holds a {type(content).__name__}")
    return content


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
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(read_checkpoint(path) | {"state_dict": model.state_dict()}, partial)
    partial.replace(path)
