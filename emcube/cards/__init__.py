"""What something holds: as plain data, as text of a few lines, as a card on a terminal or in a notebook.

Something is described once (`describing`), as plain data that ``--json`` prints. A card (`card`) chooses of
that what people look for, and is written for terminals (`terminal`) and notebooks (`page`).
"""

from __future__ import annotations

from emcube.cards.describing import (
    catalog_search,
    describe,
    describe_catalog,
    describe_cube,
    describe_entry,
    describe_estimate,
    describe_result,
)
from emcube.cards.text import render, visible

__all__ = [
    "catalog_search",
    "describe",
    "describe_catalog",
    "describe_cube",
    "describe_entry",
    "describe_estimate",
    "describe_result",
    "render",
    "visible",
]
