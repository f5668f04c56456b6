"""Training for all widths: in each step, gradients at random widths beside those at the full one.

So ``ccnn resize`` makes narrower runs afterwards, without training (as Yu and Huang, Universally Slimmable Networks,
ICCV 2019, do for networks whose channels are dropped; here they are resampled, see ``ccnn_irregular.integral``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric

from ccnn_irregular import integral
from ccnn_irregular.pipelines.train.draws import hashed

__all__ = ["AllWidths", "unheard"]


class AllWidths(Callback):
    """Adds gradients at two random widths, a small and a large one, to those of each training step, in equal parts.

    What the epoch logs is of the full width.

    Args:
        least: share of the channels of the narrowest network that is trained.
        sort: put channels in order first, where a run begins: those of a network that was trained before.
    """

    def __init__(self, least: float, sort: bool) -> None:
        self.least = least
        self.sort = sort
        self._copy: nn.Module | None = None
        self._seed = 0
        self._batch: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed = torch.initial_seed()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch, batch_idx
        if self._copy is None:
            begins = self.sort and trainer.ckpt_path is None  # a resumed run has sorted them
            network = cast(nn.Module, pl_module.network)
            example = _read_by(network, pl_module, self._batch)
            self._copy = integral.shared_copy(network, example, order=integral.shortest_path if begins else None)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._copy is not None
        # A function of the seed and the place in the run: a resumed run draws what the undisturbed one does.
        words = self._seed, trainer.current_epoch, "width", self._batch[1]
        drawn = torch.Generator().manual_seed(hashed(*words, bits=32))
        network = pl_module.network
        pl_module.network = self._copy.train()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        try:
            with unheard(pl_module), trainer.precision_plugin.forward_context():
                for span in itertools.pairwise((self.least, (self.least + 1) / 2, 1.0)):
                    integral.resize_randomly(self._copy, *span, drawn)
                    loss = cast(Tensor, pl_module.training_step(*self._batch)) / trainer.accumulate_grad_batches
                    (loss if scaler is None else scaler.scale(loss)).backward()
        finally:
            pl_module.network = network


def _read_by(network: nn.Module, module: LightningModule, batch: tuple[Any, int]) -> Any:
    """What a training step calls the network with; random states stay as they are."""
    read: list[Any] = []
    hook = network.register_forward_pre_hook(lambda _, arguments: read.append(arguments))
    training = network.training
    try:
        with unheard(module), torch.no_grad(), torch.random.fork_rng():
            network.eval()  # statistics of norms are those of the data
            module.training_step(*batch)
    finally:
        hook.remove()
        network.train(training)
    return read[0]


@contextmanager
def unheard(module: LightningModule) -> Iterator[None]:
    """Let a step log nothing."""
    metrics = [one for one in module.modules() if isinstance(one, Metric)]
    updates = [metric.update for metric in metrics]
    silent = {"log": _nothing, "log_dict": _nothing}
    module.__dict__ |= silent
    for metric in metrics:
        metric.update = _nothing  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name in silent:
            del module.__dict__[name]
        for metric, update in zip(metrics, updates, strict=True):
            metric.update = update  # type: ignore[method-assign]


def _nothing(*args: Any, **options: Any) -> None:
    pass
