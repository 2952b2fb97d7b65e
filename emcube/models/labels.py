"""Labels around an estimator: from cubes or plain arrays to blocks, and from answers back to cubes.

P pixels, E channels that are used, K components.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube.cube import make_cube, nav_dims, sig_dims, validate_cube
from emcube.engine import ArraySource, Block, BlockSource, DaskSource, SparseSource, StoreSource
from emcube.engine.checkpoint import current_checkpoints
from emcube.engine.executor import ThreadExecutor
from emcube.engine.loop import ArrayTarget, map_blocks
from emcube.engine.memory import all_resident, resident
from emcube.engine.source import compress, refuse_masked
from emcube.errors import InputError, SelectionError
from emcube.feedback.computing import PREFIX, watch
from emcube.models.fields import chained_source, several

__all__ = [
    "Labels",
    "as_source",
    "at_once_where_resident",
    "dtype_of",
    "map_pixels",
    "require_finite_counts",
    "require_finite_values",
]

#: Coordinates of signal axes count as equal within this share of a channel's width.
AXIS_TOLERANCE = 1e-3

MAX_AT_ONCE = 1 << 28
"""Bytes of an answer up to which a fit gives it at once, where its blocks are in memory anyway."""

_at_once: ContextVar[bool] = ContextVar("emcube_at_once", default=False)

PixelFunction = Callable[[Block], NDArray[Any]]
"""``function(block) -> ndarray (p, ...)``: an answer for each pixel of a block."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known about the axes of a cube, without its values.

    Attributes
    ----------
    plain : bool
        The input was a bare matrix (P, E); answers are bare arrays too.
    nav_dims, sig_dims : tuple of str
    nav_shape, sig_shape : tuple of int
    nav_coords, sig_coords : mapping
        Coordinates that lie over navigation or signal dims alone.
    attrs : mapping
        Attributes of the cube that answers carry on: units, metadata.
    channels : ndarray of int or None
        Flat index of the used channels; None means all.
    """

    plain: bool
    nav_dims: tuple[str, ...]
    nav_shape: tuple[int, ...]
    sig_dims: tuple[str, ...]
    sig_shape: tuple[int, ...]
    nav_coords: Mapping[Hashable, xr.DataArray] = field(default_factory=dict)
    sig_coords: Mapping[Hashable, xr.DataArray] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    channels: NDArray[np.int64] | None = None

    @property
    def n_all_channels(self) -> int:
        """Channels of the cube, used or not."""
        return math.prod(self.sig_shape)

    @property
    def units(self) -> str:
        """Units of the cube's values."""
        return str(self.attrs.get("units", "1"))

    def full_channels(self, values: NDArray[Any], fill: float = np.nan) -> NDArray[Any]:
        """Values over used channels (..., E) laid out over all of them, `fill` elsewhere."""
        if self.channels is None:
            return np.asarray(values)
        dtype = np.result_type(values, float) if np.isnan(fill) else values.dtype
        out = np.full((*values.shape[:-1], self.n_all_channels), fill, dtype=dtype)
        out[..., self.channels] = values
        return out

    def used_channels(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values over all channels (..., all), cut down to the used ones (..., E)."""
        return values if self.channels is None else values[..., self.channels]

    def signal_beside(self, dim: str | None) -> tuple[str, ...]:
        """Signal dims as they are called beside an answer's own dim.

        The loadings of one model are the cube of another: there the signal dim ``component`` numbers what
        went in, and is called ``input_component`` beside the components that come out.
        """
        return tuple(f"input_{d}" if d == dim else d for d in self.sig_dims)

    def spectra(
        self,
        values: NDArray[Any],
        *,
        dim: str | None = "component",
        beside: str | None = None,
        name: str = "components",
        attrs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Label spectra of shape (K, E), or of shape (E,) with ``dim=None``; NaN at unused channels.

        A signal dim called `dim`, or `beside`, is renamed (see `signal_beside`).

        Returns
        -------
        DataArray (component, sig...), or a bare array where the input was one.
        """
        full = self.full_channels(np.asarray(values))
        if self.plain:
            return full
        lead = () if dim is None else (dim,)
        shape = full.shape[:-1] + self.sig_shape
        sig = self.signal_beside(dim or beside)
        new = {old: d for old, d in zip(self.sig_dims, sig, strict=True) if old != d}
        coords: dict[Hashable, Any] = {
            new.get(str(k), k): c.rename({d: new[d] for d in map(str, c.dims) if d in new})
            for k, c in self.sig_coords.items()
        }
        if dim is not None:
            coords[dim] = np.arange(full.shape[0])
        kept = {k: self.attrs[k] for k in ("metadata",) if k in self.attrs}
        return xr.DataArray(
            full.reshape(shape),
            dims=lead + sig,
            coords=coords,
            name=name,
            attrs={"sig_dims": list(sig), **kept, **(attrs or {})},
        )

    def maps(
        self,
        values: Any,
        *,
        dims: tuple[str, ...] = ("component",),
        name: str = "loadings",
        attrs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Label per-pixel values of shape (nav..., K) or (nav...) with ``dims=()``.

        Returns
        -------
        DataArray (nav..., component), or an array (P, K) where the input was a bare matrix.
        """
        if self.plain:
            return values
        coords: dict[Hashable, Any] = dict(self.nav_coords)
        for d, size in zip(dims, values.shape[len(self.nav_dims) :], strict=True):
            coords[d] = np.arange(size)
        kept = {k: self.attrs[k] for k in ("metadata",) if k in self.attrs}
        return xr.DataArray(
            values,
            dims=self.nav_dims + dims,
            coords=coords,
            name=name,
            attrs={"units": self.units, "sig_dims": list(dims), **kept, **(attrs or {})},
        )

    def require_same_signal(self, other: Labels, what: str) -> None:
        """Refuse a cube whose signal axes are not those of the fit.

        Raises
        ------
        InputError
            Dims, lengths, units or coordinates differ.
        """
        if self.plain or other.plain:
            if self.n_all_channels != other.n_all_channels:
                # The words in which scikit-learn says it, so that whoever looks for them finds them.
                raise InputError(
                    f"X has {other.n_all_channels} features, but {what} is expecting "
                    f"{self.n_all_channels} features as input: the channels it was fitted on",
                    hint="pass data with the channels of the fit",
                )
            return
        if self.sig_dims != other.sig_dims or self.sig_shape != other.sig_shape:
            raise InputError(
                f"{what}: got signal dims {dict(zip(other.sig_dims, other.sig_shape, strict=True))}, "
                f"the model was fitted on {dict(zip(self.sig_dims, self.sig_shape, strict=True))}",
                hint="pass the whole signal axis of the fit; select with where= instead of sel()",
            )
        for dim in self.sig_dims:
            mine, yours = self.sig_coords.get(dim), other.sig_coords.get(dim)
            if mine is None or yours is None or mine.dtype.kind not in "iuf":
                continue
            if mine.attrs.get("units") != yours.attrs.get("units"):
                raise InputError(
                    f"{what}: {dim} is in {yours.attrs.get('units')}, the model was fitted in "
                    f"{mine.attrs.get('units')}",
                    hint=f"convert the coordinate {dim}",
                )
            a, b = np.asarray(mine.values, float), np.asarray(yours.values, float)
            width = np.abs(np.diff(a)).min() if a.size > 1 else 1.0
            worst = int(np.abs(a - b).argmax())
            if abs(a[worst] - b[worst]) > AXIS_TOLERANCE * width:
                raise InputError(
                    f"{what}: {dim} differs at channel {worst}: got {b[worst]:g}, the model was "
                    f"fitted at {a[worst]:g}",
                    hint=f"interpolate the cube onto the axis of the fit (cube.interp({dim}=...))",
                )


def _labels_of(cube: xr.DataArray) -> Labels:
    nav, sig = nav_dims(cube), sig_dims(cube)
    over = {d: set(map(str, c.dims)) for d, c in cube.coords.items()}
    return Labels(
        plain=False,
        nav_dims=nav,
        nav_shape=tuple(cube.sizes[d] for d in nav),
        sig_dims=sig,
        sig_shape=tuple(cube.sizes[d] for d in sig),
        # Companion images stay with the cube: only axes and scalars label an answer.
        nav_coords={
            k: c
            for k, c in cube.coords.items()
            if over[k] <= set(nav) and (k in nav or c.ndim == 0)
        },
        sig_coords={k: c for k, c in cube.coords.items() if over[k] and over[k] <= set(sig)},
        attrs={k: v for k, v in cube.attrs.items() if k in ("units", "metadata")},
    )


def _selection(
    cube: xr.DataArray, where: Any
) -> tuple[NDArray[np.bool_] | None, NDArray[np.int64] | None]:
    from emcube.cube import resolve_where

    nav, sig = resolve_where(cube, where)
    pixels = channels = None
    if nav is not None:
        pixels = np.asarray(nav.values, dtype=bool)
        if not pixels.any():
            raise SelectionError(
                f"where= leaves none of the {pixels.size} pixels", hint="True means: use"
            )
    if sig is not None:
        used = np.asarray(sig.values, dtype=bool).reshape(-1)
        if not used.any():
            raise SelectionError(
                f"where= leaves none of the {used.size} channels", hint="True means: use"
            )
        channels = None if used.all() else np.flatnonzero(used)
    return pixels, channels


Channels = NDArray[np.int64] | EllipsisType | None


def as_source(X: Any, where: Any = None, *, channels: Channels = ...) -> tuple[BlockSource, Labels]:
    """Turn what a user fits on into blocks and labels.

    Parameters
    ----------
    X : DataArray, or ndarray, Dask array or SciPy sparse matrix of shape (P, E)
        A labelled cube, or a bare matrix as scikit-learn and dask-ml take it. Or several labelled cubes (see
        `emcube.models.fields`), whose blocks follow each other.
    where : DataArray of bool, optional
        What is used (True), over navigation dims, signal dims or both. For bare matrices: a boolean
        array of shape (P,). For several cubes a list with one a cube.
    channels : ndarray of int, or None, optional
        Use exactly these channels, or all of them (None), as a fitted model must; `where` then selects
        pixels only.

    Returns
    -------
    source : BlockSource
    labels : Labels

    Raises
    ------
    InputError
        The input is none of these, has no values, or has a dtype that is not a number.
    SelectionError
        `where` leaves nothing or does not fit.
    """
    if isinstance(X, xr.DataArray):
        return _from_cube(X, where, channels)
    fields = several(X)
    if fields is not None:
        return chained_source(fields, where, channels, _from_cube)
    return _from_matrix(X, where, channels)


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.kind == "c":
        raise InputError(
            f"Complex data not supported: values must be real numbers, got dtype {dtype}",
            hint="take the part you mean: .real, .imag or abs()",
        )
    if dtype.kind not in "iubf":
        raise InputError(
            f"values must be real numbers, got dtype {dtype}", hint="convert with .astype(float)"
        )


def _from_cube(cube: xr.DataArray, where: Any, channels: Channels) -> tuple[BlockSource, Labels]:
    from dataclasses import replace

    from emcube.store.open import stored_reader

    cube = validate_cube(cube)
    _check_dtype(cube.dtype)
    labels = _labels_of(cube)
    if not labels.sig_dims:
        raise InputError(
            f"the cube has no signal dim among its dims {tuple(cube.dims)}",
            hint="spectra are needed, not an image: keep the signal dim, or name it "
            "in cube.attrs['sig_dims']",
        )
    pixels, found = _selection(cube, where)
    channels = found if isinstance(channels, EllipsisType) else channels
    labels = replace(labels, channels=channels)
    n_nav = len(labels.nav_dims)
    data = cube.data
    source: BlockSource
    if not hasattr(data, "dask"):
        source = ArraySource.from_array(np.asarray(data), n_nav, pixels=pixels, channels=channels)
    elif (reader := stored_reader(data)) is not None:
        source = StoreSource.from_reader(
            reader, n_nav, str(data.name), pixels=pixels, channels=channels
        )
    else:
        source = DaskSource.from_array(data, n_nav, pixels=pixels, channels=channels)
    return source, labels


def _from_matrix(X: Any, where: Any, channels: Channels) -> tuple[BlockSource, Labels]:
    import scipy.sparse

    channels = None if isinstance(channels, EllipsisType) else channels
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise InputError(
            f"the matrix is masked: {int(np.ma.getmaskarray(X).sum())} of its {X.size} values are hidden",
            hint="fill them with .filled(0), or leave pixels out with where=",
        )
    if isinstance(X, xr.Dataset):
        raise InputError(
            f"a cube is one DataArray, got a Dataset with {', '.join(map(str, X.data_vars))}",
            hint="pick one variable, for example dataset['data']",
        )
    sparse = scipy.sparse.issparse(X)
    lazy = hasattr(X, "dask")
    matrix = _as_matrix(X)
    if matrix.ndim != 2:
        raise InputError(
            f"a bare array must have the shape (pixels, channels), got {matrix.shape}",
            hint="label it with emcube.make_cube(array, dims=..., sig_dims=...). Reshape your data "
            "with array.reshape(1, -1) where it is one pixel",
        )
    if matrix.shape[1] == 0:
        raise InputError(
            f"the matrix has 0 feature(s) (shape={matrix.shape}) while a minimum of 1 is required",
            hint="check how its columns, the channels, were selected",
        )
    _check_dtype(matrix.dtype)
    pixels = None
    if where is not None:
        pixels = np.asarray(where)
        if pixels.dtype != np.bool_ or pixels.shape != (matrix.shape[0],):
            raise SelectionError(
                f"where= for a bare matrix must be {matrix.shape[0]} booleans, got "
                f"{pixels.dtype} of shape {pixels.shape}",
                hint="label the data with emcube.make_cube to select channels too",
            )
    source: BlockSource
    if sparse and _holds_counts(matrix):
        source = SparseSource.from_matrix(matrix, pixels=pixels, channels=channels)
    elif sparse:
        # Fractions and negative values: dense a block at a time, as any other floats.
        cube = make_cube(matrix, dims=("pixel", "channel"), sig_dims=("channel",))
        source = DaskSource.from_array(cube.data, 1, pixels=pixels, channels=channels)
    elif lazy:
        source = DaskSource.from_array(matrix, 1, pixels=pixels, channels=channels)
    else:
        source = ArraySource.from_array(matrix, 1, pixels=pixels, channels=channels)
    n_pixels, n_channels = (int(n) for n in (*source.plan.nav_shape, matrix.shape[1]))
    labels = Labels(True, ("pixel",), (n_pixels,), ("channel",), (n_channels,), channels=channels)
    return source, labels


def _as_matrix(X: Any) -> Any:
    """Sparse matrices and Dask arrays as they are, frames and everything else as an ndarray."""
    import scipy.sparse

    if scipy.sparse.issparse(X):
        return X
    if hasattr(X, "dask"):
        if not hasattr(X, "dtype"):
            raise InputError(
                f"a Dask {type(X).__name__} has columns, a matrix (pixels, channels) is expected",
                hint="convert it with .to_dask_array(lengths=True)",
            )
        if scipy.sparse.issparse(X._meta):
            return X.map_blocks(_dense, dtype=X.dtype, meta=np.empty((0, 0), dtype=X.dtype))
        return X
    if hasattr(X, "dtypes") and hasattr(X, "to_numpy"):
        return _frame_values(X)
    try:
        return np.asarray(X)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a matrix of numbers (pixels, channels) is expected, got {type(X).__name__}: {error}",
            hint="give every pixel as many channels",
        ) from error


def _dense(chunk: Any) -> NDArray[Any]:
    return np.asarray(chunk.toarray() if hasattr(chunk, "toarray") else chunk)


def _frame_values(frame: Any) -> NDArray[Any]:
    """Values of a frame; pandas' own integers and floats become NumPy's."""
    values = np.asarray(frame.to_numpy())
    dtypes = [getattr(d, "numpy_dtype", d) for d in frame.dtypes]
    numbers = all(isinstance(d, np.dtype) and d.kind in "iubf" for d in dtypes)
    if values.dtype.kind != "O" or not numbers:
        return values
    try:
        return np.asarray(frame.to_numpy(dtype=np.result_type(*dtypes)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the frame has missing values: {error}",
            hint="fill them with .fillna(0), or leave their rows out",
        ) from error


def dtype_of(X: Any) -> np.dtype[Any]:
    """Dtype of a cube or matrix, or of several cubes."""
    found = getattr(several(X) or X, "dtype", None)
    dtype: np.dtype[Any] = np.dtype(_as_matrix(X).dtype if found is None else found)
    return dtype


def _holds_counts(matrix: Any) -> bool:
    """Tell whether a sparse matrix holds whole numbers that are not negative and fit into rows."""
    values = matrix.tocsr(copy=False).data
    if not values.size:
        return True
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        return False
    return bool(values.min() >= 0 and values.max() < 2**32)


@contextmanager
def at_once_where_resident() -> Iterator[None]:
    """Keep blocks, and have `map_pixels` compute at once where all of a cube's blocks stayed in memory.

    For a fit that gives its answer for the same pixels: a lazy answer would read them once more.
    """
    token = _at_once.set(True)
    try:
        with resident():
            yield
    finally:
        _at_once.reset(token)


def map_pixels(
    X: Any,
    function: PixelFunction,
    trailing: tuple[int, ...],
    *,
    labels: Labels,
    dtype: Any = np.float64,
    fill: Any = np.nan,
    where: Any = None,
) -> Any:
    """Compute something for each pixel: lazily where the input is a Dask array, at once otherwise.

    Inside `at_once_where_resident` at once for labelled cubes, too, where all their blocks are in memory.

    Parameters
    ----------
    X : as for `as_source`
    function : callable
        ``function(block) -> ndarray (p, *trailing)``.
    trailing : tuple of int
        Shape of one pixel's answer, e.g. (K,).
    labels : Labels
        Of the fitted model: fixes the channels that are used.
    where : DataArray of bool, optional
        Pixels to compute; others get `fill`.

    Returns
    -------
    array of shape (nav..., *trailing), Dask or NumPy
    """
    import scipy.sparse

    source, _ = as_source(X, where, channels=labels.channels)
    shape = (*source.plan.nav_shape, *trailing)
    labelled = isinstance(X, xr.DataArray)  # a bare Dask array gives a Dask array, always
    if (
        not isinstance(source, (DaskSource, StoreSource))
        or scipy.sparse.issparse(X)
        or (labelled and _may_be_at_once(source, math.prod(shape) * np.dtype(dtype).itemsize))
    ):
        out = np.full(shape, fill, dtype=dtype)
        map_blocks(
            _Keyed(function), source, {"out": ArrayTarget(out, fill)}, executor=ThreadExecutor()
        )
        return out
    array = source.array if isinstance(source, DaskSource) else X.data
    n_nav = len(source.plan.nav_shape)
    if any(len(c) > 1 for c in array.chunks[n_nav:]):
        array = array.rechunk(dict.fromkeys(range(n_nav, array.ndim), -1))
    chunk = _ChunkFunction(function, n_nav, labels.channels, trailing, np.dtype(dtype), fill)
    selected = None
    if source.selection.pixels is not None:
        import dask.array as da

        selected = da.from_array(source.selection.pixels, chunks=array.chunks[:n_nav])
    return _blockwise(array, chunk, n_nav, trailing, np.dtype(dtype), selected)


def _may_be_at_once(source: BlockSource, n_bytes: int) -> bool:
    """Whether an answer of so many bytes is computed now though its cube is lazy."""
    # What is in memory differs between the tries of a run that goes on, and its calls may not.
    return (
        _at_once.get()
        and n_bytes <= MAX_AT_ONCE
        and current_checkpoints() is None
        and all_resident(source)
    )


def _blockwise(
    array: Any,
    function: Any,
    n_nav: int,
    trailing: tuple[int, ...],
    dtype: np.dtype[Any],
    selected: Any,
) -> Any:
    import dask.array as da

    nav = tuple(range(n_nav))
    sig = tuple(range(n_nav, array.ndim))
    new = tuple(range(array.ndim, array.ndim + len(trailing)))
    arguments: list[Any] = [array, nav + sig]
    watch()
    if selected is not None:
        arguments += [selected, nav]
    return da.blockwise(
        function,
        nav + new,
        *arguments,
        token=f"{PREFIX}transform",
        new_axes=dict(zip(new, trailing, strict=True)),
        dtype=dtype,
        concatenate=True,
        meta=np.empty((0,) * (n_nav + len(trailing)), dtype=dtype),
    )


@dataclass(frozen=True, eq=False)
class _Keyed:
    function: PixelFunction

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        return {"out": self.function(block)}


@dataclass(frozen=True, eq=False)
class _ChunkFunction:
    """A pixel function over one chunk of a Dask array, shape (nav..., sig...)."""

    function: PixelFunction
    n_nav: int
    channels: NDArray[np.int64] | None
    trailing: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any

    def __call__(
        self, chunk: NDArray[Any], selected: NDArray[np.bool_] | None = None
    ) -> NDArray[Any]:
        refuse_masked(chunk)
        box = chunk.shape[: self.n_nav]
        if 0 in chunk.shape:
            return np.full(box + self.trailing, self.fill, dtype=self.dtype)
        cells = chunk.reshape(math.prod(box), -1)
        flat = None if selected is None else np.asarray(selected).reshape(-1)
        if flat is not None:
            cells = cells[flat]
        if self.channels is not None:
            cells = cells[:, self.channels]
        # Where the chunk lies is not known here: no offset.
        block = Block(0, compress(cells), box, (), flat)
        values = np.asarray(self.function(block), dtype=self.dtype)
        return block.expand(values, self.fill)


def _place(block: Block, row: int) -> str:
    """Position of a block's row in the navigation grid, or within its chunk, for messages."""
    flat = int(block.box_index()[row])
    inside = np.unravel_index(flat, block.nav_shape) if block.nav_shape else ()
    if len(block.offset) != len(inside):
        return f"{tuple(int(i) for i in inside)} of a chunk"
    return str(tuple(int(o + i) for o, i in zip(block.offset, inside, strict=True)))


def require_finite_values(block: Block) -> None:
    """Refuse NaN and infinities.

    Raises
    ------
    InputError
        Names the first pixel that holds one.
    """
    data = block.data
    if not isinstance(data, np.ndarray) or data.dtype.kind != "f":
        return
    good = np.isfinite(data)
    if not good.all():
        row, channel = (int(i) for i in np.argwhere(~good)[0])
        raise InputError(
            f"values must be finite, not NaN or inf: position {_place(block, row)}, used channel "
            f"{channel} holds "
            f"{data[row, channel]}",
            hint="leave such pixels out with where=, or fill them",
        )


def require_finite_counts(block: Block) -> None:
    """Refuse NaN, infinities and negative values where counts are meant.

    Raises
    ------
    InputError
        Names the first pixel that holds one.
    """
    require_finite_values(block)
    data = block.data
    if not isinstance(data, np.ndarray) or data.dtype.kind in "ub":
        return
    if data.size and data.min() < 0:
        row, channel = (int(i) for i in np.argwhere(data < 0)[0])
        raise InputError(
            "Negative values in data, but counts must not be negative: position "
            f"{_place(block, row)}, used channel {channel} "
            f"holds {data[row, channel]}",
            hint="after background removal use noise=None (PCA) or beta_loss='frobenius' (NMF), or "
            "clip with cube.clip(min=0)",
        )
