"""Positions through a preparation: where its pixels lie in the cube, and the same preparation of a coarser
one.

A preparation (select, bin) is written in positions. A preview does it to a coarse cube, whose positions
are fewer; and a pixel of a result is to be found again in the cube that it came from. Both are arithmetic:
no values are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.recipe.prepare import inside_polygon

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from emcube.explore.settings import Settings

__all__ = ["Span", "scaled", "spans_of", "spread"]

Plain = dict[str, Any]
Vertices = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Span:
    """Where the positions of a prepared dim lie in the cube's.

    Attributes
    ----------
    start : int
        Position of the cube at which the first one begins.
    factor : int
        Positions of the cube in one.
    size : int
        How many there are.
    length : int
        Positions of the cube in all; the last one may hold fewer than the others.
    """

    start: int
    factor: int
    size: int
    length: int

    @classmethod
    def whole(cls, size: int) -> Span:
        """A dim as it is."""
        return cls(0, 1, size, size)

    def cut(self, first: int, stop: int) -> Span:
        """Some of them."""
        skipped = first * self.factor
        length = min(self.length - skipped, (stop - first) * self.factor)
        return Span(self.start + skipped, self.factor, stop - first, length)

    def binned(self, n: int, boundary: str) -> Span:
        """So many of them summed to one."""
        whole, rest = divmod(self.size, n)
        size, factor = whole + (rest > 0 and boundary == "pad"), self.factor * n
        return Span(self.start, factor, size, min(self.length, size * factor))


def spans_of(prepare: Iterable[Mapping[str, Any]], sizes: Mapping[str, int]) -> dict[str, Span]:
    """Follow the navigation dims of a cube through a preparation.

    Parameters
    ----------
    prepare : iterable of dict
        As in a recipe.
    sizes : mapping of str to int
        Navigation dims in order, with their lengths.
    """
    spans = {dim: Span.whole(n) for dim, n in sizes.items()}
    for entry in prepare:
        (verb, given), *_ = entry.items()
        if verb == "bin":
            boundary = given.get("boundary", "exact")
            for dim in set(spans) & set(given):
                spans[dim] = spans[dim].binned(given[dim], boundary)
        elif verb == "select":
            for dim in set(spans) & set(given):
                spans[dim] = spans[dim].cut(*given[dim])
            if given.get("region") is not None:
                for dim, (first, stop) in _box(given["region"], spans).items():
                    spans[dim] = spans[dim].cut(first, stop)
    return spans


def _box(vertices: Vertices, spans: Mapping[str, Span]) -> dict[str, tuple[int, int]]:
    """Box around the pixels in a polygon over the last two dims; nothing where it holds none."""
    dims = list(spans)[-2:]
    inside = _inside(vertices, [spans[d].size for d in dims])
    if not inside.any():
        return {}
    found = {}
    for axis, dim in enumerate(dims):
        at = np.flatnonzero(inside.any(axis=1 - axis))
        found[dim] = (int(at[0]), int(at[-1]) + 1)
    return found


def _inside(vertices: Vertices, shape: Sequence[int]) -> NDArray[np.bool_]:
    return inside_polygon(np.asarray(vertices, dtype=np.float64), shape[0], shape[1])


def spread(
    mask: xr.DataArray, spans: Mapping[str, Span], factors: Mapping[str, int], cube: xr.DataArray
) -> xr.DataArray:
    """Find the pixels of a prepared cube again in the one that it came from.

    Parameters
    ----------
    mask : DataArray of bool
        Over the navigation dims of the prepared cube.
    spans : mapping of str to Span
        Of the preparation, in positions of what was prepared.
    factors : mapping of str to int
        Positions of `cube` in one of what was prepared (a coarse cube); 1 by default.
    cube : DataArray

    Returns
    -------
    DataArray of bool over the navigation dims of `cube`
    """
    import xarray as xr

    from emcube.cube import nav_dims

    nav = nav_dims(cube)
    sizes = [cube.sizes[d] for d in nav]
    values = np.asarray(mask.transpose(*nav).values)
    place = []
    for axis, (dim, size) in enumerate(zip(nav, sizes, strict=True)):
        coarse, span = factors.get(dim, 1), spans[dim]
        start = span.start * coarse
        stop = min(size, start + span.length * coarse)
        values = np.repeat(values, span.factor * coarse, axis=axis)
        values = values.take(range(stop - start), axis=axis)
        place.append(slice(start, stop))
    whole = np.zeros(sizes, dtype=bool)
    whole[tuple(place)] = values
    coords = {d: cube.coords[d] for d in nav if d in cube.coords}
    return xr.DataArray(whole, dims=nav, coords=coords)


# ----------------------------------------------------------------------------------- for a coarser cube


@dataclass
class _Axis:
    """A navigation dim of the cube and of a coarser one, side by side.

    Edge e of the fine one (pixel p goes from p to p + 1) lies at ``shift + e / ratio`` of the coarse one.
    """

    fine: int
    coarse: int
    ratio: float
    shift: float = 0.0

    def edge(self, at: float) -> float:
        return self.shift + at / self.ratio

    def centre(self, at: float) -> float:
        """Position of a pixel's centre in pixels' centres of the coarse one."""
        return self.edge(at + 0.5) - 0.5

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Coarse pixels that some fine ones touch; at least one."""
        first = min(self.coarse - 1, max(0, math.floor(self.edge(start) + 1e-9)))
        last = min(self.coarse, max(first + 1, math.ceil(self.edge(stop) - 1e-9)))
        return first, last

    def cut(self, fine: tuple[int, int], coarse: tuple[int, int]) -> None:
        self.shift = self.edge(fine[0]) - coarse[0]
        self.fine, self.coarse = fine[1] - fine[0], coarse[1] - coarse[0]

    def bin(self, n: int, boundary: str) -> int:
        """Sum fine ones; tells how many coarse ones are as large."""
        m = max(1, round(n / self.ratio))
        self.shift /= m
        self.ratio *= m / n
        self.fine = Span.whole(self.fine).binned(n, boundary).size
        self.coarse = -(-self.coarse // m)
        return m


def scaled(
    settings: Settings,
    sizes: Mapping[str, int],
    coarse: xr.DataArray,
    factors: Mapping[str, int],
) -> Settings:
    """The same settings for a coarse cube: positions, windows and levels as its pixels and channels have
    them.

    Parameters
    ----------
    settings : Settings
    sizes : mapping of str to int
        Navigation dims of the cube in order, with their lengths.
    coarse : DataArray
        The coarse cube.
    factors : mapping of str to int
        Positions of the cube in one of the coarse one, by dim.
    """
    axes = {
        dim: _Axis(n, int(coarse.sizes[dim]), float(factors.get(dim, 1)))
        for dim, n in sizes.items()
    }
    signal = {str(d): float(factors.get(str(d), 1)) for d in coarse.dims if str(d) not in axes}
    prepare = []
    for entry in settings.prepare:
        (verb, given), *_ = entry.items()
        if verb in ("window", "remove_background"):
            prepare.append({verb: {d: _widened(coarse, d, ends) for d, ends in given.items()}})
        elif verb == "bin":
            prepare += _bins(given, axes, signal)
        else:
            prepare += _select(given, axes)
    where = settings.where
    if where is not None:
        pixels = math.prod(a.ratio for a in axes.values())
        image = [a.ratio for a in axes.values()][-2:]
        sigma = float(where.get("sigma", 1.5)) / math.prod(image) ** (1 / max(1, len(image)))
        level = where["min_smoothed_counts"] * pixels
        # Narrower than a pixel nothing is smoothed.
        where = {"min_smoothed_counts": level, "sigma": max(0.1, sigma)}
    return replace(settings, prepare=tuple(prepare), where=where)


def _widened(coarse: xr.DataArray, dim: str, ends: Sequence[float]) -> list[float]:
    """A window that holds at least the nearest of wider channels."""
    low, high = float(ends[0]), float(ends[1])
    if dim not in coarse.coords:
        return [low, high]
    axis = np.asarray(coarse.coords[dim].values, dtype=np.float64)
    width = float(np.abs(np.diff(axis)).min()) if axis.size > 1 else 0.0
    if low > axis.max() + width or high < axis.min() - width:
        return [low, high]  # refused where it is used, in the same words as for the cube
    nearest = float(axis[np.abs(axis - (low + high) / 2).argmin()])
    return [min(low, nearest), max(high, nearest)]


def _bins(given: Plain, axes: Mapping[str, _Axis], signal: dict[str, float]) -> list[Plain]:
    boundary = given.get("boundary", "exact")
    kept: Plain = {}
    for dim, n in given.items():
        if dim in axes:
            kept[dim] = axes[dim].bin(n, boundary)
        elif dim in signal:
            kept[dim] = max(1, round(n / signal[dim]))
            signal[dim] *= kept[dim] / n
    kept = {d: n for d, n in kept.items() if n > 1}
    return [{"bin": {**kept, "boundary": "pad"}}] if kept else []


def _select(given: Plain, axes: Mapping[str, _Axis]) -> list[Plain]:
    spans: Plain = {}
    for dim in [d for d in given if d in axes]:
        fine = (int(given[dim][0]), int(given[dim][1]))
        coarse = axes[dim].span(*fine)
        axes[dim].cut(fine, coarse)
        spans[dim] = list(coarse)
    found = [{"select": spans}] if spans else []
    if given.get("outside") is not None:
        found += _polygon("outside", given["outside"], axes)
    if given.get("region") is not None:
        found += _polygon("region", given["region"], axes)
    return found


def _polygon(word: str, vertices: Vertices, axes: Mapping[str, _Axis]) -> list[Plain]:
    """A polygon in coarse pixels, if it holds some and leaves some."""
    if len(axes) < 2:
        return [{"select": {word: [list(v) for v in vertices]}}]  # refused where it is used
    dims = list(axes)[-2:]
    rows, columns = (axes[d] for d in dims)
    moved = [[rows.centre(v[0]), columns.centre(v[1])] for v in vertices]
    inside = _inside(moved, (rows.coarse, columns.coarse))
    if word == "outside":
        return [] if inside.all() or not inside.any() else [{"select": {word: moved}}]
    if not inside.any():
        moved = _around(np.asarray(moved), rows.coarse, columns.coarse)
    fine = _box(vertices, {d: Span.whole(axes[d].fine) for d in dims})
    coarse = _box(moved, {d: Span.whole(axes[d].coarse) for d in dims})
    for dim in dims:
        if dim in fine:
            axes[dim].cut(fine[dim], coarse[dim])
    return [{"select": {word: moved}}]


def _around(vertices: NDArray[np.float64], n_rows: int, n_columns: int) -> list[list[float]]:
    """The coarse pixel in which a small polygon lies."""
    middle = vertices.mean(axis=0)
    row, column = (
        int(min(n - 1, max(0, round(float(m)))))
        for m, n in zip(middle, (n_rows, n_columns), strict=True)
    )
    return [
        [row - 0.5, column - 0.5],
        [row - 0.5, column + 0.5],
        [row + 0.5, column + 0.5],
        [row + 0.5, column - 0.5],
    ]
