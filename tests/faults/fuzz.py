"""Spoiled copies of small valid files through every reader: only documented errors, in time, within memory.

    python tests/faults/fuzz.py --inputs 20000 [--seed 1] [--only NAME ...]

Each reader works in a process of its own, which an input may end or hold up; that is found and told, and the next input
goes on. Inputs are made at run time from the seed and thrown away.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from corpus import READERS, Reader, repacked

from ccnn_irregular._files import DamagedFileError, refuse_file
from ccnn_irregular.datasets import character_trajectories

__all__ = ["LONGEST", "MEMORY", "Report", "fuzz"]

LONGEST = 10  # seconds of the processor that an input may take
MEMORY = 3 * 2**30  # bytes that a process may take beside what it began with
_PATIENCE = 6 * LONGEST  # seconds, where the code of a library does not hear the alarm or waits for something
_HEAD = 512  # bytes in which headers lie
_VALUES = (0x00, 0x7F, 0x80, 0xFF)


class TooLongError(BaseException):
    """An input took longer than it may."""


@dataclass
class Report:
    """What became of the inputs.

    Attributes:
        outcomes: number of inputs by what happened.
        faults: what must not happen, a line each.
        most_bytes: by which a process grew, at most.
        slowest: seconds of the slowest input.
        seconds: that each reader took.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    most_bytes: int = 0
    slowest: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


def fuzz(inputs: int, seed: int, names: list[str]) -> Report:
    """Give each reader its share of the inputs."""
    report = Report()
    for place, name in enumerate(names):
        count = inputs // len(names) + (place < inputs % len(names))
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "whole")
            whole.mkdir()
            path = _made(name, whole)
            first, started = 0, time.monotonic()
            while first < count:
                first = _process(name, path, range(first, count), seed, report)
            report.seconds[name] = time.monotonic() - started
    return report


def _made(name: str, folder: Path) -> Path:
    """The valid file, made in a process of its own: a fork of one in which a library has threads may wait forever."""
    listen, tell = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.write(tell, str(READERS[name].make(folder)).encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(listen, "rb") as pipe:
        path = Path(pipe.read().decode())
    os.waitpid(process, 0)
    return path


def _process(name: str, path: Path, numbers: range, seed: int, report: Report) -> int:
    """Read inputs in a process of their own; the number of the first one that is left."""
    listen, tell = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(listen)
        try:
            _work(READERS[name], name, path, numbers, seed, tell)
        finally:  # without the way out of a test
            os._exit(1)
    os.close(tell)
    at = numbers.start
    with os.fdopen(listen, "rb", buffering=0) as pipe:
        for line in _lines(pipe):
            if line is None:
                os.kill(process, signal.SIGKILL)
                break
            told = json.loads(line)
            at = told.get("done", at - 1) + 1
            report.outcomes[told["outcome"]] += "done" in told
            report.most_bytes = max(report.most_bytes, told.get("bytes", 0))
            report.slowest = max(report.slowest, told.get("seconds", 0.0))
            if "fault" in told:
                report.faults.append(f"{name}: {told['fault']}")
    _, status = os.waitpid(process, 0)
    if status:
        hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        report.outcomes["hung" if hung else "ended the process"] += 1
        report.faults.append(f"{name}: input {at} {'hung' if hung else f'ended the process ({status})'}")
        at += 1
    return at


def _lines(pipe: Any) -> Iterator[bytes | None]:
    """Lines as they come; None after a silence that is too long."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], _PATIENCE)[0]:
            yield None
            return
        piece = pipe.read(65536)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _work(reader: Reader, name: str, path: Path, numbers: range, seed: int, tell: int) -> None:
    """Read inputs, tell of each, and end the process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    signal.signal(signal.SIGPROF, _too_long)
    character_trajectories.read_apart = _read_apart  # type: ignore[attr-defined]  # a module's name
    _limit_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = sum(map(ord, name))
    for number in numbers:
        rng = np.random.default_rng([seed, code, number])
        told = _one(reader, path, rng)
        told |= {"done": number, "bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)}
        os.write(tell, json.dumps(told).encode() + b"\n")
    os._exit(0)


def _whole(path: Path) -> Path:
    """The folder "whole" that a path lies in, or is."""
    return next(one for one in (path, *path.parents) if one.name == "whole")


def _one(reader: Reader, path: Path, rng: np.random.Generator) -> dict[str, Any]:
    whole = _whole(path)
    spoiled = whole.with_name("spoiled")
    shutil.rmtree(spoiled, ignore_errors=True)
    shutil.copytree(whole, spoiled)
    files = sorted(one for one in spoiled.rglob("*") if one.is_file() and one.stat().st_size)
    for _ in range(rng.integers(1, 3)):
        file = files[rng.integers(len(files))]
        change: Callable[[bytes], bytes] = lambda content: mutated(content, rng)  # noqa: E731
        if rng.random() < 0.5 and repacked(file, change):
            continue
        file.write_bytes(change(file.read_bytes()))
    names = {spoiled.name, *(one.name for one in files if len(one.name) > 3)}
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        reader.read(spoiled / path.relative_to(whole))
    except TooLongError as error:
        return {"outcome": "too slow", "fault": f"took longer than it may {_places(error)}"}
    except BaseException as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if (wrong := _undocumented(error, names)) is not None:
            return {"outcome": "undocumented", "fault": f"{wrong} {_places(error)}"}
        return {"outcome": type(error).__name__, "seconds": time.monotonic() - started}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {"outcome": "read", "seconds": time.monotonic() - started}


def _places(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-5:]
    return "[" + " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(last)) + "]"


def _undocumented(error: BaseException, names: set[str]) -> str | None:
    """What is wrong with an error: of a type that no reader documents, or without the name of a file."""
    shown = f"{type(error).__name__}: {str(error)[:200]}"
    if type(error) not in (DamagedFileError, ValueError, FileNotFoundError):
        return shown
    return None if any(name in str(error) for name in names) else f"names no file: {shown}"


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A copy with one thing wrong: bits turned, cut, bytes put in, taken out, copied elsewhere, or filled."""
    data = bytearray(content)
    if not data:
        return content
    size = min(len(data), _HEAD) if rng.random() < 0.5 else len(data)
    place = int(rng.integers(size))
    length = int(rng.integers(1, 17))
    kind = rng.integers(7)
    if kind == 0:
        for _ in range(length):
            data[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place:place] = rng.bytes(length)
    elif kind == 3:
        del data[place : place + length]
    elif kind == 4:
        start = int(rng.integers(len(data)))
        data[place:place] = data[start : start + int(rng.integers(1, 200))]
    elif kind == 5:
        length = int(rng.choice([1, 2, 4, 8]))
        data[place : place + length] = bytes([int(rng.choice(_VALUES))]) * length
    else:
        for _ in range(length):  # in texts another digit or sign, in headers another number
            data[int(rng.integers(size))] = int(rng.choice(list(b"0123456789-.,:;eE[]{}()\"'\n \t/")))
    return bytes(data)


def _read_apart(path: Path, what: str, code: str) -> bytes:
    """As its namesake, in a copy of this process, which nothing but one reader uses: no start of an interpreter."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):
            os.close(read)
            os.dup2(write, 1)
            sys.argv = ["", str(path)]
            sys.stdout = open(1, "w")  # noqa: SIM115  (the process ends)
            exec(code, {})
            sys.stdout.flush()
            os._exit(0)
        os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    if os.waitpid(process, 0)[1]:
        refuse_file(path, f"be a complete {what}", "a damaged one")
    return found


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _too_long(*_: Any) -> None:
    raise TooLongError


def main() -> None:
    """Run, print the figures, and end with status 1 where something must not happen."""
    parser = argparse.ArgumentParser(description="spoiled files through every reader")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=sorted(READERS), default=list(READERS))
    options = parser.parse_args()
    started = time.monotonic()
    report = fuzz(options.inputs, options.seed, options.only)
    outcomes = ", ".join(f"{count} {name}" for name, count in report.outcomes.most_common())
    print(f"{options.inputs} inputs to {len(options.only)} readers in {time.monotonic() - started:.0f} s: {outcomes}")
    longest = sorted(report.seconds.items(), key=lambda one: -one[1])[:5]
    print("longest readers: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in longest))
    print(f"slowest {report.slowest:.1f} s; memory grew by {report.most_bytes / 2**20:.0f} MiB at most")
    for line, count in Counter(report.faults).most_common():
        print(f"{count} x {line}")
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    main()
