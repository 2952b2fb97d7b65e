"""NeXus files: emcube's own come back whole, of others the data that ``default`` leads to.

emcube writes cubes after NXem, whose names of axes say nothing of dims. What the file's fields have no place
for lies beside them as JSON, see `emcube.interop.nexus`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import ReadError
from emcube.io.hdf5 import open_hdf5
from emcube.io.lazy import H5Array, as_dask
from emcube.io.sidecar import merged_metadata
from emcube.io.signals import Signal

if TYPE_CHECKING:
    import h5py

__all__ = ["read_nexus"]

_ENTRY = "entry1"
#: Version of what is kept under ``cube_layout``.
_VERSION = 1


def read_nexus(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read a NeXus file, lazily.

    Parameters
    ----------
    path : Path
    name : str, optional
        What the user asks for. Without it a file of several signals has one that counts as its cube: the one
        that the attributes ``default`` lead to from the root.
    reader : str, optional
        Not used: the table of readers leads here.

    Raises
    ------
    ReadError
        The file is not HDF5, was cut short, or is one of emcube's of which parts are missing.
    MissingDependencyError
        It is not one of emcube's, and RosettaSciIO is not installed.
    """
    from emcube.io.rosetta import read_rosetta

    with open_hdf5(path) as file:
        default = _default(file)
        kept = _kept(path, file)
        if kept is not None:
            return [_whole(path, file, kept)]
    signals = read_rosetta(path, name=name, reader="Nexus")
    if name is None and default is not None and len(signals) > 1:
        chosen = read_rosetta(path, reader="Nexus", dataset_path=[default])
        return chosen if len(chosen) == 1 else signals
    return signals


def _default(file: h5py.File) -> str | None:
    """Path of the NXdata that the attributes ``default`` lead to; None where they lead to none."""
    import h5py

    node: Any = file
    # Each step goes down: no way is longer than this.
    for _ in range(32):
        step = node.attrs.get("default")
        if not isinstance(step, str | bytes):
            break
        found = node.get(step.decode() if isinstance(step, bytes) else step)
        if not isinstance(found, h5py.Group):
            return None
        node = found
    return str(node.name) if "signal" in node.attrs and node.name != "/" else None


def _kept(path: Path, file: h5py.File) -> Mapping[str, Any] | None:
    """What emcube kept beside a cube that it wrote; None for any other file."""
    node = file.get(f"{_ENTRY}/attributes/json")
    if file.attrs.get("creator") != "emcube" or node is None:
        return None
    kept = _json(path, file, "attributes")
    layout = kept.get("cube_layout")
    return kept if isinstance(layout, Mapping) and layout.get("version") == _VERSION else None


def _json(path: Path, file: h5py.File, name: str) -> dict[str, Any]:
    node = file.get(f"{_ENTRY}/{name}/json")
    if node is None:
        return {}
    try:
        found = json.loads(node[()])
        if isinstance(found, dict):
            return found
        raise ValueError(f"it is a {type(found).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, f"{_ENTRY}/{name}/json is no object of JSON: {error}") from error


def _damaged(path: Path, why: str) -> ReadError:
    return ReadError(
        f"{path}: this is a NeXus file of emcube, but its cube cannot be read back: {why}",
        hint="export it again; datasets open by name='/path/in/file'",
    )


def _whole(path: Path, file: h5py.File, kept: Mapping[str, Any]) -> Signal:
    """Put the cube together: values and positions from the fields, what these cannot say from beside."""
    metadata = _json(path, file, "metadata")
    original = _json(path, file, "original_metadata")
    try:
        cube = _labelled(path, file, kept)
        name = kept["cube_layout"]["name"] or ""
        source = {"file": path.name, "format": "NeXus", "reader": "emcube", "signal": str(name)}
        attrs = {
            **kept.get("cube", {}),
            **cube.attrs,
            "metadata": merged_metadata({}, metadata, {"source": source}),
        }
        if original:
            attrs["original_metadata"] = original
        return Signal.of(cube.assign_attrs(attrs), str(name))
    except ReadError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _labelled(path: Path, file: h5py.File, kept: Mapping[str, Any]) -> xr.DataArray:
    layout = kept["cube_layout"]
    dims, sig_dims = tuple(layout["dims"]), list(layout["sig_dims"])
    dataset = file[f"{_ENTRY}/{layout['values']}"]
    key = f"/{_ENTRY}/{layout['values']}"
    source = H5Array(path, key, dataset.shape, dataset.dtype)
    data = as_dask(source, [dims.index(dim) for dim in sig_dims], dataset.chunks)
    if np.dtype(layout["dtype"]).kind == "b":
        # HDF5 has no truth values of its own.
        data = data.astype(np.bool_)
    attrs = {"sig_dims": sig_dims}
    if layout["units"] is not None:
        attrs["units"] = layout["units"]
    coords = {
        name: xr.Variable(
            tuple(one["dims"]),
            _values(file[f"{_ENTRY}/{one['values']}"], str(one["dtype"])),
            kept.get("coordinates", {}).get(name, {}),
        )
        for name, one in layout["coords"].items()
    }
    return xr.DataArray(data, dims=dims, coords=coords, attrs=attrs)


def _values(dataset: h5py.Dataset, dtype: str) -> Any:
    """Values of a coordinate, as it had them."""
    import h5py

    texts = h5py.check_string_dtype(dataset.dtype) is not None
    values = np.asarray(dataset.asstr()[()] if texts else dataset[()])
    wanted = np.dtype("U") if dtype == "text" else np.dtype(dtype)
    if wanted.kind not in "biufmMU":
        raise ValueError(f"{dataset.name}: dtype {dtype!r}")
    if texts:
        values = values.astype(str)
    return values.astype(wanted) if values.dtype.kind != "U" or wanted.kind != "U" else values
