"""What the layers of this package do to the labels of channels, and which layers of torch are refused."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.utils import parametrize

from ccnn_irregular._checks import reject
from ccnn_irregular.integral.layout import Role
from ccnn_irregular.integral.tracing import AttributeUse, Call, LayerRule, Tracer
from ccnn_irregular.integral.value_rules import elementwise
from ccnn_irregular.kernels import Generator, Kernel
from ccnn_irregular.layers import (
    BatchNorm,
    ContinuousConv,
    Dropout,
    InstanceNorm,
    PointwiseLinear,
    SeparableContinuousConv,
)

__all__ = ["LAYERS", "require_continuous_layers"]

# Their states or their products of two inputs lie along more than one weight at once, inside compiled functions.
_REFUSED = (nn.RNNBase, nn.RNNCellBase, nn.Bilinear, nn.EmbeddingBag)


def require_continuous_layers(model: nn.Module, fixed: tuple[str, ...]) -> None:
    """Refuse layers whose weights cannot be functions of their channels, unless they stay as they are.

    Raises:
        ValueError: names the layer and what to do.
    """
    names = {name for name, _ in model.named_modules()}
    for name in fixed:
        if name not in names:
            reject("fixed", "name modules of the network (see named_modules())", repr(name))
    for name, module in model.named_modules():
        if any(name == one or name.startswith(f"{one}.") for one in fixed):
            continue
        what = f"{type(module).__name__} {name!r}"
        if isinstance(module, _REFUSED):
            kinds = "hold linear layers, convolutions, attention, norms and embeddings only"
            reject("model", f"{kinds}: leave others as they are with fixed=[{name!r}, ...]", what)
        if parametrize.is_parametrized(module):
            undo = "torch.nn.utils.parametrize.remove_parametrizations"
            reject("model", f"have plain weights (end a weight norm by {undo}), or fixed=[{name!r}, ...]", what)
        if any(
            isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in module.parameters(recurse=False)
        ):
            reject("model", "have weights of known shapes: run it once first", what)


def _continuous(tracer: Tracer, call: Call) -> None:
    module = call.module
    assert isinstance(module, ContinuousConv)
    if module.groups > 1:
        for tensor in call.tensors:
            tracer.fix(tracer.labels(tensor), f"read by the grouped {tracer.where}")
        tracer.set_labels(call.result, None)
        return
    made = _kernel(tracer, call, module.kernel)
    tracer.use(module.bias, {0: made})
    tracer.made(call.result, 1, made)


def _kernel(tracer: Tracer, call: Call, kernel: Kernel) -> np.ndarray | None:
    """Note what lies along the rows of the generator's output layer; the channels that the kernel writes."""
    output = kernel.generator.output
    read = tracer.along(call.args[0], 1)
    if kernel.depthwise:
        made = read
        tracer.use(output.weight, {0: read})
        tracer.use(output.bias, {0: read})
        factors: tuple[np.ndarray, ...] = () if read is None else (read,)
    else:
        rows, columns = kernel.shape[0], kernel.shape[-1]
        made = tracer.outputs_of(output.weight, 0, rows)
        axes: dict[int, np.ndarray | tuple[np.ndarray | None, Role] | None] = {0: made, 1: (read, "integral")}
        tracer.use(output.weight, axes, {0: (rows, columns)})
        tracer.use(output.bias, axes, {0: (rows, columns)})
        factors = (made, np.full(columns, -1) if read is None else read)
    if factors:
        path = tracer.modules[id(kernel)]
        tracer.attributes.append(AttributeUse(path, "shape", factors, each=True))
        for generator in kernel.generator.modules():
            if isinstance(generator, Generator):
                tracer.attributes.append(AttributeUse(tracer.modules[id(generator)], "out_channels", factors))
    return made


def _separable(tracer: Tracer, call: Call) -> None:
    module = call.module
    assert isinstance(module, SeparableContinuousConv)
    made = _kernel(tracer, call, module.kernel)
    tracer.use(module.depthwise.bias, {0: made})
    _mix(tracer, module.pointwise, made, call)


def _mixed(tracer: Tracer, call: Call) -> None:
    assert isinstance(call.module, PointwiseLinear)
    read = tracer.along(call.args[0], 1)
    offset = call.argument(1, "offset")
    tracer.use(offset, {0: read})
    _mix(tracer, call.module, read, call)


def _mix(tracer: Tracer, layer: PointwiseLinear, read: np.ndarray | None, call: Call) -> None:
    if layer.groups > 1:
        tracer.fix(read, f"read by groups of {tracer.where}")
        tracer.set_labels(call.result, None)
        return
    made = tracer.outputs_of(layer.weight, 0, layer.out_features)
    tracer.use(layer.weight, {0: made, 1: (read, "integral")})
    tracer.use(layer.bias, {0: made})
    tracer.made(call.result, 1, made)


def _normalised(tracer: Tracer, call: Call) -> None:
    module = call.module
    assert isinstance(module, BatchNorm | InstanceNorm)
    read = tracer.along(call.args[0], 1)
    for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
        if tensor.ndim == 1:
            tracer.use(tensor, {0: read})
    tracer.made(call.result, 1, read)


LAYERS: dict[type[nn.Module], LayerRule] = {
    ContinuousConv: _continuous,
    SeparableContinuousConv: _separable,
    PointwiseLinear: _mixed,
    BatchNorm: _normalised,
    InstanceNorm: _normalised,
    Dropout: elementwise,
}
"""Layers that are followed as a whole; all others by the functions they call."""
