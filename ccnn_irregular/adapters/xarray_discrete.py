"""Discrete sampling geometries of CF conventions (chapter 9): stations, profiles, tracks as one line of observations.

A file holds features (stations, profiles, trajectories) whose observations stand in one of four ways: end to end with
the number of each (contiguous ragged), mixed with the number of the feature of each (indexed ragged), or as a rectangle
(orthogonal, or incomplete with missing entries). Ragged profiles may belong to stations or trajectories themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require

__all__ = ["is_ragged", "observations"]

_OBSERVATION = "obs"
_ROLES = ("timeseries_id", "trajectory_id", "profile_id")  # cf_role
_FEATURE = "feature of "


def is_ragged(dataset: xr.Dataset) -> bool:
    """Whether a Dataset holds ragged arrays of CF conventions."""
    return any(
        {"sample_dimension", "instance_dimension"} & variable.attrs.keys() for variable in dataset.variables.values()
    )


def observations(dataset: xr.Dataset) -> xr.Dataset:
    """All observations of a Dataset along one dimension, each with what its feature has: place, id, time.

    Args:
        dataset: with a ragged array (a variable of attribute ``sample_dimension`` or ``instance_dimension``), or with
            rectangles.

    Returns:
        a Dataset of one dimension, "obs" or the file's own where there is one; variables of features are repeated for
        their observations, and where a feature has no name, its number stands under the name of its dimension.
        Coordinates stay coordinates. Entries of a rectangle that are missing in all variables are left out.

    Raises:
        ValueError: counts that do not add up to the observations, an index of a feature that is not there, several
            ragged dimensions of observations.
    """
    dataset, links = _linked(dataset)
    if not links:
        return _flat(dataset)
    ends = [dim for dim in links if dim not in links.values()]
    require(len(ends) == 1, "the file", "have one dimension of observations", ends)
    dim = inner = ends[0]
    while inner in links:
        dataset = _repeated(dataset, links[inner], _FEATURE + inner)
        inner = links.pop(inner)
    require(not links, "the file", "nest its ragged arrays", f"others along {', '.join(links)}")
    beside = [
        str(name) for name, variable in dataset.variables.items() if dim in variable.dims and variable.dims != (dim,)
    ]
    require(not beside, "the variables of observations", f"run along {dim!r} alone", ", ".join(beside))
    return _along(dataset, dim)


def _linked(dataset: xr.Dataset) -> tuple[xr.Dataset, dict[str, str]]:
    """The number of the feature of each observation, in a variable of our own; features by observation dimension."""
    links: dict[str, str] = {}
    for name, variable in list(dataset.variables.items()):
        attributes = variable.attrs
        if "sample_dimension" in attributes:
            dim, (feature,) = str(attributes["sample_dimension"]), map(str, variable.dims)
            counts = _integers(str(name), variable)
            require(dim in dataset.sizes, f"sample_dimension of {name!r}", "be a dimension", repr(dim))
            total = int(counts.sum())
            rule = f"add up to the {dataset.sizes[dim]} entries of {dim!r}"
            require(total == dataset.sizes[dim], f"the counts {name!r}", rule, total)
            index = np.repeat(np.arange(len(counts)), counts)
        elif "instance_dimension" in attributes:
            feature, (dim,) = str(attributes["instance_dimension"]), map(str, variable.dims)
            index = _integers(str(name), variable)
            require(feature in dataset.sizes, f"instance_dimension of {name!r}", "be a dimension", repr(feature))
            inside = (index >= 0) & (index < dataset.sizes[feature])
            rule = f"be numbers of the {dataset.sizes[feature]} entries of {feature!r}, from 0 on"
            require(bool(inside.all()), f"the index {name!r}", rule, index[~inside][:3].tolist())
        else:
            continue
        require(dim not in links, "the file", f"say once to which feature entries of {dim!r} belong", name)
        links[str(dim)] = str(feature)
        dataset = dataset.drop_vars(str(name)).assign({_FEATURE + str(dim): (dim, index)})
    return dataset, links


def _integers(name: str, variable: xr.Variable) -> NDArray[np.int64]:
    values = variable.to_numpy()
    whole = values.dtype.kind in "iuf" and variable.ndim == 1 and np.isfinite(values).all() and (values >= 0).all()
    if not whole or (values != np.round(values)).any():
        reject(f"{name!r}", "hold whole numbers along one dimension", f"{values.dtype} {values.reshape(-1)[:3]}")
    return values.astype(np.int64)


def _repeated(dataset: xr.Dataset, feature: str, index: str) -> xr.Dataset:
    """Variables of features at each of their observations, and the number of the feature where it has no other name."""
    of_features = [str(name) for name, variable in dataset.variables.items() if feature in variable.dims]
    spread = dataset[of_features].drop_indexes([name for name in of_features if name in dataset.indexes])
    spread = spread.isel({feature: dataset[index].variable})
    result = dataset.drop_vars([*of_features, index]).assign({name: spread[name].variable for name in of_features})
    if feature not in result.variables:
        result = result.assign({feature: dataset[index].variable})
    return result.set_coords([name for name in of_features if name in dataset.coords])


def _along(dataset: xr.Dataset, dim: str) -> xr.Dataset:
    """Variables along one dimension; a single number or id beside them holds for all of them."""
    size = dataset.sizes[dim]
    alone = {
        name: (dim, np.repeat(variable.to_numpy(), size), variable.attrs)
        for name, variable in dataset.variables.items()
        if not variable.dims and (variable.dtype.kind in "fmM" or variable.attrs.get("cf_role") in _ROLES)
    }
    along = dataset[[name for name, variable in dataset.variables.items() if dim in variable.dims]]
    along = along.drop_vars([name for name, coordinate in along.coords.items() if not coordinate.dims]).assign(alone)
    if dim in along.indexes:  # times of a lone series, which are not those of any other
        along = along.drop_indexes(dim).rename_dims({dim: _OBSERVATION})
    return along


def _flat(dataset: xr.Dataset) -> xr.Dataset:
    """The entries of rectangles one by one, without those where nothing was measured."""
    shapes = [dict(array.sizes) for array in dataset.data_vars.values() if array.dtype.kind in "fiu" and array.dims]
    require(len(shapes) > 0, "the file", "hold variables of observations", ", ".join(map(str, dataset.variables)))
    sizes = max(shapes, key=len)
    if len(sizes) == 1:
        return _along(dataset, str(next(iter(sizes))))
    first = str(next(iter(sizes)))
    if first not in dataset.variables and not any(
        variable.attrs.get("cf_role") in _ROLES for variable in dataset.variables.values()
    ):
        dataset = dataset.assign({first: (first, np.arange(sizes[first]))})  # which feature it is
    names = [str(name) for name, variable in dataset.variables.items() if set(variable.dims) <= set(sizes)]
    names = [name for name in names if dataset[name].dims or dataset[name].dtype.kind in "fmM"]
    flat, shape = {}, tuple(sizes.values())
    for name in names:
        variable = dataset[name].variable
        order = [dim for dim in sizes if dim in variable.dims]
        values = variable.transpose(*order).to_numpy().reshape([sizes[dim] if dim in order else 1 for dim in sizes])
        flat[name] = (_OBSERVATION, np.broadcast_to(values, shape).reshape(-1), variable.attrs)
    measured = [name for name in names if len(dataset[name].dims) == len(sizes) and name in dataset.data_vars]
    known = np.any([~_missing(flat[name][1]) for name in measured], axis=0)
    result = xr.Dataset(flat, attrs=dataset.attrs).set_coords([name for name in names if name in dataset.coords])
    return result.isel({_OBSERVATION: np.flatnonzero(known)})


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(xr.DataArray(values).isnull().to_numpy())
