"""CIFAR-10 and CIFAR-100: 60,000 colour images, 32 x 32 pixels, 50,000 to train on and 10,000 to test on.

Read from the official *binary* versions, which are plain bytes. The better known python versions are pickles, which can
run any code when they are loaded, and are not read. As a sequence of 1,024 pixels with three channels each:
``as_sequences(load(...))`` of :mod:`ccnn_irregular.datasets.samples`.

    Krizhevsky A. Learning Multiple Layers of Features from Tiny Images. 2009.
    https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
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

Name = Literal["cifar10", "cifar100"]
Part = Literal["train", "test"]
Labels = Literal["fine", "coarse"]

URL = "https://www.cs.toronto.edu/~kriz"
# As listed by TensorFlow Datasets; public mirrors state them beside the MD5 sums of the official page.
SHA256: Mapping[str, str] = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
}

_SIZES = (32, 32)
_PIXEL_BYTES = 3 * 32 * 32  # red, green, blue planes, each row by row


@dataclass(frozen=True)
class _Layout:
    """Where a version keeps its records: some label bytes, then the pixels."""

    archive: str
    folder: str
    files: dict[str, tuple[str, ...]]  # part -> files
    label_bytes: dict[str, int]  # kind of label -> its place in the record
    names: dict[str, str]  # kind of label -> file of class names
    classes: dict[str, int]  # kind of label -> number of classes


_LAYOUTS: dict[str, _Layout] = {
    "cifar10": _Layout(
        archive="cifar-10-binary.tar.gz",
        folder="cifar-10-batches-bin",
        files={"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
        label_bytes={"fine": 0},
        names={"fine": "batches.meta.txt"},
        classes={"fine": 10},
    ),
    "cifar100": _Layout(
        archive="cifar-100-binary.tar.gz",
        folder="cifar-100-binary",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        label_bytes={"coarse": 0, "fine": 1},
        names={"coarse": "coarse_label_names.txt", "fine": "fine_label_names.txt"},
        classes={"coarse": 20, "fine": 100},
    ),
}


def load(
    root: str | Path,
    name: Name = "cifar10",
    part: Part = "train",
    *,
    labels: Labels = "fine",
    download: bool = False,
    progress: bool = True,
) -> GriddedSamples:
    """Images ``(B, 3, 32, 32)`` in [0, 1], channels red, green, blue, on a grid in pixels.

    Args:
        root: folder with the official archive, or with the folder it unpacks to.
        name: "cifar10" or "cifar100".
        part: "train" or "test", as published.
        labels: "fine", the 10 or 100 classes; "coarse", the 20 superclasses of CIFAR-100.
        download: fetch the archive first where it is missing, see :func:`fetch`.
        progress: show progress bars while fetching.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: a file breaks the format; the message names it.
    """
    one_of("name", name, get_args(Name))
    one_of("part", part, get_args(Part))
    layout = _LAYOUTS[name]
    one_of("labels", labels, tuple(layout.names))
    if download and not (Path(root) / layout.folder).is_dir():
        fetch(root, name, progress=progress)
    names = (*layout.files[part], layout.names[labels])
    hint = "the binary version: python versions are pickles and are not read; download=True fetches it"
    contents = read_packed_or_unpacked(existing_folder(root), layout.archive, layout.folder, names, hint)
    pixels, classes = zip(
        *(_read_records(file, contents[file], layout, labels) for file in layout.files[part]), strict=True
    )
    values = np.concatenate(pixels).astype(np.float32).reshape(-1, 3, *_SIZES)
    values /= 255
    return GriddedSamples(
        values=torch.from_numpy(values),
        grid=Grid(_SIZES, (1.0, 1.0)),
        labels=torch.from_numpy(np.concatenate(classes)),
        classes=_class_names(layout.names[labels], contents[layout.names[labels]], layout.classes[labels]),
        unit="pixel",
    )


def fetch(
    root: str | Path,
    name: Name = "cifar10",
    *,
    url: str = URL,
    sha256: Mapping[str, str] = SHA256,
    progress: bool = True,
) -> None:
    """Download the binary archive (170 MB) if ``root`` lacks it.

    Raises:
        ValueError: the downloaded file has another checksum.
        OSError: the server cannot be reached or refuses.
    """
    one_of("name", name, get_args(Name))
    archive = _LAYOUTS[name].archive
    download_missing(root, url, {archive: sha256[archive]}, progress=progress)


def _read_records(file: str, content: bytes, layout: _Layout, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels ``(B, 3072)`` uint8 and labels ``(B,)`` int64."""
    width = len(layout.label_bytes) + _PIXEL_BYTES
    whole = len(content) > 0 and len(content) % width == 0
    require(whole, file, f"hold records of {width} bytes", f"{len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    labels = labels_in_range(file, records[:, layout.label_bytes[kind]], 0, layout.classes[kind] - 1)
    return records[:, len(layout.label_bytes) :], labels


def _class_names(file: str, content: bytes, count: int) -> tuple[str, ...]:
    names = tuple(content.decode("utf-8", "replace").split())
    require(len(names) == count, file, f"name {count} classes", len(names))
    return names


_CIFAR10 = register(
    DataSet(
        name="cifar10",
        about="colour images of 10 classes: 50,000 to train on, 10,000 to test on",
        load=partial(load, name="cifar10"),
        samples=GriddedSamples,
        shape="3 channels in [0, 1] on 32 x 32 pixels",
        parts=get_args(Part),
        files="cifar-10-binary.tar.gz, or the folder cifar-10-batches-bin in it",
        size="170 MB",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        fetch=partial(fetch, name="cifar10"),
        checksum="SHA256 listed by TensorFlow Datasets",
    )
)
register(
    replace(
        _CIFAR10,
        name="cifar100",
        about="colour images of 100 classes in 20 superclasses: 50,000 to train on, 10,000 to test on",
        load=partial(load, name="cifar100"),
        files="cifar-100-binary.tar.gz, or the folder cifar-100-binary in it",
        fetch=partial(fetch, name="cifar100"),
    )
)
