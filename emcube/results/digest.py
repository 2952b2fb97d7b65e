"""Digests of arrays of a result: of the digests of their chunks, wherever these are computed."""

from __future__ import annotations

import hashlib
import operator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcube.engine.executor import Tasks, current_executor
from emcube.engine.threads import default_threads

__all__ = ["DigestChunks", "array_digest", "stored_digest"]

SPREAD_BYTES = 128 * 2**20
"""Arrays of more bytes are read and hashed by the workers, where there are any."""

MAX_TASKS = 4096


def array_digest(array: Any) -> str:
    """Digest of a Zarr array's values: of the digests of its chunks in C order; independent of codecs.

    Chunks are read and hashed on as many threads as a run has.
    """
    if array.nchunks == 1:
        return _digest_of(array, (_chunk_digest(array, 0),))
    with ThreadPoolExecutor(default_threads()) as pool:
        return _digest_of(array, pool.map(lambda i: _chunk_digest(array, i), range(array.nchunks)))


def stored_digest(folder: Path, path: str, array: Any = None) -> str:
    """`array_digest` of an array in a folder; a large one is read by the workers that wrote it.

    Parameters
    ----------
    folder : Path
        The Zarr group, which workers reach under the same name.
    path : str
        The array in it.
    array : zarr.Array, optional
        That array, where it is open already.
    """
    if array is None:
        import zarr

        array = zarr.open_array(str(folder), path=path, mode="r")
    if array.nbytes <= SPREAD_BYTES or array.nchunks == 1:
        return array_digest(array)
    executor = current_executor()
    if not executor.remote:
        return array_digest(array)
    size = -(-int(array.nchunks) // MAX_TASKS)
    n_groups = -(-int(array.nchunks) // size)

    def task(run: range) -> DigestChunks:
        stop = min(run.stop * size, int(array.nchunks))
        return DigestChunks(str(folder), path, range(run.start * size, stop))

    tasks = Tasks(task, n_groups)
    parts: list[bytes] = executor.reduce(tasks, n_groups, operator.add, lambda group: None)
    return _digest_of(array, parts)


@dataclass(frozen=True)
class DigestChunks:
    """A task: digests of some chunks of an array."""

    folder: str
    path: str
    chunks: range

    def __call__(self) -> list[bytes]:
        """Digest of each."""
        import zarr

        array = zarr.open_array(self.folder, path=self.path, mode="r")
        return [_chunk_digest(array, i) for i in self.chunks]


def _chunk_digest(array: Any, number: int) -> bytes:
    """Digest of one chunk, by its number in C order."""
    values = np.ascontiguousarray(array[_region(array, number)])
    if values.dtype.kind in "OTU":
        return hashlib.sha256("\0".join(map(str, values.ravel())).encode()).digest()
    return hashlib.sha256(values.data if values.ndim else values.tobytes()).digest()


def _region(array: Any, number: int) -> tuple[slice, ...]:
    grid = [-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]
    corner = []
    for n in reversed(grid):
        number, i = divmod(number, n)
        corner.append(i)
    return tuple(
        slice(i * c, min((i + 1) * c, n))
        for i, c, n in zip(reversed(corner), array.chunks, array.shape, strict=True)
    )


def _digest_of(array: Any, parts: Any) -> str:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}{array.chunks}".encode())
    for part in parts:
        digest.update(part)
    return "sha256:" + digest.hexdigest()
