"""Pages of a package for people: README.md and the preview that RO-Crate asks for."""

from __future__ import annotations

import html
from collections.abc import Mapping

from emcube.package import names
from emcube.package.crate import Publication
from emcube.package.people import Creator

__all__ = ["preview_page", "readme_page"]

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{line-height:1.2}td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}"
    "th{font-weight:600;white-space:nowrap}td{overflow-wrap:anywhere}code,pre{font-size:.9em}"
    "pre{background:#f4f4f4;padding:.6rem;overflow-x:auto}"
)

Texts = Mapping[str, tuple[str, str, str]]


def _where_the_data_are(about: Publication) -> str:
    if about.input.included is not None:
        return f"in this package ({names.INPUT})"
    if about.input.addresses:
        return ", ".join(address.url for address in about.input.addresses)
    return "not in this package, and no address is known: give them with --input"


def _rows(about: Publication, texts: Texts) -> list[tuple[str, str]]:
    rows = [(name, text) for name, (_, text, _) in texts.items()]
    if not about.entry:
        rows = [row for row in rows if row[0] != names.ENTRY]
    rows.append((f"{names.RESULT}/", "The result: a Zarr 3 group that xarray.open_datatree reads."))
    if about.input.included is not None:
        rows.append((f"{names.INPUT}/", "The data: a Zarr 3 group that xarray.open_zarr reads."))
    rows.append((names.CRATE, "All of this as linked data (RO-Crate 1.2)."))
    return rows


def readme_page(about: Publication, texts: Texts) -> bytes:
    """Write README.md."""
    people = ", ".join(c.name for c in about.creators) or "not stated"
    rows = "\n".join(f"- `{name}`: {text}" for name, text in _rows(about, texts))
    return f"""\
# {about.title}

{about.description}

- Creators: {people}
- Date: {about.date}
- Terms of use: {about.license.name}
- Data: {_where_the_data_are(about)}
- Digest of the data: `{about.input.digest}`
- Identity of the run: `{about.run_id}`

Begin with `{names.REPORT}`, which shows the result; `{names.METHODS}` is text for a paper.

## Run it again

    pip install "emcube[all]=={about.version}"      # or all versions: pip install -r {names.LOCK}
    emcube reproduce PACKAGE.zip

compares the digest of the data, runs `{names.RECIPE}`, and compares every number with
`{names.RESULT}/`: the same bits on the same libraries and processor type, within stated tolerances
elsewhere. Exit status 3 tells of a difference.
`sha256sum --check {names.MANIFEST}` checks the files without emcube.

## Files

{rows}
""".encode()


def preview_page(about: Publication, texts: Texts) -> bytes:
    """Write the preview: one page without scripts, with links to the files beside it."""
    facts = [
        ("Creators", ", ".join(_person(c) for c in about.creators) or "not stated"),
        ("Date", html.escape(about.date)),
        ("Terms of use", _link(about.license.id, about.license.name)),
        ("Data", _data(about)),
        ("Digest of the data", f"<code>{html.escape(about.input.digest)}</code>"),
        ("Identity of the run", f"<code>{html.escape(about.run_id)}</code>"),
        ("Software", html.escape(f"emcube {about.version}, Python {about.python}")),
    ]
    table = "\n".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in facts)
    files = "\n".join(
        f"<tr><td>{_link(name, name)}</td><td>{html.escape(text)}</td></tr>"
        for name, text in _rows(about, texts)
    )
    title = html.escape(about.title)
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>
<body>
<h1>{title}</h1>
<p>{html.escape(about.description)}</p>
<p>{_link(names.REPORT, "Report with figures")} | {_link(names.METHODS, "Methods paragraph")} |
{_link(names.BIBLIOGRAPHY, "References")}</p>
<table>
{table}
</table>
<h2>Run it again</h2>
<pre>pip install "emcube[all]=={html.escape(about.version)}"
emcube reproduce PACKAGE.zip</pre>
<h2>Files</h2>
<table>
{files}
</table>
</body>
</html>
""".encode()


def _link(target: str | None, text: str) -> str:
    shown = html.escape(text)
    return shown if target is None else f'<a href="{html.escape(target)}">{shown}</a>'


def _person(creator: Creator) -> str:
    name = _link(creator.id if creator.orcid else None, creator.name)
    return name + (f" ({html.escape(creator.affiliation)})" if creator.affiliation else "")


def _data(about: Publication) -> str:
    if about.input.included is not None:
        return _link(f"{names.INPUT}/", "in this package")
    if about.input.addresses:
        return ", ".join(_link(address.url, address.url) for address in about.input.addresses)
    return html.escape(_where_the_data_are(about))
