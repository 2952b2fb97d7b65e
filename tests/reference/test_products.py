"""Products of blocks, and conversion a few pixels at a time, against everything written out in float64."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.errors import InputError
from emcube.kernels import products, slabs
from emcube.kernels._blas import add_product
from emcube.kernels.products import pixel_products, there_and_back
from emcube.kernels.rows import rows_from_dense
from emcube.kernels.slabs import cell_totals


def naive(values, vectors, weights, shift, squares):
    """sum_i w_i (x_i - m) (x_i - m)'B and sum_i w_i |s (x_i - m)|^2."""
    image, energy = np.zeros(vectors.shape), 0.0
    for x, w in zip(values.astype(float), weights, strict=True):
        image += w * np.outer(x - shift, (x - shift) @ vectors)
        energy += w * (squares * (x - shift) ** 2).sum()
    return image, energy


def block(dtype, n_pixels=90, n_channels=37):
    rng = np.random.default_rng(1)
    values = rng.poisson(rng.gamma(0.5, 2.0, (n_pixels, n_channels)))
    if np.dtype(dtype).kind == "f":
        return (values - 1.5 + rng.normal(size=values.shape)).astype(dtype)
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8", ">u2", ">f4"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_there_and_back(dtype, weighted, shifted, monkeypatch):
    # Several slabs, several strips, neither of which divides the pixels.
    monkeypatch.setattr(slabs, "SLAB_BYTES", 37 * 4 * 7)
    monkeypatch.setattr(products, "STRIP_PIXELS", 20)
    values = block(dtype)
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(37, 5))
    shift = values.mean(axis=0, dtype=float) if shifted else None
    squares = rng.random(37)
    weigh = (lambda totals: 1 / (50 + np.abs(totals))) if weighted else None
    weights = 1 / (50 + np.abs(values.sum(axis=1, dtype=float))) if weighted else np.ones(90)
    image, energy = naive(values, vectors, weights, 0.0 if shift is None else shift, squares)
    close = 1e-12 if values.dtype.itemsize == 8 else 1e-6
    found = there_and_back(values, vectors, weigh, shift, squares)
    assert np.abs(found.image - image).max() < close * np.abs(image).max()
    assert found.energy == pytest.approx(energy, rel=close)
    assert there_and_back(values, vectors, weigh, shift).energy == 0
    if values.dtype.kind == "u":
        rows = there_and_back(rows_from_dense(values), vectors, weigh, shift, squares)
        assert np.abs(rows.image - image).max() < 1e-12 * np.abs(image).max()
        assert rows.energy == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("unit", [1e-30, 1e-18, 1e17, 1e30])
@pytest.mark.parametrize("shifted", [False, True])
def test_squares_may_leave_the_range_of_float32(unit, shifted):
    values = block("f4") * np.float32(unit)
    vectors = np.random.default_rng(2).normal(size=(37, 4))
    shift = values.mean(axis=0, dtype=float) if shifted else None
    squares = np.ones(37)
    image, energy = naive(
        values, vectors, np.ones(len(values)), np.zeros(37) if shift is None else shift, squares
    )
    with np.errstate(all="raise", under="ignore"):
        found = there_and_back(values, vectors, shift=shift, squares=squares)
    np.testing.assert_allclose(found.image, image, rtol=1e-4, atol=1e-5 * np.abs(image).max())
    np.testing.assert_allclose(found.energy, energy, rtol=1e-5)


def test_a_pedestal_is_taken_off_before_float32():
    rng = np.random.default_rng(3)
    signal = rng.normal(size=(60, 8))
    values = (signal + 1e6).astype(np.float64).astype(np.float32)
    shift = values.mean(axis=0, dtype=float)
    vectors = rng.normal(size=(8, 3))
    image, _ = naive(values, vectors, np.ones(60), shift, np.ones(8))
    found = there_and_back(values, vectors, None, shift)
    assert np.abs(found.image - image).max() < 1e-6 * np.abs(image).max()


@pytest.mark.parametrize("dtype", ["u2", "f4", ">f8"])
def test_pixel_products_are_float64(dtype, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 1000)
    values = block(dtype)
    vectors = np.random.default_rng(4).normal(size=(37, 3))
    expected = np.array([[float(x @ v) for v in vectors.T] for x in values.astype(float)])
    np.testing.assert_allclose(pixel_products(values, vectors), expected, rtol=1e-11, atol=1e-11)
    if dtype == "u2":
        got = pixel_products(rows_from_dense(values), vectors)
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def test_wrong_shapes_are_refused():
    values = block("u2")
    with pytest.raises(InputError, match="37 channels"):
        there_and_back(values, np.ones((36, 2)))
    with pytest.raises(InputError, match="37 channels"):
        there_and_back(values, np.ones((37, 2)), None, np.ones(36))


@pytest.mark.parametrize("dtype", ["bool", "u1", "i2", "u4", "f2", "f4", "f8", ">f4", ">u2"])
def test_cell_totals(dtype):
    values = block("f8" if dtype[-2] == "f" else "u2").astype(dtype)
    values[3] = 0
    for part in (values, values[:, ::2], values[:0]):
        sums, n_stored, minimum, n_empty = cell_totals(part)
        expected = [sum(float(x) for x in column) for column in part.T]
        np.testing.assert_allclose(sums, expected, rtol=1e-13, atol=1e-12)
        assert n_stored == sum(1 for x in part.ravel() if x)
        assert minimum == min((float(x) for x in part.ravel()), default=0.0)
        assert n_empty == sum(1 for row in part if not any(row))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("kind", ["u2", "f4", "f8", ">f4", "rows", "strided"])
@pytest.mark.parametrize("shifted", [False, True])
def test_slabs_are_the_block(dtype, kind, shifted):
    values = block("u2" if kind in ("rows", "strided") else kind)
    if kind == "strided":
        values = values[:, ::3]
    shift = np.arange(values.shape[1]) / 7 if shifted else None
    source = rows_from_dense(values) if kind == "rows" else values
    before = values.copy()
    found = np.empty(values.shape, dtype)
    sizes = []
    totals = np.empty(len(values))
    for start, part in slabs.slabs(source, dtype, shift=shift, n_bytes=1, least=11, totals=totals):
        np.testing.assert_allclose(
            totals[start : start + len(part)],
            [sum(float(x) for x in row) for row in values[start : start + len(part)]],
            rtol=1e-12,
            atol=1e-11,
        )
        found[start : start + len(part)] = part
        sizes.append(len(part))
    assert sizes == [11] * 8 + [2]
    expected = (values.astype(float) - (0 if shift is None else shift)).astype(dtype)
    np.testing.assert_allclose(found, expected, rtol=3e-7 if dtype == "f4" else 1e-15, atol=1e-6)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_products_are_added_where_they_lie(dtype):
    rng = np.random.default_rng(5)
    rows, columns = rng.normal(size=(9, 5)).astype(dtype), rng.normal(size=(9, 3)).astype(dtype)
    out = np.full((5, 3), 2.0, dtype)
    add_product(rows, columns, out)
    np.testing.assert_allclose(out, 2.0 + rows.T @ columns, rtol=1e-5)
    add_product(rows[:0], columns[:0], out)
    with pytest.raises(ValueError, match="C order"):
        add_product(rows, columns[:4], out)
    with pytest.raises(ValueError, match="C order"):
        add_product(rows, columns, np.zeros((3, 5), dtype).T)
    with pytest.raises(ValueError, match="throughout"):
        add_product(rows, columns.astype(np.complex64), out)
