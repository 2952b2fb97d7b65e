"""The signals of a file: what they are called, which one is the cube, which are its companions."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from emcube.cube.schema import nav_dims, sig_dims
from emcube.errors import AmbiguousSignalError, ReadError

__all__ = [
    "Kind",
    "Signal",
    "choose",
    "companions_of",
    "describe",
    "name_signals",
    "with_companions",
]

#: ``cube``: spectra or patterns over navigation dims; ``spectrum``: a single one; ``image``: every axis is
#: a place; ``reference``: belongs to another signal of the file and is opened by name only.
Kind = Literal["cube", "spectrum", "image", "reference"]


@dataclass(frozen=True, eq=False)
class Signal:
    """One signal of a file, lazy.

    Attributes
    ----------
    name : str
        By which it is asked for; unique within the file.
    cube : xarray.DataArray
    kind : str
        See `Kind`.
    """

    name: str
    cube: xr.DataArray
    kind: Kind

    @classmethod
    def of(cls, cube: xr.DataArray, name: str = "", *, reference: bool = False) -> Signal:
        """Tell the kind from the dims."""
        kind: Kind = "cube"
        if reference:
            kind = "reference"
        elif not sig_dims(cube):
            kind = "image"
        elif not nav_dims(cube):
            kind = "spectrum"
        return cls(name, cube, kind)


_FALLBACK = {"cube": "data", "spectrum": "spectrum", "image": "image", "reference": "reference"}


def name_signals(signals: Sequence[Signal]) -> list[Signal]:
    """Give every signal a name of its own that does not change from one opening to the next.

    A title that occurs once is the name. Where titles coincide, a cube keeps it and a single spectrum or an
    image of the same title gets its kind appended; several of one kind are numbered ``"EELS #1"``,
    ``"EELS #2"`` in the order of the file.
    """
    titled = [replace(s, name=(s.name or "").strip() or _default_name(s)) for s in signals]
    kinds: dict[str, set[Kind]] = {}
    for s in titled:
        kinds.setdefault(s.name, set()).add(s.kind)
    named = [
        replace(s, name=f"{s.name} {s.kind}") if s.kind != "cube" and len(kinds[s.name]) > 1 else s
        for s in titled
    ]
    total, seen = Counter(s.name for s in named), Counter[str]()
    result = []
    for s in named:
        if total[s.name] > 1:
            seen[s.name] += 1
            s = replace(s, name=f"{s.name} #{seen[s.name]}")
        result.append(s)
    return result


def _default_name(signal: Signal) -> str:
    modality = (signal.cube.attrs.get("metadata") or {}).get("modality")
    if signal.kind in ("cube", "spectrum") and modality not in (None, "other", "spectrum", "image"):
        return str(modality)
    return _FALLBACK[signal.kind]


def describe(signals: Sequence[Signal]) -> str:
    """Return names with shapes, for a message."""
    return ", ".join(
        f"{s.name!r} ({' x '.join(f'{d} {n}' for d, n in s.cube.sizes.items())})" for s in signals
    )


def choose(signals: Sequence[Signal], name: str | None, path: Path) -> Signal:
    """Pick the signal that a user means.

    Parameters
    ----------
    signals : sequence of Signal
        With unique names.
    name : str or None
        None means the one cube (spectra or patterns over navigation dims), else the one single
        spectrum, else the one image or stack.
    path : Path
        For messages.

    Raises
    ------
    AmbiguousSignalError
        Several would do; ``names`` lists what may be asked for.
    ReadError
        There is no such name, or nothing in the file.
    """
    if not signals:
        raise ReadError(
            f"{path}: the file holds no signal, expected at least one array",
            hint="look into it with the program that wrote it",
        )
    if name is not None:
        return _by_name(signals, name, path)
    for kind in ("cube", "spectrum", "image", "reference"):
        found = [s for s in signals if s.kind == kind]
        if len(found) == 1:
            return found[0]
        if found:
            rest = [s.name for s in signals if s not in found]
            raise AmbiguousSignalError(
                f"{path}: the file holds {len(found)} signals that could be the cube, expected "
                f"one: {describe(found)}",
                names=[s.name for s in found] + rest,
                hint=f"pick one with name={found[0].name!r} (--name on the command line)",
            )
    raise AssertionError("every signal has one of the four kinds")


def _by_name(signals: Sequence[Signal], name: str, path: Path) -> Signal:
    asked = name.lower()
    for found in (
        [s for s in signals if s.name == name],
        [s for s in signals if s.name.lower() == asked],
        [s for s in signals if s.name.rpartition(" #")[0].lower() == asked],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousSignalError(
                f"{path}: {name!r} names {len(found)} signals, expected one: {describe(found)}",
                names=[s.name for s in found],
                hint=f"pick one with name={found[0].name!r}",
            )
    names = [s.name for s in signals]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    raise ReadError(
        f"{path}: no signal is called {name!r}; the file holds {', '.join(map(repr, names[:20]))}"
        + (f" and {len(names) - 20} more" if len(names) > 20 else ""),
        hint=f"did you mean name={close[0]!r}?" if close else f"for example name={names[0]!r}",
    )


def _on_grid(image: xr.DataArray, cube: xr.DataArray) -> bool:
    grid = nav_dims(cube)
    # A map's image covers the whole grid (or its last dims, for a stack of maps), pixel by pixel.
    return (
        bool(image.ndim)
        and image.ndim >= min(2, len(grid))
        and (
            image.dims == grid[len(grid) - image.ndim :]
            and all(image.sizes[d] == cube.sizes[d] for d in image.dims)
        )
    )


def with_companions(signal: Signal, signals: Sequence[Signal]) -> xr.DataArray:
    """Return the cube with the file's images of the same grid as coordinates over its navigation dims."""
    cube = signal.cube
    if signal.kind != "cube":
        return cube
    coords: dict[str, xr.DataArray] = {}
    for image in signals:
        if image.kind == "image" and _on_grid(image.cube, cube):
            name = _coord_name(image.name, {*map(str, cube.dims), *map(str, cube.coords), *coords})
            attrs = {
                "units": str(image.cube.attrs.get("units", "1")),
                "long_name": image.name,
            }
            coords[name] = xr.DataArray(image.cube.data, dims=image.cube.dims, attrs=attrs)
    return cube.assign_coords(coords) if coords else cube


def companions_of(signal: Signal, signals: Sequence[Signal]) -> list[xr.DataArray]:
    """Return the file's images of other shapes, named."""
    if signal.kind != "cube":
        return []
    result: list[xr.DataArray] = []
    for image in signals:
        if image.kind == "image" and not _on_grid(image.cube, signal.cube):
            # The store gives axes that are not the cube's names of their own.
            result.append(image.cube.rename(_coord_name(image.name, {str(a.name) for a in result})))
    return result


def _coord_name(name: str, taken: set[str]) -> str:
    plain = re.sub(r"\W+", "_", name).strip("_") or "image"
    # Names that a store needs for itself.
    taken = taken | {"data", "sum_spectrum"}
    if plain not in taken and not plain.isdigit() and not plain.startswith("total_counts"):
        return plain
    return next(
        n for k in range(1, 999) if (n := f"{plain}_image{k if k > 1 else ''}") not in taken
    )


def source_attrs(cube: xr.DataArray, **source: Any) -> xr.DataArray:
    """Return the cube with entries added to ``metadata["source"]``."""
    metadata = dict(cube.attrs.get("metadata") or {})
    metadata["source"] = {**(metadata.get("source") or {}), **source}
    return cube.assign_attrs(metadata=metadata)


def jsonable(value: Any, *, longest: int = 64) -> Any:
    """Turn what a file says into plain JSON values: arrays into lists, or into a word where they are long."""
    if isinstance(value, dict):
        return {str(k): jsonable(v, longest=longest) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        if len(value) > 4 * longest and not any(isinstance(v, (dict, list)) for v in value):
            return f"<{len(value)} values>"
        return [jsonable(v, longest=longest) for v in value]
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return text if len(text) <= 4 * longest and text.isprintable() else f"<{len(value)} bytes>"
    if isinstance(value, np.generic):
        return (
            jsonable(value.item(), longest=longest)
            if value.dtype.kind != "V"
            else f"<{value.nbytes} bytes>"
        )
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if value.size > longest or not isinstance(value, np.ndarray):
            return f"<array of shape {tuple(value.shape)}, {value.dtype}>"
        return jsonable(value.tolist(), longest=longest)
    return str(value)
