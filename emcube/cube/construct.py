"""Make cubes from arrays, lazily and without copies: NumPy, mapped files, Dask, SciPy-sparse."""

from __future__ import annotations

import itertools
import math
import mmap
import uuid
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr

from emcube.cube.schema import (
    DIMENSIONLESS,
    SIGNAL_UNITS,
    check_dims,
    default_units,
    infer_sig_dims,
    validate_cube,
)
from emcube.errors import CubeError

if TYPE_CHECKING:
    from emcube.cube.metadata import Metadata

__all__ = ["chunk_shape", "make_cube"]

#: Bytes of one block of a cube made from an array in memory.
BLOCK_BYTES = 32 * 2**20

_COMMON_UNITS = SIGNAL_UNITS | {DIMENSIONLESS, "", "nm", "um", "µm", "pm", "mm", "deg", "s", "ms"}


def make_cube(
    counts: Any,
    dims: Sequence[str] | None = None,
    sig_dims: Sequence[str] | None = None,
    coords: Mapping[str, Any] | None = None,
    units: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | Metadata | None = None,
    name: str | None = None,
    *,
    companions: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    data_units: str | None = None,
) -> xr.DataArray:
    """Label an array as a cube; lazily, and without copying it.

    Parameters
    ----------
    counts : numpy.ndarray, dask.array.Array, scipy.sparse matrix or array, or xarray.DataArray
        Navigation dims, then signal dims. The dtype is kept. A sparse matrix has shape (P, E): P
        pixels, E channels; its blocks become dense only when they are asked for. A memory-mapped
        file is read block by block, also by other processes.
    dims : sequence of str
        A name for each dim. May be left out for a DataArray, which has them.
    sig_dims : sequence of str, optional
        Which of them are signal dims; without it they are told by name and unit (``energy``,
        ``kx``, ...).
    coords : mapping of str to array, optional
        Coordinates by dim. Dims without get 0..n-1.
    units : mapping of str to str, optional
        Unit of each dim's coordinate; no unit means dimensionless.
    metadata : mapping or Metadata, optional
        See :class:`emcube.cube.metadata.Metadata`; unknown keys are refused.
    name : str, optional
        Name of the cube.
    companions : mapping of str to array, optional
        Images on the same grid (a HAADF image): arrays of the navigation shape, or DataArrays over
        some of the navigation dims. They follow selections of the cube.
    shape : sequence of int, optional
        Navigation shape of an input of shape (P, E), as (ny, nx); pixels run along the last dim
        first.
    data_units : str, optional
        Unit of the values; "counts" for integers, otherwise "1".

    Returns
    -------
    xarray.DataArray
        The cube, Dask-backed.

    Raises
    ------
    CubeError
        Shapes, dims, coordinates, units or metadata do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> counts = np.ones((4, 5, 100), dtype="uint8")
    >>> cube = make_cube(counts, dims=("y", "x", "energy"), sig_dims=("energy",),
    ...                  coords={"energy": 0.01 * np.arange(100)}, units={"energy": "keV"})
    >>> cube.sizes["energy"], str(cube.dtype), cube.energy.attrs["units"]
    (100, 'uint8', 'keV')
    """
    array, found = _unpack(counts, dims)
    names = _check_names(found, array, shape)
    full_shape = _full_shape(array, shape)
    if len(names) != len(full_shape):
        raise CubeError(
            f"dims of the cube: got {len(names)} names {names} for an array of shape {full_shape}",
            hint="give one name for each dim" + _sparse_hint(array, shape),
        )
    axes = _axes(counts, names, full_shape, coords or {}, units or {})
    if sig_dims is None:
        signal = infer_sig_dims(xr.DataArray(np.broadcast_to(0, full_shape), axes, names))
    else:
        signal = (sig_dims,) if isinstance(sig_dims, str) else tuple(sig_dims)
    check_dims(names, signal)
    cube = xr.DataArray(_lazy(array, full_shape, len(signal)), axes, names)
    cube.name = counts.name if name is None and isinstance(counts, xr.DataArray) else name
    attrs: dict[Hashable, Any] = dict(counts.attrs) if isinstance(counts, xr.DataArray) else {}
    if metadata is not None:
        from emcube.cube.metadata import Metadata

        attrs["metadata"] = Metadata.parse(cast("Any", metadata)).to_attrs()
    attrs["sig_dims"] = list(signal)
    attrs["units"] = data_units or attrs.get("units") or default_units(cube.dtype)
    cube.attrs.update(attrs)
    cube = cube.assign_coords(_companions(companions or {}, cube, signal))
    if isinstance(counts, xr.DataArray):
        cube = cube.assign_coords({k: v for k, v in counts.coords.items() if k not in cube.coords})
    return validate_cube(cube)


def _unpack(counts: Any, dims: Sequence[str] | None) -> tuple[Any, Sequence[Any]]:
    if isinstance(counts, xr.DataArray):
        return counts.data, tuple(counts.dims) if dims is None else dims
    if dims is None:
        raise CubeError(
            f"dims of the cube are missing for {type(counts).__name__}",
            hint="name them, for example dims=('y', 'x', 'energy')",
        )
    return counts, dims


def _check_names(dims: Sequence[Any], array: Any, shape: Sequence[int] | None) -> tuple[str, ...]:
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    check_dims(names, ())
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise CubeError(
            f"counts: got {type(array).__name__}, expected a NumPy, Dask or SciPy-sparse array",
            hint="convert with numpy.asarray(counts)",
        )
    if shape is not None and len(array.shape) != 2:
        raise CubeError(
            f"shape={tuple(shape)} is for counts of shape (P, E): got {tuple(array.shape)}",
            hint="leave shape out",
        )
    return cast("tuple[str, ...]", names)


def _sparse_hint(array: Any, shape: Sequence[int] | None) -> str:
    if len(array.shape) == 2 and shape is None:
        return "; for counts of shape (pixels, channels) on a grid also give shape=(ny, nx)"
    return ""


def _full_shape(array: Any, shape: Sequence[int] | None) -> tuple[int, ...]:
    if any(isinstance(size, float) and math.isnan(size) for size in array.shape):
        raise CubeError(
            f"counts: the Dask array has chunks of unknown size, shape {array.shape}",
            hint="call counts.compute_chunk_sizes() first",
        )
    full = tuple(int(size) for size in array.shape)
    if shape is None:
        return full
    nav = tuple(int(size) for size in shape)
    if math.prod(nav) != full[0]:
        raise CubeError(
            f"shape={nav} holds {math.prod(nav)} pixels: got counts of {full[0]} pixels",
            hint="give the navigation shape whose product is the number of rows",
        )
    return (*nav, full[1])


def _axes(
    counts: Any,
    names: tuple[str, ...],
    shape: tuple[int, ...],
    coords: Mapping[str, Any],
    units: Mapping[str, str],
) -> dict[str, xr.DataArray]:
    for what, given in (("coords", coords), ("units", units)):
        unknown = [key for key in given if key not in names]
        if unknown:
            raise CubeError(
                f"{what}: {unknown[0]!r} is not a dim of the cube {names}",
                hint="images on the same grid go into companions={'HAADF': image}"
                if what == "coords"
                else "units are given by dim; that of the values is data_units=",
            )
    axes = {}
    own = counts.coords if isinstance(counts, xr.DataArray) else {}
    for name, size in zip(names, shape, strict=True):
        given = coords.get(name, own.get(name))
        attrs = dict(given.attrs) if isinstance(given, xr.DataArray) else {}
        values = np.arange(size) if given is None else np.asarray(given)
        if values.shape != (size,):
            raise CubeError(
                f"coordinate of {name!r}: got shape {values.shape}, expected ({size},)",
                hint=f"give one value for each of the {size} positions",
            )
        unit = units.get(name, attrs.get("units", DIMENSIONLESS))
        _check_unit(name, unit)
        axes[name] = xr.DataArray(values, dims=(name,), attrs={**attrs, "units": unit})
    return axes


def _check_unit(name: str, unit: Any) -> None:
    if not isinstance(unit, str):
        raise CubeError(
            f"unit of {name!r}: got {unit!r}, expected a unit of measurement as a string",
            hint="for example 'keV', 'nm', 'deg', '1/nm', or '1' for a pure number",
        )
    if unit not in _COMMON_UNITS:
        # The units library takes half a second to load: only for what is not plain already.
        from emcube.units import parse

        parse(unit)


def _companions(
    companions: Mapping[str, Any], cube: xr.DataArray, signal: tuple[str, ...]
) -> dict[str, xr.DataArray]:
    nav = tuple(str(dim) for dim in cube.dims if dim not in signal)
    nav_shape = tuple(cube.sizes[dim] for dim in nav)
    placed: dict[str, xr.DataArray] = {}
    for name, image in companions.items():
        if name in cube.dims:
            raise CubeError(
                f"companion {name!r} has the name of a dim of the cube {tuple(cube.dims)}",
                hint="give it another name",
            )
        labelled = isinstance(image, xr.DataArray)
        dims = tuple(image.dims) if labelled else nav
        expected = tuple(cube.sizes.get(dim, -1) for dim in dims)
        got = tuple(np.shape(image))
        if not set(dims) <= set(nav) or got != expected:
            raise CubeError(
                f"companion {name!r}: got dims {dims} of shape {got}, expected navigation dims "
                f"of the cube {nav} of shape {nav_shape}",
                hint="images on another grid are stored beside the cube, not on it",
            )
        data = image.data if labelled else np.asarray(image)
        placed[name] = xr.DataArray(data, dims=dims, attrs=dict(image.attrs) if labelled else {})
    return placed


# --- lazy arrays ----------------------------------------------------------------------


def chunk_shape(
    shape: Sequence[int], n_sig: int, itemsize: int, block_bytes: int = BLOCK_BYTES
) -> tuple[int, ...]:
    """Return the shape of blocks which hold whole spectra and lie contiguous in a C-ordered array.

    Signal dims stay whole. Navigation dims are filled from the last to the first up to
    ``block_bytes``, so that a block is a run of pixels: one slice of rows of the (P, E) matrix.
    """
    n_nav = len(shape) - n_sig
    room = max(1, block_bytes // max(1, itemsize * math.prod(shape[n_nav:])))
    chunks = [1] * n_nav + list(shape[n_nav:])
    for axis in range(n_nav - 1, -1, -1):
        chunks[axis] = max(1, min(shape[axis], room))
        room //= chunks[axis]
        if chunks[axis] < shape[axis]:
            break
    return tuple(chunks)


def _lazy(array: Any, shape: tuple[int, ...], n_sig: int) -> Any:
    import dask.array as da

    if isinstance(array, da.Array):
        return array if array.shape == shape else array.reshape(shape)
    from scipy import sparse

    # A name of its own: without one Dask hashes all values to find one.
    name = f"make_cube-{uuid.uuid4().hex}"
    chunks = chunk_shape(shape, n_sig, array.dtype.itemsize)
    if sparse.issparse(array):
        source: Any = _SparseRows(_canonical_rows(array), shape)
    elif type(array) is np.ndarray or isinstance(array, np.memmap):
        view = array.reshape(shape)
        source = _mapped(view) if isinstance(view, np.memmap) else None
        if source is None:
            return _views(np.asarray(view), chunks, name)
    else:
        raise CubeError(
            f"counts: got {type(array).__module__}.{type(array).__name__}, expected a NumPy, Dask "
            "or SciPy-sparse array",
            hint="convert with numpy.asarray(counts); fill masked arrays with counts.filled(0)",
        )
    # inline_array=False: one entry of the graph which blocks point to, not a copy in each task.
    return da.from_array(source, chunks=chunks, name=name, inline_array=False, fancy=False)


def _views(array: np.ndarray[Any, Any], chunks: tuple[int, ...], name: str) -> Any:
    """Wrap an array in memory; ``dask.array.from_array`` would copy it first.

    Blocks are views by themselves, so that a worker elsewhere is sent only the blocks it needs.
    """
    import dask.array as da
    from dask.array.core import normalize_chunks, slices_from_chunks

    grid = normalize_chunks(chunks, array.shape, dtype=array.dtype)
    keys = itertools.product([name], *(range(len(sizes)) for sizes in grid))
    blocks = (array[part] for part in slices_from_chunks(grid))
    return da.Array(dict(zip(keys, blocks, strict=True)), name, grid, dtype=array.dtype)


def _canonical_rows(matrix: Any) -> Any:
    """Return compressed rows of the same dtype, repeated entries summed without overflow."""
    rows = matrix.tocsr() if matrix.format != "coo" else None
    if rows is None:
        # A COO matrix may hold an entry in parts, and conversion adds them in the matrix's own
        # dtype: 200 and 100 counts in uint8 would make 44.
        wide = matrix.astype(np.int64) if matrix.dtype.kind in "iu" else matrix
        rows = wide.tocsr()
    elif not rows.has_canonical_format:
        rows = rows.astype(np.int64) if rows.dtype.kind in "iu" else rows.copy()
        rows.sum_duplicates()
    if rows.dtype == matrix.dtype:
        return rows
    limits = np.iinfo(matrix.dtype)
    if rows.nnz and (rows.data.max() > limits.max or rows.data.min() < limits.min):
        raise CubeError(
            f"counts: repeated entries of the sparse matrix add up to {rows.data.max()}, "
            f"expected at most {limits.max} ({matrix.dtype})",
            hint="convert to a larger integer type first, for example matrix.astype('uint32')",
        )
    return rows.astype(matrix.dtype)


@dataclass(frozen=True)
class _SparseRows:
    """A (P, E) matrix of compressed rows, seen as a dense array of shape (..., E) by slices."""

    rows: Any
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return cast("np.dtype[Any]", self.rows.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        key = (*key, *([slice(None)] * (self.ndim - len(key))))
        *nav, channels = key
        pixels = np.arange(self.rows.shape[0]).reshape(self.shape[:-1])[tuple(nav)]
        flat = pixels.ravel()
        # A run of pixels is a slice: SciPy takes it without an index array.
        run = (
            flat.size > 0
            and flat[-1] - flat[0] + 1 == flat.size
            and bool((np.diff(flat) == 1).all())
        )
        picked = self.rows[slice(flat[0], flat[-1] + 1)] if run else self.rows[flat]
        dense = cast("np.ndarray[Any, Any]", picked.toarray())
        return dense[:, channels].reshape(pixels.shape + dense[0:0, channels].shape[1:])


@dataclass(frozen=True)
class _MappedFile:
    """A memory-mapped array by its file: small to pickle, opened anew wherever a block is read."""

    file: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    strides: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        raw = np.memmap(self.file, dtype=np.uint8, mode="r")
        view: np.ndarray[Any, Any] = np.ndarray(
            self.shape, self.dtype, raw, offset=self.offset, strides=self.strides
        )
        # A copy, so that a block holds its own memory and the mapping closes.
        return np.array(view[key])


def _mapped(array: np.memmap[Any, Any]) -> _MappedFile | None:
    """Describe a mapping by its file and offset; None where no file shows its values."""
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    file = getattr(root, "filename", None)
    # Copy-on-write mappings may hold values which the file does not.
    if file is None or not isinstance(root.base, mmap.mmap) or root.mode == "c":
        return None
    start = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return _MappedFile(str(file), array.shape, array.dtype, int(root.offset) + start, array.strides)
