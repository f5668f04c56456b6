"""Download files and keep them only if they are the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ccnn_irregular._checks import reject
from ccnn_irregular._optional import import_optional

__all__ = ["download_file", "download_missing"]

_TIMEOUT_SECONDS = 60


def download_file(url: str, sha256: str, target: Path, *, progress: bool) -> None:
    """Write ``url`` to ``target``; ``target`` appears only when it is complete and its checksum is right.

    Raises:
        ValueError: the server's file has another SHA256.
        OSError: the server cannot be reached or refuses.
    """
    pooch = import_optional("pooch", f"downloading {target.name}", "files")
    downloader = pooch.HTTPDownloader(progressbar=progress, timeout=_TIMEOUT_SECONDS)
    try:
        pooch.retrieve(url, f"sha256:{sha256}", target.name, target.parent, downloader=downloader)
    except ValueError as error:
        if "hash" not in str(error):
            raise
        reject(url, f"have the published SHA256 {sha256}", f"another file, which was not kept ({error})")


def download_missing(root: str | Path, url: str, sha256: Mapping[str, str], *, progress: bool) -> None:
    """Write each file named in ``sha256`` that ``root`` lacks; ``root`` is made if need be.

    Raises:
        ValueError, OSError: as :func:`download_file`.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for name, checksum in sha256.items():
        if not (root / name).exists():
            download_file(f"{url}/{name}", checksum, root / name, progress=progress)
