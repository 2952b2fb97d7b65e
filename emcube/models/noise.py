"""Noise models: what an estimator asks instead of testing strings.

A model answers three questions: how much a pixel weighs, how a channel is scaled, and whether the data
are centred. Letters: P pixels, E channels.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from emcube.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "NoiseModel",
    "PoissonNoise",
    "UniformNoise",
    "pixel_weights_key",
    "resolve_noise",
    "weighs",
]


@runtime_checkable
class NoiseModel(Protocol):
    """What PCA asks of the noise.

    A model whose pixel weights depend on some of its parameters only may name those in an attribute
    ``weights_key`` (hashable): models of the same class and key then share sums over pixels.
    """

    @property
    def name(self) -> str:
        """Word for it in parameters and results."""
        ...

    @property
    def centred(self) -> bool:
        """Whether the mean spectrum is subtracted."""
        ...

    @property
    def needs_counts(self) -> bool:
        """Whether negative values make no sense."""
        ...

    def pixel_weights(self, totals: NDArray[Any]) -> NDArray[np.float64] | None:
        """Weight of each pixel's outer product, shape (P,); None: one everywhere."""
        ...

    def channel_scale(self, totals: NDArray[Any], total: float) -> NDArray[np.float64]:
        """Factor of each channel, shape (E,), from its total and the grand total."""
        ...


@dataclass(frozen=True)
class PoissonNoise:
    """Counting noise, weighted so that it has variance one: X_ij = D_ij sqrt(N / (g_i h_j)).

    g are the pixels' totals, h the channels', N the grand total; zero totals count as one. Where all
    pixels have the same spectrum the expected counts are g_i h_j / N, so that X has variance one.

    References
    ----------
    M. R. Keenan, P. G. Kotula, "Accounting for Poisson noise in the multivariate analysis of ToF-SIMS
    spectrum images", Surf. Interface Anal. 36 (2004) 203. https://doi.org/10.1002/sia.1657
    """

    name: str = "poisson"
    centred: bool = False
    needs_counts: bool = True

    def pixel_weights(self, totals: NDArray[Any]) -> NDArray[np.float64]:
        """1 / g, with zero totals as one."""
        return 1.0 / filled(totals)

    def channel_scale(self, totals: NDArray[Any], total: float) -> NDArray[np.float64]:
        """sqrt(N / h), with zero totals as one."""
        return np.sqrt(filled(total) / filled(totals))


@dataclass(frozen=True)
class UniformNoise:
    """The same noise everywhere: nothing is weighted, the mean spectrum is subtracted."""

    name: str = "none"
    centred: bool = True
    needs_counts: bool = False

    def pixel_weights(self, totals: NDArray[Any]) -> None:
        """None: every pixel weighs one."""
        return

    def channel_scale(self, totals: NDArray[Any], total: float) -> NDArray[np.float64]:
        """One for every channel."""
        return np.ones(np.shape(totals))


def pixel_weights_key(noise: NoiseModel) -> Hashable | None:
    """Identity of how a model weighs pixels; None where it cannot be told.

    Frozen dataclasses are known by class and parameters.
    """
    key: Any = getattr(noise, "weights_key", None)
    if key is None:
        settings = getattr(type(noise), "__dataclass_params__", None)
        if settings is None or not (settings.frozen and settings.eq):
            return None
        key = noise
    try:
        hash(key)
    except TypeError:  # a parameter that is an array
        return None
    return type(noise), key


def weighs(noise: NoiseModel) -> bool:
    """Whether pixels differ in weight, so that their totals are needed first."""
    return noise.pixel_weights(np.ones(1)) is not None


def filled(totals: NDArray[Any] | float) -> NDArray[np.float64]:
    """Totals as float64 with zeros counted as one."""
    values = np.asarray(totals, dtype=np.float64)
    return np.where(values == 0, 1.0, values)


def resolve_noise(noise: str | NoiseModel | None, dtype: Any) -> NoiseModel:
    """Turn the parameter `noise` into a model.

    Parameters
    ----------
    noise : {"auto", "poisson"}, None or NoiseModel
        "auto" is "poisson" for integers and None for everything else.
    dtype : dtype
        Of the data.

    Raises
    ------
    InputError
        The word is not known.
    """
    if noise is None:
        return UniformNoise()
    if isinstance(noise, str):
        if noise == "auto":
            return PoissonNoise() if np.dtype(dtype).kind in "iub" else UniformNoise()
        if noise == "poisson":
            return PoissonNoise()
    elif isinstance(noise, NoiseModel):
        return noise
    raise InputError(
        f"noise must be 'auto', 'poisson', None or a noise model, got {noise!r}",
        hint="'auto' weights integer counts after Keenan and Kotula and centres everything else",
    )
