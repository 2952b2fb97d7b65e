"""Preparation: lazily, in order, on labels."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from emcube.cube import make_cube
from emcube.errors import SelectionError
from emcube.recipe.prepare import Prepared, inside_polygon, prepare
from emcube.recipe.recipe import Recipe


def cube(shape: tuple[int, ...] = (12, 10, 40)) -> xr.DataArray:
    values = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    return make_cube(
        values,
        dims=("y", "x", "energy")[-len(shape) :],
        coords={"energy": 1.0 + 0.1 * np.arange(shape[-1])},
        units={"energy": "keV", "x": "nm"},
    )


def done(given: xr.DataArray, *steps: dict[str, Any]) -> Prepared:
    recipe = Recipe.from_dict({"prepare": list(steps), "steps": ["pca"]})

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=refuse):
        return prepare(given, recipe.prepare)


def test_positions_end_before_their_stop() -> None:
    found = done(cube(), {"select": {"y": [2, 7]}})
    assert found.region is None
    xr.testing.assert_identical(found.cube, cube().isel(y=slice(2, 7)))


def test_window_and_bin_follow_the_accessor() -> None:
    found = done(cube(), {"window": {"energy": [1.55, 3.05]}}, {"bin": {"y": 2, "energy": 3}})
    expected = cube().em.window(energy=(1.55, 3.05)).em.bin(y=2, energy=3)
    xr.testing.assert_identical(found.cube, expected)


def test_order_counts() -> None:
    one = done(cube(), {"select": {"y": [0, 4]}}, {"bin": {"y": 2}}).cube
    other = done(cube(), {"bin": {"y": 2}}, {"select": {"y": [0, 4]}}).cube
    assert one.sizes["y"] == 2
    assert other.sizes["y"] == 4


def test_background_removal_makes_floats() -> None:
    found = done(cube(), {"remove_background": {"energy": [1.0, 2.0]}})
    assert found.cube.dtype.kind == "f"


def test_a_polygon_crops_to_its_box_and_follows_later_steps() -> None:
    region = {"select": {"region": [[2, 1], [2, 6], [8, 6], [8, 1]]}}
    found = done(cube(), region)
    assert found.cube.shape == (6, 5, 40)
    assert found.region is not None
    assert bool(found.region.all())
    np.testing.assert_array_equal(found.region.y, found.cube.y)

    triangle = {"select": {"region": [[0, 0], [0, 8], [8, 0]]}}
    cut = done(cube(), triangle, {"select": {"y": [2, 8]}})
    assert cut.region is not None
    assert cut.region.sizes == {"y": 6, "x": 8}
    full = inside_polygon(np.array([[0, 0], [0, 8], [8, 0]]), 12, 10)
    np.testing.assert_array_equal(cut.region, full[2:8, :8])

    binned = done(cube(), triangle, {"bin": {"y": 2, "x": 2}})
    assert binned.region is not None
    assert binned.region.shape == binned.cube.shape[:2]
    parts = full[:8, :8].reshape(4, 2, 4, 2).all(axis=(1, 3))
    np.testing.assert_array_equal(binned.region, parts)
    np.testing.assert_allclose(binned.region.y, binned.cube.y)


def test_two_polygons_leave_what_both_hold() -> None:
    first = {"select": {"region": [[0, 0], [0, 8], [8, 8], [8, 0]]}}
    second = {"select": {"region": [[0, 0], [0, 4], [4, 0]]}}
    found = done(cube(), first, second)
    assert found.region is not None
    assert int(found.region.sum()) == int(
        inside_polygon(np.array([[0, 0], [0, 4], [4, 0]]), 4, 4).sum()
    )


def test_outside_a_polygon_the_cube_keeps_its_size() -> None:
    square = [[1.5, 1.5], [1.5, 4.5], [5.5, 4.5], [5.5, 1.5]]
    found = done(cube(), {"select": {"outside": square}})
    assert found.cube.shape == (12, 10, 40)
    expected = np.ones((12, 10), dtype=bool)
    expected[2:6, 2:5] = False
    assert found.region is not None
    np.testing.assert_array_equal(found.region, expected)
    np.testing.assert_array_equal(found.region.y, found.cube.y)
    both = done(
        cube(),
        {"select": {"outside": square}},
        {"select": {"y": [0, 8], "region": [[-1, -1], [-1, 9.5], [7.5, 9.5], [7.5, -1]]}},
        {"bin": {"y": 2, "x": 2}},
    )
    assert both.region is not None
    parts = expected[:8].reshape(4, 2, 5, 2).all(axis=(1, 3))
    np.testing.assert_array_equal(both.region, parts)


def test_nothing_outside_is_refused() -> None:
    whole = [[-1, -1], [-1, 10], [12, 10], [12, -1]]
    with pytest.raises(SelectionError, match="no pixel centre is left outside") as caught:
        done(cube(), {"select": {"outside": whole}})
    assert caught.value.hint
    with pytest.raises(SelectionError, match="two navigation dims"):
        done(cube((10, 40)), {"select": {"outside": whole}})


def test_outside_leaves_the_identity_of_other_recipes_as_it_was() -> None:
    recipe = Recipe.from_dict({"prepare": [{"select": {"y": [0, 4]}}], "steps": ["pca"]})
    assert recipe.normalised()["prepare"] == [{"select": {"y": [0, 4]}}]


def test_polygons_that_share_an_edge_share_no_pixel() -> None:
    corners = np.array([[0, 0], [0, 9], [9, 9], [9, 0]], dtype=float)
    lower = inside_polygon(corners[[0, 1, 2]], 10, 10)
    upper = inside_polygon(corners[[0, 2, 3]], 10, 10)
    square = inside_polygon(corners, 10, 10)
    assert not (lower & upper).any()
    np.testing.assert_array_equal(lower | upper, square)
    assert square.sum() == 81


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"window": {"enrgy": [1, 2]}}, "no dim 'enrgy', it has y, x, energy"),
        ({"bin": {"z": 2}}, "no dim 'z'"),
        ({"select": {"y": [2, 13]}}, "y from 2 to 13 is asked for, the cube has 12"),
        ({"window": {"energy": [20, 30]}}, "energy"),
        ({"select": {"region": [[50, 50], [50, 60], [60, 50]]}}, "no pixel centre lies inside"),
    ],
)
def test_what_does_not_fit_the_cube_is_refused(step: dict[str, Any], said: str) -> None:
    with pytest.raises(SelectionError, match=said) as caught:
        done(cube(), step)
    assert caught.value.hint


def test_a_polygon_needs_two_dims() -> None:
    with pytest.raises(SelectionError, match="needs two navigation dims"):
        done(cube((10, 40)), {"select": {"region": [[0, 0], [0, 1], [1, 0]]}})
