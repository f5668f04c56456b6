"""The ShuffleNet unit, against the same unit of torch's own modules."""

from __future__ import annotations

import copy

import pytest
import torch
from contract_cases import as_rows, as_values, seeded, small_kernel, uniform
from torch import Tensor, nn

from ccnn_irregular import Grid, Points, Product
from ccnn_irregular.convolution_blocks import ShuffleUnit
from ccnn_irregular.domains import Domain
from ccnn_irregular.kernels.taps import conv_kernel, conv_query
from ccnn_irregular.layers import coarser
from ccnn_irregular.testing import assert_all_close

STEPS = (0.4, 5.0)
GRID = Grid((7, 6), STEPS)


class Published(nn.Module):
    """Figure 2 b, c of the paper on pixels."""

    def __init__(self, channels: int, bottleneck: int, branch: int, groups: int, stride: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, bottleneck, 1, groups=groups, bias=False)
        self.reduce_norm = nn.BatchNorm2d(bottleneck)
        self.depthwise = nn.Conv2d(bottleneck, bottleneck, 3, stride, 1, groups=bottleneck, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(bottleneck)
        self.expand = nn.Conv2d(bottleneck, branch, 1, groups=groups, bias=False)
        self.expand_norm = nn.BatchNorm2d(branch)
        self.groups, self.stride = groups, stride

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.reduce_norm(self.reduce(values)).relu()
        hidden = nn.ChannelShuffle(self.groups)(hidden)
        branch = self.expand_norm(self.expand(self.depthwise_norm(self.depthwise(hidden))))
        if self.stride == 1:
            return (values + branch).relu()
        return torch.cat([nn.functional.avg_pool2d(values, 3, self.stride, 1), branch], 1).relu()


def pair(stride: int) -> tuple[Published, ShuffleUnit]:
    """The published unit and ours, with the same numbers."""
    torch.manual_seed(0)
    published = Published(6, 6, 6 if stride == 1 else 9, 3, stride).double()
    pool = None if stride == 1 else conv_kernel(torch.full((6, 3, 3), 1 / 9, dtype=torch.float64), STEPS)
    kernel = conv_kernel(published.depthwise.weight[:, 0], STEPS)
    ours = ShuffleUnit(6, 6 if stride == 1 else 15, kernel, 3, pool=pool).double()
    with torch.no_grad():
        for name in ("reduce", "expand"):
            getattr(ours, name).weight.copy_(getattr(published, name).weight[:, :, 0, 0])
    return published, ours


def gradients(module: nn.Module, result: Tensor, values: Tensor) -> dict[str, Tensor]:
    """The result and the gradients of values and convolutions."""
    probe = seeded(*result.shape, seed=7)
    weights = {
        "reduce": module.get_parameter("reduce.weight"),
        "expand": module.get_parameter("expand.weight"),
        "depthwise": dict(module.depthwise.named_parameters()).popitem()[1],  # type: ignore[operator,union-attr]
    }
    found = torch.autograd.grad((result * probe).sum(), [values, *weights.values()])
    flat = [one.flatten() for one in found]
    return {"output": result} | dict(zip(["values", *weights], flat, strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_equals_the_published_unit_with_its_gradients(stride: int) -> None:
    published, ours = pair(stride)
    values = seeded(2, 6, 7, 6, requires_grad=True)
    query = conv_query(GRID, (3, 3), stride=stride, padding=1)
    assert stride == 2 or query == GRID
    expected = gradients(published, published(values), values)
    on_points = copy.deepcopy(ours)
    assert_all_close(gradients(ours, ours(values, GRID, query), values), expected, factor=10)
    # The nodes as points: weights are equal, so the norms' statistics are the pixels'.
    query_points = query.as_points(2)
    source = query_points if stride == 1 else GRID.as_points(2)
    rows = on_points(as_rows(values), source, query_points)
    assert_all_close(gradients(on_points, as_values(rows, query), values), expected, factor=10)


@pytest.mark.parametrize("kind", ["points", "product", "grid"])
def test_continuous_units_follow_one_another(kind: str) -> None:
    """A strided unit, then one that adds its input, with smooth kernels."""
    points = Points(uniform(12, 1, high=3.0), uniform(12, seed=1), torch.tensor([0, 5, 12]))
    domain: Domain = {"points": points, "product": Product(points, Grid((4,), (0.5,))), "grid": Grid((9,), (0.5,))}[
        kind
    ]
    d = domain.d
    torch.manual_seed(0)
    first = ShuffleUnit(4, 12, small_kernel(d, channels=4), 2, pool=small_kernel(d, channels=4)).double()
    second = ShuffleUnit(12, 12, small_kernel(d, channels=4), 4).double()
    shape = {"points": (12, 4), "product": (12, 4, 4), "grid": (2, 4, 9)}[kind]
    query = coarser(domain, 2)
    result = second(first(seeded(*shape), domain, query), query)
    assert result.shape[1] == 12
    assert bool((result > 0).any())
    result.sum().backward()
    assert all(bool(one.grad.any()) for one in first.reduce.parameters())


def test_messages() -> None:
    kernel = small_kernel(1, channels=4)
    cases = [
        ((4, 8, kernel, 2), {}, "out_channels must be the input's 4 to add, got 8"),
        ((4, 4, kernel, 2), {"pool": kernel}, "out_channels must exceed the input's 4, got 4"),
        ((6, 12, kernel, 2), {"pool": kernel}, r"pool must have shape \(6,\), the input's, got \(4,\)"),
        ((4, 4, small_kernel(1, shape=(4, 4)), 2), {}, r"kernel must be depthwise, of shape \(C,\)"),
        ((4, 4, kernel, 3), {}, "groups must divide the 4 output channels, got 3"),
        ((6, 6, kernel, 4), {}, "groups must divide the 6 input channels, got 4"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            ShuffleUnit(*arguments, **options)  # type: ignore[arg-type]
    unit, grid = ShuffleUnit(4, 4, kernel, 2).double(), Grid((6,), (0.5,))
    with pytest.raises(ValueError, match="query must be the source for a unit that adds its input"):
        unit(seeded(1, 4, 6), grid, coarser(grid, 2))
    assert unit(seeded(1, 4, 6), grid, Grid((6,), (0.5,))).shape == (1, 4, 6)
