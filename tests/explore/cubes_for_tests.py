"""A small cube of three phases that overlap, with a companion image, and what waits for jobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from emcube.cube import make_cube
from emcube.explore.jobs import Job
from emcube.explore.settings import Settings

SHAPE = (24, 32, 60)
ENERGY = 0.2 + 0.1 * np.arange(SHAPE[-1])

QUICK = Settings(
    steps=(
        {"pca": {"n_components": 3}},
        {"nmf": {"n_components": 3, "random_state": 0, "max_iter": 20}},
        {"kmeans": {"n_clusters": 3, "random_state": 0, "n_init": 1}},
    )
)


def three_phases(title: str = "three phases", dtype: str = "uint8", seed: int = 0) -> xr.DataArray:
    """Poisson counts of a disc, a band and a ground, some 40 a pixel."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disc = np.clip(1.2 - np.hypot(y - 9, x - 9) / 7, 0, 1)
    band = np.clip(1.2 - np.abs(x - 24) / 5, 0, 1) * (1 - disc)
    maps = np.stack([disc, band, 1 - disc - band], axis=-1)
    peaks = [(1.7, 2.6), (4.1, 4.6), (0.9, 5.4)]
    spectra = np.stack(
        [sum(np.exp(-(((ENERGY - p) / 0.12) ** 2)) for p in pair) + 0.02 for pair in peaks]
    )
    spectra *= 40 / spectra.sum(axis=1, keepdims=True)
    counts = np.random.default_rng(seed).poisson(maps @ spectra).astype(dtype)
    cube = make_cube(
        counts,
        dims=("y", "x", "energy"),
        coords={"y": 2.0 * np.arange(SHAPE[0]), "x": 2.0 * np.arange(SHAPE[1]), "energy": ENERGY},
        units={"y": "nm", "x": "nm", "energy": "keV"},
        metadata={
            "title": title,
            "modality": "EDS",
            "elements": ["Si", "Ca"],
            "beam_energy_keV": 200.0,
        },
    )
    haadf = xr.DataArray(disc.astype(np.float32), dims=("y", "x"), attrs={"units": "1"})
    return cube.assign_coords(haadf=haadf).assign_attrs(units="counts")


def got(job: Job[Any], seconds: float = 120) -> Any:
    """Result of a job, once it has ended; fails with what went wrong."""
    assert job.wait(seconds), f"{job.name} did not end within {seconds} s"
    assert job.state == "done", str(job.error)
    return job.result
