"""Pairs of medical volumes and label volumes: the Medical Segmentation Decathlon's layout, and plain folders.

Antonelli et al. 2022, The Medical Segmentation Decathlon, Nature Communications 13:4128; http://medicaldecathlon.com,
licence CC BY-SA 4.0. A task is a folder with ``dataset.json``, ``imagesTr``, ``labelsTr`` (and ``imagesTs`` without
labels). The simpler layout is two folders, ``images`` and ``labels``, with files of the same names.

Volumes are read one at a time, each with its own size and its own grid in millimetres; nothing is resampled.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular._files import DamagedFileError, naming
from ccnn_irregular.adapters.scan_files import SCANS, scan_files, scan_name
from ccnn_irregular.datasets.reading.files import existing_folder, missing_file
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples.protocol import summary
from ccnn_irregular.domains import Grid

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Pair", "Volume", "VolumePairs", "canonical", "find_images", "find_pairs", "label_codes", "label_dtype",
           "like_file", "read_labels", "read_volume"]  # fmt: skip

_NAMES_SHOWN = 3
# Axes of a canonical volume: to the right, to the front, to the top.
_WORLD = ("X", "Y", "Z")


@dataclass(frozen=True)
class Pair:
    """An image and its labels.

    Attributes:
        name: of both files, without suffix.
        image: path of the image.
        labels: path of the label volume.
    """

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class VolumePairs:
    """What a folder holds; ``read_volume`` reads a pair.

    Attributes:
        pairs: by name.
        classes: what the labels 0, 1, ... mean; () where no ``dataset.json`` says it.
    """

    pairs: tuple[Pair, ...]
    classes: tuple[str, ...] = ()

    @property
    def labels(self) -> None:
        """One for each voxel, which ``read_volume`` reads."""

    @property
    def unit(self) -> str:
        """Of the grids' coordinates."""
        return "mm"

    def __len__(self) -> int:
        return len(self.pairs)

    def describe(self) -> dict[str, Any]:
        """What was found, as plain values."""
        return summary(self)


@dataclass(frozen=True)
class Volume:
    """One image in canonical order: axes to the right, to the front and to the top, as nearly as the voxels run so.

    Attributes:
        name: of the file, without suffix.
        values: ``(C, *sizes)`` float32, as stored; C is 1, or the number of modalities.
        grid: of the voxels in millimetres.
        labels: ``(*sizes)``, see ``label_dtype``, or None.
    """

    name: str
    values: Tensor
    grid: Grid
    labels: Tensor | None = None


def find_pairs(root: str | Path) -> VolumePairs:
    """The labelled pairs in a folder of either layout; no volume is read.

    Args:
        root: holds ``dataset.json``, or the folders ``images`` and ``labels``.

    Raises:
        FileNotFoundError: no such folder, neither layout, or a listed file is missing.
        ValueError: ``dataset.json`` is damaged, names files outside of ``root`` or labels that are not 0, 1, 2, ...;
            an image without labels, or labels without image; no pair at all.
    """
    root = existing_folder(root)
    if (root / "dataset.json").is_file():
        return _listed(root)
    images, labels = root / "images", root / "labels"
    if not (images.is_dir() and labels.is_dir()):
        raise missing_file(root, "dataset.json (Medical Segmentation Decathlon), or the folders images and labels")
    image_files, label_files = ({scan_name(path): path for path in scan_files(folder)} for folder in (images, labels))
    for folder, here, others in ((labels, image_files, label_files), (images, label_files, image_files)):
        lacking = sorted(set(here) - set(others))
        shown = ", ".join(lacking[:_NAMES_SHOWN]) + (", ..." if len(lacking) > _NAMES_SHOWN else "")
        got = f"none for {len(lacking)} of {len(here)}: {shown}"
        require(not lacking, str(folder), "hold a file for each one beside it", got)
    require(bool(image_files), str(images), f"hold scans: {SCANS}", "none")
    pairs = tuple(Pair(name, image_files[name], label_files[name]) for name in sorted(image_files))
    return VolumePairs(pairs)


def find_images(root: str | Path) -> list[Path]:
    """All images in a folder of either layout, those without labels too, or the scans in the folder itself.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no scan in any of these places, or two of one name.
    """
    root = existing_folder(root)
    layouts = [[root / "images"], [root / "imagesTr", root / "imagesTs"], [root]]
    folders = next((held for held in layouts if held[0].is_dir()), [root])
    images = [path for folder in folders if folder.is_dir() for path in scan_files(folder)]
    require(bool(images), str(root), "hold scans, or a folder images or imagesTr of them", "none")
    names = [scan_name(path) for path in images]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, str(root), "hold one image of each name", twice[:_NAMES_SHOWN])
    return images


def _listed(root: Path) -> VolumePairs:
    """Pairs and labels as ``dataset.json`` lists them."""
    file = root / "dataset.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entries = [(root / str(pair["image"]), root / str(pair["label"])) for pair in content["training"]]
        names = {int(value): str(name) for value, name in content["labels"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{file} must list 'training' pairs and 'labels', got {error!r}", file) from error
    require(sorted(names) == list(range(len(names))), f"labels of {file}", "be 0, 1, 2, ...", sorted(names))
    require(bool(entries), str(file), "list training pairs", "none")
    for path in (path for entry in entries for path in entry):
        inside = path.resolve().is_relative_to(root.resolve())
        require(inside, str(file), "name files inside its folder", str(path))
        if not path.is_file():
            raise FileNotFoundError(f"{file} must name existing files, got {path}")
    pairs = sorted((Pair(scan_name(image), image, labels) for image, labels in entries), key=lambda pair: pair.name)
    twice = [b.name for a, b in itertools.pairwise(pairs) if a.name == b.name]
    require(not twice, str(file), "list each image once", twice[:_NAMES_SHOWN])
    return VolumePairs(tuple(pairs), tuple(names[value] for value in range(len(names))))


def read_volume(pair: Pair, codes: Sequence[int]) -> Volume:
    """Image and labels of a pair.

    Args:
        pair: from ``find_pairs``.
        codes: what stands for each class in the file, rising, the background first.

    Raises:
        ValueError: see ``read_scan`` and ``read_labels``; values that are not finite.
    """
    from ccnn_irregular.adapters.scans import read_scan

    image = read_scan(pair.image)
    with naming(pair.image):
        values, grid = canonical(image)
    labels = read_labels(pair.labels, image, codes)
    return Volume(pair.name, values, grid, labels)


def canonical(image: xr.DataArray) -> tuple[Tensor, Grid]:
    """The voxels of an array from ``read_scan`` in canonical order, and their grid.

    Returns:
        Values ``(C, *sizes)`` float32 and the grid in millimetres. Where the voxels run along the scanner's axes its
        coordinates are the scanner's, else distances along the voxel axes from the first voxel of the canonical order.

    Raises:
        ValueError: values that are not finite.
    """
    from ccnn_irregular.adapters.nifti import affine_of

    array = _reordered(image)
    values = torch.from_numpy(np.ascontiguousarray(array.to_numpy(), np.float32))
    values = values if values.ndim == 4 else values[None]
    bad = int((~values.isfinite()).sum())
    require(bad == 0, f"voxels of {image.encoding.get('source', image.name)}", "be finite", f"{bad} that are not")
    dims = [str(dim) for dim in array.dims[-3:]]
    steps = np.linalg.norm(affine_of(image)[:3, :3], axis=0)
    by_name = dict(zip(str(image.attrs["voxel_axes"]).split()[:3], steps, strict=True))
    # Rounded: affines are float32 in the file, and 0.99999994 mm beside 1 mm would be two spacings.
    sizes, spacing = [array.sizes[dim] for dim in dims], [round(float(by_name[dim]), 5) for dim in dims]
    starts = [float(min(array[dim][0], array[dim][-1])) for dim in dims]
    return values, Grid(sizes, spacing, starts)


def read_labels(path: Path, image: xr.DataArray, codes: Sequence[int]) -> Tensor:
    """The label volume of an image, in canonical order: index into ``codes``, ``(*sizes)`` of their ``label_dtype``.

    Raises:
        ValueError: another shape or space than the image's, or values other than the codes.
    """
    from ccnn_irregular.adapters.scans import read_scan

    array = read_scan(path, like=image)
    require(array.ndim == 3, f"labels {path}", "be a 3-D volume", f"{array.ndim}-D data")
    found = np.unique(array.to_numpy())
    # Not by their range: nan is none of them, and 1.5 is neither 1 nor 2.
    unknown = [value for value in found.tolist() if value not in codes]
    known = f"0 ... {codes[-1]}" if list(codes) == list(range(len(codes))) else ", ".join(map(str, codes))
    require(not unknown, f"labels {path}", f"be among {known}", unknown[:5])
    labels = np.searchsorted(codes, _reordered(array).to_numpy())
    return torch.from_numpy(labels).to(label_dtype(len(codes) - 1))


def label_codes(paths: Iterable[Path]) -> dict[int, int]:
    """The values that label volumes hold, rising, and the number of volumes that hold each.

    Raises:
        ValueError: see ``read_scan``; values that are no whole numbers from 0 on.
    """
    from ccnn_irregular.adapters.scans import read_scan

    counts: Counter[int] = Counter()
    for path in paths:
        found = np.unique(read_scan(path).to_numpy()).tolist()
        bad = [value for value in found if not (value >= 0 and value == int(value))]
        require(not bad, f"labels {path}", "be whole numbers from 0 on", bad[:5])
        counts.update(map(int, found))
    return dict(sorted(counts.items()))


def label_dtype(largest: int) -> torch.dtype:
    """The smallest dtype that holds the labels 0 ... ``largest`` in torch and in NIfTI: uint8, int16 or int32."""
    return torch.uint8 if largest <= 255 else torch.int16 if largest <= 2**15 - 1 else torch.int32


def like_file(labels: Tensor, image: xr.DataArray) -> xr.DataArray:
    """Labels in canonical order as an array on the image's voxels in the file's own order.

    Args:
        labels: integers, not negative. uint8, int16 and int32 stay what they are; others become the ``label_dtype`` of
            the largest.
        image: from ``read_scan``.

    Raises:
        ValueError: labels of another shape than the image's, no integers, negative, or beyond int32.
    """
    space = _reordered(image)
    space = space.isel({space.dims[0]: 0}, drop=True) if space.ndim == 4 else space
    require(tuple(labels.shape) == space.shape, "labels", f"have the image's shape {space.shape}", tuple(labels.shape))
    integers = not (labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool)
    require(integers, "labels", "be integers (labels.long() of a mask or of whole numbers)", labels.dtype)
    low, high = int(labels.min()), int(labels.max())
    require(low >= 0 and high < 2**31, "labels", f"lie in 0 ... {2**31 - 1}", (low, high))
    dtype = labels.dtype if labels.dtype in (torch.uint8, torch.int16, torch.int32) else label_dtype(high)
    array = space.copy(data=labels.to(dtype).cpu().numpy())
    return array.sel({dim: image[dim] for dim in space.dims}).transpose(*(d for d in image.dims if d in space.dims))


def _reordered(array: xr.DataArray) -> xr.DataArray:
    """The array with its axes, channels first, in canonical order and direction."""
    from ccnn_irregular.adapters.nifti import affine_of

    affine: Any = affine_of(array)
    names = str(array.attrs["voxel_axes"]).split()[:3]
    by_world = {array[dim].attrs["axis"]: (dim, column) for column, dim in enumerate(names)}
    order, turned = [], {}
    for row, world in enumerate(_WORLD):
        dim, column = by_world[world]
        order.append(dim)
        # affine_of follows an array that was cut or turned, so the sign is that of the array as it is.
        if affine[row, column] < 0:
            turned[dim] = slice(None, None, -1)
    rest = [dim for dim in array.dims if dim not in order]
    return array.transpose(*rest, *order).isel(turned)


register(
    DataSet(
        name="decathlon",
        about="medical volumes with a label for each voxel, each on a grid of its own",
        load=find_pairs,
        samples=VolumePairs,
        shape="1 channel, or one a modality, on a grid in mm",
        files="a task of the Medical Segmentation Decathlon, or folders images and labels of scans",
        size="of the files",
        licence="CC BY-SA 4.0",
        source="http://medicaldecathlon.com",
    )
)
