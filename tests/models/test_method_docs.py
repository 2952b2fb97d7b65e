"""The pages on methods: their code runs, their recipes are valid, their links point at something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import emcube as em
from emcube.recipe.recipe import Recipe

FOLDER = Path(__file__).parents[2] / "docs" / "methods"
PAGES = {"geometry": em.VCA, "fastica": em.FastICA, "mcr": em.MCRALS}
PAGES["bayes"] = em.BayesianUnmixing


def blocks(page: str, language: str) -> list[str]:
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_code_of_the_page_runs(page):
    names: dict = {}
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), names)
    assert any(isinstance(value, PAGES[page]) for value in names.values())


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_recipe_of_the_page_is_valid(page):
    (text,) = blocks(page, "yaml")
    assert Recipe.parse(text).steps


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_page_says_what_it_must(page):
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    for title in ("The model", "What it assumes, and how it fails", "References"):
        assert f"\n## {title}\n" in text
    assert text.count("https://doi.org/") >= 4
