"""MNIST: 70,000 images of handwritten digits, 28 x 28 pixels, 60,000 to train on and 10,000 to test on.

Read from the four official IDX files (packed as ``.gz`` or not) or from the ``mnist.npz`` with the same images that
Keras distributes. As a sequence of 784 pixels: ``as_sequences(load(...))``; permuted: ``permute_sequences(...)``, both
in :mod:`ccnn_irregular.datasets.samples`.

    LeCun Y, Bottou L, Bengio Y, Haffner P. Gradient-based learning applied to document recognition. Proceedings of the
    IEEE 86(11), 1998. The IDX format is described at http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.reading.download import download_missing
from ccnn_irregular.datasets.reading.files import (
    existing_folder,
    labels_in_range,
    missing_file,
    one_of,
    read_gzip,
    read_npz,
)
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import GriddedSamples
from ccnn_irregular.domains import Grid

__all__ = ["CLASSES", "MEAN", "SHA256", "STANDARD_DEVIATION", "URL", "fetch", "load"]

Part = Literal["train", "test"]

# A mirror of the official files with the same bytes; the checksums are those TensorFlow Datasets lists for it.
URL = "https://storage.googleapis.com/cvdf-datasets/mnist"
SHA256: Mapping[str, str] = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
CLASSES = tuple("0123456789")
# Of the training images scaled to [0, 1], as the published recipes standardise them.
MEAN = (0.1307,)
STANDARD_DEVIATION = (0.3081,)

_PREFIX: dict[str, str] = {"train": "train", "test": "t10k"}
_NPZ = "mnist.npz"
_UNSIGNED_BYTE = 0x08  # the third byte of an IDX magic number; the fourth is the number of axes


def load(
    root: str | Path,
    part: Part = "train",
    *,
    download: bool = False,
    progress: bool = True,
) -> GriddedSamples:
    """Images ``(B, 1, 28, 28)`` in [0, 1] on a grid in pixels, with the digit as label.

    Args:
        root: folder with the IDX files or, where there are none, ``mnist.npz``.
        part: "train" or "test", as published.
        download: fetch missing IDX files first, see :func:`fetch`.
        progress: show progress bars while fetching.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: a file breaks the format; the message names it.
    """
    one_of("part", part, get_args(Part))
    if download:
        fetch(root, progress=progress)
    root = existing_folder(root)
    images_file, labels_file = (_find(root, part, kind) for kind in ("images-idx3", "labels-idx1"))
    if images_file is not None and labels_file is not None:
        images, labels = _read_idx(images_file, 3), _read_idx(labels_file, 1)
        names = (images_file.name, labels_file.name)
    elif (root / _NPZ).is_file():
        images, labels = _read_npz(root / _NPZ, part)
        names = (f"{_NPZ}, x_{part}", f"{_NPZ}, y_{part}")
    else:
        expected = f"{_PREFIX[part]}-images-idx3-ubyte.gz and {_PREFIX[part]}-labels-idx1-ubyte.gz, or {_NPZ}"
        raise missing_file(root, f"{expected} (download=True fetches the first ones)")
    require(len(images) == len(labels), names[1], f"hold one label for each of the {len(images)} images", len(labels))
    values = torch.from_numpy(images.astype(np.float32) / 255)[:, None]
    return GriddedSamples(
        values=values,
        grid=Grid(images.shape[1:], (1.0, 1.0)),
        labels=torch.from_numpy(labels_in_range(names[1], labels, 0, 9)),
        classes=CLASSES,
        unit="pixel",
    )


def fetch(root: str | Path, *, url: str = URL, sha256: Mapping[str, str] = SHA256, progress: bool = True) -> None:
    """Download those of the four official files (11 MB) that ``root`` lacks.

    Raises:
        ValueError: a downloaded file has another checksum.
        OSError: the server cannot be reached or refuses.
    """
    download_missing(root, url, sha256, progress=progress)


def _find(root: Path, part: str, kind: str) -> Path | None:
    name = f"{_PREFIX[part]}-{kind}-ubyte"
    return next((path for path in (root / f"{name}.gz", root / name) if path.is_file()), None)


def _read_idx(path: Path, axes: int) -> np.ndarray:
    """The uint8 array in an IDX file: magic number, one big-endian uint32 per axis, then the bytes."""
    content = read_gzip(path)
    magic = bytes((0, 0, _UNSIGNED_BYTE, axes))
    require(content[:4] == magic, path.name, f"start with the magic number 0x{magic.hex()}", f"0x{content[:4].hex()}")
    body = 4 + 4 * axes
    require(len(content) >= body, path.name, f"hold {axes} sizes", f"a file that ends after {len(content)} bytes")
    sizes = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, 4))
    wanted, found = math.prod(sizes), len(content) - body
    require(found == wanted, path.name, f"hold {wanted} bytes for its sizes {sizes}", found)
    return np.frombuffer(content, np.uint8, offset=body).reshape(sizes)


def _read_npz(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_npz(path, (f"x_{part}", f"y_{part}")).values()
    bytewise = images.dtype == np.uint8 and images.ndim == 3
    require(bytewise, f"{path.name}, x_{part}", "be uint8 of three axes", f"{images.dtype} {images.shape}")
    whole = labels.dtype.kind in "iu" and labels.ndim == 1
    require(whole, f"{path.name}, y_{part}", "be integers of one axis", f"{labels.dtype} {labels.shape}")
    return images, labels


register(
    DataSet(
        name="mnist",
        about="handwritten digits: 60,000 images to train on, 10,000 to test on",
        load=load,
        samples=GriddedSamples,
        shape="1 channel in [0, 1] on 28 x 28 pixels",
        parts=get_args(Part),
        files="the four IDX files (.gz or unpacked), or mnist.npz",
        size="11 MB",
        source="http://yann.lecun.com/exdb/mnist",
        fetch=fetch,
        checksum="SHA256 listed by TensorFlow Datasets",
    )
)
