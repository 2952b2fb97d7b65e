"""Recipe and script as text: whatever names and paths hold, they say what was meant and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from emcube.explore.actions import Action, Record
from emcube.explore.regions import Region
from emcube.explore.scripting import python_text, yaml_text
from emcube.explore.settings import Settings
from emcube.recipe.document import parse_yaml
from tests.explore.cubes_for_tests import three_phases

NASTY = [
    '"); import os; os.abort() #',
    "two\nlines\rof\u2028title",
    "<script>alert(1)</script>",
    "näme 名前 \U0001f600 \ud800",
    "'''\"\"\"\\",
    "x" * 10_000,
    "\x00\x07\x7f\x85\ufeff",
    "1e5",
    "on",
    "null",
    "- a: {b]",
    "# no comment",
    " ",
]

texts = st.one_of(st.text(), st.sampled_from(NASTY))
plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


@examples(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(["input", "where", "prepare", "steps", "output"]), plain), texts
)
def test_yaml_says_what_was_meant(recipe: dict[str, Any], title: str) -> None:
    document = {"emcube": 1, **recipe}
    read = parse_yaml(yaml_text(document, title)).data
    assert read == document


@pytest.mark.parametrize("title", NASTY, ids=range(len(NASTY)))
def test_a_recipe_of_any_name_is_read_again(title: str) -> None:
    settings = Settings.default(3).window(energy=(1, 3)).keeping(Region.box(y=(0, 4)))
    recipe = settings.as_recipe({"path": title, "name": title})
    assert parse_yaml(yaml_text(recipe, title, ["a note"])).data == recipe


def executed(text: str, folder: Path) -> dict[str, Any]:
    """Names that a script defines, without running its run."""
    space = {"__name__": "looked_at", "__file__": str(folder / "script.py")}
    exec(compile(text.encode("utf-8"), "script.py", "exec"), space)
    return space


@pytest.mark.parametrize("title", NASTY, ids=range(len(NASTY)))
def test_a_script_of_any_name_holds_the_recipe_and_does_nothing_else(
    title: str, tmp_path: Path
) -> None:
    recipe = Settings.default(3).as_recipe({"path": title})
    text = python_text(recipe, [], title)
    assert executed(text, tmp_path)["RECIPE"] == recipe
    first = text.splitlines()[0]
    assert first.startswith("#")
    assert not any(c in first for c in "\n\r\u2028\x00")


def test_a_script_shows_what_was_looked_at(tmp_path: Path) -> None:
    from emcube.store import write_cube

    cube = three_phases()
    write_cube(cube, tmp_path / "map.zarr")
    record = Record()
    record.add("spectrum", region=None)
    for _ in range(2):
        record.add("window", windows={"energy": [1.5, 1.9]})
        record.add("spectrum", region={"spans": {"y": [3, 7], "x": [1, 2]}, "vertices": []})
    record.add("spectrum", region={"spans": {}, "vertices": [[0, 0], [0, 9], [9, 0]]})
    record.add("window", windows={})
    found = executed(
        python_text(Settings.default(3).as_recipe({"path": "map.zarr"}), record, "t"), tmp_path
    )
    np.testing.assert_array_equal(found["spectrum_1"], cube.em.sum_spectrum())
    np.testing.assert_array_equal(
        found["map_1"], cube.em.window(energy=(1.5, 1.9)).em.total_counts()
    )
    np.testing.assert_array_equal(found["spectrum_2"], cube[3:7, 1:2].sum(["y", "x"]))
    mask = Region.polygon([(0, 0), (0, 9), (9, 0)]).mask(cube)
    np.testing.assert_array_equal(found["spectrum_3"], cube.where(mask, 0).sum(["y", "x"]))
    np.testing.assert_array_equal(found["map_2"], cube.sum("energy"))
    assert "map_3" not in found, "the same look twice is one line"
    assert all(hasattr(found[n].data, "dask") for n in ("map_1", "spectrum_1", "spectrum_3"))


def test_dims_of_any_name_are_arguments() -> None:
    record = [Action("window", {"windows": {"class": [1.0, 2.0], "x y": [0.0, 1.0]}})]
    text = python_text(Settings.default(3).as_recipe({"path": "map.zarr"}), record, "t")
    assert "**{'class': (1.0, 2.0), 'x y': (0.0, 1.0)}" in text
    compile(text, "script.py", "exec")


def test_a_record_notes_a_repeated_look_once() -> None:
    record = Record()
    assert record.add("window", windows={}) is record.add("window", windows={})
    record.add("spectrum", region=None)
    record.add("window", windows={})
    assert [a.verb for a in record] == ["window", "spectrum", "window"]
    assert all(a.at.endswith("+00:00") for a in record)
