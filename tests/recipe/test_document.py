"""YAML with line numbers, and only the core of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from emcube.errors import RecipeError
from emcube.recipe.document import Document, dotted, parse_yaml, read_yaml


def test_words_stay_words() -> None:
    data = parse_yaml("{on: nmf, y: yes, n: no, off: ~, t: true, d: 2024-01-02}").data
    assert data == {"on": "nmf", "y": "yes", "n": "no", "off": None, "t": True, "d": "2024-01-02"}


def test_numbers_are_decimal() -> None:
    data = parse_yaml("[1, -2, 010, 1e-4, .5, 1., 12:62, 0x1F, .inf, 1_000]").data
    assert data[:6] == [1, -2, 10, 1e-4, 0.5, 1.0]
    assert data[6:8] == ["12:62", "0x1F"]
    assert math.isinf(data[8])
    assert data[9] == "1_000"


def test_lines_of_keys_and_entries() -> None:
    document = parse_yaml("a: 1\n\nsteps:\n  - pca:\n      n: 3\n  - nmf\n")
    assert document.line(("steps",)) == 3
    assert document.line(("steps", 0, "pca", "n")) == 5
    assert document.line(("steps", 1)) == 6
    assert document.line(("steps", 1, "missing")) == 6
    assert document.line(("elsewhere",)) == 1


def test_place_without_a_file() -> None:
    assert Document({}).place(("steps", 2, "pca")) == "recipe, steps[2].pca"
    assert Document({}).place(()) == "recipe"
    assert dotted(("a", 0, 1, "b")) == "a[0][1].b"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' stands twice, first on line 1"),
        ("a: [1,\nb", 2, "not valid YAML"),
        ("a:\n\t- b", 2, "not valid YAML"),
        ("a: &x [1]\nb: *x", 1, "alias"),
        ("a: &x\n  b: *x", 1, "alias"),
        ("a: !!python/object/apply:os.getcwd []", 1, None),
        ("a: !!python/name:os.getcwd x", 1, "tag"),
        ("? [a, b]\n: c", 1, "a key must be one word"),
        ("a: 1\n---\nb: 2", 2, "not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, line: int, said: str | None) -> None:
    if said is None:  # a tag on a list is only a list: nothing is built from it
        assert parse_yaml(text).data == {"a": []}
        return
    with pytest.raises(RecipeError, match=f"line {line}.*{said}") as caught:
        parse_yaml(text)
    assert caught.value.hint


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(RecipeError, match="nested too deeply"):
        parse_yaml("[" * 5000 + "]" * 5000)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(RecipeError, match="is a folder"):
        read_yaml(tmp_path)
    binary = tmp_path / "map.bcf"
    binary.write_bytes(b"\x89\xff\x00\x01")
    with pytest.raises(RecipeError, match=r"map\.bcf is not a text file"):
        read_yaml(binary)
    control = tmp_path / "control.yaml"
    control.write_text("a: \x07")
    with pytest.raises(RecipeError, match="not valid YAML"):
        read_yaml(control)
