"""How a cube is cut into blocks that fit into memory, and what a block takes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from ccnn_irregular._checks import reject, require
from ccnn_irregular.operators.planning.memory import as_size

__all__ = ["Blocks", "Budget", "as_bytes", "plan_blocks"]

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
