#!/usr/bin/env bash
# cfgrib 0.9.15.1: a GRIB file that was replaced is read by the index of the old one, and levels come under wrong names.
#
# Opening FILE.grib leaves FILE.grib.HASH.idx beside it, and the next opening trusts that index where its date of change
# is no older than the file's. A file that keeps its own, earlier date when it takes the place of another one (mv, cp -p,
# rsync -t, tar) passes that test, though its messages stand in another order: here 500, 850 and 1000 hPa in place of
# 1000, 850 and 500. The field of 500 hPa is then returned as that of 1000 hPa, without a word. Whoever updates an archive
# in place is concerned; backend_kwargs={"indexpath": ""} reads without an index file.
#
# Seen: by the index 1000 hPa is 11, the field of 500 hPa; without it 13, as the file says.
#
# Exits 0 if that is so, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cfgrib==0.9.15.1 eccodes==2.50.0 xarray==2026.9.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import os
import shutil
import sys
import warnings
from pathlib import Path

import cfgrib
import eccodes
import numpy as np
import xarray as xr

warnings.simplefilter("ignore")
print("cfgrib", cfgrib.__version__, "eccodes", eccodes.__version__, "xarray", xr.__version__)


def write(path, levels, first):
    """One field a level, whose values are first, first + 1, ..."""
    with path.open("wb") as file:
        for number, level in enumerate(levels):
            message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            for name, value in {"shortName": "t", "level": level, "dataDate": 20200101, "stepRange": 0}.items():
                eccodes.codes_set(message, name, value)
            values = np.full(eccodes.codes_get(message, "numberOfDataPoints"), float(first + number))
            eccodes.codes_set_values(message, values)
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)


def lowest_level(path, **options):
    with xr.open_dataset(path, engine="cfgrib", backend_kwargs=options) as cube:
        return float(cube.t.sel(isobaricInhPa=1000)[0, 0])


path, other = Path(sys.argv[1]) / "t.grib", Path(sys.argv[1]) / "other.grib"
write(path, (1000, 850, 500), 1)
before = lowest_level(path)
earlier = path.stat().st_mtime - 10
write(other, (500, 850, 1000), 11)
os.utime(other, (earlier, earlier))
shutil.move(other, path)
by_index, without = lowest_level(path), lowest_level(path, indexpath="")
print(f"the first file has {before:g} at 1000 hPa; the second by the index {by_index:g}, without it {without:g}")
holds = (before, by_index, without) == (1, 11, 13)
print("as stated" if holds else "changed")
sys.exit(0 if holds else 1)
PYTHON
