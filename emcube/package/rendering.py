"""Packages and what came of reproducing them, as text for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.package.archive import digest_of, open_archive
from emcube.package.description import MAX_BYTES, parse_description
from emcube.package.names import DESCRIPTION, printable

if TYPE_CHECKING:
    from emcube.package.compare import Difference
    from emcube.package.reproducing import Reproduction

__all__ = ["describe_package", "render_package", "render_reproduction"]


def render_reproduction(found: Reproduction) -> str:
    """Write the verdict, what differs of the stack, and a table of differences."""
    n = len(found.differences)
    rows = [
        f"{found.crate}: {_verdict(found)}",
        f"  input      {found.source}",
        f"  result     {found.result.path}",
        f"  run        {_short(found.result.run_id)}"
        + ("" if found.same_run else f", published as {_short(found.published_run_id)}"),
        f"  identical  {sum(d.identical for d in found.differences)} of {n} variables, bit by bit",
        f"  records    {_share(found.records)} dims, units and attributes of steps the same, times left out",
        *_texts(found),
    ]
    if not found.sealed:
        rows.append(
            "  no seal    another program packed this archive: its manifest alone vouches for its files"
        )
    if found.stack:
        rows.append("  another stack: bits may differ, tolerances hold")
        rows += [
            f"    {key}: {_brief(here)} in place of {_brief(there)}"
            for key, (there, here) in found.stack.items()
        ]
    differing = [d for d in (*found.differences, *found.records) if not d.identical]
    return "\n".join(rows + (["", *_table(differing)] if differing else []))


def _verdict(found: Reproduction) -> str:
    if not found.ok:
        return "NOT REPRODUCED"
    said = "reproduced, the same bits" if found.identical else "reproduced within tolerances"
    if any(d.advisory and not d.identical for d in found.records):
        said += "; what is said of the data differs"
    return said if found.sealed else f"{said}; the archive has no seal of emcube publish"


def _share(differences: Sequence[Difference]) -> str:
    return f"{sum(d.identical for d in differences)} of {len(differences)}"


def _texts(found: Reproduction) -> list[str]:
    """Which files were written again and compared, and which nobody can confirm."""
    by: dict[str, list[str]] = {}
    for name, state in found.texts.items():
        by.setdefault(state, []).append(name)
    rows = [
        f"  {'texts' if not i else '':<9}  {s}: {', '.join(n)}"
        for i, (s, n) in enumerate(by.items())
    ]
    claims = "; ".join(f"{name} ({text})" for name, text in found.claims.items())
    return [*rows, f"  claims     not compared: {claims}"] if claims else rows


def _table(differing: list[Difference]) -> list[str]:
    names = [printable(d.name, 60) for d in differing]
    width = max(len("variable"), *map(len, names))
    rows = [f"  {'variable':<{width}}  {'difference':>10}  {'tolerance':>10}"]
    for name, d in zip(names, differing, strict=True):
        end = "  told only" if d.advisory else "" if d.within else "  outside"
        remark = f"  ({printable(d.remark, 80)})" if d.remark else ""
        rows.append(
            f"  {name:<{width}}  {_number(d.difference):>10}  {_allowed(d):>10}{end}{remark}"
        )
    return rows


def _number(value: float) -> str:
    return "none" if math.isinf(value) else f"{value:.2g}"


def _allowed(difference: Difference) -> str:
    return (
        "any"
        if difference.advisory or math.isinf(difference.tolerance)
        else _number(difference.tolerance)
    )


def _short(run_id: str) -> str:
    return printable(run_id).removeprefix("sha256:")[:12]


def _brief(text: str) -> str:
    return printable(text, 60)


def describe_package(path: Path) -> dict[str, Any]:
    """Describe a package that was written here; reads its description and its list of files.

    Parameters
    ----------
    path : Path

    Raises
    ------
    PackageError
        It is none.
    """
    with open_archive(path) as archive:
        found = parse_description(archive.read(DESCRIPTION, MAX_BYTES), path)
        n_files, n_bytes = len(archive.files), archive.n_bytes
    return {
        "kind": "package",
        "address": str(path),
        "title": found.title,
        "run_id": found.run_id,
        "files": n_files,
        "bytes": n_bytes,
        "sha256": digest_of(path),
        "input": {
            "digest": found.input.digest,
            "included": found.input.included is not None,
            "addresses": [address.url for address in found.input.addresses],
        },
    }


def render_package(card: dict[str, Any]) -> str:
    """Write the description of a package as text for people."""
    from emcube.engine import format_bytes

    known = card["input"]
    where = ", ".join(known["addresses"]) or "by digest only: whoever reproduces needs --input"
    return "\n".join(
        [
            f"package {card['address']}: {printable(card['title'])}",
            f"  run     {_short(card['run_id'])}",
            f"  data    {'in the package' if known['included'] else where}",
            f"  files   {card['files']:,}, {format_bytes(card['bytes'])}",
            f"  sha256  {card['sha256']}",
            "",
            f"Run it again: emcube reproduce {card['address']}",
        ]
    )
