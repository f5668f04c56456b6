"""Everything that wants a GPU, in one run of a few minutes: ``make gpu``; ``make gpu DEVICE=cpu`` is its rehearsal.

    tests        what every engine promises, on the device
    rows         time, memory and error beside other methods, as ``run.py`` writes them
    bandwidth    the share of the device's memory bandwidth that spreading, transforms and interpolation reach
    waits        where the host waits for the device in a step of training with a given plan

CSV files carry the name of the device and the versions; docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import bars
import measure
import problems
import results
import run
import torch
from problems import Problem
from results import Row
from suites import Scale, SuiteName, Timing
from torch import Tensor, nn
from waits import Waits, device_waits

from ccnn_irregular import Kernel, convolve, make_plan
from ccnn_irregular.networks import PUBLISHED_KERNEL, ccnn_4_140, unit_grid
from ccnn_irregular.operators.planning.measure import measure_rates
from ccnn_irregular.operators.planning.rates import save_rates

__all__ = ["main"]

STAGES = ("tests", "rows", "bandwidth", "waits")
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Sizes:
    """How large things are.

    Attributes:
        copied: bytes of an array that is copied to measure the bandwidth.
        points: points of the bandwidth's transforms.
        stepped: points, or nodes of a sequence, of a step of training.
        seconds: what the repeats of one time take, three of them at the least.
        suites: whose rows are measured.
        tests: files that are run.
    """

    copied: int
    points: int
    stepped: int
    seconds: float
    suites: tuple[SuiteName, ...]
    tests: tuple[str, ...]


REAL = Sizes(
    copied=1 << 30,
    points=1_000_000,
    stepped=20_000,
    seconds=0.2,
    suites=("points", "compact", "ragged", "grids"),
    tests=("contract", "devices", "keops", "neighbours", "operators", "precision", "spectral", "spectral_sizes"),
)
# It shows that the script runs: a few of each kind are enough, and KeOps would compile for minutes.
REHEARSAL = Sizes(copied=1 << 20, points=300, stepped=60, seconds=0.0, suites=("compact",), tests=("devices",))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a rehearsal at tiny sizes")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--scale", choices=get_args(Scale), help="sizes of the rows; by default gpu, on a CPU tiny")
    parser.add_argument("--seconds", type=float, default=180.0, help="no further row is begun after so many")
    parser.add_argument("--without", nargs="+", default=(), metavar="METHOD", help="methods to leave out")
    parser.add_argument("--jobs", type=int, default=min(8, results.cores()), help="test processes")
    parser.add_argument("--output", type=Path, default=results.RESULTS, help="folder of the CSV files")
    options = parser.parse_args(arguments)
    device, rehearsal = options.device, options.device == "cpu"
    if not rehearsal and not torch.cuda.is_available():
        sys.exit(f"device must be there, got {device!r}: PyTorch {torch.__version__} sees no GPU here")
    scale: Scale = options.scale or ("tiny" if rehearsal else "gpu")
    sizes = REHEARSAL if rehearsal else REAL
    os.environ.setdefault("KEOPS_VERBOSE", "0")
    options.output.mkdir(parents=True, exist_ok=True)
    identity = results.machine(device, torch.get_num_threads())
    print(f"{identity['gpu']}, torch {torch.__version__}, {identity['cores']} cores, {identity['cpu']}", flush=True)
    failed, without = False, (*options.without, *(["keops"] if rehearsal else []))
    if "keops" not in without and (reason := failure("keops", device)):
        print(f"KeOps is left out: {reason}", flush=True)
        without += ("keops",)
    for stage in options.stages:
        start = time.perf_counter()
        print(f"\n== {stage} ==", flush=True)
        if stage == "tests":
            log = options.output / f"tests-{device.replace(':', '')}.txt"
            failed = not passes(device, log, sizes.tests, options.jobs, without)
        elif stage == "rows":
            print(*rows(device, scale, sizes, options.output, options.seconds, without), sep="\n")
        elif stage == "bandwidth":
            write(named(options.output, "bandwidth", device), bandwidth(device, sizes), identity)
        else:
            write(named(options.output, "waits", device), waits(device, sizes), identity)
        print(f"{stage}: {time.perf_counter() - start:.0f} s", flush=True)
    return int(failed)


def failure(method: str, device: str) -> str:
    """Say why a method cannot be measured here, tried in a separate process; empty where it can."""
    job = Timing(Problem("points", 1, 50, 2, 0.25), method).job(device, None)
    try:
        (row,) = run.isolated(torch.get_num_threads(), 100.0)(job)
    except (RuntimeError, run.TooSlow) as error:
        return str(error)
    return "" if row["status"] == "ok" else row["note"]


def passes(device: str, log: Path, tests: Sequence[str], jobs: int, without: tuple[str, ...]) -> bool:
    """Whether the tests of all engines, but those left out, pass on the device; the log holds what they print."""
    command = f"{sys.executable} -P -m pytest -q -n {jobs} -p no:cacheprovider -p no:benchmark".split()
    command += [str(_ROOT / "tests" / f"test_{name}.py") for name in tests]
    command += ["-k", " and ".join(f"not {name}" for name in without)] if without else []
    environment = os.environ | {"CCNN_TEST_DEVICE": device, "OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=_ROOT, env=environment, stdout=file, stderr=file, check=False).returncode
    lines = log.read_text(encoding="utf-8").splitlines()
    print(*(line for line in lines if line.startswith(("FAILED", "ERROR"))), *lines[-1:], sep="\n")
    return code == 0


def rows(
    device: str, scale: Scale, sizes: Sizes, output: Path, seconds: float, without: tuple[str, ...]
) -> Iterator[str]:
    """Measure the rows of all suites in this process: to start CUDA takes longer than most measurements."""
    threads = torch.get_num_threads()
    if device != "cpu":  # so that "auto" decides by this device
        os.environ["CCNN_CACHE"] = str(output / "cache")
        rates = measure_rates(device, lambda steps: [step for step in steps if step.__name__.strip("_") not in without])
        save_rates(rates, torch.device(device).type)
        yield f"rates: {rates}"
    end = time.perf_counter() + seconds

    def runner(job: dict[str, Any]) -> list[Row]:
        if time.perf_counter() > end:
            return [{"status": "left out", "note": f"not begun within {seconds:g} s"}]
        try:
            return measure.rows_of(job | {"seconds": sizes.seconds})
        finally:
            if device != "cpu":
                torch.cuda.empty_cache()

    judges = output / "cache"
    judges.mkdir(exist_ok=True)
    for suite, path in results.files(output, device).items():
        if suite in sizes.suites:
            run.run_suite(
                suite,
                scale,
                path,
                runner=runner,
                judges=judges,
                device=device,
                threads=threads,
                fresh=True,
                without=without,
                show=_show,
            )
    for file in judges.glob("*.pt"):
        file.unlink()
    yield from bars.report(output, device)


def _show(what: str, row: Row | None) -> None:
    if row is not None:
        print(run.line(row), flush=True)


def named(folder: Path, what: str, device: str) -> Path:
    """Return the CSV file of a device."""
    return folder / f"{what}-{device.replace(':', '')}.csv"


def write(path: Path, found: list[Row], identity: Row) -> None:
    """Write a CSV file with machine and versions in every row, and print the rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*found[0], *identity], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | identity for row in found)
    for row in found:
        print("  ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))


def bandwidth(device: str, sizes: Sizes) -> list[Row]:
    """Seconds and bytes of a plain copy and of the parts of a pass, and their share of the copy's bandwidth.

    What must move: every input and output once; for spreading and interpolation also the tensors of the plan.
    """
    whole = torch.empty(sizes.copied // 4, device=device).normal_()
    target = torch.empty_like(whole)
    problem = Problem("points", 3, sizes.points, 16, 0.25)
    instance = problems.build(problem, device)
    plan = make_plan(instance.kernel, instance.domain, engine="spectral", rtol=instance.rtol)
    spreading = plan.geometry.source.spreading
    cells = spreading.spread(instance.values)
    grid = cells.T.reshape(-1, *spreading.box.sizes).contiguous()
    modes = torch.fft.rfftn(grid, dim=(1, 2, 3))
    both = sum(_bytes(tensor) for tensor in vars(spreading).values() if isinstance(tensor, Tensor))
    held = both / 2  # of the two matrices
    measured: dict[str, tuple[Callable[[], object], float]] = {
        "copy": (lambda: target.copy_(whole), 2 * _bytes(whole)),
        "spread": (lambda: spreading.spread(instance.values), _bytes(instance.values) + _bytes(cells) + held),
        "FFT": (lambda: torch.fft.rfftn(grid, dim=(1, 2, 3)), _bytes(grid) + _bytes(modes)),
        "inverse FFT": (lambda: torch.fft.irfftn(modes, s=grid.shape[1:]), _bytes(grid) + _bytes(modes)),
        "interpolate": (lambda: spreading.interpolate(cells), _bytes(instance.values) + _bytes(cells) + held),
    }
    found: list[Row] = []
    for name, (call, moved) in measured.items():
        seconds, _ = measure.median(call, device, sizes.seconds)
        share = moved / seconds / (found[0]["bytes"] / found[0]["seconds"]) if found else 1.0
        found.append({"operation": name, "seconds": seconds, "bytes": moved, "share": share})
    return [row | {"gb_per_s": row["bytes"] / row["seconds"] / 1e9, "problem": problem.name} for row in found]


def _bytes(tensor: Tensor) -> int:
    """Return the memory of a tensor, dense or sparse."""
    if tensor.layout == torch.sparse_csr:
        return sum(map(_bytes, (tensor.values(), tensor.col_indices(), tensor.crow_indices())))
    return tensor.numel() * tensor.element_size()


@dataclass
class Step:
    """A step of training: what learns, and the loss of one forward pass."""

    parameters: list[nn.Parameter]
    loss: Callable[[], Tensor]


def steps(device: str, sizes: Sizes) -> Iterator[tuple[str, Step]]:
    """One convolution by every engine with a plan that is given, and a network on a grid."""
    cloud = Problem("points", 3, sizes.stepped, 16, 0.25)
    yield "spectral, points", _planned(cloud, "spectral", device)
    yield "spectral, series, causal", _planned(Problem("ragged", 1, 64, 16, 6.0), "spectral", device, causal=True)
    near = Problem("points", 3, sizes.stepped, 16, 0.5 * sizes.stepped ** (-1 / 3))
    yield "neighbours, points", _planned(near, "neighbours", device)
    yield "reference, points", _planned(cloud.sized(sizes.stepped // 10), "reference", device)
    yield "fft, grid", _planned(Problem("grid", 2, 64, 16, 0.25, 4), "fft", device)
    grid = unit_grid([min(784, sizes.stepped)])
    network = ccnn_4_140(kernel=replace(PUBLISHED_KERNEL, causal=True)).train().to(device)
    values, labels = torch.randn(32, 1, *grid.sizes, device=device), torch.arange(32, device=device) % 10
    network.calibrate(grid)
    loss = nn.functional.cross_entropy
    yield "CCNN, sequences", Step(list(network.parameters()), lambda: loss(network(values, grid), labels))


def _planned(problem: Problem, engine: str, device: str, *, causal: bool = False) -> Step:
    instance = problems.build(problem, device)
    kernel, domain, values = instance.kernel, instance.domain, instance.values
    if causal:
        kernel = Kernel(kernel.generator, kernel.mask, extent=kernel.exact_numbers("extent"), causal_axes=(0,))
        kernel = kernel.to(values.device)
    plan = make_plan(kernel, domain, engine=engine, rtol=instance.rtol, batch=instance.entries)
    return Step(list(kernel.parameters()), lambda: convolve(kernel, values, domain, plan=plan).square().mean())


def waits(device: str, sizes: Sizes) -> list[Row]:
    """How often the host waits in a step of training, in all and place by place, and how long the step takes."""
    found: list[Row] = []
    for name, step in steps(device, sizes):
        optimiser = torch.optim.AdamW(step.parameters, 0.0)  # plans hold for the kernel as it was

        def whole(step: Step = step, optimiser: torch.optim.Optimizer = optimiser) -> None:
            optimiser.zero_grad()
            step.loss().backward()
            optimiser.step()

        seconds, _ = measure.median(whole, device, sizes.seconds)
        counter = Waits(torch.device(device).type)
        with counter.phase("forward"):
            loss = step.loss()
        with counter.phase("backward"):
            loss.backward()
        row = {"step": name, "seconds": seconds}
        if device != "cpu":
            traced = device_waits(whole) - device_waits(lambda: None)
            found.append(row | {"phase": "all", "place": "CUDA's trace", "operation": "", "count": traced})
        total = sum(counter.found.values())
        found.append(row | {"phase": "all", "place": "", "operation": "", "count": total})
        for (phase, place, operation), count in counter.found.items():
            found.append(row | {"phase": phase, "place": place, "operation": operation, "count": count})
    return found


if __name__ == "__main__":
    sys.exit(main())
