"""HyperSpy's own files, ``.hspy`` (HDF5) and ``.zspy`` (Zarr v2), written without HyperSpy.

Both hold ``Experiments/<title>`` with the array ``data``, a group ``axis-0``, ``axis-1``, ... for each
axis, and the trees ``metadata``, ``original_metadata`` and ``learning_results`` as nested groups: texts
and numbers are attributes, arrays are datasets, None is the text ``_None_``, and a list is a dataset
``_list_<name>`` (numbers) or a group ``_list_<n>_<name>`` of its entries.

References
----------
HyperSpy's format is described in https://hyperspy.org/rosettasciio/file_specification/hspy.html, version 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from emcube.errors import StoreError
from emcube.interop.blocks import chunk_layout, copy_regions, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.interop.signal import SignalTree

__all__ = ["FORMAT_VERSION", "write_hspy", "write_zspy"]

#: Version of HyperSpy's format that is written.
FORMAT_VERSION = "3.3"


class _Group(Protocol):
    """What the two libraries' groups have in common, in one shape."""

    def group(self, name: str) -> _Group: ...

    def attributes(self, values: Mapping[str, Any]) -> None: ...

    def array(self, name: str, values: NDArray[Any]) -> None: ...

    def data(self, tree: SignalTree, n_sig: int) -> None: ...


def write_hspy(tree: SignalTree, path: Path, *, overwrite: bool = False) -> None:
    """Write a signal as ``.hspy``: out of core, whole or not at all.

    Parameters
    ----------
    tree : SignalTree
    path : Path
    overwrite : bool
        Replace a file of that name.

    Raises
    ------
    StoreError
        It exists, or cannot be written.

    Notes
    -----
    One pass over the values. Chunks hold whole signals and are compressed with gzip (level 1, shuffled),
    which every HDF5 library reads.
    """
    import h5py

    if path.is_dir():
        raise StoreError(
            f"cannot write {str(path)!r}: it is a folder, expected a file",
            hint="choose another name",
        )
    with whole(path, overwrite=overwrite) as partial, h5py.File(partial, "w") as file:
        _write(_H5(file), tree, "HyperSpy")


def write_zspy(tree: SignalTree, path: Path, *, overwrite: bool = False) -> None:
    """Write a signal as ``.zspy``, a folder: out of core, whole or not at all.

    Parameters are those of `write_hspy`.

    Raises
    ------
    StoreError
        It exists, holds something else than a HyperSpy file, or cannot be written.
    """
    import zarr

    if path.exists() and overwrite and not (path / "Experiments" / ".zgroup").is_file():
        raise StoreError(
            f"cannot write {str(path)!r}: it holds something else than a HyperSpy file, which is never "
            "replaced",
            hint="choose another name, or remove it yourself",
        )
    with whole(path, overwrite=overwrite) as partial:
        _write(_Zarr(zarr.open_group(str(partial), mode="w", zarr_format=2)), tree, "ZSpy")


def _write(root: _Group, tree: SignalTree, kind: str) -> None:
    root.attributes({"file_format": kind, "file_format_version": FORMAT_VERSION})
    group = root.group("Experiments").group(_group_name(tree.title))
    for i, axis in enumerate(tree.axis_dicts()):
        _write_tree(group.group(f"axis-{i}"), axis)
    _write_tree(group.group("metadata"), tree.metadata)
    _write_tree(group.group("original_metadata"), tree.original_metadata)
    _write_tree(group.group("learning_results"), tree.learning)
    group.group("attributes")
    group.data(tree, sum(not axis.navigate for axis in tree.axes))


def _group_name(title: str) -> str:
    """A title as the name of a group, in Zarr that of a folder; readers take the metadata's."""
    name = "".join("-" if c == "/" or not c.isprintable() else c for c in title)
    # File systems allow names of 255 bytes, and UTF-8 takes four for a letter at most.
    name = name[:60].strip()
    return name if name.strip(".") else "__unnamed__"


def _write_tree(group: _Group, tree: Mapping[str, Any]) -> None:
    attributes: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _write_tree(group.group(key), value)
        elif isinstance(value, np.ndarray):
            group.array(key, value)
        elif isinstance(value, list | tuple):
            _write_list(group, attributes, key, list(value))
        elif value is None:
            attributes[key] = "_None_"
        else:
            attributes[key] = value.item() if isinstance(value, np.generic) else value
    group.attributes(attributes)


def _write_list(group: _Group, attributes: dict[str, Any], key: str, values: list[Any]) -> None:
    if not values:
        attributes[f"_list_empty_{key}"] = "_None_"
    elif all(type(v) is int and -(2**63) <= v < 2**63 for v in values) or all(
        type(v) is float for v in values
    ):
        group.array(f"_list_{key}", np.asarray(values))
    else:
        # Readers put the entries in the order of their names as texts.
        width = len(str(len(values) - 1))
        named = {f"{i:0{width}d}": value for i, value in enumerate(values)}
        _write_tree(group.group(f"_list_{len(values)}_{key}"), named)


class _H5:
    def __init__(self, group: Any) -> None:
        self._group = group

    def group(self, name: str) -> _H5:
        return _H5(self._group.require_group(name))

    def attributes(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            self._group.attrs[key] = value

    def array(self, name: str, values: NDArray[Any]) -> None:
        # HyperSpy reads arrays lazily by their chunks: without chunks it fails.
        options: dict[str, Any] = {"chunks": True} if values.size else {}
        self._group.create_dataset(name, data=values, **options)

    def data(self, tree: SignalTree, n_sig: int) -> None:
        layout = chunk_layout(tree.data, n_sig)
        dataset = self._group.create_dataset(
            "data",
            shape=tree.data.shape,
            dtype=tree.data.dtype.newbyteorder("="),
            chunks=layout.chunks,
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )

        def write(region: tuple[slice, ...], block: NDArray[Any]) -> None:
            dataset[region] = block

        copy_regions(tree.data, layout, write)


class _Zarr:
    def __init__(self, group: Any) -> None:
        self._group = group

    def group(self, name: str) -> _Zarr:
        return _Zarr(self._group.require_group(name))

    def attributes(self, values: Mapping[str, Any]) -> None:
        if values:
            self._group.update_attributes(dict(values))

    def array(self, name: str, values: NDArray[Any]) -> None:
        array = self._create(name, values.shape, values.dtype, values.shape)
        if values.size:
            array[...] = values

    def data(self, tree: SignalTree, n_sig: int) -> None:
        layout = chunk_layout(tree.data, n_sig)
        array = self._create("data", tree.data.shape, tree.data.dtype, layout.chunks)

        def write(region: tuple[slice, ...], block: NDArray[Any]) -> None:
            array[region] = block

        copy_regions(tree.data, layout, write)

    def _create(self, name: str, shape: Any, dtype: Any, chunks: Any) -> Any:
        from numcodecs import Blosc

        return self._group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=tuple(max(1, n) for n in chunks),
            compressors=Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE),
            filters=None,
            fill_value=0,
            # Folders within folders, as HyperSpy's own store names its chunks.
            chunk_key_encoding={"name": "v2", "separator": "/"},
            config={"write_empty_chunks": True},
        )
