"""Jadeite, EELS and 4D-STEM: what the talk needs of each."""

from __future__ import annotations

import numpy as np
import pytest

import emcube  # noqa: F401  (registers .em)
from emcube import scenes
from emcube.errors import InputError


def test_jadeite_has_the_talks_size_and_dose():
    scene = scenes.jadeite()
    assert dict(scene.cube.sizes) == {"y": 384, "x": 512, "energy": 1564}
    part = scenes.jadeite(scale=0.02)
    counts = part.cube.values
    assert 270 < counts.sum(axis=-1).mean() < 340
    assert 0.07 < (counts > 0).mean() < 0.12


def test_jadeite_is_a_continuum_without_pure_pixels():
    loadings = scenes.jadeite(scale=0.1).loadings
    shares = (loadings / loadings.sum("component")).values.reshape(-1, 5)
    assert (shares[:, :3].max(axis=0) < 0.93).all()
    assert (shares[:, :3].max(axis=0) > 0.6).all()
    # In the rock all three are always there.
    rock = shares[:, 3:].sum(axis=1) < 0.01
    assert (shares[rock][:, :3] > 0.03).all()
    assert (shares[:, 3:].max(axis=0) > 0.8).all()


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.15])
def test_jadeite_gets_the_pure_pixels_asked_for(share):
    loadings = scenes.jadeite(scale=0.25, pure_pixels=share).loadings
    shares = (loadings / loadings.sum("component")).values.reshape(-1, 5)
    np.testing.assert_allclose((shares > 0.9999).mean(axis=0), share, rtol=0.12, atol=2e-4)


def test_jadeite_shares_silicon_and_the_embedding_keeps_some():
    components = scenes.jadeite(scale=0.01).components
    silicon = components.sel(energy=slice(1.66, 1.82)).sum("energy")
    assert (silicon > 0.01).all()
    assert float(silicon.sel(component="carbon")) < 0.2 * float(silicon.sel(component="silica"))
    carbon = components.sel(energy=slice(0.22, 0.34)).sum("energy")
    assert float(carbon.sel(component="carbon")) > 0.3


@pytest.mark.parametrize("share", [-0.1, 0.3, np.nan])
def test_jadeite_refuses_an_impossible_share(share):
    with pytest.raises(InputError, match="pure_pixels"):
        scenes.jadeite(scale=0.01, pure_pixels=share)


def test_eels_noise_is_what_it_says():
    scene = scenes.eels(gain=2.0, gain_noise=0.01, read_noise=3.0)
    assert scene.cube.dtype == np.float32
    recorded, expected = scene.cube.values.astype(float), scene.expected.values
    residual = recorded - expected
    # Half the cells fit the three terms of the variance, for expectations that vary fivefold.
    order = np.argsort(expected.ravel())
    for part in np.array_split(order, 5):
        m = expected.ravel()[part]
        variance = (2.0 * m + 1e-4 * m**2 + 9.0).mean()
        assert abs((residual.ravel()[part] ** 2).mean() / variance - 1) < 0.02
    assert abs(residual.mean()) < 0.2


def test_eels_is_all_background_below_the_edges():
    scene = scenes.eels()
    assert float(scene.cube.energy[0]) == 60
    assert float(scene.cube.energy[-1]) == 120
    edges = scene.components.sel(component=["Si", "SiO2"], energy=slice(60, 97.4))
    assert (edges == 0).all()
    assert scene.cube.sizes["y"] >= 62
    # A straight line in logarithms.
    background = scene.components.sel(component="background")
    slope = np.polyfit(np.log(background.energy), np.log(background), 1)[0]
    assert abs(slope + 3.0) < 1e-9


def test_the_talks_five_lines_run_on_the_eels_scene():
    s = scenes.eels().cube
    s_sig = s.em.remove_background(energy=(70.2, 97.2))
    s_crop = s_sig.isel(y=slice(12, 62)).sel(energy=slice(94.5, 110.1))
    spectrum = s_crop.sum(["y", "x"]).compute()
    peak = float(spectrum.energy[int(spectrum.values.argmax())])
    assert 107.5 < peak < 110.1
    before = spectrum.sel(energy=slice(94.5, 97.0))
    assert float(abs(before).max()) < 0.05 * float(spectrum.max())


def test_eels_refuses_nonsense():
    with pytest.raises(InputError, match="read_noise"):
        scenes.eels(read_noise=-1.0)
    with pytest.raises(InputError, match="electrons"):
        scenes.eels(electrons=np.nan)


def test_stem4d_shows_disks_on_lattices():
    scene = scenes.stem4d()
    assert dict(scene.cube.sizes) == {"y": 48, "x": 64, "ky": 64, "kx": 64}
    assert scene.cube.dtype == np.uint16
    centre = scene.components.sel(ky=0, kx=0, method="nearest")
    assert (centre == scene.components.max(["ky", "kx"])).all()
    # Crystals keep inversion symmetry (Friedel), to the bit of the symmetric grid.
    pattern = scene.components.values
    np.testing.assert_allclose(pattern, pattern[:, ::-1, ::-1], atol=1e-9)
    # Each phase is pure somewhere.
    shares = scene.loadings / scene.loadings.sum("component")
    assert (shares.max(["y", "x"]) > 0.99).all()


def test_stem4d_refuses_counts_that_do_not_fit():
    with pytest.raises(InputError, match="counts_per_pixel"):
        scenes.stem4d(counts_per_pixel=1e7)
