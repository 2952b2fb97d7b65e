"""A tiny scene on disk, laid out as the benchmarks make theirs, with its exact answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import data, reference
from benchmarks.child import Job

SCALE = 0.002
CHANNELS = 150


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tilt series at a five hundredth of its pixels and a sixth of its channels."""
    import emcube as em

    folder = tmp_path_factory.mktemp("bench") / f"srm2135c-{SCALE:g}"
    folder.mkdir()
    made = em.scenes.srm2135c(scale=SCALE, random_state=0)
    cube = made.cube.em.bin(energy=6)
    assert cube.shape[-1] == CHANNELS
    em.ingest(cube, folder / "counts.zarr")
    truth = made.components.values.reshape(3, CHANNELS, 6).sum(axis=2)
    np.save(folder / "truth.npy", truth)
    about = {
        "name": "srm2135c",
        "scale": SCALE,
        "random_state": 0,
        "format": data.FORMAT,
        "shape": list(cube.shape),
        "dtype": str(cube.dtype),
        "dense_bytes": int(cube.nbytes),
        "counts_per_pixel": 16.0,
        "n_components": 3,
    }
    (folder / "scene.json").write_text(json.dumps(about))
    assert data.make(folder, "srm2135c", SCALE, full=True) == about
    return folder


@pytest.fixture(scope="session")
def exact(scene: Path) -> dict[str, Any]:
    passes, reference.REFERENCE_PASSES = reference.REFERENCE_PASSES, 60
    try:
        return reference.exact(scene)
    finally:
        reference.REFERENCE_PASSES = passes


@pytest.fixture
def job(scene: Path, tmp_path: Path):
    """A job for a method on the tiny scene; warming up on the same."""

    def make(method: str, **more: object) -> Job:
        settings = {
            "method": method,
            "scene": str(scene),
            "out": str(tmp_path / "out"),
            "k": 3,
            "n_clusters": 4,
            "threads": 1,
            "repeat": 1,
        }
        return Job(settings | more)

    return make
