"""Point clouds in the files that scanners and programs write: LAS, LAZ, COPC, PLY, PCD, tables and ``.npz``.

:func:`open_cloud` reads a file by the end of its name; the :class:`CloudFile` it returns holds the coordinates, gives
the further fields by name, and saves a copy with fields of your own added.
"""

from ccnn_irregular.datasets.cloud_files.cloud_file import ASPRS, CloudFile
from ccnn_irregular.datasets.cloud_files.formats import SUFFIXES, cloud_paths, open_cloud, stray_paths

__all__ = ["ASPRS", "SUFFIXES", "CloudFile", "cloud_paths", "open_cloud", "stray_paths"]
