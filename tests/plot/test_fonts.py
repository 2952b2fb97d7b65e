"""Letters that matplotlib's own font has not: another font's, or spelled out; no box, no warning."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from emcube import plot
from emcube.plot import fonts
from tests.plot.test_images import spectra
from tests.plot.test_plot import texts


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Let this machine have these fonts beside matplotlib's own, with these letters."""

    def have(**there: str) -> None:
        names = {name.replace("_", " "): letters for name, letters in there.items()}
        own = fonts.letters_of(fonts.OWN)
        monkeypatch.setattr(fonts, "_installed", lambda: (fonts.OWN, *names))
        monkeypatch.setattr(
            fonts,
            "letters_of",
            lambda name: own if name == fonts.OWN else frozenset(map(ord, names[name])),
        )

    return have


def test_latin_greek_and_cyrillic_need_nothing(only) -> None:
    only(Unifont="鉱物")
    for text in ("Ni_Ka", "Ωμέγα ß ñ", "Жадеит", "5 µm · ²"):
        assert fonts.families_for(text) is None
        assert fonts.spelled_out(text) == text


def test_known_fonts_come_first_and_only_those_that_are_needed(only) -> None:
    only(Aaa="鉱物", Noto_Sans_CJK_JP="鉱物", Noto_Sans_Thai="แร่", Noto_Color_Emoji="🪨")
    assert fonts.families_for("鉱物 A") == [fonts.OWN, "Noto Sans CJK JP"]
    assert fonts.families_for("鉱แ") == [fonts.OWN, "Noto Sans CJK JP", "Noto Sans Thai"]
    assert fonts.families_for("🪨") == [fonts.OWN]
    assert fonts.spelled_out("🪨!") == "\\U0001faa8!"


def test_letters_without_a_font_are_spelled_out_and_the_log_says_so_once(
    only, caplog: pytest.LogCaptureFixture
) -> None:
    only()
    fonts._tell.cache_clear()
    with caplog.at_level(logging.INFO, "emcube.plot.fonts"):
        assert fonts.spelled_out("鉱物 A") == "\\u9271\\u7269 A"
        assert fonts.spelled_out("鉱物 B") == "\\u9271\\u7269 B"
    assert len(caplog.records) == 1
    assert "物鉱" in caplog.text or "鉱物" in caplog.text


def test_figures_draw_without_a_word_where_no_font_has_the_letters(only) -> None:
    """pytest makes an error of matplotlib's warning of missing glyphs."""
    only()
    figure = plot.components(spectra(), names=["鉱物", "b", "c"], title="試料 7")
    figure.set_dpi(50)
    said = " ".join(texts(figure))
    assert "\\u9271\\u7269" in said
    assert "\\u8a66\\u6599 7" in said


def test_figures_take_the_font_that_has_them(only) -> None:
    only(DejaVu_Serif="鉱物")
    figure = plot.components(spectra(), names=["b", "鉱物", "c"])
    titles = [axes.title for axes in figure.axes] + [axes._right_title for axes in figure.axes]
    found = [fonts.families_for(t.get_text()) for t in titles if "鉱物" in t.get_text()]
    assert found
    assert all(f == [fonts.OWN, "DejaVu Serif"] for f in found)


def test_letters_of_real_fonts(tmp_path: Path) -> None:
    own = fonts.letters_of(fonts.OWN)
    assert {ord(c) for c in "AΩЖ°µ"} <= own
    assert ord("鉱") not in own
    assert fonts.letters_of("no such font at all") == frozenset()
