"""What all estimators share: scikit-learn's manners around labelled cubes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube import errors
from emcube._hooks import postponed
from emcube.engine import Block
from emcube.engine.checkpoint import remembered
from emcube.errors import InputError
from emcube.feedback.events import group
from emcube.models.fields import Fields, for_each_field, several
from emcube.models.labels import Labels, as_source, map_pixels

# Scikit-learn's base loads all of scipy.stats for a function that no estimator of ours calls.
with postponed("scipy.stats"):
    import sklearn.exceptions
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import validate_data

__all__ = ["Estimator", "NotFittedError", "Pick", "as_source", "resolve_seed"]


class NotFittedError(errors.NotFittedError, sklearn.exceptions.NotFittedError):
    """An estimator was asked for an answer before ``fit``: emcube's error and scikit-learn's."""


def resolve_seed(random_state: Any) -> int:
    """Seed of a run: the given integer, one drawn from a generator, or a fresh one for None.

    Raises
    ------
    InputError
        `random_state` is neither None, a non-negative integer, nor a NumPy generator.
    """
    if random_state is None:
        # A run that goes on from a checkpoint keeps the seed that it drew.
        return int(remembered("seed", _fresh_seed, int))
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


PER_PIXEL: tuple[str, ...] = ("transform", "fit_transform", "predict", "predict_proba")
PER_PIXEL += ("fit_predict", "score_samples", "scale")
"""Methods that answer for each pixel: of several cubes one answer a cube."""


class Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
    """Base of the models: parameters in ``__init__``, answers in attributes with an underscore.

    `X` may be several cubes, as a list or as a catalog's search found them: one model is then fitted to the
    pixels of all, with ``where=`` as a list of one selection a cube, and methods that answer for each pixel
    give a list of one answer a cube.

    A fitted estimator has ``axes_`` (the axes of what it was fitted on), ``n_features_in_``, for frames
    with named columns ``feature_names_in_`` and, where it draws random numbers, ``seed_`` (the seed that
    was used).
    """

    axes_: Labels
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let ``set_output`` make frames of bare matrices and leave labelled cubes labelled; show fits."""
        for name in ("fit", "partial_fit", "score"):
            if name in vars(cls):
                setattr(cls, name, _told(vars(cls)[name]))
        names = [n for n in ("transform", "fit_transform") if n in vars(cls)]
        plain = {name: vars(cls)[name] for name in names}
        super().__init_subclass__(**kwargs)
        for name in names:
            setattr(cls, name, _unless_labelled(plain[name], vars(cls)[name]))
        for name in PER_PIXEL:
            if name in vars(cls):
                setattr(cls, name, for_each_field(vars(cls)[name]))

    @property
    @abstractmethod
    def _n_features_out(self) -> int:
        """Columns of what `transform` gives."""

    @property
    @abstractmethod
    def _counts_only(self) -> bool:
        """Whether the parameters let no negative value pass."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self._counts_only
        # Answers are float64 whatever came in.
        tags.transformer_tags.preserves_dtype = []
        return tags

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

    def _remember_columns(self, X: Any) -> None:
        """Keep the names of a frame's columns as ``feature_names_in_``; forget those of an earlier fit."""
        if hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        if hasattr(X, "columns"):
            validate_data(self, X, reset=True, skip_check_array=True)

    def _require_same_signal(self, X: Any, labels: Labels) -> None:
        """Refuse what has another signal, or other columns, than the fit."""
        self.axes_.require_same_signal(labels, type(self).__name__)
        if isinstance(X, xr.DataArray) or several(X) is not None:
            return
        try:
            validate_data(self, X, reset=False, skip_check_array=True)
        except ValueError as error:
            raise InputError(
                f"{type(self).__name__}: {error}".strip(),
                hint="pass the columns of the fit in their order",
            ) from error

    def _check_signal(self, X: Any) -> Labels:
        """Labels of `X`, whose signal must be that of the fit."""
        self._require_fitted()
        _, labels = as_source(X, None)
        self._require_same_signal(X, labels)
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


def _told(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, whose passes are shown together under the name of the model."""

    @wraps(method)
    def telling(self: Estimator, X: Any, *args: Any, **kwargs: Any) -> Any:
        with group(type(self).__name__):
            # Entries of a catalog are opened once.
            return method(self, several(X) or X, *args, **kwargs)

    return telling


def _unless_labelled(plain: Callable[..., Any], framed: Callable[..., Any]) -> Callable[..., Any]:
    """`plain` for labelled cubes, one or several, `framed` (``set_output``) for everything else."""

    @wraps(plain)
    def either(self: Estimator, X: Any, *args: Any, **kwargs: Any) -> Any:
        method = plain if isinstance(X, xr.DataArray | Fields) else framed
        return method(self, X, *args, **kwargs)

    return either


class Pick:
    """One of several per-pixel answers."""

    def __init__(self, function: Callable[[Block], dict[str, NDArray[Any]]], name: str) -> None:
        self.function, self.name = function, name

    def __call__(self, block: Block) -> NDArray[Any]:
        """The one answer for a block."""
        return self.function(block)[self.name]
