"""ModelNet from meshes and voxels, LiDAR tiles: small files written here, what breaks them, the real files."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.datasets import ModelNet
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import RandomRotate

from ccnn_irregular.adapters.geometric import to_points
from ccnn_irregular.adapters.geometric_networks import CloudCCNN
from ccnn_irregular.datasets.cloud_files import open_cloud
from ccnn_irregular.datasets.lidar_ground import load_tile
from ccnn_irregular.datasets.modelnet import CLASSES10, load_clouds, load_pool, load_voxel_centres
from ccnn_irregular.pipelines.tasks.clouds.data import CloudFiles
from ccnn_irregular.testing import assert_close

# A box of 2 x 1 x 1; each of its two ends is a tenth of its surface.
BOX = """OFF
8 12 0
-1 -0.5 -0.5
1 -0.5 -0.5
1 0.5 -0.5
-1 0.5 -0.5
-1 -0.5 0.5
1 -0.5 0.5
1 0.5 0.5
-1 0.5 0.5
3 0 1 2
3 0 2 3
3 4 5 6
3 4 6 7
3 0 1 5
3 0 5 4
3 3 2 6
3 3 6 7
3 0 3 7
3 0 7 4
3 1 2 6
3 1 6 5
"""


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    for name in CLASSES10:
        for part, count in (("train", 2), ("test", 1)):
            folder = tmp_path / "raw" / name / part
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{name}_{index:04}.off").write_text(BOX)
    return tmp_path


def test_meshes_become_points_on_their_surfaces(meshes: Path) -> None:
    torch.manual_seed(0)
    train, test = load_clouds(meshes, points=2000), load_clouds(meshes, part="test", points=50)
    assert (len(train), len(test)) == (20, 10)
    cloud = train[0]
    assert (cloud.pos.shape, cloud.pos.dtype, int(train[19].y)) == ((2000, 3), torch.float32, 9)
    assert "face" not in cloud
    assert float(cloud.pos.abs().max()) <= 1
    # Two of the ten units of area are the ends. NormalizeScale moves the mean of the points to the middle.
    ends = (cloud.pos[:, 0].abs() > 0.93).double().mean()
    assert 0.18 < float(ends) < 0.28  # and up to 0.07 of the four long sides
    assert_close(cloud.weight, torch.full((2000,), 1 / 2000, dtype=torch.float64))
    turned = load_clouds(meshes, points=50, sampling="surface", augmentation=RandomRotate((90, 90), axis=2))[0]
    assert float(turned.pos[:, 1].abs().max()) > 0.9
    assert float(turned.pos[:, 0].abs().max()) < 0.7
    assert float(turned.weight.sum()) == pytest.approx(1)
    assert float(turned.weight.std()) > 0
    (batch,) = DataLoader(test, batch_size=10)
    assert to_points(batch).splits.diff().tolist() == [50] * 10


def test_meshes_are_those_of_torch_geometric(meshes: Path) -> None:
    """Its class keeps what it has parsed as a pickle; ours reads the meshes, and keeps arrays."""
    ours = load_clouds(meshes)
    theirs = ModelNet(str(meshes), "10")
    assert ours.y.tolist() == theirs.y.tolist()
    for mine, other in zip((ours.get(n) for n in range(20)), (theirs.get(n) for n in range(20)), strict=True):
        assert torch.equal(mine.pos, other.pos)
        assert torch.equal(mine.face, other.face)
    assert (meshes / "meshes_train.h5").is_file()
    assert torch.equal(load_clouds(meshes).get(3).pos, ours.get(3).pos)


def test_a_changed_mesh_is_parsed_anew(meshes: Path) -> None:
    first = load_clouds(meshes).get(0).pos
    path = meshes / "raw" / CLASSES10[0] / "train" / f"{CLASSES10[0]}_0000.off"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    assert not torch.equal(load_clouds(meshes).get(0).pos, first)


def test_what_others_have_pickled_is_not_opened(meshes: Path, tmp_path: Path) -> None:
    processed = tmp_path / "other" / "processed"
    processed.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        (processed / name).write_text("not opened")
    with pytest.raises(FileNotFoundError, match=r"must hold the meshes of ModelNet10 in raw"):
        load_pool(tmp_path / "other", "10")
    (meshes / "processed").mkdir()
    (meshes / "processed" / "training.pt").write_text("not opened")
    assert len(load_pool(meshes, "10")) == 20


def test_a_class_without_meshes_is_named(meshes: Path) -> None:
    shutil.rmtree(meshes / "raw" / "chair")
    with pytest.raises(FileNotFoundError, match=r"meshes <class>/train/\*\.off of each class, got none of chair"):
        load_clouds(meshes)


def test_voxels_become_their_centres(tmp_path: Path) -> None:
    grids = np.zeros((3, 30, 30, 30), np.int32)
    grids[0, 0, 29, 15] = grids[0, 3, 3, 3] = 1
    grids[2] = 1
    labels = np.array([4, 0, 9])
    np.savez(tmp_path / "modelnet10_voxels.npz", X_train=grids, y_train=labels, X_test=grids[:1], y_test=labels[:1])
    clouds = load_voxel_centres(tmp_path)
    assert [cloud.num_nodes for cloud in clouds] == [2, 0, 27000]
    assert [int(cloud.y) for cloud in clouds] == labels.tolist()
    expected = torch.tensor([[-29.0, 29.0, 1.0], [-23.0, -23.0, -23.0]]) / 30
    assert_close(clouds[0].pos, expected)
    assert float(clouds[2].weight.sum()) == pytest.approx(8.0)
    points = to_points(Batch.from_data_list(clouds))
    assert points.splits.diff().tolist() == [2, 0, 27000]
    assert len(load_voxel_centres(tmp_path, "test")) == 1


def test_broken_voxels_are_refused(tmp_path: Path) -> None:
    good = {"X_train": np.zeros((2, 4, 4, 4), np.int32), "y_train": np.zeros(2, np.int64)}
    cases: dict[str, dict[str, np.ndarray]] = {
        "must hold the arrays X_train, y_train, got": {"X_train": good["X_train"]},
        r"X_train must have shape \(B, n, n, n\), got \(2, 4, 4, 3\)": good | {"X_train": np.zeros((2, 4, 4, 3))},
        "y_train must hold one integer for each of 2 grids": good | {"y_train": np.zeros(3, np.int64)},
        "X_train must hold 0 and 1, got 2 to 2": good | {"X_train": good["X_train"] + 2},
        r"must lie in 0..9, got 10 for sample 1": good | {"y_train": np.array([0, 10])},
    }
    with pytest.raises(FileNotFoundError, match=r"must hold modelnet10_voxels\.npz"):
        load_voxel_centres(tmp_path)
    with pytest.raises(FileNotFoundError, match="root must be an existing folder"):
        load_voxel_centres(tmp_path / "absent")
    for message, content in cases.items():
        np.savez(tmp_path / "modelnet10_voxels.npz", **content)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            load_voxel_centres(tmp_path)
    with pytest.raises(ValueError, match="part must be one of"):
        load_voxel_centres(tmp_path, "valid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name must be one of"):
        load_clouds(tmp_path, "20")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="part must be one of"):
        load_clouds(tmp_path, part="valid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        load_clouds(tmp_path, points=0)


@pytest.mark.parametrize("form", ["txt", "npz"])
def test_lidar_tiles_of_both_forms(tmp_path: Path, form: str) -> None:
    far = np.array([512_700.25, 5_403_547.5, 300.0])
    steps = np.stack(np.meshgrid(np.arange(8.0), np.arange(6.0), indexing="ij"), -1).reshape(-1, 2)
    places = far + np.column_stack([steps, 0.1 * steps[:, 0]])
    ground = steps[:, 0] < 4
    path = tmp_path / f"tile.{form}"
    if form == "npz":
        np.savez(path, xyz=places, is_ground=ground)
    else:
        np.savetxt(path, np.column_stack([places, ~ground]), fmt=["%.2f", "%.2f", "%.2f", "%d"])
    tile = load_tile(path)
    assert_close(tile.pos + tile.origin, torch.from_numpy(places))
    assert float(tile.pos.abs().max()) < 4
    assert tile.y.tolist() == ground.astype(int).tolist()
    assert float(tile.weight.sum()) == pytest.approx(7 * 5)
    assert float(load_tile(path, area=48.0, sampling="even").weight.max()) == pytest.approx(1.0)


def test_a_turned_tile_has_the_same_weights(tmp_path: Path) -> None:
    """The box around a tile turned by 45 degrees is up to twice as large as the tile."""
    generator = np.random.default_rng(0)
    places = np.column_stack([generator.uniform(0, [60, 40], (900, 2)), generator.normal(300, 1, 900)])
    turn = np.eye(3)
    turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    weights = []
    for number, one in enumerate((places, (places @ turn.T + [512_700.25, 5_403_547.5, 0])[::-1])):
        np.savez(tmp_path / f"{number}.npz", xyz=one, is_ground=np.ones(900, bool))
        weights.append(load_tile(tmp_path / f"{number}.npz").weight)
    torch.testing.assert_close(weights[1].flip(0), weights[0], rtol=1e-6, atol=0)
    assert float(weights[0].sum()) == pytest.approx(2400, rel=0.06)


def test_a_las_file_is_a_tile(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places, ground = rng.integers(0, 500, (60, 3)).astype(np.float32), rng.random(60) < 0.5
    tile = load_tile(as_laz(places, ground, tmp_path / "tile.LAZ"))
    assert_close(tile.pos + tile.origin, torch.from_numpy(places.astype(np.float64)))
    assert tile.y.tolist() == ground.astype(int).tolist()
    with pytest.raises(ValueError, match=r"bare\.las must hold points of class 2, ground, got none"):
        load_tile(as_laz(places, np.zeros(60, bool), tmp_path / "bare.las"))


def test_broken_lidar_tiles_are_refused(tmp_path: Path) -> None:
    text, binary = tmp_path / "tile.txt", tmp_path / "tile.npz"
    places, ground = np.random.default_rng(0).random((5, 3)), np.ones(5, bool)
    cases: list[tuple[Callable[[], object], Path, str]] = [
        (lambda: text.write_text("1 2 3\n"), text, r"must hold four numbers on each line, got \(1, 3\)"),
        (lambda: text.write_text("1 2 3 x\n"), text, "must hold four numbers on each line, east north height code"),
        (lambda: text.write_text("1 2 3 2\n"), text, r"must hold the codes 0 \(ground\) and 1 \(object\), got \[2.\]"),
        (lambda: text.write_text("1 2 3 0\n"), text, "area must be positive, or be given for points that cover none"),
        (lambda: text.write_text("1 nan 3 0\n"), text, "must hold finite positions, got row 0"),
        (lambda: np.savez(binary, xyz=places), binary, "must hold the arrays xyz, is_ground"),
        (lambda: np.savez(binary, xyz=places[:, :2], is_ground=ground), binary, r"must hold positions \(N, 3\)"),
        (lambda: np.savez(binary, xyz=places[:0], is_ground=ground[:0]), binary, "must hold a point, got none"),
        (lambda: np.savez(binary, xyz=places, is_ground=ground[:4]), binary, "must hold one bool for each of 5 points"),
    ]
    for write, path, message in cases:
        write()
        with pytest.raises(ValueError, match=message):
            load_tile(path)
    with pytest.raises(FileNotFoundError, match="path must be an existing file"):
        load_tile(tmp_path / "absent.txt")


# ---- the real files ----


@pytest.fixture(scope="module")
def official(shared_data: Path) -> Path:
    folder = shared_data / "point_clouds"
    if not folder.is_dir():
        pytest.skip(f"no point clouds: {folder} is not a folder")
    return folder


def test_the_voxels_of_modelnet10(official: Path) -> None:
    clouds = load_voxel_centres(official, "test")
    assert len(clouds) == 908
    sizes = torch.tensor([cloud.num_nodes for cloud in clouds])
    assert int((sizes == 0).sum()) == 1
    assert torch.bincount(torch.cat([cloud.y for cloud in clouds])).tolist() == [
        *(50, 100, 100, 86, 86, 100, 86, 100, 100, 100)
    ]
    empty = int((sizes == 0).nonzero()[0])
    batch = Batch.from_data_list([clouds[one] for one in (0, empty, 1)])
    torch.manual_seed(0)
    network = CloudCCNN(1, 10, channels=(4, 8), spacing=0.25).eval()
    answers = network(None, batch.pos, batch.batch, batch.weight, batch_size=3)
    assert answers.shape == (3, 10)
    assert bool(torch.isfinite(answers).all())


def test_the_lidar_tile(official: Path) -> None:
    tile = load_tile(official / "samp11_points_ground.npz")
    assert tile.pos.shape == (38010, 3)
    assert float(tile.y.double().mean()) == pytest.approx(0.5733, abs=1e-4)
    assert float(tile.origin[0, 1]) == pytest.approx(5_403_700, abs=200)
    # The tile fills the box around it but for gaps behind objects.
    assert 0.97 * 134 * 302.5 < float(tile.weight.sum()) < 134 * 302.5


def as_laz(places: np.ndarray, ground: np.ndarray, path: Path) -> Path:
    """The float32 positions of the tile as LAZ; their steps are powers of two, so that none is rounded."""
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [2.0**-5, 0.5, 2.0**-15], np.floor(places.min(0).astype(np.float64))
    las = laspy.LasData(header)
    las.x, las.y, las.z = places.astype(np.float64).T
    las.classification = np.where(ground, 2, 1).astype(np.uint8)
    las.write(path)
    return path


def test_the_lidar_tile_as_laz(official: Path, tmp_path: Path) -> None:
    source = official / "samp11_points_ground.npz"
    with np.load(source) as content:
        laz = as_laz(content["xyz"], content["is_ground"], tmp_path / "samp11.laz")
        few = {"xyz": content["xyz"][::9], "is_ground": content["is_ground"][::9]}
    tile, again = load_tile(source), load_tile(laz)
    for name in ("pos", "origin", "y", "weight"):
        assert torch.equal(again[name], tile[name])
    # As your own file: the same points, values and labels in the same parts.
    np.savez(tmp_path / "few.npz", **few)
    parts = []
    for path in (tmp_path / "few.npz", as_laz(few["xyz"], few["is_ground"], tmp_path / "few.laz")):
        data = CloudFiles(str(path), fields=[])
        data.setup("fit")
        parts.append(data.parts)
    for part, (cloud,) in parts[0].items():
        (other,) = parts[1][part]
        for name in ("places", "values", "labels", "weights", "keys"):
            np.testing.assert_array_equal(getattr(cloud, name), getattr(other, name))


def test_a_room_scan(official: Path) -> None:
    path = official / "room_scan1.pcd"
    if not path.is_file():
        pytest.skip("no room scan")
    cloud = open_cloud(path)
    assert cloud.coordinates.shape == (112_586, 3)
    assert 1 < np.ptp(cloud.coordinates, axis=0).max() < 100


def test_an_official_mesh(official: Path, tmp_path: Path, meshes: Path) -> None:
    sources = sorted((official / "modelnet10_meshes" / "ModelNet10" / "bathtub" / "train").glob("*.off"))
    if not sources:
        pytest.skip("no official meshes of bathtubs")
    for path in (meshes / "raw" / "bathtub" / "train").iterdir():
        path.unlink()
    for path in sources:
        (meshes / "raw" / "bathtub" / "train" / path.name).write_bytes(path.read_bytes())
    clouds = load_clouds(meshes, points=128, sampling="surface")
    assert len(clouds) == len(sources) + 18
    extents = clouds[0].pos.amax(0) - clouds[0].pos.amin(0)
    assert 1 < float(extents.max()) <= 2
    assert math.isclose(float(clouds[0].weight.sum()), 1, rel_tol=1e-9)
