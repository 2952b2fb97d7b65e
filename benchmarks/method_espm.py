"""What espm does, in memory: ``python -m benchmarks.method_espm JOB`` in its own environment.

Its NMF minimises the same bare objective (Kullback-Leibler, no regularisation, spectra on the simplex).
Reading the counts is not timed, in its favour. Nothing of emcube is imported.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from espm.estimators import SmoothNMF

from benchmarks.child import Answer, Job, Method, Run, serve
from benchmarks.data import blocks, pixels


class _Stop(Exception):
    """The limit is over: what was kept on the way is judged."""


def _nmf(job: Job) -> Callable[[Run], Answer]:
    small = job.at(job.warm)
    small.limit = min(1.0, job.limit or 1.0)
    _fit(small, _spectra(small), Run())
    matrix = _spectra(job)
    return lambda run: _fit(job, matrix, run)


def _spectra(job: Job) -> np.ndarray:
    """Counts (E, P), as espm takes them, single precision: half the memory and faster."""
    n_pixels, n_channels = pixels(job.scene).shape
    found = np.empty((n_channels, n_pixels), np.float32)
    for start, counts in blocks(job.scene):
        found[:, start : start + len(counts)] = counts.T
    return found


def _fit(job: Job, matrix: np.ndarray, run: Run) -> Answer:
    class Watched(SmoothNMF):  # type: ignore[misc]
        """Keeps the spectra after each iteration."""

        def _iteration(self, W: Any, H: Any) -> Any:
            found = super()._iteration(W, H)
            run.snapshot(np.asarray(found[0]).T)
            if job.limit is not None and run.clock.seconds() > job.limit:
                raise _Stop
            return found

    options = {"n_components": job.k, "tol": 0.0, "no_stop_criterion": True, "max_iter": 10**6}
    model = Watched(verbose=0, random_state=0, **options)
    text = ", ".join(f"{name}={value!r}" for name, value in options.items())
    settings = f"SmoothNMF({text}), float32"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.suppress(_Stop):
            model.fit_transform(matrix)
    return {"settings": settings, "stopped": True}


METHODS: dict[str, Method] = {"nmf": _nmf}

PACKAGES = ("espm", "hyperspy", "numpy", "scipy", "scikit-learn")


if __name__ == "__main__":
    serve(METHODS, PACKAGES)
