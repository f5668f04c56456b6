"""Every reader with a small valid input, made by the writers of its own tests; the fuzzer spoils copies of it."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pandas as pd
import plyfile
import pypcd4
import SimpleITK as sitk
import torch
import yaml
from PIL import Image
from test_adapters_grib import write as write_grib
from test_adapters_scans import VALUES, write_ome, write_series
from test_adapters_xarray_files import write as write_cube
from test_datasets_argo import written as write_argo
from test_datasets_audio import ramp, wav
from test_datasets_character_trajectories import write_mat
from test_datasets_cloud_files import PLACES, write_copc, write_las
from test_datasets_decathlon import save_decathlon
from test_datasets_ghcnm import inventory_line, line
from test_datasets_ghcnm import written as write_ghcn
from test_datasets_images import write_mnist
from test_datasets_physionet2012 import entry, record, write_archive, write_set
from test_datasets_stations import table as stations_table
from test_datasets_tables import write_meds
from test_datasets_ts_files import write as write_ts
from test_pipelines_series_sources import write_records, write_stays

from ccnn_irregular.adapters.nifti import read_hdf5, read_nifti
from ccnn_irregular.adapters.scans import read_scan
from ccnn_irregular.adapters.xarray_files import open_cube
from ccnn_irregular.datasets import (
    argo,
    character_trajectories,
    ghcnm,
    image_folder,
    lidar_ground,
    mnist,
    physionet2012,
    stations,
    tables,
    ts_files,
)
from ccnn_irregular.datasets.cloud_files import open_cloud
from ccnn_irregular.datasets.decathlon import find_pairs, read_volume
from ccnn_irregular.datasets.processing.audio import read_wave
from ccnn_irregular.datasets.processing.meshes import read_off
from ccnn_irregular.datasets.reading.archive import read_archive, read_members
from ccnn_irregular.datasets.reading.label_table import read_labels
from ccnn_irregular.pipelines.train.arguments import Words
from ccnn_irregular.pipelines.train.checkpoint import read_checkpoint, save_checkpoint
from ccnn_irregular.pipelines.train.run_folder import RunFolder

__all__ = ["READERS", "Reader"]


class Reader(NamedTuple):
    """A reader.

    Attributes:
        make: writes a valid input into an empty folder; the path that the reader is given.
        read: reads it, values too.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]


def _cube(kind: str) -> Callable[[Path], Path]:
    return lambda folder: write_cube(folder, kind)


def _load(path: Path) -> None:
    with open_cube(path) as dataset:
        dataset.load()


def _grib(folder: Path) -> Path:
    return write_grib(folder / "t.grib", [{"shortName": "t", "level": 500, "dataDate": 20200101, "stepRange": 0}])


def _nifti(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        nibabel.save(nibabel.Nifti1Image(VALUES, np.diag([1.0, 2.0, 3.0, 1.0])), folder / name)
        return folder / name

    return make


def _hdf5(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "raw.h5", "w") as file:
        stored = file.create_dataset("volume", data=VALUES, chunks=(3, 5, 4), compression="gzip")
        stored.attrs["element_size_mm"] = [1.0, 1.0, 2.0]
    return folder / "raw.h5"


def _itk(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        image = sitk.GetImageFromArray(VALUES.T)
        image.SetSpacing((0.5, 1.0, 2.0))
        sitk.WriteImage(image, str(folder / name), useCompression=name.endswith("nrrd"))
        return folder / name

    return make


def _slices(folder: Path) -> Path:
    return write_series(folder / "slices", [(0.0, 0.0, 2.0 * number) for number in range(3)])


def _las(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_las(folder / name)
        return folder / name

    return make


def _copc(folder: Path) -> Path:
    write_copc(folder / "tile.copc.laz")
    (folder / "plain.laz").unlink()
    return folder / "tile.copc.laz"


def _ply(text: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        vertices = np.zeros(len(PLACES), [("x", "f8"), ("y", "f8"), ("z", "f8"), ("red", "u1")])
        vertices["x"], vertices["y"], vertices["z"] = PLACES.T
        plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")], text=text).write(str(folder / "mesh.ply"))
        return folder / "mesh.ply"

    return make


def _pcd(encoding: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        cloud = pypcd4.PointCloud.from_xyzi_points(np.c_[PLACES, PLACES[:, :1]].astype(np.float32))
        cloud.save(folder / "scan.pcd", pypcd4.Encoding[encoding])
        return folder / "scan.pcd"

    return make


def _table_of_points(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        frame = pd.DataFrame(PLACES, columns=["x", "y", "z"]).assign(kind="roof")
        frame.to_csv(folder / name, index=False)
        return folder / name

    return make


def _npz(folder: Path) -> Path:
    np.savez_compressed(folder / "cloud.npz", xyz=PLACES, intensity=np.arange(len(PLACES)))
    return folder / "cloud.npz"


def _isprs(folder: Path) -> Path:
    np.savetxt(folder / "samp.txt", np.c_[PLACES, np.arange(len(PLACES)) % 2], fmt="%.2f")
    return folder / "samp.txt"


def _series_table(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        count = 30
        frame = pd.DataFrame({"id": np.arange(count) // 5, "time": np.arange(count) % 5 * 1.0})
        frame = frame.assign(variable=np.where(frame["time"] % 2, "pulse", "Na"), value=np.linspace(1, 2, count))
        frame.to_parquet(folder / name) if name.endswith("parquet") else frame.to_csv(folder / name, index=False)
        return folder / name

    return make


def _meds(folder: Path) -> Path:
    root = write_meds(folder / "events")
    shutil.rmtree(root / "metadata")
    (root / "labels.parquet").unlink()
    return root


def _psv(folder: Path) -> Path:
    write_stays(folder / "stays", 1, labels=True)
    for path in sorted((folder / "stays").iterdir())[2:]:
        path.unlink()
    return folder / "stays"


def _wfdb(folder: Path) -> Path:
    write_records(folder / "records", 0)
    for path in sorted((folder / "records").iterdir())[2:]:
        path.unlink()
    return folder / "records"


def _ts(stamps: bool) -> Callable[[Path], Path]:
    rows = ["(1,2.5),(2,4):left", "(1,3),(3,5):right"] if stamps else ["1,2.5,3:left", "4,5,6:right"]
    return lambda folder: write_ts(folder / "strokes.ts", *rows, stamps=stamps)


def _wave(folder: Path) -> Path:
    (folder / "word.wav").write_bytes(wav(ramp(300)))
    return folder / "word.wav"


def _mat(folder: Path) -> Path:
    strokes = [np.random.default_rng(0).normal(size=(length, 3)) for length in (5, 3, 4)]
    write_mat(folder / "mixoutALL_shifted.mat", strokes)
    return folder


def _off(folder: Path) -> Path:
    text = "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
    (folder / "solid.off").write_text(text)
    return folder / "solid.off"


def _archive(folder: Path) -> Path:
    write_archive(folder / "files.tar.gz", [(entry("a/one.txt"), b"1" * 600), (entry("a/two.txt"), b"22")])
    return folder / "files.tar.gz"


def _images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    return write_mnist(folder, rng.integers(0, 256, (3, 28, 28), np.uint8), np.array([3, 0, 9], np.uint8))


def _picture(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for kind in ("roof", "road"):
            (folder / kind).mkdir()
            pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / kind / name)
        return folder / "roof" / name

    return make


def _stays_2012(folder: Path) -> Path:
    texts = {number: record(number, "01:00,HR,80\n02:30,Temp,36.6\n") for number in (132539, 132540)}
    return write_set(folder / "challenge", texts)  # type: ignore[arg-type]


def _monthly(folder: Path) -> Path:
    return write_ghcn(folder, [line(year, [100] * 12) for year in range(1990, 2002)], [inventory_line()])


def _station_table(folder: Path) -> Path:
    stations_table().to_csv(folder / "stations.csv", index=False)
    return folder / "stations.csv"


def _labels(folder: Path) -> Path:
    (folder / "labels.csv").write_text("file,label\na.nii,ill\nb.nii,well\n")
    for name in ("a.nii", "b.nii"):
        (folder / name).touch()
    return folder / "labels.csv"


def _pairs(folder: Path) -> Path:
    save_decathlon(folder)
    return folder


def _read_pairs(folder: Path) -> None:
    found = find_pairs(folder)
    read_volume(found.pairs[0], range(3))


def _checkpoint(folder: Path) -> Path:
    save_checkpoint({"state_dict": {"weight": torch.ones(8, 8)}, "epoch": 3}, folder / "best.ckpt")
    return folder / "best.ckpt"


def _run(folder: Path) -> Path:
    options = {"task": "series", "trainer": {"max_epochs": 3}, "data": {"table": "a.csv", "columns": ["x", "y"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    end = {"by": "max_epochs", "why": "all 3 epochs are done", "finished": True}
    (folder / "summary.json").write_text(json.dumps({"end": end, "epochs": 3}))
    return folder


def _read_run(folder: Path) -> None:
    run = RunFolder(folder)
    run.require_same(run.saved_config() or {})
    run.end()
    Words.of(["fit", "--config", str(run.config)]).with_options_of_run()


READERS: dict[str, Reader] = {
    "netCDF classic": Reader(_cube("classic"), _load),
    "netCDF-4": Reader(_cube("hdf5"), _load),
    "zarr": Reader(_cube("zarr"), _load),
    "Argo": Reader(lambda folder: write_argo(folder / "1_prof.nc"), argo.load),
    "GRIB": Reader(_grib, _load),
    "NIfTI": Reader(_nifti("head.nii"), read_nifti),
    "NIfTI, packed": Reader(_nifti("head.nii.gz"), read_nifti),
    "HDF5": Reader(_hdf5, lambda path: read_hdf5(path, "volume")),
    "NRRD": Reader(_itk("head.nrrd"), read_scan),
    "MetaImage": Reader(_itk("head.mha"), read_scan),
    "OME-Zarr": Reader(lambda folder: write_ome(folder / "cells.ome.zarr", "0.5"), read_scan),
    "DICOM": Reader(_slices, read_scan),
    "pairs of scans": Reader(_pairs, _read_pairs),
    "LAS": Reader(_las("tile.las"), open_cloud),
    "LAZ": Reader(_las("tile.laz"), open_cloud),
    "COPC": Reader(_copc, open_cloud),
    "PLY": Reader(_ply(False), open_cloud),
    "PLY, text": Reader(_ply(True), open_cloud),
    "PCD, text": Reader(_pcd("ASCII"), open_cloud),
    "PCD": Reader(_pcd("BINARY"), open_cloud),
    "PCD, packed": Reader(_pcd("BINARY_COMPRESSED"), open_cloud),
    "points in CSV": Reader(_table_of_points("points.csv"), open_cloud),
    "points in CSV, packed": Reader(_table_of_points("points.csv.gz"), open_cloud),
    "npz": Reader(_npz, open_cloud),
    "ISPRS": Reader(_isprs, lidar_ground.load_tile),
    "OFF": Reader(_off, read_off),
    "CSV": Reader(_series_table("stays.csv"), tables.read),
    "CSV, packed": Reader(_series_table("stays.csv.gz"), tables.read),
    "Parquet": Reader(_series_table("stays.parquet"), tables.read),
    "MEDS": Reader(_meds, lambda path: tables.read(path, source="meds")),
    "psv": Reader(_psv, lambda path: tables.read(path, source="psv")),
    "WFDB": Reader(_wfdb, lambda path: tables.read(path, source="wfdb")),
    "ts": Reader(_ts(False), ts_files.load),
    "ts with stamps": Reader(_ts(True), ts_files.load),
    "stays of 2012": Reader(_stays_2012, lambda path: physionet2012.load(path, cache=False, progress=False)),
    "wave": Reader(_wave, lambda path: read_wave(path.name, path.read_bytes(), 8000)),
    "mat": Reader(_mat, character_trajectories.load),
    "tar.gz": Reader(_archive, read_archive),
    "tar.gz, a part": Reader(_archive, lambda path: read_members(path, lambda name: True)),
    "MNIST": Reader(_images, lambda path: mnist.load(path, "test")),
    "PNG": Reader(_picture("one.png"), lambda path: image_folder.load(path.parent.parent)),
    "JPEG": Reader(_picture("one.jpg"), lambda path: image_folder.load(path.parent.parent)),
    "GHCN": Reader(_monthly, ghcnm.load_fields),
    "stations": Reader(_station_table, stations.load),
    "labels": Reader(_labels, lambda path: read_labels(path.parent, path.name, Path.is_file, "a file")),
    "checkpoint": Reader(_checkpoint, read_checkpoint),
    "run folder": Reader(_run, _read_run),
}


def repacked(path: Path, change: Callable[[bytes], bytes]) -> bool:
    """Change what a packed file holds, with right checksums; False where it is none, or is spoiled already."""
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            path.write_bytes(gzip.compress(change(gzip.decompress(content)), 1, mtime=0))
            return True
        if content[:4] != b"PK\x03\x04":
            return False
        with zipfile.ZipFile(path) as archive:
            entries = [(one, archive.read(one)) for one in archive.infolist()]
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, UnicodeDecodeError):
        return False
    with zipfile.ZipFile(path, "w") as archive:
        for place, (one, inner) in enumerate(entries):
            archive.writestr(one, change(inner) if place == 0 else inner)
    return True
