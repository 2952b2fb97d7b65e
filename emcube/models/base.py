"""What all estimators share: scikit-learn's manners around labelled cubes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from emcube.engine import Block
from emcube.engine.checkpoint import remembered
from emcube.errors import InputError, NotFittedError
from emcube.models.labels import Labels, as_source, map_pixels

__all__ = ["Estimator", "Pick", "as_source", "resolve_seed"]


def resolve_seed(random_state: Any) -> int:
    """Seed of a run: the given integer, one drawn from a generator, or a fresh one for None.

    Raises
    ------
    InputError
        `random_state` is neither None, a non-negative integer, nor a NumPy generator.
    """
    if random_state is None:
        # A run that goes on from a checkpoint keeps the seed that it drew.
        return int(remembered("seed", _fresh_seed))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**32))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer):
        raise InputError(
            f"random_state must be None, a whole number or a NumPy generator, got {random_state!r}"
        )
    if random_state < 0:
        raise InputError(f"random_state must not be negative, got {random_state}")
    return int(random_state)


def _fresh_seed() -> int:
    return int(np.random.SeedSequence().generate_state(1, np.uint32)[0])


class Estimator(BaseEstimator, ABC):
    """Base of the models: parameters in ``__init__``, answers in attributes with an underscore.

    A fitted estimator has ``axes_`` (the axes of what it was fitted on), ``n_features_in_`` and, where
    it draws random numbers, ``seed_`` (the seed that was used).
    """

    axes_: Labels
    n_features_in_: int

    @abstractmethod
    def fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Fit the model anew."""

    def _require_fitted(self) -> None:
        if not hasattr(self, "axes_"):
            raise NotFittedError(
                f"this {type(self).__name__} has not been fitted", hint="call fit(cube) first"
            )

    def _remember(self, labels: Labels) -> None:
        self.axes_ = labels
        self.n_features_in_ = labels.n_all_channels

    def _check_signal(self, X: Any) -> Labels:
        """Labels of `X`, whose signal must be that of the fit."""
        self._require_fitted()
        _, labels = as_source(X, None)
        self.axes_.require_same_signal(labels, f"{type(self).__name__}")
        return labels

    @abstractmethod
    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Picklable ``function(block) -> {name: ndarray (p, ...)}`` for `engine.map_blocks`.

        The names are those of the result's variables: "loadings", or "labels".
        """

    def _map(
        self,
        X: Any,
        name: str,
        trailing: tuple[int, ...],
        *,
        dims: tuple[str, ...] = ("component",),
        dtype: Any = np.float64,
        fill: Any = np.nan,
        where: Any = None,
        attrs: dict[str, Any] | None = None,
    ) -> Any:
        """Label one of the pixel function's answers for every pixel of `X`, lazily where `X` is lazy."""
        labels = self._check_signal(X)
        values = map_pixels(
            X,
            Pick(self.pixel_function(), name),
            trailing,
            labels=self.axes_,
            dtype=dtype,
            fill=fill,
            where=where,
        )
        return labels.maps(values, dims=dims, name=name, attrs=attrs)


class Pick:
    """One of several per-pixel answers."""

    def __init__(self, function: Callable[[Block], dict[str, NDArray[Any]]], name: str) -> None:
        self.function, self.name = function, name

    def __call__(self, block: Block) -> NDArray[Any]:
        """The one answer for a block."""
        return self.function(block)[self.name]
