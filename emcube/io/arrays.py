"""Plain arrays and tables: NumPy, MATLAB, comma-separated spectra, tilt angles."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcube.errors import ReadError
from emcube.io.axes import Axis, axis_unit, label_array, plan_axes
from emcube.io.lazy import NpyArray, as_dask
from emcube.io.signals import Signal

__all__ = ["read_angles", "read_csv", "read_mat", "read_npy", "read_tilts"]


def _error(path: Path, kind: str, why: object) -> ReadError:
    return ReadError(
        f"{path}: cannot be read as {kind} ({path.stat().st_size} bytes): {why}",
        hint="the file is damaged, cut short or not of this kind",
    )


def _array_signal(
    path: Path,
    data: Any,
    names: tuple[str, ...],
    n_sig: int,
    title: str,
    kind: str,
    *,
    reference: bool = False,
) -> Signal:
    axes = [
        Axis(n, name, navigate=i < len(names) - n_sig)
        for i, (n, name) in enumerate(zip(data.shape, names, strict=True))
    ]
    plan = plan_axes(axes)
    attrs: dict[str, object] = {
        "units": "counts" if np.dtype(data.dtype).kind in "iu" else "1",
        "metadata": {
            "modality": "spectrum"
            if plan.sig_dims == ("channel",)
            else "4D-STEM"
            if plan.sig_dims
            else "image",
            "source": {"file": path.name, "format": kind, "reader": "arrays"},
        },
    }
    return Signal.of(label_array(data, plan, attrs), title, reference=reference)


#: Number of axes to (names, number of signal axes): what an array without labels is taken for.
_UNLABELLED: dict[int, tuple[tuple[str, ...], int]] = {
    1: (("channel",), 1),
    2: (("y", "x"), 0),
    3: (("y", "x", "channel"), 1),
    4: (("y", "x", "ky", "kx"), 2),
}


def read_npy(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read a ``.npy`` file, mapped into memory block by block.

    Without labels, axes are taken as (channel), (y, x), (y, x, channel) or (y, x, ky, kx).

    Raises
    ------
    ReadError
        Not a ``.npy`` file, cut short, not of numbers, or of more than four axes.
    """
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _error(path, "a NumPy array", error) from error
    if data.dtype.kind not in "iuf" or data.ndim not in _UNLABELLED or not data.size:
        raise ReadError(
            f"{path}: got dtype {data.dtype} and shape {data.shape}, expected numbers with one to four axes",
            hint="load it with numpy.load and label it with emcube.make_cube(...)",
        )
    names, n_sig = _UNLABELLED[data.ndim]
    source = NpyArray(path, data.shape, data.dtype)
    lazy = as_dask(source, list(range(data.ndim - n_sig, data.ndim)))
    return [_array_signal(path, lazy, names, n_sig, path.stem, "npy")]


def read_mat(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read a MATLAB file of version 5 to 7.2.

    The layout of the hyperspectral benchmarks is known: ``Y`` or ``V`` holds (bands, pixels) with
    ``lines`` and ``cols`` (``nRow``, ``nCol``) beside it. MATLAB counts down the columns first, so
    pixel p lies at y = p mod lines, x = p div lines. Reference endmembers and abundances beside it
    open by name. Other arrays are taken as in `read_npy`.

    Raises
    ------
    ReadError
        Not a MATLAB file, cut short, or without an array of numbers.
    """
    import scipy.io

    try:
        content = scipy.io.loadmat(path, squeeze_me=False)
    # SciPy answers a broken file with whatever its parser met first (zlib.error, TypeError,
    # MatReadError, ...).
    except Exception as error:
        raise _error(path, "a MATLAB file", f"{type(error).__name__}: {error}") from error
    arrays = {
        key: value
        for key, value in content.items()
        if not key.startswith("__") and isinstance(value, np.ndarray) and value.dtype.kind in "iuf"
    }
    signals = _benchmark(path, arrays) or [
        _array_signal(path, np.squeeze(value), *_UNLABELLED[np.squeeze(value).ndim], key, "mat")
        for key, value in arrays.items()
        if np.squeeze(value).ndim in _UNLABELLED and np.squeeze(value).ndim >= 2
    ]
    if not signals:
        raise ReadError(
            f"{path}: the file holds {', '.join(arrays) or 'no arrays'}, expected an array of "
            "numbers with two axes or more",
            hint="load it with scipy.io.loadmat and label it with emcube.make_cube(...)",
        )
    return signals


def _benchmark(path: Path, arrays: dict[str, NDArray[Any]]) -> list[Signal]:
    def scalar(*keys: str) -> int | None:
        found = next((arrays[k] for k in keys if k in arrays and arrays[k].size == 1), None)
        return None if found is None else int(found.ravel()[0])

    lines, cols = scalar("lines", "nRow", "nrows"), scalar("cols", "nCol", "ncols")
    key = next((k for k in ("Y", "V", "data") if k in arrays and arrays[k].ndim == 2), None)
    if lines is None or cols is None or key is None or arrays[key].shape[1] != lines * cols:
        return []
    bands = arrays[key].shape[0]
    cube = arrays[key].reshape(bands, cols, lines).transpose(2, 1, 0)
    signals = [_labelled(path, cube, ("y", "x", "band"), ("band",), key)]
    for other, value in arrays.items():
        if other == key or value.size == 1:
            continue
        if value.ndim == 3 and value.shape[:2] == (lines, cols):
            signals.append(
                _labelled(
                    path, value, ("y", "x", "component"), ("component",), other, reference=True
                )
            )
        elif value.ndim == 2 and bands in value.shape:
            spectra = value if value.shape[1] == bands else value.T
            signals.append(
                _labelled(path, spectra, ("component", "band"), ("band",), other, reference=True)
            )
        elif value.ndim == 2 and value.shape[1] == lines * cols:
            maps = value.reshape(-1, cols, lines).transpose(2, 1, 0)
            signals.append(
                _labelled(
                    path, maps, ("y", "x", "component"), ("component",), other, reference=True
                )
            )
    return signals


def _labelled(
    path: Path,
    data: NDArray[Any],
    dims: tuple[str, ...],
    sig_dims: tuple[str, ...],
    title: str,
    *,
    reference: bool = False,
) -> Signal:
    import xarray as xr

    coords = {
        dim: xr.DataArray(np.arange(n, dtype=np.float64), dims=(dim,), attrs={"units": "1"})
        for dim, n in zip(dims, data.shape, strict=True)
    }
    attrs = {
        "units": "counts" if data.dtype.kind in "iu" else "1",
        "sig_dims": list(sig_dims),
        "metadata": {
            "modality": "spectrum",
            "source": {"file": path.name, "format": "mat", "reader": "arrays"},
        },
    }
    array = xr.DataArray(np.ascontiguousarray(data), dims=dims, coords=coords, attrs=attrs)
    return Signal.of(array, title, reference=reference)


def read_csv(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read a table of spectra: a header, positions in the first column, one spectrum in each other one.

    The first word of the header is the unit (``keV``), the name of the axis, or both (``energy (keV)``); the
    other words become the labels of the dim ``component``. Empty fields and ``nan`` are missing values.

    Raises
    ------
    ReadError
        No header, or a field that is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _error(path, "a table of spectra", error) from error
    if len(rows) < 3 or len(rows[0]) < 2:
        raise _error(path, "a table of spectra", "expected a header and two columns or more")
    header, body = rows[0], rows[1:]
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise _error(
                path,
                "a table of spectra",
                f"row {number} has {len(row)} fields, expected {len(header)}",
            )
    try:
        table = np.array([[float(field or "nan") for field in row] for row in body])
    except ValueError as error:
        raise _error(path, "a table of spectra", error) from error
    first = header[0].strip()
    # As `emcube.export` writes it.
    both = re.fullmatch(r"(.*\S)\s*\(([^()]+)\)", first)
    first = both[2] if both is not None else first
    unit = axis_unit(first)[0]
    known = unit in ("eV", "keV", "nm", "1/nm")
    if both is not None and not known:
        first = both[0]
    axes = [
        Axis(len(header) - 1, "component", navigate=True),
        Axis(
            len(table),
            first if not known else "",
            units=first if known else "",
            navigate=False,
            values=table[:, 0],
        ),
    ]
    plan = plan_axes(axes, spectral=True)
    attrs: dict[str, object] = {
        "units": "1",
        "metadata": {
            "modality": "spectrum",
            "source": {"file": path.name, "format": "csv", "reader": "arrays"},
        },
    }
    cube = label_array(np.ascontiguousarray(table[:, 1:].T), plan, attrs)
    if "component" in cube.dims:
        cube = cube.assign_coords(component=[word.strip() for word in header[1:]])
    return [Signal.of(cube, path.stem)]


def read_angles(path: Path) -> NDArray[np.float64]:
    """Read tilt angles in degrees, one a line, as ``.rawtlt`` and ``.tlt`` files hold them.

    Raises
    ------
    ReadError
        A line is not a number, or there is none.
    """
    try:
        angles = np.array([float(word) for word in path.read_text("ascii").split()])
    except (ValueError, UnicodeDecodeError) as error:
        raise _error(path, "tilt angles (one number a line)", error) from error
    if not angles.size or not np.isfinite(angles).all() or np.abs(angles).max() > 360:
        raise _error(
            path, "tilt angles", f"expected finite angles within 360 degrees, got {angles[:5]}"
        )
    return angles


def read_tilts(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read a file of tilt angles as an array over the dim ``tilt``."""
    import xarray as xr

    angles = read_angles(path)
    axis = xr.DataArray(angles, dims=("tilt",), attrs={"units": "deg"})
    attrs = {
        "units": "deg",
        "sig_dims": [],
        "metadata": {
            "modality": "other",
            "source": {"file": path.name, "format": "rawtlt", "reader": "arrays"},
        },
    }
    return [
        Signal.of(
            xr.DataArray(angles, dims=("tilt",), coords={"tilt": axis}, attrs=attrs), path.stem
        )
    ]
