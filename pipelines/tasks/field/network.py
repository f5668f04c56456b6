"""The network of the field task: kriging with a learned covariance, corrected by a CCNN on a latent grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import sized
from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.kernels import KernelSpec
from ccnn_irregular.longitudes import GLOBE
from ccnn_irregular.networks import CCNN
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis, LocalKriging, Metric
from ccnn_irregular.pipelines.train.reach import Sampling, sampling_of, warn_of_kernel, warn_of_latent, warn_of_reach

__all__ = ["NINETY", "NORMAL_90", "Analysis", "FieldNetwork"]

# Noise of a channel that an observation lacks, in units of the nugget: nothing follows from it.
_LACKING = 1e10
# Points the readout answers at once when no gradient is wanted.
_AT_ONCE = 20_000
NINETY, NORMAL_90 = 0.9, 1.6448536269514722  # the share of an interval, and its half width in standard deviations


@dataclass(frozen=True)
class Analysis:
    """What a network knows about some fields once it has seen their observations.

    Attributes:
        observed: places of the observations.
        vectors: the same, one array per group of the metric.
        values: normalised values there ``(n, C)``, float64.
        residuals: what the correction leaves unexplained of them ``(n, C)``.
        noise: variance of their noise ``(n, C)``, in units of the nugget.
        features: last hidden layer on the latent grid ``(B, H, *sizes)``; None without a correction.
    """

    observed: Points
    vectors: list[Tensor]
    values: Tensor
    residuals: Tensor
    noise: Tensor
    features: Tensor | None


class FieldNetwork(nn.Module):
    """Values of a field anywhere from observations of it.

    f(q) = c(q) + sum_n a_n(q) (y_n - c(p_n))

    The weights ``a`` are those of kriging under a covariance that is learned (``LocalKriging``): a normalised
    convolution whose kernel takes account of where the observations lie to one another. ``c`` is a CCNN. It reads the
    kriged fields at the nodes of a latent grid, all channels together, beside the standard deviation that is left
    there, which tells where observations are dense; its blocks are FFT convolutions on the grid; and its last
    convolution is evaluated at the queries and at the observations. What it says at the observations is taken back by
    the same weights, so the sum passes through them as closely as the nugget lets it, whatever the network says.
    The correction starts at zero: training begins with kriging.

    Args:
        channels: of the field.
        axes: how each coordinate enters, see ``FieldAxis``.
        neighbours: observations an estimate is made of.
        correlation: widths of the covariance at first, units of the network (degrees on the sphere).
        nugget: see ``LocalKriging``.
        latent: grid of the correction, in units of the network; None = kriging alone.
        hidden_channels: of the correction, as all below.
        blocks: number of residual blocks.
        kernel: see ``CCNN``; lengths in units of the network. To be given with a latent grid.
        dropout: see there.
    """

    spread: Tensor

    def __init__(
        self,
        channels: int,
        axes: Sequence[FieldAxis],
        neighbours: int = 24,
        correlation: Sequence[float] = (4.0, 16.0, 64.0),
        nugget: float = 1e-3,
        latent: Grid | None = None,
        hidden_channels: int = 24,
        blocks: int = 2,
        kernel: KernelSpec | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.metric = Metric(axes)
        self.kriging = LocalKriging(
            channels, len(self.metric.groups), width=correlation, nugget=nugget, neighbours=neighbours
        )
        self.correlation = tuple(correlation)
        self.kernel = kernel
        self.latent = latent
        self.correction: CCNN | None = None
        if latent is not None:
            require(latent.d == len(axes), "latent", f"have the field's {len(axes)} axes", latent.d)
            if kernel is None:
                reject("kernel", "be given where latent is", kernel)
            self.correction = CCNN(
                2 * channels + 2 * self.metric.spherical,
                hidden_channels,
                channels,
                kernel=kernel,
                blocks=blocks,
                dropout=dropout,
                head="anywhere",
            )
        self.register_buffer("mean", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(channels, dtype=torch.float64))
        self.register_buffer("first_error", torch.ones(channels, dtype=torch.float64))
        self.register_buffer("spread", torch.full((channels,), torch.nan, dtype=torch.float64))

    def extra_repr(self) -> str:
        axes = ", ".join(f"{axis.name} ({axis.kind})" for axis in self.metric.axes)
        latent = "" if self.latent is None else f"\nlatent={self.latent!r}"
        return f"{self.channels} channels on {axes}; {sized(self)}{latent}"

    @torch.no_grad()
    def prepare(self, batch: FieldBatch, values: tuple[Tensor, Tensor | None]) -> None:
        """Take the normalisation from values ``(n, C)``, weighted or not; the error of the first guess from a batch."""
        self.mean, self.deviation = mean_and_deviation(*values)
        constant = torch.nonzero(~(self.deviation > 0)).flatten().tolist()
        require(not constant, "values", "vary in every channel", f"constant channels {constant}")
        self._warn(batch.observed)
        if self.correction is not None:
            assert self.latent is not None
            self.correction.calibrate(self.latent)
            nn.init.zeros_(self.correction.output.weight)
        error = (self(batch) - self.normalised(batch.targets)).square().nanmean(0).sqrt()
        self.first_error = error.nan_to_num(1.0).clamp_min(1e-6)

    def _warn(self, observed: Points) -> None:
        """Say so where covariance or kernels do not suit the observations or the latent grid."""
        places = self.metric.embedded(observed.coordinates)
        if self.metric.spherical:
            places = [places[0], *places[3:]]
        read = sampling_of(Points(torch.cat(places, 1), splits=observed.splits), "the observations, in network units")
        # One of the widths has to suit.
        nearest = min(max(read.gaps[0], min(self.correlation)), max(self.correlation))
        warn_of_reach("correlation", self.correlation, nearest, Sampling(read.gaps[:1], (max(read.spans),), read.name))
        if self.correction is None:
            return
        assert self.latent is not None
        assert self.kernel is not None
        latent = sampling_of(self.latent, "the latent grid")
        support = next(iter(self.correction.kernels().values())).support
        warn_of_kernel(self.kernel, support, latent)
        warn_of_latent(self.latent, self._on_latent(observed.coordinates), support)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Let checkpoints without a factor of deviations be read: theirs is not known."""
        state_dict.setdefault(f"{prefix}spread", torch.full_like(self.spread, torch.nan))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def normalised(self, values: Tensor) -> Tensor:
        """Values in standard deviations from the mean."""
        return (values - self.mean) / self.deviation

    def forward(self, batch: FieldBatch) -> Tensor:
        """Normalised values at the queries ``(m, C)``, float64."""
        return self.at(self.analyse(batch.observed, batch.values, batch.noise), batch.query)

    def predict(self, batch: FieldBatch) -> tuple[Tensor, Tensor]:
        """Values at the queries and their standard deviations, float64 ``(m, C)`` each, in the field's units.

        The deviation is that of kriging, times the factor that ``fit_spread`` found; without one its unit is unknown.
        """
        with torch.no_grad():
            analysis = self.analyse(batch.observed, batch.values, batch.noise)
            values, left = self._estimated(analysis, batch.query)
        return values * self.deviation + self.mean, left * self.deviation * self.spread.nan_to_num(1.0)

    def interpolate(self, places: Tensor, values: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Values of one field at any places, and their standard deviations.

        Args:
            places: ``(n, d)``, where it is observed, in the units of ``axes``.
            values: ``(n, C)`` there, nan where missing.
            queries: ``(m, d)``.

        Returns:
            see ``predict``.
        """
        seen, unknown = values.double(), torch.full((len(queries), self.channels), torch.nan, dtype=torch.float64)
        rows = torch.arange(len(queries))
        ones = torch.ones(len(queries), dtype=torch.float64)
        return self.predict(
            FieldBatch(Points(places), seen, Points(queries), unknown, rows, torch.ones_like(seen), ones)
        )

    def fit_spread(self, values: Tensor, deviations: Tensor, targets: Tensor) -> None:
        """Scale deviations so that 90 % of some targets lie within 1.645 of them, channel by channel.

        Args:
            values: ``(m, C)``, answers to places that were not trained on.
            deviations: ``(m, C)``, as ``predict`` gives them.
            targets: ``(m, C)``, nan where not known.

        Raises:
            ValueError: a channel without targets.
        """
        known = targets.isfinite()
        require(bool(known.any(0).all()), "targets", "be known somewhere in every channel", known.sum(0).tolist())
        off = ((targets - values).abs() / deviations.clamp_min(torch.finfo(torch.float64).tiny)).where(known, torch.nan)
        self.spread = self.spread.nan_to_num(1.0) * torch.nanquantile(off, NINETY, 0) / NORMAL_90

    def analyse(self, observed: Points, values: Tensor, noise: Tensor | None = None) -> Analysis:
        """What the observations ``(n, C)``, nan where missing, say; ``noise`` as in ``FieldBatch``, None = 1."""
        require(values.shape[1] == self.channels, "channels", f"be the data's {values.shape[1]}", self.channels)
        values = self.normalised(values)
        vectors = self.metric.embedded(observed.coordinates)
        noise = torch.ones_like(values) if noise is None else noise
        if bool((lacking := values.isnan()).any()):
            values, noise = values.nan_to_num(0.0), noise.masked_fill(lacking, _LACKING)
        plain = Analysis(observed, vectors, values, values, noise, None)
        if self.correction is None:
            return plain
        features = self._features(plain)
        residuals = values - self._correct(features, observed)
        return Analysis(observed, vectors, values, residuals, noise, features)

    def at(self, analysis: Analysis, query: Points) -> Tensor:
        """Normalised values at any places ``(m, C)``, float64."""
        return self._estimated(analysis, query)[0]

    def _estimated(self, analysis: Analysis, query: Points) -> tuple[Tensor, Tensor]:
        """Normalised values at any places, and the standard deviation that kriging leaves there."""
        estimate, left = self._kriged(analysis, analysis.residuals, query.coordinates, query)
        if analysis.features is None:
            return estimate, left
        return estimate + self._correct(analysis.features, query), left

    def _kriged(self, analysis: Analysis, values: Tensor, coordinates: Tensor, query: Points) -> tuple[Tensor, Tensor]:
        rows, present = self.metric.nearest(analysis.observed, query, self.kriging.neighbours)
        weights, left = self.kriging(analysis.vectors, self.metric.embedded(coordinates), rows, present, analysis.noise)
        return (weights * values[rows]).sum(1), left

    def _features(self, analysis: Analysis) -> Tensor:
        """Last hidden layer of the correction on the latent grid ``(B, H, *sizes)``."""
        assert self.correction is not None
        assert self.latent is not None
        nodes = self._latent_nodes(analysis.observed.samples)
        with torch.no_grad():
            kriged, left = self._kriged(analysis, analysis.values, nodes.coordinates, nodes)
            inputs = [kriged, left]
            if self.metric.spherical:
                place = [axis.kind for axis in self.metric.axes].index("latitude")
                angle = torch.deg2rad(nodes.coordinates[:, place : place + 1])
                inputs += [angle.sin(), angle.cos()]
            table = torch.cat(inputs, 1).float()
        shape = (analysis.observed.samples, *self.latent.sizes, -1)
        features, _ = self.correction.features(table.reshape(shape).movedim(-1, 1).contiguous(), self.latent)
        return features

    def _latent_nodes(self, samples: int) -> Points:
        """The latent grid in the field's own coordinates, once for each sample."""
        assert self.latent is not None
        nodes = self.latent.nodes()
        columns = [axis.unscaled(column) for axis, column in zip(self.metric.axes, nodes.T, strict=True)]
        splits = torch.arange(samples + 1) * len(nodes)
        return Points(torch.stack(columns, 1).repeat(samples, 1), splits=splits)

    def _correct(self, features: Tensor, places: Points) -> Tensor:
        """The correction at some places ``(m, C)``, float64, normalised."""
        if torch.is_grad_enabled() or places.count <= _AT_ONCE:
            return self._readout(features, places)
        index = places.sample_index()
        parts = []
        for first in range(0, places.count, _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            counts = torch.bincount(index[rows], minlength=places.samples)
            splits = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            parts.append(self._readout(features, Points(places.coordinates[rows], splits=splits)))
        return torch.cat(parts)

    def _on_latent(self, coordinates: Tensor) -> Tensor:
        """Coordinates in units of the network, longitudes in the turn about the latent grid's middle."""
        assert self.latent is not None
        scaled = self.metric.scaled(coordinates)
        for place, (axis, latent) in enumerate(zip(self.metric.axes, self.latent.axes, strict=True)):
            if axis.kind == "longitude" and not latent.periodic:
                middle = latent.start + latent.step * (latent.size - 1) / 2
                turns = ((scaled[:, place] - middle) / GLOBE).round()  # of those that are there already 0
                scaled[:, place] -= GLOBE * turns
        return scaled

    def _readout(self, features: Tensor, places: Points) -> Tensor:
        assert self.correction is not None
        assert self.latent is not None
        scaled = Points(self._on_latent(places.coordinates), splits=places.splits, periods=self.latent.periods)
        assert self.correction.readout is not None
        hidden = nn.functional.gelu(self.correction.readout(features, self.latent, scaled))
        return self.correction.output(hidden).double() * self.first_error
