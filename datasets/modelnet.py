"""ModelNet10 and ModelNet40: CAD models of 10 and 40 kinds of objects, as voxels, clouds of points or pools of both.

They are published as meshes (Wu et al. 2015, arXiv 1406.5670); ModelNet10, 4,899 models, is often passed on as an
``.npz`` of 30 x 30 x 30 voxels, of which 8 grids are empty. Axis 2 is vertical; axis 0 runs along the width, axis 1
from front to back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular._files import naming
from ccnn_irregular.datasets.processing.meshes import read_off, voxelise
from ccnn_irregular.datasets.reading.content import content_id
from ccnn_irregular.datasets.reading.files import existing_folder, labels_in_range, missing_file, one_of, read_npz
from ccnn_irregular.datasets.reading.parsed import fetch_unchecked, parsed_once
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import GriddedSamples, ShapePool
from ccnn_irregular.domains import Grid

if TYPE_CHECKING:
    from torch_geometric.data import Data, InMemoryDataset
    from torch_geometric.transforms import BaseTransform

    from ccnn_irregular.adapters.geometric_weights import CloudSampling

__all__ = [
    "CLASSES10",
    "CLASSES40",
    "load_clouds",
    "load_meshes",
    "load_pool",
    "load_voxel_centres",
    "load_voxels",
    "read_voxels",
]

Name = Literal["10", "40"]
Part = Literal["train", "test"]

CLASSES10 = ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet")
CLASSES40 = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel",
    "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool",
    "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
)  # fmt: skip

_CLASSES: dict[Name, tuple[str, ...]] = {"10": CLASSES10, "40": CLASSES40}
_ARCHIVES: dict[Name, str] = {
    "10": "http://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip",
    "40": "http://modelnet.cs.princeton.edu/ModelNet40.zip",
}
_NPZ = "modelnet10_voxels.npz"
_CELLS = 30  # along each axis of its voxels


def load_voxels(root: str | Path, part: Part = "train") -> GriddedSamples:
    """Volumes ``(B, 1, 30, 30, 30)`` of 0 and 1, on a grid in voxels.

    Args:
        root: folder with ``modelnet10_voxels.npz``, see :func:`read_voxels`.
        part: "train" or "test", as published.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_voxels`.
    """
    grids, labels = read_voxels(root, part)
    sizes = grids.shape[1:]
    return GriddedSamples(
        values=torch.from_numpy(grids.astype(np.float32))[:, None],
        grid=Grid(sizes, (1.0,) * len(sizes)),
        labels=torch.from_numpy(labels),
        classes=CLASSES10,
        unit="voxel",
    )


def read_voxels(root: str | Path, part: Part = "train") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Occupancy ``(B, n, n, n)`` of 0 and 1, and labels ``(B,)``, in the order of the file; empty grids stay.

    Args:
        root: folder with ``modelnet10_voxels.npz``: ``X_train``, ``X_test`` of 0 and 1, ``(B, 30, 30, 30)``, and the
            classes ``y_train``, ``y_test``, 0 to 9 in alphabetical order.
        part: "train" or "test", as published.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: the file breaks the format; the message names it.
    """
    one_of("part", part, get_args(Part))
    root = existing_folder(root)
    if not (root / _NPZ).is_file():
        raise missing_file(root, _NPZ)
    names = (f"X_{part}", f"y_{part}")
    grids, labels = read_npz(root / _NPZ, names).values()
    shape = grids.shape
    cubic = grids.ndim == 4 and len(set(shape[1:])) == 1
    require(cubic, f"{_NPZ}, {names[0]}", "have shape (B, n, n, n)", shape)
    whole = labels.dtype.kind in "iu" and labels.shape == shape[:1]
    require(whole, f"{_NPZ}, {names[1]}", f"hold one integer for each of {shape[0]} grids", labels.shape)
    filled = bool(((grids == 0) | (grids == 1)).all())
    require(filled, f"{_NPZ}, {names[0]}", "hold 0 and 1", f"{grids.min()} to {grids.max()}")
    return grids.astype(np.uint8), labels_in_range(f"{_NPZ}, {names[1]}", labels, 0, len(CLASSES10) - 1)


def load_meshes(
    root: str | Path, part: Part = "train", *, size: int = 30, margin: int = 3, fill: bool = False
) -> GriddedSamples:
    """The official OFF meshes as volumes, in the form of :func:`load_voxels`.

    Args:
        root: folder of ``<class>/<part>/*.off``, as ModelNet10 and ModelNet40 unpack to.
        part: "train" or "test", as published.
        size: voxels along each axis.
        margin: see :func:`~ccnn_irregular.datasets.processing.meshes.voxelise`.
        fill: see there.

    Raises:
        FileNotFoundError: no such folder, or no mesh in it.
        ValueError: a file that is no mesh; the message names it.
    """
    one_of("part", part, get_args(Part))
    root = existing_folder(root)
    files = sorted(root.glob(f"*/{part}/*.off"))
    if not files:
        raise missing_file(root, f"meshes <class>/{part}/*.off")
    classes = tuple(sorted({file.parent.parent.name for file in files}))
    values = np.empty((len(files), 1, size, size, size), np.float32)
    for place, file in enumerate(files):
        vertices, faces = read_off(file)
        with naming(file):
            values[place, 0] = voxelise(vertices, faces, size, margin=margin, fill=fill)
    return GriddedSamples(
        values=torch.from_numpy(values),
        grid=Grid((size,) * 3, (1.0,) * 3),
        labels=torch.tensor([classes.index(file.parent.parent.name) for file in files], dtype=torch.int64),
        classes=classes,
        unit="voxel",
    )


def load_clouds(
    root: str | Path,
    name: Name = "10",
    part: Part = "train",
    *,
    points: int = 1024,
    sampling: CloudSampling = "even",
    augmentation: BaseTransform | None = None,
    download: bool = False,
) -> InMemoryDataset:
    """ModelNet's meshes as points on their surfaces.

    Each access draws new points, evenly by area, and scales them into the cube [-1, 1]^3, the centre of the points in
    the middle. What was parsed is kept in ``root/meshes_<part>.h5``.

    Args:
        root: folder of ``raw/<class>/<part>/*.off``.
        name: "10" or "40".
        part: "train" or "test", as published.
        points: number of points drawn of each shape.
        sampling: how they are weighed, see ``cloud_weights``. Points are drawn evenly, so "even" has the least
            noise; "surface" is for augmentations that thin them out in places.
        augmentation: a transform of the points drawn, rotations say; weights are taken behind it.
        download: fetch the official archive (ModelNet10 450 MB, ModelNet40 2 GB) where ``root/raw`` is missing.

    Returns:
        A data set of ``Data`` with ``pos`` float32 ``(points, 3)``, ``weight`` float64 ``(points,)`` and the class
        ``y``, sorted by class and name of the file.

    Raises:
        FileNotFoundError: no meshes of this part, or not of all classes.
        ValueError: an unknown name or part, a number of points below 1; a file that is no mesh.
    """
    from torch_geometric.data import Data, InMemoryDataset
    from torch_geometric.transforms import Compose, NormalizeScale, SamplePoints

    from ccnn_irregular.adapters.geometric_weights import QuadratureWeights

    one_of("name", name, get_args(Name))
    one_of("part", part, get_args(Part))
    require(points >= 1, "points", "be at least 1", points)
    root = Path(root)
    if download and not (root / "raw").is_dir():
        fetch_unchecked(_ARCHIVES[name], root, "raw")
    read = _meshes(root, _CLASSES[name], part)
    pieces = [np.split(read[kind], read[f"{kind}_splits"][1:-1]) for kind in ("vertices", "faces")]
    shapes = [
        Data(pos=torch.from_numpy(vertices), face=torch.from_numpy(faces.T.copy()), y=torch.tensor([int(label)]))
        for vertices, faces, label in zip(*pieces, read["labels"], strict=True)
    ]
    steps: list[BaseTransform] = [SamplePoints(points), NormalizeScale()]
    if augmentation is not None:
        steps.append(augmentation)
    found = InMemoryDataset(transform=Compose([*steps, QuadratureWeights(sampling)]))
    found.data, found.slices = found.collate(shapes)
    return found


def _meshes(root: Path, classes: Sequence[str], part: Part) -> dict[str, np.ndarray]:
    """Meshes of a part, end to end, and the class of each, sorted by class and name of the file."""
    raw = existing_folder(root) / "raw"
    files = [sorted((raw / kind / part).glob("*.off")) for kind in classes]
    lacking = [kind for kind, found in zip(classes, files, strict=True) if not found]
    if lacking:
        raise FileNotFoundError(f"{raw} must hold meshes <class>/{part}/*.off of each class, got none of {lacking[0]}")

    def parse(paths: Sequence[Path]) -> dict[str, np.ndarray]:
        vertices, faces = zip(*map(read_off, paths), strict=True)
        labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
        ends = {
            f"{kind}_splits": np.cumsum([0, *map(len, found)])
            for kind, found in (("vertices", vertices), ("faces", faces))
        }
        whole = {"vertices": np.concatenate(vertices).astype(np.float32), "faces": np.concatenate(faces)}
        return {**whole, **ends, "labels": labels}

    return parsed_once(root / f"meshes_{part}.h5", raw, [path for found in files for path in found], parse)


def load_voxel_centres(root: str | Path, part: Part = "train") -> list[Data]:
    """ModelNet10 as the centres of occupied voxels, of shapes whose inside is filled in part.

    Args:
        root: folder with ``modelnet10_voxels.npz``, see ``read_voxels``.
        part: "train" or "test", as published.

    Returns:
        One ``Data`` for each grid, in the order of the file: ``pos`` float32 ``(N, 3)`` in [-1, 1]^3, ``weight``
        float64 ``(N,)``, the volume of a voxel, and the class ``y``. Some grids are empty, 7 to train on and 1 to test
        on; they stay, without any point.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: the file breaks the format; the message names it.
    """
    from torch_geometric.data import Data

    grids, labels = read_voxels(root, part)
    step = 2 / grids.shape[1]
    clouds = []
    for grid, label in zip(grids, labels, strict=True):
        centres = ((np.argwhere(grid) + 0.5) * step - 1).astype(np.float32)
        weight = torch.full((len(centres),), step**3, dtype=torch.float64)
        clouds.append(Data(pos=torch.from_numpy(centres), weight=weight, y=torch.tensor([int(label)])))
    return clouds


def load_pool(
    root: str | Path,
    name: Name = "10",
    part: Part = "train",
    *,
    places: int = 4096,
    download: bool = False,
) -> ShapePool:
    """ModelNet as pools: from its meshes where ``root/raw`` holds them, else from ``root/modelnet10_voxels.npz``.

    Shapes are moved and scaled so that the box around each is centred and its longest side reaches from -1 to 1.

    Args:
        root: folder of the data set, see :func:`load_clouds` and :func:`read_voxels`.
        name: "10" or "40".
        part: "train" or "test", as published.
        places: points drawn of each mesh, which depend on the mesh alone, so that equal meshes have equal places; of
            voxels all are taken.
        download: fetch the official meshes where neither is there.

    Raises:
        FileNotFoundError: neither meshes nor voxels.
    """
    root = Path(root)
    meshes = (root / "raw").is_dir()
    if not meshes and name == "10" and (root / _NPZ).is_file():
        clouds = load_voxel_centres(root, part)
        half_edge = 1 / _CELLS
    elif meshes or download:
        clouds = _drawn(load_clouds(root, name, part, points=places, download=download))
        half_edge = 0.0
    else:
        raise FileNotFoundError(
            f"root must hold the meshes of ModelNet{name} in raw/<class>/<part>/*.off (--data.download true fetches "
            f"them){f' or {_NPZ}' if name == '10' else ''}, got {root}"
        )
    classes = _CLASSES[name]
    return ShapePool.of([cloud.pos for cloud in clouds], torch.cat([cloud.y for cloud in clouds]), classes, half_edge)


def _drawn(shapes: InMemoryDataset) -> list[Data]:
    """Points of each mesh, which follow from the mesh, in an order that follows from the meshes."""
    meshes = (shapes.get(number) for number in range(len(shapes)))
    ids = [content_id(*(tensor.numpy().tobytes() for tensor in (mesh.pos, mesh.face))) for mesh in meshes]
    clouds = []
    with torch.random.fork_rng(devices=[]):
        for number in np.lexsort((ids, shapes.y.numpy())).tolist():
            torch.manual_seed(ids[number])
            clouds.append(shapes[number])
    return clouds


register(
    DataSet(
        name="modelnet10_voxels",
        about="CAD models of 10 kinds as volumes: 3,991 to train on, 908 to test on",
        load=load_voxels,
        samples=GriddedSamples,
        shape="0 and 1 on 30 x 30 x 30 voxels",
        parts=get_args(Part),
        files="modelnet10_voxels.npz",
        size="2 MB",
        source="https://modelnet.cs.princeton.edu",
    )
)
register(
    DataSet(
        name="modelnet10",
        about="CAD models of 10 kinds as pools of points: 3,991 to train on, 908 to test on",
        load=partial(load_pool, name="10"),
        samples=ShapePool,
        shape="places in [-1, 1]^3",
        parts=get_args(Part),
        files="modelnet10_voxels.npz, or meshes raw/<class>/<part>/*.off, fetched unchecked by download=True",
        size="450 MB",
        source="https://modelnet.cs.princeton.edu",
    )
)
register(
    DataSet(
        name="modelnet40",
        about="CAD models of 40 kinds as pools of points: 9,843 to train on, 2,468 to test on",
        load=partial(load_pool, name="40"),
        samples=ShapePool,
        shape="places in [-1, 1]^3",
        parts=get_args(Part),
        files="meshes raw/<class>/<part>/*.off, fetched unchecked by download=True",
        size="2 GB",
        source="https://modelnet.cs.princeton.edu",
    )
)
