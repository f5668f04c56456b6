"""Threads, random-test profiles and measured data for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
_WORKER = os.environ.get("PYTEST_XDIST_WORKER")

os.environ.setdefault("MPLBACKEND", "Agg")
if "KEOPS_CACHE_FOLDER" not in os.environ:
    # KeOps compiles into one folder without a lock: two processes would overwrite each other's half-written files.
    # Set before pykeops is imported, which is when it is read.
    keops_cache = REPOSITORY / "build" / "keops" / (_WORKER or "alone")
    keops_cache.mkdir(parents=True, exist_ok=True)
    os.environ["KEOPS_CACHE_FOLDER"] = str(keops_cache)

# One thread in each of several test processes, else two: more only wait for one another on the small tensors of tests,
# and on a machine with other work even two do. OMP_NUM_THREADS decides where it is set.
if _WORKER is not None or "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1 if _WORKER is not None else min(2, os.cpu_count() or 1))

# No deadline: the first call of an engine may compile a kernel. In CI the examples are the same in every run, so a red
# run can be repeated; on a desk they differ, so that more of them are tried over time.
hypothesis.settings.register_profile("desk", deadline=None, max_examples=25)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")


def shared_data_root() -> Path:
    """Where the official data files lie: CCNN_TEST_DATA, else shared/data beside the repository."""
    configured = os.environ.get("CCNN_TEST_DATA")
    return Path(configured) if configured else REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the official data files; a test that asks for it is skipped where it is absent."""
    root = shared_data_root()
    if not root.is_dir():
        pytest.skip(f"no official data files: {root} is not a folder; set CCNN_TEST_DATA to the folder that holds them")
    return root


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run folders go to tmp_path; Lightning's handling of Ctrl-C is undone."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
