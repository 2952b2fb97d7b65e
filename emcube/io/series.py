"""Several files, or a stack and a list of angles, as one cube with a dim of its own."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube.cube.schema import nav_dims, sig_dims
from emcube.errors import InputError
from emcube.io.arrays import read_angles

__all__ = ["angles_from_names", "angles_of", "stack_cubes", "with_angles_beside"]

_log = logging.getLogger("emcube.io")

#: Signal axes of a series may differ by this part of a channel, everywhere.
_CHANNEL_TOLERANCE = 0.1
#: Scan steps of a series may differ by this part.
_STEP_TOLERANCE = 0.01
#: Stored angles and those in the names are the same within this, degrees.
_ANGLE_TOLERANCE = 1.0

# A hyphen after a letter, a digit or a bracket joins words; elsewhere it is a sign.
_NUMBER = re.compile(r"(?<![A-Za-z0-9.)\]])[-+]?\d+(?:\.\d+)?|\d+(?:\.\d+)?")


def angles_from_names(paths: Sequence[Path]) -> NDArray[np.float64] | None:
    """Read one number from each file's name; None where the names do not give one each.

    The numbers of the names are compared place by place; the one place that differs holds the values.

    Examples
    --------
    >>> from pathlib import Path
    >>> angles_from_names([Path("-30.bcf"), Path("0.bcf"), Path("15.bcf")])
    array([-30.,   0.,  15.])
    """
    found = [[float(word) for word in _NUMBER.findall(path.stem)] for path in paths]
    if len({len(numbers) for numbers in found}) != 1 or not found[0]:
        return None
    table = np.array(found)
    differs = [k for k in range(table.shape[1]) if np.unique(table[:, k]).size > 1]
    if len(differs) != 1 or np.unique(table[:, differs[0]]).size != len(paths):
        return None
    values: NDArray[np.float64] = table[:, differs[0]]
    return values


def angles_of(
    cubes: Sequence[xr.DataArray], paths: Sequence[Path]
) -> tuple[NDArray[np.float64], str]:
    """Find the tilt angles of a series, in degrees: from the files' metadata or else from their names.

    Metadata count where every file has an angle and no two are alike (many programs store 0 throughout);
    names count otherwise. Where both give a full set they must agree within a degree.

    Returns
    -------
    values : ndarray
    note : str
        Where the angles came from.

    Raises
    ------
    InputError
        Neither gives one angle a file, or the two contradict each other.
    """
    stored = [(c.attrs.get("metadata") or {}).get("tilt_deg") for c in cubes]
    named = angles_from_names(paths)
    whole = all(s is not None for s in stored) and len(
        {float(s) for s in stored if s is not None}
    ) == len(paths)
    if whole:
        values = np.array([float(s) for s in stored if s is not None])
        if named is not None and np.abs(values - named).max() > _ANGLE_TOLERANCE:
            worst = int(np.abs(values - named).argmax())
            raise InputError(
                "tilt series: the stored angle and the file name contradict each other: "
                f"{paths[worst].name} stores "
                f"{values[worst]:g} degrees",
                hint="say which with values=[...], one angle a file",
            )
        return values, "tilt angles are those stored in the files"
    if named is not None:
        what = ""
        if any(s is not None for s in stored):
            shown = ", ".join("none" if s is None else f"{s:g}" for s in stored[:6])
            what = f" (the files store {shown})"
        return named, f"tilt angles are those in the file names{what}"
    raise InputError(
        f"tilt series of {len(paths)} files: neither the files nor their names give one angle each "
        f"({', '.join(p.name for p in paths[:4])}{', ...' if len(paths) > 4 else ''})",
        hint="give them with values=[...], one angle a file, or values='angles.rawtlt'",
    )


def stack_cubes(
    cubes: Sequence[xr.DataArray],
    paths: Sequence[Path],
    dim: str,
    values: Sequence[float] | NDArray[np.float64] | str | Path | None,
) -> xr.DataArray:
    """Stack cubes of equal shape and axes along a new first dim, in the order of its values.

    Parameters
    ----------
    cubes : sequence of DataArray
        One a file.
    paths : sequence of Path
        Where they came from.
    dim : str
        Name of the new dim; ``"tilt"`` is measured in degrees.
    values : sequence of float, or path of a ``.rawtlt`` file, or None
        Positions along it, one a file. None finds tilt angles with `angles_of` and numbers other dims.

    Raises
    ------
    InputError
        Shapes or axes do not match, values are missing, or two are alike.
    """
    _same_axes(cubes, paths)
    note = "values were given"
    if isinstance(values, (str, Path)):
        values = read_angles(Path(values))
    if values is None and dim == "tilt":
        positions, note = angles_of(cubes, paths)
        _log.info("%s", note)
    elif values is None:
        positions, note = (
            np.arange(len(cubes), dtype=np.float64),
            f"{dim} numbers the files in the order given",
        )
    else:
        positions = np.asarray(values, dtype=np.float64).ravel()
    if positions.size != len(cubes) or not np.isfinite(positions).all():
        raise InputError(
            f"{dim}: got {positions.size} values for {len(cubes)} files, expected one finite number for each",
            hint=f"give values=[...] with {len(cubes)} numbers",
        )
    if np.unique(positions).size != positions.size:
        twice = next(float(v) for v in positions if (positions == v).sum() > 1)
        raise InputError(
            f"{dim}: the value {twice:g} occurs twice, expected a different one for each file",
            hint="leave one of the files out, or correct values=",
        )
    if dim in cubes[0].dims:
        raise InputError(
            f"the files have a dim {dim!r} already, expected a new name",
            hint="choose another one with dim=",
        )
    order = np.argsort(positions)
    return _stacked(
        [cubes[i] for i in order], [paths[i] for i in order], dim, positions[order], note
    )


def _stacked(
    cubes: list[xr.DataArray],
    paths: list[Path],
    dim: str,
    positions: NDArray[np.float64],
    note: str,
) -> xr.DataArray:
    import dask.array as da

    first = cubes[0]
    unit = "deg" if dim == "tilt" else "1"
    coords: dict[Any, xr.DataArray] = {
        dim: xr.DataArray(positions, dims=(dim,), attrs={"units": unit})
    }
    for name, coord in first.coords.items():
        if name in first.dims:
            coords[name] = coord.variable
        elif all(name in c.coords and c.coords[name].shape == coord.shape for c in cubes):
            # Companion images differ from file to file.
            stack = da.stack([da.asarray(c.coords[name].data) for c in cubes])
            coords[name] = xr.DataArray(stack, dims=(dim, *coord.dims), attrs=coord.attrs)
    attrs = dict(first.attrs)
    metadata = dict(attrs.get("metadata") or {})
    metadata.pop("tilt_deg", None)
    everyone = [(c.attrs.get("metadata") or {}) for c in cubes]
    elements = list(dict.fromkeys(e for m in everyone for e in m.get("elements", [])))
    if elements:
        metadata["elements"] = elements
    for key in ("live_time_s", "real_time_s"):
        if key in metadata:
            # The time of the whole acquisition; unknown as soon as one file does not say.
            times = [m.get(key) for m in everyone]
            del metadata[key]
            if None not in times:
                metadata[key] = sum(times)
    source = {k: v for k, v in (metadata.get("source") or {}).items() if k != "file"}
    metadata["source"] = {**source, "files": [p.name for p in paths]}
    extra = dict(metadata.get("extra") or {})
    metadata["extra"] = {**extra, "notes": [*extra.get("notes", []), note]}
    attrs["metadata"] = metadata
    data = da.stack([da.asarray(c.data) for c in cubes])
    return xr.DataArray(data, dims=(dim, *first.dims), coords=coords, attrs=attrs, name=first.name)


def _same_axes(cubes: Sequence[xr.DataArray], paths: Sequence[Path]) -> None:
    first, path = cubes[0], paths[0]
    for cube, other in zip(cubes[1:], paths[1:], strict=True):
        if cube.dims != first.dims or cube.shape != first.shape:
            raise InputError(
                f"series: {other.name} has the shape {dict(cube.sizes)}, expected that of "
                f"{path.name}: {dict(first.sizes)}",
                hint="crop or bin the files alike, then stack the cubes with xarray.concat",
            )
        for dim in sig_dims(first):
            a, b = first[dim].values, cube[dim].values
            step = float(np.abs(np.diff(a)).min()) if a.size > 1 else 1.0
            off = np.abs(a - b)
            if (
                first[dim].attrs.get("units") != cube[dim].attrs.get("units")
                or off.max() > _CHANNEL_TOLERANCE * step
            ):
                worst, unit = int(off.argmax()), first[dim].attrs.get("units", "")
                raise InputError(
                    f"series: {dim} of {other.name}: channel {worst} lies at {b[worst]:g} "
                    f"{cube[dim].attrs.get('units', '')}, "
                    f"expected {a[worst]:g} {unit} within {_CHANNEL_TOLERANCE:g} channel as in {path.name}",
                    hint=f"bring the files to one axis first, for example with cube.interp({dim}=...)",
                )
        for dim in nav_dims(first):
            a, b = first[dim].values, cube[dim].values
            if a.size > 1 and abs((b[-1] - b[0]) - (a[-1] - a[0])) > _STEP_TOLERANCE * abs(
                a[-1] - a[0]
            ):
                raise InputError(
                    f"series: {dim} of {other.name} spans {b[-1] - b[0]:g} "
                    f"{cube[dim].attrs.get('units', '')}, expected "
                    f"{a[-1] - a[0]:g} {first[dim].attrs.get('units', '')} within "
                    f"{_STEP_TOLERANCE:.0%} as in {path.name}",
                    hint="files of one series are recorded at one magnification; leave this one out",
                )


def with_angles_beside(cube: xr.DataArray, path: Path) -> xr.DataArray:
    """Give an image stack the angles of the ``.rawtlt`` or ``.tlt`` file of the same name beside it.

    The stack's first dim becomes ``tilt``. Where the numbers of angles and images differ the stack is left as
    it is, with a note: such files outlive the removal of images.
    """
    beside = next((p for s in (".rawtlt", ".tlt") if (p := path.with_suffix(s)).is_file()), None)
    if beside is None or cube.ndim != 3 or sig_dims(cube):
        return cube
    dim = str(cube.dims[0])
    angles = read_angles(beside)
    own = cube[dim].attrs.get("units") == "deg"
    if angles.size != cube.sizes[dim]:
        kept = "the stack's own angles are used" if own else "they are not used"
        note = f"{beside.name} holds {angles.size} angles for {cube.sizes[dim]} images: {kept}"
        _log.warning("%s: %s", path.name, note)
        return _noted(cube, note)
    coord = xr.DataArray(angles, dims=("tilt",), attrs={"units": "deg"})
    cube = cube.rename({dim: "tilt"} if dim != "tilt" else {}).assign_coords(tilt=coord)
    if (np.diff(angles) <= 0).any():
        cube = cube.isel(tilt=np.argsort(angles, kind="stable"))
    return _noted(cube, f"tilt angles are those of {beside.name}")


def _noted(cube: xr.DataArray, note: str) -> xr.DataArray:
    metadata = dict(cube.attrs.get("metadata") or {})
    metadata.pop("tilt_deg", None)
    extra = dict(metadata.get("extra") or {})
    metadata["extra"] = {**extra, "notes": [*extra.get("notes", []), note]}
    return cube.assign_attrs(metadata=metadata)
