"""PCD as text, binary and compressed, by pypcd4."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular._files import parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.cloud_files.cloud_file import CloudFile, Columns, extended, fields_of, with_columns

__all__ = ["open_pcd"]

_AXES = ("x", "y", "z")
# Fields that hold three bytes of colour in one number -> how far each byte is shifted.
_PACKED = ("rgb", "rgba")
_SHIFTS = {"red": 16, "green": 8, "blue": 0}


def open_pcd(path: Path) -> CloudFile:
    """A PCD file, organised or not; the field ``rgb`` gives ``red``, ``green`` and ``blue``."""
    pypcd4 = import_optional("pypcd4", f"reading {path.name}", "formats")
    with parsing(path, ".pcd file"):
        cloud = pypcd4.PointCloud.from_path(path)
        table, about = np.atleast_1d(cloud.pc_data), cloud.metadata
        names = [name for name, count in zip(about.fields, about.count, strict=True) if count == 1]
    require(set(_AXES) <= set(names), f"{path}", f"have the fields {', '.join(_AXES)}", about.fields)
    require(len(table) == about.points, f"{path}", f"hold {about.points} points as its header says", len(table))
    fields = fields_of(names, lambda name: table[name], (*_AXES, *_PACKED))
    for name in set(_PACKED) & set(names):
        for colour, shift in _SHIFTS.items():
            fields[colour] = lambda name=name, shift=shift: _byte(table[name], shift)  # type: ignore[misc]

    def copy(stream: BinaryIO, columns: Columns, note: str) -> None:
        kinds = [pypcd4.pypcd4.NUMPY_TYPE_TO_PCD_TYPE[values.dtype] for values in columns.values()]
        metadata = about.derive(
            fields=(*about.fields, *columns),
            type=(*about.type, *(kind for kind, _ in kinds)),
            size=(*about.size, *(size for _, size in kinds)),
            count=(*about.count, *(1 for _ in kinds)),
        )
        if about.data == pypcd4.Encoding.ASCII:  # pypcd4 would write ten digits after the point: packed colours are 0
            stream.write(metadata.compose_header().encode() + _lengthened(path, columns))
        else:
            pypcd4.PointCloud(metadata, extended(table, columns)).save(stream, about.data)

    return CloudFile(
        path=path,
        coordinates=np.stack([table[axis].astype(np.float64) for axis in _AXES], axis=1),
        fields=fields,
        copy=copy,
        copy_name=path.name,
    )


def _lengthened(path: Path, columns: Columns) -> bytes:
    """The lines of points of a text file, as they are, with columns added."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("DATA")) + 1
    return with_columns([line for line in lines[first:] if line.strip()], columns, " ")


def _byte(packed: NDArray[Any], shift: int) -> NDArray[np.uint8]:
    bits = np.ascontiguousarray(packed).view(np.uint32)
    return ((bits >> shift) & 255).astype(np.uint8)
