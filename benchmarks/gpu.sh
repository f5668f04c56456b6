#!/usr/bin/env bash
# make gpu: runs benchmarks/gpu.py with a Python that has what it needs.
#   PYTHON=python3 bash benchmarks/gpu.sh [arguments of gpu.py]
# The packages that $PYTHON has are used where they suffice, as a machine with a GPU often comes with a PyTorch built for
# it; else the pinned ones are installed into .venv. The code is that of this checkout, whatever is installed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

suffices() {
    "$1" - <<'PYTHON_END' 2>/dev/null
import importlib.util
import sys

needed = "torch scipy psutil pykeops torch_geometric xarray h5py matplotlib rich pytest xdist hypothesis".split()
sys.exit(any(importlib.util.find_spec(name) is None for name in needed))
PYTHON_END
}

if ! suffices "$python"; then
    python=$root/.venv/bin/python
    suffices "$python" || make -C "$root" install
fi
make --no-print-directory -C "$root" typecheck-tree TREE=build/gpu
export PYTHONPATH=$root/build/gpu:$root/build/gpu-packages${PYTHONPATH:+:$PYTHONPATH}
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' && ! "$python" -c 'import cufinufft' 2>/dev/null; then
    "$python" -m pip install --quiet --no-deps --retries 0 --target "$root/build/gpu-packages" 'cufinufft==2.5.1' ||
        echo "Warning: cufinufft could not be installed; its rows will say so" >&2
fi
exec "$python" "$root/benchmarks/gpu.py" "$@"
