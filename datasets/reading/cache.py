"""Arrays kept in an HDF5 file between runs, verified as a whole before HDF5 looks at them.

The first 512 bytes of a cache file (an HDF5 user block) hold the SHA256 of all that follows and the fingerprint of the
source. A file whose bytes do not add up is thrown away with a warning; a file of another source is replaced.
Files appear under their name by one atomic rename, so processes that share a folder never see half a file.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np

from ccnn_irregular._optional import import_optional

__all__ = ["read", "write"]

_HEAD_BYTES = 512  # the smallest user block HDF5 allows
_PURPOSE = "the cache of a data set"


def read(path: Path, fingerprint: str) -> dict[str, np.ndarray] | None:
    """Arrays of the cache file, or None where there is no intact one made from this source.

    Args:
        path: cache file.
        fingerprint: SHA256 in hexadecimal digits of everything the arrays were computed from.
    """
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(f"cache file {path} cannot be read and is rebuilt: {error}", stacklevel=2)
        return None
    body = stored[_HEAD_BYTES:]
    digest, _, source = stored[:_HEAD_BYTES].rstrip(b"\0").partition(b"\n")
    if digest != hashlib.sha256(body).hexdigest().encode():
        warnings.warn(f"cache file {path} is damaged and is rebuilt", stacklevel=2)
        return None
    if source != fingerprint.encode():
        return None
    h5py = import_optional("h5py", _PURPOSE)
    with h5py.File(io.BytesIO(stored), "r") as file:
        return {name: dataset[()] for name, dataset in file.items()}


def write(path: Path, fingerprint: str, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays under a temporary name, then rename; a folder that takes no files is only a warning."""
    content = _content(fingerprint, arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"cache file {path} cannot be written, the next run parses again: {error}", stacklevel=2)


def _content(fingerprint: str, arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a cache file, made in memory: HDF5 itself does not survive a disk that is full."""
    h5py = import_optional("h5py", _PURPOSE)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=_HEAD_BYTES) as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array)
    digest = hashlib.sha256(buffer.getbuffer()[_HEAD_BYTES:]).hexdigest()
    buffer.seek(0)
    buffer.write(f"{digest}\n{fingerprint}".encode().ljust(_HEAD_BYTES, b"\0"))
    return buffer.getvalue()
