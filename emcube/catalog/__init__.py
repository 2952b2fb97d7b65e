"""Catalogs of cube stores: Intake 2 files that plain Intake reads, searched by metadata."""

from __future__ import annotations

from emcube.catalog.model import Catalog, Entry, add, create, open_catalog, resolve
from emcube.catalog.search import normal_modality

__all__ = ["Catalog", "Entry", "add", "create", "normal_modality", "open_catalog", "resolve"]
