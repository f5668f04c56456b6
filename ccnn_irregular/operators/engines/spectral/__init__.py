"""Engine "spectral": non-uniform FFT convolution."""

from ccnn_irregular.operators.engines.spectral.engine import Spectral

__all__ = ["Spectral"]
