"""Free Spoken Digit Dataset: 3,000 recordings of the digits 0 to 9 by 6 speakers, 8 kHz, 16 bits, of unequal length.

Read from the recordings of version 1.0.10 (``<digit>_<speaker>_<index>.wav``), in a folder or in a ``.tar.gz``; others
named alike are read too, whatever the speaker's name. By the
data set's own convention the recordings with index 0 to 4 are the test part: 300 of 3,000. The archive that the project
publishes is made anew by its host on demand and has no checksum to hold it to, so nothing is downloaded here.

    Jackson Z, Souza C, Flaks J, Pan Y, Nicolas H, Thite A. Free Spoken Digit Dataset v1.0.10. 2020.
    https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0)
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.processing.audio import read_wave, resample
from ccnn_irregular.datasets.reading.archive import read_archive
from ccnn_irregular.datasets.reading.files import missing_file, one_of
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import RaggedSeries

__all__ = ["CLASSES", "RATE", "load"]

Part = Literal["train", "test", "all"]

CLASSES = tuple("0123456789")
RATE = 8000  # samples per second

_NAME = re.compile(r"([0-9])_(.+)_([0-9]+)\.wav", re.IGNORECASE)
_NAMES_SHOWN = 5
_TEST_INDICES = 5
_FULL_SCALE = 2**15


def load(
    root: str | Path,
    part: Part = "train",
    *,
    held_speakers: Sequence[str] = (),
    rate: float = RATE,
    smooth: bool = True,
) -> RaggedSeries:
    """Waveforms, values ``(N, 1)`` in [-1, 1), times in seconds, ordered by digit, speaker and index.

    Args:
        root: a ``.tar.gz`` with the recordings, the folder that holds one such archive, or the folder of the
            recordings themselves (also as the folder ``recordings`` in it).
        part: "train", "test" (index 0 to 4, so that all speakers are in both) or "all".
        held_speakers: where given, "test" is all recordings of these speakers, and "train" all of the others.
        rate: samples per second of the result, see :func:`~ccnn_irregular.datasets.processing.audio.resample`.
        smooth: filter out what a lower rate cannot hold.

    Warns:
        UserWarning: ``.wav`` files of other names are left out; the message counts and names them.

    Raises:
        FileNotFoundError: no recordings are there.
        ValueError: a recording or the archive is damaged; the message names it. A speaker that is not there.
    """
    one_of("part", part, get_args(Part))
    recordings = _recordings(Path(root))
    speakers = sorted({speaker for _, speaker, _ in recordings})
    unknown = sorted(set(held_speakers) - set(speakers))
    require(not unknown, "held_speakers", f"be of the speakers {', '.join(speakers)}", ", ".join(unknown))

    def tested(speaker: str, index: int) -> bool:
        return speaker in held_speakers if held_speakers else index < _TEST_INDICES

    chosen = [
        (key, name, content)
        for key, (name, content) in sorted(recordings.items())
        if part == "all" or (part == "test") == tested(*key[1:])
    ]
    require(len(chosen) > 0, f"the part {part} of {root}", "hold recordings", f"none of {len(recordings)}")
    waves = [read_wave(name, content, RATE).astype(np.float32) / _FULL_SCALE for _, name, content in chosen]
    waves = [resample(samples, RATE, rate, smooth=smooth) for samples in waves]
    splits = np.concatenate([[0], np.cumsum([len(samples) for samples in waves])])
    return RaggedSeries.uniform(
        values=torch.from_numpy(np.concatenate(waves))[:, None],
        step=1 / rate,
        splits=torch.from_numpy(splits.astype(np.int64)),
        labels=torch.tensor([key[0] for key, _, _ in chosen], dtype=torch.int64),
        classes=CLASSES,
        unit="s",
    )


def _recordings(root: Path) -> dict[tuple[int, str, int], tuple[str, bytes]]:
    """(digit, speaker, index) -> name and content of each recording."""
    if not root.exists():
        raise FileNotFoundError(f"root must be an existing folder or .tar.gz archive, got {root}")
    if root.is_file():
        contents = read_archive(root)
    else:
        folder = root / "recordings" if (root / "recordings").is_dir() else root
        files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".wav" and path.is_file())
        contents = {path.name: path.read_bytes() for path in files}
        archives = sorted(root.glob("*.tar.gz"))
        if not contents and len(archives) == 1:
            contents = read_archive(archives[0])
        elif not contents:
            raise missing_file(root, "recordings <digit>_<speaker>_<index>.wav, or one .tar.gz archive of them")
    found, others = {}, []
    for path, content in contents.items():
        name = PurePosixPath(path).name
        if match := _NAME.fullmatch(name):
            key = (int(match[1]), match[2], int(match[3]))
            require(key not in found, str(root), "hold every recording once", f"{name} twice")
            found[key] = (path, content)
        elif name.lower().endswith(".wav") and not name.startswith("."):  # macOS leaves hidden ones in archives
            others.append(name)
    require(len(found) > 0, str(root), "hold recordings <digit>_<speaker>_<index>.wav", f"{len(contents)} other files")
    if others:
        shown = ", ".join(sorted(others)[:_NAMES_SHOWN]) + (", ..." if len(others) > _NAMES_SHOWN else "")
        rule = "rename them <digit>_<speaker>_<index>.wav, such as 7_jackson_0.wav, to have them read"
        left = f"{len(others)} of {len(others) + len(found)} wave files of {root} are left out by their names: {shown}"
        warnings.warn(f"{left}; {rule}", UserWarning, stacklevel=3)
    return found


register(
    DataSet(
        name="spoken_digits",
        about="3,000 recordings of the digits 0 to 9 by 6 speakers, of unequal length",
        load=load,
        samples=RaggedSeries,
        shape="1 channel in [-1, 1) at 8 kHz",
        parts=get_args(Part),
        files="<digit>_<speaker>_<index>.wav of any speakers, in a folder or a .tar.gz",
        size="16 MB",
        licence="CC BY-SA 4.0",
        source="https://github.com/Jakobovski/free-spoken-digit-dataset",
    )
)
