"""Selections of fitted models, and the way back from loadings."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.errors import InputError


@pytest.fixture(scope="module")
def cube():
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.dirichlet(np.ones(3), (6, 3)) @ rng.dirichlet(np.ones(40), 3) * 300)
    return em.make_cube(counts, dims=("y", "x", "energy"), sig_dims=("energy",))


MODELS = [
    em.IncrementalPCA(3),
    em.MiniBatchNMF(3, max_iter=5, random_state=0),
    em.KMeans(3, random_state=0),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("lazy", [True, False])
def test_a_fitted_model_keeps_its_channels(cube, model, lazy):
    cube = cube if lazy else cube.compute()
    pixels = cube.y < 4
    both = pixels & (cube.energy > 10)
    model.fit(cube)
    answer = model.transform if hasattr(model, "inverse_transform") else model.predict
    np.testing.assert_array_equal(answer(cube, where=both), answer(cube, where=pixels))
    assert model.score(cube, where=both) == model.score(cube, where=pixels)


def test_partial_fit_goes_on_with_the_channels_of_the_first_call(cube):
    both = (cube.y < 4) & (cube.energy > 10)
    ours = em.IncrementalPCA(3).partial_fit(cube).partial_fit(cube, where=both)
    plain = em.IncrementalPCA(3).partial_fit(cube).partial_fit(cube, where=cube.y < 4)
    xr.testing.assert_identical(ours.components_, plain.components_)


@pytest.mark.parametrize("model", MODELS[:2], ids=lambda m: type(m).__name__)
def test_dims_and_numbers_of_components_say_their_order(cube, model):
    # As many columns as components: a mistake would not show in the shape.
    loadings = model.fit(cube).transform(cube)
    rebuilt = model.inverse_transform(loadings)
    for same in (loadings.transpose("y", "component", "x"), loadings.isel(component=[2, 0, 1])):
        xr.testing.assert_identical(model.inverse_transform(same).compute(), rebuilt.compute())
    named = loadings.assign_coords(component=["a", "b", "c"])
    np.testing.assert_array_equal(model.inverse_transform(named), rebuilt)
    with pytest.raises(InputError, match="need a dim 'component'"):
        model.inverse_transform(loadings.rename(component="k"))
