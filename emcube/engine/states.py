"""States of algorithms as bytes, without pickle, and fingerprints of what they belong to.

A state is made of arrays, numbers, texts, tuples, lists, dicts, None and dataclasses of emcube. Bytes read
back give the same bits in the same memory layout: sums over an array may depend on the order of its axes in
memory. Nothing that is read can run code: dataclasses are found by name among those of emcube, and filled
field by field.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import math
import types
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcube.errors import EngineError, StoreError

__all__ = ["UnknownKindError", "bytes_of", "copied", "fingerprint", "pack", "unpack"]

MAGIC = b"emcube checkpoint 1\n"
"""First bytes of a file; the number is the version of the layout."""

_KINDS = "biufcSUmM"
"""Kinds of dtypes whose values are plain bytes."""

_HOMES = ("emcube.engine", "emcube.models", "emcube.kernels")
"""Packages whose dataclasses may be in states; importing their modules does nothing else."""

_MOST_GAPS = 4
"""An array that is a view of more than this many times its own bytes is not kept."""


class UnknownKindError(EngineError):
    """A value is of a kind that is not kept."""


# ------------------------------------------------------------------------------------------- to bytes


def pack(header: Mapping[str, Any], value: Any) -> list[bytes | memoryview]:
    """Buffers of a file: magic, digest of all that follows, header, structure, arrays.

    Parameters
    ----------
    header : mapping
        JSON values.
    value
        The state.

    Raises
    ------
    UnknownKindError
        The state holds something of another kind.
    """
    arrays: list[NDArray[Any]] = []
    tree = _encode(value, arrays)
    text = json.dumps({"header": dict(header), "tree": tree}, allow_nan=False).encode()
    body: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text, *map(_raw, arrays)]
    digest = hashlib.blake2b(digest_size=32)
    for part in body:
        digest.update(part)
    return [MAGIC, digest.digest(), *body]


def _encode(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """JSON value that stands for `value`; arrays are put aside."""
    if value is None or isinstance(value, bool | str):
        return value
    if type(value) is int:
        return {"int": str(value)}
    if type(value) is float:
        return {"float": value.hex()}
    if isinstance(value, np.generic):
        return {"scalar": _encode_array(np.asarray(value), arrays)}
    if type(value) is np.ndarray:
        return _encode_array(value, arrays)
    if type(value) in (tuple, list):
        return {type(value).__name__: [_encode(v, arrays) for v in value]}
    if type(value) is dict:
        return {"dict": [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"object": _name_of(type(value)), "fields": _encode_fields(value, arrays)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [_encode(v, arrays) for v in value]
        return {"named": _name_of(type(value)), "parts": parts}
    raise UnknownKindError(
        f"a state holds a {type(value).__module__}.{type(value).__qualname__}",
        hint="keep arrays, numbers, tuples, lists, dicts or dataclasses of emcube in states",
    )


def _encode_fields(value: Any, arrays: list[NDArray[Any]]) -> dict[str, Any]:
    return {f.name: _encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}


def _encode_array(array: NDArray[Any], arrays: list[NDArray[Any]]) -> Any:
    if array.dtype.kind not in _KINDS or not array.itemsize:
        raise UnknownKindError(f"a state holds an array of {array.dtype}")
    extent = _extent(array.shape, array.strides, array.itemsize)
    if extent[1] - extent[0] > _MOST_GAPS * max(array.nbytes, 1024):
        raise UnknownKindError("a state holds a small view of a large array", hint="copy it")
    arrays.append(array)
    return {
        "array": array.dtype.str,
        "shape": list(array.shape),
        "strides": list(array.strides),
        "writeable": bool(array.flags.writeable),
    }


def _raw(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _extent(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """First and last byte of an array in memory, counted from its first value."""
    if 0 in shape:
        return 0, 0
    ends = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    return sum(e for e in ends if e < 0), sum(e for e in ends if e > 0) + itemsize


def _name_of(cls: type) -> str:
    name = f"{cls.__module__}:{cls.__qualname__}"
    if not _is_at_home(cls.__module__) or "<" in name:
        raise UnknownKindError(
            f"a state holds a {name}, which is no class of {', '.join(_HOMES)}",
            hint="keep arrays, numbers, tuples, lists or dicts in states",
        )
    return name


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == "emcube"


def _is_at_home(module: str) -> bool:
    """Whether the classes of a module may be in states."""
    return ".".join(module.split(".")[:2]) in _HOMES


# ----------------------------------------------------------------------------------------- from bytes


def unpack(data: bytes) -> tuple[dict[str, Any], Any]:
    """Header and state of a file.

    Raises
    ------
    StoreError
        The bytes are not those that were written, or not of this kind.
    """
    start = len(MAGIC) + 32
    if data[: len(MAGIC)] != MAGIC or len(data) < start + 8:
        raise StoreError("it is cut short, or no checkpoint of this version of emcube")
    body = memoryview(data)[start:]
    if hashlib.blake2b(body, digest_size=32).digest() != data[len(MAGIC) : start]:
        raise StoreError("its bytes are not those that were written")
    length = int.from_bytes(body[:8], "little")
    try:
        document = json.loads(bytes(body[8 : 8 + length]))
        reader = _Decoder(body[8 + length :])
        header, value = document["header"], reader.decode(document["tree"])
        if not isinstance(header, dict):
            raise TypeError(f"its header is a {type(header).__name__}, expected a dict")
    except Exception as error:
        # Bytes from outside: whatever they make fail (memory, depth, numbers) is their fault.
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise StoreError(f"it is not one of this emcube ({what})") from error
    return header, value


class _Decoder:
    """Builds a state; takes the arrays' bytes one after the other."""

    def __init__(self, data: memoryview) -> None:
        self.data = data

    def decode(self, node: Any) -> Any:
        if node is None or isinstance(node, bool | str):
            return node
        if "array" in node:
            return self._array(node)
        if "object" in node:
            return self._object(node["object"], node["fields"])
        if "named" in node:
            return self._named(node["named"], node["parts"])
        ((kind, content),) = node.items()
        if kind == "int":
            return int(content)
        if kind == "float":
            return float.fromhex(content)
        if kind == "scalar":
            return self._array(content)[()]
        if kind in ("tuple", "list"):
            parts = [self.decode(part) for part in content]
            return tuple(parts) if kind == "tuple" else parts
        if kind == "dict":
            return {self.decode(k): self.decode(v) for k, v in content}
        raise ValueError(f"unknown kind {kind!r}")

    def _array(self, node: Mapping[str, Any]) -> NDArray[Any]:
        dtype = np.dtype(node["array"])
        if dtype.kind not in _KINDS or not dtype.itemsize:
            raise ValueError(f"arrays of {dtype} are not read")
        shape, strides = _integers(node["shape"]), _integers(node["strides"])
        n_bytes = math.prod(shape) * dtype.itemsize
        if min((*shape, 0)) < 0 or n_bytes > len(self.data):
            raise ValueError("an array is longer than the file")
        values = np.zeros(shape, dtype)
        if n_bytes:
            values = np.frombuffer(self.data[:n_bytes], dtype).reshape(shape)
        self.data = self.data[n_bytes:]
        array = _laid_out(values, strides)
        array.flags.writeable = bool(node["writeable"])
        return array

    def _object(self, name: str, fields: Mapping[str, Any]) -> Any:
        found: Any = _class(name)
        if not hasattr(found, "__dataclass_fields__"):
            raise ValueError(f"{name} is no dataclass")
        wanted = [f.name for f in dataclasses.fields(found)]
        if wanted != list(fields):
            raise ValueError(f"{name} has other fields now")
        made: Any = object.__new__(found)
        for key, node in fields.items():
            object.__setattr__(made, key, self.decode(node))
        return made

    def _named(self, name: str, parts: list[Any]) -> Any:
        cls = _class(name)
        if not issubclass(cls, tuple) or len(parts) != len(cls._fields):
            raise ValueError(f"{name} is no named tuple of {len(parts)}")
        return cls._make([self.decode(part) for part in parts])


def _integers(node: Any) -> tuple[int, ...]:
    if not isinstance(node, list) or not all(type(n) is int for n in node):
        raise ValueError("a shape or strides are no integers")
    return tuple(node)


def _laid_out(values: NDArray[Any], strides: tuple[int, ...]) -> NDArray[Any]:
    """Copy of an array whose axes lie in memory as `strides` say."""
    first, last = _extent(values.shape, strides, values.itemsize)
    if last - first > _MOST_GAPS * max(values.nbytes, 1024):
        raise ValueError("an array is spread over too much memory")
    if values.size == 0 or strides == values.strides:
        return values.copy()
    room = np.zeros(last - first, np.uint8)
    made: NDArray[Any] = np.ndarray(
        values.shape, values.dtype, buffer=room.data, offset=-first, strides=strides
    )
    made[...] = values
    return made


def _class(name: str) -> Any:
    """A dataclass or named tuple that may be in states, by name."""
    module, _, path = name.partition(":")
    if not _is_at_home(module):
        raise ValueError(f"{name} is no class of {', '.join(_HOMES)}")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not isinstance(found, type) or f"{found.__module__}:{found.__qualname__}" != name:
        raise ValueError(f"{name} is no class of that module")
    if not dataclasses.is_dataclass(found) and not hasattr(found, "_fields"):
        raise ValueError(f"{name} is no dataclass")
    return found


# ---------------------------------------------------------------------------------- sizes and copies


def bytes_of(value: Any) -> int:
    """Bytes of the arrays in a state."""
    return sum(a.nbytes for a in _arrays(value))


def _arrays(value: Any) -> Iterator[NDArray[Any]]:
    from emcube.engine.memory import arrays_of

    return arrays_of(value)


def copied(value: Any) -> Any:
    """A state whose arrays nobody else holds, in the same memory layout.

    Raises
    ------
    UnknownKindError
        It holds something of a kind that is not kept.
    """
    arrays: list[NDArray[Any]] = []
    tree = _encode(value, arrays)
    raw = b"".join(_raw(a) for a in arrays)
    return _Decoder(memoryview(raw)).decode(tree)


# --------------------------------------------------------------------------------------- fingerprints


def fingerprint(*values: Any) -> str:
    """Digest of values: equal for equal values in any process.

    Raises
    ------
    UnknownKindError
        A value is of a kind without a name that other processes know (a lambda, an open file).
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(values):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """Bytes that stand for a value, one after the other."""
    if value is None or isinstance(value, bool | int | float | str | bytes | complex | PurePath):
        yield _text(type(value).__name__, repr(value))
    elif isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in _KINDS:
            raise UnknownKindError(f"an array of {array.dtype} has no fingerprint")
        yield _text("array", array.dtype.str, *array.shape)
        yield _raw(array)
    elif isinstance(value, tuple | list):
        yield _text(type(value).__name__, len(value))
        for part in value:
            yield from _parts(part)
    elif isinstance(value, Mapping):
        yield _text("mapping", len(value))
        for key, part in value.items():
            yield from _parts(key)
            yield from _parts(part)
    elif isinstance(value, slice | range | np.dtype):
        yield _text(type(value).__name__, str(value))
    elif isinstance(value, type | types.FunctionType):
        yield from _named(value)
    elif dataclasses.is_dataclass(value):
        yield from _named(type(value))
        for field in dataclasses.fields(value):
            yield _text(field.name)
            yield from _parts(getattr(value, field.name))
    else:
        yield from _instance(value)


def _instance(value: Any) -> Iterator[Any]:
    """A plain object of emcube, by its class and attributes."""
    cls = type(value)
    if not _is_ours(cls.__module__) or not hasattr(value, "__dict__"):
        raise UnknownKindError(f"a {cls.__module__}.{cls.__qualname__} has no fingerprint")
    yield from _named(cls)
    yield from _parts(dict(sorted(vars(value).items())))


def _named(thing: Any) -> Iterator[bytes]:
    name = f"{thing.__module__}:{thing.__qualname__}"
    if "<" in name:
        raise UnknownKindError(f"{name} has no name that other processes know")
    yield _text("name", name)


def _text(*words: Any) -> bytes:
    return "\0".join((*map(str, words), "")).encode()
