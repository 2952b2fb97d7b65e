"""MiniBatchNMF with known spectra, a basis, sparsity and smoothness: truth, labels, bits, refusals."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.engine import use_threads
from emcube.errors import InputError, SelectionError
from emcube.scenes.metrics import match_components

RATE = (12, 10)  # pixels of a block in the tests of blocks


@pytest.fixture(scope="module")
def film():
    """Two smooth phases and a third in grains: 48 x 50 pixels of 25 counts, 60 channels."""
    return make_film(25.0, seed=0)


def make_film(counts_per_pixel, seed):
    """Cube, true spectra, true abundances (y, x, 3)."""
    rng = np.random.default_rng(seed)
    energy = 0.1 + 0.05 * np.arange(60)
    lines = ((0.5, 1.2), (0.9, 2.2), (1.2, 1.6))
    spectra = np.exp(-energy / 2.0) * 0.04 + sum(
        np.exp(-0.5 * ((energy - np.array(line)[:, None]) / 0.06) ** 2) for line in zip(*lines, strict=True)
    )[:, None, :].reshape(-1, 60)[:1] * 0.0
    shapes = []
    for pair in lines:
        shapes.append(
            0.05 * np.exp(-energy / 2.0)
            + sum(np.exp(-0.5 * ((energy - e) / 0.06) ** 2) for e in pair)
        )
    spectra = np.array(shapes)
    spectra /= spectra.sum(axis=1, keepdims=True)
    y, x = np.mgrid[:48, :50]
    wave = 0.5 + 0.45 * np.sin(x / 8.0 + y / 15.0)
    grain = ((x % 17 - 8) ** 2 + (y % 16 - 8) ** 2 < 20).astype(float)
    shares = np.stack([wave * (1 - grain), (1 - wave) * (1 - grain), grain], axis=-1)
    thickness = 1.0 + 0.5 * (x > 25)
    counts = rng.poisson(counts_per_pixel * thickness[..., None] * (shares @ spectra))
    cube = em.make_cube(
        counts.astype(np.uint16),
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": energy},
        units={"energy": "keV", "y": "nm", "x": "nm"},
    )
    return cube, spectra, shares
