"""Looks at the pages that were made: every link and anchor leads somewhere, nothing is loaded from elsewhere.

What is wrong is a warning, which ``make check`` takes for an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

TAG = re.compile(r"<(a|link|script|img|iframe|source|object|video)\b([^>]*)>", re.IGNORECASE)
ATTRIBUTE = re.compile(r"""\b(href|src|data|srcset)\s*=\s*["']([^"']*)["']""")
ANCHOR = re.compile(r"""\s(?:id|name)\s*=\s*["']([^"']+)["']""")
IN_STYLE = re.compile(r"""@import\s+(?:url\()?["']?([^"')\s;]+)|url\(\s*["']?([^"')]+)""")
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:|^//", re.IGNORECASE)
UNNAMED = '<summary><span class="toctree-toggle"'
NAMED = '<summary aria-label="pages below"><span class="toctree-toggle"'
LOADED = ("script", "img", "iframe", "source", "object", "video")


def faults(out: Path) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the pages of a folder: page, and fault."""
    texts = {
        p.relative_to(out).as_posix(): p.read_text(encoding="utf-8")
        for p in sorted(out.rglob("*.html"))
        if "_static" not in p.parts
    }
    anchors = {page: set(ANCHOR.findall(text)) for page, text in texts.items()}
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    for page, text in texts.items():
        for tag, address in _addresses(text):
            fault = _fault(page, tag, address, anchors, files)
            if fault:
                yield page, fault
    for sheet in sorted(out.rglob("*.css")):
        for pair in IN_STYLE.findall(sheet.read_text(encoding="utf-8")):
            address = pair[0] or pair[1]
            if SCHEME.match(address) and not address.startswith("data:"):
                yield sheet.relative_to(out).as_posix(), f"style from elsewhere: {address}"


def _addresses(text: str) -> Iterator[tuple[str, str]]:
    for tag, attributes in TAG.findall(text):
        for _, address in ATTRIBUTE.findall(attributes):
            yield tag.lower(), address.replace("&amp;", "&")


def _fault(page: str, tag: str, address: str, anchors: dict[str, set[str]], files: set[str]) -> str:
    if SCHEME.match(address):
        loaded = tag in (*LOADED, "link") and not address.startswith("data:")
        return f"<{tag}> loads from elsewhere: {address}" if loaded else ""
    path, fragment = urldefrag(urljoin(page, address))
    path = unquote(path.split("?")[0]) or page
    if path not in files:
        return f"<{tag}> leads nowhere: {address}"
    if fragment and path in anchors and unquote(fragment) not in anchors[path]:
        return f"there is no anchor {address}"
    return ""


def look(app: Sphinx, error: Exception | None) -> None:
    """Warn of each fault."""
    if error is None and app.builder.format == "html":
        for page, fault in faults(Path(app.outdir)):
            logger.warning("%s: %s", page, fault, type="built_pages")


def front_door(app: Sphinx, error: Exception | None) -> None:
    """Lead from the top of the folder to the first page."""
    if error is None and app.builder.format == "html":
        page = f"{app.config.root_doc}.html"
        text = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>emcube</title>'
            f'<meta http-equiv="refresh" content="0; url={page}"><a href="{page}">emcube</a></html>\n'
        )
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def name_toggles(app: Sphinx, error: Exception | None) -> None:
    """Say to screen readers what the theme's toggles in the tree of pages are."""
    if error is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if UNNAMED in text:
            page.write_text(text.replace(UNNAMED, NAMED), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at everything when it is there."""
    app.connect("build-finished", front_door, priority=800)
    app.connect("build-finished", name_toggles, priority=800)
    app.connect("build-finished", look, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
