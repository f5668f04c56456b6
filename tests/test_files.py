"""Files that are not what they claim, and small ones that unfold to much: refused before they do, by one error."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

from ccnn_irregular import _files
from ccnn_irregular._files import DamagedFileError, naming, parsing, read_apart
from ccnn_irregular.adapters.nifti import read_hdf5, read_nifti
from ccnn_irregular.datasets.reading.files import read_gzip, read_npz
from ccnn_irregular.pipelines.train.earlier import read_config
from ccnn_irregular.pipelines.train.run_folder import RunFolder
from ccnn_irregular.pipelines.train.texts import read_json, read_yaml


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unfolding to 10 kB is much."""
    monkeypatch.setattr(_files, "LARGE", 10_000)


def test_what_a_library_raises_becomes_one_error_with_the_name() -> None:
    for error in (RuntimeError("odd"), KeyError("x"), MemoryError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")):
        message = r"a\.nc must be a complete netCDF file, got a damaged one"
        with pytest.raises(DamagedFileError, match=message) as caught, parsing("a.nc", "netCDF file"):
            raise error
        assert caught.value.path == Path("a.nc")
        assert caught.value.__cause__ is error
        again = pickle.loads(pickle.dumps(caught.value))  # as from a worker process
        assert (str(again), again.path) == (str(caught.value), caught.value.path)


def test_what_is_no_damage_stays_what_it_is(tmp_path: Path) -> None:
    for error in (ImportError("no package"), PermissionError(13, "denied"), FileNotFoundError(2, "gone")):
        with pytest.raises(type(error)), parsing(tmp_path / "nothing.nc", "netCDF file"):
            raise error
    for error in (KeyboardInterrupt(), SystemExit(2)):
        with pytest.raises(type(error)), parsing("a.nc", "netCDF file"):
            raise error
    with pytest.raises(DamagedFileError, match="FileNotFoundError"), parsing(tmp_path, "zarr store"):
        raise FileNotFoundError("an array of the store")


def test_errors_about_contents_get_the_name_once() -> None:
    with pytest.raises(ValueError, match=r"^a\.csv: column 'x' must rise$"), naming("a.csv"):
        raise ValueError("column 'x' must rise")
    with pytest.raises(ValueError, match=r"^a\.csv must rise$"), naming("folder/a.csv"):
        raise ValueError("a.csv must rise")


def test_a_packed_array_that_unfolds_to_much_is_refused_before_it_does(
    small_limits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", xyz=np.zeros((9000, 3)), few=np.zeros(3))
    assert read_npz(tmp_path / "a.npz", ["few"])["few"].shape == (3,)  # what is not read does not count
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(DamagedFileError, match=r"a\.npz must be a \.npz file that unfolds to 10,000 bytes or to 100 t"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(10**13,), (10**6, 10**6), (2,)])
def test_an_array_of_another_shape_than_its_bytes_is_refused_before_room_is_made(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("xyz.npy", stream.getvalue() + bytes(24))
    with pytest.raises(DamagedFileError, match=r"a\.npz must be a complete .* in 24 bytes"):
        read_npz(tmp_path / "a.npz", ["xyz"])


def test_packed_texts_and_volumes_that_unfold_to_much_are_refused(small_limits: None, tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(200_000)))
    with pytest.raises(DamagedFileError, match=r"a\.gz must be a gzip file that unfolds to"):
        read_gzip(tmp_path / "a.gz")
    values = np.zeros((60, 60, 60), np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(DamagedFileError, match=r"a\.nii\.gz must be a NIfTI file that unfolds to"):
        read_nifti(tmp_path / "a.nii.gz")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("volume", (10**6, 10**6, 10**6), "f4", chunks=(10, 10, 10))
    with pytest.raises(DamagedFileError, match=r"a\.h5 must be a HDF5 file that unfolds to"):
        read_hdf5(tmp_path / "a.h5", "volume", spacing=(1, 1, 1))


def test_what_is_not_packed_may_be_large(small_limits: None, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", xyz=np.zeros((9000, 3)))
    assert read_npz(tmp_path / "a.npz")["xyz"].shape == (9000, 3)
    random = np.random.default_rng(0).integers(0, 9, (60, 60, 60)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(random, np.eye(4)), tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz").shape == (60, 60, 60)


def test_aliases_of_yaml_that_unfold_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 6)]
    (tmp_path / "own.yaml").write_text("\n".join(lines))
    with pytest.raises(DamagedFileError, match=r"own\.yaml must hold 100,000 entries at most with its aliases"):
        read_yaml(tmp_path / "own.yaml")
    (tmp_path / "own.yaml").write_text("a: &a [*a]")
    with pytest.raises(DamagedFileError, match="got inf"):
        read_yaml(tmp_path / "own.yaml")
    (tmp_path / "own.yaml").write_text("a: &a [1, 2]\nb: *a\n")
    assert read_yaml(tmp_path / "own.yaml") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    "text", ["[1, 2", "- 1\n- 2\n", "data: 3", "trainer: [1]", "model: {network: 3}\ndata: {dataset: [1]}", "a: \x08"]
)
def test_configurations_of_another_form_are_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(DamagedFileError, match=r"own\.yaml must"):
        read_config(tmp_path / "own.yaml")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'{"end": 3}', b'{"end": {"by": "x"}}'])
def test_ends_of_runs_of_another_form_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.summary.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"summary\.json must"):
        run.end()
    run.summary.write_text('{"end": {"by": "max_epochs", "why": "all", "finished": true}}')
    end: Any = run.end()
    assert end["finished"] is True
    assert read_json(run.summary)["end"] == end


def test_what_ends_or_hangs_its_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_apart("a.mat", ".mat file", "import sys; sys.stdout.buffer.write(sys.argv[1].encode())") == b"a.mat"
    with pytest.raises(DamagedFileError, match=r"a\.mat must be a complete .*: its library ended"):
        read_apart("a.mat", ".mat file", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(DamagedFileError, match="got a damaged one: ValueError: odd"):
        read_apart("a.mat", ".mat file", "raise ValueError('odd')")
    monkeypatch.setattr(_files, "LONGEST", 0.5)
    with pytest.raises(DamagedFileError, match=r"not read within 0\.5 seconds"):
        read_apart("a.mat", ".mat file", "import time; time.sleep(60)")
