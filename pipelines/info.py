"""``ccnn info``: versions, devices, compiler, engines, and which optional readers are there or what they need."""

from __future__ import annotations

import platform
from argparse import ArgumentParser
from importlib import metadata
from importlib.util import find_spec

__all__ = ["run"]

_MAIN = ("torch", "numpy", "scipy", "xarray", "torch-geometric", "pykeops", "h5py")
# What each optional package reads or does: its name for import, and the extra that installs it.
_OPTIONAL = {
    "lightning": ("lightning", "train", "fit, test and predict"),
    "matplotlib": ("matplotlib", "plots", "figures"),
    "nibabel": ("nibabel", "files", "NIfTI scans"),
    "h5netcdf": ("h5netcdf", "files", "netCDF"),
    "zarr": ("zarr", "files", "zarr, OME-Zarr"),
    "dask": ("dask", "files", "cubes larger than memory"),
    "cf-xarray": ("cf_xarray", "files", "axes by CF conventions"),
    "sktime": ("sktime", "files", ".ts series"),
    "pooch": ("pooch", "files", "downloads of official files"),
    "pyarrow": ("pyarrow", "formats", "Parquet tables"),
    "laspy": ("laspy", "formats", "LAS, LAZ and COPC clouds"),
    "plyfile": ("plyfile", "formats", "PLY clouds"),
    "pypcd4": ("pypcd4", "formats", "PCD clouds"),
    "pydicom": ("pydicom", "formats", "DICOM series"),
    "SimpleITK": ("SimpleITK", "formats", "NRRD and MHA scans"),
    "cfgrib": ("cfgrib", "formats", "GRIB cubes"),
    "onnx": ("onnx", "export", "export as ONNX"),
    "onnxscript": ("onnxscript", "export", "export as ONNX"),
    "onnxruntime": ("onnxruntime", "export", "times of exported networks"),
    "wfdb": ("wfdb", "formats", "WFDB records"),
}


def run(arguments: list[str]) -> None:
    """Print a line for each."""
    parser = ArgumentParser(prog="ccnn info", allow_abbrev=False, description="what is installed here, and what lacks")
    parser.parse_args(arguments)
    import torch

    from ccnn_irregular import ENGINES, __version__
    from ccnn_irregular.operators.engines.keops import compiler

    versions = {name: _version(name) for name in _MAIN}
    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    lines = {
        "ccnn_irregular": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: version or "missing: pip install ccnn-irregular" for name, version in versions.items()},
        "devices": ", ".join([f"cpu ({torch.get_num_threads()} threads)", *cards]),
        "compiler": compiler() or "none: engine keops sums in blocks (apt install g++, or set CXX)",
        "engines": ", ".join(ENGINES),
    }
    for name, (module, extra, purpose) in _OPTIONAL.items():
        found = _version(name) if find_spec(module) else None
        lines[name] = f"{found or f'missing: pip install {chr(39)}ccnn-irregular[{extra}]{chr(39)}'}  ({purpose})"
    margin = max(map(len, lines)) + 2
    for name, text in lines.items():
        print(f"{name:<{margin}}{text}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
