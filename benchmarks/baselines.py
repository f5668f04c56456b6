"""The baselines that the engines are compared with, each as good as a careful user would write it.

A method is a class: made from an ``Instance`` it plans (geometry, edges, FFT plans), called with values it
convolves. All use the instance's own kernel, so that all have the same parameters to learn.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, final

import numpy as np
import torch
from problems import Instance
from scipy.spatial import cKDTree
from torch import Tensor

from ccnn_irregular import GaussianMask, Grid, Kernel, Points, convolve, make_plan
from ccnn_irregular.kernels import Generator
from ccnn_irregular.operators.numerics.transforms import fast_length

__all__ = ["METHODS", "Method"]


class Method(ABC):
    """One way to convolve.

    Attributes:
        requires: modules that are imported before the clock starts.
        note: what a reader of the row should know.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    note: str = ""

    @abstractmethod
    def __init__(self, instance: Instance) -> None:
        """Plan."""

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """The convolution, values and result in the convention of the instance's domain."""

    def parameters(self) -> list[Tensor]:
        """Tensors that learn, apart from the kernel's parameters."""
        return []


class _Engine(Method):
    """An engine of this package."""

    engine: ClassVar[Any]

    def __init__(self, instance: Instance) -> None:
        self.kernel, self.domain, self.rtol = instance.kernel, instance.domain, instance.rtol
        self.plan = make_plan(self.kernel, self.domain, engine=self.engine, rtol=self.rtol, batch=instance.entries)
        if self.engine == "auto":
            self.note = f"picked {self.plan.engine}"

    def __call__(self, values: Tensor) -> Tensor:
        return convolve(self.kernel, values, self.domain, rtol=self.rtol, plan=self.plan)


@final
class Auto(_Engine):
    engine = "auto"


@final
class Spectral(_Engine):
    engine = "spectral"


@final
class Neighbours(_Engine):
    engine = "neighbours"


@final
class Blocked(_Engine):
    engine = "reference"


@final
class KeOps(_Engine):
    """The formula a direct LazyTensor program would have: the engine adds nothing to it."""

    engine = "keops"
    requires = ("pykeops.torch",)


@final
class FFT(_Engine):
    engine = "fft"


@final
class FFTGivenKernel(_Engine):
    """The FFT engine with the kernel's samples looked up instead of evaluated: what is left is the convolution."""

    engine = "fft"
    note = "the kernel is sampled once, outside the clock"

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self._samples: dict[torch.Size, Tensor] = {}
        self._evaluate = instance.kernel.forward
        self.kernel = copy.deepcopy(instance.kernel)
        self.kernel.forward = self._remembered  # type: ignore[method-assign]

    def _remembered(self, offsets: Tensor) -> Tensor:
        samples = self._samples.get(offsets.shape)
        if samples is None:
            # Channels first in memory, as the transform reads them: to order them so is part of the sampling.
            samples = self._evaluate(offsets).detach().movedim(-1, 0).contiguous().movedim(0, -1).requires_grad_()
            self._samples[offsets.shape] = samples
        return samples

    def parameters(self) -> list[Tensor]:
        return list(self._samples.values())


@final
class _Unannounced(Generator):
    """The values of a masked kernel, without saying where they end."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel.d, kernel.out_channels)
        self.inside = kernel

    @property
    def output(self) -> torch.nn.Linear:
        return self.inside.generator.output

    def formula(self, offsets: Any, operations: Any) -> Any:
        return self.inside.formula(offsets * operations.vector(self.inside.extent), operations)


@final
class FFTUncropped(_Engine):
    """The FFT engine, kept from cropping: the same kernel, sampled wherever two nodes of the grid are apart."""

    engine = "fft"

    def __init__(self, instance: Instance) -> None:
        whole = Kernel(_Unannounced(instance.kernel), extent=instance.kernel.extent.tolist())
        whole = whole.to(instance.device, instance.kernel.dtype)
        super().__init__(Instance(whole, instance.values, instance.domain, instance.rtol))


@final
class BareFFT(Method):
    """irfftn(rfftn(values) rfftn(kernel)) of the size that keeps a circular convolution apart from itself.

    The kernel's samples are a given. The length is n + reach, made fast as the engine makes it: outputs that wrap are
    not wanted.
    """

    note = "the kernel is sampled once, outside the clock"

    def __init__(self, instance: Instance) -> None:
        assert isinstance(instance.domain, Grid)
        sizes, reaches = instance.domain.sizes, _reaches(instance)
        self.lengths = [
            fast_length(max(size + reach, 2 * reach + 1)) for size, reach in zip(sizes, reaches, strict=True)
        ]
        self.dims = tuple(range(-len(sizes), 0))
        with torch.no_grad():
            self.taps = _taps(instance, reaches).contiguous().requires_grad_()
        self.wanted = (..., *(slice(reach, reach + size) for size, reach in zip(sizes, reaches, strict=True)))

    def __call__(self, values: Tensor) -> Tensor:
        spectrum = torch.fft.rfftn(values, s=self.lengths, dim=self.dims)
        transfer = torch.fft.rfftn(self.taps, s=self.lengths, dim=self.dims)
        return torch.fft.irfftn(spectrum * transfer, s=self.lengths, dim=self.dims)[self.wanted]

    def parameters(self) -> list[Tensor]:
        return [self.taps]


@final
class DirectConvolution(Method):
    """``torch.nn.functional.conv2d/conv3d`` with the sampled kernel, depthwise, the channels last in memory.

    In the contiguous layout the same takes up to twenty times as long on CPUs. ``conv1d`` knows no other: a row of
    ``conv2d`` does. 4-D is a sum over conv3d.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.reaches = _reaches(instance)
        self.note = "channels last"
        if len(self.reaches) == 4:
            self.note = "a sum of conv3d over the first axis, channels last"

    def __call__(self, values: Tensor) -> Tensor:
        d = len(self.reaches)
        # torch correlates, so the kernel is mirrored.
        weight = _taps(self.instance, self.reaches).flip(tuple(range(-d, 0)))[:, None]
        if d == 4:
            return self._four(values, weight)
        if d == 1:
            return depthwise(values[:, :, None], weight[:, :, None], [0, *self.reaches])[:, :, 0]
        return depthwise(values, weight, self.reaches)

    def _four(self, values: Tensor, weight: Tensor) -> Tensor:
        batch, _, size = values.shape[:3]
        reach = self.reaches[0]
        # The first axis joins the batch: each of its taps is one conv3d of the rows that it meets.
        slices = torch.nn.functional.pad(values.movedim(2, 0), [0] * 10 + [reach, reach])
        result = torch.zeros_like(values.movedim(2, 0))
        for tap in range(2 * reach + 1):
            rows = slices[tap : tap + size].flatten(0, 1)
            part = depthwise(rows, weight[:, :, tap], self.reaches[1:])
            result = result + part.unflatten(0, (size, batch))
        return result.movedim(0, 2)


def depthwise(values: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    """Correlate ``(B, C, *sizes)``, 2-D or 3-D, with ``(C, 1, *taps)``, in the layout that is fastest on CPUs."""
    convolution, layout = {
        4: (torch.nn.functional.conv2d, torch.channels_last),
        5: (torch.nn.functional.conv3d, torch.channels_last_3d),
    }[values.ndim]
    last = [one.contiguous(memory_format=layout) for one in (values, weight)]
    return convolution(*last, padding=list(padding), groups=len(weight)).contiguous()


@final
class Padded(Method):
    """Series padded to equal lengths, then the sum as dense blocks of (series, query, source).

    Nothing is recomputed in the backward pass: of the ways to write it, the fastest.
    """

    note = "padded to the longest series"
    _PAIRS_PER_BLOCK = 1 << 16  # larger blocks fall out of the cache

    def __init__(self, instance: Instance) -> None:
        points = instance.points
        self.kernel, self.points = instance.kernel, points
        lengths = points.splits.diff()
        self.longest = int(lengths.max())
        sample = points.sample_index()
        place = torch.arange(points.count, device=points.device) - points.splits[sample]
        self.rows = sample * self.longest + place
        total = points.samples * self.longest
        coordinates = points.coordinates.new_zeros(total, points.d)
        coordinates[self.rows] = points.coordinates
        weights = points.weights.new_zeros(total)
        weights[self.rows] = points.weights
        self.coordinates = coordinates.unflatten(0, (-1, self.longest)).to(instance.values.dtype)
        self.weights = weights.unflatten(0, (-1, self.longest))[..., None].to(instance.values.dtype)
        self.per_block = max(1, self._PAIRS_PER_BLOCK // self.longest**2)

    def __call__(self, values: Tensor) -> Tensor:
        padded = values.new_zeros(len(self.coordinates) * self.longest, values.shape[1])
        padded = padded.index_copy(0, self.rows, values).unflatten(0, (-1, self.longest)) * self.weights
        blocks = zip(self.coordinates.split(self.per_block), padded.split(self.per_block), strict=True)
        sums = [
            torch.einsum("bqsc,bsc->bqc", self.kernel(places[:, :, None] - places[:, None]), block)
            for places, block in blocks
        ]
        return torch.cat(sums).flatten(0, 1).index_select(0, self.rows)


@final
class RadiusGraph(Method):
    """torch-geometric: edges join the points within the support; the kernel is an MLP on the edges' offsets."""

    requires = ("torch_geometric.nn", "torch_geometric.typing")

    def __init__(self, instance: Instance) -> None:
        points, dtype = instance.points, instance.values.dtype
        support = instance.kernel.support
        assert isinstance(instance.kernel.mask, GaussianMask)
        radius = float(support.max())
        if float(support.min()) < radius:
            raise ValueError("a radius graph has one radius for all axes")
        self.edges = self._edges(points, radius)
        source, target = self.edges
        self.offsets = (points.coordinates[target] - points.coordinates[source]).to(dtype)
        self.weights = points.weights.to(dtype)[:, None]
        self.convolution = _message_passing(instance.kernel)
        self.note += f"; {self.edges.shape[1]} edges"

    def _edges(self, points: Points, radius: float) -> Tensor:
        """int64 ``(2, E)``, sorted by target; every point is its own neighbour too."""
        from torch_geometric import typing

        if typing.WITH_RADIUS:
            from torch_geometric.nn import radius_graph

            self.note = "torch_geometric.nn.radius_graph"
            edges = radius_graph(points.coordinates, radius, loop=True, max_num_neighbors=points.count)
            return edges[:, edges[1].argsort(stable=True)]
        self.note = "edges from scipy.spatial.cKDTree: radius_graph needs pyg-lib, which is not installed"
        place = points.coordinates.cpu().numpy()
        pairs = cKDTree(place).query_pairs(radius * (1 + 1e-6), output_type="ndarray")
        loops = np.arange(points.count)
        source = np.concatenate([pairs[:, 0], pairs[:, 1], loops])
        target = np.concatenate([pairs[:, 1], pairs[:, 0], loops])
        order = target.argsort(kind="stable")
        return torch.from_numpy(np.stack([source[order], target[order]])).to(points.device)

    def __call__(self, values: Tensor) -> Tensor:
        return self.convolution(values * self.weights, self.edges, self.offsets)


def _message_passing(kernel: Kernel) -> torch.nn.Module:
    from torch_geometric.nn import MessagePassing

    class ContinuousKernel(MessagePassing):
        """x_i' = sum over edges (j, i) of kernel(offset) * x_j."""

        def __init__(self) -> None:
            super().__init__(aggr="sum")
            self.kernel = kernel

        def forward(self, x: Tensor, edges: Tensor, offsets: Tensor) -> Tensor:
            return self.propagate(edges, x=x, offsets=offsets)

        def message(self, x_j: Tensor, offsets: Tensor) -> Tensor:
            return self.kernel(offsets) * x_j

    return ContinuousKernel()


class _NonUniformFFT(Method):
    """Transform of type 1, multiply, type 2, on the modes that hold the kernel's spectrum up to ``rtol``.

    Two real channels are one complex one: with z = x_1 + i x_2 and Z its transform, those of the parts are
    (Z(m) + conj Z(-m)) / 2 and (Z(m) - conj Z(-m)) / 2i. The number of modes is odd, so that m and -m are both there.
    The two transforms are each other's adjoints.
    """

    device: ClassVar[str]
    _FIRST_SAMPLES: ClassVar[dict[int, int]] = {1: 256, 2: 32, 3: 16}
    _MOST_SAMPLES = 1 << 21

    def __init__(self, instance: Instance) -> None:
        if instance.device.type != self.device:
            raise ValueError(f"{self.requires[0]} runs on {self.device}")
        self.kernel, points = instance.kernel, instance.points
        dtype = instance.values.dtype
        coordinates = points.coordinates
        low, high = coordinates.amin(0), coordinates.amax(0)
        # One support of gap: the transform is periodic.
        self.box = (high - low + self.kernel.support).tolist()
        bands = self._bands(instance.rtol)
        ends = [math.ceil(band * box / (2 * math.pi)) for band, box in zip(bands, self.box, strict=True)]
        self.modes = tuple(2 * end + 1 for end in ends)
        angles = (coordinates - (low + high) / 2) * (2 * math.pi / coordinates.new_tensor(self.box))
        self.pairs = (instance.kernel.out_channels + 1) // 2
        self.places = [axis.to(dtype).contiguous() for axis in angles.T]
        options = {
            "n_trans": self.pairs,
            "eps": instance.rtol,
            "dtype": "complex64" if dtype == torch.float32 else "complex128",
        }
        self.analysis = self._planned(1, isign=-1, **options)
        self.synthesis = self._planned(2, isign=1, **options)
        self.weights = points.weights.to(dtype)[:, None]
        self.note = f"{'x'.join(map(str, self.modes))} modes, {self.pairs} complex transforms"

    def __call__(self, values: Tensor) -> Tensor:
        channels = values.shape[1]
        rows = (values * self.weights).T
        transfer = self._transfer()
        if channels % 2:
            rows, transfer = (torch.cat([part, part[:1]]) for part in (rows, transfer))
        strengths = torch.complex(rows[0::2].contiguous(), rows[1::2].contiguous())
        spectrum = _Transform.apply(strengths, self.analysis, self.synthesis)
        dims = tuple(range(1, spectrum.ndim))
        mirrored = spectrum.flip(dims).conj()
        first, second = transfer[0::2], transfer[1::2]
        product = spectrum * (0.5 * (first + second)) + mirrored * (0.5 * (first - second))
        result = _Transform.apply(product, self.synthesis, self.analysis)
        return torch.stack([result.real, result.imag], dim=1).flatten(0, 1)[:channels].T

    @abstractmethod
    def _planned(self, kind: int, **options: Any) -> Callable[[Tensor], Tensor]:
        """A transform of type 1 or 2 between ``places`` and ``modes``."""

    def _bands(self, rtol: float) -> list[float]:
        """Angular frequency per axis beyond which less than ``rtol / 2`` of the L2 norm of the spectrum lies."""
        d, support = self.kernel.d, self.kernel.support.tolist()
        counts = [self._FIRST_SAMPLES[d]] * d
        while math.prod(counts) <= self._MOST_SAMPLES:
            with torch.no_grad():
                steps = [2 * reach / count for reach, count in zip(support, counts, strict=True)]
                samples = _sampled(self.kernel, steps, [count // 2 for count in counts]).double()
            ends = []
            for axis in range(1, d + 1):
                size = samples.shape[axis]
                energy = torch.fft.rfft(samples, n=2 * size, dim=axis).abs().square().movedim(axis, 1)
                energy = energy.reshape(*energy.shape[:2], -1).sum(2)
                beyond = energy.flip(1).cumsum(1).flip(1)
                negligible = (beyond <= (rtol / 2) ** 2 / d * beyond[:, :1]).all(0)
                end = int(negligible.to(torch.int64).argmax()) if bool(negligible.any()) else size + 1
                ends.append(end / size)
            # The upper half of the sampled band must be empty: else samples lie too far apart to tell.
            unsure = [axis for axis in range(d) if ends[axis] > 0.5]
            if not unsure:
                return [max(end, 1e-3) * math.pi / step for end, step in zip(ends, steps, strict=True)]
            for axis in unsure:
                counts[axis] *= 2
        raise ValueError(f"the kernel is too sharp: its spectrum does not end within {self._MOST_SAMPLES} samples")

    def _transfer(self) -> Tensor:
        """Fourier coefficients of the kernel on the box, ``(C, *modes)``, from samples twice as fine as the modes need.

        Axis by axis, and only the wanted modes of an axis go on to the next.
        """
        sizes = [fast_length(2 * count) for count in self.modes]
        steps = [box / size for box, size in zip(self.box, sizes, strict=True)]
        reaches = [
            min(math.floor(reach / step), (size - 1) // 2)
            for reach, step, size in zip(self.kernel.support.tolist(), steps, sizes, strict=True)
        ]
        samples = _sampled(self.kernel, steps, reaches)
        d = len(sizes)
        # The last axis first: the values are real, so its modes from 0 on tell the others.
        transform = torch.fft.rfft(samples, n=sizes[-1], dim=d)[..., : self.modes[-1] // 2 + 1]
        transform = transform * _centring(0, self.modes[-1], reaches[-1], sizes[-1], samples)
        for axis in range(d - 1):
            lowest = -(self.modes[axis] // 2)
            kept = torch.arange(lowest, -lowest + 1, device=samples.device) % sizes[axis]
            transform = torch.fft.fft(transform, n=sizes[axis], dim=axis + 1).index_select(axis + 1, kept)
            phase = _centring(lowest, self.modes[axis], reaches[axis], sizes[axis], samples)
            transform = transform * phase.reshape(-1, *[1] * (d - 1 - axis))
        negative = transform[..., 1:].flip(tuple(range(1, d + 1))).conj()
        # Volume of a sample's cell over the box's: the normalisation of the series.
        return torch.cat([negative, transform], dim=-1) * (1 / math.prod(sizes))


def _centring(lowest: int, count: int, reach: int, size: int, like: Tensor) -> Tensor:
    """Factors on modes ``lowest .. count // 2`` that move the sample at index ``reach`` to the origin."""
    modes = torch.arange(lowest, count // 2 + 1, dtype=torch.float64, device=like.device)
    angle = (2 * math.pi * reach / size) * modes
    return torch.polar(torch.ones_like(angle), angle).to(like.dtype.to_complex())


class _Transform(torch.autograd.Function):
    """A linear map whose adjoint is given: the gradient of a linear map."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, transform: Any, adjoint: Any) -> Tensor:
        ctx.adjoint = adjoint
        return transform(rows.resolve_conj().contiguous())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.adjoint(gradients[0].resolve_conj().contiguous()), None, None


@final
class NonUniformFFT(_NonUniformFFT):
    """FINUFFT, on CPUs."""

    requires = ("finufft",)
    device = "cpu"

    def _planned(self, kind: int, **options: Any) -> Callable[[Tensor], Tensor]:
        import finufft

        plan = finufft.Plan(kind, self.modes, nthreads=torch.get_num_threads(), **options)
        plan.setpts(*(axis.numpy() for axis in self.places))

        def transform(rows: Tensor) -> Tensor:
            data = rows.numpy()  # one transform is taken and returned without its leading axis
            return torch.from_numpy(plan.execute(data[0])[None] if len(data) == 1 else plan.execute(data))

        return transform


@final
class CudaNonUniformFFT(_NonUniformFFT):
    """cuFINUFFT, on NVIDIA's GPUs."""

    requires = ("cufinufft",)
    device = "cuda"

    def _planned(self, kind: int, **options: Any) -> Callable[[Tensor], Tensor]:
        import cufinufft

        plan = cufinufft.Plan(kind, self.modes, **options)
        plan.setpts(*self.places)
        return plan.execute


def _reaches(instance: Instance) -> list[int]:
    """Taps to either side of the centre, per axis."""
    assert isinstance(instance.domain, Grid)
    axes = zip(instance.kernel.support.tolist(), instance.domain.steps, instance.domain.sizes, strict=True)
    return [min(math.floor(support / step), size - 1) for support, step, size in axes]


def _taps(instance: Instance, reaches: list[int]) -> Tensor:
    """The kernel on the grid's offsets times the cell volume, ``(C, *taps)``."""
    assert isinstance(instance.domain, Grid)
    return _sampled(instance.kernel, list(instance.domain.steps), reaches) * instance.domain.cell_volume


def _sampled(kernel: Kernel, steps: list[float], reaches: list[int]) -> Tensor:
    """Kernel values at offsets -reach .. reach of each axis, ``(C, *taps)``."""
    device = kernel.extent.device
    offsets = [
        torch.arange(-reach, reach + 1, dtype=torch.float64, device=device) * step
        for step, reach in zip(steps, reaches, strict=True)
    ]
    mesh = torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1)
    return kernel(mesh.to(kernel.dtype)).movedim(-1, 0)


METHODS: dict[str, type[Method]] = {
    "auto": Auto,
    "spectral": Spectral,
    "neighbours": Neighbours,
    "fft": FFT,
    "fft, kernel given": FFTGivenKernel,
    "fft, uncropped": FFTUncropped,
    "keops": KeOps,
    "blocked torch": Blocked,
    "padded torch": Padded,
    "torch-geometric": RadiusGraph,
    "direct convolution": DirectConvolution,
    "rfftn-irfftn": BareFFT,
    "finufft": NonUniformFFT,
    "cufinufft": CudaNonUniformFFT,
}
