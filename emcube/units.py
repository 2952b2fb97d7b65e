"""Units of measurement: parse, compare, convert and print them.

A thin layer over `pint <https://pint.readthedocs.io>`_, which is imported on first use. Units are plain
strings everywhere else (``"keV"``, ``"nm"``, ``"1/nm"``, ``"counts"``); dimensionless is ``"1"``.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from emcube.errors import UnitsError

if TYPE_CHECKING:
    import pint
    from numpy.typing import ArrayLike, NDArray

    Number = TypeVar("Number", bound=float)

__all__ = ["compatible", "convert", "is_dimensionless", "parse", "pretty"]

# How instrument files and other programs spell "no unit".
_NONE = frozenset(
    {"", "1", "<undefined>", "undefined", "none", "dimensionless", "a.u.", "arb. units"}
)

# Spellings found in instrument files that pint would refuse or, worse, read as something else
# ("px" is a CSS pixel of 0.26 mm to it, "U" is an atomic mass).
_SPELLINGS = {
    "KeV": "keV",
    "kev": "keV",
    "ev": "eV",
    "EV": "eV",
    "µ": "um",
    "μ": "um",
    "micron": "um",
    "microns": "um",
    "MICRONS": "um",
    "A": "angstrom",
    "Å": "angstrom",
    "A^-1": "1/angstrom",
    "1/A": "1/angstrom",
    "px": "pixel",
    "°": "deg",
    "degrees": "deg",
    "Counts": "counts",
    "Seconds": "s",
    "sec": "s",
}

_registry_lock = threading.Lock()


def parse(unit: str | None) -> pint.Unit:
    """Read a unit from its name.

    Parameters
    ----------
    unit : str or None
        Such as ``"keV"``, ``"µm"``, ``"1/nm"``, ``"nm^-1"``, ``"mrad"``, ``"counts"``. ``None``, the empty
        string, ``"1"`` and ``"<undefined>"`` mean dimensionless.

    Returns
    -------
    pint.Unit
        The unit, of emcube's own registry.

    Raises
    ------
    UnitsError
        If the name is not that of a unit.
    """
    return _parse("" if unit is None else str(unit).strip())


def compatible(first: str | None, second: str | None) -> bool:
    """Tell whether two units measure the same kind of quantity.

    Unknown units raise, as in `parse`.
    """
    return bool(parse(first).dimensionality == parse(second).dimensionality)


def is_dimensionless(unit: str | None) -> bool:
    """Tell whether a unit is a pure number. Angles and counts are, as in SI."""
    return bool(parse(unit).dimensionless)


@overload
def convert(value: float, source: str | None, target: str | None) -> float: ...


@overload
def convert(value: ArrayLike, source: str | None, target: str | None) -> Any: ...


def convert(
    value: ArrayLike, source: str | None, target: str | None
) -> float | NDArray[np.float64]:
    """Convert a value from one unit into another.

    Parameters
    ----------
    value : float or array_like
        In `source` units.
    source, target : str or None
        Names of units, as `parse` takes them.

    Returns
    -------
    float or ndarray
        The value in `target` units: a float for a scalar, else a new float64 array.

    Raises
    ------
    UnitsError
        If a name is unknown, or the two measure different things.

    Examples
    --------
    >>> convert(1.74, "keV", "eV")
    1740.0
    """
    start, end = parse(source), parse(target)
    if start.dimensionality != end.dimensionality:
        raise UnitsError(
            f"units do not fit together: got {_quote(source)} ({start.dimensionality}), expected "
            f"something like {_quote(target)} ({end.dimensionality})",
            hint="give the value in a unit of the same kind, or mend the 'units' of the coordinate",
        )
    array = np.asarray(value, dtype=np.float64)
    if start == end:
        result = array.copy()
    else:
        result = np.asarray(_registry().convert(array, start, end), dtype=np.float64)
    return float(result) if result.ndim == 0 else result


def pretty(unit: str | None) -> str:
    """Print a unit as a figure's axis label does: ``"um"`` as ``"µm"``, ``"1/nm"`` as ``"nm⁻¹"``.

    Dimensionless gives the empty string, and what is no known unit is given back as it is: a label is
    no place to refuse.
    """
    text = "" if unit is None else str(unit).strip()
    if text.lower() in _NONE:
        return ""
    if text in _WORDS:
        return _WORDS[text]
    try:
        parsed = parse(text)
    except UnitsError:
        return text
    if not _is_symbolic(parsed):
        return text
    symbol = f"{parsed:~P}"
    return f"{symbol[2:]}⁻¹" if symbol.startswith("1/") and symbol[2:].isalpha() else symbol


# Words that read better than their symbols, or that pint would abbreviate oddly.
_WORDS = {
    "counts": "counts",
    "count": "counts",
    "deg": "°",
    "degree": "°",
    "pixel": "px",
    "px": "px",
}


def _is_symbolic(unit: pint.Unit) -> bool:
    return not any(name in str(unit) for name in ("count", "channel", "pixel"))


def _quote(unit: str | None) -> str:
    return repr(unit or "")


@lru_cache(maxsize=256)
def _parse(text: str) -> pint.Unit:
    registry = _registry()
    if text.lower() in _NONE:
        return registry.dimensionless
    import tokenize

    import pint

    try:
        return registry.parse_units(_SPELLINGS.get(text, text))
    # pint answers nonsense with whatever its tokenizer or parser met first.
    except (
        pint.PintError,
        tokenize.TokenError,
        AssertionError,
        AttributeError,
        KeyError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        raise UnitsError(
            f"unknown unit {text!r}: expected a name such as 'keV', 'nm', 'deg', '1/nm' or 'counts'",
            hint="correct the spelling, or use '1' for a quantity without a unit",
        ) from error


def _registry() -> pint.UnitRegistry[Any]:
    # Building a registry twice would give units that refuse to meet each other.
    with _registry_lock:
        return _build_registry()


@lru_cache(maxsize=1)
def _build_registry() -> pint.UnitRegistry[Any]:
    import pint

    registry: pint.UnitRegistry[Any] = pint.UnitRegistry()
    registry.define("channel = []")
    return registry
