"""The pages on recipes and results say what there is, and their recipes are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emcube.recipe.explain import _models
from emcube.recipe.recipe import Recipe
from emcube.results.variables import _REGISTER

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "recipes.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_recipes_in_the_pages_are_valid(page: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    recipes = [b for b in blocks if b.startswith("emcube:")]
    assert recipes
    for text in recipes:
        Recipe.parse(text)


def test_every_verb_and_parameter_is_on_the_page() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for section in ("prepare", "steps"):
        for verb, model in _models(section).items():
            assert f"`{verb}`" in text
            for name in set(model.model_fields) - {"verb", "name", "region", "outside"}:
                assert f"`{name}`" in text, f"{verb}: {name}"


def test_every_variable_is_on_the_page() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for node, name in _REGISTER:
        assert f"`/{node}`" in text
        assert f"`{name}`" in text, f"{node}: {name}"


def test_the_readme_names_the_verbs_of_the_command_line() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb in ("demo", "ingest", "info", "run", "estimate", "doctor"):
        assert f"emcube {verb}" in text, verb
