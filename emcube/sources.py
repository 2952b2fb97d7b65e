"""Whatever a user points at, as a cube: a file, several files and angles, a store, a URL, a catalog entry."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.addresses import check_address, is_url, local_part
from emcube.cube import validate_cube
from emcube.errors import InputError, ReadError
from emcube.io.opening import open_file
from emcube.io.readers import read_signals
from emcube.io.series import stack_cubes
from emcube.io.signals import Signal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from emcube.store import IngestProgress

    Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.DataArray

__all__ = ["SignalInfo", "ingest", "open", "signals"]


@dataclass(frozen=True)
class SignalInfo:
    """What a file says of one of its signals.

    Attributes
    ----------
    name : str
        By which ``open(source, name=...)`` gets it.
    kind : str
        "cube" (spectra or patterns over navigation dims), "spectrum" (a single one), "image", or "reference".
    dims : tuple of str
    shape : tuple of int
    dtype : numpy.dtype
    """

    name: str
    kind: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def open(  # noqa: A001
    source: Source,
    name: str | None = None,
    *,
    dim: str | None = None,
    values: ArrayLike | str | os.PathLike[str] | None = None,
    reader: str | None = None,
    dtype: DTypeLike | None = None,
) -> xr.DataArray:
    """Open a cube, lazily.

    Parameters
    ----------
    source : path, sequence of paths, or DataArray
        An instrument file; several files of one series; a cube store or any Zarr v2 or v3 group or array with
        dimension names, local or by URL; ``"catalog.yaml:entry"``; or a cube in hand, which is checked.
    name : str, optional
        Which signal of the file: a name from `signals`, or the path of an HDF5 dataset
        (``"/fpd_expt/fpd_data/data"``). Not needed where exactly one signal holds spectra or patterns over
        navigation dims; its images come along as coordinates.
    dim : str, optional
        Dim along which several files are stacked; ``"tilt"`` by default.
    values : array_like or path, optional
        Positions along `dim`, one a file, or a ``.rawtlt`` file that holds them. Without it, tilt
        angles come from the files' metadata or names, and other dims number the files.
    reader : str, optional
        What the file is, where its name does not tell: ``"hdf5"``, ``"HSPY"``, ``"npy"``, ...
    dtype : dtype, optional
        Of the cube, where the file's own is not wanted; must hold every value of it.

    Returns
    -------
    xarray.DataArray
        Navigation dims, then signal dims, backed by Dask.

    Raises
    ------
    ReadError
        There is no such file, or it cannot be read.
    AmbiguousSignalError
        Several signals would do; ``names`` lists them.
    InputError
        The files of a series do not match, or a parameter has no meaning here.
    MissingDependencyError
        A package that the format needs is not installed.

    Examples
    --------
    >>> import emcube as em
    >>> cube = em.open(["-30.bcf", "0.bcf", "30.bcf"], dim="tilt", values=[-30, 0, 30])  # doctest: +SKIP
    """
    return _open(source, name, dim, values, reader, dtype)[0]


def _open(
    source: Source,
    name: str | None,
    dim: str | None,
    values: ArrayLike | str | os.PathLike[str] | None,
    reader: str | None,
    dtype: DTypeLike | None,
) -> tuple[xr.DataArray, list[xr.DataArray]]:
    """Return the cube and the images of its file that lie on other grids."""
    several = not isinstance(source, (str, os.PathLike, xr.DataArray)) and isinstance(
        source, Sequence
    )
    if not several and (dim is not None or values is not None):
        raise InputError(
            f"dim= and values= stack several files: got one source ({_short(source)})",
            hint="give a list of files, or leave dim= and values= out",
        )
    if isinstance(source, xr.DataArray):
        _refuse(name=name, reader=reader, of="a cube in hand")
        return _as_dtype(validate_cube(source), dtype), []
    if several:
        assert isinstance(source, Sequence)
        return _as_dtype(_open_series(source, name, dim or "tilt", values, reader, dtype), None), []
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"source: got {type(source).__name__}, expected a path, a list of paths or a DataArray",
            hint="label plain arrays with emcube.make_cube(counts, dims=...)",
        )
    cube, companions = _open_one(os.fspath(source), name, reader, dtype)
    return _as_dtype(validate_cube(cube), dtype), companions


def _short(source: object) -> str:
    return str(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__


def _refuse(*, of: str, **given: object) -> None:
    for key, value in given.items():
        if value is not None:
            raise InputError(f"{key}={value!r} has no meaning for {of}", hint=f"leave {key}= out")


def _open_one(
    text: str, name: str | None, reader: str | None, dtype: DTypeLike | None
) -> tuple[xr.DataArray, list[xr.DataArray]]:
    from emcube import store

    text = local_part(text)
    if is_url(text):
        check_address(text)
    if ".yaml" in text.lower() or ".yml" in text.lower():
        from emcube.catalog import resolve

        if (entry := resolve(text)) is not None:
            _refuse(reader=reader, of="a catalog entry")
            return entry.open_with_companions(name, dtype=dtype)
    if is_url(text):
        _refuse(reader=reader, of="a store")
        return store.open_cube(text, name), []
    path = _existing(text)
    if reader is None and path.suffix.lower() != ".zspy" and path.is_dir():
        if store.is_zarr(path):
            return store.open_cube(path, name), []
        # An ingest that was interrupted is a folder, too, and the store explains it better.
        if store.is_store(path):
            return store.open_cube(path, name), []
    return open_file(path, name, reader=reader, dtype=dtype)


def _as_dtype(cube: xr.DataArray, dtype: DTypeLike | None) -> xr.DataArray:
    if dtype is None or cube.dtype == np.dtype(dtype):
        return cube
    if not np.can_cast(cube.dtype, np.dtype(dtype), "safe"):
        raise InputError(
            f"dtype: {np.dtype(dtype)} does not hold every value of {cube.dtype}, which the file has",
            hint=f"leave dtype= out, or convert with cube.astype({np.dtype(dtype).name!r}) "
            "after looking at the range",
        )
    attrs = cube.attrs
    return cube.astype(dtype).assign_attrs(attrs)


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if path.exists():
        return path
    folder = path.parent
    if not folder.is_dir():
        raise ReadError(
            f"{path}: there is no folder {str(folder)!r}",
            hint="check the path (relative to " + str(Path.cwd()) + ")",
        )
    names = sorted(p.name for p in folder.iterdir())
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    if not close:
        # 'Map.BCF' and 'map.bcf', or the same name with another suffix.
        close = [n for n in names if Path(n).stem.lower() == path.stem.lower()][:3]
    if any(c in path.name for c in "*?") and (
        matches := sorted(p.name for p in folder.glob(path.name))
    ):
        raise ReadError(
            f"{path}: there is no file of this very name, and patterns are not expanded "
            f"({len(matches)} files match)",
            hint="give a list: em.open(sorted(pathlib.Path(folder).glob(pattern)))",
        )
    raise ReadError(
        f"{path}: there is no such file",
        hint=f"did you mean {' or '.join(map(repr, close))}?"
        if close
        else f"{str(folder)!r} holds {', '.join(map(repr, names[:6])) or 'nothing'}",
    )


def _open_series(
    sources: Sequence[str | os.PathLike[str]],
    name: str | None,
    dim: str,
    values: ArrayLike | str | os.PathLike[str] | None,
    reader: str | None,
    dtype: DTypeLike | None,
) -> xr.DataArray:
    if not sources:
        raise InputError(
            "source: got an empty list of files", hint="check the pattern that made it"
        )
    given: Sequence[object] = sources
    wrong = next((s for s in given if not isinstance(s, (str, os.PathLike))), None)
    if wrong is not None:
        raise InputError(
            f"source: got a list with {type(wrong).__name__}, expected paths",
            hint="stack cubes in hand with xarray.concat(cubes, dim=...)",
        )
    paths = [Path(os.fspath(s)) for s in sources]
    twice = next((p for p in paths if paths.count(p) > 1), None)
    if twice is not None:
        raise InputError(f"series: {twice} occurs twice in the list", hint="list every file once")
    cubes = [open(p, name, reader=reader, dtype=dtype) for p in paths]
    if isinstance(values, (str, os.PathLike)):
        positions: Any = _existing(os.fspath(values))
    else:
        positions = None if values is None else np.asarray(values, dtype=np.float64).ravel()
    return validate_cube(stack_cubes(cubes, paths, dim, positions))


def signals(source: str | os.PathLike[str], *, reader: str | None = None) -> list[SignalInfo]:
    """List the signals of a file or store, without reading any.

    Parameters
    ----------
    source : path
        An instrument file, an HDF5 file, or a Zarr store.
    reader : str, optional
        As for `open`.

    Returns
    -------
    list of SignalInfo
        In the order of the file.

    Raises
    ------
    ReadError
        There is no such file, or it cannot be read.
    """
    from emcube import store
    from emcube.errors import AmbiguousSignalError

    text = os.fspath(source)
    if store.is_url(text) or (store.is_zarr(text) and Path(text).suffix.lower() != ".zspy"):
        with xr.open_zarr(text, chunks={}) as group:
            found = [Signal.of(array, str(key)) for key, array in group.data_vars.items()]
        if store.is_store(text) and store.kept_as_events(text):
            # What stands for the cube is no signal by itself.
            parts = (*store.EVENT_ARRAYS, "data")
            found = [Signal.of(store.open_cube(text), "data")] + [
                signal for signal in found if signal.name not in parts
            ]
    else:
        path = _existing(text)
        try:
            found = read_signals(path, reader=reader)
        except AmbiguousSignalError as error:
            # An HDF5 file without a dataset that is clearly the data still lists what it holds.
            found = [s for key in error.names for s in read_signals(path, name=key, reader=reader)]
    return [
        SignalInfo(s.name, s.kind, tuple(map(str, s.cube.dims)), s.cube.shape, s.cube.dtype)
        for s in found
    ]


def ingest(
    src: Source,
    dst: str | os.PathLike[str],
    *,
    name: str | None = None,
    dim: str | None = None,
    values: ArrayLike | str | os.PathLike[str] | None = None,
    reader: str | None = None,
    dtype: DTypeLike | None = None,
    layout: str = "auto",
    overwrite: bool = False,
    progress: Callable[[IngestProgress], None] | None = None,
) -> Path | str:
    """Write what a user points at to a cube store: out of core, resumable.

    Parameters
    ----------
    src : path, sequence of paths, or DataArray
        Anything that `open` takes.
    dst : path or URL
        Folder of the new store; or an address of storage, such as ``s3://bucket/map.zarr`` (see
        `emcube.store.write_remote_cube`), whose credentials come from the environment.
    name, dim, values, reader, dtype
        As for `open`.
    layout : {"auto", "dense", "events"}
        How the store keeps the values. "auto" is "dense": one array, ``data``, that every reader of Zarr
        understands. "events" keeps those cells of a cube of counts that are not zero: where these are
        few, smaller, and some ten times faster to read. The cube and its digest are the same, and a
        store is turned into the other layout by ingesting it.
    overwrite : bool
        Replace a store that is there; without it an existing store of other data is refused, and
        an unfinished one of the same data is continued.
    progress : callable, optional
        Gets an `emcube.store.IngestProgress` after each region.

    Returns
    -------
    Path, or str for an address
        `dst`.

    Raises
    ------
    ReadError, AmbiguousSignalError, InputError, MissingDependencyError
        As for `open`.
    StoreError
        The destination cannot be written, or is taken.

    Notes
    -----
    Images of the file on the cube's own grid become coordinates; those on other grids become
    variables of their own. The source is read once, in blocks; memory is a few blocks, or the file
    itself where a format packs it (see `emcube.io.rosetta`).
    """
    from emcube.store import write_cube, write_remote_cube

    cube, companions = _open(src, name, dim, values, reader, dtype)
    place = local_part(os.fspath(dst))
    options: dict[str, Any] = {
        "layout": layout,
        "overwrite": overwrite,
        "companions": companions,
        "progress": progress,
    }
    if isinstance(dst, str) and is_url(place):
        return write_remote_cube(cube, place, **options)
    return write_cube(cube, place, **options)
