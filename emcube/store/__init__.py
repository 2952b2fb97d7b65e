"""Cube stores: Zarr v3 groups with a cube, its coordinates, quicklooks, companions and digest.

>>> from emcube.store import open_cube, plan_layout, write_cube
>>> plan_layout((384, 512, 1564), n_sig=1, itemsize=1).chunks
(20, 512, 1564)
"""

from __future__ import annotations

from emcube.addresses import is_url
from emcube.store.attributes import to_json
from emcube.store.events import EVENT_ARRAYS
from emcube.store.layout import Layout, plan_layout
from emcube.store.links import check_links
from emcube.store.open import (
    is_store,
    is_zarr,
    kept_as_events,
    open_cube,
    read_digest,
    stored_reader,
)
from emcube.store.upload import write_remote_cube
from emcube.store.verify import StoreInfo, Verification, digest, info, verify
from emcube.store.write import IngestProgress, compute_digest, write_cube

__all__ = [
    "EVENT_ARRAYS",
    "IngestProgress",
    "Layout",
    "StoreInfo",
    "Verification",
    "check_links",
    "compute_digest",
    "digest",
    "info",
    "is_store",
    "is_url",
    "is_zarr",
    "kept_as_events",
    "open_cube",
    "plan_layout",
    "read_digest",
    "stored_reader",
    "to_json",
    "verify",
    "write_cube",
    "write_remote_cube",
]
