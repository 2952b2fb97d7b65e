"""Zarr data of a stranger: looked at before zarr sees them.

Zarr imports whatever codec a document names; some codecs unpickle what they read, and arrays of the older
format may name filters that do. Therefore only metadata of version 3 with codecs and data types of a short
list are let through. Chunks that are missing would be read as fill values, and a document of a few bytes may
declare an array of any size: both are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emcube.errors import PackageError, StoreError
from emcube.package.chunks import Grid, Inner, check_chunks
from emcube.package.chunks import expect as _expect
from emcube.package.names import check_name, printable
from emcube.store import check_links

__all__ = ["check_store", "load_json"]

IN_SHARDS = frozenset({"blosc", "bytes", "crc32c", "transpose"})
"""Codecs of chunks in a shard: of these none unpacks to more than 2 GiB, whatever the chunk says."""

CODECS = IN_SHARDS | {"sharding_indexed", "vlen-utf8", "zstd"}
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

MAX_JSON = 16 * 2**20
"""Bytes of a document: Python objects made of one take some fifty times as much."""

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
        raise PackageError(
            f"{what} is nested too deeply, expected a few levels", hint=_HINT
        ) from None
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
        todo += [(child, depth + 1) for child in inside if isinstance(child, dict | list)]
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
        large arrays, declares chunks of absurd size, or holds a symbolic link that leads out of it.
    """
    try:
        check_links(root)
    except StoreError as error:
        raise PackageError(f"{where}: {printable(error)}", hint=_HINT) from None
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


def _document(path: Path, what: str) -> Any:
    if path.stat().st_size > MAX_JSON:
        raise PackageError(
            f"{what} has {path.stat().st_size:,} bytes, expected at most {MAX_JSON:,}", hint=_HINT
        )
    return load_json(path.read_bytes(), what)


def _check_document(document: Any, folder: Path, what: str) -> None:
    """Check the metadata of a node, and the copies of others' that it holds (and these, in turn)."""
    _expect(isinstance(document, dict), what, "is no object", "a Zarr document")
    _expect(document.get("zarr_format") == 3, what, "is not of Zarr version 3", "zarr_format 3")
    kind = document.get("node_type")
    _expect(kind in ("array", "group"), what, f"is a {kind!r}", "an array or a group")
    attributes = document.get("attributes", {})
    _expect(isinstance(attributes, dict), what, "has attributes that are no object", "an object")
    if kind == "array":
        _check_array(document, folder, what)
    copies = document.get("consolidated_metadata")
    inner = copies.get("metadata") if isinstance(copies, dict) else None
    _expect(copies is None or isinstance(inner, dict), what, "has copies that are none", "objects")
    for child, copy in (inner or {}).items():
        check_name(child, what)
        _check_document(copy, folder / child, f"{what}, {printable(child)!r}")
    if inner:  # groups within have empty ones
        _check_copies(inner, folder, what)


def _check_copies(copies: Mapping[str, Any], folder: Path, what: str) -> None:
    """Refuse copies that are not what they are copies of: readers differ in which of them they believe."""
    there = {p.parent.relative_to(folder).as_posix() for p in folder.rglob("zarr.json")} - {"."}
    odd = next(iter(sorted(there ^ set(copies))), None)
    _expect(odd is None, what, f"has {odd!r} in its copies or in its folders alone", "it in both")
    for child, copy in copies.items():
        own = _document(folder / child / "zarr.json", f"{what}, {printable(child)!r}")
        same = isinstance(own, dict) and _alone(own) == _alone(copy)
        _expect(same, what, f"has a copy of {child!r} that says something else", "the same")


def _alone(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document without its copies of others, which are checked on their own."""
    return {key: value for key, value in document.items() if key != "consolidated_metadata"}


def _check_array(document: Mapping[str, Any], folder: Path, what: str) -> None:
    shape = _lengths(document.get("shape"), what, "shape", least=0)
    grid = document.get("chunk_grid")
    regular = isinstance(grid, dict) and grid.get("name") == "regular"
    _expect(regular, what, f"has the chunk grid {grid!r:.80}", "a regular one")
    assert isinstance(grid, dict)
    chunks = _lengths((grid.get("configuration") or {}).get("chunk_shape"), what, "chunks", least=1)
    _expect(
        len(chunks) == len(shape), what, f"has chunks {chunks} of shape {shape}", "as many dims"
    )
    _expect(not document.get("storage_transformers"), what, "has storage transformers", "none")
    names = _check_codecs(document.get("codecs"), what, CODECS)
    size = _item_bytes(document.get("data_type"), what)
    chunk_bytes = math.prod(chunks) * size
    _expect(chunk_bytes <= MAX_CHUNK, what, f"has chunks of {chunks}", "less than 2 GiB in each")
    key = _key_encoding(document.get("chunk_key_encoding"), what)
    inner = _inner_chunks(document["codecs"], chunks, what) if "sharding_indexed" in names else None
    check_chunks(folder, Grid(shape, chunks, size, tuple(names), key, inner), what)


def _key_encoding(given: Any, what: str) -> tuple[str, str]:
    """Name and separator of the encoding of chunks' names."""
    named = {"name": given} if isinstance(given, str) else given
    named = named if isinstance(named, dict) else {}
    name = named.get("name")
    own = {"default": "/", "v2": "."}
    _expect(name in own, what, f"names its chunks by {given!r:.80}", "by default or v2")
    configuration = named.get("configuration") or {}
    _expect(isinstance(configuration, dict), what, "has odd names of chunks", "an object")
    separator = configuration.get("separator", own[str(name)])
    _expect(
        separator in ("/", "."), what, f"has the separator {separator!r:.80}", "a slash or a dot"
    )
    return str(name), str(separator)


def _inner_chunks(codecs: list[Any], shard: tuple[int, ...], what: str) -> Inner:
    """How chunks lie in shards, which emcube writes one way only."""
    _expect(len(codecs) == 1, what, "has codecs around its shards", "none")
    known = codecs[0].get("configuration") or {}
    chunks = _lengths(known.get("chunk_shape"), what, "chunks of shards", least=1)
    whole = len(chunks) == len(shard) and all(
        n % c == 0 for n, c in zip(shard, chunks, strict=True)
    )
    _expect(whole, what, f"has chunks {chunks} in shards of {shard}", "whole ones")
    index = _check_codecs(known.get("index_codecs"), what, IN_SHARDS)
    _expect(
        index in (["bytes"], ["bytes", "crc32c"]),
        what,
        f"packs its index by {index}",
        "plain bytes",
    )
    place = known.get("index_location", "end")
    _expect(place in ("start", "end"), what, f"has its index at {place!r:.80}", "start or end")
    names = _check_codecs(known.get("codecs"), what, IN_SHARDS)
    return Inner(chunks, tuple(names), place == "end", "crc32c" in index)


def _lengths(value: Any, what: str, word: str, *, least: int) -> tuple[int, ...]:
    good = isinstance(value, list) and all(type(n) is int and n >= least for n in value)
    _expect(good, what, f"has the {word} {value!r:.80}", "a list of lengths")
    return tuple(value)


def _check_codecs(codecs: Any, what: str, known: frozenset[str]) -> list[str]:
    """Names of codecs, all of them known."""
    _expect(isinstance(codecs, list) and len(codecs) > 0, what, f"has {codecs!r:.80}", "codecs")
    names: list[str] = []
    for codec in codecs:
        named = codec if isinstance(codec, dict) else {"name": codec}
        name = named.get("name")
        _expect(
            isinstance(name, str) and name in known,
            what,
            f"names the codec {name!r:.80}",
            f"one of {', '.join(sorted(known))}",
        )
        if name == "sharding_indexed":
            inner = named.get("configuration") or {}
            _expect(isinstance(inner, dict), what, "has a shard without configuration", "one")
            for key in ("codecs", "index_codecs"):
                _check_codecs(inner.get(key), what, IN_SHARDS)
        names.append(str(name))
    return names


def _item_bytes(data_type: Any, what: str) -> int:
    if isinstance(data_type, str) and data_type in TYPES:
        return TYPES[data_type]
    named = data_type if isinstance(data_type, dict) else {}
    known = named.get("name") in _NAMED
    _expect(known, what, f"has the data type {data_type!r:.80}", "numbers or text")
    length = (named.get("configuration") or {}).get("length_bytes", 8)
    _expect(type(length) is int and 0 < length < 2**20, what, "has values of odd length", "bytes")
    return int(length)
