"""Runs that are killed or asked to leave, anywhere, and started again: the result is that of one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.errors import IncompleteError
from tests.chaos.harness import Cluster, Zygote
from tests.recipe.test_running import simulated

STEPS: list[Any] = [
    "estimate_n_components",
    {"pca": {"n_components": 6}},
    {"nmf": {"n_components": "auto", "random_state": 0, "tol": 1e-9, "max_iter": 6}},
    {"kmeans": {"n_clusters": 3, "random_state": 0}},
    {"kmeans": {"name": "on_loadings", "n_clusters": 3, "on": "nmf", "random_state": 0}},
]
PROGRAM = Path(__file__).with_name("attempts.py")
ROOT = Path(__file__).parents[2]


Attempts = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempts]:
    """The program of tries: takes a job, gives its answer. It is started once, and forks for every try."""
    said = tmp_path_factory.mktemp("attempts") / "stderr.txt"
    with (
        said.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "EMCUBE_CHECKPOINT": "0", "PYTHONPATH": str(ROOT)},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        told = 0

        def ask(job: dict[str, Any]) -> Any:
            nonlocal told
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            text = said.read_text()
            print(text[told:])  # what the tries said, where a test fails
            told = len(text)
            assert line, f"the program of tries ended: {text}"
            return json.loads(line)

        try:
            yield ask
        finally:
            process.kill()


def digests(result: Any) -> dict[str, dict[str, str]]:
    return {k: dict(v.attrs["emcube"]["digests"]) for k, v in result.tree.children.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a store of twelve blocks and a recipe."""
    folder = tmp_path_factory.mktemp("runs")
    cube = simulated()
    data = xr.Dataset(
        {"data": cube.drop_vars("HAADF").assign_attrs(units="1", sig_dims=["energy"])}
    )
    for variable in data.variables.values():
        variable.attrs.pop("metadata", None)
    store = str(folder / "map.zarr")
    data.to_zarr(
        store, zarr_format=3, consolidated=False, encoding={"data": {"chunks": (6, 10, 100)}}
    )
    recipe = {"emcube": 1, "input": {"path": store}, "steps": STEPS}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def events(place: Path, attempts: Attempts) -> list[str]:
    """What happens in an undisturbed run, whose result is in ``whole``."""
    job = {"recipe_file": str(place / "recipe.yaml"), "out": str(place / "whole")}
    found: list[str] = attempts({"do": "events", **job, "seen": str(place / "events.txt")})
    return found


def job(place: Path, name: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "recipe_file": str(place / "recipe.yaml"),
        "out": str(place / name),
        "points": points,
    }


def spread(events: list[str], n: int) -> list[int]:
    return [int(i) for i in np.linspace(1, len(events) - 2, n)]


def of_step(events: list[str], word: str) -> int:
    """Number of the event in the middle of something."""
    found = [i for i, event in enumerate(events) if word in event]
    return found[len(found) // 2]


def same_as_whole(place: Path, name: str) -> None:
    whole, found = em.open_result(place / "whole"), em.open_result(place / name)
    assert found.run_id == whole.run_id
    assert digests(found) == digests(whole)
    left = {p.name for p in place.iterdir() if p.name.startswith(f".{name}.")}
    assert left == set()


def test_killed_anywhere(place: Path, attempts: Attempts, events: list[str]) -> None:
    """A run is killed once; what goes on has another number of threads and another budget."""
    assert sum("write maps" in event for event in events) > 40
    assert any(int(event.split()[-2]) > 3 for event in events if event.startswith("round NMF"))
    points = [*spread(events, 2), of_step(events, "block pca: write maps")]
    points += [of_step(events, "round NMF"), of_step(events, "total counts")]
    other = {"env": {"EMCUBE_THREADS": "1", "EMCUBE_MEMORY": "200MB"}}
    jobs = [job(place, f"killed-{i}", [{"event": i}, other]) for i in points]
    found = attempts({"do": "tries", "jobs": jobs})
    assert found == [[-9, 0]] * len(jobs)
    for i in points:
        same_as_whole(place, f"killed-{i}")


def test_the_client_is_killed_and_its_workers_stay(
    place: Path, attempts: Attempts, events: list[str], tmp_path: Path
) -> None:
    """The next client goes on, on the same workers or on threads, which hold the blocks of the first."""
    zygote = Zygote()
    workers = Cluster(zygote, tmp_path)
    try:
        workers.add(2)
        there = {"env": {"EMCUBE_DEPLOY": workers.address}}
        where = [of_step(events, "block pca: write maps"), of_step(events, "round NMF")]
        jobs = [job(place, f"client-{i}", [{"event": i, **there}, there]) for i in where]
        jobs.append(job(place, "client-home", [{"event": where[1], **there}, {}]))
        assert attempts({"do": "tries", "jobs": jobs}) == [[-9, 0]] * len(jobs)
    finally:
        workers.close()
        zygote.close()
    for name in (*(f"client-{i}" for i in where), "client-home"):
        same_as_whole(place, name)


def test_killed_again_and_again(place: Path, attempts: Attempts, events: list[str]) -> None:
    """Each try gets further than the one before: what it costs is what was lost."""
    step = len(events) // 5
    points: list[dict[str, Any]] = [{"event": step}] * 25
    (statuses,) = attempts({"do": "tries", "jobs": [job(place, "again", points)]})
    n_killed = len(statuses) - 1
    assert statuses == [-9] * n_killed + [0]
    assert 4 <= n_killed <= 9
    same_as_whole(place, "again")


def test_asked_to_leave(place: Path, attempts: Attempts, events: list[str]) -> None:
    names = ["SIGTERM", "SIGUSR1", "SIGTERM"]
    where = [len(events) // 4, of_step(events, "block pca: write maps")]
    where.append(of_step(events, "block NMF"))
    jobs = [
        job(place, f"left-{i}", [{"event": i, "signal": name}, {}])
        for i, name in zip(where, names, strict=True)
    ]
    assert attempts({"do": "tries", "jobs": jobs}) == [[75, 0]] * len(jobs)
    for i in where:
        same_as_whole(place, f"left-{i}")


def test_an_unfinished_result_says_how_far_it_got(
    place: Path, attempts: Attempts, events: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from emcube.cli import main

    at = of_step(events, "block nmf: write maps")
    jobs = [job(place, "half", [{"event": at}])]
    assert attempts({"do": "tries", "jobs": jobs}) == [[-9]]
    path = place / "half"
    with pytest.raises(
        IncompleteError, match=r"2 of 5 steps are finished \(est.*pca\), and of nmf"
    ):
        em.open_result(path)
    result = em.open_result(path, allow_incomplete=True)
    assert result.progress["running"] == "nmf"
    last = result.progress["checkpoint"]
    assert (last["scope"], last["n_groups"]) == ("nmf", 12)
    assert 0 < last["groups"] < 12
    for refused in (result.verify, lambda: result.save_figures(place / "figures")):
        with pytest.raises(IncompleteError, match="needs a whole result"):
            refused()
    assert not (place / "figures").exists()
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    assert "INCOMPLETE" in text
    assert "2 of 5 steps are finished" in text
    assert main(["info", str(path), "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["progress"]["finished"] == result.progress["finished"]
    )
    with pytest.raises(FileNotFoundError):
        xr.open_datatree(str(place / ".half.emcube-checkpoint"), engine="zarr")


def test_damage_between_two_tries(place: Path, attempts: Attempts, events: list[str]) -> None:
    """Loadings that were written and lost, and damaged checkpoints: computed again, never taken for whole."""
    at = of_step(events, "block nmf: write maps")
    jobs = [job(place, "damaged", [{"event": at}])]
    assert attempts({"do": "tries", "jobs": jobs}) == [[-9]]
    chunks = [p for p in (place / "damaged/nmf/loadings/c").rglob("*") if p.is_file()]
    assert len(chunks) > 2
    chunks[0].write_bytes(chunks[0].read_bytes()[:-5])
    chunks[1].unlink()
    kept = sorted((place / ".damaged.emcube-checkpoint").rglob("*.checkpoint"))
    assert kept
    for path in kept[::2]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(bytes(data))
    assert attempts({"do": "tries", "jobs": [job(place, "damaged", [{}])]}) == [[0]]
    same_as_whole(place, "damaged")


def test_checkpoints_of_another_run_are_not_used(
    place: Path, attempts: Attempts, events: list[str]
) -> None:
    other = json.loads((place / "recipe.yaml").read_text())
    nmf = {"nmf": {**STEPS[2]["nmf"], "random_state": 1}}
    other["steps"] = [*STEPS[:2], nmf, *STEPS[3:]]
    (place / "other.yaml").write_text(json.dumps(other))
    at = of_step(events, "block NMF")
    first = job(place, "mixed", [{"event": at}])
    assert attempts({"do": "tries", "jobs": [first]}) == [[-9]]
    # The other run's checkpoints get to where this one looks for its own.
    second = {**job(place, "other", [{"event": at}]), "recipe_file": str(place / "other.yaml")}
    assert attempts({"do": "tries", "jobs": [second]}) == [[-9]]
    mine, its = place / ".mixed.emcube-checkpoint", place / ".other.emcube-checkpoint"
    assert list(its.rglob("*.checkpoint"))
    mine.rename(place / "aside")
    its.rename(mine)
    assert attempts({"do": "tries", "jobs": [job(place, "mixed", [{}])]}) == [[0]]
    same_as_whole(place, "mixed")
