"""Each kind of figure looks as it did: compared with pictures that somebody has looked at.

A picture is made of large pixels and blurred before it is compared, so that another release of matplotlib or
FreeType, which moves letters by fractions of a pixel, is not a difference; a missing panel, a turned map or
another colour is one. After a change that is meant::

    EMCUBE_DRAW_BASELINES=1 python -m pytest tests/plot/test_images.py

draws them anew; look at them before they are committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave
from scipy.ndimage import gaussian_filter

import emcube as em
from emcube import plot
from emcube.xray import fwhm, line_energy

BASELINE = Path(__file__).with_name("baseline")
DPI = 45
LIMIT = 0.035
"""Root mean square difference of blurred pixels, where white less black is one."""


def axis(n: int, step: float, units: str) -> tuple[np.ndarray, dict[str, str]]:
    return np.arange(n) * step, {"units": units}


def loadings() -> xr.DataArray:
    y, x = np.mgrid[:24, :36] / 24.0
    maps = [
        40 * np.exp(-((x - 0.3) ** 2 + (y - 0.3) ** 2) / 0.03),
        90 * (x > 0.9) * y,
        20 * np.exp(-((y - 0.8) ** 2) / 0.01),
    ]
    return xr.DataArray(
        np.stack(maps, -1),
        dims=("y", "x", "component"),
        coords={
            "y": ("y", *axis(24, 5.0, "nm")),
            "x": ("x", *axis(36, 5.0, "nm")),
            "component": [0, 1, 2],
        },
        attrs={"units": "counts", "long_name": "loading"},
    )


def tilted(n: int) -> xr.DataArray:
    tilt = xr.DataArray(np.linspace(-30, 30, n), dims="tilt", name="tilt", attrs={"units": "deg"})
    return xr.concat([loadings() * (1 - 0.1 * i) for i in range(n)], dim=tilt).assign_attrs(
        loadings().attrs
    )


def spectra() -> xr.DataArray:
    energy = np.arange(0.1, 10.0, 0.02)
    peaks = []
    for names in (("Ni_Ka", "Ni_La"), ("Cr_Ka", "Cr_Kb"), ("Si_Ka",)):
        y = 0.01 * np.exp(-energy / 3)
        for name in names:
            at = line_energy(name)
            y = y + np.exp(-0.5 * ((energy - at) / (fwhm(at) / 2.3548)) ** 2)
        peaks.append(y / y.sum())
    return xr.DataArray(
        np.stack(peaks),
        dims=("component", "energy"),
        coords={"component": [0, 1, 2], "energy": ("energy", energy, {"units": "keV"})},
        attrs={"units": "1 per channel"},
    )


def noisy(data: xr.DataArray) -> xr.DataArray:
    return data.copy(data=np.random.default_rng(0).poisson(data.values).astype(float))


def lines() -> xr.DataArray:
    named = loadings().rename(component="line")
    return named.assign_coords(line=["Ni_Ka", "Cr_Ka", "Si_Ka"])


def many_lines() -> xr.DataArray:
    return xr.concat([lines(), lines()], dim="line").isel(line=slice(5))


def quality() -> xr.Dataset:
    one = loadings().isel(component=0, drop=True)
    chi = 1 + 0.05 * one.assign_attrs(units="1") * (one["x"] < 60)
    energy = spectra()["energy"]
    along = 1 + 0.8 * np.exp(-0.5 * ((energy - 6.4) / 0.07) ** 2)
    return xr.Dataset(
        {"chi_square": chi, "residual": np.sqrt(one).assign_attrs(units="counts")}
        | {"chi_square_spectrum": along.assign_attrs(units="1")}
    )


def eels() -> xr.DataArray:
    energy = np.arange(60.0, 120.0)
    edge = np.where(energy > 99.8, 0.4 * (1 - np.exp(-(energy - 99.8) / 3)), 0.0)
    return xr.DataArray(
        np.stack([(energy / 60) ** -3, edge + 1e-4]),
        dims=("component", "energy"),
        coords={"component": [0, 1], "energy": ("energy", energy, {"units": "eV"})},
    )


def patterns() -> xr.DataArray:
    k = np.linspace(-4, 4, 32)
    ky, kx = np.meshgrid(k, k, indexing="ij")
    spots = sum(
        np.exp(-((kx - a) ** 2 + (ky - b) ** 2) / 0.1) for a in (-2, 0, 2) for b in (-2, 0, 2)
    )
    ring = np.exp(-((np.hypot(kx, ky) - 2.5) ** 2) / 0.2)
    ends = {d: (d, k, {"units": "1/nm"}) for d in ("ky", "kx")}
    return xr.DataArray(np.stack([spots, ring]), dims=("component", "ky", "kx"), coords=ends)


def cube() -> xr.DataArray:
    made = xr.dot(loadings() * 20, spectra(), dim="component")
    return made.assign_attrs(units="counts", sig_dims=["energy"])


def scree_values() -> xr.DataArray:
    values = np.r_[1e4, 500.0, 80.0, 20.0, np.linspace(1.4, 0.8, 26)]
    return xr.DataArray(values, dims="component", name="explained_variance")


def labels() -> xr.DataArray:
    found = loadings().argmax("component").astype("int32")
    found[:4, :4] = -1
    return found


FIGURES: dict[str, Callable[[], Figure]] = {
    "scree": lambda: plot.scree(
        scree_values(), threshold=1.6, noise_floor=1.0, n_components=4, trivial_first=True
    ),
    "components": lambda: plot.components(spectra(), elements=["Ni", "Cr", "Si"], yscale="sqrt"),
    "components_log": lambda: plot.components(spectra(), elements=["Ni", "Cr", "Si"], yscale="log"),
    "components_eels": lambda: plot.components(eels(), elements=["Si"], labels="eels"),
    "components_patterns": lambda: plot.components(patterns(), yscale="sqrt"),
    "spectrum": lambda: plot.spectrum(spectra().sum("component", keep_attrs=True), elements="Ni"),
    "maps": lambda: plot.maps(loadings()),
    "maps_shared": lambda: plot.maps(loadings(), share_scale=True),
    "maps_signed": lambda: plot.maps(loadings() - loadings().mean(("y", "x"))),
    "maps_scan": lambda: plot.maps(loadings().isel(y=7)),
    "maps_tilts": lambda: plot.maps(tilted(5), max_frames=3),
    "line_maps": lambda: plot.line_maps(lines()),
    "image": lambda: plot.image(loadings().isel(component=0)),
    "label_map": lambda: plot.label_map(labels(), names=["Ni", "Cr", "Si"]),
    "overlay": lambda: plot.overlay(
        loadings().isel(component=[0, 1]), np.sqrt(loadings()).sum("component"), names=["a", "b"]
    ),
    "composite": lambda: plot.composite(loadings(), names=["Ni", "Cr", "Si"]),
    "composite_tilts": lambda: plot.composite(tilted(4), max_frames=4),
    "residuals": lambda: plot.residuals(quality(), elements=["Fe"]),
    "raw_and_denoised": lambda: plot.raw_and_denoised(
        noisy(lines()), lines(), by="line", residual=True
    ),
    "raw_and_denoised_many": lambda: plot.raw_and_denoised(
        noisy(many_lines()), many_lines(), by="line"
    ),
    "montage": lambda: plot.montage(tilted(11).isel(component=0)),
    "compositions": lambda: plot.compositions(
        xr.DataArray([[9.0, 1, 0], [2, 5, 1], [0, 0, 8]], dims=("cluster", "component"))
    ),
    "cube_overview": lambda: plot.cube_overview(cube(), elements=["Ni", "Cr", "Si"]),
}


@lru_cache
def analysis() -> tuple[xr.DataArray, em.MiniBatchNMF, em.KMeans]:
    """A few hundred pixels, unmixed: for the figures of what is said about a model."""
    counts = em.scenes.srm2135c(scale=0.002, random_state=0).cube.compute()
    nmf = em.MiniBatchNMF(3, random_state=0).fit(counts)
    return counts, nmf, em.KMeans(3, random_state=0).fit(counts)


def sure() -> xr.Dataset:
    counts, nmf, _ = analysis()
    return em.uncertainty(nmf, counts, method="fisher").assign(components=nmf.components_)


def fractions() -> xr.Dataset:
    """Of a labelled map in four parts."""
    labels = analysis()[2].labels_
    y, x = (labels.sizes[d] // 2 for d in labels.dims[-2:])
    parts = [
        labels.isel({labels.dims[-2]: a, labels.dims[-1]: b})
        for a in (slice(0, y), slice(y, 2 * y))
        for b in (slice(0, x), slice(x, 2 * x))
    ]
    return em.phase_fractions(parts)


FIGURES |= {
    "phase_fractions": lambda: plot.phase_fractions(fractions()),
    "bands": lambda: plot.bands(sure(), elements=["Ni", "Cr", "Si"]),
    "compared": lambda: em.compare(
        {"first": analysis()[1], "MCR": em.MCRALS(3, random_state=0).fit(analysis()[0])},
        analysis()[0],
    ).plot(),
    "compared_maps": lambda: em.compare(
        {"first": analysis()[1], "PCA": em.IncrementalPCA(2).fit(analysis()[0])}, analysis()[0]
    ).plot_maps(),
    "component_survey": lambda: em.survey_n_components(analysis()[0], random_state=0).plot(),
    "diagnostics": lambda: plot.diagnostics(em.diagnostics(analysis()[1], analysis()[0])),
    "errors_by_counts": lambda: plot.errors_by_counts(
        em.errors_by_counts(analysis()[1], analysis()[0], shares=(0.5, 0.25), n_pairs=2)
    ),
    "cluster_quality": lambda: plot.cluster_quality(
        em.cluster_quality(analysis()[2], analysis()[0])
    ),
}


def pixels(figure: Figure) -> np.ndarray:
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255.0


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of what is left of the difference after a blur; infinite for other sizes."""
    if max(abs(m - n) for m, n in zip(a.shape, b.shape, strict=True)) > 2:
        return np.inf
    rows, columns = (min(m, n) for m, n in zip(a.shape[:2], b.shape[:2], strict=True))
    both = (p[:rows, :columns] for p in (a, b))
    first, second = (gaussian_filter(p, (2.0, 2.0, 0.0)) for p in both)
    return float(np.sqrt(((first - second) ** 2).mean()))


def test_every_kind_of_figure_has_a_picture() -> None:
    drawn = {name.split("_")[0] for name in FIGURES} | set(FIGURES)
    assert set(plot.__all__) <= drawn
    assert {path.stem for path in BASELINE.glob("*.png")} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_it_looks_as_it_did(name: str, tmp_path: Path) -> None:
    drawn = pixels(FIGURES[name]())
    path = BASELINE / f"{name}.png"
    if os.environ.get("EMCUBE_DRAW_BASELINES"):
        path.parent.mkdir(exist_ok=True)
        imsave(path, drawn)
    found = difference(drawn, imread(path)[..., :3])
    imsave(tmp_path / f"{name}.png", drawn)
    assert found < LIMIT, f"differs by {found:.3f}: compare {tmp_path / path.name} with {path}"


def test_the_comparison_tells_what_matters() -> None:
    first = pixels(FIGURES["maps"]())
    turned = loadings().copy(data=loadings().values[::-1])
    assert difference(first, pixels(plot.maps(turned))) > LIMIT
    assert difference(first, pixels(plot.maps(loadings().isel(component=[0, 2, 1])))) > LIMIT
    assert difference(first, pixels(plot.maps(loadings().isel(component=[0, 1])))) > LIMIT
    assert difference(first, np.roll(first, 1, axis=1)) < LIMIT
