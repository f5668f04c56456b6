"""The accessor ``.ccnn`` of DataArrays and Datasets: convolutions and networks on them, in physical units.

Importing this module registers it:

    >>> import ccnn_irregular.adapters.xarray  # doctest: +SKIP
    >>> print(temperature.ccnn.frame())  # doctest: +SKIP
    >>> smooth = temperature.ccnn.convolve(layer)  # doctest: +SKIP

Options that say what the dimensions are go in parentheses: ``cube.ccnn(samples="month").predict(network)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, final

import torch
import xarray as xr
from torch import nn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_apply import convolved, predicted
from ccnn_irregular.adapters.xarray_axes import Line, Role, TimeUnit
from ccnn_irregular.adapters.xarray_clouds import Cloud
from ccnn_irregular.adapters.xarray_decoding import decode_times
from ccnn_irregular.adapters.xarray_discrete import is_ragged, observations
from ccnn_irregular.adapters.xarray_files import Reading, open_cube
from ccnn_irregular.adapters.xarray_frames import Frame, Samples, samples_of
from ccnn_irregular.adapters.xarray_meshes import about_places
from ccnn_irregular.adapters.xarray_results import derived_attributes, fitting_encoding, smooths
from ccnn_irregular.adapters.xarray_roles import Options, frame_of
from ccnn_irregular.adapters.xarray_smooth import smoothed
from ccnn_irregular.layers import ContinuousConv, SeparableContinuousConv

__all__ = [
    "Cloud",
    "DataArrayAccessor",
    "DatasetAccessor",
    "Frame",
    "Line",
    "Options",
    "Reading",
    "Role",
    "Samples",
    "TimeUnit",
    "decode_times",
    "open_cube",
]

Axes = Mapping[str, Role] | Sequence[str]

# The dimension that holds the variables of a Dataset while they are channels.
_VARIABLE = "variable"


@final
@xr.register_dataarray_accessor("ccnn")
class DataArrayAccessor:
    """``array.ccnn``: axes by CF conventions, or as told by calling it with options.

    Uniform coordinates become axes of a ``Grid``; irregular ones, latitudes that count by area, stations, profiles and
    curvilinear grids the points of a ``Product``, or ``Points``. Missing values (nan) weigh nothing.
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array
        self._options = Options()

    def __call__(
        self,
        *,
        axes: Axes | None = None,
        samples: str | Sequence[str] = (),
        channels: str | None = None,
        order: Sequence[str] | None = None,
        area_weights: bool = True,
        time_unit: TimeUnit = "days",
        weights: xr.DataArray | str | None = None,
    ) -> DataArrayAccessor:
        """The accessor with options.

        Args:
            axes: coordinates that are axes; a mapping to their roles where attributes do not tell. Dimensions they
                run along are settled by them, others by CF conventions.
            samples: dimensions whose entries know nothing of each other: the batch.
            channels: dimension of the channels; None = one channel.
            order: names of all axes in the order of the kernel's axes; None = time, vertical, latitude or y, longitude
                or x, others. All axes up to the last one that is not uniform become points, so an order that has the
                uniform ones last is the fastest.
            area_weights: whether latitudes count by their area on the sphere.
            time_unit: unit of dates and time spans.
            weights: what each place stands for, in units of the axes (square degrees for latitude and longitude): an
                array along the dimensions of one axis or one set of points, or its name. None = areas of the file
                where it says any, else by the positions. "scattered" = one over the density of points, which else
                is announced for latitudes and longitudes on one dimension.
        """
        accessor = DataArrayAccessor(self._array)
        accessor._options = Options(axes, _names(samples), channels, order, area_weights, time_unit, weights)
        return accessor

    def frame(self) -> Frame:
        """Return the axes in the order of a kernel's; ``print`` it.

        Raises:
            ValueError: see ``xarray_roles.frame_of``.
        """
        return frame_of(self._array, self._options)

    def to_samples(self, dtype: torch.dtype | None = None) -> Samples:
        """Return values, domain, and the way back; a lazy array is loaded.

        Args:
            dtype: of the values; None = the array's, or for integers the smallest float type that holds them.

        Raises:
            ValueError: axes that cannot be recognised, infinite values, a dtype that would round.
        """
        return samples_of(self._array, self.frame(), dtype)

    def convolve(
        self, layer: ContinuousConv | SeparableContinuousConv, *, like: xr.DataArray | None = None
    ) -> xr.DataArray:
        """Convolve the array with a layer; results are given everywhere, also where values are missing.

        Dimensions, coordinates and their encodings are the array's; the dtype is the layer's. Of the encoding chunks
        and compression are kept, packings and integer types are not: ``xarray_results.fitting_encoding``. Attributes
        that hold for the array's values only are left out: limits, cell methods, flags. Unit and standard name stay
        where the layer is a moving average (no bias, a kernel that integrates to 1); else the long name says what the
        result is. A lazy array stays lazy: its blocks overlap by the kernel's support in nodes, and the result is that
        of the array in memory.

        Args:
            layer: with a kernel on the axes ``frame().axes``, in their units.
            like: an array at whose coordinates the result is wanted; None = at those of this one.

        Raises:
            ValueError: a layer of another number of axes, values its dtype does not hold exactly; see ``to_samples``.
        """
        return convolved(self._array, layer, self._options, like)

    def smooth(self, sigma: float | Mapping[str, float], *, keep_missing: bool = False) -> xr.DataArray:
        """Smooth the array by a Gaussian of unit mass, in the units of its coordinates.

        Missing values are left out of the average (normalised convolution), and so is what lies beyond the array's
        ends: a constant stays what it is. Name, unit and dtype are the array's (integers become float64), attributes
        that hold for its own values only are left out. A lazy array stays lazy.

        Args:
            sigma: standard deviation in coordinate units (times: ``time_unit``, days by default), the same along all
                axes, or by the names of those to smooth along: the others' entries are smoothed each by itself.
            keep_missing: missing values stay missing, such as land in an ocean's field; else they are filled where
                something within six standard deviations is known.

        Raises:
            ValueError: a sigma that is not positive, or of a name that is no axis; see ``frame``.
        """
        return smoothed(self._array, sigma, self._options, keep_missing)

    def predict(
        self,
        model: nn.Module,
        *,
        like: xr.DataArray | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> xr.DataArray:
        """Apply a network in evaluation mode to the array.

        A network that answers at every place gives an array like this one, one that answers once per sample an array
        ``(*samples, channel)``. What a network answers need not be the same quantity: the unit and the standard name
        are left out, see ``convolve``. A lazy array stays lazy, for networks that answer at every place: its blocks
        overlap by the supports of all kernels together.

        Args:
            model: called as ``model(values, domain)``, with ``like`` as ``model(values, domain, query)``.
            like: an array at whose coordinates the answer is wanted (head "anywhere").
            batch_size: samples at a time, in memory; None = all.
            progress: show a bar, sample by sample unless ``batch_size`` is given.

        Raises:
            ValueError: see ``convolve``.
        """
        return predicted(self._array, model, self._options, batch_size, progress, like)

    def compute(self, progress: bool = True) -> xr.DataArray:
        """Load a lazy array into memory, with a progress bar."""
        return _computed(self._array, progress)


@final
@xr.register_dataset_accessor("ccnn")
class DatasetAccessor:
    """``dataset.ccnn``: its variables are channels; see ``DataArrayAccessor``."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset
        self._variables: tuple[str, ...] | None = None
        self._options: dict[str, Any] = {}

    def __call__(
        self,
        variables: str | Sequence[str] | None = None,
        *,
        axes: Axes | None = None,
        samples: str | Sequence[str] = (),
        order: Sequence[str] | None = None,
        area_weights: bool = True,
        time_unit: TimeUnit = "days",
        weights: xr.DataArray | str | None = None,
    ) -> DatasetAccessor:
        """The accessor with options.

        Args:
            variables: which are the channels, in this order; None = all but bounds, grid mappings, areas of cells and
                meshes.
            axes, samples, order, area_weights, time_unit, weights: as for arrays. Variables named in ``axes`` need not
                be coordinates of the file (those of Argo profiles are not).
        """
        accessor = DatasetAccessor(self._dataset)
        accessor._variables = None if variables is None else _names(variables)
        accessor._options = {
            "axes": axes,
            "samples": samples,
            "order": order,
            "area_weights": area_weights,
            "time_unit": time_unit,
            "weights": weights,
        }
        return accessor

    def frame(self) -> Frame:
        """Return the axes; see ``DataArrayAccessor.frame``."""
        return self._stacked()[1].frame()

    def to_samples(self, dtype: torch.dtype | None = None) -> Samples:
        """Return values with a channel for each variable; see ``DataArrayAccessor.to_samples``."""
        return self._stacked()[1].to_samples(dtype)

    def convolve(
        self, layer: ContinuousConv | SeparableContinuousConv, *, like: xr.DataArray | None = None
    ) -> xr.Dataset | xr.DataArray:
        """Convolve the variables with a layer; see ``DataArrayAccessor.convolve``.

        A depthwise convolution leaves them apart: the result is this Dataset with those variables replaced. One that
        mixes them gives an array with a dimension "channel".
        """
        names, accessor = self._stacked()
        result = accessor.convolve(layer, like=like)
        if like is not None or not (isinstance(layer, ContinuousConv) and layer.kernel.depthwise):
            return _channelled(result, self._dataset)
        changed = {name: result.isel({_VARIABLE: at}, drop=True).variable for at, name in enumerate(names)}
        kept = smooths(layer)
        for name, variable in changed.items():
            array, given = xr.DataArray(variable.transpose(*self._dataset[name].dims), name=name), self._dataset[name]
            changed[name] = array.variable
            changed[name].attrs = derived_attributes(given, "convolution", same_quantity=kept)
            changed[name].encoding = fitting_encoding(array, given)
        return self._dataset.assign(changed)

    def smooth(self, sigma: float | Mapping[str, float], *, keep_missing: bool = False) -> xr.Dataset:
        """Smooth each variable; see ``DataArrayAccessor.smooth``."""
        names, stacked = self._stacked()
        result = stacked.smooth(sigma, keep_missing=keep_missing)
        changed = {}
        for name in names:
            given = self._dataset[name]
            array = result.sel({_VARIABLE: name}, drop=True).transpose(*given.dims)
            array = array.astype(given.dtype if given.dtype.kind == "f" else array.dtype).rename(name)
            array.attrs = derived_attributes(given, "smooth", same_quantity=True)
            array.encoding = fitting_encoding(array, given)
            changed[name] = array.variable
        return self._dataset.assign(changed)

    def predict(
        self,
        model: nn.Module,
        *,
        like: xr.DataArray | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> xr.DataArray:
        """Apply a network to the variables; see ``DataArrayAccessor.predict``."""
        result = self._stacked()[1].predict(model, like=like, batch_size=batch_size, progress=progress)
        return _channelled(result, self._dataset)

    def observations(self) -> xr.Dataset:
        """Return the observations of a discrete sampling geometry of CF conventions along one dimension.

        Stations, profiles and tracks that lie end to end, indexed, or in rectangles with missing entries; see
        ``xarray_discrete.observations``.
        """
        return observations(self._dataset)

    def compute(self, progress: bool = True) -> xr.Dataset:
        """Load a lazy Dataset into memory, with a progress bar."""
        return _computed(self._dataset, progress)

    def _stacked(self) -> tuple[tuple[str, ...], DataArrayAccessor]:
        """Return the channels, and the accessor of one array that holds them."""
        if self._options.get("axes") is None and is_ragged(self._dataset):
            rule = "have a place for each observation (dataset.ccnn.observations() gives it to them), or axes be named"
            reject("a ragged array of CF conventions", rule, f"sizes {dict(self._dataset.sizes)}")
        named = [name for name in self._options.get("axes") or () if name in self._dataset.data_vars]
        dataset = self._dataset.set_coords(named)
        names = self._fields(dataset) if self._variables is None else self._variables
        present = sorted(map(str, dataset.data_vars))
        for name in names:
            require(name in dataset.data_vars, "variables", f"be among {present}", repr(name))
        shapes = {name: tuple(map(str, dataset[name].dims)) for name in names}
        require(len(set(shapes.values())) == 1, "variables", "have the same dimensions; name some of them", shapes)
        if len(names) == 1:
            stacked = dataset[names[0]].expand_dims({_VARIABLE: [names[0]]})
        else:
            stacked = dataset[list(names)].to_array(_VARIABLE)
        stacked.attrs, stacked.name, stacked.encoding = {}, None, {}
        accessor = DataArrayAccessor(stacked)(**{**self._options, "channels": _VARIABLE})
        accessor._options = replace(accessor._options, about=(dataset, dataset[names[0]]))
        return names, accessor

    @staticmethod
    def _fields(dataset: xr.Dataset) -> tuple[str, ...]:
        """List the numeric variables along dimensions that do not describe the places of others."""
        described = about_places(dataset)
        return tuple(
            str(name)
            for name, variable in dataset.data_vars.items()
            if variable.dims and variable.dtype.kind in "biuf" and str(name) not in described
        )


def _channelled(result: xr.DataArray, dataset: xr.Dataset) -> xr.DataArray:
    """Drop the names of channels that are no longer the variables."""
    if _VARIABLE in result.dims:
        result = result.drop_vars(_VARIABLE, errors="ignore").rename({_VARIABLE: "channel"})
    result.attrs = dict(dataset.attrs)
    return result


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _computed(lazy: Any, progress: bool) -> Any:
    if not lazy.chunks:
        return lazy
    bar = import_optional("dask.diagnostics", "a progress bar", "files").ProgressBar() if progress else nullcontext()
    with bar:
        return lazy.compute()
