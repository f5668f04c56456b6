"""NIfTI headers there and back: both affines, times, slices and what a file says of its values.

The truth is read from the bytes of the file, with the formulas of the NIfTI-1 standard.
"""

from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ccnn_irregular.adapters.xarray  # noqa: F401  (registers the accessor)
from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel
from ccnn_irregular.adapters.nifti import affine_of, read_nifti, write_nifti

SIZES = (6, 5, 8)
VALUES = np.random.default_rng(0).integers(0, 200, SIZES).astype(np.int16)
SERIES = np.random.default_rng(1).integers(0, 200, (*SIZES[:2], 4, 8)).astype(np.int16)


def rotation(degrees: float, axis: int) -> np.ndarray:
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    first, second = [one for one in range(3) if one != axis]
    result = np.eye(3)
    result[first, first] = result[second, second] = cosine
    result[first, second], result[second, first] = -sine, sine
    return result


def placed(directions: np.ndarray, origin: tuple[float, float, float]) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = directions, origin
    return result


STRAIGHT = placed(np.diag([-0.75, 0.75, 2.5]), (-10.0, 20.0, -30.0))
OBLIQUE = placed(rotation(12, 0) @ rotation(-7, 2) @ np.diag([-0.75, 0.75, 2.5]), (5.0, 6.0, 7.0))
# A quaternion is stored as three float32 and its fourth part is what they leave to 1: near half a turn, as the first
# axis of these runs to the left, directions are known to the root of float32's resolution only.
QUATERNION = 3e-4
TURNED = placed(rotation(90, 0) @ np.diag([0.75, 0.75, -2.5]), (1.0, 2.0, 3.0))


class Header:
    """Fields of a NIfTI-1 file, from its bytes."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        (size,) = struct.unpack_from("<i", content, 0)
        assert size == 348

        def field(kind: str, start: int) -> Any:
            found = struct.unpack_from("<" + kind, content, start)
            return found[0] if len(found) == 1 else found

        self.sizes = field("8h", 40)
        self.dim_info, self.pixdim = field("B", 39), field("8f", 76)
        self.intent = (*field("3f", 56), field("h", 68), field("16s", 328))
        self.slices = (field("b", 122), field("h", 74), field("h", 120), field("f", 132))
        self.units, self.toffset = field("B", 123), field("f", 136)
        self.display, self.descrip, self.aux_file = field("2f", 124), field("80s", 148), field("24s", 228)
        self.codes = field("2h", 252)
        self.scaling = field("2f", 112)
        self.rows, self.quaternion = np.array(field("12f", 280)).reshape(3, 4), np.array(field("6f", 256))
        self.extended = content[348]

    @property
    def sform(self) -> np.ndarray:
        return np.vstack([self.rows, [0, 0, 0, 1]])

    @property
    def qform(self) -> np.ndarray:
        b, c, d = self.quaternion[:3]
        a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        handed = -1.0 if self.pixdim[0] < 0 else 1.0
        sizes = np.array(self.pixdim[1:4]) * [1, 1, handed]
        return placed(turn * sizes, tuple(self.quaternion[3:]))


def write(
    path: Path,
    values: np.ndarray = VALUES,
    sform: tuple[np.ndarray | None, int] = (STRAIGHT, 1),
    qform: tuple[np.ndarray | None, int] = (None, 0),
    units: tuple[str, str] = ("mm", "unknown"),
    step: float | None = None,
    kind: Any = nibabel.Nifti1Image,
    **fields: Any,
) -> Path:
    image = kind(values, None)
    image.header.set_xyzt_units(*units)
    image.set_sform(*sform)
    if qform[0] is not None:
        image.set_qform(*qform)
    if step is not None:
        image.header["pixdim"][4] = step
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


# ---- two affines ----

PAIRS = [
    ((STRAIGHT, 1), (OBLIQUE, 1)),
    ((STRAIGHT, 4), (OBLIQUE, 1)),
    ((OBLIQUE, 4), (STRAIGHT, 4)),
    ((OBLIQUE, 2), (TURNED, 3)),
    ((None, 0), (OBLIQUE, 1)),
    ((TURNED, 3), (None, 0)),
]


@pytest.mark.parametrize(("sform", "qform"), PAIRS)
@pytest.mark.parametrize("labels", [False, True], ids=["itself", "labels"])
def test_both_affines_survive_with_their_codes(sform: Any, qform: Any, labels: bool, tmp_path: Path) -> None:
    source = write(tmp_path / "image.nii.gz", sform=sform, qform=qform)
    image = read_nifti(source)
    if labels:
        write_nifti((image > 100).drop_attrs(deep=False), tmp_path / "b.nii.gz", like=image)
    else:
        write_nifti(image, tmp_path / "b.nii.gz")
    before, after = Header(source), Header(tmp_path / "b.nii.gz")
    assert after.codes == before.codes == (qform[1], sform[1])
    if sform[1]:
        np.testing.assert_array_equal(after.sform, before.sform)
        np.testing.assert_allclose(after.sform, sform[0], rtol=1e-6)
    if qform[1]:
        np.testing.assert_allclose(after.qform, before.qform, atol=1e-6)
        np.testing.assert_allclose(after.qform, qform[0], atol=QUATERNION)
        np.testing.assert_allclose(after.pixdim[1:4], [0.75, 0.75, 2.5], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), pair=st.sampled_from(PAIRS[:4]))
def test_both_affines_follow_what_is_cut_thinned_and_turned(data: Any, pair: Any, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("cut")
    array = read_nifti(write(folder / "a.nii", sform=pair[0], qform=pair[1]))
    index, chosen = np.eye(4), {}
    for axis, (dim, size) in enumerate(zip(array.dims, SIZES, strict=True)):
        step = data.draw(st.sampled_from([1, 2, -1, -2]))
        first = data.draw(st.integers(0, size - 3)) if step > 0 else data.draw(st.integers(2, size - 1))
        chosen[dim] = slice(first, None, step)
        index[axis, axis], index[axis, 3] = step, first
    write_nifti(array.isel(chosen), folder / "b.nii")
    header = Header(folder / "b.nii")
    np.testing.assert_allclose(header.sform, pair[0][0] @ index, atol=2e-5)
    np.testing.assert_allclose(header.qform, pair[1][0] @ index, atol=6 * QUATERNION)
    assert header.codes == (pair[1][1], pair[0][1])


def test_other_voxel_sizes_change_both_affines(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", sform=(STRAIGHT, 4), qform=(OBLIQUE, 1)))
    # Means of 2 x 1 x 4 voxels lie in the middle of theirs; three times finer nodes lie between.
    coarse = array.coarsen(x=2, z=4).mean().interp(y=array.y.values[0] + 0.25 * np.arange(10))
    write_nifti(coarse.astype(np.float32), tmp_path / "b.nii")
    index = np.diag([2.0, 1 / 3, 4.0, 1.0])
    index[:3, 3] = [0.5, 0.0, 1.5]
    header = Header(tmp_path / "b.nii")
    np.testing.assert_allclose(header.sform, STRAIGHT @ index, atol=1e-5)
    np.testing.assert_allclose(header.qform, OBLIQUE @ index, atol=5 * QUATERNION)
    np.testing.assert_allclose(header.pixdim[1:4], [1.5, 0.25, 10.0], rtol=1e-5)
    np.testing.assert_allclose(affine_of(read_nifti(tmp_path / "b.nii")), STRAIGHT @ index, atol=1e-5)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e3), ("micron", 1e-3)])
def test_both_affines_come_in_millimetres(unit: str, factor: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", sform=(STRAIGHT, 4), qform=(OBLIQUE, 1), units=(unit, "unknown"))
    write_nifti(read_nifti(path), tmp_path / "b.nii")
    header, scale = Header(tmp_path / "b.nii"), np.diag([factor] * 3 + [1.0])
    np.testing.assert_allclose(header.sform, scale @ STRAIGHT, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(header.qform, scale @ OBLIQUE, atol=QUATERNION * factor)
    assert header.units == 2


def test_an_unknown_unit_of_space_stays_unknown(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", units=("unknown", "unknown")))
    assert array.x.attrs["units"] == "mm"
    write_nifti(array, tmp_path / "b.nii")
    assert Header(tmp_path / "b.nii").units == 0


def test_a_file_without_affines_stays_without_until_it_is_cut(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, None)
    image.header.set_zooms((2.0, 3.0, 4.0))
    nibabel.save(image, tmp_path / "a.nii")
    array = read_nifti(tmp_path / "a.nii")
    write_nifti(array, tmp_path / "b.nii")
    assert Header(tmp_path / "b.nii").codes == (0, 0)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii").affine, nibabel.load(tmp_path / "a.nii").affine)
    write_nifti(array.isel({array.dims[0]: slice(2, None)}), tmp_path / "c.nii")
    assert Header(tmp_path / "c.nii").codes == (0, 2)
    wanted = nibabel.load(tmp_path / "a.nii").affine @ placed(np.eye(3), (2.0, 0.0, 0.0))
    np.testing.assert_allclose(Header(tmp_path / "c.nii").sform, wanted, atol=1e-6)


def test_a_qform_that_is_no_rotation_is_left_out_aloud(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", sform=(STRAIGHT, 4), qform=(OBLIQUE, 1))
    content = bytearray(path.read_bytes())
    content[256:268] = np.array([0.9, 0.9, 0.9], np.float32).tobytes()
    path.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match=r"the qform of .*a.nii is left out, its sform places the voxels"):
        array = read_nifti(path)
    write_nifti(array, tmp_path / "b.nii")
    assert Header(tmp_path / "b.nii").codes == (0, 4)
    np.testing.assert_allclose(Header(tmp_path / "b.nii").sform, STRAIGHT, rtol=1e-6)


def test_like_in_another_oblique_space_is_refused(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", sform=(OBLIQUE, 1)))
    moved = OBLIQUE.copy()
    moved[1, 3] += 4
    other = read_nifti(write(tmp_path / "b.nii", sform=(moved, 1)))
    with pytest.raises(ValueError, match="like must lie in the array's space, got affines 4 mm apart"):
        write_nifti(array, tmp_path / "c.nii", like=other)


# ---- time ----


@pytest.mark.parametrize("unit", ["sec", "msec", "usec"])
@pytest.mark.parametrize("chosen", [slice(None), slice(3, 7), slice(0, 8, 2), slice(5, None, 2), [5]], ids=str)
def test_times_follow_what_is_cut_and_thinned(unit: str, chosen: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", SERIES, units=("mm", unit), step=1.5, toffset=6.0)
    array = read_nifti(path)
    times = 6.0 + 1.5 * np.arange(8)
    np.testing.assert_allclose(array.t, times)
    write_nifti(array.isel(t=chosen), tmp_path / "b.nii")
    header, wanted = Header(tmp_path / "b.nii"), times[chosen]
    assert header.sizes[4] == len(wanted)
    assert header.toffset == wanted[0]
    assert header.pixdim[4] == (wanted[1] - wanted[0] if len(wanted) > 1 else 1.5)
    assert header.units == 2 + {"sec": 8, "msec": 16, "usec": 24}[unit]
    np.testing.assert_allclose(read_nifti(tmp_path / "b.nii").t, wanted)


def test_one_volume_of_a_series_knows_its_time(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", SERIES, units=("mm", "sec"), step=1.5, toffset=6.0))
    write_nifti(array.isel(t=3), tmp_path / "b.nii")
    header = Header(tmp_path / "b.nii")
    assert (header.sizes[0], header.toffset, header.pixdim[4], header.units) == (3, 10.5, 1.5, 10)
    again = read_nifti(tmp_path / "b.nii")
    assert (again.attrs["toffset"], again.attrs["pixdim4"], again.attrs["time_units"]) == (10.5, 1.5, "sec")
    write_nifti(again, tmp_path / "c.nii")
    header = Header(tmp_path / "c.nii")
    assert (header.toffset, header.pixdim[4], header.units) == (10.5, 1.5, 10)
    write_nifti(array.mean("t").astype(np.float32), tmp_path / "d.nii")
    header = Header(tmp_path / "d.nii")
    assert (header.toffset, header.pixdim[4], header.units) == (0.0, 1.5, 10)


@pytest.mark.parametrize(("values", "sizes"), [(VALUES, 3), (SERIES[..., :1], 4)], ids=["3-D", "one volume"])
def test_a_single_volume_keeps_unit_and_step(values: np.ndarray, sizes: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", values, units=("mm", "msec"), step=2000.0, toffset=500.0)
    write_nifti(read_nifti(path), tmp_path / "b.nii")
    header = Header(tmp_path / "b.nii")
    assert (header.sizes[0], header.units, header.pixdim[4], header.toffset) == (sizes, 18, 2000.0, 500.0)


def test_times_in_another_unit_go_back_into_that_of_the_file(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", SERIES, units=("mm", "sec"), step=1.5, toffset=6.0))
    milliseconds = array.assign_coords(t=("t", array.t.values * 1000, {"units": "ms"}))
    write_nifti(milliseconds.isel(t=slice(2, None, 3)), tmp_path / "b.nii")
    header = Header(tmp_path / "b.nii")
    assert (header.units, header.toffset, header.pixdim[4]) == (10, 9.0, 4.5)
    spans = array.assign_coords(t=(array.t.values * 1e9).astype("m8[ns]"))
    write_nifti(spans.isel(t=slice(2, None, 3)), tmp_path / "c.nii")
    header = Header(tmp_path / "c.nii")
    assert (header.units, header.toffset, header.pixdim[4]) == (10, 9.0, 4.5)


@pytest.mark.parametrize(
    ("times", "attributes", "message"),
    [
        ([0, 1.5, 6, 10.5], {"units": "seconds"}, "coordinate 't' must be uniform, got gaps that differ"),
        ([0, 1, 2.01, 3], {"units": "seconds"}, "coordinate 't' must be uniform, got gaps that differ"),
        ([3, 3, 3, 3], {"units": "seconds"}, "coordinate 't' must be uniform, got gaps that differ"),
        ([9, 6, 3, 0], {"units": "seconds"}, "coordinate 't' must rise, got 9 before 6"),
        ([0, 1, 2, 3], {"units": "minutes"}, "coordinate 't' must be numbers .*, got 'minutes'"),
        (np.array([0, 1, 2, 3], "M8[s]"), {}, r"coordinate 't' must be numbers .*, got datetime64\[s\]"),
        (None, {}, "coordinates must hold 't', or the dimension be named 'volume', got"),
    ],
)
def test_times_that_a_header_cannot_say_are_refused(times: Any, attributes: Any, message: str, tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", SERIES[..., :4], units=("mm", "sec"), step=1.5)).drop_vars("t")
    array = array if times is None else array.assign_coords(t=("t", times, attributes))
    with pytest.raises(ValueError, match=message):
        write_nifti(array, tmp_path / "b.nii")
    assert not (tmp_path / "b.nii").exists()


@pytest.mark.parametrize(("unit", "code"), [("unknown", 2), ("hz", 34), ("ppm", 42), ("rads", 50)])
def test_volumes_without_times_keep_what_the_header_says(unit: str, code: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", SERIES, units=("mm", unit), step=2.5, toffset=3.0)
    array = read_nifti(path)
    assert array.dims[3] == "volume"
    write_nifti(array, tmp_path / "b.nii")
    header = Header(tmp_path / "b.nii")
    assert (header.units, header.pixdim[4], header.toffset) == (code, 2.5, 3.0)
    with pytest.warns(UserWarning, match=r"pixdim\[4\] is left out: .* nobody knows which of the volumes are left"):
        write_nifti(array.isel(volume=slice(0, None, 2)), tmp_path / "c.nii")
    header = Header(tmp_path / "c.nii")
    assert (header.pixdim[4], header.toffset) == (1.0, 0.0)
    write_nifti(array.isel(volume=2), tmp_path / "d.nii")
    header = Header(tmp_path / "d.nii")
    assert (header.pixdim[4], header.toffset, header.units) == (2.5, 0.0, code)


def test_a_series_without_a_step_has_no_times(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", SERIES, units=("mm", "sec"), step=0.0))
    assert array.dims[3] == "volume"
    write_nifti(array, tmp_path / "b.nii")
    header = Header(tmp_path / "b.nii")
    assert (header.units, header.pixdim[4]) == (10, 0.0)


# ---- slices ----

SLICES = {"dim_info": 3 << 4 | 2 << 2 | 1, "slice_start": 1, "slice_end": 6, "slice_duration": 0.25}


def slice_times(header: Header, count: int) -> list[float | None]:
    """When each slice was taken, by the standard's definition of the codes; None for padding."""
    code, start, end, duration = header.slices
    taken = list(range(start, end + 1))
    turned = taken[::-1]
    order = {
        1: taken,
        2: turned,
        3: taken[::2] + taken[1::2],
        4: turned[::2] + turned[1::2],
        5: taken[1::2] + taken[::2],
        6: turned[1::2] + turned[::2],
    }[code]
    times: list[float | None] = [None] * count
    for place, number in enumerate(order):
        times[number] = place * duration
    return times


@pytest.mark.parametrize("code", range(1, 7))
@pytest.mark.parametrize("chosen", [slice(None), slice(1, None), slice(0, 7), slice(None, None, -1), slice(6, 0, -1)])
def test_slices_keep_their_times(code: int, chosen: slice, tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", slice_code=code, units=("mm", "sec"), **SLICES)
    array = read_nifti(path)
    write_nifti(array.isel({array.dims[2]: chosen, array.dims[0]: slice(2, None)}), tmp_path / "b.nii")
    header = Header(tmp_path / "b.nii")
    assert slice_times(header, header.sizes[3]) == slice_times(Header(path), 8)[chosen]
    assert header.dim_info == SLICES["dim_info"]


@pytest.mark.parametrize("chosen", [slice(2, None), slice(0, 6), slice(None, None, 2)])
def test_slices_that_were_cut_lose_their_times_aloud(chosen: slice, tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", slice_code=3, **SLICES))
    with pytest.warns(UserWarning, match="slice_code and the slices' times are left out"):
        write_nifti(array.isel({array.dims[2]: chosen}), tmp_path / "b.nii")
    assert Header(tmp_path / "b.nii").slices == (0, 0, 0, 0.0)


def test_slices_of_an_axis_that_is_not_named(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", **{**SLICES, "slice_code": 3, "dim_info": 0}))
    write_nifti(array, tmp_path / "b.nii")
    assert Header(tmp_path / "b.nii").slices == (3, 1, 6, 0.25)
    with pytest.warns(UserWarning, match="slice_code and the slices' times are left out"):
        write_nifti(array.isel({array.dims[0]: slice(1, None)}), tmp_path / "b.nii")


# ---- values ----

ABOUT = {"intent_code": 3, "intent_p1": 12.0, "intent_name": b"t", "cal_max": 9.0, "descrip": b"made here",
         "aux_file": b"more.txt"}  # fmt: skip


def test_what_a_file_says_of_its_values_stays_with_them_alone(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, STRAIGHT)
    for name, value in ABOUT.items():
        image.header[name] = value
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"seven slices"))
    nibabel.save(image, tmp_path / "a.nii")
    before, array = Header(tmp_path / "a.nii"), read_nifti(tmp_path / "a.nii")
    write_nifti(array, tmp_path / "b.nii")
    after = Header(tmp_path / "b.nii")
    for name in ("intent", "display", "descrip", "aux_file"):
        assert getattr(after, name) == getattr(before, name), name
    (extension,) = nibabel.load(tmp_path / "b.nii").header.extensions
    assert extension.get_content().rstrip(b"\0") == b"seven slices"
    cut = array.isel({array.dims[2]: slice(2)})
    write_nifti(cut, tmp_path / "c.nii")
    assert (Header(tmp_path / "c.nii").intent, Header(tmp_path / "c.nii").extended) == (before.intent, 0)
    write_nifti(array + 1, tmp_path / "d.nii")
    computed = Header(tmp_path / "d.nii")
    assert computed.intent == (0.0, 0.0, 0.0, 0, b"\0" * 16)
    assert computed.display == (0.0, 0.0)
    assert not computed.descrip.strip(b"\0")
    array.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_every_dtype_there_and_back(dtype: str, order: str, tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=order)
    values = VALUES.astype(order + dtype)
    image = nibabel.Nifti1Image(values, STRAIGHT, header, dtype=values.dtype)
    nibabel.save(image, tmp_path / "a.nii")
    write_nifti(read_nifti(tmp_path / "a.nii"), tmp_path / "b.nii")
    again = nibabel.load(tmp_path / "b.nii")
    assert again.get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(again.dataobj), VALUES.astype(dtype))


def test_scale_factors_of_one_file_do_not_reach_a_result(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, STRAIGHT)
    image.header.set_slope_inter(0.25, -3.0)
    nibabel.save(image, tmp_path / "a.nii")
    array = read_nifti(tmp_path / "a.nii")
    raw = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj.get_unscaled())
    np.testing.assert_array_equal(array, (raw * 0.25 - 3).astype(np.float32))
    write_nifti(array, tmp_path / "b.nii")
    write_nifti((array * 4).astype(np.int16), tmp_path / "c.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii").get_fdata(), raw * 0.25 - 3)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "c.nii").get_fdata(), raw - 12)


# ---- other kinds of file ----


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suffix", [".hdr", ".img"])
def test_pairs_are_read(version: int, suffix: str, tmp_path: Path) -> None:
    kind = nibabel.Nifti1Pair if version == 1 else nibabel.Nifti2Pair
    write(tmp_path / "a.hdr", sform=(STRAIGHT, 4), qform=(OBLIQUE, 1), kind=kind)
    array = read_nifti(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(array, VALUES)
    write_nifti(array.drop_encoding(), tmp_path / "b.nii")
    header = Header(tmp_path / "b.nii")
    assert header.codes == (1, 4)
    np.testing.assert_allclose(header.qform, OBLIQUE, atol=QUATERNION)


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.hdr", kind=nibabel.Nifti1Pair)
    (tmp_path / "a.img").unlink()
    with pytest.raises(ValueError, match=r"a.hdr must be a (complete )?NIfTI file"):
        read_nifti(tmp_path / "a.hdr")


def test_nifti_2_stays_nifti_2(tmp_path: Path) -> None:
    source = write(tmp_path / "a.nii.gz", kind=nibabel.Nifti2Image, qform=(OBLIQUE, 1), sform=(TURNED, 4))
    array = read_nifti(source)
    write_nifti(array, tmp_path / "b.nii.gz")
    image = nibabel.load(tmp_path / "b.nii.gz")
    assert image.header["sizeof_hdr"] == 540
    np.testing.assert_allclose(image.get_sform(), TURNED, rtol=1e-12)
    np.testing.assert_allclose(image.get_qform(), OBLIQUE, atol=1e-7)
    write_nifti(array + 1, tmp_path / "c.nii.gz")
    assert nibabel.load(tmp_path / "c.nii.gz").header["sizeof_hdr"] == 348


def test_an_axis_too_long_for_nifti_1_is_written_as_nifti_2(tmp_path: Path) -> None:
    array = read_nifti(write(tmp_path / "a.nii", np.zeros((3, 2, 2), np.uint8), sform=(np.eye(4), 1)))
    long = array.reindex(x=np.arange(40_000.0), fill_value=7)
    write_nifti(long, tmp_path / "b.nii.gz")
    image = nibabel.load(tmp_path / "b.nii.gz")
    assert image.shape == (40_000, 2, 2)
    assert (image.dataobj[2, 0, 0], image.dataobj[39_999, 1, 1]) == (0, 7)


def test_reading_and_writing_warn_of_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", SERIES, units=("mm", "sec"), step=1.5, toffset=6.0, qform=(STRAIGHT, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_nifti(read_nifti(path).isel(t=slice(2, 5)), tmp_path / "b.nii")


def test_attributes_of_the_scan_survive_a_netcdf_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", SERIES, (OBLIQUE, 4), (STRAIGHT, 1), ("mm", "sec"), 1.5, toffset=6.0,
                 slice_code=1, slice_end=3, slice_duration=0.25, dim_info=48)  # fmt: skip
    read_nifti(path).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "a.nc", engine="h5netcdf", decode_timedelta=False) as again:
        write_nifti(again.load(), tmp_path / "b.nii")
    before, after = Header(path), Header(tmp_path / "b.nii")
    for name in ("codes", "slices", "toffset", "pixdim", "units", "dim_info"):
        assert getattr(after, name) == getattr(before, name), name
    np.testing.assert_allclose(after.qform, before.qform, atol=2e-6)


def test_a_convolution_onto_other_voxels_moves_both_affines(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = ContinuousConv(Kernel(SIREN(3, 1, 4), GaussianMask([2.0, 1.0, 1.0]), extent=[6.0, 3.0, 3.0]))
    image = read_nifti(write(tmp_path / "a.nii", sform=(STRAIGHT, 4), qform=(OBLIQUE, 1)))
    nodes = {
        dim: image[dim].values[0] + 2 * (image[dim].values[1] - image[dim].values[0]) * np.arange(3) for dim in "xy"
    }
    like = image.isel(x=slice(3), y=slice(3)).assign_coords(nodes)
    for dim in "xy":
        like[dim].attrs = image[dim].attrs
    result = image.astype(np.float32).ccnn.convolve(layer, like=like)
    write_nifti(result, tmp_path / "b.nii", like=image)
    header, index = Header(tmp_path / "b.nii"), np.diag([2.0, 2.0, 1.0, 1.0])
    assert header.codes == (1, 4)
    np.testing.assert_allclose(header.sform, STRAIGHT @ index, atol=1e-5)
    np.testing.assert_allclose(header.qform, OBLIQUE @ index, atol=6 * QUATERNION)
