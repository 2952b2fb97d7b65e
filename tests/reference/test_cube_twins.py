"""Fast kernels of the cube against slow, obvious twins, one spectrum and one channel at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, curve_fit

from emcube.kernels.background import MAX_EXPONENT, subtract_power_law
from emcube.kernels.windows import NetWindow, net_counts

ENERGY = 350 + 0.5 * np.arange(300)


def naive_background(
    spectrum: list[float], energy: list[float], first: int, last: int
) -> list[float]:
    """Solve for the exponent by bisection, as the equation is written."""
    middle = first + (last - first) // 2
    area_1, area_2 = sum(spectrum[first:middle]), sum(spectrum[middle:last])

    def excess(r: float) -> float:
        sum_1 = sum((e / energy[first]) ** -r for e in energy[first:middle])
        sum_2 = sum((e / energy[first]) ** -r for e in energy[middle:last])
        return area_1 * sum_2 - area_2 * sum_1

    if area_1 + area_2 <= 0:
        return [0.0] * len(spectrum)
    if area_1 <= 0 or excess(0.0) <= 0:
        r = 0.0
    elif area_2 <= 0 or excess(MAX_EXPONENT) >= 0:
        r = MAX_EXPONENT
    else:
        r = brentq(excess, 0.0, MAX_EXPONENT, xtol=1e-13)
    area = sum((e / energy[first]) ** -r for e in energy[first:last])
    scale = (area_1 + area_2) / area
    return [scale * (e / energy[first]) ** -r if k >= first else 0.0 for k, e in enumerate(energy)]


@settings(max_examples=30)
@given(
    first=st.integers(0, 100),
    width=st.integers(2, 150),
    mean=st.sampled_from([0.01, 0.3, 10.0, 1e4]),
    exponent=st.floats(0.5, 7),
    offset=st.sampled_from([0.0, -0.5]),
)
def test_background_solves_the_equation(
    first: int, width: int, mean: float, exponent: float, offset: float
) -> None:
    rng = np.random.default_rng(0)
    spectra = rng.poisson(mean * (ENERGY / 350) ** -exponent, (8, 300)) + offset
    got = subtract_power_law(spectra, ENERGY, slice(first, first + width))
    for row, spectrum in zip(got, spectra, strict=True):
        background = naive_background(list(spectrum), list(ENERGY), first, first + width)
        want = np.where(np.arange(300) < first, 0.0, spectrum - np.array(background))
        np.testing.assert_allclose(row, want, rtol=1e-7, atol=1e-7 * max(1.0, mean))


def test_background_agrees_with_a_least_squares_fit_of_each_pixel() -> None:
    """Against the slow road of other programs: a weighted non-linear fit per pixel."""
    rng = np.random.default_rng(3)
    truth = 2e3 * (ENERGY / 350) ** -3.2
    spectra = rng.poisson(truth, (40, 300))
    fit = slice(20, 160)
    left = subtract_power_law(spectra, ENERGY, fit)
    fast, slow = [], []
    for row, spectrum in zip(left, spectra, strict=True):
        (a, r), _ = curve_fit(
            lambda e, a, r: a * (e / 350) ** -r,
            ENERGY[fit],
            spectrum[fit],
            p0=(2e3, 3.0),
            sigma=np.sqrt(spectrum[fit]),
        )
        fast.append((spectrum - row)[160:].sum())
        slow.append((a * (ENERGY / 350) ** -r)[160:].sum())
    want = truth[160:].sum()
    # Both are unbiased, agree within their common noise, and neither is much the better.
    assert np.mean(fast) == pytest.approx(want, rel=3e-3)
    assert np.mean(slow) == pytest.approx(want, rel=3e-3)
    assert np.corrcoef(fast, slow)[0, 1] > 0.8
    assert np.std(fast) < 1.4 * np.std(slow)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    spectra = np.random.default_rng(0).poisson(5.0, (50, 300))
    whole = subtract_power_law(spectra, ENERGY, slice(10, 90))
    monkeypatch.setattr("emcube.kernels.background._SLAB", 1000)
    np.testing.assert_array_equal(subtract_power_law(spectra, ENERGY, slice(10, 90)), whole)


def naive_net(spectrum: list[int], window: NetWindow) -> float:
    total = 0.0
    for channel in range(window.peak.start, window.peak.stop):
        total += spectrum[channel]
    for part, factor in window.background:
        for channel in range(part.start, part.stop):
            total -= factor * spectrum[channel]
    return total


def test_net_counts_channel_by_channel() -> None:
    block = np.random.default_rng(0).integers(0, 255, (3, 4, 60), dtype="u1")
    windows = [
        NetWindow(slice(10, 20)),
        NetWindow(slice(20, 31), ((slice(5, 9), 1.25), (slice(40, 44), 1.5))),
        NetWindow(slice(59, 60), ((slice(0, 1), 1.0),)),
    ]
    got = net_counts(block, windows)
    for y in range(3):
        for x in range(4):
            want = [naive_net(block[y, x].tolist(), window) for window in windows]
            np.testing.assert_allclose(got[y, x], want, rtol=1e-13)
