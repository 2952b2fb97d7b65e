"""Scenes drawn as rows of counts: the counts of the dense cube, written without it."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest

import emcube as em
from emcube.cube.rows import row_blocks
from emcube.kernels.rows import CountRows
from emcube.scenes import base
from emcube.store import events, layout, read_digest


@pytest.fixture(
    params=[
        lambda: em.scenes.srm2135c(scale=0.001, random_state=3).cube,
        lambda: em.scenes.jadeite(scale=0.002, random_state=3).cube,
        lambda: em.scenes.stem4d(scale=0.001, random_state=3).cube,
    ],
    ids=["srm2135c", "jadeite", "stem4d"],
)
def cube(request):
    return request.param()


def test_rows_are_the_counts_of_the_dense_cube(cube, monkeypatch):
    monkeypatch.setattr(base, "SLAB_BYTES", 3 * 900)
    n_nav = cube.ndim - len(cube.attrs["sig_dims"])
    chunks = [max(1, n // 2) for n in cube.shape[:n_nav]] + list(cube.shape[n_nav:])
    rows = row_blocks(cube.data, n_nav, chunks)
    values = cube.values
    starts = [np.cumsum((0, *lengths[:-1])) for lengths in rows.chunks]
    for index in np.ndindex(rows.numblocks):
        block = rows.blocks[index].compute(scheduler="sync")
        assert isinstance(block, CountRows)
        box = tuple(
            slice(starts[d][i], starts[d][i] + rows.chunks[d][i]) for d, i in enumerate(index)
        )
        np.testing.assert_array_equal(
            block.to_dense(values.dtype), values[box].reshape(block.n_pixels, -1)
        )


def test_a_scene_is_written_as_events_without_a_dense_block(tmp_path, monkeypatch):
    cube = em.scenes.srm2135c(scale=0.001, random_state=1).cube
    dense = em.ingest(cube, tmp_path / "dense.zarr")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dense block was drawn")

    monkeypatch.setattr(base._Drawing, "__call__", refuse)
    monkeypatch.setattr(
        events, "plan_layout", lambda *a, **k: layout.plan_layout(*a, **{**k, "target": 2**18})
    )
    path = em.ingest(cube, tmp_path / "events.zarr", layout="events")
    assert read_digest(path) == read_digest(dense)
    np.testing.assert_array_equal(em.open(path).values, em.open(dense).values)


def test_a_cube_that_was_changed_is_no_scene_any_more():
    cube = em.scenes.srm2135c(scale=0.001).cube
    assert row_blocks((cube + 1).data, 3, cube.shape) is None
    assert row_blocks(cube.isel(tilt=slice(2)).data, 3, (2, *cube.shape[1:])) is None
    assert row_blocks(cube.data, 3, (*cube.shape[:3], 100)) is None
    assert row_blocks(cube.values, 3, cube.shape) is None


def test_a_drawing_goes_with_its_cube_and_travels_light():
    from emcube.cube.rows import _makers

    cube = em.scenes.srm2135c(scale=0.001, random_state=77).cube
    name = cube.data.name
    drawing = _makers[name]
    assert len(pickle.dumps(drawing)) < 3 * len(pickle.dumps(drawing.tables))
    again = pickle.loads(pickle.dumps(cube))
    np.testing.assert_array_equal(again.values, cube.values)
    del cube, drawing, again
    gc.collect()
    assert name not in _makers
