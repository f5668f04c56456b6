"""``KernelSpec``: the recipe of kernels as one value, which networks and configurations hand on."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, cast

import torch

from ccnn_irregular._checks import reject, require
from ccnn_irregular._registry import require_known
from ccnn_irregular.kernels.generators import GENERATORS, Generator, MAGNet
from ccnn_irregular.kernels.isotropic import Isotropic
from ccnn_irregular.kernels.kernel import Kernel
from ccnn_irregular.kernels.masks import MASKS, Mask

__all__ = ["KernelSpec"]

# Width over extent of the published masks (arXiv 2301.10540).
_PUBLISHED_WIDTH = 0.075
# Centres of MAGNet's filters spread over this many initial mask widths (arXiv 2206.03398).
_SPREAD_IN_WIDTHS = 1.667


# Not @final: jsonargparse takes no value of a final class for the default of an argument.
@dataclass(frozen=True)
class KernelSpec:
    """Recipe of kernels, a generator under a Gaussian mask of learned width: call it with a number of channels.

    ``KernelSpec(extent=[8.0, 8.0], width=[3.0, 3.0], omega_0=3.0)(16)`` is a depthwise kernel of 16 channels, its
    weights drawn anew in every call. Networks take a recipe as ``kernel`` and build each of their kernels by it; in a
    configuration it is nested keys, ``kernel: {extent: [8.0, 8.0], omega_0: 3.0}``, and what is left out stays as the
    network has it.

    Args:
        extent: coordinate units per generator unit, one number or one per axis; sets the kernel's finest detail with
            ``omega_0``. None = where the mask ends at first.
        width: initial standard deviation of the mask, coordinate units, one number or one per axis. None = 0.075 of the
            extent, as published.
        omega_0: frequency of the generator, per extent; its unit is the generator's.
        generator: a name in ``GENERATORS``: "magnet", "siren", "random_fourier", "mlp", or one that was registered.
        hidden: width of the generator's hidden layers.
        mask: "smooth" reaches zero without a step, "cropped" is the published one (see ``GaussianMask``), "none" leaves
            the generator as it is, as far as the domain reaches; ``width`` then only places MAGNet's filters. Or
            another name in ``MASKS``.
        threshold: value of the Gaussian at which the mask ends. None = the mask's own: 0.01, for "cropped" 0.1.
        learned_mean: let the mask's centre, zero at first, be learned.
        causal: zero for the future along axis 0.
        isotropic: depend on the distance alone, see ``Isotropic``; extent and width are the same on all axes.

    Raises:
        ValueError: a length that is not positive, an unknown name, or options that exclude each other; the message
            names the argument as ``kernel.width``.
    """

    extent: float | Sequence[float] | None = None
    width: float | Sequence[float] | None = None
    omega_0: float = 100.0
    generator: str = "magnet"
    hidden: int = 32
    mask: str = "smooth"
    threshold: float | None = None
    learned_mean: bool = False
    causal: bool = False
    isotropic: bool = False

    def __post_init__(self) -> None:
        for name in ("extent", "width"):
            object.__setattr__(self, name, _lengths(f"kernel.{name}", getattr(self, name)))
        counts = {len(length_of) for length_of in (self.extent, self.width) if isinstance(length_of, tuple)}
        require(len(counts) < 2, "kernel.width", "have one entry per axis, as kernel.extent has", self.width)
        require_known(GENERATORS, "kernel.generator", self.generator)
        require_known(MASKS, "kernel.mask", self.mask, besides=("none",))
        given = self.extent is not None or (self.width is not None and self.mask != "none")
        require(given, "kernel.extent", "be given, or kernel.width of a kernel with a mask", self.extent)
        require(self.omega_0 > 0, "kernel.omega_0", "be positive", self.omega_0)
        require(self.hidden >= 1, "kernel.hidden", "be at least 1", self.hidden)
        threshold = self.threshold is None or 0 < self.threshold < 1
        require(threshold, "kernel.threshold", "lie between 0 and 1", self.threshold)
        unmasked = self.mask == "none"
        require(not (self.learned_mean and unmasked), "kernel.learned_mean", "be False without a mask", True)
        if not unmasked:
            taken = inspect.signature(MASKS[self.mask]).parameters
            has_mean, has_threshold = "mean" in taken, "threshold" in taken
            rule = f"be False for mask {self.mask!r}, whose centre is no argument"
            require(has_mean or not self.learned_mean, "kernel.learned_mean", rule, True)
            rule = f"be None for mask {self.mask!r}, which has no threshold"
            require(has_threshold or self.threshold is None, "kernel.threshold", rule, self.threshold)
        if self.isotropic:
            self._require_no_direction()

    def _require_no_direction(self) -> None:
        """Refuse what makes a kernel depend on more than the distance."""
        rule = "be False for isotropic kernels, which know no direction"
        require(not self.causal, "kernel.causal", rule, True)
        require(not self.learned_mean, "kernel.learned_mean", rule, True)
        radial = self.mask in ("smooth", "radial", "none")
        require(radial, "kernel.mask", "be 'smooth', 'radial' or 'none' for isotropic kernels", repr(self.mask))
        for name, length in (("kernel.extent", self.extent), ("kernel.width", self.width)):
            alike = not isinstance(length, tuple) or len(set(length)) == 1
            require(alike, name, "be the same on all axes for isotropic kernels", length)

    def __repr__(self) -> str:
        always = ("extent", "width", "omega_0", "generator")
        shown = [
            field.name for field in fields(self) if field.name in always or getattr(self, field.name) != field.default
        ]
        return f"KernelSpec({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __call__(self, channels: int, out_channels: int | None = None) -> Kernel:
        """A depthwise kernel of ``channels`` channels, or a full one from them to ``out_channels``.

        It has as many axes as extent or width has entries, one where they are numbers; see ``on_axes``.
        """
        require(channels >= 1, "channels", "be at least 1", channels)
        require(out_channels is None or out_channels >= 1, "out_channels", "be at least 1", out_channels)
        d = next((len(length_of) for length_of in (self.extent, self.width) if isinstance(length_of, tuple)), 1)
        extent, width = self._extent_and_width(d)
        shape = (channels,) if out_channels is None else (out_channels, channels)
        relative = max(w / e for w, e in zip(width, extent, strict=True))
        generator = self._generator(d, math.prod(shape), relative)
        return Kernel(generator, self._mask(width), extent=extent, shape=shape, causal_axes=(0,) if self.causal else ())

    def on_axes(self, d: int) -> KernelSpec:
        """The recipe for ``d`` axes: with one extent and one width per axis.

        Raises:
            ValueError: another number of entries than of axes.
        """
        return self.scaled((1.0,) * d)

    def scaled(self, lengths: Sequence[float]) -> KernelSpec:
        """The recipe with extent and width times a length per axis, for networks that state them in steps of a grid.

        Raises:
            ValueError: another number of entries than of lengths.
        """
        return replace(
            self,
            extent=_times("kernel.extent", self.extent, lengths),
            width=_times("kernel.width", self.width, lengths),
        )

    def _extent_and_width(self, d: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Both per axis, the one that was not given by the other."""
        extent, width = (_times("", length_of, (1.0,) * d) for length_of in (self.extent, self.width))
        if width is None:
            assert extent is not None
            width = tuple(_PUBLISHED_WIDTH * length for length in extent)
        if extent is None:
            with torch.device("cpu"):  # built on the meta device, a mask has no numbers
                mask = self._mask(width)
            assert mask is not None
            extent = tuple(mask.support.tolist())
        return extent, width

    def _generator(self, d: int, channels: int, relative_width: float) -> Generator:
        options: dict[str, Any] = {"hidden": self.hidden, "omega_0": self.omega_0}
        make = GENERATORS[self.generator]
        if make is MAGNet:
            options |= {"spread": _SPREAD_IN_WIDTHS * relative_width, "one_sided": self.causal}
        network = make(1 if self.isotropic else d, channels, **options)
        return Isotropic(network, d) if self.isotropic else network

    def _mask(self, width: tuple[float, ...]) -> Mask | None:
        if self.mask == "none":
            return None
        options: dict[str, Any] = {} if self.threshold is None else {"threshold": self.threshold}
        if self.learned_mean:
            options["mean"] = (0.0,) * len(width)
        name = "radial" if self.isotropic else self.mask
        try:
            mask = MASKS[name](width, **options)
        except TypeError as error:  # a mask that was registered without these options
            if not options:
                raise
            raise ValueError(f"kernel.mask must take {' and '.join(options)}, got {name!r}: {error}") from error
        made = type(mask).__name__
        require(
            isinstance(mask, Mask), "kernel.mask", "name a function or class that makes a Mask", f"{name!r}: {made}"
        )
        return mask


def _lengths(name: str, given: float | Sequence[float] | None) -> float | tuple[float, ...] | None:
    """One positive number, or a tuple of them."""
    if given is None:
        return None
    single = isinstance(given, Real)
    rule = "be positive and finite, one number or one per axis"
    try:
        numbers = tuple(map(float, cast("Sequence[float]", [given] if single else given)))
    except (TypeError, ValueError):
        reject(name, rule, repr(given))
    fits = len(numbers) >= 1 and all(math.isfinite(number) and number > 0 for number in numbers)
    require(fits, name, rule, given)
    return numbers[0] if single else numbers


def _times(name: str, given: float | Sequence[float] | None, lengths: Sequence[float]) -> tuple[float, ...] | None:
    """One number per axis, times its length."""
    if given is None:
        return None
    numbers = tuple(given) if isinstance(given, Sequence) else (given,) * len(lengths)
    require(len(numbers) == len(lengths), name, f"be one number or one per axis, {len(lengths)}", numbers)
    return tuple(number * length for number, length in zip(numbers, lengths, strict=True))
