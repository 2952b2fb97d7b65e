from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emcube.engine import BlockPlan, StoreSource
from emcube.store.chunks import reader_from_metadata
from tests.chaos.harness import Cluster, Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    it = Zygote()
    yield it
    it.close()


@pytest.fixture
def cluster(zygote: Zygote, tmp_path: Path, request: Any) -> Iterator[Callable[..., Cluster]]:
    """Makes a scheduler; kills whatever is left at the end."""
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        folder = tmp_path / f"cluster-{len(made)}"
        folder.mkdir()
        made.append(Cluster(zygote, folder, **options))
        return made[-1]

    yield make
    for it in made:
        it.close()
        print(it.logs())  # pytest shows it where the test failed


@pytest.fixture
def marks(tmp_path: Path) -> str:
    folder = tmp_path / "marks"
    folder.mkdir()
    return str(folder)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An array of 24 chunks along y."""
    values = np.random.default_rng(7).normal(size=(96, 6, 20)).astype("f4")
    path = str(tmp_path_factory.mktemp("store") / "array.zarr")
    array = zarr.create_array(path, shape=values.shape, chunks=(4, 6, 20), dtype="f4")
    array[...] = values
    return path


@pytest.fixture
def source(store: str) -> StoreSource:
    """24 blocks, one a chunk."""
    return blocks_of(store)


def blocks_of(path: str, wrap: Callable[[Any], Any] = lambda reader: reader) -> StoreSource:
    """Blocks of one chunk each, so that a small array has many."""
    reader = reader_from_metadata(
        path, "", json.loads(Path(path, "zarr.json").read_text()), checked=True
    )
    whole = StoreSource.from_reader(wrap(reader), 2, path)
    plan = BlockPlan(whole.plan.nav_shape, (4, 6), whole.plan.n_channels, 4)
    return replace(whole, plan=plan)
