#!/usr/bin/env bash
# pypcd4 1.5.1: a cloud with colours, saved as text and read again by the same package, is black.
#
# PCD packs red, green and blue into the bits of one float32 (field "rgb"), which is a number near 1e-38. Floats of text
# files are written with ten digits after the point, so that it becomes 0.0000000000; so does any other small number.
# Binary files keep it. Whoever saves coloured scans as text to look at them is concerned.
#
# Seen: red, green and blue of 200, 100, 50 come back as 0, 0, 0 from text, and as they were from a binary file.
#
# Exits 0 if that is so, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pypcd4==1.5.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pypcd4

print("pypcd4 1.5.1")
packed = np.array([200 << 16 | 100 << 8 | 50], np.uint32).view(np.float32)
columns = [np.zeros(1, np.float32)] * 3 + [packed]
cloud = pypcd4.PointCloud.from_points(columns, ("x", "y", "z", "rgb"), (np.float32,) * 4)
found = {}
for kind in ("ascii", "binary"):
    cloud.save(f"{kind}.pcd", pypcd4.Encoding(kind))
    again = pypcd4.PointCloud.from_path(f"{kind}.pcd").pc_data["rgb"]
    found[kind] = pypcd4.PointCloud.decode_rgb(np.atleast_1d(again).astype(np.float32)).tolist()
    print(f"red, green, blue saved as {kind}: {found[kind][0]}")
as_stated = found == {"ascii": [[0, 0, 0]], "binary": [[200, 100, 50]]}
print("as stated" if as_stated else "this has changed")
raise SystemExit(not as_stated)
PYTHON
