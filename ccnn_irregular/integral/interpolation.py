"""Functions of one axis given by their values at uniform nodes: separable convolution interpolation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular import _registry
from ccnn_irregular._checks import require

__all__ = ["INTERPOLATIONS", "Interpolation", "register_interpolation"]


@dataclass(frozen=True)
class Interpolation:
    """f(u) = sum_i f_i kernel(u - i), with nodes at whole numbers u = 0, 1, ...

    Beyond either end the nodes are continued by the polynomial of degree ``order - 1`` through the nearest ``order``
    nodes, so that the interpolation is as exact at the ends as in between.

    Attributes:
        order: polynomials of lower degree than this are reproduced exactly; the error of smooth functions falls as
            the distance of the nodes to this power.
        reach: the kernel is zero from this distance on.
        kernel: values at distances ``|u - i|``, 1 at 0 and 0 at all other whole numbers.
    """

    order: int
    reach: int
    kernel: Callable[[Tensor], Tensor]

    def matrix(self, places: Tensor, count: int) -> Tensor:
        """The values at ``places`` as a linear map of the values at the nodes.

        Args:
            places: float64 ``(m,)``, in steps from the first node, at most one step beyond either end; gradients flow
                to them.
            count: number of nodes.

        Returns:
            float64 ``(m, count)``.

        Raises:
            ValueError: no node.
        """
        require(count >= 1, "count", "be at least 1", count)
        nodes = torch.arange(-self.reach, count + self.reach, dtype=torch.float64, device=places.device)
        values = self.kernel((places[:, None] - nodes).abs())
        return values @ self._continuation(count).to(places.device)

    def _continuation(self, count: int) -> Tensor:
        """``(count + 2 reach, count)``: the nodes and their continuations beyond both ends."""
        through = min(self.order, count)
        beyond = np.stack([_lagrange(-step, through) for step in range(self.reach, 0, -1)])
        whole = np.zeros((count + 2 * self.reach, count))
        whole[self.reach : self.reach + count] = np.eye(count)
        whole[: self.reach, :through] = beyond
        whole[self.reach + count :, count - through :] = beyond[::-1, ::-1]
        return torch.from_numpy(whole)


def _lagrange(place: float, count: int) -> np.ndarray:
    """Weights of the polynomial through the nodes 0 ... count - 1, at ``place``."""
    nodes = np.arange(count)
    return np.array([np.prod([(place - other) / (node - other) for other in nodes if other != node]) for node in nodes])


def _hat(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _keys(distance: Tensor) -> Tensor:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def _keys_wide(distance: Tensor) -> Tensor:
    near = (4 / 3 * distance - 7 / 3) * distance**2 + 1
    middle = ((-7 / 12 * distance + 3) * distance - 59 / 12) * distance + 2.5
    far = ((1 / 12 * distance - 2 / 3) * distance + 7 / 4) * distance - 1.5
    return torch.where(distance < 1, near, torch.where(distance < 2, middle, torch.where(distance < 3, far, 0.0)))


INTERPOLATIONS: dict[str, Interpolation] = {}
"""All interpolations by name.

"linear" is exact on lines. "cubic" is the cubic convolution of four nodes (Keys, IEEE Trans. ASSP 29(6), 1981, with
a = -1/2): order 3, exact on parabolas. "cubic_wide" is its form of six nodes: order 4, exact on cubics.
"""


def register_interpolation(name: str, interpolation: Interpolation) -> None:
    """Add a way to interpolate, which ``convert`` and ``SampledWeight`` know by its name from then on.

    Raises:
        ValueError: a name that is no word in small letters, or that of another one.
    """
    _registry.add(INTERPOLATIONS, "an interpolation", name, interpolation)


register_interpolation("linear", Interpolation(2, 1, _hat))
register_interpolation("cubic", Interpolation(3, 2, _keys))
register_interpolation("cubic_wide", Interpolation(4, 3, _keys_wide))
