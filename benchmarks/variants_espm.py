"""espm's answer to one problem: ``python -m benchmarks.variants_espm FOLDER`` in its own environment.

Reads ``problem.npz`` of the folder (counts, start, basis, weights) and writes ``espm.npz``: spectra and
loadings, a few times on the way, with the seconds of all cores so far. Nothing of emcube is imported.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from espm.estimators import SmoothNMF


def main(folder: Path) -> None:
    """Fit, and keep factors on the way."""
    given = np.load(folder / "problem.npz")
    counts = given["counts"].astype(np.float32).T
    basis = given["basis"] if given["basis"].size else None
    start = given["start"].T  # (features, components)
    loadings = given["loadings"].T
    limit = float(given["limit"])
    kept: list[tuple[float, Any, Any]] = []

    class Stop(Exception):
        pass

    class Watched(SmoothNMF):  # type: ignore[misc]
        def _iteration(self, W: Any, H: Any) -> Any:
            found = super()._iteration(W, H)
            now = time.process_time() - self.begun
            if not kept or now > 1.1 * kept[-1][0] + 0.05:
                kept.append((now, np.array(found[0]), np.array(found[1])))
            if now > limit:
                raise Stop
            return found

    model = Watched(
        n_components=start.shape[1],
        lambda_L=float(given["smoothness"]),
        G=basis.T if basis is not None else None,
        shape_2d=tuple(int(n) for n in given["shape"]),
        tol=0.0,
        no_stop_criterion=True,
        max_iter=10**6,
        verbose=0,
        random_state=0,
    )
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model.begun = time.process_time()
        with contextlib.suppress(Stop):
            model.fit_transform(counts, W=start.copy(), H=loadings.copy())
    np.savez(
        folder / "espm.npz",
        seconds=[k[0] for k in kept],
        numbers=[k[1].T for k in kept],
        loadings=[k[2].T for k in kept],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
