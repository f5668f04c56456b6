"""What every generator and every mask promises. Each check takes its name and a case."""

from __future__ import annotations

import copy
import itertools
import math

import torch
from contract_cases import DTYPES, Case, run, seeded, uniform
from contract_checks import Checks, assert_gradients
from contract_engines import COMPILED, assert_same, assessed, compare, convolved
from torch import Tensor, nn

from ccnn_irregular import SIREN, GaussianMask, Grid, Kernel, Points
from ccnn_irregular.kernels import GENERATORS, MASKS, Generator, Mask, with_tensors
from ccnn_irregular.kernels.formula import LazyOperations
from ccnn_irregular.operators import ENGINES
from ccnn_irregular.testing import assert_close

__all__ = ["GENERATOR_CHECKS", "MASK_CHECKS"]

GENERATOR_CHECKS, MASK_CHECKS = Checks(), Checks()

AXES = [(1,), (2,), (3,)]
WIDTHS = (0.4, 0.3, 0.5)
# A frequency at which every generator is smooth on the grids below, and one wave at the least differs from a constant.
_OMEGA_0 = 1.0


def generator_of(
    name: str, d: int, channels: int = 3, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Generator:
    """A small generator, the same in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = GENERATORS[name](d, channels, hidden=8, omega_0=_OMEGA_0)
    return made.to(dtype)


def mask_of(name: str, d: int, *, dtype: torch.dtype = torch.float64, unit: float = 1.0) -> Mask:
    """A mask of about ``WIDTHS``, which are stated in this many units."""
    return MASKS[name]([unit * width for width in WIDTHS[:d]]).to(dtype)


def offsets(d: int, *, dtype: torch.dtype = torch.float64, reach: float = 1.0) -> Tensor:
    """Offsets about zero, ``(5, 4, d)``."""
    return uniform(5, 4, d, low=-reach, high=reach, seed=d).to(dtype)


# ---- what both promise as functions of the offset, and as modules ----


def is_a_function_of_the_offset(part: nn.Module, d: int, components: int, dtype: torch.dtype) -> None:
    """One value vector per offset, in its dtype; what other offsets are asked for does not matter."""
    places = offsets(d, dtype=dtype)
    values = part(places)
    assert values.shape == (5, 4, components), f"values have shape {tuple(values.shape)}"
    assert values.dtype == places.dtype
    assert bool(torch.isfinite(values).all())
    for row, column in ((0, 0), (4, 3)):
        assert_close(part(places[row, column]), values[row, column], scale=float(values.detach().abs().max()) or 1.0)


def has_gradients_of_finite_differences(part: nn.Module, d: int) -> None:
    """By its offsets and by every parameter."""
    names = [name for name, one in part.named_parameters() if one.requires_grad]

    def function(places: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(part, dict(zip(names, parameters, strict=True)), (places,))

    leaves = [one.detach().clone().requires_grad_() for one in (offsets(d, reach=0.3), *map(part.get_parameter, names))]
    assert_gradients(function, leaves, fast=True)


def is_the_same_from_its_state(part: nn.Module, other: nn.Module, d: int) -> None:
    """``other``, made alike, equals it with its state; a copy is independent; both with memory given afterwards."""
    places, wanted = offsets(d), part(offsets(d)).detach()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    other.load_state_dict(part.state_dict())
    assert torch.equal(other(places), wanted), "the state dict does not hold all of it"
    copied = copy.deepcopy(part)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(0.1)
    assert torch.equal(part(places), wanted), "a copy shares tensors with it"
    empty = copy.deepcopy(part).to("meta").to_empty(device="cpu")
    empty.load_state_dict(part.state_dict())
    assert torch.equal(empty(places), wanted), "it cannot be given memory and loaded"


def is_never_written_to(part: nn.Module, d: int) -> None:
    """Evaluated on a twin with other tensors, as engines do, it stays as it was; several threads may call it."""
    places = offsets(d)
    changed = {name: (one.detach() * 0.9 + 0.05) for name, one in part.named_parameters()}
    kept = {key: dict(vars(module)) for key, module in part.named_modules()}
    before = part(places).detach()
    twin = with_tensors(part, changed)(places).detach()
    assert not changed or not torch.equal(twin, before), "a twin with other parameters gives the same values"
    assert torch.equal(part(places), before), "evaluating a twin changed it"
    for key, module in part.named_modules():
        assert vars(module).keys() == kept[key].keys(), f"evaluating it wrote to {key or 'itself'}"
    loaded = copy.deepcopy(part)
    loaded.load_state_dict(changed, strict=False)
    assert_close(twin, loaded(places))


def is_a_formula_of_keops(part: Generator | Mask, d: int, components: int) -> None:
    """Its formula is made of operations that KeOps has: it is built, and not compiled."""
    from pykeops.torch import LazyTensor, Pm

    queries, sources = (LazyTensor(offsets(d)[0, :, :].reshape(*shape)) for shape in ((4, 1, d), (1, 4, d)))
    formula = part.formula(queries - sources, LazyOperations(Pm))
    assert getattr(formula, "ndim", 0) == components, "the formula has another number of components"


def every_engine_gives_one_answer(kernel: Kernel, d: int) -> None:
    """On points and between grids, by all engines that can be used."""
    source = Points(uniform(12, d, seed=1), uniform(12, low=0.2, seed=2))
    query = Points(uniform(7, d, seed=3))
    grid = Grid((6, 5, 4)[:d], (0.2, 0.25, 0.3)[:d])
    for kind, irregular, values, places, wanted in (
        ("points to points", d, seeded(12, kernel.in_channels), source, query),
        ("grid to grid", 0, seeded(2, kernel.in_channels, *grid.sizes), grid, grid),
    ):
        values.requires_grad_()
        case = Case(kind, irregular, kernel, values, places, wanted, 1e-4)
        expected = run(kernel, values, places, wanted, "equation")
        for engine in ENGINES:
            if engine in COMPILED or isinstance(assessed(engine, case), str):
                continue
            if ENGINES[engine].error(case.rtol):  # how well slopes by parameters are resolved is the engine's contract
                assert_same(engine, case, convolved(engine, case), expected["output"].detach())
            else:
                compare(engine, case, expected)


# ---- generators ----


@GENERATOR_CHECKS.add(itertools.product([1, 2, 3], DTYPES))
def gives_a_value_to_each_offset(name: str, d: int, dtype: torch.dtype) -> None:
    generator = generator_of(name, d, dtype=dtype)
    assert (generator.d, generator.out_channels) == (d, 3)
    is_a_function_of_the_offset(generator, d, 3, dtype)
    values = generator(offsets(d, dtype=dtype)).detach().flatten(0, 1)
    assert bool((values.std(0) > 1e-3 * values.abs().amax(0)).all()), "a channel is the same at all offsets"
    assert bool((values.abs().amax(0) > 0).all()), "a channel is zero"


@GENERATOR_CHECKS.add()
def is_built_with_axes_and_channels_alone(name: str) -> None:
    generator = GENERATORS[name](2, 5)
    assert isinstance(generator, Generator)
    assert generator(torch.zeros(4, 2)).shape == (4, 5)


@GENERATOR_CHECKS.add(AXES)
def generator_has_its_gradients(name: str, d: int) -> None:
    generator = generator_of(name, d)
    has_gradients_of_finite_differences(generator, d)
    generator(offsets(d)).square().sum().backward()
    for key, parameter in generator.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {key}"


@GENERATOR_CHECKS.add(AXES)
def output_layer_scales_the_values(name: str, d: int) -> None:
    generator = generator_of(name, d)
    before = generator(offsets(d)).detach()
    with torch.no_grad():
        generator.output.weight.mul_(3.0)
        if generator.output.bias is not None:
            generator.output.bias.mul_(3.0)
    assert_close(generator(offsets(d)), 3.0 * before, factor=10)


@GENERATOR_CHECKS.add(AXES)
def generator_is_a_module_like_others(name: str, d: int) -> None:
    generator = generator_of(name, d)
    is_never_written_to(generator, d)
    is_the_same_from_its_state(generator, generator_of(name, d, seed=1), d)


@GENERATOR_CHECKS.add(AXES)
def generator_is_a_formula_of_keops(name: str, d: int) -> None:
    is_a_formula_of_keops(generator_of(name, d), d, 3)


@GENERATOR_CHECKS.add(itertools.product([1, 2], [(2,), (3, 2)]))
def every_engine_takes_the_generator(name: str, d: int, shape: tuple[int, ...]) -> None:
    generator = generator_of(name, d, math.prod(shape))
    kernel = Kernel(generator, GaussianMask(WIDTHS[:d]), extent=[1.0] * d, shape=shape)  # type: ignore[arg-type]
    every_engine_gives_one_answer(kernel.to(torch.float64), d)


# ---- masks ----


@MASK_CHECKS.add(itertools.product([1, 2, 3], DTYPES))
def gives_a_factor_to_each_offset(name: str, d: int, dtype: torch.dtype) -> None:
    mask = mask_of(name, d, dtype=dtype)
    assert isinstance(mask, Mask)
    is_a_function_of_the_offset(mask, d, 1, dtype)
    values = mask(offsets(d, dtype=dtype, reach=2.0)).detach()
    assert bool(((values >= 0) & (values <= 1)).all()), "a factor lies outside [0, 1]"
    assert float(mask(mask.centre).detach()) > 0.5, "the factor in the centre is small"


@MASK_CHECKS.add(AXES)
def is_zero_outside_its_support(name: str, d: int) -> None:
    mask = mask_of(name, d)
    for what in (mask.support, mask.centre, mask.half_width):
        assert what.shape == (d,)
        assert not what.requires_grad
        assert bool(torch.isfinite(what).all())
    assert bool((mask.support > 0).all())
    reach = mask.centre.abs() + mask.half_width
    assert bool((reach <= mask.support * (1 + 1e-12)).all()), "the box leaves the support"
    places = uniform(4000, d, low=-3.0, high=3.0, seed=7) * mask.support
    values = mask(places).detach()[:, 0]
    scaled = (places - mask.centre) / mask.half_width
    outside = (scaled.abs() > 1 + 1e-9).any(1)
    if mask.ellipsoidal:
        outside |= scaled.square().sum(1) > 1 + 1e-9
    assert not bool(values[outside].any()), "the mask is not zero outside its support"
    assert bool((values[~outside] > 0).any()), "the mask is zero everywhere"


@MASK_CHECKS.add(AXES)
def follows_the_unit(name: str, d: int) -> None:
    """Widths and offsets in another unit give the same factors."""
    here, there = mask_of(name, d), mask_of(name, d, unit=1000.0)
    assert_close(there(offsets(d) * 1000.0), here(offsets(d)), factor=10)
    assert_close(there.support, here.support * 1000.0)


@MASK_CHECKS.add(AXES)
def mask_has_its_gradients(name: str, d: int) -> None:
    has_gradients_of_finite_differences(mask_of(name, d), d)


@MASK_CHECKS.add(AXES)
def mask_is_a_module_like_others(name: str, d: int) -> None:
    is_never_written_to(mask_of(name, d), d)
    is_the_same_from_its_state(mask_of(name, d), mask_of(name, d), d)


@MASK_CHECKS.add(AXES)
def mask_is_a_formula_of_keops(name: str, d: int) -> None:
    is_a_formula_of_keops(mask_of(name, d), d, 1)


@MASK_CHECKS.add(itertools.product([1, 2], [False, True]))
def every_engine_takes_the_mask(name: str, d: int, causal: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = SIREN(d, 2, hidden=3, layers=1, omega_0=3.0)
    kernel = Kernel(generator, MASKS[name](WIDTHS[:d]), extent=[1.0] * d, causal_axes=(0,) if causal else ())
    every_engine_gives_one_answer(kernel.to(torch.float64), d)
