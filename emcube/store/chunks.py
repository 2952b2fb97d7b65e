"""Reading regions of a stored array: straight from chunk files where that is possible, else by zarr.

A reader holds paths and numbers, no open files and no locks, so that it pickles and every thread and
process reads on its own. The straight road decodes a chunk into the array that is asked for, without the
event loop and the copies of zarr-python; and it refuses a missing chunk, which zarr would silently read as
fill values.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcube.errors import StoreError
from emcube.store.remote import file_system, patiently, reading

__all__ = ["ChunkReader", "reader_from_metadata"]

#: Codecs after "bytes" that are decoded here.
_STRAIGHT = frozenset({(), ("blosc",), ("crc32c",), ("blosc", "crc32c")})
#: Bytes of a CRC32C at the end of a chunk.
_CRC_BYTES = 4

_VERIFY_HINT = "check the store with emcube.store.verify(path), and ingest again or restore a copy"


def edition_of(place: str) -> tuple[int, int] | None:
    """Tell one store at a place from the next: time and size of the document written last.

    None for addresses and where there is no such document.
    """
    if "://" in place:
        return None
    try:
        found = Path(place, "zarr.json").stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@dataclass(frozen=True)
class ChunkReader:
    """A stored array that can be sliced.

    Attributes
    ----------
    store : str
        Path or URL of the store.
    name : str
        Name of the array in it; "" for a store that is one array.
    shape, chunks : tuple of int
    dtype : numpy.dtype
    codecs : tuple of str or None
        Names of the codecs after "bytes", of an array whose chunk files are read straight (one of emcube's
        own); None for one that zarr reads.
    unit : tuple of int
        Cells of a file: a chunk or a shard.
    checked : bool
        Whether a missing file is an error: emcube writes every chunk, others leave out those of fill
        values.
    edition : tuple of int or None
        What `edition_of` said when the store was opened; None where nobody looked.
    """

    store: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    codecs: tuple[str, ...] | None = None
    unit: tuple[int, ...] = ()
    checked: bool = False
    edition: tuple[int, int] | None = None
    _opened: threading.local = field(
        default_factory=threading.local, compare=False, repr=False, hash=False
    )

    def __reduce__(self) -> tuple[Any, ...]:
        values = (self.store, self.name, self.shape, self.dtype, self.chunks)
        return ChunkReader, (*values, self.codecs, self.unit, self.checked, self.edition)

    @property
    def ndim(self) -> int:
        """Number of dims."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        region = self._region(key)
        if region is None:
            return np.asarray(self._zarr_array().oindex[key])
        if self.codecs is None:
            if self.checked:
                self._require_files(region)
            values = np.asarray(self._zarr_array()[region])
        else:
            values = self._read(region)
        picks = tuple(0 if isinstance(k, (int, np.integer)) else slice(None) for k in key)
        return values[picks]

    def _region(self, key: tuple[Any, ...]) -> tuple[slice, ...] | None:
        """The key as one plain slice a dim (an integer as a slice of one); None if it is not so simple."""
        if Ellipsis in [k for k in key if not isinstance(k, np.ndarray)]:
            return None
        region = []
        for k, n in zip((*key, *[slice(None)] * (self.ndim - len(key))), self.shape, strict=True):
            if isinstance(k, (int, np.integer)):
                start = int(k) + n if k < 0 else int(k)
                if not 0 <= start < n:
                    raise IndexError(f"index {k} is out of bounds for a dim of length {n}")
                region.append(slice(start, start + 1))
            elif isinstance(k, slice) and k.step in (None, 1):
                start, stop, _ = k.indices(n)
                region.append(slice(start, max(start, stop)))
            else:
                return None
        return tuple(region)

    def _grid(self, region: tuple[slice, ...], unit: tuple[int, ...]) -> Any:
        return product(
            *(
                range(part.start // u, -(-part.stop // u) if part.stop > part.start else 0)
                for part, u in zip(region, unit, strict=True)
            )
        )

    def file_of(self, index: tuple[int, ...]) -> str:
        """File of the chunk or shard with this index: a path or a URL."""
        parts = [self.name, "c", *(str(i) for i in index)]
        if "://" in self.store:
            return "/".join([self.store, *(part for part in parts if part)])
        return str(Path(self.store, *parts))

    def _require_edition(self) -> None:
        if self.edition is not None and edition_of(self.store) != self.edition:
            raise StoreError(
                f"{self.store} was replaced or removed since it was opened",
                hint="open it again",
            )

    def _require_files(self, region: tuple[slice, ...]) -> None:
        self._require_edition()
        for index in self._grid(region, self.unit):
            place = self.file_of(index)
            there = self._exists(place)
            if not there:
                raise self._missing(place)

    def _fetch(self, place: str) -> bytes:
        self._require_edition()
        try:
            if "://" in place:
                with reading(place):
                    return bytes(patiently(lambda: self._remote().cat_file(place)))
            return Path(place).read_bytes()
        except FileNotFoundError:
            raise self._missing(place) from None

    def _exists(self, place: str) -> bool:
        if "://" not in place:
            return Path(place).exists()
        with reading(place):
            return bool(patiently(lambda: self._remote().exists(place)))

    def _remote(self) -> Any:
        """The file system behind a URL, made once a thread."""
        found = getattr(self._opened, "remote", None)
        if found is None:
            found = self._opened.remote = file_system(self.store)[0]
        return found

    def _missing(self, path: str) -> StoreError:
        return StoreError(
            f"a chunk of {self.name!r} in {self.store} is missing: {path} does not exist, "
            "and zarr would read it as zeros",
            hint=_VERIFY_HINT,
        )

    def _read(self, region: tuple[slice, ...]) -> NDArray[Any]:
        indices = list(self._grid(region, self.chunks))
        if len(indices) == 1:
            return self._decode(indices[0])[self._inside(region, indices[0])]
        out = np.empty(tuple(part.stop - part.start for part in region), dtype=self.dtype)
        for index in indices:
            corner = [i * c for i, c in zip(index, self.chunks, strict=True)]
            target = tuple(
                slice(max(part.start, low) - part.start, min(part.stop, low + c) - part.start)
                for part, low, c in zip(region, corner, self.chunks, strict=True)
            )
            part = out[target]
            if part.shape == self.chunks and part.flags.c_contiguous:
                self._decode(index, part)
            else:
                part[...] = self._decode(index)[self._inside(region, index)]
        return out

    def _inside(self, region: tuple[slice, ...], index: tuple[int, ...]) -> tuple[slice, ...]:
        """The region's part of a chunk, in the chunk's own cells."""
        return tuple(
            slice(max(part.start - i * c, 0), min(part.stop - i * c, c))
            for part, i, c in zip(region, index, self.chunks, strict=True)
        )

    def _decode(self, index: tuple[int, ...], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode one whole chunk, into `out` where it is given.

        Chunks at the end of a dim are stored full and cut by the caller.
        """
        from numcodecs import blosc

        path = self.file_of(index)
        raw = self._fetch(path)
        codecs = self.codecs or ()
        body = np.frombuffer(raw, np.uint8)
        if codecs[-1:] == ("crc32c",):
            body = self._without_checksum(path, body)
        nbytes = math.prod(self.chunks) * self.dtype.itemsize
        if "blosc" not in codecs:
            if body.nbytes != nbytes:
                raise self._damaged(path, f"{body.nbytes} bytes, expected {nbytes}")
            plain = np.frombuffer(body, dtype=self.dtype).reshape(self.chunks)
            if out is None:
                return plain
            out[...] = plain
            return out
        out = np.empty(self.chunks, dtype=self.dtype) if out is None else out
        try:
            blosc.decompress(body, out.reshape(-1).view(np.uint8))
        except (RuntimeError, ValueError) as error:
            raise self._damaged(path, f"it does not decompress ({error})") from None
        return out

    def _without_checksum(self, path: str, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import google_crc32c

        body, stored = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:].tobytes()
        found = int(google_crc32c.value(body)).to_bytes(_CRC_BYTES, "little")
        if found != stored:
            raise self._damaged(path, f"checksum {found.hex()}, expected {stored.hex()}")
        return body

    def _damaged(self, path: str, what: str) -> StoreError:
        return StoreError(
            f"a chunk of {self.name!r} in {self.store} is damaged: {path}: {what}",
            hint=_VERIFY_HINT,
        )

    def _zarr_array(self) -> Any:
        """The zarr array, opened once a thread."""
        array = getattr(self._opened, "array", None)
        if array is None:
            array = self._opened.array = _open_array(self.store, self.name)
        return array


def _open_array(store: str, name: str) -> Any:
    import zarr

    return zarr.open_array(store, path=name, mode="r")


def reader_from_metadata(
    store: str, name: str, document: dict[str, Any], *, checked: bool
) -> ChunkReader:
    """Make the reader of an array from its Zarr v3 metadata document.

    Parameters
    ----------
    store, name : str
        Path or URL of the store, and the array in it.
    document : dict
        The array's ``zarr.json``.
    checked : bool
        Whether a missing chunk is an error.
    """
    from zarr.core.metadata.v3 import ArrayV3Metadata

    meta = ArrayV3Metadata.from_dict(document)
    shape = tuple(int(n) for n in document["shape"])
    unit = tuple(int(n) for n in document["chunk_grid"]["configuration"]["chunk_shape"])
    dtype = np.dtype(meta.dtype.to_native_dtype())
    codecs = document["codecs"]
    kinds = tuple(codec["name"] for codec in codecs)
    chunks = unit
    if kinds == ("sharding_indexed",):
        chunks = tuple(int(n) for n in codecs[0]["configuration"]["chunk_shape"])
    straight = (
        checked
        and kinds[:1] == ("bytes",)
        and kinds[1:] in _STRAIGHT
        and dtype.kind in "iufb"
        and codecs[0].get("configuration", {}).get("endian", "little") == "little"
        and document["chunk_key_encoding"]
        in ({"name": "default", "configuration": {"separator": "/"}}, {"name": "default"})
        and math.prod(chunks) > 0
    )
    # Files are looked for by the default key encoding; with another one zarr finds them.
    default_keys = document["chunk_key_encoding"].get("name") == "default"
    return ChunkReader(
        store=store,
        name=name,
        shape=shape,
        dtype=dtype.newbyteorder("<") if straight else dtype,
        chunks=chunks,
        codecs=kinds[1:] if straight else None,
        unit=unit,
        checked=checked and default_keys,
        edition=edition_of(store) if checked else None,
    )
