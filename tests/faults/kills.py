"""Runs that are killed again and again: nothing is lost but the time since the last checkpoint, and no bit of the end.

    python tests/faults/kills.py [--kills 100] [--seed 1]

Each attempt is a copy of this process (a fork, so that nothing is imported anew), ended by SIGKILL: at any moment of a
training, while a checkpoint or a cache is half written, just before it gets its name, or at any moment of a prediction
from file to file. The same command then goes on, until it ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import yaml
from test_predict_files import coarse_fields, planned, trained, written

from ccnn_irregular.adapters.xarray_files import open_cube
from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.datasets.reading import cache
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.downscale import files as predict_files
from ccnn_irregular.pipelines.train import mid_epoch
from ccnn_irregular.pipelines.train.checkpoint import first_whole, read_checkpoint
from ccnn_irregular.pipelines.train.run_folder import RunFolder

__all__ = ["Tally", "caches", "predictions", "trainings"]

EPOCHS = 4
_PAUSE = 0.05  # seconds that a batch or block takes, so that a kill meets it
_LONGEST = 120.0


class Tally(Counter[str]):
    """Number of kills by the moment they came at, and of results that were compared."""

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.items() if name.startswith("killed"))


def _attempt(work: Callable[[], None], seconds: float | None) -> bool:
    """Do some work in a copy of this process, killed after some time; whether it ended by itself, and well."""
    said = tempfile.TemporaryFile()  # noqa: SIM115  (both processes have it)
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            warnings.simplefilter("ignore")
            work()
            os._exit(0)
        sys.stderr.flush()
        os._exit(1)
    end = time.monotonic() + (_LONGEST if seconds is None else seconds)
    while time.monotonic() < end:
        if (found := os.waitpid(process, os.WNOHANG))[0]:
            status = found[1]
            said.seek(0)
            assert status == 0 or os.WIFSIGNALED(status), said.read().decode()[-1000:]
            return status == 0
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert seconds is not None, f"it was not done after {_LONGEST} s"
    return False


def _killed_at(call: int, write_half: bool) -> None:
    """Let this process end at a checkpoint: half written, or whole under its temporary name."""
    save, calls = torch.save, []

    def ending(content: Any, path: Path) -> None:
        calls.append(path)
        save(content, path)
        if len(calls) == call:
            if write_half:
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = ending  # type: ignore[assignment]


def trainings(folder: Path, kills: int, rng: np.random.Generator, tally: Tally) -> None:
    """Kill a training until enough kills have met it; each result is that of a run that nobody disturbed."""
    config = _training(folder)

    def command(run: str) -> Callable[[], None]:
        def work() -> None:
            os.chdir(folder)
            mid_epoch.EVERY = 0.0  # a checkpoint after every batch
            from pipelines_stand_in import StandIn

            forward = StandIn.forward

            def slow(self: Any, batch: Any) -> Any:
                time.sleep(_PAUSE)
                return forward(self, batch)

            StandIn.forward = slow  # type: ignore[method-assign]
            cli.main(["fit", "--config", str(config), "--run_dir", run])

        return work

    started = time.monotonic()
    assert _attempt(command("whole"), None)
    whole = time.monotonic() - started
    wanted, rounds = _end(folder / "whole"), 0
    while tally.kills < kills:
        rounds += 1
        run = f"parts{rounds}"
        steps = 0
        # A kill may come after the end was written, too.
        while not ((end := RunFolder(folder / run).end()) and end["finished"]):
            kind = rng.integers(3) if tally.kills < kills else 3
            work = command(run)
            if kind == 0:
                done = _attempt(work, float(rng.uniform(0.05, 0.8 * whole)))
            elif kind == 3:
                done = _attempt(work, None)
            else:
                done = _attempt(lambda work=work, kind=kind: (_killed_at(2, kind == 1), work())[1], None)  # type: ignore[misc]
            moments = ("at any moment of a training", "in a half-written checkpoint", "before a checkpoint's name")
            if done:
                break
            tally[f"killed {moments[kind]}"] += 1
            checkpoint, _ = first_whole((folder / run / "last.ckpt", folder / run / "best.ckpt"))
            now = 0 if checkpoint is None else int(read_checkpoint(checkpoint)["global_step"])
            assert now >= steps, "a checkpoint was lost"
            steps = now
        assert _end(folder / run) == wanted, "the result differs"
        tally["trainings compared bit by bit"] += 1
        shutil.rmtree(folder / run)


def _training(folder: Path) -> Path:
    simulated_icu.write(folder / "simulated", stays=40, seed=5)
    options = {
        "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"network": {"class_path": "pipelines_stand_in.StandIn"}, "schedule": {"learning_rate": 0.01}},
        "early_stopping": {"patience": 100},
        "data": {
            "table": str(folder / "simulated"),
            "source": "physionet2012",
            "source_options": {"cache": False, "progress": False},
            "validation": 0.25,
            "batch_size": 8,
        },
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(options))
    return folder / "tiny.yaml"


def _end(run: Path) -> tuple[Any, ...]:
    """Everything that a run came to, but for times: weights, moments of the optimiser, metrics of all epochs."""
    content = read_checkpoint(run / "last.ckpt")
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in content["callbacks"]["History"]["rows"]]
    weights = [value.numpy().tobytes() for value in content["state_dict"].values()]
    moments = [
        value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
        for state in content["optimizer_states"][0]["state"].values()
        for value in state.values()
    ]
    best = [value.numpy().tobytes() for value in read_checkpoint(run / "best.ckpt")["state_dict"].values()]
    return str(rows), weights, moments, best, content["global_step"]


def caches(folder: Path, kills: int, rng: np.random.Generator, tally: Tally) -> None:
    """Kill processes that write one cache, while another reads it: it is whole, or not there."""
    path, arrays = folder / "kept" / "cache.h5", {"values": np.arange(200_000.0), "ids": np.arange(7)}
    for number in range(kills):
        mark = f"{number % 3:064x}"

        def work(mark: str = mark, moment: int = int(rng.integers(3))) -> None:
            if moment:
                ended = {1: "fsync", 2: "replace"}[moment]
                setattr(os, ended, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            cache.write(path, mark, {**arrays, "mark": np.array([int(mark, 16)])})
            os.kill(os.getpid(), signal.SIGKILL)

        _attempt(work, float(rng.uniform(0.001, 0.05)))
        tally["killed while a cache was written"] += 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no damaged one was found
            for other in range(3):
                found = cache.read(path, f"{other:064x}")
                if found is not None:
                    assert int(found["mark"][0]) == other
                    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    tally["caches compared bit by bit"] += 1


def predictions(folder: Path, kills: int, rng: np.random.Generator, tally: Tally) -> None:
    """Kill predictions from file to file until enough kills have met them."""
    dataset = coarse_fields(times=12, rows=64)
    source, network = written(dataset, folder, ".zarr"), trained(dataset)
    (folder / "some.ckpt").write_bytes(b"weights")

    def command(name: str) -> Callable[[], None]:
        def work() -> None:
            torch.set_num_threads(1)
            answer = predict_files._Prediction.answer

            def slow(self: Any, *arguments: Any) -> Any:
                time.sleep(_PAUSE)
                return answer(self, *arguments)

            predict_files._Prediction.answer = slow  # type: ignore[method-assign]
            predict_files.plan_blocks = planned  # type: ignore[assignment]
            target, checkpoint = folder / name, folder / "some.ckpt"
            predict_files.predict_file(network, source, target, checkpoint=checkpoint, memory=1 << 40)

        return work

    started = time.monotonic()
    assert _attempt(command("whole.zarr"), None)
    whole = time.monotonic() - started
    left, rounds = kills, 0
    while left > 0:
        rounds += 1
        while not _attempt(command(f"parts{rounds}.zarr"), float(rng.uniform(0.02, whole)) if left > 0 else None):
            assert not (folder / f"parts{rounds}.zarr").exists(), "a part has the name of the whole"
            left -= 1
            tally["killed in a prediction from file to file"] += 1
        with open_cube(folder / f"parts{rounds}.zarr") as one, open_cube(folder / "whole.zarr") as other:
            assert one["t"].to_numpy().tobytes() == other["t"].to_numpy().tobytes(), "the values differ"
        tally["predictions compared bit by bit"] += 1


def run(kills: int, seed: int) -> Tally:
    """Two thirds of the kills meet trainings, the others caches and predictions."""
    torch.set_num_threads(1)
    rng, tally = np.random.default_rng(seed), Tally()
    shares = (max(1, kills // 6), max(1, kills // 6))
    with tempfile.TemporaryDirectory() as folder:
        for name, work, count in (("caches", caches, shares[0]), ("predictions", predictions, shares[1])):
            Path(folder, name).mkdir()
            work(Path(folder, name), count, rng, tally)
        Path(folder, "trainings").mkdir()
        trainings(Path(folder, "trainings"), kills, rng, tally)
    return tally


def main() -> None:
    """Run, and print the figures."""
    parser = argparse.ArgumentParser(description="runs that are killed again and again")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    tally = run(options.kills, options.seed)
    print(f"{tally.kills} kills in {time.monotonic() - started:.0f} s, nothing lost but what came after a checkpoint")
    for name, count in tally.items():
        print(f"{count:4} {name}")


if __name__ == "__main__":
    main()
