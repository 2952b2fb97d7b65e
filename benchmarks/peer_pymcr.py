"""What pyMCR answers: ``python -m benchmarks.peer_pymcr PROBLEM ANSWER`` in its own environment.

PROBLEM (.npz) holds the matrix D (P, E), spectra to start from (K, E), which of them stay, and how
many rounds are made. Nothing of emcube is imported.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from pymcr.constraints import ConstraintNonneg
from pymcr.mcr import McrAR


def main() -> None:
    """Solve the problem by least squares that are exact under the bounds, and write what was found."""
    problem = np.load(sys.argv[1])
    fixed = [int(k) for k in problem["fixed"]]
    model = McrAR(
        c_regr="NNLS",
        st_regr="NNLS",
        c_constraints=[ConstraintNonneg()],
        st_constraints=[ConstraintNonneg()],
        max_iter=int(problem["rounds"]),
        tol_increase=None,
        tol_n_increase=None,
        tol_n_above_min=None,
        tol_err_change=None,
    )
    began = time.perf_counter()
    model.fit(problem["matrix"], ST=problem["first"], st_fix=fixed or None)
    seconds = time.perf_counter() - began
    np.savez(sys.argv[2], components=model.ST_, errors=np.asarray(model.err), seconds=seconds)


if __name__ == "__main__":
    main()
