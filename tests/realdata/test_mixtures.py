"""Mixtures on real maps: counts with few and many a pixel, and spectra that are no counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import emcube as em

pytestmark = pytest.mark.realdata


def net(spectra: xr.DataArray, name: str) -> np.ndarray:
    """Net counts of an X-ray line in each of some spectra."""
    known = spectra.fillna(0).assign_attrs(sig_dims=["energy"], units="counts")
    return np.asarray(known.em.lines([name]))[:, 0]


@pytest.mark.parametrize("make", [em.GaussianMixture, em.PoissonMixture])
def test_clusters_of_core_shell_are_support_shell_and_core(data_dir: Path, make) -> None:
    cube = em.open(data_dir / "eds_tem_fept" / "core_shell.hspy")
    model = make(3, random_state=0).fit(cube)
    assert model.converged_
    platinum, iron = (net(model.cluster_centers_, line) for line in ("Pt_La", "Fe_Ka"))
    core, support = int(platinum.argmax()), int((platinum + iron).argmin())
    assert core != support
    assert platinum[core] > 5 * abs(platinum[support])
    total = cube.em.total_counts().values
    labels = np.asarray(model.labels_)
    assert total[labels == core].mean() > 1.7 * total[labels == support].mean()


@pytest.mark.parametrize("make", [em.GaussianMixture, em.PoissonMixture])
def test_dacite_runs_with_a_selection(data_dir: Path, make) -> None:
    cube = em.open(data_dir / "eds_sem_dacite_P45" / "P45_the_default_job.bcf")
    used = cube.em.smoothed_counts() > 10
    model = make(3, random_state=0).fit(cube, where=used)
    labels = np.asarray(model.labels_)
    assert (labels[~np.asarray(used)] == -1).all()
    assert np.isfinite(model.bic_)
    assert model.weights_.min() > 0.01


def test_eels_by_scores(data_dir: Path) -> None:
    """Spectra that are no counts are clustered by their principal component scores."""
    cube = em.open(data_dir / "eels" / "CuZn_EELS_mapping_tutorial.hspy").astype(np.float32)
    model = em.GaussianMixture(3, random_state=0).fit(cube)
    assert model.features_ == "scores"
    sure = np.asarray(model.predict_proba(cube).max("cluster"))
    assert np.isfinite(sure).all()
    assert sure.mean() > 0.8
    assert model.cluster_centers_.attrs["units"] == cube.attrs["units"]
