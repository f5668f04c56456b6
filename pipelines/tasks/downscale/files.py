"""A trained network applied to a file of fields, block by block: within a budget of memory, and resumable.

While it runs, a folder beside the output holds::

    <output>.partial/
        store.zarr      the values of finished blocks
        journal.json    what is computed from what, and the blocks
        finished.txt    numbers of finished blocks, each written when its values have reached the disk
        lock            held by the process that is at work

A block is some entries of the dimensions that are samples (times, levels) and some rows; it is read with as many rows
on both sides as the network's kernels reach together, so blocks and whole agree to rounding. Killed at any moment, the
same command goes on with the first block that is not finished. At the end the output is renamed into place.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import psutil
import torch
import xarray as xr
from numpy.typing import NDArray
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray import Reading
from ccnn_irregular.adapters.xarray_results import without_limits
from ccnn_irregular.adapters.xarray_units import compass
from ccnn_irregular.operators.planning.memory import as_size
from ccnn_irregular.pipelines.tasks.downscale.fields import Fields, Plane, coarsened_values
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork, FieldFormat
from ccnn_irregular.pipelines.train.reports import write_text

__all__ = ["Blocks", "Budget", "as_bytes", "plan_blocks", "predict_file"]

_UNITS = {"": 1, "B": 1} | {f"{p}iB": 1024**n for n, p in enumerate("KMGT", 1)}
_UNITS |= {f"{p}B": 1000**n for n, p in enumerate("KMGT", 1)}
# Arrays of the hidden channels that a forward pass holds at once: on the fine lattice of the last convolution (values
# between zeros, spectra of values and kernels, product, result, the mix of the channels), and on the coarse nodes.
_FINE_COPIES, _COARSE_COPIES = 7, 12
# Arrays of the variables: as read, as decoded, as answered, as written.
_FIELD_COPIES = 4
# What libraries take beside that: buffers of the compressor, modules loaded late.
_SLACK = 300 * 1024**2
# A block is read and written at once. Larger ones lose little to their overlap and are lost as a whole when killed.
_BLOCK_BYTES = 256 * 1024**2
_CHUNK_BYTES = 64 * 1024**2
# Coordinates differ by no more than rounding from those trained on, relative.
_SAME_STEP = 1e-3
_KEPT_ENCODING = ("dtype", "units", "calendar", "_FillValue")


def as_bytes(text: str) -> int:
    """A size such as 4GiB, 500 MB or 1000000.

    Raises:
        ValueError: no such size.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(text))
    if found is None or found[2] not in _UNITS:
        reject("memory", "be a size such as 4GiB or 500MB", repr(text))
    return int(float(found[1]) * _UNITS[found[2]])


@final
@dataclass(frozen=True)
class Budget:
    """What a block takes, predicted.

    Attributes:
        sizes: coarse nodes along rows and columns.
        reach: coarse nodes beyond a block's rows.
        factor: fine nodes per coarse node.
        read_factor: nodes that are read per coarse node along each axis: 1, or ``factor`` for a file of fine fields.
        variables: their number.
        hidden: hidden channels.
        taps: fine nodes the last kernel spans along rows and columns.
        taken: bytes that the process takes already.
    """

    sizes: tuple[int, int]
    reach: int
    factor: int
    read_factor: int
    variables: int
    hidden: int
    taps: tuple[int, int]
    taken: int

    def seen(self, rows: int) -> int:
        """Rows that are read for a block of ``rows`` rows."""
        return min(self.sizes[0], rows + 2 * self.reach)

    def network(self, rows: int) -> int:
        """Bytes of a forward pass of one sample."""
        high, wide = self.seen(rows), self.sizes[1]
        lattice = (high * self.factor + self.taps[0]) * (wide * self.factor + self.taps[1])
        return 4 * self.hidden * (_FINE_COPIES * lattice + _COARSE_COPIES * high * wide)

    def fields(self, rows: int) -> int:
        """Bytes of what is read and written of one sample."""
        read = self.seen(rows) * self.sizes[1] * self.read_factor**2
        return 4 * self.variables * _FIELD_COPIES * (read + rows * self.sizes[1] * self.factor**2)

    def total(self, rows: int, samples: int, batch: int) -> int:
        """Bytes the process takes in a block of ``samples``, of which ``batch`` go through the network at a time."""
        return self.taken + _SLACK + samples * self.fields(rows) + batch * self.network(rows)


@final
@dataclass(frozen=True)
class Blocks:
    """How the work is cut.

    Attributes:
        counts: entries of each dimension of the samples.
        steps: entries of each of them in a block.
        rows: coarse rows in all.
        row_step: coarse rows in a block.
        batch: samples that go through the network at a time.
        memory: bytes that the process is predicted to take.
    """

    counts: tuple[int, ...]
    steps: tuple[int, ...]
    rows: int
    row_step: int
    batch: int
    memory: int

    def __len__(self) -> int:
        return math.prod(math.ceil(n / s) for n, s in zip((*self.counts, self.rows), self._steps, strict=True))

    @property
    def _steps(self) -> tuple[int, ...]:
        return (*self.steps, self.row_step)

    def spans(self) -> Iterator[tuple[tuple[int, int], ...]]:
        """From where to where along each dimension of the samples, and along the rows in the order of the file."""
        sizes = (*self.counts, self.rows)
        yield from itertools.product(
            *(
                [(start, min(start + step, size)) for start in range(0, size, step)]
                for size, step in zip(sizes, self._steps, strict=True)
            )
        )


def plan_blocks(budget: Budget, counts: Sequence[int], chunks: Sequence[int], memory: int) -> Blocks:
    """The largest blocks that fit: whole fields if possible, as many samples as the file has in a chunk, or more.

    Args:
        budget: what they take.
        counts: entries of each dimension of the samples.
        chunks: entries of each of them that are stored together.
        memory: bytes the process may take.

    Raises:
        ValueError: a single row of a single sample does not fit.
    """
    rows = budget.sizes[0]
    while budget.total(rows, 1, 1) > memory and rows > 1:
        rows = math.ceil(rows / 2)
    least = budget.total(rows, 1, 1)
    rule = f"be at least {as_size(least)}, which the smallest block takes"
    require(least <= memory, "predict.memory", rule, as_size(memory))
    # Half of what is left for what is read, so that several samples can go through the network together.
    left = memory - budget.total(rows, 0, 0)
    share = max(budget.fields(rows), min(_BLOCK_BYTES, (left - budget.network(rows)) // 2))
    steps = [min(chunk, count) for chunk, count in zip(chunks, counts, strict=True)]
    for place in range(len(steps)):
        while math.prod(steps) > 1 and math.prod(steps) * budget.fields(rows) > share and steps[place] > 1:
            steps[place] = math.ceil(steps[place] / 2)
    for place in reversed(range(len(steps))):
        while steps[place] < counts[place] and 2 * math.prod(steps) * budget.fields(rows) <= share:
            steps[place] = min(2 * steps[place], counts[place])
    samples = math.prod(steps)
    spare = left - samples * budget.fields(rows)
    batch = max(1, min(samples, spare // budget.network(rows)))
    return Blocks(tuple(counts), tuple(steps), budget.sizes[0], rows, batch, budget.total(rows, samples, batch))


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
    task = _Task.of(network, trained, fields, coarsen)
    counts, chunks = fields.sizes, _chunks(fields)
    with _Folder(target).locked() as folder:
        identity = {
            "input": _digest(source),
            "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            "coarsen": coarsen,
            "reading": asdict(reading),
        }
        blocks = folder.resumed(identity)
        if blocks is None:
            blocks = plan_blocks(task.budget(), counts, chunks, memory)
            _write_template(folder.store, task, blocks)
            folder.begin(identity, blocks)
        rule = f"be at least {as_size(blocks.memory)}: the partial output has blocks of that size"
        require(blocks.memory <= memory, "predict.memory", rule, as_size(memory))
        _compute(folder, task, blocks, memory)
        folder.finish(task.fields.variables)
    get_console().print(str(target), highlight=False, soft_wrap=True)
    return target


@final
@dataclass(frozen=True)
class _Task:
    """What is computed: a network, the fields it reads, and the planes before and after."""

    network: DownscalingNetwork
    format: FieldFormat
    fields: Fields
    coarse: Plane
    fine: Plane
    coarsen: bool

    @classmethod
    def of(cls, network: DownscalingNetwork, trained: FieldFormat, fields: Fields, coarsen: bool) -> _Task:
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
        answers = [self.network(one, source.grid(), query.grid()).numpy() for one in values.split(batch)]
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


def _compute(folder: _Folder, task: _Task, blocks: Blocks, memory: int) -> None:
    """All blocks that are not finished."""
    finished, console = folder.finished(), get_console()
    begun = f", {len(finished)} of them done before" if finished else ""
    console.print(
        f"{len(blocks)} blocks{begun}; predicted memory {as_size(blocks.memory)} of {as_size(memory)}",
        highlight=False,
        soft_wrap=True,
    )
    columns = (TextColumn("blocks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("blocks", total=len(blocks), completed=len(finished))
        for number, spans in enumerate(blocks.spans()):
            if number in finished:
                continue
            *samples, (start, stop) = spans
            part = {dim: slice(*span) for dim, span in zip(task.fields.samples, samples, strict=True)}
            values = task.answer(part, start, stop, blocks.batch)
            rows = slice(*task.fine_rows(start, stop))
            _write_block(folder.store, task, part, rows, values)
            folder.mark(number)
            progress.advance(bar)
    console.print(f"{len(blocks) - len(finished)} blocks computed", highlight=False)


def _write_block(store: Path, task: _Task, part: Mapping[str, slice], rows: slice, values: NDArray[np.float32]) -> None:
    """A block's values into the store, and onto the disk."""
    fine, samples = task.fine, task.fields.samples
    shape = [span.stop - span.start for span in part.values()]
    region = {**part, fine.rows.dim: rows, fine.columns.dim: slice(0, values.shape[-1])}
    dims = (*samples, fine.rows.dim, fine.columns.dim)
    block = xr.Dataset(
        {
            name: (dims, values[:, channel].reshape(*shape, *values.shape[2:]))
            for channel, name in enumerate(task.fields.variables)
        }
    )
    kept = [str(dim) for dim in task.fields.dataset[task.fields.variables[0]].dims]
    block = block.transpose(*kept)
    block.to_zarr(store, region=region, consolidated=False, write_empty_chunks=True)
    zarr = import_optional("zarr", "a zarr store", "files")
    for name in task.fields.variables:
        array = zarr.open_array(store, path=name, mode="r")
        spans = [region[dim] for dim in kept]
        places = [range(s.start // c, -(-s.stop // c)) for s, c in zip(spans, array.chunks, strict=True)]
        for place in itertools.product(*places):
            _reach_disk(store / name / array.metadata.encode_chunk_key(place))


def _write_template(store: Path, task: _Task, blocks: Blocks) -> None:
    """The output without its values: coordinates, attributes, chunks that end where blocks end."""
    da = import_optional("dask.array", "a zarr store", "files")
    dataset, fine = task.fields.dataset, task.fine
    planar = (fine.rows.dim, fine.columns.dim)
    template = dataset.drop_vars([name for name, one in dataset.variables.items() if set(planar) & set(one.dims)])
    for dim, nodes in fine.coordinates().items():
        given = dataset[dim]
        attributes = {key: value for key, value in without_limits(given.attrs).items() if key != "bounds"}
        kind = given.dtype if given.dtype.kind == "f" else np.dtype(np.float64)
        # Nodes are degrees north and east, the file's may be degrees south and west.
        nodes = -nodes if compass(str(given.attrs.get("units", ""))) in ("south", "west") else nodes
        template = template.assign_coords({dim: (dim, nodes.astype(kind), attributes)})
    for name, one in template.variables.items():
        encoding = one.encoding if name in planar else dataset[name].encoding
        one.encoding = {key: value for key, value in encoding.items() if key in _KEPT_ENCODING}
    first = blocks.row_step * task.format.factor
    columns = template.sizes[fine.columns.dim]
    steps = dict(zip(task.fields.samples, _chunked(blocks, 4 * first * columns), strict=True))
    chunks = {**steps, fine.rows.dim: min(first, fine.rows.count), fine.columns.dim: columns}
    layout: dict[str, dict[str, Any]] = {}
    for name in task.fields.variables:
        field = dataset[name]
        shape = tuple(template.sizes[str(dim)] for dim in field.dims)
        template[name] = (field.dims, da.zeros(shape, dtype=np.float32, chunks=shape), without_limits(field.attrs))
        fill = field.encoding.get("_FillValue")
        # An answer may be 0, and no float32 holds 1e300.
        packed = np.dtype(field.encoding.get("dtype", np.float32)).kind in "iu" or not _is_apart(fill)
        layout[name] = {
            "chunks": tuple(chunks[str(dim)] for dim in field.dims),
            "_FillValue": np.float32(np.nan if fill is None or packed else fill),
        }
    template.to_zarr(store, mode="w", compute=False, consolidated=False, encoding=layout, write_empty_chunks=True)


def _is_apart(fill: Any) -> bool:
    """Whether a fill value cannot be taken for an answer."""
    with np.errstate(over="ignore"):
        return fill is not None and fill != 0 and not np.isinf(np.float32(fill))


def _chunked(blocks: Blocks, bytes_each: int) -> tuple[int, ...]:
    """Samples in a chunk of the output: a whole part of those in a block, so that no chunk is written twice."""
    steps = list(blocks.steps)
    for place, step in enumerate(steps):
        rest = math.prod(steps) // step
        fitting = [n for n in range(1, step + 1) if step % n == 0 and n * rest * bytes_each <= _CHUNK_BYTES]
        steps[place] = max(fitting, default=1)
    return tuple(steps)


def _chunks(fields: Fields) -> tuple[int, ...]:
    """Entries of each dimension of the samples that are stored together."""
    array = fields.dataset[fields.variables[0]]
    stored = array.encoding.get("chunks") or array.encoding.get("chunksizes") or (1,) * array.ndim
    by_dim = dict(zip(map(str, array.dims), stored, strict=False))
    return tuple(int(by_dim.get(dim, 1)) for dim in fields.samples)


@final
class _Folder:
    """The partial output."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.partial")
        self.store = self.path / "store.zarr"
        self.journal = self.path / "journal.json"
        self.done = self.path / "finished.txt"

    @contextmanager
    def locked(self) -> Iterator[_Folder]:
        """Held by one process at a time; the lock of a killed one is gone with it."""
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                reject("output", "be written by one process at a time", f"another one at work in {self.path}")
            try:
                yield self
            except ValueError:
                if made and not self.journal.is_file():
                    shutil.rmtree(self.path)
                raise
            except KeyboardInterrupt:
                count = len(self.finished())
                get_console().print(f"interrupted after {count} blocks in {self.path}; the same command resumes")
                raise

    def resumed(self, identity: Mapping[str, Any]) -> Blocks | None:
        """The blocks of a partial output that was begun with the same input, checkpoint and options."""
        if not self.journal.is_file():
            self.done.unlink(missing_ok=True)
            return None
        content = json.loads(self.journal.read_text(encoding="utf-8"))
        differing = [name for name, value in identity.items() if content["identity"].get(name) != value]
        rule = "hold a partial output of the same input, checkpoint and options; remove it, or name another output"
        require(not differing, str(self.path), rule, f"another {', '.join(differing)}")
        given = content["blocks"].items()
        blocks: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in given}
        return Blocks(**blocks)

    def begin(self, identity: Mapping[str, Any], blocks: Blocks) -> None:
        """Written when the template is complete."""
        write_text(self.journal, json.dumps({"identity": identity, "blocks": asdict(blocks)}, indent=2) + "\n")

    def finished(self) -> set[int]:
        """Numbers of finished blocks; a line that was being written when the process was killed does not count."""
        if not self.done.is_file():
            return set()
        lines = self.done.read_text(encoding="ascii").splitlines(keepends=True)
        return {int(line) for line in lines if line.endswith("\n")}

    def mark(self, number: int) -> None:
        """A block's values are on the disk."""
        whole = f"{number}\n"
        if self.done.is_file() and not self.done.read_bytes().endswith(b"\n"):
            self.done.write_text("".join(f"{one}\n" for one in sorted(self.finished())), encoding="ascii")
        with self.done.open("a", encoding="ascii") as stream:
            stream.write(whole)
            stream.flush()
            os.fsync(stream.fileno())

    def finish(self, variables: Sequence[str]) -> None:
        """Rename the store, or the netCDF file made of it, into place."""
        if self.target.suffix == ".zarr":
            self.store.rename(self.target)
        else:
            file = self.path / "output.nc"
            _to_netcdf(self.store, file, variables)
            file.rename(self.target)
        shutil.rmtree(self.path)


def _to_netcdf(store: Path, file: Path, variables: Sequence[str]) -> None:
    """Chunk by chunk, in this thread: no more than a few chunks are in memory."""
    dask = import_optional("dask", "a netCDF file", "files")
    import_optional("h5netcdf", "a netCDF file", "files")
    with xr.open_zarr(store, consolidated=False, chunks={}) as dataset:
        for name, one in dataset.variables.items():
            chunks = one.encoding.get("chunks")
            one.encoding = {key: value for key, value in one.encoding.items() if key in _KEPT_ENCODING}
            if name in variables:
                one.encoding["chunksizes"] = chunks
        with dask.config.set(scheduler="synchronous"):
            dataset.to_netcdf(file, engine="h5netcdf")


def _digest(path: Path) -> str:
    """Of names, sizes and times of change: telling a file of terabytes from another one takes no reading."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for one in files:
        facts = one.stat()
        name = one.relative_to(path) if path.is_dir() else one.name
        digest.update(f"{name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _reach_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
