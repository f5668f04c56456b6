"""Numbers that tell one sample from another by its content, whatever its file is called and wherever it stands in it.

A key is 64 bits of a sum of mixed words: equal contents have equal keys, and two of a hundred thousand samples that
differ share one with a probability of about one in a billion. Nothing is visited sample by sample.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["ragged_keys", "row_keys", "text_keys"]

Keys = NDArray[np.uint64]

# Words that are held at once: 32 MB, and two arrays of that size beside them.
_WORDS_AT_ONCE = 4_000_000


def row_keys(*columns: NDArray) -> Keys:
    """One key for each row, of all its values in their order.

    Args:
        columns: ``(B, ...)`` each; numbers of any dtype. All nan are alike, and so are both zeros.

    Returns:
        ``(B,)`` uint64.
    """
    flat = [column.reshape(len(column), math.prod(column.shape[1:])) for column in columns]
    width = sum(column.shape[1] for column in flat)
    factors = _mixed(np.arange(1, width + 1, dtype=np.uint64)) | np.uint64(1)
    rows, keys = len(flat[0]), np.empty(len(flat[0]), np.uint64)
    at_once = max(1, _WORDS_AT_ONCE // max(width, 1))
    for first in range(0, rows, at_once):
        part, total = slice(first, first + at_once), np.uint64(width)
        start = 0
        for column in flat:
            stop = start + column.shape[1]
            total = total + np.einsum("bk,k->b", _words(column[part]), factors[start:stop])
            start = stop
        keys[part] = total
    return _mixed(keys)


def ragged_keys(splits: NDArray[np.int64], *columns: NDArray) -> Keys:
    """One key for each sample of rows laid end to end, blind to the order of its rows.

    Where the order means something, a coordinate or a number is one of the columns.

    Args:
        splits: ``(B + 1,)`` int64; sample b owns the rows ``splits[b]:splits[b + 1]``, possibly none.
        columns: ``(N, ...)`` each.

    Returns:
        ``(B,)`` uint64.
    """
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(row_keys(*columns), dtype=np.uint64)])
    sums = before[splits[1:]] - before[splits[:-1]]  # modulo 2^64, as the running sum is
    return _mixed(sums + np.diff(splits).astype(np.uint64))


def text_keys(texts: Iterable[str]) -> Keys:
    """One key for each text, ``(B,)`` uint64."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _words(values: NDArray) -> Keys:
    """The bits of each value as a word whose low bits depend on the high ones: of round numbers these alone differ."""
    if values.dtype.kind == "f":
        values = values + values.dtype.type(0)  # there is one zero
        if np.isnan(values).any():
            values[np.isnan(values)] = np.nan
        values = values.view(f"u{values.itemsize}")
    elif values.dtype.kind != "u":
        values = values.astype(np.int64).view(np.uint64)
    half = values.dtype.type(4 * values.itemsize)
    return (values ^ (values >> half)).astype(np.uint64)


def _mixed(words: Keys) -> Keys:
    """Words whose every bit depends on all bits of the given ones (one to one)."""
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (29, 0xC4CEB9FE1A85EC53)):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words ^ (words >> np.uint64(32))
