"""Fractions of phases against slow, obvious twins: loops over pixels, tiles and fields."""

from __future__ import annotations

import numpy as np
import xarray as xr

import emcube as em
from emcube.kernels.fractions import (
    coarser,
    fraction_of,
    levels,
    ratio_variance,
    redraw_variance,
    resampled,
    tile_grid,
    tile_number,
)


def naive_variance(table: np.ndarray) -> np.ndarray:
    """Cochran's formula, tile by tile."""
    total = sum(row.sum() for row in table)
    p = [sum(row[k] for row in table) / total for k in range(table.shape[1])]
    used = [row for row in table if row.sum() > 0]
    out = []
    for k, fraction in enumerate(p):
        squares = sum((row[k] - fraction * row.sum()) ** 2 for row in used)
        out.append(len(used) / (len(used) - 1) * squares / total**2)
    return np.array(out)


def test_variance_of_a_ratio_is_cochrans_and_that_of_jackknife_and_bootstrap() -> None:
    rng = np.random.default_rng(0)
    whole = rng.integers(20, 40, 64)
    first = rng.binomial(whole, rng.beta(4.0, 6.0, 64))
    table = np.column_stack((first, whole - first)).astype(float)
    table[5] = 0.0  # nothing was used there
    found, freedom = ratio_variance(table)
    np.testing.assert_allclose(found, naive_variance(table), rtol=1e-12)
    assert freedom == 62
    used = table[table.sum(axis=1) > 0]
    left_out = np.array([fraction_of(np.delete(used, i, axis=0)) for i in range(len(used))])
    jackknife = (len(used) - 1) ** 2 / len(used) * left_out.var(axis=0, ddof=1)
    np.testing.assert_allclose(found, jackknife, rtol=0.05)
    drawn = resampled(table, 4000, np.random.default_rng(1))
    np.testing.assert_allclose(found, drawn.var(axis=0), rtol=0.12)
    assert np.isnan(ratio_variance(table[:1])[0]).all()


def test_tiles_are_joined_two_by_two() -> None:
    grid = tile_grid((100, 37))
    assert grid == (16, 16)
    assert tile_grid((5,)) == (4,)
    assert tile_grid(()) == ()
    places = np.stack(np.meshgrid(np.arange(100), np.arange(37), indexing="ij"), -1).reshape(-1, 2)
    number = tile_number(places, (100, 37), grid)
    assert set(number) == set(range(256))
    table = np.bincount(number, minlength=256).astype(float)[:, None]
    for level in levels(grid):
        n = 16 >> level
        joined = coarser(table, grid, level)
        by_hand = np.zeros((n, n))
        for (y, x), _ in zip(places, number, strict=True):
            by_hand[(y * 16 // 100) >> level, (x * 16 // 37) >> level] += 1
        np.testing.assert_array_equal(joined[:, 0], by_hand.reshape(-1))
    assert levels((16, 16)) == [0, 1, 2]
    assert levels((16, 16), 8) == [0, 1, 2, 3]
    assert levels((16, 16), 7) == [0, 1, 2]
    assert levels((8,)) == [0]
    assert levels(()) == [0]


def test_variance_between_measurements_adds_up_over_tiles() -> None:
    rng = np.random.default_rng(0)
    tables = rng.uniform(1.0, 5.0, (3, 20, 2))
    found = redraw_variance(tables)
    by_hand = np.zeros(2)
    whole = sum(tables[r, t].sum() for r in range(3) for t in range(20)) / 3
    for k in range(2):
        p = sum(tables[r, t, k] for r in range(3) for t in range(20)) / 3 / whole
        for t in range(20):
            beyond = [(tables[r, t, k] - p * tables[r, t].sum()) / whole for r in range(3)]
            by_hand[k] += np.var(beyond, ddof=1)
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)


def test_many_redraws_of_independent_tiles_have_the_variance_of_the_whole() -> None:
    """What the tiles add up to is what the whole field does from measurement to measurement."""
    rng = np.random.default_rng(1)
    first = rng.poisson(30.0, (3000, 16))
    second = rng.poisson(70.0, (3000, 16))
    tables = np.stack((first, second), axis=-1).astype(float)
    whole = fraction_of(tables).var(axis=0, ddof=1)
    np.testing.assert_allclose(redraw_variance(tables), whole, rtol=0.06)


def naive_tiles(maps: list[np.ndarray], along: int) -> tuple[list[float], list[int], list[float]]:
    """Of phase 0: fractions, used pixels, and Cochran's variances with so many tiles along a side."""
    fractions, sizes, within = [], [], []
    for labels in maps:
        n = labels.shape[0] // along
        inside = [v for row in labels for v in row if v >= 0]
        p = sum(v == 0 for v in inside) / len(inside)
        tiles = []
        for y in range(0, labels.shape[0], n):
            for x in range(0, labels.shape[1], n):
                tile = [v for row in labels[y : y + n] for v in row[x : x + n] if v >= 0]
                if tile:
                    tiles.append((sum(v == 0 for v in tile), len(tile)))
        t = len(tiles)
        squares = sum((a - p * m) ** 2 for a, m in tiles)
        fractions.append(p)
        sizes.append(len(inside))
        within.append(t / (t - 1) * squares / len(inside) ** 2)
    return fractions, sizes, within


def naive_summary(maps: list[np.ndarray], along: int) -> dict[str, float]:
    """Of phase 0: counted pixel by pixel, formulas written out."""
    fractions, sizes, within = naive_tiles(maps, along)
    finer = naive_tiles(maps, along * 2)[2] if along < 16 else within
    grown = 1.0 + max(0.0, sum(within) - sum(finer)) / sum(within)
    within = [grown * v for v in within]
    f, weights = len(maps), [m / sum(sizes) for m in sizes]
    mean = sum(w * p for w, p in zip(weights, fractions, strict=True))
    square = error = area = 0.0
    for w, p, v in zip(weights, fractions, within, strict=True):
        square += f / (f - 1) * w * (p - mean) ** 2
        error += f / (f - 1) * (w * (p - mean)) ** 2
        area += w * v
    return {
        "mean_fraction": mean,
        "spread": square**0.5,
        "standard_error": error**0.5,
        "share_area": min(1.0, area / square),
        "share_fields": max(0.0, 1.0 - area / square),
    }


def test_fractions_are_those_of_the_twin() -> None:
    rng = np.random.default_rng(2)
    maps = []
    for p, size in ((0.2, 64), (0.5, 48), (0.3, 32)):
        labels = (rng.random((size, size)) > p).astype(np.int32)
        labels[rng.random(labels.shape) < 0.05] = -1
        maps.append(labels)
    found = em.phase_fractions([xr.DataArray(m, dims=("y", "x")) for m in maps])
    along = {int(n) for n in np.sqrt(found["n_tiles"].sel(phase=0))}
    assert along <= {4, 8, 16}
    for name, value in naive_summary(maps, along.pop()).items():
        np.testing.assert_allclose(found[name].sel(phase=0), value, rtol=1e-9, err_msg=name)
