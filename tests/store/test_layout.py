"""Chunks and shards: arithmetic against tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcube.errors import StoreError
from emcube.store.hashing import piece_box
from emcube.store.layout import MAX_CHUNK, MAX_SHARD, MIB, Layout, plan_layout


@pytest.mark.parametrize(
    ("shape", "n_sig", "itemsize", "chunks"),
    [
        # The scenes of the talk: one tilt, and rows of a map.
        ((73, 124, 165, 900), 1, 1, (1, 124, 165, 900)),
        ((384, 512, 1564), 1, 1, (20, 512, 1564)),
        # JEOL pts, 1.07 GB dense.
        ((512, 512, 4096), 1, 1, (8, 512, 4096)),
        # 4D-STEM: whole patterns.
        ((16, 16, 256, 256), 2, 2, (8, 16, 256, 256)),
        ((256, 256, 256, 256), 2, 2, (1, 128, 256, 256)),
        # Everything fits into one chunk.
        ((64, 64, 992), 1, 4, (64, 64, 992)),
        ((73, 4, 4, 900), 1, 1, (73, 4, 4, 900)),
        ((91, 64, 64), 2, 2, (91, 64, 64)),
        ((1024,), 1, 4, (1024,)),
        ((), 0, 8, ()),
        # An image, and a signal too long to stay whole.
        ((100_000, 1000), 0, 4, (4176, 1000)),
        ((10, 10, 50_000_000), 1, 8, (1, 1, 2_088_960)),
    ],
)
def test_chunks(shape: tuple, n_sig: int, itemsize: int, chunks: tuple) -> None:
    assert plan_layout(shape, n_sig, itemsize) == Layout(chunks, None)


@pytest.mark.parametrize(
    ("shape", "n_sig", "itemsize", "layout"),
    [
        ((2048, 2048, 256, 256), 2, 2, Layout((1, 128, 256, 256), (1, 512, 256, 256))),
        ((1000, 1000, 1000, 900), 1, 1, Layout((1, 18, 1000, 900), (1, 108, 1000, 900))),
    ],
)
def test_shards_only_for_many_files(
    shape: tuple, n_sig: int, itemsize: int, layout: Layout
) -> None:
    found = plan_layout(shape, n_sig, itemsize)
    assert found == layout
    assert found.n_chunks(shape) > 10_000 >= found.n_files(shape)


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ((10,) * 100, 20),  # two of the source's chunks are nearest to 17 rows
        ((34,) * 29 + (14,), 17),  # half of one
        ((1000,), 17),  # one chunk says nothing
        ((7, 11, 982), 17),  # nor do uneven ones
        ((333,) * 3 + (1,), 9),  # a divisor of a large one within half to one and a half: 9
    ],
)
def test_chunks_end_where_the_sources_do(source: tuple[int, ...], rows: int) -> None:
    shape = (1000, 512, 1900)
    chunks = (source, (512,), (1900,))
    assert plan_layout(shape, 1, 1).chunks[0] == 17
    assert plan_layout(shape, 1, 1, source_chunks=chunks).chunks == (rows, 512, 1900)


@given(
    shape=st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    n_sig=st.integers(0, 2),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    step=st.integers(1, 100),
)
def test_what_holds_for_every_layout(
    shape: list[int], n_sig: int, itemsize: int, step: int
) -> None:
    n_sig = min(n_sig, len(shape))
    source = [(step,) * (n // step) + ((n % step,) if n % step else ()) for n in shape]
    for chunks in (None, source):
        layout = plan_layout(shape, n_sig, itemsize, source_chunks=chunks)
        nbytes = itemsize * math.prod(layout.chunks)
        signal = itemsize * math.prod(shape[len(shape) - n_sig :])
        assert nbytes <= MAX_CHUNK
        if signal <= MAX_CHUNK:
            assert layout.chunks[len(shape) - n_sig :] == tuple(shape[len(shape) - n_sig :])
        # Large enough that a chunk's overhead in a pass (0.04 ms and 0.3 ms of Dask's task) is under
        # 10 % of decoding it, at 16 MiB in 15 ms.
        whole = itemsize * math.prod(shape)
        assert nbytes >= min(whole, 5 * MIB)
        if layout.shards:
            assert itemsize * math.prod(layout.shards) <= MAX_SHARD
            assert all(s % c == 0 for s, c in zip(layout.shards, layout.chunks, strict=True))
        for region in [next(iter(layout.regions(shape)))]:
            piece_box(shape, itemsize, region)


def test_regions_cover_every_cell_once() -> None:
    shape = (5, 7, 3)
    seen = {}
    for region in Layout((2, 3, 3)).regions(shape):
        for y in range(region[0].start, region[0].stop):
            for x in range(region[1].start, region[1].stop):
                seen[y, x] = seen.get((y, x), 0) + 1
    assert seen == {(y, x): 1 for y in range(5) for x in range(7)}


@pytest.mark.parametrize(
    ("shape", "n_sig", "itemsize"), [((0, 4), 1, 1), ((4,), 2, 1), ((4,), 1, 0), ((4,), -1, 1)]
)
def test_impossible_shapes_are_refused(shape: tuple, n_sig: int, itemsize: int) -> None:
    with pytest.raises(StoreError, match="no layout for shape"):
        plan_layout(shape, n_sig, itemsize)
