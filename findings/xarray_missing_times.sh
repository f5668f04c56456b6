#!/usr/bin/env bash
# xarray 2026.9.0 with cftime 1.6.6.1 and pandas 3.0.6: what one missing number does to the other dates of a coordinate.
#
# A CF time coordinate may have missing numbers (profiles, trajectories: section 9.6 of the CF conventions). Decoded with
# xarray's defaults, without an error:
# 1. standard calendar: a date beyond 2262 becomes NaT where another number is missing, without a warning; without the
#    missing one it is decoded (as cftime.datetime, with a warning).
# 2. other calendars: the missing number becomes the reference date, without a warning.
#
# Seen: ['2010-01-01T00:00:00.000000000' 'NaT' 'NaT'] for days [21915, 500000, nan] since 1950-01-01, where the second
# is 3318-12-15; and 1950-01-01 for the nan in the calendar noleap.
#
# Exits 0 if that is so, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xarray==2026.9.0 cftime==1.6.6.1 pandas==3.0.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import cftime
import numpy as np
import pandas
import xarray as xr

print("xarray", xr.__version__, "cftime", cftime.__version__, "pandas", pandas.__version__)


def decoded(days, calendar):
    units = {"units": "days since 1950-01-01", "calendar": calendar}
    dataset = xr.Dataset(coords={"time": ("profile", np.array(days), units)})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return xr.decode_cf(dataset)["time"].values, [str(warning.message) for warning in told]


complete, _ = decoded([21915.0, 500_000.0], "standard")
gap, told = decoded([21915.0, 500_000.0, np.nan], "standard")
print("standard, none missing:", complete)
print("standard, one missing: ", gap, "warnings:", told)
model, told_model = decoded([0.5, np.nan], "noleap")
print("noleap, one missing:   ", model, "warnings:", told_model)

lost = str(complete[1]).startswith("3318-12-15") and bool(np.isnat(gap[1])) and not told
invented = str(model[1]) == "1950-01-01 00:00:00" and not told_model
print("date lost:", lost, "| date invented:", invented)
print("as stated" if lost and invented else "changed")
sys.exit(0 if lost and invented else 1)
PYTHON
