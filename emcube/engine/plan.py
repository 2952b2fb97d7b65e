"""How a cube is cut into blocks: pure arithmetic, the same on every machine.

The layout depends on the shape, the size of an item and the chunks of the source; never on workers,
memory or executor. Random numbers, combination order and therefore the bits of an answer hang on
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from emcube.errors import InputError

__all__ = ["MAX_GROUPS", "OUTPUT_BYTES", "TARGET_BYTES", "BlockPlan", "plan_blocks"]

TARGET_BYTES = 32 * 2**20
"""A block of decoded values aims at this size: large enough that the overhead of a task is lost in
its work, small enough that a few in flight fit any laptop."""

MAX_GROUPS = 4096
"""Blocks are handed out in at most this many groups of neighbours (one task a group)."""

OUTPUT_BYTES = 32 * 2**20
"""Per-pixel output of several blocks is gathered up to this size and written as one chunk."""


@dataclass(frozen=True)
class BlockPlan:
    """A regular grid of blocks over the navigation dims.

    Parameters
    ----------
    nav_shape : tuple of int
        Lengths of the navigation dims; () for a single spectrum.
    block_shape : tuple of int
        Lengths of a block; the last one along a dim may be shorter.
    n_channels : int
        Channels of the source (E before any selection).
    itemsize : int
        Bytes of a value in the source.
    """

    nav_shape: tuple[int, ...]
    block_shape: tuple[int, ...]
    n_channels: int
    itemsize: int

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Blocks along each navigation dim."""
        return tuple(
            -(-n // b) if n else 0 for n, b in zip(self.nav_shape, self.block_shape, strict=True)
        )

    @cached_property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return math.prod(self.grid)

    @cached_property
    def n_pixels(self) -> int:
        """Number of navigation positions P."""
        return math.prod(self.nav_shape)

    @property
    def block_bytes(self) -> int:
        """Decoded bytes of a full block."""
        return math.prod(self.block_shape) * self.n_channels * self.itemsize

    def offset(self, block_id: int) -> tuple[int, ...]:
        """Corner of a block in the navigation grid."""
        corner = []
        for n, b in zip(reversed(self.grid), reversed(self.block_shape), strict=True):
            block_id, i = divmod(block_id, n)
            corner.append(i * b)
        return tuple(reversed(corner))

    def shape(self, block_id: int) -> tuple[int, ...]:
        """Lengths of a block, cut at the end of the grid."""
        return tuple(
            min(b, n - o)
            for b, n, o in zip(self.block_shape, self.nav_shape, self.offset(block_id), strict=True)
        )

    def slices(self, block_id: int) -> tuple[slice, ...]:
        """Region of a block in the navigation grid."""
        return tuple(
            slice(o, o + s)
            for o, s in zip(self.offset(block_id), self.shape(block_id), strict=True)
        )

    def box_of(self, block_id: int, box: tuple[int, ...]) -> tuple[tuple[slice, ...], int]:
        """Region of the box of so many blocks that a block lies in, and how many blocks it has."""
        region, n_blocks = [], 1
        for o, b, n, k in zip(
            self.offset(block_id), self.block_shape, self.nav_shape, box, strict=True
        ):
            start = o // (k * b) * (k * b)
            stop = min(start + k * b, n)
            region.append(slice(start, stop))
            n_blocks *= -(-(stop - start) // b)
        return tuple(region), n_blocks

    def n_tiles(self, tile: tuple[int, ...]) -> int:
        """Tiles in all blocks, where tiles of so many pixels along each dim do not cross blocks."""
        along = []
        for n, b, t in zip(self.nav_shape, self.block_shape, tile, strict=True):
            whole, rest = divmod(n, b)
            along.append(whole * -(-b // t) + -(-rest // t))
        return math.prod(along)

    @cached_property
    def group_shape(self) -> tuple[int, ...]:
        """Blocks along each dim of a group: a box, whole along the last dims, one along the first.

        One block up to `MAX_GROUPS` of them. The length along the dim that is cut has many divisors, so that
        output of every size finds a box that fills groups (see `output_shape`).
        """
        if self.n_blocks <= MAX_GROUPS:
            return (1,) * len(self.grid)
        group = list(self.grid)
        for d in reversed(range(len(group))):
            rows = math.prod(self.grid[:d])
            if rows < MAX_GROUPS:
                group[:d] = [1] * d
                group[d] = min(_rounded(-(-self.grid[d] // (MAX_GROUPS // rows))), self.grid[d])
                break
        return tuple(group)

    @cached_property
    def groups(self) -> tuple[range, ...]:
        """Boxes of neighbouring blocks that are handed out as one task, each a run of block ids."""
        if not self.n_blocks:
            return ()
        cut = next((d for d, g in enumerate(self.group_shape) if g > 1), len(self.grid) - 1)
        if cut < 0:  # a single spectrum
            return (range(1),)
        inner = math.prod(self.grid[cut + 1 :])
        row, size = self.grid[cut] * inner, self.group_shape[cut] * inner
        return tuple(
            range(start, min(start + size, begin + row))
            for begin in range(0, self.n_blocks, row)
            for start in range(begin, begin + row, size)
        )

    def output_shape(self, pixel_bytes: int) -> tuple[int, ...]:
        """Pixels along each dim of a chunk of per-pixel output: whole blocks of one group.

        Up to `MAX_GROUPS` blocks it is one block. Of more, so many neighbours within a group as
        `OUTPUT_BYTES` allow, so that there are as many files as groups, or more where the output is large,
        but never for the number of blocks.

        Parameters
        ----------
        pixel_bytes : int
            Bytes of one pixel's output.
        """
        room = OUTPUT_BYTES // max(1, math.prod(self.block_shape) * pixel_bytes)
        box = [1] * len(self.grid)
        for d in reversed(range(len(box))):
            whole, wanted = self.group_shape[d], min(self.group_shape[d], max(1, room))
            if whole == self.grid[d]:
                box[d] = -(-whole // -(-whole // wanted))
            else:
                # Chunks lie in a regular grid: each group holds a whole number of them.
                box[d] = next(n for n in range(wanted, 0, -1) if whole % n == 0)
            if box[d] < whole or whole < self.grid[d]:
                break
            room //= whole
        return tuple(
            min(k * b, max(1, n))
            for k, b, n in zip(box, self.block_shape, self.nav_shape, strict=True)
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain form, for a run's identity."""
        # The order of summation hangs on the groups, where there are fewer than blocks.
        grouped = {"group_shape": list(self.group_shape)} if math.prod(self.group_shape) > 1 else {}
        return {
            "nav_shape": list(self.nav_shape),
            "block_shape": list(self.block_shape),
            "n_channels": self.n_channels,
            "itemsize": self.itemsize,
            **grouped,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # A plan goes with every task: without the groups it has worked out.
        return BlockPlan, (self.nav_shape, self.block_shape, self.n_channels, self.itemsize)


def _rounded(n: int) -> int:
    """Round up to a number of three leading bits, which halves again and again."""
    step = 1 << max(0, n.bit_length() - 3)
    return -(-n // step) * step


def plan_blocks(
    nav_shape: tuple[int, ...],
    n_channels: int,
    itemsize: int,
    chunk_shape: tuple[int, ...] | None = None,
    *,
    target_bytes: int = TARGET_BYTES,
) -> BlockPlan:
    """Choose the block shape: whole source chunks, joined from the last dim on up to the target
    size.

    Parameters
    ----------
    nav_shape : tuple of int
        Lengths of the navigation dims.
    n_channels, itemsize : int
        Channels and bytes of a value.
    chunk_shape : tuple of int, optional
        Chunks of the source along the navigation dims. A chunk is never split, since each part
        would decode all of it again. None: the source can be cut anywhere (memory, sparse rows).
    target_bytes : int
        Decoded size to aim at.

    Raises
    ------
    InputError
        `chunk_shape` has another length than `nav_shape`.
    """
    if chunk_shape is None:
        chunk_shape = (1,) * len(nav_shape)
    if len(chunk_shape) != len(nav_shape):
        raise InputError(
            f"chunks of {len(nav_shape)} navigation dims are expected, got {chunk_shape}"
        )
    block = [max(1, min(c, n)) for c, n in zip(chunk_shape, nav_shape, strict=True)]
    pixel_bytes = max(1, n_channels * itemsize)
    for d in reversed(range(len(block))):
        size = math.prod(block) * pixel_bytes
        chunks = -(-nav_shape[d] // block[d]) if nav_shape[d] else 1
        wanted = max(1, min(chunks, target_bytes // size))
        if wanted < chunks:
            # Even shares: three blocks of 25 rather than two of 36 and one of 3.
            wanted = -(-chunks // -(-chunks // wanted))
        block[d] = min(block[d] * wanted, max(1, nav_shape[d]))
        if wanted < chunks:
            break
    return BlockPlan(tuple(nav_shape), tuple(block), n_channels, itemsize)
