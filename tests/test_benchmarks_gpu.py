"""``make gpu`` rehearsed on the CPU, and what it measures with."""

from __future__ import annotations

import csv
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ccnn_irregular.operators.layout import balance

REPOSITORY = Path(__file__).resolve().parents[1]
# The benchmarks are scripts that stand side by side, not a package.
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import baselines  # noqa: E402
import gpu  # noqa: E402
import measure  # noqa: E402
import run  # noqa: E402
from problems import Problem  # noqa: E402
from waits import Waits  # noqa: E402


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rehearsal(tmp_path: Path) -> None:
    """The whole script, as it runs on a GPU."""
    command = ["make", "gpu", "DEVICE=cpu", f"PYTHON={sys.executable}", f"GPU_ARGS=--output {tmp_path} --jobs 0"]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    assert " passed" in (tmp_path / "tests-cpu.txt").read_text(encoding="utf-8")
    shares = {row["operation"]: float(row["share"]) for row in rows_of(tmp_path / "bandwidth-cpu.csv")}
    assert shares.keys() == {"copy", "spread", "FFT", "inverse FFT", "interpolate"}
    assert all(share > 0 for share in shares.values())
    waited = rows_of(tmp_path / "waits-cpu.csv")
    assert {row["step"] for row in waited} >= {"spectral, points", "neighbours, points", "fft, grid", "CCNN, sequences"}
    for row in waited:  # what each place adds up to
        if row["phase"] == "all":
            own = [int(one["count"]) for one in waited if one["step"] == row["step"] and one["phase"] != "all"]
            assert int(row["count"]) == sum(own)
    compact = rows_of(tmp_path / "compact.csv")
    assert {row["status"] for row in compact} == {"ok"}
    assert {row["torch"] for row in compact + waited} == {torch.__version__}


def reading(values: Tensor) -> Tensor:
    """One of everything that waits, and what does not."""
    assert values.sum().item() > 0
    kept = values[values > 0.5]
    rows = torch.nonzero(values).flatten()
    repeated = torch.repeat_interleave(values, torch.ones(len(values), dtype=torch.int64))
    also = torch.repeat_interleave(values, 2, output_size=2 * len(values))
    return kept.sum() + rows.sum() + repeated.sum() + also.sum()


def test_waits_are_found_with_their_places() -> None:
    values = torch.rand(9) + 0.1
    counter = Waits("cpu")
    with counter.phase("forward"):
        reading(values)
        balance(values)
    operations = {operation for _, _, operation in counter.found}
    assert operations == {"_local_scalar_dense", "index", "nonzero", "repeat_interleave"}
    places = {place for _, place, _ in counter.found}
    assert any(place.startswith("operators/layout.py:") and place.endswith(" balance") for place in places)
    assert {phase for phase, _, _ in counter.found} == {"forward"}
    elsewhere = Waits("cuda")
    with elsewhere.phase("forward"):
        reading(values)
    assert not elsewhere.found


def test_a_method_that_ends_its_process_is_told_from_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def crashing(threads: int, limit: float) -> run.Runner:
        def runner(job: dict[str, Any]) -> list[dict[str, Any]]:
            raise RuntimeError("ended with -11")

        return runner

    monkeypatch.setattr(run, "isolated", lambda threads, limit: measure.rows_of)
    assert gpu.failure("neighbours", "cpu") == ""
    assert "cannot be used: both domains must be grids" in gpu.failure("fft", "cpu")
    monkeypatch.setattr(run, "isolated", crashing)
    assert gpu.failure("keops", "cpu") == "ended with -11"


class DirectPlan:
    """A non-uniform Fourier transform as cuFINUFFT has it, summed as written."""

    def __init__(self, kind: int, modes: tuple[int, ...], *, n_trans: int, eps: float, isign: int, dtype: str) -> None:
        self.kind, self.modes, self.isign = kind, modes, isign
        assert (n_trans, eps, dtype) == (1, 1e-3, "complex64")

    def setpts(self, *places: Tensor) -> None:
        waves = torch.meshgrid(*(torch.arange(-(n // 2), n // 2 + 1) for n in self.modes), indexing="ij")
        angle = sum(wave.flatten()[:, None] * place for wave, place in zip(waves, places, strict=True))
        assert isinstance(angle, Tensor)
        self.matrix = torch.polar(torch.ones_like(angle), self.isign * angle)  # (modes, points)

    def execute(self, data: Tensor) -> Tensor:
        if self.kind == 1:
            return (data @ self.matrix.T).unflatten(1, self.modes)
        return data.flatten(1) @ self.matrix


@pytest.mark.parametrize("d", [1, 2])
def test_the_transform_of_the_gpu_gives_the_sum_and_its_gradient(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("cufinufft")
    module.Plan = DirectPlan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cufinufft", module)
    monkeypatch.setattr(baselines.CudaNonUniformFFT, "device", "cpu")
    row = measure.measure(Problem("points", d, 60, 2, 0.25), "cufinufft", seconds=0.0)
    assert row["status"] == "ok", row["note"]
    assert row["relative_error"] < 2e-3
    assert row["gradient_error"] < 2e-3


def test_the_transform_of_the_gpu_is_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cufinufft", types.ModuleType("cufinufft"))
    row = measure.measure(Problem("points", 1, 5, 1, 0.2), "cufinufft")
    assert row == {"status": "refused", "note": "cufinufft runs on cuda"}
