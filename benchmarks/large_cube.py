"""A cube larger than memory through ``ccnn predict``: within a budget, killed in the middle, resumed.

    python benchmarks/large_cube.py                     # 6 GB within 4 GiB, about ten minutes on one core
    python benchmarks/large_cube.py --gigabytes 0.2 --memory 1.5GiB

Makes a cube time x level x latitude x longitude of float32 in a temporary folder, trains a small network on a part of
it for an epoch, lets ``ccnn predict`` make the cube coarse and fine again, kills that with SIGKILL when half of the
blocks are finished, resumes it, and prints memory, times and counts. Some fields are computed once more in memory and
compared. The processes may not allocate more than the budget (RLIMIT_DATA). Everything is deleted in the end.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml
import zarr
from numpy.typing import NDArray

from ccnn_irregular.pipelines.tasks.downscale.blocks import as_bytes
from ccnn_irregular.pipelines.tasks.downscale.fields import Fields, coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.module import Downscaling
from ccnn_irregular.pipelines.train.checkpoint import load_weights

LEVELS, ROWS, COLUMNS = 13, 720, 1440
FACTOR = 2
TIMES_STORED_TOGETHER = 2
PR_SET_PDEATHSIG = 1  # of Linux


def coordinates(times: int) -> dict[str, Any]:
    return {
        "time": ("time", np.arange(times) * 6, {"standard_name": "time", "units": "hours since 2001-01-01"}),
        "level": ("level", np.linspace(50, 1000, LEVELS), {"units": "hPa", "axis": "Z"}),
        "latitude": ("latitude", 90 - (np.arange(ROWS) + 0.5) * 0.25, {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(COLUMNS) * 0.25, {"units": "degrees_east"}),
    }


def field(time_step: int, level: int) -> NDArray[np.float32]:
    """Make travelling waves with a little noise; sixteen bits of each number are kept, as in packed archives."""
    rng = np.random.default_rng((time_step, level))
    lat, lon = np.linspace(-np.pi / 2, np.pi / 2, ROWS), np.linspace(0, 2 * np.pi, COLUMNS, endpoint=False)
    total = np.zeros((ROWS, COLUMNS), np.float32)
    for wave in (1, 3, 8, 40, 150):
        phase = 0.1 * wave * time_step + level
        north = (np.cos(lat) * np.cos(wave * lat + phase)).astype(np.float32)
        total += np.outer(north, np.cos(wave * lon + phase).astype(np.float32)) * np.float32(10 / wave**0.7)
    total += rng.standard_normal(COLUMNS, np.float32) * np.float32(0.01)
    kept = total.view(np.uint32) & np.uint32(0xFFFF0000)
    return kept.view(np.float32)


def write_cube(path: Path, times: int) -> None:
    """Write the cube without holding more than a chunk."""
    template = xr.Dataset({}, coordinates(times), {"title": "simulated, measured nowhere"})
    template.to_zarr(path, consolidated=False)
    chunks = (min(TIMES_STORED_TOGETHER, times), 1, ROWS, COLUMNS)
    array = zarr.open_group(path, mode="r+").create_array(
        "t",
        shape=(times, LEVELS, ROWS, COLUMNS),
        chunks=chunks,
        dtype="float32",
        dimension_names=("time", "level", "latitude", "longitude"),
        attributes={"units": "K", "long_name": "temperature"},
    )
    for start in range(0, times, chunks[0]):
        stop = min(start + chunks[0], times)
        for level in range(LEVELS):
            array[start:stop, level] = np.stack([field(step, level) for step in range(start, stop)])


def command(folder: Path, *words: str, memory: int | None = None) -> subprocess.Popen[bytes]:
    """Start ``ccnn`` in ``folder``, allowed to allocate ``memory`` bytes."""

    def limited() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # not to outlive this script
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    start = [str(Path(sys.executable).with_name("ccnn")), *words, "--trainer.enable_progress_bar", "false"]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(start, cwd=folder, stdout=log, stderr=log, preexec_fn=limited)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Return exit status and peak memory of a child, bytes."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024


def train(folder: Path) -> None:
    """Train a network of two channels for one epoch on three fields."""
    part = xr.Dataset({"t": (("time", "level", "latitude", "longitude"), np.empty((3, 1, ROWS, COLUMNS), np.float32))})
    part = part.assign_coords(coordinates(3) | {"level": ("level", [1000.0], {"units": "hPa", "axis": "Z"})})
    for step in range(3):
        part["t"][step, 0] = field(step, LEVELS - 1)
    part["t"].attrs["units"] = "K"
    part.to_zarr(folder / "training.zarr", consolidated=False)
    network = {
        "class_path": "ccnn_irregular.pipelines.tasks.downscale.network.DownscalingNetwork",
        "init_args": {
            "in_channels": 1,
            "hidden_channels": 2,
            "blocks": 1,
            "kernel": {"extent": [2.0, 2.0], "width": [0.6, 0.6], "omega_0": 2.0, "hidden": 8},
        },
    }
    data = {"path": "training.zarr", "variables": ["t"], "factor": FACTOR, "patch": 48, "test": 0.3}
    trainer = {"max_epochs": 1}
    config = {"task": "downscale", "trainer": trainer, "model": {"network": network}, "data": data}
    (folder / "cube.yaml").write_text(yaml.safe_dump(config))
    status, _ = ended(command(folder, "fit", "--config", "cube.yaml"))
    if status != 0:
        raise SystemExit(f"fit failed:\n{(folder / 'log.txt').read_text()}")


def marked(folder: Path) -> list[str]:
    file = folder / "fine.zarr.partial" / "finished.txt"
    return file.read_text().splitlines() if file.is_file() else []


def killed_and_resumed(folder: Path, memory: int, option: str) -> dict[str, Any]:
    """Predict, SIGKILL when half of the blocks are finished, predict again."""
    words = ("predict", "--config", "cube.yaml", "--predict.input", "cube.zarr", "--output", "fine.zarr")
    words += ("--predict.coarsen", "true", "--predict.memory", option)
    started = time.monotonic()
    process = command(folder, *words, memory=memory)
    journal = folder / "fine.zarr.partial" / "journal.json"
    total = 0
    while process.poll() is None:
        if journal.is_file() and not total:
            blocks = json.loads(journal.read_text())["blocks"]
            steps = zip((*blocks["counts"], blocks["rows"]), (*blocks["steps"], blocks["row_step"]), strict=True)
            total = int(np.prod([-(-size // step) for size, step in steps]))
            predicted = blocks["memory"]
        if total and len(marked(folder)) >= total // 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    first_status, first_peak = ended(process) if process.returncode is None else (process.returncode, 0.0)
    if first_status != -signal.SIGKILL:
        raise SystemExit(f"predict ended by itself:\n{(folder / 'log.txt').read_text()}")
    before, seconds = marked(folder), time.monotonic() - started
    kept = stored(folder / "fine.zarr.partial" / "store.zarr")
    started = time.monotonic()
    status, peak = ended(command(folder, *words, memory=memory))
    if status != 0:
        raise SystemExit(f"the resumed predict failed:\n{(folder / 'log.txt').read_text()}")
    after = stored(folder / "fine.zarr")
    return {
        "blocks": total,
        "finished when killed": len(before),
        "computed after resuming": total - len(before),
        "chunks written before the kill and untouched after": sum(after[name] == at for name, at in kept.items()),
        "chunks written before the kill": len(kept),
        "chunks": len(after),
        "predicted GiB": round(predicted / 2**30, 2),
        "peak GiB, killed": round(first_peak / 2**30, 2),
        "peak GiB, resumed": round(peak / 2**30, 2),
        "seconds, killed": round(seconds),
        "seconds, resumed": round(time.monotonic() - started),
    }


def stored(store: Path) -> dict[str, int]:
    """Return when each chunk of the variable was written, in nanoseconds, by its name in the store."""
    chunks = (path for path in (store / "t" / "c").rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in chunks}


def difference_from_memory(folder: Path, count: int = 4) -> float:
    """Compare some whole fields with the network's answer in memory: largest difference relative to their range."""
    model = Downscaling.load_from_checkpoint(folder / "runs" / "cube" / "best.ckpt", weights_only=True)
    load_weights(model, str(folder / "runs" / "cube" / "best.ckpt"))
    network = model.network.eval().requires_grad_(False)
    with (
        xr.open_zarr(folder / "cube.zarr", consolidated=False, chunks=None) as given,
        xr.open_zarr(folder / "fine.zarr", consolidated=False, chunks=None) as found,
    ):
        fields = Fields.of(given, ["t"])
        coarse = fields.plane.coarsened(FACTOR, "means")
        fine = coarse.refined(FACTOR, "means")
        rng, worst = np.random.default_rng(0), 0.0
        for _ in range(count):
            at = {dim: int(rng.integers(given.sizes[dim])) for dim in ("time", "level")}
            values = torch.from_numpy(fields.read({dim: slice(place, place + 1) for dim, place in at.items()}))
            small = coarsened_values(values, FACTOR, "means", coarse.sizes)
            wanted = fine.unpacked(network(small, coarse.grid(), fine.grid()).numpy())[0, 0]
            worst = max(worst, float(np.abs(found["t"].isel(at).to_numpy() - wanted).max() / np.ptp(wanted)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="of the cube, not compressed")
    parser.add_argument("--memory", default="4GiB", help="what the processes may take")
    parser.add_argument("--folder", help="where the temporary folder is made")
    options = parser.parse_args()
    times = max(2, round(options.gigabytes * 1e9 / (4 * LEVELS * ROWS * COLUMNS)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is deleted
    with tempfile.TemporaryDirectory(prefix="ccnn-cube-", dir=options.folder) as name:
        folder = Path(name)
        started = time.monotonic()
        write_cube(folder / "cube.zarr", times)
        size = sum(path.stat().st_size for path in (folder / "cube.zarr").rglob("*") if path.is_file())
        shape = (times, LEVELS, ROWS, COLUMNS)
        gigabytes = 4e-9 * np.prod(shape)
        print(
            f"cube {shape}: {gigabytes:.2f} GB, {size / 1e9:.2f} GB stored, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        train(folder)
        results = killed_and_resumed(folder, as_bytes(options.memory), options.memory)
        results["difference from memory, relative"] = difference_from_memory(folder)
        for label, value in results.items():
            print(f"{label}: {value}")


if __name__ == "__main__":
    main()
