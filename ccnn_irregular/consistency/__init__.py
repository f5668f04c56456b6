"""How much of a layer's answer depends on the engine, and how much on the sampling.

A field that is known on a full grid is thinned or its positions are jittered; the layer's answer from what is left is
compared with its answer from the full grid, for every engine and for several quadrature weights.
"""

from ccnn_irregular.consistency.check import check_consistency
from ccnn_irregular.consistency.field import Field, Rule, Sampling
from ccnn_irregular.consistency.report import ConsistencyReport, Interpolation, Row

__all__ = ["ConsistencyReport", "Field", "Interpolation", "Row", "Rule", "Sampling", "check_consistency"]
