"""The output of a prediction while it grows: a folder beside it, and a store of the blocks that are finished.

The folder holds::

    <output>.partial/
        store.zarr      the values of finished blocks
        journal.json    what is computed from what, and the blocks
        finished.txt    numbers of finished blocks, each written when its values have reached the disk
        lock            held by the process that is at work

Killed at any moment, the same command goes on with the first block that is not finished. At the end the output is
renamed into place.
"""

from __future__ import annotations

import fcntl
import itertools
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._files import parsing, refuse_file
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_results import without_limits
from ccnn_irregular.adapters.xarray_units import compass
from ccnn_irregular.pipelines.tasks.downscale.blocks import Blocks
from ccnn_irregular.pipelines.tasks.downscale.fields import Fields, Plane
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.reports import write_json
from ccnn_irregular.pipelines.train.texts import read_json

__all__ = ["PartialOutput", "write_block", "write_template"]

_CHUNK_BYTES = 64 * 1024**2
_KEPT_ENCODING = ("dtype", "units", "calendar", "_FillValue")


@final
class PartialOutput:
    """The folder beside an output that is not complete.

    Args:
        target: the output.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.partial")
        self.store = self.path / "store.zarr"
        self.journal = self.path / "journal.json"
        self.done = self.path / "finished.txt"

    @contextmanager
    def locked(self) -> Iterator[PartialOutput]:
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
                say(f"interrupted after {count} blocks in {self.path}; the same command resumes")
                raise

    def resumed(self, identity: Mapping[str, Any]) -> Blocks | None:
        """The blocks of a partial output that was begun with the same input, checkpoint and options."""
        if not self.journal.is_file():
            self.done.unlink(missing_ok=True)
            return None
        content = read_json(self.journal)
        told, cut = content.get("identity"), content.get("blocks")
        names = {field.name for field in fields(Blocks)}
        if not isinstance(told, dict) or not isinstance(cut, dict) or cut.keys() != names:
            refuse_file(self.journal, "tell of a partial output; remove it and the output to begin anew", list(content))
        differing = [name for name, value in identity.items() if told.get(name) != value]
        rule = "hold a partial output of the same input, checkpoint and options; remove it, or name another output"
        require(not differing, str(self.path), rule, f"another {', '.join(differing)}")
        blocks: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in cut.items()}
        return Blocks(**blocks)

    def begin(self, identity: Mapping[str, Any], blocks: Blocks) -> None:
        """Written when the template is complete."""
        write_json(self.journal, {"identity": identity, "blocks": asdict(blocks)})

    def finished(self) -> set[int]:
        """Numbers of finished blocks; a line that was being written when the process was killed does not count."""
        if not self.done.is_file():
            return set()
        with parsing(self.done, "list of blocks"):
            lines = self.done.read_text(encoding="ascii").splitlines(keepends=True)
            return {int(line) for line in lines if line.endswith("\n")}

    def mark(self, number: int) -> None:
        """A block's values are on the disk."""
        whole = f"{number}\n"
        if self.done.is_file() and not self.done.read_bytes().endswith(b"\n"):
            self.done.write_text("".join(f"{block}\n" for block in sorted(self.finished())), encoding="ascii")
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
        for name, variable in dataset.variables.items():
            chunks = variable.encoding.get("chunks")
            variable.encoding = {key: value for key, value in variable.encoding.items() if key in _KEPT_ENCODING}
            if name in variables:
                variable.encoding["chunksizes"] = chunks
        with dask.config.set(scheduler="synchronous"):
            dataset.to_netcdf(file, engine="h5netcdf")


def write_block(
    store: Path, fields: Fields, fine: Plane, part: Mapping[str, slice], rows: slice, values: NDArray[np.float32]
) -> None:
    """Write the values of a block into the store and onto the disk.

    Args:
        store: that ``write_template`` wrote.
        fields: the input.
        fine: plane of the output.
        part: which samples, by dimension.
        rows: which fine rows, in the order of the file.
        values: ``(S, C, rows, columns)`` there.
    """
    shape = [span.stop - span.start for span in part.values()]
    region = {**part, fine.rows.dim: rows, fine.columns.dim: slice(0, values.shape[-1])}
    dims = (*fields.samples, fine.rows.dim, fine.columns.dim)
    block = xr.Dataset(
        {
            name: (dims, values[:, channel].reshape(*shape, *values.shape[2:]))
            for channel, name in enumerate(fields.variables)
        }
    )
    kept = [str(dim) for dim in fields.dataset[fields.variables[0]].dims]
    block = block.transpose(*kept)
    block.to_zarr(store, region=region, consolidated=False, write_empty_chunks=True)
    zarr = import_optional("zarr", "a zarr store", "files")
    for name in fields.variables:
        array = zarr.open_array(store, path=name, mode="r")
        spans = [region[dim] for dim in kept]
        places = [range(s.start // c, -(-s.stop // c)) for s, c in zip(spans, array.chunks, strict=True)]
        for place in itertools.product(*places):
            _reach_disk(store / name / array.metadata.encode_chunk_key(place))


def write_template(store: Path, fields: Fields, fine: Plane, blocks: Blocks, factor: int) -> None:
    """Write the output without its values: coordinates, attributes, chunks that end where blocks end.

    Args:
        store: to be made.
        fields: the input.
        fine: plane of the output.
        blocks: of coarse rows.
        factor: fine nodes per coarse node along each axis.
    """
    da = import_optional("dask.array", "a zarr store", "files")
    dataset = fields.dataset
    planar = (fine.rows.dim, fine.columns.dim)
    on_plane = [name for name, variable in dataset.variables.items() if set(planar) & set(variable.dims)]
    template = dataset.drop_vars(on_plane)
    for dim, nodes in fine.coordinates().items():
        given = dataset[dim]
        attributes = {key: value for key, value in without_limits(given.attrs).items() if key != "bounds"}
        kind = given.dtype if given.dtype.kind == "f" else np.dtype(np.float64)
        # Nodes are degrees north and east, the file's may be degrees south and west.
        nodes = -nodes if compass(str(given.attrs.get("units", ""))) in ("south", "west") else nodes
        template = template.assign_coords({dim: (dim, nodes.astype(kind), attributes)})
    for name, variable in template.variables.items():
        encoding = variable.encoding if name in planar else dataset[name].encoding
        variable.encoding = {key: value for key, value in encoding.items() if key in _KEPT_ENCODING}
    first = blocks.row_step * factor
    columns = template.sizes[fine.columns.dim]
    steps = dict(zip(fields.samples, _chunked(blocks, 4 * first * columns), strict=True))
    chunks = {**steps, fine.rows.dim: min(first, fine.rows.count), fine.columns.dim: columns}
    layout: dict[str, dict[str, Any]] = {}
    for name in fields.variables:
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


def _reach_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
