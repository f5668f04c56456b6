"""Text files ``.ts`` of the UEA & UCR time series classification archive, unequal lengths and time stamps included.

Parsed by sktime, which is optional: ``pip install 'ccnn-irregular[files]'``. The format is described at
https://www.timeseriesclassification.com.

    Bagnall A, Dau HA, Lines J, et al. The UEA multivariate time series classification archive, 2018. arXiv:1811.00075.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.datasets.samples import RaggedSeries

__all__ = ["load"]


def load(*paths: str | Path, step: float = 1.0, unit: str = "sample") -> RaggedSeries:
    """Series of one or several files of one problem, for example ``X_TRAIN.ts``, laid end to end in their order.

    Where the files have time stamps, coordinates are seconds since the first sample of the series (dates), or the
    stamps themselves (numbers). Where they have none, samples are ``step`` apart from 0 on. Missing values (``?``) are
    nan. Classes are those of the header, in its order and in lower case.

    Args:
        paths: ``.ts`` files.
        step: distance of neighbouring samples without time stamps, in ``unit``; the format does not hold it.
        unit: of the coordinates; "s" is returned where the time stamps are dates.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is no complete ``.ts`` file with class labels, the channels of a series disagree on their
            times, times do not rise, or the files disagree on classes, channels or time stamps.
        ImportError: sktime is not installed.
    """
    require(len(paths) > 0, "paths", "name at least one file", "none")
    require(step > 0, "step", "be positive", step)
    files = [_read(Path(path)) for path in paths]
    for name, meaning in (("classes", "classes"), ("stamped", "time stamps"), ("channels", "number of channels")):
        found = {getattr(file, name) for file in files}
        require(len(found) == 1, "the files", f"agree on their {meaning}", sorted(found))
    cases = [case for file in files for case in file.cases]
    stamps = [case[0].index.to_numpy() for case in cases]
    splits = np.concatenate([[0], np.cumsum([len(times) for times in stamps])]).astype(np.int64)
    values = np.concatenate([np.stack([channel.to_numpy(np.float32) for channel in case], axis=1) for case in cases])
    dated = files[0].stamped and stamps[0].dtype.kind == "M"
    times = np.concatenate([_seconds(stamp) if dated else np.asarray(stamp, np.float64) for stamp in stamps])
    return RaggedSeries(
        values=torch.from_numpy(values),
        coordinates=torch.from_numpy(times if files[0].stamped else times * step)[:, None],
        splits=torch.from_numpy(splits),
        labels=torch.from_numpy(np.concatenate([file.labels for file in files])),
        classes=files[0].classes,
        unit="s" if dated else unit,
    )


@dataclass(frozen=True)
class _File:
    """What one file holds: per case a list of channels, each a pandas Series indexed by time stamp or sample."""

    cases: list[list[Any]]
    labels: np.ndarray
    classes: tuple[str, ...]
    stamped: bool
    channels: int


def _read(path: Path) -> _File:
    classes, stamped = _header(path)
    reader = import_optional("sktime.datasets", f"reading {path.name}", "files")
    try:
        table, names = reader.load_from_tsfile(str(path), return_data_type="nested_univ")
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path.name} must be a complete .ts file, got a damaged one: {error}") from error
    unknown = sorted(set(names.tolist()) - set(classes))
    require(not unknown, path.name, f"label its series with the classes of its header {classes}", unknown)
    cases: list[list[Any]] = table.to_numpy().tolist()
    for number, case in enumerate(cases, 1):
        _require_channels(f"{path.name}, series {number}", case)
    index = {name: position for position, name in enumerate(classes)}
    labels = np.array([index[name] for name in names], np.int64)
    return _File(cases, labels, classes, stamped, channels=table.shape[1])


def _header(path: Path) -> tuple[tuple[str, ...], bool]:
    """Class names and whether there are time stamps; sktime reads them too, but does not hand them out."""
    if not path.is_file():
        raise FileNotFoundError(f"paths must name existing .ts files, got {path}")
    tags: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.lower().split()
            if words and words[0].startswith("@"):
                tags[words[0]] = words[1:]
            if words == ["@data"]:
                break
        else:
            reject(path.name, "be a .ts file with a line @data", "a file without it")
    classes = tags.get("@classlabel", [])
    require(classes[:1] == ["true"] and len(classes) > 1, path.name, "list its classes (@classLabel true ...)", classes)
    return tuple(classes[1:]), tags.get("@timestamps") == ["true"]


def _require_channels(name: str, case: list[Any]) -> None:
    """Channels of one series must have the same times, and times must rise."""
    first = case[0].index
    require(len(first) > 0, name, "hold at least one sample", "none")
    same = all(first.equals(channel.index) for channel in case)
    require(same, name, "have the same times in all channels", f"lengths {[len(channel) for channel in case]}")
    require(first.is_monotonic_increasing and first.is_unique, name, "have times that rise", "times that do not")


def _seconds(stamps: np.ndarray) -> np.ndarray:
    return (stamps - stamps[0]) / np.timedelta64(1, "s")
