"""The five lines of the interface, literally: on the scene, and with its own windows on a real file."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import pytest

import emcube as em
from tests.cube.helpers import no_compute


def test_on_the_scene() -> None:
    s = em.scenes.eels(random_state=0).cube
    with dask.config.set(scheduler=no_compute):
        s_sig = s.em.remove_background(energy=(70.2, 97.2))
        s_crop = s_sig.isel(y=slice(12, 62)).sel(energy=slice(94.5, 110.1))
        profile = s_crop.sum(["y", "energy"])
    profile.plot()
    assert profile.dims == ("x",)
    assert np.isfinite(profile).all()


@pytest.mark.realdata
def test_on_a_real_file(data_dir: Path) -> None:
    pytest.importorskip("rsciio")
    s = em.open(data_dir / "eels" / "DMReader_SpectrumImage_SI-EELS.dm3")
    assert s.em.sig_dims == ("energy",)
    with dask.config.set(scheduler=no_compute):
        s_sig = s.em.remove_background(energy=(400.0, 520.0))
        s_crop = s_sig.isel(y=slice(12, 40)).sel(energy=slice(525.0, 600.0))
        profile = s_crop.sum(["y", "energy"])
    profile.plot()
    assert profile.sizes == {"x": s.sizes["x"]}
    # Nothing is left of the background itself, and something of an edge or of noise behind it.
    inside = s_sig.sel(energy=slice(400, 520)).mean().values
    assert abs(inside) < 1e-4 * float(s.sel(energy=slice(400, 520)).mean())
    assert np.isfinite(profile).all()
