"""Which passes over which blocks a recipe makes, as arithmetic: nothing is read and nothing is run.

What is written here follows what the estimators do and what runs share (see `emcube.engine.Sweep`); a test
counts the passes of real runs. Letters: P pixels, E channels, K components, n stored pairs of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from emcube.kernels import fractions
from emcube.kernels.eigen import FEW
from emcube.models import (
    bayes,
    cloud,
    cloud_rotation,
    fastica,
    nmf_penalties,
    nmf_start,
    pca,
    refits,
    uncertainties,
)
from emcube.models import n_components as number
from emcube.models.component_survey import RESTART_TOL
from emcube.models.gaussian_mixture import AS_IS
from emcube.models.kmeans_start import PART_NUMBERS, SAMPLE_NUMBERS
from emcube.recipe import schema

__all__ = ["AUTO_COMPONENTS", "Facts", "Pass", "Passes", "Range", "StepPasses"]

AUTO_COMPONENTS = (2, 10)
"""Components taken for a number that an estimate will give."""


@dataclass(frozen=True)
class Range:
    """From a low to a high value."""

    low: float
    high: float

    @classmethod
    def of(cls, value: float) -> Range:
        """A range of one value."""
        return cls(value, value)

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def times(self, low: float, high: float | None = None) -> Range:
        """Both ends multiplied."""
        return Range(self.low * low, self.high * (low if high is None else high))


@dataclass(frozen=True)
class Facts:
    """What is known of blocks before they are read.

    Attributes
    ----------
    name : str
        What the blocks hold, such as "the cube".
    n_blocks, n_groups : int
        Blocks, and the tasks they are handed out in.
    n_pixels, n_channels : int
        Of what is used.
    block_bytes : int
        Of one block as it is read.
    decoded : int
        Bytes of all cells, as they would be dense.
    stored : int or None
        Bytes in files; None where nobody can tell before.
    pairs : Range
        Stored pairs of all blocks, where these become rows.
    rows : bool or None
        Whether blocks become rows; None: it hangs on how many cells hold counts.
    kept : Range
        Bytes of all blocks while they stay in memory.
    reading : str
        Rate of reading: "read_cell", "read_pair", "read_float".
    """

    name: str
    n_blocks: int
    n_groups: int
    n_pixels: int
    n_channels: int
    block_bytes: int
    decoded: int
    stored: int | None
    pairs: Range
    rows: bool | None
    kept: Range
    reading: str


@dataclass(frozen=True)
class Pass:
    """One or several rounds over all blocks.

    Attributes
    ----------
    name : str
        As in progress events.
    over : Facts
        Blocks that are visited.
    least, most : int
        Rounds in any case, and at most; `most` is -1 where nothing but the data bounds it.
    likely : tuple of int
        Rounds as a rule.
    decides : str
        What decides how many; empty where the number is fixed.
    statistic : int
        Bytes that a block's answer holds.
    state : Range
        Bytes that go with every task.
    held : int
        Bytes that the client holds besides.
    work : dict
        Units of each rate a round, for all blocks together (see `calibration.RATES`).
    client : dict
        The same, done once a round in the client.
    output : Range
        Bytes that it writes.
    also_reads : Facts or None
        Blocks that are read where the ones visited are not there yet (pooled blocks are made of others).
    arrays : int
        Variables that the output is written into.
    """

    name: str
    over: Facts
    least: int = 1
    most: int = 1
    likely: tuple[int, int] = (1, 1)
    decides: str = ""
    statistic: int = 0
    state: Range = Range(0, 0)
    held: int = 0
    work: Mapping[str, Range] = field(default_factory=dict)
    client: Mapping[str, float] = field(default_factory=dict)
    output: Range = Range(0, 0)
    also_reads: Facts | None = None
    arrays: int = 1


@dataclass(frozen=True)
class StepPasses:
    """What one step does."""

    name: str
    verb: str
    passes: tuple[Pass, ...]
    notes: tuple[str, ...] = ()


def _once(name: str, over: Facts, **more: Any) -> Pass:
    return Pass(name, over, **more)


def _eigen_work(n: int, k: Range) -> float:
    """Of a symmetric matrix (n, n): the vectors of a few components take half of the time of all."""
    return float(n) ** 3 * (0.5 if k.high <= FEW * n else 1.0)


def _added(*parts: Mapping[str, Range]) -> dict[str, Range]:
    whole: dict[str, Range] = {}
    for part in parts:
        for key, value in part.items():
            whole[key] = whole.get(key, Range(0, 0)) + value
    return whole


class Passes:
    """Walks through the steps of a recipe and notes their passes.

    Parameters
    ----------
    cube : Facts
        Of the prepared cube with the pixels that are used.
    everything : Facts
        The same with all pixels.
    kind : str
        Of the cube's dtype: "u", "i", "b" or "f".
    mean : float or None
        Counts of a cell on average, where they are known.
    nav_dims : tuple of str
    answers : int
        Bytes that answers of passes may hold while the run lasts.
    in_memory : bool
        The cube is an array in memory.
    """

    def __init__(
        self,
        cube: Facts,
        everything: Facts,
        kind: str,
        mean: float | None,
        nav_dims: tuple[str, ...],
        answers: int,
        *,
        in_memory: bool = False,
    ) -> None:
        self.cube, self.everything, self.kind, self.mean = cube, everything, kind, mean
        self.nav_dims, self.room, self.in_memory = nav_dims, answers, in_memory
        self.counts = kind in "iub"
        self._known: dict[str, int] = {}
        self._loadings: dict[str, Facts] = {}
        self._steps: dict[str, schema.AnyStep] = {}
        self._factorised: dict[str, tuple[schema.NMFStep, Range, Facts]] = {}

    # ------------------------------------------------------------------------------ shared answers

    def _keep(self, key: str, size: int) -> None:
        """Note that an answer stays, if there is room."""
        if key not in self._known and sum(self._known.values()) + size <= self.room:
            self._known[key] = size

    def forget(self) -> None:
        """Let all answers go, as the end of a `resident` context does."""
        self._known.clear()

    def _gram_key(self, noise: Any) -> str:
        return "gram:poisson" if noise == "poisson" else "gram:plain"

    # ------------------------------------------------------------------------------- units of work

    def _sum_work(self, over: Facts) -> dict[str, Range]:
        if over.rows is False:
            return {"cell": Range.of(over.n_pixels * over.n_channels)}
        return {"pair": over.pairs}

    def _gram_work(self, over: Facts, side: int | None = None) -> dict[str, Range]:
        """Gram matrix of all blocks, of `side` columns after pooling."""
        e = over.n_channels if side is None else side
        dense = over.n_pixels * float(e) * e / 2
        joins = {"join_byte": Range.of(8.0 * e * e * over.n_blocks)}
        if over.rows is False:
            return _added({"gram_flop": Range.of(2 * dense)}, joins)
        per_pixel = over.pairs.times(1 / max(1, over.n_pixels))
        squares = Range(
            over.pairs.low * max(1.0, per_pixel.low), 2.0 * over.pairs.high * (1 + per_pixel.high)
        )
        most = 2 * dense
        rows = {
            "gram_pixel": Range.of(over.n_pixels),
            "gram_pair2": Range(min(squares.low, most / 4), min(squares.high, most / 4)),
        }
        return _added(rows, joins)

    def _product_work(self, over: Facts, k: Range) -> dict[str, Range]:
        if over.rows is False:
            cells = float(over.n_pixels * over.n_channels)
            return {"score_flop": k.times(cells)}
        return {"score_pair": Range(over.pairs.low * k.low, over.pairs.high * k.high)}

    def _nmf_work(self, over: Facts, k: Range, word: str, share: Range) -> dict[str, Range]:
        """A pass of NMF ("nmf") or loadings ("solve"), over a share of pairs and pixels."""
        if over.rows is False and word == "nmf":
            cells = float(over.n_pixels * over.n_channels)
            return {"nmf_flop": Range(cells * k.low * share.low, cells * k.high * share.high)}
        if over.rows is False:
            return {"nmf_flop": k.times(float(over.n_pixels * over.n_channels))}
        pixels = Range(over.n_pixels * k.low * share.low / 4, over.n_pixels * k.high * share.high)
        pairs = Range(over.pairs.low * k.low * share.low, over.pairs.high * k.high * share.high)
        return {f"{word}_pixel": pixels, f"{word}_pair": pairs}

    # ---------------------------------------------------------------------------------- input node

    def input(self, recipe_steps: tuple[Any, ...], *, selected: bool, ruled: bool) -> StepPasses:
        """Sums of the cube: total counts of each pixel, sum spectrum, and what steps ask for first.

        Parameters
        ----------
        recipe_steps : tuple of steps
        selected : bool
            Some pixels are left out.
        ruled : bool
            A rule on smoothed counts decides which; they are summed first.
        """
        e = self.cube.n_channels
        sums = self._first_sums(recipe_steps)
        statistic = 8 * e + sum(8 * e * e for _ in sums)
        names = ["channel totals", *dict.fromkeys("PCA" for _ in sums)]
        work = _added(self._sum_work(self.cube).copy(), *(self._gram_work(self.cube) for _ in sums))
        out = Range(0.02, 1.0).times(8.0 * self.everything.n_pixels)
        passes = []
        if ruled:
            passes.append(
                _once("smoothed counts", self.everything, work=self._sum_work(self.everything))
            )
        if not selected:
            names.append("total counts")
            both = _added(work, self._sum_work(self.cube))
            passes.append(
                _once(", ".join(names), self.cube, statistic=statistic, work=both, output=out)
            )
        else:
            passes.append(_once(", ".join(names), self.cube, statistic=statistic, work=work))
            own = self._sum_work(self.everything)
            passes.append(_once("total counts", self.everything, work=own, output=out))
        self._keep("totals", 8 * e)
        for key in sums:
            self._keep(key, 8 * e * e)
        if ruled:
            self.forget()
        return StepPasses("input", "input", tuple(passes))

    def _first_sums(self, steps: tuple[Any, ...]) -> list[str]:
        if self.kind != "u":
            return []
        summed = [s for s in steps if isinstance(s, schema.PCAStep) and self._solver(s) == "gram"]
        return list(dict.fromkeys(self._gram_key(self._noise(step)) for step in summed))

    # --------------------------------------------------------------------------------------- steps

    def step(self, step: schema.AnyStep) -> StepPasses:
        """Passes of one step; steps are asked in their order."""
        if isinstance(step, schema.EstimateStep):
            found = list(self._estimate(step))
        elif isinstance(step, schema.SurveyStep):
            found = list(self._survey(step))
        elif isinstance(step, schema.PCAStep):
            found = list(self._pca(step))
        elif isinstance(step, schema.NMFStep):
            found = list(self._nmf(step))
        elif isinstance(step, schema.GaussianMixtureStep):
            found = list(self._gaussian_mixture(step))
        elif isinstance(step, schema.PoissonMixtureStep):
            found = list(self._poisson_mixture(step))
        elif isinstance(step, schema.ClusterQualityStep):
            found = list(self._cluster_quality(step))
        elif isinstance(step, schema.MCRStep):
            found = list(self._mcr(step))
        elif isinstance(step, schema.BayesianUnmixingStep):
            found = list(self._bayesian_unmixing(step))
        elif isinstance(step, schema.ICAStep | schema.VarimaxStep):
            found = list(self._rotated(step))
        elif isinstance(step, schema.VCAStep | schema.NFINDRStep | schema.SISALStep):
            found = list(self._endmembers(step))
        elif isinstance(step, schema.UncertaintyStep):
            found = list(self._uncertainty(step))
        elif isinstance(step, schema.DiagnosticsStep):
            found = list(self._diagnostics(step))
        elif isinstance(step, schema.PhaseFractionsStep):
            found = list(self._phase_fractions(step))
        else:
            found = list(self._kmeans(step))
        self._steps[step.label] = step
        notes: tuple[str, ...] = ()
        if "auto" in (getattr(step, "n_components", 0), getattr(step, "n_clusters", 0)):
            low, high = AUTO_COMPONENTS
            notes = (f"the estimate decides how many; {low} to {high} are taken here",)
        return StepPasses(step.label, step.verb, tuple(found), notes)

    def _asks_totals(self, over: Facts) -> Iterator[Pass]:
        if "totals" in self._known:
            return
        e = over.n_channels
        yield _once("channel totals", over, statistic=8 * e, work=self._sum_work(over))
        self._keep("totals", 8 * e)

    def _asks_gram(self, over: Facts, key: str, name: str) -> Iterator[Pass]:
        if key in self._known:
            return
        e = over.n_channels
        yield _once(name, over, statistic=8 * e * e, work=self._gram_work(over))
        self._keep(key, 8 * e * e)
        self._keep("totals", 8 * e)

    # -- number of components

    def _estimate(self, step: schema.EstimateStep) -> Iterator[Pass]:
        over = self.cube
        yield from self._asks_totals(over)
        poisson = step.noise == "poisson" or (step.noise == "auto" and self.counts)
        full = self.mean is None or self.mean >= 5
        quadratic = step.noise == "quadratic" or (
            step.noise == "auto" and (not self.counts or full)
        )
        side = min(over.n_channels, number.MAX_CHANNELS)
        n_fits = (number.MAX_POOLINGS + 1 if poisson else 0, 0)
        tries = len(number.CURVATURES) + 2 * number.CURVATURE_STEPS
        most_fits = n_fits[0] + (tries if quadratic else 0)
        least_fits = 1
        likely_fits = (1, 2) if poisson else (len(number.CURVATURES), tries)
        scale = {"scaling_pair": over.pairs} if over.rows is not False else {}
        scale |= (
            {"cell": Range.of(2.0 * over.n_pixels * over.n_channels)} if over.rows is False else {}
        )
        yield Pass(
            "noise scaling",
            over,
            least_fits,
            most_fits * number.SCALING_ROUNDS,
            (3 * likely_fits[0], 12 * likely_fits[1]),
            f"ends when columns are even to {number.SCALING_TOLERANCE:g}; begun anew for each "
            + ("pooling of pixels" if poisson else "curvature of the noise")
            + " that is tried",
            statistic=8 * side,
            state=Range.of(8.0 * side * 2 * (number.MEMORY + 1)),
            work=scale,
        )
        gram = self._pooled_gram(over, side, step.pixel_counts if poisson else 0.0)
        yield Pass(
            "noise spectrum",
            over,
            least_fits,
            -1,
            (likely_fits[0], 2 * likely_fits[1] + 1),
            "once or more for each scaling, until no further component is clear",
            statistic=8 * side * side,
            state=Range.of(16.0 * side),
            held=5 * 8 * side * side,
            work=gram,
            client={"eigen": float(side) ** 3},
        )
        yield self._parallel(over, side)

    def _survey(self, step: schema.SurveyStep) -> Iterator[Pass]:
        """An estimate; fits to halves, and from random starts, of each number; held-out counts."""
        yield from self._estimate(schema.EstimateStep())
        most = int(min(step.max_components, self.cube.n_pixels, self.cube.n_channels))
        before = dict(self._loadings), dict(self._factorised)
        # Sums of a half are shared by the fits to it, and by nothing else.
        whole = self._known
        halves: tuple[dict[str, int], ...] = ({}, {})
        for k in range(1, most + 1):
            for half in halves:
                self._known = half
                # One of them says which tiles all others sum; here, that their side is 8 at most.
                chosen = k == most and half is halves[0]
                again = schema.NMFStep(n_components=k, pool="auto" if chosen else 8)
                yield from self._fit_only(again)
        self._known = whole
        for k in range(2, most + 1):
            for _ in range(step.n_restarts):
                again = schema.NMFStep(n_components=k, init="random", pool=8, tol=RESTART_TOL)
                yield from self._fit_only(again)
        self._loadings, self._factorised = before
        models = Range(0.0, most * (most + 1) / 2)
        yield _once(
            "held-out counts", self.cube, statistic=16 * most,
            state=models.times(8.0 * self.cube.n_channels),
            work=self._nmf_work(self.cube, models, "solve", Range(0.3, 1.0)),
        )  # fmt: skip

    def _fit_only(self, step: schema.NMFStep) -> Iterator[Pass]:
        """Passes of a fit, without what writes its maps."""
        yield from (one for one in self._nmf(step) if "write maps" not in one.name)

    def _pooled_gram(self, over: Facts, side: int, wanted: float) -> dict[str, Range]:
        if over.rows is False or not wanted:
            return self._gram_work(over, side)
        # Pixels are summed until they hold so many counts: fewer, and fuller.
        high = over.pairs.high
        held = max(wanted, 1.5 * high / max(1, over.n_pixels))
        low = Range(over.pairs.low * wanted / 8, high * held)
        return {
            "pool_pair": over.pairs,
            "gram_pixel": Range(high / held / 4, float(over.n_pixels)),
            "gram_pair2": Range(min(low.low, low.high), low.high),
            "join_byte": Range.of(8.0 * side * side * over.n_blocks),
        }

    def _parallel(self, over: Facts, side: int) -> Pass:
        cells = min(number.NULL_CELLS, float(over.n_pixels) * side)
        rows = max(2.0, cells / side)
        blocks = Facts(
            "simulated pixels", number.NULL_BLOCKS, number.NULL_BLOCKS, int(rows), side,
            int(8 * rows / number.NULL_BLOCKS), 0, 0, Range(0, 0), False, Range(0, 0), "",
        )  # fmt: skip
        return Pass(
            "parallel analysis",
            blocks,
            0,
            number.NULL_COPIES,
            (1, 1 if cells >= number.NULL_CELLS / 2 else number.NULL_COPIES),
            f"copies of up to {number.NULL_CELLS:.0e} simulated cells",
            statistic=8 * side * side,
            work={
                "cell": Range.of(4.0 * cells),
                "gram_pair2": Range(rows * 50.0, min(rows * 1e4, cells * side / 4)),
            },
            client={"eigen": 0.2 * float(side) ** 3},
        )

    # -- PCA

    def _noise(self, step: Any) -> str | None:
        if step.noise == "auto":
            return "poisson" if self.counts else None
        noise: str | None = step.noise
        return noise

    def _solver(self, step: schema.PCAStep) -> str:
        p, e = self.cube.n_pixels, self.cube.n_channels
        if step.svd_solver == "gram" or (step.svd_solver == "auto" and e <= pca.MAX_GRAM):
            return "gram"
        if step.svd_solver == "auto" and p <= pca.MAX_GRAM and 8 * p * e <= pca.MAX_GATHER_BYTES:
            return "pixels"
        return "randomized"

    def _pca(self, step: schema.PCAStep) -> Iterator[Pass]:
        over, e, k = self.cube, self.cube.n_channels, _components(step.n_components)
        yield from self._pca_fit(step, k)
        solved = {"eigen": _eigen_work(e, k)} if self._solver(step) == "gram" else {}
        held = 5 * 8 * e * e if solved else 0
        yield replace(self._writes(step, over, k), client=solved, held=held)
        self._loadings[step.label] = self._loadings_of(over, k)

    def _pca_fit(self, step: schema.PCAStep, k: Range) -> Iterator[Pass]:
        over, e = self.cube, self.cube.n_channels
        solver = self._solver(step)
        if solver == "gram":
            yield from self._asks_gram(over, self._gram_key(self._noise(step)), "PCA")
        elif solver == "pixels":
            per_block = 8 * over.n_pixels * e // max(1, over.n_blocks)
            yield _once(
                "PCA (pixel side)",
                over,
                statistic=per_block,
                work=self._sum_work(over),
                held=3 * 8 * over.n_pixels * e,
                client={"eigen": _eigen_work(over.n_pixels, k)},
            )
        else:
            yield from self._randomized(over, int(k.high) + step.n_oversamples, step.max_iter)

    def _randomized(self, over: Facts, width: int, max_iter: int) -> Iterator[Pass]:
        e = over.n_channels
        there = self._product_work(over, Range.of(2.0 * width))
        state = Range.of(8.0 * e * width)
        yield _once("PCA (first pass)", over, statistic=8 * e * width, state=state, work=there)
        most = max(1, max_iter - 1)
        yield Pass(
            "PCA (randomized)",
            over,
            1,
            most,
            (min(3, most), most),
            "ends when the leading components are within tol degrees",
            statistic=8 * e * width,
            state=state,
            held=2 * 16 * e * min(most * width, e),
            work=there,
        )

    # -- NMF

    def _nmf(self, step: schema.NMFStep) -> Iterator[Pass]:
        over, e, k = self.cube, self.cube.n_channels, _components(step.n_components)
        poisson = step.beta_loss == "kullback-leibler"
        yield from self._subspace("NMF", over, k, poisson=poisson)
        scores = self._product_work(over, k)
        state = k.times(8.0 * e)
        tries = step.volume > 0 and self._tries(step.pool, k)
        if tries:
            yield self._pooling("NMF", over, k)
        if step.init == "bins":
            held = int(2 * 8 * nmf_start.SAMPLE * (k.high + 2))
            yield _once(
                "NMF (corners)", over, statistic=held // max(1, over.n_blocks), state=state,
                held=held, work=scores,
            )  # fmt: skip
        most = 8 if tries else (step.pool if isinstance(step.pool, int) else 1)
        penalised = step.sparsity > 0 or step.smoothness > 0
        if penalised and step.pool == "auto":
            most = 1  # The start is that of tiles, the passes are over single pixels.
        pooled = self._pooled(over, most, fixed=isinstance(step.pool, int))
        yield from self._batches(step, over, pooled, k)
        likely = (2, min(25, step.max_iter)) if step.tol else (step.max_iter // 4, step.max_iter)
        share = Range(1.0 if most == 1 else 0.15, 1.0)
        if penalised:
            # A pixel is solved again and again, until it and its neighbours stay.
            share = share.times(2.0, 20.0)
        yield Pass(
            "NMF",
            pooled,
            1,
            step.max_iter,
            (min(likely[0], step.max_iter), max(1, likely[1])),
            f"ends when a pass lowers the objective by less than tol={step.tol:g} of it "
            f"(at most max_iter={step.max_iter})",
            statistic=int(16 * k.high * e),
            state=k.times(2 * 8.0 * e),
            work=self._nmf_work(over, k, "nmf", share),
            also_reads=over if most > 1 else None,
        )
        if step.smoothness:
            yield Pass(
                "NMF (smooth maps)", over, 1, nmf_penalties.ANCHOR_ROUNDS, (1, 25),
                "ends when what lies between blocks stays", state=state,
                work=self._nmf_work(over, k, "solve", Range(2.0, 20.0)),
            )  # fmt: skip
        yield self._writes(step, over, k)
        self._loadings[step.label] = self._loadings_of(over, k)
        self._factorised[step.label] = (step, k, pooled)

    # -- uncertainty

    def _uncertainty(self, step: schema.UncertaintyStep) -> Iterator[Pass]:
        over, e = self.cube, self.cube.n_channels
        target, k, pooled = self._factorised[step.on or list(self._factorised)[-1]]
        pairs = Range(k.low * (k.low + 1) / 2, k.high * (k.high + 1) / 2)
        poisson = target.beta_loss == "kullback-leibler"
        cells = float(over.n_pixels * e)
        solve = self._nmf_work(over, k, "solve", Range(1.0, 1.0))
        dense = {"score_flop": (pairs + k).times(cells)} if poisson else {}
        yield _once(
            "uncertainty (information)", over, statistic=int(8 * pairs.high * e),
            state=k.times(8.0 * e), work=_added(solve, dense),
        )  # fmt: skip
        yield from self._subspace("uncertainty", over, k, poisson=poisson)
        room = int(8 * cloud.POINTS * (2 * k.high + 4))
        pairs_of = k.high * max(1.0, k.high - 1.0)
        yield _once(
            "uncertainty (points)", over, statistic=room // max(1, over.n_blocks),
            state=k.times(8.0 * e), held=3 * room, work=self._product_work(over, k),
            client={"lloyd": 60.0 * pairs_of * cloud_rotation.POINTS * k.high**2},
        )  # fmt: skip
        n = step.n_replicates or uncertainties.REPLICATES[step.method]
        if step.method == "restarts":
            # The side of the tiles is known by then; here, that it is 8 at most.
            side = target.pool if isinstance(target.pool, int) else 8
            change = {"init": "random", "n_epochs": "auto", "pool": side}
            again = target.model_copy(update=change)
            before = dict(self._loadings), dict(self._factorised)
            fits = list(self._fit_only(again))
            self._loadings, self._factorised = before
            yield from (one for _ in range(n) for one in fits)
        elif n:
            yield from self._replicated(n, k, pooled, target)
        triples = k.high * (k.high + 1) * (k.high + 2) / 6
        more = {"score_flop": Range(2.0, k.high + pairs.high + triples).times(cells)}
        pixels = self._nmf_work(over, k.times(n + 1.0), "solve", Range(1.0, 1.0))
        size = k.times(6 * 8.0 * over.n_pixels)
        yield Pass(
            f"{step.label}: write maps",
            over,
            state=k.times(8.0 * e * (n + 1)),
            work=_added(pixels, more if poisson else {}, {"write_byte": size}),
            output=Range(size.low * 0.1, size.high),
            arrays=4,
        )

    def _diagnostics(self, step: schema.DiagnosticsStep) -> Iterator[Pass]:
        over, e = self.cube, self.cube.n_channels
        target, k, _ = self._factorised[step.on or list(self._factorised)[-1]]
        poisson = target.beta_loss == "kullback-leibler"
        solve = self._nmf_work(over, k, "solve", Range(1.0, 1.0))
        cells = float(over.n_pixels * e)
        dense = {"cell": Range(3.0 * cells, 12.0 * cells), "score_flop": k.times(cells)}
        if poisson:
            yield _once(
                "diagnostics (loadings)", over, statistic=int(8 * k.high), state=k.times(8.0 * e),
                work=solve,
            )  # fmt: skip
        else:
            yield _once(
                "uncertainty (information)", over, statistic=int(8 * k.high * k.high * e),
                state=k.times(8.0 * e), work=_added(solve, dense),
            )  # fmt: skip
        yield _once(
            "diagnostics (residuals)", over, statistic=16 * e, state=k.times(8.0 * e),
            work=_added(solve, dense),
        )  # fmt: skip
        if poisson and e <= pca.MAX_GRAM:
            # Both halves in one pass, each with half of the counts.
            yield _once(
                "diagnostics (halves)", over, statistic=2 * 8 * e * e, held=4 * 8 * e * e,
                work=_added(self._gram_work(over), self._sum_work(over)),
                client={"eigen": 2.0 * float(e) ** 3},
            )  # fmt: skip
            yield _once(
                "diagnostics (levels)", over, statistic=2000, state=k.times(16.0 * e), work=dense
            )
            if step.lines:
                yield _once(
                    "diagnostics (lines)", over, statistic=2000, state=k.times(16.0 * e),
                    work=_added(solve, dense),
                )  # fmt: skip
        size = 8.0 * over.n_pixels * (2 if poisson else 1)
        yield Pass(
            f"{step.label}: write maps",
            over,
            state=k.times(8.0 * e),
            work=_added(solve, dense, {"write_byte": Range.of(size)}),
            output=Range(0.3 * size, size),
            arrays=2 if poisson else 1,
        )

    def _replicated(
        self, n: int, k: Range, pooled: Facts, target: schema.NMFStep
    ) -> Iterator[Pass]:
        """Passes over replicates, all of them together."""
        most, e = refits.MOST_PASSES, pooled.n_channels
        if target.init == "bins":
            poisson = target.beta_loss == "kullback-leibler"
            yield from self._subspace("NMF", self.cube, k, poisson=poisson)
            if poisson:
                yield _once(
                    "uncertainty (subspaces)", pooled, statistic=int(8 * n * k.high * e),
                    state=k.times(8.0 * e), held=int(2 * 8 * n * k.high * e),
                    work=self._product_work(self.cube, k.times(2.0 * n)),
                    also_reads=None if pooled is self.cube else self.cube,
                )  # fmt: skip
            points = int(8 * n * refits.POINTS * (k.high + 2))
            yield _once(
                "uncertainty (corners)", pooled, statistic=points // max(1, pooled.n_blocks),
                state=k.times(8.0 * e), held=2 * points,
                work=self._product_work(self.cube, k.times(float(n))),
                also_reads=None if pooled is self.cube else self.cube,
            )  # fmt: skip
        yield Pass(
            "uncertainty (replicates)",
            pooled,
            1,
            most,
            (2, most),
            f"ends when no replicate gains any more (at most {most})",
            statistic=int(n * 16 * k.high * e),
            state=k.times(8.0 * e * n),
            held=int(n * 80 * k.high * e),
            work=self._nmf_work(self.cube, k.times(float(n)), "nmf", Range(0.15, 1.0)),
            also_reads=None if pooled is self.cube else self.cube,
        )

    # -- alternating least squares

    def _mcr(self, step: schema.MCRStep) -> Iterator[Pass]:
        over, k = self.cube, _components(step.n_components)
        yield from self._subspace("MCR", over, k, poisson=self._noise(step) == "poisson")
        if self._tries(step.pool, k):
            yield self._pooling("MCR", over, k)
        scores, state = self._product_work(over, k), k.times(8.0 * over.n_channels)
        if step.init == "corners":
            held = int(2 * 8 * nmf_start.SAMPLE * (k.high + 2))
            yield _once(
                "MCR (corners)", over, statistic=held // max(1, over.n_blocks), state=state,
                held=held, work=scores,
            )  # fmt: skip
        reduced = replace(
            self._profiles(over, k), name=f"scores of {over.name}", n_channels=int(k.high) + 1
        )
        rounds = Range.of(float(over.n_pixels)).times(k.low**2 / 64, k.high**2)
        yield Pass(
            "MCR",
            reduced,
            1,
            step.max_iter,
            (1, min(50, step.max_iter)),
            f"ends when a round takes less than tol={step.tol:g} off what is left "
            f"(at most max_iter={step.max_iter})",
            statistic=int(8 * k.high * (2 * k.high + 1)),
            state=state.times(3.0),
            work={"lloyd": rounds},
            also_reads=over,
        )
        yield self._writes(step, over, k)
        self._loadings[step.label] = self._loadings_of(over, k)

    # -- Gibbs sampling

    def _bayesian_unmixing(self, step: schema.BayesianUnmixingStep) -> Iterator[Pass]:
        over, e, k = self.cube, self.cube.n_channels, _components(step.n_components)
        poisson = self._noise(step) == "poisson"
        start = schema.NMFStep(
            n_components=step.n_components,
            beta_loss="kullback-leibler" if poisson else "frobenius",
            pool=step.pool if poisson else "auto",
        )
        before = dict(self._loadings), dict(self._factorised)
        yield from (one for one in self._nmf(start) if "write maps" not in one.name)
        self._loadings, self._factorised = before
        pools = poisson and (step.pool != "auto" or over.n_pixels > bayes.FEW_PIXELS)
        most = (step.pool if isinstance(step.pool, int) else 8) if pools else 1
        pooled = self._pooled(over, most, fixed=isinstance(step.pool, int))
        rounds, chains = step.n_warmup + step.n_draws, float(step.n_chains)
        draws = k.times(8.0 * e * chains * (step.n_draws + 3))
        yield Pass(
            "Gibbs sampling", pooled, rounds, rounds, (rounds, rounds),
            statistic=int(8 * chains * k.high * e), state=draws, held=int(2 * draws.high),
            work=self._nmf_work(over, k.times(chains), "nmf", Range(1.0 if most == 1 else 0.15, 3.0)),
            also_reads=over if most > 1 else None,
        )  # fmt: skip
        if most > 1:
            settling = sum(bayes.PRESENCE_ROUNDS)
            least = settling if isinstance(step.pool, int) else 0
            looked = min(1.0, bayes.PRESENCE_PIXELS / over.n_pixels)
            yield Pass(
                "Gibbs sampling (pixels)", over, least, settling, (least, settling),
                statistic=int(8 * k.high * k.high), state=k.times(8.0 * e),
                work=self._nmf_work(over, k, "nmf", Range(looked, 3.0 * looked)),
            )  # fmt: skip
        size = k.times(4 * 8.0 * over.n_pixels)
        yield Pass(
            f"{step.label}: write maps", over, state=k.times(8.0 * e * bayes.LOADING_DRAWS),
            work=_added(self._nmf_work(over, k, "nmf", Range(10.0, 60.0)), {"write_byte": size}),
            output=Range(size.low * 0.1, size.high), arrays=3,
        )  # fmt: skip
        self._loadings[step.label] = self._loadings_of(over, k)

    # -- rotated principal components

    def _rotated(self, step: schema.ICAStep | schema.VarimaxStep) -> Iterator[Pass]:
        over, k = self.cube, _components(step.n_components)
        asked = schema.PCAStep(n_components=int(k.high), noise=step.noise)
        earlier = dict(self._loadings)
        *sums, writes = self._pca(asked)
        self._loadings = earlier
        yield from sums
        name = "ICA" if isinstance(step, schema.ICAStep) else "varimax"
        rows = min(fastica.ROWS, over.n_pixels) if step.domain == "spatial" else over.n_channels
        turns = {"lloyd": rows * k.high**2 * 50.0}
        if step.domain == "spatial":
            room = int(8 * k.high * rows)
            yield _once(
                f"{name} (scores)", over, statistic=room // max(1, over.n_blocks), held=3 * room,
                state=k.times(8.0 * over.n_channels), work=self._product_work(over, k), client=turns,
            )  # fmt: skip
            turns = {}
        writing = self._writes(step, over, k)
        yield replace(writing, client={**writes.client, **turns}, held=writes.held)
        self._loadings[step.label] = self._loadings_of(over, k)

    # -- endmembers

    _POINTS: ClassVar[dict[str, str]] = {"vca": "VCA", "nfindr": "N-FINDR", "sisal": "SISAL"}

    def _endmembers(
        self, step: schema.VCAStep | schema.NFINDRStep | schema.SISALStep
    ) -> Iterator[Pass]:
        over, k, name = self.cube, _components(step.n_components), self._POINTS[step.verb]
        yield from self._subspace(name, over, k, poisson=self._noise(step) == "poisson")
        if self._tries(step.pool, k):
            yield self._pooling(name, over, k)
        room = int(8 * cloud.POINTS * (2 * k.high + 4))
        yield _once(
            f"{name} (points)", over, statistic=room // max(1, over.n_blocks),
            state=k.times(8.0 * over.n_channels), held=3 * room, work=self._product_work(over, k),
            client={"lloyd": cloud.POINTS * k.high**2 * 100.0},
        )  # fmt: skip
        yield self._writes(step, over, k)
        self._loadings[step.label] = self._loadings_of(over, k)

    def _subspace(self, name: str, over: Facts, k: Range, *, poisson: bool) -> Iterator[Pass]:
        """The subspace of the signal: shared moments of counts, or a few passes with vectors."""
        e = over.n_channels
        if poisson and e <= nmf_start.MOMENT_CHANNELS:
            yield from self._asks_gram(over, "gram:poisson", f"{name} (subspace)")
            return
        width = min(int(k.high) + nmf_start.OVERSAMPLES, e)
        # The first pass over counts gives the weights of the channels, and no vectors of the space.
        before = 1 if poisson else 0
        low, high = (
            min(nmf_start.ROUNDS, before + -(-e // max(1, min(int(n) + nmf_start.OVERSAMPLES, e))))
            for n in (k.high, k.low)
        )
        yield Pass(
            f"{name} (subspace)", over, before + 1, high, (low, high),
            "ends sooner where the values have few dimensions, without noise",
            statistic=8 * e * (width + 2), state=Range.of(8.0 * e * width),
            held=8 * e * width * (2 * nmf_start.ROUNDS + 2),
            work=self._product_work(over, Range.of(2.0 * width)),
        )  # fmt: skip

    def _tries(self, pool: int | str, k: Range) -> bool:
        """Whether the tiles whose pixels are summed are chosen by the data."""
        tiles = {nmf_start.tile_of(self.nav_dims, side) for side in nmf_start.SIDES}
        return pool == "auto" and len(tiles) > 1 and k.high > 1

    def _pooling(self, name: str, over: Facts, k: Range) -> Pass:
        """The choice of the tiles."""
        return Pass(
            f"{name} (pooling)", over, 1 if k.low > 1 else 0, 1, (1, 1),
            statistic=int(8 * len(nmf_start.SIDES) * k.high**2),
            state=k.times(8.0 * over.n_channels), work=self._product_work(over, k),
        )  # fmt: skip

    def _batches(
        self, step: schema.NMFStep, over: Facts, pooled: Facts, k: Range
    ) -> Iterator[Pass]:
        epochs = (0 if step.init == "bins" else 2) if step.n_epochs == "auto" else step.n_epochs
        if not epochs:
            return
        most = min(64, max(1, -(-over.n_pixels // step.batch_size)))
        side = 1 if pooled is over else 64
        least = min(64, max(1, -(-over.n_pixels // side // step.batch_size)))
        yield Pass(
            "NMF (batches)", pooled, least * epochs, most * epochs, (least * epochs, most * epochs),
            "the pooling decides how many batches there are" if least != most else "",
            statistic=int(16 * k.high * over.n_channels), state=k.times(8.0 * over.n_channels),
            work=self._nmf_work(over, k.times(1 / least, 1 / least), "nmf", Range(0.15, 1.0)),
        )  # fmt: skip

    def _pooled(self, over: Facts, side: int, *, fixed: bool) -> Facts:
        """Blocks whose pixels are summed in tiles of up to so many pixels."""
        if side == 1:
            return over
        share = (1.0 / side**2, 1.0 if not fixed else 0.9)
        kept = Range(
            over.kept.low * share[0], over.kept.high * (1.0 if over.rows is not False else share[1])
        )
        return Facts(
            f"{over.name}, pooled", over.n_blocks, over.n_groups, over.n_pixels, over.n_channels,
            over.block_bytes, over.decoded, over.stored, over.pairs.times(0.15, 1.0), over.rows, kept,
            over.reading,
        )  # fmt: skip

    # -- k-means

    def _kmeans(self, step: schema.KMeansStep) -> Iterator[Pass]:
        k = _components(step.n_clusters)
        if step.on is not None:
            over = self._loadings[step.on]
            profiles = step.features == "profiles"
            width = Range.of(over.n_channels)
        else:
            over = self.cube
            profiles = step.features == "profiles" or (step.features == "auto" and self.counts)
            width = Range.of(step.n_subspace) if step.n_subspace else k
            if profiles:
                yield from self._profile_basis(over, width)
        source = self._profiles(over, width) if profiles else over
        features = width if profiles else Range.of(over.n_channels)
        yield from self._lloyd(step, over, source, k, features, profiles=profiles)
        if profiles:
            spectra = _added(self._product_work(over, k), self._sum_work(over))
            yield _once(
                "cluster spectra", over, statistic=int(8 * k.high * (over.n_channels + 1)),
                state=features.times(8.0 * over.n_channels), work=spectra,
            )  # fmt: skip
        labels = Pass(
            f"{step.label}: write maps", over, state=features.times(8.0 * over.n_channels),
            work=_added(self._product_work(over, k), {"write_byte": Range.of(4.0 * over.n_pixels)}),
            output=Range(0.005, 1.0).times(4.0 * over.n_pixels),
        )  # fmt: skip
        if self.in_memory and step.on is None:
            yield _once("write maps", over, work=self._product_work(over, k))
        yield labels

    def _profile_basis(self, over: Facts, width: Range) -> Iterator[Pass]:
        e = over.n_channels
        if e > pca.MAX_GRAM:
            yield from self._asks_totals(over)
            if over.n_pixels <= pca.MAX_GRAM and 8 * over.n_pixels * e <= pca.MAX_GATHER_BYTES:
                yield _once(
                    "PCA (pixel side)", over, work=self._sum_work(over),
                    statistic=8 * over.n_pixels * e // max(1, over.n_blocks),
                    held=3 * 8 * over.n_pixels * e,
                )  # fmt: skip
                return
            yield from self._randomized(over, int(width.high) + 11, 12)
            return
        known = "gram:poisson" in self._known
        if known and "faint" in self._known:
            return
        name = "faint pixels" if known else "PCA, faint pixels"
        work = _added(
            self._sum_work(over) if known else self._gram_work(over),
            {"join_byte": Range.of(8.0 * e * e * over.n_blocks)},
        )
        size = 8 * e * e * (1 if known else 2)
        yield _once(name, over, statistic=size, held=4 * 8 * e * e, work=work)
        self._keep("gram:poisson", 8 * e * e)
        self._keep("totals", 8 * e)
        self._keep("faint", 8 * e * e)

    def _profiles(self, over: Facts, width: Range) -> Facts:
        columns = width.times(1.0)
        kept = Range(
            8.0 * over.n_pixels * (columns.low + 1), 8.0 * over.n_pixels * (columns.high + 1)
        )
        return Facts(
            f"profiles of {over.name}", over.n_blocks, over.n_groups, over.n_pixels,
            int(columns.high) + 1, over.block_bytes, over.decoded, over.stored, over.pairs, False, kept,
            over.reading,
        )  # fmt: skip

    def _lloyd(
        self,
        step: schema.KMeansStep,
        over: Facts,
        source: Facts,
        k: Range,
        features: Range,
        *,
        profiles: bool,
    ) -> Iterator[Pass]:
        held = (
            over.pairs.high / max(1, over.n_pixels) if source.rows is not False else features.high
        )
        a_pixel = Range(min(features.low, held), held)
        one = Range(source.n_pixels * a_pixel.low * k.low, source.n_pixels * a_pixel.high * k.high)
        state = Range(8.0 * features.low * k.low, 8.0 * features.high * k.high)
        more = over if profiles else None
        yield from self._samples(step, over, source, k, features, one, profiles=profiles)
        yield Pass(
            "k-means",
            source,
            1,
            step.max_iter + 1,
            (1, min(20, step.max_iter)),
            f"ends when centers move by less than tol={step.tol:g} (at most max_iter={step.max_iter})",
            statistic=int(16 * step.n_init * k.high * features.high),
            state=state.times(1.0, float(step.n_init)),
            # Of rows only pixels whose label may have changed are looked at again.
            work={"lloyd": one.times(1.0 if profiles else 0.1, float(step.n_init))},
            also_reads=more,
        )

    def _samples(
        self,
        step: Any,
        over: Facts,
        source: Facts,
        k: Range,
        features: Range,
        one: Range,
        *,
        profiles: bool,
    ) -> Iterator[Pass]:
        """Two passes for the samples on which starts are found."""
        first: dict[str, Range] = self._product_work(over, features) if profiles else {}
        sample = 8 * (int(features.high) + 2 * SAMPLE_NUMBERS)
        part = 8 * (int(features.high) + 2 * PART_NUMBERS)
        state = Range(8.0 * features.low * k.low, 8.0 * features.high * k.high)
        # Samples hold a bounded number of pixels.
        starts = {"lloyd": 2e5 * step.n_init * 8 * k.high * 10.0}
        more = over if profiles else None
        yield _once(
            "k-means survey", source, statistic=part, work=_added(first, {"lloyd": one.times(0.1)}),
            client={"lloyd": starts["lloyd"] / 10}, also_reads=more, held=2 * part,
        )  # fmt: skip
        yield _once(
            "k-means sounding", source, statistic=sample, work={"lloyd": one}, state=state,
            client=starts, also_reads=more, held=2 * sample,
        )  # fmt: skip

    # -- mixtures

    def _gaussian_mixture(self, step: schema.GaussianMixtureStep) -> Iterator[Pass]:
        k = _components(step.n_clusters)
        over = self.cube if step.on is None else self._loadings[step.on]
        name, width = self._features_of(step, over, k)
        if name == "profiles" and step.on is None:
            yield from self._profile_basis(over, width)
        elif name == "scores":
            own = schema.PCAStep(n_components=int(width.high))
            yield from self._pca_fit(own, width)
        source = over if name == "counts" else self._profiles(over, width)
        one = Range(source.n_pixels * width.low * k.low, source.n_pixels * width.high * k.high)
        mapped = name != "counts"
        yield from self._samples(step, over, source, k, width, one, profiles=mapped)
        square = {"full": width.high**2, "diag": width.high, "tied": width.high**2}
        size = square[step.covariance_type]
        statistic = int(8 * step.n_init * k.high * (size + width.high + 2))
        more = over if mapped else None
        yield _once(
            "Gaussian mixture start", source, statistic=statistic, also_reads=more,
            work={"lloyd": one.times(1.0, 2.0 * step.n_init)},
            state=Range(8.0 * width.low * k.low, 8.0 * width.high * k.high * step.n_init),
        )  # fmt: skip
        products = Range(1.0, 1.0 + size / max(1.0, width.high))
        yield Pass(
            "Gaussian mixture",
            source,
            2,
            step.max_iter + 1,
            (2, step.max_iter + 1),
            f"ends when a pass gains less than tol={step.tol:g} nats a pixel (at most "
            f"max_iter={step.max_iter})",
            statistic=statistic,
            state=Range(0.0, 5.0 * statistic),
            work={"lloyd": Range(4.0 * one.low, one.high * products.high * step.n_init * 4.0)},
            also_reads=more,
        )
        if name != "counts":
            yield from self._cluster_spectra(over, k, width)
        yield from self._writes_labels(step, over, k, width)

    def _features_of(
        self, step: schema.GaussianMixtureStep, over: Facts, k: Range
    ) -> tuple[str, Range]:
        """Features of a mixture, and how many there are."""
        counts = self.counts and step.on is None
        name: str = step.features
        if name == "auto":
            many = over.n_channels > AS_IS
            name = "profiles" if counts else "scores" if many else "counts"
        if name == "counts":
            return name, Range.of(over.n_channels)
        if step.on is not None and name == "profiles":
            return name, Range.of(max(1, over.n_channels - 1))
        return name, Range.of(step.n_subspace) if step.n_subspace else k

    def _poisson_mixture(self, step: schema.PoissonMixtureStep) -> Iterator[Pass]:
        over, k = self.cube, _components(step.n_clusters)
        width = Range.of(step.n_subspace) if step.n_subspace else k
        yield from self._profile_basis(over, width)
        source = self._profiles(over, width)
        one = Range(source.n_pixels * width.low * k.low, source.n_pixels * width.high * k.high)
        yield from self._samples(step, over, source, k, width, one, profiles=True)
        statistic = int(8 * step.n_init * k.high * (over.n_channels + 1))
        both = _added(self._product_work(over, k), self._product_work(over, k))
        starts = {name: work.times(1.0, float(step.n_init)) for name, work in both.items()}
        yield _once(
            "Poisson mixture start", over, statistic=statistic, work=starts,
            state=width.times(8.0 * over.n_channels),
        )  # fmt: skip
        yield Pass(
            "Poisson mixture",
            over,
            2,
            step.max_iter + 1,
            (2, step.max_iter + 1),
            f"ends when a pass gains less than tol={step.tol:g} nats a pixel (at most "
            f"max_iter={step.max_iter})",
            statistic=statistic,
            state=Range(0.0, 3.0 * statistic),
            work=starts,
        )
        yield from self._writes_labels(step, over, k, Range.of(over.n_channels))

    def _cluster_quality(self, step: schema.ClusterQualityStep) -> Iterator[Pass]:
        of = self._steps[step.of]
        on = getattr(of, "on", None)
        over = self.cube if on is None else self._loadings[on]
        k = _components(getattr(of, "n_clusters", "auto"))
        sample = 16 * SAMPLE_NUMBERS
        # Refits and distances go over a bounded number of pixels.
        pairs = 0.5 * step.n_samples**2 + 50.0 * step.n_samples * step.n_repeats * k.high
        yield _once(
            "cluster quality sample", over, statistic=sample, work=self._product_work(over, k),
            client={"lloyd": 20.0 * pairs}, held=2 * sample,
        )  # fmt: skip
        # Some rounds over the sample, for each of the models that are fitted to halves of it.
        half = Facts(
            "a sample", 1, 1, max(1, step.n_samples // 2), int(k.high), 8 * step.n_samples, 0, 0,
            Range(0, 0), False, Range(0, 0), "",
        )  # fmt: skip
        for name in _REFITS[of.verb]:
            yield Pass(
                name, half, 1, -1, (step.n_repeats, 100 * step.n_repeats), "the sample decides"
            )

    def _phase_fractions(self, step: schema.PhaseFractionsStep) -> Iterator[Pass]:
        """Each pixel as it was measured, and with counts drawn anew."""
        able = [s for s in self._steps.values() if isinstance(s, schema.WITH_PHASES)]
        of = self._steps[step.of] if step.of is not None else able[-1]
        on = getattr(of, "on", None)
        over = self.cube if on is None else self._loadings[on]
        given: Any = getattr(of, "n_components", getattr(of, "n_clusters", "auto"))
        k, times = _components(given), 1.0 + (step.n_draws if self.counts and on is None else 0)
        solved = isinstance(
            of,
            schema.NMFStep | schema.MCRStep | schema.VCAStep | schema.NFINDRStep | schema.SISALStep,
        )
        work = (
            self._nmf_work(over, k.times(times), "solve", Range(1.0, 1.0))
            if solved
            else self._product_work(over, k.times(times))
        )
        yield _once(
            "phase fractions", over, statistic=int(8 * times * fractions.MOST_TILES * k.high),
            state=k.times(8.0 * over.n_channels), work=work,
        )  # fmt: skip

    def _cluster_spectra(self, over: Facts, k: Range, features: Range) -> Iterator[Pass]:
        spectra = _added(self._product_work(over, k), self._sum_work(over))
        yield _once(
            "cluster spectra", over, statistic=int(8 * k.high * (over.n_channels + 1)),
            state=features.times(8.0 * over.n_channels), work=spectra,
        )  # fmt: skip

    def _writes_labels(self, step: Any, over: Facts, k: Range, features: Range) -> Iterator[Pass]:
        """Labels and probabilities of every pixel."""
        size = Range(4.0 + 8.0 * k.low, 4.0 + 8.0 * k.high).times(float(over.n_pixels))
        yield Pass(
            f"{step.label}: write maps", over, state=features.times(8.0 * k.high),
            work=_added(self._product_work(over, k), {"write_byte": size}),
            output=Range(0.005 * size.low, size.high),
        )  # fmt: skip

    # -- output

    def _writes(self, step: Any, over: Facts, k: Range) -> Pass:
        """Loadings of every pixel."""
        size = k.times(8.0 * over.n_pixels)
        if isinstance(step, schema.PCAStep | schema.ICAStep | schema.VarimaxStep):
            work, packed = self._product_work(over, k), 0.4
        else:
            work, packed = self._nmf_work(over, k, "solve", Range(1.0, 1.0)), 0.1
        return Pass(
            f"{step.label}: write maps",
            over,
            state=k.times(8.0 * over.n_channels),
            work=_added(work, {"write_byte": size}),
            output=Range(size.low * packed, size.high),
        )

    def _loadings_of(self, over: Facts, k: Range) -> Facts:
        """Blocks of the loadings that a step writes: chunks of one block, joined up to the engine's size."""
        from emcube.engine.plan import TARGET_BYTES

        size = 8.0 * k.high * over.n_pixels
        chunk = size / max(1, over.n_blocks)
        n_blocks = min(over.n_blocks, max(1, math.ceil(size / max(chunk, TARGET_BYTES))))
        return Facts(
            "loadings", n_blocks, n_blocks, over.n_pixels, int(k.high), int(size / n_blocks),
            int(size), int(size), Range(0, 0), False, k.times(8.0 * over.n_pixels), "read_float",
        )  # fmt: skip


_REFITS = {
    "kmeans": ("k-means survey", "k-means sounding", "k-means"),
    "gaussian_mixture": (
        "k-means survey",
        "k-means sounding",
        "Gaussian mixture start",
        "Gaussian mixture",
    ),
    "poisson_mixture": (
        "k-means survey",
        "k-means sounding",
        "Poisson mixture start",
        "Poisson mixture",
    ),
}
"""Passes of the models that are fitted to a sample."""


def _components(given: int | str) -> Range:
    return Range(*AUTO_COMPONENTS) if given == "auto" else Range.of(int(given))
