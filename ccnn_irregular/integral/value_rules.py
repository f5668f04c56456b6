"""What functions that act on values alone do to the labels of their channels: no weight takes part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular.integral.tracing import Call, Tracer

__all__ = ["aligned", "elementwise", "ignored", "moved", "pooled", "reduced", "within"]


def elementwise(tracer: Tracer, call: Call) -> None:
    """Values at the same place meet: their channels are one."""
    result = call.results[0]
    combined: Tensor | None = None
    tensors = [tensor for tensor in call.tensors if tensor.ndim]
    for tensor in tensors:
        labels = aligned(tracer.labels(tensor), result.ndim)
        if labels is None:
            continue
        if combined is None:
            combined = labels
        elif combined.shape == labels.shape:
            tracer.unite(combined.flatten().numpy(), labels.flatten().numpy())
        else:
            for label in (combined, labels):
                tracer.fix(label, f"joined with channels along another axis in {tracer.where}")
    if combined is not None:
        for tensor in tensors:
            if tracer.labels(tensor) is None:
                _meets_constant(tracer, combined, tensor)
    tracer.set_labels(result, combined)


def _meets_constant(tracer: Tracer, labels: Tensor, tensor: Tensor) -> None:
    """Values without channels act on labelled ones: a parameter has channels, a mask of blocks keeps them."""
    offset = labels.ndim - tensor.ndim
    varying = [axis for axis, length in enumerate(labels.shape) if length > 1]
    acting = [axis for axis in varying if axis >= offset and tensor.shape[axis - offset] > 1]
    if not acting:
        return
    if acting != varying:
        tracer.keep_blocks(labels, acting)
    elif tracer.name(tensor) is not None and len(varying) == 1 and tensor.is_floating_point():
        tracer.use(tensor, {varying[0] - offset: labels.flatten().numpy().copy()})
    else:
        tracer.fix(labels, f"joined with values of fixed channels in {tracer.where}")


def moved(tracer: Tracer, call: Call) -> None:
    """Entries are moved about: so are their labels."""
    for tensor in call.tensors:
        _label_parameter(tracer, tensor)
    labelled = [tensor for tensor in call.tensors if tracer.labels(tensor) is not None]
    if not labelled:
        for result in call.results:
            tracer.set_labels(result, None)
        return
    first, *rest = call.args
    several = isinstance(first, list | tuple)
    if several:
        _promise_equal(tracer, call, first)
        if call.name in ("cat", "concat", "concatenate") and _side_by_side(tracer, first, call.argument(1, "dim", 0)):
            return elementwise(tracer, Call(call.name, first, {}, call.result))
    replaced = [_whole(tracer, tensor) for tensor in first] if several else _whole(tracer, first)
    with torch._C.DisableTorchFunction():
        assert call.function is not None
        labels = call.function(replaced, *rest, **call.kwargs)
    found = [labels] if isinstance(labels, Tensor) else list(labels)
    for result, one in zip(call.results, found, strict=True):
        tracer.set_labels(result, one)
    if call.name in ("chunk", "unbind"):
        parts = [_numbers(tracer.labels(result)) for result in call.results]
        for part in parts[1:]:
            tracer.tied.append((parts[0], part))


def _label_parameter(tracer: Tracer, tensor: Tensor) -> None:
    """A parameter that is used as a value (a class token) has channels of its own along its only axis."""
    long = [axis for axis, length in enumerate(tensor.shape) if length > 1]
    plain = tracer.name(tensor) is not None and tensor.is_floating_point() and len(long) == 1
    if plain and tracer.labels(tensor) is None:
        made = tracer.outputs_of(tensor, long[0], tensor.shape[long[0]])
        tracer.use(tensor, {long[0]: made})
        tracer.made(tensor, long[0], made)


def _side_by_side(tracer: Tracer, tensors: Sequence[Tensor], axis: int) -> bool:
    """Whether tensors are joined along positions: what has the same place on the other axes is one channel."""
    labels = [tracer.labels(tensor) for tensor in tensors]
    return all(one is not None and one.shape[axis] == 1 for one in labels)


def _promise_equal(tracer: Tracer, call: Call, tensors: Sequence[Tensor]) -> None:
    """Stacked tensors have equal numbers of channels."""
    if call.name == "stack":
        parts = [_numbers(tracer.labels(tensor)) for tensor in tensors]
        for part in parts[1:]:
            tracer.tied.append((parts[0], part))


def _numbers(labels: Tensor | None) -> np.ndarray:
    return np.zeros(0, np.int64) if labels is None else np.unique(labels[labels >= 0].numpy())


def _whole(tracer: Tracer, tensor: Tensor) -> Tensor:
    labels = tracer.labels(tensor)
    if labels is None:
        return torch.full((1,) * tensor.ndim, -1).expand(tensor.shape)
    return labels.expand(tensor.shape)


def pooled(tracer: Tracer, call: Call) -> None:
    """Positions are averaged, interpolated or padded; channels on axis 1 (or any that keeps its length) stay."""
    tensor = call.argument(0, "input")
    labels = tracer.labels(tensor)
    for result in call.results:
        kept = labels
        if labels is not None and not _same_lengths(labels, tensor, result):
            tracer.fix(labels, f"taken for positions by {call.name!r} in {tracer.where}")
            kept = None
        tracer.set_labels(result, kept)


def _same_lengths(labels: Tensor, tensor: Tensor, result: Tensor) -> bool:
    pairs = zip(labels.shape, tensor.shape, result.shape, strict=False)
    return result.ndim == tensor.ndim and all(label == 1 or before == after for label, before, after in pairs)


def within(tracer: Tracer, call: Call) -> None:
    """Entries along one axis act on one another (softmax, cumsum): channels along it cannot be resized."""
    tensor = call.argument(0, "input")
    labels = tracer.labels(tensor)
    axis = call.argument(1, "dim")
    if labels is not None and (not isinstance(axis, int) or labels.shape[axis] > 1):
        tracer.fix(labels, f"compared with one another by {call.name!r} in {tracer.where}")
        labels = None
    for result in call.results:
        tracer.set_labels(result, labels)


def reduced(tracer: Tracer, call: Call) -> None:
    """Axes are averaged or summed over."""
    tensor = call.argument(0, "input")
    labels = tracer.labels(tensor)
    if labels is None:
        return
    axes = call.argument(1, "dim", call.kwargs.get("axis"))
    given = list(range(tensor.ndim)) if axes is None else [axes] if isinstance(axes, int) else list(axes)
    over = {axis % tensor.ndim for axis in given}
    varying = {axis for axis, length in enumerate(labels.shape) if length > 1}
    if varying & over:
        if varying - over:
            tracer.keep_blocks(labels, sorted(varying - over))
        if call.name not in ("mean", "amax", "amin"):
            tracer.fix(labels, f"put together by {call.name!r} in {tracer.where} (a mean has no number of channels)")
        labels = None
    elif not call.argument(2, "keepdim", False):
        keep = [axis for axis in range(labels.ndim) if axis not in over]
        labels = labels[tuple(slice(None) if axis in keep else 0 for axis in range(labels.ndim))]
    for result in call.results:
        tracer.set_labels(result, labels)


def ignored(tracer: Tracer, call: Call) -> None:
    """Nothing that has channels comes out."""


def aligned(labels: Tensor | None, ndim: int) -> Tensor | None:
    """Labels with the axes of a result in front that broadcasting adds."""
    return None if labels is None else labels.reshape(*(1,) * (ndim - labels.ndim), *labels.shape)
