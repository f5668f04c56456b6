"""The ways to evaluate the sum, one file or folder each, and what they have in common."""

from ccnn_irregular.operators.engines.engine import Cost, Engine, Plan
from ccnn_irregular.operators.engines.fft import FFT
from ccnn_irregular.operators.engines.keops import KeOps
from ccnn_irregular.operators.engines.neighbours import Neighbours
from ccnn_irregular.operators.engines.reference import Reference
from ccnn_irregular.operators.engines.registry import ENGINES, register, require_engine
from ccnn_irregular.operators.engines.spectral import Spectral

__all__ = ["ENGINES", "Cost", "Engine", "Plan", "register", "require_engine"]

# In this order "auto" looks at them: what costs least to assess comes first.
for _engine in (Reference(), Neighbours(), KeOps(), FFT(), Spectral()):
    register(_engine)
