"""How sure the answer is, in words, in a table and as bands of the spectra.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.report.text import clean, number, percent

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from emcube.results import Result

__all__ = ["Sure", "bands_of", "sure_of", "uncertainty_of", "wide_rotations"]

SAMPLE = 40_000
"""Pixels over which errors are averaged, about."""

WIDE = 0.1
"""Share of a component's total that may be another's before the first screen says so."""

METHODS = {
    "fisher": "Fisher information of the counts",
    "bootstrap": "bootstrap",
    "thinning": "halves of the data",
    "area": "bootstrap over areas of the field of view",
    "restarts": "fits from other starts",
}


@dataclass(frozen=True)
class Sure:
    """One uncertainty step for the page: a sentence, and rows for each component."""

    step: str
    sentences: list[str]
    head: list[str]
    rows: list[list[str]]


def uncertainty_of(result: Result, step: str) -> str | None:
    """Name of the last step that says how sure a step is."""
    for name in reversed(result.steps):
        if result.verb(name) == "uncertainty" and result[name].attrs["on"] == step:
            return name
    return None


def bands_of(result: Result, step: str) -> NDArray[np.float64] | None:
    """Interval of a step's components (K, 2, E), where there is one and the signal is a spectrum."""
    name = uncertainty_of(result, step)
    if name is None:
        return None
    interval = result[name]["components_interval"]
    if interval.ndim != 3:
        return None
    found = interval.transpose("component", "bound", ...)
    return np.asarray(found.values, dtype=np.float64)


def sure_of(result: Result) -> list[Sure]:
    """What the page says of each uncertainty step."""
    return [_sure(result, s) for s in result.steps if result.verb(s) == "uncertainty"]


def wide_rotations(result: Result, step: str) -> list[str]:
    """Cautions about components whose size nothing in the data fixes."""
    name = uncertainty_of(result, step)
    if name is None:
        return []
    ranges = np.asarray(result[name]["rotation_share"].values, dtype=np.float64)
    wide = [
        f"component {k} ({low:.2f} to {high:.2f} times its size)"
        for k, (low, high) in enumerate(ranges)
        if max(1.0 - low, high - 1.0) > WIDE
    ]
    if not wide:
        return []
    told = (
        "The data would be described as well by other mixtures of these components, and more counts would "
        f"not change that: {', '.join(wide)}. See how sure it is."
    )
    return [told]


def _sure(result: Result, step: str) -> Sure:
    node = result[step]
    facts = node.attrs
    level = 100.0 * float(facts["level"])
    method = METHODS.get(facts["method"], clean(facts["method"]))
    told = (
        f"Intervals hold {level:g} % ({method}). Errors of counting are a pixel's own and average out over "
        "pixels; those of the components are shared by all pixels and do not. The last column is no error: "
        "it is what other factorisations, which describe the data as well, make of a component's total."
    )
    said = [told]
    if facts["method"] == "area":
        told = (
            "The bootstrap over areas asks what another field of view would have given, which is more than "
            "the noise of this one."
        )
        said.append(told)
    if facts["method"] == "restarts":
        n, same = int(facts["n_replicates"]), int(facts["n_equivalent"])
        said.append(f"{same} of {n} random starts ended as well as the best of them.")
    sizes = [
        _sampled_everywhere(result, name, variable)
        for name, variable in ((str(facts["on"]), "loadings"), *((step, n) for n in _STDS))
    ]
    total = np.nansum(sizes[0], axis=0)
    shares = [np.nansum(s, axis=0) / np.where(total > 0, total, np.nan) for s in sizes[1:]]
    spectra = np.asarray(node["components_std"].values, dtype=np.float64)
    spectra = np.nansum(spectra.reshape(len(spectra), -1), axis=1)
    ranges = np.asarray(node["rotation_share"].values, dtype=np.float64)
    rows = [
        [
            f"Component {k}",
            _percent(shares[0][k]),
            _percent(shares[1][k]),
            _percent(spectra[k]),
            f"{number(float(ranges[k, 0]), 3)} to {number(float(ranges[k, 1]), 3)}",
        ]
        for k in range(len(ranges))
    ]
    head = [
        "component",
        "a pixel's loading: counting",
        "a pixel's loading: components",
        "spectrum",
        "total, all that is as good",
    ]
    return Sure(clean(step), said, head, rows)


_STDS = ("loadings_std_counting", "loadings_std_shared")


def _percent(share: Any) -> str:
    return f"± {percent(float(share))}" if math.isfinite(float(share)) else "none"


def _sampled_everywhere(result: Result, step: str, variable: str) -> NDArray[np.float64]:
    """Values (n, K) of some pixels, of all cubes where there are several."""
    each = [result.field(name) for name in result.fields] or [result]
    return np.concatenate([_sampled(one[step][variable]) for one in each])


def _sampled(maps: xr.DataArray) -> NDArray[np.float64]:
    """Values (n, K) of some pixels, evenly spread; the same pixels for maps of one size."""
    nav = [str(d) for d in maps.dims if d != "component"]
    total = math.prod(maps.sizes[d] for d in nav)
    stride = max(1, math.ceil((total / SAMPLE) ** (1 / max(len(nav), 1))))
    some = maps.isel(
        {d: slice((min(stride, maps.sizes[d]) - 1) // 2, None, stride) for d in nav}
    ).transpose(*nav, "component")
    return np.asarray(some.values, dtype=np.float64).reshape(-1, maps.sizes["component"])
