"""The needle's spectra against the factors digitised from the published figure."""

from __future__ import annotations

import numpy as np
import pytest

from emcube import scenes
from emcube.scenes.metrics import line_ratio

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def factors(data_dir):
    table = np.genfromtxt(
        data_dir / "srm2135c_factors_BSS_digitised.csv", delimiter=",", skip_header=1
    )
    table = table[np.isfinite(table).all(axis=1)]
    components = scenes.srm2135c(scale=0.01).components
    energy = table[:, 0]
    inside = energy <= float(components.energy[-1])
    ours = components.interp(energy=energy[inside]).values
    return energy[inside], table[inside, 1:].T, ours


def test_main_peaks_are_at_the_same_place_and_as_wide(factors):
    energy, published, ours = factors
    for theirs, mine in zip(published, ours, strict=True):
        assert abs(energy[theirs.argmax()] - energy[mine.argmax()]) <= 0.0101
        wide = [int((s > s.max() / 2).sum()) for s in (theirs, mine)]
        assert abs(wide[0] - wide[1]) <= 2


def test_shapes_agree(factors):
    _, published, ours = factors
    for theirs, mine in zip(published, ours, strict=True):
        cosine = theirs @ mine / np.linalg.norm(theirs) / np.linalg.norm(mine)
        assert cosine > 0.99


def test_k_beta_to_k_alpha_agrees(factors):
    energy, published, ours = factors
    # Nickel by height: the Cu line of the grid lies beside its Kb, where its background would be taken.
    for k, beta in ((0, 8.25), (1, 5.94)):
        near = np.abs(energy - beta) < 0.05
        heights = [s[near].max() / s.max() for s in (published[k], ours[k])]
        assert heights[0] == pytest.approx(heights[1], rel=0.10)
    ratios = [line_ratio(s[1], energy, (5.78, 6.12), (5.1, 5.7)) for s in (published, ours)]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.15)


def test_background_and_escape_peaks_are_of_the_same_order(factors):
    energy, published, ours = factors
    at = np.abs(energy - 3.1) < 0.05
    for theirs, mine in zip(published, ours, strict=True):
        assert 0.5 < (mine[at].mean() / mine.max()) / (theirs[at].mean() / theirs.max()) < 2.0
    # Escape of Cr Ka at 3.67 keV rises above its surroundings in both.
    for cr in (published[1], ours[1]):
        peak = cr[np.abs(energy - 3.67) < 0.03].mean()
        beside = cr[np.abs(energy - 3.35) < 0.05].mean()
        assert peak > 1.15 * beside
