"""What a recipe does to a cube before the first step: lazily, in order, on labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube.cube import nav_dims
from emcube.errors import SelectionError
from emcube.models.fields import Fields
from emcube.recipe.schema import AnyPrepare, Bin, RemoveBackground, Select, Window

__all__ = ["Prepared", "inside_polygon", "prepare"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A cube, and which of its pixels a polygon left.

    Attributes
    ----------
    cube : DataArray, or Fields
        Or several cubes.
    region : DataArray of bool over navigation dims, or None
        None: all of them. Of several cubes a list with one each.
    """

    cube: Any
    region: Any = None


def prepare(cube: Any, steps: Sequence[AnyPrepare]) -> Prepared:
    """Apply the preparation of a recipe, lazily; to each of several cubes.

    Raises
    ------
    SelectionError
        A dim does not exist, or a selection leaves nothing.
    """
    if isinstance(cube, Fields):
        each = [prepare(one, steps) for one in cube.cubes]
        return Prepared(
            Fields(tuple(one.cube for one in each), cube.names), [one.region for one in each]
        )
    state = Prepared(cube)
    for step in steps:
        state = _apply(state, step)
    return state


def _apply(state: Prepared, step: AnyPrepare) -> Prepared:
    cube, region = state.cube, state.region
    for dim in step.dims:
        if dim not in cube.dims:
            raise SelectionError(
                f"{step.verb}: the cube has no dim {dim!r}, it has {', '.join(map(str, cube.dims))}",
                hint="look at the cube with 'emcube info'",
            )
    if isinstance(step, RemoveBackground):
        return Prepared(cube.em.remove_background(**step.dims), region)
    if isinstance(step, Window):
        return Prepared(cube.em.window(**step.dims), region)
    if isinstance(step, Bin):
        return Prepared(cube.em.bin(step.boundary, **step.dims), _bin_region(region, step))
    return _select(state, step)


def _select(state: Prepared, step: Select) -> Prepared:
    cube, region = state.cube, state.region
    for dim, (start, stop) in step.dims.items():
        if stop > cube.sizes[dim]:
            raise SelectionError(
                f"select: {dim} from {start} to {stop} is asked for, the cube has "
                f"{cube.sizes[dim]} positions along {dim}",
                hint=f"end at {cube.sizes[dim]} or before",
            )
    slices = {dim: slice(*span) for dim, span in step.dims.items()}
    cube = cube.isel(slices)
    if region is not None:
        region = region.isel({d: s for d, s in slices.items() if d in region.dims})
    state = Prepared(cube, region)
    if step.outside is not None:
        state = _outside(state, step.outside)
    return state if step.region is None else _inside(state, step.region)


Polygon = Sequence[tuple[float, float]]


def _inside(state: Prepared, polygon: Polygon) -> Prepared:
    """Keep the pixels inside a polygon: the box around them, and which of its pixels they are."""
    cube, region = state.cube, state.region
    inside = _drawn(cube, polygon)
    rows, columns = inside.dims
    if not inside.any():
        raise SelectionError(
            f"select: no pixel centre lies inside the polygon; {rows} goes from 0 to "
            f"{cube.sizes[rows] - 1} and {columns} from 0 to {cube.sizes[columns] - 1}",
            hint=f"vertices are positions [{rows}, {columns}]",
        )
    box = {d: slice(*_extent(inside.any(str(_other(inside, d))).values)) for d in inside.dims}
    drawn = inside.isel(box)
    if region is not None:
        drawn = region.isel({d: s for d, s in box.items() if d in region.dims}) & drawn
    return Prepared(cube.isel(box), drawn)


def _outside(state: Prepared, polygon: Polygon) -> Prepared:
    """Leave the pixels inside a polygon out; the cube keeps its size."""
    outside = ~_drawn(state.cube, polygon)
    kept = outside if state.region is None else state.region & outside
    if not bool(kept.any()):
        raise SelectionError(
            "select: no pixel centre is left outside the polygon",
            hint="draw a smaller polygon, or keep what lies inside with 'region'",
        )
    return Prepared(state.cube, kept)


def _drawn(cube: xr.DataArray, polygon: Polygon) -> xr.DataArray:
    """Which pixels lie inside a polygon, over the last two navigation dims."""
    nav = nav_dims(cube)
    if len(nav) < 2:
        raise SelectionError(
            f"select: a polygon needs two navigation dims, the cube has {nav}",
            hint="select positions instead, as in {x: [0, 20]}",
        )
    rows, columns = nav[-2:]
    inside = inside_polygon(np.asarray(polygon), cube.sizes[rows], cube.sizes[columns])
    coords = {d: cube[d] for d in (rows, columns) if d in cube.coords}
    return xr.DataArray(inside, dims=(rows, columns), coords=coords)


def _other(image: xr.DataArray, dim: Hashable) -> Hashable:
    return next(d for d in image.dims if d != dim)


def _extent(line: Any) -> tuple[int, int]:
    found = np.flatnonzero(line)
    return int(found[0]), int(found[-1]) + 1


def _bin_region(region: xr.DataArray | None, step: Bin) -> xr.DataArray | None:
    """Keep the binned pixels all of whose parts are inside."""
    if region is None:
        return None
    factors = {d: n for d, n in step.dims.items() if d in region.dims}
    if not factors:
        return region
    binned = region.astype(np.uint8).coarsen(factors, boundary=step.boundary).min()
    return binned.astype(bool)


def inside_polygon(vertices: NDArray[np.float64], n_rows: int, n_columns: int) -> NDArray[np.bool_]:
    """Tell which pixel centres lie inside a polygon, by the even-odd rule.

    Parameters
    ----------
    vertices : ndarray, shape (V, 2)
        Positions (row, column); the last joins the first.
    n_rows, n_columns : int

    Returns
    -------
    ndarray of bool, shape (n_rows, n_columns)
        Centres on a lower or left edge are inside, those on an upper or right edge are not, so that
        polygons that share an edge share no pixel.
    """
    rows = np.arange(n_rows, dtype=np.float64)[:, None]
    columns = np.arange(n_columns, dtype=np.float64)[None, :]
    inside = np.zeros((n_rows, n_columns), dtype=bool)
    for (r0, c0), (r1, c1) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        if r0 == r1:
            continue
        crosses = (r0 > rows) != (r1 > rows)
        at = c0 + (rows - r0) * ((c1 - c0) / (r1 - r0))
        inside ^= crosses & (columns < at)
    return inside
