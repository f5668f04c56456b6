"""The choice of an engine: predicted cost and memory, what is refused, and the constants of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ccnn_irregular import ENGINES, SIREN, GaussianMask, Grid, Kernel, Points, Product, convolve, explain, make_plan
from ccnn_irregular.kernels import MAGNet
from ccnn_irregular.operators.engines.engine import Cost, Engine
from ccnn_irregular.operators.planning import measure, memory, planner, rates
from ccnn_irregular.operators.planning.work import drawn, evaluation_work, pair_work
from ccnn_irregular.pipelines import cli


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Rates that someone measured on this machine play no part."""
    monkeypatch.setenv("CCNN_CACHE", str(tmp_path))
    rates._loaded.cache_clear()
    yield tmp_path
    rates._loaded.cache_clear()


def kernel_of(d: int, *, masked: bool = True, width: float = 0.1) -> Kernel:
    torch.manual_seed(0)
    return Kernel(SIREN(d, 4, 8), GaussianMask([width] * d) if masked else None, extent=[1.0] * d)


def cloud(count: int, d: int) -> Points:
    torch.manual_seed(1)
    return Points(torch.rand(count, d, dtype=torch.float64))


def cost_of(engine: str, kernel: Kernel, source: Points | Grid | Product) -> Cost:
    cost = ENGINES[engine].assess(kernel, source, source, 1, 1e-3)
    assert isinstance(cost, Cost)
    return cost


# ---- work ----


def test_work_of_a_generator_is_counted_on_its_evaluation() -> None:
    siren = evaluation_work(Kernel(SIREN(3, 16, 32), extent=[1.0] * 3))
    assert siren.multiply_adds == 3 * 32 + 32 * 32 + 32 * 16
    assert siren.elements == 3 + 3 * 32  # scaled offsets, one product with omega_0, two sines
    magnet = evaluation_work(Kernel(MAGNet(2, 5, 8, layers=3), extent=[1.0] * 2))
    assert magnet.multiply_adds == 4 * 2 * 8 + 3 * 8 * 8 + 8 * 5
    assert magnet.saved > 4 * 8


def test_pairs_are_counted_without_points() -> None:
    ragged = Points(torch.rand(5, 1), splits=torch.tensor([0, 2, 2, 5]))
    assert pair_work(ragged, ragged).pairs == 4 + 9
    grid = Grid((7,), (1.0,))
    assert (pair_work(ragged, grid).pairs, pair_work(ragged, grid).queries) == (35, 21)
    assert pair_work(Product(ragged, grid), Product(ragged, grid)).pairs == 49 * 13
    huge = Grid((4096,) * 3, (1.0,) * 3)
    assert pair_work(huge, huge).pairs == float(4096**6)


@pytest.mark.parametrize("count", [8, 10**6])
def test_drawn_points_are_the_domains(count: int) -> None:
    ragged = Points(torch.rand(9, 1, dtype=torch.float64), splits=torch.tensor([0, 2, 2, 9]), periods=[3.0])
    grid = Grid((5, 2), (0.5, 2.0), (1.0, 0.0))
    for domain, every in (
        (ragged, ragged),
        (grid, grid.as_points(3)),
        (Product(ragged, grid), Product(ragged, grid).as_points()),
    ):
        few = drawn(domain, 3, count)
        assert few.count == min(count, every.count)
        assert few.periods == every.periods
        for number in range(3):
            here = [points.coordinates[slice(*points.splits[number : number + 2])] for points in (few, every)]
            assert {tuple(row) for row in here[0].tolist()} <= {tuple(row) for row in here[1].tolist()}
            if count > every.count:
                assert torch.equal(*here)


@pytest.mark.parametrize("name", ["reference", "neighbours", "keops"])
def test_samples_of_points_are_counted_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, grid = kernel_of(1), Grid((30,), (0.1,))
    ragged = Points(torch.rand(40, 1, dtype=torch.float64), splits=torch.arange(5) * 10)
    of_points = explain(kernel, ragged).costs[name]
    assert explain(kernel, ragged, batch=4).costs[name] == of_points
    # The nodes as four samples of points: the same pairs, and the same rows of values.
    on_grid = explain(kernel, grid, ragged, batch=4).costs[name]
    assert on_grid == explain(kernel, grid.as_points(4), ragged).costs[name]
    assert explain(kernel, ragged, grid, batch=4).costs[name] == explain(kernel, ragged, grid.as_points(4)).costs[name]
    assert isinstance(of_points, Cost)
    monkeypatch.setattr(planner, "available_memory", lambda device: of_points.bytes)
    assert make_plan(kernel, ragged, engine=name, batch=4).engine == name


# ---- memory ----


def test_more_memory_than_there_is_is_refused_before_it_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "available_memory", lambda device: 2.0**30)
    huge, kernel = Grid((4096,) * 3, (1.0,) * 3), kernel_of(3, width=2.0)
    for name in ("fft", "reference"):
        message = rf"engine must fit into memory: '{name}' needs about [\d.,]+ [GT]iB, got 1 GiB available"
        with pytest.raises(ValueError, match=message):
            make_plan(kernel, huge, engine=name)
    with pytest.raises(ValueError, match=r"engine must fit into memory: 'reference' needs about .*'fft' needs about"):
        make_plan(kernel, huge)
    table = explain(kernel, huge)
    assert table.choice is None
    assert "out: needs about" in str(table)


def test_auto_takes_the_next_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, grid = kernel_of(2), Grid((128, 128), (1 / 128,) * 2)
    assert make_plan(kernel, grid).engine == "fft"
    large = replace(cost_of("fft", kernel, grid), bytes=2.0**50)
    monkeypatch.setattr(type(ENGINES["fft"]), "assess", lambda *_: large)
    assert explain(kernel, grid).choice == "reference"
    values = torch.rand(1, 4, 128, 128)
    with pytest.raises(ValueError, match="engine must fit into memory: 'fft' needs about 1,024 TiB, got"):
        convolve(kernel, values, grid, engine="fft")


_MEASURED = """
import sys, torch
from pathlib import Path
from typing import Any
from ccnn_irregular import *
torch.set_num_threads(1)
def high_water():
    # Not getrusage: that counts what the parent had when it forked.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
def run(engine, domain, kernel, values):
    convolve(kernel, values.requires_grad_(), domain, engine=engine).square().sum().backward()
def case(n):
    torch.manual_seed(0)
    if sys.argv[1] == "fft":
        domain, values = Grid((n, n), (1 / n, 1 / n)), torch.rand(4, 16, n, n)
    else:
        domain, values = Points(torch.rand(n, 2, dtype=torch.float64)), torch.rand(n, 16)
    return domain, Kernel(SIREN(2, 16, 32), GaussianMask([0.03] * 2), extent=[1.0] * 2), values
run(sys.argv[1], *case(64))
Path("/proc/self/clear_refs").write_text("5")
before = high_water()
large = case(int(sys.argv[2]))
run(sys.argv[1], *large)
print((high_water() - before) * 1024 - 2 * 4 * large[2].numel())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("engine", "size"), [("fft", 400), ("reference", 512)])
def test_predicted_memory_is_that_of_a_run(engine: str, size: int) -> None:
    # Large arrays straight from the system and back: else the allocator's gaps are measured.
    process = subprocess.run(
        [sys.executable, "-c", _MEASURED, engine, str(size)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = float(process.stdout)
    domain = Grid((size, size), (1 / size,) * 2) if engine == "fft" else cloud(size, 2)
    kernel = Kernel(SIREN(2, 16, 32), GaussianMask([0.03] * 2), extent=[1.0] * 2)
    cost = ENGINES[engine].assess(kernel, domain, domain, 4 if engine == "fft" else 1, 1e-3)
    assert isinstance(cost, Cost)
    assert measured / 2 < cost.bytes < measured * 2


def test_a_container_limits_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    monkeypatch.setattr(memory, "_OWN_CGROUP", own)
    monkeypatch.setattr(memory, "_CGROUP_ROOT", root)

    def left(line: str, folder: Path, **files: str) -> float:
        memory._limited_cgroups.cache_clear()
        own.write_text(line)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)
        return memory.available_memory(torch.device("cpu"))

    try:
        version_2 = {"memory__max": "5000000", "memory__current": "3000000", "memory__stat": "inactive_file 7\n"}
        assert left("0::/a/b\n", root / "a" / "b", **version_2) == 2000007
        assert left("0::/elsewhere\n", root, **version_2) == 2000007  # the container's own root
        version_1 = {"memory__limit_in_bytes": "900000", "memory__usage_in_bytes": "1000000"}
        assert left("4:cpu,memory:/x\n3:cpu:/\n", root / "memory" / "x", **version_1) == 0
        unlimited = {"memory__max": "max", "memory__current": "3000000"}
        assert left("0::/c\n", tmp_path / "fs" / "c", **unlimited) == 2000007  # its parent has a limit
        (root / "memory.max").write_text("max")
        assert left("0::/c\n", root / "c") > 1e7
    finally:
        memory._limited_cgroups.cache_clear()


def test_sizes_are_written_for_readers() -> None:
    assert [memory.as_size(n) for n in (10, 1536, 20.1 * 2**30, 3000 * 2.0**40)] == [
        "10 B",
        "1.5 KiB",
        "20.1 GiB",
        "3,000 TiB",
    ]


# ---- the machine ----


def test_measured_rates_are_used(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel, domain = kernel_of(2), cloud(3000, 2)
    before = cost_of("reference", kernel, domain)
    assert "measure yours: ccnn machine" in str(explain(kernel, domain))
    doubled = rates.Rates(**{name: 2 * value for name, value in asdict(rates.DEFAULT_RATES).items()})
    path = rates.save_rates(doubled, "cpu")
    assert path.parent == own_cache
    assert [one.name for one in own_cache.iterdir()] == [path.name]
    assert rates.load_rates("cpu") == doubled
    assert cost_of("reference", kernel, domain) == before  # what is counted does not depend on the machine
    assert explain(kernel, domain).rates == doubled
    assert before.seconds(doubled) == pytest.approx(2 * before.seconds(rates.DEFAULT_RATES))
    assert "predicted on this machine" in str(explain(kernel, domain))


@pytest.mark.parametrize("damage", ["machine", "cut", "rate", "list"])
def test_a_file_of_no_use_is_said_once(damage: str) -> None:
    path = rates.save_rates(rates.DEFAULT_RATES, "cpu")
    stored = json.loads(path.read_text())
    if damage == "machine":
        stored["machine"]["name"] = "another"
    elif damage == "rate":
        stored["rates"]["fft"] = -1.0
    elif damage == "list":
        stored = [1]
    path.write_text(json.dumps(stored)[: 20 if damage == "cut" else None])
    rates._loaded.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert rates.current_rates(torch.device("cpu")) == rates.DEFAULT_RATES
    assert len(caught) == 1
    wanted = {"machine": "of another machine", "cut": "cannot be read"}.get(damage, "damaged")
    assert wanted in str(caught[0].message)
    assert "is not used; 'ccnn machine' measures anew" in str(caught[0].message)


def test_ccnn_machine_keeps_what_it_measured(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "_SECONDS_PER_MEASUREMENT", 1e-3)
    for name, fewer in (("_ROWS", 512), ("_PAIRED", 24), ("_SEARCHED", 200)):
        monkeypatch.setattr(measure, name, fewer)
    monkeypatch.setattr(measure, "compiler", lambda: None)  # nothing is compiled here
    cli.main(["machine"])
    kept = rates.load_rates("cpu")
    assert kept is not None
    assert kept.fft != rates.DEFAULT_RATES.fft
    assert kept.keops == rates.DEFAULT_RATES.keops
    assert all(1e-14 < value < 100 for value in asdict(kept).values())
    printed = capsys.readouterr().out
    assert "multiply_add_backward" in printed
    assert str(own_cache) in printed.replace("\n", "")


# ---- bad input ----


@pytest.mark.parametrize("rtol", [0.0, 1.0, float("nan"), -1e-3])
def test_rtol_out_of_range(rtol: float) -> None:
    kernel, domain = kernel_of(1), cloud(3, 1)
    for call in (
        lambda: explain(kernel, domain, rtol=rtol),
        lambda: make_plan(kernel, domain, rtol=rtol),
        lambda: convolve(kernel, torch.zeros(3, 4), domain, rtol=rtol),
    ):
        with pytest.raises(ValueError, match="rtol must lie between 0 and 1, got"):
            call()


def test_what_does_not_go_together_is_refused() -> None:
    kernel, domain = kernel_of(2), cloud(3, 2)
    with pytest.raises(ValueError, match=r"engine must be 'auto' or one of .*, got 'quantum'"):
        make_plan(kernel, domain, engine="quantum")
    with pytest.raises(ValueError, match="source must have the kernel's 2 axes, got 1"):
        explain(kernel, cloud(3, 1))
    with pytest.raises(ValueError, match="query must have the source's 2 axes, got 1"):
        explain(kernel, domain, Grid((3,), (1.0,)))
    two = Points(torch.zeros(4, 2), splits=torch.tensor([0, 1, 4]))
    with pytest.raises(ValueError, match="query must have one sample per sample of the source, 1, got 2"):
        make_plan(kernel, domain, two)


def test_mixed_devices_are_refused() -> None:
    elsewhere, domain = kernel_of(2).to("meta"), cloud(3, 2)
    message = "kernel must have numbers: .*, got one on the meta device"
    with pytest.raises(ValueError, match=message):
        make_plan(elsewhere, domain)
    with pytest.raises(ValueError, match=message):
        explain(elsewhere, Grid((3, 3), (1.0, 1.0)), domain)
    with pytest.raises(ValueError, match=message):
        convolve(elsewhere, torch.zeros(1, 4, 3, 3), Grid((3, 3), (1.0, 1.0)))
    with pytest.raises(ValueError, match="values must be on the kernel's device cpu, got meta"):
        convolve(kernel_of(2), torch.zeros(1, 4, 3, 3, device="meta"), Grid((3, 3), (1.0, 1.0)))


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("masked", [True, False])
def test_no_point_and_one_point(count: int, masked: bool) -> None:
    kernel, domain = kernel_of(2, masked=masked), cloud(count, 2)
    table = explain(kernel, domain)
    assert table.choice is not None
    assert all(
        cost.seconds(table.rates) >= 0 and cost.bytes >= 0 for cost in table.costs.values() if isinstance(cost, Cost)
    )
    values = torch.ones(count, 4)
    result = convolve(kernel, values, domain).detach()
    at_zero = kernel(torch.zeros(count, 2)).detach()
    torch.testing.assert_close(result, at_zero, rtol=1e-2, atol=1e-3 * float(at_zero.abs().sum() + 1))


def test_auto_measures_no_spectrum_where_another_engine_is_done_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, few, many = kernel_of(3), cloud(40, 3), cloud(20_000, 3)
    for domain in (few, many):
        found = ENGINES["spectral"].assess(kernel, domain, domain, 1, 1e-3)
        assert isinstance(found, Cost)
        least = rates.DEFAULT_RATES.seconds(ENGINES["spectral"].least_work(kernel, domain))
        assert 0 < least <= found.seconds(rates.DEFAULT_RATES)
    choice = explain(kernel, few).choice
    looked_at: list[int] = []
    assess = type(ENGINES["spectral"]).assess

    def watched(self: Engine, kernel: Kernel, source: Points, *rest: Any) -> Cost | str:
        looked_at.append(source.count)
        return assess(self, kernel, source, *rest)

    monkeypatch.setattr(type(ENGINES["spectral"]), "assess", watched)
    assert make_plan(kernel, few).engine == choice != "spectral"
    make_plan(kernel, many)
    assert looked_at == [20_000]
