"""Positions through preparations: those of a coarse cube, and back to the whole one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from emcube.explore.geometry import Span, scaled, spans_of, spread
from emcube.explore.settings import Settings
from emcube.recipe.prepare import prepare
from emcube.recipe.recipe import Recipe
from tests.explore.test_coarse import cube_of

FACTOR = 4
SIZES = {"y": 24, "x": 32}


def done(cube: xr.DataArray, settings: Settings) -> Any:
    return prepare(cube, Recipe.from_dict({**settings.as_recipe(), "steps": ["pca"]}).prepare)


def coarser(cube: xr.DataArray, settings: Settings, factor: int = FACTOR) -> Any:
    small = cube.em.bin("pad", y=factor, x=factor)
    return done(small, scaled(settings, SIZES, small, {"y": factor, "x": factor}))


SQUARE = [[3.5, 7.5], [3.5, 15.5], [11.5, 15.5], [11.5, 7.5]]
BOTH = {"y": FACTOR, "x": FACTOR}


@pytest.mark.parametrize(
    ("entries", "rest"),
    [
        ([{"select": {"y": [4, 20], "x": [8, 16]}}], BOTH),
        ([{"bin": {"y": 8, "x": 4, "boundary": "exact"}}], {}),
        ([{"select": {"y": [4, 20]}}, {"bin": {"y": 8}}], {"x": FACTOR}),
        ([{"select": {"y": [4, 20]}}, {"select": {"y": [4, 12], "x": [0, 4]}}], BOTH),
        ([{"select": {"outside": SQUARE}}], BOTH),
        ([{"select": {"region": SQUARE}}], BOTH),
        ([{"window": {"energy": [2.0, 6.0]}}, {"select": {"x": [4, 28]}}], BOTH),
    ],
    ids=str,
)
def test_positions_on_borders_of_bins_commute_with_binning(
    entries: list[dict[str, Any]], rest: dict[str, int]
) -> None:
    cube = cube_of((24, 32, 20))
    settings = Settings(prepare=tuple(entries))
    fine, found = done(cube, settings), coarser(cube, settings)
    expected = fine.cube.em.bin(**rest) if rest else fine.cube
    np.testing.assert_array_equal(found.cube, expected)
    np.testing.assert_array_equal(found.cube.y, expected.y)
    if fine.region is not None:
        small = fine.region.astype(int).coarsen(BOTH).min().astype(bool)
        np.testing.assert_array_equal(found.region, small)


def test_a_region_smaller_than_a_coarse_pixel_is_that_pixel() -> None:
    tiny = Settings(
        prepare=({"select": {"region": [[9.6, 9.6], [9.6, 10.4], [10.4, 10.4], [10.4, 9.6]]}},)
    )
    found = coarser(cube_of((24, 32, 20)), tiny)
    assert found.cube.sizes["y"] == found.cube.sizes["x"] == 1
    assert bool(found.region.all())
    assert (
        coarser(cube_of((24, 32, 20)), Settings(prepare=({"select": {"y": [9, 10]}},))).cube.sizes[
            "y"
        ]
        == 1
    )


def test_levels_and_widths_follow() -> None:
    cube = cube_of((24, 32, 20))
    small = cube.em.bin(y=4, x=4)
    settings = Settings(where={"min_smoothed_counts": 5, "sigma": 2.0})
    found = scaled(settings, SIZES, small, {"y": 4, "x": 4}).where
    assert found == {"min_smoothed_counts": 5 * 16, "sigma": 0.5}


def test_a_narrow_window_holds_the_nearest_channel() -> None:
    cube = cube_of((24, 32, 64))  # 0.5 apart
    small = cube.em.bin(energy=8)  # 4 apart, first middle 1.75
    settings = Settings(prepare=({"window": {"energy": [3.0, 3.5]}},))
    found = scaled(settings, SIZES, small, {"energy": 8})
    assert done(small, found).cube.sizes["energy"] == 1
    elsewhere = Settings(prepare=({"window": {"energy": [300, 350]}},))
    assert scaled(elsewhere, SIZES, small, {"energy": 8}) == elsewhere


starts = st.integers(0, 20)
MANY = cube_of((24, 32, 3)).compute()


@examples(max_examples=40)
@given(
    y=st.tuples(starts, st.integers(1, 24)),
    x=st.tuples(starts, st.integers(1, 32)),
    n=st.integers(1, 5),
    boundary=st.sampled_from(["trim", "pad"]),
    factor=st.integers(1, 9),
)
def test_scaled_settings_always_leave_something(
    y: tuple[int, int], x: tuple[int, int], n: int, boundary: str, factor: int
) -> None:
    spans = {
        "y": [y[0], min(24, y[0] + y[1])],
        "x": [x[0], min(32, x[0] + x[1])],
    }
    settings = Settings(
        prepare=({"select": spans}, {"bin": {"y": n, "x": n, "boundary": boundary}})
    )
    found = coarser(MANY, settings, factor)
    assert found.cube.size > 0


@examples(max_examples=40)
@given(
    y=st.tuples(starts, st.integers(4, 24)),
    n=st.integers(1, 4),
    boundary=st.sampled_from(["trim", "pad"]),
)
def test_pixels_are_found_again(y: tuple[int, int], n: int, boundary: str) -> None:
    entries = (
        {"select": {"y": [y[0], min(24, y[0] + y[1])]}},
        {"bin": {"y": n, "x": n, "boundary": boundary}},
    )
    found = done(MANY, Settings(prepare=entries)).cube
    spans = spans_of(entries, SIZES)
    assert {d: s.size for d, s in spans.items()} == {d: found.sizes[d] for d in SIZES}
    chosen = found.isel(energy=0, drop=True) * 0 + np.arange(found[..., 0].size).reshape(
        found.shape[:2]
    )
    mask = chosen % 3 == 1
    whole = spread(mask, spans, {}, MANY)
    # The counts of the pixels that were found again are those of the binned ones.
    assert int(MANY.where(whole, 0).sum()) == int(found.where(mask, 0).sum())


def test_pixels_of_a_preview_are_found_again() -> None:
    cube = cube_of((22, 30, 3))
    small = cube.em.bin("pad", y=4, x=4)
    mask = small.isel(energy=0, drop=True) * 0 == 0
    assert bool(spread(mask, spans_of((), {"y": 6, "x": 8}), {"y": 4, "x": 4}, cube).all())
    mask[1:] = False
    whole = spread(mask, {"y": Span.whole(6), "x": Span.whole(8)}, {"y": 4, "x": 4}, cube)
    assert whole.sum("x").values.tolist() == [30] * 4 + [0] * 18
