"""Cells of meshes: their areas and positions, as files say them (UGRID, HEALPix, CF).

Areas are in square degrees, as products of latitude and longitude widths are: those of a sphere sum to
``4 pi (180 / pi)^2``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast, final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.healpix import healpix_places
from ccnn_irregular.adapters.mesh_areas import STERADIAN, bounded_areas, middles, polygon_areas
from ccnn_irregular.adapters.xarray_units import compass

__all__ = ["Areas", "CellsOf", "about_places"]

Floats = NDArray[np.float64]

_EARTH = 6.371e6  # metres: the mean radius, where a file names none
_SQUARE_METRES = {"m2": 1.0, "km2": 1e6}
_ANGLES = {"sr": STERADIAN, "steradian": STERADIAN, "steradians": STERADIAN, "rad2": STERADIAN}
_ANGLES |= {"radian2": STERADIAN, "radians2": STERADIAN, "degree2": 1.0, "degrees2": 1.0, "deg2": 1.0}
_ORDERS = {"nested": "nested", "nest": "nested", "ring": "ring"}
_LEVELS = ("refinement_level", "healpix_level", "level")
_SIDES = ("healpix_nside", "nside")


@final
@dataclass(frozen=True)
class Areas:
    """Areas of cells, and their origin.

    Attributes:
        cells: square degrees, by the dimensions of the cells; nan where it is not known.
        rule: where they are from, in words.
        given: by the user: they are taken as they are, in any unit.
    """

    cells: xr.DataArray
    rule: str
    given: bool = False


def _said(variable: Any, key: str) -> str | None:
    """Return an attribute of a variable, or what xarray made of it when it decoded the file."""
    found = variable.attrs.get(key, variable.encoding.get(key))
    return None if found is None else str(found)


def about_places(dataset: xr.Dataset) -> set[str]:
    """List the variables that describe the cells of others: bounds, areas, and the parts of a mesh."""
    found: set[str] = set()
    for name, variable in dataset.variables.items():
        found.update(filter(None, [_said(variable, "bounds")]))
        words = (_said(variable, "cell_measures") or "").replace(":", " ").split()
        found.update(words[1::2])
        if variable.attrs.get("standard_name") in ("cell_area", "healpix_index"):
            found.add(str(name))
        if variable.attrs.get("cf_role") == "mesh_topology":
            for key, text in variable.attrs.items():
                found.update(str(text).split() if str(key).endswith(("_connectivity", "_coordinates")) else ())
    return found


@final
class CellsOf:
    """The description, in a file, of the cells of one of its variables.

    Args:
        variable: with the attributes ``mesh``, ``location``, ``grid_mapping``, ``cell_measures``.
        about: what stands beside it: the Dataset, or the coordinates of a DataArray.
    """

    def __init__(self, variable: Any, about: xr.Dataset) -> None:
        self._variable = variable
        self._dims = tuple(map(str, variable.dims))
        self._about = about

    def positions(self) -> dict[str, xr.DataArray]:
        """Return latitudes and longitudes of cells that the variable has not as coordinates."""
        if (mesh := self._mesh) is not None:
            return self._mesh_positions(*mesh)
        if (pixels := self._healpix) is not None:
            dim, places, _ = pixels
            return {name: _coordinate(name, (dim,), values) for name, values in places.items()}
        return {}

    def areas(self, dims: tuple[str, ...], latitude: xr.DataArray, longitude: xr.DataArray) -> Areas | None:
        """Return the areas of the cells on ``dims``, or None where the file states none.

        Raises:
            ValueError: areas of a unit that is none, a mesh or bounds that are none.
        """
        mesh, pixels = self._mesh, self._healpix
        if (measured := self._measured(dims)) is not None:
            return Areas(self.square_degrees(measured), f"areas of the file, {measured.name!r}")
        if mesh is not None and dims == (mesh[1],):
            return Areas(self._mesh_areas(*mesh), f"areas of the mesh {str(mesh[0].name)!r}")
        if pixels is not None and dims == (pixels[0],):
            dim, places, area = pixels
            count = len(places["latitude"])
            return Areas(xr.DataArray(np.full(count, area), dims=(dim,)), "the area of a HEALPix pixel")
        bounds = [_said(centre, "bounds") for centre in (latitude, longitude)]
        if all(name is not None and name in self._about.variables for name in bounds):
            corners = [self._corners(cast("str", name), dims) for name in bounds]
            return Areas(
                xr.DataArray(bounded_areas(*corners), dims=dims), f"areas within {bounds[0]!r} and {bounds[1]!r}"
            )
        return None

    def square_degrees(self, areas: xr.DataArray) -> xr.DataArray:
        """Convert areas to square degrees; those in square metres lie on a sphere as large as the file's earth."""
        radius = _earth_radius(self._about, self._mapping())
        return _square_degrees(areas, radius)

    def lacking(self, latitude: xr.DataArray, longitude: xr.DataArray) -> str | None:
        """Describe what the variable's attributes name and the array lacks."""
        names = [("mesh", _said(self._variable, "mesh"))]
        names += [("cell areas", name) for name in self._measure_names()]
        names += [("bounds", _said(centre, "bounds")) for centre in (latitude, longitude)]
        lost = [f"{what} {name!r}" for what, name in names if name is not None and name not in self._about.variables]
        if self._variable.attrs.get("location") == "edge":
            lost.append("areas that belong to edges")
        if self._variable.attrs.get("CDI_grid_type") == "unstructured":
            lost.append("cells of an unstructured grid")
        return ", ".join(lost) or None

    def _mapping(self) -> str | None:
        """Return the name of the grid mapping, of the first where the long form names several."""
        words = (_said(self._variable, "grid_mapping") or "").replace(":", " ").split()
        return words[0] if words else None

    # Cell measures.

    def _measure_names(self) -> list[str]:
        words = (_said(self._variable, "cell_measures") or "").replace(":", " ").split()
        return [name for what, name in zip(words[::2], words[1::2], strict=False) if what == "area"]

    def _measured(self, dims: tuple[str, ...]) -> xr.DataArray | None:
        """Return the variable that holds the areas of cells on ``dims``."""
        about = self._about
        named = [name for name in self._measure_names() if name in about.variables]
        named += [
            str(name)
            for name, variable in about.variables.items()
            if variable.attrs.get("standard_name") == "cell_area"
        ]
        fitting = [about[name] for name in dict.fromkeys(named) if set(map(str, about[name].dims)) == set(dims)]
        return fitting[0].transpose(*dims) if fitting else None

    def _corners(self, name: str, dims: tuple[str, ...]) -> Floats:
        """Return bounds ``(*dims, corners)``."""
        bounds = self._about[name]
        rest = [str(dim) for dim in bounds.dims if dim not in dims]
        fits = len(rest) == 1 and set(dims) <= set(map(str, bounds.dims))
        require(fits, f"bounds {name!r}", f"run along {list(dims)} and one dimension of corners", list(bounds.dims))
        return bounds.transpose(*dims, rest[0]).to_numpy().astype(np.float64)

    # UGRID.

    @cached_property
    def _mesh(self) -> tuple[xr.DataArray, str] | None:
        """Return the mesh of the variable, and the dimension of its faces or nodes that the variable has."""
        name = _said(self._variable, "mesh")
        if name is None or name not in self._about.variables:
            return None
        mesh = self._about[name]
        location = _said(self._variable, "location") or "face"
        if location == "edge" or "face_node_connectivity" not in mesh.attrs:
            return None
        lacking = [needed for needed in self._mesh_names(mesh) if needed not in self._about.variables]
        require(not lacking, f"mesh {name!r}", "come with its nodes and faces", f"none of the name {lacking}")
        nodes, faces = self._mesh_names(mesh)[:2], self._about[mesh.attrs["face_node_connectivity"]]
        dims = self._about[nodes[0]].dims if location == "node" else faces.dims
        met = [str(dim) for dim in dims if dim in self._dims]
        return (mesh, met[0]) if len(met) == 1 else None

    @staticmethod
    def _mesh_names(mesh: xr.DataArray) -> list[str]:
        nodes = str(mesh.attrs.get("node_coordinates", "")).split()
        require(len(nodes) >= 2, f"mesh {str(mesh.name)!r}", "name two node_coordinates", nodes)
        return [*nodes[:2], str(mesh.attrs["face_node_connectivity"])]

    def _nodes(self, mesh: xr.DataArray) -> tuple[Floats, Floats]:
        """Return latitudes and longitudes of the nodes."""
        found: dict[str, Floats] = {}
        for name in self._mesh_names(mesh)[:2]:
            centres = self._about[name]
            unit = str(centres.attrs.get("units", ""))
            way = compass(unit)
            kind = str(centres.attrs.get("standard_name", "latitude" if way in ("north", "south") else ""))
            kind = kind or ("longitude" if way in ("east", "west") else "")
            scale = math.degrees(1) if unit.lower().startswith("rad") else -1.0 if way in ("south", "west") else 1.0
            found[kind] = scale * centres.to_numpy().astype(np.float64)
        rule = "have latitudes and longitudes as node_coordinates; pass the areas of other cells as weights="
        require(set(found) == {"latitude", "longitude"}, f"mesh {str(mesh.name)!r}", rule, sorted(found))
        return found["latitude"], found["longitude"]

    def _faces(self, mesh: xr.DataArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the node of each corner ``(faces, corners)``, and which corners exist: faces may have fewer."""
        name = str(mesh.attrs["face_node_connectivity"])
        faces = self._about[name]
        dim = str(mesh.attrs.get("face_dimension", next((d for d in faces.dims if d in self._dims), faces.dims[0])))
        table = faces.transpose(dim, ...).to_numpy()
        start = int(faces.attrs.get("start_index", 0))
        count = self._about[self._mesh_names(mesh)[0]].size
        fill = faces.attrs.get("_FillValue", faces.encoding.get("_FillValue"))
        used = np.isfinite(table) & (table >= start)
        used &= table != fill if fill is not None else True
        corners = np.where(used, table, start).astype(np.int64) - start
        rule = f"hold nodes from {start} to {start + count - 1}"
        last = int(corners.max(initial=0))
        require(last < count, f"connectivity {name!r}", rule, last + start)
        return corners, used

    def _mesh_corners(self, mesh: xr.DataArray) -> tuple[Floats, Floats]:
        """Return latitudes and longitudes ``(faces, corners)``, nan where a face has fewer."""
        corners, used = self._faces(mesh)
        latitudes, longitudes = self._nodes(mesh)
        return np.where(used, latitudes[corners], np.nan), np.where(used, longitudes[corners], np.nan)

    def _mesh_areas(self, mesh: xr.DataArray, dim: str) -> xr.DataArray:
        """Compute areas of faces; a node gets an equal part of each of its faces."""
        areas = polygon_areas(*self._mesh_corners(mesh))
        if _said(self._variable, "location") == "node":
            corners, used = self._faces(mesh)
            shares = np.where(used, (areas / used.sum(1))[:, None], 0.0)
            areas = np.bincount(corners.ravel(), shares.ravel(), self._about.sizes[dim]).astype(np.float64)
        return xr.DataArray(areas, dims=(dim,))

    def _mesh_positions(self, mesh: xr.DataArray, dim: str) -> dict[str, xr.DataArray]:
        if _said(self._variable, "location") == "node":
            latitudes, longitudes = self._nodes(mesh)
        else:
            named = [name for name in str(mesh.attrs.get("face_coordinates", "")).split() if name in self._about]
            if len(named) >= 2:
                return {name: self._about[name] for name in named}
            latitudes, longitudes = middles(*self._mesh_corners(mesh))
        return {
            "latitude": _coordinate("latitude", (dim,), latitudes),
            "longitude": _coordinate("longitude", (dim,), longitudes),
        }

    # HEALPix.

    @cached_property
    def _healpix(self) -> tuple[str, dict[str, Floats], float] | None:
        """Return the dimension of the pixels, their latitudes and longitudes, and the area of each."""
        found = list(self._healpix_attributes())
        if not found:
            return None
        about = found[0]
        level = next((int(about[key]) for key in _LEVELS if key in about), None)
        nside = next((int(about[key]) for key in _SIDES if key in about), None if level is None else 2**level)
        if nside is None:
            reject("HEALPix grid mapping", f"say its size by one of {(*_LEVELS, *_SIDES)}", sorted(map(str, about)))
        order = str(next((about[key] for key in ("indexing_scheme", "healpix_order", "order") if key in about), "none"))
        require(order in _ORDERS, "indexing_scheme of HEALPix", f"be one of {sorted(_ORDERS)}", repr(order))
        dim, pixels = self._pixels(12 * nside**2)
        if dim is None:
            return None
        latitudes, longitudes = healpix_places(pixels, nside, _ORDERS[order])  # type: ignore[arg-type]
        area = 4 * math.pi / (12 * nside**2) * STERADIAN
        return dim, {"latitude": latitudes, "longitude": longitudes}, area

    def _healpix_attributes(self) -> Iterator[Mapping[Hashable, Any]]:
        named = self._mapping()
        for name, described in self._about.variables.items():
            if described.attrs.get("grid_mapping_name") == "healpix" and named in (None, str(name)):
                yield described.attrs
            if described.attrs.get("grid_name") == "healpix":
                yield described.attrs

    def _pixels(self, count: int) -> tuple[str | None, NDArray[np.int64]]:
        """Return the dimension of the pixels and their numbers."""
        sizes = {str(dim): size for dim, size in self._variable.sizes.items()}
        for name, numbered in self._about.variables.items():
            index = (
                numbered.attrs.get("standard_name") == "healpix_index" or numbered.attrs.get("grid_name") == "healpix"
            )
            index |= str(name) in ("healpix_index", "cell_ids") or (name in self._dims and name in ("cell", "cells"))
            if index and numbered.dtype.kind in "iu" and numbered.ndim == 1 and str(numbered.dims[0]) in self._dims:
                return str(numbered.dims[0]), numbered.to_numpy().astype(np.int64)
        whole = [dim for dim, size in sizes.items() if size == count]
        if len(whole) != 1:
            mapped = [dim for dim in self._dims if dim in ("cell", "cells", "pix", "pixel", "healpix")]
            rule = f"be a whole map of {count} pixels, or have their numbers in a coordinate 'healpix_index'"
            require(not mapped, f"dimension {mapped[:1]} of a HEALPix map", rule, sizes)
            return None, np.empty(0, np.int64)
        return whole[0], np.arange(count)


def _square_degrees(areas: xr.DataArray, radius: float) -> xr.DataArray:
    """Convert areas to square degrees by unit; those in metres lie on a sphere of ``radius`` metres.

    Raises:
        ValueError: a unit that is none of an area, negative or infinite areas.
    """
    given = str(areas.attrs.get("units", ""))
    unit = given.lower().replace("*", "").replace("^", "").replace(" ", "").replace("square", "")
    at = f"areas {str(areas.name)!r}"
    known = (*_SQUARE_METRES, *_ANGLES)
    require(unit in known, f"unit of {at}", f"be one of {known}, or be passed as weights=", repr(given))
    scale = _SQUARE_METRES[unit] / radius**2 * STERADIAN if unit in _SQUARE_METRES else _ANGLES[unit]
    values = areas.to_numpy().astype(np.float64)
    bad = int((np.isinf(values) | (values < 0)).sum())
    require(bad == 0, at, "be finite and not negative", f"{bad} that are not")
    return xr.DataArray(scale * values, dims=areas.dims)


def _earth_radius(about: xr.Dataset, mapping: str | None) -> float:
    """Return the radius of the sphere of the same area as the file's earth, metres."""
    attributes = about.variables[mapping].attrs if mapping in about.variables else {}
    if "earth_radius" in attributes:
        return float(attributes["earth_radius"])
    if "semi_major_axis" not in attributes:
        return _EARTH
    major = float(attributes["semi_major_axis"])
    flattening = float(attributes.get("inverse_flattening", 0.0))
    minor = float(attributes.get("semi_minor_axis", major * (1 - 1 / flattening) if flattening else major))
    return (2 * major + minor) / 3


def _coordinate(name: str, dims: tuple[str, ...], values: Floats) -> xr.DataArray:
    return xr.DataArray(values, dims=dims, name=name, attrs={"standard_name": name, "units": "degrees"})


# Cells of a curvilinear mesh, of which only the middles are known.
