"""Speech Commands v0.02: 105,829 utterances of 35 words, one second each or a little less, 16 kHz.

Read from the official archive or the folder it unpacks to. The ten words of the NCDE, CKConv, S4 and CCNN papers are
the default. Those papers keep the utterances of exactly 16,000 samples (34,975 of them) and split them at random, 70,
15 and 15 per cent (``load(part="all")``, then ``split_stratified`` of :mod:`ccnn_irregular.datasets.samples`), instead
of following the official lists. Coefficients: :func:`ccnn_irregular.datasets.processing.audio.mfcc`.

    Warden P. Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. 2018. arXiv:1804.03209 (CC BY 4.0)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from ccnn_irregular._cache_folder import cache_folder
from ccnn_irregular._checks import require
from ccnn_irregular.datasets.processing.audio import mfcc, read_wave, resample
from ccnn_irregular.datasets.reading import cache as stored
from ccnn_irregular.datasets.reading.archive import read_members
from ccnn_irregular.datasets.reading.download import download_missing
from ccnn_irregular.datasets.reading.files import existing_folder, missing_file, one_of
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries
from ccnn_irregular.domains import Grid

__all__ = ["RATE", "SHA256", "TEN_WORDS", "URL", "WORDS", "fetch", "load", "load_ragged"]

Part = Literal["train", "validation", "test", "all"]
Short = Literal["drop", "pad"]

URL = "https://storage.googleapis.com/download.tensorflow.org/data"
# As in torchaudio's data set and in the list of TensorFlow Datasets.
SHA256: Mapping[str, str] = {
    "speech_commands_v0.02.tar.gz": "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
}
RATE = 16000  # samples per second
TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
# fmt: off
WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy",
    "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop",
    "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
)
# fmt: on

_ARCHIVE, _FOLDER = "speech_commands_v0.02.tar.gz", "speech_commands_v0.02"
_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
_PARTS = ("train", "validation", "test")
_FULL_SCALE = 2**15
# Part of every cache fingerprint: raise it when the same archive and words should give other arrays.
_PARSER_VERSION = 1


def load(
    root: str | Path,
    part: Part = "train",
    words: Sequence[str] = TEN_WORDS,
    *,
    short: Short = "drop",
    rate: float = RATE,
    smooth: bool = True,
    cache: Path | Literal[False] | None = None,
    download: bool = False,
    progress: bool = True,
) -> GriddedSamples:
    """Utterances of one second, values ``(B, 1, rate)`` in [-1, 1) on an axis in seconds; the word is the label.

    Utterances come by word in the order of ``words``, within a word by file name.

    Args:
        root: folder with the official archive, or with the folder ``speech_commands_v0.02`` of its contents.
        part: "train", "validation" or "test" of the official lists, or "all".
        words: which of the 35 words.
        short: what becomes of utterances of less than a second: "drop" leaves them out, as the papers above do; "pad"
            adds silence at the end.
        rate: samples per second of the result, see :func:`~ccnn_irregular.datasets.processing.audio.resample`.
        smooth: filter out what a lower rate cannot hold. The published results at a lower rate do not.
        cache: folder for what was read from the archive (HDF5, 1.2 GB for ten words); None for ``$CCNN_CACHE`` or the
            user's cache folder; False for none. Not used where the unpacked folder is there.
        download: fetch the archive first where it is missing, see :func:`fetch`.
        progress: show progress bars while fetching.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: unknown words, or a damaged file; the message names it.
    """
    one_of("short", short, get_args(Short))
    found = _utterances(root, part, words, cache, download, progress)
    lengths = np.diff(found.splits)
    longest = int(lengths.max())
    require(longest <= RATE, "utterances", f"have at most {RATE} samples", longest)
    if short == "drop":
        found = _selected(found, lengths == RATE, f"{part} of full length")
        lengths = np.diff(found.splits)
    waves = np.zeros((len(lengths), RATE), np.int16)
    waves[np.arange(RATE) < lengths[:, None]] = found.waves
    values = resample(waves.astype(np.float32) / _FULL_SCALE, RATE, rate, smooth=smooth)
    return GriddedSamples(
        values=torch.from_numpy(np.ascontiguousarray(values))[:, None],
        grid=Grid((values.shape[1],), (1 / rate,)),
        labels=torch.from_numpy(found.labels),
        classes=tuple(words),
        unit="s",
        lengths=torch.from_numpy(np.ceil(lengths * (values.shape[1] / RATE)).astype(np.int64))
        if short == "pad"
        else None,
    )


def load_ragged(
    root: str | Path,
    part: Part = "train",
    words: Sequence[str] = TEN_WORDS,
    *,
    cache: Path | Literal[False] | None = None,
    download: bool = False,
    progress: bool = True,
) -> RaggedSeries:
    """All utterances at their true lengths, values ``(N, 1)``; 12 bytes a sample, so 7 GB for all of the ten words.

    Arguments and errors are those of :func:`load`.
    """
    found = _utterances(root, part, words, cache, download, progress)
    return RaggedSeries.uniform(
        values=torch.from_numpy(found.waves.astype(np.float32) / _FULL_SCALE)[:, None],
        step=1 / RATE,
        splits=torch.from_numpy(found.splits),
        labels=torch.from_numpy(found.labels),
        classes=tuple(words),
        unit="s",
    )


def fetch(root: str | Path, *, url: str = URL, sha256: Mapping[str, str] = SHA256, progress: bool = True) -> None:
    """Download the official archive (2.4 GB) if ``root`` lacks it.

    Raises:
        ValueError: the downloaded file has another checksum.
        OSError: the server cannot be reached or refuses.
    """
    download_missing(root, url, sha256, progress=progress)


@dataclass(frozen=True)
class _Utterances:
    """Utterances laid end to end.

    Attributes:
        waves: (N,) int16.
        splits: (B + 1,) int64.
        labels: (B,) int64, index into the words asked for.
        parts: (B,) int64, index into _PARTS.
    """

    waves: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    parts: np.ndarray


def _utterances(
    root: str | Path,
    part: str,
    words: Sequence[str],
    cache: Path | Literal[False] | None,
    download: bool,
    progress: bool,
) -> _Utterances:
    one_of("part", part, get_args(Part))
    unknown = sorted(set(words) - set(WORDS))
    known = len(words) > 0 and not unknown and len(set(words)) == len(words)
    require(known, "words", "be different ones of the 35 in WORDS", unknown or repr(tuple(words)))
    if download and not (Path(root) / _FOLDER).is_dir():
        fetch(root, progress=progress)
    root = existing_folder(root)
    if (root / _FOLDER).is_dir():
        found = _parse(_folder_contents(root / _FOLDER, words), str(root / _FOLDER), words)
    elif (root / _ARCHIVE).is_file():
        found = _from_archive(root / _ARCHIVE, words, cache)
    else:
        raise missing_file(root, f"{_ARCHIVE} or the folder {_FOLDER} (download=True fetches the first)")
    return found if part == "all" else _selected(found, found.parts == _PARTS.index(part), part)


def _folder_contents(folder: Path, words: Sequence[str]) -> dict[str, bytes]:
    for name in (*_LISTS.values(), *words):
        if not (folder / name).exists():
            raise missing_file(folder, f"{', '.join(_LISTS.values())} and a folder for each of the words, {name} too")
    files = [folder / name for name in _LISTS.values()]
    files += [path for word in words for path in sorted((folder / word).glob("*.wav"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _from_archive(path: Path, words: Sequence[str], cache: Path | Literal[False] | None) -> _Utterances:
    def wanted(name: str) -> bool:
        return name in _LISTS.values() or (name.endswith(".wav") and name.partition("/")[0] in words)

    if cache is False:
        return _parse(read_members(path, wanted), path.name, words)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"\0version {_PARSER_VERSION}, {','.join(words)}".encode())
    place = hashlib.sha256(f"{path.resolve()}\0{','.join(words)}".encode()).hexdigest()[:16]
    cache_file = (cache_folder() if cache is None else Path(cache)) / f"speech_commands-{place}.h5"
    arrays = stored.read(cache_file, digest.hexdigest())
    if arrays is None:
        found = _parse(read_members(path, wanted), path.name, words)
        stored.write(cache_file, digest.hexdigest(), vars(found))
        return found
    return _Utterances(**arrays)


def _parse(contents: dict[str, bytes], source: str, words: Sequence[str]) -> _Utterances:
    """``contents`` maps ``<word>/<file>.wav`` and the names of the lists to bytes."""
    listed: dict[str, int] = {}
    for part, file in _LISTS.items():
        require(file in contents, source, f"hold {file}", "none")
        listed |= dict.fromkeys(contents[file].decode("utf-8", "replace").split(), _PARTS.index(part))
    files = sorted((name for name in contents if name.endswith(".wav")), key=lambda name: (_word(name, words), name))
    labels = np.array([_word(name, words) for name in files], np.int64)
    lacking = [word for label, word in enumerate(words) if label not in labels]
    require(not lacking, source, "hold utterances of every word", f"none of {', '.join(lacking)}")
    waves = [read_wave(name, contents[name], RATE) for name in files]
    return _Utterances(
        waves=np.concatenate(waves),
        splits=np.concatenate([[0], np.cumsum([len(samples) for samples in waves])]).astype(np.int64),
        labels=labels,
        parts=np.array([listed.get(name, 0) for name in files], np.int64),
    )


def _word(name: str, words: Sequence[str]) -> int:
    return list(words).index(name.partition("/")[0])


def _selected(found: _Utterances, chosen: np.ndarray, part: str) -> _Utterances:
    require(bool(chosen.any()), f"the part {part!r}", "hold utterances of the words", "none")
    lengths = np.diff(found.splits)
    return _Utterances(
        waves=found.waves[np.repeat(chosen, lengths)],
        splits=np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64),
        labels=found.labels[chosen],
        parts=found.parts[chosen],
    )


_RAW = register(
    DataSet(
        name="speech_commands",
        about="utterances of ten words of 35, one second each, raw",
        load=load,
        samples=GriddedSamples,
        shape="1 channel in [-1, 1) at 16 kHz",
        parts=get_args(Part),
        random_split=True,
        files="speech_commands_v0.02.tar.gz, or the folder speech_commands_v0.02 in it",
        size="2.4 GB",
        licence="CC BY 4.0",
        source="https://arxiv.org/abs/1804.03209",
        fetch=fetch,
        checksum="SHA256 listed by torchaudio and TensorFlow Datasets",
    )
)
register(
    replace(
        _RAW,
        name="speech_commands_mfcc",
        about="the same utterances as cepstral coefficients",
        shape="20 coefficients at 161 times",
        features=mfcc,
    )
)
