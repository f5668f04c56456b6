"""The benchmarks at tiny sizes, through the code that measures: right answers, kept rows, true tables. Never times."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ccnn_irregular import Kernel, Points

REPOSITORY = Path(__file__).resolve().parents[1]
# The benchmarks are scripts that stand side by side, not a package.
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import bars  # noqa: E402
import baselines  # noqa: E402
import cases  # noqa: E402
import exact  # noqa: E402
import measure  # noqa: E402
import plots  # noqa: E402
import problems  # noqa: E402
import results  # noqa: E402
import run  # noqa: E402
import suites  # noqa: E402

# What a method may be off by: rounding in float32, or twice rtol where it approximates.
ROUNDING = 5e-6
APPROXIMATE = ("spectral", "finufft", "auto")
TIMED = ("points", "compact", "ragged", "grids")
HAS_FINUFFT = importlib.util.find_spec("finufft") is not None


@pytest.fixture
def one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """One repeat is enough where times do not matter."""
    monkeypatch.setattr(measure, "_AT_LEAST", 1)
    monkeypatch.setattr(measure, "_SECONDS", 0.0)


def stand_in(job: dict[str, Any]) -> list[results.Row]:
    """Rows as ``measure`` returns them, without measuring: seconds are known functions of the size."""
    if job["kind"] == "random":
        row = {"method": "spectral", "status": "ok", "d": 2, "rtol": 1e-3, "dtype": "float32", "note": "a case"}
        return [
            row | {"problem": f"random case {job['first']}-{number}", "relative_error": 1e-5 * (1 + number)}
            for number in range(job["count"])
        ]
    if job["kind"] == "refinement":
        return [
            {
                "problem": f"Gaussian * Gaussian, simpson, {size} nodes",
                "method": "reference",
                "status": "ok",
                "size": size,
                "relative_error": (size - 1) ** -4.0,
                "note": "simpson",
            }
            for size in (17, 33, 65)
        ]
    problem = problems.Problem(**job["problem"])
    nodes = float(problem.nodes)
    per_method = {"keops": 1e-6 * nodes**2, "spectral": 1e-5 * nodes, "torch-geometric": 4e-5 * nodes}
    if problem.kind == "ragged":
        per_method = {"padded torch": 60e-5 * nodes}
    seconds = per_method.get(job["method"], 1e-5 * nodes)
    return [
        {
            "status": "ok",
            "plan_s": seconds,
            "forward_s": seconds / 2,
            "forward_backward_s": seconds,
            "peak_mib": 1e-3 * nodes * (3 if job["method"] == "torch-geometric" else 1),
            "process_mib": 300 + 1e-3 * nodes,
            "relative_error": problem.rtol / 2,
            "note": "picked neighbours" if job["method"] == "auto" else "",
        }
    ]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rows of all suites at full scale, from ``stand_in``."""
    folder = tmp_path_factory.mktemp("full")
    for suite in suites.SUITES:
        run.run_suite(suite, "full", folder / f"{suite}.csv", runner=stand_in)
    return folder


@pytest.mark.usefixtures("one_call")
@pytest.mark.parametrize("suite", TIMED)
def test_every_method_gives_the_sum_and_its_gradient(suite: suites.SuiteName, tmp_path: Path) -> None:
    rows = run.run_suite(
        suite, "tiny", tmp_path / "rows.csv", runner=measure.rows_of, judges=tmp_path, without=("keops",)
    )
    methods = {row["method"] for row in rows}
    assert len(rows) == len({row["task"] for row in rows})
    for row in rows:
        if row["method"] == "finufft" and not HAS_FINUFFT:
            assert row["status"] == "absent"
        elif row["status"] == "extrapolated":
            assert row["measured_size"] < row["size"]
            assert row["law"]
        else:
            assert row["status"] == "ok", row["note"]
            allowed = 2 * row["rtol"] if row["method"] in APPROXIMATE else ROUNDING
            assert row["relative_error"] <= allowed, row["task"]
            assert row["gradient_error"] <= allowed, row["task"]
            assert row["peak_mib"] >= -1
            assert min(row["plan_s"], row["forward_s"], row["forward_backward_s"], row["first_s"]) > 0
    expected = {
        "points": {"spectral", "auto", "finufft", "blocked torch", "torch-geometric", "fft"},
        "compact": {"auto", "neighbours", "torch-geometric", "spectral"},
        "ragged": {"auto", "spectral", "padded torch", "blocked torch"},
        "grids": {"fft", "fft, kernel given", "fft, uncropped", "rfftn-irfftn", "direct convolution"},
    }
    assert methods == expected[suite]


def test_every_method_is_measured() -> None:
    measured = {
        task.method
        for suite in suites.SUITES
        for scale in ("full", "gpu")
        for task in suites.tasks(suite, scale)
        if isinstance(task, suites.Timing)
    }
    assert measured == set(baselines.METHODS)


def test_the_judge_is_the_sum() -> None:
    torch.manual_seed(0)
    points = Points(
        torch.rand(9, 2, dtype=torch.float64),
        torch.rand(9, dtype=torch.float64),
        torch.tensor([0, 4, 9]),
        periods=[1.0, None],
    )
    kernel = problems.build(problems.Problem("points", 2, 3, 2, 0.4)).kernel.double()
    values = torch.randn(9, 1, 2, dtype=torch.float64)
    queries, samples = torch.rand(3, 2, dtype=torch.float64), torch.tensor([0, 1, 1])
    for sign in (1, -1):
        expected = torch.zeros(3, 1, 2, dtype=torch.float64)
        for row in range(3):
            for source in range(9):
                if (source >= 4) != bool(samples[row]):
                    continue
                offset = queries[row] - points.coordinates[source]
                # All copies of the periodic axis: the kernel reaches less than half a period.
                copies = torch.stack([offset + torch.tensor([shift, 0.0]) for shift in (-1.0, 0.0, 1.0)])
                expected[row, 0] += (kernel(sign * copies).detach() * values[source, 0]).sum(0)
        actual = exact.sums(kernel, points, values, queries, samples, mirrored=sign < 0)
        assert exact.relative_error(actual, expected) < 1e-13
    assert exact.relative_error(torch.zeros_like(expected), expected) == 1.0


def test_the_gradient_of_the_judge_is_that_of_its_result() -> None:
    instance = problems.build(problems.Problem("ragged", 1, 2, 2, 6.0, dtype="float64"))
    judged = exact.judge(instance)
    domain, kernel = instance.domain, instance.kernel
    assert isinstance(domain, Points)
    values = instance.values.clone().requires_grad_()
    weighted = values * domain.weights[:, None]
    offsets = domain.coordinates[:, None] - domain.coordinates[None]
    same = domain.sample_index()[:, None] == domain.sample_index()[None]
    result = torch.einsum("qs,qsc,sc->qc", same.double(), kernel(offsets), weighted)
    result.backward(judged.cotangent)
    assert values.grad is not None
    assert exact.relative_error(result[judged.rows][:, None].detach(), judged.result) < 1e-12
    assert exact.relative_error(values.grad[judged.rows][:, None], judged.gradient) < 1e-12


def test_random_cases_stay_below_twice_rtol() -> None:
    rows = [row for row in cases.random_cases(0, 2) if row["status"] == "ok"]
    assert len(rows) == 2
    for row in rows:
        assert 0 < row["relative_error"] <= 2 * row["rtol"], row["note"]


@pytest.mark.parametrize(("rule", "order"), [("trapezoid", 2.0), ("simpson", 4.0)])
def test_refinement_of_rules_on_a_line(rule: cases.Rule, order: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cases.RULES, rule, 4)
    errors = [row["relative_error"] for row in cases.refinement(rule)]
    assert errors[-2] / errors[-1] == pytest.approx(2**order, rel=0.1)


def test_refinement_of_a_grid_ends_at_rounding() -> None:
    assert cases.refinement("cell volumes 2-D")[-1]["relative_error"] < 1e-13


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "grids.csv"
    calls: list[str] = []

    def interrupted(job: dict[str, Any]) -> list[results.Row]:
        calls.append(job["method"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return stand_in(job)

    with pytest.raises(KeyboardInterrupt):
        run.run_suite("grids", "tiny", path, runner=interrupted)
    assert len(results.read(path)) == 2
    assert not list(tmp_path.glob("*.part"))
    rows = run.run_suite("grids", "tiny", path, runner=interrupted)
    total = len(suites.tasks("grids", "tiny"))
    assert len(results.read(path)) == len(rows) == total
    assert len(calls) == total + 1  # the interrupted one twice, no other
    assert len({row["run"] for row in rows}) == 1
    run.run_suite("grids", "tiny", path, runner=interrupted)
    assert len(calls) == total + 1
    run.run_suite("grids", "tiny", path, runner=interrupted, fresh=True)
    assert len(calls) == 2 * total + 1


def test_rows_of_another_machine_are_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "grids.csv"
    run.run_suite("grids", "tiny", path, runner=stand_in, threads=1)
    with pytest.raises(ValueError, match=r"holds another run \(threads '1' there, '2' here\): add --fresh"):
        run.run_suite("grids", "tiny", path, runner=stand_in, threads=2)
    assert {row["threads"] for row in run.run_suite("grids", "tiny", path, runner=stand_in, threads=2, fresh=True)} == {
        "2"
    }


def test_a_failure_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "ragged.csv"

    def failing(job: dict[str, Any]) -> list[results.Row]:
        raise RuntimeError("out of luck")

    rows = run.run_suite("ragged", "tiny", path, runner=failing)
    assert {row["status"] for row in rows} == {"failed", "absent"}  # nothing to extrapolate from
    assert "out of luck" in {row["note"] for row in rows}
    assert {row["status"] for row in run.run_suite("ragged", "tiny", path, runner=stand_in)} == {"ok", "extrapolated"}


def test_extrapolation_follows_the_law(full: Path) -> None:
    rows = results.read(full / "points.csv")
    (row,) = (one for one in rows if one["method"] == "keops" and one["d"] == "3" and one["size"] == "100000")
    assert row["status"] == "extrapolated"
    assert row["measured_size"] == "3000"
    assert float(row["forward_backward_s"]) == pytest.approx(1e-6 * 100_000**2, rel=1e-4)
    assert not row["peak_mib"]


def test_a_process_of_its_own_answers_and_is_stopped(tmp_path: Path) -> None:
    task = suites.tasks("grids", "tiny")[0]
    (row,) = run.isolated(1, 300.0)(task.job("cpu", str(tmp_path)))
    assert row["status"] == "ok"
    assert row["relative_error"] < ROUNDING
    with pytest.raises(RuntimeError, match="KeyError"):
        run.isolated(1, 300.0)({"kind": "time"})
    with pytest.raises(run.TooSlow, match=r"stopped after 0\.1 s"):
        run.isolated(1, 0.1)(task.job("cpu", None))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the high-water mark cannot be set back")
def test_peak_memory_counts_what_is_freed_again_and_not_what_was_before() -> None:
    torch.ones(100 << 20, dtype=torch.uint8)
    memory = measure._Memory("cpu")
    torch.ones(50 << 20, dtype=torch.uint8)
    peak, process = memory.peak()
    assert 45 < peak < 80
    assert process > peak


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines.NonUniformFFT, "requires", ("no_such_package",))
    row = measure.measure(problems.Problem("points", 1, 5, 1, 0.2), "finufft")
    assert row == {"status": "absent", "note": "No module named 'no_such_package'"}


def test_a_refusal_is_said() -> None:
    row = measure.measure(problems.Problem("points", 1, 5, 1, 0.2), "fft")
    assert row["status"] == "refused"
    assert "fft" in row["note"]


def test_targets(full: Path) -> None:
    table = bars.bars({suite: results.read(full / f"{suite}.csv") for suite in suites.SUITES})
    found = {bar.what: bar for bar in table}
    keops = found["100,000 points in 3-D, support 0.25: KeOps / spectral, forward"]
    assert keops.measured == pytest.approx(1e-6 * 1e10 / (1e-5 * 1e5), rel=1e-4)
    assert keops.reached == "yes"
    assert "extrapolated from 3000" in keops.note
    memory = found["100,000 points in 3-D, about 50 neighbours: auto / torch-geometric, peak memory"]
    assert memory.measured == pytest.approx(1 / 3, rel=1e-4)
    assert found["slope of log time (forward + backward) over log points, 10^4 to 10^6, 3-D"].measured == pytest.approx(
        1
    )
    largest = found["1,000,000 points in 3-D, forward + backward: peak memory, GiB"]
    assert largest.measured == pytest.approx(1300 / 1024, rel=1e-4)
    padding = found["64 series, 64 channels: padding + blocked sum / spectral, forward + backward"]
    assert padding.measured == pytest.approx(60, rel=1e-4)
    random = found["largest error / rtol of 200 random cases (0 more refused)"]
    assert random.measured == pytest.approx(0.5)  # the fiftieth case of a task: 5e-4 of 1e-3
    assert found["Gaussian * Gaussian, simpson: order"].measured == pytest.approx(4)
    cropping = found["grid 2-D, support 10% of the axis: uncropped / cropped, forward"]
    assert cropping.measured == pytest.approx(1)
    assert cropping.reached == "no"
    assert "scattered" not in found
    assert {bar.reached for bar in table} == {"yes", "no"}


def test_a_target_without_rows_is_not_measured() -> None:
    table = bars.bars({})
    timed = [bar for bar in table if not bar.what.startswith("Gaussian")]
    assert {bar.reached for bar in timed} == {"not measured"}
    assert len(timed) > 20


def test_a_time_at_too_large_an_error_does_not_count(full: Path) -> None:
    rows = results.read(full / "points.csv")
    for row in rows:
        if row["method"] == "spectral" and row["status"] == "ok":
            row["relative_error"] = "0.002"
    table = bars.bars({"points": rows})
    assert [bar.reached for bar in table if "KeOps" in bar.what] == ["no", "no"]


def test_rows_of_two_runs_are_not_compared(full: Path) -> None:
    rows = results.read(full / "points.csv")
    rows[0]["run"] = "yesterday"
    with pytest.raises(ValueError, match="rows must be of one run, got"):
        bars.bars({"points": rows})


def test_report(full: Path, tmp_path: Path) -> None:
    text = "\n".join(bars.report(full, "cpu"))
    assert f"torch {torch.__version__}" in text
    assert "FINUFFT / spectral" in text
    assert "forward + backward 1, " in text  # both took 1e-5 s a point
    lines = list(bars.report(full, "cpu", markdown=True))
    assert "|---|---|---|---|---|" in lines
    with pytest.raises(ValueError, match=r"holds no results: run benchmarks/run\.py first"):
        list(bars.report(tmp_path, "cpu"))


@pytest.fixture
def drawn(full: Path, tmp_path: Path) -> list[Path]:
    for suite in suites.SUITES:
        (tmp_path / f"{suite}.csv").write_bytes((full / f"{suite}.csv").read_bytes())
    return plots.draw(tmp_path, "cpu")


def test_figures(drawn: list[Path]) -> None:
    assert [path.stem for path in drawn] == list(plots.FIGURES)
    assert all(path.stat().st_size > 10_000 for path in drawn)


def test_a_figure_names_units_and_methods(full: Path) -> None:
    figure = plots.time_of_points(results.read(full / "points.csv"))
    assert [axes.get_title() for axes in figure.axes] == ["1-D", "2-D", "3-D"]
    assert figure.axes[0].get_ylabel() == "forward + backward, seconds"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "spectral", "auto", "finufft", "torch-geometric", "keops", "blocked torch", "extrapolated",
    ]  # fmt: skip
    dashed = [line for line in figure.axes[2].lines if line.get_linestyle() == "--"]
    assert len(dashed) == 3


def test_the_kernel_is_seen_from_all_sides() -> None:
    """The uncropped kernel is the same function, only without a support that it announces."""
    instance = problems.build(problems.Problem("grid", 2, 8, 3, 0.3, 2))
    method = baselines.FFTUncropped(instance)
    assert isinstance(method.kernel, Kernel)
    assert bool(method.kernel.support.isinf().all())
    offsets = torch.rand(50, 2) - 0.5
    torch.testing.assert_close(method.kernel(offsets), instance.kernel(offsets), rtol=1e-4, atol=1e-5)
