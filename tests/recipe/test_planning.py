"""A plan against the run that it is of: passes, memory, bytes written, seconds; and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emcube as em
from emcube.cube import make_cube
from emcube.engine import Event, listen
from emcube.errors import BudgetError, InputError, RecipeError
from emcube.recipe.calibration import RATES, Calibration, calibrate
from emcube.recipe.planning import Plan
from emcube.store import write_cube

# The run that plans are held against, on a machine that other tests load.
pytestmark = pytest.mark.timeout(900)

STEPS: list[Any] = [
    "estimate_n_components",
    {"pca": {"n_components": 4}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 3, "random_state": 0}},
    {"kmeans": {"name": "on_loadings", "n_clusters": 3, "on": "nmf", "random_state": 0}},
]
NOTHING = dict.fromkeys(RATES, 1e-9)
EVEN = Calibration(NOTHING, NOTHING, 1.0, 300 << 20, "any")
"""Rates for what does not hang on them."""


def simulated(side: int = 48) -> Any:
    rng = np.random.default_rng(0)
    channel = np.arange(200)
    spectra = np.stack([np.exp(-((channel - c) ** 2) / 100.0) + 0.05 for c in (40, 100, 160)])
    spectra /= spectra.sum(axis=1, keepdims=True)
    loadings = rng.dirichlet([0.2, 0.2, 0.2], size=(side, side)) * 60
    return make_cube(
        rng.poisson(loadings @ spectra).astype(np.uint8),
        dims=("y", "x", "energy"),
        coords={"energy": 0.5 + 0.02 * channel},
        units={"energy": "keV", "y": "nm", "x": "nm"},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cube(simulated(), tmp_path_factory.mktemp("planned") / "map.zarr")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some seconds of work, in more than one block."""
    scene = em.scenes.srm2135c(scale=0.3, random_state=0)
    return em.ingest(scene.cube, tmp_path_factory.mktemp("big") / "big.zarr", layout="events")


def recipe(store: Path, steps: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"emcube": 1, "input": {"path": str(store)}, "steps": steps or STEPS, **more}


def counted(work: Any) -> dict[str, int]:
    """Passes over blocks by name while `work` runs."""
    passes: dict[str, int] = {}
    rounds = 0

    def hear(event: Event) -> None:
        nonlocal rounds
        if event.kind == "start":
            rounds = 0
        elif event.kind == "round":
            rounds += 1
            passes[event.name] = passes.get(event.name, 0) + 1
        elif event.kind == "end" and not rounds:
            passes[event.name] = passes.get(event.name, 0) + 1

    with listen(hear):
        work()
    return passes


def planned(found: Plan) -> dict[str, tuple[int, int, int, int]]:
    """Passes by name: in any case, as a rule from and to, and at most (-1: no bound)."""
    passes: dict[str, tuple[int, int, int, int]] = {}
    for step in found.steps:
        for one in step.passes:
            a = passes.get(one.name, (0, 0, 0, 0))
            most = -1 if -1 in (a[3], one.most) else a[3] + one.most
            passes[one.name] = (a[0] + one.least, a[1] + one.passes[0], a[2] + one.passes[1], most)
    return passes


def require_counted(found: Plan, passes: dict[str, int]) -> None:
    expected = planned(found)
    assert set(passes) <= set(expected), "the run made passes that the plan does not know"
    for name, (least, low, high, most) in expected.items():
        n = passes.get(name, 0)
        assert least <= n, name
        assert most == -1 or n <= most, name
        assert low <= n <= high, f"{name}: {n} passes, {low} to {high} planned"


# ----------------------------------------------------------------------------------------- passes


@pytest.mark.parametrize(
    "steps",
    [
        STEPS,
        [
            {"pca": {"n_components": 3, "noise": None}},
            {"nmf": {"n_components": 2, "random_state": 0}},
        ],
        [{"nmf": {"n_components": 2, "beta_loss": "frobenius", "random_state": 0}}],
        [{"nmf": {"n_components": 2, "init": "random", "max_iter": 5, "random_state": 0}}],
        [{"pca": {"n_components": 3, "svd_solver": "randomized"}}],
        [{"kmeans": {"n_clusters": 3, "features": "counts", "random_state": 0}}],
        [
            {"ica": {"n_components": 3, "random_state": 0}},
            {"varimax": {"n_components": 3}},
            {"mcr": {"n_components": 3, "random_state": 0}},
            {"vca": {"n_components": 3, "random_state": 0}},
            {"nfindr": {"n_components": 3, "noise": None, "random_state": 0}},
            {"sisal": {"n_components": 3, "random_state": 0}},
            {"kmeans": {"n_clusters": 2, "on": "vca", "random_state": 0}},
        ],
        [
            {"bayesian_unmixing": {"n_components": 2, "n_draws": 5, "random_state": 0}},
            {"kmeans": {"n_clusters": 2, "on": "bayesian_unmixing", "random_state": 0}},
        ],
        [
            {"kmeans": {"n_clusters": 3, "random_state": 0}},
            {"pca": {"n_components": 3}},
            {"kmeans": {"name": "again", "n_clusters": 2, "on": "pca", "random_state": 0}},
        ],
        [
            {"pca": {"n_components": 3}},
            {"gaussian_mixture": {"n_clusters": 3, "random_state": 0}},
            {"gaussian_mixture": {"name": "on", "n_clusters": 2, "on": "pca", "random_state": 0}},
            {"poisson_mixture": {"n_clusters": 3, "random_state": 0}},
        ],
        [{"gaussian_mixture": {"n_clusters": 2, "features": "scores", "random_state": 0}}],
        [
            {"poisson_mixture": {"n_clusters": 3, "random_state": 0}},
            {"cluster_quality": {"of": "poisson_mixture", "n_repeats": 2}},
        ],
        [
            {"nmf": {"n_components": 3, "random_state": 0}},
            {"uncertainty": {"method": "bootstrap", "n_replicates": 3}},
            {"uncertainty": {"name": "plain", "method": "fisher"}},
            "diagnostics",
        ],
        [
            {"nmf": {"n_components": 2, "random_state": 0}},
            {"phase_fractions": {"n_draws": 2}},
            {"kmeans": {"n_clusters": 2, "random_state": 0}},
            {"phase_fractions": {"name": "areas", "n_draws": 2}},
        ],
        [{"survey_n_components": {"max_components": 2, "n_restarts": 2}}],
    ],
)
def test_passes_are_those_of_the_run(store: Path, tmp_path: Path, steps: list[Any]) -> None:
    data = recipe(store, steps)
    require_counted(
        em.plan(data, out=tmp_path / "r", calibration=EVEN),
        counted(lambda: em.run(data, out=tmp_path / "r")),
    )


def test_passes_with_selections_and_floats(store: Path, tmp_path: Path) -> None:
    inside = recipe(
        store,
        [{"pca": {"n_components": 3}}],
        prepare=[{"select": {"region": [[4, 4], [4, 40], [40, 20]]}}],
    )
    require_counted(
        em.plan(inside, out=tmp_path / "a", calibration=EVEN),
        counted(lambda: em.run(inside, out=tmp_path / "a")),
    )
    floats = em.ingest(simulated(24).astype(np.float32), tmp_path / "floats.zarr")
    dense = recipe(
        floats, [{"pca": {"n_components": 3}}, {"kmeans": {"n_clusters": 2, "random_state": 0}}]
    )
    require_counted(
        em.plan(dense, out=tmp_path / "b", calibration=EVEN),
        counted(lambda: em.run(dense, out=tmp_path / "b")),
    )


def test_passes_for_a_subspace_end_where_channels_do(tmp_path: Path) -> None:
    """Least squares have a subspace of their own, in four passes at most."""
    steps = [{"nmf": {"n_components": 3, "beta_loss": "frobenius", "random_state": 0}}]
    for width, n_passes in ((200, 4), (20, 2)):
        values = simulated(24)[..., :width] + np.float32(0.5)
        floats = em.ingest(values.astype(np.float32), tmp_path / f"{width}.zarr")
        data, out = recipe(floats, steps), tmp_path / f"result-{width}"
        found = em.plan(data, out=out, calibration=EVEN)
        passes = counted(lambda data=data, out=out: em.run(data, out=out))
        require_counted(found, passes)
        assert passes["NMF (subspace)"] == n_passes
        assert planned(found)["NMF (subspace)"] == (1, n_passes, n_passes, n_passes)


def test_sums_that_do_not_fit_are_made_again(store: Path, tmp_path: Path) -> None:
    """Answers that steps share take memory: without it there are more passes, and the plan knows."""
    data = recipe(
        store, [{"pca": {"n_components": 3}}, {"nmf": {"n_components": 2, "random_state": 0}}]
    )
    os.environ["EMCUBE_MEMORY"] = "2520000"
    try:
        found = em.plan(data, out=tmp_path / "r", calibration=EVEN, threads=1)
        os.environ["EMCUBE_THREADS"] = "1"
        passes = counted(lambda: em.run(data, out=tmp_path / "r"))
    finally:
        os.environ.pop("EMCUBE_MEMORY")
        os.environ.pop("EMCUBE_THREADS", None)
    assert passes["PCA"] == 1
    require_counted(found, passes)


# -------------------------------------------------------------------------- against a real process

RUN = """
import json, sys, time
began = time.perf_counter()
import emcube as em
from benchmarks.clock import peak_bytes
em.run(json.loads(sys.argv[1]), out=sys.argv[2])
print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak_bytes()}))
"""


@pytest.fixture(scope="module")
def real(big: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, dict[str, Any], Path]:
    """A plan with this machine's own rates, what the run took, and its result."""
    out = tmp_path_factory.mktemp("real") / "result"
    environment = {**os.environ, "EMCUBE_MEMORY": "1GiB", "EMCUBE_THREADS": "2"}
    rates = calibrate(folder=tmp_path_factory.mktemp("rates"))
    found = em.plan(recipe(big), out=out, memory="1GiB", threads=2, calibration=rates)
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(recipe(big)), str(out)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    return found, json.loads(done.stdout.splitlines()[-1]), out


def test_memory_is_near_the_peak_of_the_run(real: tuple[Plan, dict[str, Any], Path]) -> None:
    """A projection counts what may be there at once: it may be half too high, hardly ever too low."""
    found, took, _ = real
    assert 0.8 * took["peak"] <= found.memory <= 2.0 * took["peak"]


def test_time_range_holds_the_run(real: tuple[Plan, dict[str, Any], Path]) -> None:
    found, took, _ = real
    # Neighbours on a loaded machine come and go between measurement and run.
    assert found.seconds.low / 1.5 <= took["seconds"] <= found.seconds.high * 1.5
    assert found.seconds.high < 60 * found.seconds.low


def test_result_takes_the_bytes_and_files(real: tuple[Plan, dict[str, Any], Path]) -> None:
    found, _, out = real
    files = [f for f in out.rglob("*") if f.is_file()]
    written = sum(f.stat().st_size for f in files)
    assert found.output.low <= written <= found.output.high
    assert 0.9 * found.files.low <= len(files) <= 1.1 * found.files.high


# ----------------------------------------------------------------------- what it says and refuses


def test_workers(big: Path) -> None:
    one = em.plan(recipe(big), workers=1, memory="2GiB", calibration=EVEN)
    four = em.plan(recipe(big), workers=4, memory="2GiB", calibration=EVEN)
    assert four.machine.words == "4 worker processes of 1 thread, 2.0 GiB each"
    assert four.machine.resident == (2 << 30) // 3
    assert one.moved.low < four.moved.low
    # The Gram matrix alone: a statistic each join at most.
    gram = next(p for p in four.steps[0].passes if "PCA" in p.name)
    size = 8 * 900**2 + 8 * 900
    assert 3 * size <= gram.moved.high <= 1.2 * (gram.groups * size) + gram.groups * 1e5
    assert four.client > 0


def test_what_does_not_fit_is_refused_with_what_to_do(big: Path) -> None:
    found = em.plan(recipe(big), memory="20MiB", calibration=EVEN)
    assert not found.fits
    with pytest.raises(BudgetError, match=r"the budget is 20\.0 MiB") as caught:
        found.require()
    assert "EMCUBE_MEMORY" in str(caught.value)


def test_rereading_is_told(big: Path) -> None:
    found = em.plan(recipe(big), memory="40MiB", threads=1, calibration=EVEN)
    assert any("reads the others again" in p.what for p in found.problems)
    scaling = next(p for p in found.steps[1].passes if p.name == "noise scaling")
    whole = found.cube["decoded_bytes"]
    assert 0 < scaling.read.high <= scaling.passes[1] * whole
    assert scaling.resident_blocks.low < scaling.blocks


def test_nothing_but_headers_is_read(big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emcube.engine.source import StoreSource

    def refuse(self: Any, block_id: int) -> None:
        raise AssertionError("a block was read")

    monkeypatch.setattr(StoreSource, "load", refuse)
    assert em.plan(recipe(big), calibration=EVEN).cube["blocks"] > 1


def test_same_errors_as_the_run(store: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="n_componets"):
        em.plan(recipe(store, [{"pca": {"n_componets": 3}}]), calibration=EVEN)
    with pytest.raises(OSError, match="there is no such file"):
        em.plan(recipe(tmp_path / "map.zarr"), calibration=EVEN)
    with pytest.raises(InputError, match="names no input"):
        em.plan({"steps": STEPS}, calibration=EVEN)
    with pytest.raises(InputError, match="workers must be a whole number"):
        em.plan(recipe(store), workers=0, calibration=EVEN)


def test_result_that_is_there(store: Path, tmp_path: Path) -> None:
    data = recipe(store, [{"pca": {"n_components": 2}}])
    em.run(data, out=tmp_path / "r")
    same = em.plan(data, out=tmp_path / "r", calibration=EVEN)
    assert any("this very run already" in p.what for p in same.problems)
    other = em.plan(
        recipe(store, [{"pca": {"n_components": 3}}]), out=tmp_path / "r", calibration=EVEN
    )
    assert any("another run" in p.what and "--overwrite" in p.hint for p in other.problems)


def test_counts_of_a_store_are_known_from_its_sum_spectrum(store: Path) -> None:
    filled = int(np.count_nonzero(simulated().values))
    found = em.plan(recipe(store), calibration=EVEN).cube["filled_cells"]
    assert found["low"] <= filled <= found["high"]
    assert found["high"] < 4 * filled


def test_measurement_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emcube.recipe import calibration

    times = []

    def measured() -> Calibration:
        times.append(1)
        return EVEN

    monkeypatch.setattr(calibration, "_in_a_process", measured)
    assert calibrate(folder=tmp_path) == calibrate(folder=tmp_path) == EVEN
    assert len(times) == 1
    next(tmp_path.glob("*.json")).write_text("{broken")
    assert calibrate(folder=tmp_path) == EVEN
    assert calibrate(again=True, folder=tmp_path) == EVEN
    assert len(times) == 3
