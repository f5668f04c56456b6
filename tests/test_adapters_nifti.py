"""Medical volumes: millimetres, orientations, scale factors and affines there and back; damaged files are refused."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import xarray as xr

import ccnn_irregular.adapters.xarray  # noqa: F401  (registers the accessor)
from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel
from ccnn_irregular.adapters.nifti import affine_of, read_hdf5, read_nifti, write_nifti

SIZES = (7, 8, 5)
VALUES = np.random.default_rng(0).integers(0, 200, SIZES).astype(np.int16)


def rotation(degrees: float) -> np.ndarray:
    """About the x axis."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def affine(directions: np.ndarray, origin: tuple[float, float, float] = (-10.0, 20.0, -30.0)) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = directions, origin
    return result


STRAIGHT = affine(np.diag([-0.75, 0.75, 5.5]))
TURNED = affine(np.array([[0, 0, 1.0], [-2.0, 0, 0], [0, -0.5, 0]]))
OBLIQUE = affine(rotation(12) @ np.diag([-0.75, 0.75, 5.5]))


def write(path: Path, where: np.ndarray, values: np.ndarray = VALUES, **header: object) -> Path:
    image = nibabel.Nifti1Image(values, where)
    image.header.set_xyzt_units(header.get("space", "mm"), header.get("time"))
    if "scale" in header:
        image.header.set_slope_inter(*header["scale"])
    if values.ndim == 4:
        image.header["pixdim"][4] = 2.5
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("where", [STRAIGHT, TURNED], ids=["straight", "turned"])
def test_coordinates_are_the_scanners_where_the_axes_are(where: np.ndarray, tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii.gz", where))
    assert sorted(array.dims) == ["x", "y", "z"]
    np.testing.assert_array_equal(array.values, VALUES)
    assert array.dtype == np.int16
    for index in ((0, 0, 0), (6, 3, 2)):
        voxel = array[index]
        wanted = where @ [*index, 1]
        np.testing.assert_allclose([voxel[name] for name in "xyz"], wanted[:3], atol=1e-6)
    assert {array[name].attrs["units"] for name in "xyz"} == {"mm"}
    frame = array.ccnn.frame()
    assert frame.axes == ("z", "y", "x")  # whatever the orientation
    assert frame.units == ("mm", "mm", "mm")
    steps = [one.step for one in frame.factors]
    np.testing.assert_allclose(steps, [np.abs(where[row, :3]).max() for row in (2, 1, 0)], rtol=1e-6)


def test_oblique_axes_are_measured_along_themselves(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        array = read_nifti(write(tmp_path / "a.nii.gz", OBLIQUE))
    assert array.dims == ("i", "j", "k")
    np.testing.assert_allclose(array.i, 0.75 * np.arange(7), atol=1e-5)
    np.testing.assert_allclose(array.k, 5.5 * np.arange(5), atol=1e-5)
    first, second = (0, 0, 0), (3, 2, 4)
    along = [float(array[second][name] - array[first][name]) for name in "ijk"]
    apart = np.linalg.norm((OBLIQUE @ [*second, 1] - OBLIQUE @ [*first, 1])[:3])
    assert np.linalg.norm(along) == pytest.approx(apart, rel=1e-6)  # distances are as true
    assert array.ccnn.frame().axes == ("k", "j", "i")


def test_sheared_axes_are_announced(tmp_path: Path) -> None:
    shear = affine(np.array([[1.0, 0.1, 0], [0, 1, 0], [0, 0, 1]]))
    with pytest.warns(UserWarning, match=r"up to 5.7 degrees from perpendicular"):
        array = read_nifti(write(tmp_path / "a.nii.gz", shear))
    assert array.dims == ("i", "j", "k")
    write_nifti(array, tmp_path / "b.nii")
    np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii").affine, shear, atol=1e-6)


@pytest.mark.parametrize("where", [STRAIGHT, TURNED, OBLIQUE], ids=["straight", "turned", "oblique"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip_keeps_the_affine(where: np.ndarray, suffix: str, tmp_path: Path) -> None:
    source = nibabel.load(write(tmp_path / f"a{suffix}", where))
    array = read_nifti(tmp_path / f"a{suffix}")
    write_nifti(array.transpose(*reversed(array.dims)).astype(np.float32), tmp_path / f"b{suffix}")
    image = nibabel.load(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(image.affine, source.affine)
    np.testing.assert_allclose(image.get_qform(), source.get_qform(), atol=1e-5)
    assert image.header["sform_code"] == source.header["sform_code"]
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(image.get_fdata(), VALUES)
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.parametrize("where", [STRAIGHT, TURNED, OBLIQUE], ids=["straight", "turned", "oblique"])
def test_what_is_cut_out_stays_where_it_is(where: np.ndarray, tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii.gz", where))
    first, second, third = array.dims
    part = array.isel({first: slice(2, None), second: slice(None, None, -2), third: [3]})
    wanted = where @ [2 + 4, 7 - 2 * 2, 3, 1]
    np.testing.assert_allclose(affine_of(part) @ [4, 2, 0, 1], wanted, atol=1e-4)
    write_nifti(part, tmp_path / "b.nii.gz")
    again = read_nifti(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(again.values, part.values)


def test_scale_factors_are_applied(tmp_path: Path) -> None:
    raw = VALUES.astype(np.float64) * 0.5 - 3
    image = nibabel.Nifti1Image(raw, STRAIGHT)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    array = read_nifti(tmp_path / "a.nii.gz")
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, raw, atol=2e-3)
    assert array.encoding["stored_dtype"] == "int16"
    assert array.encoding["scl_slope"] > 0


def test_four_dimensions(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((*SIZES, 3)).astype(np.float32)
    timed = read_nifti(write(tmp_path / "a.nii.gz", STRAIGHT, values, time="sec"))
    assert timed.dims == ("x", "y", "z", "t")
    np.testing.assert_allclose(timed.t, [0, 2.5, 5])
    # A kernel has its times in the unit that the accessor is told, whatever that of the file is.
    for accessor, unit, length in ((timed.ccnn, "days", 86400), (timed.ccnn(time_unit="seconds"), "seconds", 1)):
        frame = accessor.frame()
        assert frame.axes == ("t", "z", "y", "x")
        assert frame.units == (unit, "mm", "mm", "mm")
        np.testing.assert_allclose(frame.factors[0].coordinates[:, 0], np.array([0, 2.5, 5]) / length)
    write_nifti(timed, tmp_path / "b.nii.gz")
    image = nibabel.load(tmp_path / "b.nii.gz")
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert image.header.get_zooms()[3] == pytest.approx(2.5)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), values)
    # Without a unit of time nobody knows what the fourth axis is: directions of diffusion, say.
    directions = read_nifti(write(tmp_path / "c.nii.gz", STRAIGHT, values))
    assert directions.dims == ("x", "y", "z", "volume")
    with pytest.raises(ValueError, match=r"dimension 'volume' must be an axis by its CF attributes, or be named"):
        directions.ccnn.frame()
    assert directions.ccnn(channels="volume").to_samples().values.shape == (1, 3, 5, 8, 7)


@pytest.mark.parametrize(("space", "factor"), [("meter", 1e3), ("micron", 1e-3), ("unknown", 1.0)])
def test_other_units_become_millimetres(space: str, factor: float, tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii.gz", STRAIGHT, space=space))
    assert float(array.z[1] - array.z[0]) == pytest.approx(5.5 * factor)
    np.testing.assert_allclose(affine_of(array)[:3], STRAIGHT[:3] * factor, rtol=1e-6)


def test_one_kernel_in_millimetres_on_two_orientations(tmp_path: Path) -> None:
    """The same anatomy stored in two orders and directions of the axes gives the same answer, voxel by voxel."""
    torch.manual_seed(0)
    kernel = Kernel(SIREN(3, 1, 8, omega_0=2.0), GaussianMask([6.0, 1.0, 1.0]), extent=[18.0, 3.0, 3.0])
    layer = ContinuousConv(kernel)
    first = read_nifti(write(tmp_path / "a.nii.gz", STRAIGHT))
    other = nibabel.load(tmp_path / "a.nii.gz").as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    nibabel.save(other, tmp_path / "b.nii.gz")
    second = read_nifti(tmp_path / "b.nii.gz")
    assert second.dims != first.dims
    one, two = first.ccnn.convolve(layer), second.ccnn.convolve(layer)
    write_nifti(two, tmp_path / "c.nii.gz")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "c.nii.gz").affine, other.affine)
    two = two.sortby(list("xyz")).transpose(*one.dims)
    one = one.sortby(list("xyz"))
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5 * float(np.abs(one).max()))
    assert float(one.std()) > 0


def test_labels_share_the_space_of_their_image(tmp_path: Path) -> None:
    image = read_nifti(write(tmp_path / "image.nii.gz", STRAIGHT))
    read_nifti(write(tmp_path / "labels.nii.gz", STRAIGHT), like=image)
    other = write(tmp_path / "cut.nii.gz", STRAIGHT, VALUES[:-1])
    with pytest.raises(ValueError, match=r"cut.nii.gz must have the shape of the image, \[7, 8, 5\], got \[6, 8, 5\]"):
        read_nifti(other, like=image)
    shifted = STRAIGHT.copy()
    shifted[0, 3] += 1
    moved = write(tmp_path / "moved.nii.gz", shifted)
    with pytest.raises(ValueError, match=r"must lie in the same space as the image.*, got affines 1 mm apart"):
        read_nifti(moved, like=image)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path must be a NIfTI file, got .* does not exist"):
        read_nifti(tmp_path / "nothing.nii")
    (tmp_path / "text.nii").write_text("no volume at all")
    with pytest.raises(ValueError, match=r"text.nii must be a complete NIfTI file, got"):
        read_nifti(tmp_path / "text.nii")
    path = write(tmp_path / "a.nii", STRAIGHT)
    (tmp_path / "short.nii").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"short.nii must be a complete NIfTI file, got"):
        read_nifti(tmp_path / "short.nii")
    packed = gzip.compress(path.read_bytes())
    (tmp_path / "short.nii.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"short.nii.gz must be a (complete )?NIfTI file, got"):
        read_nifti(tmp_path / "short.nii.gz")
    five = np.zeros((2, 2, 2, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r"must be a 3-D or 4-D volume, got 5-D data \(2, 2, 2, 2, 3\)"):
        read_nifti(write(tmp_path / "five.nii", STRAIGHT, five))
    with pytest.raises(ValueError, match=r"voxels of .* must be real numbers, got complex64"):
        read_nifti(write(tmp_path / "complex.nii", STRAIGHT, VALUES.astype(np.complex64)))
    nibabel.save(nibabel.MGHImage(VALUES.astype(np.float32), STRAIGHT), tmp_path / "a.mgz")
    with pytest.raises(ValueError, match=r"a.mgz must be a NIfTI file, got MGHImage"):
        read_nifti(tmp_path / "a.mgz")


@pytest.mark.parametrize(("value", "message"), [(0.0, "not be singular"), (np.nan, "be finite")])
def test_affines_that_are_none_are_refused(value: float, message: str, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, STRAIGHT)
    image.header["srow_x"], image.header["sform_code"] = [value] * 4, 1
    content = bytearray(image.to_bytes())
    content[280:296] = np.full(4, value, np.float32).tobytes()
    (tmp_path / "a.nii").write_bytes(bytes(content))
    with pytest.raises(ValueError, match=rf"affine of .*a.nii must {message}, got"):
        read_nifti(tmp_path / "a.nii")


def test_arrays_that_are_no_volumes_are_not_written(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", STRAIGHT))
    with pytest.raises(ValueError, match=r"path must end in one of \('.nii', '.nii.gz'\), got b.img"):
        write_nifti(array, tmp_path / "b.img")
    with pytest.raises(ValueError, match=r"attributes must hold 'affine', as after read_nifti, got \[\]"):
        write_nifti(array.drop_attrs(), tmp_path / "b.nii")
    write_nifti(array.drop_attrs(), tmp_path / "b.nii", like=array)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii").affine, STRAIGHT)
    with pytest.raises(ValueError, match=r"dimensions must be \['x', 'y', 'z'\] and one more at most, got \['y'"):
        write_nifti(array.isel(x=0), tmp_path / "c.nii")
    with pytest.raises(ValueError, match=r"coordinates must hold the voxel axes"):
        write_nifti(array.drop_vars("x"), tmp_path / "c.nii")
    with pytest.raises(ValueError, match=r"coordinate 'x' must be uniform, got gaps that differ"):
        write_nifti(array.isel(x=[0, 1, 4]), tmp_path / "c.nii")
    with pytest.raises(ValueError, match=r"array must be of a dtype that NIfTI viewers read.*, got int64"):
        write_nifti(array.astype(np.int64), tmp_path / "c.nii")
    write_nifti(array > 100, tmp_path / "mask.nii")
    assert nibabel.load(tmp_path / "mask.nii").get_data_dtype() == np.uint8
    assert not list(tmp_path.glob(".*")), "no temporary file is left behind"


def test_a_writing_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = read_nifti(write(tmp_path / "a.nii", STRAIGHT))
    before = (tmp_path / "a.nii").read_bytes()

    def fail(image: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(nibabel, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        write_nifti(array + 1, tmp_path / "a.nii", like=array)
    assert [one.name for one in tmp_path.iterdir()] == ["a.nii"]
    assert (tmp_path / "a.nii").read_bytes() == before


def test_hdf5_volumes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["volumes/raw"] = VALUES
        file["volumes/raw"].attrs["element_size_um"] = [2000.0, 500.0, 500.0]
        file["labels"] = VALUES > 100
        file["five"] = np.zeros((1, 1, 1, 1, 1))
        file["names"] = [b"a", b"b"]
    array = read_hdf5(path, "volumes/raw")
    assert array.dims == ("z", "y", "x")
    np.testing.assert_array_equal(array, VALUES)
    np.testing.assert_allclose(array.z, 2.0 * np.arange(7))
    assert array.ccnn.frame().units == ("mm", "mm", "mm")
    labels = read_hdf5(path, "labels", spacing=[1, 2, 3], dims=["x", "y", "z"])
    np.testing.assert_allclose(labels.z, 3.0 * np.arange(5))
    for dataset, options, message in (
        ("raw", {}, r"dataset must be one of \['five', 'labels', 'names', 'volumes/raw'\] in .*, got 'raw'"),
        ("labels", {}, r"spacing must be given where the dataset of .* has no attribute"),
        ("labels", {"spacing": [1, 2]}, r"spacing must be three positive numbers of millimetres, got \[1.0, 2.0\]"),
        ("labels", {"spacing": [1, 2, 0]}, r"spacing must be three positive numbers"),
        ("labels", {"spacing": [1, 2, 3], "dims": "xy"}, r"dims must name each of the 3 axes once"),
        ("five", {"spacing": [1, 2, 3]}, r"must be a 3-D or 4-D volume, got 5-D data"),
    ):
        with pytest.raises(ValueError, match=message):
            read_hdf5(path, dataset, **options)
    with h5py.File(tmp_path / "words.h5", "w") as file:
        file["words"] = np.full((1, 1, 1), b"a")
    with pytest.raises(ValueError, match=r"must hold numbers"):
        read_hdf5(tmp_path / "words.h5", "words")


def test_foreign_hdf5_files_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with pytest.raises(FileNotFoundError, match=r"path must be an HDF5 file, got .* does not exist"):
        read_hdf5(tmp_path / "nothing.h5", "raw")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=VALUES, chunks=(4, 4, 4), compression="gzip")
    content = path.read_bytes()
    (tmp_path / "short.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"short.h5 must be a complete HDF5 file with filters that are known, got"):
        read_hdf5(tmp_path / "short.h5", "raw", spacing=[1, 1, 1])
    # An encrypted file has no signature.
    (tmp_path / "secret.h5").write_bytes(bytes(byte ^ 0x5A for byte in content))
    with pytest.raises(ValueError, match=r"secret.h5 must be an HDF5 file, got one without its signature"):
        read_hdf5(tmp_path / "secret.h5", "raw")
    # A filter that nobody has, as encryption plugins are: its number is in the file.
    with h5py.File(tmp_path / "filter.h5", "w") as file:
        space = h5py.h5s.create_simple((4, 4, 4))
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((4, 4, 4))
        creation.set_filter(32765, h5py.h5z.FLAG_OPTIONAL, (1,))
        stored = h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_INT16, space, creation)
        stored.write_direct_chunk((0, 0, 0), b"\x00" * 128)
    with pytest.raises(ValueError, match=r"filter.h5 must be a complete HDF5 file with filters that are known, got"):
        read_hdf5(tmp_path / "filter.h5", "raw", spacing=[1, 1, 1])


def test_every_official_volume_comes_back(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "medical"
    files = [*sorted((folder / "nifti").iterdir()), *sorted((folder / "hippocampus" / "images").iterdir())[:6]]
    assert len(files) >= 10
    for path in files:
        source, array = nibabel.load(path), read_nifti(path)
        write_nifti(array, tmp_path / "back.nii")
        image = nibabel.load(tmp_path / "back.nii")
        np.testing.assert_array_equal(image.affine, source.affine)
        assert image.shape == source.shape
        np.testing.assert_allclose(image.dataobj[..., 0], source.dataobj[..., 0], rtol=1e-6)
        frame = array.ccnn(samples="volume" if "volume" in array.dims else ()).frame()
        steps = {name: one.step for one in frame.factors for name in one.names}
        sizes = source.header.get_zooms()[:3]
        np.testing.assert_allclose([steps[str(dim)] for dim in array.dims[:3]], sizes, rtol=1e-4)


def test_official_labels_fit_their_images(shared_data: Path) -> None:
    folder = shared_data / "medical" / "hippocampus"
    for path in sorted((folder / "images").iterdir())[:3]:
        labels = read_nifti(folder / "labels" / path.name, like=read_nifti(path))
        assert set(np.unique(labels)) <= {0, 1, 2}


def test_attributes_survive_a_netcdf_file(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii.gz", OBLIQUE))
    array.encoding = {}
    array.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "a.nc", engine="h5netcdf") as again:
        np.testing.assert_allclose(affine_of(again), affine_of(array))
