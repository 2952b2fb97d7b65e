"""Measures against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from emcube import scenes
from emcube.errors import InputError
from emcube.scenes.metrics import (
    kk_angle,
    line_ratio,
    loadings_error,
    match_components,
    maximum_likelihood_loadings,
)


def test_angle_is_zero_for_multiples_and_ninety_for_strangers():
    s = np.array([1.0, 2.0, 0.0, 3.0])
    assert kk_angle(s, 7 * s, np.ones(4)) < 1e-7
    assert kk_angle(s, [0, 0, 1, 0], np.ones(4)) == pytest.approx(90)
    assert kk_angle([1.0, 1e-9], [1.0, 0.0], [1.0, 1.0]) == pytest.approx(np.rad2deg(1e-9))


def test_weighted_angle_sees_minor_lines():
    truth = np.array([0.90, 0.05, 0.05])
    without = np.array([0.90, 0.0, 0.05])
    mean = truth
    assert kk_angle(truth, without, mean) > 3 * kk_angle(truth, without, np.ones(3))


def test_nan_and_silent_channels_are_left_out():
    assert kk_angle([1.0, np.nan, 2.0, 5.0], [1.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 0.0]) < 1e-7


def test_matching_undoes_a_permutation():
    truth = np.eye(4) + 0.1
    order, angles = match_components(truth[[2, 0, 3, 1]], truth, np.ones(4))
    assert order.tolist() == [1, 3, 0, 2]
    assert angles.max() < 1e-6
    with pytest.raises(InputError, match="found"):
        match_components(truth[:2], truth, np.ones(4))


def test_line_ratio_takes_the_background_away():
    axis = np.linspace(0, 10, 1001)
    line = lambda at, area: area * np.exp(-0.5 * ((axis - at) / 0.05) ** 2)
    spectrum = line(3, 2.0) + line(7, 1.0) + 0.3 + 0.05 * axis
    assert line_ratio(spectrum, axis, (2.6, 3.4), (6.6, 7.4)) == pytest.approx(2.0, rel=1e-3)


def test_likelihood_is_highest_at_the_answer():
    scene = scenes.jadeite(scale=0.003)
    components = scene.components.values
    counts = scene.cube.values.reshape(-1, components.shape[1])[:3]
    found = maximum_likelihood_loadings(counts, components)
    for row, answer in zip(counts, found, strict=True):

        def loss(loadings, row=row):
            model = loadings @ components + 1e-12
            return model.sum() - row @ np.log(model)

        best = minimize(loss, answer + 1.0, bounds=[(0, None)] * 5, method="L-BFGS-B")
        assert loss(answer) <= best.fun + 1e-4
        assert answer.sum() == pytest.approx(row.sum(), rel=1e-8)


def test_loadings_error_is_relative():
    truth = np.ones((4, 2))
    assert loadings_error(truth, truth) == 0
    assert loadings_error(1.1 * truth, truth) == pytest.approx(0.1)
