"""The U-shaped network on grids: levels, answers at any spacing, independence of the voxel size, gradients."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ccnn_irregular import Grid
from ccnn_irregular.networks_unet import UNET_KERNEL, ContinuousUNet, level_grids
from ccnn_irregular.operators.numerics.lattice import no_common_lattice


def network(d: int = 3, **options: object) -> ContinuousUNet:
    torch.manual_seed(0)
    defaults: dict[str, object] = {
        "channels": (4, 6, 8), "blocks": (0, 1, 1), "steps": [1.0] * d, "kernel": replace(UNET_KERNEL, hidden=8)
    }  # fmt: skip
    return ContinuousUNet(1, 2, **(defaults | options)).double()  # type: ignore[arg-type]


def smooth(grid: Grid, period: float = 12.0) -> Tensor:
    """A smooth function of the coordinates, ``(1, 1, *sizes)``."""
    nodes = grid.nodes()
    phases = 2 * torch.pi * nodes / period + torch.arange(grid.d)
    return phases.sin().prod(1).reshape(1, 1, *grid.sizes) + 0.1 * nodes[:, 0].reshape(1, 1, *grid.sizes)


# ---------------------------------------------------------------------------------------------------------- levels


@pytest.mark.parametrize(
    ("step", "size", "first"),
    [(1.0, 9, (9, 1.0)), (2.0, 5, (9, 1.0)), (0.5, 17, (9, 1.0)), (0.75, 13, (13, 0.75)), (5.5, 3, (13, 5.5 / 6))],
)
def test_levels_have_the_wanted_steps_whatever_the_voxels(step: float, size: int, first: tuple[int, float]) -> None:
    source = Grid((size,), (step,), (3.0,))
    grids = level_grids(source, [1.0], 3)
    assert (grids[0].sizes[0], grids[0].steps[0]) == pytest.approx(first)
    end = source.starts[0] + (size - 1) * step
    for fine, coarse in itertools.pairwise(grids):
        assert coarse.steps[0] == pytest.approx(2 * fine.steps[0])
    for grid in grids:
        last = grid.starts[0] + (grid.sizes[0] - 1) * grid.steps[0]
        assert grid.starts == source.starts
        assert end - 1e-9 <= last < end + grid.steps[0] - 1e-9
        assert no_common_lattice(source, grid) is None


def test_levels_refuse_what_they_cannot_cover() -> None:
    with pytest.raises(ValueError, match="source must have no axis that repeats"):
        level_grids(Grid((4,), (1.0,), periodic=True), [1.0], 2)
    with pytest.raises(ValueError, match="source must have 2 axes"):
        level_grids(Grid((4,), (1.0,)), [1.0, 1.0], 2)


# --------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("sizes", [(7,), (5, 9), (1, 6, 7), (4, 5, 3)])
def test_one_answer_per_position_with_gradients_for_every_parameter(sizes: tuple[int, ...]) -> None:
    model, grid = network(len(sizes)), Grid(sizes, [1.0] * len(sizes))
    answers = model(smooth(grid), grid)
    assert answers.shape == (1, 2, *sizes)
    (answers[:, 0] - answers[:, 1]).square().mean().backward()
    silent = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.isfinite().all()]
    assert silent == []


def test_anisotropic_voxels_and_answers_on_another_grid() -> None:
    model = network()
    source = Grid((9, 8, 3), (0.75, 0.75, 3.0), (1.0, -2.0, 0.5))
    query = Grid((4, 3, 7), (1.5, 1.5, 1.0), (1.0, -2.0, 0.5))
    assert model(smooth(source), source, query).shape == (1, 2, 4, 3, 7)
    assert model(smooth(source), source).shape == (1, 2, 9, 8, 3)


def test_answers_elsewhere_are_those_of_the_same_function() -> None:
    """Every second node of the answer is the answer at every second node, and so is a small part of it."""
    model, grid = network(2), Grid((11, 8), (1.0, 1.0), (2.0, 5.0))
    values = smooth(grid)
    every, second = model(values, grid), model(values, grid, Grid((6, 4), (2.0, 2.0), (2.0, 5.0)))
    torch.testing.assert_close(second, every[:, :, ::2, ::2], rtol=1e-9, atol=1e-9)
    corner = model(values, grid, Grid((3, 2), (1.0, 1.0), (4.0, 6.0)))
    torch.testing.assert_close(corner, every[:, :, 2:5, 1:3], rtol=1e-9, atol=1e-9)


def test_shifting_all_coordinates_changes_nothing() -> None:
    model, grid = network(), Grid((6, 7, 5), (1.0, 1.0, 2.0))
    values = smooth(grid)
    moved = Grid(grid.sizes, grid.steps, (100.0, -40.0, 7.5))
    torch.testing.assert_close(model(values, moved), model(values, grid), rtol=1e-8, atol=1e-8)


def test_a_finer_sampling_of_a_smooth_function_gives_nearly_the_same_answers() -> None:
    model = network(2)
    coarse = Grid((33, 33), (1.0, 1.0))
    fine = Grid((65, 65), (0.5, 0.5))

    def bump(grid: Grid) -> Tensor:
        """Zero at the edges, so that no cell is cut there."""
        window = torch.exp(-((grid.nodes() - 16.0) ** 2).sum(1) / (2 * 3.5**2))
        return smooth(grid) * window.reshape(1, 1, *grid.sizes)

    model.calibrate(bump(coarse), coarse)
    with torch.no_grad():
        wanted = model(bump(coarse), coarse)
        relative = float((model(bump(fine), fine, coarse) - wanted).norm() / wanted.norm())
        # The same values taken for ones a whole unit apart, as a network that counts voxels would see them.
        wrong = float((model(bump(fine)[:, :, 16:49, 16:49], coarse) - wanted).norm() / wanted.norm())
    assert relative < 0.02 < 0.2 < wrong


def test_entries_of_a_batch_do_not_see_each_other() -> None:
    model, grid = network(2), Grid((6, 7), (1.0, 1.0))
    values = torch.cat([smooth(grid), 100 * smooth(grid) + 3])
    both = model(values, grid)
    torch.testing.assert_close(both[:1], model(values[:1], grid), rtol=1e-9, atol=1e-9)


def test_calibration_keeps_the_scale_and_is_the_same_every_time() -> None:
    grid = Grid((12, 12), (1.0, 1.0))
    first, second = network(2), network(2)
    first.calibrate(smooth(grid), grid)
    second.calibrate(smooth(grid), grid)
    answers = first(smooth(grid), grid).detach()
    assert 0.1 < float(answers.std()) < 3
    torch.testing.assert_close(answers, second(smooth(grid), grid).detach())
    assert not torch.equal(answers, network(2)(smooth(grid), grid))


def test_kernels_are_those_of_all_layers_in_coordinate_units() -> None:
    kernels = network(steps=[1.0, 1.0, 3.0]).kernels()
    assert {"stem", "downs.0", "down_levels.2.blocks.0", "ups.1", "readout"} <= set(kernels)
    torch.testing.assert_close(kernels["downs.1"].support, 4 * kernels["stem"].support, rtol=1e-6, atol=0)
    assert float(kernels["stem"].support[2]) == pytest.approx(3 * float(kernels["stem"].support[0]))


# ----------------------------------------------------------------------------------------------------------- errors


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="blocks must have one entry per level, 3"):
        network(blocks=(1, 1))
    with pytest.raises(ValueError, match="channels must name one level or more"):
        network(channels=(), blocks=())
    with pytest.raises(ValueError, match=r"values must have shape \(B, 1, 5, 6, 7\)"):
        network()(torch.zeros(1, 2, 5, 6, 7), Grid((5, 6, 7), (1.0, 1.0, 1.0)))
