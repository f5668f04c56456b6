"""Which entry of which tensor is which channel: a network is run once, and labels follow its values.

Each tensor may have a label for each of its entries: the number of the channel that the entry belongs to, or -1. Labels
are held with length 1 along all axes on which they do not vary, as tensors that broadcast. What moves entries about
(reshape, cat, chunk, getitem, ...) is applied to the labels as it is; what combines entries (addition, products of
attention) makes channels one; layers with weights make new ones and note what lies along their weights' axes. A
function that is not known fixes the channels that it reads: the result is then smaller than it could be, never wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ccnn_irregular.integral.layout import Role

__all__ = ["AttributeUse", "Axis", "Call", "FunctionRule", "LayerRule", "Tracer", "Use"]


@dataclass(frozen=True)
class Axis:
    """The channels along one axis of a weight: labels ``(length,)``, or ``(cut, length)`` of a grouped convolution."""

    labels: np.ndarray
    role: Role = "samples"

    @property
    def cut(self) -> int:
        """Blocks of channels that meet the same entries of the weight."""
        return len(self.labels) if self.labels.ndim == 2 else 1


@dataclass(frozen=True)
class Use:
    """What lies along the axes of one parameter or buffer; ``split`` gives an axis several factors."""

    name: str
    axes: dict[int, Axis]
    split: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class AttributeUse:
    """A number of channels that a module holds."""

    module: str
    attribute: str
    factors: tuple[np.ndarray, ...]
    each: bool = False


@dataclass
class Call:
    """One call of a function or of a layer that is followed as a whole."""

    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    result: Any
    function: Callable[..., Any] | None = None
    module: nn.Module | None = None

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument given by its place or by its name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [leaf for leaf in tree_leaves((list(self.args), self.kwargs)) if isinstance(leaf, Tensor)]

    @property
    def results(self) -> list[Tensor]:
        """All tensors among the results."""
        return [leaf for leaf in tree_leaves(self.result) if isinstance(leaf, Tensor)]


FunctionRule = Callable[["Tracer", Call], None]
LayerRule = Callable[["Tracer", Call], None]


class Tracer(TorchFunctionMode):
    """Labels of all tensors of one forward pass, and what they say about channels.

    Args:
        model: the network.
        functions: rules by the function's name.
        layers: rules of layers that are followed as a whole, by class.
        opaque: names of modules that stay as they are: what they read is fixed, what they make is unlabelled.

    Attributes:
        atoms: number of labels given so far.
        same: pairs of arrays of labels that are one channel each.
        fixed: labels that cannot be resized, and why.
        blocks: arrays ``(blocks, members)``: rows keep their places.
        tied: pairs of arrays whose groups have equal numbers of channels.
        uses: by parameter.
        attributes: numbers of channels that modules hold.
        weighed: labels of channels that are summed over with others: their weights carry the quadrature.
    """

    def __init__(
        self,
        model: nn.Module,
        functions: dict[str, FunctionRule],
        layers: dict[type[nn.Module], LayerRule],
        opaque: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.functions = functions
        self.layers = layers
        self.opaque = tuple(opaque)
        self.names = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
        self.shared = _shared_names(model)
        # Weights of layers that are followed as a whole: who evaluates them outside (to plan, say) tells nothing.
        self._private = {
            id(tensor)
            for module in model.modules()
            if type(module) in layers
            for tensor in [*module.parameters(), *module.buffers()]
        }
        self.modules = {id(module): name for name, module in model.named_modules()}
        self.atoms = 0
        self.same: list[tuple[np.ndarray, np.ndarray]] = []
        self.fixed: list[tuple[np.ndarray, str]] = []
        self.blocks: list[np.ndarray] = []
        self.tied: list[tuple[np.ndarray, np.ndarray]] = []
        self.uses: dict[str, Use] = {}
        self.attributes: list[AttributeUse] = []
        self.weighed: list[tuple[np.ndarray, Role]] = []
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}  # the tensors too, lest their addresses be used again
        self._depth = 0
        self._in_layer = False
        self._stack: list[str] = []

    def trace(self, run: Callable[[], Any]) -> None:
        """Follow one pass; what it returns is fixed."""
        with self._followed(), torch.no_grad(), self:
            outputs = run()
        for output in _tensors(outputs):
            self.fix(self.labels(output), "outputs of the network")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._depth == 0:
            self._follow(Call(_name(func), args, kwargs or {}, result, func))
        return result

    def labels(self, tensor: object) -> Tensor | None:
        """Labels of a tensor, as many axes as it has; None = no channels."""
        known = self._labels.get(id(tensor))
        return None if known is None else known[1]

    def set_labels(self, tensor: Tensor, labels: Tensor | None) -> None:
        """Label a tensor."""
        labels = None if labels is None else compressed(labels)
        if labels is None:
            self._labels.pop(id(tensor), None)
        else:
            self._labels[id(tensor)] = (tensor, labels)

    def along(self, tensor: Tensor, axis: int) -> np.ndarray | None:
        """Labels along one axis, ``(length,)``; labels that vary along others too are fixed, as none."""
        labels = self.labels(tensor)
        if labels is None:
            return None
        axis %= tensor.ndim
        if any(length > 1 for other, length in enumerate(labels.shape) if other != axis):
            self.fix(labels, f"laid over several axes where {self.where} reads one")
            return None
        return labels.flatten().expand(tensor.shape[axis]).numpy().copy()

    def made(self, tensor: Tensor, axis: int, labels: np.ndarray | None) -> None:
        """Label a result along one axis."""
        if labels is None:
            self.set_labels(tensor, None)
            return
        shape = [1] * tensor.ndim
        shape[axis % tensor.ndim] = -1
        self.set_labels(tensor, torch.from_numpy(labels.copy()).reshape(shape))

    def new(self, count: int) -> np.ndarray:
        """New channels."""
        self.atoms += count
        return np.arange(self.atoms - count, self.atoms)

    def name(self, tensor: object) -> str | None:
        """Name of a parameter or buffer."""
        hidden = id(tensor) in self._private and not self._in_layer
        return None if hidden else self.names.get(id(tensor))

    @property
    def where(self) -> str:
        """The module that is running, for messages."""
        return repr(self._stack[-1] or type(self.model).__name__) if self._stack else "the network"

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Make channels one, pair by pair; a channel that meets none is fixed."""
        both = (a >= 0) & (b >= 0)
        self.same.append((a[both], b[both]))
        for one, other in ((a, b), (b, a)):
            self.fix(one[(one >= 0) & (other < 0)], f"joined with values of fixed channels in {self.where}")

    def fix(self, labels: Tensor | np.ndarray | None, reason: str) -> None:
        """Note channels that cannot be resized."""
        if labels is None:
            return
        flat = np.asarray(labels).reshape(-1)
        flat = np.unique(flat[flat >= 0])
        if len(flat):
            self.fixed.append((flat, reason))

    def keep_blocks(self, labels: Tensor, axes: Sequence[int]) -> None:
        """Let the slices of ``labels`` along ``axes`` keep their places."""
        moved = labels.movedim(tuple(axes), tuple(range(len(axes)))).flatten(0, len(axes) - 1)
        self.blocks.append(moved.flatten(1).numpy().copy())

    def use(
        self,
        weight: Tensor | None,
        axes: dict[int, np.ndarray | tuple[np.ndarray | None, Role] | None],
        split: dict[int, tuple[int, ...]] | None = None,
    ) -> None:
        """Note what lies along the axes of a weight; a computed weight or one that is used twice may fix channels.

        Args:
            weight: a parameter or buffer of the network.
            axes: by axis (of the split tensor), labels and what is done with it.
            split: by axis of the tensor, the factors it is a product of.
        """
        if weight is None:
            return
        found: dict[int, Axis] = {}
        for number, given in axes.items():
            labels, role = given if isinstance(given, tuple) else (given, "samples")
            if labels is not None:
                found[number] = Axis(labels, role)
        if not found:
            return
        name = self.name(weight)
        if name is None:
            for axis in found.values():
                self.fix(axis.labels, f"read by a weight that {self.where} computes in every pass")
            return
        if name in self.shared:
            for axis in found.values():
                self.fix(axis.labels, f"along {name}, which several layers share")
            return
        before = self.uses.get(name)
        if before is None:
            self.uses[name] = Use(name, found, split or {})
            return
        for number in before.axes.keys() | found.keys():
            pair = [one.axes.get(number) if isinstance(one, Use) else one.get(number) for one in (before, found)]
            if any(label is None or label.role != pair[0].role or label.cut > 1 for label in pair):  # type: ignore[union-attr]
                for label in pair:
                    self.fix(None if label is None else label.labels, f"along {name}, which is used in two ways")
            else:
                self.unite(pair[0].labels, pair[1].labels)  # type: ignore[union-attr]

    def outputs_of(self, weight: Tensor, axis: int, count: int) -> np.ndarray:
        """Channels that a weight makes: new ones in its first use, the same ones in every other."""
        before = self.uses.get(self.name(weight) or "")
        if before is not None and axis in before.axes:
            return before.axes[axis].labels.reshape(-1)
        return self.new(count)

    def _follow(self, call: Call) -> None:
        if not call.results:
            return
        rule = self.functions.get(call.name)
        if rule is not None:
            rule(self, call)
            return
        for tensor in call.tensors:
            self.fix(self.labels(tensor), f"read by {call.name!r} in {self.where}, which is not known")

    @contextlib.contextmanager
    def _followed(self) -> Iterator[None]:
        """Call the rules of layers, and know which module runs."""
        handles = []
        for name, module in self.model.named_modules():
            rule = _opaque if name in self.opaque else self.layers.get(type(module))
            handles += [
                module.register_forward_pre_hook(self._entering(name, rule is not None), prepend=True),
                module.register_forward_hook(self._leaving(rule), with_kwargs=True),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, name: str, leaf: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: object) -> None:
            self._stack.append(name)
            self._depth += leaf

        return hook

    def _leaving(self, rule: LayerRule | None) -> Callable[..., None]:
        def hook(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
            if rule is not None:
                self._depth -= 1
                if self._depth == 0:
                    self._in_layer = True
                    with torch._C.DisableTorchFunction():
                        rule(self, Call(type(module).__name__, args, kwargs, result, module=module))
                    self._in_layer = False
            self._stack.pop()

        return hook


def _shared_names(model: nn.Module) -> set[str]:
    """First names of parameters that several modules hold."""
    owners: dict[int, str] = {}
    shared = set()
    for path, module in model.named_modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            full = f"{path}.{name}" if path else name
            if id(tensor) in owners:
                shared.add(owners[id(tensor)])
            owners.setdefault(id(tensor), full)
    return shared


def compressed(labels: Tensor) -> Tensor | None:
    """Labels with length 1 along all axes on which they do not vary; None if there are none."""
    for axis, length in enumerate(labels.shape):
        first = labels.narrow(axis, 0, min(length, 1))
        if length > 1 and bool((labels == first).all()):
            labels = first
    return labels if labels.numel() and int(labels.max()) >= 0 else None


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _name(function: Any) -> str:
    """Name of a function, method or attribute of tensors without underscores: ``add`` for ``Tensor.__iadd__``."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        return "attribute " + getattr(function.__self__, "__name__", "")
    special = name.startswith("__")
    name = name.strip("_")
    return name[1:] if special and name[1:] in _REFLECTED and name[0] in "ri" else name


_REFLECTED = {"add", "sub", "mul", "truediv", "floordiv", "div", "pow", "matmul", "mod", "and", "or", "xor"}


def _opaque(tracer: Tracer, call: Call) -> None:
    for tensor in call.tensors:
        tracer.fix(tracer.labels(tensor), f"read by {tracer.where}, which stays as it is")
    for result in call.results:
        tracer.set_labels(result, None)
