"""Zarr data of a stranger: looked at before zarr sees them.

Zarr imports whatever codec a document names; some codecs unpickle what they read, and arrays of the older
format may name filters that do. Therefore only metadata of version 3 with codecs and data types of a short
list are let through. Chunks that are missing would be read as fill values, and a document of a few bytes may
declare an array of any size: both are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emcube.errors import PackageError
from emcube.package.names import check_name, printable

__all__ = ["check_store", "load_json"]

CODECS = frozenset(
    {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-utf8", "zstd"}
)
_INTEGERS = {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FLOATS = {"float16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
#: Bytes of a value; of text a guess that is only used for limits.
TYPES = {"bool": 1, "string": 16, **_INTEGERS, **_FLOATS}
#: Data types with parameters.
_NAMED = frozenset(
    {"fixed_length_utf32", "null_terminated_bytes", "numpy.datetime64", "numpy.timedelta64"}
)
OLD = (".zarray", ".zgroup", ".zattrs", ".zmetadata")
MAX_CHUNK = 2**31
"""Decoded bytes of a chunk (or shard); emcube's own have 512 MiB at most."""

MAX_UNWRITTEN = 64 * 2**20
"""Decoded bytes of an array's chunks that are not there: small ones of nothing but zeros are not written."""

MAX_JSON = 256 * 2**20
MAX_DEPTH = 64

_HINT = "do not use this package, or ask who made it"


def load_json(data: bytes, what: str) -> Any:
    """Parse JSON of a stranger.

    Raises
    ------
    PackageError
        It is not JSON in UTF-8, repeats a key, holds NaN, or is nested too deeply.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except RecursionError:
        raise PackageError(f"{what} is nested too deeply, expected a few levels", hint=_HINT) from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are of this kind
        raise PackageError(f"{what} is not valid JSON: {printable(error)}", hint=_HINT) from None
    if _depth(value) > MAX_DEPTH:
        raise PackageError(f"{what} is nested too deeply, expected a few levels", hint=_HINT)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a value of JSON")


def _depth(value: Any) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, depth = todo.pop()
        deepest = max(deepest, depth)
        if depth > MAX_DEPTH:
            break
        inside = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        todo += [(child, depth + 1) for child in inside]
    return deepest


def check_store(root: Path, where: str) -> None:
    """Refuse a Zarr hierarchy that could do anything but hold arrays.

    Parameters
    ----------
    root : Path
        Its folder, unpacked.
    where : str
        Whose it is, for messages.

    Raises
    ------
    PackageError
        It is of an old format, names an unknown codec, data type or storage transformer, lacks chunks of
        large arrays, or declares chunks of absurd size.
    """
    old = next((p for p in sorted(root.rglob(".z*")) if p.name in OLD), None)
    if old is not None:
        raise PackageError(
            f"{where}: {old.relative_to(root).as_posix()!r} is metadata of Zarr 2, expected version 3 only",
            hint=_HINT,
        )
    if not (root / "zarr.json").is_file():
        raise PackageError(f"{where} has no zarr.json, expected a Zarr group", hint=_HINT)
    for path in sorted(root.rglob("zarr.json")):
        folder = path.parent
        name = folder.relative_to(root).as_posix()
        document = _document(path, f"{where}, {name}/zarr.json")
        _check_document(document, folder, f"{where}, {name}/zarr.json")
        for child, inner in _consolidated(document):
            check_name(child, f"{where}, {name}/zarr.json")
            _check_document(inner, folder / child, f"{where}, {name}/zarr.json, {printable(child)!r}")


def _document(path: Path, what: str) -> Any:
    if path.stat().st_size > MAX_JSON:
        raise PackageError(f"{what} has {path.stat().st_size:,} bytes, expected less", hint=_HINT)
    return load_json(path.read_bytes(), what)


def _consolidated(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    inline = document.get("consolidated_metadata")
    if isinstance(inline, dict) and isinstance(inline.get("metadata"), dict):
        yield from inline["metadata"].items()


def _check_document(document: Any, folder: Path, what: str) -> None:
    _expect(isinstance(document, dict), what, "is no object", "a Zarr document")
    _expect(document.get("zarr_format") == 3, what, "is not of Zarr version 3", "zarr_format 3")
    kind = document.get("node_type")
    _expect(kind in ("array", "group"), what, f"is a {kind!r}", "an array or a group")
    attributes = document.get("attributes", {})
    _expect(isinstance(attributes, dict), what, "has attributes that are no object", "an object")
    if kind == "array":
        _check_array(document, folder, what)


def _check_array(document: Mapping[str, Any], folder: Path, what: str) -> None:
    shape = _lengths(document.get("shape"), what, "shape", least=0)
    grid = document.get("chunk_grid")
    regular = isinstance(grid, dict) and grid.get("name") == "regular"
    _expect(regular, what, f"has the chunk grid {grid!r:.80}", "a regular one")
    assert isinstance(grid, dict)
    chunks = _lengths((grid.get("configuration") or {}).get("chunk_shape"), what, "chunks", least=1)
    _expect(len(chunks) == len(shape), what, f"has chunks {chunks} of shape {shape}", "as many dims")
    _expect(not document.get("storage_transformers"), what, "has storage transformers", "none")
    _check_codecs(document.get("codecs"), what)
    size = _item_bytes(document.get("data_type"), what)
    chunk_bytes = math.prod(chunks) * size
    _expect(chunk_bytes <= MAX_CHUNK, what, f"has chunks of {chunks}", "less than 2 GiB in each")
    wanted = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    present = sum(p.is_file() and p.name != "zarr.json" for p in folder.rglob("*"))
    _expect(
        (wanted - present) * chunk_bytes <= MAX_UNWRITTEN,
        what,
        f"has {present} chunks",
        f"{wanted}, as its shape {shape} needs",
    )


def _lengths(value: Any, what: str, word: str, *, least: int) -> tuple[int, ...]:
    good = isinstance(value, list) and all(type(n) is int and n >= least for n in value)
    _expect(good, what, f"has the {word} {value!r:.80}", "a list of lengths")
    return tuple(value)


def _check_codecs(codecs: Any, what: str) -> None:
    _expect(isinstance(codecs, list) and len(codecs) > 0, what, f"has {codecs!r:.80}", "codecs")
    for codec in codecs:
        named = codec if isinstance(codec, dict) else {"name": codec}
        name = named.get("name")
        _expect(
            isinstance(name, str) and name in CODECS,
            what,
            f"names the codec {name!r:.80}",
            f"one of {', '.join(sorted(CODECS))}",
        )
        if name == "sharding_indexed":
            inner = named.get("configuration") or {}
            _expect(isinstance(inner, dict), what, "has a shard without configuration", "one")
            for key in ("codecs", "index_codecs"):
                _check_codecs(inner.get(key), what)


def _item_bytes(data_type: Any, what: str) -> int:
    if isinstance(data_type, str) and data_type in TYPES:
        return TYPES[data_type]
    named = data_type if isinstance(data_type, dict) else {}
    known = named.get("name") in _NAMED
    _expect(known, what, f"has the data type {data_type!r:.80}", "numbers or text")
    length = (named.get("configuration") or {}).get("length_bytes", 8)
    _expect(type(length) is int and 0 < length < 2**20, what, "has values of odd length", "bytes")
    return int(length)


def _expect(holds: bool, what: str, found: str, expected: str) -> None:
    if not holds:
        raise PackageError(f"{what} {printable(found)}, expected {expected}", hint=_HINT)
