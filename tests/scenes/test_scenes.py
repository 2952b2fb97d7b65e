"""All scenes: truth that adds up, counts drawn from it, and the same bits however they are asked for."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest

from emcube import scenes
from emcube.cube import get_metadata, nav_dims, sig_dims, validate_cube
from emcube.errors import InputError

MAKERS = {
    "srm2135c": lambda **kw: scenes.srm2135c(scale=kw.pop("scale", 0.01), **kw),
    "jadeite": lambda **kw: scenes.jadeite(scale=kw.pop("scale", 0.01), **kw),
    "eels": lambda **kw: scenes.eels(scale=kw.pop("scale", 0.2), **kw),
    "stem4d": lambda **kw: scenes.stem4d(scale=kw.pop("scale", 0.1), **kw),
}
COUNTING = ("srm2135c", "jadeite", "stem4d")


@pytest.fixture(scope="module")
def made():
    return {name: make() for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_truth_adds_up(made, name):
    scene = made[name]
    sig = sig_dims(scene.cube)
    np.testing.assert_allclose(scene.components.sum(list(sig)), 1.0, rtol=1e-12)
    assert (scene.components >= 0).all()
    assert (
        scene.n_components
        == scene.components.sizes["component"]
        == scene.loadings.sizes["component"]
    )
    assert scene.why
    loadings = scene.loadings.values
    assert (loadings >= 0).all()
    product = np.tensordot(loadings, scene.components.values, axes=1)
    np.testing.assert_allclose(scene.expected.values, product, rtol=1e-10, atol=1e-14)
    # Neither the components nor their maps follow from one another: the stated number is the rank.
    flat = scene.components.values.reshape(scene.n_components, -1)
    for matrix in (flat, loadings.reshape(-1, scene.n_components)):
        unit = matrix / np.linalg.norm(matrix, 2)
        assert np.linalg.svd(unit, compute_uv=False)[-1] > 0.01


@pytest.mark.parametrize("name", MAKERS)
def test_cube_is_a_valid_lazy_cube(made, name):
    scene = made[name]
    validate_cube(scene.cube)
    assert dask.is_dask_collection(scene.cube.data)
    assert dask.is_dask_collection(scene.loadings.data)
    meta = get_metadata(scene.cube)
    assert meta.modality in ("EDS", "EELS", "4D-STEM")
    assert meta.source.reader == f"emcube.scenes.{name}"
    assert scene.cube.sizes == scene.expected.sizes
    for dim in scene.cube.dims:
        assert scene.cube[dim].attrs["units"]
        np.testing.assert_array_equal(scene.cube[dim], scene.expected[dim])
    assert nav_dims(scene.cube) == scene.loadings.dims[:-1]


@pytest.mark.parametrize("name", MAKERS)
def test_bits_are_those_of_the_parameters_alone(made, name):
    scene = made[name]
    whole = scene.cube.values
    np.testing.assert_array_equal(MAKERS[name]().cube.values, whole)
    assert (MAKERS[name](random_state=1).cube.values != whole).any()
    # Other chunks, a selection, and another process's copy see the same counts.
    nav = nav_dims(scene.cube)
    np.testing.assert_array_equal(scene.cube.chunk(dict.fromkeys(nav, 7)).values, whole)
    corner = scene.cube.isel({d: slice(1, 4) for d in nav})
    np.testing.assert_array_equal(corner.values, whole[(slice(1, 4),) * len(nav)])
    copy = pickle.loads(pickle.dumps(scene.cube))
    np.testing.assert_array_equal(copy.isel({nav[0]: 0}).values, whole[0])


@pytest.mark.parametrize("name", MAKERS)
def test_block_size_does_not_change_the_counts(made, name, monkeypatch):
    whole = made[name].cube.values
    from emcube.scenes import base

    monkeypatch.setattr(base, "BLOCK_BYTES", 60_000)
    small = MAKERS[name]()
    assert small.cube.data.npartitions > 1
    np.testing.assert_array_equal(small.cube.values, whole)


@pytest.mark.parametrize("name", COUNTING)
def test_counts_are_poisson_about_the_expectation(made, name):
    scene = made[name]
    counts, expected = scene.cube.values.astype(float), scene.expected.values
    assert scene.cube.dtype.kind == "u"
    total = expected.sum()
    assert abs(counts.sum() - total) < 5 * np.sqrt(total)
    seen = expected > 1e-3
    chi2 = (counts[seen] - expected[seen]) ** 2 / expected[seen]
    # Variance of (n - m)^2 / m is 2 + 1/m.
    spread = np.sqrt((2.0 + 1.0 / expected[seen]).sum()) / seen.sum()
    assert abs(chi2.mean() - 1.0) < 5 * spread
    # Sums along pixels and along channels are right everywhere, not only in total.
    n_nav = len(nav_dims(scene.cube))
    for axes in (tuple(range(n_nav)), tuple(range(n_nav, counts.ndim))):
        m, c = expected.sum(axis=axes), counts.sum(axis=axes)
        z = ((c - m) / np.sqrt(np.maximum(m, 1e-12)))[m > 5]
        assert abs((z**2).mean() - 1.0) < 6 * np.sqrt(2.5 / z.size)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("scale", [0, -1, np.inf, np.nan, "big"])
def test_refuses_a_scale_that_is_none(name, scale):
    with pytest.raises(InputError, match="scale"):
        MAKERS[name](scale=scale)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("state", [-1, 0.5, None])
def test_refuses_a_random_state_that_cannot_be_repeated(name, state):
    with pytest.raises(InputError, match="random_state"):
        MAKERS[name](random_state=state)


def test_nothing_is_drawn_until_asked(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("a scene computed while it was made")

    with dask.config.set(scheduler=forbidden):
        for make in MAKERS.values():
            make()


def test_scenes_of_any_size_are_described_at_once():
    assert scenes.srm2135c(scale=30).cube.size > 3e10
    assert scenes.jadeite(scale=50).cube.size > 1e10
    block = scenes.jadeite(scale=50).cube.isel(y=slice(100, 102), x=slice(0, 50)).values
    assert block.sum() > 0
