"""The benchmark of mixtures measures what it says."""

from __future__ import annotations

from pathlib import Path

import emcube as em
from benchmarks.mixtures import measure


def test_every_method_is_timed(tmp_path: Path) -> None:
    store = tmp_path / "map.zarr"
    em.ingest(em.scenes.srm2135c(scale=0.01, random_state=0).cube, store)
    found = measure(store, 3, threads=1, repeats=1)
    assert set(found) == {"GaussianMixture", "PoissonMixture", "KMeans and cluster_quality"}
    for numbers in found.values():
        assert numbers["seconds"] > 0
        assert numbers["rounds"] >= 5
