"""PLY, by plyfile: the element "vertex"."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ccnn_irregular._checks import require
from ccnn_irregular._files import parsing
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.cloud_files.cloud_file import CloudFile, Columns, extended, fields_of

__all__ = ["open_ply"]

_AXES = ("x", "y", "z")


def open_ply(path: Path) -> CloudFile:
    """The vertices of a PLY file, text or binary; faces and other elements go into a copy as they are."""
    plyfile = import_optional("plyfile", f"reading {path.name}", "formats")
    with parsing(path, ".ply file"):
        ply = plyfile.PlyData.read(str(path), mmap=False)
    require("vertex" in ply, f"{path}", "have an element 'vertex'", [element.name for element in ply.elements])
    vertex = ply["vertex"]
    lists = [field.name for field in vertex.properties if isinstance(field, plyfile.PlyListProperty)]
    names = [field.name for field in vertex.properties if field.name not in lists]
    require(set(_AXES) <= set(names), f"vertices of {path}", f"have {', '.join(_AXES)}", names)

    def copy(stream: BinaryIO, columns: Columns, note: str) -> None:
        added = [plyfile.PlyProperty(name, values.dtype.str[1:]) for name, values in columns.items()]
        vertices = plyfile.PlyElement("vertex", vertex.properties + tuple(added), vertex.count, vertex.comments)
        vertices.data = extended(vertex.data, columns)
        elements = [vertices if element.name == "vertex" else element for element in ply.elements]
        comments = [*ply.comments, note]
        plyfile.PlyData(elements, ply.text, ply.byte_order, comments, ply.obj_info).write(stream)

    return CloudFile(
        path=path,
        coordinates=np.stack([np.asarray(vertex[axis], dtype=np.float64) for axis in _AXES], axis=1),
        fields=fields_of(names, lambda name: vertex[name], _AXES),
        copy=copy,
        copy_name=path.name,
    )
