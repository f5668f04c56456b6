"""LAS, LAZ and COPC, by laspy and lazrs."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ccnn_irregular._files import parsing, refuse_file, require_unfolds
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.cloud_files.cloud_file import CloudFile, Columns, fields_of

__all__ = ["open_las"]

# The records that say where a COPC file has which point: they do not hold for a copy.
_COPC = "copc"
# Bytes of a header of version 1.4, and of what stands before the content of a record and of a long one.
_HEADER, _RECORD_HEAD, _LONG_RECORD_HEAD = 375, 54, 60
_SMALLEST_CHUNK = 20  # bytes: its first point is stored as it is
# Bytes of points from which on their number is compared with the size of the file: a damaged one takes long to unpack.
_LARGE = 2**26
_RECORD = ("ccnn_irregular", 1)


def _require_records(path: Path, what: str, size: int) -> None:
    """Refuse a file that has no room for the records its header counts, each of which laspy would look for."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER)
    with parsing(path, what):
        (start, points, count), extended = struct.unpack_from("<HII", head, 94), (0, 0)
        if head[24:26] >= b"\x01\x04":
            extended = struct.unpack_from("<QI", head, 235)
    told = max(start + count * _RECORD_HEAD, extended[0] + extended[1] * _LONG_RECORD_HEAD)
    if told > size or points > size:
        refuse_file(path, f"be a complete {what}", f"{size:,} bytes for what its header counts")


def _require_chunks(path: Path, what: str, size: int, points: int) -> None:
    """Refuse a table of more chunks than the file has room for: lazrs ends the process out of memory."""
    with parsing(path, what), path.open("rb") as stream:
        stream.seek(points)
        (table,) = struct.unpack("<q", stream.read(8))
        if table == -1:  # written to a pipe: the place of the table is told at the end
            stream.seek(-8, 2)
            (table,) = struct.unpack("<q", stream.read(8))
        stream.seek(table)
        _, count = struct.unpack("<II", stream.read(8))
    if count * _SMALLEST_CHUNK > size:
        refuse_file(path, f"be a complete {what}", f"{size:,} bytes for {count:,} chunks")


def open_las(path: Path) -> CloudFile:
    """A LAS or LAZ file; its integers are multiplied by the scale and moved by the offset in float64."""
    laspy = import_optional("laspy", f"reading {path.name}", "formats")
    what, size = f"{path.suffix} file", path.stat().st_size
    _require_records(path, what, size)
    with parsing(path, what), laspy.open(path) as opened:
        about = opened.header
        told = about.point_count * about.point_format.size
    if not about.are_points_compressed and about.offset_to_point_data + told > size:
        refuse_file(path, f"be a complete {what}", f"{size:,} bytes for {about.point_count:,} points")
    require_unfolds(path, size, told, what, _LARGE)
    if about.are_points_compressed and about.point_count:
        _require_chunks(path, what, size, about.offset_to_point_data)
    with parsing(path, what):
        las = laspy.read(path)
        coordinates = np.ascontiguousarray(las.xyz, dtype=np.float64)
    names = [dimension.name for dimension in las.point_format.dimensions if dimension.num_elements == 1]

    def copy(stream: BinaryIO, columns: Columns, note: str) -> None:
        las.add_extra_dims([laspy.ExtraBytesParams(name, values.dtype) for name, values in columns.items()])
        for name, values in columns.items():
            las[name] = values
        kept = [record for record in las.header.vlrs if record.user_id != _COPC]
        las.header.vlrs = [*kept, laspy.VLR(*_RECORD, "written by", note.encode())]
        if las.header.evlrs is not None:
            las.header.evlrs = [record for record in las.header.evlrs if record.user_id != _COPC]
        las.write(stream, do_compress=las.header.are_points_compressed)

    return CloudFile(
        path=path,
        coordinates=coordinates,
        fields=fields_of(names, lambda name: las[name], ("X", "Y", "Z")),
        copy=copy,
        copy_name=path.name.replace(".copc.", "."),
    )
