"""MedMNIST's six sets of small volumes: CT of organs, nodules, adrenal glands, rib fractures; vessels; synapses.

Each is one ``.npz`` of 28^3 voxels, or of 64^3 in the larger edition, in official parts for training, validation and
test. The voxels' size in millimetres is not stated with the files: coordinates are in voxels.

    Yang J et al. MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image classification.
    Scientific Data 10, 41, 2023. Files: https://doi.org/10.5281/zenodo.10519652.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.reading.download import download_missing
from ccnn_irregular.datasets.reading.files import existing_folder, labels_in_range, missing_file, one_of, read_npz
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import GriddedSamples
from ccnn_irregular.domains import Grid

__all__ = ["CHECKSUMS", "CLASSES", "URL", "fetch", "load"]

Name = Literal["organ", "nodule", "adrenal", "fracture", "vessel", "synapse"]
Part = Literal["train", "validation", "test"]
Size = Literal[28, 64]

URL = "https://zenodo.org/records/10519652/files"
# As the medmnist package lists them; no stronger sum is published.
CHECKSUMS: Mapping[str, str] = {
    "organmnist3d.npz": "md5:a0c5a1ff56af4f155c46d46fbb45a2fe",
    "nodulemnist3d.npz": "md5:8755a7e9e05a4d9ce80a24c3e7a256f3",
    "adrenalmnist3d.npz": "md5:bbd3c5a5576322bc4cdfea780653b1ce",
    "fracturemnist3d.npz": "md5:6aa7b0143a6b42da40027a9dda61302f",
    "vesselmnist3d.npz": "md5:b41fd4f7e7e2feedddb201585ecafa1b",
    "synapsemnist3d.npz": "md5:1235b78a3cd6280881dd7850a78eadb6",
    "organmnist3d_64.npz": "md5:58a2205adf14a9d0a189cb06dc78bf10",
    "nodulemnist3d_64.npz": "md5:c47c5b7d457bf6332200d2ea6d64ecd8",
    "adrenalmnist3d_64.npz": "md5:17721accfe9fb005146a47d33bc54b2f",
    "fracturemnist3d_64.npz": "md5:f01d7e6316aedf4210da0da5b7437b42",
    "vesselmnist3d_64.npz": "md5:6bb274a8846e1097066dcd64e2c4520f",
    "synapsemnist3d_64.npz": "md5:43bd14ebf3af9d3dd072446fedc14d5e",
}
CLASSES: Mapping[str, tuple[str, ...]] = {
    "organ": (
        "liver",
        "kidney-right",
        "kidney-left",
        "femur-right",
        "femur-left",
        "bladder",
        "heart",
        "lung-right",
        "lung-left",
        "spleen",
        "pancreas",
    ),
    "nodule": ("benign", "malignant"),
    "adrenal": ("normal", "hyperplasia"),
    "fracture": ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
    "vessel": ("vessel", "aneurysm"),
    "synapse": ("inhibitory synapse", "excitatory synapse"),
}
_PREFIX: dict[str, str] = {"train": "train", "validation": "val", "test": "test"}


def load(
    root: str | Path,
    name: Name = "organ",
    part: Part = "train",
    *,
    size: Size = 28,
    download: bool = False,
    progress: bool = True,
) -> GriddedSamples:
    """Volumes ``(B, 1, size, size, size)`` in [0, 1], on a grid in voxels.

    Args:
        root: folder with the official ``.npz``, ``organmnist3d.npz`` for instance.
        name: which of the six.
        part: "train", "validation" or "test", as published.
        size: 28, or 64 for the larger edition, ``organmnist3d_64.npz``.
        download: fetch the file first where it is missing, see :func:`fetch`.
        progress: show a progress bar while fetching.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it breaks the format; the message names it.
    """
    one_of("part", part, get_args(Part))
    file = _file(name, size)
    if download:
        fetch(root, name, size=size, progress=progress)
    root = existing_folder(root)
    if not (root / file).is_file():
        raise missing_file(root, f"{file} (download=True fetches it)")
    images, labels = read_npz(root / file, (f"{_PREFIX[part]}_images", f"{_PREFIX[part]}_labels")).values()
    sizes = (size,) * 3
    sound = images.dtype == np.uint8 and images.shape[1:] == sizes
    rule = f"be uint8 of shape (B, {size}, {size}, {size})"
    require(sound, f"{file}, {_PREFIX[part]}_images", rule, f"{images.dtype} {images.shape}")
    whole = labels.dtype.kind in "iu" and labels.shape == (len(images), 1)
    rule = f"be integers of shape ({len(images)}, 1)"
    require(whole, f"{file}, {_PREFIX[part]}_labels", rule, f"{labels.dtype} {labels.shape}")
    values = images.astype(np.float32)
    values /= 255
    classes = CLASSES[name]
    return GriddedSamples(
        values=torch.from_numpy(values)[:, None],
        grid=Grid(sizes, (1.0,) * 3),
        labels=torch.from_numpy(labels_in_range(f"{file}, {_PREFIX[part]}_labels", labels[:, 0], 0, len(classes) - 1)),
        classes=classes,
        unit="voxel",
    )


def fetch(
    root: str | Path,
    name: Name = "organ",
    *,
    size: Size = 28,
    url: str = URL,
    checksums: Mapping[str, str] = CHECKSUMS,
    progress: bool = True,
) -> None:
    """Download the file if ``root`` lacks it.

    Raises:
        ValueError: the downloaded file has another checksum.
        OSError: the server cannot be reached or refuses.
    """
    file = _file(name, size)
    download_missing(root, url, {file: checksums[file]}, progress=progress)


def _file(name: str, size: int) -> str:
    one_of("name", name, get_args(Name))
    require(size in get_args(Size), "size", "be 28 or 64", size)
    return f"{name}mnist3d.npz" if size == 28 else f"{name}mnist3d_{size}.npz"


register(
    DataSet(
        name="medmnist3d",
        about="six sets of small volumes: organs, nodules, adrenal glands, fractures, vessels, synapses",
        load=load,
        samples=GriddedSamples,
        shape="1 channel in [0, 1] on 28^3 or 64^3 voxels",
        parts=get_args(Part),
        files="organmnist3d.npz, or the file of another set or size",
        size="not stated",
        licence="CC BY 4.0",
        source="https://doi.org/10.5281/zenodo.10519652",
        fetch=fetch,
        checksum="MD5 listed by the medmnist package",
    )
)
