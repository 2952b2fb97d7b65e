"""Blocks that are read straight from a store: the same as through Dask, for every selection."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path

import numpy as np
import pytest

import emcube as em
from emcube.engine import DaskSource, StoreSource, plan_blocks
from emcube.errors import StoreError
from emcube.models.labels import as_source
from emcube.store import hashing, layout, open_cube, stored_reader, write, write_cube
from tests.engine.test_source import gather


@pytest.fixture
def small_chunks(monkeypatch):
    """Several chunks a block, and several blocks."""
    plan = functools.partial(layout.plan_layout, target=6000, max_chunk=8000)
    monkeypatch.setattr(write, "plan_layout", plan)
    monkeypatch.setattr(hashing, "PIECE_BYTES", 3000)
    blocks = functools.partial(plan_blocks, target_bytes=20_000)
    monkeypatch.setattr("emcube.engine.source.plan_blocks", blocks)


def make(dtype="uint8", mean=0.1, shape=(5, 16, 21, 130)):
    values = np.random.default_rng(3).poisson(mean, shape).astype(dtype)
    return em.make_cube(values, dims=("tilt", "y", "x", "energy"), sig_dims=("energy",))


@pytest.fixture
def stored(tmp_path, small_chunks):
    cube = make()
    return open_cube(write_cube(cube, tmp_path / "a.zarr")), cube


@pytest.mark.parametrize(("dtype", "mean"), [("uint8", 0.1), (">u2", 5.0), ("float32", 2.0)])
def test_blocks_are_those_of_dask(tmp_path, small_chunks, dtype, mean):
    cube = open_cube(write_cube(make(dtype, mean), tmp_path / "a.zarr"))
    n_chunks = cube.data.npartitions
    rng = np.random.default_rng(1)
    pixels = rng.random(cube.shape[:3]) < 0.6
    for some in (None, pixels):
        for channels in (None, np.array([3, 4, 77])):
            ours = StoreSource.from_reader(
                stored_reader(cube.data), 3, "a", pixels=some, channels=channels
            )
            theirs = DaskSource.from_array(cube.data, 3, pixels=some, channels=channels)
            assert ours.plan == theirs.plan
            assert 1 < ours.plan.n_blocks < n_chunks
            assert ours.n_pixels == theirs.n_pixels
            for i in range(ours.plan.n_blocks):
                a, b = ours.load(i), theirs.load(i)
                assert type(a.data) is type(b.data)
                assert a.nav_shape == b.nav_shape
                np.testing.assert_array_equal(a.dense(), b.dense())
            sent = pickle.loads(pickle.dumps(ours.part(range(ours.plan.n_blocks))))
            np.testing.assert_array_equal(gather(sent), gather(theirs))


def test_a_cube_as_it_was_opened_is_read_straight(stored):
    cube, values = stored
    source, _ = as_source(cube)
    assert isinstance(source, StoreSource)
    assert source.token == DaskSource.from_array(cube.data, 3).token
    np.testing.assert_array_equal(gather(source), values.values)
    labelled = cube.assign_coords(tilt=np.arange(5.0)).assign_attrs(note="relabelled")
    assert isinstance(as_source(labelled)[0], StoreSource)
    assert isinstance(as_source(pickle.loads(pickle.dumps(cube)))[0], StoreSource)
    where = cube.sum("energy") > 12
    np.testing.assert_array_equal(
        gather(as_source(cube, where)[0]),
        np.where(np.asarray(where)[..., None], values.values, np.nan),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.isel(tilt=slice(1, 3)),
        lambda c: c.isel(tilt=0),
        lambda c: c + np.uint8(1),
        lambda c: c.astype("int32"),
        lambda c: c.transpose("y", "tilt", "x", "energy"),
        lambda c: c.chunk(tilt=2),
        lambda c: c.isel(energy=slice(None, None, 2)),
    ],
)
def test_a_cube_that_was_changed_is_computed(stored, change):
    cube, values = stored
    changed = change(cube)
    source, _ = as_source(changed)
    assert isinstance(source, DaskSource)
    np.testing.assert_array_equal(gather(source), change(values).values)


def test_a_lost_chunk_is_an_error_that_names_it(stored):
    cube, _ = stored
    source, _ = as_source(cube)
    place = cube.encoding["source"]
    lost = sorted(p for p in Path(place, "data", "c").rglob("*") if p.is_file())[2]
    lost.unlink()
    with pytest.raises(StoreError, match=f"missing: {lost}"):
        gather(source)
