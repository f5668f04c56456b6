"""Convolutions between grids whose kernel has been sampled once."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular._reprs import one_line
from ccnn_irregular.domains import Grid
from ccnn_irregular.layers.convolutions import SeparableContinuousConv
from ccnn_irregular.operators.layout import balance, restored
from ccnn_irregular.operators.numerics.lattice import (
    Lattice,
    at_queries,
    no_common_lattice,
    on_lattice,
    sampled_kernel,
    tap_spans,
)

__all__ = ["SampledConv", "sampled_kernel"]


@final
class SampledConv(nn.Module):
    """A trained separable convolution between two grids as tensor operations alone, its kernel sampled once.

    Args:
        layer: whose weights are taken, not copied.
        source: where values are given.
        query: where the result is wanted, on a common lattice with the source.

    Raises:
        ValueError: grids without a common lattice.
    """

    taps: Tensor

    def __init__(self, layer: SeparableContinuousConv, source: Grid, query: Grid) -> None:
        super().__init__()
        reason = no_common_lattice(source, query)
        require(reason is None, "query", "lie on a common lattice with the source", reason)
        self.pointwise = layer.pointwise
        self.bias = layer.depthwise.bias
        self.channels = layer.kernel.in_channels
        self.lattices = tuple(Lattice.build(a, b) for a, b in zip(source.axes, query.axes, strict=True))
        self.spans = tap_spans(layer.kernel, self.lattices)
        self.lengths = [lattice.length(*span) for lattice, span in zip(self.lattices, self.spans, strict=True)]
        taps = sampled_kernel(layer.kernel, self.lattices, self.spans).detach()
        weight = source.cell_volume * float(layer.kernel.scale)
        self.factor = balance(weight)
        self.register_buffer("taps", taps * (weight / self.factor))
        self.source, self.query = source, query

    __repr__ = one_line

    def extra_repr(self) -> str:
        where = f"at {self.source!r}" if self.query == self.source else f"from {self.source!r} to {self.query!r}"
        return f"{self.channels} -> {self.pointwise.out_features}, {where}, {self.taps[0].numel()} taps"

    def forward(self, values: Tensor) -> Tensor:
        """``(B, C, *sizes)`` on the source to values on the query."""
        dims = tuple(range(-len(self.lengths), 0))
        values = values.to(self.taps.dtype)  # under autocast it may come in less: there is no FFT of that
        spectrum = torch.fft.rfftn(on_lattice(values, self.lattices), s=self.lengths, dim=dims)
        spectrum = spectrum * torch.fft.rfftn(self.taps, s=self.lengths, dim=dims)
        result = at_queries(torch.fft.irfftn(spectrum, s=self.lengths, dim=dims), self.lattices, self.spans)
        return self.pointwise(restored(result, self.factor), self.bias)
