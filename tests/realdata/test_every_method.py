"""Every method through one recipe, on real maps: from the store, same bits on threads and processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import emcube as em
from emcube.engine import use_threads
from tests.every_method import every_chunk, holds, ingested, same_bits, steps

pytestmark = pytest.mark.realdata


@dataclass(frozen=True)
class Case:
    """A file, how many components it is unmixed into, and a selection, for which it must say something."""

    name: str
    file: str
    k: int
    where: float | None = None
    prepare: tuple[dict[str, Any], ...] = ()


CASES = {
    case.name: case
    for case in (
        Case("FePt", "eds_tem_fept/core_shell.hspy", 3, prepare=({"bin": {"y": 2, "energy": 2}},)),
        Case(
            "dacite",
            "eds_sem_dacite_P45/P45_the_default_job.bcf",
            4,
            where=21.0,
            prepare=({"select": {"y": [10, 50], "x": [20, 70]}}, {"bin": {"energy": 4}}),
        ),
        Case("EELS", "eels/EELS_signal.hdf5", 3),
    )
}


PROCESSES = ["FePt"]
"""Also run on two worker processes: the name of any other case may stand here, for as long a time again."""


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def recipe(case: Case, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = ingested(em.open(data_dir / case.file), tmp_path_factory.mktemp("store") / "map.zarr")
    found: dict[str, Any] = {
        "input": {"path": str(store)},
        "prepare": list(case.prepare),
        "steps": steps(case.k, counts=em.open(store).dtype.kind == "u"),
    }
    return found if case.where is None else found | {"where": {"min_smoothed_counts": case.where}}


@pytest.fixture(scope="module")
def result(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    with every_chunk(recipe["input"]["path"]), use_threads(2):
        return em.run(recipe, out=tmp_path_factory.mktemp("result") / "threads")


def test_every_answer_is_whole(case: Case, result: Any) -> None:
    holds(result)
    if case.where is not None:
        assert 0.1 < float(result["input"]["used"].mean()) < 0.95


@pytest.mark.parametrize("case", PROCESSES, indirect=True, scope="module")
def test_processes_give_the_bits_of_threads(
    recipe: dict[str, Any], result: Any, cluster_client: Any, tmp_path: Path
) -> None:
    with every_chunk(recipe["input"]["path"]), cluster_client.as_current():
        there = em.run(recipe, out=tmp_path / "processes")
    same_bits(result, there)
