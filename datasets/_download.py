"""Download one file and keep it only if it is the published one."""

from __future__ import annotations

from pathlib import Path

from ccnn_irregular._checks import reject
from ccnn_irregular._optional import import_optional

__all__ = ["download_file"]

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
