"""YAML as plain data: what PyYAML reads, faster; and what it would run or repeat is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from emcube.catalog.plain_yaml import PlainError, dump, load

NUMBERS = ["1_000", "0x1F", "1e3", "1.0e+3", "12:30:45", "2026-11-26", ".nan", ".inf", "0o7", "010"]
WORDS = ["yes", "NO", "null", "~", "true ", "", " ", "é", "\n", "a\n b"]
SIGNS = [
    "<<",
    "=",
    "#",
    "'",
    '"',
    "{a}",
    "[a]",
    "*a",
    "&a",
    "!a",
    "%",
    "@",
    "`",
    "...",
    "---",
    "- a",
    "a: b",
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [*NUMBERS, *WORDS, *SIGNS]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
documents = st.dictionaries(
    texts,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    ),
    max_size=5,
)


@settings(max_examples=50)
@given(documents)
def test_what_is_written_is_read(document: dict[str, Any]) -> None:
    text = dump(document)
    assert repr(load(text)) == repr(document)
    # And others read the same.
    assert repr(yaml.safe_load(text)) == repr(document)


@settings(max_examples=50)
@given(documents)
def test_what_others_write_is_read(document: dict[str, Any]) -> None:
    assert load(yaml.safe_dump(document)) == document
    assert load(yaml.safe_dump(document, default_flow_style=True, width=20)) == document


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 'y', \"z\", 0x10, 1_000, 010, +1, -2.5, 1e5, 1.e+5, .inf, ~, yes, off]",
        "a: !!str 1\nb: !!int '7'\nc: !!float 1\nd: !!bool 'true'\ne: !!null ''\nf: !!map {x: 1}",
        "a: &x {b: 1, c: 2}\nd: *x\ne: {<<: *x, c: 3}\nf: {<<: [*x, {g: 4, b: 5}]}\n'<<': 6",
        "? a\n: |\n  lines\n  kept\nb: >-\n  lines\n  joined",
        "plain",
        "",
    ],
)
def test_what_pyyaml_reads(text: str) -> None:
    assert load(text) == yaml.safe_load(text)


def test_keys_are_text_as_it_is_spelt() -> None:
    found = load("007: a\n1: b\ntrue: c\n~: d\n2026-11-26: e")
    assert found == {"007": "a", "1": "b", "true": "c", "~": "d", "2026-11-26": "e"}


def test_dates_stay_text() -> None:
    assert load("a: 2026-11-26\nb: 2026-11-26T10:00:00Z") == {
        "a": "2026-11-26",
        "b": "2026-11-26T10:00:00Z",
    }


def test_aliases_are_copies() -> None:
    found = load("a: &x {b: [1]}\nc: *x")
    found["a"]["b"].append(2)
    assert found["c"] == {"b": [1]}


@pytest.mark.parametrize(
    "text",
    ["0x" + "f" * 6000, "9" * 6000, ":".join(["1"] * 4000), ":".join(["1"] * 400) + ".5", "0x_"],
    ids=["hexadecimal", "decimal", "sixties", "sixties with a fraction", "no digits"],
)
def test_numbers_that_are_none_stay_text(text: str) -> None:
    assert load(f"a: {text}\nb: 2") == {"a": text, "b": 2}
    kind = "float" if "." in text else "int"
    with pytest.raises(PlainError, match=f"for a {kind}") as caught:
        load(f"a: !!{kind} '{text}'")
    assert len(str(caught.value)) < 200


def test_minus_zero_and_numbers_alike() -> None:
    found = load(dump({"a": [0.0, -0.0, 1, 1.0, True]}))
    assert repr(found) == repr({"a": [0.0, -0.0, 1, 1.0, True]})
    assert math.isnan(load(dump({"a": math.nan}))["a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 2, c: 3}", "line 2 has the key 'c' twice"),
        ("a: !!python/name:os.system ''", "has the tag"),
        ("a: !!binary aGVsbG8=", "has the tag"),
        ("a: !!set {b, c}", "has the tag"),
        ("a: !!omap [b: 1]", "has the tag"),
        ("a: !!map [1]", "has the tag"),
        ("a: !!int x", "has 'x' for a int"),
        ("a: &x [*x]", "holds itself"),
        ("{[1]: 2}", "something else than text for a key"),
        ("a: *b", "an alias of nothing"),
        ("a: {<<: [1]}", "merges"),
        ("a: 1\n---\nb: 2", "line 2 begins a second document"),
        ("[" * 41, "nests more than 40 deep"),
        ("- " * 50 + "x", "nests more than 40 deep"),
    ],
)
def test_what_is_not_plain_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlainError, match=message):
        load(text)


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(PlainError, match="multiplies itself"):
        load("\n".join(lines))


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), 1j])
def test_what_is_not_plain_is_not_written(value: object) -> None:
    with pytest.raises((TypeError, yaml.YAMLError)):
        dump({"a": [value]})
