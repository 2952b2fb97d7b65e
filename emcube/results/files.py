"""Maps as calibrated TIFF, tables as CSV: for ImageJ, HyperSpy, spreadsheets and everything else.

Every writer takes a labelled array and a path and gives back the files and what they do not hold.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube._hooks import provided
from emcube.disk import replace_file
from emcube.errors import InputError, StoreError
from emcube.units import compatible, convert

if TYPE_CHECKING:
    from emcube.results.figures import ResultFigures

__all__ = [
    "SpectraWriter",
    "companions_of",
    "maps_of",
    "spectra_of",
    "spectra_writer",
    "write_csv",
    "write_tiff",
]

Written = tuple[list[Path], list[str]]

MAX_TIFF = 4 * 10**9
"""Bytes. The format's offsets have 32 bits, and ImageJ reads no other stacks."""

MAX_ROWS = 10**7
"""Rows of a table at most: more are no case for text."""

_LABELLED = ("component", "line", "cluster")
"""Dims whose positions are maps or curves beside each other, whatever the order of dims."""


class SpectraWriter(Protocol):
    """What writes spectra: ``(spectra, path, overwrite=...) -> (files, what they do not hold)``."""

    def __call__(self, spectra: xr.DataArray, path: Path, *, overwrite: bool = False) -> Written:
        """Write spectra of shape (E,) or (n, E)."""
        ...


def spectra_writer(suffix: str) -> SpectraWriter:
    """Give what writes spectra to files of a suffix.

    Raises
    ------
    InputError
        Nothing does.
    """
    if suffix == ".csv":
        return write_csv
    if suffix == ".msa":
        return provided("write_msa")
    raise InputError(
        f"spectra as {suffix!r}: nothing here writes that, expected '.csv' or '.msa'",
        hint="write '.csv'",
    )


# ------------------------------------------------------------------------------------ what a result holds


def companions_of(result: ResultFigures) -> dict[str, xr.DataArray]:
    """Images that lay beside the cube on its grid (HAADF), by name."""
    node = result["input"]
    return {str(k): c for k, c in node.coords.items() if k not in node.dims and c.ndim >= 2}


def maps_of(result: ResultFigures) -> Iterator[tuple[str, xr.DataArray]]:
    """Maps and images of a result by their names (``nmf/loadings``), lazily; line scans too."""
    total = result["input"].get("total_counts")
    if total is not None and total.ndim:
        yield "input/total_counts", total
    for name, image in companions_of(result).items():
        yield f"input/{name}", image
    for step in result.steps:
        for name in ("loadings", "labels", "probabilities"):
            if name in result[step] and result[step][name].ndim > (name != "labels"):
                yield f"{step}/{name}", result[step][name]


def spectra_of(result: ResultFigures) -> Iterator[tuple[str, xr.DataArray]]:
    """Spectra of a result by their names (``nmf-components``), with the cube's metadata; no patterns."""
    found = [("input-sum_spectrum", result["input"]["sum_spectrum"])]
    found += [
        (f"{step}-{name}", result[step][name])
        for step in result.steps
        for name in ("components", "cluster_centers")
        if name in result[step]
    ]
    for name, array in found:
        dim = str(array.dims[-1])
        is_spectrum = (
            array.ndim <= 2 and dim in array.coords and array.coords[dim].dtype.kind in "iuf"
        )
        if is_spectrum and not dim.startswith("input_") and dim != "component":
            metadata = {**result.metadata, "title": name}
            yield name, array.assign_attrs(sig_dims=[dim], metadata=metadata)


# ------------------------------------------------------------------------------------------------ tables


def write_csv(spectra: xr.DataArray, path: Path, *, overwrite: bool = False) -> Written:
    """Write spectra, or profiles along a line, as a table: a row for each channel, a column for each curve.

    Parameters
    ----------
    spectra : DataArray of shape (E,) or (n, E), or (x, component)
    path : Path
    overwrite : bool
        Replace the file.

    Returns
    -------
    files : list of Path
    lost : list of str
        What the file does not hold.

    Raises
    ------
    InputError
        There are no or more than two dims, or too many rows.
    StoreError
        The file exists or cannot be written.

    Notes
    -----
    Comma-separated, UTF-8, numbers with all their digits; the one header row says name and unit. Values that
    are missing are empty cells. What a spreadsheet would take for a formula is quoted.
    """
    if spectra.ndim not in (1, 2):
        raise InputError(
            f"a table holds curves: got dims {tuple(spectra.dims)}, expected one, or one and the curves'",
            hint="write maps and patterns with write_tiff",
        )
    curves: list[Any] = [d for d in spectra.dims if d in _LABELLED] if spectra.ndim == 2 else []
    across: Any = (curves or [spectra.dims[0]])[0] if spectra.ndim == 2 else None
    (dim,) = [d for d in spectra.dims if d != across]
    if spectra.sizes[dim] > MAX_ROWS:
        raise InputError(
            f"a table of {spectra.sizes[dim]} rows is asked for, at most {MAX_ROWS}",
            hint="bin or select first",
        )
    table = spectra.transpose(dim, *([across] if across else [])).compute()
    values = np.asarray(table.values).reshape(table.sizes[dim], -1)
    axis = np.asarray(table.coords[dim].values if dim in table.coords else np.arange(len(values)))
    names = _names(table, across) if across else [str(table.name or "value")]
    unit = str(table.attrs.get("units", "1"))
    header = [
        _with_unit(str(dim), table.coords[dim].attrs.get("units") if dim in table.coords else None)
    ]
    header += [_with_unit(name, unit) for name in names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_harmless(cell) for cell in header])
    for position, row in zip(axis, values, strict=True):
        writer.writerow([_harmless(_cell(position)), *map(_cell, row)])
    _write(Path(path), text.getvalue().encode(), overwrite)
    return [Path(path)], ["metadata and provenance: numbers and units only"]


def _cell(value: Any) -> str:
    if isinstance(value, np.floating | float):
        return "" if np.isnan(value) else repr(float(value))
    return str(value)


def _with_unit(name: str, unit: str | None) -> str:
    return name if _without_unit(unit) else f"{name} ({unit})"


def _without_unit(unit: str | None) -> bool:
    return unit is None or str(unit).strip() in ("", "1", "dimensionless")


def _harmless(cell: str) -> str:
    """Text that no spreadsheet takes for a formula; numbers are not text."""
    try:
        float(cell)
    except ValueError:
        return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
    return cell


# ------------------------------------------------------------------------------------------------- images


def write_tiff(
    maps: xr.DataArray,
    path: Path,
    *,
    overwrite: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Written:
    """Write maps as one calibrated TIFF file that ImageJ opens as an image, a stack or a hyperstack.

    Parameters
    ----------
    maps : DataArray of shape (y, x), or with a dim ``component`` (or ``line``) and up to two more
        The image dims are the last two that are none of those. Lazy ones are computed part by part.
    path : Path
    overwrite : bool
        Replace the file.
    notes : mapping, optional
        Go into the file beside what is said of every array (ImageJ: Image, Show Info).

    Returns
    -------
    files : list of Path
    lost : list of str
        What the file does not hold.

    Raises
    ------
    InputError
        There are too few or too many dims, no values, or the file would be larger than 4 GB.
    StoreError
        The file exists or cannot be written; nothing is left of the attempt.

    Notes
    -----
    Pixel size and unit are written as ImageJ writes them, and once more as DigitalMicrograph does, which
    is where HyperSpy looks for units other than micrometres. Components are channels, the last other dim is
    the slices, one more the frames; every image is labelled. Values are float32, or uint8 and uint16 as
    they are; labels of clusters are float32 with -1 for none, in the colours of the figures.
    """
    array = _image_dims(maps)
    lost: list[str] = []
    dtype = _pixel_type(array, lost)
    n_bytes = array.size * dtype.itemsize
    if array.size == 0 or n_bytes > MAX_TIFF:
        raise InputError(
            f"{str(path)!r}: a TIFF of {n_bytes / 1e9:.3g} GB is asked for (dims {dict(array.sizes)}), "
            "expected more than nothing and at most 4 GB",
            hint="write some components or tilts only: maps.isel(component=0)",
        )
    import tifffile

    calibration, tags = _calibration(array, lost)
    info = {
        "writer": "emcube",
        "name": str(array.name or ""),
        **{k: v for k, v in array.attrs.items() if k in ("units", "long_name")},
        "axes": {str(d): _axis(array, d) for d in array.dims if array.sizes[d] > 1},
        **(notes or {}),
    }
    metadata: dict[str, Any] = {
        "axes": "TZCYX",
        "mode": "grayscale",
        **calibration,
        "Info": json.dumps(info, indent=1, ensure_ascii=False, default=str),
        "Labels": _labels(array),
    }
    if maps.name == "labels":
        metadata |= _label_colors(array)
    target = Path(path)
    partial = target.with_name(f".{target.name}.emcube-partial")
    try:
        _free(target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            partial, _pages(array, dtype), shape=array.shape, dtype=dtype, imagej=True,
            photometric="minisblack", metadata=metadata, **tags,
        )  # fmt: skip
        partial.replace(target)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{str(target)!r} cannot be written: {error.strerror or error}",
            hint="check permissions and free space; nothing is left of the attempt",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return [target], lost


def _image_dims(maps: xr.DataArray) -> xr.DataArray:
    """Dims (frames, slices, channels, rows, columns), those that are missing of length one."""
    channel = [d for d in maps.dims if d in _LABELLED]
    others = [d for d in maps.dims if d not in channel]
    if not 2 <= len(others) <= 4 or len(channel) > 1:
        raise InputError(
            f"a TIFF holds images: got dims {tuple(maps.dims)}, expected an image's two, at most two "
            "more, and at most one of component, line, cluster",
            hint="select some first; write line scans and spectra with write_csv",
        )
    leading = others[:-2]
    missing = [f"_{letter}" for letter in "TZ"[: 2 - len(leading)]]
    array = maps.expand_dims([*missing, *([] if channel else ["_C"])])
    return array.transpose(*missing, *leading, *(channel or ["_C"]), *others[-2:])


def _pixel_type(array: xr.DataArray, lost: list[str]) -> np.dtype[Any]:
    dtype = array.dtype
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    if (dtype.kind == "u" and dtype.itemsize <= 2) or (dtype.kind == "f" and dtype.itemsize == 4):
        return dtype.newbyteorder("=")
    if dtype.kind in "iu" and dtype.itemsize > 2:
        lost.append("whole numbers above 16777216: written as float32")
    elif dtype.kind == "f":
        lost.append("digits beyond float32's seven")
    elif dtype.kind not in "iu":
        raise InputError(
            f"a TIFF holds real numbers: got dtype {dtype}", hint="write real and imaginary part"
        )
    return np.dtype(np.float32)


def _pages(array: xr.DataArray, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """The images one after the other; some slices are computed at a time, with all their channels."""
    t, z, c, y, x = array.shape
    step = max(1, 2**26 // max(1, c * y * x * 8))
    for frame in range(t):
        for first in range(0, z, step):
            part = array[frame, first : first + step].compute().values
            yield from np.ascontiguousarray(part.astype(dtype)).reshape(-1, y, x)


def _calibration(array: xr.DataArray, lost: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """ImageJ's metadata of the pixel size, and the TIFF tags."""
    rows, columns = array.dims[-2:]
    unit = array.coords[columns].attrs.get("units") if columns in array.coords else None
    steps = [_step(array, d, unit) for d in (columns, rows)]
    if _without_unit(unit) or None in steps:
        if rows in array.coords and columns in array.coords:
            lost.append("pixel size: the axes have no unit in common, or no even steps")
        return {"unit": "pixel"}, {}
    (dx, x0), (dy, y0) = steps  # type: ignore[misc]
    word = _IMAGEJ.get(str(unit), str(unit)).encode("ascii", "replace").decode()
    said: dict[str, Any] = {"unit": word, "xorigin": -x0 / dx, "yorigin": -y0 / dy}
    slices = array.dims[1]
    if (deep := _step(array, slices, unit)) is not None:
        said |= {"spacing": deep[0], "zorigin": -deep[1] / deep[0]}
    elif array.sizes[slices] > 1:
        lost.append(f"the axis {slices} as a calibration: the positions are in the labels")
    text = "µm" if word == "micron" else str(unit)
    encoded = text.encode("latin-1", "replace")
    extra: list[tuple[int, str, int, Any, bool]]
    extra = [(code, "s", 0, encoded, True) for code in (65003, 65004)]
    extra += [(65009, "d", 1, float(dx), True), (65010, "d", 1, float(dy), True)]
    counts = str(array.attrs.get("units", "")).encode("latin-1", "replace")
    if counts:
        extra.append((65022, "s", 0, counts, True))
    return said, {"resolution": (1.0 / dx, 1.0 / dy), "resolutionunit": 1, "extratags": extra}


_IMAGEJ = {
    "um": "micron",
    "µm": "micron",
    "μm": "micron",
    "micrometer": "micron",
    "micron": "micron",
}


def _step(array: xr.DataArray, dim: Any, unit: str | None) -> tuple[float, float] | None:
    """Step and first position of an axis in a unit; None where it has none, or no even ones."""
    if dim not in array.coords or array.coords[dim].dtype.kind not in "iuf":
        return None
    own = array.coords[dim].attrs.get("units")
    if _without_unit(own) or (own != unit and not compatible(own, unit)):
        return None
    at = np.asarray(array.coords[dim].values, dtype=np.float64)
    at = at if own == unit else np.asarray(convert(at, own, unit))
    steps = np.diff(at)
    if steps.size == 0 or not steps.mean() > 0 or not np.allclose(steps, steps.mean(), rtol=1e-2):
        return None
    return float(steps.mean()), float(at[0])


def _axis(array: xr.DataArray, dim: Any) -> dict[str, Any]:
    if dim not in array.coords:
        return {"size": array.sizes[dim]}
    coord = array.coords[dim]
    return {"units": str(coord.attrs.get("units", "1")), "values": coord.values.tolist()}


def _names(array: xr.DataArray, dim: Any) -> list[str]:
    values = array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    return [f"{dim} {v}" if values.dtype.kind in "iu" else str(v) for v in values]


def _labels(array: xr.DataArray) -> list[str]:
    """A line for each image: where it is along the other dims."""
    dims = [d for d in array.dims[:3] if array.sizes[d] > 1]
    found = []
    for index in np.ndindex(*(array.sizes[d] for d in dims)):
        words = []
        for dim, i in zip(dims, index, strict=True):
            if dim in _LABELLED:
                words.append(_names(array, dim)[i])
            else:
                value = array.coords[dim].values[i] if dim in array.coords else i
                unit = array.coords[dim].attrs.get("units", "") if dim in array.coords else ""
                words.append(f"{dim} = {value:g} {unit}".strip())
        found.append(", ".join(words) or str(array.name or "image"))
    return found


def _label_colors(array: xr.DataArray) -> dict[str, Any]:
    """A colour table in which each cluster has the colour that it has in figures, and none is black."""
    from matplotlib.colors import to_rgb

    from emcube.plot import style

    most = max(int(array.max()), 0)
    steps = np.round(np.arange(256) / 255 * (most + 1)).astype(int)
    colors = np.array([(0.0, 0.0, 0.0), *(to_rgb(style.color(k)) for k in range(most + 1))])
    table = np.round(colors[steps].T * 255).astype(np.uint8)
    return {"LUTs": [table], "min": -1.0, "max": float(most)}


# ------------------------------------------------------------------------------------------------ writing


def _free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise StoreError(
            f"cannot write {str(path)!r}: it exists, expected a new file",
            hint="choose another name, or replace it with overwrite=True",
        )


def _write(path: Path, data: bytes, overwrite: bool) -> None:
    _free(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise StoreError(
            f"{str(path)!r} cannot be written: {error.strerror or error}",
            hint="check permissions and free space; nothing is left of the attempt",
        ) from error
