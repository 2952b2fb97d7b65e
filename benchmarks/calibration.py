"""Do intervals hold what they promise? Many realisations of small scenes, with the truth known.

    python -m benchmarks.calibration [--realisations 200] [--methods fisher bootstrap ...]

Prints the share of true values that the intervals of `emcube.uncertainty` hold, by stratum, and where
components are
not identifiable the share that the reported range holds. A stratum is what a user would ask about: the
interior of a phase, mixed pixels, pixels where the truth is zero, and few counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import emcube as em

CHANNELS, SIDE = 60, 24
LEVEL = 0.9

TARGETS = {
    "interior of phases": (0.85, 0.95),
    "mixed pixels": (0.85, 0.95),
    "truth is zero": (0.90, 1.0),
    "fewer than 10 counts": (0.85, 0.99),
    "components": (0.85, 0.99),
    "range of loadings": (0.90, 1.0),
    "range of components": (0.90, 1.0),
}
"""What must hold at a nominal level of 90 %."""


@dataclass
class Truth:
    """A scene: components (3, E), loadings (SIDE, SIDE, 3)."""

    components: NDArray[np.float64]
    loadings: NDArray[np.float64]

    def draw(self, rng: np.random.Generator) -> xr.DataArray:
        counts = rng.poisson(self.loadings @ self.components).astype(np.uint16)
        return em.make_cube(counts, dims=("y", "x", "energy"), sig_dims=("energy",))


def spectra() -> NDArray[np.float64]:
    """Three spectra that share a background and a line; each has one of its own."""
    channel = np.arange(CHANNELS)
    background = 0.4 * np.exp(-channel / 25.0)

    def line(at: float, height: float) -> NDArray[np.float64]:
        return np.asarray(height * np.exp(-0.5 * ((channel - at) / 1.6) ** 2))

    found = np.array(
        [
            background + line(12, 1.0) + line(30, 0.3),
            background + line(20, 1.0) + line(30, 0.8),
            background + line(44, 1.0) + line(12, 0.2),
        ]
    )
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def scene(counts: float = 200.0, *, pure: bool = True) -> Truth:
    """Three phases in stripes that run into each other; a strip of few counts at the lower edge.

    Without pure pixels every pixel holds some of every component.
    """
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    place = 3.0 * x - 0.5
    # Pure within 0.3 of a phase's middle, half and half where two meet.
    shares = np.stack(
        [np.clip(1.75 - 2.5 * np.abs(place - k), 0.0, 1.0) for k in range(3)], axis=-1
    )
    shares /= shares.sum(axis=-1, keepdims=True)
    if not pure:
        shares = 0.12 + 0.64 * shares
    thickness = np.where(y > 0.83, 6.0 / counts, 0.7 + 0.6 * y)
    return Truth(spectra(), counts * thickness[..., None] * shares)


@dataclass
class Coverage:
    """How often the truth was held, by stratum."""

    held: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def add(self, stratum: str, inside: NDArray[np.bool_], where: NDArray[np.bool_]) -> None:
        self.held[stratum] = self.held.get(stratum, 0) + int(np.count_nonzero(inside & where))
        self.asked[stratum] = self.asked.get(stratum, 0) + int(np.count_nonzero(where))

    def share(self, stratum: str) -> float:
        return self.held[stratum] / self.asked[stratum]


def strata(truth: Truth) -> dict[str, NDArray[np.bool_]]:
    """Which loadings (SIDE, SIDE, 3) belong to which stratum."""
    total = truth.loadings.sum(axis=-1, keepdims=True)
    share = truth.loadings / total
    full = total > 30.0
    return {
        "interior of phases": full & (share > 0.99),
        "mixed pixels": full & (share > 0.05) & (share < 0.95),
        "truth is zero": np.broadcast_to(full, share.shape) & (truth.loadings == 0.0),
        "fewer than 10 counts": ~full & (truth.loadings > 0.0),
    }


def inside(bounds: xr.DataArray, truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    low, high = (bounds.isel(bound=i).values for i in (0, 1))
    # What is zero is held by an interval that starts there, and rounding is no miss.
    return np.asarray((low <= truth + 1e-12) & (truth <= high + 1e-12))


def one(truth: Truth, seed: int, method: str, found: Coverage, *, pure: bool) -> None:
    cube = truth.draw(np.random.default_rng(seed))
    nmf = em.MiniBatchNMF(3, random_state=0).fit(cube)
    order, _ = em.scenes.metrics.match_components(
        nmf.components_.values, truth.components, truth.components.mean(axis=0)
    )
    sure = em.uncertainty(nmf, cube, level=LEVEL, method=method, random_state=seed)
    sure = sure.isel(component=order)
    if pure:
        held = inside(sure.loadings_interval, truth.loadings)
        for name, where in strata(truth).items():
            found.add(name, held, where)
        seen = truth.components * truth.loadings.sum(axis=(0, 1))[:, None] > 5.0
        found.add("components", inside(sure.components_interval, truth.components), seen)
        return
    # The range says what rotation does; counting comes on top of it.
    wide = widened(sure.loadings_rotation_range, sure.loadings_interval, nmf.transform(cube), order)
    found.add("range of loadings", inside(wide, truth.loadings), truth.loadings > 0.0)
    band = widened(sure.rotation_range, sure.components_interval, nmf.components_, order)
    found.add("range of components", inside(band, truth.components), truth.components > 0.0)


def widened(
    outer: xr.DataArray, interval: xr.DataArray, value: xr.DataArray, order: NDArray[np.intp]
) -> xr.DataArray:
    """The range of rotations with the interval of counting on either side of it."""
    middle = value.isel(component=order)
    low = outer.isel(bound=0) - (middle - interval.isel(bound=0))
    high = outer.isel(bound=1) + (interval.isel(bound=1) - middle)
    return xr.concat([np.maximum(low, 0.0), high], dim="bound").transpose(*outer.dims)


def coverage(
    method: str, seeds: Iterable[int], *, counts: float = 200.0, ranges: bool = True
) -> Coverage:
    """Coverage of one method over realisations of the scenes with and without pure pixels."""
    found = Coverage()
    for pure in (True, False) if ranges else (True,):
        truth = scene(counts, pure=pure)
        for seed in seeds:
            one(truth, seed, method, found, pure=pure)
    return found


def rows(method: str, counts: float, found: Coverage) -> list[str]:
    lines = []
    for name, (low, high) in TARGETS.items():
        if name not in found.asked:
            continue
        share = found.share(name)
        verdict = "holds" if low <= share <= high else "MISSES"
        lines.append(
            f"| {method} | {counts:g} | {name} | {100 * share:.1f} % | {100 * low:g} to {100 * high:g} % "
            f"| {verdict} | {found.asked[name]:,} |"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--realisations", type=int, default=200)
    parser.add_argument("--methods", nargs="+", default=["fisher", "bootstrap"])
    parser.add_argument("--counts", nargs="+", type=float, default=[60.0, 300.0])
    options = parser.parse_args(arguments)
    print(f"Nominal level {100 * LEVEL:g} %, {options.realisations} realisations of each scene\n")
    print("| method | counts a pixel | stratum | held | must hold | | values |")
    print("|---|---|---|---|---|---|---|")
    for method in options.methods:
        for counts in options.counts:
            start = time.perf_counter()
            found = coverage(method, range(options.realisations), counts=counts)
            print("\n".join(rows(method, counts, found)), flush=True)
            print(f"{method}, {counts:g}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
