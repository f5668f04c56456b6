"""Point clouds as torch-geometric's ``Data``: ModelNet from its meshes or as voxels, ground points of airborne LiDAR.

ModelNet10 and ModelNet40 are CAD models of 10 and 40 kinds of objects (Wu et al. 2015, arXiv 1406.5670), published as
meshes; ModelNet10 is often passed on as an ``.npz`` of 30 x 30 x 30 voxels. The LiDAR reference tiles of the ISPRS
filter test (Sithole & Vosselman, ISPRS J. Photogramm. Remote Sens. 59, 2004) hold airborne laser points with a label,
ground or object, in text.

Every cloud has ``pos`` and quadrature weights ``weight``, so that integrals over it follow the shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import ModelNet
from torch_geometric.transforms import BaseTransform, Compose, NormalizeScale, SamplePoints

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.geometric_weights import CloudSampling, QuadratureWeights
from ccnn_irregular.datasets import modelnet_voxels
from ccnn_irregular.datasets.reading.files import one_of, read_npz
from ccnn_irregular.quadrature import covered_volume

__all__ = ["MODELNET10_CLASSES", "lidar_tile", "modelnet", "modelnet10_voxels"]

Part = Literal["train", "test"]

MODELNET10_CLASSES = modelnet_voxels.CLASSES


def modelnet(
    root: str | Path,
    name: Literal["10", "40"] = "10",
    part: Part = "train",
    *,
    points: int = 1024,
    sampling: CloudSampling = "even",
    augmentation: BaseTransform | None = None,
) -> ModelNet:
    """ModelNet's meshes, by torch-geometric's own data set class, as points on their surfaces.

    Each access draws new points, evenly by area, and scales them into the cube [-1, 1]^3, the centre of the points in
    the middle. That class downloads the official archive (ModelNet10 450 MB, ModelNet40 2 GB) into ``root`` unless
    ``root/raw/<class>/<part>/*.off`` is there, and keeps what it has parsed in ``root/processed``.

    Args:
        root: folder of the data set.
        name: "10" or "40".
        part: "train" or "test", as published.
        points: number of points drawn of each shape.
        sampling: how they are weighed, see ``cloud_weights``. Points are drawn evenly, so "even" has the least
            noise; "surface" is for augmentations that thin them out in places.
        augmentation: a transform of the points drawn, rotations say; weights are taken behind it.

    Returns:
        A data set of ``Data`` with ``pos`` float32 ``(points, 3)``, ``weight`` float64 ``(points,)`` and the class
        ``y``.

    Raises:
        ValueError: an unknown name or part, a number of points below 1.
    """
    one_of("name", name, ("10", "40"))
    one_of("part", part, get_args(Part))
    require(points >= 1, "points", "be at least 1", points)
    steps: list[BaseTransform] = [SamplePoints(points), NormalizeScale()]
    if augmentation is not None:
        steps.append(augmentation)
    return ModelNet(str(root), name, part == "train", Compose([*steps, QuadratureWeights(sampling)]))


def modelnet10_voxels(root: str | Path, part: Part = "train") -> list[Data]:
    """ModelNet10 as the centres of occupied voxels, of shapes whose inside is filled in part.

    Args:
        root: folder with ``modelnet10_voxels.npz``, see ``modelnet_voxels.read_voxels``.
        part: "train" or "test", as published.

    Returns:
        One ``Data`` for each grid, in the order of the file: ``pos`` float32 ``(N, 3)`` in [-1, 1]^3, ``weight``
        float64 ``(N,)``, the volume of a voxel, and the class ``y``. Some grids are empty, 7 to train on and 1 to test
        on; they stay, without any point.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: the file breaks the format; the message names it.
    """
    grids, labels = modelnet_voxels.read_voxels(root, part)
    step = 2 / grids.shape[1]
    clouds = []
    for grid, label in zip(grids, labels, strict=True):
        centres = ((np.argwhere(grid) + 0.5) * step - 1).astype(np.float32)
        weight = torch.full((len(centres),), step**3, dtype=torch.float64)
        clouds.append(Data(pos=torch.from_numpy(centres), weight=weight, y=torch.tensor([int(label)])))
    return clouds


def lidar_tile(path: str | Path, *, sampling: CloudSampling = "surface", area: float | None = None) -> Data:
    """A tile of airborne laser points with a label for each: ground or not.

    Args:
        path: an ISPRS reference file, ``.txt`` with "east north height code" on each line, code 0 = bare earth, 1 =
            object; or an ``.npz`` with ``xyz`` ``(N, 3)`` and ``is_ground`` ``(N,)``.
        sampling: how points are weighed, see ``cloud_weights``.
        area: what the weights sum to, m^2; None = what the points cover, seen from above, see ``covered_volume``: it
            does not change when the tile is turned.

    Returns:
        ``Data`` with ``pos`` float64 ``(N, 3)`` in m less ``origin``, ``origin`` float64 ``(1, 3)`` the mean of the
        given coordinates, ``weight`` float64 ``(N,)`` in m^2, and ``y`` int64 ``(N,)``, 1 = ground. A file that was
        written in float32 has lost what float32 cannot tell apart: at 5,400,000 m north that is half a metre.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file breaks the format; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be an existing file, got {path}")
    if path.suffix == ".npz":
        places, ground = read_npz(path, ("xyz", "is_ground")).values()
    else:
        places, ground = _read_isprs(path)
    require(places.ndim == 2 and places.shape[1] == 3, path.name, "hold positions (N, 3)", places.shape)
    require(len(places) >= 1, path.name, "hold a point", "none")
    fits = ground.shape == places.shape[:1] and ground.dtype == np.bool_
    require(fits, path.name, f"hold one bool for each of {len(places)} points", f"{ground.dtype} {ground.shape}")
    rows = np.flatnonzero(~np.isfinite(places).all(1))
    require(not len(rows), path.name, "hold finite positions", f"row {rows[0] if len(rows) else ''}")
    coordinates = torch.from_numpy(places.astype(np.float64))
    origin = coordinates.mean(0, keepdim=True)
    pos = coordinates - origin
    if area is None:
        area = float(covered_volume(pos[:, :2]))
    require(area > 0, "area", "be positive, or be given for points that cover none", area)
    data = Data(pos=pos, origin=origin, y=torch.from_numpy(ground.astype(np.int64)))
    return QuadratureWeights(sampling, total=area)(data)


def _read_isprs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions and whether they are ground, of lines "east north height code"."""
    try:
        table = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except ValueError as error:
        reject(path.name, "hold four numbers on each line, east north height code", str(error))
    require(table.ndim == 2 and table.shape[1] == 4, path.name, "hold four numbers on each line", table.shape)
    codes = table[:, 3]
    unknown = codes[(codes != 0) & (codes != 1)]
    require(not len(unknown), path.name, "hold the codes 0 (ground) and 1 (object)", unknown[:1])
    return table[:, :3], codes == 0
