"""ShapeNet's shapes with a label for the part each point belongs to (Yi et al. 2016)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from ccnn_irregular._checks import require
from ccnn_irregular._files import DamagedFileError
from ccnn_irregular.datasets.reading.files import one_of
from ccnn_irregular.datasets.reading.parsed import fetch_unchecked, parsed_once
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import LabelledClouds

__all__ = ["KINDS", "load"]

Part = Literal["train", "validation", "test"]

_PUBLISHED: dict[str, str] = {"train": "train", "validation": "val", "test": "test"}
_ARCHIVE = "https://shapenet.cs.stanford.edu/media/shapenetcore_partanno_segmentation_benchmark_v0_normal.zip"
KINDS: dict[str, tuple[str, int]] = {
    "02691156": ("Airplane", 4), "02773838": ("Bag", 2), "02954340": ("Cap", 2), "02958343": ("Car", 4),
    "03001627": ("Chair", 4), "03261776": ("Earphone", 3), "03467517": ("Guitar", 3), "03624134": ("Knife", 2),
    "03636649": ("Lamp", 4), "03642806": ("Laptop", 2), "03790512": ("Motorbike", 6), "03797390": ("Mug", 2),
    "03948459": ("Pistol", 3), "04099429": ("Rocket", 3), "04225987": ("Skateboard", 3), "04379243": ("Table", 3),
}  # fmt: skip
"""Folder of each kind, its name and its number of parts; parts are numbered through, over all kinds."""


def load(root: str | Path, part: Part = "train", *, download: bool = False) -> LabelledClouds:
    """ShapeNet's shapes with a label for the part each point belongs to (Yi et al. 2016).

    What was parsed is kept in ``root/parts_<part>.h5``.

    Args:
        root: folder of the data set, with ``raw`` as the official archive unpacks: a folder a kind of ``.txt`` files
            (x y z, normal, label), and ``train_test_split``.
        part: "train", "validation" or "test", as published.
        download: fetch the official archive where it is missing.

    Returns:
        Coordinates as published, about unit size, values normal and one channel for each of 16 kinds: 19 channels.

    Raises:
        FileNotFoundError: no such files, and no download asked for.
        ValueError: a file that breaks the format; the message names it.
    """
    one_of("part", part, get_args(Part))
    root = Path(root)
    raw = root / "raw"
    if download and not raw.is_dir():
        fetch_unchecked(_ARCHIVE, root, "raw")
    split = raw / "train_test_split" / f"shuffled_{_PUBLISHED[part]}_file_list.json"
    if not split.is_file():
        raise FileNotFoundError(
            f"root must hold ShapeNet's parts in raw, with {split.relative_to(root)} (--data.download true fetches "
            f"them), got {root}"
        )
    files = _files(raw, split)
    read = parsed_once(root / f"parts_{part}.h5", raw, files, _parse)
    kinds = torch.tensor([list(KINDS).index(file.parent.name) for file in files])
    sizes = torch.from_numpy(read["sizes"])
    rows = torch.from_numpy(read["rows"])
    kind = torch.nn.functional.one_hot(kinds, len(KINDS)).repeat_interleave(sizes, dim=0)
    parts = [count for _, count in KINDS.values()]
    owner = torch.arange(len(KINDS)).repeat_interleave(torch.tensor(parts))
    first = np.cumsum([0, *parts])
    return LabelledClouds(
        rows[:, :3].double(),
        torch.cat([rows[:, 3:6], kind.float()], dim=1),
        rows[:, 6].long(),
        torch.nn.functional.pad(sizes.cumsum(0), (1, 0)),
        tuple(f"{name} {first[k] + j}" for k, (name, count) in enumerate(KINDS.values()) for j in range(count)),
        "of the box",
        kinds,
        owner == torch.arange(len(KINDS))[:, None],
    )


def _files(raw: Path, split: Path) -> list[Path]:
    """Files of a part in the order of its list, whose entries are ``shape_data/<kind>/<name>``."""
    try:
        entries = [tuple(entry.split("/")) for entry in json.loads(split.read_text(encoding="utf-8"))]
    except (ValueError, AttributeError, TypeError) as error:
        raise DamagedFileError(
            f"{split} must be a JSON list of shape_data/<kind>/<name>, got {error}", split
        ) from error
    for entry in entries:
        plain = len(entry) == 3 and entry[1] in KINDS and entry[2] not in ("", ".", "..")
        require(plain, str(split), "list shape_data/<kind>/<name> of known kinds", "/".join(entry))
    return [raw / kind / f"{name}.txt" for _, kind, name in entries]


def _parse(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Rows of all files end to end, float32 ``(N, 7)``, and how many each has."""
    shapes = []
    for file in files:
        try:
            rows = np.loadtxt(file, dtype=np.float32, ndmin=2)
        except ValueError as error:
            raise DamagedFileError(f"{file} must hold rows of numbers, got {error}", file) from error
        require(rows.shape[1] == 7 and len(rows) > 0, str(file), "hold x y z, normal and label a row", rows.shape)
        shapes.append(rows)
    return {"rows": np.concatenate(shapes), "sizes": np.array([len(rows) for rows in shapes], np.int64)}


register(
    DataSet(
        name="shapenet_part",
        about="shapes of 16 kinds with a label for the part each point belongs to",
        load=load,
        samples=LabelledClouds,
        shape="normal and kind, 19 channels, at points of about unit size",
        parts=get_args(Part),
        files="raw of ShapeNet's parts, fetched unchecked by download=True",
        size="0.7 GB",
        licence="ShapeNet's terms of use",
        source="https://shapenet.org",
    )
)
