"""What a file, store, catalog or result holds, as plain data and as a card of a few lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from emcube.errors import AmbiguousSignalError, EmcubeError

if TYPE_CHECKING:
    import xarray as xr

    from emcube.catalog import Catalog, Entry
    from emcube.models.n_components import NComponentsEstimate
    from emcube.results import Result

__all__ = [
    "catalog_search",
    "describe",
    "describe_entry",
    "describe_estimate",
    "render",
    "visible",
]

_ENTRY = re.compile(r"\.ya?ml:[^\\:]+$", re.IGNORECASE)
_CATALOG = re.compile(r"\.ya?ml(:[^\\:]+)?$", re.IGNORECASE)


def describe(what: str, *, name: str | None = None) -> dict[str, Any]:
    """Describe whatever an address points at; reads metadata only.

    Parameters
    ----------
    what : str
        Result, catalog, or anything that `emcube.open` takes.
    name : str, optional
        Which signal, where a file holds several.

    Returns
    -------
    dict
        JSON values; ``kind`` is "result", "catalog", "cube" or "signals" (a file with several).
    """
    if _holds_result(what):
        from emcube.results import open_result

        return describe_result(open_result(what, allow_incomplete=True))
    path = Path(what)
    if path.suffix.lower() in (".yaml", ".yml") and not _ENTRY.search(what):
        return describe_catalog(what)
    from emcube.sources import open as open_cube

    try:
        cube = open_cube(what, name=name)
    except AmbiguousSignalError:
        return describe_signals(what)
    return {"kind": "cube", "address": what, **describe_cube(cube), **_stored(cube, name)}


def _holds_result(what: str) -> bool:
    from emcube.addresses import is_url, local_part
    from emcube.results.remote import read_remote_root
    from emcube.results.tree import read_root

    if _CATALOG.search(what):
        return False
    place = local_part(what)
    return (read_remote_root(place) if is_url(place) else read_root(Path(place))) is not None


def describe_cube(cube: xr.DataArray) -> dict[str, Any]:
    """Describe a cube in hand."""
    import numpy as np

    from emcube.cube import nav_dims, sig_dims

    axes = {}
    for dim in map(str, cube.dims):
        values = np.asarray(cube[dim].values) if dim in cube.coords else np.arange(cube.sizes[dim])
        ends = values[[0, -1]].tolist()
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
        "cube": provenance["cube"],
        "input": provenance["input"],
        "seeds": provenance["seeds"],
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


def _stored(cube: xr.DataArray, name: str | None) -> dict[str, Any]:
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
    return {**card, "metadata": {**own, **_about(known["metadata"])}, "entry": known}


#: Fields of an entry that say again what the axes of its cube say, or nothing to people.
_FORM = frozenset(
    {"dims", "sig_dims", "shape", "dtype", "units", "axes", "nbytes", "crawled", "extra"}
)


def _about(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key not in _FORM}


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


# --------------------------------------------------------------------------------------------- cards


def render(card: Mapping[str, Any]) -> str:
    """Write a description as text for people."""
    writers = {
        "cube": _cube_card,
        "signals": _signals_card,
        "result": _result_card,
        "estimate": _estimate_card,
        "catalog": _catalog_card,
        "entry": _entry_card,
    }
    return "\n".join(map(visible, writers[card["kind"]](card)))


def visible(line: str) -> str:
    """A line without characters that would steer a terminal: files and catalogs come from strangers."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def _cube_card(card: Mapping[str, Any]) -> list[str]:
    shape = ", ".join(f"{d} {n}" for d, n in zip(card["dims"], card["shape"], strict=True))
    # An entry has a name and a title of its own.
    title = "data" if "entry" in card else card["name"] or "cube"
    rows = [
        f"{title}: ({shape}) {card['dtype']} {card['units']}, {_bytes(card['nbytes'])}"
        + (f", {_bytes(card['stored_bytes'])} on disk" if card.get("stored_bytes") else "")
        + (" as events" if card.get("layout") == "events" else "")
    ]
    width = max((len(d) for d in card["dims"]), default=0)
    for dim, axis in card["axes"].items():
        kind = "signal" if dim in card["sig_dims"] else "navigation"
        units = "" if axis["units"] == "1" else f" {axis['units']}"
        rows.append(
            f"  {dim:<{width}}  {axis['size']:>6}  {_number(axis['from'])} to "
            f"{_number(axis['to'])}{units} ({kind})"
        )
    if "entry" in card:
        rows = [_entry_title(card), f"  address: {card['entry']['store']}", *_indented(rows)]
        rows += _about_rows(card["metadata"])
    else:
        rows += [f"  {key}: {text}" for key, text in _metadata_rows(card["metadata"])]
    if card["companions"]:
        rows.append(f"  companions: {', '.join(card['companions'])}")
    if card.get("digest") and card["digest"] != card["metadata"].get("digest"):
        rows.append(f"  digest: {card['digest']}")
    return rows


def _metadata_rows(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in metadata.items():
        if key in ("extra", "source", "detector"):
            continue
        word, _, unit = key.rpartition("_")
        if word and unit in ("keV", "deg", "s", "eV"):
            rows.append((word.replace("_", " "), f"{_number(value)} {unit}"))
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((key, text))
    source = metadata.get("source") or {}
    if source.get("file"):
        rows.append(("source", f"{source['file']} ({source.get('format') or 'unknown format'})"))
    return rows


def _signals_card(card: Mapping[str, Any]) -> list[str]:
    rows = [f"{card['address']} holds {len(card['signals'])} signals; pick one with --name"]
    width = max(len(s["name"]) for s in card["signals"])
    return rows + [
        f"  {s['name']:<{width}}  {s['kind']}: "
        f"({', '.join(f'{d} {n}' for d, n in zip(s['dims'], s['shape'], strict=True))}) {s['dtype']}"
        for s in card["signals"]
    ]


def _result_card(card: Mapping[str, Any]) -> list[str]:
    cube = card["cube"]
    shape = ", ".join(f"{d} {n}" for d, n in zip(cube["dims"], cube["shape"], strict=True))
    state = "" if card["complete"] else ", INCOMPLETE: the same run goes on from here"
    rows = [
        f"result {card['address']} (run {card['run_id'].removeprefix('sha256:')[:12]}{state})",
        f"  of ({shape}) {cube['dtype']} {cube['units']}",
    ]
    if card.get("progress"):
        from emcube.results.unfinished import progress_text

        rows.append(f"  {progress_text(card['progress'])}")
    width = max((len(s) for s in card["steps"]), default=0)
    for name, step in card["steps"].items():
        seconds = "" if step.get("seconds") is None else f" ({step['seconds']:.1f} s)"
        rows.append(f"  {name:<{width}}  {_step_text(step)}{seconds}")
    return rows


def _step_text(step: Mapping[str, Any]) -> str:
    if not step["complete"]:
        return "not finished"
    verb = step["verb"]
    if verb == "estimate_n_components":
        number = step["n_components"]
        return f"{'no number' if number is None else number}: {step['reason']}"
    sizes = step["variables"]
    if verb == "uncertainty":
        return f"of {sizes['components_std'][0]} components"
    if verb == "diagnostics":
        return "what is left of the data"
    if verb == "kmeans":
        text = f"{sizes['cluster_centers'][0]} clusters"
    else:
        text = f"{sizes['components'][0]} components"
    if "n_iter" in step:
        passes = f"{step['n_iter']} {'pass' if step['n_iter'] == 1 else 'passes'}"
        text += f", {'converged after' if step['converged'] else 'not converged in'} {passes}"
    return text


def _estimate_card(card: Mapping[str, Any]) -> list[str]:
    number = card["n_components"]
    margin = card["margin"]
    rows = [
        f"number of components: {'no number' if number is None else number}",
        f"  reason: {card['reason']}",
    ]
    ends = [
        f"{text} {margin[key]:.1f} %"
        for key, text in (
            ("above_percent", "last component above the threshold by"),
            ("below_percent", "next value below by"),
        )
        if margin[key] == margin[key]
    ]
    if ends:
        rows.append(f"  margin: {', '.join(ends)}")
    others = {k: v for k, v in card["alternatives"].items() if k != card["method"]}
    if others:
        told = ", ".join(f"{k} {'no number' if v is None else v}" for k, v in others.items())
        rows.append(f"  other methods: {told}")
    return rows


def _catalog_card(card: Mapping[str, Any]) -> list[str]:
    entries = card["entries"]
    rows = [f"{card['address']}: {len(entries)} {'entry' if len(entries) == 1 else 'entries'}"]
    width = max((len(n) for n in entries), default=0)
    for name, entry in entries.items():
        rows.append(f"  {name:<{width}}  {', '.join(_entry_parts(entry))}")
    for key, counts in card.get("facets", {}).items():
        rows.append(f"  {key}: " + (", ".join(f"{v} {n}" for v, n in counts.items()) or "none"))
    rows += [f"  not looked into: {problem}" for problem in card.get("problems", ())]
    return rows


def _entry_parts(entry: Mapping[str, Any]) -> list[str]:
    known = entry["metadata"]
    parts = [str(known[key]) for key in ("title", "modality") if known.get(key)]
    if isinstance(known.get("elements"), list) and known["elements"]:
        parts.append(" ".join(map(str, known["elements"])))
    if isinstance(known.get("shape"), list) and known["shape"]:
        parts.append(" x ".join(map(str, known["shape"])))
    if entry.get("kind") == "catalog":
        parts.append(f"a catalog: {entry['store']}")
    if entry.get("refused"):
        parts.append(f"not opened: {entry['refused']}")
    elif not entry["available"]:
        parts.append(_not_there(entry))
    return parts


def _not_there(entry: Mapping[str, Any]) -> str:
    known = entry["metadata"]
    if entry.get("kind") != "file" or "://" not in entry["store"]:
        return f"not there: {known.get('get') or entry['store']}"
    size = known.get("size")
    stated = _bytes(size) if isinstance(size, int) else known.get("size_about") or "size unknown"
    status = {"unchecked": ", digest unchecked", "accepted": ", digest accepted on first fetch"}
    return f"to be fetched ({stated}{status.get(str(known.get('checksum_status')), '')})"


def _entry_card(card: Mapping[str, Any]) -> list[str]:
    entry = card["entry"]
    rows = [f"{card['address']}: {', '.join(_entry_parts(entry))}"]
    if entry.get("store"):
        rows.append(f"  address: {entry['store']}")
    known = entry["metadata"]
    if known.get("dims") and known.get("shape"):
        shape = ", ".join(f"{d} {n}" for d, n in zip(known["dims"], known["shape"], strict=False))
        rows.append(f"  ({shape}) {known.get('dtype') or ''} {known.get('units') or ''}".rstrip())
    rows += _about_rows(_about(known))
    if card.get("unopened"):
        rows.append(f"  does not open: {card['unopened']}")
    return rows + _to_fetch(card, entry)


def _to_fetch(card: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    """The command that brings the data of an entry here."""
    is_file = entry.get("kind") == "file" and "://" in entry["store"]
    if not is_file or entry["available"]:
        return []
    place = str(card["address"]).removesuffix(f":{entry['name']}")
    known = entry["metadata"]
    status = known.get("checksum_status", "published" if known.get("checksum") else "unchecked")
    accept = " --accept-digest" if status == "unchecked" else ""
    return [f"  fetch it with: emcube catalog fetch {quote(place)} {quote(entry['name'])}{accept}"]


def _entry_title(card: Mapping[str, Any]) -> str:
    title = card["entry"]["metadata"].get("title")
    return f"{card['address']}: {title}" if title else str(card["address"])


def _indented(rows: Sequence[str]) -> list[str]:
    return [f"  {row}" for row in rows]


def _about_rows(metadata: Mapping[str, Any]) -> list[str]:
    """What an entry says beside its form, a line a field."""
    rows = []
    status = metadata.get("checksum_status")
    for key, value in metadata.items():
        if key in ("title", "extra", "source", "detector", "checksum_status"):
            continue
        text = _field_text(key, value)
        if key == "checksum" and status:
            text += f" ({_STATUS.get(str(status), status)})"
        rows.append(f"  {key}: {text}")
    if status and not metadata.get("checksum"):
        rows.append("  checksum: none stated")
    return rows


#: What the states of a checksum mean, for people.
_STATUS = {
    "checked": "checked by whoever made the entry",
    "published": "as the source states it",
    "accepted": "accepted on first fetch",
    "unchecked": "not checked by anybody",
}


def _field_text(key: str, value: Any) -> str:
    if key == "size" and isinstance(value, int):
        return f"{value} bytes ({_bytes(value)})"
    if key == "creators" and isinstance(value, list | tuple):
        return "; ".join(map(_person, value))
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return _plain_text(value)


def _person(one: Any) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    more = [str(one[key]) for key in ("orcid", "affiliation") if one.get(key)]
    return f"{one.get('name', '')} ({', '.join(more)})" if more else str(one.get("name", ""))


def _plain_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_plain_text, value))
    return _number(value)


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _bytes(n: int) -> str:
    from emcube.engine.memory import format_bytes

    return format_bytes(n)
