"""Kriging from the nearest observations with a learned covariance: weights that are solved for, not only normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._reprs import coordinates
from ccnn_irregular.domains import Points

__all__ = ["FieldAxis", "LocalKriging", "Metric"]

AxisKind = Literal["plain", "latitude", "longitude"]

_DEGREES = 180 / math.pi
# Variance of the unknown mean, in units of the field's: large enough to leave the mean free (ordinary kriging).
_MEAN_VARIANCE = 100.0
# Distance of two samples in the search for neighbours, in the largest there may be within one.
_APART = 4.0
# One unit of learning changes the logarithm of a covariance's parameter by this: widths move faster than weights.
_PACE = 10.0
# Pairs of neighbours whose covariances are held at once when no gradient is wanted.
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class FieldAxis:
    """How one coordinate of a field enters distances and the network.

    Attributes:
        name: of the coordinate.
        kind: "latitude" and "longitude" are degrees on the sphere; "plain" is any other axis.
        scale: coordinate units that count as one unit of the network; 1 on the sphere (degrees).
        log: coordinate units above which a plain axis is logarithmic, log(1 + x / log) / scale, as depth is,
            where structures and the distances of samples grow together; None = linear.
    """

    name: str
    kind: AxisKind = "plain"
    scale: float = 1.0
    log: float | None = None

    def __post_init__(self) -> None:
        require(self.kind in get_args(AxisKind), "kind", f"be one of {get_args(AxisKind)}", repr(self.kind))
        require(math.isfinite(self.scale) and self.scale > 0, "scale", "be positive and finite", self.scale)
        require(self.log is None or self.log > 0, "log", "be positive", self.log)
        on_sphere = self.kind != "plain"
        plain = self.scale == 1 and self.log is None
        require(plain or not on_sphere, "scale and log", "be left alone on the sphere", f"{self.name}: {self}")

    def scaled(self, values: Tensor) -> Tensor:
        """Coordinates in units of the network; nan where the logarithm does not exist."""
        return values / self.scale if self.log is None else torch.log1p(values / self.log) / self.scale

    def unscaled(self, values: Tensor) -> Tensor:
        """The reverse of ``scaled``."""
        return values * self.scale if self.log is None else torch.expm1(values * self.scale) * self.log


class Metric:
    """Distances between places of a field, one per group of axes.

    On the sphere there are three: along the chord, along the meridian, and along the parallel as if it were the
    equator, in degrees. Each is the distance of vectors, so any product of Gaussians in them is a covariance
    (Schoenberg 1938); the share of each is learned, and with it how much the convergence of the meridians matters.

    Args:
        axes: the coordinates of the field in their order.

    Raises:
        ValueError: a latitude without a longitude, or the reverse.
    """

    def __init__(self, axes: Sequence[FieldAxis]) -> None:
        self.axes = tuple(axes)
        kinds = [axis.kind for axis in self.axes]
        require(len(kinds) > 0, "axes", "name at least one coordinate", list(axes))
        pair = (kinds.count("latitude"), kinds.count("longitude"))
        require(pair in ((0, 0), (1, 1)), "axes", "hold one latitude and one longitude, or neither", kinds)
        self.spherical = pair == (1, 1)
        plain = [axis.name for axis in self.axes if axis.kind == "plain"]
        self.groups = (("chord", "latitude", "longitude") if self.spherical else ()) + tuple(plain)

    def scaled(self, coordinates: Tensor) -> Tensor:
        """``(N, d)`` coordinates in units of the network, float64."""
        columns = [axis.scaled(column) for axis, column in zip(self.axes, coordinates.double().T, strict=True)]
        return torch.stack(columns, 1)

    def embedded(self, coordinates: Tensor) -> list[Tensor]:
        """One float64 ``(N, e)`` array of vectors per group; distances within a group are Euclidean."""
        vectors: list[Tensor] = []
        columns = dict(zip([axis.kind for axis in self.axes], self.scaled(coordinates).T, strict=True))
        if self.spherical:
            latitude, longitude = columns["latitude"] / _DEGREES, columns["longitude"] / _DEGREES
            around = torch.stack([longitude.cos(), longitude.sin()], 1) * _DEGREES
            upright = latitude.sin()[:, None] * _DEGREES
            vectors += [torch.cat([around * latitude.cos()[:, None], upright], 1), latitude[:, None] * _DEGREES, around]
        scaled = self.scaled(coordinates)
        vectors += [scaled[:, place : place + 1] for place, axis in enumerate(self.axes) if axis.kind == "plain"]
        return vectors

    def nearest(self, source: Points, query: Points, count: int) -> tuple[Tensor, Tensor]:
        """The ``count`` nearest source points of each query point, in its own sample, by chord and plain axes together.

        Returns:
            their rows, int64 ``(M, count)``, and which of them exist, bool ``(M, count)``: a sample may hold fewer.

        Raises:
            ValueError: a sample that holds none.
        """
        fewest = int(source.splits.diff().min())
        require(fewest >= 1, "the observations", "hold at least one point in every field", fewest)
        sources, queries = self._places(source), self._places(query)
        # Samples lie farther apart than any two points of one, whatever the unit.
        both = np.concatenate([sources, queries])
        apart = _APART * (float(np.linalg.norm(np.ptp(both, axis=0))) or 1.0)
        sources, queries = (
            np.column_stack([places, apart * points.sample_index().numpy()])
            for places, points in ((sources, source), (queries, query))
        )
        distances, rows = cKDTree(sources).query(queries, k=np.arange(1, count + 1))
        present = distances < apart / 2
        rows = np.where(present, rows, 0)
        return torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(present)

    def _places(self, points: Points) -> np.ndarray:
        vectors = self.embedded(points.coordinates)
        if self.spherical:
            vectors = [vectors[0], *vectors[3:]]
        return torch.cat(vectors, 1).numpy()


@final
class LocalKriging(nn.Module):
    """Best linear weights of the nearest observations under a learned covariance, channel by channel.

    The covariance is a sum of products of Gaussians, one factor per group of ``Metric``, so it is positive definite
    whatever is learned, and sums of a few widths come close to the usual families. The mean is unknown and constant
    within the neighbourhood (ordinary kriging: Matheron 1963; Cressie, Statistics for Spatial Data, 1993, 3.2). With a
    nugget near zero the estimate passes through the observations.

    Args:
        channels: number of channels; each has a covariance of its own.
        groups: number of groups of the metric.
        width: widths of the Gaussians at first, units of the network, shortest to longest.
        nugget: variance of what is not continuous at first, in units of the field's variance.
        neighbours: observations an estimate is made of.
    """

    first_width: Tensor
    first_variance: Tensor
    first_nugget: Tensor

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        width: Sequence[float] = (4.0, 16.0, 64.0),
        nugget: float = 1e-3,
        neighbours: int = 24,
    ) -> None:
        super().__init__()
        require(len(width) > 0 and min(width) > 0, "width", "be one or more positive numbers", list(width))
        require(nugget > 0, "nugget", "be positive", nugget)
        require(neighbours >= 1, "neighbours", "be at least 1", neighbours)
        self.neighbours = neighbours
        widths = torch.tensor([float(number) for number in width], dtype=torch.float64)
        shares = widths.square() / widths.square().sum()  # long waves carry most of a field's variance
        # Widths of the groups add up in the exponent: each starts wider than all together.
        self.register_buffer("first_width", (widths * math.sqrt(groups)).log()[None, :, None])
        self.register_buffer("first_variance", shares.log())
        self.register_buffer("first_nugget", torch.tensor(math.log(nugget), dtype=torch.float64))
        # Vectors, which weight decay leaves alone.
        self.width_change = nn.Parameter(torch.zeros(channels * len(widths) * groups, dtype=torch.float64))
        self.variance_change = nn.Parameter(torch.zeros(channels * len(widths), dtype=torch.float64))
        self.nugget_change = nn.Parameter(torch.zeros(channels, dtype=torch.float64))
        self.shape = (channels, len(widths), groups)

    def extra_repr(self) -> str:
        widths = self.widths.detach().flatten()
        return f"widths={coordinates([widths.min(), widths.max()])}, neighbours={self.neighbours}"

    @property
    def widths(self) -> Tensor:
        """Widths of the Gaussians ``(C, J, G)``, units of the network."""
        return (self.first_width + _PACE * self.width_change.reshape(self.shape)).exp()

    @property
    def variances(self) -> Tensor:
        """Variances of the Gaussians ``(C, J)``, in units of the field's."""
        return (self.first_variance + _PACE * self.variance_change.reshape(self.shape[:2])).exp()

    @property
    def nuggets(self) -> Tensor:
        """Variances of what is not continuous ``(C,)``."""
        return (self.first_nugget + _PACE * self.nugget_change).exp()

    def covariance(self, squares: Tensor) -> Tensor:
        """Covariance without nugget at squared distances ``(G, ...)``; ``(C, ...)``."""
        rates = -0.5 / self.widths.square()  # (C, J, G)
        flat = squares.reshape(len(squares), -1)
        exponents = (rates @ flat).exp()  # (C, J, pairs)
        summed = torch.einsum("cj,cjp->cp", self.variances, exponents)
        return summed.reshape(-1, *squares.shape[1:])

    def forward(
        self,
        source: Sequence[Tensor],
        query: Sequence[Tensor],
        rows: Tensor,
        present: Tensor,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weights of the neighbours, and the standard deviation that is left.

        Args:
            source: vectors of the observations, one ``(N, e)`` per group (``Metric.embedded``).
            query: the same of the queries, ``(M, e)``.
            rows: neighbours of each query, int64 ``(M, k)``.
            present: which of them exist, bool ``(M, k)``; the others weigh 0.
            noise: variance of each observation's noise ``(N, C)``, in units of the nugget; None = 1.

        Returns:
            weights ``(M, k, C)`` and deviation ``(M, C)``, float64.
        """
        if torch.is_grad_enabled():
            return self._solved(source, query, rows, present, noise)
        step = max(1, _PAIRS_AT_ONCE // rows.shape[1] ** 2)
        parts = [
            self._solved(source, [vectors[part] for vectors in query], rows[part], present[part], noise)
            for part in (slice(first, first + step) for first in range(0, len(rows), step))
        ]
        return torch.cat([weights for weights, _ in parts]), torch.cat([deviation for _, deviation in parts])

    def _solved(
        self, source: Sequence[Tensor], query: Sequence[Tensor], rows: Tensor, present: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        near = [vectors[rows] for vectors in source]  # (M, k, e) each
        among = torch.stack([(places[:, :, None] - places[:, None]).square().sum(-1) for places in near])
        ahead = torch.stack([(places - at[:, None]).square().sum(-1) for places, at in zip(near, query, strict=True)])
        nugget = self.nuggets
        eye = torch.eye(rows.shape[1], dtype=among.dtype)
        noisy = nugget[:, None, None] * (1 if noise is None else noise[rows].permute(2, 0, 1))  # (C, M, k) or (C, 1, 1)
        matrix = self.covariance(among) + _MEAN_VARIANCE + noisy[..., None] * eye  # (C, M, k, k)
        matrix = torch.where(present[:, :, None] & present[:, None], matrix, eye)
        wanted = (self.covariance(ahead) + _MEAN_VARIANCE) * present  # (C, M, k)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if bool(failed.any()):
            rule = "be positive definite; a larger nugget of the network makes it so"
            reject("the covariance", rule, f"{int(failed.count_nonzero())} systems of {failed.numel()} that are not")
        weights = torch.cholesky_solve(wanted[..., None], factor)[..., 0]
        left = (self.variances.sum(1) + nugget + _MEAN_VARIANCE)[:, None] - (weights * wanted).sum(-1)
        return weights.permute(1, 2, 0), left.clamp_min(0).sqrt().T
