"""Regions: which pixels they hold, and what they are in a recipe."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.errors import SelectionError
from emcube.explore.regions import Region
from emcube.recipe.prepare import prepare
from emcube.recipe.recipe import Recipe
from tests.explore.cubes_for_tests import SHAPE, three_phases


@pytest.fixture(scope="module")
def cube():
    return three_phases()


def test_a_box_holds_its_pixels_and_no_other(cube) -> None:
    mask = Region.box(y=(3, 7), x=(10, 12)).mask(cube)
    expected = np.zeros(SHAPE[:2], bool)
    expected[3:7, 10:12] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(mask.y, cube.y)


def test_a_strip_and_a_pixel(cube) -> None:
    assert int(Region.box(x=(4, 5)).mask(cube).sum()) == SHAPE[0]
    assert int(Region.pixel(y=3, x=4).mask(cube).sum()) == 1


def test_a_polygon_holds_the_pixels_whose_centres_it_holds(cube) -> None:
    square = Region.polygon([(1.5, 1.5), (1.5, 4.5), (5.5, 4.5), (5.5, 1.5)])
    np.testing.assert_array_equal(square.mask(cube), Region.box(y=(2, 6), x=(2, 5)).mask(cube))


def test_a_polygon_at_some_positions_of_another_dim() -> None:
    series = three_phases().expand_dims(tilt=[0.0, 10.0, 20.0])
    region = Region.polygon([(1.5, 1.5), (1.5, 4.5), (5.5, 4.5), (5.5, 1.5)], tilt=(1, 2))
    mask = region.mask(series.assign_attrs(three_phases().attrs))
    assert mask.sum(["y", "x"]).values.tolist() == [0, 12, 0]


@pytest.mark.parametrize(
    "region",
    [
        Region.box(y=(3, 7), x=(10, 12)),
        Region.polygon([(0.2, 0.3), (2.4, 20.1), (18.3, 7.7)]),
        Region.box(x=(4, 9)),
    ],
    ids=str,
)
def test_the_recipe_keeps_what_the_region_holds(cube, region) -> None:
    recipe = Recipe.from_dict({"prepare": [region.keeping()], "steps": ["pca"]})
    kept = prepare(cube, recipe.prepare)
    counts = kept.cube if kept.region is None else kept.cube.where(kept.region, 0)
    expected = cube.where(region.mask(cube), 0)
    np.testing.assert_array_equal(counts.sum(["y", "x"]), expected.sum(["y", "x"]))


@pytest.mark.parametrize(
    "region",
    [Region.box(y=(3, 7), x=(10, 12)), Region.polygon([(0.2, 0.3), (2.4, 20.1), (18.3, 7.7)])],
    ids=str,
)
def test_the_recipe_leaves_out_what_the_region_holds(cube, region) -> None:
    recipe = Recipe.from_dict({"prepare": [region.leaving_out(("y", "x"))], "steps": ["pca"]})
    left = prepare(cube, recipe.prepare)
    assert left.cube.shape == cube.shape
    np.testing.assert_array_equal(left.region, ~region.mask(cube))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda c: Region.box(), "no dim is given"),
        (lambda c: Region.box(y=(5, 5)), "holds nothing"),
        (lambda c: Region.box(y=(-1, 5)), "holds nothing"),
        (lambda c: Region.box(y="ab"), "two positions"),
        (lambda c: Region.box(y=(0, 99)).mask(c), "has 24 positions"),
        (lambda c: Region.box(z=(0, 1)).mask(c), "not a navigation dim"),
        (lambda c: Region.polygon([(0, 0), (1, 1)]), "at least three"),
        (lambda c: Region.polygon([(0, 0), (1, float("nan")), (2, 2)]), "at least three"),
        (lambda c: Region.polygon([(50, 50), (50, 60), (60, 50)]).mask(c), "no pixel centre"),
        (lambda c: Region.polygon([(0, 0), (0, 5), (5, 0)], y=(0, 3)).mask(c), "one of them"),
        (lambda c: Region.box(x=(0, 3)).leaving_out(("y", "x")), "whole strip"),
        (lambda c: Region.box(x=(0, 3)).leaving_out(("x",)), "nothing around"),
        (
            lambda c: Region.box(tilt=(0, 1), y=(0, 2), x=(0, 2)).leaving_out(("tilt", "y", "x")),
            "bound to positions of 'tilt'",
        ),
    ],
)
def test_what_is_no_region_is_refused(cube, make, says) -> None:
    with pytest.raises(SelectionError, match=says) as caught:
        make(cube)
    assert caught.value.hint
