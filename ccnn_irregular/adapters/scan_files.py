"""Which files and folders are scans, by their names or their first bytes; nothing else is read."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ITK", "NIFTI", "SCANS", "is_dicom", "is_scan", "scan_files", "scan_name"]

SCANS = (
    "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), OME-Zarr (.zarr) or a folder of DICOM slices"
)
"""The formats, for messages."""

NIFTI, ITK = (".nii.gz", ".nii"), (".nrrd", ".nhdr", ".mha", ".mhd")
"""Suffixes of the formats that nibabel and SimpleITK read."""

_SUFFIXES = (*NIFTI, *ITK, ".ome.zarr", ".zarr", ".dcm")


def scan_name(path: Path) -> str:
    """The name of a scan without its suffix."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def is_scan(path: Path) -> bool:
    """Whether a file or folder looks like a scan, by its name, or by a DICOM file in it."""
    if path.name.startswith("."):  # macOS leaves such files beside the others in archives
        return False
    if path.is_dir():
        return path.name.endswith(".zarr") or any(is_dicom(file) for file in path.iterdir())
    return path.name.endswith((*NIFTI, *ITK)) or is_dicom(path)


def scan_files(folder: Path) -> list[Path]:
    """The scans in a folder by name, of any format; each series of DICOM slices in a folder of its own."""
    return sorted(path for path in folder.iterdir() if is_scan(path))


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    if path.is_dir() or path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
