"""Several methods, one recommendation: right on scenes of known rank, and a refusal where they part."""

from __future__ import annotations

import numpy as np
import pytest

import emcube as em
from benchmarks.coverage import stripes as scene
from emcube.engine import use_threads
from emcube.errors import InputError
from emcube.kernels.poisson_nmf import floored
from emcube.models.component_survey import (
    _predicted,
    _recommended,
    _stable,
    gavish_donoho,
    malinowski,
)
from emcube.models.n_components import NComponentsEstimate


@pytest.fixture(scope="module")
def cube():
    return scene(200.0).draw(np.random.default_rng(0)).chunk(y=12)


@pytest.fixture(scope="module")
def survey(cube):
    return em.survey_n_components(cube, max_components=4)


def test_three_phases_are_three(survey):
    assert survey.n_components == 3
    assert survey.numbers["held-out"] == 3
    assert set(survey.numbers) == {
        "biwhitening", "parallel", "gavish-donoho", "malinowski", "elbow", "held-out", "stability",
        "consensus",
    }  # fmt: skip
    # Of three components all starts find the same; with one too many most of them do.
    assert survey.table.consensus.values[2] == 1.0
    assert survey.numbers["consensus"] in (3, 4)
    assert np.argmin(survey.table.indicator.values) + 1 == survey.numbers["malinowski"]
    assert "agree" in survey.reason
    assert "number of components: 3" in str(survey)
    gains = survey.table.gain.values / survey.table.gain_error.values
    assert (gains[1:3] > 10).all()
    assert gains[3] < 3


def test_few_counts_support_fewer(cube):
    few = scene(3.0).draw(np.random.default_rng(0))
    found = em.survey_n_components(few, max_components=4)
    assert found.n_components is None or found.n_components <= 3
    assert found.numbers["held-out"] <= 3


def test_thresholds_on_matrices_of_known_rank():
    rng = np.random.default_rng(1)
    signal = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 150)) * 0.6
    values = np.linalg.svd(signal + rng.normal(size=(400, 150)), compute_uv=False)
    noise = np.linalg.svd(rng.normal(size=(400, 150)), compute_uv=False)
    assert gavish_donoho(values, 400, 150) == 4
    assert gavish_donoho(noise, 400, 150) == 0
    assert malinowski(values, 400, 150) == 4
    # Square matrices have the threshold 4 / sqrt(3), as the paper says.
    just = np.array([4 / np.sqrt(3) + 1e-6, 4 / np.sqrt(3) - 1e-6]) * np.sqrt(100)
    assert gavish_donoho(just, 100, 100) == 1
    assert malinowski(values[:3], 3, 3) is None


def test_held_out_gains_are_those_of_the_likelihood(cube):
    """Two models on one block by hand: loadings of one half, log-likelihood of the other."""
    from emcube.kernels.poisson_nmf import as_rows, poisson_loadings
    from emcube.models.component_survey import HeldOutSweep
    from emcube.models.labels import as_source
    from emcube.models.replicates import ThinDraw

    source, _ = as_source(cube)
    block = source.load(0)
    draws = tuple(ThinDraw(0, 0, (0.5, 0.5), i) for i in (0, 1))
    models = tuple(em.MiniBatchNMF(k, random_state=0).fit(cube)._values for k in (1, 2))
    found = HeldOutSweep(models, draws).map(block, None, (0, 0, 0))
    seen, hidden = (as_rows(d(block).data) for d in draws)
    x = hidden.to_dense()
    scores = []
    for s in models:
        mu = poisson_loadings(seen, s) @ floored(s)
        scores.append((x * np.log(np.maximum(mu, 1e-12)) - mu).sum(axis=1))
    gain = scores[1] - scores[0]
    np.testing.assert_allclose(found[0], [gain.sum(), np.square(gain).sum()], rtol=1e-8)


def test_rules_of_the_recommendation(survey):
    def asked(biwhitening, held_out, stable, *, trusted=True, most=6, starts=9, last=50.0):
        estimate = survey.estimate
        found = NComponentsEstimate(
            estimate.n_components, "no law", "biwhitening", trusted, estimate.margin,
            estimate.threshold, estimate.curve, estimate.alternatives, estimate.noise,
        )  # fmt: skip
        numbers = {"biwhitening": biwhitening, "held-out": held_out, "stability": stable}
        halves, restarts = (frozenset(range(1, n + 1)) for n in (stable, starts))
        gains = np.array([900.0, 100.0, last, 20.0, 10.0])
        return _recommended(found, numbers, most, gains, halves, restarts)

    assert asked(3, 3, 3)[0] == 3
    assert asked(3, 4, 4)[0] == 4
    # A gain of a hundredth of the one before is within what small errors of the others cost.
    n, reason = asked(3, 4, 4, last=1.0)
    assert n == 3
    assert "what is gained beyond 3 is 1 %" in reason
    assert asked(1, 2, 2)[0] == 2
    assert asked(4, 3, 3)[0] == 3
    n, reason = asked(6, 2, 2)
    assert n is None
    assert "too far apart" in reason
    assert asked(None, 3, 3, trusted=False)[0] == 3
    n, reason = asked(None, 3, 1, trusted=False)
    assert n is None
    assert "no law" in reason
    n, reason = asked(None, 3, 3, trusted=False, starts=2)
    assert n is None
    assert "random starts do not agree" in reason
    n, reason = asked(3, 3, 3, starts=2)
    assert n == 3
    assert "do not agree on 3 components" in reason
    n, reason = asked(9, 6, 6)
    assert n is None
    assert "raise max_components" in reason
    assert _predicted(np.array([[100.0, 1.0], [2.0, 1.0], [50.0, 1.0]])) == 2
    assert _stable(np.array([0.0, 3.0, 50.0, 10.0])) == 4
    assert _stable(np.array([40.0])) is None


def test_same_bits_on_threads(cube, survey):
    with use_threads(1):
        one = em.survey_n_components(cube, max_components=4)
    np.testing.assert_array_equal(one.table.gain, survey.table.gain)
    np.testing.assert_array_equal(one.table.worst_angle, survey.table.worst_angle)
    np.testing.assert_array_equal(one.table.consensus, survey.table.consensus)


def test_one_figure_shows_all_methods(survey):
    figure = survey.plot()
    assert len(figure.axes) == 6
    with pytest.raises(InputError, match="missing"):
        em.plot.component_survey(survey.table.drop_vars("gain"), survey.numbers)


def test_what_is_no_count_is_refused(cube):
    with pytest.raises(InputError, match="deals counts to halves"):
        em.survey_n_components(cube.astype(float))
    for name in ("max_components", "n_restarts"):
        with pytest.raises(InputError, match=f"{name} must be a whole number from 2 on"):
            em.survey_n_components(cube, **{name: 1})
