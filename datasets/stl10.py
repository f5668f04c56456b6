"""STL-10: colour images of 10 classes, 96 x 96 pixels, 5,000 to train on and 8,000 to test on.

Read from the official binary version. The 100,000 unlabelled images in the same archive are left out.

    Coates A, Lee H, Ng AY. An Analysis of Single Layer Networks in Unsupervised Feature Learning. AISTATS 2011.
    https://cs.stanford.edu/~acoates/stl10/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.reading.download import download_missing
from ccnn_irregular.datasets.reading.files import existing_folder, labels_in_range, one_of, read_packed_or_unpacked
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import GriddedSamples
from ccnn_irregular.domains import Grid

__all__ = ["SHA256", "URL", "fetch", "load"]

Part = Literal["train", "test"]

URL = "http://ai.stanford.edu/~acoates/stl10"
# As listed by TensorFlow Datasets.
SHA256: Mapping[str, str] = {
    "stl10_binary.tar.gz": "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
}

_ARCHIVE, _FOLDER, _NAMES = "stl10_binary.tar.gz", "stl10_binary", "class_names.txt"
_SIZES = (96, 96)
_IMAGE_BYTES = 3 * 96 * 96


def load(
    root: str | Path,
    part: Part = "train",
    *,
    download: bool = False,
    progress: bool = True,
) -> GriddedSamples:
    """Images ``(B, 3, 96, 96)`` in [0, 1], channels red, green, blue, rows from the top, on a grid in pixels.

    Args:
        root: folder with the official archive, or with the folder it unpacks to.
        part: "train" or "test", as published.
        download: fetch the archive first where it is missing, see :func:`fetch`.
        progress: show progress bars while fetching.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: a file breaks the format; the message names it.
    """
    one_of("part", part, get_args(Part))
    if download and not (Path(root) / _FOLDER).is_dir():
        fetch(root, progress=progress)
    images_file, labels_file = f"{part}_X.bin", f"{part}_y.bin"
    names = (images_file, labels_file, _NAMES)
    contents = read_packed_or_unpacked(existing_folder(root), _ARCHIVE, _FOLDER, names, "download=True fetches it")
    size = len(contents[images_file])
    whole = size > 0 and size % _IMAGE_BYTES == 0
    require(whole, images_file, f"hold images of {_IMAGE_BYTES} bytes", f"{size} bytes")
    # Planes are stored column by column.
    pixels = np.frombuffer(contents[images_file], np.uint8).reshape(-1, 3, *_SIZES).transpose(0, 1, 3, 2)
    labels = np.frombuffer(contents[labels_file], np.uint8)
    require(len(labels) == len(pixels), labels_file, f"hold one label for each of {len(pixels)} images", len(labels))
    classes = tuple(contents[_NAMES].decode("utf-8", "replace").split())
    require(len(classes) == 10, _NAMES, "name 10 classes", len(classes))
    values = pixels.astype(np.float32, order="C")
    values /= 255
    return GriddedSamples(
        values=torch.from_numpy(values),
        grid=Grid(_SIZES, (1.0, 1.0)),
        labels=torch.from_numpy(labels_in_range(labels_file, labels, 1, 10)),
        classes=classes,
        unit="pixel",
    )


def fetch(root: str | Path, *, url: str = URL, sha256: Mapping[str, str] = SHA256, progress: bool = True) -> None:
    """Download the official archive (2.6 GB) if ``root`` lacks it.

    Raises:
        ValueError: the downloaded file has another checksum.
        OSError: the server cannot be reached or refuses.
    """
    download_missing(root, url, sha256, progress=progress)


register(
    DataSet(
        name="stl10",
        about="colour images of 10 classes: 5,000 to train on, 8,000 to test on",
        load=load,
        samples=GriddedSamples,
        shape="3 channels in [0, 1] on 96 x 96 pixels",
        parts=get_args(Part),
        files="stl10_binary.tar.gz, or the folder stl10_binary in it",
        size="2.6 GB",
        source="https://cs.stanford.edu/~acoates/stl10",
        fetch=fetch,
        checksum="SHA256 listed by TensorFlow Datasets",
    )
)
