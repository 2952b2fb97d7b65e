"""Compare two results of one recipe: bit by bit, and how far they are apart where they differ.

On the same stack (`stack_differences` finds none) every bit must be the same. On another one sums are
rounded in another order or by other instructions; iterations carry that on. How much of it is taken is
stated here, by kind of step and variable, and is a share of the largest value of the variable, so that it
means the same for counts and for shares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcube.results.kinds import ESTIMATES
from emcube.results.provenance import ARITHMETIC

if TYPE_CHECKING:
    from emcube.results import Result

__all__ = ["EXACT", "TOLERANCES", "Difference", "compare", "stack_differences", "tolerance"]

EXACT = 0.0

_ROTATED = {"components": 1e-4, "loadings": 1e-4, "mean": 1e-10, "variance_share": 1e-4}

_ENDMEMBERS = {
    "components": 1e-3,
    "loadings": 1e-3,
    "component_totals": 1e-3,
    "counting_limit": 1e-2,
}

# Chains part at the first bit that differs: what they tell is the same within their noise alone.
_SAMPLED = {
    "components": 0.1,
    "components_std": 0.5,
    "components_interval": 0.2,
    "component_totals": 0.1,
    "component_totals_std": 1.0,
    "presence": 0.2,
    "r_hat": 1.0,
    "ess": 1.0,
    "mixing_r_hat": 1.0,
    "mixing_ess": 1.0,
    "loadings": 0.2,
    "loadings_std": 0.5,
    "loadings_interval": 0.3,
}

TOLERANCES: dict[str, dict[str, float]] = {
    "input": {"total_counts": 1e-12, "sum_spectrum": 1e-12, "used": EXACT},
    "estimate_n_components": {
        "singular_value": 1e-6,
        "relative": 1e-6,
        "threshold": 1e-6,
        "accepted": EXACT,
    },
    "pca": {
        "components": 1e-5,
        "loadings": 1e-5,
        "explained_variance": 1e-8,
        "explained_variance_ratio": 1e-8,
        "singular_values": 1e-8,
        "mean": 1e-10,
    },
    "nmf": {
        "components": 1e-3,
        "loadings": 1e-3,
        "objective": 1e-6,
        "objective_path": 1e-5,
        "component_totals": 1e-3,
        "coefficients": 1e-3,
        # Given, or components of an earlier step.
        "known": 1e-3,
        "init": 1e-3,
    },
    "survey_n_components": {
        "singular_value": 1e-3,
        "accepted": EXACT,
        "indicator": 1e-3,
        "threshold": 1e-3,
        "optimal_threshold": 1e-3,
        "gain": 1e-2,
        "gain_error": 1e-2,
        "worst_angle": 1e-2,
        "consensus": 1e-2,
    },
    "mcr": {
        "components": 1e-3,
        "loadings": 1e-3,
        "component_totals": 1e-3,
        "lack_of_fit_path": 1e-3,
        "known": 1e-3,
        "init": 1e-3,
    },
    "bayesian_unmixing": _SAMPLED,
    "ica": _ROTATED,
    "varimax": _ROTATED,
    "vca": _ENDMEMBERS,
    "nfindr": _ENDMEMBERS,
    "sisal": {**_ENDMEMBERS, "components_range": 1e-2, "purity": 1e-3},
    "uncertainty": {
        "loadings_std_counting": 1e-3,
        "loadings_std_shared": 1e-2,
        "loadings_interval": 1e-3,
        "loadings_rotation_range": 1e-2,
        "components_std": 1e-2,
        "components_interval": 1e-3,
        "rotation_range": 1e-2,
        "rotation_share": 1e-2,
    },
    "diagnostics": {
        "chi_square": 1e-2,
        "deviance": 1e-2,
        "chi_square_spectrum": 1e-2,
        "residual_correlation": 1e-2,
        "residual_correlation_error": 1e-2,
        "denoised_mean": 1e-6,
        "raw_mean": 1e-6,
        "denoised_variance": 1e-6,
        "theory_variance": 1e-6,
        "n_cells": 1e-6,
        "line_bias": 1e-3,
        "line_bias_error": 1e-3,
    },
    "phase_fractions": {
        "fraction": 1e-3,
        "fraction_std_counting": 5e-2,
        "fraction_std_area": 1e-2,
        "fraction_interval": 1e-2,
        "mean_fraction": 1e-3,
        "spread": 1e-2,
        "standard_error": 1e-2,
        "mean_interval": 1e-2,
        "share_counting": 5e-2,
        "share_area": 5e-2,
        "share_fields": 5e-2,
        "p_value": 5e-2,
        "fields_needed": 2e-2,
        "fields_needed_interval": 2e-2,
        "fields_needed_area": 2e-2,
        "n_pixels": EXACT,
        "n_tiles": EXACT,
    },
    "kmeans": {
        "labels": 1e-3,
        "cluster_centers": 1e-3,
        "cluster_weights": 1e-3,
        "inertia": 1e-5,
    },
    "gaussian_mixture": {
        "labels": 1e-3,
        "probabilities": 1e-2,
        "cluster_centers": 1e-3,
        "cluster_weights": 1e-3,
        "means": 1e-3,
        "covariances": 1e-3,
        "log_likelihood": 1e-6,
        "log_likelihood_path": 1e-5,
        "bic": 1e-6,
        "aic": 1e-6,
    },
    "cluster_quality": {
        "silhouette": 1e-2,
        "silhouette_error": 1e-2,
        "stability": 1e-2,
        "stability_least": 1e-2,
        "sampled": 1e-2,
    },
    "poisson_mixture": {
        "labels": 1e-3,
        "probabilities": 1e-2,
        "cluster_centers": 1e-3,
        "cluster_weights": 1e-3,
        "log_likelihood": 1e-6,
        "log_likelihood_path": 1e-5,
        "bic": 1e-6,
        "aic": 1e-6,
    },
}
"""Largest difference of each variable on another stack, as a share of its largest value; of labels, the share
of pixels that may have another one.
"""

_AXIS = 1e-12
"""Of coordinates, which come from the data."""

_SHARES = frozenset({"labels", "used", "accepted"})
"""Variables of which the share of values is told that differ: their sizes mean nothing."""

_SLAB = 2**25
"""Bytes of an array that are compared at a time."""


@dataclass(frozen=True)
class Difference:
    """How far one variable of two results is apart.

    Attributes
    ----------
    name : str
        Node and variable.
    identical : bool
        Bit by bit.
    difference : float
        Largest difference as a share of the largest value; of labels the share of pixels; infinite where
        shapes or types differ, where one lacks it, or where one has no number and the other has.
    tolerance : float
        What is taken on another stack.
    remark : str
        Why it is infinite.
    advisory : bool
        Whether any difference is taken: it hangs on how the data came, not on the run, and is told only.
    """

    name: str
    identical: bool
    difference: float
    tolerance: float
    remark: str = ""
    advisory: bool = False

    @property
    def within(self) -> bool:
        """Whether it is within the tolerance."""
        return self.advisory or self.difference <= self.tolerance


def tolerance(verb: str, variable: str) -> float:
    """What is taken of a variable on another stack; coordinates come from the data."""
    return TOLERANCES.get(verb, {}).get(variable, _AXIS)


def compare(published: Result, again: Result) -> list[Difference]:
    """Compare every array of two results, and the numbers that were estimated.

    Parameters
    ----------
    published, again : Result
        Complete ones.

    Returns
    -------
    list of Difference
        In the order of the steps; the published one is what the other is measured by.

    Notes
    -----
    Arrays with equal digests are not read. Memory: some tens of MiB, whatever their sizes.
    """
    found: list[Difference] = []
    for node in [n for n in ("input", *published.steps) if n in published.tree.children]:
        found += _compare_node(published, again, node)
    extra = sorted(set(again.tree.children) - set(published.tree.children))
    found += [Difference(n, False, np.inf, EXACT, "not in the published result") for n in extra]
    return found


def _compare_node(published: Result, again: Result, node: str) -> Iterator[Difference]:
    if node not in again.tree.children:
        yield Difference(node, False, np.inf, EXACT, "missing")
        return
    first, second = (r.tree.children[node].attrs for r in (published, again))
    verb = str(first["emcube"]["verb"])
    if verb in ESTIMATES:
        yield _compare_number(node, first.get("n_components"), second.get("n_components"))
    ours, theirs = (attrs["emcube"].get("digests", {}) for attrs in (first, second))
    for name in sorted({*ours, *theirs}):
        allowed = tolerance(verb, name)
        if name not in ours or name not in theirs:
            where = "missing" if name in ours else "not in the published result"
            yield Difference(f"{node}/{name}", False, np.inf, allowed, where)
        elif ours[name] == theirs[name]:
            yield Difference(f"{node}/{name}", True, 0.0, allowed)
        else:
            yield _compare_array(published.path, again.path, f"{node}/{name}", allowed)


def _compare_number(node: str, first: Any, second: Any) -> Difference:
    same = first == second
    remark = "" if same else f"{second} in place of {first}"
    return Difference(f"{node}: number", same, 0.0 if same else np.inf, EXACT, remark)


def _compare_array(first: Path, second: Path, name: str, allowed: float) -> Difference:
    import zarr

    one: Any = zarr.open_array(str(first), path=name, mode="r")
    two: Any = zarr.open_array(str(second), path=name, mode="r")
    if one.shape != two.shape or one.dtype != two.dtype:
        remark = f"{two.dtype} {two.shape} in place of {one.dtype} {one.shape}"
        return Difference(name, False, np.inf, allowed, remark)
    by_share = name.rpartition("/")[2] in _SHARES or one.dtype.kind not in "iufc"
    identical, unequal, apart, largest = True, 0, 0.0, 0.0
    for region in _slabs(one):
        a, b = np.asarray(one[region]), np.asarray(two[region])
        same = _same_bits(a, b)
        identical &= same
        if same and by_share:
            continue
        if by_share:
            unequal += int(np.count_nonzero(a != b))
        else:
            gap, size = _apart(a, b)
            apart, largest = max(apart, gap), max(largest, size)
    if by_share:
        return Difference(name, identical, unequal / max(1, one.size), allowed)
    # Of an array of zeros the difference itself is told.
    return Difference(name, identical, apart / largest if largest else apart, allowed)


def _slabs(array: Any) -> Iterator[Any]:
    """Parts along the first dim, of whole chunks and a bounded size."""
    if not array.shape:
        yield ()
        return
    row = max(1, array.nbytes // max(1, array.shape[0]))
    step = max(1, _SLAB // row)
    chunk = int(array.chunks[0])
    step = max(chunk, step - step % chunk)
    for start in range(0, array.shape[0], step):
        yield slice(start, start + step)


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.dtype.kind in "OTU":
        return bool(np.array_equal(a, b))
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def _apart(a: NDArray[Any], b: NDArray[Any]) -> tuple[float, float]:
    """Largest difference, and largest size of `a`; infinite where only one has a number."""
    if a.dtype.kind in "iu":
        a, b = a.astype(np.float64), b.astype(np.float64)
    there, other = np.isfinite(a), np.isfinite(b)
    if not np.array_equal(there, other) or not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf"), 1.0
    if not there.any():
        return 0.0, 0.0
    return float(np.abs(b[there] - a[there]).max()), float(np.abs(a[there]).max())


# ------------------------------------------------------------------------------------------ the stacks


def stack_differences(
    published: Mapping[str, Any], again: Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
    """What differs between the provenances of two results of that on which bits depend.

    Parameters
    ----------
    published, again : mapping
        ``provenance`` of the results.

    Returns
    -------
    dict
        What it is, to how it was and how it is now; empty on the same stack.
    """
    first, second = (_relevant(p) for p in (published, again))
    return {
        key: (first.get(key, "none"), second.get(key, "none"))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    }


def _relevant(provenance: Mapping[str, Any]) -> dict[str, str]:
    stack = provenance.get("stack") or {}
    libraries = stack.get("libraries") or {}
    found = {f"{name} version": str(libraries[name]) for name in ARITHMETIC if name in libraries}
    found["machine"] = f"{stack.get('machine')}, {stack.get('implementation')}"
    # The C library computes what NumPy and SciPy leave to it; the kernel's version means nothing.
    c_library = re.search(r"-with-([\w.]+)$", str(stack.get("platform", "")))
    found["C library"] = c_library[1] if c_library else str(stack.get("platform", "")).split("-")[0]
    for i, blas in enumerate(stack.get("blas") or ()):
        words = (blas.get("internal_api"), blas.get("version"), blas.get("architecture"))
        found[f"BLAS {i}"] = " ".join(map(str, words)) + f" ({blas.get('threading_layer')})"
    numba = stack.get("numba") or {}
    found["Numba's processor"] = str(numba.get("cpu"))
    found["Numba's features"] = " ".join(map(str, numba.get("features") or ()))
    layout = provenance.get("layout") or {}
    found["block layout"] = ", ".join(f"{k} {layout[k]}" for k in sorted(layout))
    return found
