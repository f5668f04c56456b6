"""Readers of clouds: what a package writes is read as it is, and what we save is read back by that package alone."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import plyfile
import pypcd4
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ccnn_irregular.datasets.cloud_files import CloudFile, cloud_paths, open_cloud, stray_paths

COUNT = 40
RNG = np.random.default_rng(0)
PLACES = np.array([512_740.0, 5_403_540.0, 300.0]) + np.round(RNG.uniform(0, 50, (COUNT, 3)), 2)
CODES = RNG.integers(1, 7, COUNT).astype(np.uint8)
LEVEL = RNG.integers(0, 60_000, COUNT).astype(np.uint16)
ADDED = {"prediction": RNG.integers(1, 7, COUNT).astype(np.int32), "probability": RNG.random(COUNT, np.float32)}


def saved(cloud: CloudFile, folder: Path, **columns: NDArray[Any]) -> Path:
    """The path of a copy with ``ADDED``, or with other columns."""
    (folder / "saved").mkdir(exist_ok=True)
    path = folder / "saved" / cloud.copy_name
    with path.open("wb") as stream:
        cloud.save(stream, columns or ADDED, "prediction by best.ckpt")
    return path


def write_las(path: Path, point_format: int = 3, version: str = "1.2") -> laspy.LasData:
    header = laspy.LasHeader(point_format=point_format, version=version)
    header.scales, header.offsets = [0.01, 0.01, 0.001], [512_000.0, 5_403_000.0, 0.0]
    header.vlrs.append(laspy.VLR("somebody", 7, "kept", b"as it is"))
    las = laspy.LasData(header)
    las.x, las.y, las.z = PLACES.T
    las.classification, las.intensity, las.return_number = CODES, LEVEL, np.full(COUNT, 2, np.uint8)
    las.add_extra_dim(laspy.ExtraBytesParams("Amplitude", "f8"))
    las["Amplitude"] = np.arange(COUNT)
    las.write(path)
    return las


@pytest.mark.parametrize(
    ("name", "kind"), [("a.las", (3, "1.2")), ("a.laz", (3, "1.2")), ("b.LAZ", (6, "1.4")), ("b.las", (8, "1.4"))]
)
def test_las_keeps_integers_scale_offset_records_and_order(tmp_path: Path, name: str, kind: tuple[int, str]) -> None:
    given = write_las(tmp_path / name, *kind)
    cloud = open_cloud(tmp_path / name)
    np.testing.assert_array_equal(cloud.coordinates, given.xyz)
    np.testing.assert_allclose(cloud.coordinates, PLACES, atol=1e-6)
    np.testing.assert_array_equal(cloud.field("classification"), CODES)
    np.testing.assert_array_equal(cloud.field("Intensity"), LEVEL)
    np.testing.assert_array_equal(cloud.field("amplitude"), np.arange(COUNT))
    again = laspy.read(saved(cloud, tmp_path))
    for axis in "XYZ":
        np.testing.assert_array_equal(again[axis], given[axis])
    assert list(again.header.scales) == list(given.header.scales)
    assert list(again.header.offsets) == list(given.header.offsets)
    assert again.header.are_points_compressed == name.lower().endswith("laz")
    assert [one.record_data for one in again.header.vlrs if one.user_id == "somebody"] == [b"as it is"]
    for dimension in given.point_format.dimension_names:
        np.testing.assert_array_equal(np.asarray(again[dimension]), np.asarray(given[dimension]))
    for field, values in ADDED.items():
        np.testing.assert_array_equal(again[field], values)
        assert np.asarray(again[field]).dtype == values.dtype


def write_copc(path: Path) -> laspy.LasData:
    """A COPC file of one node by its specification 1.0: the record "info" first, then points, then the hierarchy."""
    las = write_las(path.with_name("plain.laz"), 6, "1.4")
    las.header.vlrs.insert(0, laspy.VLR("copc", 1, "COPC info", bytes(160)))
    las.evlrs = laspy.vlrs.vlrlist.VLRList([laspy.VLR("copc", 1000, "COPC hierarchy", bytes(32))])
    las.write(path)
    content = bytearray(path.read_bytes())
    (points,), (evlrs,) = struct.unpack_from("<I", content, 96), struct.unpack_from("<Q", content, 235)
    (chunks,) = struct.unpack_from("<q", content, points)  # where the table of chunks begins: here after the only one
    middle, half = (PLACES.min(0) + PLACES.max(0)) / 2, float(np.ptp(PLACES, axis=0).max())
    struct.pack_into("<5d2Q2d", content, 375 + 54, *middle, half, half / 8, evlrs + 60, 32, 0.0, 0.0)
    struct.pack_into("<4iQ2i", content, evlrs + 60, 0, 0, 0, 0, points + 8, chunks - points - 8, COUNT)
    path.write_bytes(content)
    return las


def test_copc_is_read_and_a_copy_does_not_say_that_it_has_an_index(tmp_path: Path) -> None:
    las = write_copc(tmp_path / "tile.copc.laz")
    with laspy.CopcReader.open(tmp_path / "tile.copc.laz") as reader:
        found = reader.query()  # a program for COPC finds its points
    np.testing.assert_array_equal(np.column_stack([found.X, found.Y, found.Z]), np.column_stack([las.X, las.Y, las.Z]))
    cloud = open_cloud(tmp_path / "tile.copc.laz")
    np.testing.assert_array_equal(cloud.coordinates, las.xyz)
    np.testing.assert_array_equal(cloud.field("classification"), CODES)
    path = saved(cloud, tmp_path)
    assert path.name == "tile.laz"
    again = laspy.read(path)
    assert "copc" not in [one.user_id for one in [*again.header.vlrs, *(again.evlrs or [])]]
    np.testing.assert_array_equal(again.X, las.X)
    for name, values in ADDED.items():
        np.testing.assert_array_equal(again[name], values)


def test_other_files_of_a_folder_are_no_clouds(tmp_path: Path) -> None:
    write_las(tmp_path / "b.las")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "a.txt").write_text("// X Y Z label\n1 2 3 0\n")
    (tmp_path / "nameless.txt").write_text("\n1.0 2.0 3.0\n")  # points: the reader asks for the names of its columns
    strays = ["README.txt", ".DS_Store", "b.prj", "labels.csv", "deeper/empty.csv"]
    for name in strays:
        (tmp_path / name).write_text("" if "empty" in name else "Flown in May.\nAll tiles are in UTM.\n")
    (tmp_path / "labels.csv").write_text("file,label\nb.las,1\n")
    names = [path.relative_to(tmp_path).as_posix() for path in cloud_paths(tmp_path)]
    assert names == ["b.las", "deeper/a.txt", "nameless.txt"]
    assert {path.relative_to(tmp_path).as_posix() for path in stray_paths(tmp_path)} == set(strays)
    assert stray_paths(tmp_path / "b.las") == []
    with pytest.raises(ValueError, match="name the columns, such as x,y,z,label"):
        open_cloud(tmp_path / "nameless.txt")


def write_empty(path: Path) -> None:
    if path.suffix in (".las", ".laz"):
        laspy.LasData(laspy.LasHeader(point_format=6, version="1.4")).write(path)
    elif path.suffix == ".npz":
        np.savez(path, xyz=np.empty((0, 3)), intensity=np.empty(0))
    elif path.suffix == ".ply":
        vertices = np.empty(0, [("x", "f4"), ("y", "f4"), ("z", "f4")])
        plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")]).write(str(path))
    else:
        path.write_text("x,y,z,intensity\n")


@pytest.mark.parametrize("suffix", [".las", ".laz", ".npz", ".ply", ".csv"])
def test_a_cloud_without_points_is_read_and_copied_where_it_may_be_one(tmp_path: Path, suffix: str) -> None:
    write_empty(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=f"a{suffix} must hold a point, got none"):
        open_cloud(tmp_path / f"a{suffix}")
    cloud = open_cloud(tmp_path / f"a{suffix}", may_be_empty=True)
    assert cloud.coordinates.shape == (0, 3)
    path = saved(cloud, tmp_path, prediction=np.empty(0, np.int32))
    assert "prediction" in open_cloud(path, may_be_empty=True).fields


@pytest.mark.parametrize(("text", "order"), [(True, "="), (False, "<"), (False, ">")])
def test_ply_keeps_properties_faces_and_comments(tmp_path: Path, text: bool, order: str) -> None:
    kinds = [("x", "f8"), ("y", "f8"), ("z", "f8"), ("red", "u1"), ("scalar_Label", "f4"), ("normal_x", "f4")]
    vertices = np.empty(COUNT, kinds)
    for axis, column in zip("xyz", PLACES.T, strict=True):
        vertices[axis] = column
    vertices["red"], vertices["scalar_Label"], vertices["normal_x"] = CODES, CODES, 0.25
    faces = np.empty(2, [("vertex_indices", "i4", (3,))])
    faces["vertex_indices"] = [[0, 1, 2], [2, 3, 4]]
    elements = [plyfile.PlyElement.describe(vertices, "vertex"), plyfile.PlyElement.describe(faces, "face")]
    plyfile.PlyData(elements, text=text, byte_order=order, comments=["made by hand"]).write(str(tmp_path / "a.ply"))
    cloud = open_cloud(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.coordinates, PLACES)
    np.testing.assert_array_equal(cloud.field("label"), CODES)
    np.testing.assert_array_equal(cloud.field("nx"), np.full(COUNT, 0.25))
    again = plyfile.PlyData.read(str(saved(cloud, tmp_path)))
    assert (again.text, again.byte_order) == (text, order)
    assert again.comments == ["made by hand", "prediction by best.ckpt"]
    assert again["vertex"].data.dtype.names == (*vertices.dtype.names, *ADDED)
    for name in vertices.dtype.names:
        np.testing.assert_array_equal(again["vertex"][name], vertices[name])
    for name, values in ADDED.items():
        np.testing.assert_array_equal(again["vertex"][name], values)
    assert [list(face) for (face,) in again["face"].data] == [[0, 1, 2], [2, 3, 4]]


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd_keeps_its_encoding_rows_columns_and_viewpoint(tmp_path: Path, encoding: str) -> None:
    places = np.linspace(-4, 4, 3 * COUNT).reshape(-1, 3).round().astype(np.float32)  # pypcd4 packs what gets smaller
    places[7] = np.nan  # an organised cloud has no point there
    packed = (np.arange(COUNT, dtype=np.uint32) << 16 | 3 << 8 | 5).view(np.float32)
    columns = [*places.T, packed, CODES]
    cloud = pypcd4.PointCloud.from_points(columns, ("x", "y", "z", "rgb", "label"), (*[np.float32] * 4, np.uint8))
    organised = cloud.metadata.derive(width=COUNT // 4, height=4, viewpoint=(1.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0))
    kind = pypcd4.Encoding(encoding)
    pypcd4.PointCloud(organised, cloud.pc_data).save(tmp_path / "a.pcd", kind)
    read = open_cloud(tmp_path / "a.pcd")
    np.testing.assert_array_equal(read.coordinates, places)
    np.testing.assert_array_equal(read.field("label"), CODES)
    if encoding == "ascii":  # pypcd4 writes no packed colours as text: these are nobody's
        assert set(read.field("red").tolist()) == {0}
    else:
        np.testing.assert_array_equal(read.field("red"), np.arange(COUNT))
        assert set(read.field("blue").tolist()) == {5}
    again = pypcd4.PointCloud.from_path(saved(read, tmp_path))
    about = again.metadata
    assert (about.width, about.height, about.viewpoint[:3]) == (COUNT // 4, 4, (1.0, 2.0, 3.0))
    assert about.data == kind
    assert about.fields == ("x", "y", "z", "rgb", "label", *ADDED)
    for axis, column in zip("xyz", places.T, strict=True):
        np.testing.assert_array_equal(again.pc_data[axis], column)
    for name, values in ADDED.items():
        np.testing.assert_array_equal(again.pc_data[name], values)


@pytest.mark.parametrize(
    ("name", "separator", "head"),
    [
        ("a.csv", ",", "x,y,z,Label,Intensity"),
        ("a.csv.gz", ";", "X;Y;Z;Label;Intensity"),
        ("a.txt", " ", "//X Y Z Label Intensity"),
        ("b.txt", "\t", "# x\ty\tz\tLabel\tIntensity"),
    ],
)
def test_lines_of_a_table_stay_as_they_are(tmp_path: Path, name: str, separator: str, head: str) -> None:
    words = np.where(CODES > 3, "roof", "NA")
    rows = [
        separator.join([f"{x:.3f}", f"{y:.2e}" if n == 0 else f"{y:.4f}", f"{z:+.2f}", word, str(level)])
        for n, ((x, y, z), word, level) in enumerate(zip(PLACES, words, LEVEL, strict=True))
    ]
    text = "\n".join([head, *rows]) + "\n"
    packed = name.endswith(".gz")
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    cloud = open_cloud(tmp_path / name)
    np.testing.assert_array_equal(cloud.coordinates[1:], np.round(PLACES, 4)[1:])
    assert cloud.field("label").tolist() == words.tolist()
    columns = {"prediction": words.astype(str), "probability": ADDED["probability"]}
    content = saved(cloud, tmp_path, **columns).read_bytes()
    lines = (gzip.decompress(content) if packed else content).decode().splitlines()
    assert [line.rsplit(separator, 2)[0] for line in lines] == [head, *rows]
    assert lines[0].split(separator)[-2:] == ["prediction", "probability"]
    assert [line.split(separator)[-2] for line in lines[1:]] == words.tolist()
    found = np.array([line.split(separator)[-1] for line in lines[1:]], np.float32)
    np.testing.assert_array_equal(found, ADDED["probability"])


def test_npz_keeps_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", xyz=PLACES, rgb=np.stack([CODES] * 3, 1), is_ground=CODES == 2, origin=np.zeros(3))
    cloud = open_cloud(tmp_path / "a.npz")
    assert sorted(cloud.fields) == ["blue", "green", "is_ground", "red"]
    with np.load(saved(cloud, tmp_path)) as again:
        assert sorted(again) == ["is_ground", "origin", "prediction", "probability", "rgb", "written_by", "xyz"]
        np.testing.assert_array_equal(again["xyz"], PLACES)
        np.testing.assert_array_equal(again["prediction"], ADDED["prediction"])


def test_text_of_a_pcd_stays_as_it_is(tmp_path: Path) -> None:
    """pypcd4 writes ten digits after the point, in which a packed colour is 0."""
    rows = ["0.1 -2.50 3e2 4.2108e-39 7", "1 2 3 0 1"]
    head = "VERSION .7\nFIELDS x y z rgb label\nSIZE 4 4 4 4 1\nTYPE F F F F U\nCOUNT 1 1 1 1 1\nWIDTH 2\nHEIGHT 1\n"
    text = f"# made by hand\n{head}VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\nDATA ascii\n" + "\n".join(rows) + "\n"
    (tmp_path / "a.pcd").write_text(text)
    cloud = open_cloud(tmp_path / "a.pcd")
    number = int(np.float32(4.2108e-39).view(np.uint32))
    assert cloud.field("red").tolist() == [(number >> 16) & 255, 0]
    columns = {"prediction": np.array([2, 6], np.int32), "probability": np.array([0.5, 0.1], np.float32)}
    lines = saved(cloud, tmp_path, **columns).read_text().splitlines()
    assert lines[lines.index("DATA ascii") + 1 :] == [f"{rows[0]} 2 0.5", f"{rows[1]} 6 0.1"]
    again = pypcd4.PointCloud.from_path(tmp_path / "saved" / "a.pcd")
    np.testing.assert_array_equal(again.pc_data["rgb"], np.array([4.2108e-39, 0], np.float32))
    assert again.fields[-2:] == ("prediction", "probability")


@given(
    raw=st.lists(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 3), min_size=1, max_size=20),
    scale=st.sampled_from([1e-3, 0.01, 0.25]),
    offset=st.floats(-1e7, 1e7),
)
@settings(max_examples=25)
def test_las_coordinates_are_integer_times_scale_plus_offset(
    tmp_path_factory: pytest.TempPathFactory, raw: list[tuple[int, int, int]], scale: float, offset: float
) -> None:
    header = laspy.LasHeader(point_format=0, version="1.2")
    header.scales, header.offsets = [scale] * 3, [offset] * 3
    las = laspy.LasData(header)
    las.X, las.Y, las.Z = np.array(raw, np.int32).T
    path = tmp_path_factory.mktemp("las") / "a.las"
    las.write(path)
    np.testing.assert_array_equal(open_cloud(path).coordinates, np.array(raw, np.float64) * scale + offset)


# --------------------------------------------------------------------------------------------------- what is refused


def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    def said(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="must") as refused:
            open_cloud(tmp_path / name)
        assert name in str(refused.value)
        return str(refused.value)

    assert "pdal translate" in said("a.e57", b"ASTM-E57")
    assert "name the columns, such as x,y,z,label" in said("a.txt", b"512743.6 5403547.3 308.7 0\n")
    assert "must name the columns x, y and z, got east, north" in said("b.csv", b"east,north\n1,2\n")
    assert "column x" in said("c.csv", b"x;y;z\n1,5;2;3\n")
    assert "complete .ply file" in said("a.ply", b"ply\nformat ascii 1.0\n")
    assert "complete .pcd file" in said("a.pcd", b"VERSION 0.7\nFIELDS x y z\n")
    assert "complete .npz file" in said("a.npz", b"nothing")
    assert "hold a point" in said("d.csv", b"x,y,z\n")
    write_las(tmp_path / "whole.laz")
    assert "complete .laz file" in said("cut.laz", (tmp_path / "whole.laz").read_bytes()[:-200])
    assert "complete .las file" in said("no.las", b"LASF")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.las"):
        open_cloud(tmp_path / "nowhere.las")
    with pytest.raises(ValueError, match="must hold a field 'height', got intensity"):
        open_cloud(tmp_path / "whole.laz").field("height")
    with pytest.raises(ValueError, match="names that are free, got intensity"):
        saved(open_cloud(tmp_path / "whole.laz"), tmp_path, intensity=CODES)


@pytest.mark.parametrize(("name", "package"), [("a.laz", "laspy"), ("a.ply", "plyfile"), ("a.pcd", "pypcd4")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"'{package}'; install it with: pip install 'ccnn-irregular\[formats\]'"):
        open_cloud(tmp_path / name)


def test_clouds_of_a_folder_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c.ply", "b/a.LAZ", "a.csv", ".hidden.las", "notes.md"):
        (tmp_path / name).write_text("x,y,z\n" if name == "a.csv" else "")
    assert [path.relative_to(tmp_path).as_posix() for path in cloud_paths(tmp_path)] == ["a.csv", "b/a.LAZ", "c.ply"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="must hold clouds"):
        cloud_paths(tmp_path / "empty")
