"""Arrays that stay in their files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emcube.errors import ReadError
from emcube.io.lazy import (
    FileArray,
    NpyArray,
    OnceArray,
    SparseArray,
    as_dask,
    block_chunks,
    cached,
    redecoded,
)


def test_blocks_hold_whole_signals() -> None:
    assert block_chunks((512, 512, 4096), 1, [2]) == (16, 512, 4096)
    assert block_chunks((512, 512, 4096), 1, [2], target=2**21) == (1, 512, 4096)
    assert block_chunks((512, 512, 4096), 1, [2], target=2**20) == (1, 256, 4096)
    assert block_chunks((4, 4, 4096), 8, [2], target=1) == (1, 1, 4096)
    # The energy axis may lie first in the file.
    assert block_chunks((1024, 49, 6), 4, [0]) == (1024, 49, 6)


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300)),
    st.integers(1, 8),
    st.integers(1, 4096),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
)
def test_blocks_are_multiples_of_the_files_chunks(
    shape: tuple[int, int, int], itemsize: int, target: int, grain: tuple[int, int, int]
) -> None:
    chunks = block_chunks(shape, itemsize, [2], grain, target)
    assert chunks[2] == shape[2]
    for length, size, g in zip(chunks[:2], shape[:2], grain[:2], strict=True):
        assert 1 <= length <= size
        assert length == size or length % min(g, size) == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 300, 70_000]))
def test_events_become_the_dense_cube(seed: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (5, 4, 7)
    coords = np.stack([rng.integers(0, n, 60) for n in shape])
    counts = rng.integers(1, scale + 1, 60)
    dense = np.zeros(shape, dtype=np.int64)
    np.add.at(dense, tuple(coords), counts)
    source = SparseArray.from_events(Path("events.pts"), shape, coords, counts)
    assert source.dtype == np.min_scalar_type(int(dense.max()))
    assert (source[:, :, :] == dense).all()
    assert (source[1:4, ::2, 2:5] == dense[1:4, ::2, 2:5]).all()
    assert (source[0:0] == dense[0:0]).all()


def test_no_events_at_all() -> None:
    source = SparseArray.from_events(Path("e"), (2, 3, 4), np.zeros((3, 0), int), np.zeros(0, int))
    assert source.dtype == np.uint8
    assert not source[:, :, :].any()


def test_blocks_pickle_own_their_bytes_and_are_native(tmp_path: Path) -> None:
    values = np.arange(24, dtype=">u2").reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", values)
    source = pickle.loads(pickle.dumps(NpyArray(tmp_path / "a.npy", values.shape, values.dtype)))
    block = source[0:1]
    assert block.dtype == np.dtype("u2")
    assert block.dtype.isnative
    assert block.flags.owndata
    assert (block == values[0:1]).all()
    array = as_dask(source, [2])
    assert (array.compute() == values).all()
    assert array.name == as_dask(source, [2]).name


def test_what_goes_wrong_names_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6.0))
    source = NpyArray(tmp_path / "a.npy", (6,), np.dtype(float))
    (tmp_path / "a.npy").write_bytes(b"no longer an array")
    with pytest.raises(ReadError, match=r"a.npy: a block could not be read"):
        as_dask(source, [0]).compute()


def test_decoded_whole_only_once(tmp_path: Path) -> None:
    calls = []

    def decode() -> NDArray[Any]:
        calls.append(1)
        return np.arange(32.0).reshape(8, 4)

    inner = da.from_delayed(dask.delayed(decode)(), (8, 4), float)
    (tmp_path / "x").touch()
    array = as_dask(OnceArray(tmp_path / "x", inner), [1]).rechunk((2, 4))
    assert (array[:2].compute() == np.arange(8.0).reshape(2, 4)).all()
    assert (array[6:].compute() == np.arange(24.0, 32.0).reshape(2, 4)).all()
    assert len(calls) == 1


def test_cache_keeps_two() -> None:
    made = []
    for key in ("t1", "t2", "t3", "t3", "t2", "t1"):
        cached(key, lambda key=key: made.append(key) or key)
    assert made == ["t1", "t2", "t3", "t1"]


class _Guessed(FileArray):
    dtype_guessed = True

    def _read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        return np.full(self.shape, 300)[index]


def test_a_guessed_dtype_can_be_widened(tmp_path: Path) -> None:
    narrow = as_dask(_Guessed(tmp_path, (2, 3), np.dtype("u1")), [1])
    wide = redecoded(narrow, np.dtype("u2"))
    assert wide is not None
    assert (wide.compute() == 300).all()
    assert redecoded(narrow.astype("u4"), np.dtype("u1")) is None
    assert redecoded(np.zeros(3), np.dtype("f8")) is None


def test_workers_may_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import emcube as em

    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "c.npy", np.ones((2, 3, 4)))
    monkeypatch.chdir(tmp_path / "a")
    cube = em.open("c.npy")
    monkeypatch.chdir(tmp_path)
    assert float(cube.sum()) == 24
