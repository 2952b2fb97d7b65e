"""Products of dense pixels with a few spectra, against the same written out in NumPy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from emcube.kernels.narrow import channel_sums, in_few, piece_pixels, there_and_back, values_of
from emcube.kernels.products import FEW_VECTORS, pixel_products

KINDS = ["float32", "float64", "uint16", ">f4", "bool", "strided"]


def block(kind: str, n_pixels: int = 70, n_channels: int = 2500) -> np.ndarray:
    """Several pieces, with a pixel that holds nothing."""
    values = np.random.default_rng(0).integers(0, 300, (n_pixels, n_channels))
    values[n_pixels // 2] = 0
    if kind == "strided":
        return values.astype(np.float32)[:, ::2]
    return (values > 150) if kind == "bool" else values.astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 8])
def test_products_and_back(kind: str, k: int) -> None:
    cells = block(kind)
    assert piece_pixels(cells.shape[1]) < len(cells)
    wide = cells.astype(np.float64)
    spectra = np.random.default_rng(1).normal(size=(k, cells.shape[1]))
    np.testing.assert_allclose(in_few(cells, spectra), wide @ spectra.T, rtol=1e-12, atol=1e-9)
    image = there_and_back(cells, spectra.T)
    np.testing.assert_allclose(image, wide.T @ (wide @ spectra.T), rtol=1e-11, atol=1e-6)
    totals = wide.sum(axis=1)
    weights = 1.0 / np.where(totals > 0.0, totals, 1.0)
    image = there_and_back(cells, spectra.T, by_totals=True)
    expected = wide.T @ (weights[:, None] * (wide @ spectra.T))
    np.testing.assert_allclose(image, expected, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("n_pixels", [0, 1, 2, 3, 4, 5])
def test_few_pixels(n_pixels: int) -> None:
    """Fewer than are multiplied at a time."""
    cells = np.random.default_rng(0).normal(size=(n_pixels, 9)).astype(np.float32)
    spectra = np.random.default_rng(1).normal(size=(5, 9))
    wide = cells.astype(np.float64)
    np.testing.assert_allclose(in_few(cells, spectra), wide @ spectra.T, atol=1e-13)
    np.testing.assert_allclose(
        there_and_back(cells, spectra.T), wide.T @ (wide @ spectra.T), atol=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [3, FEW_VECTORS + 1])
def test_products_of_pixels_few_or_many(kind: str, k: int) -> None:
    cells = block(kind)
    vectors = np.random.default_rng(1).normal(size=(cells.shape[1], k))
    expected = cells.astype(np.float64) @ vectors
    np.testing.assert_allclose(pixel_products(cells, vectors), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_shows(value: float) -> None:
    cells = block("float32")
    cells[5, 7] = value
    found = in_few(cells, np.ones((3, cells.shape[1])))
    assert not np.isfinite(found[5]).any()
    assert np.isfinite(np.delete(found, 5, axis=0)).all()


def test_float32_is_multiplied_in_double_precision() -> None:
    """Where single precision would leave nothing: large values that cancel."""
    cells = np.full((6, 4000), 1e7, dtype=np.float32)
    cells[:, 1::2] = -1e7
    cells[:, 0] += 1.0
    assert (in_few(cells, np.ones((2, 4000))) == 1.0).all()


def test_a_pixel_gives_the_same_bits_wherever_it_lies() -> None:
    cells = block("float32")
    spectra = np.random.default_rng(1).normal(size=(7, cells.shape[1]))
    whole = in_few(cells, spectra)
    for i in range(0, len(cells), 9):
        for stop in (i + 1, i + 2, i + 6):
            np.testing.assert_array_equal(in_few(cells[i:stop], spectra), whole[i:stop])


def test_threads_give_the_same_bits() -> None:
    cells = block("float32")
    vectors = np.random.default_rng(1).normal(size=(cells.shape[1], 5))
    alone = there_and_back(cells, vectors)
    with ThreadPoolExecutor(4) as pool:
        for image in pool.map(lambda _: there_and_back(cells, vectors), range(12)):
            np.testing.assert_array_equal(image, alone)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_channels(kind: str) -> None:
    cells = block(kind)
    sums, squares, n_empty = channel_sums(cells)
    wide = cells.astype(np.float64)
    np.testing.assert_allclose(sums, wide.sum(axis=0), rtol=1e-13)
    np.testing.assert_allclose(squares, np.square(wide).sum(axis=0), rtol=1e-13)
    assert n_empty == 1


def test_values_lie_where_they_lay_if_they_can() -> None:
    cells = block("float32")
    ((first, part),) = values_of(cells)
    assert first == 0
    assert part is cells
