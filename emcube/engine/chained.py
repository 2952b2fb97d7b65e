"""Several cubes as one source: their blocks one after the other, each cut as it would be alone.

It is the source of a cube that has one more navigation dim before its own, along which the cubes lie; they
may differ in the lengths of the others, so that the blocks do not make one grid.
"""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NoReturn

from emcube.engine.plan import BlockPlan
from emcube.engine.source import Block, BlockSource
from emcube.errors import EngineError

__all__ = ["ChainedPlan", "ChainedSource"]


@dataclass(frozen=True)
class ChainedPlan(BlockPlan):
    """Blocks of several plans, numbered through.

    Make one with `of`. `nav_shape` and `block_shape` are the largest of the parts, behind the number of parts
    and one: they describe, but no grid has them.

    Parameters
    ----------
    parts : tuple of BlockPlan
        One a cube.
    """

    parts: tuple[BlockPlan, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[BlockPlan]) -> ChainedPlan:
        """Chain plans, which have as many navigation dims each."""
        shapes = zip(*(p.nav_shape for p in parts), strict=True)
        blocks = zip(*(p.block_shape for p in parts), strict=True)
        return cls(
            (len(parts), *map(max, shapes)),
            (1, *map(max, blocks)),
            parts[0].n_channels,
            max(p.itemsize for p in parts),
            tuple(parts),
        )

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        """First block of each part, and the number of all."""
        return (0, *itertools.accumulate(p.n_blocks for p in self.parts))

    def place(self, block_id: int) -> tuple[int, int]:
        """Part that a block belongs to, and its number there."""
        part = bisect_right(self._starts, block_id) - 1
        return part, block_id - self._starts[part]

    @cached_property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self._starts[-1]

    @cached_property
    def n_pixels(self) -> int:
        """Number of navigation positions of all parts."""
        return sum(p.n_pixels for p in self.parts)

    @property
    def block_bytes(self) -> int:
        """Decoded bytes of the largest block."""
        return max(p.block_bytes for p in self.parts)

    def offset(self, block_id: int) -> tuple[int, ...]:
        """Corner of a block: its part, and where it lies in that."""
        part, own = self.place(block_id)
        return (part, *self.parts[part].offset(own))

    def shape(self, block_id: int) -> tuple[int, ...]:
        """Lengths of a block."""
        part, own = self.place(block_id)
        return (1, *self.parts[part].shape(own))

    @cached_property
    def groups(self) -> tuple[range, ...]:
        """Groups of each part."""
        return tuple(
            range(g.start + first, g.stop + first)
            for first, part in zip(self._starts, self.parts, strict=False)
            for g in part.groups
        )

    def n_tiles(self, tile: tuple[int, ...]) -> int:
        """Tiles in all blocks; they do not reach from part to part."""
        if tile[0] != 1:
            raise EngineError(f"a tile of {tile[0]} cubes was asked for, each lies in one")
        return sum(p.n_tiles(tile[1:]) for p in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain form, for a run's identity."""
        return {"parts": [p.as_dict() for p in self.parts]}

    @property
    def grid(self) -> tuple[int, ...]:
        """There is none."""
        self._refuse()

    @property
    def group_shape(self) -> tuple[int, ...]:
        """There is none."""
        self._refuse()

    def box_of(self, block_id: int, box: tuple[int, ...]) -> NoReturn:
        """There is none."""
        self._refuse()

    def output_shape(self, pixel_bytes: int) -> NoReturn:
        """There is none."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise EngineError(
            f"the blocks of {len(self.parts)} cubes make no common grid to be written to",
            hint="map the source of each cube alone",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        numbers = (self.nav_shape, self.block_shape, self.n_channels, self.itemsize)
        return ChainedPlan, (*numbers, self.parts)


@dataclass(frozen=True, eq=False)
class ChainedSource:
    """Blocks of several sources, numbered through; make one with `of`.

    Attributes
    ----------
    sources : tuple of BlockSource or None
        None where a part of the source does not need them.
    n_channels, n_pixels, token, block_bytes, kept_bytes
        Of all; the same for every part of the source.
    """

    plan: ChainedPlan
    sources: tuple[BlockSource | None, ...]
    n_channels: int
    n_pixels: int
    token: str
    block_bytes: int
    kept_bytes: int

    @classmethod
    def of(cls, sources: Sequence[BlockSource]) -> ChainedSource:
        """Chain sources, which have the same channels.

        Raises
        ------
        EngineError
            There is none, or they differ in their number of channels or of navigation dims.
        """
        for what, found in (
            ("channels", {s.n_channels for s in sources}),
            ("navigation dims", {len(s.plan.nav_shape) for s in sources}),
        ):
            if len(found) != 1:
                raise EngineError(
                    f"sources with {sorted(found)} {what} cannot be chained, one number is expected"
                )
        names = "|".join(s.token for s in sources)
        return cls(
            ChainedPlan.of([s.plan for s in sources]),
            tuple(sources),
            sources[0].n_channels,
            sum(s.n_pixels for s in sources),
            f"chained-{hashlib.sha256(names.encode()).hexdigest()[:32]}",
            max(s.block_bytes for s in sources),
            sum(_kept_bytes(s) for s in sources),
        )

    def load(self, block_id: int) -> Block:
        """Read one block."""
        part, own = self.plan.place(block_id)
        source = self.sources[part]
        if source is None:
            raise EngineError(
                f"block {block_id} is not in this part of the source",
                hint="ask part() for every block that is going to be loaded",
            )
        block = source.load(own)
        return replace(
            block, id=block_id, nav_shape=(1, *block.nav_shape), offset=(part, *block.offset)
        )

    def part(self, block_ids: Iterable[int]) -> ChainedSource:
        """Source with what some blocks need."""
        wanted: dict[int, list[int]] = {}
        for part, own in map(self.plan.place, block_ids):
            wanted.setdefault(part, []).append(own)
        cut = tuple(
            source.part(wanted[i]) if source is not None and i in wanted else None
            for i, source in enumerate(self.sources)
        )
        return replace(self, sources=cut)


def _kept_bytes(source: BlockSource) -> int:
    return int(getattr(source, "kept_bytes", source.block_bytes * source.plan.n_blocks))
