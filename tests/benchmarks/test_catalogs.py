"""The benchmark of a large catalog, with a small one."""

from __future__ import annotations

import os

from benchmarks.catalogs import SEARCHES, measure


def test_it_measures_every_kind_of_search() -> None:
    before = dict(os.environ)
    found = measure(60)
    assert found["entries"] == 60
    assert found["bytes"] > 60 * 500
    assert len(found["search_ms"]) == len(SEARCHES)
    for name in ("first_open_ms", "open_ms", "facets_ms", "change_ms"):
        assert found[name] > 0
    assert dict(os.environ) == before
