"""ShapeNet's shapes with a label for the part each point belongs to (Yi et al. 2016), by torch-geometric's class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch

from ccnn_irregular.datasets.reading.files import one_of
from ccnn_irregular.datasets.registry import DataSet, register
from ccnn_irregular.datasets.samples import LabelledClouds

__all__ = ["load"]

Part = Literal["train", "validation", "test"]

_PUBLISHED: dict[str, str] = {"train": "train", "validation": "val", "test": "test"}


def load(root: str | Path, part: Part = "train", *, download: bool = False) -> LabelledClouds:
    """ShapeNet's shapes with a label for the part each point belongs to (Yi et al. 2016), by torch-geometric's class.

    Args:
        root: folder of the data set: ``raw`` as the official archive unpacks, or ``processed`` as that class keeps it.
        part: "train", "validation" or "test", as published.
        download: fetch the official archive where it is missing.

    Returns:
        Coordinates as published, about unit size, values normal and one channel for each of 16 kinds: 19 channels.

    Raises:
        FileNotFoundError: no such files, and no download asked for.
    """
    from torch_geometric.datasets import ShapeNet

    one_of("part", part, get_args(Part))
    root = Path(root)
    if not download and not (root / "raw").is_dir() and not (root / "processed").is_dir():
        raise FileNotFoundError(
            f"root must hold ShapeNet's parts in raw or processed (--data.download true fetches them), got {root}"
        )
    shapes = ShapeNet(str(root), split=_PUBLISHED[part])
    clouds = [shapes[number] for number in range(len(shapes))]
    kinds = torch.tensor([int(cloud.category) for cloud in clouds])
    sizes = torch.tensor([len(cloud.pos) for cloud in clouds])
    kind = torch.nn.functional.one_hot(kinds, len(shapes.categories)).repeat_interleave(sizes, dim=0)
    classes = [f"{name} {number}" for name, numbers in shapes.seg_classes.items() for number in numbers]
    return LabelledClouds(
        torch.cat([cloud.pos for cloud in clouds]).double(),
        torch.cat([torch.cat([cloud.x for cloud in clouds]), kind.float()], dim=1),
        torch.cat([cloud.y for cloud in clouds]),
        torch.nn.functional.pad(sizes.cumsum(0), (1, 0)),
        tuple(classes),
        "of the box",
        kinds,
        shapes.y_mask,
    )


register(
    DataSet(
        name="shapenet_part",
        about="shapes of 16 kinds with a label for the part each point belongs to",
        load=load,
        samples=LabelledClouds,
        shape="normal and kind, 19 channels, at points of about unit size",
        parts=get_args(Part),
        files="raw or processed of ShapeNet's parts, fetched unchecked by download=True",
        size="0.7 GB",
        licence="ShapeNet's terms of use",
        source="https://shapenet.org",
    )
)
