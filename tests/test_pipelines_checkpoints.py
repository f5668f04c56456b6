"""Checkpoints and caches: whole or not at all, and checked before they are believed."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipelines_commands import write_config
from pipelines_stand_in import StandIn

from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.datasets.reading import cache, parsed
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.train.checkpoint import first_whole, read_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def config(tmp_path: Path) -> str:
    simulated_icu.write(tmp_path / "simulated", stays=60, seed=5)
    write_config(tmp_path / "tiny.yaml", tmp_path / "simulated", data={"test": 0.2})
    return "tiny.yaml"


def saved(path: str = "some.ckpt") -> Path:
    torch.manual_seed(0)
    save_checkpoint({"state_dict": {"weight": torch.randn(64, 64), "bias": torch.randn(64)}, "epoch": 3}, Path(path))
    return Path(path)


def test_no_bit_of_a_weight_turns_unseen() -> None:
    path = saved()
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = max(archive.infolist(), key=lambda entry: entry.file_size)
    start = whole.index(torch.load(path, weights_only=True)["state_dict"]["weight"].numpy().tobytes())
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, 8 * weights.file_size, 60):
        spoiled = bytearray(whole)
        spoiled[start + bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(spoiled)
        torch.load(path, weights_only=True)  # which takes it
        with pytest.raises(ValueError, match="are not those that were written"):
            read_checkpoint(path)
    path.write_bytes(whole)
    assert read_checkpoint(path)["epoch"] == 3


def test_every_cut_and_every_foreign_file_is_one_kind_of_error() -> None:
    path = saved()
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"ckpt_path must be a checkpoint .* undamaged, got some\.ckpt"):
            read_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 1000)
    with pytest.raises(ValueError, match="its entries are compressed"):
        read_checkpoint(path)


def test_a_failing_write_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved("kept.ckpt")
    before = path.read_bytes()

    def fails(content: Any, target: Path) -> None:
        target.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint({}, path)
    assert path.read_bytes() == before
    assert [one.name for one in Path().iterdir()] == ["kept.ckpt"]


def test_the_newest_whole_checkpoint_is_taken() -> None:
    one, other = saved("one.ckpt"), saved("other.ckpt")
    assert first_whole([one, other]) == (one, [])
    assert first_whole([Path("nowhere.ckpt"), other]) == (other, [])
    one.write_bytes(one.read_bytes()[:-100])
    found, wrong = first_whole([one, other])
    assert found == other
    assert "got one.ckpt" in wrong[0]


def test_a_run_whose_last_checkpoint_is_cut_goes_on_from_the_best_one(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["fit", "--config", config, "--run_dir", "whole"])
    steps = 3  # an epoch
    monkeypatch.setattr(StandIn, "interrupt_at", 2 * steps + 1)
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", config, "--run_dir", "parts"])
    monkeypatch.setattr(StandIn, "interrupt_at", None)
    last = Path("parts/last.ckpt")
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    shutil.copytree("parts", "hopeless")

    with pytest.warns(UserWarning, match=r"got parts/last\.ckpt: .*; best\.ckpt takes its place"):
        cli.main(["fit", "--config", config, "--run_dir", "parts"])
    assert "resuming from parts/best.ckpt" in capsys.readouterr().out
    ends = [read_checkpoint(f"{run}/last.ckpt")["state_dict"] for run in ("whole", "parts")]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)

    Path("hopeless/best.ckpt").write_bytes(b"")
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", config, "--run_dir", "hopeless"])
    assert "hold a checkpoint to resume from (--restart true starts anew)" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_not_set_aside(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photographs").mkdir()
    Path("photographs/one.jpg").write_bytes(b"dear")
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", config, "--run_dir", "photographs", "--restart", "true"])
    assert "one without config.yaml" in capsys.readouterr().err
    assert Path("photographs/one.jpg").read_bytes() == b"dear"


def test_a_cache_that_has_no_room_is_a_warning_and_leaves_nothing(tmp_path: Path) -> None:
    """In a process whose files may not grow beyond a few kilobytes, as on a disk that is full."""
    code = f"""
import resource, signal, warnings
from pathlib import Path
import numpy as np
from ccnn_irregular.datasets.reading import cache, parsed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    cache.write(Path({str(tmp_path / "kept" / "cache.h5")!r}), "ab", {{"values": np.arange(10_000.0)}})
print(*[one.message for one in told])
"""
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot be written, the next run parses again" in done.stdout
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_cache_comes_back_as_it_was() -> None:
    arrays = {"values": np.arange(12.0).reshape(3, 4), "ids": np.arange(3)}
    cache.write(Path("cache.h5"), "ab", arrays)
    found = cache.read(Path("cache.h5"), "ab")
    assert found is not None
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert cache.read(Path("cache.h5"), "cd") is None


def test_a_cache_of_another_version_or_source_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    source, made = Path("source.txt"), []
    source.write_text("1")

    def parse(files: Any) -> dict[str, np.ndarray]:
        made.append(files)
        return {"values": np.array([float(source.read_text())])}

    def found() -> float:
        return float(parsed.parsed_once(Path("kept/cache.h5"), Path(), [source], parse)["values"][0])

    assert (found(), found(), len(made)) == (1.0, 1.0, 1)
    monkeypatch.setattr(parsed, "_VERSION", 2)
    assert (found(), found(), len(made)) == (1.0, 1.0, 2)
    source.write_text("2")
    assert (found(), found(), len(made)) == (2.0, 2.0, 3)
    # Bytes of a cache of this name that another program wrote.
    Path("kept/cache.h5").write_bytes(b"something else")
    with pytest.warns(UserWarning, match="is damaged and is rebuilt"):
        assert found() == 2.0


def test_a_folder_that_takes_no_files_costs_a_warning_and_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path("source.txt")
    source.write_text("1")

    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.tempfile, "mkstemp", refused)
    with pytest.warns(UserWarning, match="cannot be written, the next run parses again"):
        found = parsed.parsed_once(Path("cache.h5"), Path(), [source], lambda _: {"values": np.ones(3)})
    assert found["values"].tolist() == [1.0, 1.0, 1.0]
    assert not Path("cache.h5").exists()


def test_two_processes_with_one_cache_both_get_whole_arrays() -> None:
    code = """
import sys, warnings
from pathlib import Path
import numpy as np
from ccnn_irregular.datasets.reading import cache, parsed
warnings.simplefilter("error")
arrays = {"values": np.arange(50_000.0)}
for _ in range(20):
    cache.write(Path("cache.h5"), "ab", arrays)
    assert np.array_equal(cache.read(Path("cache.h5"), "ab")["values"], arrays["values"])
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        assert (one.wait(), one.stderr.read() if one.stderr else "") == (0, "")
        if one.stderr:
            one.stderr.close()
    assert [path.name for path in Path().iterdir()] == ["cache.h5"]
