"""Argo floats: profiles of one float from its core file ``<float>_prof.nc``.

Format and flags: Argo user's manual 3.1 (doi:10.13155/29825). A profile in delayed (D) or adjusted (A) mode has its
calibrated values in ``<PARAMETER>_ADJUSTED``, one in real time (R) only the raw ones. Files of biogeochemical floats
have a mode for each parameter of a profile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.reading.files import existing_folder, missing_file
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.samples.fields import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["GOOD", "load", "load_fields"]

GOOD = ("1", "2")  # good and probably good, reference table 2 of the manual

_FILL = 99999.0  # of all values and positions, whether the file's attributes say so or not

_NEEDED = ("JULD", "JULD_QC", "LATITUDE", "LONGITUDE", "POSITION_QC", "DATA_MODE", "PRES", "PRES_QC")


def load(path: str | Path, parameter: str = "TEMP", good: Sequence[str] = GOOD) -> xr.Dataset:
    """The values of one parameter that are flagged good, at their pressures, dates and positions.

    Args:
        path: a core file of a float, ``<float>_prof.nc``.
        parameter: "TEMP" or "PSAL", or another one that the file holds.
        good: flags a value, its pressure, and the date and position of its profile may have.

    Returns:
        A Dataset of dimensions ``profile`` and ``level`` with the parameter (float64, in its unit, nan where not
        measured or not good). Coordinates: ``time``, ``latitude``, ``longitude`` (NaT and nan where not good),
        ``cycle``, ``mode`` per profile, ``pressure (profile, level)`` in decibar, nan where not good. In modes D and A
        all are the adjusted ones. Of good values at the same pressure of a profile the first counts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no netCDF file, a truncated one, or one without the parameter (with those that there are).
    """
    import xarray as xr

    from ccnn_irregular.adapters.xarray_files import open_cube

    with open_cube(path) as dataset:
        parameters = sorted(name.removesuffix("_QC") for name in map(str, dataset.variables) if name.endswith("_QC"))
        lacking = [name for name in (*_NEEDED, parameter, f"{parameter}_QC") if name not in dataset.variables]
        rule = f"be an Argo profile file with {parameter}; its flagged variables are {', '.join(parameters)}"
        require(not lacking, str(path), rule, f"none named {', '.join(lacking)}")
        dataset = dataset.load()
    good = tuple(good)  # "12" is the flags 1 and 2
    modes = _modes(dataset, parameter)
    pressure, pressure_good = _chosen(dataset, "PRES", good)
    values, values_good = _chosen(dataset, parameter, good)
    dated = dataset["JULD"].notnull() & np.isin(_letters(dataset["JULD_QC"]), good)
    latitude, longitude = dataset["LATITUDE"].values, dataset["LONGITUDE"].values
    placed = np.isin(_letters(dataset["POSITION_QC"]), good) & (np.abs(latitude) <= 90) & (np.abs(longitude) <= 360)
    pressure = np.where(pressure_good, pressure, np.nan)
    usable = values_good & pressure_good & (dated.values & placed)[:, None]
    usable &= ~_repeated(np.where(usable, pressure, np.nan))
    attributes = {
        key: dataset[parameter].attrs[key] for key in ("units", "long_name") if key in dataset[parameter].attrs
    }
    cycle = dataset["CYCLE_NUMBER"].values if "CYCLE_NUMBER" in dataset else np.arange(len(modes))
    return xr.Dataset(
        {parameter: (("profile", "level"), np.where(usable, values, np.nan), attributes)},
        {
            "time": ("profile", dataset["JULD"].where(dated).values, {"standard_name": "time"}),
            "latitude": ("profile", np.where(placed, latitude, np.nan), {"units": "degrees_north"}),
            "longitude": ("profile", np.where(placed, longitude, np.nan), {"units": "degrees_east"}),
            "cycle": ("profile", cycle),
            "mode": ("profile", modes),
            "pressure": (("profile", "level"), pressure, {"units": "decibar", "positive": "down"}),
        },
        {"float": Path(path).name.split("_")[0]},
    )


def load_fields(root: str | Path, variables: Sequence[str] = ()) -> FieldSet:
    """Profiles of Argo floats, one field a float: ``time`` in days since its first profile, ``pressure`` in decibar.

    Args:
        root: folder of ``*_prof.nc`` files.
        variables: one parameter, see :func:`load`; () = TEMP.

    Raises:
        FileNotFoundError: no such folder or files.
        ValueError: several parameters; see :func:`load`.
    """
    from ccnn_irregular.adapters.xarray_axes import coordinate_numbers

    require(len(variables) <= 1, "variables", "name one parameter of the floats", variables)
    (parameter,) = variables or ("TEMP",)
    folder = existing_folder(root)
    paths = sorted(folder.glob("*_prof.nc"))
    if not paths:
        raise missing_file(folder, "*_prof.nc files")
    # By time: which profiles are kept for the test must not depend on their order in the files.
    floats = [load(path, parameter).sortby("time") for path in paths]
    places, values, units, kept = [], [], [], []
    before = 0
    for one in floats:
        days = coordinate_numbers(one["time"], "time", "days")[0]
        days = np.broadcast_to((days - np.nanmin(days))[:, None], one[parameter].shape)
        valid = np.isfinite(one["pressure"].values) & np.isfinite(days)
        profile = np.broadcast_to(np.arange(one.sizes["profile"])[:, None], valid.shape)
        places.append(np.stack([days[valid], one["pressure"].values[valid]], 1))
        values.append(one[parameter].values[valid])
        units.append(before + profile[valid])
        kept.append(valid)
        before += one.sizes["profile"]
    return FieldSet(
        coordinates=torch.from_numpy(np.concatenate(places)),
        values=torch.from_numpy(np.concatenate(values)[:, None]),
        splits=torch.tensor([0, *(len(one) for one in values)]).cumsum(0),
        units=torch.from_numpy(np.concatenate(units)),
        names=tuple(f"float {dataset.attrs['float']}" for dataset in floats),
        channels=(parameter,),
        channel_units=(str(floats[0][parameter].attrs.get("units", "1")),),
        axes=("time", "pressure"),
        axis_units=("days", "decibar"),
        restored=_way_back(floats, kept, parameter),
    )


def _way_back(
    floats: Sequence[xr.Dataset], kept: Sequence[NDArray[np.bool_]], parameter: str
) -> Callable[[Array], xr.Dataset]:
    """Values at the ``kept`` places of all floats -> one Dataset of all profiles."""
    import xarray as xr

    def restored(filled: Array) -> xr.Dataset:
        ends = np.cumsum([int(valid.sum()) for valid in kept])[:-1]
        filled_floats = []
        most = max(dataset.sizes["level"] for dataset in floats)
        for one, valid, part in zip(floats, kept, np.split(filled[:, 0], ends), strict=True):
            whole = np.full(valid.shape, np.nan)
            whole[valid] = part
            named = one[[parameter]].copy()
            named[parameter] = one[parameter].copy(data=whole)
            named = named.pad(level=(0, most - one.sizes["level"]))
            filled_floats.append(named.assign_coords(float=("profile", [one.attrs["float"]] * one.sizes["profile"])))
        return xr.concat(filled_floats, "profile", combine_attrs="drop_conflicts")

    return restored


def _chosen(dataset: xr.Dataset, name: str, good: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values ``(profile, level)``, adjusted ones where the mode says so, and which of them are flagged good."""
    raw: NDArray[Any] = dataset[name].values
    flags = _letters(dataset[f"{name}_QC"])
    if f"{name}_ADJUSTED" in dataset:
        adjusted = np.isin(_modes(dataset, name), ("D", "A"))[:, None]
        raw = np.where(adjusted, dataset[f"{name}_ADJUSTED"].values, raw)
        flags = np.where(adjusted, _letters(dataset[f"{name}_ADJUSTED_QC"]), flags)
    values = raw.astype(np.float64)
    return values, np.isin(flags, good) & np.isfinite(values) & (values != _FILL)


def _modes(dataset: xr.Dataset, name: str) -> NDArray[np.str_]:
    """Mode of each profile, or of this parameter of it where the file tells them apart."""
    modes = _letters(dataset["DATA_MODE"])
    if "PARAMETER_DATA_MODE" not in dataset or "STATION_PARAMETERS" not in dataset:
        return modes
    here = _letters(dataset["STATION_PARAMETERS"]) == name
    found = _letters(dataset["PARAMETER_DATA_MODE"])[np.arange(len(modes)), here.argmax(1)]
    return np.where(here.any(1), found, modes)


def _letters(variable: xr.DataArray) -> NDArray[np.str_]:
    """Characters as text, whether the file was decoded to bytes, text or missing values."""

    def letter(one: Any) -> str:
        return one.decode("ascii", "replace").strip() if isinstance(one, bytes) else str(one).strip()

    flat = [letter(one) for one in variable.values.ravel()]
    return np.array(flat, dtype=np.str_).reshape(variable.shape)


def _repeated(pressure: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a pressure was there before in the same profile; for nan it does not matter."""
    repeated = np.zeros(pressure.shape, dtype=bool)
    for row, one in enumerate(pressure):
        _, firsts = np.unique(one, return_index=True)
        repeated[row] = True
        repeated[row, firsts] = False
    return repeated


register(
    DataSet(
        name="argo",
        about="profiles of ocean floats at irregular dates and depths, one field a float",
        load=load_fields,
        samples=FieldSet,
        shape="good values at days and pressures in decibar",
        files="core files <float>_prof.nc",
        size="1 MB a float",
        licence="CC BY 4.0",
        source="https://doi.org/10.13155/29825",
    )
)
