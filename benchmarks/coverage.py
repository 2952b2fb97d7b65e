"""Small scenes with known truth, and how often intervals hold it, by stratum.

A method is an `Answer`: a function that fits a cube and says its `Intervals`, components in the order of the
truth. `study` asks it about many realisations of a scene, and remembers each in a file, so that a long study
can be stopped and continued.

Letters: K components, E channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

LEVEL = 0.9
"""Nominal level of all intervals here."""

TARGETS = {
    "interior of phases": (0.85, 0.95),
    "mixed pixels": (0.85, 0.95),
    "truth is zero": (0.90, 1.0),
    "fewer than 10 counts": (0.85, 0.99),
    "components": (0.85, 0.99),
    "range of loadings": (0.90, 1.0),
    "range of components": (0.90, 1.0),
}
"""What must hold at a nominal level of 90 %: of intervals where the data fix the answer, else of ranges."""

FEW, FULL = 10.0, 30.0
"""Counts of a pixel below which it has few, and above which it is looked at as full."""

SEEN = 5.0
"""Expected counts of a component in a channel from which its value there is asked about."""

MET = "chains met"
"""Of Markov chains, beside the strata: nothing is asked of it."""

Array = NDArray[np.float64]
Pair = tuple[Array, Array]


# ------------------------------------------------------------------------------------------ scenes


@dataclass(frozen=True, eq=False)
class Truth:
    """A scene: components (K, E), each summing to one, and loadings (y, x, K) in counts.

    Where no pixel is pure, the data do not fix the answer, and only ranges can hold the truth.
    """

    components: Array
    loadings: Array
    pure: bool = True

    def draw(self, rng: np.random.Generator) -> xr.DataArray:
        """One realisation: counts (y, x, energy)."""
        import emcube as em

        counts = rng.poisson(self.loadings @ self.components).astype(np.uint16)
        return em.make_cube(counts, dims=("y", "x", "energy"), sig_dims=("energy",))

    @property
    def strata(self) -> dict[str, NDArray[np.bool_]]:
        """Which loadings (y, x, K) belong to which stratum."""
        total = self.loadings.sum(axis=-1, keepdims=True)
        share = self.loadings / total
        full = np.broadcast_to(total > FULL, share.shape)
        return {
            "interior of phases": full & (share > 0.99),
            "mixed pixels": full & (share > 0.05) & (share < 0.95),
            "truth is zero": full & (self.loadings == 0.0),
            "fewer than 10 counts": (total < FEW) & (self.loadings > 0.0),
        }

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Values of the components (K, E) that are asked about."""
        return self.components * self.loadings.sum(axis=(0, 1))[:, None] > SEEN


def lines(n_channels: int, peaks: list[list[tuple[float, float]]], slope: float) -> Array:
    """Spectra that share a background; each has its own lines (channel, height)."""
    channel = np.arange(n_channels)
    background = 0.4 * np.exp(-channel / slope)
    found = np.array(
        [
            background
            + sum(height * np.exp(-0.5 * ((channel - at) / 1.6) ** 2) for at, height in mine)
            for mine in peaks
        ]
    )
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def spectra() -> Array:
    """Components of the stripes."""
    return lines(60, [[(12, 1.0), (30, 0.3)], [(20, 1.0), (30, 0.8)], [(44, 1.0), (12, 0.2)]], 25.0)


def stripes(counts: float, *, pure: bool = True, side: int = 24) -> Truth:
    """Three phases in stripes that run into each other; a strip of few counts at the lower edge.

    Without pure pixels every pixel holds some of every component.
    """
    y, x = np.mgrid[:side, :side] / side
    place = 3.0 * x - 0.5
    # Pure within 0.3 of a phase's middle, half and half where two meet.
    shares = np.stack(
        [np.clip(1.75 - 2.5 * np.abs(place - k), 0.0, 1.0) for k in range(3)], axis=-1
    )
    return _mixed(spectra(), shares, np.where(y > 0.83, 6.0 / counts, 0.7 + 0.6 * y), counts, pure)


def grains(counts: float, *, pure: bool = True, side: int = 28) -> Truth:
    """Four phases in twelve grains with soft borders, of other spectra and unequal areas.

    Each phase has sixty pure pixels or more. Methods were tuned on `stripes` above all; rules were tried
    on it, too.
    """
    components = lines(
        72,
        [
            [(10, 0.9), (33, 0.5)],
            [(17, 1.1), (33, 0.2), (58, 0.3)],
            [(24, 0.8), (47, 0.7)],
            [(10, 0.4), (52, 1.0)],
        ],
        32.0,
    )
    rng = np.random.default_rng(74)
    seeds, phase = rng.random((12, 2)), np.array([0, 1, 2, 3, 0, 1, 2, 0, 1, 0, 3, 2])
    y, x = np.mgrid[:side, :side] / side
    far = np.hypot(y[..., None] - seeds[:, 0], x[..., None] - seeds[:, 1])
    nearest = np.stack([far[..., phase == k].min(axis=-1) for k in range(4)], axis=-1)
    # One where a phase is nearer than all others by 0.06 of the field, half and half at the border.
    gap = nearest - nearest.min(axis=-1, keepdims=True)
    thickness = np.where(x < 0.12, 7.0 / counts, 0.8 + 0.4 * x)
    return _mixed(components, np.clip(1.0 - gap / 0.06, 0.0, 1.0), thickness, counts, pure)


def _mixed(components: Array, shares: Array, thickness: Array, counts: float, pure: bool) -> Truth:
    shares = shares / shares.sum(axis=-1, keepdims=True)
    if not pure:
        k = len(components)
        shares = 0.36 / k + 0.64 * shares
    return Truth(components, counts * thickness[..., None] * shares, pure)


SCENES: dict[str, Callable[[float], Truth]] = {
    "stripes": stripes,
    "grains": grains,
    "stripes, nowhere pure": partial(stripes, pure=False),
    "grains, nowhere pure": partial(grains, pure=False),
}
"""Scenes by name. Methods were tuned on the first one, with seeds from `TUNING` on."""

TUNING = 10_000
"""Seeds from here on are for tuning; reported are others, below."""


# --------------------------------------------------------------------------------------- intervals


@dataclass(frozen=True, eq=False)
class Intervals:
    """What a method says of one realisation, components in the order of the truth.

    Attributes
    ----------
    loadings : pair of ndarray (y, x, K), or None
        Lower and upper ends.
    components : pair of ndarray (K, E), or None
    loadings_range, components_range : pairs as well, or None
        What is as good where nothing fixes the answer.
    met : bool, optional
        Of Markov chains: whether they say themselves that they have met.
    """

    loadings: Pair | None = None
    components: Pair | None = None
    loadings_range: Pair | None = None
    components_range: Pair | None = None
    met: bool | None = None


Answer = Callable[[xr.DataArray, Truth, int], Intervals]
"""``answer(cube, truth, seed)``: the truth says how many components there are and in which order."""


def order_of(components: Any, truth: Truth) -> NDArray[np.int64]:
    """Which of the components (K, E) found is which true one."""
    from emcube.models.matching import match_values

    mean = truth.components.mean(axis=0)
    order, _ = match_values(np.asarray(components, float), truth.components, 1.0 / mean)
    return order[np.argsort(order[:, 0]), 1]


def ends(bounds: xr.DataArray, order: NDArray[np.int64]) -> Pair:
    """Lower and upper ends of what has the dims ``component`` and ``bound``."""
    some = bounds.isel(component=order)
    low, high = (np.asarray(some.isel(bound=i).values, dtype=np.float64) for i in (0, 1))
    return low, high


def holds(pair: Pair, truth: Array) -> NDArray[np.bool_]:
    """Where the truth lies within; what is zero is held by an interval that starts there."""
    low, high = pair
    return np.asarray((low <= truth + 1e-12) & (truth <= high + 1e-12))


Tally = dict[str, tuple[int, int]]
"""Stratum: values that were held, and values that were asked about."""


def tally(found: Intervals, truth: Truth) -> Tally:
    """Count what one realisation's intervals hold."""
    counted: Tally = {}

    def count(stratum: str, pair: Pair, true: Array, where: NDArray[np.bool_]) -> None:
        held = holds(pair, true) & where
        counted[stratum] = int(np.count_nonzero(held)), int(np.count_nonzero(where))

    if found.loadings is not None:
        for name, where in truth.strata.items():
            if where.any():
                count(name, found.loadings, truth.loadings, where)
    if found.components is not None:
        count("components", found.components, truth.components, truth.seen)
    if found.loadings_range is not None:
        there = truth.loadings > 0.0
        count("range of loadings", found.loadings_range, truth.loadings, there)
    if found.components_range is not None:
        count("range of components", found.components_range, truth.components, truth.seen)
    if found.met is not None:
        counted[MET] = int(found.met), 1
    return counted


@dataclass
class Coverage:
    """How often the truth was held over some realisations, by stratum."""

    tallies: list[Tally] = field(default_factory=list)

    @property
    def strata(self) -> list[str]:
        """In the order of the targets."""
        there = {name for one in self.tallies for name in one}
        return [name for name in TARGETS if name in there]

    def asked(self, stratum: str) -> int:
        """Values asked about."""
        return sum(one[stratum][1] for one in self.tallies if stratum in one)

    def share(self, stratum: str) -> float:
        """Of the values that were held."""
        return sum(one[stratum][0] for one in self.tallies if stratum in one) / self.asked(stratum)

    def error(self, stratum: str) -> float:
        """Standard error of the share: values of one realisation share what went wrong with it."""
        each = [one[stratum][0] / one[stratum][1] for one in self.tallies if stratum in one]
        if len(each) < 2:
            return float("nan")
        return float(np.std(each, ddof=1) / np.sqrt(len(each)))


# ------------------------------------------------------------------------------------------- loops


def file_name(scene: str, counts: float) -> str:
    """Where realisations of a scene are remembered."""
    return f"{scene.replace(', ', '-').replace(' ', '-')}-{counts:g}.jsonl"


def realisation(scene: str, counts: float, seed: int, answer: Answer) -> Tally:
    """Draw, answer, count."""
    truth = SCENES[scene](counts)
    cube = truth.draw(np.random.default_rng(seed))
    return tally(answer(cube, truth, seed), truth)


def study(
    answer: Answer,
    scene: str,
    counts: float,
    seeds: Iterable[int],
    *,
    file: Path | None = None,
    jobs: int = 1,
    known_only: bool = False,
) -> Coverage:
    """Ask a method about many realisations of a scene.

    Parameters
    ----------
    answer : callable
        Must pickle where there are several jobs.
    scene : str
        Of `SCENES`.
    counts : float
        Of a pixel.
    seeds : iterable of int
    file : Path, optional
        Lines of JSON, a realisation each: what is there is not computed again.
    jobs : int
        Processes.
    known_only : bool
        Take what the file holds and compute nothing.
    """
    wanted = list(seeds)
    known = dict(_remembered(file)) if file is not None and file.exists() else {}
    if known_only:
        wanted = [seed for seed in wanted if seed in known]
    missing = [seed for seed in wanted if seed not in known]
    for seed, found in _computed(partial(realisation, scene, counts), missing, answer, jobs):
        known[seed] = found
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as stream:
                stream.write(json.dumps({"seed": seed, "strata": found}) + "\n")
    return Coverage([known[seed] for seed in wanted])


def _remembered(file: Path) -> Iterator[tuple[int, Tally]]:
    for line in file.read_text().splitlines():
        one = json.loads(line)
        yield one["seed"], {name: (pair[0], pair[1]) for name, pair in one["strata"].items()}


def _computed(
    one: Callable[[int, Answer], Tally], seeds: list[int], answer: Answer, jobs: int
) -> Iterator[tuple[int, Tally]]:
    if jobs == 1 or len(seeds) < 2:
        for seed in seeds:
            yield seed, one(seed, answer)
        return
    edges = range(0, len(seeds) + 1, jobs)
    cuts = [*edges, len(seeds)] if edges[-1] != len(seeds) else list(edges)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for first, last in pairwise(cuts):
            batch = seeds[first:last]
            yield from zip(batch, pool.map(one, batch, [answer] * len(batch)), strict=True)


# ------------------------------------------------------------------------------------------- words

HEAD = (
    "| method | scene | counts a pixel | stratum | held | error | must hold | | values | realisations |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def rows(method: str, scene: str, counts: float, found: Coverage) -> list[str]:
    """Rows of a table, one a stratum."""
    told = []
    for name in found.strata:
        low, high = TARGETS[name]
        share = found.share(name)
        verdict = "holds" if low <= share <= high else "MISSES"
        asked = f"{100 * low:g} to {100 * high:g} %" if high < 1.0 else f"{100 * low:g} % and more"
        told.append(
            f"| {method} | {scene} | {counts:g} | {name} | {100 * share:.1f} % "
            f"| {100 * found.error(name):.1f} % | {asked} | {verdict} | {found.asked(name):,} "
            f"| {len(found.tallies)} |"
        )
    return told
