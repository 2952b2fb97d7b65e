"""Regions of pixels: what a mouse draws, as positions, as a selection, and in the words of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import SelectionError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Region"]


@dataclass(frozen=True)
class Region:
    """Some pixels of a cube, by positions along its navigation dims.

    Make one with `Region.box`, `Region.pixel` or `Region.polygon`.

    Attributes
    ----------
    spans : tuple of (str, int, int)
        Dim, start, and stop before the end. Dims that are not named are whole.
    vertices : tuple of (float, float)
        Corners of a polygon over the last two navigation dims (row, column), in positions: the centre of the
        first pixel is 0. Pixels whose centres lie inside belong to it. Empty: no polygon.

    Examples
    --------
    >>> Region.box(y=(2, 5), x=(0, 4))
    Region(y 2:5, x 0:4)
    >>> Region.polygon([(0, 0), (0, 8), (8, 0)], tilt=(3, 4))
    Region(tilt 3:4, polygon of 3 corners)
    """

    spans: tuple[tuple[str, int, int], ...] = ()
    vertices: tuple[tuple[float, float], ...] = ()

    @classmethod
    def box(cls, **spans: tuple[int, int]) -> Region:
        """Pixels from a start to a stop (not included) along each dim.

        Raises
        ------
        SelectionError
            A span is empty or negative, or none is given.
        """
        if not spans:
            raise SelectionError("region: no dim is given", hint="as in Region.box(y=(2, 5))")
        return cls(tuple(_span(dim, span) for dim, span in spans.items()))

    @classmethod
    def pixel(cls, **positions: int) -> Region:
        """One pixel (or all along the dims that are not named)."""
        return cls.box(**{dim: (at, at + 1) for dim, at in positions.items()})

    @classmethod
    def polygon(cls, vertices: Iterable[Sequence[float]], **spans: tuple[int, int]) -> Region:
        """Pixels whose centres lie in a polygon of (row, column), at some positions of other dims.

        Raises
        ------
        SelectionError
            There are fewer than three corners, or one is no pair of numbers.
        """
        corners = tuple(tuple(float(v) for v in corner) for corner in vertices)
        if len(corners) < 3 or any(
            len(corner) != 2 or not np.isfinite(corner).all() for corner in corners
        ):
            raise SelectionError(
                f"region: got a polygon of {len(corners)} corners, expected at least three pairs of "
                "numbers (row, column)",
                hint="draw a larger region",
            )
        pairs = tuple((a, b) for a, b in corners)
        return cls(tuple(_span(dim, span) for dim, span in spans.items()), pairs)

    def __repr__(self) -> str:
        return f"Region({self})"

    def __str__(self) -> str:
        parts = [f"{dim} {start}:{stop}" for dim, start, stop in self.spans]
        if self.vertices:
            parts.append(f"polygon of {len(self.vertices)} corners")
        return ", ".join(parts) or "everything"

    # ------------------------------------------------------------------------------------------ of a cube

    def check(self, sizes: Mapping[str, int]) -> None:
        """Hold it against the navigation dims of a cube.

        Parameters
        ----------
        sizes : mapping of str to int
            Navigation dims in order, with their lengths.

        Raises
        ------
        SelectionError
            It names another dim, lies outside, or holds no pixel.
        """
        dims = tuple(sizes)
        for dim, start, stop in self.spans:
            if dim not in sizes:
                raise SelectionError(
                    f"region: {dim!r} is not a navigation dim of the cube, which has {dims}",
                    hint="name one of those",
                )
            if stop > sizes[dim]:
                raise SelectionError(
                    f"region: {dim} from {start} to {stop} is asked for, the cube has {sizes[dim]} "
                    "positions",
                    hint=f"end at {sizes[dim]} or before",
                )
        if not self.vertices:
            return
        if len(dims) < 2:
            raise SelectionError(
                f"region: a polygon needs two navigation dims, the cube has {dims}",
                hint="choose a span of positions",
            )
        both = [dim for dim, _, _ in self.spans if dim in dims[-2:]]
        if both:
            raise SelectionError(
                f"region: a polygon over {dims[-2:]} and a span of {both[0]!r} are asked for",
                hint="give one of them; other dims may have spans",
            )
        if not self._drawn(sizes).any():
            raise SelectionError(
                "region: no pixel centre lies inside the polygon", hint="draw a larger region"
            )

    def mask(self, cube: xr.DataArray) -> xr.DataArray:
        """Which pixels it holds, over all navigation dims of a cube, with its coordinates.

        Raises
        ------
        SelectionError
            It does not fit the cube, or holds no pixel.
        """
        import xarray as xr

        from emcube.cube import nav_dims

        nav = nav_dims(cube)
        sizes = {dim: cube.sizes[dim] for dim in nav}
        self.check(sizes)
        inside = np.ones(tuple(sizes.values()), dtype=bool)
        for dim, start, stop in self.spans:
            at = np.arange(sizes[dim])
            shape = [-1 if d == dim else 1 for d in nav]
            inside &= ((at >= start) & (at < stop)).reshape(shape)
        if self.vertices:
            inside &= self._drawn(sizes)
        coords = {dim: cube.coords[dim] for dim in nav if dim in cube.coords}
        return xr.DataArray(inside, dims=nav, coords=coords)

    def _drawn(self, sizes: Mapping[str, int]) -> Any:
        from emcube.recipe.prepare import inside_polygon

        rows, columns = tuple(sizes.values())[-2:]
        return inside_polygon(np.asarray(self.vertices), rows, columns)

    # --------------------------------------------------------------------------------- in a recipe's words

    def keeping(self) -> dict[str, Any]:
        """The preparation that keeps nothing else: ``{"select": {...}}``."""
        spans: dict[str, Any] = {dim: [start, stop] for dim, start, stop in self.spans}
        if self.vertices:
            spans["region"] = [list(corner) for corner in self.vertices]
        return {"select": spans}

    def leaving_out(self, dims: Sequence[str]) -> dict[str, Any]:
        """The preparation that leaves it out: ``{"select": {"outside": [...]}}``.

        Parameters
        ----------
        dims : sequence of str
            Navigation dims of the cube.

        Raises
        ------
        SelectionError
            The cube has fewer than two navigation dims, or the region is bound to positions of another dim: a
            polygon is left out at all of them.
        """
        spans = {dim: (start, stop) for dim, start, stop in self.spans}
        last = tuple(dims[-2:])
        if len(last) < 2:
            raise SelectionError(
                f"region: a cube with the navigation dims {tuple(dims)} has nothing around a region",
                hint="keep a span of positions instead",
            )
        apart = [dim for dim in spans if dim not in last]
        if apart or (not self.vertices and len(spans) < 2):
            named = (
                f"is bound to positions of {apart[0]!r}" if apart else f"is a whole strip ({self})"
            )
            raise SelectionError(
                f"region: what is left out {named}, expected a polygon or a box over {last}",
                hint="draw it without other dims",
            )
        return {"select": {"outside": self._corners(spans, last)}}

    def _corners(
        self, spans: Mapping[str, tuple[int, int]], dims: Sequence[str]
    ) -> list[list[float]]:
        if self.vertices:
            return [list(corner) for corner in self.vertices]
        (top, bottom), (left, right) = spans[dims[0]], spans[dims[1]]
        # Half a pixel around: centres of the box's pixels are inside, those of its neighbours are not.
        rows, columns = (top - 0.5, bottom - 0.5), (left - 0.5, right - 0.5)
        return [
            [rows[0], columns[0]],
            [rows[0], columns[1]],
            [rows[1], columns[1]],
            [rows[1], columns[0]],
        ]


def _span(dim: str, span: tuple[int, int]) -> tuple[str, int, int]:
    try:
        start, stop = (int(v) for v in span)
    except (TypeError, ValueError):
        raise SelectionError(
            f"region: {dim} is {span!r}, expected two positions (start, stop)",
            hint=f"as in {dim}=(2, 5)",
        ) from None
    if not 0 <= start < stop:
        raise SelectionError(
            f"region: {dim} from {start} to {stop} holds nothing, expected 0 <= start < stop",
            hint="drag over at least one pixel",
        )
    return str(dim), start, stop
