#!/usr/bin/env bash
# nibabel 5.4.2 and SimpleITK 2.5.7: one NIfTI file, two places, for nibabel reads the sform and ITK the qform.
#
# A NIfTI-1 file may place its voxels by an affine (sform) and by
# a rotation (qform). Where both are set to unlike places with the codes qform 1 (scanner) and sform 4 (MNI template), as
# registration programs leave them, nibabel's affine is the sform and SimpleITK's origin is the qform's: the first voxel
# lies 50 mm apart. With sform code 1 both take the sform. A program that reads with one package, computes, and writes
# one affine for both, hands on labels that lie elsewhere for the other's users.
#
# Seen: codes (1, 4): 50 mm apart; codes (1, 1): 0 mm apart.
#
# Exits 0 if that is so, 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

print("nibabel", nibabel.__version__, "SimpleITK", SimpleITK.Version_VersionString())
scanner, template = np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([2.0, 2.0, 2.0, 1.0])
scanner[:3, 3], template[:3, 3] = [10, 20, 30], [40, -20, 30]
firsts = {}
for code in (4, 1):
    path = Path(sys.argv[1]) / f"sform_{code}.nii"
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), template)
    image.set_sform(template, code)
    image.set_qform(scanner, 1)
    nibabel.save(image, path)
    by_nibabel = nibabel.load(path).affine[:3, 3]
    by_itk = np.array(SimpleITK.ReadImage(str(path)).GetOrigin()) * [-1, -1, 1]  # to the right, to the front
    firsts[code] = (by_nibabel, by_itk)
    print(f"codes (1, {code}): first voxel by nibabel {by_nibabel}, by SimpleITK {by_itk}, "
          f"{np.linalg.norm(by_nibabel - by_itk):g} mm apart")
holds = (
    np.allclose(firsts[4][0], template[:3, 3])
    and np.allclose(firsts[4][1], scanner[:3, 3])
    and np.allclose(firsts[1][0], firsts[1][1])
)
print("as stated" if holds else "changed")
sys.exit(0 if holds else 1)
PYTHON
