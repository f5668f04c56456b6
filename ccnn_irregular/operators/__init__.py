"""Continuous convolution on any sampling: choose an engine, plan once, apply.

y(q_m) = sum_n  w_n  K(q_m - p_n)  x_n
"""

from ccnn_irregular.operators.check import CheckReport, ToleranceError
from ccnn_irregular.operators.convolution import convolve
from ccnn_irregular.operators.engines import ENGINES, Cost, Engine, Plan, register, require_engine
from ccnn_irregular.operators.planning.planner import Explanation, explain, make_plan
from ccnn_irregular.operators.planning.rates import Work

__all__ = [
    "ENGINES",
    "CheckReport",
    "Cost",
    "Engine",
    "Explanation",
    "Plan",
    "ToleranceError",
    "Work",
    "convolve",
    "explain",
    "make_plan",
    "register",
    "require_engine",
]
