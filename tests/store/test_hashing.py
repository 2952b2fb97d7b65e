"""The digest: a slow twin, and everything it must not depend on."""

from __future__ import annotations

import hashlib
import json

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import emcube as em
from emcube.errors import StoreError
from emcube.store import compute_digest, hashing


def naive_digest(cube) -> str:
    """Cut the values into runs as docs/decisions/0003-digest.md says, one after the other."""
    values = np.ascontiguousarray(cube.values, dtype=cube.dtype.newbyteorder("<"))
    piece = hashing.piece_shape(values.shape, values.itemsize)
    total = hashlib.sha256(json.dumps(hashing.header(cube), sort_keys=True).encode() + b"\0")
    for corner in np.ndindex(*(-(-n // p) for n, p in zip(values.shape, piece, strict=True))):
        run = values[tuple(slice(c * p, c * p + p) for c, p in zip(corner, piece, strict=True))]
        total.update(hashlib.sha256(run.tobytes()).digest())
    return f"sha256:{total.hexdigest()}"


def cube_of(values):
    dims = ("tilt", "y", "x", "energy")[4 - values.ndim :]
    return em.make_cube(values, dims=dims, sig_dims=("energy",))


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    n=st.integers(1, 40_000),
    dtype=st.sampled_from(["u1", "u2", ">u2", "f4", "f8"]),
)
def test_digest_equals_its_slow_twin(shape: list[int], n: int, dtype: str) -> None:
    values = np.random.default_rng(n).integers(0, 99, (*shape, n)).astype(dtype)
    cube = cube_of(values)
    assert compute_digest(cube) == naive_digest(cube)


@pytest.mark.parametrize("chunks", [-1, (1, 5, 3, 7), (2, 4, 15, 40), (3, 14, 15, 1)])
@pytest.mark.parametrize("threads", [1, 3])
def test_digest_does_not_depend_on_chunks(small_chunks, make, counts, chunks, threads) -> None:
    cube = make(counts)
    lazy = make(da.from_array(counts, chunks=chunks))
    assert compute_digest(lazy, threads=threads) == naive_digest(cube)


def test_digest_does_not_depend_on_byte_order(make, counts) -> None:
    wide = counts.astype("<u2")
    assert compute_digest(make(wide)) == compute_digest(make(wide.astype(">u2")))


def test_digest_depends_on_what_a_cube_is(make, counts) -> None:
    cube = make(counts)
    other = counts.copy()
    other[2, 13, 14, 39] += 1
    shifted = cube.assign_coords(energy=cube.energy + 1e-9)
    in_ev = cube.copy()
    in_ev["energy"] = cube.energy.assign_attrs(units="eV")
    different = [
        cube,
        make(other),
        make(counts.astype("u2")),
        shifted,
        in_ev,
        cube.assign_attrs(units="1"),
        cube.isel(x=slice(1, None)),
        cube.rename(tilt="time"),
        cube.transpose("y", "tilt", "x", "energy"),
    ]
    digests = {compute_digest(c) for c in different}
    assert len(digests) == len(different)


def test_digest_does_not_depend_on_metadata_or_name(make, counts) -> None:
    cube = make(counts)
    named = cube.rename("Ni map").assign_attrs(metadata={"title": "another"})
    assert compute_digest(cube) == compute_digest(named)


def test_digest_is_written_down(make) -> None:
    # A change of the definition would orphan every stored digest: it needs a new version instead.
    cube = make(np.arange(2 * 3 * 4 * 5, dtype="u2").reshape(2, 3, 4, 5))
    expected = "sha256:1c827509c7de70c1a6156a47dd1ab6fbaba06446288c1fad99755c4a81c28bad"
    assert compute_digest(cube) == expected


def test_regions_that_cut_pieces_are_refused() -> None:
    with pytest.raises(StoreError, match="cuts a piece"):
        hashing.piece_box((4, 100, 1000), 1, (slice(0, 1), slice(0, 50), slice(0, 1000)))
