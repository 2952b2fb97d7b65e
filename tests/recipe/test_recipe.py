"""Recipes: what is valid, and what is said of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from emcube.errors import RecipeError
from emcube.recipe.recipe import Recipe
from emcube.recipe.schema import Bin, KMeansStep, NMFStep, PCAStep, Select

WHOLE = """\
emcube: 1
input: {catalog: catalogs/demo.yaml, dataset: srm2135c}
where: {min_smoothed_counts: 5}
prepare:
  - remove_background: {energy: [70.2, 97.2]}
  - window: {energy: [94.5, 110.1]}
  - select: {y: [12, 62]}
  - select: {region: [[0, 0], [0, 9.5], [9, 0]]}
  - bin: {y: 2, x: 2}
steps:
  - estimate_n_components: {method: biwhitening}
  - pca: {n_components: 20, noise: poisson}
  - nmf: {n_components: 3, random_state: 0}
  - kmeans: {n_clusters: 4, on: nmf, random_state: 0}
output: results/srm2135c
"""


def test_the_whole_format(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(WHOLE)
    recipe = Recipe.read(file)
    assert [s.label for s in recipe.steps] == ["estimate_n_components", "pca", "nmf", "kmeans"]
    pca, nmf, kmeans = recipe.steps[1:]
    assert isinstance(pca, PCAStep)
    assert pca.noise == "poisson"
    assert isinstance(nmf, NMFStep)
    assert nmf.random_state == 0
    assert isinstance(kmeans, KMeansStep)
    assert kmeans.on == "nmf"
    select, region, binned = recipe.prepare[2:]
    assert isinstance(select, Select)
    assert select.dims == {"y": (12, 62)}
    assert isinstance(region, Select)
    assert region.region == ((0, 0), (0, 9.5), (9, 0))
    assert isinstance(binned, Bin)
    assert binned.dims == {"y": 2, "x": 2}
    assert recipe.locate("map.zarr") == str(tmp_path / "map.zarr")
    assert recipe.locate("https://a.b/c.zarr") == "https://a.b/c.zarr"
    assert recipe.step_place(1) == "recipe.yaml, line 12"


def test_the_normalised_form_is_a_recipe_that_says_the_same() -> None:
    recipe = Recipe.parse(WHOLE)
    normalised = recipe.normalised()
    assert "input" not in normalised
    assert "output" not in normalised
    assert Recipe.from_dict(normalised).normalised() == normalised


def test_defaults_written_out_change_nothing() -> None:
    short = Recipe.parse("emcube: 1\nsteps: [pca, {kmeans: {n_clusters: 3}}]")
    long = Recipe.parse(
        "emcube: 1\noutput: elsewhere\nprepare: []\nsteps:\n"
        "  - pca: {n_components: 20, noise: auto, name: pca}\n  - kmeans: {n_clusters: 3}\n"
    )
    assert short.normalised() == long.normalised()


def test_from_dict_takes_tuples_and_refuses_objects() -> None:
    recipe = Recipe.from_dict({"prepare": [{"window": {"energy": (1, 2)}}], "steps": ["pca"]})
    assert recipe.prepare[0].dims == {"energy": (1.0, 2.0)}
    with pytest.raises(RecipeError, match="no plain data"):
        Recipe.from_dict({"steps": [{"pca": {"n_components": object()}}]})


BAD = [
    # (text, line, what, hint)
    ("", None, "a recipe is a mapping", "start with 'emcube: 1'"),
    ("- pca", 1, "a recipe is a mapping", "start with 'emcube: 1'"),
    ("steps: [pca]", 1, "the key 'emcube' is missing", "start the recipe with 'emcube: 1'"),
    ("emcube: 2\nsteps: [pca]", 1, "'emcube' is 2, expected 1", "install the emcube release"),
    ("emcube: 1", 1, "the key 'steps' is missing", "name at least one step"),
    ("emcube: 1\nsteps: []", 2, "'steps' is [], expected at least 1 entries", ""),
    ("emcube: 1\nsteps: [pca]\nouptut: a", 3, "unknown key 'ouptut'", "did you mean 'output'?"),
    ("emcube: 1\nsteps:\n  - pcaa: {}", 3, "unknown verb 'pcaa'", "did you mean 'pca'?"),
    ("emcube: 1\nsteps:\n  - tsne: {}", 3, "unknown verb 'tsne'", "known are estimate_n_comp"),
    ("emcube: 1\nsteps:\n  - 3", 3, "an entry of 'steps' is one verb", "- pca: {n_components"),
    (
        "emcube: 1\nsteps:\n  - pca: {}\n    nmf: {}",
        3,
        "an entry of 'steps' is one verb",
        "- pca: {n_components",
    ),
    ("emcube: 1\nsteps:\n  - pca: 3", 3, "the parameters of pca are 3", "- pca: {key: value}"),
    (
        "emcube: 1\nsteps:\n  - pca:\n      n_componets: 3",
        4,
        "unknown key 'n_componets' in pca",
        "did you mean 'n_components'?",
    ),
    (
        "emcube: 1\nsteps:\n  - pca: {n_components: 0}",
        3,
        "'n_components' of pca is 0, expected a number of at least 1",
        "",
    ),
    (
        "emcube: 1\nsteps:\n  - pca: {n_components: 2.5}",
        3,
        "'n_components' of pca is 2.5, expected a whole number or 'auto'",
        "",
    ),
    (
        "emcube: 1\nsteps:\n  - pca: {n_components: true}",
        3,
        "'n_components' of pca is True, expected a whole number or 'auto'",
        "",
    ),
    (
        "emcube: 1\nsteps:\n  - nmf: {n_components: 3, beta_loss: kl}",
        3,
        "'beta_loss' of nmf is 'kl', expected 'kullback-leibler' or 'frobenius'",
        "",
    ),
    (
        "emcube: 1\nsteps:\n  - nmf: {n_components: 3, random_state: -1}",
        3,
        "'random_state' of nmf is -1, expected a number of at least 0",
        "",
    ),
    ("emcube: 1\nsteps:\n  - pca: {name: input}", 3, "the name 'input' is taken", ""),
    ("emcube: 1\nsteps:\n  - pca: {name: ../up}", 3, "expected a word of letters", ""),
    ("emcube: 1\nsteps:\n  - pca\n  - pca", 4, "two steps have the name 'pca'", "give one its own"),
    (
        "emcube: 1\nsteps:\n  - pca: {name: A}\n  - pca: {name: a}",
        4,
        "two steps have the name 'a' but for the case of letters ('A')",
        "give one its own",
    ),
    ("emcube: 1\nprepare: [{bin: {}}]\nsteps: [pca]", 2, "expected a dim, as in {y: 2, x: 2}", ""),
    (
        "emcube: 1\nsteps:\n  - nmf: {n_components: auto}\n  - estimate_n_components",
        3,
        "'n_components' of nmf is 'auto', but no earlier step estimates",
        "put '- estimate_n_components:' or '- survey_n_components:' before it",
    ),
    (
        "emcube: 1\nsteps:\n  - kmeans: {n_clusters: 2, on: nmf}\n  - nmf: {n_components: 2}",
        3,
        "'on' of kmeans is 'nmf', expected an earlier step with loadings",
        "put a pca or nmf step before it",
    ),
    (
        "emcube: 1\nsteps:\n  - pca\n  - kmeans: {n_clusters: 2, on: nmf}",
        4,
        "'on' of kmeans is 'nmf'",
        "there are 'pca'",
    ),
    (
        "emcube: 1\nsteps:\n  - pca\n  - cluster_quality: {of: pca}",
        4,
        "'of' of cluster_quality is 'pca', expected an earlier step with clusters",
        "put a kmeans or mixture step before it",
    ),
    (
        "emcube: 1\nsteps:\n  - kmeans: {n_clusters: 2}\n  - cluster_quality: {of: k}",
        4,
        "'of' of cluster_quality is 'k'",
        "there are 'kmeans'",
    ),
    (
        "emcube: 1\nsteps:\n  - gaussian_mixture: {n_clusters: 2, on: nmf}",
        3,
        "'on' of gaussian_mixture is 'nmf', expected an earlier step with loadings",
        "put a pca or nmf step before it",
    ),
    ("emcube: 1\ninput: {}\nsteps: [pca]", 2, "expected either 'path' or 'catalog'", ""),
    (
        "emcube: 1\ninput: {path: a, catalog: b, dataset: c}\nsteps: [pca]",
        2,
        "expected either 'path' or 'catalog' and 'dataset', got both",
        "",
    ),
    ("emcube: 1\ninput: {catalog: a}\nsteps: [pca]", 2, "belong together", ""),
    ("emcube: 1\ninput: {path: 3}\nsteps: [pca]", 2, "'input.path' is 3, expected text", ""),
    ("emcube: 1\ninput: {pth: a}\nsteps: [pca]", 2, "unknown key 'pth' in 'input'", "'path'?"),
    (
        "emcube: 1\ninput: {path: [a, b], dim: tilt, values: [1]}\nsteps: [pca]",
        2,
        "1 values for 2 files",
        "",
    ),
    ("emcube: 1\ninput: {path: a, dim: tilt}\nsteps: [pca]", 2, "'dim' and 'values' join", ""),
    ("emcube: 1\nwhere: {}\nsteps: [pca]", 2, "'min_smoothed_counts' is missing", "write it as"),
    (
        "emcube: 1\nwhere: {min_counts: 3}\nsteps: [pca]",
        2,
        "unknown key 'min_counts' in 'where'",
        "did you mean",
    ),
    (
        "emcube: 1\nwhere: {min_smoothed_counts: -3}\nsteps: [pca]",
        2,
        "is -3, expected a number above 0",
        "",
    ),
    (
        "emcube: 1\nprepare:\n  - window: {energy: [9, 1]}\nsteps: [pca]",
        3,
        "the interval starts at 9 and ends at 1",
        "",
    ),
    (
        "emcube: 1\nprepare:\n  - window: {energy: [1, 2, 3]}\nsteps: [pca]",
        3,
        "'energy' of window is [1, 2, 3], expected at most 2 entries",
        "",
    ),
    (
        "emcube: 1\nprepare:\n  - window: {energy: [1]}\nsteps: [pca]",
        3,
        "'energy' of window is [1], expected 2 numbers",
        "",
    ),
    ("emcube: 1\nprepare:\n  - bin: {y: 2.5}\nsteps: [pca]", 3, "'y' of bin is 2.5", ""),
    ("emcube: 1\nprepare:\n  - bin: {}\nsteps: [pca]", 3, "nothing is asked for", ""),
    ("emcube: 1\nprepare:\n  - bin: [2, 2]\nsteps: [pca]", 3, "parameters of bin are [2, 2]", ""),
    (
        "emcube: 1\nprepare:\n  - select: {y: [-3, 4]}\nsteps: [pca]",
        3,
        "is -3, expected a number of at least 0",
        "",
    ),
    (
        "emcube: 1\nprepare:\n  - select: {region: [[0, 0], [1, 1]]}\nsteps: [pca]",
        3,
        "expected at least 3 entries",
        "",
    ),
    (
        "emcube: 1\nprepare:\n  - remove_background: {energy: [1, 2], x: [1, 2]}\nsteps: [pca]",
        3,
        "got windows on 2 dims",
        "",
    ),
]


@pytest.mark.parametrize(("text", "line", "what", "hint"), BAD)
def test_each_mistake_is_named_with_its_line(
    tmp_path: Path, text: str, line: int | None, what: str, hint: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.read(file)
    message = str(caught.value)
    assert what in message
    assert hint in message
    assert message.startswith("bad.yaml" if line is None else f"bad.yaml, line {line}: ")


def test_several_mistakes_come_together_in_order() -> None:
    text = WHOLE.replace("y: 2, x", "y: 0, x").replace("noise: poisson", "noise: loud")
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text.replace("window", "windw"))
    rows = str(caught.value).splitlines()
    assert rows[0] == "3 mistakes in the recipe:"
    assert [row.split(":")[0].strip() for row in rows[1:]] == [
        "recipe, line 6",
        "recipe, line 9",
        "recipe, line 12",
    ]


def test_a_recipe_is_checked_without_the_numerical_libraries() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from emcube.recipe.recipe import Recipe\n"
        "Recipe.parse('emcube: 1\\nsteps: [pca]')\n"
        "print([m for m in ('numba', 'sklearn', 'dask_ml', 'distributed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
