"""A catalog of very many entries: ``python -m benchmarks.catalogs [--entries 10000]``.

Processor time of opening it, of searching, of counting facets and of a change, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.clock import load, machine
from emcube.catalog import open_catalog
from emcube.catalog.document import change, put
from emcube.catalog.targets import halves_of

SEARCHES: list[dict[str, Any]] = [
    {"modality": "EDX", "elements": ["Ni", "Cr"]},
    {"text": "session 77 xeds"},
    {"beam_energy": (80, 300), "counts_per_pixel": (50, 60), "no_elements": ["Au"]},
    {"acquired": ("2026-03", "2026-04"), "instrument": "MICROSCOPE 3"},
    {"text": "nothing like it"},
]
"""Conditions of all kinds; the last one holds for no entry."""


def many(path: Path, n: int) -> Path:
    rng = np.random.default_rng(0)
    symbols = ["Ni", "Cr", "Si", "O", "Fe", "Al", "Ti", "Cu", "Zn", "Au"]

    def edit(document: dict[str, Any]) -> None:
        for i in range(n):
            metadata = {
                "title": f"Map {i} of session {i // 20}",
                "description": "A map taken in a night without anybody at the microscope.",
                "modality": ("EDS", "EELS", "4D-STEM")[i % 3],
                "elements": sorted(rng.choice(symbols, 3, replace=False).tolist()),
                "beam_energy_keV": float((60, 80, 200, 300)[i % 4]),
                "instrument": f"microscope {i % 7}",
                "session": f"S{i // 20:05d}",
                "acquired": f"2026-{i % 12 + 1:02d}-{i % 28 + 1:02d}T12:00:00",
                "dims": ["y", "x", "energy"],
                "sig_dims": ["energy"],
                "shape": [512, 512, 2048],
                "dtype": "uint8",
                "units": "counts",
                "axes": {
                    d: {"first": 0.0, "last": 511.0, "units": "nm"} for d in ("y", "x", "energy")
                },
                "digest": f"sha256:{i:064x}",
                "counts_per_pixel": float(i % 200),
            }
            put(
                document,
                f"map {i}",
                *halves_of(f"map {i}", "zarr", f"{{CATALOG_DIR}}/{i}.zarr", metadata),
            )

    change(path, edit)
    return path


def measure(n: int = 10_000) -> dict[str, Any]:
    """Time a catalog of `n` entries; the least of three, the first opening apart."""
    # What was parsed is kept in a cache: this one is empty.
    with (
        tempfile.TemporaryDirectory(prefix="emcube-catalogs-") as name,
        patch.dict(os.environ, EMCUBE_CACHE=str(Path(name) / "cache")),
    ):
        path = many(Path(name) / "large.yaml", n)
        for kept in (Path(name) / "cache").rglob("*.json"):
            kept.unlink()
        found: dict[str, Any] = {
            "entries": n,
            "bytes": path.stat().st_size,
            "first_open_ms": _ms(lambda: open_catalog(path), 1),
            "open_ms": _ms(lambda: open_catalog(path)),
        }
        catalog = open_catalog(path)
        found["search_ms"] = [_ms(lambda c=c: catalog.search(**c)) for c in SEARCHES]  # type: ignore[misc]
        found["facets_ms"] = _ms(lambda: catalog.facets("modality", "elements", "instrument"))
        found["change_ms"] = _ms(lambda: change(path, lambda document: None), 1)
    return {**found, "load": load(), "machine": machine()}


def _ms(work: Callable[[], Any], times: int = 3) -> float:
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - start))
    return round(min(taken), 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogs", description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    print(json.dumps(measure(parser.parse_args().entries), indent=2))
