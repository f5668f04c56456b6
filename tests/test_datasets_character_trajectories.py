"""Character Trajectories: the .npz, the .mat of UCI and the .ts files of UEA, written here; faults; the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from ccnn_irregular.datasets import character_trajectories
from ccnn_irregular.datasets.samples import RaggedSeries, drop_samples, split_stratified

LENGTHS = (5, 3, 4)
LETTERS = ("q", "a", "z")


@pytest.fixture
def strokes() -> list[np.ndarray]:
    """Three strokes (length, 3) of letters q, a, z."""
    rng = np.random.default_rng(1)
    return [rng.normal(size=(length, 3)) for length in LENGTHS]


def write_npz(path: Path, strokes: list[np.ndarray], **changes: Any) -> None:
    arrays: dict[str, Any] = {
        "values": np.concatenate(strokes).astype(np.float32),
        "offsets": np.cumsum([0, *map(len, strokes)]),
        "labels": np.array(LETTERS),
    }
    np.savez(path, **(arrays | changes))


def write_mat(path: Path, strokes: list[np.ndarray], numbers: tuple[int, ...] = (13, 1, 20), **changes: Any) -> None:
    cells = np.empty((1, len(strokes)), object)
    for index, stroke in enumerate(strokes):
        cells[0, index] = stroke.T
    key = np.empty((1, 20), object)
    for index, letter in enumerate(character_trajectories.LETTERS):
        key[0, index] = letter
    constants = {"charlabels": np.array([numbers], float), "key": key, "dt": 0.005}
    savemat(path, {"mixout": cells, "consts": constants} | changes)


def write_ts(root: Path, part: str, strokes: list[np.ndarray], labels: tuple[int, ...], channels: int = 3) -> None:
    header = f"""@problemName CharacterTrajectories
@timeStamps false
@missing false
@univariate false
@dimensions {channels}
@equalLength false
@classLabel true {" ".join(str(number) for number in range(1, 21))}
@data
"""
    lines = [
        ":".join([*(",".join(map(repr, channel.tolist())) for channel in stroke.T[:channels]), str(label)])
        for stroke, label in zip(strokes, labels, strict=True)
    ]
    (root / f"CharacterTrajectories_{part}.ts").write_text(header + "\n".join(lines) + "\n")


def assert_strokes(series: RaggedSeries, strokes: list[np.ndarray], labels: list[int]) -> None:
    np.testing.assert_allclose(series.values, np.concatenate(strokes), rtol=1e-6)
    assert series.splits.diff().tolist() == [len(stroke) for stroke in strokes]
    times = np.concatenate([np.arange(len(stroke)) / 200 for stroke in strokes])
    np.testing.assert_allclose(series.coordinates[:, 0], times, rtol=1e-15)
    assert series.labels.tolist() == labels
    assert (series.unit, len(series.classes)) == ("s", 20)


@pytest.mark.parametrize("kind", ["npz", "mat"])
@pytest.mark.parametrize("by_folder", [True, False])
def test_npz_and_mat_hold_letters_at_200_hz(
    tmp_path: Path, strokes: list[np.ndarray], kind: str, by_folder: bool
) -> None:
    path = tmp_path / {"npz": "character_trajectories.npz", "mat": "mixoutALL_shifted.mat"}[kind]
    (write_npz if kind == "npz" else write_mat)(path, strokes)
    series = character_trajectories.load(tmp_path if by_folder else path)
    letters = character_trajectories.LETTERS
    assert_strokes(series, strokes, [letters.index(letter) for letter in LETTERS])
    assert series.classes == letters


def test_the_two_ts_files_are_joined(tmp_path: Path, strokes: list[np.ndarray]) -> None:
    pytest.importorskip("sktime", reason="the extra 'files' is not installed")
    write_ts(tmp_path, "TRAIN", strokes[:2], (13, 1))
    write_ts(tmp_path, "TEST", strokes[2:], (20,))
    series = character_trajectories.load(tmp_path)
    assert_strokes(series, strokes, [12, 0, 19])
    assert series.classes == tuple(str(number) for number in range(1, 21))
    write_ts(tmp_path, "TRAIN", strokes[:2], (13, 1), channels=2)
    write_ts(tmp_path, "TEST", strokes[2:], (20,), channels=2)
    with pytest.raises(ValueError, match=r"the .ts files in .* must have 3 channels, got 2"):
        character_trajectories.load(tmp_path)


def test_rest_at_the_ends_is_trimmed_on_request(tmp_path: Path, strokes: list[np.ndarray]) -> None:
    strokes[2][1] = 0  # a rest in the middle stays
    padded = [
        np.concatenate([np.zeros((before, 3)), stroke, np.zeros((after, 3))])
        for stroke, before, after in zip(strokes, (2, 0, 3), (0, 4, 1), strict=True)
    ]
    write_mat(tmp_path / "mixoutALL_shifted.mat", padded)
    as_it_is = character_trajectories.load(tmp_path)
    assert as_it_is.splits.diff().tolist() == [7, 7, 8]
    assert_strokes(character_trajectories.load(tmp_path, trim=True), strokes, as_it_is.labels.tolist())
    write_mat(tmp_path / "mixoutALL_shifted.mat", [strokes[0], np.zeros((4, 3)), strokes[2]])
    with pytest.raises(ValueError, match=r"series must move at least once to be trimmed, got rest throughout in \[1\]"):
        character_trajectories.load(tmp_path, trim=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.zeros((12, 2), np.float32)}, r"values must be floats \(N, 3\), got float32 \(12, 2\)"),
        ({"values": np.zeros((12, 3), np.int64)}, r"values must be floats \(N, 3\), got int64"),
        ({"offsets": np.array([0, 5, 5, 12])}, r"offsets must rise from 0 to 12"),
        ({"offsets": np.array([0, 5, 8])}, r"offsets must rise from 0 to 12"),
        ({"labels": np.array(["a", "b"])}, r"labels must have shape \(3,\), got \(2,\)"),
        ({"labels": np.array(["a", "f", "x"])}, r"must be letters of abcdeghlmnopqrsuvwyz, got \['f', 'x'\]"),
    ],
)
def test_wrong_npz_files_are_refused(
    tmp_path: Path, strokes: list[np.ndarray], changes: dict[str, Any], message: str
) -> None:
    write_npz(tmp_path / "character_trajectories.npz", strokes, **changes)
    with pytest.raises(ValueError, match=f"character_trajectories.npz.*{message}"):
        character_trajectories.load(tmp_path)


def test_wrong_mat_files_are_refused(tmp_path: Path, strokes: list[np.ndarray]) -> None:
    path = tmp_path / "mixoutALL_shifted.mat"
    write_mat(path, strokes, numbers=(13, 21, 1))
    with pytest.raises(ValueError, match=r"labels in mixoutALL_shifted.mat must lie in 1\.\.20, got 21.* for sample 1"):
        character_trajectories.load(path)
    write_mat(path, strokes, numbers=(13, 1))
    with pytest.raises(ValueError, match=r"mixoutALL_shifted.mat, charlabels must hold 3 labels, got 2"):
        character_trajectories.load(path)
    write_mat(path, [strokes[0], strokes[1].T, strokes[2][:, :2]])
    with pytest.raises(ValueError, match=r"mixoutALL_shifted.mat, stroke 3 must have shape \(3, length\), got"):
        character_trajectories.load(path)
    savemat(path, {"something": np.zeros(3)})
    with pytest.raises(ValueError, match=r"mixoutALL_shifted.mat must be a complete .mat file with mixout"):
        character_trajectories.load(path)
    write_mat(path, strokes)
    complete = path.read_bytes()
    for content in (complete[: len(complete) // 2], complete[:100], b"", b"plain text, not a .mat file at all" * 10):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"mixoutALL_shifted.mat must be a complete .mat file with mixout"):
            character_trajectories.load(path)


def test_missing_and_ambiguous_folders_are_refused(tmp_path: Path, strokes: list[np.ndarray]) -> None:
    with pytest.raises(FileNotFoundError, match=r"root must be an existing folder, got .*nowhere"):
        character_trajectories.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"must hold character_trajectories.npz, mixoutALL_shifted.mat, or"):
        character_trajectories.load(tmp_path)
    write_npz(tmp_path / "character_trajectories.npz", strokes)
    write_mat(tmp_path / "mixoutALL_shifted.mat", strokes)
    with pytest.raises(ValueError, match=r"must hold one kind of file, or be the file that is meant, got .npz, .mat"):
        character_trajectories.load(tmp_path)
    write_ts(tmp_path, "TRAIN", strokes, (1, 2, 3))
    with pytest.raises(ValueError, match=r"root must be a folder, character_trajectories.npz or mixoutALL_shifted.mat"):
        character_trajectories.load(tmp_path / "CharacterTrajectories_TRAIN.ts")


def test_the_real_strokes(shared_data: Path) -> None:
    root = shared_data / "character_trajectories"
    if not root.is_dir():
        pytest.skip(f"no folder {root}")
    series = character_trajectories.load(root)
    lengths = series.splits.diff()
    assert (len(series), int(lengths.min()), int(lengths.max())) == (2426, 60, 182)
    assert series.values.shape == (291010, 3)
    assert len(torch.unique(series.labels)) == len(series.classes) == 20
    assert bool(torch.isfinite(series.values).all())
    parts = split_stratified(series.labels)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [1698, 364, 364]
    for fraction, shortest, longest in ((0.3, 42, 128), (0.5, 30, 91), (0.7, 18, 55)):
        lengths = drop_samples(series, fraction).splits.diff()
        assert (int(lengths.min()), int(lengths.max())) == (shortest, longest)
