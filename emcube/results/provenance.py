"""Where a result came from: the stack it was computed on, and the identity of the run."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["ARITHMETIC", "blas", "libraries", "now", "run_id", "stack"]

ARITHMETIC = ("emcube", "numpy", "scipy", "numba", "llvmlite", "scikit-learn", "dask", "dask-ml")
"""Distributions whose version can change a number; they are part of the identity of a run."""

_RECORDED = (
    *ARITHMETIC,
    "distributed",
    "xarray",
    "zarr",
    "numcodecs",
    "rosettasciio",
    "threadpoolctl",
)


def libraries(names: tuple[str, ...] = _RECORDED) -> dict[str, str]:
    """Versions of the libraries that are installed, by distribution name."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def stack() -> dict[str, Any]:
    """Describe what the bits of a result depend on beside recipe and data.

    Returns
    -------
    dict
        Python, platform, library versions, the BLAS builds with the kernel each dispatched to for
        this processor, and the processor and features that Numba compiles for. JSON values only and
        no paths, which would name a user's folders.
    """
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "n_cpus": os.cpu_count(),
        "libraries": libraries(),
        "blas": blas(),
        "numba": _numba_target(),
    }


def blas() -> list[dict[str, Any]]:
    """BLAS libraries loaded in this process; SciPy and NumPy wheels bring one each."""
    import numpy.linalg  # noqa: F401  (loads NumPy's)
    import scipy.linalg  # noqa: F401  (loads SciPy's)
    import threadpoolctl

    kept = ("user_api", "internal_api", "prefix", "version", "threading_layer", "architecture")
    found = [
        {key: info[key] for key in kept if info.get(key) is not None}
        for info in threadpoolctl.threadpool_info()
        if info.get("user_api") == "blas"
    ]
    return sorted(found, key=lambda info: json.dumps(info, sort_keys=True))


def _numba_target() -> dict[str, Any]:
    """Processor that Numba compiles for, after its own settings in the environment."""
    from numba.core.registry import cpu_target

    codegen = cpu_target.target_context.codegen()
    _, name, features = codegen.magic_tuple()
    enabled = sorted(f[1:] for f in str(features).split(",") if f.startswith("+"))
    return {"cpu": str(name), "features": enabled}


def now() -> str:
    """Time in UTC, ISO 8601, whole seconds."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0).isoformat()


def run_id(
    *,
    digest: str,
    recipe: Mapping[str, Any],
    seeds: Mapping[str, int],
    layout: Mapping[str, Any],
) -> str:
    """Identity of a run: what was analysed, how, with which random numbers and which libraries.

    Parameters
    ----------
    digest : str
        Content digest of the input, before the recipe's own preparation.
    recipe : mapping
        Normalised recipe without paths and output.
    seeds : mapping of str to int
        Seed of each step that draws random numbers.
    layout : mapping
        Block layout (`BlockPlan.as_dict`): batches and the order of summation hang on it.

    Returns
    -------
    str
        ``sha256:`` and 64 hexadecimal digits.

    Notes
    -----
    The same `run_id` on the same stack gives the same bits; `stack` is recorded beside it.
    """
    identity = {
        "emcube-run": 1,
        "digest": digest,
        "recipe": recipe,
        "seeds": dict(seeds),
        "layout": dict(layout),
        "libraries": libraries(ARITHMETIC),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
