"""Descriptions as plain text of a few lines, for pipes and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

__all__ = [
    "STATUS",
    "about_metadata",
    "entry_parts",
    "fetch_command",
    "field_text",
    "metadata_rows",
    "number_text",
    "render",
    "step_text",
    "visible",
]


def render(card: Mapping[str, Any]) -> str:
    """Write a description as text for people."""
    writers = {
        "cube": _cube_card,
        "signals": _signals_card,
        "result": _result_card,
        "estimate": _estimate_card,
        "catalog": _catalog_card,
        "entry": _entry_card,
        "package": _package_card,
    }
    return "\n".join(map(visible, writers[card["kind"]](card)))


#: Fields of an entry that say again what the axes of its cube say, or nothing to people.
_FORM = frozenset(
    {"dims", "sig_dims", "shape", "dtype", "units", "axes", "nbytes", "crawled", "extra"}
)


def about_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry says beside the form of its data."""
    return {key: value for key, value in metadata.items() if key not in _FORM}


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
            f"  {dim:<{width}}  {axis['size']:>6}  {number_text(axis['from'])} to "
            f"{number_text(axis['to'])}{units} ({kind})"
        )
    if "entry" in card:
        rows = [_entry_title(card), f"  address: {card['entry']['store']}", *_indented(rows)]
        rows += _about_rows(card["metadata"])
    else:
        rows += [f"  {key}: {text}" for key, text in metadata_rows(card["metadata"])]
    if card.get("counts_per_pixel") is not None and "counts_per_pixel" not in card["metadata"]:
        rows.append(f"  counts per pixel: {number_text(card['counts_per_pixel'])}")
    if card["companions"]:
        rows.append(f"  companions: {', '.join(card['companions'])}")
    if card.get("digest") and card["digest"] != card["metadata"].get("digest"):
        rows.append(f"  digest: {card['digest']}")
    return rows


def metadata_rows(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What metadata say, a field and its text at a time."""
    rows = []
    for key, value in metadata.items():
        if key in ("extra", "source", "detector"):
            continue
        word, _, unit = key.rpartition("_")
        if word and unit in ("keV", "deg", "s", "eV"):
            rows.append((word.replace("_", " "), f"{number_text(value)} {unit}"))
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
        rows.append(f"  {name:<{width}}  {step_text(step)}{seconds}")
    return rows


def step_text(step: Mapping[str, Any]) -> str:
    """What came of a step, in a few words."""
    if not step["complete"]:
        return "not finished"
    verb = step["verb"]
    if verb in ("estimate_n_components", "survey_n_components"):
        number = step["n_components"]
        return f"{'no number' if number is None else number}: {step['reason']}"
    sizes = step["variables"]
    if verb == "cluster_quality":
        return (
            f"silhouette {step['silhouette']:.2f}, agreement of repeats {step['agreement']:.2f} "
            f"(clusters of {step['of']})"
        )
    if verb == "uncertainty":
        return f"of {sizes['components_std'][0]} components"
    if verb == "phase_fractions":
        return f"fractions of {sizes['mean_fraction'][0]} phases in {sizes['n_pixels'][0]} fields"
    if verb == "diagnostics":
        return "what is left of the data"
    if "cluster_centers" in sizes:
        text = f"{sizes['cluster_centers'][0]} clusters"
    elif "components" in sizes:
        text = f"{sizes['components'][0]} components"
    else:
        text = ", ".join(sizes) or "done"
    if "n_iter" in step and "converged" in step:
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
        rows.append(f"  {name:<{width}}  {', '.join(entry_parts(entry))}")
    for key, counts in card.get("facets", {}).items():
        rows.append(f"  {key}: " + (", ".join(f"{v} {n}" for v, n in counts.items()) or "none"))
    rows += [f"  not looked into: {problem}" for problem in card.get("problems", ())]
    return rows


def entry_parts(entry: Mapping[str, Any]) -> list[str]:
    """What an entry is, and whether its data are here."""
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
    rows = [f"{card['address']}: {', '.join(entry_parts(entry))}"]
    if entry.get("store"):
        rows.append(f"  address: {entry['store']}")
    known = entry["metadata"]
    if known.get("dims") and known.get("shape"):
        shape = ", ".join(f"{d} {n}" for d, n in zip(known["dims"], known["shape"], strict=False))
        rows.append(f"  ({shape}) {known.get('dtype') or ''} {known.get('units') or ''}".rstrip())
    rows += _about_rows(about_metadata(known))
    if card.get("unopened"):
        rows.append(f"  does not open: {card['unopened']}")
    fetch = fetch_command(card)
    return [*rows, f"  fetch it with: {fetch}"] if fetch else rows


def fetch_command(card: Mapping[str, Any]) -> str:
    """The command that brings the data of an entry here; empty where there is nothing to bring."""
    entry = card["entry"]
    is_file = entry.get("kind") == "file" and "://" in entry["store"]
    if not is_file or entry["available"]:
        return ""
    place = str(card["address"]).removesuffix(f":{entry['name']}")
    known = entry["metadata"]
    status = known.get("checksum_status", "published" if known.get("checksum") else "unchecked")
    accept = " --accept-digest" if status == "unchecked" else ""
    return f"emcube catalog fetch {quote(place)} {quote(entry['name'])}{accept}"


def _package_card(card: Mapping[str, Any]) -> list[str]:
    from emcube.package.rendering import render_package

    return render_package(dict(card)).split("\n")


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
        text = field_text(key, value)
        if key == "checksum" and status:
            text += f" ({STATUS.get(str(status), status)})"
        rows.append(f"  {key}: {text}")
    if status and not metadata.get("checksum"):
        rows.append("  checksum: none stated")
    return rows


#: What the states of a checksum mean, for people.
STATUS = {
    "checked": "checked by whoever made the entry",
    "published": "as the source states it",
    "accepted": "accepted on first fetch",
    "unchecked": "not checked by anybody",
}


def field_text(key: str, value: Any) -> str:
    """The value of a field of metadata."""
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
    return number_text(value)


def number_text(value: object) -> str:
    """A number in six digits, and anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _bytes(n: int) -> str:
    from emcube.engine.memory import format_bytes

    return format_bytes(n)
