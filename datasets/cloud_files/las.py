"""LAS, LAZ and COPC, by laspy and lazrs."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ccnn_irregular._files import parsing, refuse_file, require_unfolds
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.cloud_files.cloud_file import CloudFile, Columns, fields_of

__all__ = ["open_las"]

# The records that say where a COPC file has which point: they do not hold for a copy.
_COPC = "copc"
# Bytes of points from which on their number is compared with the size of the file: a damaged one takes long to unpack.
_LARGE = 2**26
_RECORD = ("ccnn_irregular", 1)


def open_las(path: Path) -> CloudFile:
    """A LAS or LAZ file; its integers are multiplied by the scale and moved by the offset in float64."""
    laspy = import_optional("laspy", f"reading {path.name}", "formats")
    what, size = f"{path.suffix} file", path.stat().st_size
    with parsing(path, what), laspy.open(path) as opened:
        about = opened.header
        told = about.point_count * about.point_format.size
    if not about.are_points_compressed and about.offset_to_point_data + told > size:
        refuse_file(path, f"be a complete {what}", f"{size:,} bytes for {about.point_count:,} points")
    require_unfolds(path, size, told, what, _LARGE)
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
