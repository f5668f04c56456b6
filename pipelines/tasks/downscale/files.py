"""A trained network applied to a file of fields, block by block: within a budget of memory, and resumable.

A block is some entries of the dimensions that are samples (times, levels) and some rows; it is read with as many rows
on both sides as the network's kernels reach together, so blocks and whole agree to rounding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.adapters.xarray import Reading
from ccnn_irregular.operators.planning.memory import as_size
from ccnn_irregular.pipelines.tasks.downscale.blocks import Blocks, Budget, plan_blocks
from ccnn_irregular.pipelines.tasks.downscale.fields import Fields, Plane, coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork, FieldFormat
from ccnn_irregular.pipelines.tasks.downscale.output import PartialOutput, write_block, write_template
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.progress import bar

__all__ = ["predict_file"]

# Coordinates differ by no more than rounding from those trained on, relative.
_SAME_STEP = 1e-3


def predict_file(
    network: DownscalingNetwork,
    source: Path,
    target: Path,
    *,
    checkpoint: Path,
    memory: int,
    coarsen: bool = False,
    reading: Reading | None = None,
) -> Path:
    """Fine fields for a file of coarse ones.

    Args:
        network: trained.
        source: netCDF file, zarr store, or folder of netCDF files.
        target: a name that ends in .zarr or .nc; nothing may be there.
        checkpoint: the network's, to tell whether a partial output is of the same one.
        memory: bytes the process may take.
        coarsen: the file holds fine fields: make them coarse first, as in training.
        reading: how the source is read; None = as ``Reading`` says.

    Returns:
        ``target``. Dimensions, attributes, units, coordinates and the encoding of times and coordinates are the
        source's; a packing into integers and the limits of valid values are not kept. A value is missing where the
        next coarse node is, and with ``coarsen`` also where the file's own is.

    Raises:
        FileNotFoundError, ValueError: see ``open_cube`` and ``Fields.of``; fields of another unit or step than those
            trained on; an output that is there; a partial output of something else; too little memory.
    """
    require(target.suffix in (".nc", ".zarr"), "output", "end in .nc or .zarr", str(target))
    require(not target.exists(), "output", "not be there: nothing is overwritten", str(target))
    trained = network.format
    if trained is None:
        reject("network", "be trained", "one that does not know its fields")
    network = network.eval().requires_grad_(False)
    reading = reading or Reading()
    fields = Fields.of(reading.open(source), trained.variables)
    prediction = _Prediction.of(network, trained, fields, coarsen)
    with PartialOutput(target).locked() as folder:
        identity = {
            "input": _digest(source),
            "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            "coarsen": coarsen,
            "reading": asdict(reading),
        }
        blocks = folder.resumed(identity)
        if blocks is None:
            blocks = plan_blocks(prediction.budget(), fields.sizes, _chunks(fields), memory)
            write_template(folder.store, fields, prediction.fine, blocks, trained.factor)
            folder.begin(identity, blocks)
        rule = f"be at least {as_size(blocks.memory)}: the partial output has blocks of that size"
        require(blocks.memory <= memory, "predict.memory", rule, as_size(memory))
        _compute(folder, prediction, blocks, memory)
        folder.finish(fields.variables)
    say(target)
    return target


@final
@dataclass(frozen=True)
class _Prediction:
    """What is computed: a network, the fields it reads, and the planes before and after."""

    network: DownscalingNetwork
    format: FieldFormat
    fields: Fields
    coarse: Plane
    fine: Plane
    coarsen: bool

    @classmethod
    def of(cls, network: DownscalingNetwork, trained: FieldFormat, fields: Fields, coarsen: bool) -> _Prediction:
        coarse = fields.plane.coarsened(trained.factor, trained.coarse) if coarsen else fields.plane
        units = tuple(fields.attributes().values())
        require(units == trained.units, "units", f"be those trained on, {trained.units}", units)
        unit = (coarse.rows.unit, coarse.columns.unit)
        require(unit == trained.unit, "units of the axes", f"be those trained on, {trained.unit}", unit)
        same = np.allclose(coarse.steps, trained.steps, rtol=_SAME_STEP, atol=0)
        hint = "" if coarsen else "; predict.coarsen takes a file of fine fields"
        require(same, "steps of the coarse nodes", f"be those trained on, {trained.steps}{hint}", coarse.steps)
        return cls(network, trained, fields, coarse, coarse.refined(trained.factor, trained.coarse), coarsen)

    def budget(self) -> Budget:
        """What blocks of any size take."""
        k, steps = self.format.factor, self.coarse.steps
        readout = self.network.cnn.readout
        assert readout is not None
        support = readout.kernel.support.tolist()
        lines = (self.coarse.rows, self.coarse.columns)
        taps = [
            0 if line.period is not None else math.ceil(2 * far / step * k)
            for far, step, line in zip(support, steps, lines, strict=True)
        ]
        return Budget(
            sizes=self.coarse.sizes,
            reach=self.network.reach(steps)[0],
            factor=k,
            read_factor=k if self.coarsen else 1,
            variables=len(self.format.variables),
            hidden=self.network.hidden_channels,
            taps=(taps[0], taps[1]),
            taken=psutil.Process().memory_info().rss,
        )

    def fine_rows(self, start: int, stop: int) -> tuple[int, int]:
        """Fine rows that belong to the coarse ones, both in the order of the file."""
        k = self.format.factor
        return start * k, min(stop * k, self.fine.rows.count)

    def answer(self, part: Mapping[str, slice], start: int, stop: int, batch: int) -> NDArray[np.float32]:
        """Fine fields ``(S, C, rows, columns)`` of a block, rows and columns in the order of the file."""
        first, last = self.fine_rows(start, stop)
        reach, count, fine_count = (
            self.network.reach(self.coarse.steps)[0],
            self.coarse.rows.count,
            self.fine.rows.count,
        )
        low, high = max(0, start - reach), min(count, stop + reach)
        if self.coarse.rows.falling:
            low, high, first, last = count - high, count - low, fine_count - last, fine_count - first
        source, query = self.coarse.part(low, high), self.fine.part(first, last)
        values, missing = self._read(part, (low, high), (first, last))
        answers = [self.network(some, source.grid(), query.grid()).numpy() for some in values.split(batch)]
        found = np.concatenate(answers)
        if missing is not None:
            found[missing] = np.nan
        return query.unpacked(found)

    def _read(
        self, part: Mapping[str, slice], rows: tuple[int, int], asked: tuple[int, int]
    ) -> tuple[torch.Tensor, NDArray[np.bool_] | None]:
        """Coarse fields ``(S, C, rows, columns)`` between two rows, nodes rising; where a file of fine ones has none.

        Args:
            part: which samples.
            rows: coarse, from which to which.
            asked: fine, from which to which: the rows of the second result.
        """
        (low, high), (first, last) = rows, asked
        if not self.coarsen:
            return torch.from_numpy(np.ascontiguousarray(self.fields.read(part, rows))), None
        k = self.format.factor
        end = (high - 1) * k + 1 if self.format.coarse == "nodes" else high * k
        fine = torch.from_numpy(self.fields.read(part, (low * k, end)))
        values = coarsened_values(fine, k, self.format.coarse, (high - low, self.coarse.columns.count)).contiguous()
        return values, fine[..., first - low * k : last - low * k, : self.fine.columns.count].isnan().numpy()


def _compute(folder: PartialOutput, prediction: _Prediction, blocks: Blocks, memory: int) -> None:
    """Compute all blocks that are not finished."""
    finished, fields = folder.finished(), prediction.fields
    begun = f", {len(finished)} of them done before" if finished else ""
    say(f"{len(blocks)} blocks{begun}; predicted memory {as_size(blocks.memory)} of {as_size(memory)}")
    with bar() as shown:
        task = shown.add_task("blocks", total=len(blocks), completed=len(finished))
        for number, spans in enumerate(blocks.spans()):
            if number in finished:
                continue
            *samples, (start, stop) = spans
            part = {dim: slice(*span) for dim, span in zip(fields.samples, samples, strict=True)}
            values = prediction.answer(part, start, stop, blocks.batch)
            rows = slice(*prediction.fine_rows(start, stop))
            write_block(folder.store, fields, prediction.fine, part, rows, values)
            folder.mark(number)
            shown.advance(task)
    say(f"{len(blocks) - len(finished)} blocks computed")


def _chunks(fields: Fields) -> tuple[int, ...]:
    """Entries of each dimension of the samples that are stored together."""
    array = fields.dataset[fields.variables[0]]
    stored = array.encoding.get("chunks") or array.encoding.get("chunksizes") or (1,) * array.ndim
    by_dim = dict(zip(map(str, array.dims), stored, strict=False))
    return tuple(int(by_dim.get(dim, 1)) for dim in fields.samples)


def _digest(path: Path) -> str:
    """Of names, sizes and times of change: telling a file of terabytes from another one takes no reading."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        name = file.relative_to(path) if path.is_dir() else file.name
        digest.update(f"{name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
