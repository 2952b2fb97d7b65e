"""Write a lazy array region by region into a file of another format, and files whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcube.errors import StoreError
from emcube.store.layout import Layout, Region, plan_layout
from emcube.store.regions import Walk
from emcube.store.write import _pool

__all__ = ["chunk_layout", "copy_regions", "whole"]


def chunk_layout(data: Any, n_sig: int) -> Layout:
    """Chunks of whole signals, about 16 MiB each, along those of the source where it has some."""
    planned = plan_layout(
        tuple(data.shape), n_sig, data.dtype.itemsize, source_chunks=getattr(data, "chunks", None)
    )
    return Layout(planned.chunks)


def copy_regions(data: Any, layout: Layout, write: Callable[[Region, NDArray[Any]], None]) -> None:
    """Compute each region once and hand it to `write`, on some threads of this process.

    Memory: a group of 256 MiB at most, and the source's own blocks that reach into it.
    """
    walk: Walk[None] = Walk(data, layout)

    def visit(_: int, region: Region, block: NDArray[Any]) -> None:
        write(region, np.ascontiguousarray(block))

    with _pool(None) as pool:
        for group in walk.groups(range(len(walk.regions))):
            walk.run(group, visit, lambda first, _: first, pool)


@contextmanager
def whole(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a neighbour to write to, which takes the place of `path` when the block ends without an error.

    Raises
    ------
    StoreError
        Something is at `path` and may not be replaced, or it cannot be written.
    """
    _require_free(path, overwrite)
    # By the process: two that write the same file must not take each other's half for a whole.
    partial = path.with_name(f".{path.name}.{os.getpid()}.emcube-partial")
    _remove(partial)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _require_free(path, overwrite)
        if path.is_dir():
            _remove(path)
        partial.replace(path)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{str(path)!r} cannot be written: {error.strerror or error}",
            hint="check permissions and free space; nothing is left of the attempt",
        ) from error
    finally:
        _remove(partial)


def _require_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise StoreError(
            f"cannot write {str(path)!r}: it exists, expected a new file",
            hint="choose another name, or replace it with overwrite=True (--overwrite)",
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
