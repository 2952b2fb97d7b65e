"""What HyperSpy's files have no words for, kept in them all the same: the entry ``metadata.emcube``.

HyperSpy keeps any entry of a metadata tree, and writes it again. So a cube that went through HyperSpy
comes back whole, and what was changed there is kept: the entry says what the rest of the file said when
it was written, and only what still says the same is taken back from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube.io.axes import Axis, AxisPlan

__all__ = [
    "COORDS",
    "CUBE",
    "KEY",
    "VERSION",
    "axis_text",
    "merged_metadata",
    "positions",
    "restore",
    "restored_metadata",
]

#: The entry, and within it a text (JSON) and arrays by name.
KEY, CUBE, COORDS = "emcube", "cube", "coords"
VERSION = 1


def positions(axis: Axis) -> NDArray[np.float64]:
    """Positions of a uniform axis in the file's own unit."""
    return np.asarray(axis.offset + axis.scale * np.arange(axis.size))


def axis_text(axis: Axis) -> dict[str, Any]:
    """What an entry keeps of an axis, by which a changed one is known."""
    return {
        "name": axis.name,
        "size": axis.size,
        "offset": axis.offset,
        "scale": axis.scale,
        "units": axis.units,
        "navigate": axis.navigate,
        "uniform": axis.values is None,
    }


def _told(meta: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]] | None:
    """The entry of a metadata tree: what it says, and its arrays; None where there is none that is known."""
    entry = meta.get(KEY)
    if not isinstance(entry, Mapping) or not isinstance(entry.get(CUBE), str):
        return None
    try:
        told = json.loads(entry[CUBE])
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("version") != VERSION:
        return None
    arrays = entry.get(COORDS)
    return told, arrays if isinstance(arrays, Mapping) else {}


def restored_metadata(meta: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a cube, from what was found in a file and from the entry.

    What the file still says as it did when the entry was written is taken from the entry, with what the
    file cannot say; what it says differently was changed there and stays as found.

    Parameters
    ----------
    meta : mapping
        HyperSpy's metadata tree.
    found : mapping
        Metadata as read from it.
    """
    known = _told(meta)
    if known is None:
        return dict(found)
    return merged_metadata(known[0]["told"], known[0]["metadata"], found)


def merged_metadata(
    told: Mapping[str, Any], whole: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """Metadata of a cube that was written to a file and read back.

    Parameters
    ----------
    told : mapping
        What the reader would have found in the file when it was written.
    whole : mapping
        All metadata of the cube at that time.
    found : mapping
        What the reader finds now. Where that differs from `told` it was changed, and wins.
    """

    def without_source(metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in metadata.items() if key != "source"}

    merged = _merged(without_source(told), without_source(whole), without_source(found))
    # Where it is read from is new each time; where it was read first is kept with it.
    source, earlier = dict(found.get("source") or {}), whole.get("source")
    if earlier:
        source["extra"] = {**(source.get("extra") or {}), "earlier": earlier}
    return {**merged, "source": source} if source else merged


def _merged(
    told: Mapping[str, Any], whole: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """Three-way merge: `told` became `found` elsewhere; the same change is made to `whole`."""
    merged = dict(whole)
    for key in told.keys() - found.keys():
        merged.pop(key, None)
    for key, value in found.items():
        before = told.get(key)
        if key == "extra":
            merged[key] = {**(whole.get(key) or {}), **value}
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[key] = _merged(before, whole.get(key) or {}, value)
        elif value != before:
            merged[key] = value
    return {key: value for key, value in merged.items() if value not in ({}, [], None)}


def restore(
    cube: xr.DataArray, axes: Sequence[Axis], plan: AxisPlan, meta: Mapping[str, Any]
) -> xr.DataArray:
    """Give a cube that was read its names, exact positions, units, attributes and coordinates back.

    Parameters
    ----------
    cube : xarray.DataArray
        As labelled by `plan`.
    axes : sequence of Axis
        As the file describes them now, in array order.
    plan : AxisPlan
    meta : mapping
        HyperSpy's metadata tree.

    Returns
    -------
    xarray.DataArray
        The cube as it is where there is no entry, or where it is no longer of these axes.
    """
    known = _told(meta)
    if known is None:
        return cube
    told, arrays = known
    if [a.name for a in axes] != [a["name"] for a in told["axes"]] or [
        a.navigate for a in axes
    ] != [a["navigate"] for a in told["axes"]]:
        return cube
    now = [plan.dims[plan.order.index(i)] for i in range(len(axes))]
    dims: list[str] = list(told["dims"])
    cube = cube.rename({old: new for old, new in zip(now, dims, strict=True) if old != new})
    same = {
        dim: axis
        for dim, axis, then in zip(dims, axes, told["axes"], strict=True)
        if axis_text(axis) == then
    }
    cube = cube.transpose(*dims)
    for name, described in told["coords"].items():
        if set(described["dims"]) <= same.keys():
            stored = arrays.get(described.get("array", name))
            cube = _with_coord(cube, name, described, stored, same.get(name))
    attrs = {**cube.attrs, **told["attrs"], "sig_dims": list(told["sig_dims"])}
    if told["units"] is not None:
        attrs["units"] = told["units"]
    return cube.assign_attrs(attrs)


def _with_coord(
    cube: xr.DataArray, name: str, described: Mapping[str, Any], stored: Any, axis: Axis | None
) -> xr.DataArray:
    """Give a coordinate back; `axis` where it is that of a dim which is as it was."""
    dims, shape = tuple(described["dims"]), tuple(described["shape"])
    if "values" in described:
        values: Any = np.asarray(described["values"], dtype=object).reshape(shape).astype(str)
    elif stored is not None:
        dtype = np.dtype(described["dtype"])
        values = np.asarray(stored).reshape(shape)
        values = values.view(dtype) if dtype.kind in "mMb" else values.astype(dtype)
        # Of an axis that is not uniform nothing but the number of positions was compared so far.
        if axis is not None and axis.values is not None and not _near(axis.values, values):
            return cube
    elif axis is not None:
        values = positions(axis)
    else:
        return cube
    return cube.assign_coords(
        {name: xr.DataArray(values, dims=dims, attrs=dict(described["attrs"]))}
    )


def _near(found: NDArray[np.float64], exact: NDArray[Any]) -> bool:
    """Whether exact positions are those that were found, to a millionth of the axis."""
    if exact.dtype.kind not in "iuf" or found.shape != exact.shape:
        return False
    span = float(np.ptp(found)) if found.size > 1 else 1.0
    return bool(np.allclose(found, exact.astype(np.float64), rtol=1e-9, atol=1e-6 * span))
