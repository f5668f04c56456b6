"""The callbacks of a training run."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace
from lightning.pytorch import Callback

from ccnn_irregular.pipelines.train.figures import Curves
from ccnn_irregular.pipelines.train.mid_epoch import MidEpoch, Signals
from ccnn_irregular.pipelines.train.run_end import FiniteMetrics, FiniteSteps, StepLimit, TimeLimit
from ccnn_irregular.pipelines.train.run_folder import EpochSeed, History, RunFolder, checkpoints

__all__ = ["training_callbacks"]


def training_callbacks(
    run: RunFolder, options: Namespace, monitor: str, curves: Curves, signals: Signals
) -> list[Callback]:
    """What draws, watches, limits and saves a training.

    Args:
        run: where it is saved.
        options: of ``ccnn fit``.
        monitor: metric whose highest value marks the best epoch.
        curves: columns of the history that are drawn, all of which have to be there.
        signals: ask for a checkpoint, or the end.
    """
    stopping = options.early_stopping
    needed: Sequence[str] = [monitor, *([stopping.monitor] if stopping.strict else [])]
    needed = [*needed, *(column for _, column, *_ in curves)]
    limits = [] if options.trainer.max_time is None else [TimeLimit(options.trainer.max_time, signals)]
    watching = [FiniteSteps(), FiniteMetrics(needed), StepLimit(), *limits]
    saving = [MidEpoch(run.last, signals), *checkpoints(run, monitor)]
    return [EpochSeed(options.seed_everything), History(run), *watching, *saving]
