"""Shapes as pools of places: ModelNet from voxels and meshes, how points are drawn from them."""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np
import pytest
import torch

from ccnn_irregular.datasets.modelnet import CLASSES10, CLASSES40, load_pool
from ccnn_irregular.datasets.samples import ShapePool
from ccnn_irregular.datasets.simulated_solids import SOLIDS, solids


def write_voxels(folder: Path) -> None:
    """Two shapes to train on, one of them empty, and one to test on."""
    grids = np.zeros((2, 30, 30, 30), dtype=np.int32)
    grids[0, 3:27, 10:20, 12] = 1  # a plate of 24 x 10 voxels, one thick
    np.savez(
        folder / "modelnet10_voxels.npz",
        X_train=grids,
        y_train=np.array([8, 3]),
        X_test=grids[:1],
        y_test=np.array([8]),
    )


def test_voxels_fill_the_box_and_points_fill_the_voxels(tmp_path: Path) -> None:
    write_voxels(tmp_path)
    pool = load_pool(tmp_path)
    assert pool.splits.tolist() == [0, 240, 240]
    assert pool.labels.tolist() == [8, 3]
    index = np.array([1, 0, 0])
    counts = pool.drawable(index, np.array([5, 4000, 100]))
    assert counts.tolist() == [0, 4000, 100]
    rng = np.random.default_rng(0)
    points = pool.draw(index, counts, rng.random(4100), rng.random((4100, 3)))
    # 24 x 10 x 1 voxels, the longest side from -1 to 1, each point evenly distributed in all of it.
    half = np.array([1, 10 / 24, 1 / 24])
    assert (np.abs(points) <= half + 1e-6).all()
    np.testing.assert_allclose(points.std(0), half / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.03)


def test_points_are_at_the_places_that_are_asked_for() -> None:
    pool = solids(4, places=50)
    place = np.random.default_rng(1).random(40)
    first = pool.draw(np.array([2, 0]), np.array([30, 10]), place, np.random.default_rng(1).random((40, 3)))
    rows = np.array([100] * 30 + [0] * 10) + (place * 50).astype(int)
    np.testing.assert_array_equal(first, pool.places.numpy().astype(np.float64)[rows])
    # Points of a surface are places of the pool, those of the shape that was asked for.
    places = pool.places.numpy().astype(np.float64)
    assert set(map(tuple, first[:30])) <= set(map(tuple, places[100:150]))
    assert set(map(tuple, first[30:])) <= set(map(tuple, places[:50]))


def test_solids_are_what_their_class_says() -> None:
    pool = solids(60, places=400, seed=3)
    assert torch.bincount(pool.labels).tolist() == [12] * len(SOLIDS)
    boxed = torch.stack([pool.places[a:b].abs().amax() for a, b in zip(pool.splits[:-1], pool.splits[1:], strict=True)])
    torch.testing.assert_close(boxed, torch.ones(60))
    ring = pool.places.reshape(60, 400, 3)[pool.labels == SOLIDS.index("ring")]
    ball = pool.places.reshape(60, 400, 3)[pool.labels == SOLIDS.index("ball")]
    assert ring[:, :, :2].norm(dim=2).amin() > 0.3  # a hole in the middle
    assert ball[:, :, :2].norm(dim=2).amin() < 0.3


def test_meshes_come_before_voxels(tmp_path: Path) -> None:
    write_voxels(tmp_path)
    triangle = "OFF\n3 1 0\n0 0 0\n4 0 0\n0 2 0\n3 0 1 2\n"
    for name in CLASSES10:
        for part in ("train", "test"):
            folder = tmp_path / "raw" / name / part
            folder.mkdir(parents=True)
            (folder / f"{name}_0001.off").write_text(triangle)
    state = torch.random.get_rng_state()
    pool, again = load_pool(tmp_path, places=300), load_pool(tmp_path, places=300)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(pool.places, again.places)
    # Equal meshes have equal places, in every part.
    assert torch.equal(pool.places, load_pool(tmp_path, part="test", places=300).places)
    assert len(pool) == 10
    assert pool.classes == CLASSES10
    assert pool.reach.tolist() == [0.0] * 10
    shape = pool.places[:300]
    assert float(shape[:, 2].abs().max()) < 1e-6
    assert float(shape[:, 0].max()) == pytest.approx(1, abs=1e-6)
    assert float(shape[:, 1].max()) == pytest.approx(0.5, abs=0.1)


def test_meshes_and_their_points_do_not_depend_on_how_the_folder_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = glob.glob
    found = []
    for name, turn in (("forwards", 1), ("backwards", -1)):
        for part in ("train", "test"):
            for kind in CLASSES10:
                folder = tmp_path / name / "raw" / kind / part
                folder.mkdir(parents=True)
                for number in range(3):
                    corners = f"0 0 0\n{number + 1} 0 0\n0 2 0\n0 0 1\n"
                    (folder / f"{kind}_000{number}.off").write_text(f"OFF\n4 2 0\n{corners}3 0 1 2\n3 0 1 3\n")
        monkeypatch.setattr(glob, "glob", lambda pattern, turn=turn: sorted(listed(pattern))[::turn])
        found.append(load_pool(tmp_path / name, places=20))
    assert torch.equal(found[0].places, found[1].places)
    assert found[0].labels.tolist() == found[1].labels.tolist() == sorted(list(range(10)) * 3)


def test_neither_meshes_nor_voxels(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"root must hold the meshes of ModelNet10 .* or modelnet10_voxels\.npz"
    ):
        load_pool(tmp_path)
    write_voxels(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"root must hold the meshes of ModelNet40"):
        load_pool(tmp_path, "40")
    assert len(set(CLASSES40)) == 40


def test_places_that_are_not_finite() -> None:
    places = torch.zeros(3, 3)
    places[1, 2] = torch.nan
    with pytest.raises(ValueError, match="places must be finite"):
        ShapePool(places, torch.tensor([0, 3]), torch.tensor([0]), ("a",), torch.zeros(1))


def test_official_voxels(shared_data: Path) -> None:
    folder = shared_data / "point_clouds"
    if not (folder / "modelnet10_voxels.npz").is_file():
        pytest.skip(f"no modelnet10_voxels.npz in {folder}")
    test = load_pool(folder, part="test")
    assert len(test) == 908
    assert int((test.splits.diff() == 0).sum()) == 1
    assert float(test.places.abs().max()) < 1
    # Nearly every shape fills 24 voxels along its longest side; those that do not are scaled too.
    filled = test.splits.diff() > 0
    assert int((test.reach[filled] - 1 / 24).abs().lt(1e-6).sum()) == 890
    longest = torch.stack(
        [
            a.abs().amax() + r
            for a, r in zip(test.places.split(test.splits.diff().tolist()), test.reach, strict=True)
            if len(a)
        ]
    )
    torch.testing.assert_close(longest, torch.ones(907))
