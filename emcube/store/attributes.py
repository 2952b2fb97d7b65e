"""Attributes as JSON: what Zarr can keep and every other reader can read."""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from emcube.errors import CubeError

__all__ = ["to_json"]

#: Arrays in attributes beyond this belong into variables.
_MAX_VALUES = 100_000


def to_json(value: Any, where: str = "attrs") -> Any:
    """Turn a value into JSON: NumPy scalars and arrays into numbers and lists, dates into ISO text.

    NaN and infinities become null, because JSON has no word for them; bytes become text, or hexadecimal
    where they are none; complex numbers become ``[real, imaginary]``.

    Parameters
    ----------
    value : object
    where : str
        Path of the value, for messages.

    Raises
    ------
    CubeError
        A value is of a kind that JSON cannot hold; names the key.
    """
    if isinstance(value, enum.Enum):
        return to_json(value.value, where)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_json(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, np.ndarray) and value.size > _MAX_VALUES:
        raise CubeError(
            f"{where}: an array of {value.size} values is too large for an attribute "
            f"(at most {_MAX_VALUES})",
            hint="make it a coordinate of the cube, or remove it",
        )
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return to_json(value.tolist(), where)
    return _other(value, where)


def _other(value: Any, where: str) -> Any:
    if isinstance(value, complex):
        return [to_json(value.real, where), to_json(value.imag, where)]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, PurePath):
        return str(value)
    raise CubeError(
        f"{where}: got a {type(value).__name__}, expected what JSON can hold "
        "(text, numbers, lists, dicts)",
        hint=f"remove it or convert it: cube.{where} = ...",
    )
