"""Networks built of continuous convolutions: the CCNN for any domain, and its published sizes."""

from ccnn_irregular.networks.blocks import ResidualBlock
from ccnn_irregular.networks.ccnn import CCNN, FrozenCCNN
from ccnn_irregular.networks.published import PUBLISHED_KERNEL, ccnn_4_110, ccnn_4_140, ccnn_6_380, unit_grid

__all__ = [
    "CCNN",
    "PUBLISHED_KERNEL",
    "FrozenCCNN",
    "ResidualBlock",
    "ccnn_4_110",
    "ccnn_4_140",
    "ccnn_6_380",
    "unit_grid",
]
