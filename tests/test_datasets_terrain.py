"""Features of terrain on planes and hills whose answer is known, labelled clouds, tiles that are at fault."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.datasets import ShapeNet

from ccnn_irregular.datasets import lidar_ground, shapenet_parts, simulated_terrain
from ccnn_irregular.datasets.processing.terrain import ground_features, height_above_lowest, lowest_in_cells
from ccnn_irregular.datasets.samples import LabelledClouds


def hillside(count: int, seed: int = 0) -> np.ndarray:
    """Points on a plane that rises 0.5 along x and falls 0.2 along y."""
    place = np.random.default_rng(seed).uniform(0, 60, (count, 2))
    return np.column_stack([place, 0.5 * place[:, 0] - 0.2 * place[:, 1]])


def test_heights_above_a_plane_are_exact() -> None:
    positions = hillside(3000)
    raised = np.arange(0, 3000, 10)
    positions[raised, 2] += 4.0
    features = ground_features(positions, radii=(12.0,))
    level = np.setdiff1d(np.arange(3000), raised)
    assert features.dtype == np.float32
    # A third of the reference cells hold no ground point lower than a raised one: the plane is nearly the hillside.
    np.testing.assert_allclose(np.median(np.sinh(features[raised, 0]) / 2), 4.0, atol=0.05)
    np.testing.assert_allclose(np.median(np.abs(np.sinh(features[level, 0]) / 2)), 0.0, atol=0.05)
    np.testing.assert_allclose(np.median(features[:, 1]), np.hypot(0.5, 0.2), atol=0.01)


@given(
    seed=st.integers(0, 1000),
    angle=st.floats(0, 2 * np.pi),
    east=st.floats(-6e5, 6e5),
    lattice=st.booleans(),
    rounded=st.booleans(),
)
def test_features_follow_moved_turned_and_shuffled_terrain(
    seed: int, angle: float, east: float, lattice: bool, rounded: bool
) -> None:
    """Scattered points and lattices, which would have points on the edges of cells; heights that are equal, too."""
    rng = np.random.default_rng(seed)
    place = np.argwhere(np.ones((15, 15))).astype(float) if lattice else rng.uniform(0, 15, (200, 2))
    height = 0.3 * place[:, 0] + rng.uniform(0, 2, len(place))
    positions = np.column_stack([place, np.round(height, 1 if rounded else 12)])
    cos, sin = np.cos(angle), np.sin(angle)
    turned = positions @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [east, 5.4e6, 400.0]
    order = rng.permutation(len(positions))
    found = ground_features(turned[order], radii=(4.0, 8.0))
    np.testing.assert_allclose(found, ground_features(positions, radii=(4.0, 8.0))[order], atol=1e-5)


def test_lowest_points_do_not_depend_on_the_order_of_rows() -> None:
    positions = np.array([[0.0, 0.2, 1.0], [0.1, 0.1, 1.0], [0.0, 0.1, 1.0], [0.3, 0.3, 2.0]])
    assert lowest_in_cells(positions, 1.0).tolist() == [2]
    assert lowest_in_cells(positions[::-1], 1.0).tolist() == [1]


def test_lowest_points_of_cells() -> None:
    positions = np.array([[0.0, 0.0, 3.0], [0.5, 0.5, 1.0], [1.5, 0.0, 7.0], [1.6, 0.2, 9.0]])
    assert sorted(lowest_in_cells(positions, 1.0)) == [1, 2]
    np.testing.assert_array_equal(height_above_lowest(positions, 1.0), [2.0, 0.0, 0.0, 2.0])


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_points_that_are_all_the_same(count: int) -> None:
    features = ground_features(np.full((count, 3), 7.0))
    assert features.shape == (count, 9)
    np.testing.assert_allclose(features, 0, atol=1e-6)


def test_lone_points_have_a_plane() -> None:
    """The lowest point of a cell may lie beyond the reach of others in it."""
    positions = np.array([[0.0, 0.0, 5.0], [1000.0, 0.0, 3.0]])
    np.testing.assert_allclose(ground_features(positions), 0, atol=1e-6)


def test_positions_that_are_at_fault() -> None:
    with pytest.raises(ValueError, match=r"positions must have shape \(N, 3\)"):
        ground_features(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="positions must be finite"):
        ground_features(np.array([[0.0, np.nan, 0.0]]))
    with pytest.raises(ValueError, match="radii must be positive"):
        ground_features(np.zeros((3, 3)), radii=(0.0,))
    with pytest.raises(ValueError, match="cell must be positive"):
        height_above_lowest(np.zeros((3, 3)), 0.0)


def test_labelled_clouds_refuse_what_disagrees() -> None:
    good = simulated_terrain.terrain(50)
    assert good.values.shape == (50, 9)
    parts = {name: getattr(good, name) for name in ("coordinates", "values", "labels", "splits", "classes", "unit")}
    for name, wrong, message in (
        ("coordinates", good.coordinates.float(), "coordinates must be float64"),
        ("coordinates", good.coordinates * torch.nan, "coordinates must be finite"),
        ("values", good.values[:-1], r"values must have shape \(50, C\)"),
        ("values", good.values * torch.inf, "values must be finite"),
        ("labels", good.labels + 5, r"labels must lie in 0\.\.1"),
    ):
        with pytest.raises(ValueError, match=message):
            LabelledClouds(**parts | {name: wrong})


def test_a_tile_of_large_coordinates_keeps_its_shape(tmp_path: Path) -> None:
    """UTM coordinates: the mean is subtracted in float64 before anything else is done."""
    terrain = simulated_terrain.terrain(300, seed=1)
    moved = terrain.coordinates.numpy() + np.array([512_700.25, 5_403_600.5, 300.0])
    np.savez(tmp_path / "tile.npz", xyz=moved, is_ground=terrain.labels.numpy() == 1)
    tile = lidar_ground.load(tmp_path / "tile.npz")
    assert tile.classes == lidar_ground.CLASSES
    np.testing.assert_allclose(tile.coordinates.numpy(), terrain.coordinates.numpy(), atol=1e-6)
    np.testing.assert_allclose(tile.values.numpy(), terrain.values.numpy(), atol=1e-2)


def test_shapenet_is_not_fetched_unasked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="root must hold ShapeNet's parts"):
        shapenet_parts.load(tmp_path, "train")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """ShapeNet's parts as their archive unpacks: three shapes of two kinds to train on, one of each other kind."""
    raw, generator = tmp_path / "raw", np.random.default_rng(0)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    first = 0
    for kind, (_, parts) in shapenet_parts.KINDS.items():
        (raw / kind).mkdir(parents=True)
        for number in range(3):
            rows = generator.normal(size=(5 + number, 6)).round(5)
            labels = first + generator.integers(0, parts, 5 + number)
            np.savetxt(raw / kind / f"shape{number}.txt", np.column_stack([rows, labels]), fmt="%.6f")
            lists[("train", "val", "test")[number]].append(f"shape_data/{kind}/shape{number}")
        first += parts
    (raw / "train_test_split").mkdir()
    for part, names in lists.items():
        (raw / "train_test_split" / f"shuffled_{part}_file_list.json").write_text(json.dumps(names[::-1]))
    return tmp_path


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_shapenet_is_that_of_torch_geometric(shapes: Path, part: str) -> None:
    """Its class keeps what it has parsed as a pickle; ours reads the files, and keeps arrays."""
    ours = shapenet_parts.load(shapes, part)  # type: ignore[arg-type]
    theirs = ShapeNet(str(shapes), split={"validation": "val"}.get(part, part))
    assert len(ours) == len(theirs) == 16
    assert torch.equal(ours.coordinates, theirs.pos.double())
    assert torch.equal(ours.values[:, :3], theirs.x)
    assert torch.equal(ours.labels, theirs.y)
    assert ours.kinds is not None
    assert torch.equal(ours.kinds, theirs.category)
    assert ours.possible is not None
    assert torch.equal(ours.possible, theirs.y_mask)
    assert ours.classes[:5] == ("Airplane 0", "Airplane 1", "Airplane 2", "Airplane 3", "Bag 4")
    again = shapenet_parts.load(shapes, part)  # type: ignore[arg-type]
    assert torch.equal(again.values, ours.values)


def test_broken_files_of_shapenet_are_named(shapes: Path) -> None:
    split = shapes / "raw" / "train_test_split" / "shuffled_train_file_list.json"
    kind = next(iter(shapenet_parts.KINDS))
    for content, message in (
        (json.dumps([f"shape_data/{kind}/../x"]), "list shape_data/<kind>/<name> of known kinds"),
        (json.dumps(["shape_data/12345/x"]), "of known kinds, got shape_data/12345/x"),
        ("{", "must be a JSON list"),
    ):
        split.write_text(content)
        with pytest.raises(ValueError, match=message):
            shapenet_parts.load(shapes, "train")
    split.write_text(json.dumps([f"shape_data/{kind}/shape0"]))
    for content, message in (
        ("1 2 3\n", r"normal and label a row, got \(1, 3\)"),
        ("a b\n", "must hold rows of numbers"),
    ):
        (shapes / "raw" / kind / "shape0.txt").write_text(content)
        with pytest.raises(ValueError, match=message):
            shapenet_parts.load(shapes, "train")


def test_official_tile(shared_data: Path) -> None:
    path = shared_data / "point_clouds" / "samp11_points_ground.npz"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    stored = np.load(path)
    positions, ground = stored["xyz"].astype(np.float64)[::8], stored["is_ground"][::8]
    height = np.sinh(ground_features(positions - positions.mean(0), radii=(12.0,))[:, 0]) / 2
    # The planes tell ground from objects better than the lowest point of a cell does, at the best threshold of each.
    thresholds = np.arange(0.25, 8, 0.25)

    def best(heights: np.ndarray) -> float:
        low = heights[None] < thresholds[:, None]
        return float(((low & ground).sum(1) / (low | ground).sum(1)).max())

    assert best(height) > 0.72
    assert best(height) > max(best(height_above_lowest(positions, cell)) for cell in (2.0, 4.0, 6.0, 8.0)) + 0.02
