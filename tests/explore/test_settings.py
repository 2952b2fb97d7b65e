"""Settings: a recipe's own words, always valid, in an order that keeps positions true."""

from __future__ import annotations

from typing import get_args

import pytest

from emcube.errors import InputError, RecipeError, SelectionError
from emcube.explore.regions import Region
from emcube.explore.settings import Settings, fields_of
from emcube.recipe import Recipe, schema

BOX = Region.box(y=(2, 9), x=(3, 8))


def test_they_are_a_recipe() -> None:
    settings = (
        Settings.default(3)
        .bins(y=2, x=2)
        .keeping(BOX)
        .leaving_out(Region.box(y=(4, 5), x=(4, 5)), ("y", "x"))
        .window(energy=(1, 3))
        .background(energy=(0.3, 0.6))
        .counts(5)
    )
    recipe = Recipe.from_dict(settings.as_recipe({"path": "map.zarr"}))
    assert [p.verb for p in recipe.prepare] == [
        *("remove_background", "window", "select", "select", "bin")
    ]
    assert recipe.prepare[2].outside is not None, "left out before positions change"
    assert recipe.model.where.min_smoothed_counts == 5
    assert Settings.from_recipe(recipe.normalised()).as_recipe()["steps"]


def test_a_normalised_recipe_gives_settings_of_the_same_run() -> None:
    settings = Settings.default().window(energy=(1, 3)).keeping(BOX)
    first = Recipe.from_dict(settings.as_recipe()).normalised()
    again = Recipe.from_dict(Settings.from_recipe(first).as_recipe()).normalised()
    assert again == first


def test_what_is_set_again_is_replaced() -> None:
    settings = Settings.default().window(energy=(1, 3)).window(energy=(2, 4)).keeping(BOX)
    settings = settings.keeping(Region.box(y=(0, 2)))
    assert settings.prepare == ({"window": {"energy": [2.0, 4.0]}}, {"select": {"y": [0, 2]}})
    assert settings.window(energy=None).everywhere().prepare == ()
    assert settings.bins(y=2).bins(x=3).prepared_with("bin")[0]["y"] == 2
    assert not settings.bins(y=2).bins(y=1).prepared_with("bin")


def test_several_regions_are_left_out() -> None:
    settings = Settings.default()
    for start in (0, 4):
        settings = settings.leaving_out(Region.box(y=(start, start + 2), x=(0, 2)), ("y", "x"))
    assert len(settings.prepared_with("select")) == 2


def test_a_region_after_what_changes_positions_is_refused() -> None:
    outside = BOX.leaving_out(("y", "x"))
    settings = Settings.from_recipe({"prepare": [{"bin": {"y": 2}}, outside]})
    with pytest.raises(SelectionError, match="'bin' comes before it"):
        settings.leaving_out(BOX, ("y", "x"))
    assert settings.everywhere().keeping(BOX).prepare[0] == BOX.keeping()
    assert settings.window(energy=(1, 2)).prepare[0] == {"window": {"energy": [1.0, 2.0]}}


def test_steps_are_changed_by_name() -> None:
    settings = Settings.default().with_step("nmf", n_components=4, volume=0.5)
    assert settings.step("nmf") == {"n_components": 4, "random_state": 0, "volume": 0.5}
    settings = settings.with_step("nmf", "nmf_5", n_components=5)
    assert settings.names()[-1] == "nmf_5"
    assert settings.with_step("nmf", "nmf_5", tol=1e-3).step("nmf_5")["n_components"] == 5
    assert settings.only("pca", "nmf").names() == ("pca", "nmf")
    assert "pca" not in settings.without_step("pca").names()
    settings.check()
    with pytest.raises(InputError, match="no step 'ica'"):
        settings.step("ica")


def test_one_number_for_all() -> None:
    settings = Settings.default().parts(4)
    assert (settings.step("nmf")["n_components"], settings.step("kmeans")["n_clusters"]) == (4, 4)
    assert settings.parts(None).step("nmf")["n_components"] == "auto"
    assert settings.step("pca")["n_components"] == 20, "PCA shows more than there are"
    assert Settings(({"vca": {}},)).parts(2).step("vca") == {"n_components": 2}


def test_no_seed_is_left_open() -> None:
    settings = Settings(
        ({"nmf": {"n_components": 2}}, {"pca": {"random_state": None}}, {"pca": {}})
    )
    seeds = [next(iter(s.values())).get("random_state") for s in settings.with_seeds().steps]
    assert seeds == [0, 0, None], "pca's own default is a seed"


def test_they_never_change() -> None:
    first = Settings.default()
    before = repr(first)
    first.with_step("nmf", n_components=9).parts(2).window(energy=(1, 2))
    first.step("nmf")["n_components"] = 99
    assert repr(first) == before


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(RecipeError, match="n_components"):
        Settings.default().with_step("nmf", n_components=0).check()
    with pytest.raises(RecipeError, match="steps"):
        Settings().check()


STEPS = {m.model_fields["verb"].default: m for m in get_args(schema.AnyStep)}


@pytest.mark.parametrize("verb", STEPS)
def test_fields_are_those_of_the_schema(verb: str) -> None:
    fields = {f.name: f for f in fields_of(verb)}
    model = STEPS[verb]
    assert set(fields) == set(model.model_fields) - {"verb", "name"}
    for name, field in fields.items():
        assert field.required == model.model_fields[name].is_required()
        assert field.required or field.default == model.model_fields[name].default
        assert field.default is None or field.kind != "text" or field.default in field.choices


def test_fields_say_what_they_take() -> None:
    fields = {f.name: f for f in fields_of("nmf")}
    assert fields["n_components"].kind == "whole number"
    assert fields["n_components"].choices == ("auto",)
    assert fields["beta_loss"].choices == ("kullback-leibler", "frobenius")
    assert fields["tol"].kind == "number"
    assert fields["sum_to_one"].kind == "yes or no"
    with pytest.raises(InputError, match="no step 'sort'"):
        fields_of("sort")
