"""Areas of the cells of meshes: compared with analytic areas, and fields smoothed with sums written out."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ccnn_irregular import SIREN, ContinuousConv, GaussianMask, Kernel, Points, Solver
from ccnn_irregular.adapters.healpix import healpix_places
from ccnn_irregular.adapters.xarray import DataArrayAccessor, DatasetAccessor
from ccnn_irregular.quadrature import spherical_polygons

Floats = np.ndarray
SPHERE = 4 * math.pi * math.degrees(1) ** 2  # square degrees
NORTH = {"units": "degrees_north", "standard_name": "latitude"}
EAST = {"units": "degrees_east", "standard_name": "longitude"}


def weights(of: xr.DataArray | DataArrayAccessor | DatasetAccessor) -> Floats:
    (cloud,) = (of.ccnn if isinstance(of, xr.DataArray) else of).frame().factors
    return cloud.weights


def conv(width: float) -> ContinuousConv:
    torch.manual_seed(1)
    kernel = Kernel(SIREN(2, 1, 8, omega_0=2.0), GaussianMask([width] * 2), extent=[3 * width] * 2)
    return ContinuousConv(kernel.double(), bias=False, solver=Solver("reference")).double().requires_grad_(False)


def unit(latitude: Floats, longitude: Floats) -> Floats:
    north, east = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], -1)


def places(vectors: Floats) -> tuple[Floats, Floats]:
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def tilted(latitude: Floats, longitude: Floats, angle: float = 37.0) -> tuple[Floats, Floats]:
    """The same places on a globe whose pole lies elsewhere: areas stay."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return places(unit(latitude, longitude) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T)


def mesh(latitude: Floats, longitude: Floats, values: Floats | None = None) -> xr.DataArray:
    coordinates = {"lat": (("y", "x"), latitude, NORTH), "lon": (("y", "x"), longitude, EAST)}
    return xr.DataArray(np.ones(latitude.shape) if values is None else values, coordinates, ("y", "x"), "t")


def lattice(south: float, north: float, west: float, east: float, step: float) -> tuple[Floats, Floats]:
    """Middles of boxes of latitude and longitude."""
    rows, columns = np.arange(south + step / 2, north, step), np.arange(west + step / 2, east, step)
    return tuple(np.meshgrid(rows, columns, indexing="ij"))  # type: ignore[return-value]


def boxes(latitude: Floats, step: float) -> Floats:
    upper, lower = np.sin(np.radians(latitude + step / 2)), np.sin(np.radians(latitude - step / 2))
    return np.degrees(upper - lower) * step


# Curvilinear meshes whose cells are known by their middles alone.


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("start", [0.0, -180.0])
def test_a_regular_mesh_weighs_what_its_lines_do(start: float, swapped: bool) -> None:
    rows, columns = np.linspace(90, -90, 19), start + np.arange(0, 361, 10)
    values = np.ones((19, 37))
    line = xr.DataArray(values, {"lat": ("lat", rows, NORTH), "lon": ("lon", columns, EAST)}, ("lat", "lon"))
    bands, circle = (one.widths for one in line.ccnn.frame().factors)
    latitude, longitude = np.meshgrid(rows, columns, indexing="ij")
    array = mesh(latitude.T, longitude.T) if swapped else mesh(latitude, longitude)
    found = weights(array).reshape(array.shape)
    found = found.T if swapped else found
    assert found.sum() == pytest.approx(SPHERE, rel=1e-12)
    # The lines rise; the first meridian is stored twice and counts once, at the poles too.
    wanted = np.multiply.outer(bands, np.append(circle, circle[0]))[::-1]
    wanted[:, [0, -1]] /= 2
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("poles", [False, True])
def test_a_tilted_globe_is_covered_once(poles: bool) -> None:
    rows = np.arange(-90, 91, 3.0) if poles else np.arange(-88.5, 90, 3)
    latitude, longitude = np.meshgrid(rows, np.arange(0, 360, 4.0), indexing="ij")
    found = weights(mesh(*tilted(latitude, longitude))).reshape(latitude.shape)
    edges = np.clip(np.stack([latitude - 1.5, latitude + 1.5]), -90, 90)
    wanted = np.degrees(np.diff(np.sin(np.radians(edges)), axis=0)[0]) * 4
    assert found.sum() == pytest.approx(SPHERE, rel=1e-4 if poles else 1e-12)
    np.testing.assert_allclose(found, wanted, rtol=3e-3)


@pytest.mark.parametrize("twice", [1, 2])
def test_columns_that_a_mesh_has_twice_count_once(twice: int) -> None:
    latitude, longitude = lattice(-80, 80, 0, 360, 4)
    around = np.arange(-twice + 1, 91) % 90 if twice == 2 else np.append(np.arange(90), 0)
    array = mesh(*(one[:, around] for one in tilted(latitude, longitude)))
    found, once = weights(array).reshape(array.shape), weights(mesh(*tilted(latitude, longitude)))
    assert found.sum() == pytest.approx(once.sum(), rel=1e-9)
    np.testing.assert_allclose(found, once.reshape(latitude.shape)[:, around] / np.bincount(around)[around], rtol=1e-9)


@pytest.mark.parametrize("metres", [1000, 100, 10, 1, 0.1])
@pytest.mark.parametrize("turn", [0.0, 20.0])
def test_fine_cells_have_their_area(metres: float, turn: float) -> None:
    step, angle = metres / 111195, np.radians(turn)
    i, j = np.meshgrid(np.arange(30.0), np.arange(20.0))
    latitude = 40 + step * (np.sin(angle) * i + np.cos(angle) * j)
    longitude = 10 + step * (np.cos(angle) * i - np.sin(angle) * j) / np.cos(np.radians(40))
    np.testing.assert_allclose(weights(mesh(latitude, longitude)), step**2, rtol=max(4e-3 * metres / 1000, 1e-5))


def test_cells_beside_missing_positions_keep_their_area() -> None:
    latitude, longitude = tilted(*lattice(20, 60, 0, 40, 2))
    whole = weights(mesh(latitude, longitude)).reshape(latitude.shape)
    missing = np.random.default_rng(0).random(latitude.shape) < 0.3
    missing[5:9, 4:12] = True
    missing[6, 7] = False  # on its own
    missing[12, :] = missing[14, :] = True
    missing[13, 2:-2] = False  # a channel one cell wide
    holed = mesh(np.where(missing, np.nan, latitude), np.where(missing, np.nan, longitude))
    samples = holed.ccnn.to_samples()
    assert isinstance(samples.domain, Points)
    assert samples.omitted == missing.sum()
    ratio = samples.domain.weights.numpy() / whole[~missing]
    # The channel and the lone cell are as wide as the nearest cell that has neighbours.
    assert 0.7 < ratio.min() <= ratio.max() < 1.4
    assert np.mean(np.abs(ratio - 1) < 0.02) > 0.9


def test_smoothing_ones_across_a_hole_is_the_sum_over_the_cells() -> None:
    latitude, longitude = tilted(*lattice(20, 40, 0, 20, 1))
    wanted_areas = boxes(lattice(20, 40, 0, 20, 1)[0], 1.0)
    missing = np.zeros(latitude.shape, dtype=bool)
    missing[8:11, 9] = True
    array = mesh(np.where(missing, np.nan, latitude), np.where(missing, np.nan, longitude))
    layer = conv(2.0)
    found = array.ccnn.convolve(layer).values[~missing]
    spots = np.stack([latitude[~missing], longitude[~missing]], 1)
    kernel = layer.kernel(torch.from_numpy(spots[:, None] - spots[None]))[..., 0].numpy()
    wanted = kernel @ wanted_areas[~missing]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())


def test_plain_degrees_are_areas_over_the_cosine() -> None:
    latitude, longitude = lattice(-80, 80, 0, 360, 2)
    (regular,) = mesh(latitude, longitude).ccnn(area_weights=False).frame().factors
    np.testing.assert_allclose(regular.weights, 4.0, rtol=1e-9)
    skewed = mesh(latitude + 0.01 * np.sin(np.radians(longitude)), longitude)
    (cloud,) = skewed.ccnn(area_weights=False).frame().factors
    np.testing.assert_allclose(cloud.weights, 4.0, rtol=5e-3)


def test_a_mesh_of_no_neighbours_asks_for_weights() -> None:
    latitude, longitude = tilted(*lattice(0, 4, 0, 4, 1))
    lone = (np.indices(latitude.shape).sum(0) % 2).astype(bool)
    with pytest.raises(ValueError, match=r"have neighbours along both dimensions; pass the areas .* as weights="):
        mesh(np.where(lone, np.nan, latitude), np.where(lone, np.nan, longitude)).ccnn.frame()


# Areas that a file says.


def corners(latitude: Floats, longitude: Floats, step: float) -> tuple[Floats, Floats]:
    half = step / 2 * np.array([[-1, -1, 1, 1], [-1, 1, 1, -1]])
    return latitude[..., None] + half[0], longitude[..., None] + half[1]


def bounded(latitude: Floats, longitude: Floats, north: Floats, east: Floats, dims: tuple[str, ...]) -> xr.Dataset:
    return xr.Dataset(
        {
            "t": (dims, np.ones(latitude.shape)),
            "lat_bnds": ((*dims, "nv"), north),
            "lon_bnds": ((*dims, "nv"), east),
        },
        {
            "lat": (dims, latitude, NORTH | {"bounds": "lat_bnds"}),
            "lon": (dims, longitude, EAST | {"bounds": "lon_bnds"}),
        },
    )


def test_bounds_of_boxes_give_unstructured_points_the_areas_of_the_regular_grid() -> None:
    latitude, longitude = lattice(-90, 90, 0, 360, 15)
    north, east = corners(latitude, longitude, 15)
    wanted = boxes(latitude, 15).ravel()
    flat = bounded(latitude.ravel(), longitude.ravel(), north.reshape(-1, 4), east.reshape(-1, 4), ("cell",))
    np.testing.assert_allclose(weights(flat.ccnn("t")), wanted, rtol=1e-12)
    # Corners in other turns, and the two ends alone.
    turned = flat.assign(lon_bnds=(flat.lon_bnds + 180) % 360 - 180)
    np.testing.assert_allclose(weights(turned.ccnn("t")), wanted, rtol=1e-9)
    ends = flat.isel(nv=[0, 2])
    np.testing.assert_allclose(weights(ends.ccnn("t")), wanted, rtol=1e-12)
    line = xr.DataArray(
        np.ones(latitude.shape),
        {"lat": ("lat", latitude[:, 0], NORTH), "lon": ("lon", longitude[0], EAST)},
        ("lat", "lon"),
    )
    layer = conv(20.0)
    found = flat.ccnn("t").convolve(layer)["t"].values.reshape(latitude.shape)
    np.testing.assert_allclose(found, line.ccnn.convolve(layer), rtol=1e-9)


def test_bounds_of_a_tilted_mesh_are_exact_over_date_line_and_poles() -> None:
    latitude, longitude = lattice(-90, 90, 0, 360, 10)
    north, east = corners(latitude, longitude, 10)
    dataset = bounded(*tilted(latitude, longitude), *tilted(north, east), ("y", "x"))
    found = weights(dataset.ccnn("t")).reshape(latitude.shape)
    assert found.sum() == pytest.approx(SPHERE, rel=1e-12)
    # Great circles between the corners: the same for every cell of a row, whether or not it lies on a seam.
    np.testing.assert_allclose(found, found[:, :1] * np.ones(36), rtol=1e-10)
    np.testing.assert_allclose(found, boxes(latitude, 10), rtol=6e-3)


@pytest.mark.parametrize(
    ("units", "scale"),
    [
        ("m2", 6.371e6**2),
        ("m^2", 6.371e6**2),
        ("km2", 6371.0**2),
        ("steradian", 1.0),
        ("radians^2", 1.0),
        ("degree2", math.degrees(1) ** 2),
    ],
)
@pytest.mark.parametrize("named", ["cell_measures", "standard_name", "weights"])
def test_areas_of_the_file_in_any_unit(units: str, scale: float, named: str) -> None:
    rng = np.random.default_rng(0)
    steradians = rng.uniform(1e-3, 2e-3, 50)
    about = {"units": units} | ({"standard_name": "cell_area"} if named == "standard_name" else {})
    measures = {"cell_measures": "volume: volcello area: areacella"} if named == "cell_measures" else {}
    dataset = xr.Dataset(
        {
            "t": (("cell",), rng.standard_normal(50), measures),
            "areacella": (("cell",), scale * steradians, about),
        },
        {"lat": (("cell",), rng.uniform(-60, 60, 50), NORTH), "lon": (("cell",), rng.uniform(0, 360, 50), EAST)},
    )
    options = {"weights": "areacella"} if named == "weights" else {}
    accessor = dataset.ccnn("t", **options)
    np.testing.assert_allclose(weights(accessor), math.degrees(1) ** 2 * steradians, rtol=1e-12)
    if named == "cell_measures":  # no field of its own
        assert dataset.ccnn().to_samples().values.shape == (50, 1)
        with_radius = dataset.assign(crs=((), 0, {"earth_radius": 2 * 6.371e6}))
        with_radius["t"].attrs["grid_mapping"] = "crs"
        factor = 4 if "m" in units else 1
        np.testing.assert_allclose(
            factor * weights(with_radius.ccnn("t")), math.degrees(1) ** 2 * steradians, rtol=1e-12
        )


def test_areas_that_are_masked_or_wrong() -> None:
    latitude, longitude = tilted(*lattice(20, 60, 0, 40, 4))
    areas = boxes(lattice(20, 60, 0, 40, 4)[0], 4.0)
    dataset = mesh(latitude, longitude).to_dataset()
    dataset["t"].attrs["cell_measures"] = "area: areacello"
    land = np.zeros(areas.shape, dtype=bool)
    land[2:4, 3] = True
    masked = dataset.assign(areacello=(("x", "y"), np.where(land, np.nan, areas).T, {"units": "degree2"}))
    np.testing.assert_allclose(weights(masked.ccnn("t")), areas.ravel(), rtol=5e-3)
    for units, values, message in (
        ("", areas, "unit of areas 'areacello' must be one of"),
        ("K", areas, "unit of areas 'areacello' must be one of"),
        ("m2", -areas, "areas 'areacello' must be finite and not negative"),
    ):
        bad = dataset.assign(areacello=(("y", "x"), values, {"units": units}))
        with pytest.raises(ValueError, match=message):
            bad.ccnn("t").frame()
    # In another file: the positions tell.
    (cloud,) = dataset.ccnn("t").frame().factors
    assert cloud.rule == "areas between the positions"
    np.testing.assert_allclose(cloud.weights, areas.ravel(), rtol=5e-3)


def scattered(**attributes: str) -> xr.DataArray:
    rng = np.random.default_rng(1)
    coordinates = {"lat": ("cell", rng.uniform(-60, 60, 30), NORTH), "lon": ("cell", rng.uniform(0, 360, 30), EAST)}
    return xr.DataArray(rng.standard_normal((30, 2)), coordinates, ("cell", "member"), "t", attributes)


def test_weights_that_are_given() -> None:
    array = scattered().ccnn(samples="member")
    given = xr.DataArray(np.arange(30.0), dims=("cell",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cloud = scattered().ccnn(samples="member", weights=given).frame().factors[0]
        density = scattered().ccnn(samples="member", weights="scattered").frame().factors[0]
    np.testing.assert_array_equal(cloud.weights, given)
    assert "weights: as given" in str(scattered().ccnn(samples="member", weights=given).frame())
    with pytest.warns(UserWarning, match="nothing says what the points along cell stand for"):
        assert np.array_equal(array.frame().factors[0].weights, density.weights)
    # The weights of Gaussian latitudes, as models write them.
    sines, shares = np.polynomial.legendre.leggauss(8)
    line = xr.DataArray(np.ones((8, 2)), {"lat": ("lat", np.degrees(np.arcsin(sines)), NORTH)}, ("lat", "member"))
    line = line.assign_coords(gw=("lat", shares))
    (axis,) = line.ccnn(samples="member", weights="gw").frame().factors
    np.testing.assert_array_equal(axis.weights, shares)
    (axis,) = line.isel(lat=slice(None, None, -1)).ccnn(samples="member", weights="gw").frame().factors
    np.testing.assert_array_equal(axis.weights, shares)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("area", r"weights must be 'scattered', an array, or one of \['lat', 'lon'\], got 'area'"),
        (xr.DataArray(np.ones(29), dims=("cell",)), "weights must have the array's entries along 'cell', got 29"),
        (xr.DataArray(np.ones(2), dims=("member",)), "weights must run along the dimensions of one axis or set"),
        (xr.DataArray(-np.ones(30), dims=("cell",)), "weights must be finite and not negative, got 30"),
        (np.ones(30), "weights must be an array of xarray or a name, got ndarray"),
    ],
)
def test_weights_that_do_not_fit_are_refused(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scattered().ccnn(samples="member", weights=given).frame()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"mesh": "mesh2d", "location": "face"}, "no mesh 'mesh2d' with the array"),
        ({"cell_measures": "area: areacella"}, "no cell areas 'areacella' with the array"),
        ({"CDI_grid_type": "unstructured"}, "no cells of an unstructured grid with the array"),
    ],
)
def test_cells_whose_areas_are_elsewhere_are_not_guessed(attributes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"cells along cell must come with their areas: .*{message}"):
        scattered(**attributes).ccnn(samples="member").frame()
    scattered(**attributes).ccnn(samples="member", weights="scattered").frame()
    # As places where a result is wanted they need none.
    target = scattered(**attributes).isel(member=0)
    latitude, longitude = lattice(-60, 60, 0, 360, 20)
    assert mesh(latitude, longitude).ccnn.convolve(conv(20.0), like=target).shape == (30,)


def test_a_file_decoded_with_all_its_coordinates(tmp_path: Path) -> None:
    latitude, longitude = lattice(-90, 90, 0, 360, 15)
    north, east = (one.reshape(-1, 4) for one in corners(latitude, longitude, 15))
    dataset = bounded(latitude.ravel(), longitude.ravel(), north, east, ("cell",))
    areas = dataset.assign(areacella=(("cell",), boxes(latitude, 15).ravel() * 2, {"units": "degree2"}))
    areas["t"].attrs = {"cell_measures": "area: areacella", "grid_mapping": "crs: lat lon"}
    areas["crs"] = ((), 0, {"grid_mapping_name": "latitude_longitude"})
    areas["t"].encoding["coordinates"] = "lat lon"
    areas.to_netcdf(tmp_path / "areas.nc", engine="h5netcdf")
    for coordinates in ("all", True):
        with xr.open_dataset(tmp_path / "areas.nc", engine="h5netcdf", decode_coords=coordinates) as read:
            # What the file measured goes before its bounds.
            np.testing.assert_allclose(weights(read.ccnn("t")), 2 * boxes(latitude, 15).ravel(), rtol=1e-12)
            if coordinates == "all":
                np.testing.assert_allclose(weights(read["t"]), 2 * boxes(latitude, 15).ravel(), rtol=1e-12)
    dataset["t"].encoding["coordinates"] = "lat lon"
    dataset.to_netcdf(tmp_path / "bounds.nc", engine="h5netcdf")
    for coordinates in ("all", True):
        with xr.open_dataset(tmp_path / "bounds.nc", engine="h5netcdf", decode_coords=coordinates) as read:
            np.testing.assert_allclose(weights(read.ccnn("t")), boxes(latitude, 15).ravel(), rtol=1e-9)
            with pytest.raises(ValueError, match="come with their areas: use the accessor of the Dataset"):
                read["t"].ccnn.frame()


# UGRID.


def cubed_sphere(count: int) -> tuple[Floats, Floats, Floats]:
    """Latitudes and longitudes of the nodes, and the four nodes of each face, of a gnomonic cube."""
    ticks = np.tan(np.linspace(-np.pi / 4, np.pi / 4, count + 1))
    a, b = np.meshgrid(ticks, ticks, indexing="ij")
    one = np.ones_like(a)
    panels = [(one, a, b), (-a, one, b), (-one, -a, b), (a, -one, b), (-b, a, one), (b, a, -one)]
    vectors = np.stack([np.stack(panel, -1) for panel in panels])
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    nodes, index = np.unique(vectors.reshape(-1, 3).round(12), axis=0, return_inverse=True)
    index = index.reshape(6, count + 1, count + 1)
    faces = np.stack([index[:, :-1, :-1], index[:, 1:, :-1], index[:, 1:, 1:], index[:, :-1, 1:]], -1)
    return *places(nodes), faces.reshape(-1, 4)


def gnomonic_areas(count: int) -> Floats:
    """Areas of a panel's faces in square degrees: the solid angles of rectangles on the plane at distance 1."""
    ticks = np.tan(np.linspace(-np.pi / 4, np.pi / 4, count + 1))
    a, b = np.meshgrid(ticks, ticks, indexing="ij")
    corner = np.arctan(a * b / np.sqrt(1 + a**2 + b**2))
    return np.degrees(1) ** 2 * (corner[1:, 1:] - corner[1:, :-1] - corner[:-1, 1:] + corner[:-1, :-1])


def ugrid(count: int = 8, start: int = 0, face_coordinates: bool = True, location: str = "face") -> xr.Dataset:
    latitude, longitude, faces = cubed_sphere(count)
    middle = unit(latitude, longitude)[faces].mean(1)
    north, east = places(middle)
    topology = {
        "cf_role": "mesh_topology",
        "topology_dimension": 2,
        "node_coordinates": "node_x node_y",
        "face_node_connectivity": "face_nodes",
    }
    dim = "face" if location == "face" else "node"
    size = len(faces) if location == "face" else len(latitude)
    dataset = xr.Dataset(
        {
            "t": ((dim,), np.ones(size), {"mesh": "mesh2d", "location": location}),
            "mesh2d": ((), 0, topology),
            "node_x": (("node",), longitude, EAST),
            "node_y": (("node",), latitude, NORTH),
            "face_nodes": (("face", "corner"), faces + start, {"start_index": start}),
        }
    )
    if face_coordinates:
        dataset["mesh2d"].attrs["face_coordinates"] = "face_x face_y"
        dataset["face_x"], dataset["face_y"] = ("face", east, EAST), ("face", north, NORTH)
    return dataset


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("face_coordinates", [False, True])
@pytest.mark.parametrize("count", [5, 8])
def test_faces_of_a_cubed_sphere_have_their_areas(count: int, start: int, face_coordinates: bool) -> None:
    dataset = ugrid(count, start, face_coordinates)
    found = weights(dataset.ccnn("t"))
    np.testing.assert_allclose(found.reshape(6, count, count), [gnomonic_areas(count)] * 6, rtol=1e-9)
    (cloud,) = dataset.ccnn("t").frame().factors
    wanted = unit(*cubed_sphere(count)[:2])[cubed_sphere(count)[2]].mean(1)
    np.testing.assert_allclose(unit(*cloud.coordinates.T), wanted / np.linalg.norm(wanted, axis=1)[:, None], atol=1e-9)
    # The mesh itself is no field.
    assert dataset.ccnn().to_samples().values.shape == (6 * count**2, 1)


def test_a_cubed_sphere_survives_its_file(tmp_path: Path) -> None:
    dataset = ugrid(4, start=1)
    # Triangles beside the squares: corners that are not there.
    faces = dataset["face_nodes"].values
    split = np.concatenate([np.insert(faces[:1, :3], 3, -1, 1), np.insert(faces[:1, [0, 2, 3]], 3, -1, 1), faces[1:]])
    mixed = dataset.drop_dims("face").assign(
        t=(("face",), np.ones(len(split)), {"mesh": "mesh2d", "location": "face"}),
        face_nodes=(("corner", "face"), split.T.astype(np.int32), {"start_index": 1, "_FillValue": np.int32(-1)}),
    )
    mixed["mesh2d"].attrs["face_dimension"] = "face"
    del mixed["mesh2d"].attrs["face_coordinates"]
    mixed.to_netcdf(tmp_path / "mesh.nc", engine="h5netcdf")
    for masked in (True, False):
        with xr.open_dataset(tmp_path / "mesh.nc", engine="h5netcdf", mask_and_scale=masked) as read:
            found = weights(read.ccnn("t"))
        assert found.sum() == pytest.approx(SPHERE, rel=1e-9)
        np.testing.assert_allclose(found[2:], np.tile(gnomonic_areas(4).ravel(), 6)[1:], rtol=1e-9)
        assert found[:2].sum() == pytest.approx(gnomonic_areas(4)[0, 0], rel=1e-9)


def test_nodes_share_the_areas_of_their_faces() -> None:
    found = weights(ugrid(8, location="node").ccnn("t"))
    assert found.sum() == pytest.approx(SPHERE, rel=1e-9)
    latitude, _, faces = cubed_sphere(8)
    areas = np.tile(gnomonic_areas(8).ravel(), 6)
    wanted = [areas[(faces == node).any(1)].sum() / 4 for node in range(len(latitude))]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_a_mesh_is_smoothed_as_the_sum_over_its_faces() -> None:
    dataset, layer = ugrid(8), conv(15.0)
    dataset["t"] = dataset["t"].copy(data=np.random.default_rng(0).standard_normal(384))
    result = dataset.ccnn("t").convolve(layer)
    assert isinstance(result, xr.Dataset)
    assert set(result.variables) == set(dataset.variables)  # nothing is added
    north, east = dataset.face_y.values, dataset.face_x.values
    offsets = np.stack([north[:, None] - north, (east[:, None] - east + 180) % 360 - 180], -1)
    kernel = layer.kernel(torch.from_numpy(offsets))[..., 0].numpy()
    wanted = kernel @ (np.tile(gnomonic_areas(8).ravel(), 6) * dataset["t"].values)
    np.testing.assert_allclose(result["t"], wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


def test_nodes_of_a_mesh_may_count_west_and_south() -> None:
    """Nodes without a standard name: their unit says what they are, and which way they count."""
    dataset = ugrid(5, face_coordinates=False)
    wanted = dataset.ccnn("t").frame().factors[0]
    for name, unit_name in (("node_x", "degrees_west"), ("node_y", "degrees_south")):
        dataset[name] = ("node", -dataset[name].values, {"units": unit_name})
    found = dataset.ccnn("t").frame().factors[0]
    np.testing.assert_allclose(unit(*found.coordinates.T), unit(*wanted.coordinates.T), atol=1e-12)
    np.testing.assert_allclose(found.weights, wanted.weights, rtol=1e-9)


def test_values_of_a_mesh_at_places_and_of_a_grid_at_a_mesh() -> None:
    """Positions that a mesh gives are no coordinates of the array."""
    dataset, layer = ugrid(5, face_coordinates=False), conv(30.0)
    dataset["t"] = dataset["t"].copy(data=np.random.default_rng(0).standard_normal(150))
    here = dataset.ccnn("t").convolve(layer)
    (cloud,) = dataset.ccnn("t").frame().factors
    named = {"lat": ("face", cloud.coordinates[:, 0], NORTH), "lon": ("face", cloud.coordinates[:, 1], EAST)}
    there = xr.DataArray(np.zeros(150), named, ("face",))
    assert isinstance(here, xr.Dataset)
    at_places = dataset.ccnn("t").convolve(layer, like=there)
    assert isinstance(at_places, xr.DataArray)
    np.testing.assert_allclose(at_places.squeeze(), here["t"], rtol=0, atol=1e-9)
    pixels = healpix(4, "ring")["t"].isel(time=0, drop=True)
    own = pixels.ccnn.convolve(layer)
    np.testing.assert_allclose(pixels.ccnn.convolve(layer, like=pixels), own, rtol=0, atol=1e-9)


def test_meshes_that_are_no_meshes_are_refused() -> None:
    dataset = ugrid(2)
    for bad, message in (
        (dataset.drop_vars("face_nodes"), r"mesh 'mesh2d' must come with its nodes and faces, got none of the name"),
        (dataset.assign(face_nodes=dataset.face_nodes + 30), "connectivity 'face_nodes' must hold nodes from 0 to 25"),
        (
            dataset.assign(node_x=("node", dataset.node_x.values, {"units": "m"})),
            "mesh 'mesh2d' must have latitudes and longitudes as node_coordinates; pass the areas",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            bad.ccnn("t").frame()
    with pytest.raises(ValueError, match=r"its mesh 'mesh2d' is not with the array: use the accessor of the Dataset"):
        dataset["t"].ccnn.frame()


# HEALPix.


def healpix(nside: int, order: str, pixels: Floats | None = None, **mapping: object) -> xr.Dataset:
    about = {"grid_mapping_name": "healpix", "healpix_nside": nside, "healpix_order": order} | mapping
    count = 12 * nside**2 if pixels is None else len(pixels)
    dataset = xr.Dataset(
        {"t": (("time", "cell"), np.ones((2, count)), {"grid_mapping": "crs"})},
        {"crs": ((), 0, {k: v for k, v in about.items() if v is not None}), "time": ("time", [0.0, 1], {"axis": "T"})},
    )
    return dataset if pixels is None else dataset.assign_coords(healpix_index=("cell", pixels))


# Published values of the reference implementation (healpy 1.20.1, pix2ang).
KNOWN = {
    "nested": (
        [0, 5, 17, 90, 100, 150, 191],
        [45.0, 78.75, 146.25, 56.25, 202.5, 146.25, 315.0],
        [9.594068, 41.810315, 19.471221, 0.0, -9.594068, -41.810315, -9.594068],
    ),
    "ring": (
        [0, 5, 17, 90, 100, 150, 191],
        [45.0, 67.5, 165.0, 56.25, 281.25, 315.0, 315.0],
        [78.284148, 66.443536, 54.340912, 0.0, 0.0, -30.0, -78.284148],
    ),
}


@pytest.mark.parametrize("order", ["nested", "ring"])
def test_pixels_lie_where_healpix_has_them(order: str) -> None:
    pixels, longitudes, latitudes = KNOWN[order]
    found = healpix_places(np.array(pixels), 4, order)  # type: ignore[arg-type]
    np.testing.assert_allclose(found[0], latitudes, atol=1e-6)
    np.testing.assert_allclose(found[1], longitudes, atol=1e-6)


@pytest.mark.parametrize("nside", [1, 2, 16, 64])
def test_both_orders_hold_the_same_pixels_of_equal_area(nside: int) -> None:
    count = 12 * nside**2
    rows = {order: np.stack(healpix_places(np.arange(count), nside, order)) for order in ("nested", "ring")}  # type: ignore[arg-type]
    ring, nested = (rows[order][:, np.lexsort(rows[order].round(9))] for order in ("ring", "nested"))
    np.testing.assert_allclose(ring, nested, atol=1e-9)
    # Rings run from north to south and eastwards, and bands of equal area hold equally many pixels.
    assert np.all(np.diff(rows["ring"][0]) < 1e-9)
    sines = np.sin(np.radians(rows["ring"][0]))
    assert abs(np.mean(sines)) < 1e-12
    assert np.mean(sines**2) == pytest.approx(1 / 3, abs=0.5 / count)


def test_an_order_that_is_none_or_pixels_out_of_range() -> None:
    for pixels, nside, order, message in (
        ([48], 2, "ring", "pixels must lie between 0 and 47, got"),
        ([0], 3, "nested", "nside must be a power of two in the nested order, got 3"),
        ([0], 2, "zuniq", "order must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            healpix_places(np.array(pixels), nside, order)  # type: ignore[arg-type]


@pytest.mark.parametrize(("order", "wanted"), [("nest", "nested"), ("nested", "nested"), ("ring", "ring")])
@pytest.mark.parametrize("level", [False, True])
def test_a_healpix_map_has_equal_areas_at_its_places(order: str, wanted: str, level: bool) -> None:
    named = {"healpix_nside": None, "healpix_order": None, "refinement_level": 3, "indexing_scheme": order}
    dataset = healpix(8, order, **(named if level else {}))
    for accessor in (dataset.ccnn("t"), dataset["t"].ccnn):
        cloud = accessor.frame().factors[1]
        assert cloud.roles == ("latitude", "longitude")
        np.testing.assert_allclose(cloud.weights, SPHERE / 768, rtol=1e-12)
        places = np.stack(healpix_places(np.arange(768), 8, wanted), 1)  # type: ignore[arg-type]
        np.testing.assert_allclose(unit(*cloud.coordinates.T), unit(*places.T), atol=1e-12)
    result = dataset["t"].ccnn(samples="time").convolve(conv(15.0))
    assert list(result.coords) == list(dataset["t"].coords)  # nothing is added


def test_a_part_of_a_healpix_map_keeps_its_areas() -> None:
    pixels = np.array([700, 3, 5, 90, 411])
    cloud = healpix(8, "ring", pixels).ccnn("t").frame().factors[1]
    np.testing.assert_allclose(cloud.weights, SPHERE / 768, rtol=1e-12)
    wanted = unit(*healpix_places(pixels, 8, "ring"))
    np.testing.assert_allclose(unit(*cloud.coordinates.T), wanted, atol=1e-12)
    bare = healpix(8, "ring").isel(cell=slice(0, 100))
    with pytest.raises(ValueError, match="be a whole map of 768 pixels, or have their numbers in a coordinate"):
        bare.ccnn("t").frame()
    for mapping, message in (
        ({"healpix_nside": None}, "HEALPix grid mapping must say its size by one of"),
        ({"healpix_order": "zuniq"}, "indexing_scheme of HEALPix must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            healpix(8, "ring", **mapping).ccnn("t").frame()
    # Places of its own are kept.
    own = healpix(8, "ring").assign_coords(
        lat=("cell", np.linspace(-80, 80, 768), NORTH), lon=("cell", np.linspace(0, 359, 768), EAST)
    )
    cloud = own.ccnn("t").frame().factors[1]
    assert cloud.names == ("lat", "lon")
    np.testing.assert_allclose(cloud.weights, SPHERE / 768, rtol=1e-12)


def test_cell_ids_with_their_grid_are_healpix() -> None:
    grid = {"grid_name": "healpix", "level": 2, "indexing_scheme": "nested"}
    array = xr.DataArray(np.ones(20), {"cell_ids": ("cells", np.arange(20) + 40, grid)}, ("cells",))
    (cloud,) = array.ccnn.frame().factors
    np.testing.assert_allclose(cloud.weights, SPHERE / 192, rtol=1e-12)
    np.testing.assert_allclose(cloud.coordinates[:, 0], healpix_places(np.arange(20) + 40, 4, "nested")[0], atol=1e-9)


# Polygons.


def test_polygons_of_a_sphere() -> None:
    eighth = spherical_polygons(torch.tensor([[0.0, 0, 90, math.nan]]).double(), torch.tensor([[0.0, 90, 10, 5]]))
    assert float(eighth) == pytest.approx(math.pi / 2, rel=1e-12)
    cap = torch.linspace(0, 359, 360, dtype=torch.float64)[None]
    area = float(spherical_polygons(torch.full_like(cap, 60.0), cap, radius=2.0))
    assert area == pytest.approx(4 * 2 * math.pi * (1 - math.sin(math.radians(60))), rel=1e-3)
    # A square of a centimetre on the date line.
    side = 0.01 / 111195
    north = torch.tensor([[0.0, 0, side, side]], dtype=torch.float64)
    east = torch.tensor([[180 - side / 2, -180 + side / 2, -180 + side / 2, 180 - side / 2]], dtype=torch.float64)
    assert float(spherical_polygons(north, east)) == pytest.approx(math.radians(side) ** 2, rel=1e-4)
    for bad, message in (
        (torch.zeros(3), "latitudes must have shape"),
        (torch.tensor([[0.0, 1, 91]]), "latitudes must lie between -90 and 90"),
        (torch.tensor([[0.0, 1, math.nan]]), "polygons must have 3 corners or more, got 1 with fewer"),
        (torch.tensor([[0.0, 1, math.inf]]), "must be finite, or nan for no corner"),
    ):
        with pytest.raises(ValueError, match=message):
            spherical_polygons(bad, torch.zeros_like(bad))


def test_a_tripolar_ocean(shared_data: Path) -> None:
    with xr.open_dataset(shared_data / "climate" / "iris_orca2_votemper.nc", decode_times=False) as dataset:
        dataset = dataset.load()
    ocean = np.isfinite(dataset["votemper"].values).ravel()
    bounds, positions = weights(dataset.ccnn("votemper")), weights(dataset["votemper"])
    # The mesh of this file jumps over Africa and meets itself at its fold, where it has no water.
    assert positions[ocean].sum() == pytest.approx(bounds[ocean].sum(), rel=1e-4)
    assert np.mean(np.abs(positions[ocean] / bounds[ocean] - 1) < 0.02) > 0.99
    assert bounds[ocean].sum() / SPHERE == pytest.approx(0.70, abs=0.01)  # the share of the oceans
