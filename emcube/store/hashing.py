"""The digest of a cube: what it holds, whatever its chunks, shards, codecs or byte order.

The values in C order are cut into *pieces*, runs of at most 64 KiB that depend on shape and dtype alone.
Each piece has its SHA-256, and the digest is the SHA-256 of a header (dims, shape, dtype, units,
coordinates) followed by the pieces' hashes in C order. Blocks that hold whole pieces can be hashed by
anybody in any order; :func:`emcube.store.layout.plan_layout` makes chunks that do. See
docs/decisions/0003-digest.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcube.errors import StoreError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "HASH_BYTES",
    "PIECE_BYTES",
    "combine",
    "grid_shape",
    "hash_block",
    "header",
    "piece_box",
    "piece_shape",
]

#: Most bytes of a piece. Hashing calls cost about a microsecond, so 64 KiB of work hides them.
PIECE_BYTES = 64 * 2**10
#: Bytes of a piece's hash.
HASH_BYTES = 32

_VERSION = 1


def piece_shape(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Cells of a piece along each dim: trailing dims whole, one dim cut, leading dims one.

    Examples
    --------
    >>> piece_shape((73, 124, 165, 900), 1)
    (1, 1, 72, 900)
    """
    piece = list(shape)
    inner = itemsize
    for dim in reversed(range(len(shape))):
        if inner * shape[dim] > PIECE_BYTES:
            piece[dim] = max(1, PIECE_BYTES // inner)
            piece[:dim] = [1] * dim
            break
        inner *= shape[dim]
    return tuple(piece)


def grid_shape(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Pieces along each dim."""
    return tuple(-(-n // p) for n, p in zip(shape, piece_shape(shape, itemsize), strict=True))


def piece_box(shape: Sequence[int], itemsize: int, region: Sequence[slice]) -> tuple[slice, ...]:
    """Box of the grid of pieces that a region of cells covers.

    Raises
    ------
    StoreError
        The region cuts a piece.
    """
    box = []
    for n, piece, part in zip(shape, piece_shape(shape, itemsize), region, strict=True):
        if part.start % piece or (part.stop % piece and part.stop != n):
            raise StoreError(
                f"region {part.start}:{part.stop} of a dim of length {n} cuts a piece of the digest: "
                f"expected multiples of {piece}",
                hint="take the chunks from emcube.store.plan_layout",
            )
        box.append(slice(part.start // piece, -(-part.stop // piece)))
    return tuple(box)


def hash_block(
    block: NDArray[Any], shape: Sequence[int], region: Sequence[slice]
) -> NDArray[np.uint8]:
    """Hash the pieces of a block of whole pieces.

    Parameters
    ----------
    block : ndarray
        Values of the region.
    shape : sequence of int
        Of the whole array.
    region : sequence of slice
        Where the block lies in it.

    Returns
    -------
    ndarray of uint8, shape (pieces along each dim of the block..., 32)

    Raises
    ------
    StoreError
        The region cuts a piece.
    """
    itemsize = block.dtype.itemsize
    box = piece_box(shape, itemsize, region)
    counts = tuple(part.stop - part.start for part in box)
    values = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
    piece = piece_shape(shape, itemsize)
    # The cut dim is the first that a piece covers more than one cell of, or the last of all.
    cut = next((d for d, p in enumerate(piece) if p > 1), len(piece) - 1) if piece else 0
    out = np.empty((math.prod(counts), HASH_BYTES), dtype=np.uint8)
    length = piece[cut] if piece else 1
    lead = math.prod(values.shape[:cut])
    rows = values.reshape(lead, values.shape[cut] if piece else 1, -1)
    at = 0
    for row in rows:
        for start in range(0, row.shape[0], length):
            run = row[start : start + length].reshape(-1).view(np.uint8)
            out[at] = np.frombuffer(hashlib.sha256(run.data).digest(), dtype=np.uint8)
            at += 1
    return out.reshape(*counts, HASH_BYTES)


def header(cube: xr.DataArray) -> dict[str, Any]:
    """Everything the digest covers beside the values, as JSON.

    Parameters
    ----------
    cube : xarray.DataArray
        A validated cube: every dim has a coordinate with units.
    """
    from emcube.cube import sig_dims

    return {
        "emcube_digest": _VERSION,
        "dims": [str(dim) for dim in cube.dims],
        "sig_dims": list(sig_dims(cube)),
        "shape": list(cube.shape),
        "dtype": cube.dtype.newbyteorder("<").str,
        "units": str(cube.attrs.get("units", "1")),
        "coords": {str(dim): _coordinate(cube, dim) for dim in cube.dims if dim in cube.coords},
    }


def _coordinate(cube: xr.DataArray, dim: Hashable) -> dict[str, str]:
    coord = cube.coords[dim]
    values = np.asarray(coord.values)
    if values.dtype.kind in "OUST":
        kind, raw = "text", json.dumps([str(v) for v in values.ravel()]).encode()
    elif values.dtype.kind in "mM":
        unit = values.dtype.kind + "8[ns]"
        kind, raw = unit, values.astype(unit).astype("<i8").tobytes()
    else:
        little = values.dtype.newbyteorder("<")
        kind, raw = little.str, np.ascontiguousarray(values, dtype=little).tobytes()
    return {
        "dtype": kind,
        "units": str(coord.attrs.get("units", "1")),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }


def combine(head: Mapping[str, Any], hashes: NDArray[np.uint8]) -> str:
    """Digest of a header and all pieces' hashes in C order: ``"sha256:..."``."""
    total = hashlib.sha256(json.dumps(head, sort_keys=True, ensure_ascii=True).encode())
    total.update(b"\0")
    total.update(np.ascontiguousarray(hashes).data)
    return f"sha256:{total.hexdigest()}"
