"""Endmembers of Samson (remote sensing, reference spectra of soil, tree and water)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import emcube as em


def radians(found, reference):
    """Plain angles between found and reference spectra, paired for the best."""
    a, b = (s / np.linalg.norm(s, axis=1, keepdims=True) for s in (found, reference))
    between = np.arccos(np.clip(b @ a.T, -1, 1))
    rows, columns = linear_sum_assignment(between)
    return between[rows, columns]


@pytest.fixture(scope="module")
def samson(data_dir):
    path = data_dir / "unmix_gt" / "Samson.mat"
    return em.open(path).load(), em.open(path, "GT").values


@pytest.mark.parametrize("estimator", [em.VCA, em.NFINDR])
def test_soil_and_tree_are_found(samson, estimator, record_property):
    cube, reference = samson
    soil, tree, water = radians(
        estimator(3, random_state=0).fit(cube).components_.values, reference
    )
    assert soil < 0.1
    assert tree < 0.1
    # Dark, so that its direction is poorly determined: reported, and not far off.
    record_property("water_rad", float(water))
    assert water < 0.3


def test_resolved_spectra_of_samson(samson, record_property):
    cube, reference = samson
    soil, tree, water = radians(
        em.MCRALS(3, random_state=0).fit(cube).components_.values, reference
    )
    assert soil < 0.1
    assert tree < 0.1
    record_property("water_rad", float(water))
