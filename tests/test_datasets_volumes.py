"""Volumes with labels: ModelNet10 and its meshes, MedMNIST, folders of scans, simulated scans; and what breaks them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch

from ccnn_irregular.datasets import medmnist3d, modelnet, simulated_volumes, volume_folder
from ccnn_irregular.datasets.processing.meshes import voxelise
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedVolumes, average_cells
from ccnn_irregular.domains import Grid

# --------------------------------------------------------------------------------------------------------- containers


def ragged() -> RaggedVolumes:
    grids = [Grid((2, 3, 4), (1.0, 1.0, 2.0)), Grid((1, 2, 2), (3.0, 1.0, 1.0)), Grid((2, 3, 4), (1.0, 1.0, 2.0))]
    rng = np.random.default_rng(0)
    values = [torch.from_numpy(rng.standard_normal((2, *grid.sizes)).astype(np.float32)) for grid in grids]
    return RaggedVolumes.of(values, grids, torch.tensor([0, 1, 1]), ("a", "b"), "mm")


def test_volumes_keep_their_shapes_and_come_together_where_grids_are_equal() -> None:
    volumes = ragged()
    assert [tuple(volumes.volume(index).shape) for index in range(3)] == [(2, 2, 3, 4), (2, 1, 2, 2), (2, 2, 3, 4)]
    chosen = volumes.subset(torch.tensor([2, 0]))
    stacked = chosen.stacked()
    assert stacked.grid == volumes.grids[0]
    assert stacked.labels.tolist() == [1, 0]
    for place, index in enumerate([2, 0]):
        assert torch.equal(stacked.values[place], volumes.volume(index))
    assert len(volumes.subset(torch.zeros(3, dtype=torch.bool))) == 0
    with pytest.raises(ValueError, match="samples must lie on one grid to be stacked, got 2 grids"):
        volumes.stacked()
    with pytest.raises(ValueError, match=r"values must have shape \(52, C\), got \(51, 2\)"):
        RaggedVolumes(volumes.values[:-1], volumes.grids, volumes.labels, ("a", "b"), "mm")
    with pytest.raises(ValueError, match="grids must have the same number of axes"):
        RaggedVolumes(torch.zeros(5, 1), (Grid((2,), (1.0,)), Grid((1, 3), (1.0, 1.0))), torch.zeros(2).long(), (), "")


@pytest.mark.parametrize("sizes", [(2, 3, 4), (6, 1, 2)])
def test_averaged_cells_are_torchs_where_sizes_divide(sizes: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    samples = GriddedSamples(
        torch.rand(2, 1, 6, 9, 4), Grid((6, 9, 4), (1.0,) * 3), torch.zeros(2).long(), ("a",), "mm"
    )
    expected = torch.nn.functional.interpolate(samples.values, size=sizes, mode="area")
    torch.testing.assert_close(average_cells(samples, sizes).values, expected)


def test_averaged_cells_keep_the_integral_and_the_scene_at_any_ratio() -> None:
    """What is linear keeps its value in the middle of every cell that holds whole old cells and shares of others."""
    grid = Grid((30, 30, 30), (0.5, 1.0, 1.0), (0.25, 0.5, 0.5))
    torch.manual_seed(0)
    noise = GriddedSamples(torch.rand(1, 1, 30, 30, 30), grid, torch.zeros(1).long(), ("a",), "mm")
    for sizes in ((24, 24, 24), (20, 30, 30), (7, 31, 45)):
        changed = average_cells(noise, sizes)
        assert changed.grid.sizes == sizes
        for old, new in zip(grid.axes, changed.grid.axes, strict=True):
            assert new.start - new.step / 2 == pytest.approx(old.start - old.step / 2)
            assert new.size * new.step == pytest.approx(old.size * old.step)
        before, after = (float(one.values.double().sum()) * one.grid.cell_volume for one in (noise, changed))
        assert after == pytest.approx(before, rel=1e-6)
    # A slab with faces at 2 and 9 mm, of voxels that hold their share of it: so do the new ones.
    faces = torch.linspace(0, 15, 31)
    slab = (torch.minimum(faces[1:], torch.tensor(9.0)) - torch.maximum(faces[:-1], torch.tensor(2.0))).clamp(0) / 0.5
    one = GriddedSamples(slab[None, None], Grid((30,), (0.5,), (0.25,)), torch.zeros(1).long(), ("a",), "mm")
    faces = torch.linspace(0, 15, 25)
    width = 15 / 24
    wanted = (torch.minimum(faces[1:], torch.tensor(9.0)) - torch.maximum(faces[:-1], torch.tensor(2.0))).clamp(
        0
    ) / width
    torch.testing.assert_close(average_cells(one, (24,)).values[0, 0], wanted)
    with pytest.raises(ValueError, match=r"sizes must be 3 positive integers, got \(24, 24\)"):
        average_cells(noise, (24, 24))


# --------------------------------------------------------------------------------------------------------- ModelNet


def test_modelnet_volumes_and_their_empty_grids(tmp_path: Path) -> None:
    grids = np.zeros((3, 30, 30, 30), np.int32)
    grids[0, 0, 29, 15] = grids[2] = 1
    labels = np.array([4, 0, 9])
    np.savez(tmp_path / "modelnet10_voxels.npz", X_train=grids, y_train=labels, X_test=grids[:1], y_test=labels[:1])
    volumes = modelnet.load_voxels(tmp_path)
    assert volumes.values.dtype == torch.float32
    np.testing.assert_array_equal(volumes.values[:, 0].numpy(), grids)
    assert (volumes.labels.tolist(), volumes.unit) == ([4, 0, 9], "voxel")
    assert volumes.grid == Grid((30, 30, 30), (1.0, 1.0, 1.0))
    assert len(modelnet.load_voxels(tmp_path, "test")) == 1
    with pytest.raises(ValueError, match="part must be one of"):
        modelnet.load_voxels(tmp_path, "validation")  # type: ignore[arg-type]


def octahedron() -> tuple[np.ndarray, np.ndarray]:
    vertices = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    faces = np.array([[x, y, z] for x in (0, 1) for y in (2, 3) for z in (4, 5)])
    return vertices, faces


def test_voxels_of_a_mesh_are_those_its_surface_cuts() -> None:
    """An octahedron |x| + |y| + |z| = 1: a cell is cut where its nearest corner is inside and its farthest outside."""
    size, margin = 22, 1
    grid = voxelise(*octahedron(), size, margin=margin)
    edges = np.abs(np.arange(size + 1) - size / 2) / (size / 2 - margin)
    near, far = np.minimum(edges[1:], edges[:-1]), np.maximum(edges[1:], edges[:-1])

    def summed(one: np.ndarray) -> np.ndarray:
        return one[:, None, None] + one[:, None] + one

    cut = (summed(near) < 1 - 1e-9) & (summed(far) > 1 + 1e-9)
    # What is only grazed may be missed; nothing else is set.
    well_cut = (summed(near) < 0.95) & (summed(far) > 1.05)
    touched = (summed(near) <= 1 + 1e-9) & (summed(far) >= 1 - 1e-9)
    assert cut.sum() > 500
    assert bool(grid[well_cut].all())
    assert not bool(grid[~touched].any())
    filled = voxelise(*octahedron(), size, margin=margin, fill=True)
    assert bool(filled[summed(far) < 1].all())
    assert not bool(filled[summed(near) > 1 + 1e-9].any())


OFF = """OFF
8 6 0
0 0 0
2 0 0
2 1 0
0 1 0
0 0 1
2 0 1
2 1 1
0 1 1
4 0 1 2 3
4 4 5 6 7
4 0 1 5 4
4 3 2 6 7
4 0 3 7 4
4 1 2 6 5
"""


def coloured(head: str, more: str) -> str:
    """The mesh with a comment, with numbers after each vertex, and with a colour after every face."""
    _, counts, *rows = OFF.splitlines()
    vertices = [f"{row} {more}  # a corner" for row in rows[:8]]
    return "\n".join(["# made by hand", head, "", counts, *vertices, *(f"{row} 0.5 0.5 1" for row in rows[8:])])


VARIANTS = [
    OFF,
    OFF.replace("OFF\n8", "OFF8"),
    OFF.replace("OFF\n8", "OFF 8"),
    " ".join(OFF.split()[:4]) + "\n" + " ".join(OFF.split()[4:]),
    coloured("OFF", ""),
    coloured("COFF", "255 0 0 255"),
    coloured("NOFF", "0 0 1"),
    coloured("STCNOFF", "1 0 0 1 0 0 1 0.5 0.5"),
]


@pytest.mark.parametrize("text", VARIANTS, ids=range(len(VARIANTS)))
def test_meshes_in_official_folders_become_volumes(tmp_path: Path, text: str) -> None:
    for name, part in (("sofa", "train"), ("bed", "train"), ("bed", "test")):
        (tmp_path / name / part).mkdir(parents=True)
        (tmp_path / name / part / f"{name}_0001.off").write_text(text)
    volumes = modelnet.load_meshes(tmp_path, size=10, margin=1, fill=True)
    assert (volumes.classes, volumes.labels.tolist()) == (("bed", "sofa"), [0, 1])
    expected = torch.zeros(10, 10, 10)
    expected[1:9, 3:7, 3:7] = 1
    assert torch.equal(volumes.values[0, 0], expected)
    hollow = modelnet.load_meshes(tmp_path, "test", size=10, margin=1).values[0, 0]
    expected[2:8, 4:6, 4:6] = 0
    assert torch.equal(hollow, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PLY\n1 1 0\n", "OFF mesh, got .* must start with OFF"),
        ("", "OFF mesh, got .* must start with OFF"),
        ("4OFF\n1 1 0\n", "OFF mesh, got .* must start with OFF"),
        ("OFF BINARY\n1 1 0\n", "must be text"),
        ("OFF\n8 6\n", "must be an OFF mesh"),
        (OFF[:40], "must be an OFF mesh"),
        (OFF.replace("4 1 2 6 5", ""), "must hold 6 faces of three corners or more, got 5"),
        (OFF.replace("4 1 2 6 5", "4 1 2 6 9"), "faces must name vertices 0 to 7, got 0 to 9"),
        (OFF.replace("2 1 1", "2 1 nan"), "vertices must be finite"),
    ],
)
def test_broken_meshes_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bed" / "train").mkdir(parents=True)
    (tmp_path / "bed" / "train" / "bed_0001.off").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        modelnet.load_meshes(tmp_path)
    assert "bed_0001.off" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"must hold meshes <class>/test/\*\.off"):
        modelnet.load_meshes(tmp_path, "test")


def test_meshes_without_extent_or_room_are_refused() -> None:
    vertices, faces = octahedron()
    with pytest.raises(ValueError, match="vertices must have an extent"):
        voxelise(vertices * 0, faces)
    with pytest.raises(ValueError, match="margin must leave room in 6 voxels, got 3"):
        voxelise(vertices, faces, 6)


def test_official_meshes_give_the_official_voxels(shared_data: Path) -> None:
    """Their order in the .npz is that of the files; the makers filled shapes in part."""
    root = shared_data / "point_clouds"
    volumes = modelnet.load_meshes(root / "modelnet10_meshes" / "ModelNet10", fill=True).values[:, 0] > 0
    official, labels = modelnet.read_voxels(root)
    assert (official.shape, np.bincount(labels).tolist()[:2]) == ((3991, 30, 30, 30), [106, 515])
    assert int((official.reshape(3991, -1).max(1) == 0).sum()) == 7
    for index, least in ((1, 0.85), (3, 0.95), (4, 0.9)):
        ours, theirs = volumes[index].numpy(), official[index] > 0
        assert (ours & theirs).sum() / (ours | theirs).sum() > least


# --------------------------------------------------------------------------------------------------------- MedMNIST


def medmnist_arrays(size: int = 28) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, size, size, size), np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 3, (count, 1)).astype(np.uint8)
    return arrays


def test_medmnist_volumes(tmp_path: Path) -> None:
    arrays = medmnist_arrays()
    np.savez(tmp_path / "fracturemnist3d.npz", **arrays)
    np.savez(tmp_path / "organmnist3d_64.npz", **medmnist_arrays(64))
    for part, prefix in (("train", "train"), ("validation", "val"), ("test", "test")):
        volumes = medmnist3d.load(tmp_path, "fracture", part)  # type: ignore[arg-type]
        np.testing.assert_array_equal(volumes.values[:, 0].numpy(), arrays[f"{prefix}_images"] / np.float32(255))
        assert volumes.labels.tolist() == arrays[f"{prefix}_labels"][:, 0].tolist()
        assert volumes.grid == Grid((28, 28, 28), (1.0, 1.0, 1.0))
    assert len(volumes.classes) == 3
    assert medmnist3d.load(tmp_path, size=64).grid.sizes == (64, 64, 64)
    with pytest.raises(FileNotFoundError, match=r"must hold organmnist3d\.npz \(download=True fetches it\)"):
        medmnist3d.load(tmp_path)
    with pytest.raises(ValueError, match="name must be one of"):
        medmnist3d.load(tmp_path, "lung")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_images": np.zeros((4, 28, 28), np.uint8)},
            r"train_images must be uint8 of shape \(B, 28, 28, 28\), got",
        ),
        ({"train_images": np.zeros((4, 28, 28, 28))}, r"train_images must be uint8 .*, got float64 \(4, 28, 28, 28\)"),
        ({"train_labels": np.zeros(4, np.uint8)}, r"train_labels must be integers of shape \(4, 1\), got uint8 \(4,\)"),
        ({"train_labels": np.full((4, 1), 3, np.uint8)}, r"train_labels must lie in 0..2, got 3 for sample 0"),
    ],
)
def test_broken_medmnist_files_are_refused(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "fracturemnist3d.npz", **medmnist_arrays() | changes)
    with pytest.raises(ValueError, match=message):
        medmnist3d.load(tmp_path, "fracture")


# --------------------------------------------------------------------------------------------------------- a folder


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three scans of one object, stored in different orders and directions, and an HDF5 volume."""
    world = np.arange(2 * 3 * 4, dtype=np.int16).reshape(4, 3, 2)  # along x, y, z
    straight = np.diag([0.5, 1.0, 5.0, 1.0])
    straight[:3, 3] = [-20, 3, 100]
    write_nifti(tmp_path / "straight.nii.gz", world, straight)
    turned = np.zeros((4, 4))  # voxel axes run along -z, x, -y
    turned[0, 1], turned[1, 2], turned[2, 0], turned[3, 3] = 0.5, -1.0, -5.0, 1
    write_nifti(tmp_path / "turned.nii", world.transpose(2, 0, 1)[::-1, :, ::-1], turned)
    oblique = np.eye(4)
    angle = math.radians(20)
    turn = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    oblique[:3, :3] = np.array(turn) @ np.diag([-0.5, 1.0, 5.0])
    write_nifti(tmp_path / "oblique.nii", world[::-1], oblique)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["scan"] = np.ones((5, 4, 3), np.float32)
        file["scan"].attrs["element_size_um"] = [2000.0, 1000.0, 500.0]
    lines = ["file,label,age", "straight.nii.gz,b,3", "turned.nii,a,4", "oblique.nii,b,5", "other.h5,a,6"]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_scans_keep_their_voxels_and_agree_on_directions(scans: Path) -> None:
    volumes = volume_folder.load(scans, hdf5_dataset="scan")
    world = torch.arange(24.0).reshape(4, 3, 2).permute(2, 1, 0)
    for index in range(3):
        assert torch.equal(volumes.volume(index)[0], world), index
        grid = volumes.grids[index]
        assert grid == Grid((2, 3, 4), (5.0, 1.0, 0.5), (-2.5, -1.0, -0.75))
    assert volumes.grids[3] == Grid((5, 4, 3), (2.0, 1.0, 0.5), (-4.0, -1.5, -0.5))
    assert (volumes.classes, volumes.labels.tolist(), volumes.unit) == (("a", "b"), [1, 0, 1, 0], "mm")
    chosen = volume_folder.load(scans, hdf5_dataset="scan", classes=("c", "b", "a"))
    assert chosen.labels.tolist() == [1, 2, 1, 2]
    even = volume_folder.load(scans, hdf5_dataset="scan", standardise=True)
    torch.testing.assert_close(even.volume(1).mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(even.volume(1).std(correction=0), torch.tensor(1.0))
    assert bool((even.volume(3) == 0).all())


def broken_volume(root: Path, name: str) -> str:
    """Put another volume where ``turned.nii`` is."""
    path, affine = root / "turned.nii", np.eye(4)
    if name == "four axes":
        write_nifti(path, np.zeros((2, 2, 2, 3), np.int16), affine)
        return r"turned\.nii must be a 3-D volume, got 4-D data"
    if name == "unreadable":
        path.write_bytes(path.read_bytes()[:360])
        return r"turned\.nii must be a complete NIfTI file"
    if name == "foreign":
        path.write_text("no volume")
        return r"turned\.nii must be a complete NIfTI file"
    values = np.zeros((2, 2, 2), np.float32)
    values[0, 1, 1] = np.nan
    write_nifti(path, values, affine)
    return r"turned\.nii must hold finite values, got 1 voxels of nan or infinity"


@pytest.mark.parametrize("fault", ["four axes", "unreadable", "foreign", "nan"])
def test_broken_scans_are_named(scans: Path, fault: str) -> None:
    message = broken_volume(scans, fault)
    with pytest.raises(ValueError, match=message):
        volume_folder.load(scans, hdf5_dataset="scan")


TABLES: dict[str, tuple[str, str]] = {
    "columns": ("name,label\na.nii,x\n", r"labels\.csv must have the columns file and label, got \['name', 'label'\]"),
    "rows": ("file,label\n", r"labels\.csv must name a file, got no row below the header"),
    "empty": ("", r"labels\.csv must have the columns file and label, got \[\]"),
    "label": (
        "file,label\na,\nb,x\nc,\nd,\ne,\n",
        r"must hold a label for each file, got 4 of 5 without: a, c, d, \.\.\.",
    ),
    "short": ("file,label\nturned.nii\n", r"must hold a label for each file, got 1 of 1 without: turned\.nii"),
    "twice": ("file,label\nturned.nii,a\nturned.nii,b\n", r"file on line 3 of labels\.csv must be named once"),
    "outside": ("file,label\n../turned.nii,a\n", r"file on line 2 of labels\.csv must lie in the folder"),
    "suffix": ("file,label\nlabels.csv,a\n", r"file on line 2 of labels\.csv must be a scan: NIfTI"),
    "unknown": ("file,label\nturned.nii,c\n", r"label on line 2 of labels\.csv must be one of \('a', 'b'\), got 'c'"),
}


@pytest.mark.parametrize("fault", TABLES)
def test_broken_tables_are_refused_before_a_volume_is_read(
    scans: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, message = TABLES[fault]
    (scans / "labels.csv").write_text(text)

    def unwanted(*_: object) -> None:
        raise AssertionError("a volume was read")

    monkeypatch.setattr(volume_folder, "_read_volume", unwanted)
    with pytest.raises(ValueError, match=message):
        volume_folder.load(scans, classes=("a", "b"))


def test_missing_volumes_tables_and_datasets_are_named(scans: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset must be one of \['scan'\] in .*, got 'volume'"):
        volume_folder.load(scans)
    with pytest.raises(FileNotFoundError, match=r"must hold the table of labels other\.csv, got labels\.csv"):
        volume_folder.load(scans, "other.csv")
    (scans / "turned.nii").unlink()
    with pytest.raises(FileNotFoundError, match=r"file on line 3 of labels\.csv must exist in .*, got turned\.nii"):
        volume_folder.load(scans)


# --------------------------------------------------------------------------------------------------------- simulated


def test_simulated_scans_show_the_same_objects_at_any_voxels() -> None:
    volumes = simulated_volumes.textured_shapes(24, seed=3)
    assert torch.bincount(volumes.labels).tolist() == [4] * 6
    assert len(set(volumes.grids)) > 2
    again = simulated_volumes.textured_shapes(24, seed=3)
    assert torch.equal(volumes.values, again.values)
    fine, coarse = (
        simulated_volumes.textured_shapes(24, seed=3, voxels=[size], noise=0.0).stacked()
        for size in ((1.0, 1.0, 1.0), (3.0, 2.0, 1.0))
    )
    assert torch.equal(fine.labels, coarse.labels)
    assert coarse.grid == Grid((8, 12, 24), (3.0, 2.0, 1.0), (-10.5, -11.0, -11.5))
    averaged = average_cells(fine, coarse.grid.sizes).values
    difference = (averaged - coarse.values).square().mean().sqrt() / averaged.square().mean().sqrt()
    assert float(difference) < 0.3
    apart = (averaged - coarse.values.roll(1, 0)).square().mean().sqrt() / averaged.square().mean().sqrt()
    assert float(apart) > 0.7
    # The volume of a ball of 5 to 8 mm.
    balls = fine.values[fine.labels == 0].clamp(0, 1).sum((1, 2, 3, 4))
    assert 4 / 3 * math.pi * 5**3 * 0.75 < float(balls.min())
    assert float(balls.max()) < 4 / 3 * math.pi * 8**3 * 1.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulated_volumes.textured_shapes(0), "count must be at least 1, got 0"),
        (lambda: simulated_volumes.textured_shapes(3, voxels=[(1, 1)]), "voxels must be triples of mm"),
        (lambda: simulated_volumes.textured_shapes(3, voxels=[]), "voxels must be triples of mm"),
        (lambda: simulated_volumes.textured_shapes(3, seed=-1), "seed must not be negative, got -1"),
    ],
)
def test_simulated_scans_refuse(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
