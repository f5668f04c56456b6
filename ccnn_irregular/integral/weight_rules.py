"""What products do to the labels of channels: of values with weights, and of values with one another."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ccnn_irregular.integral.layout import Role
from ccnn_irregular.integral.tracing import Call, Tracer
from ccnn_irregular.integral.value_rules import aligned

__all__ = [
    "attention",
    "convolution",
    "embedded",
    "group_normalised",
    "layer_normalised",
    "linear",
    "multi_head",
    "multiplied",
    "normalised",
    "prelu",
]


def multiplied(tracer: Tracer, call: Call) -> None:
    """Matrix products: what is summed over is one channel, what is left stays."""
    a, b = call.args[0], call.args[1]
    _product(tracer, a, b, call.results[0], "integral")


def _product(tracer: Tracer, a: Tensor, b: Tensor, result: Tensor, role: Role) -> None:
    if min(a.ndim, b.ndim) < 2:
        for tensor in (a, b):
            tracer.fix(tracer.labels(tensor), f"multiplied with a vector in {tracer.where}")
        return
    if tracer.name(b) is not None and b.ndim == 2:
        _linear(tracer, a, b, None, result, (1, 0))
        return
    left, right = aligned(tracer.labels(a), result.ndim), aligned(tracer.labels(b), result.ndim)
    summed_left = left is not None and left.shape[-1] > 1
    summed_right = right is not None and right.shape[-2] > 1
    if summed_left and summed_right:
        assert left is not None
        assert right is not None
        _contract(tracer, left, right.transpose(-1, -2), role)
        tracer.set_labels(result, None)
        return
    if summed_left or summed_right or (left is not None and right is not None):
        for labels in (left, right):
            tracer.fix(labels, f"multiplied with other channels in {tracer.where}")
        tracer.set_labels(result, None)
        return
    kept, other = (left, b) if left is not None else (right, a)
    _keep_heads(tracer, kept, other)
    tracer.set_labels(result, kept)


def _contract(tracer: Tracer, left: Tensor, right: Tensor, role: Role) -> None:
    """Sum over the last axis of both."""
    if left.shape != right.shape or left.shape[-2] > 1:
        for labels in (left, right):
            tracer.fix(labels, f"multiplied with other channels in {tracer.where}")
        return
    tracer.unite(left.flatten().numpy(), right.flatten().numpy())
    heads = [axis for axis in range(left.ndim - 2) if left.shape[axis] > 1]
    if heads:
        tracer.keep_blocks(left, heads)
    tracer.weighed.append((right.flatten().numpy().copy(), role))


def _keep_heads(tracer: Tracer, labels: Tensor | None, other: Tensor) -> None:
    """Channels of a batch entry that meets a matrix of its own (an attention head) stay in it."""
    if labels is None:
        return
    offset = labels.ndim - other.ndim
    heads = [axis for axis in range(max(offset, 0), labels.ndim - 2) if labels.shape[axis] > 1]
    heads = [axis for axis in heads if other.shape[axis - offset] > 1]
    if heads:
        tracer.keep_blocks(labels, heads)


def attention(tracer: Tracer, call: Call) -> None:
    """Scaled dot products: query and key are summed over, the value's channels stay."""
    query, key, value = (call.argument(place, name) for place, name in enumerate(("query", "key", "value")))
    left, right, kept = (tracer.labels(tensor) for tensor in (query, key, value))
    # The sums are divided by the root of the number of channels, unless a number is given.
    role: Role = "integral" if call.kwargs.get("scale") is not None else "root_integral"
    if left is not None and right is not None:
        _contract(tracer, left, right, role)
    else:
        for side in (left, right):
            tracer.fix(side, f"multiplied with fixed channels in {tracer.where}")
    _keep_heads(tracer, kept, query)
    tracer.set_labels(call.results[0], kept)


def linear(tracer: Tracer, call: Call) -> None:
    """A linear layer."""
    weight, bias = call.argument(1, "weight"), call.argument(2, "bias")
    _linear(tracer, call.argument(0, "input"), weight, bias, call.results[0], (0, 1))


def _linear(
    tracer: Tracer, values: Tensor, weight: Tensor, bias: Tensor | None, result: Tensor, axes: tuple[int, int]
) -> None:
    out, into = axes
    read = tracer.along(values, -1)
    made = tracer.outputs_of(weight, out, weight.shape[out])
    tracer.use(weight, {out: made, into: (read, "integral")})
    tracer.use(bias, {0: made})
    tracer.made(result, -1, made if tracer.name(weight) is not None else None)


def convolution(tracer: Tracer, call: Call) -> None:
    """An ordinary, grouped or depthwise convolution, transposed or not."""
    transposed = "transpose" in call.name
    values, weight, bias = (call.argument(place, name) for place, name in enumerate(("input", "weight", "bias")))
    groups = call.argument(6, "groups", 1)  # the same place in both: transposed ones have output_padding before it
    batched = values.ndim == weight.ndim
    axis = 1 if batched else 0
    read = tracer.along(values, axis)
    channels = values.shape[axis]
    result = call.results[0]
    count = result.shape[axis]
    if groups == channels and groups > 1:
        made = None if read is None else np.repeat(read, count // channels)
        rows = read if transposed else made
        tracer.use(weight, {0: rows})
    elif groups == 1:
        made = tracer.outputs_of(weight, 1 if transposed else 0, count)
        tracer.use(weight, {0: (read, "integral"), 1: made} if transposed else {0: made, 1: (read, "integral")})
    else:
        made = tracer.new(count)
        tracer.blocks.append(made.reshape(groups, -1))
        parted = None
        if read is not None:
            parted = read.reshape(groups, -1)
            tracer.blocks.append(parted)
        if transposed:
            tracer.use(weight, {0: (read, "integral"), 1: made.reshape(groups, -1)})
        else:
            tracer.use(weight, {0: made, 1: (parted, "integral")})
    tracer.use(bias, {0: made})
    tracer.made(result, axis, made if tracer.name(weight) is not None else None)


def normalised(tracer: Tracer, call: Call) -> None:
    """Norms whose statistics are each channel's own."""
    values, result = call.args[0], call.results[0]
    read = tracer.along(values, 1)
    for tensor in call.tensors[1:]:
        tracer.use(tensor, {0: read})
    tracer.made(result, 1, read)


def layer_normalised(tracer: Tracer, call: Call) -> None:
    """Norms over the last axes."""
    values, shape = call.args[0], call.argument(1, "normalized_shape")
    weight = call.argument(2, "weight")
    read = tracer.along(values, -1)
    if read is not None and (len(shape) > 1 or weight is None):
        tracer.fix(read, f"normalised in {tracer.where} over several axes, or without weights")
        read = None
    for tensor in call.tensors[1:]:
        tracer.use(tensor, {0: read})
    tracer.made(call.results[0], -1, read)


def group_normalised(tracer: Tracer, call: Call) -> None:
    """Norms of groups of channels."""
    normalised(tracer, call)
    read, groups = tracer.along(call.args[0], 1), call.argument(1, "num_groups")
    if read is not None and groups > 1:
        tracer.blocks.append(read.reshape(groups, -1))


def embedded(tracer: Tracer, call: Call) -> None:
    """Rows of a table."""
    weight = call.argument(1, "weight")
    made = tracer.outputs_of(weight, 1, weight.shape[1])
    tracer.use(weight, {1: made})
    tracer.made(call.results[0], -1, made if tracer.name(weight) is not None else None)


def prelu(tracer: Tracer, call: Call) -> None:
    """One slope for each channel, or one for all."""
    values, weight = call.args[0], call.args[1]
    if weight.numel() > 1:
        tracer.use(weight, {0: tracer.along(values, 1)})
    tracer.set_labels(call.results[0], tracer.labels(values))


def multi_head(tracer: Tracer, call: Call) -> None:
    """``torch.nn.MultiheadAttention``: as many channels inside as outside, in blocks of one head each."""
    query, key, value = call.args[:3]
    heads = call.argument(4, "num_heads")
    into, into_bias, bias_k = call.args[5], call.args[6], call.args[7]
    out, out_bias = call.args[11], call.args[12]
    reads = [tracer.along(tensor, -1) for tensor in (query, key, value)]
    plain = into is not None and bias_k is None and all(read is not None for read in reads)
    if not plain or not call.argument(2, "value").is_floating_point():
        for read in reads:
            tracer.fix(read, f"read by {tracer.where}, an attention with fixed, unequal or added channels")
        made = tracer.new(out.shape[0])
        tracer.use(out, {0: made})
        tracer.use(out_bias, {0: made})
        tracer.fix(made, f"written by {tracer.where}, whose number of channels is fixed")
        tracer.made(call.results[0], -1, made)
        return
    first, *others = [read for read in reads if read is not None]
    for other in others:
        tracer.unite(first, other)
    count = len(first)
    queries, keys, values = (tracer.new(count) for _ in range(3))
    tracer.unite(queries, keys)
    tracer.weighed.append((keys, "root_integral"))
    for inner in (queries, values):
        tracer.blocks.append(inner.reshape(heads, -1))
        tracer.tied.append((first, inner))
    rows = np.concatenate([queries, keys, values])
    tracer.use(into, {0: rows, 1: (first, "integral")})
    tracer.use(into_bias, {0: rows})
    made = tracer.outputs_of(out, 0, out.shape[0])
    tracer.tied.append((first, made))
    tracer.use(out, {0: made, 1: (values, "integral")})
    tracer.use(out_bias, {0: made})
    tracer.made(call.results[0], -1, made)
