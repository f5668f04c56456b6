"""Simulated stand-ins for the data sets of strokes, recordings and images: small, seeded, learnable, measured nowhere.

They come in the same containers and units as the real ones, for tests, examples and method studies. Each sample is a
function of continuous time or space that is looked up at the samples: the same seed at another rate or size gives the
same strokes, sounds and shapes (with other noise), to use a network at another rate than it was trained at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries
from ccnn_irregular.domains import Grid

__all__ = ["DIGITS", "SHAPES", "STROKES", "pen_strokes", "shapes", "spoken_digits"]

# Stroke: cycles along x and along y, and the phase between them as a part of a cycle.
STROKES: dict[str, tuple[float, float, float]] = {
    "bow": (1.0, 2.0, 0.0),
    "circle": (1.0, 1.0, 0.25),
    "dash": (1.0, 1.0, 0.0),
    "fish": (2.0, 3.0, 0.25),
    "knot": (3.0, 2.0, 0.0),
    "wave": (0.5, 2.5, 0.0),
}
# Digit: frequencies in Hz at the start and at the end of its two chirps. All stay below 1,500 Hz, for rates from 4 kHz.
DIGITS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "0": ((300, 300), (800, 800)),
    "1": ((300, 600), (800, 800)),
    "2": ((600, 300), (800, 800)),
    "3": ((300, 300), (800, 1300)),
    "4": ((300, 300), (1300, 800)),
    "5": ((300, 600), (800, 1300)),
    "6": ((600, 300), (1300, 800)),
    "7": ((300, 600), (1300, 800)),
    "8": ((600, 300), (800, 1300)),
    "9": ((600, 600), (1300, 1300)),
}
SHAPES = ("cross", "disc", "ring", "square", "triangle")

_EXTENT = 28.0  # side of an image, in the unit of its coordinates


def pen_strokes(count: int = 300, *, seed: int = 0, rate: float = 200.0, noise: float = 0.05) -> RaggedSeries:
    """Lissajous figures drawn in 0.3 to 0.9 s, in the form of the Character Trajectories.

    Each is turned by up to 0.3 rad, scaled by 0.8 to 1.2 and drawn at a speed that varies along the way.

    Args:
        count: strokes; classes (STROKES) are as equally frequent as they can be, in random order.
        seed: of everything, not negative.
        rate: samples per second.
        noise: standard deviation of the noise on every value; the signals have a size of about 1.

    Returns:
        Values ``(N, 3)``: velocities along x and y, and the rate of change of the force; times in seconds.
    """
    rng, labels = _start(count, len(STROKES), seed)
    require(rate > 0, "rate", "be positive", rate)
    duration = rng.uniform(0.3, 0.9, count)
    angle, size = rng.uniform(-0.3, 0.3, count), rng.uniform(0.8, 1.2, count)
    unevenness, shift = rng.uniform(0, 0.6, count), rng.uniform(0, 1, count)
    splits, stroke, times = _sampled(duration, rate)

    part = times / duration[stroke]
    cycles_x, cycles_y, phase = np.array(list(STROKES.values()))[labels[stroke]].T
    # Progress p(u) = u + e sin(2 pi (u + s)) / 2 pi rises because e < 1; its derivative scales the speed.
    turn = 2 * math.pi * (part + shift[stroke])
    progress = part + unevenness[stroke] * np.sin(turn) / (2 * math.pi)
    speed = size[stroke] * (1 + unevenness[stroke] * np.cos(turn))
    along_x = speed * cycles_x / 2 * np.cos(2 * math.pi * (cycles_x * progress + phase))
    along_y = speed * cycles_y / 2 * np.cos(2 * math.pi * cycles_y * progress)
    cosine, sine = np.cos(angle)[stroke], np.sin(angle)[stroke]
    pressing = np.cos(math.pi * part)  # the force itself goes as a sine: up from 0, and down to 0 at the end
    values = np.stack([cosine * along_x - sine * along_y, sine * along_x + cosine * along_y, pressing], axis=1)
    return _series(values + noise * rng.standard_normal(values.shape), splits, labels, tuple(STROKES), rate)


def spoken_digits(count: int = 200, *, seed: int = 0, rate: float = 8000.0, noise: float = 0.02) -> RaggedSeries:
    """Two chirps at once for 0.15 to 0.5 s, in the form of the Free Spoken Digits.

    Speakers differ in pitch by up to 8 per cent, in loudness and in how soon the sound fades.

    Args:
        count: recordings; classes (DIGITS) are as equally frequent as they can be, in random order.
        seed: of everything, not negative.
        rate: samples per second.
        noise: standard deviation of the noise; the signals stay within [-0.9, 0.9].

    Returns:
        Values ``(N, 1)``, times in seconds.
    """
    rng, labels = _start(count, len(DIGITS), seed)
    require(rate > 0, "rate", "be positive", rate)
    duration = rng.uniform(0.15, 0.5, count)
    pitch, loudness = rng.uniform(0.92, 1.08, count), rng.uniform(0.3, 0.9, count)
    fading = rng.uniform(0, 2, count)
    offsets = rng.uniform(0, 1, (2, count))
    splits, recording, times = _sampled(duration, rate)

    part = times / duration[recording]
    envelope = loudness[recording] * np.sin(math.pi * part) ** 0.5 * np.exp(-fading[recording] * part)
    chirps = pitch[:, None, None] * np.array(list(DIGITS.values()))[labels]  # (count, chirp, start and end)
    sound = np.zeros(len(times))
    for chirp in range(2):
        first, last = chirps[recording, chirp].T
        cycles = times * (first + (last - first) * part / 2) + offsets[chirp][recording]
        sound += envelope / 2 * np.sin(2 * math.pi * cycles)
    values = (sound + noise * rng.standard_normal(len(times)))[:, None]
    return _series(values, splits, labels, tuple(DIGITS), rate)


def shapes(count: int = 500, *, seed: int = 0, sizes: Sequence[int] = (28, 28), noise: float = 0.05) -> GriddedSamples:
    """White shapes on black, in the form of MNIST: of random place and size, turned by up to 0.4 rad.

    Args:
        count: images; classes (SHAPES) are as equally frequent as they can be, in random order.
        seed: of everything, not negative.
        sizes: pixels along y and x over the same extent of 28 x 28, so the steps follow.
        noise: standard deviation of the noise; the values are cut to [0, 1].

    Returns:
        Values ``(count, 1, *sizes)``, on a grid in units of 1/28 of the side.
    """
    rng, labels = _start(count, len(SHAPES), seed)
    require(len(sizes) == 2 and min(sizes) >= 1, "sizes", "be two positive integers", tuple(sizes))
    radius = rng.uniform(5.0, 8.0, count)
    centre = rng.uniform(10.0, _EXTENT - 10.0, (2, count))
    angle = rng.uniform(-0.4, 0.4, count)
    steps = [_EXTENT / size for size in sizes]
    grid = Grid(tuple(sizes), steps, [step / 2 for step in steps])
    y, x = (axis.nodes().numpy() for axis in grid.axes)
    down, right = (y - centre[0][:, None])[:, :, None], (x - centre[1][:, None])[:, None, :]
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = cosine * right + sine * down, cosine * down - sine * right
    distance = np.empty((count, *grid.sizes))
    for label, shape in enumerate(SHAPES):
        rows = labels == label
        distance[rows] = _signed_distance(shape, u[rows], v[rows], radius[rows][:, None, None])
    # One coarser pixel wide, the edge is as soft as a camera would see it.
    values = np.clip(0.5 - distance / max(steps), 0, 1) + noise * rng.standard_normal(distance.shape)
    return GriddedSamples(
        values=torch.from_numpy(np.clip(values, 0, 1).astype(np.float32))[:, None],
        grid=grid,
        labels=torch.from_numpy(labels),
        classes=SHAPES,
        unit="pixel of 28 x 28",
    )


def _signed_distance(shape: str, u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """About how far each place is outside the shape; negative inside."""
    if shape == "disc":
        return np.hypot(u, v) - radius
    if shape == "ring":
        return np.abs(np.hypot(u, v) - 0.8 * radius) - 0.2 * radius
    across, up = np.abs(u), np.abs(v)
    if shape == "square":
        return np.maximum(across, up) - 0.85 * radius
    if shape == "cross":
        thin, long = 0.25 * radius, radius
        return np.minimum(np.maximum(across - thin, up - long), np.maximum(across - long, up - thin))
    assert shape == "triangle"
    return np.maximum(v, math.sqrt(3) / 2 * across - v / 2) - 0.55 * radius


def _start(count: int, classes: int, seed: int) -> tuple[np.random.Generator, np.ndarray]:
    require(count >= 1, "count", "be at least 1", count)
    require(seed >= 0, "seed", "not be negative", seed)
    rng = np.random.default_rng(seed)
    return rng, rng.permutation(np.arange(count, dtype=np.int64) % classes)


def _sampled(duration: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits, and per row the series it belongs to and its time: from 0 on, while the series lasts."""
    lengths = np.floor(duration * rate).astype(np.int64) + 1
    splits = np.concatenate([[0], np.cumsum(lengths)])
    series = np.repeat(np.arange(len(duration)), lengths)
    return splits, series, (np.arange(splits[-1]) - splits[:-1][series]) / rate


def _series(
    values: np.ndarray, splits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], rate: float
) -> RaggedSeries:
    return RaggedSeries.uniform(
        values=torch.from_numpy(values.astype(np.float32)),
        step=1 / rate,
        splits=torch.from_numpy(splits.astype(np.int64)),
        labels=torch.from_numpy(labels),
        classes=classes,
        unit="s",
    )


register(
    DataSet(
        name="simulated_strokes",
        about="simulated pen strokes in the form of the Character Trajectories",
        load=pen_strokes,
        samples=RaggedSeries,
        shape="3 channels at 200 Hz",
    )
)
register(
    DataSet(
        name="simulated_digits",
        about="simulated recordings, two chirps each, in the form of the Free Spoken Digits",
        load=spoken_digits,
        samples=RaggedSeries,
        shape="1 channel at 8 kHz",
    )
)
register(
    DataSet(
        name="simulated_shapes",
        about="simulated images of shapes in the form of MNIST",
        load=shapes,
        samples=GriddedSamples,
        shape="1 channel in [0, 1] on 28 x 28 pixels",
    )
)
