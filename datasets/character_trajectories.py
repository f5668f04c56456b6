"""Character Trajectories: 2,858 pen strokes of 20 letters written by one person, sampled at 200 Hz.

Three channels: the velocities of the pen tip along x and y and the rate of change of the force on it, smoothed and
normalised by the author.
Three kinds of files are read: the official ``mixoutALL_shifted.mat`` of the UCI repository, the official ``.ts`` files
of the UEA archive (through :mod:`ccnn_irregular.datasets.ts_files`), and an ``.npz`` with the arrays values, offsets
and labels. No checksum is published for any of them, so nothing is downloaded here.

    Williams BH. Character Trajectories. UCI Machine Learning Repository, 2008. https://doi.org/10.24432/C58G7V

Usual in the literature: random parts of 70, 15 and 15 per cent (``split_stratified``), with 0, 30, 50 or 70 per cent of
the samples of each series dropped at random before the split (``drop_samples``), both in
:mod:`ccnn_irregular.datasets.samples`. The times of the samples that stay are the true ones.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular._files import parsing, read_apart
from ccnn_irregular.datasets import ts_files
from ccnn_irregular.datasets.reading.files import existing_folder, labels_in_range, missing_file, read_npz
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import RaggedSeries

__all__ = ["LETTERS", "STEP_SECONDS", "load"]

LETTERS = tuple("abcdeghlmnopqrsuvwyz")
STEP_SECONDS = 1 / 200

_CHANNELS = 3
_NPZ, _MAT = "character_trajectories.npz", "mixoutALL_shifted.mat"
_TS = ("CharacterTrajectories_TRAIN.ts", "CharacterTrajectories_TEST.ts")


def load(root: str | Path, *, trim: bool = False) -> RaggedSeries:
    """All strokes, values ``(N, 3)``, times in seconds since the first sample of the stroke.

    Args:
        root: one of the files, or the folder that holds exactly one kind of them. The two ``.ts`` files are named by
            their folder and come in the order TRAIN, TEST; their classes are the numbers 1 to 20, others are letters.
        trim: leave out the samples at either end of a stroke in which all channels are exactly 0: the UCI file pads
            strokes with rest to align them, the other files are trimmed already. Times then start at the first
            sample that stays.

    Raises:
        FileNotFoundError: the file or folder is not there, or holds none of the known names.
        ValueError: a file breaks the format, or the folder holds several kinds: which was meant is not guessed.
        ImportError: a ``.ts`` file without sktime.
    """
    path = Path(root)
    kind = _kind_in_folder(existing_folder(path)) if not path.is_file() else path.suffix
    if kind == ".npz":
        series = _read_npz(path if path.is_file() else path / _NPZ)
    elif kind == ".mat":
        series = _read_mat(path if path.is_file() else path / _MAT)
    else:
        require(kind == ".ts" and path.is_dir(), "root", f"be a folder, {_NPZ} or {_MAT}", path)
        series = ts_files.load(*(path / name for name in _TS), step=STEP_SECONDS, unit="s")
        channels = series.values.shape[1]
        require(channels == _CHANNELS, f"the .ts files in {path}", f"have {_CHANNELS} channels", channels)
    return _without_rest(series) if trim else series


def _kind_in_folder(root: Path) -> str:
    kinds = [Path(name).suffix for name in (_NPZ, _MAT) if (root / name).is_file()]
    kinds += [".ts"] if all((root / name).is_file() for name in _TS) else []
    if not kinds:
        raise missing_file(root, f"{_NPZ}, {_MAT}, or {_TS[0]} and {_TS[1]}")
    require(len(kinds) == 1, str(root), "hold one kind of file, or be the file that is meant", ", ".join(kinds))
    return kinds[0]


def _read_npz(path: Path) -> RaggedSeries:
    values, offsets, letters = read_npz(path, ("values", "offsets", "labels")).values()
    shaped = values.ndim == 2 and values.shape[1] == _CHANNELS and values.dtype.kind == "f"
    require(shaped, f"{path.name}, values", f"be floats (N, {_CHANNELS})", f"{values.dtype} {values.shape}")
    sound = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) >= 2
    sound = sound and offsets[0] == 0 and offsets[-1] == len(values) and bool((np.diff(offsets) > 0).all())
    require(sound, f"{path.name}, offsets", f"rise from 0 to {len(values)}", offsets)
    strokes = len(offsets) - 1
    require(letters.shape == (strokes,), f"{path.name}, labels", f"have shape ({strokes},)", letters.shape)
    return _series(values, offsets, _letter_labels(path.name, letters.tolist()))


# SciPy's reader writes over foreign memory where some bytes are damaged.
_PROGRAM = """
import io, sys
import numpy as np
from scipy.io import loadmat
content = loadmat(sys.argv[1], squeeze_me=True, chars_as_strings=True)
constants = content["consts"]
numbers, key = (np.atleast_1d(constants[name][()]) for name in ("charlabels", "key"))
strokes = {f"stroke {place}": np.asarray(one, float) for place, one in enumerate(content["mixout"])}
buffer = io.BytesIO()
np.savez(buffer, numbers=numbers, key=np.array([str(letter) for letter in key]), **strokes)
sys.stdout.buffer.write(buffer.getvalue())
"""


def _read_mat(path: Path) -> RaggedSeries:
    """``mixout``: cells of (3, length); ``consts``: charlabels from 1 on, and key, the letter of each."""
    what = ".mat file with mixout and consts"
    with parsing(path, what), np.load(io.BytesIO(read_apart(path, what, _PROGRAM)), allow_pickle=False) as content:
        numbers, key = content["numbers"], content["key"]
        strokes = [content[f"stroke {place}"] for place in range(len(content.files) - 2)]
    for number, stroke in enumerate(strokes, 1):
        shape = np.shape(stroke)
        shaped = len(shape) == 2 and shape[0] == _CHANNELS and shape[1] > 0
        require(shaped, f"{path.name}, stroke {number}", f"have shape ({_CHANNELS}, length)", shape)
    require(len(numbers) == len(strokes), f"{path.name}, charlabels", f"hold {len(strokes)} labels", len(numbers))
    letters = [str(letter) for letter in key]
    rows = labels_in_range(path.name, numbers, 1, len(letters))
    offsets = np.concatenate([[0], np.cumsum([stroke.shape[1] for stroke in strokes])])
    labels = _letter_labels(path.name, [letters[row] for row in rows])
    return _series(np.concatenate([stroke.T for stroke in strokes]), offsets, labels)


def _letter_labels(file: str, letters: list[str]) -> np.ndarray:
    unknown = sorted(set(letters) - set(LETTERS))
    require(not unknown, f"the labels in {file}", f"be letters of {''.join(LETTERS)}", unknown)
    index = {letter: position for position, letter in enumerate(LETTERS)}
    return np.array([index[letter] for letter in letters], np.int64)


def _series(values: np.ndarray, offsets: np.ndarray, labels: np.ndarray) -> RaggedSeries:
    return RaggedSeries.uniform(
        values=torch.from_numpy(values.astype(np.float32)),
        step=STEP_SECONDS,
        splits=torch.from_numpy(offsets.astype(np.int64)),
        labels=torch.from_numpy(labels),
        classes=LETTERS,
        unit="s",
    )


def _without_rest(series: RaggedSeries) -> RaggedSeries:
    moving = torch.nn.functional.pad((series.values != 0).any(1).to(torch.int64).cumsum(0), (1, 0))
    row = torch.arange(len(series.values))
    lengths = series.splits.diff()
    first = torch.repeat_interleave(moving[series.splits[:-1]], lengths)
    last = torch.repeat_interleave(moving[series.splits[1:]], lengths)
    # Rows from the first that moves (the count has risen) to the last (the count has not yet reached the end before).
    kept = (moving[row + 1] > first) & (moving[row] < last)
    splits = torch.nn.functional.pad(kept.to(torch.int64).cumsum(0), (1, 0))[series.splits]
    trimmed = RaggedSeries.uniform(
        series.values[kept], STEP_SECONDS, splits, series.labels, series.classes, series.unit
    )
    empty = torch.nonzero(splits.diff() == 0).flatten()
    require(len(empty) == 0, "series", "move at least once to be trimmed", f"rest throughout in {empty[:5].tolist()}")
    return trimmed


register(
    DataSet(
        name="character_trajectories",
        about="2,858 pen strokes of 20 letters by one person, of unequal length",
        load=load,
        samples=RaggedSeries,
        shape="3 channels at 200 Hz",
        training={"trim": True},
        files="mixoutALL_shifted.mat, both .ts files, or character_trajectories.npz",
        size="7.5 MB",
        licence="CC BY 4.0",
        source="https://doi.org/10.24432/C58G7V",
    )
)
