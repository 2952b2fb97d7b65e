"""What the draws of `BayesianUnmixing` say in the words of `emcube.uncertainty`.

Letters: P pixels, E used channels, K components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import InputError
from emcube.models.bayes import BayesianUnmixing
from emcube.models.bayes_sweeps import (
    Chain,
    CountModel,
    DenseModel,
    gamma_interval,
    middle_of,
    posterior,
)
from emcube.models.information import fitted_of
from emcube.models.rotation import beside
from emcube.models.uncertainties import answered, evaluate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block

__all__ = ["posterior_uncertainty"]


@dataclass(frozen=True, eq=False)
class PosteriorPixels:
    """Uncertainty of the loadings of a block's pixels, from draws; pickles.

    Parameters
    ----------
    sampler : CountModel or DenseModel
    chains : tuple of Chain
        Draws of the components.
    seed : int
    level : float
    turns : ndarray, shape (N, K, K)
        Mixings of loadings that are as good.
    """

    sampler: CountModel | DenseModel
    chains: tuple[Chain, ...]
    seed: int
    level: float
    turns: NDArray[np.float64]

    def __call__(self, block: Block) -> NDArray[np.float64]:
        """Counting, shared, both ends of the interval and of the range, side by side, shape (p, K, 6)."""
        whole = posterior(self.sampler, block, self.chains, self.seed, self.level)
        middle = (middle_of(self.chains),) * len(self.chains)
        alone = posterior(self.sampler, block, middle, self.seed, self.level)
        out = np.empty((*whole.mean.shape, 6))
        out[..., 0] = alone.deviation
        # The law of total variance; draws are few, and may say that nothing is left.
        more = np.square(whole.deviation) - np.square(alone.deviation)
        out[..., 1] = np.sqrt(np.maximum(more, 0.0))
        out[..., 2:4] = whole.interval
        turned = np.maximum(np.einsum("pk,nkl->npl", whole.mean, self.turns), 0.0)
        # A posterior that leans on zero may have its mean outside of equal tails.
        about = (
            np.minimum(whole.interval[..., 0], whole.mean),
            np.maximum(whole.interval[..., 1], whole.mean),
        )
        out[..., 4], out[..., 5] = beside(turned.min(axis=0), turned.max(axis=0), about, whole.mean)
        return out


def posterior_uncertainty(model: Any, cube: Any, *, level: float, where: Any, seed: int) -> Any:
    """Hand out the posterior as `emcube.uncertainty` does, with the range of rotations beside it.

    Parameters
    ----------
    model : BayesianUnmixing
        Fitted.
    cube, where
        As for the fit.
    level : float
    seed : int
        Of the sample on which rotations are tried.

    Returns
    -------
    Dataset, or list of them
        One a cube, of several.

    Raises
    ------
    InputError
        The model has no posterior, or a parameter is out of range.
    """
    if not isinstance(model, BayesianUnmixing):
        raise InputError(
            f"method='posterior' hands out draws of a BayesianUnmixing, got a {type(model).__name__}",
            hint="take method='bootstrap' or 'fisher'",
        )
    values, deviation = model._values, model.draws_.std(axis=(0, 1))
    sums = values.sum(axis=1)
    fitted = fitted_of(model)  # of components that sum to one
    fitted = replace(fitted, totals=fitted.totals * sums)
    found = evaluate(
        fitted, cube, where, level=level, method="fisher", n_replicates=None, seed=seed
    )
    interval = gamma_interval(values, deviation, float(level))
    # Of components that do not sum to one (on the simplex), what was found of those that do.
    turns = found.pixels.rotations.mixings * sums[:, None] / sums
    facts = {
        **found.facts,
        "method": "posterior",
        "worst_r_hat": model.worst_r_hat_,
        "converged": model.converged_,
    }
    found = replace(
        found,
        pixels=replace(found.pixels, fitted=replace(fitted, sum_to_one=model._simplex)),
        components_std=deviation,
        components_low=interval[..., 0],
        components_high=interval[..., 1],
        rotation_low=found.rotation_low * sums[:, None],
        rotation_high=found.rotation_high * sums[:, None],
        facts=facts,
    )
    pixels = PosteriorPixels(model._sampler(), model._chains, model.seed_, float(level), turns)
    answer = answered(found, pixels, cube, where)
    for dataset in answer if isinstance(answer, list) else [answer]:
        for name in ("components_std", "components_interval", "rotation_range"):
            dataset[name].attrs["units"] = model.component_units_
    return answer
