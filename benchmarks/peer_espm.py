"""What espm answers: ``python -m benchmarks.peer_espm PROBLEM ANSWER`` in its own environment.

PROBLEM (.npz) holds counts D (P, E), spectra to start from (K, E), loadings (P, K), and how many iterations
are made. Nothing of emcube is imported.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings

import numpy as np
from espm.estimators import SmoothNMF


def main() -> None:
    """Minimise the bare Kullback-Leibler divergence, and write what was found."""
    problem = np.load(sys.argv[1])
    model = SmoothNMF(
        n_components=len(problem["first"]),
        init="custom",
        tol=0.0,
        no_stop_criterion=True,
        max_iter=int(problem["rounds"]),
        verbose=0,
    )
    matrix = problem["matrix"].T.astype(np.float64)
    began = time.perf_counter()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = model.fit_transform(matrix, W=problem["first"].T, H=problem["loadings"].T)
    np.savez(sys.argv[2], components=np.asarray(found).T, seconds=time.perf_counter() - began)


if __name__ == "__main__":
    main()
