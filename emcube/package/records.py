"""Compare what two results of one recipe say beside their numbers: dims, units, records of the steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from emcube.package.compare import EXACT, TOLERANCES, Difference
from emcube.package.names import printable

if TYPE_CHECKING:
    import xarray as xr

    from emcube.results import Result

__all__ = ["NOT_COMPARED", "compare_records"]

NOT_COMPARED = frozenset({"emcube", "seconds", "started", "finished"})
"""What no second run can confirm: times. The marker holds digests of the values, which are compared."""

_CHOSEN = frozenset(
    {
        *("parameters", "seed", "method", "on", "features", "trivial_first"),
        *("n_components", "metadata"),
    }
)
"""What hangs on recipe and data alone, and so is the same on every stack. Of the others numbers have the
widest tolerance of their step there, and counts of iterations and sentences are told only.
"""

_PROVENANCE = ("cube", "seeds", "drawn_seeds")

ANY = math.inf


def compare_records(published: Result, again: Result, *, metadata: bool) -> list[Difference]:
    """Compare dims, attributes of variables and coordinates, and the attributes of every step.

    Parameters
    ----------
    published, again : Result
        Complete ones.
    metadata : bool
        Whether what they say of the data (title, elements) has to agree; data that come another way than
        they came then may say it otherwise, and then it is told only.

    Returns
    -------
    list of Difference
        One for each record, identical or not. Times are left out.
    """
    found: list[Difference] = []
    for key in _PROVENANCE:
        first, second = (r.provenance.get(key) for r in (published, again))
        found += _leaves(f"provenance: {key}", first, second, EXACT, EXACT)
    found += _names(
        "the result", set(map(str, published.tree.attrs)), set(map(str, again.tree.attrs))
    )
    for node in [n for n in ("input", *published.steps) if n in again.tree.children]:
        one, two = (r.tree.children[node].to_dataset() for r in (published, again))
        verb = str(one.attrs["emcube"]["verb"])
        found += _of_node(node, one.attrs, two.attrs, verb)
        for name in sorted({*map(str, one.variables), *map(str, two.variables)}):
            found += _of_variable(f"{node}/{name}", one, two, name)
    return found if metadata else [replace(d, advisory=True) if _of_data(d) else d for d in found]


def _of_data(record: Difference) -> bool:
    """Whether it says what the data are, and not what was done with them."""
    return record.name.partition(": ")[2].partition(".")[0] == "metadata"


def _names(what: str, first: set[str], second: set[str]) -> Iterator[Difference]:
    same = first == second
    remark = "" if same else f"{sorted(second - first)} in place of {sorted(first - second)}"
    yield _difference(f"{what}: names of attributes", same, EXACT, remark)


def _of_node(
    node: str, first: Mapping[Any, Any], second: Mapping[Any, Any], verb: str
) -> Iterator[Difference]:
    widest = max(TOLERANCES.get(verb, {}).values(), default=EXACT)
    for key in sorted(map(str, {*first, *second} - NOT_COMPARED)):
        exact = key in _CHOSEN or (key == "noise" and isinstance(first.get(key), str))
        numbers, others = (EXACT, EXACT) if exact else (widest, ANY)
        one, two = first.get(key, _NONE), second.get(key, _NONE)
        yield from _leaves(f"{node}: {key}", one, two, numbers, others)


def _of_variable(
    name: str, first: xr.Dataset, second: xr.Dataset, variable: str
) -> Iterator[Difference]:
    if variable not in first.variables or variable not in second.variables:
        missing = "missing" if variable in first.variables else "not in the published result"
        yield _difference(name, False, EXACT, missing)
        return
    one, two = first[variable], second[variable]
    yield from _leaves(f"{name}: dims", list(one.dims), list(two.dims), EXACT, EXACT)
    # What is a coordinate in one and a variable in the other is read in another way.
    yield from _leaves(
        f"{name}: coordinate", variable in first.coords, variable in second.coords, EXACT, EXACT
    )
    for key in sorted(map(str, {*one.attrs, *two.attrs})):
        first_value, second_value = one.attrs.get(key, _NONE), two.attrs.get(key, _NONE)
        yield from _leaves(f"{name}: {key}", first_value, second_value, EXACT, EXACT)


_NONE = "nothing"


def _leaves(
    name: str, first: Any, second: Any, numbers: float, others: float
) -> Iterator[Difference]:
    """Compare plain values part by part, so that the part that differs has a name."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in sorted(map(str, {*first, *second})):
            one, two = first.get(key, _NONE), second.get(key, _NONE)
            yield from _leaves(f"{name}.{key}", one, two, numbers, others)
        return
    if type(first) is float and isinstance(second, int | float) and not isinstance(second, bool):
        same = first == second or (first != first and second != second)
        largest = max(abs(first), abs(second))
        apart = 0.0 if same else abs(first - second) / largest
        remark = "" if same else f"{second!r} in place of {first!r}"
        yield Difference(name, same, apart if apart == apart else ANY, numbers, remark)
        return
    same = type(first) is type(second) and _plain(first) == _plain(second)
    remark = "" if same else f"{printable(second, 60)} in place of {printable(first, 60)}"
    yield _difference(name, same, others, remark)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _difference(name: str, same: bool, allowed: float, remark: str) -> Difference:
    return Difference(name, same, 0.0 if same else ANY, allowed, remark)
