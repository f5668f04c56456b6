"""Airborne laser points with a label, ground or object: the reference tiles of the ISPRS filter test.

Sithole G, Vosselman G. Experimental comparison of filter algorithms for bare-Earth extraction from airborne laser
scanning point clouds. ISPRS Journal of Photogrammetry and Remote Sensing 59, 2004.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.cloud_files import ASPRS, open_cloud
from ccnn_irregular.datasets.processing.terrain import ground_features
from ccnn_irregular.datasets.reading.files import read_npz
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import LabelledClouds
from ccnn_irregular.quadrature import covered_volume

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from ccnn_irregular.adapters.geometric_weights import CloudSampling

__all__ = ["CLASSES", "as_tile", "load", "load_tile"]

CLASSES = ("object", "ground")
_LAS = (".las", ".laz")


def load(root: str | Path) -> LabelledClouds:
    """A tile of airborne laser points as one cloud, see :func:`load_tile`; values are ``ground_features``, 9 channels.

    Coordinates are metres from the mean of the tile, which is subtracted in float64.
    """
    tile = load_tile(root)
    return as_tile(tile.pos.numpy(), tile.y)


def as_tile(positions: NDArray[np.float64], labels: Tensor) -> LabelledClouds:
    """Points ``(N, 3)`` in metres as one cloud with ``ground_features``; ``labels`` int64 ``(N,)``, 1 = ground."""
    values = torch.from_numpy(ground_features(positions))
    splits = torch.tensor([0, len(positions)])
    return LabelledClouds(torch.from_numpy(positions), values, labels, splits, CLASSES, "m")


def load_tile(path: str | Path, *, sampling: CloudSampling = "surface", area: float | None = None) -> Data:
    """A tile of airborne laser points with a label for each: ground or not.

    Args:
        path: an ISPRS reference file, ``.txt`` with "east north height code" on each line, code 0 = bare earth, 1 =
            object; a ``.las`` or ``.laz`` file, whose class 2 is ground; or an ``.npz`` with ``xyz`` ``(N, 3)`` and
            ``is_ground`` ``(N,)``.
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
    from torch_geometric.data import Data

    from ccnn_irregular.adapters.geometric_weights import QuadratureWeights

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be an existing file, got {path}")
    if path.suffix == ".npz":
        places, ground = read_npz(path, ("xyz", "is_ground")).values()
    elif path.suffix.lower() in _LAS:
        places, ground = _read_las(path)
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


def _read_las(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions and whether they are ground, of a file classified by the codes of ASPRS."""
    cloud = open_cloud(path)
    ground = cloud.field("classification") == ASPRS["ground"]
    require(bool(ground.any()), path.name, "hold points of class 2, ground", "none")
    return cloud.coordinates, ground


def _read_isprs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions and whether they are ground, of lines "east north height code"."""
    try:
        table = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except ValueError as error:
        reject(
            path.name, "hold four numbers on each line, east north height code (--config clouds reads others)", error
        )
    require(table.ndim == 2 and table.shape[1] == 4, path.name, "hold four numbers on each line", table.shape)
    codes = table[:, 3]
    unknown = codes[(codes != 0) & (codes != 1)]
    require(not len(unknown), path.name, "hold the codes 0 (ground) and 1 (object)", unknown[:1])
    return table[:, :3], codes == 0


register(
    DataSet(
        name="lidar_ground",
        about="airborne laser points, ground or object: a tile of the ISPRS filter test",
        load=load,
        samples=LabelledClouds,
        shape="9 features of the terrain at points in m",
        files="path of a tile: .txt, .las, .laz, or .npz of xyz and is_ground",
        size="1 MB a tile",
        licence="of the ISPRS",
        source="https://doi.org/10.1016/j.isprsjprs.2004.05.004",
    )
)
