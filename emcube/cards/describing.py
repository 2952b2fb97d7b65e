"""What a file, store, catalog, result or package holds, as plain data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.cards.text import about_metadata
from emcube.errors import AmbiguousSignalError, EmcubeError

if TYPE_CHECKING:
    import xarray as xr

    from emcube.catalog import Catalog, Entry
    from emcube.models.n_components import NComponentsEstimate
    from emcube.results import Result

__all__ = [
    "catalog_search",
    "describe",
    "describe_catalog",
    "describe_cube",
    "describe_entry",
    "describe_estimate",
    "describe_result",
    "stored",
]

_ENTRY = re.compile(r"\.ya?ml:[^\\:]+$", re.IGNORECASE)
_CATALOG = re.compile(r"\.ya?ml(:[^\\:]+)?$", re.IGNORECASE)


def describe(what: str, *, name: str | None = None) -> dict[str, Any]:
    """Describe whatever an address points at; reads metadata only.

    Parameters
    ----------
    what : str
        Result, catalog, package, or anything that `emcube.open` takes.
    name : str, optional
        Which signal, where a file holds several.

    Returns
    -------
    dict
        JSON values; ``kind`` is "result", "catalog", "package", "cube" or "signals" (a file with several).
    """
    if _holds_result(what):
        from emcube.results import open_result

        return describe_result(open_result(what, allow_incomplete=True))
    path = Path(what)
    if path.suffix.lower() == ".zip" and path.is_file() and _holds_package(path):
        from emcube.package.rendering import describe_package

        return describe_package(path)
    if path.suffix.lower() in (".yaml", ".yml") and not _ENTRY.search(what):
        return describe_catalog(what)
    from emcube.sources import open as open_cube

    try:
        cube = open_cube(what, name=name)
    except AmbiguousSignalError:
        return describe_signals(what)
    return {
        "kind": "cube",
        "address": what,
        **describe_cube(cube),
        **stored(cube, name),
        **_counted(cube),
    }


def _holds_result(what: str) -> bool:
    from emcube.addresses import is_url, local_part
    from emcube.results.remote import read_remote_root
    from emcube.results.tree import read_root

    if _CATALOG.search(what):
        return False
    place = local_part(what)
    return (read_remote_root(place) if is_url(place) else read_root(Path(place))) is not None


def _holds_package(path: Path) -> bool:
    """Whether a ZIP file says that it is a package; whether it is a good one is another question."""
    import zipfile

    from emcube.package.names import DESCRIPTION

    try:
        with zipfile.ZipFile(path) as archive:
            return DESCRIPTION in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def describe_cube(cube: xr.DataArray) -> dict[str, Any]:
    """Describe a cube in hand."""
    import numpy as np

    from emcube.cube import nav_dims, sig_dims

    axes = {}
    for dim in map(str, cube.dims):
        values = np.asarray(cube[dim].values) if dim in cube.coords else np.arange(cube.sizes[dim])
        ends = values[[0, -1]].tolist() if values.size else ["none", "none"]
        units = cube[dim].attrs.get("units", "1") if dim in cube.coords else "1"
        axes[dim] = {"size": cube.sizes[dim], "from": ends[0], "to": ends[1], "units": units}
    name = cube.attrs.get("name") or cube.name
    return {
        "name": None if name is None else str(name),
        "dims": list(map(str, cube.dims)),
        "nav_dims": list(nav_dims(cube)),
        "sig_dims": list(sig_dims(cube)),
        "shape": list(cube.shape),
        "dtype": str(cube.dtype),
        "units": cube.attrs.get("units", "1"),
        "nbytes": int(cube.nbytes),
        "axes": axes,
        "companions": [str(k) for k in cube.coords if k not in cube.dims and cube[k].ndim > 0],
        "metadata": dict(cube.attrs.get("metadata") or {}),
    }


def describe_signals(what: str) -> dict[str, Any]:
    """Describe a file with several signals."""
    from emcube.sources import signals

    return {
        "kind": "signals",
        "address": what,
        "signals": [
            {
                "name": s.name,
                "kind": s.kind,
                "dims": list(s.dims),
                "shape": list(s.shape),
                "dtype": str(s.dtype),
            }
            for s in signals(what)
        ],
    }


_NOTHING_KNOWN = {"dims": [], "shape": [], "dtype": "", "units": "1"}
"""Of the cube of a result whose provenance does not tell: others write such."""


def describe_result(result: Result) -> dict[str, Any]:
    """Describe a result, complete or not."""
    provenance = result.provenance
    steps = {}
    for step in result.steps:
        node = result[step]
        attributes = dict(node.attrs)
        marker = attributes.pop("emcube")
        steps[step] = {
            "verb": marker["verb"],
            "complete": bool(marker.get("complete")),
            "variables": {str(k): list(v.shape) for k, v in node.data_vars.items()},
            **attributes,
        }
    return {
        "kind": "result",
        "address": result.location,
        "run_id": result.run_id,
        "complete": result.complete,
        "progress": None if result.complete else result.progress,
        "cube": provenance.get("cube") or _NOTHING_KNOWN,
        "input": provenance.get("input") or {},
        "seeds": provenance.get("seeds") or {},
        "metadata": result.metadata,
        "emcube": ((provenance.get("stack") or {}).get("libraries") or {}).get("emcube"),
        "started": provenance.get("started"),
        "finished": provenance.get("finished"),
        "steps": steps,
    }


def describe_estimate(found: NComponentsEstimate) -> dict[str, Any]:
    """Describe an estimate of the number of components."""
    return {
        "kind": "estimate",
        "n_components": found.n_components,
        "reason": found.reason,
        "method": found.method,
        "trusted": bool(found.trusted),
        "margin": {"above_percent": found.margin.above, "below_percent": found.margin.below},
        "threshold": float(found.threshold),
        "singular_values": found.curve["singular_value"].values.tolist(),
        "alternatives": dict(found.alternatives),
        "noise": dict(found.noise),
    }


def _counted(cube: xr.DataArray) -> dict[str, Any]:
    """Mean counts of a pixel, where a store's quicklook says it."""
    from emcube.cards.quicklooks import counts_per_pixel

    found = counts_per_pixel(cube)
    return {} if found is None else {"counts_per_pixel": found}


def stored(cube: xr.DataArray, name: str | None) -> dict[str, Any]:
    """What a store says beside its cube."""
    from emcube.store import info, is_store

    place = cube.encoding.get("source")
    if place is None or name is not None or not is_store(place):
        return {}
    found = info(place)
    return {
        "digest": found.digest,
        "layout": found.layout,
        "chunks": list(found.chunks),
        "shards": None if found.shards is None else list(found.shards),
        "stored_bytes": found.stored_bytes,
        "companions": list(found.companions),
    }


# ------------------------------------------------------------------------------------------ catalogs


def catalog_search(
    catalog: str | Path, *, facets: Sequence[str] = (), **conditions: Any
) -> dict[str, Any]:
    """Describe the entries of a catalog that match.

    Parameters
    ----------
    catalog : str or Path
    facets : sequence of str
        Fields whose values are counted among the entries found.
    **conditions
        As for `emcube.catalog.Catalog.search`.
    """
    from emcube.catalog import open_catalog

    found = open_catalog(catalog).search(**conditions)
    card = _catalog(found)
    if facets:
        card["facets"] = found.facets(*facets)
    return card


def describe_catalog(what: str | Path) -> dict[str, Any]:
    """Describe a catalog and its entries; opens none of them."""
    from emcube.catalog import open_catalog

    return _catalog(open_catalog(what))


def describe_entry(catalog: str | Path, name: str) -> dict[str, Any]:
    """Describe an entry: what the catalog says, and the form of its data where they are there.

    Parameters
    ----------
    catalog : str or Path
    name : str

    Returns
    -------
    dict
        ``kind`` is "cube" where the data open, else "entry"; ``entry`` is what the catalog says. What the
        catalog says wins over what the data say of themselves. ``unopened`` tells why data that are
        there do not open.

    Raises
    ------
    CatalogError
        The catalog has no such entry.
    """
    from emcube.catalog import open_catalog

    entry = open_catalog(catalog)[name]
    known = _known(entry)
    address = f"{catalog}:{name}"
    bare = {**known, "kind": "entry", "address": address, "entry": known}
    if not known.get("available") or entry.kind == "catalog":
        return bare
    try:
        card = describe(address)
    except EmcubeError as error:
        # The catalog knows what it knows, whatever became of the data.
        return {**bare, "unopened": str(error)}
    own = card.get("metadata") or {}
    return {**card, "metadata": {**own, **about_metadata(known["metadata"])}, "entry": known}


def _known(entry: Entry) -> dict[str, Any]:
    """What the catalog says of an entry, and of one that was fetched what its store says beside."""
    known = entry.to_json()
    is_file = known.get("kind") == "file" and known.get("available")
    if not is_file or "://" not in known["store"] or known["metadata"].get("shape"):
        return known
    stored = entry.fetched
    from emcube.catalog.describe import describe_store

    try:
        own = describe_store(str(stored))
    except EmcubeError:
        # Removed or damaged since: opening it says so, a listing still lists.
        return known
    return {**known, "metadata": {**own, **known["metadata"]}}


def _catalog(found: Catalog) -> dict[str, Any]:
    from emcube.store import to_json

    entries = {name: to_json(_known(entry), name) for name, entry in found.items()}
    card: dict[str, Any] = {"kind": "catalog", "address": str(found.path), "entries": entries}
    return {**card, "problems": list(found.problems)} if found.problems else card
