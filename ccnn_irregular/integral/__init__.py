"""Integral networks: trained once, run at any width.

The weights of a layer are continuous functions of its channels (Solodskikh et al., CVPR 2023): sampled on partitions
of [0, 1] and multiplied by quadrature weights they are ordinary weights of any size.
"""

from ccnn_irregular.integral.channel_sizes import (
    ChannelGroups,
    channel_groups,
    learn_partitions,
    resize,
    resize_randomly,
)
from ccnn_irregular.integral.conversion import convert
from ccnn_irregular.integral.interpolation import INTERPOLATIONS, Interpolation, register_interpolation
from ccnn_irregular.integral.ordering import shortest_path
from ccnn_irregular.integral.partitions import RULES, Partition, Rule, register_rule
from ccnn_irregular.integral.plain import discretise, recalibrate
from ccnn_irregular.integral.sharing import shared_copy

__all__ = [
    "INTERPOLATIONS",
    "RULES",
    "ChannelGroups",
    "Interpolation",
    "Partition",
    "Rule",
    "channel_groups",
    "convert",
    "discretise",
    "learn_partitions",
    "recalibrate",
    "register_interpolation",
    "register_rule",
    "resize",
    "resize_randomly",
    "shared_copy",
    "shortest_path",
]
