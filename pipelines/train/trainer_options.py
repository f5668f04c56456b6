"""Options of Lightning's trainer that a run cannot follow: refused before any work, with what to type instead."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer

from ccnn_irregular._checks import require

__all__ = ["require_callbacks", "require_options"]

_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_EVERY_EPOCH = "after every epoch the validation part tells which one is best"
_ALL_ROWS = "every row is tested and predicted; another --data... source is a smaller one"
_ONE_PROCESS = "a run is one process on one device"
_SHORT = "(trainer.limit_train_batches 4 and trainer.max_epochs 1 make a short run)"
# Options -> the only values they may have, and why.
_FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "fast_dev_run": ((False, 0, None), f"be false {_SHORT}"),
    "overfit_batches": ((0, 0.0, None), f"be 0 {_SHORT}: what is trained on must not be what chooses the best epoch"),
    "barebones": ((False, None), "be false: it would leave out checkpoints and metrics"),
    "enable_checkpointing": ((True, None), "be true: the best epoch is what a run is for"),
    "check_val_every_n_epoch": ((1,), f"be 1: {_EVERY_EPOCH}"),
    "limit_test_batches": ((None, 1.0), f"be left out: {_ALL_ROWS}"),
    "limit_predict_batches": ((None, 1.0), f"be left out: {_ALL_ROWS}"),
    "num_nodes": ((1,), f"be 1: {_ONE_PROCESS}"),
    "default_root_dir": ((None,), "be left out: --run_dir names the folder of a run"),
}
# Callbacks that a run cannot follow -> what to do instead.
_CALLBACKS = {
    "StochasticWeightAveraging": "EMAWeightAveraging in its place: it averages the weights of every checkpoint, where "
    "this one changes them after the last checkpoint is written",
    "BatchSizeFinder": "a number in --data.batch_size: it would train before the run begins",
    "LearningRateFinder": "a number in --model.schedule.learning_rate: it would train before the run begins",
    "ModelPruning": "a smaller network (ccnn resize narrows one): a pruned checkpoint has other weights by name",
    "BackboneFinetuning": "--model options: networks have no attribute 'backbone'",
    "BaseFinetuning": "--model options: networks have no attribute 'backbone'",
}


def require_options(options: Namespace) -> None:
    """Refuse options of the trainer under which rows, checkpoints or validations would be missing.

    Raises:
        ValueError: naming the option.
    """
    for name, (allowed, rule) in _FIXED.items():
        given = options.get(name)
        known = any(type(given) is type(one) and given == one for one in allowed)  # 1 is one batch, 1.0 are all
        require(known, f"trainer.{name}", rule, given)
    for name in ("limit_val_batches", "limit_train_batches"):
        given = options.get(name)
        require(given is None or given > 0, f"trainer.{name}", f"be positive: {_EVERY_EPOCH}", given)
    epochs = options.get("max_epochs")
    require(epochs is None or epochs >= 1, "trainer.max_epochs", "be at least 1", epochs)
    steps = options.get("max_steps", -1)
    require(steps >= -1 and steps != 0, "trainer.max_steps", "be at least 1, or -1 for all of the epochs", steps)
    for name in ("accumulate_grad_batches", "log_every_n_steps"):
        given = options.get(name)
        require(given is None or given >= 1, f"trainer.{name}", "be at least 1", given)
    clip = options.get("gradient_clip_val")
    require(clip is None or clip >= 0, "trainer.gradient_clip_val", "be positive, or 0 for no clipping", clip)
    _require_precision(options.get("precision"))


def require_callbacks(trainer: Trainer) -> None:
    """Refuse what the trainer was told to add: several processes, and callbacks that no checkpoint of a run can follow.

    Raises:
        ValueError: naming the option.
    """
    require(trainer.world_size == 1, "trainer.devices", f"be 1: {_ONE_PROCESS}", trainer.world_size)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # not annotated
    for one in callbacks:
        instead = _CALLBACKS.get(type(one).__name__)
        require(instead is None, "trainer.callbacks", f"hold {instead}", type(one).__name__)


def _require_precision(precision: str | int | None) -> None:
    """Refuse what turns batches into its type, positions too, which are float64 whatever the network is."""
    instead = {
        "64-true": "positions and quadrature weights are float64 in each; for values in float64, call "
        "network.double() in Python",
        "bf16-true": "it would round positions to three digits, where --trainer.precision bf16-mixed keeps them",
        "16-true": "it would round positions to four digits, where --trainer.precision 16-mixed keeps them",
    }
    why = instead.get(str(precision), "values have the network's type and positions are float64")
    rule = f"be one of {', '.join(_PRECISIONS)} ({why})"
    known = precision is None or str(precision) in (*_PRECISIONS, "32")
    require(known, "trainer.precision", rule, repr(precision))
