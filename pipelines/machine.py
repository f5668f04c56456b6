"""``ccnn machine``: measure what elementary operations cost here, for the cost model behind ``explain`` and "auto"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Literal, TypeVar

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from ccnn_irregular._checks import require
from ccnn_irregular.operators.planning.measure import measure_rates
from ccnn_irregular.operators.planning.rates import current_rates, save_rates
from ccnn_irregular.pipelines.train.progress import followed

__all__ = ["run"]

Step = TypeVar("Step")


def run(arguments: list[str]) -> None:
    """Measure, print old and new constants, keep the new ones in the cache folder."""
    parser = ArgumentParser(
        prog="ccnn machine", allow_abbrev=False, description="measure this machine for the cost model; half a minute"
    )
    parser.add_argument("--device", type=Literal["cpu", "cuda"], default="cpu", help="what is measured")
    parser.add_argument("--threads", type=int | None, help="threads of PyTorch (default: what it takes by itself)")
    options = parser.parse_args(arguments)
    require(options.device == "cpu" or torch.cuda.is_available(), "device", "be there", repr(options.device))
    if options.threads is not None:
        require(options.threads >= 1, "threads", "be at least 1", options.threads)
        torch.set_num_threads(options.threads)
    old = current_rates(torch.device(options.device))
    new = measure_rates(options.device, _shown)
    path = save_rates(new, options.device)
    table = Table("seconds per", "old", "new", title=f"cost model on {options.device}")
    for field in fields(new):
        table.add_row(field.name, f"{getattr(old, field.name):.3g}", f"{getattr(new, field.name):.3g}")
    Console().print(table)
    print(path)


def _shown(steps: Sequence[Step]) -> Iterable[Step]:
    return followed(steps, "measuring")
