"""HyperSpy's ``.zspy`` files with zarr-python 3, for which RosettaSciIO's own reader is not made yet.

A ``.zspy`` is a Zarr v2 hierarchy, as a directory or in one zip file: ``Experiments/<title>/data`` with a
group ``axis-0``, ``axis-1``, ... for each axis, and ``metadata`` and ``original_metadata`` as nested groups
whose attributes are the entries.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from emcube.errors import ReadError
from emcube.io.hyperspy import signal_from_tree
from emcube.io.lazy import ZarrArray
from emcube.io.links import link_outwards
from emcube.io.sidecar import COORDS, KEY
from emcube.io.signals import Signal

__all__ = ["read_zspy"]


@contextlib.contextmanager
def _group(path: Path) -> Iterator[zarr.Group]:
    store: Any = path
    if path.is_file():
        if not zipfile.is_zipfile(path):
            raise ReadError(
                f"{path}: a .zspy file is a zip file or a directory; this is neither "
                f"({path.stat().st_size} bytes)",
                hint="the file is damaged, cut short or not of this format; fetch or export it again",
            )
        store = zarr.storage.ZipStore(path, mode="r")
    try:
        yield zarr.open_group(store, mode="r")
    finally:
        if isinstance(store, zarr.storage.ZipStore):
            store.close()


def read_zspy(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read the signals of a ``.zspy`` file or directory, lazily.

    Parameters
    ----------
    path : Path
    name, reader : str, optional
        Not needed: all signals are listed at no cost.

    Raises
    ------
    ReadError
        The hierarchy is not one of HyperSpy's, parts of it are missing, or a symbolic link leads out of it.
    """
    if (found := link_outwards(path, path)) is not None:
        raise ReadError(
            f"{path}: the symbolic link {found[0]} leads out of the folder, to {found[1]}; expected all data "
            "within it",
            hint="copy what belongs there in place of the link (cp -L); otherwise do not use this file",
        )
    try:
        with _group(path) as root:
            experiments = root.get("Experiments")
            if not isinstance(experiments, zarr.Group):
                raise ReadError(
                    f"{path}: the hierarchy has no group 'Experiments', expected a HyperSpy file",
                    hint="open a plain Zarr group under a name that does not end in .zspy",
                )
            return [_signal(path, node, title) for title, node in sorted(experiments.groups())]
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(
            f"{path}: cannot be read as a .zspy file: {type(error).__name__}: {error}",
            hint="the file is damaged or cut short; fetch or export it again",
        ) from error


def _signal(path: Path, group: zarr.Group, title: str) -> Signal:
    data = group["data"]
    if not isinstance(data, zarr.Array) or data.dtype.kind not in "iuf":
        raise ReadError(
            f"{path}: signal {title!r}: got {getattr(data, 'dtype', 'a group')}, expected an "
            "array of numbers",
            hint="ragged signals of HyperSpy have no place in a cube",
        )
    # zarr reads a missing chunk as zeros without a word: a file cut short would open as one with empty parts.
    if data.nchunks_initialized == 0 and data.nchunks:
        raise ReadError(
            f"{path}: signal {title!r}: none of its {data.nchunks} chunks is there",
            hint="the file was cut short; fetch or export it again",
        )
    axes = []
    for i in range(data.ndim):
        key = f"axis-{i}"
        if key not in group:
            raise ReadError(
                f"{path}: signal {title!r}: group {key!r} is missing, expected one for each of "
                f"{data.ndim} axes",
                hint="the file is damaged; fetch or export it again",
            )
        axes.append(_tree(group[key], longest=None))
    meta = _tree(group["metadata"]) if "metadata" in group else {}
    kept = group.get(f"metadata/{KEY}/{COORDS}")
    if isinstance(kept, zarr.Group):
        meta[KEY][COORDS] = {name: np.asarray(array[...]) for name, array in kept.arrays()}
    source = ZarrArray(path, f"Experiments/{title}/data", data.shape, data.dtype)
    return signal_from_tree(
        path,
        "ZSPY",
        source,
        data.chunks,
        axes,
        meta,
        _tree(group["original_metadata"]) if "original_metadata" in group else {},
    )


def _tree(group: Any, *, longest: int | None = 4096) -> dict[str, Any]:
    """Return a group's attributes, short arrays and subgroups as one nested dict."""
    tree: dict[str, Any] = {}
    for key, value in dict(group.attrs).items():
        tree[_key(key)] = None if isinstance(value, str) and value == "_None_" else value
    for key, node in group.members():
        if isinstance(node, zarr.Array):
            tree[_key(key)] = (
                np.asarray(node[...]).tolist()
                if longest is None or node.size <= longest
                else f"<array of shape {node.shape}>"
            )
        elif (listed := _LISTED.match(key)) is not None:
            # A list of things that make no array: a group of them under their numbers.
            entries = _tree(node)
            tree[listed[1]] = [entries[k] for k in sorted(entries, key=int)]
        else:
            tree[_key(key)] = _tree(node)
    return tree


_LISTED = re.compile(r"_(?:list|tuple)_\d+_(.*)", re.DOTALL)


def _key(key: str) -> str:
    # Lists, tuples and bytes carry their kind in front of their name.
    for prefix in ("_list_empty_", "_tuple_empty_", "_list_", "_tuple_", "_bs_"):
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key
