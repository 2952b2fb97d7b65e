"""Catalogs: Intake 2 files that plain Intake reads, found in by metadata, and never run.

``open_catalog`` looks, ``add``, ``add_family``, ``crawl`` and ``remove`` change a file, ``fetch``
brings published data here,
``verify_catalog`` holds a catalog against its data.
"""

from __future__ import annotations

from emcube.catalog.adding import add, add_family, create, remove
from emcube.catalog.model import Catalog, Entry, open_catalog, resolve
from emcube.catalog.search import normal_modality

__all__ = [
    "Catalog",
    "Entry",
    "add",
    "add_family",
    "create",
    "normal_modality",
    "open_catalog",
    "remove",
    "resolve",
]
