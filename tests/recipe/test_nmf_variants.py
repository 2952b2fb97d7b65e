"""Variants of NMF in a recipe: what is accepted and refused, what lies in the result, what keeps its name."""

from __future__ import annotations

import numpy as np
import pytest

import emcube as em
from emcube.errors import RecipeError
from emcube.recipe.recipe import Recipe

HEAD = "emcube: 1\nsteps:\n"


def test_a_recipe_without_variants_keeps_its_normalised_form() -> None:
    """And with it the run_id of results that are there."""
    plain = Recipe.parse(f"{HEAD}  - nmf: {{n_components: 3, random_state: 0}}\n").normalised()
    (step,) = plain["steps"]
    assert set(step["nmf"]) == {
        "name", "n_components", "beta_loss", "volume", "tol", "max_iter", "pool", "init", "n_epochs",
        "batch_size", "sum_to_one", "random_state",
    }  # fmt: skip
    said = f"{HEAD}  - nmf: {{n_components: 3, random_state: 0, smoothness: 0, basis: null}}\n"
    assert Recipe.parse(said).normalised() == plain


def test_variants_are_part_of_the_normalised_form_which_is_a_recipe() -> None:
    text = (
        f"{HEAD}  - nmf: {{n_components: 3, sparsity: 0.5, smoothness: 1, "
        "basis: {elements: [Fe, O], beam_energy: 200, layers: {C: 40}}}\n"
    )
    normalised = Recipe.parse(text).normalised()
    step = normalised["steps"][0]["nmf"]
    assert step["sparsity"] == 0.5
    assert step["basis"]["elements"] == ["Fe", "O"]
    assert step["basis"]["layers"] == {"C": 40.0}
    assert Recipe.from_dict(normalised).normalised() == normalised


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("smoothness: -1", "smoothness"),
        ("smoothness: 1, pool: 4", "takes the place of 'pool'"),
        ("sparsity: 1, sum_to_one: true, beta_loss: frobenius", "there for counts"),
        ("basis: {element: [Fe]}", "element"),
        ("basis: {group: shell}", "group"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(options: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.parse(f"{HEAD}  - nmf: {{n_components: 3, {options}}}\n")


@pytest.mark.parametrize(
    ("options", "step", "refused"),
    [
        ("basis: {elements: [Si]}", "uncertainty", True),
        ("smoothness: 1", "uncertainty", True),
        ("smoothness: 1", "diagnostics", True),
        ("basis: {elements: [Si]}", "diagnostics", False),
    ],
)
def test_steps_that_judge_refuse_what_they_cannot(options: str, step: str, refused: bool) -> None:
    text = f"{HEAD}  - nmf: {{n_components: 3, {options}}}\n  - {step}\n"
    if refused:
        with pytest.raises(RecipeError, match=f"{step} is not there for an nmf step"):
            Recipe.parse(text)
    else:
        assert len(Recipe.parse(text).steps) == 2


def test_a_run_writes_smooth_maps_and_coefficients(tmp_path) -> None:
    cube = em.scenes.srm2135c(scale=0.002, random_state=0).cube
    recipe = Recipe.parse(
        f"{HEAD}  - nmf: {{n_components: 3, smoothness: 0.5, max_iter: 3, random_state: 0, "
        "basis: {elements: [Ni, Cr, Si, C, O, Cu]}}\n"
    )
    result = em.run(recipe, cube, out=tmp_path / "r")
    node = result.tree["nmf"].to_dataset()
    features = node.attrs["features"]
    assert features[0] == "Ni_K"
    assert node["coefficients"].sizes == {"component": 3, "feature": len(features)}
    np.testing.assert_allclose(node["coefficients"].sum("feature"), 1.0)
    model = em.MiniBatchNMF(
        3, smoothness=0.5, basis={"elements": ["Ni", "Cr", "Si", "C", "O", "Cu"]}, max_iter=3,
        random_state=0,
    ).fit(cube)  # fmt: skip
    np.testing.assert_array_equal(node["components"].values, model.components_.values)
    np.testing.assert_array_equal(node["loadings"].values, model.transform(cube).values)
    assert em.plan(recipe, cube).steps
