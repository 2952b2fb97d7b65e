"""The subspace that NMF starts in, against all eigenvectors of the matrix written out."""

from __future__ import annotations

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy.linalg import subspace_angles

from emcube.engine import run_sweep, use_threads
from emcube.engine.states import copied
from emcube.models import nmf_start
from emcube.models.labels import as_source
from emcube.models.nmf_losses import resolve_loss
from emcube.models.nmf_start import ROUNDS, SketchSweep, sketch


def measured(n_pixels: int = 1500, n_channels: int = 300, noise: float = 1.0) -> np.ndarray:
    """Four edges, the last one weak, in noise of one size."""
    rng = np.random.default_rng(0)
    energy = np.linspace(0.0, 1.0, n_channels)
    spectra = np.stack([np.exp(-2 * energy)] + [1.0 * (energy > c) for c in (0.2, 0.5, 0.8)])
    mix = rng.dirichlet(np.full(4, 0.5), n_pixels) * [20.0, 10.0, 4.0, 2.0]
    values = mix @ spectra + noise * rng.standard_normal((n_pixels, n_channels))
    return np.asarray(values, dtype=np.float32)


def exact(values: np.ndarray, loss: Any) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of the weighted scatter matrix, descending."""
    wide = values.astype(np.float64)
    scale = np.sqrt(loss.channel_weights(wide.sum(axis=0)))
    totals = wide.sum(axis=1) if loss.counts else np.ones(len(wide))
    scaled = wide * scale / np.sqrt(np.where(totals > 0.0, totals, 1.0))[:, None]
    found, vectors = np.linalg.eigh(scaled.T @ scaled)
    return found[::-1], vectors[:, ::-1]


def found_in(values: Any, word: str, k: int) -> nmf_start.Sketch:
    source, _ = as_source(values, None)
    return sketch(source, resolve_loss(word), k, seed=0)


def angle(found: nmf_start.Sketch, vectors: np.ndarray) -> float:
    k = found.vectors.shape[1]
    return float(np.degrees(subspace_angles(found.vectors, vectors[:, :k]).max()))


@pytest.mark.parametrize("k", [1, 4])
def test_least_squares(k: int) -> None:
    values = measured()
    found, (eigenvalues, vectors) = found_in(values, "frobenius", k), exact(values, resolve_loss(2))
    assert angle(found, vectors) < 0.1
    np.testing.assert_allclose(found.eigenvalues[:k], eigenvalues[:k], rtol=1e-6)
    assert found.eigenvalues.size == k + nmf_start.OVERSAMPLES
    wide = values.astype(np.float64)
    assert found.square == pytest.approx(np.square(wide).sum(), rel=1e-12)
    np.testing.assert_allclose(found.totals, wide.sum(axis=0), rtol=1e-12)
    # What is left is noise: one in every value.
    left = found.square - found.eigenvalues[:k].sum()
    assert left == pytest.approx(eigenvalues[k:].sum(), rel=1e-3)


@pytest.mark.parametrize(("level", "k"), [(10.0, 4), (0.05, 2)])
def test_counts(monkeypatch: pytest.MonkeyPatch, level: float, k: int) -> None:
    """Of more channels than the Gram matrix is summed for, dense and as rows; as many dims as show signal."""
    # The way of more than 2048 channels, on a matrix small enough for its twin, a full decomposition.
    monkeypatch.setattr(nmf_start, "MOMENT_CHANNELS", 100)
    values = np.random.default_rng(1).poisson(level * np.maximum(measured(noise=0.0), 0.1))
    values[:, 7] = 0
    values = values.astype(np.uint16)
    found = found_in(values, "kullback-leibler", k)
    eigenvalues, vectors = exact(values, resolve_loss(1))
    assert found.totals[7] == 0.0
    assert angle(found, vectors) < 0.1
    np.testing.assert_allclose(found.eigenvalues[:k], eigenvalues[:k], rtol=1e-5)


@pytest.mark.parametrize("kind", ["few channels", "no noise", "zeros"])
def test_space_that_ends_early(kind: str) -> None:
    """Once nothing is left to multiply the answer is exact, and no pass is made for nothing."""
    values = {
        "few channels": lambda: measured()[:, ::15],
        "no noise": lambda: measured(noise=0.0).astype(np.float64),
        "zeros": lambda: np.zeros((50, 40), dtype=np.float32),
    }[kind]()
    values = np.ascontiguousarray(values)
    loss = resolve_loss("frobenius")
    source, _ = as_source(values, None)
    first, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((values.shape[1], 14)))
    outcome = run_sweep(SketchSweep(loss, first, 4), source, max_rounds=ROUNDS)
    assert outcome.converged
    assert outcome.n_rounds < ROUNDS
    found = outcome.state.found
    eigenvalues, vectors = exact(values, loss)
    np.testing.assert_allclose(
        found.eigenvalues, eigenvalues[:14], rtol=1e-9, atol=1e-10 * eigenvalues[0]
    )
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(4), atol=1e-12)
    if kind != "zeros":
        assert angle(found, vectors) < 1e-4


def test_same_bits_on_any_number_of_threads() -> None:
    values = da.from_array(measured(), chunks=(170, 300))
    answers = []
    for n in (1, 3):
        with use_threads(n):
            answers.append(found_in(values, "frobenius", 4))
    np.testing.assert_array_equal(answers[0].vectors, answers[1].vectors)
    np.testing.assert_array_equal(answers[0].eigenvalues, answers[1].eigenvalues)


def test_workers_get_no_more_than_they_multiply() -> None:
    """The space stays with the client."""
    source, _ = as_source(measured(), None)
    first, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((300, 14)))
    sweep = SketchSweep(resolve_loss("frobenius"), first, 4)
    state = run_sweep(sweep, source, max_rounds=2).state
    assert len(state.space.inner) == 28
    sent = pickle.loads(pickle.dumps(state))
    np.testing.assert_array_equal(sent.front, state.front)
    np.testing.assert_array_equal(sent.scale, state.scale)
    assert not sent.space.basis
    assert len(pickle.dumps(state)) < 2 * first.nbytes


@pytest.mark.parametrize("word", ["frobenius", "kullback-leibler"])
def test_a_checkpoint_keeps_all_of_the_state(word: str) -> None:
    """Between any two rounds, and the rounds that follow give the same bits."""
    loss = resolve_loss(word)
    values = np.maximum(measured(), 0.0)
    source, _ = as_source(values, None)
    first, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((300, 14)))
    sweep = SketchSweep(loss, first, 4)
    state = kept = sweep.start()
    for number in range(ROUNDS):
        statistic = sweep.map(source.load(0), state, (0, number, 0))
        state, done = sweep.step(state, statistic, number)
        kept, _ = sweep.step(copied(kept), statistic, number)
    assert done
    assert state.found is not None
    assert kept.found is not None
    np.testing.assert_array_equal(kept.found.vectors, state.found.vectors)
    np.testing.assert_array_equal(kept.found.eigenvalues, state.found.eigenvalues)
