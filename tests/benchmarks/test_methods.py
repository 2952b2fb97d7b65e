"""Every method that is measured runs on a tiny scene and brings an answer of the quality that it must have.

scikit-learn and dask-ml are here and run as they are. HyperSpy and espm live in environments of their own:
their modules run on stand-ins with the same interface, and on the real thing where an environment was built.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from benchmarks import environments, reference
from benchmarks.child import measure
from benchmarks.methods import BY_KEY, METHODS, WORKS, Method, key
from benchmarks.runner import MODULES, Options, _environment, measured_child

CHANNELS = 150

HERE = ("emcube", "sklearn", "dask-ml")
MEASURED = [m for m in METHODS if m.peer in HERE and m.work != "start"]
ELSEWHERE = [m for m in METHODS if m.peer not in HERE]


def run(method: Method, job, exact: dict, **more: object):
    module = importlib.import_module(f"benchmarks.{MODULES[method.peer]}")
    if method.work == "nmf-race":
        more |= {"target": exact["target"]} if method.ours else {"limit": 0.2}
    work = job(method.name, **more)
    found, answer = measure(module.METHODS[method.name], work)
    arrays = {n: v for n, v in answer.items() if isinstance(v, np.ndarray)}
    np.savez(work.out / "answer.npz", **arrays)
    centred = method.centred
    return found, answer, reference.judge(work.scene, work.out, method.work, centred)


@pytest.mark.parametrize("method", MEASURED, ids=key)
def test_runs_and_is_judged(method: Method, job, exact, capsys) -> None:
    found, answer, quality = run(method, job, exact)
    assert len(found["runs"]) == 1
    assert found["runs"][0] > 0
    assert 20e6 < found["peak_bytes"] < 16e9
    assert answer["settings"]
    if method.work in ("pca", "pca-scores"):
        assert 0 <= quality["subspace_deg"] <= 90
        if "randomized" not in method.name:
            # The incremental one forgets what it does not keep.
            assert quality["subspace_deg"] < (1.0 if "incremental" in method.name else 0.01)
    if method.work == "pca" and not re.search("randomized|incremental", method.name):
        assert quality["n_eigenvalues"] == CHANNELS
    if method.work == "nmf-race" and method.ours:
        assert quality["excess"] <= 0.01
    if method.work == "nmf-race" and not method.ours:
        assert quality["excess"] > -0.01
        assert quality["seconds_judged"] > 0
    if method.work == "nmf":
        assert quality["truth_deg"] < 45
    if method.work.startswith("kmeans") and method.ours:
        # On so few pixels the first random state ends in the next best optimum of the counts.
        assert -1e-6 < quality["inertia_excess"] < 0.15
    if method.work in ("count", "count-and-pca", "whole"):
        assert answer["n_components"] == 3


def test_all_eigenvalues_are_those_of_the_dense_matrix(job, exact) -> None:
    for name in ("emcube-pca", "sklearn-pca-covariance", "sklearn-pca-covariance-sparse"):
        _, answer, quality = run(BY_KEY[name], job, exact)
        assert answer["eigenvalues"].shape == (CHANNELS,), name
        assert quality["eigenvalue_error"] < (1e-9 if name == "emcube-pca" else 1e-3), name


def test_repeats_are_runs_of_their_own(job, exact, capsys) -> None:
    found, _, quality = run(BY_KEY["sklearn-pca-randomized"], job, exact, repeat=3)
    assert len(found["runs"]) == len(found["cpu_runs"]) == 3
    # A matrix that the run before had spoiled would give nonsense.
    assert quality["subspace_deg"] < 5
    assert capsys.readouterr().out.count("@begin") >= 3


def test_no_more_runs_than_enough(job, exact) -> None:
    found, _, _ = run(BY_KEY["sklearn-kmeans-sparse"], job, exact, repeat=50, enough=1e-6)
    assert len(found["runs"]) == 1


def test_dense_and_sparse_are_the_same_counts(job) -> None:
    from benchmarks import method_sklearn as peer

    wanted = job("nmf")
    for weight in ("", "poisson", "profiles"):
        order = np.random.default_rng(0).permutation(len(peer.pixels(wanted.scene)))
        for rows in (None, order):
            dense = peer.dense(wanted, weight, rows)
            np.testing.assert_allclose(
                peer.sparse(wanted, weight, rows).toarray(), dense, rtol=1e-5
            )


def test_weights_even_the_noise_out(job) -> None:
    from benchmarks import method_sklearn as peer

    counts = np.asarray(peer.pixels(job("nmf").scene), dtype=np.float64)
    g, h = counts.sum(axis=1, keepdims=True), counts.sum(axis=0)
    expected = counts * np.sqrt(counts.sum() / (np.maximum(g, 1) * np.maximum(h, 1)))
    np.testing.assert_allclose(peer.dense(job("nmf"), "poisson"), expected, rtol=1e-5)


# -- every name leads somewhere -------------------------------------------------------------------------


def names_in(module: str, table: str) -> set[str]:
    """Keys of a module's table of methods, without importing it."""
    path = Path(environments.__file__).parent / f"{module}.py"
    for node in ast.walk(ast.parse(path.read_text())):
        named = isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table
        if named and isinstance(node.value, ast.Dict):
            return {ast.literal_eval(k) for k in node.value.keys if k is not None}
    raise AssertionError(f"{module} has no table {table}")


def test_every_method_has_a_function_and_every_function_a_method() -> None:
    for peer, module in MODULES.items():
        table = "DECOMPOSITIONS" if peer == "hyperspy" else "METHODS"
        wanted = {m.name for m in METHODS if m.peer == peer and m.work != "start"}
        assert names_in(module, table) == wanted, peer


def test_each_work_starts_with_ours() -> None:
    for work in WORKS:
        of_it = [m for m in METHODS if m.work == work]
        assert of_it[0].ours, work
        assert all(m.name.endswith("-events") for m in of_it[1:] if m.ours), work


def test_every_peer_has_pinned_requirements() -> None:
    for peer in {m.peer for m in METHODS} - {"emcube"}:
        lines = environments.requirements(peer).read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins, peer
        assert all("==" in pin for pin in pins), peer


# -- peers that are not here ----------------------------------------------------------------------------


class FakeSignal:
    """HyperSpy's signal, as far as it is used; its decompositions are NumPy's."""

    def __init__(self, data: np.ndarray, lazy: bool = False) -> None:
        self.data, self.lazy = data, lazy
        self.learning_results = types.SimpleNamespace(factors=None, loadings=None)

    def save(self, path: Path, overwrite: bool = False) -> None:
        np.save(path, self.data)
        Path(f"{path}.npy").rename(path)

    def change_dtype(self, dtype: str) -> None:
        self.data = self.data.astype(dtype)

    def decomposition(self, **options: object) -> object:
        k = options["output_dimension"]
        assert options["normalize_poissonian_noise"]
        assert options["algorithm"] in ("SVD", "NMF")
        assert self.data.dtype == np.float32
        matrix = self.data.reshape(-1, self.data.shape[-1]).astype(np.float64)
        g = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        h = np.maximum(matrix.sum(axis=0), 1)
        _, _, v = np.linalg.svd(matrix / np.sqrt(g) / np.sqrt(h), full_matrices=False)
        v = np.abs(v) if options["algorithm"] == "NMF" else v
        self.learning_results.factors = (v[:k] * np.sqrt(h)).T
        self.learning_results.loadings = np.ones((len(matrix), k))
        return types.SimpleNamespace(n_iter_=7) if options["return_info"] else None


@pytest.fixture
def fake_hyperspy(monkeypatch: pytest.MonkeyPatch, scene: Path):
    api = types.ModuleType("hyperspy.api")
    api.signals = types.SimpleNamespace(Signal1D=FakeSignal)
    api.load = lambda path, lazy=False: FakeSignal(np.load(path), lazy)
    api.preferences = types.SimpleNamespace(General=types.SimpleNamespace(show_progressbar=True))
    package = types.ModuleType("hyperspy")
    package.api = api
    monkeypatch.setitem(sys.modules, "hyperspy", package)
    monkeypatch.setitem(sys.modules, "hyperspy.api", api)
    monkeypatch.delitem(sys.modules, "benchmarks.method_hyperspy", raising=False)
    yield
    sys.modules.pop("benchmarks.method_hyperspy", None)
    (scene / "counts.zspy").unlink(missing_ok=True)


@pytest.mark.parametrize("method", [m for m in ELSEWHERE if m.peer == "hyperspy"], ids=key)
def test_hyperspys_module_on_a_stand_in(
    method: Method, job, exact, fake_hyperspy, monkeypatch
) -> None:
    importlib.import_module("benchmarks.method_hyperspy").prepare(job(method.name).scene)
    found, answer, quality = run(method, job, exact)
    assert found["runs"][0] > 0
    assert answer["n_iter"] == 7
    assert "normalize_poissonian_noise=True" in answer["settings"]
    assert ("lazy=True" in answer["settings"]) == method.name.startswith("lazy")
    if method.work == "pca-scores":
        assert quality["subspace_deg"] < 0.01


def test_espms_module_on_a_stand_in(job, exact, monkeypatch) -> None:
    class SmoothNMF:
        """Lee and Seung's iterations, called as espm's."""

        def __init__(self, n_components=2, tol=1e-4, no_stop_criterion=False, max_iter=200, **rest):
            assert no_stop_criterion
            self.k, self.max_iter = n_components, max_iter

        def fit_transform(self, x):
            assert x.dtype == np.float32
            rng = np.random.default_rng(0)
            self.x = x
            w, h = rng.random((len(x), self.k)), rng.random((self.k, x.shape[1]))
            for _ in range(self.max_iter):
                w, h = self._iteration(w, h)

        def _iteration(self, w, h):
            h = h * (w.T @ (self.x / np.maximum(w @ h, 1e-12))) / w.sum(axis=0)[:, None]
            w = w * ((self.x / np.maximum(w @ h, 1e-12)) @ h.T) / h.sum(axis=1)
            return w, h

    package, estimators = types.ModuleType("espm"), types.ModuleType("espm.estimators")
    estimators.SmoothNMF = SmoothNMF
    monkeypatch.setitem(sys.modules, "espm", package)
    monkeypatch.setitem(sys.modules, "espm.estimators", estimators)
    monkeypatch.delitem(sys.modules, "benchmarks.method_espm", raising=False)
    try:
        _, answer, quality = run(BY_KEY["espm-nmf"], job, exact)
    finally:
        sys.modules.pop("benchmarks.method_espm", None)
    assert answer["stopped"]
    assert "no_stop_criterion=True" in answer["settings"]
    assert quality["excess"] > 0
    assert quality["seconds_judged"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hyperspy-lazy-svd", "hyperspy-nmf", "espm-nmf"])
def test_the_real_peer_where_it_is_installed(name: str, scene: Path, exact, tmp_path: Path) -> None:
    method = BY_KEY[name]
    home = environments.HOME / method.peer
    if not (home / "installed.txt").exists():
        pytest.skip(f"no environment of {method.peer} here; make bench builds it")
    python = environments.python_of(method.peer, print)
    job = {
        "method": method.name,
        "scene": str(scene),
        "out": str(tmp_path / "out"),
        "k": 3,
        "n_clusters": 4,
        "threads": 1,
        "repeat": 1,
        "limit": 1.0 if method.once else None,
    }
    module = f"benchmarks.{MODULES[method.peer]}"
    options = Options(folder=tmp_path, scales={}, threads=1)
    command = [python, "-W", "ignore", "-m", module, json.dumps(job)]
    found = measured_child(command, _environment(options, 1), 60.0)
    assert found["versions"][method.peer]
    quality = reference.judge(scene, tmp_path / "out", method.work, centred=False)
    assert quality
