"""The scripts of this folder as tests run them: in an interpreter of their own, since they fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["output_of"]


def output_of(script: str, *options: str) -> str:
    """What a script prints that found no fault."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script)), *options]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=alone, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout
