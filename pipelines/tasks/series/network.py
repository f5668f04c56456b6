"""The network of one's own series: that of the risk, for any variables, statics and labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular.domains import Grid
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.pipelines.tasks.series.calibration import SHARES_OF_THE_TIME, Calibration
from ccnn_irregular.pipelines.tasks.series.samples import Schema, SeriesBatch
from ccnn_irregular.pipelines.train.series_network import SeriesEnsemble

__all__ = ["SeriesNetwork"]


class SeriesNetwork(SeriesEnsemble):
    """The ensemble of ``SeriesEnsemble`` for what a schema names; ``ccnn fit`` takes what is None from training rows.

    Args:
        schema: variables, statics and labels.
        start: time before the first node of the latent grid, in the unit of the times.
        step: distance of its nodes.
        nodes: their number.
        extent: of the kernels, see ``KernelSpec``, in the unit of the times.
        width: of their masks at first.
        cap: time that one value may stand for.
        omega_0: of the kernels.
        members: number of CCNNs whose mean answers.
        hidden_channels: channels of each CCNN.
        blocks: residual blocks of each CCNN.
        dropout: in the blocks and the head.
        knots: hat functions per variable.
        thinning: in training a random share of the values, up to this one, is dropped from each sample.
        series_dropout: in training, probability that a variable of a sample is dropped whole.
    """

    target_mean: Tensor
    target_scale: Tensor
    threshold: Tensor
    deviation: Tensor

    def __init__(
        self,
        schema: Schema | None = None,
        start: float | None = None,
        step: float | None = None,
        nodes: int | None = None,
        extent: float | None = None,
        width: float | None = None,
        cap: float | None = None,
        omega_0: float = 10.0,
        members: int = 1,
        hidden_channels: int = 64,
        blocks: int = 2,
        dropout: float = 0.2,
        knots: int = 4,
        thinning: float = 0.5,
        series_dropout: float = 0.1,
    ) -> None:
        given = {"schema": schema, "start": start, "step": step, "nodes": nodes, "extent": extent, "cap": cap}
        for name, value in given.items():
            require(value is not None, name, "be given where no table is read", None)
        assert schema is not None
        assert start is not None
        assert step is not None
        assert nodes is not None
        assert cap is not None
        counts = [len(categories) for categories in schema.statics.values()]
        super().__init__(
            len(schema.variables),
            len(counts),
            {place: count for place, count in enumerate(counts) if count},
            schema.outputs,
            Grid([nodes], [step], [start + step]),
            members=members,
            hidden_channels=hidden_channels,
            blocks=blocks,
            kernel=KernelSpec(extent=extent, width=width, omega_0=omega_0, generator="siren"),
            dropout=dropout,
            knots=knots,
            cap=cap,
            least=step / 10,
            thinning=thinning,
            series_dropout=series_dropout,
            rows_are=f"the series (unit: {schema.unit})",
        )
        self.schema = schema
        single = schema.since == "label" or schema.kind == "number"
        times = [0.0] if single else [start + nodes * step * share for share in SHARES_OF_THE_TIME]
        self.calibration = Calibration(times)
        self.register_buffer("target_mean", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("target_scale", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("threshold", torch.tensor(0.5, dtype=torch.float64))  # probability of the outcome it takes
        self.register_buffer("deviation", torch.tensor(0.0, dtype=torch.float64))  # of numbers; 0 = not known

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *further: Any) -> None:
        """Load weights; those of earlier versions know no standard deviation of numbers."""
        state_dict.setdefault(f"{prefix}deviation", torch.tensor(0.0, dtype=torch.float64))
        super()._load_from_state_dict(state_dict, prefix, *further)

    def extra_repr(self) -> str:
        schema = self.schema
        answer = "a number" if schema.kind == "number" else f"classes {', '.join(schema.classes)}"
        read = f"{len(schema.variables)} variables, {len(schema.statics)} statics, times in {schema.unit}"
        return f"{read} -> {answer}; {super().extra_repr()}"

    def prepare(self, batch: SeriesBatch, values: Any) -> None:
        """Take knots and scales from the training rows, see ``SeriesTables.training_values``."""
        columns, statics, targets = values
        self.fit(columns, statics, batch)
        if self.schema.kind == "number":
            self.target_mean.fill_(targets.mean())
            self.target_scale.fill_(targets.std() or 1.0)

    def scaled(self, targets: Tensor) -> Tensor:
        """Numbers to learn, of mean 0 and standard deviation 1, float32."""
        return ((targets - self.target_mean) / self.target_scale).float()

    def answers(self, batch: SeriesBatch) -> Tensor:
        """Calibrated probabilities of the classes ``(B, K)``, of two that of the last ``(B, 1)``, or numbers; float64.

        A sample that is judged by some time has the calibration of that time.
        """
        if self.schema.kind == "number":
            return self(batch).double() * self.target_scale + self.target_mean
        found: Tensor = self.calibration(self(batch), batch.judged)
        return found.softmax(1) if self.schema.kind == "classes" else found.sigmoid()
