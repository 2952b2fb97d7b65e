"""Cubes from every kind of array, without reading, hashing or copying it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy import sparse

from emcube.cube import chunk_shape, make_cube
from emcube.errors import CubeError, UnitsError
from tests.cube.helpers import eds, lazily

DIMS = ("y", "x", "energy")


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).poisson(0.2, (7, 9, 50)).astype("uint8")


def test_labels_are_what_was_given(counts: np.ndarray[Any, Any]) -> None:
    cube = make_cube(
        counts,
        dims=DIMS,
        sig_dims=("energy",),
        coords={"energy": 0.01 * np.arange(50)},
        units={"energy": "keV", "x": "nm"},
        metadata={"elements": ["Si"]},
        name="mine",
        companions={"HAADF": counts.sum(-1), "drift": xr.DataArray(np.arange(7.0), dims="y")},
    )
    assert cube.dims == DIMS
    assert cube.name == "mine"
    assert cube.dtype == np.uint8
    assert cube.attrs == {
        "metadata": {"elements": ["Si"]},
        "sig_dims": ["energy"],
        "units": "counts",
    }
    assert [cube[d].attrs["units"] for d in DIMS] == ["1", "nm", "keV"]
    np.testing.assert_array_equal(cube, counts)
    np.testing.assert_array_equal(cube.isel(y=2, x=[1, 4]).HAADF, counts[2, [1, 4]].sum(-1))
    assert cube.drift.dims == ("y",)


def test_a_name_is_not_made_up(counts: np.ndarray[Any, Any]) -> None:
    assert make_cube(counts, dims=DIMS).name is None


def test_arrays_are_neither_copied_nor_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dask import tokenize

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("hashed")

    monkeypatch.setattr(tokenize, "normalize_token", refuse)
    counts = np.zeros((8, 8, 16), "uint8")
    with lazily():
        cube = make_cube(counts, dims=DIMS)
    monkeypatch.undo()
    counts[3, 4, 5] = 7
    assert int(cube.isel(y=3, x=4, energy=5)) == 7


@pytest.mark.parametrize(
    "kind", ["csr_matrix", "csc_matrix", "coo_matrix", "csr_array", "coo_array"]
)
def test_sparse_matrices_become_dense_block_by_block(
    counts: np.ndarray[Any, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emcube.cube.construct.BLOCK_BYTES", 50 * 20)
    matrix = getattr(sparse, kind)(counts.reshape(63, 50))
    with lazily():
        cube = make_cube(matrix, shape=(7, 9), dims=DIMS)
    assert cube.dtype == np.uint8
    np.testing.assert_array_equal(cube, counts)
    np.testing.assert_array_equal(
        cube.isel(y=slice(1, 6, 2), x=3, energy=slice(4, 20, 3)), counts[1:6:2, 3, 4:20:3]
    )
    np.testing.assert_array_equal(
        cube.isel(y=[4, 0], x=slice(None, None, -1)), counts[[4, 0], ::-1]
    )
    flat = make_cube(matrix, dims=("pixel", "energy"))
    np.testing.assert_array_equal(flat, counts.reshape(63, 50))


def test_repeated_sparse_entries_do_not_overflow() -> None:
    rows, columns = [0, 0, 1], [2, 2, 0]
    small = sparse.coo_array((np.array([100, 100, 3], "uint8"), (rows, columns)), shape=(2, 3))
    assert make_cube(small, dims=("x", "energy")).values.tolist() == [[0, 0, 200], [3, 0, 0]]
    large = sparse.coo_array((np.array([200, 100, 3], "uint8"), (rows, columns)), shape=(2, 3))
    with pytest.raises(CubeError, match=r"add up to 300.*255.*uint32"):
        make_cube(large, dims=("x", "energy"))


@pytest.mark.parametrize(
    "view", [np.s_[:], np.s_[2:, ::2], np.s_[::-1], np.s_[:, :, 10:20]], ids=str
)
def test_mapped_files_are_read_in_place(
    tmp_path: Path, counts: np.ndarray[Any, Any], view: Any
) -> None:
    path = tmp_path / "counts.raw"
    path.write_bytes(b"head" * 4 + counts.astype(">u2").tobytes())
    mapped = np.memmap(path, ">u2", "r", offset=16, shape=counts.shape)[view]
    cube = make_cube(mapped, dims=DIMS)
    # The graph names the file and holds none of it: another process reads it for itself.
    packed = pickle.dumps(cube.data)
    assert len(packed) < 4000
    np.testing.assert_array_equal(pickle.loads(packed).compute(), counts[view])


def test_copy_on_write_mappings_show_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "counts.raw"
    path.write_bytes(bytes(12))
    mapped = np.memmap(path, "u1", "c", shape=(3, 4))
    mapped[1, 2] = 9
    assert int(make_cube(mapped, dims=("x", "energy")).sum()) == 9


def test_dask_arrays_keep_their_chunks() -> None:
    array = da.ones((4, 6, 10), chunks=(2, 3, 10), dtype="u2")
    with lazily():
        cube = make_cube(array, dims=DIMS)
        grid = make_cube(array.reshape(24, 10), dims=DIMS, shape=(4, 6))
    assert cube.data is array
    assert grid.shape == (4, 6, 10)
    unknown = array.reshape(24, 10)[array.reshape(24, 10).sum(1) > 0]
    with pytest.raises(CubeError, match="compute_chunk_sizes"):
        make_cube(unknown, dims=("x", "energy"))


def test_a_labelled_array_keeps_its_labels() -> None:
    cube = eds(companions={"HAADF": np.arange(42).reshape(6, 7)})
    again = make_cube(cube, metadata={"title": "new"})
    xr.testing.assert_equal(again, cube)
    assert again.em.metadata.title == "new"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": ("y", "energy")}, "2 names"),
        ({"dims": None}, "dims of the cube are missing"),
        ({"dims": ("y", "y", "energy")}, "unique"),
        ({"dims": ("energy", "y", "x")}, "navigation dims, then signal dims"),
        ({"dims": ("y", "x", 3)}, "expected names"),
        ({"sig_dims": ("e",)}, "'e' is not among"),
        ({"coords": {"energy": [1, 2]}}, r"got shape \(2,\), expected \(50,\)"),
        ({"coords": {"HAADF": [1, 2]}}, "companions="),
        ({"units": {"counts": "1"}}, "data_units="),
        ({"units": {"energy": 3}}, "unit of 'energy'"),
        ({"coords": {"energy": -np.arange(50)}}, "must increase"),
        ({"companions": {"HAADF": np.ones((9, 7))}}, r"expected.*\(7, 9\)"),
        ({"companions": {"x": np.ones((7, 9))}}, "name of a dim"),
        ({"shape": (7, 9)}, r"for counts of shape \(P, E\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    counts: np.ndarray[Any, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CubeError, match=message):
        make_cube(counts, **{"dims": DIMS, **options})


def test_other_refusals(counts: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UnitsError, match="furlongg"):
        make_cube(counts, dims=DIMS, units={"x": "furlongg"})
    with pytest.raises(CubeError, match="holds 60 pixels: got counts of 63"):
        make_cube(counts.reshape(63, 50), dims=DIMS, shape=(6, 10))
    with pytest.raises(CubeError, match="got list"):
        make_cube([[1, 2]], dims=("x", "energy"))


def test_blocks_are_runs_of_whole_spectra() -> None:
    assert chunk_shape((73, 124, 165, 900), 1, 1, 2**25) == (1, 124, 165, 900)
    assert chunk_shape((73, 124, 165, 900), 1, 1, 2**22) == (1, 28, 165, 900)
    assert chunk_shape((16, 16, 256, 256), 2, 2, 2**25) == (16, 16, 256, 256)
    assert chunk_shape((5, 1000), 1, 8, 10) == (1, 1000)
    assert chunk_shape((1000,), 1, 8, 10) == (1000,)
