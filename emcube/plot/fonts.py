"""Letters that matplotlib's own font has not: from another font of this machine, or spelled out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["OWN", "families_for", "spelled_out"]

_log = logging.getLogger(__name__)

OWN = "DejaVu Sans"
"""Matplotlib's own font, which is always there: Latin, Greek, Cyrillic, Arabic, signs."""

# Fonts of other scripts, as common systems call them; those come first that look well.
_KNOWN = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC",
    "Noto Sans KR", "Source Han Sans", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo",
    "Microsoft YaHei", "Yu Gothic", "MS Gothic", "SimHei", "Malgun Gothic", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "IPAexGothic", "IPAGothic", "TakaoGothic", "Droid Sans Fallback", "NanumGothic",
    "Arial Unicode MS", "Noto Sans Arabic",
    "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "FreeSans", "Segoe UI Symbol", "Symbola",
    "Unifont",
)  # fmt: skip

_PICTURES = ("emoji", "lastresort", "last resort", "tofu", "blank")
"""In names of fonts whose letters are no outlines, or stand for any letter."""


def families_for(text: str) -> list[str] | None:
    """Fonts that together have the letters of a text, matplotlib's own first; None where that one will do.

    Letters that no font of this machine has are left over; see `spelled_out`.
    """
    missing = _missing(text)
    if not missing:
        return None
    families = [OWN]
    for name in _others():
        found = missing & letters_of(name)
        if found:
            families.append(name)
            missing -= found
        if not missing:
            break
    return families


def spelled_out(text: str) -> str:
    r"""The text with ``\uXXXX`` in place of letters that no font of this machine has.

    A box would say nothing at all; the log says once which letters they were.
    """
    missing = _missing(text)
    for name in _others() if missing else ():
        missing -= letters_of(name)
        if not missing:
            break
    if not missing:
        return text
    _tell("".join(sorted(map(chr, missing))))
    return "".join(_spelled(c) if ord(c) in missing else c for c in text)


def _spelled(letter: str) -> str:
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@lru_cache(maxsize=64)
def _tell(letters: str) -> None:
    _log.info(
        "no font of this machine has %s: figures spell them out (a font such as Noto Sans CJK draws them)",
        letters,
    )


def _missing(text: str) -> set[int]:
    if text.isascii():
        return set()
    return {ord(c) for c in text if not c.isspace()} - letters_of(OWN)


@lru_cache(maxsize=256)
def letters_of(name: str) -> frozenset[int]:
    """Code points that a font has; none where it cannot be read."""
    from matplotlib import font_manager

    try:
        path = font_manager.findfont(name, fallback_to_default=False)
        return frozenset(font_manager.get_font(path).get_charmap())
    except (ValueError, OSError, RuntimeError):
        return frozenset()


def _others() -> Iterator[str]:
    """Other fonts of this machine: known ones, then all."""
    there = _installed()
    yield from (name for name in _KNOWN if name in there)
    yield from (
        name
        for name in there
        if name not in _KNOWN and name != OWN and not any(p in name.lower() for p in _PICTURES)
    )


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    from matplotlib import font_manager

    return tuple(sorted(set(font_manager.get_font_names())))
