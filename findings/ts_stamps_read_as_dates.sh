#!/usr/bin/env bash
# sktime 1.2.0 with pandas 3.0.6: time stamps 2001.5 and 2003.25 of a .ts file are read as days of 2001 and 2003.
#
# A .ts file of the UEA & UCR archive may give each value a time stamp, a number or a date.
# sktime keeps stamps that int() takes and hands all others to pandas.DatetimeIndex as text. Decimal years become
# dates: 2001.5 is 2001-05-01 and 2003.25 is 2003-01-01, so series a year and three quarters long in their own unit
# seem to last 610 days, and other decimals (0.5) end in an error. Nothing is said.
#
# Seen: ['2001-05-01 00:00:00', '2003-01-01 00:00:00']
#
# Exits 0 if that is so, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sktime==1.2.0 pandas==3.0.6
cat > "$folder/years.ts" <<'SERIES'
@problemName years
@timeStamps true
@missing false
@univariate true
@equalLength true
@classLabel true a b
@data
(2001.5,1.0),(2003.25,2.0):a
SERIES
"$folder/venv/bin/python" - "$folder/years.ts" <<'PYTHON'
import sys

import pandas
import sktime
from sktime.datasets import load_from_tsfile

print("sktime", sktime.__version__, "pandas", pandas.__version__)
table, _ = load_from_tsfile(sys.argv[1], return_data_type="nested_univ")
stamps = [str(stamp) for stamp in table.iloc[0, 0].index]
print("stamps 2001.5 and 2003.25 are read as", stamps)
holds = stamps == ["2001-05-01 00:00:00", "2003-01-01 00:00:00"]
print("as stated" if holds else "changed")
sys.exit(0 if holds else 1)
PYTHON
