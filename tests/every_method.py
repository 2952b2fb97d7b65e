"""Every method as a step of one recipe, and what must hold of a result that all of them are in.

A method that a recipe knows and that is not entered here fails `tests/recipe/test_every_method.py`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr

import emcube as em
from emcube.engine import plan_blocks
from emcube.store import plan_layout


@dataclass(frozen=True)
class Entry:
    """A method with the parameters that it runs with.

    Attributes
    ----------
    verb : str
    parameters : dict
        K stands for the number of components (`KEYS`); a method that draws numbers has a seed.
    name : str
        Of its node, where not the verb.
    counts_only : bool
        It is of counts alone, and left out of the recipe of other values.
    floats : dict
        Parameters that are others for such values.
    """

    verb: str
    parameters: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    counts_only: bool = False
    floats: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name of its node."""
        return self.name or self.verb

    def step(self, k: int, *, counts: bool) -> dict[str, Any]:
        """The step, of so many components or clusters."""
        asked = self.parameters | ({} if counts else self.floats)
        parameters = {key: k if value is K else value for key, value in asked.items()}
        return {self.verb: parameters | ({"name": self.name} if self.name else {})}


K: Any = object()
"""Stands for the number of components."""

SEED = {"random_state": 0}

METHODS = (
    Entry("estimate_n_components"),
    Entry(
        "survey_n_components",
        {"max_components": 2, "n_restarts": 2},
        counts_only=True,
    ),
    Entry("pca", {"n_components": K}),
    Entry("nmf", {"n_components": K, "max_iter": 20, **SEED}),
    Entry(
        "nmf",
        {"n_components": K, "beta_loss": "frobenius", "max_iter": 20, **SEED},
        name="nmf_squares",
    ),
    Entry("mcr", {"n_components": K, **SEED}),
    Entry("mcr", {"n_components": K, "closure": True, **SEED}, name="mcr_closed"),
    Entry("ica", {"n_components": K, **SEED}),
    Entry("ica", {"n_components": K, "domain": "spatial", **SEED}, name="ica_spatial"),
    Entry("varimax", {"n_components": K}),
    Entry("vca", {"n_components": K, **SEED}),
    Entry("nfindr", {"n_components": K, **SEED}),
    Entry("sisal", {"n_components": K, **SEED}),
    Entry("bayesian_unmixing", {"n_components": K, "n_warmup": 2, "n_draws": 4, **SEED}),
    Entry("kmeans", {"n_clusters": K, **SEED}),
    Entry("kmeans", {"n_clusters": K, "on": "nmf", **SEED}, name="kmeans_of_nmf"),
    Entry("gaussian_mixture", {"n_clusters": K, **SEED}),
    Entry(
        "gaussian_mixture",
        {"n_clusters": K, "on": "pca", "covariance_type": "tied", **SEED},
        name="gaussian_mixture_of_pca",
    ),
    Entry("poisson_mixture", {"n_clusters": K, **SEED}, counts_only=True),
    Entry("cluster_quality", {"of": "gaussian_mixture", "n_samples": 200, "n_repeats": 2}),
    # How far components can turn into each other takes much longer for five of them than for two.
    Entry("nmf", {"n_components": 2, "max_iter": 20, **SEED}, name="nmf_two"),
    Entry(
        "uncertainty",
        {"on": "nmf_two", "method": "bootstrap", "n_replicates": 2},
        floats={"on": "nmf_squares"},
    ),
    Entry("diagnostics", {"on": "nmf"}),
    Entry("phase_fractions", {"of": "kmeans", "n_draws": 2}),
    Entry("phase_fractions", {"of": "nmf_two", "n_draws": 2}, name="fractions_of_nmf"),
)
"""Add a method here: it then runs on every scene and every real map."""


def steps(k: int, *, counts: bool) -> list[dict[str, Any]]:
    """The steps of a recipe with all methods that apply."""
    return [entry.step(k, counts=counts) for entry in METHODS if counts or not entry.counts_only]


# ------------------------------------------------------------------------------------ small blocks


@contextlib.contextmanager
def small_blocks(chunk_bytes: int = 1, block_bytes: int = 1) -> Iterator[None]:
    """Cut stores into small chunks (not smaller than digests allow), and blocks at every chunk.

    What has no chunks, as scores in memory, is cut by the bytes of a block alone.
    """
    with (
        mock.patch(
            "emcube.store.write.plan_layout", functools.partial(plan_layout, target=chunk_bytes)
        ),
        mock.patch(
            "emcube.engine.source.plan_blocks",
            functools.partial(plan_blocks, target_bytes=block_bytes),
        ),
    ):
        yield


def every_chunk(store: str) -> contextlib.AbstractContextManager[None]:
    """Blocks at every chunk of a cube; of k scores of its pixels some k blocks, not one for every line."""
    cube = em.open(store)
    return small_blocks(block_bytes=8 * cube.size // cube.sizes[cube.em.sig_dims[-1]])


# ------------------------------------------------------------------------------- what must hold


def same_bits(one: Any, other: Any) -> None:
    """Assert that two results are the same run with the same bits in every variable."""
    assert other.run_id == one.run_id
    for step in one.steps:
        a, b = (r.tree[step].attrs["emcube"]["digests"] for r in (one, other))
        assert a, step
        assert a == b, step


def holds(result: Any) -> None:
    """Assert that every node of a result is whole, labelled, and finite where it must be."""
    assert result.verify() == {}
    used, totals = result["input"].get("used"), result["input"]["total_counts"].load()
    pixels = np.ones(totals.shape, bool) if used is None else used.values
    assert pixels.any()
    for step in result.steps:
        node = result[step].load()
        assert node.attrs["emcube"]["complete"], step
        for name, values in node.data_vars.items():
            assert "units" in values.attrs, (step, name)
            _finite(step, str(name), values, pixels, totals)


def _finite(
    step: str, name: str, values: xr.DataArray, pixels: np.ndarray, totals: xr.DataArray
) -> None:
    """Answers for pixels are numbers where pixels are used and nowhere else."""
    full = pixels & (totals.values != 0)
    if name == "labels":
        assert (values.values[~pixels] == -1).all(), step
        assert (values.values[full] >= 0).all(), step
    elif values.dims[: totals.ndim] == totals.dims:
        number = np.isfinite(values.values).reshape(*pixels.shape, -1).all(axis=-1)
        assert not number[~pixels].any(), (step, name)
        assert number[full].all(), (step, name)
    elif name == "components":
        assert np.isfinite(values.values).any(axis=-1).all(), (step, name)
    elif values.ndim == 0:
        assert np.isfinite(values.values), (step, name)


def ingested(cube: xr.DataArray, store: Path) -> Path:
    """The store of a cube in some four chunks."""
    with small_blocks(cube.nbytes // 4):
        path = Path(em.ingest(cube, store))
        opened = em.open(path)
    assert max(map(len, opened.chunks)) > 1, "one chunk only: nothing is combined"
    return path
