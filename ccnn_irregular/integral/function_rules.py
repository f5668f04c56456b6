"""Which rule tells what a function of torch does to the labels of channels."""

from __future__ import annotations

from typing import Any

from ccnn_irregular.integral.tracing import FunctionRule
from ccnn_irregular.integral.value_rules import elementwise, ignored, moved, pooled, reduced, within
from ccnn_irregular.integral.weight_rules import (
    attention,
    convolution,
    embedded,
    group_normalised,
    layer_normalised,
    linear,
    multi_head,
    multiplied,
    normalised,
    prelu,
)

__all__ = ["FUNCTIONS"]


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
