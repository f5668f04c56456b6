"""Download files and keep them only if they are the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ccnn_irregular._checks import reject
from ccnn_irregular._optional import import_optional

__all__ = ["download_file", "download_missing"]

_TIMEOUT_SECONDS = 60


def download_file(url: str, checksum: str, target: Path, *, progress: bool) -> None:
    """Write ``url`` to ``target``; ``target`` appears only when it is complete and its checksum is right.

    Args:
        url: of the file.
        checksum: SHA256 in hexadecimal digits, or "md5:" and digits where no better one is published.
        target: path of the file.
        progress: show a progress bar.

    Raises:
        ValueError: the server's file has another checksum.
        OSError: the server cannot be reached or refuses.
    """
    pooch = import_optional("pooch", f"downloading {target.name}", "files")
    kind, _, digits = checksum.rpartition(":")
    downloader = pooch.HTTPDownloader(progressbar=progress, timeout=_TIMEOUT_SECONDS)
    try:
        pooch.retrieve(url, f"{kind or 'sha256'}:{digits}", target.name, target.parent, downloader=downloader)
    except ValueError as error:
        if "hash" not in str(error):
            raise
        reject(
            url,
            f"have the published {(kind or 'sha256').upper()} {digits}",
            f"another file, which was not kept ({error})",
        )


def download_missing(root: str | Path, url: str, checksums: Mapping[str, str], *, progress: bool) -> None:
    """Write each file named in ``checksums`` that ``root`` lacks; ``root`` is made if need be.

    Raises:
        ValueError, OSError: as :func:`download_file`.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for name, checksum in checksums.items():
        if not (root / name).exists():
            download_file(f"{url}/{name}", checksum, root / name, progress=progress)
