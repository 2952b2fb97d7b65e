"""The needle: sizes, layers, views, spectra."""

from __future__ import annotations

import numpy as np
import pytest

from emcube import scenes


@pytest.fixture(scope="module")
def scene():
    return scenes.srm2135c(scale=0.05)


def test_scale_one_is_the_talks_cube():
    scene = scenes.srm2135c(scale=1)
    assert dict(scene.cube.sizes) == {"tilt": 73, "y": 124, "x": 165, "energy": 900}
    np.testing.assert_allclose(scene.cube.tilt, np.arange(0, 361, 5))
    assert scene.cube.dtype == np.uint8
    assert scene.components.component.values.tolist() == ["Ni", "Cr", "Si"]


@pytest.mark.parametrize("scale", [0.02, 0.1, 0.5, 3.0])
def test_scale_is_the_share_of_pixels(scale):
    sizes = scenes.srm2135c(scale=scale).cube.sizes
    share = sizes["tilt"] * sizes["y"] * sizes["x"] / (73 * 124 * 165)
    assert 0.93 * scale < share < 1.07 * scale
    assert sizes["energy"] == 900
    assert (sizes["tilt"] - 1) % 2 == 0


def test_the_last_view_is_the_first_with_other_noise(scene):
    np.testing.assert_array_equal(scene.loadings[0], scene.loadings[-1])
    assert float(scene.cube.tilt[0]) == 0
    assert float(scene.cube.tilt[-1]) == 360
    assert (scene.cube[0].values != scene.cube[-1].values).any()
    # The views between differ: drift, oval section, shadow.
    assert not np.allclose(scene.loadings[0], scene.loadings[1], rtol=0.02)


def test_nine_layers_of_56_nm_stay_edge_on(scene):
    """Along the axis Ni and Cr take turns, five and four of them, in every view."""
    pixel = float(scene.cube.x[1] - scene.cube.x[0])
    profile = scene.loadings.sum("y").values
    share = profile / profile.sum(axis=-1, keepdims=True)
    for view in share:
        order = view.argmax(axis=-1)[view.max(axis=-1) > 0.5]
        first = int(np.flatnonzero(view.max(axis=-1) > 0.5)[0])
        borders = first + np.flatnonzero(np.diff(order, prepend=-1))
        assert order[borders - first].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 2]
        # The first border lies 56 nm below the apex, the last one 9 x 56 nm.
        np.testing.assert_allclose(np.diff(borders[1:]) * pixel, 56, atol=1.01 * pixel)
        assert abs((borders[-1] - borders[1]) * pixel - 8 * 56) < 1.5 * pixel


def test_the_needle_tapers_and_has_vacuum_beside(scene):
    total = scene.loadings.sum("component")
    width = (total > 0.05 * total.max()).sum("y").values
    last = width.shape[1] - 2
    assert (width[:, last] > 1.4 * width[:, width.shape[1] // 4]).all()
    assert (total.isel(y=0) < 0.02 * total.max()).all()


def test_shadow_hides_the_detector_near_120_degrees(scene):
    by_tilt = scene.loadings.sum(["y", "x", "component"])
    darkest = float(by_tilt.tilt[int(by_tilt.values.argmin())])
    assert 100 <= darkest <= 140
    assert 0.3 < float(by_tilt.min() / by_tilt.max()) < 0.6


def test_counts_are_as_low_as_in_the_talk(scene):
    counts = scene.cube.values
    per_pixel = counts.sum(axis=-1, dtype=np.int64)
    assert 10 < per_pixel.mean() < 20
    assert 0.010 < (counts > 0).mean() < 0.014
    on_needle = per_pixel > 20
    assert np.median(counts.max(axis=-1)[on_needle]) < 10
    assert (counts.max(axis=-1)[on_needle] < 10).mean() > 0.97


def test_every_phase_has_carbon_and_copper_from_the_surroundings(scene):
    spectrum = scene.components
    for line, beside in ((0.277, 0.40), (8.04, 7.80)):
        for phase in ("Cr", "Si"):
            at = float(spectrum.sel(component=phase).sel(energy=line, method="nearest"))
            off = float(spectrum.sel(component=phase).sel(energy=beside, method="nearest"))
            assert at > 2 * off


def test_main_lines_are_where_they_belong(scene):
    energy = scene.components.energy.values
    tops = energy[scene.components.values.argmax(axis=1)]
    np.testing.assert_allclose(tops, [7.475, 5.412, 1.740], atol=0.011)
    # Kb / Ka of Ni from the line library: 0.145 within the shapes' overlap.
    ratio = scenes.metrics.line_ratio(
        scene.components.sel(component="Cr"), energy, (5.75, 6.15), (5.1, 5.7)
    )
    assert 0.12 < ratio < 0.16
