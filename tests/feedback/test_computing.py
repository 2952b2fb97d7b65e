"""Lazy answers tell of their blocks when Dask computes them here; graphs of others are left alone."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import numpy as np
import pytest
from dask.callbacks import Callback

import emcube as em
from emcube.feedback import computing
from emcube.feedback.board import Board
from emcube.feedback.events import Event, listen
from tests.feedback.conftest import Recorder


@pytest.fixture
def model() -> em.IncrementalPCA:
    rng = np.random.default_rng(0)
    return em.IncrementalPCA(2).fit(cube_of(rng).compute())


@pytest.fixture(autouse=True)
def _registered_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(Callback.active)
    yield
    Callback.active = before


def cube_of(rng: np.random.Generator):
    counts = rng.poisson(5.0, (16, 12, 20)).astype(np.uint8)
    return em.make_cube(counts, dims=("y", "x", "energy")).chunk({"y": 4, "energy": -1})


def heard(work) -> list[Event]:
    seen: list[Event] = []
    with listen(seen.append), dask.config.set(scheduler="threads"):
        work()
    return [e for e in seen if e.name in ("transform", "rebuild")]


def test_a_transform_counts_its_blocks(model, recorder: Recorder, monkeypatch) -> None:
    monkeypatch.setattr(computing, "surface", lambda: "terminal")
    monkeypatch.setattr("emcube.feedback.board.board", Board())
    loadings = model.transform(cube_of(np.random.default_rng(0)))
    seen = heard(loadings.compute)
    assert [e.kind for e in seen] == ["start", *["block"] * 4, "end"]
    assert (seen[-1].blocks_done, seen[-1].n_blocks, seen[-1].outcome) == (4, 4, "done")
    rebuilt = model.inverse_transform(loadings)
    assert heard(rebuilt.compute)[-1].outcome == "done"  # fused: one name stands for both


def test_a_failure_ends_it(model, recorder: Recorder, monkeypatch) -> None:
    monkeypatch.setattr(computing, "surface", lambda: "terminal")
    monkeypatch.setattr("emcube.feedback.board.board", Board())
    cube = cube_of(np.random.default_rng(0))

    def broken(block: np.ndarray) -> np.ndarray:
        raise OSError("the disk is gone")

    bad = cube.copy(data=cube.data.map_blocks(broken, dtype=cube.dtype, meta=cube.data._meta))
    loadings = model.transform(bad)

    def work() -> None:
        with pytest.raises(OSError, match="the disk is gone"):
            loadings.compute()

    assert heard(work)[-1].outcome == "failed"


def test_nothing_is_registered_where_nobody_looks(model) -> None:
    before = set(Callback.active)
    loadings = model.transform(cube_of(np.random.default_rng(0)))
    assert Callback.active == before
    assert heard(loadings.compute) == []


def test_graphs_of_others_are_left_alone(model, monkeypatch) -> None:
    monkeypatch.setattr(computing, "surface", lambda: "terminal")
    computing.watch()
    assert heard(lambda: cube_of(np.random.default_rng(0)).sum().compute()) == []
