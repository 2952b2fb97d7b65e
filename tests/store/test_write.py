"""Writing and opening: what goes in comes out, for every kind of source, and plain xarray reads it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import emcube as em
from emcube.errors import CubeError, StoreError
from emcube.store import (
    compute_digest,
    digest,
    info,
    is_store,
    open_cube,
    read_digest,
    verify,
    write_cube,
)
from emcube.store.write import _Ingest


def lazy_sources(counts):
    yield "memory", counts
    yield "aligned", da.from_array(counts, chunks=(1, 7, 15, 40))
    yield "ragged", da.from_array(counts, chunks=((1, 2), (3, 11), (4, 4, 7), (13, 27)))
    yield "one task", da.from_delayed(dask.delayed(lambda: counts)(), counts.shape, counts.dtype)
    yield "split signal", da.from_array(counts, chunks=(3, 14, 15, 7))


@pytest.mark.parametrize("kind", ["memory", "aligned", "ragged", "one task", "split signal"])
def test_what_goes_in_comes_out(tmp_path, small_chunks, make, counts, kind) -> None:
    cube = make(dict(lazy_sources(counts))[kind], metadata={"elements": ["Ni", "Cr"]})
    path = write_cube(cube, tmp_path / "map.zarr")
    found = open_cube(path)
    assert found.dtype == np.uint8
    assert found.chunks is not None
    xr.testing.assert_identical(
        found.compute().drop_attrs(), make(counts).rename("data").drop_attrs()
    )
    assert found.attrs["metadata"] == {"elements": ["Ni", "Cr"]}
    assert found.attrs["sig_dims"] == ["energy"]
    assert found.energy.attrs["units"] == "keV"
    assert read_digest(path) == compute_digest(make(counts)) == digest(found)
    assert verify(path, deep=True).ok
    assert is_store(path)


@settings(max_examples=20)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    dtype=st.sampled_from(["u1", ">u2", "i2", "u4", "f4", ">f8", "f2"]),
    seed=st.integers(0, 99),
)
def test_every_dtype_comes_back(tmp_path_factory, shape, dtype, seed) -> None:
    values = np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)
    cube = em.make_cube(values, dims=("y", "x", "energy"), sig_dims=("energy",))
    found = open_cube(write_cube(cube, tmp_path_factory.mktemp("s") / "a.zarr"))
    assert found.dtype == np.dtype(dtype).newbyteorder("<")
    np.testing.assert_array_equal(found.values, values)


@pytest.mark.parametrize(
    ("dims", "sig_dims", "shape"),
    [
        (("y", "x"), (), (30, 40)),
        (("energy",), ("energy",), (50,)),
        (("x", "energy"), ("energy",), (20, 30)),
        (("y", "x", "ky", "kx"), ("ky", "kx"), (3, 4, 30, 20)),
        (("tilt", "y", "x"), ("y", "x"), (3, 10, 20)),
    ],
)
def test_images_stacks_lines_and_patterns(tmp_path, small_chunks, dims, sig_dims, shape) -> None:
    values = np.random.default_rng(0).poisson(3, shape).astype("u2")
    path = write_cube(em.make_cube(values, dims=dims, sig_dims=sig_dims), tmp_path / "a.zarr")
    found = open_cube(path)
    np.testing.assert_array_equal(found.values, values)
    assert found.attrs["sig_dims"] == list(sig_dims)
    assert verify(path, deep=True).ok
    if sig_dims and len(sig_dims) < len(dims):
        nav = len(dims) - len(sig_dims)
        totals = open_cube(path, "total_counts")
        np.testing.assert_array_equal(totals, values.sum(axis=tuple(range(nav, values.ndim))))


def test_plain_xarray_reads_a_store(tmp_path, small_chunks, make, counts) -> None:
    haadf = xr.DataArray(np.random.default_rng(1).random((14, 15)), dims=("y", "x"), name="HAADF")
    path = write_cube(make(counts).rename("Ni map"), tmp_path / "map.zarr", companions=[haadf])
    # In a process of its own, where nothing of emcube can help.
    code = f"""
import sys, warnings
warnings.simplefilter("error")
import numpy as np, xarray as xr
data = xr.open_zarr({str(path)!r})
assert data["data"].dtype == np.uint8, data["data"].dtype
assert data["data"].dims == ("tilt", "y", "x", "energy")
assert data["data"].attrs["name"] == "Ni map"
assert data.energy.attrs["units"] == "keV"
assert "HAADF" in data.coords and data.HAADF.dims == ("y", "x")
assert int(data["total_counts"].sum()) == int(data["data"].sum(dtype="u8")) == {counts.sum()}
assert int(data["sum_spectrum"].sum()) == {counts.sum()}
assert [n for n, v in data.data_vars.items() if v.shape == {counts.shape}] == ["data"]
assert "emcube" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_companions_follow_selections_or_open_by_name(tmp_path, make, counts) -> None:
    on_grid = xr.DataArray(np.arange(14 * 15.0).reshape(14, 15), dims=("y", "x"), name="HAADF")
    survey = xr.DataArray(
        np.arange(40 * 30).reshape(40, 30),
        dims=("y", "x"),
        coords={"y": np.arange(40) * 2.0, "x": np.arange(30) * 2.0},
        name="survey image",
    )
    path = write_cube(make(counts), tmp_path / "a.zarr", companions=[on_grid, survey])
    cube = open_cube(path)
    assert cube.isel(y=3, x=slice(2, 4)).HAADF.values.tolist() == [47.0, 48.0]
    np.testing.assert_array_equal(open_cube(path, "HAADF"), on_grid)
    found = open_cube(path, "survey image")
    assert found.dims == ("survey image_y", "survey image_x")
    np.testing.assert_array_equal(found, survey)
    assert info(path).companions == ("HAADF", "survey image")
    with pytest.raises(StoreError, match="no variable 'BF'"):
        open_cube(path, "BF")


def test_coordinates_of_every_kind_come_back(tmp_path, make, counts) -> None:
    cube = make(counts).assign_coords(
        label=("tilt", np.array(["left", "flat", "right"])),
        when=("tilt", np.array(["2020-01-01", "2020-01-02", "2021-01-03"], "M8[ns]")),
        dose=("tilt", np.array([1.0, np.nan, 3.0]), {"units": "s"}),
        stage=7.5,
    )
    path = write_cube(cube, tmp_path / "a.zarr")
    found = open_cube(path)
    assert found.label.values.tolist() == ["left", "flat", "right"]
    assert found.when.values[2] == np.datetime64("2021-01-03")
    np.testing.assert_array_equal(found.dose, cube.dose)
    assert found.dose.dtype == np.float64
    assert found.dose.attrs["units"] == "s"
    assert float(found.stage) == 7.5
    assert read_digest(path) == compute_digest(found)


def test_quicklooks_count_everything(tmp_path, small_chunks, make) -> None:
    # 255 everywhere: a uint8, uint16 or float32 accumulator would lose counts.
    counts = np.full((2, 130, 70, 30), 255, np.uint8)
    path = write_cube(make(counts), tmp_path / "a.zarr")
    totals = open_cube(path, "total_counts")
    assert totals.dtype == np.uint64
    assert (totals.values == 255 * 30).all()
    spectrum = open_cube(path, "sum_spectrum")
    assert (spectrum.values == 255 * 2 * 130 * 70).all()
    for level, shape in ((2, (2, 65, 35)), (4, (2, 33, 18))):
        image = open_cube(path, f"total_counts_{level}")
        assert image.shape == shape
        assert int(image.sum()) == int(counts.sum(dtype="u8"))
    # Coordinates of the coarse images are the means of what they sum.
    assert open_cube(path, "total_counts_2").y_2.values[:2].tolist() == [0.5, 2.5]
    assert float(open_cube(path, "total_counts_4").y_4[-1]) == 128.5


def test_quicklooks_leave_missing_values_out(tmp_path, make) -> None:
    values = np.ones((1, 2, 2, 3), "f4")
    values[0, 0, 0, :] = np.nan
    values[0, 1, 1, 0] = np.nan
    path = write_cube(make(values), tmp_path / "a.zarr")
    np.testing.assert_array_equal(open_cube(path, "total_counts"), [[[np.nan, 3], [3, 2]]])
    np.testing.assert_array_equal(open_cube(path, "sum_spectrum"), [2, 3, 3])


def test_float_quicklooks_do_not_depend_on_threads(tmp_path, small_chunks, make) -> None:
    values = np.random.default_rng(0).normal(size=(3, 14, 15, 40)).astype("f4")
    spectra = []
    for threads in (1, 4):
        path = write_cube(make(values), tmp_path / f"{threads}.zarr", threads=threads)
        spectra.append(open_cube(path, "sum_spectrum").values)
    np.testing.assert_array_equal(*spectra)
    np.testing.assert_allclose(spectra[0], values.sum(axis=(0, 1, 2), dtype="f8"))


def counting_blocks(counts, chunks):
    """A lazy array that counts how often each of its blocks is computed."""
    calls: dict = {}
    lock = threading.Lock()

    def block(block_info=None):
        where = tuple(slice(*bounds) for bounds in block_info[None]["array-location"])
        with lock:
            calls[str(where)] = calls.get(str(where), 0) + 1
        return counts[where]

    grid = da.core.normalize_chunks(chunks, counts.shape)
    lazy = da.map_blocks(block, chunks=grid, dtype=counts.dtype, meta=np.empty((0,) * 4, "u1"))
    return lazy, calls


@pytest.mark.parametrize("chunks", [(3, 14, 15, 40), (1, 14, 15, 40), (1, 5, 15, 40)])
def test_source_blocks_are_computed_once(tmp_path, small_chunks, make, counts, chunks) -> None:
    lazy, calls = counting_blocks(counts, chunks)
    write_cube(make(lazy), tmp_path / "a.zarr")
    n_groups = 3
    if chunks == (1, 5, 15, 40):
        # A block that straddles two groups is computed for each.
        assert max(calls.values()) <= 2
        assert sum(calls.values()) <= len(calls) + n_groups
    else:
        assert set(calls.values()) == {1}


def test_one_task_behind_many_chunks_is_computed_once(tmp_path, small_chunks, make, counts) -> None:
    # A reader that loads its file in one task, rechunked by the user.
    lazy, calls = counting_blocks(counts, (3, 14, 15, 40))
    write_cube(make(lazy.rechunk((1, 2, 15, 40))), tmp_path / "a.zarr")
    assert list(calls.values()) == [1]


def test_memory_does_not_grow_with_the_cube(tmp_path) -> None:
    code = """
import sys
import dask.array as da, numpy as np
import emcube as em
from benchmarks.clock import peak_bytes
from emcube.store import write_cube
n = int(sys.argv[1])
lazy = da.zeros((n, 1024, 1024), chunks=(8, 1024, 1024), dtype="u1")
cube = em.make_cube(lazy, dims=("y", "x", "energy"), sig_dims=("energy",))
write_cube(cube, sys.argv[2], threads=2)
print(peak_bytes())
"""
    peaks = []
    for n in (16, 640):
        done = subprocess.run(
            [sys.executable, "-c", code, str(n), str(tmp_path / f"{n}.zarr")],
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
            text=True,
            timeout=250,
        )
        peaks.append(int(done.stdout))
    # 624 MiB more of cube, and no more than a group of regions in flight.
    assert peaks[1] - peaks[0] < 300 * 2**20


def test_progress_counts_regions(tmp_path, small_chunks, make, counts) -> None:
    seen = []
    write_cube(make(counts), tmp_path / "a.zarr", progress=seen.append)
    assert [p.regions_done for p in seen] == list(range(1, seen[0].n_regions + 1))
    assert seen[-1].bytes_done == seen[-1].n_bytes == counts.nbytes


def test_opening_computes_nothing_and_pickles(tmp_path, small_chunks, make, counts) -> None:
    path = write_cube(make(counts), tmp_path / "a.zarr")

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("opening computed something")

    with dask.config.set(scheduler=refuse):
        cube = open_cube(path)
    again = pickle.loads(pickle.dumps(cube))
    np.testing.assert_array_equal(again.values, counts)
    assert len(pickle.dumps(cube.data)) < 5000
    assert cube.data.name == open_cube(path).data.name


def test_any_selection_of_an_opened_store(tmp_path, small_chunks, make, counts) -> None:
    cube = open_cube(write_cube(make(counts), tmp_path / "a.zarr"))
    expected = make(counts)
    for key in (
        {"x": 3},
        {"tilt": -1, "y": slice(3, 9)},
        {"energy": slice(None, None, 3)},
        {"y": [5, 1, 1], "x": slice(10, 2, -1)},
        {"tilt": 1, "y": 2, "x": 3, "energy": 4},
        {"y": slice(4, 4)},
    ):
        np.testing.assert_array_equal(cube.isel(key).values, expected.isel(key).values)


def test_sharded_stores_are_read(tmp_path, small_chunks, make, counts, monkeypatch) -> None:
    from emcube.store import layout, write

    def sharded(shape, n_sig, itemsize, **kwargs):
        return layout.plan_layout(
            shape, n_sig, itemsize, target=2000, max_files=4 if len(shape) == 4 else 100, **kwargs
        )

    monkeypatch.setattr(write, "plan_layout", sharded)
    path = write_cube(make(counts), tmp_path / "a.zarr")
    assert info(path).shards is not None
    cube = open_cube(path)
    assert cube.data.chunksize == info(path).chunks
    np.testing.assert_array_equal(cube.values, counts)
    np.testing.assert_array_equal(cube.isel(y=slice(2, 5), energy=3).values, counts[:, 2:5, :, 3])
    assert verify(path, deep=True).ok


def test_attributes_become_json(tmp_path, make, counts) -> None:
    cube = make(counts)
    cube.attrs["original_metadata"] = {
        "gain": np.float32(2.5),
        "bad": float("nan"),
        "list": (1, np.int64(2)),
        "raw": b"ok",
        "table": np.arange(3),
    }
    path = write_cube(cube, tmp_path / "a.zarr")
    assert open_cube(path).attrs["original_metadata"] == {
        "gain": 2.5,
        "bad": None,
        "list": [1, 2],
        "raw": "ok",
        "table": [0, 1, 2],
    }
    json.loads((path / "zarr.json").read_text(), parse_constant=pytest.fail)


def test_what_cannot_be_kept_is_refused_before_writing(tmp_path, make, counts) -> None:
    cube = make(counts)
    cube.attrs["original_metadata"] = {"reader": object()}
    with pytest.raises(CubeError, match=r"attrs\['original_metadata'\]\['reader'\]: got a object"):
        write_cube(cube, tmp_path / "a.zarr")
    with pytest.raises(CubeError, match="called 'total_counts'"):
        write_cube(make(counts).assign_coords(total_counts=1), tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_blocks_that_break_their_word_are_refused(tmp_path, make, counts) -> None:
    lazy = da.from_array(counts, chunks=-1).map_blocks(lambda b: b.astype("f8"), dtype="u1")
    with pytest.raises(CubeError, match="gave float64 values"):
        write_cube(make(lazy), tmp_path / "a.zarr")


def test_ingest_groups_are_of_bounded_size(tmp_path, small_chunks, make, counts) -> None:
    cube = make(da.from_array(counts, chunks=(1, 3, 15, 40)))
    ingest = _Ingest(cube, tmp_path / "a", tmp_path / "a", (), None, 1)
    groups = ingest.walk.groups(range(len(ingest.walk.regions)))
    assert [i for group in groups for i in group] == list(range(len(ingest.walk.regions)))
    assert len(groups) > 1


def test_a_link_is_followed(tmp_path: Path) -> None:
    cube = em.make_cube(np.ones((4, 5, 6), np.uint8), dims=("y", "x", "energy"))
    write_cube(cube, tmp_path / "disk" / "map.zarr")
    link = tmp_path / "map.zarr"
    link.symlink_to(tmp_path / "disk" / "map.zarr")
    with pytest.raises(StoreError, match="a complete store is there already"):
        write_cube(cube, link)
    assert write_cube(cube + 1, link, overwrite=True) == link
    assert link.is_symlink()
    assert int(open_cube(tmp_path / "disk" / "map.zarr").min()) == 2
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["map.zarr"]


@pytest.mark.parametrize("place", ["", "/"])
def test_a_destination_without_a_name_is_refused(place: str) -> None:
    cube = em.make_cube(np.ones((4, 5, 6), np.uint8), dims=("y", "x", "energy"))
    with pytest.raises(StoreError, match="never replaced"):
        write_cube(cube, place)


def test_an_address_is_no_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    cube = em.make_cube(np.ones((4, 5, 6), np.uint8), dims=("y", "x", "energy"))
    for place in ("s3://bucket/map.zarr", Path("s3://bucket/map.zarr")):
        with pytest.raises(StoreError, match="got an address, expected a folder of this machine"):
            write_cube(cube, place)
    # A path object has lost a slash: it is told, and no folder is called "s3:".
    with pytest.raises(StoreError, match="got an address"):
        em.ingest(cube, Path("s3://bucket/map.zarr"))
    with pytest.raises(StoreError, match="got an address"):
        em.run({"emcube": 1, "steps": [{"pca": {"n_components": 1}}]}, cube, out=Path("s3://b/r"))
    assert not list(tmp_path.iterdir())


def test_the_home_folder_of_a_destination_is_found(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    cube = em.make_cube(np.ones((4, 5, 6), np.uint8), dims=("y", "x", "energy"))
    assert em.ingest(cube, "~/map.zarr") == tmp_path / "map.zarr"
    assert is_store(tmp_path / "map.zarr")
