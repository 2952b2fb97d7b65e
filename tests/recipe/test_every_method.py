"""Every method through one recipe, on each scene, from a store: same bits everywhere, selections kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

import emcube as em
from emcube.engine import use_threads
from emcube.recipe import schema
from tests.every_method import METHODS, every_chunk, holds, ingested, same_bits, steps


@dataclass(frozen=True)
class Case:
    """A scene, the number of its components, and the counts that a pixel must hold to be used."""

    name: str
    options: dict[str, Any]
    level: float
    k: int = 3


CASES = {
    case.name: case
    for case in (
        Case("srm2135c", {"scale": 0.005}, 4.0),
        Case("jadeite", {"scale": 0.003, "pure_pixels": 0.01}, 320.0, k=5),
        Case("eels", {"scale": 0.05}, 1.35e6),
    )
}


def test_every_verb_is_entered() -> None:
    known = {step.model_fields["verb"].default for step in get_args(schema.AnyStep)}
    assert {entry.verb for entry in METHODS} == known
    labels = [entry.label for entry in METHODS]
    assert len(set(labels)) == len(labels)


PROCESSES = ["eels"]
"""Also run on two worker processes: the name of any other case may stand here, for as long a time again."""


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def recipe(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cube = getattr(em.scenes, case.name)(random_state=0, **case.options).cube
    store = ingested(cube, tmp_path_factory.mktemp("store") / "map.zarr")
    return {
        "input": {"path": str(store)},
        "where": {"min_smoothed_counts": case.level},
        "steps": steps(case.k, counts=cube.dtype.kind == "u"),
    }


@pytest.fixture(scope="module")
def result(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    with every_chunk(recipe["input"]["path"]), use_threads(2):
        return em.run(recipe, out=tmp_path_factory.mktemp("result") / "threads")


def test_every_answer_is_whole_and_keeps_the_selection(case: Case, result: Any) -> None:
    holds(result)
    share = float(result["input"]["used"].mean())
    assert 0.1 < share < 0.95, f"a selection that says something, got {share}"
    layout = result.provenance["layout"]
    assert layout["block_shape"] != list(result["input"]["total_counts"].shape)


@pytest.mark.parametrize("case", PROCESSES, indirect=True, scope="module")
def test_processes_give_the_bits_of_threads(
    recipe: dict[str, Any], result: Any, cluster_client: Any, tmp_path: Path
) -> None:
    with every_chunk(recipe["input"]["path"]), cluster_client.as_current():
        there = em.run(recipe, out=tmp_path / "processes")
    same_bits(result, there)
