"""`emcube catalog init | add | crawl | show | search | verify | remove | fetch | export`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emcube.cli.output import Json, emit_json, progress, show_card

if TYPE_CHECKING:
    from emcube.catalog.verify import EntryReport

app = typer.Typer(
    help="Find, keep, check and fetch data, in Intake 2 catalogs.", no_args_is_help=True
)

DIFFERENCE = 3

#: Arguments of the functions behind the verbs, which are no metadata.
_TAKEN = frozenset(
    {
        "path", "store", "folder", "name", "overwrite", "settle", "checksums", "prune", "dry_run", "progress",
        "text", "any_elements", "no_elements", "nested", "facets", "catalog",
    }
)  # fmt: skip

Catalog = Annotated[str, typer.Argument(help="The catalog: a YAML file, or its URL.")]
Own = Annotated[Path, typer.Argument(help="The catalog, a YAML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Metadata to say or correct: --set license=CC-BY-4.0 --set 'elements=Ni Cr'; may be repeated.",
    ),
]


def _settings(given: list[str] | None) -> dict[str, Any]:
    """Metadata from ``key=value``; values are YAML, so that numbers and lists can be said."""
    import yaml

    found: dict[str, Any] = {}
    for one in given or ():
        key, equals, text = one.partition("=")
        _check_key(key, equals, one, "--set")
        try:
            value = yaml.load(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError:
            value = text
        found[key.strip()] = _number_or(value)
    return found


def _check_key(key: str, equals: str, given: str, option: str) -> None:
    if not equals or not key.strip().isidentifier():
        raise typer.BadParameter(f"got {given!r}, expected KEY=VALUE", param_hint=option)
    if key.strip() in _TAKEN:
        raise typer.BadParameter(
            f"got {given!r}, and {key.strip()!r} is no field of metadata", param_hint=option
        )


def _number_or(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


@app.command("init")
def init(
    catalog: Own,
    title: Annotated[str, typer.Option(help="What the catalog is of.")] = "",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Make an empty catalog."""
    from emcube.cards import describe_catalog
    from emcube.catalog import create

    create(catalog, **{"title": title, **_settings(settings)})
    show_card(describe_catalog(catalog), as_json=as_json)


@app.command("add")
def add(
    catalog: Annotated[
        Path, typer.Argument(help="The catalog, a YAML file; made where it is missing.")
    ],
    store: Annotated[
        str, typer.Argument(help="Cube store, instrument file, URL, or another catalog.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the entry; default: the data's own.")
    ] = None,
    settings: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an entry of this name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add data to a catalog; their metadata come from the data."""
    from emcube.cards import describe_catalog
    from emcube.catalog import add as add_entry

    add_entry(catalog, store, name=name, overwrite=overwrite, **_settings(settings))
    show_card(describe_catalog(catalog), as_json=as_json)


@app.command("crawl")
def crawl(
    catalog: Annotated[
        Path, typer.Argument(help="The catalog, a YAML file; made where it is missing.")
    ],
    folder: Annotated[Path, typer.Argument(help="Walked with all its folders.")],
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds without a change after which a file is finished.")
    ] = 60.0,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Read each file once, for its sha256.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove crawled entries whose data are gone.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Add what lies in a folder: headers only, copies recognised; run it every night."""
    from emcube.catalog.crawl import crawl as walk

    with progress():
        report = walk(
            catalog,
            folder,
            settle=settle,
            checksums=checksums,
            prune=prune,
            dry_run=dry_run,
            **_settings(settings),
        )
    found = report.to_json()
    if as_json:
        emit_json(found)
        return
    told = [f"{len(found[key])} {key}" for key in ("added", "updated", "moved")]
    told.append(f"{report.unchanged} unchanged")
    told += [
        f"{len(found[key])} {key}"
        for key in ("duplicates", "busy", "unreadable", "gone", "removed")
        if found[key]
    ]
    typer.echo(f"{catalog}: {', '.join(told)}" + (" (nothing was written)" if dry_run else ""))
    for path, name in report.duplicates.items():
        typer.echo(f"  copy of {name}: {path}")
    if report.recent:
        typer.echo(
            f"  {len(report.recent)} left out, which changed less than {settle:g} s ago: if they are "
            f"finished (a copy), crawl with --settle 0, else again in {_duration(settle)}"
        )
    for path in sorted(set(report.busy) - set(report.recent)):
        typer.echo(f"  still being written: {path}")
    for path, why in report.unreadable.items():
        typer.echo(f"  not read: {why if path in why else f'{path}: {why}'}")
    for name in report.gone:
        typer.echo(f"  {'removed' if name in report.removed else 'gone'}: {name}")


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return "a minute" if minutes == 1 else f"{minutes} minutes"


@app.command("show")
def show(
    catalog: Catalog,
    name: Annotated[str | None, typer.Argument(help="One entry; all where it is left out.")] = None,
    as_json: Json = False,
) -> None:
    """Show the entries of a catalog, or one of them."""
    from emcube.cards import describe_catalog, describe_entry

    show_card(describe_entry(catalog, name) if name else describe_catalog(catalog), as_json=as_json)


@app.command("search")
def search(
    catalog: Catalog,
    text: Annotated[str | None, typer.Argument(help="Words in name or metadata.")] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(help="EDS (EDX, XEDS), EELS, 4D-STEM, ...; any of several."),
    ] = None,
    element: Annotated[
        list[str] | None, typer.Option(help="A chemical element; all of several.")
    ] = None,
    any_element: Annotated[
        list[str] | None, typer.Option("--any-element", help="At least one of several.")
    ] = None,
    no_element: Annotated[
        list[str] | None, typer.Option("--no-element", help="None of several.")
    ] = None,
    beam_energy: Annotated[
        str | None, typer.Option("--beam-energy", metavar="KEV", help="As 200, 80:300, or :30.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Any other field: session=A12, counts_per_pixel=10:, acquired=2026-01:2026-06.",
        ),
    ] = None,
    facet: Annotated[
        list[str] | None, typer.Option(help="Count the values of a field, as instrument.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find entries by their words and metadata."""
    from emcube.cards import catalog_search

    card = catalog_search(
        catalog,
        facets=facet or [],
        text=text,
        modality=modality or None,
        elements=element or [],
        any_elements=any_element or [],
        no_elements=no_element or [],
        beam_energy=None if beam_energy is None else _range(beam_energy),
        **_conditions(where, {"modality", "elements", "beam_energy"}),
    )
    show_card(card, as_json=as_json)


def _conditions(where: list[str] | None, options: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in where or ():
        key, equals, text = one.partition("=")
        _check_key(key, equals, one, "--where")
        if key.strip() in options:
            raise typer.BadParameter(
                f"got {one!r}: {key.strip()} has an option of its own", param_hint="--where"
            )
        # DOIs, addresses and digests hold colons, too: a range has numbers or dates at its ends.
        low, colon, high = text.partition(":")
        ends = [end for end in (low, high) if end]
        is_range = colon and ends and all(end[0].isdigit() or end[0] in "+-." for end in ends)
        found[key.strip()] = _range(text) if is_range else _number_or(text)
    return found


def _range(text: str) -> Any:
    low, colon, high = text.partition(":")
    if not colon:
        return _number_or(text)
    return (_number_or(low) if low else None, _number_or(high) if high else None)


@app.command("verify")
def verify(
    catalog: Catalog,
    names: Annotated[list[str] | None, typer.Argument(help="Entries; default: all.")] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read all bytes, and compute digests anew.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Tell of each entry what it lacks, as where entries are named."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Open each entry, compare it with the catalog, and tell what it lacks of the FAIR principles.

    Differences are told entry by entry; what is lacking is counted by principle, unless entries are named.
    Exit status 3 where data and catalog disagree.
    """
    from emcube.catalog import open_catalog
    from emcube.catalog.verify import verify_catalog

    with progress():
        reports = verify_catalog(open_catalog(catalog), names or (), deep=deep)
    different = [report for report in reports if not report.ok]
    if as_json:
        emit_json(
            {"catalog": catalog, "ok": not different, "entries": [r.to_json() for r in reports]}
        )
    else:
        from emcube.cards import visible

        in_full = verbose or bool(names)
        lines = [line for report in reports for line in _verified(report, in_full)]
        for line in lines if in_full else [*lines, *_lacking(reports, catalog)]:
            typer.echo(visible(line))
    if different:
        raise typer.Exit(DIFFERENCE)


def _verified(report: EntryReport, in_full: bool) -> list[str]:
    """What was found about an entry: a line, its differences, and in full also what it lacks."""
    state = "DIFFERENT" if not report.ok else "same" if report.opened else "not compared"
    lacking = f", lacks {', '.join(dict.fromkeys(f.principle for f in report.missing))}"
    told = [*report.differences]
    if in_full:
        told += [*report.unchecked, *map(str, report.missing)]
    head = f"{report.name}: {state}{lacking if report.missing else ', FAIR'}"
    return [head, *(f"  {line}" for line in told)]


def _lacking(reports: list[EntryReport], catalog: str) -> list[str]:
    """What entries lack, each thing once with the number of entries; in the order of the principles."""
    from emcube.catalog.fair import PRINCIPLES

    order = list(PRINCIPLES)
    counts: Counter[tuple[int, str]] = Counter()
    for report in reports:
        counts.update((-1, f"not compared: {reason}") for reason in report.unchecked)
        counts.update((order.index(f.principle), str(f)) for f in report.missing)
    if not counts:
        return []
    rows = [
        f"  {n} of {len(reports)}  {text}"
        for (_, text), n in sorted(
            counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1])
        )
    ]
    return [
        "entries that lack something:",
        *rows,
        f"  entry by entry: emcube catalog verify {catalog} --verbose, or with the entry's name",
    ]


@app.command("remove")
def remove(
    catalog: Own,
    names: Annotated[list[str], typer.Argument(help="Entries; their data stay.")],
    as_json: Json = False,
) -> None:
    """Remove entries from a catalog; the data stay where they are."""
    from emcube.cards import describe_catalog
    from emcube.catalog import remove as remove_entries

    remove_entries(catalog, *names)
    show_card(describe_catalog(catalog), as_json=as_json)


@app.command("fetch")
def fetch(
    catalog: Catalog,
    names: Annotated[list[str], typer.Argument(help="Entries to bring here.")],
    accept_digest: Annotated[
        bool,
        typer.Option(
            "--accept-digest", help="Take data whose digest nobody has checked as they come."
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where they go; default: EMCUBE_CACHE, else the user's cache."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download data into the cache, compare the digest, and ingest; goes on where it stopped."""
    from emcube.catalog import open_catalog
    from emcube.catalog.fetch import fetch as bring

    opened = open_catalog(catalog)
    fetched = []
    for entry in [opened[name] for name in names]:
        with progress():
            found = bring(entry, accept_digest=accept_digest, cache=cache)
        fetched.append(found)
        if not as_json:
            how = "fetched" if found.downloaded else "was here"
            unchecked = f"{found.checksum} (not checked by anybody)"
            held = f"{found.stated} as stated" if found.stated else unchecked
            typer.echo(f"{found.name}: {how}, {held}")
            typer.echo(f"  {found.store}")
            if found.recorded:
                typer.echo(
                    f"  recorded in {found.recorded} as accepted on first fetch: whoever fetches next is "
                    "compared with it"
                )
            if found.not_recorded:
                typer.echo(
                    f"  only this cache compares from now on, the catalog does not: {found.not_recorded}"
                )
    if as_json:
        emit_json({"fetched": [found.to_json() for found in fetched]})


@app.command("export")
def export(
    catalog: Catalog,
    out: Annotated[Path, typer.Argument(help="A folder for html, a file for the others.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="html: a static page; schema.org: JSON-LD for search engines; "
            "datacite: JSON for repositories.",
        ),
    ] = "html",
    name: Annotated[str | None, typer.Option(help="One entry; default: all.")] = None,
    thumbnails: Annotated[
        bool, typer.Option(help="Show total counts, of data that are here.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are no earlier export, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a catalog as a web page, or its metadata in the words of schema.org or DataCite."""
    if to not in ("html", "schema.org", "datacite"):
        raise typer.BadParameter(
            f"got {to!r}, expected html, schema.org or datacite", param_hint="--to"
        )
    from emcube.catalog import open_catalog
    from emcube.catalog.exports import to_datacite, to_schema_org, write_json
    from emcube.catalog.page import write_page

    opened = open_catalog(catalog)
    if to == "html":
        written = write_page(opened, out, thumbnails=thumbnails, overwrite=overwrite)
    else:
        if to == "schema.org":
            document: Any = to_schema_org(opened[name] if name else opened)
        else:
            chosen = [opened[name]] if name else [e for e in opened.values() if e.kind != "catalog"]
            described = [to_datacite(entry) for entry in chosen]
            document = described[0] if name else described
        written = write_json(document, out, opened, overwrite=overwrite)
    if as_json:
        emit_json({"written": str(written), "to": to})
    else:
        typer.echo(str(written))
