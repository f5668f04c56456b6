"""What all CSV files have in common: UTF-8, perhaps compressed, one of the usual delimiters."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from ccnn_irregular._files import DamagedFileError

__all__ = ["ENCODING", "csv_layout", "delimiter", "in_utf8", "open_text"]

ENCODING = "utf-8-sig"  # a mark of the byte order, as Excel writes it, is no letter of the first name
_DELIMITERS = ",;\t|"
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SHOWN = 20  # bytes on either side of the first wrong one


def open_text(path: Path) -> TextIO:
    """A text file, compressed where its name ends in ``.gz``."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    return cast("TextIO", opened(path, "rt", encoding=ENCODING, newline=""))


def delimiter(path: Path) -> str:
    """The one of the usual delimiters that the head of the table holds most often."""
    with open_text(path) as file:
        head = file.readline()
    return max(_DELIMITERS, key=head.count)


def csv_layout(path: Path) -> dict[str, Any]:
    """Arguments of ``pandas.read_csv`` for a table in UTF-8."""
    return {"sep": delimiter(path), "encoding": ENCODING, "skipinitialspace": True}


@contextmanager
def in_utf8(path: Path) -> Iterator[None]:
    """Refuse a file in another encoding than UTF-8 that is read inside, with what to type.

    Raises:
        DamagedFileError: such a file, with a piece of it as its program wrote it, probably.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        start = error.object[:2] if error.start < 2 else b""
        encoding = _MARKS.get(start, "windows-1252")
        piece = error.object[max(error.start - _SHOWN, 0) : error.end + _SHOWN]
        found = f"bytes of another encoding, probably {encoding}"
        if encoding == "windows-1252":
            before, after = piece[: min(error.start, _SHOWN)], piece[min(error.start, _SHOWN) :]
            words = (before.decode(encoding, "replace"), after.decode(encoding, "replace"))
            shown = re.split(r"[\r\n]", words[0])[-1] + re.split(r"[\r\n]", words[1])[0]
            found += f", in which it holds {shown!r}"
        rule = f"be text in UTF-8 (iconv -f {encoding} -t utf-8 {path} > NEW{path.suffix}, or save it as CSV UTF-8)"
        raise DamagedFileError(f"{path} must {rule}, got {found}", path) from error
