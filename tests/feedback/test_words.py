"""Fields of a line give way in their order, whatever the width and the signs of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcube.feedback.words import (
    LABEL,
    Glyphs,
    Line,
    clock,
    fit,
    format_bytes,
    glyphs_for,
    label,
    rate,
    seconds,
)

FULL = Line(
    "MiniBatchNMF: NMF",
    0.31,
    (
        (2, "pass 3/10"),
        (5, "120/480 blocks"),
        (3, "1.24 M pixels/s"),
        (4, "objective 1.2346e+06"),
        (1, "at most 0:41 left"),
    ),
)


def written(line: Line, width: int, glyphs: Glyphs | None = None) -> str:
    return "".join(piece.text for piece in fit(line, width, glyphs or Glyphs()))


def test_a_wide_line_has_everything() -> None:
    assert written(FULL, 140) == (
        "MiniBatchNMF: NMF  ━━━━━━━━━───────────────────  31 %  pass 3/10  120/480 blocks  1.24 M pixels/s  "
        "objective 1.2346e+06  at most 0:41 left"
    )


@pytest.mark.parametrize(
    ("width", "lost"),
    [
        (108, ["120/480 blocks"]),
        (90, ["120/480 blocks", "objective"]),
        (70, ["120/480 blocks", "objective", "pixels/s"]),
        (60, ["120/480 blocks", "objective", "pixels/s", "pass"]),
        (50, ["120/480 blocks", "objective", "pixels/s", "pass", "left"]),
    ],
)
def test_fields_give_way_in_their_order(width: int, lost: list[str]) -> None:
    text = written(FULL, width)
    assert len(text) <= width
    fields = ["120/480 blocks", "objective", "pixels/s", "pass", "left"]
    assert [f for f in fields if f not in text] == lost
    assert "31 %" in text


@given(
    name=st.text(max_size=80),
    share=st.none() | st.floats(-0.5, 1.5),
    texts=st.lists(st.tuples(st.integers(1, 7), st.text(max_size=30)), max_size=7),
    width=st.integers(1, 200),
    plain=st.booleans(),
)
def test_no_line_is_longer_than_the_terminal(
    name: str, share: float | None, texts: list[tuple[int, str]], width: int, plain: bool
) -> None:
    glyphs = glyphs_for("ascii" if plain else "utf-8")
    text = written(Line(name, share, tuple(texts)), width, glyphs)
    # Percent and at least one sign of the name are never given up.
    assert len(text) <= max(width, 7)


@pytest.mark.parametrize(
    ("encoding", "plain"), [("utf-8", False), ("ascii", True), ("latin-1", True)]
)
def test_signs_are_those_that_the_terminal_has(encoding: str, plain: bool) -> None:
    text = written(Line("fit", 0.5), 40, glyphs_for(encoding))
    assert text.isascii() == plain
    text.encode(encoding)
    assert glyphs_for(None) == glyphs_for("no such encoding") == glyphs_for("ascii")


def test_names_are_one_short_line() -> None:
    assert label("two\nlines\x1b[31m\u202e!") == "two lines [31m !"
    assert len(label("x" * 10_000)) == LABEL
    assert label("鉱物") == "鉱物"


def test_numbers_for_people() -> None:
    assert [clock(s) for s in (0, 65.4, 7200)] == ["0:00", "1:05", "2:00:00"]
    assert [seconds(s) for s in (0.421, 8.31, 200, 7200)] == [
        "0.42 s",
        "8.3 s",
        "3:20 min",
        "2:00:00 h",
    ]
    assert rate(1.24e6, "pixels") == "1.24 M pixels/s"
    assert rate(3.0, "blocks") == "3 blocks/s"
    assert rate(2.5 * 2**20, "bytes") == "2.5 MiB/s"
    assert format_bytes(3 * 2**30) == "3.0 GiB"
