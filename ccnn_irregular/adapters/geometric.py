"""torch-geometric: its point clouds as ``Points`` and back, and a continuous convolution that behaves like its layers.

A cloud batch is ``pos`` of all clouds end to end with the vector ``batch`` (or the offsets ``ptr``), which is how
``Points`` holds a ragged batch: nothing is padded and nothing is moved.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from ccnn_irregular._autocast import outside_autocast
from ccnn_irregular._checks import reject, require, require_finite
from ccnn_irregular.adapters.geometric_sampling import places
from ccnn_irregular.domains import Points
from ccnn_irregular.domains.points import as_coordinates, as_tensor
from ccnn_irregular.kernels import Kernel, KernelSpec
from ccnn_irregular.layers import ContinuousConv, SeparableContinuousConv
from ccnn_irregular.quadrature import plain_mean
from ccnn_irregular.solver import Solver

__all__ = ["CLOUD_KERNEL", "CCNNConv", "EdgeFree", "cloud_points", "from_points", "to_points"]

Array = NDArray[Any]
Positions = Tensor | Array | tuple[Tensor | Array, Tensor | Array]
Clouds = Tensor | Array | tuple[Tensor | Array | None, Tensor | Array | None] | None

CLOUD_KERNEL = KernelSpec(width=1.0, omega_0=6.0, generator="siren")
"""Recipe for clouds, in units of the width: ``dataclasses.replace(CLOUD_KERNEL, width=0.1)`` ends at 0.3."""

# Attributes of a batch that a cloud brings along.
_FILLED = ("pos", "weight", "batch", "ptr")
# Positions must be known to this share of a kernel's support.
_RESOLUTION = 1e-3


def cloud_points(
    pos: Tensor | Array,
    batch: Tensor | Array | None = None,
    weight: Tensor | Array | None = None,
    batch_size: int | None = None,
) -> Points:
    """Convert torch-geometric's ``pos`` and ``batch`` to ``Points``; NumPy arrays serve as well.

    Args:
        pos: ``(N, d)`` positions. float64 is taken as it is, without a copy; gradients flow.
        batch: int64 ``(N,)`` cloud of each row, never falling; a number that is left out is an empty cloud.
            None = one cloud.
        weight: ``(N,)`` or ``(N, C)`` quadrature weights, see ``geometric_weights``; None = every cloud weighs 1, all
            of its points the same.
        batch_size: number of clouds, where the last ones may be empty; None = as many as ``batch`` names.

    Raises:
        ValueError: nan or infinite positions, shapes or dtypes that disagree, rows that are not sorted by cloud.
    """
    pos = as_coordinates("pos", pos)
    require(pos.ndim == 2, "pos", "have shape (N, d)", tuple(pos.shape))
    require_finite("pos", pos)
    require(batch_size is None or batch_size >= 1, "batch_size", "be at least 1", batch_size)
    splits = _splits(pos, None if batch is None else as_tensor("batch", batch), batch_size)
    if weight is None:
        weight = plain_mean(len(pos), splits=splits)
    return Points(pos, weight, splits)


def _splits(pos: Tensor, batch: Tensor | None, batch_size: int | None) -> Tensor:
    """Return the offsets of the clouds, int64."""
    if batch is None:
        require(batch_size in (None, 1), "batch", f"be given for {batch_size} clouds", batch)
        return torch.tensor([0, len(pos)], dtype=torch.int64, device=pos.device)
    require(batch.dtype == torch.int64, "batch", "be int64", batch.dtype)
    require(batch.shape == (len(pos),), "batch", f"have shape ({len(pos)},), one entry per row of pos", batch.shape)
    require(batch.device == pos.device, "batch", f"be on the device of pos, {pos.device}", batch.device)
    falls = torch.nonzero(batch.diff() < 0).flatten()
    rule = (
        "never fall (transforms that draw points, as FixedPoints, mix the clouds of a batch: apply them to each cloud)"
    )
    require(len(falls) == 0, "batch", rule, f"a fall after row {int(falls[0]) if len(falls) else ''}")
    require(not len(batch) or int(batch[0]) >= 0, "batch", "not be negative", int(batch[0]) if len(batch) else "")
    named = int(batch[-1]) + 1 if len(batch) else 1
    size = named if batch_size is None else batch_size
    require(size >= named, "batch_size", f"be at least {named}, the number of clouds that batch names", batch_size)
    counts = torch.bincount(batch, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def to_points(data: Data, weight: str = "weight") -> Points:
    """Convert the positions of a ``Data`` or ``Batch`` to ``Points``; values stay in ``data.x``.

    Nothing is copied where ``pos`` is float64, as geometry is here; other dtypes are converted.

    Args:
        data: with ``pos``, and with ``ptr`` or ``batch`` where it holds several clouds; where they disagree ``batch``
            counts, for ``ptr`` is not renewed when points are taken out.
        weight: attribute that holds the quadrature weights. Where there is none every cloud weighs 1, all of its
            points the same.

    Raises:
        ValueError: no positions; weights that the batch holds one of per cloud; else see ``cloud_points``.
    """
    pos = data.pos
    if pos is None:
        reject("data", "have positions, data.pos", sorted(data.keys()))
    weights = data.get(weight)
    clouds = getattr(data, "_num_graphs", None)
    if "ptr" not in data:
        return cloud_points(pos, data.get("batch"), weights, clouds)
    require(pos.ndim == 2, "pos", "have shape (N, d)", tuple(pos.shape))
    require_finite("pos", pos)
    pos = as_coordinates("pos", pos)
    splits = data.ptr
    if "batch" in data:
        # Batch.subgraph and transforms that take points out leave ptr as it was.
        told = _splits(pos, data.batch, len(splits) - 1)
        splits = splits if torch.equal(told, splits) else told
    known = weights is None or not _per_cloud(data, weight, splits)
    require(known, f"data.{weight}", "have one row per point", "one per cloud")
    return Points(pos, plain_mean(len(pos), splits=splits) if weights is None else weights, splits)


def _per_cloud(data: Data, name: str, splits: Tensor) -> bool:
    """Tell whether a batch of as many clouds as points, whose rows do not tell, holds an attribute once per cloud."""
    slices = getattr(data, "_slice_dict", None) or {}
    ambiguous = len(data[name]) == len(splits) - 1 and name in slices
    return ambiguous and not torch.equal(torch.as_tensor(slices[name]), splits.cpu())


def from_points(
    points: Points, x: Tensor | None = None, *, per_point: Collection[str] | None = None, **attributes: Tensor
) -> Batch:
    """Convert positions, weights and values to torch-geometric's ``Batch``, which shares their memory.

    Args:
        points: becomes ``pos``, ``weight``, ``ptr`` and ``batch``; axes must not repeat, which ``Batch`` cannot say.
        x: ``(N, C)`` values.
        per_point: names of the ``attributes`` with one row per point; all others then have one per cloud. None = by
            their numbers of rows, which do not tell where there are as many clouds as points, empty ones among them:
            there ``y`` is the label of a cloud, and other names must be told.
        **attributes: further tensors, split with the clouds or one row to each cloud. Edges are none of them: add
            them to the clouds of ``to_data_list()``.

    Returns:
        A batch whose ``to_data_list()`` are views of the clouds.

    Raises:
        ValueError: axes that repeat, a tensor with another number of rows or one that can be read both ways, a name
            that ``points`` fills or torch-geometric reads as edges.
    """
    require(not any(points.periods), "points", "have axes that do not repeat", points.periods)
    named = set(per_point or ())
    require(named <= set(attributes), "per_point", f"name attributes, some of {sorted(attributes)}", sorted(named))
    given = dict(attributes) if x is None else {"x": x, **attributes}
    fields: dict[str, Tensor] = {"pos": points.coordinates, "weight": points.weights}
    clouds, splits = torch.arange(points.samples + 1), points.splits.cpu()
    slices = dict.fromkeys(fields, splits)
    for name, tensor in given.items():
        _require_rows(name, tensor)
        told = True if name == "x" else None if per_point is None else name in named
        slices[name] = splits if _by_point(name, tensor, points, told) else clouds
    batch = Batch(**fields, **given, batch=points.sample_index(), ptr=points.splits)
    # What Batch.from_data_list keeps to take a batch apart again; it would copy all clouds to put them together.
    batch._num_graphs = points.samples
    batch._slice_dict = slices
    batch._inc_dict = dict.fromkeys(slices, torch.zeros(points.samples, dtype=torch.int64))
    return batch


def _require_rows(name: str, tensor: Tensor) -> None:
    """Refuse attributes that are no list of rows, or that belong to edges."""
    require(name not in _FILLED, name, "be left out: points fill it", "a tensor")
    require(isinstance(tensor, Tensor) and tensor.ndim > 0, name, "be a tensor of rows", repr(tensor)[:60])
    edges = "edge" in name or Data().__cat_dim__(name, tensor) != 0
    require(not edges, name, "not be of edges: add them to the clouds of to_data_list()", tuple(tensor.shape))


def _by_point(name: str, tensor: Tensor, points: Points, told: bool | None) -> bool:
    """Tell whether an attribute has one row per point, else one per cloud; ``told`` is what the caller named."""
    rows, count, clouds = len(tensor), points.count, points.samples
    if told is None and rows == count == clouds:
        # Clouds of one point each are split the same either way.
        same = bool((points.splits.diff() == 1).all())
        rule = "be named in per_point if it has one row per point, else per_point be given without it"
        require(same or name == "y", name, rule, f"{rows} rows for as many points as clouds")
        told = False
    if told is None:
        rule = f"have {count} rows, one per point, or {clouds}, one per cloud"
        require(rows in (count, clouds), name, rule, tuple(tensor.shape))
        return rows == count
    wanted = f"{count} rows, one per point" if told else f"{clouds} rows, one per cloud"
    require(rows == (count if told else clouds), name, f"have {wanted}", tuple(tensor.shape))
    return told


@final
class CCNNConv(nn.Module):
    """Continuous convolution of point clouds, called as torch-geometric's layers are: ``conv(x, pos, batch)``.

    x'(q) = mix(sum_n w_n K(q - p_n) x_n) with a kernel K that is a small network of the offset, and quadrature
    weights w: an integral over the shape or volume that was sampled, see ``geometric_weights`` for its weights.
    There are no edges: the engine finds the pairs within the kernel's reach, all of them.

    Strided, transposed or at any other places: give pairs, as to the bipartite layers of torch-geometric,
    ``conv(x, (pos, other), (batch, other_batch))``.

    Args:
        in_channels: channels of ``x``; with 1, ``x`` may be None: the constant 1 on the cloud.
        out_channels: channels of the result.
        dim: number of coordinate axes.
        kernel: recipe of the kernel, lengths in units of ``pos``. Without an extent, that is where the mask ends at
            first, 3.03 times its width.
        separable: a depthwise kernel, then a linear mix of the channels; else one full kernel from every channel to
            every other, for few channels.
        bias: learned constants.
        solver: engine and tolerance. Every batch has other points: the search for neighbours is cheap beside what
            "auto" spends on comparing all engines, which pays for large clouds and wide kernels only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dim: int = 3,
        *,
        kernel: KernelSpec,
        separable: bool = True,
        bias: bool = True,
        solver: Solver = Solver("neighbours"),
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dim = dim
        self._recipe = kernel.on_axes(dim)
        self._separable = separable
        self._options: dict[str, Any] = {"bias": bias, "solver": solver}
        self.conv = self._built()

    def _built(self) -> ContinuousConv | SeparableContinuousConv:
        if self._separable:
            return SeparableContinuousConv(self._recipe(self.in_channels), self.out_channels, **self._options)
        return ContinuousConv(self._recipe(self.in_channels, self.out_channels), **self._options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew, in place."""
        fresh = self._built().to(self.conv.kernel.extent)
        self.conv.load_state_dict(fresh.state_dict())

    def forward(
        self,
        x: Tensor | Array | None,
        pos: Positions,
        batch: Clouds = None,
        weight: Tensor | Array | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Convolve values at the points; results are at the points, or at other points.

        Args:
            x: ``(N, in_channels)`` of the layer's dtype. None = ones, for a layer with one channel in.
            pos: ``(N, dim)`` positions, or a pair: these, and ``(M, dim)`` where the result is wanted. In float64
                coordinates may be as large as in any map projection.
            batch: int64 ``(N,)`` cloud of each row, never falling, or a pair; None = one cloud.
            weight: ``(N,)`` quadrature weights; None = each cloud weighs 1, all of its points the same.
            batch_size: number of clouds, where the last ones may be empty.

        Returns:
            ``(N, out_channels)``, or ``(M, out_channels)``.

        Raises:
            ValueError: see ``cloud_points`` and ``ccnn_irregular.convolve``; positions too coarse for the kernel.
        """
        source, query = self._domains(pos, batch, weight, batch_size)
        if x is None:
            require(self.in_channels == 1, "x", "be given for a layer with several channels in", x)
            x = self.conv.kernel.extent.new_ones(source.count, 1)
        return self.conv(as_tensor("x", x), source, query)

    @torch.no_grad()
    @outside_autocast
    def calibrate(
        self,
        pos: Positions,
        batch: Clouds = None,
        weight: Tensor | Array | None = None,
    ) -> None:
        """Scale the kernel so that white noise on such clouds keeps its variance; once, before training.

        Without it the scale of the result follows the weight that lies within the kernel's reach. Noise at points that
        share a place is the same noise.
        """
        source, query = self._domains(pos, batch, weight, None)
        self.conv.calibrate(places(source)[0], query)

    def _domains(
        self,
        pos: Positions,
        batch: Clouds,
        weight: Tensor | Array | None,
        batch_size: int | None,
    ) -> tuple[Points, Points | None]:
        """Return the domain of the values and that of the results; None for the latter means the former."""
        if isinstance(pos, Tensor | np.ndarray):
            require(not isinstance(batch, tuple | list), "batch", "be one tensor where pos is one", type(batch))
            assert not isinstance(batch, tuple)
            require_resolution("pos", pos, self.conv.kernel)
            return cloud_points(pos, batch, weight, batch_size), None
        given = (None, None) if batch is None else batch
        require(isinstance(given, tuple | list) and len(given) == 2, "batch", "be a pair where pos is one", type(batch))
        for positions in pos:
            require_resolution("pos", positions, self.conv.kernel)
        if batch_size is None and given[0] is not None and given[1] is not None:
            batch_size = max((int(numbers[-1]) + 1 for numbers in (given[0], given[1]) if len(numbers)), default=1)
        source = cloud_points(pos[0], given[0], weight, batch_size)
        return source, cloud_points(pos[1], given[1], None, batch_size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, dim={self.dim}, {self.conv.kernel!r})"


def require_resolution(argument: str, given: Tensor | Array, kernel: Kernel) -> None:
    """Refuse positions whose dtype cannot tell places apart that the kernel tells apart."""
    pos = as_tensor(argument, given)
    if pos.dtype == torch.float64 or not pos.is_floating_point() or not pos.numel():
        return  # whole numbers are exact
    farthest = float(pos.detach().abs().max())
    kernel.require_numbers()
    step, allowed = farthest * torch.finfo(pos.dtype).eps, _RESOLUTION * float(kernel.support.min())
    rule = f"be known to {allowed:g}, a thousandth of the kernel's support: keep float64, or subtract the mean in it"
    require(not step > allowed, argument, rule, f"{pos.dtype} at {farthest:g}, in steps of {step:g}")


@final
class EdgeFree(nn.Module):
    """A model of ``(x, pos, batch)`` with the signature that ``torch_geometric.explain`` calls: edges are ignored.

    ``Explainer(EdgeFree(model), GNNExplainer(), node_mask_type="attributes", ...)``, then
    ``explainer(x, no_edges, pos=pos, batch=batch)`` with ``no_edges`` an int64 tensor ``(2, 0)``. Masks of nodes and
    their attributes apply; there are no edges to explain.

    Args:
        model: called as ``model(x, **rest)``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, edge_index: Tensor, **rest: Any) -> Tensor:
        """Call the model with ``x`` and ``rest``.

        Raises:
            ValueError: edges, which the model would not see.
        """
        require(edge_index.numel() == 0, "edge_index", "hold no edges: the model reads none", tuple(edge_index.shape))
        return self.model(x, **rest)
