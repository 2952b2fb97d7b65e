"""A finished run on a small cube, its package, and tools to take packages apart and put them together."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.package.archive import digest_of, write_archive
from emcube.package.manifest import write_manifest
from emcube.package.names import MANIFEST
from emcube.store import write_cube

DAY = "2026-11-26"
STEPS: list[Any] = [
    "estimate_n_components",
    {"pca": {"n_components": 5}},
    {"nmf": {"n_components": 3, "random_state": None}},
    {"kmeans": {"n_clusters": 3, "on": "nmf", "random_state": 0}},
]
QUICK: list[Any] = [{"pca": {"n_components": 3}}]


def simulated(seed: int = 0, shape: tuple[int, int] = (24, 30)) -> xr.DataArray:
    """Three phases, 100 counts a pixel."""
    rng = np.random.default_rng(seed)
    channel = np.arange(100)
    spectra = np.stack([np.exp(-((channel - c) ** 2) / 50.0) for c in (20, 50, 80)])
    spectra /= spectra.sum(axis=1, keepdims=True)
    loadings = rng.dirichlet([0.2, 0.2, 0.2], size=shape) * 100
    return em.make_cube(
        rng.poisson(loadings @ spectra).astype(np.uint8),
        dims=("y", "x", "energy"),
        coords={"energy": 0.5 + 0.02 * channel},
        units={"energy": "keV", "y": "nm", "x": "nm"},
        metadata={
            "modality": "EDS",
            "elements": ["Si", "O"],
            "beam_energy_keV": 200,
            "title": "Three phases & more",
        },
    )


@dataclass(frozen=True)
class Lab:
    """A folder with a store and a result of it, and the package of that."""

    folder: Path
    store: Path
    result: em.results.Result  # type: ignore[name-defined]
    crate: Path


def make_lab(folder: Path, steps: list[Any], **options: Any) -> Lab:
    store = write_cube(simulated(), folder / "map.zarr")
    result = em.run({"input": {"path": str(store)}, "steps": steps}, out=folder / "results" / "map")
    crate = em.publish(
        result,
        folder / "crate.zip",
        **{"include_data": True, "date": DAY, "figures": False, **options},
    )
    return Lab(folder, store, result, crate)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A whole analysis, published with its data."""
    return make_lab(
        tmp_path_factory.mktemp("lab"),
        STEPS,
        creators=["Ada Lovelace (0000-0002-1825-0097)", {"name": "B", "affiliation": "C & D"}],
        license="CC-BY-4.0",
        figures=True,
    )


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A PCA, published with its data."""
    return make_lab(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture(autouse=True)
def _present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # results go there


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCUBE_CACHE", str(tmp_path_factory.mktemp("cache")))


# ---------------------------------------------------------------------------- packages, part by part


def members_of(crate: Path) -> dict[str, bytes]:
    """Contents of all files of a package."""
    with zipfile.ZipFile(crate) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {name: archive.read(name) for name in names}


def pack(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a package of these files: manifest and seal are right, whatever the files say."""
    digests = {name: digest_of(data) for name, data in members.items() if name != MANIFEST}
    whole = {**members, MANIFEST: write_manifest(digests)}
    write_archive(path, whole, {}, overwrite=True)
    return path


def pack_plainly(path: Path, members: Mapping[str, bytes], **options: Any) -> Path:
    """Write the files as another program would: no seal, and the manifest as it is."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


Edit = Callable[[dict[str, Any]], None]


def edit_json(members: dict[str, bytes], name: str, edit: Edit) -> None:
    """Change a JSON file among the members."""
    plain = json.loads(members[name])
    edit(plain)
    members[name] = json.dumps(plain).encode()
