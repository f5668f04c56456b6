"""A folder of volumes and a table of their labels: NIfTI, NRRD, MetaImage, DICOM, OME-Zarr or HDF5, any voxels.

The table is a CSV file with a header line and the columns ``file`` and ``label``. Every volume keeps its voxels: they
come on a grid of their own in millimetres, axes from inferior to superior, posterior to anterior, left to right (z, y,
x), whatever the order and the direction in the file, with the middle of the volume at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.scan_files import SCANS, is_scan
from ccnn_irregular.datasets.processing.moments import mean_and_deviation
from ccnn_irregular.datasets.reading.files import existing_folder, read_each
from ccnn_irregular.datasets.reading.label_table import read_labels
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import RaggedVolumes
from ccnn_irregular.domains import Grid

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load"]

_HDF5 = (".h5", ".hdf5")
# Steps are rounded to this many digits of a millimetre: files of one scanner differ in the last bit of their affines.
_DIGITS = 5


def load(
    root: str | Path,
    table: str = "labels.csv",
    *,
    classes: Sequence[str] | None = None,
    hdf5_dataset: str = "volume",
    standardise: bool = False,
    labelled: bool = True,
) -> RaggedVolumes:
    """All volumes of the table, one channel each; without labels and without a table all scans of the folder.

    Args:
        root: folder of the volumes and the table.
        table: name of the CSV file; its ``file`` column names files relative to ``root``, of a format that
            ``ccnn_irregular.adapters.scans.read_scan`` takes (a folder of the slices of a DICOM series is one), or
            ``.h5`` or ``.hdf5``.
        classes: the labels there may be, in the order of their numbers; None = those in the table, sorted.
        hdf5_dataset: where HDF5 files hold the volume; its attribute ``element_size_mm`` or ``element_size_um`` gives
            the voxels' size, its axes are z, y, x.
        standardise: bring every volume to mean 0 and standard deviation 1, for scanners whose intensities have no unit.
            A constant volume becomes 0.
        labelled: whether each volume must have a label; else labels may be missing (-1), and so may the table.

    Raises:
        FileNotFoundError: no such folder, table or volume.
        ValueError: a table without these columns or rows, a file named twice or outside the folder, a label that is
            empty or not among ``classes``; a volume that cannot be read, is not 3-D or holds nan or infinity. The
            message names the line of the table or the file.
    """
    root = existing_folder(root)
    if labelled or (root / table).is_file():
        names, words = read_labels(root, table, _is_volume, f"a scan: {SCANS}, or HDF5", labelled=labelled)
    else:
        names = [path.name for path in sorted(root.iterdir()) if _is_volume(path)]
        words = [""] * len(names)
        require(bool(names), str(root), f"hold scans: {SCANS}, or HDF5", "none")
    known = tuple(sorted(set(words) - {""})) if classes is None else tuple(classes)
    for line, word in enumerate(words, 2):
        require(word in (*known, ""), f"label on line {line} of {table}", f"be one of {known}", repr(word))

    def read(name: str) -> tuple[Tensor, Grid]:
        values, grid = _read_volume(root / name, hdf5_dataset)
        return (_standardised(values) if standardise else values)[None], grid

    volumes, grids = zip(*read_each(names, read), strict=True)
    labels = torch.tensor([known.index(word) if word else -1 for word in words], dtype=torch.int64)
    return replace(RaggedVolumes.of(volumes, grids, labels, known, "mm"), names=tuple(names))


def _standardised(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1; zeros where the volume is constant."""
    mean, deviation = mean_and_deviation(values.reshape(-1, 1))
    return torch.zeros_like(values) if not deviation > 0 else ((values.double() - mean) / deviation).to(values.dtype)


def _is_volume(path: Path) -> bool:
    return is_scan(path) or (path.name.endswith(_HDF5) and not path.name.startswith("."))


def _read_volume(path: Path, hdf5_dataset: str) -> tuple[Tensor, Grid]:
    """Values ``(D, H, W)`` float32 and their grid."""
    from ccnn_irregular.adapters.nifti import read_hdf5
    from ccnn_irregular.adapters.scans import read_scan

    array = read_hdf5(path, hdf5_dataset) if path.name.endswith(_HDF5) else _upright(read_scan(path), path)
    require(array.ndim == 3, str(path), "be a 3-D volume", f"{array.ndim}-D data {array.shape}")
    values = torch.from_numpy(np.ascontiguousarray(array.to_numpy(), dtype=np.float32))
    finite = torch.isfinite(values)
    require(bool(finite.all()), str(path), "hold finite values", f"{int((~finite).sum())} voxels of nan or infinity")
    steps = [_step(array, str(dim)) for dim in array.dims]
    starts = [-step * (size - 1) / 2 for step, size in zip(steps, array.shape, strict=True)]
    return values, Grid(array.shape, steps, starts)


def _upright(array: xr.DataArray, path: Path) -> xr.DataArray:
    """Axes in the order of the world's z, y, x, each rising along it: right, anterior, superior."""
    from ccnn_irregular.adapters.nifti import affine_of

    if array.ndim != 3:
        reject(str(path), "be a 3-D volume", f"{array.ndim}-D data {array.shape}")
    affine = affine_of(array)
    dims = str(array.attrs["voxel_axes"]).split()
    rows = {dim: "XYZ".index(array[dim].attrs["axis"]) for dim in dims}
    falling = [dim for column, dim in enumerate(dims) if affine[rows[dim], column] < 0]
    order = sorted(dims, key=rows.__getitem__, reverse=True)
    return array.isel({dim: slice(None, None, -1) for dim in falling}).transpose(*order)


def _step(array: xr.DataArray, dim: str) -> float:
    """Size of a voxel in mm; of an axis of one node the affine's, which its coordinates do not tell."""
    from ccnn_irregular.adapters.nifti import affine_of

    nodes = array[dim].to_numpy().astype(np.float64)
    if len(nodes) > 1:
        return round(float(abs(nodes[-1] - nodes[0])) / (len(nodes) - 1), _DIGITS)
    if "affine" not in array.attrs:
        reject(str(array.encoding["source"]), "have at least two voxels along each axis", array.shape)
    column = str(array.attrs["voxel_axes"]).split().index(dim)
    return round(float(np.linalg.norm(affine_of(array)[:3, column])), _DIGITS)


register(
    DataSet(
        name="volume_folder",
        about="your volumes of any sizes and voxels, with a table of labels",
        load=load,
        samples=RaggedVolumes,
        shape="1 channel on a grid of its own in mm",
        ordered=False,
        files="NIfTI, NRRD, MetaImage, OME-Zarr, HDF5, folders of DICOM; labels.csv with the columns file and label",
        size="of the files",
        licence="yours",
        source="your files",
    )
)
