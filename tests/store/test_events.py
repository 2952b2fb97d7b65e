"""Layout "events": the same cube in another form, whatever is in it and whoever reads it."""

from __future__ import annotations

import functools
import json
import os
import pickle
import signal
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import emcube as em
from emcube.engine import StoreSource
from emcube.errors import IncompleteError, InputError, StoreError
from emcube.kernels.rows import rows_from_dense
from emcube.models.labels import as_source
from emcube.store import (
    compute_digest,
    events,
    hashing,
    info,
    layout,
    open_cube,
    read_digest,
    regions,
    verify,
    write,
    write_cube,
)
from tests.engine.test_source import gather
from tests.store.slow_ingest import finish, start


@pytest.fixture
def small(monkeypatch):
    """Blocks of some kilobytes, chunks of 64 events: small cubes take the roads of large ones."""
    plan = functools.partial(layout.plan_layout, target=4096, max_chunk=8192)
    monkeypatch.setattr(write, "plan_layout", plan)
    monkeypatch.setattr(events, "plan_layout", plan)
    monkeypatch.setattr(events, "WIDTH", 64)
    monkeypatch.setattr(hashing, "PIECE_BYTES", 700)
    monkeypatch.setattr(regions, "GROUP_BYTES", 16384)


def cube_of(values, n_sig=1, chunks=None):
    names = ("tilt", "y", "x")[: values.ndim - n_sig] + ("ky", "energy")[-n_sig:]
    values = values if chunks is None else da.from_array(values, chunks=chunks)
    return em.make_cube(values, dims=names, sig_dims=names[-n_sig:])


def rare(shape, dtype="uint8", mean=0.2, seed=0, largest=None):
    """Counts with empty pixels, an empty line, and a large one here and there."""
    rng = np.random.default_rng(seed)
    values = rng.poisson(mean, shape)
    values[rng.random(shape[:2]) < 0.3] = 0
    values[-1] = 0
    if largest is not None:
        values[rng.random(shape) < 0.01] = largest
        values.flat[0] = largest
    return values.astype(dtype)


@given(
    nav=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    n_channels=st.sampled_from([1, 3, 40, 255, 256, 300, 1000]),
    kind=st.sampled_from(
        [
            ("uint8", 255),
            ("uint16", 300),
            (">u2", 65535),
            ("uint32", 70_000),
            ("uint64", 2**32 - 1),
            ("int16", 12),
            ("int64", 70_000),
        ]
    ),
    mean=st.sampled_from([0.0, 0.05, 1.0]),
    chunk=st.integers(1, 4),
)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_round_trips(small, tmp_path_factory, nav, n_channels, kind, mean, chunk):
    dtype, largest = kind
    folder = tmp_path_factory.mktemp("round")
    values = rare((*nav, n_channels), "int64", mean, largest=largest if mean else None)
    cube = cube_of(values.astype(dtype), chunks=chunk)
    dense = write_cube(cube, folder / "dense.zarr", layout="dense")
    path = write_cube(open_cube(dense), folder / "events.zarr", layout="events")
    back = write_cube(open_cube(path), folder / "back.zarr", layout="dense")
    copy = write_cube(open_cube(path), folder / "copy.zarr", layout="events")
    assert read_digest(path) == read_digest(dense) == read_digest(back) == read_digest(copy)
    computed, first = cube.values, open_cube(dense)
    for place in (path, back, copy):
        opened = open_cube(place)
        assert opened.dtype == np.dtype(dtype).newbyteorder("<")
        np.testing.assert_array_equal(opened.values, computed)
        xr.testing.assert_identical(opened.coords.to_dataset(), first.coords.to_dataset())
        assert opened.attrs == first.attrs
        assert verify(place, deep=True).ok
    for name in ("total_counts", "sum_spectrum"):
        np.testing.assert_array_equal(open_cube(path, name).values, open_cube(dense, name).values)
    assert info(path).layout == "events"
    assert info(dense).layout == "dense"


def test_signals_of_two_dims_and_larger_than_a_piece_of_the_digest(small, tmp_path):
    values = rare((4, 3, 30, 31), "uint16", 0.1)
    cube = cube_of(values, n_sig=2)
    path = write_cube(cube, tmp_path / "a.zarr", layout="events")
    assert read_digest(path) == compute_digest(cube)
    opened = open_cube(path)
    np.testing.assert_array_equal(opened.values, values)
    np.testing.assert_array_equal(
        opened.isel(ky=slice(3, 9), energy=7).values, values[:, :, 3:9, 7]
    )
    # From rows, without a dense block.
    copy = write_cube(opened, tmp_path / "b.zarr", layout="events")
    assert read_digest(copy) == read_digest(path)


@pytest.fixture
def stored(small, tmp_path):
    values = rare((5, 12, 13, 40))
    path = write_cube(cube_of(values), tmp_path / "a.zarr", layout="events")
    return path, values


def read_as_a_stranger(path):
    """The cube with zarr and NumPy alone: the code of docs/stores.md."""
    text = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()
    code = text.split("```python\n# events to a dense array")[1].split("```")[0]
    names: dict = {"path": str(path)}
    exec(code, names)
    assert "emcube" not in code.replace('attrs["emcube"]', "")
    return names["cube"]


def test_anybody_can_read_it_with_zarr_alone(stored):
    path, values = stored
    found = read_as_a_stranger(path)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_xarray_opens_all_but_the_dense_array(stored):
    path, values = stored
    with xr.open_zarr(path) as group:
        assert "data" not in group
        np.testing.assert_array_equal(
            group["events_per_pixel"].values, np.count_nonzero(values, axis=-1)
        )
        np.testing.assert_array_equal(group["total_counts"].values, values.sum(axis=-1))
        np.testing.assert_array_equal(group["sum_spectrum"].values, values.sum(axis=(0, 1, 2)))


@pytest.mark.parametrize(
    "pick",
    [
        {"tilt": 2},
        {"tilt": slice(1, 4), "y": slice(3, 11), "x": slice(2, 3)},
        {"y": slice(None, None, 3), "x": [0, 5, 12]},
        {"energy": slice(4, 30, 2), "x": -1},
        {"tilt": slice(2, 2)},
        {"x": slice(None, None, -1)},
    ],
)
def test_slices(stored, pick):
    path, values = stored
    expected = xr.DataArray(values, dims=("tilt", "y", "x", "energy")).isel(pick)
    np.testing.assert_array_equal(open_cube(path).isel(pick).values, expected.values)


@pytest.mark.parametrize("select", [False, True])
@pytest.mark.parametrize("mean", [0.05, 0.4, 2.0])
def test_blocks_are_those_of_the_dense_layout(small, tmp_path, monkeypatch, mean, select):
    from emcube.engine import plan_blocks

    monkeypatch.setattr(
        "emcube.engine.source.plan_blocks", functools.partial(plan_blocks, target_bytes=20_000)
    )
    rng = np.random.default_rng(1)
    cube = cube_of(rng.poisson(mean, (5, 12, 13, 40)).astype("uint16"))
    where = None
    if select:
        pixels = xr.DataArray(rng.random((5, 12, 13)) < 0.5, dims=("tilt", "y", "x"))
        where = pixels & xr.DataArray(rng.random(40) < 0.7, dims="energy")
    sources = [
        as_source(open_cube(write_cube(cube, tmp_path / kind, layout=kind)), where)[0]
        for kind in ("dense", "events")
    ]
    dense, kept = sources
    assert isinstance(kept, StoreSource)
    assert dense.plan == kept.plan
    assert kept.plan.n_blocks > 3
    assert len(pickle.dumps(kept.part([0]))) < 4000 + 900 * select
    for i in range(dense.plan.n_blocks):
        a, b = dense.load(i).data, pickle.loads(pickle.dumps(kept.part([i]))).load(i).data
        assert type(a) is type(b)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
            continue
        for name in ("indptr", "channels", "counts"):
            one, other = getattr(a, name), getattr(b, name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        assert b.nbytes <= kept.block_bytes


def test_fits_have_the_same_bits(stored, tmp_path):
    path, _ = stored
    dense = write_cube(open_cube(path), tmp_path / "dense.zarr")
    one, other = (em.IncrementalPCA(3).fit(open_cube(p)) for p in (path, dense))
    np.testing.assert_array_equal(one.components_, other.components_)
    a, b = (model.transform(open_cube(p)) for model, p in ((one, path), (other, dense)))
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_workers_read_rows_by_themselves_and_give_the_same_bits(
    small, tmp_path, monkeypatch, cluster_client
):
    from emcube.engine import plan_blocks, threads

    monkeypatch.setattr(
        "emcube.engine.source.plan_blocks", functools.partial(plan_blocks, target_bytes=4_000)
    )
    cube = cube_of(np.random.default_rng(2).poisson(0.1, (5, 12, 13, 40)).astype("uint8"))
    opened = open_cube(write_cube(cube, tmp_path / "a.zarr", layout="events"))
    assert as_source(opened)[0].plan.n_blocks > 5
    fits = []
    for n in (1, 2, 4):
        with threads.use_threads(n):
            fits.append(em.IncrementalPCA(3).fit(opened))
    with cluster_client.as_current():
        fits.append(em.IncrementalPCA(3).fit(opened))
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit.components_, fits[0].components_)
        np.testing.assert_array_equal(fit.explained_variance_, fits[0].explained_variance_)


@given(
    nav=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    sig=st.lists(st.sampled_from([1, 2, 9, 60]), min_size=1, max_size=2),
    dtype=st.sampled_from(["uint8", ">u2", "int32", "uint64", "bool"]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hashes_of_rows_are_those_of_the_dense_block(small, nav, sig, dtype):
    values = np.random.default_rng(0).poisson(0.3, (*nav, *sig)).astype(dtype)
    rows = rows_from_dense(values.reshape(int(np.prod(nav)), -1))
    # Some boxes of whole pieces, the whole cube among them.
    piece = hashing.piece_shape(values.shape, values.dtype.itemsize)
    halves = [
        slice(0, max(p, n // 2 // p * p)) if p < n else slice(0, n)
        for p, n in zip(piece[: len(nav)], nav, strict=True)
    ]
    signal = tuple(slice(0, n) for n in sig)
    for box in ([slice(0, n) for n in nav], halves):
        region = (*box, *signal)
        block = values[region]
        part = rows_from_dense(block.reshape(-1, rows.n_channels))
        np.testing.assert_array_equal(
            events.hash_rows(part, values.dtype, values.shape, len(nav), region),
            hashing.hash_block(block, values.shape, region),
        )


def chunk_files(path, name):
    return sorted(p for p in (path / name / "c").rglob("*") if p.is_file())


@pytest.mark.parametrize("name", events.EVENT_ARRAYS)
def test_a_missing_chunk_is_never_read_as_zeros(stored, name):
    path, _ = stored
    lost = chunk_files(path, name)[-1]
    lost.unlink()
    with pytest.raises(StoreError, match=f"missing: {lost}"):
        open_cube(path).compute()
    source, _ = as_source(open_cube(path))
    with pytest.raises(StoreError, match=f"missing: {lost}"):
        gather(source)
    assert verify(path).missing == (lost.relative_to(path).as_posix(),)


@pytest.mark.parametrize("name", events.EVENT_ARRAYS)
def test_a_flipped_bit_is_found(stored, name):
    path, _ = stored
    bad = chunk_files(path, name)[0]
    raw = bytearray(bad.read_bytes())
    raw[-9] ^= 1
    bad.write_bytes(raw)
    with pytest.raises(StoreError, match=f"damaged: {bad}: checksum"):
        open_cube(path).compute()
    assert verify(path).damaged == (bad.relative_to(path).as_posix(),)


def test_events_that_lie_outside_are_refused_before_any_kernel_sees_them(stored):
    path, _ = stored
    array = zarr.open_array(str(path), path="event_channel", mode="r+")
    array[1, 0] = 40
    with pytest.raises(StoreError, match="block 1 has channel 40, expected at most 39"):
        open_cube(path).compute()
    array[1, 0] = 0
    lengths = zarr.open_array(str(path), path="events_per_pixel", mode="r+")
    lengths[...] = 40
    with pytest.raises(StoreError, match=r"block \d+ has \d+ events, expected at most"):
        open_cube(path).compute()


def test_chunks_past_a_blocks_end_are_never_written(small, tmp_path):
    values = np.zeros((6, 10, 40, 10), "uint8")
    values[2] = 1
    path = write_cube(cube_of(values), tmp_path / "a.zarr", layout="events")
    n_events = np.count_nonzero(values.reshape(6, -1), axis=1)
    assert info(path).chunks == (1, 10, 40, 10)
    for name in ("event_channel", "event_count"):
        array = zarr.open_array(str(path), path=name, mode="r")
        assert array.shape == (6, 4000)
        rows = [int(p.parent.name) for p in chunk_files(path, name)]
        assert rows == [2] * -(-n_events[2] // 64)
        named = json.loads((path / ".emcube" / "manifest.json").read_text())["files"]
        assert sum(file.startswith(f"{name}/c/") for file in named) == len(rows)
    assert verify(path, deep=True).ok
    np.testing.assert_array_equal(open_cube(path).values, values)


def test_a_cube_of_nothing(small, tmp_path):
    values = np.zeros((3, 4, 5), "uint16")
    path = write_cube(cube_of(values), tmp_path / "a.zarr", layout="events")
    np.testing.assert_array_equal(open_cube(path).values, values)
    np.testing.assert_array_equal(read_as_a_stranger(path), values)
    assert verify(path, deep=True).ok


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((3, 4, 5), "float32"), "float32, and events are whole numbers"),
        (np.full((3, 4, 5), -1, "int16"), "must not be negative"),
        (np.full((3, 4, 5), 2**33, "uint64"), "does not fit 32 bits"),
        (np.ones(5, "uint8"), "events need pixels and channels"),
    ],
)
def test_what_is_not_counts_is_refused(tmp_path, values, message):
    with pytest.raises(StoreError, match=f"{message}.*dense"):
        write_cube(cube_of(values), tmp_path / "a.zarr", layout="events")


@pytest.mark.parametrize(
    ("shape", "blocks", "mebibytes"),
    [
        ((73, 124, 165, 900), 73, 18),
        ((384, 512, 1564), 20, 16),
        # 1e11 cells: three files a block would be too many at 16 MiB.
        ((361, 483, 643, 900), 3249, 30),
    ],
)
def test_blocks_grow_where_there_would_be_many_files(shape, blocks, mebibytes):
    lazy = da.zeros(shape, dtype="u1", chunks=(1, *shape[1:]))
    names = ("tilt", "y", "x", "energy")[-len(shape) :]
    planned = events.event_layout(em.make_cube(lazy, dims=names, sig_dims=("energy",)))
    assert planned.shards is None
    assert planned.n_chunks(shape) == blocks
    assert np.prod(planned.chunks) / 2**20 == pytest.approx(mebibytes, rel=0.05)


def test_other_layouts_and_names_are_refused(tmp_path):
    cube = cube_of(rare((3, 4, 5)))
    with pytest.raises(InputError, match="expected one of 'auto', 'dense', 'events'"):
        write_cube(cube, tmp_path / "a.zarr", layout="sparse")
    with pytest.raises(InputError, match="layout='rows'"):
        em.ingest(cube, tmp_path / "a.zarr", layout="rows")
    path = em.ingest(cube, tmp_path / "b.zarr", layout="events")
    with pytest.raises(StoreError, match=r"no variable 'event_count': it has .*total_counts"):
        open_cube(path, "event_count")
    np.testing.assert_array_equal(em.open(path, "data").values, cube.values)


def test_names_and_companions_are_kept(tmp_path):
    cube = cube_of(rare((3, 4, 5))).rename("my map")
    image = xr.DataArray(np.ones((3, 4)), dims=("tilt", "y"), name="HAADF")
    path = write_cube(cube, tmp_path / "a.zarr", layout="events", companions=[image])
    assert open_cube(path).name == "my map"
    assert open_cube(path, "my map").dims == cube.dims
    np.testing.assert_array_equal(open_cube(path).coords["HAADF"].values, image.values)
    assert info(path).companions == ("HAADF",)
    assert info(path).stored_bytes == sum(
        p.stat().st_size
        for name in events.EVENT_ARRAYS
        for p in (path / name).rglob("*")
        if p.is_file()
    )


# --- resume ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill")
def test_a_killed_ingest_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "a.zarr"
    run = start(path, 0.1, "events")
    for _ in range(9):
        run.stdout.readline()
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    with pytest.raises(IncompleteError):
        open_cube(path)
    # A chunk that was noted and is lost is written again, and another layout is another ingest.
    chunk_files(path, "event_count")[0].unlink()
    with pytest.raises(StoreError, match="unfinished ingest of another cube"):
        finish(path, "dense")
    with pytest.raises(StoreError, match="values differ"):
        finish(path, "events", seed=1)
    written, resumed = finish(path, "events")
    assert 0 < resumed < 24
    assert written == 24 - resumed
    finish(tmp_path / "whole.zarr")
    assert read_digest(path) == read_digest(tmp_path / "whole.zarr")
    assert verify(path, deep=True).ok
