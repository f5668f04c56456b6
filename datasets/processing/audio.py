"""Recordings: the samples of a wave file, another sampling rate, and mel-frequency cepstral coefficients.

The coefficients are computed with torch and SciPy: torchaudio's published builds do not load beside a CPU build of
torch, and librosa would bring a compiler for the sake of one filter bank.
"""

from __future__ import annotations

import io
import math
import wave
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from scipy.fft import dct
from scipy.signal import resample_poly

from ccnn_irregular._checks import require
from ccnn_irregular._files import parsing
from ccnn_irregular.datasets.processing.low_pass import extended, low_pass_weights, reach
from ccnn_irregular.datasets.samples import GriddedSamples
from ccnn_irregular.domains import Grid

__all__ = ["mfcc", "read_wave", "resample"]

_LONGEST_RATIO = 10_000  # a ratio of rates with larger terms needs a filter of millions of taps
_SAME_RATIO = 1e-9  # relative: rounding of 1 / step must not spoil a simple ratio
_EXTENSIBLE, _UNKNOWN = b"\xfe\xff", 2**32 - 1
_SMALLEST_POWER = 1e-6
_BATCH = 256
_VALUES_AT_ONCE = 2**22


def read_wave(name: str, content: bytes, rate: int) -> np.ndarray:
    """The samples of a wave file, int16 ``(n,)``.

    Args:
        name: what an error calls the file.
        content: the file's bytes: one channel, 16-bit integers (PCM).
        rate: samples per second that the file must have.

    Raises:
        ValueError: the file is truncated, no wave file or of another kind.
    """
    with parsing(name, "wave file"), wave.open(io.BytesIO(_plain(content))) as file:
        kind = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
        announced = file.getnframes()
        data = file.readframes(announced)
    require(
        kind == (1, 16, rate), name, f"have 1 channel, 16 bits, {rate} Hz", "{} channels, {} bits, {} Hz".format(*kind)
    )
    require(len(data) == 2 * announced, name, f"hold the {announced} samples it announces", len(data) // 2)
    require(announced > 0, name, "hold at least one sample", "none")
    return np.frombuffer(data, "<i2")


def _plain(content: bytes) -> bytes:
    """A wave file as Python's reader takes it: PCM by its plain name, and sizes that were not known when it was piped.

    WAVE_FORMAT_EXTENSIBLE tells PCM by the first two bytes of an identifier. Programs that write to a pipe leave the
    largest number, or 0, where a size belongs: the samples then go on to the end of the file.
    """
    changed, place = bytearray(content), 12
    while content[:4] == b"RIFF" and place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        left = len(content) - place - 8
        if content[place : place + 4] == b"fmt " and content[place + 8 : place + 10] == _EXTENSIBLE:
            changed[place + 8 : place + 10] = content[place + 32 : place + 34]
        if content[place : place + 4] == b"data" and size in (0, _UNKNOWN) and left > 0:
            changed[place + 4 : place + 8] = left.to_bytes(4, "little")
            changed[4:8] = (len(content) - 8).to_bytes(4, "little")
            break
        place += 8 + size + size % 2
    return bytes(changed)


def resample(values: np.ndarray, from_rate: float, to_rate: float, *, smooth: bool = True) -> np.ndarray:
    """Samples along the last axis at another rate: n of them become ``ceil(n * to_rate / from_rate)``.

    New sample k lies k / ``to_rate`` after the first old one, which keeps its time and its value. What lies below 90 %
    of the lower Nyquist frequency stays what it is within 0.0002 of its amplitude, what lies above that frequency is
    weakened by at least 75 dB; constants and ramps stay what they are up to the ends. Both figures hold where the
    filter, 51 samples of the lower rate to either side, lies on the series. Within that distance of an end the series
    is taken to go on as its mirror image about its last sample, so that the first sample may hold what a filter would
    have taken.

    Args:
        values: floats ``(..., n)``, finite where they are filtered.
        from_rate: samples per second of ``values``.
        to_rate: samples per second wanted; any rational ratio with terms up to 10,000.
        smooth: filter out what the new rate cannot hold. False keeps every k-th sample as it is, aliased, as the
            published experiments on lower rates do.

    Returns:
        Samples of the dtype of ``values``; filtered ones are computed in float64.

    Raises:
        ValueError: a rate that is not positive, too odd a ratio, or ``smooth=False`` with a ratio that is no 1 / k;
            values that are no floats or not finite, which a filter would spread.
    """
    require(from_rate > 0 and to_rate > 0, "rates", "be positive", (from_rate, to_rate))
    exact = to_rate / from_rate
    ratio = Fraction(exact).limit_denominator(_LONGEST_RATIO)
    simple = 0 < ratio.numerator <= _LONGEST_RATIO and abs(ratio / exact - 1) <= _SAME_RATIO
    nearest = f"{from_rate * float(ratio):.9g}"
    rule = f"be p / q times {from_rate:g} with whole numbers up to {_LONGEST_RATIO:,}, such as {nearest}"
    require(simple, "to_rate", rule, to_rate)
    length = values.shape[-1]
    if ratio == 1 or length == 0:
        return values
    if not smooth:
        require(ratio.numerator == 1, "to_rate", f"be {from_rate} divided by an integer without smoothing", to_rate)
        return values[..., :: ratio.denominator]
    require(np.issubdtype(values.dtype, np.floating), "values", "be floats to be resampled", values.dtype)
    missing = values.size - int(np.isfinite(values).sum())
    require(missing == 0, "values", "be finite to be resampled", f"{missing} of {values.size} missing or infinite")
    rows = values.reshape(-1, length)
    result = np.empty((len(rows), math.ceil(length * ratio)), values.dtype)
    at_once = max(1, _VALUES_AT_ONCE // length)
    for start in range(0, len(rows), at_once):
        result[start : start + at_once] = _filtered(rows[start : start + at_once].astype(np.float64), ratio)
    return result.reshape(*values.shape[:-1], -1)


def _filtered(rows: np.ndarray, ratio: Fraction) -> np.ndarray:
    """Each row at ``ratio`` times its rate, in float64."""
    up, down = ratio.numerator, ratio.denominator
    # Whole periods of the two rates in front, so that the first sample stays one.
    margin = down * math.ceil((reach(float(ratio)) + 1) / down)
    first = rows[:, :1]
    new = resample_poly(extended(rows - first, margin), up, down, axis=-1, window=_polyphase(ratio))
    start = margin * up // down
    return new[:, start : start + math.ceil(rows.shape[1] * ratio)] + first


@lru_cache(maxsize=8)
def _polyphase(ratio: Fraction) -> np.ndarray:
    """The filter at ``ratio.numerator`` times the old rate, as ``scipy.signal.resample_poly`` takes it."""
    up, taps = ratio.numerator, reach(float(ratio)) + 1
    offsets = np.arange(-taps, taps + 1) + np.arange(up)[:, None] / up
    filters = low_pass_weights(offsets, float(ratio))
    return filters.T.ravel()[: 2 * taps * up + 1] / up


def mfcc(
    recordings: GriddedSamples,
    *,
    coefficients: int = 20,
    mels: int = 64,
    window: float = 0.0125,
    hop: float = 0.00625,
) -> GriddedSamples:
    """Mel-frequency cepstral coefficients, a series of ``coefficients`` channels at one node per hop.

    Power spectra of Hann windows centred on the nodes (the ends mirrored), summed in triangles that are spread evenly
    on the mel scale 2595 log10(1 + f / 700) from 0 to half the rate; the natural logarithm of 1e-6 plus that; the
    orthonormal DCT-II. The defaults are what the published experiments on Speech Commands use at 16 kHz (windows of
    200 samples, a hop of 100), stated in seconds: 161 nodes for one second.

        Davis SB, Mermelstein P. Comparison of parametric representations for monosyllabic word recognition in
        continuously spoken sentences. IEEE Transactions on ASSP 28(4), 1980.

    Args:
        recordings: values ``(B, 1, n)`` on an axis in seconds.
        coefficients: channels of the result, at most ``mels``.
        mels: triangles.
        window: length of a window in seconds.
        hop: distance of the nodes in seconds.

    Raises:
        ValueError: recordings with several channels or axes, or not in seconds; a window or hop of less than one
            sample, or a window longer than the recording.
    """
    grid, shape = recordings.grid, tuple(recordings.values.shape)
    require(grid.d == 1 and shape[1] == 1, "recordings", "have values (B, 1, n)", shape)
    require(recordings.unit == "s", "recordings", "have coordinates in seconds", repr(recordings.unit))
    require(1 <= coefficients <= mels, "coefficients", f"lie in 1..{mels}", coefficients)
    rate = 1 / grid.steps[0]
    length, stride = round(window * rate), round(hop * rate)
    require(2 <= length <= grid.count, "window", f"cover 2 to {grid.count} samples at {rate:g} Hz", length)
    require(stride >= 1, "hop", f"be at least one sample at {rate:g} Hz", hop)
    filters = torch.from_numpy(_mel_filters(mels, length, rate)).to(torch.float32)
    cosines = torch.from_numpy(dct(np.eye(mels), norm="ortho")[:, :coefficients]).to(torch.float32)
    taper = torch.hann_window(length, dtype=torch.float32)
    parts = []
    for batch in recordings.values[:, 0].split(_BATCH):
        spectra = torch.stft(batch, length, stride, window=taper, center=True, return_complex=True)
        energies = torch.einsum("bft,fm->btm", spectra.abs().square(), filters)
        parts.append(((energies + _SMALLEST_POWER).log() @ cosines).transpose(1, 2))
    values = torch.cat(parts)
    return GriddedSamples(
        values=values,
        grid=Grid((values.shape[2],), (stride * grid.steps[0],), grid.starts),
        labels=recordings.labels,
        classes=recordings.classes,
        unit=recordings.unit,
    )


def _mel_filters(mels: int, length: int, rate: float) -> np.ndarray:
    """Weights of the frequencies of a window in each triangle, ``(length // 2 + 1, mels)``, peak 1."""
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, mels + 2) / 2595) - 1)
    frequencies = np.arange(length // 2 + 1)[:, None] * rate / length
    rising = (frequencies - corners[:-2]) / np.diff(corners)[:-1]
    falling = (corners[2:] - frequencies) / np.diff(corners)[1:]
    return np.maximum(0, np.minimum(rising, falling))
