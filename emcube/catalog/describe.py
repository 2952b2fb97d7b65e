"""What a store or an instrument file says of itself, as an entry's metadata; reads headers only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.catalog.search import normal_modality
from emcube.errors import CatalogError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "clean_name",
    "default_name",
    "describe_cube",
    "describe_file",
    "describe_store",
    "kind_of",
]


def kind_of(text: str) -> str:
    """What an address points at, as a kind of entry: "zarr", "file" or "catalog".

    Raises
    ------
    CatalogError
        Nothing is there, or it is a folder that is no store.
    """
    from emcube.catalog.places import is_remote
    from emcube.store import is_store, is_zarr

    if text.lower().split("?")[0].endswith((".yaml", ".yml")):
        return "catalog"
    if is_remote(text):
        return "file" if _is_file_name(text) else "zarr"
    path = Path(text)
    if not path.exists():
        raise CatalogError(
            f"cannot add {text} to a catalog: it does not exist",
            hint="check the path, or ingest the file first: `emcube ingest FILE STORE`",
        )
    if path.suffix.lower() != ".zspy" and path.is_dir():
        if is_store(path) or is_zarr(path):
            return "zarr"
        raise CatalogError(
            f"cannot add {text} to a catalog: it is a folder, but not a cube store of emcube or a Zarr group",
            hint=f"add what lies in it with `emcube catalog crawl CATALOG {text}`",
        )
    return "file"


def _is_file_name(url: str) -> bool:
    from urllib.parse import urlsplit

    from emcube.catalog.archives import is_archive
    from emcube.io.readers import format_of

    # A .zspy behind a URL is the one in a single zip file, as repositories keep it.
    path = Path(urlsplit(url).path.rstrip("/"))
    return is_archive(path.name) or format_of(path.suffix) is not None


def describe_store(text: str) -> dict[str, Any]:
    """Describe a cube store, or another Zarr group; reads metadata and the stored sums.

    Raises
    ------
    CatalogError
        It is no store.
    IncompleteError
        It was never finished.
    """
    from emcube.store import info, is_store, open_cube

    if not is_store(text):
        _refuse_array(text)
        return describe_cube(open_cube(text))
    found = info(text)
    own = {key: value for key, value in found.metadata.items() if key not in ("source", "extra")}
    if "modality" in own:
        own["modality"] = normal_modality(str(own["modality"]))
    described = {
        **own,
        "dims": list(found.dims),
        "sig_dims": list(found.sig_dims),
        "shape": list(found.shape),
        "dtype": found.dtype,
        "units": found.units,
        "axes": {dim: dict(axis) for dim, axis in found.axes.items()},
        "digest": found.digest,
        "nbytes": found.nbytes,
    }
    counts = _counts_per_pixel(text, found.dims, found.sig_dims, found.shape)
    return described if counts is None else {**described, "counts_per_pixel": counts}


def _refuse_array(text: str) -> None:
    """Refuse a bare array: xarray, and so plain Intake, opens groups only."""
    import json

    from emcube.catalog.places import is_remote

    if is_remote(text):
        return
    folder = Path(text)
    is_array = (folder / ".zarray").is_file()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        document = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
        is_array = document.get("node_type") == "array"
    if is_array:
        raise CatalogError(
            f"cannot add {text} to a catalog: it is a bare Zarr array, expected a group with named dims",
            hint=f"ingest it, and add the store: `emcube ingest {text} STORE`",
        )


def _counts_per_pixel(
    text: str, dims: tuple[str, ...], sig_dims: tuple[str, ...], shape: tuple[int, ...]
) -> float | None:
    """Mean counts of a pixel, from the sum spectrum that the store keeps."""
    from emcube.store import open_cube
    from emcube.store.quicklook import SUM_SPECTRUM

    if not sig_dims or len(sig_dims) == len(dims):
        return None
    try:
        total = float(np.nansum(np.asarray(open_cube(text, SUM_SPECTRUM).values, dtype=np.float64)))
    except OSError:
        # A store of another maker, or one of an older layout, keeps no sums; nothing else knows them cheaply.
        return None
    n_pixels = int(np.prod([n for dim, n in zip(dims, shape, strict=True) if dim not in sig_dims]))
    return float(f"{total / n_pixels:.6g}")


def describe_file(path: Path, *, signal: str | None = None) -> dict[str, Any]:
    """Describe an instrument file by its headers.

    Parameters
    ----------
    path : Path
    signal : str, optional
        Which of its signals.

    Raises
    ------
    ReadError
        It cannot be read.
    AmbiguousSignalError
        Several signals would do.
    MissingDependencyError
        Its format needs a package that is not installed.
    """
    from emcube.cube import validate_cube
    from emcube.io.opening import open_file

    cube = validate_cube(open_file(path, signal)[0])
    described = describe_cube(cube)
    source = (cube.attrs.get("metadata") or {}).get("source") or {}
    described["filename"] = path.name
    if source.get("format"):
        described["format"] = str(source["format"])
    if signal is not None:
        described["signal"] = signal
    if path.is_file():
        described["size"] = path.stat().st_size
    return described


def describe_cube(cube: xr.DataArray) -> dict[str, Any]:
    """Describe a lazy cube: its metadata and its form."""
    from emcube.cube import sig_dims
    from emcube.cube.metadata import Metadata
    from emcube.cube.schema import axis_units
    from emcube.store import to_json

    known: Mapping[str, Any] = Metadata.from_file(cube.attrs.get("metadata") or {}).to_attrs()
    own = {key: value for key, value in known.items() if key not in ("source", "extra")}
    if "modality" in own:
        own["modality"] = normal_modality(str(own["modality"]))
    axes = {}
    for dim in map(str, cube.dims):
        values = (
            np.asarray(cube.coords[dim].values)
            if dim in cube.coords
            else np.arange(cube.sizes[dim])
        )
        first, last = (
            value.item() if hasattr(value, "item") else value for value in values[[0, -1]]
        )
        axes[dim] = {"first": first, "last": last, "units": axis_units(cube, dim)}
    described: dict[str, Any] = to_json(
        {
            **own,
            "dims": [str(dim) for dim in cube.dims],
            "sig_dims": list(sig_dims(cube)),
            "shape": list(cube.shape),
            "dtype": str(cube.dtype),
            "units": str(cube.attrs.get("units", "1")),
            "axes": axes,
            "nbytes": int(cube.nbytes),
        },
        "metadata",
    )
    return described


def default_name(text: str | os.PathLike[str]) -> str:
    """Name of an entry from what it points at: the last part without its suffix, cleaned."""
    from urllib.parse import unquote, urlsplit

    plain = os.fspath(text)
    if "://" in plain:
        plain = unquote(urlsplit(plain).path)
    last = plain.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return clean_name(Path(last).stem or last)


def clean_name(text: str) -> str:
    """A text as a part of an entry's name: nothing that stands for something else in a reference.

    Commas would divide the arguments of ``data(...)``, by which the halves of an entry refer to each other.
    """
    plain = "".join(
        " " if c in ":/\\{}()'\"," or not c.isprintable() else c for c in text.replace(", ", " ")
    )
    return plain.strip() or "data"
