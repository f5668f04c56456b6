"""docs/extending.md, followed literally: new generators and masks are held to their contracts, as a reader would."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_checks import Check
from contract_kernels import GENERATOR_CHECKS, MASK_CHECKS
from engine_contract import contract
from extending_page import blocks, followed
from torch import Tensor

from ccnn_irregular import SIREN, GaussianMask, KernelSpec, integral
from ccnn_irregular.integral import INTERPOLATIONS
from ccnn_irregular.kernels import GENERATORS, MASKS, Generator, Mask, register_generator, register_mask
from ccnn_irregular.pipelines.train.registry import _registered, task_class

REPOSITORY = Path(__file__).resolve().parents[1]


def test_a_new_engine(capsys: pytest.CaptureFixture[str]) -> None:
    with followed("A new engine") as names:
        assert names["result"].shape == (200, 4)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line[1:].startswith("dense_sum")]
        assert "exact" in line
    code = blocks("A new engine")[0]
    methods = code[code.index("    def cost") : code.index("register(Dense")]
    body = [line for line in methods.splitlines() if line.strip()]
    assert len(body) <= 22  # the page says how little it takes: three methods


def test_a_new_generator() -> None:
    with followed("A new generator") as names:
        assert names["result"].shape == (1, 8, 50)
        assert [check for part, check in contract() if part == "cosines"] == GENERATOR_CHECKS
        for check in GENERATOR_CHECKS:
            check("cosines")
    assert "cosines" not in GENERATORS


def test_a_new_weight_function() -> None:
    with followed("A new weight function") as names:
        assert names["result"].shape == (5, 2)
        assert integral.channel_groups(names["converted"]).error < 1e-6
        nodes = INTERPOLATIONS["smooth_step"].matrix(torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64), 3)
        assert nodes.tolist() == [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]]
    assert "smooth_step" not in INTERPOLATIONS


def test_a_new_mask() -> None:
    with followed("A new mask") as names:
        assert names["result"].shape == (500, 4)
        for option in ({"threshold": 0.1}, {"learned_mean": True}):
            with pytest.raises(ValueError, match=rf"kernel.{next(iter(option))} must be .* for mask 'bump', wh"):
                KernelSpec(width=[1.0], mask="bump", **option)
        assert [check for part, check in contract() if part == "bump"] == MASK_CHECKS
        for check in MASK_CHECKS:
            check("bump")
    assert "bump" not in MASKS


def test_a_new_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a file, as the page says: the command line looks classes up by their module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("slope_task.py").write_text("\n".join(blocks("A new task")), encoding="utf-8")
    try:
        assert importlib.import_module("slope_task").SlopeTask.task == "slope"
    finally:
        _registered.pop("slope", None)
        sys.modules.pop("slope_task", None)
    assert "400 lines" in capsys.readouterr().out
    report = json.loads(Path("runs/slope/test/metrics.json").read_text(encoding="utf-8"))
    assert report["rmse"]["network"] < 0.7 * report["rmse"]["mean"]
    assert report["data"] == {"count": 400, "lines": {"train": 240, "validation": 80, "test": 80}}
    assert report["overlap"]["trained_on"] == 0
    assert len(Path("slopes.csv").read_text(encoding="utf-8").splitlines()) == 81
    with pytest.raises(ValueError, match="task must be one of classification"):
        task_class("slope")


def test_the_command_of_the_page(tmp_path: Path) -> None:
    """A module of a reader's own is tested by its name."""
    (tmp_path / "bump.py").write_text(blocks("A new mask")[0], encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "bump", "-p", "no:cacheprovider", "tests/test_contract.py"]
    process = subprocess.run(
        [*command, "-k", "bump and gives_a_factor_to_each_offset"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_XDIST_WORKER": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "6 passed" in process.stdout, process.stdout + process.stderr


# ---- broken ones fail ----


def broken_by(checks: list[Check], name: str) -> set[str]:
    """Names of the checks that a part breaks."""
    found = set()
    for check in checks:
        try:
            check(name)
        except AssertionError:
            found.add(check.function.__name__)
    return found


def test_broken_generators_fail() -> None:
    with followed("A new generator", first=1) as names:
        right: type[Generator] = names["Cosines"]

        class Zeros(right):  # type: ignore[valid-type,misc]
            def formula(self, offsets: Any, operations: Any) -> Any:
                return super().formula(offsets, operations) * 0.0

        class SeesOthers(right):  # type: ignore[valid-type,misc]
            def forward(self, offsets: Tensor) -> Tensor:
                values = super().forward(offsets)
                return values - values.reshape(-1, self.out_channels).mean(0)

        class AnotherOutput(right):  # type: ignore[valid-type,misc]
            @property
            def output(self) -> torch.nn.Linear:
                return self.waves

        class Writes(right):  # type: ignore[valid-type,misc]
            def formula(self, offsets: Any, operations: Any) -> Any:
                self.last = super().formula(offsets, operations)
                return self.last

        for name, wrong, check in (
            ("zeros", Zeros, "gives_a_value_to_each_offset"),
            ("sees_others", SeesOthers, "gives_a_value_to_each_offset"),
            ("another_output", AnotherOutput, "output_layer_scales_the_values"),
            ("writes", Writes, "generator_is_a_module_like_others"),
        ):
            register_generator(name, wrong)
            assert check in broken_by(GENERATOR_CHECKS, name), name


def test_broken_masks_fail() -> None:
    with followed("A new mask", first=1) as names:
        right: type[Mask] = names["Bump"]

        class ShortSupport(right):  # type: ignore[valid-type,misc]
            @property
            def support(self) -> Tensor:
                return 0.5 * super().support

        class InUnits(right):  # type: ignore[valid-type,misc]
            @property
            def width(self) -> Tensor:
                return 0.5 * torch.ones_like(self.log_scale) * self.log_scale.exp()

        class Large(right):  # type: ignore[valid-type,misc]
            def formula(self, offsets: Any, operations: Any) -> Any:
                return super().formula(offsets, operations) * 2.0

        for name, wrong, check in (
            ("short_support", ShortSupport, "is_zero_outside_its_support"),
            ("in_units", InUnits, "follows_the_unit"),
            ("large", Large, "gives_a_factor_to_each_offset"),
        ):
            register_mask(name, wrong)
            assert check in broken_by(MASK_CHECKS, name), name


# ---- names ----


@pytest.mark.parametrize(("registry", "register"), [(GENERATORS, register_generator), (MASKS, register_mask)])
def test_names_are_words_of_their_own(registry: dict[str, Any], register: Callable[..., None]) -> None:
    taken = next(iter(registry))
    for name in ("", "Two Words", "Capital", 3, None):
        with pytest.raises(ValueError, match="name must be a word in small letters to name a"):
            register(name, SIREN)
    with pytest.raises(ValueError, match=rf"name must be another one for a .*'{taken}'.* are taken, got '{taken}'"):
        register(taken, GaussianMask if registry is GENERATORS else SIREN)
    register(taken, registry[taken])  # a notebook's cell that runs twice
