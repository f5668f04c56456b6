"""Simulated shapes as pools of places: balls, boxes, cylinders, rings; measured on nothing, learnable, seeded."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import ShapePool

__all__ = ["SOLIDS", "solids"]

SOLIDS = ("ball", "box", "cylinder", "ring", "two balls")


def solids(count: int = 300, *, places: int = 512, seed: int = 0) -> ShapePool:
    """Simulated shapes, surfaces of ``SOLIDS``, turned about the vertical and stretched; measured on nothing.

    Args:
        count: shapes; classes are as equally frequent as they can be, in random order.
        places: on each shape.
        seed: of everything, not negative.
    """
    require(count >= 1, "count", "be at least 1", count)
    require(places >= 1, "places", "be at least 1", places)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(SOLIDS))
    shapes = []
    for label in labels.tolist():
        points = _solid(SOLIDS[label], places, rng) * rng.uniform(0.6, 1.0, 3)
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        shapes.append(torch.from_numpy(points @ turn.T))
    return ShapePool.of(shapes, torch.from_numpy(labels), SOLIDS)


def _solid(name: str, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points on a surface about the origin."""
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    angle, height = rng.uniform(0, 2 * np.pi, count), rng.uniform(-1, 1, count)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
    up = np.array([0.0, 0.0, 1.0])
    if name == "ball":
        return directions
    if name == "box":
        return directions / np.abs(directions).max(1, keepdims=True)
    if name == "cylinder":
        return circle + height[:, None] * up
    if name == "ring":
        return circle * 0.8 + 0.2 * directions
    return 0.5 * directions + np.where(height > 0, 0.5, -0.5)[:, None] * up


register(
    DataSet(
        name="simulated_solids",
        about="simulated balls, boxes, cylinders and rings in the form of ModelNet",
        load=solids,
        samples=ShapePool,
        shape="places in [-1, 1]^3",
    )
)
