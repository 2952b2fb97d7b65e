"""A whole analysis of more blocks than groups: as if eight groups and small blocks were the rule."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.cards import describe
from emcube.cube import make_cube
from emcube.cube.reduce import smoothed_counts
from emcube.engine import plan, plan_blocks, use_threads
from emcube.recipe import sums

SHAPE = (22, 30)
STEPS: list[Any] = [
    {"pca": {"n_components": 4}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 3, "random_state": 0}},
    {"kmeans": {"name": "on_loadings", "n_clusters": 3, "on": "nmf", "random_state": 0}},
]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_GROUPS", 8)
    monkeypatch.setattr(sums, "MAX_GROUPS", 8)
    small = functools.partial(plan_blocks, target_bytes=1)
    monkeypatch.setattr("emcube.engine.source.plan_blocks", small)


def cube_of(dtype: str = "u1") -> xr.DataArray:
    """Three phases, in 42 chunks."""
    rng = np.random.default_rng(0)
    channel = np.arange(40)
    spectra = np.stack([np.exp(-((channel - c) ** 2) / 20.0) for c in (8, 20, 32)])
    spectra /= spectra.sum(axis=1, keepdims=True)
    loadings = rng.dirichlet([0.2, 0.2, 0.2], size=SHAPE) * 100
    loadings[:6, :6] = 0.05
    values = rng.poisson(loadings @ spectra).astype(dtype)
    cube = make_cube(values, dims=("y", "x", "energy"), sig_dims=("energy",))
    return cube.chunk({"y": 4, "x": 5})


def files_of(result: Any, array: str) -> int:
    return sum(1 for f in (Path(result.path) / array / "c").rglob("*") if f.is_file())


@pytest.mark.parametrize("rule", [None, {"min_smoothed_counts": 50}])
def test_a_result_has_as_many_files_as_groups_and_the_same_bits_everywhere(
    many: None, cluster_client: Any, tmp_path: Path, rule: Any
) -> None:
    cube = cube_of()
    recipe: dict[str, Any] = {"emcube": 1, "steps": STEPS}
    if rule is not None:
        recipe["where"] = rule
    with use_threads(1):
        one = em.run(recipe, cube, out=tmp_path / "one")
    with use_threads(2):
        two = em.run(recipe, cube, out=tmp_path / "two")
    with cluster_client.as_current():
        processes = em.run(recipe, cube, out=tmp_path / "processes")
    layout = one.provenance["layout"]
    assert layout["block_shape"] == [4, 5]
    assert layout["group_shape"] == [1, 6]
    for other in (two, processes):
        assert other.run_id == one.run_id
        for step, node in one.tree.children.items():
            xr.testing.assert_identical(
                node.to_dataset().drop_attrs(), other.tree[step].to_dataset().drop_attrs()
            )
    assert one.verify() == {}
    assert files_of(one, "input/total_counts") == 6
    assert files_of(one, "pca/loadings") == 6
    assert files_of(one, "nmf/loadings") == 6
    assert files_of(one, "kmeans/labels") == 6
    assert not (tmp_path / "one" / "input" / "smoothing").exists()
    used = np.ones(SHAPE, bool) if rule is None else one["input"]["used"].values
    np.testing.assert_array_equal(np.isnan(one["nmf"]["loadings"].values[..., 0]), ~used)
    np.testing.assert_array_equal(
        one["input"]["total_counts"].values, cube.sum("energy").values.astype(float)
    )
    if rule is not None:
        np.testing.assert_array_equal(used, smoothed_counts(cube).values >= 50)
        assert 0 < used.sum() < used.size
    assert len(json.dumps(describe(str(one.path)), default=str)) < 20_000


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_smoothed_sums_of_many_chunks_are_those_of_dask(
    many: None, dtype: str, tmp_path: Path
) -> None:
    cube = cube_of(dtype)
    if dtype == "f4":
        cube = cube.where(cube.y != 3)
    found = sums.smooth_sums(cube, 1.5, tmp_path / "scratch")
    xr.testing.assert_identical(found, smoothed_counts(cube).compute())
    assert not (tmp_path / "scratch").exists()
