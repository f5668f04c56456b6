"""A folder of images, a folder of its own for each class: PNG, JPEG, BMP, TIFF or WebP, of any sizes.

Every image keeps its pixels: it comes on a grid of its own, axes y and x in pixels from its upper left one, unless
``size`` brings all to one number of pixels over the same extent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ccnn_irregular._checks import require
from ccnn_irregular._files import parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.reading.files import existing_folder, one_of, read_each
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import RaggedVolumes
from ccnn_irregular.domains import Grid

__all__ = ["SUFFIXES", "load"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
Colour = Literal["rgb", "grey"]
_MODES: dict[Colour, str] = {"rgb": "RGB", "grey": "L"}
# Modes that Pillow turns into 8 bits a channel without loss of more than colour or transparency.
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


def load(
    root: str | Path,
    *,
    size: Sequence[int] | None = None,
    colour: Colour = "rgb",
    classes: Sequence[str] | None = None,
    labelled: bool = True,
) -> RaggedVolumes:
    """All images below ``root``, one or three channels in [0, 1]; names are paths relative to it.

    Args:
        root: folder that holds a folder for each class; where labels may be missing, images may lie in it too.
        size: pixels along y and x that every image is brought to, smoothed where it had more; its grid has steps of
            1 pixel of the result. None = as they are.
        colour: "rgb" or "grey".
        classes: the classes there may be, in the order of their numbers; None = the names of the folders, sorted.
        labelled: whether each image must lie in the folder of its class; else labels may be missing (-1).

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images; images outside of a class, a class without any or not among ``classes``; a file that
            cannot be read or has more than 8 bits a channel. The message names it.
        ImportError: Pillow is not installed.
    """
    root = existing_folder(root)
    one_of("colour", colour, get_args(Colour))
    sound = size is None or (len(size) == 2 and all(int(n) == n and n >= 1 for n in size))
    require(sound, "size", "be pixels along y and x, such as 64 64", size)
    files, words = _files(root, labelled)
    known = tuple(sorted(set(words) - {""})) if classes is None else tuple(classes)
    unknown = sorted(set(words) - {*known, ""})
    require(not unknown, f"the folders of {root}", f"be classes among {known}", unknown[:3])
    wanted = None if size is None else (int(size[0]), int(size[1]))
    images = read_each(files, lambda path: _read(path, wanted, colour))
    grids = [Grid(image.shape[1:], (1.0, 1.0)) for image in images]
    labels = torch.tensor([known.index(word) if word else -1 for word in words], dtype=torch.int64)
    names = tuple(path.relative_to(root).as_posix() for path in files)
    return replace(RaggedVolumes.of(images, grids, labels, known, "pixel"), names=names)


def _files(root: Path, labelled: bool) -> tuple[list[Path], list[str]]:
    """The images, sorted by path, and the class of each, "" where it is not known."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    loose = _images(root)
    kind = "be in a folder of its class (cats/1.png, dogs/2.png)"
    require(not (labelled and loose), f"each image of {root}", kind, ", ".join(path.name for path in loose[:3]))
    files, words = list(loose), [""] * len(loose)
    for folder in folders:
        own = _images(folder)
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        deeper = f"only folders, such as {inner[0]}: name {folder} itself" if inner and not own else "none"
        require(bool(own), str(folder), f"hold images ({', '.join(SUFFIXES)}) of one class", deeper)
        files += own
        words += [folder.name] * len(own)
    require(bool(files), str(root), f"hold folders of images ({', '.join(SUFFIXES)})", "none")
    return files, words


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _read(path: Path, size: tuple[int, int] | None, colour: Colour) -> Tensor:
    """Values ``(channels, y, x)`` float32 in [0, 1], turned upright where the file says how."""
    pillow, operations = (import_optional(f"PIL.{name}", "reading images", "files") for name in ("Image", "ImageOps"))
    with parsing(path, "image"):
        image = pillow.open(path)
    with image:
        with parsing(path, "image"):
            frames = getattr(image, "n_frames", 1)
        require(image.mode in _EIGHT_BITS, str(path), "have 8 bits a channel", f"mode {image.mode}")
        require(frames == 1, str(path), "hold one image", f"{frames} frames")
        with parsing(path, "image"):
            upright = operations.exif_transpose(image).convert(_MODES[colour])
            if size is not None:
                upright = upright.resize(size[::-1], pillow.Resampling.BILINEAR)
            pixels = np.asarray(upright, np.uint8)
    values = torch.from_numpy(pixels.astype(np.float32) / 255)
    return values[None] if values.ndim == 2 else values.movedim(2, 0)


def _content(*, size: Sequence[int] | None = None, colour: Colour = "rgb", **_: Any) -> dict[str, Any]:
    """What :func:`_read` makes of an image, for a reader without it."""
    kept = "the pixels of the file"
    resized = kept if size is None else f"Pillow's resize to {size[1]} x {size[0]} (width x height), BILINEAR"
    return {
        "channels": ["red", "green", "blue"] if colour == "rgb" else ["grey"],
        "range": [0, 1],
        "made of an image by": f"exif_transpose, convert({_MODES[colour]!r}), {resized}, 8 bits / 255",
        "axes": ["y from the upper row", "x from the left column"],
    }


register(
    DataSet(
        name="image_folder",
        about="your images of any sizes, a folder for each class",
        load=load,
        samples=RaggedVolumes,
        shape="1 or 3 channels in [0, 1] on a grid of its own in pixels",
        ordered=False,
        content=_content,
        files="a folder for each class, of PNG, JPEG, BMP, TIFF or WebP",
        size="of the files",
        licence="yours",
        source="your files",
    )
)
