#!/usr/bin/env bash
# cftime 1.6.6.1 and xarray 2026.9.0, which decodes by it: time zones of reference dates that CF allows are left out.
#
# Section 4.4 of the CF conventions gives "seconds since 1992-10-8 15:15:42.5 -6:00" as its example and allows offsets
# H, HH, HMM, HHMM, H:MM and HH:MM. Without an error or a warning:
# 1. "-6:00" and "-6" are taken for UTC, six hours off; "-06:00" is read.
# 2. "+530" is taken for 53 hours.
# 3. a name ("EST") is taken for UTC.
# xarray reads "-6:00" in the standard calendar by pandas, and by cftime in others and beyond 2262: the same units mean
# other times in a noleap file.
#
# Seen: 1992-10-08 15:15:42.500000 for "-6:00", where 21:15:42.5 UTC is meant.
#
# Exits 0 if that is so, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xarray==2026.9.0 cftime==1.6.6.1 pandas==3.0.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import cftime
import xarray as xr

print("cftime", cftime.__version__, "xarray", xr.__version__)


def clock(zone):
    return str(cftime.num2date(0, f"seconds since 1992-10-8 15:15:42.5{zone}", calendar="standard"))


def by_xarray(calendar):
    units = {"units": "seconds since 1992-10-8 15:15:42.5 -6:00", "calendar": calendar}
    return str(xr.decode_cf(xr.Dataset(coords={"t": ("t", [0, 1], units)}))["t"].values[0])


found = {zone: clock(zone) for zone in (" -06:00", " -6:00", " -6", " +530", " EST")}
for zone, date in found.items():
    print(f"cftime {zone!r}: {date}")
standard, model = by_xarray("standard"), by_xarray("noleap")
print("xarray ' -6:00', standard:", standard)
print("xarray ' -6:00', noleap:  ", model)

local = "1992-10-08 15:15:42.500000"
as_stated = (
    found[" -06:00"] == "1992-10-08 21:15:42.500000"
    and found[" -6:00"] == found[" -6"] == found[" EST"] == local
    and found[" +530"] == "1992-10-06 10:15:42.500000"
    and standard.startswith("1992-10-08T21:15:42.5")
    and model == local
)
print("as stated" if as_stated else "changed")
sys.exit(0 if as_stated else 1)
PYTHON
