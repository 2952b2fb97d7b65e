"""The tree of pages, from one file, so that pages need no directives.

``docs/_pages.yml`` names below each page those that it leads to; a pattern takes all pages that no line
names. The tree stands beside the text, and in the text of the pages in `SHOWN`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.addnodes import toctree
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.matching import patfilter

FILE = "_pages.yml"
SHOWN = ("docs/decisions/index",)
ORDER: dict[str, list[str]] = {}


def children(order: dict[str, list[str]], page: str, known: set[str]) -> list[str]:
    """Pages below a page, in order; of the pages that exist.

    Raises
    ------
    ValueError
        A page is named that does not exist.
    """
    named = {entry for entries in order.values() for entry in entries if "*" not in entry} | set(
        order
    )
    found: list[str] = []
    for entry in order.get(page, []):
        if "*" in entry:
            found += sorted(set(patfilter(known, entry)) - named)
        elif entry in known:
            found.append(entry)
        else:
            raise ValueError(
                f"docs/{FILE} names {entry!r} below {page!r}, and there is no such page"
            )
    return found


class PageOrder(SphinxTransform):
    """Append the tree of a page to it."""

    # Before the pages' tables of contents are gathered, when the tree is read.
    default_priority = 100

    def apply(self, **options: Any) -> None:
        """Append it."""
        env = self.env
        page = env.docname
        below = children(ORDER, page, set(env.found_docs))
        sections = [n for n in self.document.children if isinstance(n, nodes.section)]
        if not below or not sections:
            return
        tree = toctree()
        tree.source, tree.line = self.document["source"], 1
        for key, value in {
            "parent": page,
            "entries": [(None, name) for name in below],
            "includefiles": below,
            "maxdepth": 1,
            "caption": None,
            "rawcaption": "",
            "glob": False,
            "hidden": page not in SHOWN,
            "includehidden": False,
            "numbered": 0,
            "titlesonly": True,
        }.items():
            tree[key] = value
        wrapper = nodes.compound(classes=["toctree-wrapper"])
        wrapper += tree
        sections[-1] += wrapper


def read_order(app: Sphinx) -> None:
    """Read the file."""
    text = (Path(app.confdir) / FILE).read_text(encoding="utf-8")
    ORDER.update(yaml.safe_load(text))


def all_pages(
    app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]
) -> set[str]:
    """Read pages with a tree again where pages came or went."""
    if not (added or removed):
        return set()
    return set(ORDER) & set(env.found_docs)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform."""
    app.connect("builder-inited", read_order)
    app.connect("env-get-outdated", all_pages)
    app.add_transform(PageOrder)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
