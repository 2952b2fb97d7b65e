"""Sums and bins: no count is lost, nothing is computed early, nothing overflows."""

from __future__ import annotations

import tracemalloc
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from emcube.cube import make_cube
from emcube.errors import SelectionError
from tests.cube.helpers import eds, lazily


@pytest.mark.parametrize(
    ("dtype", "expected"), [("u1", "u8"), ("u4", "u8"), ("i2", "i8"), ("f4", "f8"), ("f8", "f8")]
)
def test_sums_are_taken_in_64_bits(dtype: str, expected: str) -> None:
    top = np.iinfo(dtype).max if dtype[0] in "ui" else 1.0
    cube = make_cube(np.full((5, 6, 70), top, dtype), dims=("y", "x", "energy"))
    with lazily():
        spectrum, totals = cube.em.sum_spectrum(), cube.em.total_counts()
    assert spectrum.dtype == totals.dtype == np.dtype(expected)
    assert (spectrum.dims, totals.dims) == (("energy",), ("y", "x"))
    assert set(spectrum.values.tolist()) == {30 * top}
    assert set(totals.values.ravel().tolist()) == {70 * top}
    assert spectrum.attrs == totals.attrs == cube.attrs


def test_sums_of_an_image_and_of_one_spectrum() -> None:
    image = make_cube(np.ones((3, 4), "u1"), dims=("y", "x"))
    assert image.em.total_counts().shape == (3, 4)
    assert int(image.em.sum_spectrum()) == 12
    assert eds().isel(x=0, y=0).em.sum_spectrum().shape == (400,)


def test_sums_of_small_integers_take_little_memory() -> None:
    counts = np.ones((256, 256, 256), "u1")  # 16 MiB; in float64 it would be 128
    cube = make_cube(counts, dims=("y", "x", "energy"))
    with dask.config.set(scheduler="synchronous"):
        cube.em.total_counts().compute()
        for lazy in (cube.em.total_counts(), cube.em.sum_spectrum()):
            tracemalloc.start()
            lazy.compute()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 8 * 2**20


def test_smoothed_counts() -> None:
    cube = eds((20, 30), 50).chunk(y=7)
    with lazily():
        smooth = cube.em.smoothed_counts(2.0)
    expected = gaussian_filter(cube.values.sum(-1).astype(float), 2.0, mode="reflect")
    np.testing.assert_allclose(smooth, expected, rtol=1e-12)
    np.testing.assert_allclose(cube.compute().em.smoothed_counts(2.0), expected, rtol=1e-12)
    # Views of a tilt series are smoothed one by one.
    series = xr.concat([cube, 3 * cube], "tilt").assign_attrs(cube.attrs)
    each = series.em.smoothed_counts(2.0)
    np.testing.assert_allclose(each.isel(tilt=1), 3 * expected, rtol=1e-12)
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(SelectionError, match="sigma"):
            cube.em.smoothed_counts(wrong)


# --- bins -----------------------------------------------------------------------------------------


def test_bins_add_counts_and_average_coordinates() -> None:
    cube = eds((6, 8), companions={"HAADF": np.arange(48.0).reshape(6, 8)})
    with lazily():
        binned = cube.em.bin(y=2, x=4, energy=4)
    counts = cube.values.reshape(3, 2, 2, 4, 100, 4).astype(int).sum((1, 3, 5))
    np.testing.assert_array_equal(binned, counts)
    assert binned.dtype == np.uint16  # 32 * 255 fits
    np.testing.assert_allclose(binned.y, [2.5, 12.5, 22.5])
    np.testing.assert_allclose(binned.energy, 0.03 + 0.08 * np.arange(100))
    assert binned.energy.attrs["units"] == "keV"
    assert binned.attrs == cube.attrs
    np.testing.assert_allclose(
        binned.HAADF, np.arange(48.0).reshape(3, 2, 2, 4).mean((1, 3)), rtol=1e-12
    )
    assert binned.HAADF.dims == ("y", "x")


@pytest.mark.parametrize(
    ("dtype", "factor", "expected"),
    [
        ("u1", 1, "u1"),
        ("u1", 256, "u2"),
        ("u1", 258, "u4"),
        ("u2", 2, "u4"),
        ("i1", 2, "i2"),
        ("u4", 2, "u8"),
        ("u8", 2, "u8"),
        ("f4", 2, "f4"),
        ("f8", 2, "f8"),
    ],
)
def test_bins_get_the_smallest_dtype_that_holds_them(
    dtype: str, factor: int, expected: str
) -> None:
    top = min(np.iinfo(dtype).max, 2**60) if dtype[0] in "ui" else 1.0
    cube = make_cube(np.full((2, 2 * factor), top, dtype), dims=("x", "energy"))
    binned = cube.em.bin(energy=factor)
    assert binned.dtype == np.dtype(expected)
    assert set(binned.values.ravel().tolist()) == {top * factor}


@settings(max_examples=60)
@given(data=st.data())
def test_bins_conserve_counts_for_any_chunks(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    factors = data.draw(st.tuples(*[st.integers(1, 14)] * 3))
    dtype = data.draw(st.sampled_from(["u1", "u2", "i2", "f4", ">u2"]))
    chunks = tuple(data.draw(st.integers(1, size)) for size in shape)
    counts = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    cube = make_cube(counts, dims=("y", "x", "energy")).chunk(
        dict(zip(("y", "x", "energy"), chunks, strict=True))
    )
    sizes = dict(zip(("y", "x", "energy"), factors, strict=True))
    binned = cube.em.bin("pad", **sizes)
    assert binned.shape == tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))
    assert int(binned.astype("f8").sum()) == int(counts.astype("f8").sum())
    # The lazy answer is the eager one, and labels agree with those of Xarray.
    xr.testing.assert_identical(binned.compute(), cube.compute().em.bin("pad", **sizes))
    theirs = cube.astype("f8").compute().coarsen(sizes, boundary="pad").sum()
    np.testing.assert_array_equal(binned, theirs)
    for dim in cube.dims:
        np.testing.assert_allclose(binned[dim], theirs[dim])
    assert binned.data.chunks == binned.variable.chunks
    if all(n >= f for n, f in zip(shape, factors, strict=True)):
        trimmed = cube.em.bin("trim", **sizes)
        xr.testing.assert_equal(
            trimmed.astype("f8"), cube.astype("f8").coarsen(sizes, boundary="trim").sum()
        )


def test_text_along_a_binned_dim_is_dropped() -> None:
    cube = eds().assign_coords(who=("y", list("abcdef")), whole=("x", list("abcdefg")))
    binned = cube.em.bin(y=2)
    assert "who" not in binned.coords
    assert binned.whole.dims == ("x",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy": 7}, "'energy' has 400 positions, 1 more than a multiple of 7; boundary='trim'"),
        ({"y": 7, "boundary": "trim"}, "fewer than one bin"),
        ({"y": 0}, "whole number"),
        ({"y": 1.5}, "whole number"),
        ({"y": True}, "whole number"),
        ({"z": 2}, "not a dim"),
        ({"y": 2, "boundary": "cut"}, "'exact', 'trim' or 'pad'"),
        ({}, "no dim is given"),
    ],
)
def test_bins_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        eds().em.bin(**options)
