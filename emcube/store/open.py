"""Open stores as lazy cubes: emcube's own, and any Zarr group or array whose dims have names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.addresses import check_address, is_url, local_part, redact
from emcube.cube import infer_sig_dims, validate_cube
from emcube.cube.rows import graph_source
from emcube.errors import (
    AmbiguousSignalError,
    CubeError,
    IncompleteError,
    StoreError,
)
from emcube.store.chunks import ChunkReader, reader_from_metadata
from emcube.store.events import EVENT_ARRAYS, EventReader, event_reader
from emcube.store.journal import BEGUN, Journal, read_json
from emcube.store.remote import Remote, unreadable
from emcube.store.write import DATA, FORMAT

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "is_store",
    "is_url",
    "is_zarr",
    "kept_as_events",
    "open_cube",
    "read_digest",
    "root_attributes",
    "stored_reader",
]

#: Coordinates up to this size are read when a store is opened; larger ones stay lazy.
_EAGER_BYTES = 2**20

StorePath = str | os.PathLike[str]


def open_cube(path: StorePath, name: str | None = None) -> xr.DataArray:
    """Open a store as a lazy cube.

    Parameters
    ----------
    path : path-like or URL
        A cube store; or any Zarr v2 or v3 group or array with dimension names.
    name : str, optional
        Variable to open: a companion or a quicklook; by default the cube. In other Zarr groups the one
        variable with most dims.

    Returns
    -------
    xarray.DataArray
        Dask chunks are the store's chunks; blocks are read without locks, and the graph pickles.

    Raises
    ------
    IncompleteError
        The store was never finished.
    StoreError
        There is no store, or it is a result.
    AmbiguousSignalError
        Several variables could be the cube.
    CubeError
        What was found is no cube.

    Notes
    -----
    Opening reads one metadata file and the small coordinates. A chunk that is missing or damaged raises
    StoreError when it is read.
    """
    place = _place(path)
    local = not is_url(place)
    document = _root_document(place) if local else None
    if local and document is None:
        _explain_missing(Path(place))
    if document is not None:
        _refuse_unfinished(place, document)
        if _own(document) is not None:
            return _open_own(place, document, name)
    elif (remote := _remote_document(place)) is not None:
        _refuse_unfinished(place, remote)
        return _open_own(place, remote, name)
    elif _begun_there(place):
        raise _never_finished(place)
    return _open_foreign(place, name)


def is_store(path: StorePath) -> bool:
    """Whether a path is a cube store of emcube, finished or not."""
    place = _place(path)
    if is_url(place):
        document = _remote_document(place)
        if document is None and _begun_there(place):
            return True
    else:
        document = _root_document(place)
        if document is None and Journal(Path(place)).begun() is not None:
            return True
    own = _own(document) if document is not None else None
    return own is not None and own.get("kind") == "cube"


def is_zarr(path: StorePath) -> bool:
    """Whether a local folder is a Zarr group or array of any kind, or an unfinished cube store."""
    folder = Path(path)
    names = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
    return folder.is_dir() and (
        any((folder / name).is_file() for name in names) or is_store(folder)
    )


def read_digest(path: StorePath) -> str:
    """Digest of the cube in a store, as it was computed while writing.

    Raises
    ------
    IncompleteError
        The store was never finished.
    StoreError
        It is not a cube store.
    """
    return str(root_attributes(path)["digest"])


def root_attributes(path: StorePath) -> dict[str, Any]:
    """What a cube store says of itself: format, digest, layout, coordinates, companions.

    Raises
    ------
    IncompleteError
        The store was never finished.
    StoreError
        It is not a cube store.
    """
    place = _place(path)
    document = _remote_document(place) if is_url(place) else _root_document(place)
    if document is None:
        if not is_url(place):
            _explain_missing(Path(place))
        if _begun_there(place):
            raise _never_finished(place)
    own = None
    if document is not None:
        _refuse_unfinished(place, document)
        own = _own(document)
    if own is None:
        raise StoreError(
            f"{place} is not a cube store of emcube: its Zarr metadata say nothing of emcube",
            hint="make one with emcube.ingest(source, path)",
        )
    return own


def _place(path: StorePath) -> str:
    text = os.fspath(path)
    if is_url(text):
        text = local_part(text)
    return check_address(text) if is_url(text) else str(Path(text))


def _root_document(place: str) -> dict[str, Any] | None:
    path = Path(place, "zarr.json")
    if path.is_file():
        document: dict[str, Any] = read_json(path)
        return document
    if any(Path(place, name).is_file() for name in (".zgroup", ".zarray", ".zmetadata")):
        return {"zarr_format": 2}
    return None


def _remote_document(place: str) -> dict[str, Any] | None:
    """Root document of a store behind a URL; None where emcube did not write it."""
    found = Remote(place).read("zarr.json")
    if found is None:
        return None
    try:
        document: dict[str, Any] = json.loads(found)
    except ValueError as error:
        raise StoreError(
            f"{place} cannot be read: its zarr.json is not valid JSON: {error}",
            hint="check the address; if it is right, write the store there again",
        ) from None
    return document if _own(document) is not None else None


def _begun_there(place: str) -> bool:
    """Whether an ingest into an address was begun and is not finished."""
    try:
        return Remote(place).read(BEGUN) is not None
    except StoreError:
        # Some servers forbid to look for what is not there; what follows says what is.
        return False


def _never_finished(place: str) -> IncompleteError:
    return IncompleteError(
        f"{place} is incomplete: what was being written to it was never finished",
        hint="run the same ingest again, on the machine where it was begun: it goes on where it stopped",
    )


def _own(document: Mapping[str, Any]) -> dict[str, Any] | None:
    own = document.get("attributes", {}).get("emcube")
    # A node of a result has attributes of that name too, but is no store by itself.
    return own if isinstance(own, dict) and "kind" in own else None


def _explain_missing(path: Path) -> None:
    if Journal(path).begun() is not None:
        done, n_regions = Journal(path).progress()
        raise IncompleteError(
            f"{path} is incomplete: its ingest stopped after {done} of {n_regions} regions",
            hint="run the same ingest again: it goes on where it stopped",
        )
    if not path.exists():
        raise StoreError(
            f"{path} does not exist: expected a folder with a Zarr store",
            hint="check the path, or make the store with emcube.ingest(source, path)",
        )
    raise StoreError(
        f"{path} is not a Zarr store: it has no zarr.json, .zgroup or .zarray",
        hint="open instrument files with emcube.open, and make stores with emcube.ingest",
    )


def _refuse_unfinished(place: str, document: Mapping[str, Any]) -> None:
    own = _own(document)
    if own is None:
        return
    if own.get("kind", "cube") != "cube":
        raise StoreError(
            f"{place} is a {own.get('kind')} of emcube, not a cube",
            hint="open results with emcube.open_result",
        )
    if not own.get("complete"):
        raise IncompleteError(
            f"{place} is incomplete: its completion marker is missing",
            hint="run the ingest that made it again: it goes on where it stopped",
        )
    if int(own.get("format", 0)) > FORMAT:
        raise StoreError(
            f"{place} was written by a newer emcube: format {own['format']}, expected at most {FORMAT}",
            hint="update with pip install --upgrade emcube",
        )


# --- emcube's own stores --------------------------------------------------------------------------


def _open_own(place: str, document: Mapping[str, Any], name: str | None) -> xr.DataArray:
    import xarray as xr

    own = _own(document) or {}
    consolidated = document.get("consolidated_metadata")
    if consolidated is None:
        raise StoreError(
            f"{place} was edited by another program, which dropped its consolidated metadata",
            hint=f"restore them with zarr.consolidate_metadata({place!r})",
        )
    documents: Mapping[str, Any] = consolidated["metadata"]
    wanted = DATA if name in (None, own_name(own, documents)) else str(name)
    known = {DATA, *documents} - {*EVENT_ARRAYS} if "cube" in own else {*documents}
    if wanted not in known:
        raise StoreError(
            f"{place} has no variable {name!r}: it has {', '.join(sorted(known))}",
            hint="open one of these by name=, or the cube without a name",
        )
    token = f"{own['digest']}".removeprefix("sha256:")[:32]

    def variable(key: str) -> xr.Variable:
        return _variable(place, key, documents[key], token)

    if wanted == DATA and "cube" in own:
        lazy = _lazy(event_reader(place, own, documents), f"emcube-{token}-{DATA}-{_short(place)}")
        main = xr.Variable(own["cube"]["dims"], lazy, dict(own["cube"]["attributes"]))
    else:
        main = variable(wanted)
    coords: dict[str, xr.Variable] = {}
    for key in documents:
        belongs = key in own["coords"] or key in main.dims
        if key != wanted and belongs and set(_dims(documents[key])) <= set(main.dims):
            coords[key] = variable(key)
    attrs = dict(main.attrs)
    label = attrs.pop("name", None) or wanted
    attrs.pop("coordinates", None)
    cube = xr.DataArray(main.data, dims=main.dims, coords=coords, attrs=attrs, name=label)
    cube.encoding["source"] = place
    if wanted != DATA:
        return cube
    return validate_cube(cube)


def own_name(own: Mapping[str, Any], documents: Mapping[str, Any]) -> str | None:
    """The user's own name of the cube in a store; None where there is none."""
    described = own.get("cube") or documents.get(DATA, {})
    name = described.get("attributes", {}).get("name")
    return None if name is None else str(name)


def _variable(place: str, name: str, document: Mapping[str, Any], token: str) -> xr.Variable:
    import xarray as xr

    reader = reader_from_metadata(place, name, dict(document), checked=True)
    attrs = dict(document["attributes"])
    dims = _dims(document)
    nbytes = reader.dtype.itemsize
    for n in reader.shape:
        nbytes *= n
    if name != DATA and nbytes <= _EAGER_BYTES:
        found = xr.Variable(dims, reader[(slice(None),) * reader.ndim], attrs)
        if found.dtype.kind in "OT":
            return xr.Variable(dims, found.values.astype(object).astype(str), attrs)
        if found.dtype.kind in "if" and " since " in str(attrs.get("units", "")):
            return xr.conventions.decode_cf_variable(name, found).load()
        return found
    return xr.Variable(dims, _lazy(reader, f"emcube-{token}-{name}-{_short(place)}"), attrs)


def _dims(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the dims of an array; a scalar has none written down."""
    return tuple(str(dim) for dim in document.get("dimension_names") or ())


def _short(place: str) -> str:
    import hashlib

    full = place if is_url(place) else str(Path(place).resolve())
    return hashlib.sha256(full.encode()).hexdigest()[:12]


def _lazy(reader: ChunkReader | EventReader, name: str) -> Any:
    import dask.array as da
    import numpy as np

    return da.from_array(
        reader,
        chunks=reader.chunks,
        name=name,
        lock=False,
        asarray=True,
        fancy=False,
        meta=np.empty((0,) * reader.ndim, reader.dtype),
        # The reader is a few hundred bytes: inlined, blocks are independent tasks.
        inline_array=True,
    )


def kept_as_events(path: StorePath) -> bool:
    """Whether a finished cube store has the layout "events"."""
    return bool(root_attributes(path)["layout"].get("kind") == "events")


def stored_reader(array: Any) -> ChunkReader | EventReader | None:
    """Reader of a Dask array that is exactly what `open_cube` made; None for any other."""
    reader = graph_source(array)
    if not isinstance(reader, (ChunkReader, EventReader)):
        return None
    cut = tuple(max(lengths, default=1) for lengths in array.chunks)
    return reader if cut == tuple(map(min, reader.chunks, reader.shape)) else None


# --- anybody's Zarr -------------------------------------------------------------------------------


def _open_foreign(place: str, name: str | None) -> xr.DataArray:
    import warnings

    import zarr

    with warnings.catch_warnings():
        # Files that are no part of the hierarchy are none of ours.
        warnings.filterwarnings("ignore", message=".*not recognized as a component.*")
        # Nobody who opens another's store can consolidate its metadata.
        warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated")
        try:
            node = zarr.open(place, mode="r")
        except unreadable() as error:
            raise StoreError(
                f"{place} cannot be opened as Zarr: {redact(str(error))}",
                hint="check the address, and that the store was copied whole",
            ) from (error if redact(str(error)) == str(error) else None)
        if isinstance(node, zarr.Array):
            cube = _from_array(place, node)
        else:
            cube = _from_group(place, name)
    cube.encoding["source"] = place
    return _in_order(cube)


def _from_array(place: str, array: Any) -> xr.DataArray:
    import dask.array as da
    import xarray as xr

    attrs = dict(array.attrs)
    # Zarr v2 has no dimension names of its own; xarray keeps them in this attribute.
    dims = getattr(array.metadata, "dimension_names", None) or attrs.pop("_ARRAY_DIMENSIONS", None)
    if not dims or any(dim is None for dim in dims):
        raise CubeError(
            f"the Zarr array {place} of shape {array.shape} does not name its dims",
            hint="name them: emcube.make_cube(dask.array.from_zarr(path), dims=('y', 'x', 'energy'))",
        )
    lazy = da.from_zarr(array)
    return xr.DataArray(lazy, dims=tuple(dims), attrs=attrs, name=Path(place).stem or None)


def _from_group(place: str, name: str | None) -> xr.DataArray:
    import xarray as xr

    try:
        dataset = xr.open_zarr(place, chunks={}, decode_timedelta=False)
    except (KeyError, ValueError) as error:
        raise CubeError(
            f"the Zarr group {place} cannot be opened by xarray: {error}",
            hint="its arrays must name their dims; open one array of it, or use emcube.make_cube",
        ) from error
    names = sorted(str(key) for key in dataset.data_vars)
    if name is not None:
        if name not in dataset.variables:
            raise StoreError(
                f"{place} has no variable {name!r}: it has {', '.join(names) or 'none'}",
                hint="open one of these with name=",
            )
        named: xr.DataArray = dataset[name]
        return named
    most = max((dataset[key].ndim for key in names), default=0)
    candidates = [key for key in names if dataset[key].ndim == most]
    if not candidates:
        raise StoreError(
            f"the Zarr group {place} holds no arrays of its own",
            hint="open a group within it: its path with the group's name at the end",
        )
    if len(candidates) > 1:
        raise AmbiguousSignalError(
            f"the Zarr group {place} holds {len(candidates)} variables of {most} dims: "
            f"{', '.join(candidates)}",
            names=candidates,
            hint=f"pick one with name={candidates[0]!r} (--name)",
        )
    cube: xr.DataArray = dataset[candidates[0]]
    return cube


def _in_order(cube: xr.DataArray) -> xr.DataArray:
    """Put signal dims last, where they are told by name or unit."""
    if "sig_dims" not in cube.attrs:
        signal = infer_sig_dims(cube)
        order = [dim for dim in cube.dims if dim not in signal] + list(signal)
        source = cube.encoding.get("source")
        cube = cube.transpose(*order)
        cube.encoding["source"] = source
    source = cube.encoding.get("source")
    cube = validate_cube(cube)
    cube.encoding["source"] = source
    return cube
