"""What each function of torch does to the labels of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular.integral.layout import Role
from ccnn_irregular.integral.tracing import Call, FunctionRule, Tracer

__all__ = ["FUNCTIONS", "attention", "elementwise"]


def elementwise(tracer: Tracer, call: Call) -> None:
    """Values at the same place meet: their channels are one."""
    result = call.results[0]
    combined: Tensor | None = None
    tensors = [tensor for tensor in call.tensors if tensor.ndim]
    for tensor in tensors:
        labels = _aligned(tracer.labels(tensor), result.ndim)
        if labels is None:
            continue
        if combined is None:
            combined = labels
        elif combined.shape == labels.shape:
            tracer.unite(combined.flatten().numpy(), labels.flatten().numpy())
        else:
            for one in (combined, labels):
                tracer.fix(one, f"joined with channels along another axis in {tracer.where}")
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
    replaced = [_whole(tracer, one) for one in first] if several else _whole(tracer, first)
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
    left, right = _aligned(tracer.labels(a), result.ndim), _aligned(tracer.labels(b), result.ndim)
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
    left, right, kept = (tracer.labels(one) for one in (query, key, value))
    # The sums are divided by the root of the number of channels, unless a number is given.
    role: Role = "integral" if call.kwargs.get("scale") is not None else "root_integral"
    if left is not None and right is not None:
        _contract(tracer, left, right, role)
    else:
        for one in (left, right):
            tracer.fix(one, f"multiplied with fixed channels in {tracer.where}")
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
    reads = [tracer.along(one, -1) for one in (query, key, value)]
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


def ignored(tracer: Tracer, call: Call) -> None:
    """Nothing that has channels comes out."""


def _aligned(labels: Tensor | None, ndim: int) -> Tensor | None:
    return None if labels is None else labels.reshape(*(1,) * (ndim - labels.ndim), *labels.shape)


def _table(rule: FunctionRule, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


FUNCTIONS: dict[str, FunctionRule] = {
    **_table(
        elementwise,
        "add sub rsub mul div truediv true_divide multiply divide subtract pow maximum minimum where lerp addcmul "
        "addcdiv neg abs exp log log1p expm1 sqrt rsqrt square reciprocal sin cos tanh sigmoid relu relu6 gelu silu "
        "mish elu selu celu leaky_relu hardtanh hardswish hardsigmoid softplus softsign logsigmoid threshold clamp "
        "clip clamp_min clamp_max erf floor ceil round sign dropout dropout1d dropout2d dropout3d alpha_dropout "
        "feature_alpha_dropout feature_dropout clone contiguous detach to float double half bfloat16 type type_as "
        "masked_fill nan_to_num eq ne lt le gt ge isnan isfinite logical_not logical_and logical_or zeros_like "
        "ones_like rrelu tanhshrink softshrink hardshrink cpu cuda requires_grad",
    ),
    **_table(
        moved,
        "reshape view flatten unflatten permute transpose swapaxes swapdims movedim moveaxis t unsqueeze squeeze "
        "expand expand_as broadcast_to repeat repeat_interleave tile chunk split split_with_sizes tensor_split unbind "
        "narrow select getitem flip roll index_select stack cat concat concatenate pixel_shuffle pixel_unshuffle "
        "channel_shuffle view_as reshape_as",
    ),
    **_table(
        pooled,
        "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool1d_with_indices "
        "adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices lp_pool1d lp_pool2d interpolate pad "
        "segment_reduce",
    ),
    **_table(within, "softmax log_softmax cumsum cumprod sort argsort normalize glu"),
    **_table(reduced, "mean sum amax amin max min std var norm argmax argmin logsumexp prod any all"),
    **_table(multiplied, "matmul bmm mm"),
    **_table(convolution, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    **_table(normalised, "batch_norm instance_norm"),
    **_table(layer_normalised, "layer_norm rms_norm"),
    **_table(
        ignored,
        "size dim ndimension numel item tolist stride is_floating_point is_complex is_contiguous data_ptr len bool "
        "int element_size storage_offset get_device result_type can_cast broadcast_shapes format repr str hash "
        "has_torch_function iter contains new_ones new_zeros new_full new_empty new_tensor full_like empty_like "
        "rand_like randn_like",
    ),
    "linear": linear,
    "group_norm": group_normalised,
    "embedding": embedded,
    "prelu": prelu,
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head,
    "attribute T": moved,
    "attribute mT": moved,
    "attribute data": elementwise,
}
