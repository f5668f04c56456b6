"""torch-geometric: clouds as Points, layers among its own, sampling, weights, isotropic kernels, networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from contract_cases import compare_keops, dense, requires_compiler, seeded, uniform
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import eval_legendre
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.loader import DataLoader
from torch_geometric.nn import Sequential, global_mean_pool
from torch_geometric.transforms import Compose, FixedPoints, NormalizeScale, RandomRotate

from ccnn_irregular import MLP, SIREN, GaussianMask, Grid, Kernel, KernelSpec, Points, Solver, convolve
from ccnn_irregular.adapters.geometric import (
    CLOUD_KERNEL,
    CCNNConv,
    EdgeFree,
    cloud_points,
    from_points,
    to_points,
)
from ccnn_irregular.adapters.geometric_networks import CloudCCNN, CloudUNet
from ccnn_irregular.adapters.geometric_sampling import coarsen_farthest, coarsen_voxels, farthest_points, voxel_cells
from ccnn_irregular.adapters.geometric_weights import QuadratureWeights, cloud_weights
from ccnn_irregular.kernels.isotropic import Isotropic, RadialMask, chord_length, unit_vectors
from ccnn_irregular.testing import assert_all_close, assert_close

SIZES = [7, 0, 1, 12, 0]  # empty clouds within and at the end


def clouds(sizes: list[int] = SIZES, d: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions in the unit cube and their cloud."""
    pos = uniform(sum(sizes), d, seed=seed)
    return pos, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def seeded_conv(*args: Any, width: float, isotropic: bool = False, seed: int = 0, **kwargs: Any) -> CCNNConv:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kernel = replace(CLOUD_KERNEL, width=width, isotropic=isotropic)
        return CCNNConv(*args, kernel=kernel, **kwargs).to(torch.float64)


def by_the_equation(conv: CCNNConv, x: Tensor, source: Points, query: Points) -> Tensor:
    """The layer's answer from all pairs at once."""
    layer = conv.conv
    result = dense(layer.kernel, x, source, query)
    if conv.conv.kernel.depthwise:
        result = (result + layer.depthwise.bias) @ layer.pointwise.weight.T + layer.pointwise.bias
    else:
        result = result + layer.bias
    return result


def rotation(seed: int = 0) -> Tensor:
    matrix = torch.linalg.qr(seeded(3, 3, seed=seed))[0]
    return matrix * torch.linalg.det(matrix)


# ---- Data and Batch ----


def test_positions_in_float64_are_not_copied() -> None:
    pos, _ = clouds()
    data = [Data(pos=part, x=part[:, :1]) for part in pos.split(SIZES)]
    batch = Batch.from_data_list(data)
    points = to_points(batch)
    assert points.coordinates.data_ptr() == batch.pos.data_ptr()
    assert points.splits.data_ptr() == batch.ptr.data_ptr()
    assert points.splits.diff().tolist() == SIZES
    assert_close(points.coordinates, pos)
    assert_close(points.weights, torch.tensor([1 / 7] * 7 + [1.0] + [1 / 12] * 12, dtype=torch.float64))


def test_one_cloud_and_its_own_weights() -> None:
    data = Data(pos=uniform(5, 2).to(torch.float32), weight=uniform(5, seed=1), area=uniform(5, seed=2))
    points = to_points(data)
    assert (points.samples, points.coordinates.dtype) == (1, torch.float64)
    assert_close(points.coordinates, data.pos.to(torch.float64))
    assert_close(points.weights, data.weight)
    assert_close(to_points(data, weight="area").weights, data.area)


def test_clouds_without_offsets_are_told_apart_by_their_numbers() -> None:
    pos, batch = clouds()
    assert to_points(Data(pos=pos, batch=batch)).splits.diff().tolist() == SIZES[:-1]
    assert cloud_points(pos, batch, batch_size=5).splits.diff().tolist() == SIZES


def test_points_become_a_batch_of_views_and_come_back() -> None:
    pos, number = clouds()
    points, x, label = cloud_points(pos, number, batch_size=5), seeded(20, 2), torch.arange(5)
    batch = from_points(points, x, y=label)
    assert batch.num_graphs == 5
    assert batch.pos.data_ptr() == pos.data_ptr()
    assert batch.x.data_ptr() == x.data_ptr()
    parts = batch.to_data_list()
    assert [part.num_nodes for part in parts] == SIZES
    assert [int(part.y) for part in parts] == label.tolist()
    assert parts[3].pos.data_ptr() == pos[8:].data_ptr()
    assert_close(parts[3].x, x[8:])
    again = to_points(batch)
    assert torch.equal(again.splits, points.splits)
    assert_close(again.weights, points.weights)
    assert torch.equal(Batch.from_data_list(parts).batch, batch.batch)


# As many clouds as points, and sizes that other clouds have as well.
AMBIGUOUS = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 3, 0], [0, 0, 3], [3, 0, 0], [1, 1, 1], [1]]


@pytest.mark.parametrize("sizes", [*AMBIGUOUS, [2, 2, 2], [4], [40, 0, 30, 0]], ids=str)
def test_what_belongs_to_clouds_stays_with_its_cloud(sizes: list[int]) -> None:
    """Whatever the numbers: torch-geometric's own way to put clouds together is the truth."""
    pos, number = clouds(sizes)
    x, label, normal, energy = (
        seeded(sum(sizes), 2),
        torch.arange(len(sizes)),
        seeded(sum(sizes), 3),
        seeded(len(sizes), 2),
    )
    rows = pos.split(sizes), x.split(sizes), normal.split(sizes)
    truth = Batch.from_data_list(
        [
            Data(pos=p, x=v, normal=n, y=label[b : b + 1], energy=energy[b : b + 1])
            for b, (p, v, n) in enumerate(zip(*rows, strict=True))
        ]
    )
    points = cloud_points(pos, number, batch_size=len(sizes))
    batch = from_points(points, x, y=label, normal=normal, energy=energy, per_point=["normal"])
    for found, wanted in zip(batch.to_data_list(), truth.to_data_list(), strict=True):
        for name in ("pos", "x", "normal", "y", "energy"):
            assert torch.equal(found[name], wanted[name]), name
    assert torch.equal(batch.ptr, truth.ptr)
    assert torch.equal(batch.batch, truth.batch)
    assert [part.y.tolist() for part in from_points(points, x, y=label).to_data_list()] == [[b] for b in label.tolist()]
    assert to_points(truth).splits.diff().tolist() == sizes


def test_rows_that_can_be_read_both_ways_must_be_named() -> None:
    points, normal = cloud_points(*clouds([0, 1, 2]), batch_size=3), seeded(3, 3)
    with pytest.raises(
        ValueError, match="normal must be named in per_point if it has one row per point, else per_point"
    ):
        from_points(points, normal=normal)
    by_point = from_points(points, normal=normal, per_point=["normal"]).to_data_list()
    assert [len(part.normal) for part in by_point] == [0, 1, 2]
    by_cloud = from_points(points, normal=normal, per_point=[]).to_data_list()
    assert [len(part.normal) for part in by_cloud] == [1, 1, 1]
    marked = from_points(points, y=torch.arange(3), per_point=["y"]).to_data_list()
    assert [part.y.tolist() for part in marked] == [[], [0], [1, 2]]


def test_a_batch_says_whether_weights_are_of_points_or_of_clouds() -> None:
    sizes = [0, 1, 2]
    parts = [Data(pos=seeded(size, 3), share=torch.ones(size) / 3, weight=torch.ones(1)) for size in sizes]
    batch = Batch.from_data_list(parts)
    with pytest.raises(ValueError, match=r"data.weight must have one row per point, got one per cloud"):
        to_points(batch)
    assert to_points(batch, weight="share").weights.tolist() == pytest.approx([1 / 3] * 3)
    assert to_points(from_points(Points(batch.pos, splits=batch.ptr))).splits.diff().tolist() == sizes


def test_batches_that_were_changed() -> None:
    batch = Batch.from_data_list([Data(pos=seeded(size, 3)) for size in (2, 0, 3, 0)])
    stale = batch.clone()
    stale.pos, stale.batch = batch.pos[[0, 0, 1, 2, 3]], torch.tensor([0, 0, 0, 2, 2])
    assert to_points(stale).splits.tolist() == [0, 3, 3, 5, 5]
    del batch.ptr
    assert to_points(batch).splits.tolist() == [0, 2, 2, 5, 5]  # the last cloud is empty, and the batch knows of it


def test_points_that_torch_geometric_takes_out_of_a_batch() -> None:
    """Batch.subgraph and transforms of a batch leave its ptr as it was."""
    parts = [
        Data(pos=seeded(size, 3), x=seeded(size, 2), edge_index=torch.zeros(2, 0, dtype=torch.int64))
        for size in (4, 1, 5)
    ]
    batch = Batch.from_data_list(parts)
    kept = torch.tensor([True, False, True, True, False, True, True, True, False, False])
    taken = batch.subgraph(kept)
    assert taken.ptr.tolist() == [0, 4, 5, 10]
    points = to_points(taken)
    assert points.splits.tolist() == [0, 3, 3, 6]
    torch.testing.assert_close(points.coordinates, batch.pos[kept].double())
    torch.testing.assert_close(points.weights, torch.full((6,), 1 / 3, dtype=torch.float64))
    mixed = FixedPoints(8, replace=False)(batch)
    with pytest.raises(
        ValueError, match=r"never fall .* FixedPoints, mix the clouds of a batch: apply them to each cloud"
    ):
        to_points(mixed)
    drawn = Batch.from_data_list([FixedPoints(3, replace=True)(one) for one in parts])
    assert to_points(drawn).splits.tolist() == [0, 3, 4, 7]  # of a single point it draws one


@pytest.mark.parametrize("dtype", ["int64", "int16", "float32", ">f8"])
def test_positions_of_numpy_and_of_whole_numbers(dtype: str) -> None:
    places = np.arange(12).reshape(4, 3).astype(dtype)
    wanted = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    points = Points(places, np.full(4, 0.25, np.float32), np.array([0, 1, 4]))
    assert torch.equal(points.coordinates, wanted)
    assert points.splits.tolist() == [0, 1, 4]
    places[0] = 7
    assert torch.equal(points.coordinates, wanted)
    assert torch.equal(cloud_points(torch.from_numpy(np.arange(12).reshape(4, 3))).coordinates, wanted)
    assert torch.equal(to_points(Data(pos=wanted.long())).coordinates, wanted)
    conv = CCNNConv(1, 2, kernel=replace(CLOUD_KERNEL, width=2.0))
    torch.testing.assert_close(conv(None, wanted.long()), conv(None, wanted))


def test_what_is_no_cloud_is_refused() -> None:
    pos, batch = clouds()
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: cloud_points(pos[0]), r"pos must have shape \(N, d\), got \(3,\)"),
        (lambda: cloud_points(pos > 0), "pos must be floating point or integers, got torch.bool"),
        (lambda: cloud_points(pos * math.nan), "pos must be finite, got nan at rows"),
        (lambda: to_points(Batch.from_data_list([Data(pos=pos * math.nan)])), "pos must be finite, got nan at rows"),
        (lambda: to_points(Batch.from_data_list([Data(pos=pos[:, 0])])), r"pos must have shape \(N, d\), got \(20,\)"),
        (lambda: cloud_points(pos, batch.flip(0)), r"batch must never fall \(.*\), got a fall after row 11"),
        (lambda: cloud_points(pos, batch - 1), "batch must not be negative, got -1"),
        (lambda: cloud_points(pos, batch.to(torch.int32)), "batch must be int64, got torch.int32"),
        (lambda: cloud_points(pos, batch[:5]), r"batch must have shape \(20,\), one entry per row of pos, got"),
        (lambda: cloud_points(pos, batch, batch_size=3), "batch_size must be at least 4, the number of clouds"),
        (lambda: cloud_points(pos, batch_size=3), "batch must be given for 3 clouds, got None"),
        (lambda: cloud_points(pos, batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: cloud_points(pos, batch, torch.ones(3)), r"weights must have shape \(N,\) or \(N, C\) with N = 20"),
        (lambda: to_points(Data(x=pos)), r"data must have positions, data.pos, got \['x'\]"),
        (lambda: from_points(Points(pos, periods=(1.0, None, None))), "points must have axes that do not repeat"),
        (lambda: from_points(Points(pos), pos[:4]), r"x must have 20 rows, one per point, got \(4, 3\)"),
        (lambda: from_points(Points(pos), a=pos[:4]), "a must have 20 rows, one per point, or 1, one per cloud, got"),
        (lambda: from_points(Points(pos), a=pos, per_point=["b"]), r"per_point must name attributes, some of \['a'\]"),
        (lambda: from_points(Points(pos), a=pos, per_point=[]), "a must have 1 rows, one per cloud, got"),
        (lambda: from_points(Points(pos), a=pos[:1], per_point=["a"]), "a must have 20 rows, one per point, got"),
        (lambda: from_points(Points(pos), a=torch.tensor(1)), r"a must be a tensor of rows, got tensor\(1\)"),
        (lambda: from_points(Points(pos), a="name"), "a must be a tensor of rows, got 'name'"),  # type: ignore[arg-type]
        (lambda: from_points(Points(pos), weight=pos[:, 0]), "weight must be left out: points fill it"),
        (lambda: from_points(Points(pos), edge_attr=pos), "edge_attr must not be of edges"),
        (
            lambda: from_points(Points(pos[:2]), edge_index=batch[None, :4].repeat(2, 1)),
            "edge_index must not be of edg",
        ),
        (lambda: from_points(Points(pos[:3]), face=batch[None, :4].repeat(3, 1)), "face must not be of edges"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


# ---- CCNNConv ----


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("separable", [False, True])
def test_a_batch_of_clouds_of_any_sizes(separable: bool, isotropic: bool) -> None:
    pos, batch = clouds()
    conv = seeded_conv(2, 3, width=0.2, separable=separable, isotropic=isotropic)
    x, weight = seeded(20, 2), uniform(20, seed=3)
    points = cloud_points(pos, batch, weight, 5)
    result = conv(x, pos, batch, weight, batch_size=5)
    assert_close(result, by_the_equation(conv, x, points, points))
    alone = [conv(x[batch == b], pos[batch == b], weight=weight[batch == b]) for b in (0, 2, 3)]
    assert_close(result, torch.cat(alone))
    every = conv(x, pos, batch)
    own = cloud_points(pos, batch)
    assert_close(every, by_the_equation(conv, x, own, own))


def test_strided_and_transposed_are_evaluated_at_other_points() -> None:
    pos, batch = clouds()
    rows = farthest_points(cloud_points(pos, batch), 0.3)
    coarse, coarse_batch = pos[rows], batch[rows]
    conv = seeded_conv(2, 3, width=0.3)
    x, x_coarse = seeded(20, 2), seeded(len(rows), 2)
    fine_points, coarse_points = cloud_points(pos, batch), cloud_points(coarse, coarse_batch)
    strided = conv(x, (pos, coarse), (batch, coarse_batch))
    assert_close(strided, by_the_equation(conv, x, fine_points, coarse_points))
    transposed = conv(x_coarse, (coarse, pos), (coarse_batch, batch))
    assert_close(transposed, by_the_equation(conv, x_coarse, coarse_points, fine_points))
    single = conv(x, (pos, coarse))
    assert_close(single, by_the_equation(conv, x, cloud_points(pos), cloud_points(coarse)))


@pytest.mark.parametrize("isotropic", [False, True])
def test_gradients_reach_coordinates_values_and_parameters(isotropic: bool) -> None:
    pos, batch = clouds()
    conv = seeded_conv(2, 3, width=0.2, isotropic=isotropic)
    cotangent = seeded(20, 3, seed=9)

    def gradients(call: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        leaves = {"x": seeded(20, 2).requires_grad_(), "pos": pos.clone().requires_grad_()}
        leaves |= dict(conv.named_parameters())
        output = call(leaves["x"], leaves["pos"])
        return dict(zip(leaves, torch.autograd.grad(output, list(leaves.values()), cotangent), strict=True))

    def equation(x: Tensor, own: Tensor) -> Tensor:
        points = cloud_points(own, batch)
        return by_the_equation(conv, x, points, points)

    assert_all_close(gradients(lambda x, own: conv(x, own, batch)), gradients(equation), factor=10)


def test_among_layers_loaders_transforms_and_pooling_of_torch_geometric() -> None:
    torch.manual_seed(0)
    transform = Compose([NormalizeScale(), RandomRotate(30, axis=2), QuadratureWeights("surface", neighbours=4)])
    data = [transform(Data(pos=torch.rand(size, 3), x=torch.rand(size, 2), y=size % 2)) for size in (9, 2, 14, 6)]
    model = Sequential(
        "x, pos, batch, weight",
        [
            (
                CCNNConv(2, 4, kernel=replace(CLOUD_KERNEL, width=0.4)),
                "x, pos, batch, weight -> x",
            ),
            nn.GELU(),
            (CCNNConv(4, 4, kernel=replace(CLOUD_KERNEL, width=0.4)), "x, pos, batch -> x"),
            (global_mean_pool, "x, batch -> x"),
            nn.Linear(4, 2),
        ],
    )
    (batch,) = DataLoader(data, batch_size=4)
    result = model(batch.x, batch.pos, batch.batch, batch.weight)
    assert (result.shape, result.dtype) == ((4, 2), torch.float32)
    first, second, linear = model[0], model[2], model[4]
    one = data[2]
    hidden = second(nn.functional.gelu(first(one.x, one.pos, weight=one.weight)), one.pos)
    assert_close(result[2:3], linear(hidden.mean(0, keepdim=True)))
    nn.functional.cross_entropy(result, batch.y).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert str(first).startswith("CCNNConv(2, 4, dim=3, Kernel(")


def test_explainer_finds_the_channel_that_matters() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = CCNNConv(2, 3, kernel=replace(CLOUD_KERNEL, width=0.3))
            with torch.no_grad():
                self.conv.conv.pointwise.weight[:, 1] = 0.0

        def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
            return self.conv(x, pos, batch)

    torch.manual_seed(0)
    pos, batch = clouds([8, 5])
    explainer = Explainer(
        EdgeFree(Reads()),
        GNNExplainer(epochs=5),
        explanation_type="model",
        node_mask_type="attributes",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    edges = torch.zeros(2, 0, dtype=torch.int64)
    mask = explainer(torch.rand(13, 2), edges, pos=pos.to(torch.float32), batch=batch).node_mask
    assert bool((mask[:, 0] > 0).all())
    assert bool((mask[:, 1] == 0).all())
    with pytest.raises(ValueError, match=r"edge_index must hold no edges: the model reads none, got \(2, 1\)"):
        explainer.model(torch.rand(13, 2), torch.zeros(2, 1, dtype=torch.int64), pos=pos, batch=batch)


def test_without_values_the_shape_itself_is_convolved() -> None:
    pos, batch = clouds()
    conv = seeded_conv(1, 3, width=0.3, separable=False)
    assert_close(conv(None, pos, batch), conv(torch.ones(20, 1, dtype=torch.float64), pos, batch))
    with pytest.raises(ValueError, match="x must be given for a layer with several channels in, got None"):
        seeded_conv(2, 3, width=0.3)(None, pos, batch)


def test_one_point_equal_points_and_no_points() -> None:
    conv = seeded_conv(1, 2, width=0.3, separable=False)
    at_zero = conv.conv.kernel(torch.zeros(1, 3, dtype=torch.float64))[0, :, 0] + conv.conv.bias
    one = conv(None, uniform(1, 3))
    assert_close(one[0], at_zero)
    equal = conv(None, uniform(1, 3).expand(50, 3).contiguous())
    assert_close(equal, at_zero.expand(50, 2), factor=10)
    empty = conv(None, torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.int64), batch_size=3)
    assert empty.shape == (0, 2)


def test_map_projections_keep_float64_or_are_refused() -> None:
    pos, batch = clouds()
    pos, far = torch.round(pos * 2**20) / 2**20, torch.tensor([500_000.0, 5_000_000.0, 300.0], dtype=torch.float64)
    conv = seeded_conv(2, 3, width=0.2)
    x = seeded(20, 2)
    assert torch.equal((pos + far) - far, pos)  # representable, so the answer must be the same one
    assert_close(conv(x, pos + far, batch), conv(x, pos, batch))
    single = conv.to(torch.float32)
    message = r"pos must be known to 0.0006.*: keep float64, or subtract the mean in it, got torch.float32 at 5e\+06"
    for call in (
        lambda places: single(x.to(torch.float32), places, batch),
        lambda places: single(x.to(torch.float32), (pos, places), (batch, batch)),
        lambda places: CloudCCNN(2, 2, spacing=0.2)(x.to(torch.float32), places, batch),
    ):
        with pytest.raises(ValueError, match=message):
            call((pos + far).to(torch.float32))
    mixed = single(x.to(torch.float32), pos + far, batch)
    assert_close(mixed, single(x.to(torch.float32), pos.to(torch.float32), batch), factor=10)


def test_calls_that_make_no_sense_are_refused() -> None:
    pos, batch = clouds()
    x = seeded(20, 2)
    conv = seeded_conv(2, 3, width=0.2)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: conv(x, pos * math.nan, batch), "pos must be finite, got nan"),
        (lambda: conv(x * math.nan, pos, batch), "values must be finite, got nan"),
        (lambda: conv(x[:, :1], pos, batch), r"values must have shape \(20, 2\), got \(20, 1\)"),
        (lambda: conv(x.to(torch.float32), pos, batch), "values must have the kernel's dtype torch.float64"),
        (lambda: conv(x, pos[:, :2], batch), "source must have the kernel's 3 axes, got 2"),
        (lambda: conv(x, pos, (batch, batch)), "batch must be one tensor where pos is one"),
        (lambda: conv(x, (pos, pos), batch), "batch must be a pair where pos is one"),
        (
            lambda: CCNNConv(2, 3, kernel=KernelSpec(width=0.2, omega_0=6.0, generator="wavelet")),
            "generator must be one of .*, got 'wavelet'",
        ),  # type: ignore[arg-type]
        (
            lambda: CCNNConv(2, 3, kernel=replace(CLOUD_KERNEL, width=-0.2)),
            "width must be positive and finite",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_parameters_are_drawn_anew_in_place() -> None:
    conv = seeded_conv(2, 3, width=0.2)
    before = {name: (parameter, parameter.clone()) for name, parameter in conv.named_parameters()}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        conv.reset_parameters()
    for name, parameter in conv.named_parameters():
        assert parameter is before[name][0]
    weight, old = before["conv.pointwise.weight"]
    assert not torch.equal(weight, old)
    assert weight.dtype == torch.float64


@pytest.mark.parametrize("generator", ["siren", "magnet", "random_fourier", "mlp"])
def test_calibration_keeps_the_variance_of_white_noise(generator: Any) -> None:
    pos = uniform(600, 3)
    torch.manual_seed(0)
    conv = CCNNConv(
        4, 4, kernel=KernelSpec(width=0.15, omega_0=6.0, generator=generator), solver=Solver("reference")
    ).to(torch.float64)
    conv.calibrate(pos)
    assert 0.4 < float(conv(seeded(600, 4), pos).detach().var()) < 2.5


# ---- sampling ----


def naive_farthest(places: np.ndarray, count: int) -> list[int]:
    taken = [int(np.linalg.norm(places - places.mean(0), axis=1).argmax())]
    while len(taken) < count:
        distance = np.linalg.norm(places[:, None] - places[None, taken], axis=2).min(1)
        taken.append(int(distance.argmax()))
    return taken


def test_farthest_points_of_clouds_of_any_sizes() -> None:
    sizes = [40, 0, 1, 33, 3, 90, 0]
    pos, batch = clouds(sizes)
    rows = farthest_points(cloud_points(pos, batch, batch_size=7), 0.25)
    expected, start = [], 0
    for size in sizes:
        if size:
            own = naive_farthest(pos[start : start + size].numpy(), math.ceil(0.25 * size))
            expected += [start + row for row in own]
        start += size
    assert rows.tolist() == expected
    assert sorted(farthest_points(cloud_points(pos, batch), 1.0).tolist()) == list(range(len(pos)))


def test_the_choice_follows_places_and_not_the_order_of_rows() -> None:
    pos = uniform(50, 3) + 5e6
    shuffled = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    rows = farthest_points(Points(pos), 0.2)
    assert torch.equal(pos[rows], pos[shuffled][farthest_points(Points(pos[shuffled]), 0.2)])


def test_equal_places_are_one_place() -> None:
    pos = torch.zeros(9, 2, dtype=torch.float64)
    assert farthest_points(Points(pos), 0.5).tolist() == [0]
    coarse = coarsen_farthest(Points(pos), 0.5)
    assert (coarse.count, float(coarse.weights.sum())) == (1, 9.0)
    assert coarsen_voxels(Points(pos), 0.1).count == 1
    # So near to each other, and so far from the first, that float64 knows no distance: still each is taken once.
    near = torch.tensor([[0.0, 0.0], [1e9, 0.0], [1e9 + 1e-7, 0.0]], dtype=torch.float64)
    assert sorted(farthest_points(Points(near), 1.0).tolist()) == [0, 1, 2]


def test_equal_distances_are_taken_in_the_same_order_whatever_that_of_the_rows() -> None:
    lattice = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)).double()
    shuffled = lattice[torch.randperm(25, generator=torch.Generator().manual_seed(3))]
    assert torch.equal(*(one[farthest_points(Points(one), 0.3)] for one in (lattice, shuffled)))


def repeated(points: Points, repeats: Tensor) -> tuple[Points, Tensor]:
    """Every point as many times as asked, sharing its weight, in random order within its cloud; and the row it was."""
    rows = torch.repeat_interleave(torch.arange(points.count), repeats)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    rows = rows[points.sample_index()[rows].argsort(stable=True)]
    weights = (points.weights / repeats)[rows]
    splits = torch.zeros(points.samples, dtype=torch.int64).index_add(0, points.sample_index(), repeats)
    return Points(points.coordinates[rows], weights, torch.cat([splits.new_zeros(1), splits.cumsum(0)])), rows


def some_clouds(seed: int, most: int) -> tuple[Points, Tensor]:
    """Weighed clouds, and how often to repeat each point."""
    pos, batch = clouds([30, 0, 1, 50], seed=seed)
    points = cloud_points(pos, batch, uniform(81, seed=seed + 1))
    return points, torch.randint(1, most + 1, (81,), generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), most=st.integers(1, 4))
def test_points_repeated_at_a_share_of_their_weight_change_no_sampling(seed: int, most: int) -> None:
    points, repeats = some_clouds(seed, most)
    more, rows = repeated(points, repeats)
    for coarsen in (lambda one: coarsen_farthest(one, 0.3), lambda one: coarsen_voxels(one, 0.3)):
        fewer, again = coarsen(points), coarsen(more)
        assert_close(again.coordinates, fewer.coordinates)
        assert_close(again.weights, fewer.weights)
        assert torch.equal(again.splits, fewer.splits)
    for sampling in ("surface", "volume"):
        weights = cloud_weights(points, sampling, neighbours=5)  # type: ignore[arg-type]
        assert_close(cloud_weights(more, sampling, neighbours=5), (weights / repeats)[rows])  # type: ignore[arg-type]


def calibrated(network: nn.Module, x: Tensor, points: Points) -> dict[str, Tensor]:
    """Parameters and buffers of a copy that was calibrated on these clouds."""
    copy = deepcopy(network)
    copy.calibrate(x, points.coordinates, points.sample_index(), points.weights)  # type: ignore[operator]
    return {name: tensor.detach().double() for name, tensor in [*copy.named_parameters(), *copy.named_buffers()]}


@pytest.mark.parametrize("coarsening", ["voxels", "farthest"])
def test_points_repeated_at_a_share_of_their_weight_change_no_answer(coarsening: str) -> None:
    """Counts stand for nothing: pooling, norms and networks see the function that was sampled."""
    points, repeats = some_clouds(seed=0, most=3)
    more, rows = repeated(points, repeats)
    pos, batch, x = points.coordinates, points.sample_index(), seeded(81, 2)
    options: dict[str, Any] = {
        "channels": (4, 4),
        "spacing": 0.3,
        "coarsening": coarsening,
        "kernel": replace(CLOUD_KERNEL, hidden=4),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [CloudCCNN(2, 3, **options).double(), CloudUNet(2, 3, **options).double()]
    for network in networks:
        clouds_twice = [(x, points), (x[rows], more)]
        assert_all_close(*(calibrated(network, *one) for one in clouds_twice), factor=100)
        for training in (True, False):
            once = network.train(training)(x, pos, batch, points.weights)
            often = network.train(training)(x[rows], more.coordinates, more.sample_index(), more.weights)
            by_point = isinstance(network, CloudUNet)
            assert_close(often, once[rows] if by_point else once, factor=100)


def test_voxels_are_the_cells_of_a_grid_that_starts_at_the_cloud() -> None:
    pos, batch = clouds([30, 0, 1, 50])
    points = cloud_points(pos, batch)
    cells = voxel_cells(points, 0.3)
    lowest = np.stack([pos[batch == b].numpy().min(0) if (batch == b).any() else np.zeros(3) for b in range(4)])
    keys = np.column_stack([batch.numpy(), np.floor((pos.numpy() - lowest[batch.numpy()]) / 0.3)])
    _, expected = np.unique(keys, axis=0, return_inverse=True)
    assert cells.tolist() == expected.reshape(-1).tolist()
    shift = torch.tensor([2.0**22, -(2.0**20), 8.0], dtype=torch.float64)
    rounded = torch.round(pos * 2**20) / 2**20
    moved, still = (voxel_cells(cloud_points(one, batch), 0.25) for one in (rounded + shift, rounded))
    assert torch.equal(moved, still)


@pytest.mark.parametrize("coarsen", [lambda p: coarsen_voxels(p, 0.4), lambda p: coarsen_farthest(p, 0.2)])
def test_coarser_points_keep_the_weight_of_every_cloud(coarsen: Callable[[Points], Points]) -> None:
    pos, batch = clouds([30, 0, 1, 50])
    points = cloud_points(pos, batch, uniform(81, seed=2))
    coarse = coarsen(points)
    assert (coarse.samples, coarse.splits.diff()[1], coarse.splits.diff()[2]) == (4, 0, 1)
    assert 4 < coarse.count < 60

    def masses(own: Points) -> Tensor:
        return torch.zeros(4, dtype=torch.float64).index_add(0, own.sample_index(), own.weights)

    assert_close(masses(coarse), masses(points))


def test_weights_go_to_the_nearest_and_to_centres_of_mass() -> None:
    pos, batch = clouds([30, 50])
    points = cloud_points(pos, batch, uniform(80, seed=2))
    rows = farthest_points(points, 0.2)
    distance = torch.cdist(pos, pos[rows]) + 10 * (batch[:, None] != batch[rows])
    expected = torch.zeros(len(rows), dtype=torch.float64).index_add(0, distance.argmin(1), points.weights)
    assert_close(coarsen_farthest(points, 0.2).weights, expected)
    coarse = coarsen_voxels(points, 0.4)

    def moments(own: Points) -> Tensor:
        mass = own.weights[:, None] * own.coordinates
        return torch.zeros(2, 3, dtype=torch.float64).index_add(0, own.sample_index(), mass)

    assert_close(moments(coarse), moments(points))
    unweighted = coarsen_voxels(Points(pos[:30], torch.zeros(30, dtype=torch.float64)), 10.0)
    assert_close(unweighted.coordinates, pos[:30].mean(0, keepdim=True))
    channels = coarsen_voxels(Points(pos, uniform(80, 2, seed=3)), 0.4)
    assert_close(channels.weights.sum(0), uniform(80, 2, seed=3).sum(0))


def test_centres_of_voxels_have_gradients() -> None:
    pos = uniform(20, 3).requires_grad_()
    centres = coarsen_voxels(Points(pos), 0.5).coordinates
    (gradient,) = torch.autograd.grad(centres.sum(), pos)
    assert_close(gradient.sum(), torch.tensor(3.0 * len(centres), dtype=torch.float64))


def test_sampling_that_makes_no_sense_is_refused() -> None:
    points = Points(uniform(9, 3) * 1e9)
    periodic = Points(uniform(9, 3), periods=(1.0, None, None))
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: farthest_points(points, 0.0), r"ratio must lie in \(0, 1\], got 0.0"),
        (lambda: coarsen_farthest(points, 1.5), r"ratio must lie in \(0, 1\], got 1.5"),
        (lambda: voxel_cells(points, -1.0), "size must be positive and finite, got -1.0"),
        (lambda: coarsen_voxels(points, 1e-3), "size must be larger: cells cannot be numbered, got 0.001 for"),
        (lambda: farthest_points(periodic, 0.5), "points must have axes that do not repeat"),
        (lambda: voxel_cells(periodic, 0.5), "points must have axes that do not repeat"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


# ---- weights ----


def skewed_sphere(count: int, skew: float, seed: int = 0) -> Tensor:
    """Points on the unit sphere whose density grows as exp(skew z): all of them on the same surface."""
    generator = torch.Generator().manual_seed(seed)
    # The sphere's area is uniform in z (Archimedes), so z has the density exp(skew z) on [-1, 1].
    share = torch.rand(count, generator=generator, dtype=torch.float64)
    z = 2 * share - 1
    if skew:
        z = torch.log(math.exp(-skew) + share * (math.exp(skew) - math.exp(-skew))) / skew
    angle = 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
    ring = (1 - z * z).clamp(min=0).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=1)


def test_a_surface_is_integrated_whatever_its_density() -> None:
    points = Points(skewed_sphere(4000, 1.0))
    x, _, z = points.coordinates.T

    def error(sampling: Any, function: Tensor, exact: float) -> float:
        return abs(float((cloud_weights(points, sampling, total=4 * math.pi) * function).sum()) - exact) / (4 * math.pi)

    # Means over the sphere: z = 0, x^2 = 1/3.
    for function, exact in ((z, 0.0), (x * x, 4 * math.pi / 3)):
        assert error("surface", function, exact) < 0.015
    assert error("even", z, 0.0) > 0.3  # coth(1) - 1
    assert error("volume", z, 0.0) > 0.1


def test_a_volume_is_integrated_whatever_its_density() -> None:
    pos = uniform(6000, 2) ** 1.5
    weights = cloud_weights(Points(pos), "volume")
    assert abs(float((weights * pos[:, 0]).sum()) - 0.5) < 0.02
    assert abs(float(pos[:, 0].mean()) - 0.5) > 0.08
    curve = torch.stack([torch.cos(2 * pos[:, 0]), torch.sin(2 * pos[:, 0])], dim=1)  # an arc of angle 2 in the plane
    along = cloud_weights(Points(curve), "surface")
    assert abs(float((along * curve[:, 1]).sum()) - (1 - math.cos(2)) / 2) < 0.01


def test_clouds_are_weighed_apart_and_equal_places_share() -> None:
    sphere = skewed_sphere(300, 0.0)
    pos = torch.cat([sphere, sphere[:1].expand(40, 3), sphere[:5], sphere[:1]])
    batch = torch.repeat_interleave(torch.arange(5), torch.tensor([340, 0, 5, 1, 0]))
    totals = torch.tensor([2.0, 1.0, 3.0, 4.0, 1.0], dtype=torch.float64)
    weights = cloud_weights(cloud_points(pos, batch, batch_size=5), "surface", total=totals)
    sums = torch.zeros(5, dtype=torch.float64).index_add(0, batch, weights)
    assert_close(sums, torch.tensor([2.0, 0.0, 3.0, 4.0, 0.0], dtype=torch.float64))
    alone = cloud_weights(Points(sphere), "surface", total=2.0)
    assert_close(weights[1:300], alone[1:])
    assert_close(weights[300:340].sum() + weights[0], alone[0])
    equal = cloud_weights(Points(torch.ones(30, 3, dtype=torch.float64)), "surface")
    assert_close(equal, torch.full((30,), 1 / 30, dtype=torch.float64))
    assert cloud_weights(Points(torch.zeros(0, 3)), "volume").shape == (0,)


def test_the_transform_adds_the_weights() -> None:
    data = Data(pos=skewed_sphere(50, 0.5).to(torch.float32))
    weighed = QuadratureWeights("surface", total=2.0, neighbours=8)(data)
    expected = cloud_weights(Points(data.pos), "surface", total=2.0, neighbours=8)
    assert_close(weighed.weight, expected)
    assert "weight" not in data
    assert repr(QuadratureWeights("even")) == "QuadratureWeights('even', total=1.0, neighbours=16)"


def test_weights_that_make_no_sense_are_refused() -> None:
    points = Points(uniform(9, 3))
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: cloud_weights(points, "shell"), "sampling must be one of .*, got 'shell'"),  # type: ignore[arg-type]
        (lambda: QuadratureWeights("shell"), "sampling must be one of .*, got 'shell'"),  # type: ignore[arg-type]
        (lambda: cloud_weights(points, "even", total=0.0), r"total must be positive and finite, got \[0.0\]"),
        (lambda: cloud_weights(points, "even", total=torch.ones(2)), "total must be one number or one per cloud, 1"),
        (lambda: cloud_weights(points, "volume", neighbours=0), "neighbours must be at least 1, got 0"),
        (lambda: cloud_weights(Points(uniform(9, 1)), "surface"), "points must have two axes or more for a surface"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


# ---- isotropic kernels ----


def isotropic_kernel(d: int = 3, width: float = 0.2, hidden: int = 3, seed: int = 0) -> Kernel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = SIREN(1, 2, hidden=hidden, layers=1, omega_0=3.0)
    mask = RadialMask(width, d)
    return Kernel(Isotropic(generator, d), mask, extent=mask.support.tolist()).to(torch.float64)


def test_an_isotropic_kernel_is_a_function_of_the_squared_distance() -> None:
    inner = MLP(1, 4, hidden=5).to(torch.float64)
    generator = Isotropic(inner, 3)
    offsets = uniform(30, 3, low=-1)
    assert_close(generator(offsets), inner(2 * offsets.square().sum(1, keepdim=True) - 1))
    assert generator.output is inner.output
    kernel = isotropic_kernel()
    turned = kernel(offsets @ rotation().T)
    assert_close(turned, kernel(offsets), factor=10)
    kernel.mask.profile.log_scale.data.fill_(0.3)  # a mask that was trained is still a ball
    assert_close(kernel(offsets @ rotation().T), kernel(offsets), factor=10)
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(kernel(zero).sum(), zero)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_radial_mask_is_the_gaussian_mask_of_equal_widths() -> None:
    radial, gaussian = (one.to(torch.float64) for one in (RadialMask(0.3, 3, 0.02), GaussianMask([0.3] * 3, 0.02)))
    offsets = uniform(200, 3, low=-1.0)
    assert_close(radial(offsets), gaussian(offsets))
    assert_close(radial.support, gaussian.support)
    assert_close(radial.width, gaussian.width[:1])
    assert radial.ellipsoidal
    assert sum(parameter.numel() for parameter in radial.parameters()) == 1
    assert not RadialMask(0.3, 3, trainable=False).profile.log_scale.requires_grad


@pytest.mark.parametrize("engine", ["neighbours", "spectral"])
def test_isotropic_kernels_on_every_engine_of_points(engine: Any) -> None:
    kernel = isotropic_kernel()
    source, query = Points(uniform(60, 3), uniform(60, seed=1)), Points(uniform(40, 3, seed=2))
    values = seeded(60, 2)
    exact = dense(kernel, values, source, query).detach()
    result = convolve(kernel, values, source, query, engine=engine, rtol=1e-4).detach()
    if engine == "spectral":
        assert float((result - exact).norm() / exact.norm()) < 2e-3
    else:
        assert_close(result, exact)
    assert_close(convolve(kernel, values, source, query, engine="reference"), exact)


def test_isotropic_kernels_on_grids() -> None:
    kernel, grid = isotropic_kernel(2), Grid((9, 7), (0.1, 0.13))
    values = seeded(3, 2, 9, 7)
    exact = convolve(kernel, values, grid, engine="reference")
    assert_close(convolve(kernel, values, grid, engine="fft"), exact)


@requires_compiler
def test_isotropic_kernels_on_keops(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Points(uniform(60, 3), uniform(60, seed=1))
    compare_keops(monkeypatch, isotropic_kernel(), seeded(60, 2), source, only=[])


def test_rotations_as_augmentation_do_not_touch_isotropic_layers() -> None:
    torch.manual_seed(1)
    pos, batch = clouds()
    data = RandomRotate(180, axis=0)(RandomRotate(180, axis=2)(Data(pos=pos)))
    assert float((data.pos - pos).abs().max()) > 0.1
    x = seeded(20, 2)
    isotropic, free = seeded_conv(2, 3, width=0.3, isotropic=True), seeded_conv(2, 3, width=0.3)
    assert_close(isotropic(x, data.pos, batch), isotropic(x, pos, batch), factor=1e6)  # turned in float32
    with torch.no_grad():
        change = float((free(x, data.pos, batch) - free(x, pos, batch)).norm() / free(x, pos, batch).norm())
    assert change > 0.01


def fibonacci_sphere(count: int) -> Tensor:
    """Evenly spread points: equal areas, each of 4 pi / count."""
    index = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * index + 1) / count
    angle = math.pi * (1 + math.sqrt(5)) * index
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=1)


@pytest.mark.parametrize("degree", [1, 2, 5])
def test_chordal_kernels_multiply_spherical_harmonics(degree: int) -> None:
    """Funk-Hecke: a zonal kernel k(cos a) turns Y_l into 2 pi integral k(t) P_l(t) dt times Y_l."""
    kernel = isotropic_kernel(width=chord_length(1500, 6371))
    stations = Points(fibonacci_sphere(4000), torch.full((4000,), 4 * math.pi / 4000, dtype=torch.float64))
    pole = rotation()[0]
    harmonic = torch.from_numpy(eval_legendre(degree, (stations.coordinates @ pole).numpy()))
    query = unit_vectors(torch.tensor([90.0, 47.0, -12.0]), torch.tensor([0.0, 180.0, 361.0]))

    def profile(t: float, channel: int) -> float:
        chord = torch.tensor([[math.sqrt(2 - 2 * t), 0.0, 0.0]], dtype=torch.float64)
        return float(kernel(chord)[0, channel].detach()) * eval_legendre(degree, t)

    ends = 1 - float(kernel.support[0]) ** 2 / 2  # cosine of the angle at which the kernel ends
    factors = [2 * math.pi * quad(profile, ends, 1, (channel,), epsrel=1e-9)[0] for channel in range(2)]
    expected = torch.from_numpy(eval_legendre(degree, (query @ pole).numpy()))[:, None] * torch.tensor(factors)
    result = convolve(kernel, harmonic[:, None].expand(-1, 2).contiguous(), stations, Points(query)).detach()
    assert float((result - expected).abs().max() / expected.abs().max()) < 2e-3


def test_places_on_the_globe() -> None:
    places = unit_vectors(torch.tensor([0.0, 0.0, 90.0, 45.0]), torch.tensor([0.0, 90.0, 77.0, 360.0]))
    half = math.sqrt(0.5)
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [half, 0, half]]
    assert_close(places, torch.tensor(expected, dtype=torch.float64))
    # Quito to Singapore, by the haversine formula; across the date line, where longitudes differ by 358.
    latitude, longitude = torch.tensor([-0.18, 1.35], dtype=torch.float64), torch.tensor([-78.47, 103.82])
    north, east = torch.deg2rad(latitude), torch.deg2rad(longitude.to(torch.float64))
    haversine = torch.sin(north.diff() / 2) ** 2 + north.cos().prod() * torch.sin(east.diff() / 2) ** 2
    arc = float(2 * 6371 * torch.asin(haversine.sqrt()))
    quito, singapore = unit_vectors(latitude, longitude)
    assert chord_length(arc, 6371) == pytest.approx(float((quito - singapore).norm()), rel=1e-12)
    west, east_of = unit_vectors(torch.tensor([10.0, 10.0]), torch.tensor([179.0, -179.0]))
    assert float((west - east_of).norm()) < 0.035


def test_isotropy_that_makes_no_sense_is_refused() -> None:
    degrees = torch.tensor([10.0, 91.0])
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: Isotropic(SIREN(2, 3), 3), "inner must have one axis, got 2"),
        (lambda: RadialMask(0.1, 0), "d must be at least 1, got 0"),
        (lambda: RadialMask(-0.1, 3), "width must be positive and finite"),
        (lambda: unit_vectors(degrees, degrees), r"latitude must lie in \[-90, 90\] degrees, got 91"),
        (lambda: unit_vectors(degrees, degrees[:1]), r"longitude must have shape \(2,\)"),
        (lambda: unit_vectors(degrees[None], degrees), r"latitude must have shape \(N,\), got \(1, 2\)"),
        (lambda: unit_vectors(degrees * math.nan, degrees), "latitude must be finite, got nan"),
        (lambda: unit_vectors(degrees, degrees * math.nan), "longitude must be finite, got nan"),
        (lambda: chord_length(4.0), r"arc must lie in \[0, 3.14159\], got 4.0"),
        (lambda: chord_length(1.0, 0.0), "radius must be positive and finite, got 0.0"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


# ---- networks ----


def trained_statistics(network: CloudCCNN | CloudUNet, pos: Tensor, batch: Tensor, weight: Tensor) -> None:
    """Calibrated, with the norms' statistics of such clouds, in evaluation mode."""
    network.calibrate(None, pos, batch, weight)
    network.train()
    with torch.no_grad():
        for _ in range(30):
            network(None, pos, batch, weight)
    network.eval()


@pytest.mark.parametrize("coarsening", ["voxels", "farthest"])
def test_the_answer_follows_the_shape_and_not_its_sampling(coarsening: Any) -> None:
    stretch = torch.tensor([1.0, 0.7, 0.4], dtype=torch.float64)

    def sampled(count: int, skew: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        pos = torch.cat([skewed_sphere(count, skew, seed + one) * stretch for one in range(3)])
        batch = torch.arange(3).repeat_interleave(count)
        return pos, batch, cloud_weights(cloud_points(pos, batch), "surface")

    torch.manual_seed(0)
    network = CloudCCNN(1, 4, channels=(6, 8), spacing=0.25, coarsening=coarsening)
    even = sampled(500, 0.0, 1)
    trained_statistics(network, *even)
    with torch.no_grad():
        answer = network(None, *even).mean(0)
        pos, batch, weight = sampled(800, 1.0, 11)
        error = float((network(None, pos, batch, weight) - answer).norm() / math.sqrt(3) / answer.norm())
        without = float((network(None, pos, batch) - answer).norm() / math.sqrt(3) / answer.norm())
    assert error < without / 4, (error, without)


@pytest.mark.parametrize("coarsening", ["voxels", "farthest"])
def test_networks_answer_each_cloud_of_a_batch_alone(coarsening: Any) -> None:
    torch.manual_seed(0)
    sizes = [30, 0, 1, 45, 0]
    pos, batch = clouds(sizes)
    x = seeded(76, 2)
    options: dict[str, Any] = {"channels": (4, 6), "spacing": 0.3, "coarsening": coarsening}
    classifier = CloudCCNN(2, 3, **options).to(torch.float64).eval()
    with torch.no_grad():
        classifier.hidden.bias.copy_(seeded(6))  # else the answer to an empty cloud is zero
    answers = classifier(x, pos, batch, batch_size=5)
    assert answers.shape == (5, 3)
    labels = CloudUNet(2, 3, **options).to(torch.float64).eval()
    per_point = labels(x, pos, batch, batch_size=5)
    assert per_point.shape == (76, 3)
    for cloud in (0, 2, 3):
        own = batch == cloud
        assert_close(classifier(x[own], pos[own]), answers[cloud : cloud + 1], factor=10)
        assert_close(labels(x[own], pos[own]), per_point[own], factor=10)
    head = nn.functional.gelu(classifier.hidden.bias) @ classifier.output.weight.T + classifier.output.bias
    assert_close(answers[1::3], head.expand(2, 3))
    assert bool((answers[0] - answers[3]).abs().max() > 1e-6)
    order = torch.randperm(76, generator=torch.Generator().manual_seed(0))
    order = order[torch.argsort(batch[order], stable=True)]
    assert_close(labels(x[order], pos[order], batch), per_point[order], factor=10)
    gradient = torch.autograd.grad(per_point.square().sum(), list(labels.parameters()), allow_unused=True)
    assert all(one is not None and bool(torch.isfinite(one).all()) for one in gradient)


def test_turned_clouds_have_the_same_answers() -> None:
    torch.manual_seed(0)
    pos, batch = clouds([40, 30])
    x = seeded(70, 2)
    for isotropic in (True, False):
        options: dict[str, Any] = {"channels": (4, 6), "spacing": 0.3, "coarsening": "farthest"}
        network = CloudUNet(2, 3, kernel=replace(CLOUD_KERNEL, isotropic=isotropic), **options).to(torch.float64)
        network.calibrate(x, pos, batch)
        network.eval()
        with torch.no_grad():
            straight, turned = network(x, pos, batch), network(x, (pos - 0.5) @ rotation().T, batch)
        if isotropic:
            assert_close(turned, straight, factor=1e3)
        else:
            assert float((turned - straight).norm() / straight.norm()) > 1e-3


def test_coordinates_of_networks_have_gradients() -> None:
    torch.manual_seed(0)
    pos = uniform(20, 3)
    network = CloudCCNN(1, 2, channels=(3, 4), spacing=0.3).to(torch.float64).eval()
    weight = torch.full((20,), 0.05, dtype=torch.float64)
    direction = seeded(20, 3)

    def answer(step: float) -> float:
        return float(network(None, pos + step * direction, weight=weight)[0, 0].detach())

    leaf = pos.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(None, leaf, weight=weight)[0, 0], leaf)
    slope = (answer(1e-6) - answer(-1e-6)) / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_a_network_learns_labels_of_points() -> None:
    """Which half of its own cloud a point lies in: needs the context, and the points' places."""
    torch.manual_seed(0)
    pos, batch = clouds([60, 40])
    pos = pos + torch.tensor([[0.0], [3.0]], dtype=torch.float64)[batch]
    middle = torch.stack([pos[batch == b, 0].mean() for b in range(2)])
    label = (pos[:, 0] > middle[batch]).to(torch.int64)
    network = CloudUNet(1, 2, channels=(8, 8), spacing=0.25)
    network.calibrate(None, pos, batch)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(80):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(None, pos, batch), label)
        loss.backward()
        optimiser.step()
    network.eval()
    share = float((network(None, pos, batch).argmax(1) == label).double().mean())
    assert share > 0.9, share


def test_calibration_of_a_network_keeps_the_scale_on_every_level() -> None:
    torch.manual_seed(0)
    pos = skewed_sphere(600, 0.0)
    network = CloudCCNN(1, 3, channels=(8, 8, 8), spacing=0.15).to(torch.float64)
    network.calibrate(None, pos)
    points = cloud_points(pos)
    x = torch.ones(600, 1, dtype=torch.float64)
    network.train()
    results = network.encoder(x, points, network.encoder.coarser(points))
    for values in results:
        assert 0.1 < float(values.detach().square().mean()) < 1.5


def test_networks_that_make_no_sense_are_refused() -> None:
    pos, batch = clouds()
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: CloudCCNN(1, 2, spacing=0.1, channels=()), r"channels must name one level or more, got \(\)"),
        (lambda: CloudUNet(1, 2, spacing=0.1, coarsening="random"), "coarsening must be one of .*, got 'random'"),  # type: ignore[arg-type]
        (lambda: CloudUNet(1, 2, spacing=0.1, coarsening="farthest", ratio=2.0)(None, pos), r"ratio must lie in"),
        (lambda: CloudCCNN(2, 2, spacing=0.1)(None, pos), "x must be given for a network with several channels in"),
        (lambda: CloudCCNN(1, 2, spacing=0.1)(None, pos * math.nan), "pos must be finite, got nan"),
        (lambda: CloudCCNN(1, 2, spacing=0.1)(None, pos[:0], batch[:0]), "must hold a positive weight"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_kernels_of_clouds_end_at_their_extent() -> None:
    kernel = replace(CLOUD_KERNEL, width=0.5, isotropic=True).on_axes(2)(2, 3)
    assert (kernel.shape, kernel.d) == ((3, 2), 2)
    assert_close(kernel.support, kernel.extent)
    assert float(kernel.extent[0]) == pytest.approx(0.5 * math.sqrt(-2 * math.log(0.01)), rel=1e-6)


@pytest.mark.parametrize("kind", [CloudCCNN, CloudUNet, CCNNConv])
def test_numpy_arrays_serve_as_tensors_do(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    kernel = replace(CLOUD_KERNEL, width=0.2)
    if kind is CCNNConv:
        layer: Any = CCNNConv(2, 3, dim=3, kernel=kernel)
    else:
        layer = kind(2, 3, channels=(4, 6), spacing=0.2, kernel=kernel)
    rng = np.random.default_rng(0)
    pos, x = rng.random((40, 3)), rng.normal(size=(40, 2)).astype(np.float32)
    batch, weight = np.arange(40) // 20, rng.random(40)
    tensors = [torch.from_numpy(one) for one in (x, pos, batch, weight)]
    layer.calibrate(*([] if kind is CCNNConv else [x]), pos, batch, weight)
    layer.eval()
    assert torch.equal(layer(x, pos, batch, weight), layer(*tensors))
    if kind is CCNNConv:
        first = [one[:2] for one in tensors[1:3]]
        paired = layer(tensors[0], (tensors[1], first[0]), (tensors[2], first[1]))
        assert torch.equal(layer(x, (pos, pos[:2]), (batch, batch[:2])), paired)
    with pytest.raises(ValueError, match="pos must hold numbers"):
        layer(x, pos.astype(str), batch)
