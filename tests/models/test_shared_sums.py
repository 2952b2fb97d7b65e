"""Fits inside one context read the cube once, whatever fits the memory, and give the bits they have alone."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

import emcube as em
from emcube.engine import DaskSource, resident, run_sweep, run_sweeps, use_threads
from emcube.models.labels import as_source
from emcube.models.noise import PoissonNoise
from emcube.models.pca_sweeps import GramSweep
from emcube.models.sweeps import TotalsSweep


@pytest.fixture(scope="module")
def cube():
    rng = np.random.default_rng(5)
    spectra = rng.dirichlet(np.full(60, 0.5), 3)
    counts = rng.poisson(200 * rng.dirichlet(np.ones(3), (40, 30)) @ spectra).astype(np.uint16)
    lazy = da.from_array(counts, chunks=(5, 30, 60))
    return em.make_cube(lazy, dims=("y", "x", "energy"), sig_dims=("energy",), name="shared")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("emcube.engine.plan.plan_blocks.__kwdefaults__", {"target_bytes": 20_000})


@pytest.fixture
def loads(monkeypatch):
    found = []
    load = DaskSource.load

    def watched(self, block_id):
        found.append(block_id)
        return load(self, block_id)

    monkeypatch.setattr(DaskSource, "load", watched)
    return found


def answers(cube):
    found = em.estimate_n_components(cube)
    pca = em.IncrementalPCA(4).fit(cube)
    clusters = em.KMeans(3, random_state=0).fit(cube)
    return [
        found.curve["singular_value"].values,
        found.alternatives["parallel"],
        pca.components_.values,
        pca.explained_variance_.values,
        clusters.cluster_centers_.values,
        np.asarray(clusters.labels_),
    ]


@pytest.mark.usefixtures("small_blocks")
def test_one_read_serves_all_and_changes_nothing(cube, loads):
    alone = answers(cube)
    assert len(loads) == 3 * 8
    loads.clear()
    with resident():
        run_sweeps([TotalsSweep(counts=False), GramSweep(PoissonNoise())], as_source(cube)[0])
        assert sorted(loads) == list(range(8))
        shared = answers(cube)
    assert len(loads) == 8
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("small_blocks")
def test_sums_are_found_again_where_the_blocks_are_not_kept(cube, loads):
    # 60 x 60 numbers and the totals are a quarter of this; no block fits beside them and the rest.
    with resident(limit=4 * (8 * 60 * 60 + 8 * 60)) as residency:
        pca = em.IncrementalPCA(4).fit(cube)
        used = residency.used
        loads.clear()
        again = em.IncrementalPCA(7).fit(cube)
        run_sweep(TotalsSweep(counts=True), as_source(cube)[0])
        assert not loads
        assert residency.used == used <= residency.limit
    np.testing.assert_allclose(again.components_[:4], pca.components_, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_the_estimate_has_the_same_bits_on_threads_and_processes(cube, cluster_client):
    found = []
    for n in (1, 2, 4):
        with use_threads(n):
            found.append(em.estimate_n_components(cube))
    with cluster_client.as_current():
        found.append(em.estimate_n_components(cube))
    for other in found[1:]:
        assert other.alternatives == found[0].alternatives
        assert other.noise == found[0].noise
        np.testing.assert_array_equal(
            other.curve["singular_value"].values, found[0].curve["singular_value"].values
        )
