"""Several cubes in place of one: fields of view of a specimen, fitted together without being joined.

The blocks of the cubes are chained (see `emcube.engine.ChainedSource`): to a model they are one cube with one
more navigation dim, ``field``, whose other navigation dims may differ in length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError, SelectionError

if TYPE_CHECKING:
    from emcube.engine import BlockSource
    from emcube.models.labels import Channels, Labels

__all__ = ["FIELD", "Fields", "chained_source", "for_each_field", "selections", "several"]

FIELD = "field"
"""Navigation dim along which several cubes lie."""


@dataclass(frozen=True, eq=False)
class Fields:
    """Cubes that a model is fitted to together.

    Attributes
    ----------
    cubes : tuple of DataArray
    names : tuple of str
        One a cube, each another.
    """

    cubes: tuple[xr.DataArray, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cubes)

    @property
    def dims(self) -> tuple[str, ...]:
        """Dims of what the cubes are together."""
        return (FIELD, *map(str, self.cubes[0].dims))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cubes, and the largest lengths of their dims."""
        return (len(self), *map(max, zip(*(cube.shape for cube in self.cubes), strict=True)))

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the first cube."""
        return dict(self.cubes[0].attrs)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype that holds the values of all."""
        return np.dtype(np.result_type(*(cube.dtype for cube in self.cubes)))


def several(X: Any) -> Fields | None:
    """Tell several cubes from one: a list or tuple of cubes, or what a catalog's search found.

    Parameters
    ----------
    X : object
        Whatever a user fits on.

    Returns
    -------
    Fields or None
        None for one cube or matrix.

    Raises
    ------
    InputError
        A list holds cubes and something else; a search found nothing.
    CatalogError, StoreError, ReadError
        An entry cannot be opened.
    """
    if isinstance(X, Fields):
        return X
    if isinstance(X, list | tuple):
        cubes = [isinstance(one, xr.DataArray) for one in X]
        if not any(cubes):
            return None
        if not all(cubes):
            at = cubes.index(False)
            raise InputError(
                f"several cubes: entry {at} of {len(X)} is a {type(X[at]).__name__}, expected a cube "
                "(a DataArray) as the others are",
                hint="open it with emcube.open, or label it with emcube.make_cube",
            )
        return Fields(tuple(X), _distinct([_name(cube) for cube in X]))
    return _found(X)


def _found(X: Any) -> Fields | None:
    """Cubes of a catalog."""
    # Nobody has a catalog in hand before its module was imported.
    if not hasattr(X, "entries") or not hasattr(X, "search"):
        return None
    entries = dict(X.entries)
    if not entries:
        raise InputError(
            "several cubes: the catalog holds no entry that was searched for, one at least is expected",
            hint="look at catalog.facets(), and ask for less",
        )
    return Fields(
        tuple(entry.open() for entry in entries.values()), _distinct([str(n) for n in entries])
    )


def _name(cube: xr.DataArray) -> str:
    found = cube.attrs.get("name") or cube.name
    return "field" if found in (None, "", "data") else str(found)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names with numbers behind those that come more than once."""
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{name} {i}" for i, name in enumerate(names))


def selections(where: Any, fields: Fields) -> list[Any]:
    """Selection of each cube.

    Parameters
    ----------
    where : list with one selection (or None) a cube, one selection of channels for all, one of a single cube,
        or None
    fields : Fields

    Raises
    ------
    SelectionError
        The list has another length, or one selection of pixels is given for several cubes.
    """
    if where is None:
        return [None] * len(fields)
    if isinstance(where, list | tuple):
        if len(where) != len(fields):
            raise SelectionError(
                f"where: got {len(where)} selections for {len(fields)} cubes, expected one each",
                hint="give a list with one selection a cube, None where all of it is used",
            )
        return list(where)
    if isinstance(where, xr.DataArray):
        from emcube.cube import nav_dims

        over = set(map(str, where.dims))
        if len(fields) == 1 or not any(over & set(nav_dims(cube)) for cube in fields.cubes):
            return [where] * len(fields)
    raise SelectionError(
        f"where: got one selection of pixels for {len(fields)} cubes, expected a list with one each",
        hint="write where=[first, second, ...], None where all of a cube is used",
    )


def chained_source(
    fields: Fields,
    where: Any,
    channels: Channels,
    single: Callable[[xr.DataArray, Any, Channels], tuple[BlockSource, Labels]],
) -> tuple[BlockSource, Labels]:
    """Chain the blocks of several cubes.

    Parameters
    ----------
    fields : Fields
    where, channels
        See `emcube.models.labels.as_source`; `where` for each cube.
    single : callable
        What makes blocks and labels of one cube.

    Raises
    ------
    InputError
        Navigation dims, signal axes or units differ from cube to cube.
    SelectionError
        Other channels are selected in one cube than in another.
    """
    from emcube.engine import ChainedSource

    made = [
        single(cube, one, channels)
        for cube, one in zip(fields.cubes, selections(where, fields), strict=True)
    ]
    sources, labels = [s for s, _ in made], [found for _, found in made]
    first = labels[0]
    for i, other in enumerate(labels[1:], 1):
        _require_alike(first, other, f"{_quoted(fields, i)} and {_quoted(fields, 0)}")
    if FIELD in first.nav_dims:
        raise InputError(
            f"several cubes: {_quoted(fields, 0)} has a navigation dim {FIELD!r}, which is the name of the "
            "dim along which cubes lie",
            hint=f"rename it: cube.rename({FIELD}='position')",
        )
    source = ChainedSource.of(sources)
    common = replace(
        first,
        nav_dims=(FIELD, *first.nav_dims),
        nav_shape=source.plan.nav_shape,
        nav_coords={},
        attrs=_common_attributes(labels),
    )
    return source, common


def _quoted(fields: Fields, i: int) -> str:
    return f"cube {i} ({fields.names[i]!r})"


def _common_attributes(labels: Sequence[Labels]) -> dict[str, Any]:
    """Unit of the values, and what the metadata of all cubes say alike."""
    first = dict(labels[0].attrs)
    kept = {
        key: value
        for key, value in dict(first.get("metadata") or {}).items()
        if all(_equal((x.attrs.get("metadata") or {}).get(key), value) for x in labels[1:])
    }
    return {**first, "metadata": kept} if "metadata" in first else first


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(np.all(a == b))
    except ValueError:
        return False


def _require_alike(first: Labels, other: Labels, which: str) -> None:
    """Refuse cubes whose values or axes do not mean the same."""
    where = f"several cubes, {which}"
    if first.nav_dims != other.nav_dims:
        raise InputError(
            f"{where}: navigation dims {other.nav_dims} and {first.nav_dims}, expected the same names in "
            "the same order",
            hint="rename or transpose: cube.rename(...), cube.transpose(...); a dim of length one is added "
            "by cube.expand_dims(...)",
        )
    if first.units != other.units:
        raise InputError(
            f"{where}: values in {other.units!r} and in {first.units!r}, expected one unit",
            hint="convert the values, and set cube.attrs['units']",
        )
    if first.sig_dims != other.sig_dims:
        raise InputError(
            f"{where}: signal dims {other.sig_dims} and {first.sig_dims}, expected the same names",
            hint="rename them: cube.rename(Energy='energy')",
        )
    for dim, n, m in zip(first.sig_dims, first.sig_shape, other.sig_shape, strict=True):
        _require_same_axis(first, other, dim, n, m, where)
    same = np.array_equal(_channels(first), _channels(other))
    if not same:
        raise SelectionError(
            f"{where}: where= selects {_channels(other).size} and {_channels(first).size} channels, or "
            "other ones, expected the same channels of all cubes",
            hint="select channels with one where= for all: where=(cube.energy > 0.2)",
        )


def _channels(labels: Labels) -> Any:
    return np.arange(labels.n_all_channels) if labels.channels is None else labels.channels


def _require_same_axis(first: Labels, other: Labels, dim: str, n: int, m: int, where: str) -> None:
    """Refuse a signal axis that is not that of the first cube, and say how to align it."""
    from emcube.models.labels import AXIS_TOLERANCE

    mine, yours = first.sig_coords.get(dim), other.sig_coords.get(dim)
    numbers = all(c is not None and c.dtype.kind in "iuf" for c in (mine, yours))
    if mine is None or yours is None or not numbers:
        if n != m or (mine is None) != (yours is None):
            raise InputError(
                f"{where}: {dim} has {m} channels{'' if yours is None else ' with coordinates'} and {n}"
                f"{'' if mine is None else ' with coordinates'}, expected one axis",
                hint=f"give all cubes coordinates: cube.assign_coords({dim}=...)",
            )
        return
    units = [str(c.attrs.get("units", "no unit")) for c in (yours, mine)]
    if units[0] != units[1]:
        raise InputError(
            f"{where}: {dim} in {units[0]} and in {units[1]}, expected one unit",
            hint=f"convert the coordinate: cube.assign_coords({dim}=cube.{dim} * 1000), with its "
            "attrs['units']",
        )
    a, b = (np.asarray(c.values, dtype=np.float64) for c in (mine, yours))
    wide_a, wide_b = _width(a), _width(b)
    if n == m and np.abs(a - b).max(initial=0.0) <= AXIS_TOLERANCE * wide_a:
        return
    told = (
        f"{where}: {dim} has {m} channels of {wide_b:g} {units[0]} from {b[0]:g} on and {n} of {wide_a:g} "
        f"from {a[0]:g} on, expected one axis"
    )
    raise InputError(told, hint=_how_to_align(dim, a, b, wide_a, wide_b))


def _width(axis: Any) -> float:
    return float(abs(axis[-1] - axis[0]) / (axis.size - 1)) if axis.size > 1 else 1.0


def _how_to_align(dim: str, a: Any, b: Any, wide_a: float, wide_b: float) -> str:
    """The way that keeps counts counts, where there is one."""
    ratio = max(wide_a, wide_b) / min(wide_a, wide_b)
    low, high = max(a.min(), b.min()), min(a.max(), b.max())
    if low > high:
        return f"the axes of {dim} have nothing in common: leave one cube out"
    if abs(ratio - 1.0) < 1e-3:
        apart = abs(b[0] - a[0]) / wide_a
        if abs(apart - round(apart)) < 1e-2:
            return (
                f"cut all to what they have in common, which keeps counts: "
                f"cube.em.window({dim}=({low:g}, {high:g}))"
            )
        return (
            f"channels lie between each other's: calibrate the offset (cube.assign_coords({dim}=...)) where "
            f"it is one of the instrument, else interpolate, which makes of counts values that are none: "
            f"cube.interp({dim}=first.{dim})"
        )
    if abs(ratio - round(ratio)) < 1e-3:
        return (
            f"bin the finer one, which keeps counts: cube.em.bin({dim}={round(ratio)}), then cut all to "
            f"({low:g}, {high:g}) with cube.em.window"
        )
    return (
        f"interpolate onto one axis, which makes of counts values that are none: "
        f"cube.interp({dim}=first.{dim})"
    )


def for_each_field(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of an estimator; of several cubes it gives a list, one answer a cube.

    Methods that fit take all cubes at once, and give a list, too.
    """
    fits = method.__name__.startswith("fit_")

    @wraps(method)
    def either(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        fields = several(X)
        if fields is None:
            return method(self, X, *args, **kwargs)
        if fits:
            return method(self, fields, *args, **kwargs)
        where = kwargs.pop("where", args[0] if args else None)
        return [
            either(self, cube, **kwargs, where=one)
            for cube, one in zip(fields.cubes, selections(where, fields), strict=True)
        ]

    return either
