#!/usr/bin/env bash
# xarray 2026.9.0 with zarr 3.1.6: use_zarr_fill_value_as_mask of open_zarr and open_dataset(engine="zarr") does nothing.
#
# The documentation of open_zarr says: "If True, use the zarr Array fill_value to mask the data ... If False, the
# fill_value is ignored and the data are not masked." The option is accepted, handed to the backend and dropped there
# (ZarrBackendEntrypoint.open_dataset passes None on). So in a store of format 2 every real zero of an array whose
# writer gave no fill value (zarr's default is 0) reads as nan, and the documented way to keep the zeros has no effect.
# ZarrStore.open_group, called by hand, obeys it.
#
# Seen: open_zarr True [nan 1. 2. nan], open_zarr False [nan 1. 2. nan], store False [0. 1. 2. 0.]
#
# Exits 0 if that is so, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xarray==2026.9.0 zarr==3.1.6 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import xarray as xr
import zarr

print("xarray", xr.__version__, "zarr", zarr.__version__)
group = zarr.open_group("a.zarr", mode="w", zarr_format=2)
array = group.create_array("t", shape=(4,), dtype="f4", attributes={"_ARRAY_DIMENSIONS": ["x"]})
array[:] = [0, 1, 2, 0]
found = {}
for masked in (True, False):
    with xr.open_zarr("a.zarr", consolidated=False, use_zarr_fill_value_as_mask=masked) as dataset:
        found[f"open_zarr {masked}"] = dataset["t"].values
    options = {"consolidated": False, "use_zarr_fill_value_as_mask": masked}
    with xr.open_dataset("a.zarr", engine="zarr", **options) as dataset:
        found[f"open_dataset {masked}"] = dataset["t"].values
store = xr.backends.ZarrStore.open_group("a.zarr", mode="r", consolidated=False, use_zarr_fill_value_as_mask=False)
found["store False"] = xr.open_dataset(store).t.values
for name, values in found.items():
    print(name, values)
masked = all(np.isnan(values[[0, 3]]).all() for name, values in found.items() if name != "store False")
holds = masked and (found["store False"] == [0, 1, 2, 0]).all()
print("as stated" if holds else "changed")
sys.exit(0 if holds else 1)
PYTHON
