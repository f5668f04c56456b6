"""Many files of one data set, parsed once and kept in one cache file beside them; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ccnn_irregular.datasets.reading import cache

__all__ = ["fetch_unchecked", "parsed_once"]

_VERSION = 1  # of the arrays that parsers make: raise it when the same files should give others


def parsed_once(
    path: Path, root: Path, files: Sequence[Path], parse: Callable[[Sequence[Path]], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays that ``parse`` makes of ``files``, from the cache file ``path`` where it was made of the same contents.

    Args:
        path: of the cache file; a folder that takes no files is only a warning.
        root: folder that the names of the files are told from.
        files: what is parsed, in this order.
        parse: makes the arrays.
    """
    digest = hashlib.sha256(f"version {_VERSION}".encode())
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root)}\0{len(content)}\0".encode())
        digest.update(content)
    found = cache.read(path, digest.hexdigest())
    if found is None:
        found = parse(files)
        cache.write(path, digest.hexdigest(), found)
    return found


def fetch_unchecked(url: str, root: Path, folder: str) -> None:
    """Unpack an official ``.zip`` of one folder as ``root/folder``; no checksum is published for it.

    Raises:
        OSError: the server cannot be reached, or the folder cannot be written.
    """
    from torch_geometric.data import download_url, extract_zip

    place = root / f".{folder}.part"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        extract_zip(download_url(url, str(place)), str(place))
        (unpacked,) = (entry for entry in place.iterdir() if entry.is_dir() and entry.name != "__MACOSX")
        unpacked.rename(root / folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
