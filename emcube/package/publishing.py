"""Publish a result: gather what belongs to it, and write it as one archive."""

from __future__ import annotations

import datetime as dt
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.errors import InputError, PackageError, StoreError
from emcube.feedback.events import group, working
from emcube.feedback.events import step as tell_step
from emcube.package import names
from emcube.package.addresses import (
    public_input,
    public_metadata,
    public_provenance,
    public_text,
)
from emcube.package.archive import Content, digest_of, size_of, write_archive
from emcube.package.compare import TOLERANCES
from emcube.package.crate import Described, Publication, crate_metadata
from emcube.package.description import FORMAT, Address, Description, PackagedInput
from emcube.package.inputs import (
    Source,
    Wanted,
    addresses,
    as_store,
    find_entry,
    find_source,
    given_addresses,
)
from emcube.package.lock import lock_environment
from emcube.package.manifest import write_manifest
from emcube.package.methods import methods_paragraph, summary
from emcube.package.pages import preview_page, readme_page
from emcube.package.people import Creator, parse_creators, parse_license
from emcube.package.report import report_page
from emcube.package.stores import check_store
from emcube.package.texts import Cited, derived_texts, version_of
from emcube.results import Result, open_result
from emcube.store import to_json
from emcube.store.journal import HIDDEN

if TYPE_CHECKING:
    from emcube.catalog import Entry

__all__ = ["publish"]

_OPENING = ("name", "dim", "values")
_SKIPPED = frozenset({"lock"})
"""Files in the hidden folder of a store that are no part of it."""

TEXTS: dict[str, tuple[str, str, str]] = {
    names.DESCRIPTION: ("Description", "What emcube needs to run it again.", "application/json"),
    names.MANIFEST: ("Manifest", "SHA-256 of every other file.", "text/plain"),
    names.RECIPE: ("Recipe", "The analysis, every default filled in.", "application/yaml"),
    names.ENTRY: ("Catalog entry", "What the catalog says of the data.", "application/json"),
    names.LOCK: ("Environment", "Versions of all libraries of the run.", "text/plain"),
    names.STACK: ("Stack", "What the bits of the result depend on.", "application/json"),
    names.CITATION: ("Software citation", "How to cite emcube.", "application/yaml"),
    names.REPORT: ("Report", "Figures and numbers of every step, as a page.", "text/html"),
    names.METHODS: ("Methods", "The analysis as a paragraph for a paper.", "text/markdown"),
    names.BIBLIOGRAPHY: ("References", "Papers of the methods, as BibTeX.", "text/x-bibtex"),
    names.README: ("Read me", "What this is and how to run it again.", "text/markdown"),
    names.PREVIEW: ("Preview", "This package as a page.", "text/html"),
}
"""Name, text and media type of each file beside the stores."""


def publish(
    result: Result | str | os.PathLike[str],
    crate: str | os.PathLike[str],
    *,
    include_data: bool = False,
    input: Source | None = None,  # noqa: A002
    address: str | Sequence[str] | None = None,
    allow_local_addresses: bool = False,
    title: str | None = None,
    description: str | None = None,
    creators: str | Mapping[str, Any] | Iterable[Any] | None = None,
    license: str | None = None,  # noqa: A002
    date: str | dt.date | None = None,
    figures: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write a result as one archive that anybody can download, read and run again.

    Parameters
    ----------
    result : Result or path
        Complete, and unchanged since it was written.
    crate : path
        The archive, ``crate.zip``.
    include_data : bool
        Put the analysed cube into it, as a store. Without it the package names the data by the digest of
        their content, and by the addresses that recipe or catalog know.
    input : path, paths, or DataArray, optional
        Where the analysed data are, if not where the recipe had them; what has another digest is refused.
    address : str or sequence of str, optional
        URL at which others can fetch the data: a cube store (``.zarr``) or an instrument file.
    allow_local_addresses : bool
        Take addresses of this machine and of private networks, which most others do not reach.
    title, description : str, optional
        Default: made of the data's metadata and the steps.
    creators : str, mapping, or several, optional
        ``"Ada Lovelace (0000-0002-1825-0097)"``, or mappings with ``name``, ``orcid``, ``affiliation``;
        default those of the catalog entry.
    license : str, optional
        Terms of use of the package: an SPDX name (``CC-BY-4.0``), a URL or a text.
    date : str or date, optional
        Of publication, ``YYYY-MM-DD``; default today.
    figures : bool
        Draw every step in the report; some seconds.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    Path
        `crate`.

    Raises
    ------
    IncompleteError
        The result was never finished.
    StoreError
        The result, or the store of its data, is not what was written; or the archive cannot be written.
    InputError
        The data are not found, or not those of the run; the archive exists; an address holds a password.

    Notes
    -----
    The archive is there whole or not at all. Its bytes are the same for the same result, options, date and
    installed versions. Folders of this machine, passwords and signatures in addresses do not go into it.
    Every file is read twice: for its digest, and into the archive.

    Examples
    --------
    >>> em.publish("results/map", "crate.zip", include_data=True)  # doctest: +SKIP
    """
    path = Path(os.fspath(crate)).expanduser()
    opened = result if isinstance(result, Result) else open_result(Path(result))
    opened.require_complete("publish")
    _require_new(path, overwrite)
    with group(f"publish {path.name}", 4):
        return _publish(
            opened, path, include_data, input, address, allow_local_addresses, title, description,
            creators, license, date, figures, overwrite,
        )  # fmt: skip


def _publish(
    opened: Result,
    path: Path,
    include_data: bool,
    input: Source | None,  # noqa: A002
    address: str | Sequence[str] | None,
    allow_local_addresses: bool,
    title: str | None,
    description: str | None,
    creators: str | Mapping[str, Any] | Iterable[Any] | None,
    license: str | None,  # noqa: A002
    date: str | dt.date | None,
    figures: bool,
    overwrite: bool,
) -> Path:
    """Check, gather, take digests, write."""
    tell_step(0, "check the result")
    _require_one_cube(opened)
    _require_whole(opened)
    _require_readable(opened.path)
    people, terms, day = parse_creators(creators), parse_license(license), _day(date)
    given_addresses(address, allow_local=allow_local_addresses)
    entry = find_entry(opened)
    source = input if input is not None else find_source(opened, entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    tell_step(1, "gather")
    with tempfile.TemporaryDirectory(prefix=".emcube-publish-", dir=path.parent) as scratch:
        store = _store(opened, source, Path(scratch)) if include_data else None
        packed = _packed_input(
            opened,
            entry,
            source,
            store,
            addresses(opened, entry, address, allow_local=allow_local_addresses),
        )
        gathered = _Gathered.of(opened, entry, packed, title, description, people, terms, day)
        members = gathered.members(store, figures=figures)
        tell_step(2, "digests")
        digests = _digests(members)
        members[names.CRATE] = gathered.crate(members, digests)
        digests[names.CRATE] = digest_of(members[names.CRATE])
        members[names.MANIFEST] = write_manifest(digests)
        for name in members:
            names.check_name(name, f"the package {str(path)!r}")
        names.check_names(members, f"the package {str(path)!r}")
        # Readers of crates look for the folders that it describes.
        folders = [names.RESULT] if store is None else [names.RESULT, names.INPUT]
        members |= {f"{folder}/": b"" for folder in folders}
        tell_step(3, "write")
        write_archive(path, members, digests, overwrite=overwrite)
    return path


def _digests(members: Mapping[str, Content]) -> dict[str, str]:
    """Digest of each member, by its name."""
    found: dict[str, str] = {}
    with working("digests", n_bytes=sum(map(size_of, members.values()))) as work:
        for name, content in members.items():
            found[name] = digest_of(content)
            work.advance(bytes=size_of(content))
    return found


# ------------------------------------------------------------------------------------------- checking


def _require_new(path: Path, overwrite: bool) -> None:
    if path.suffix.lower() != ".zip":
        raise InputError(
            f"a package is a ZIP file: got the name {path.name!r}, expected one that ends in .zip",
            hint=f"call it {path.name}.zip",
        )
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(
            f"{str(path)!r} exists already, expected the name of a new file",
            hint="choose another name, or replace a file with overwrite=True (--overwrite)",
        )


def _require_one_cube(result: Result) -> None:
    if result.fields:
        raise InputError(
            f"the result at {str(result.path)!r} is of {len(result.fields)} cubes, a package holds the "
            "result of one",
            hint="put the result's folder, its recipe and the stores into an archive of their own; "
            "their digests are in provenance['input']",
        )


def _require_whole(result: Result) -> None:
    wrong = result.verify()
    if wrong:
        name, what = next(iter(wrong.items()))
        raise StoreError(
            f"the result at {str(result.path)!r} is not what its run wrote: {name}: {what}",
            hint="copy it again, or run its recipe again with --overwrite",
        )


def _require_readable(store: Path) -> None:
    """Refuse what nobody could reproduce, because a reader of packages would refuse it."""
    try:
        check_store(store, str(store))
    except PackageError as error:
        raise StoreError(
            f"{error.message}: a package with it would be refused",
            hint="ingest the data again, or run the recipe again, and publish that",
        ) from error


def _day(date: str | dt.date | None) -> str:
    if date is None:
        return dt.datetime.now(dt.UTC).date().isoformat()
    if isinstance(date, dt.date):
        return date.isoformat()[:10]
    try:
        return dt.date.fromisoformat(date).isoformat()
    except ValueError:
        raise InputError(
            f"date: got {date!r}, expected a day as in 2026-11-26", hint="leave it out for today"
        ) from None


def _store(result: Result, source: Source | None, scratch: Path) -> Path:
    """The store of the analysed cube, checked file by file."""
    from emcube.store import verify

    if source is None:
        raise InputError(
            f"the data of the result at {str(result.path)!r} are not found: its recipe named "
            f"{json.dumps(public_input(result.provenance['input']))}, looked for in this folder and those "
            "above the result",
            hint="say where they are with --input (input= in Python)",
        )
    wanted = Wanted(result.provenance["input"]["digest"], "dense", _opening(result))
    store = as_store(source, wanted, scratch)
    verify(store).check()
    _require_readable(store)
    return store


def _opening(result: Result) -> dict[str, Any]:
    recorded = result.provenance["input"]
    if recorded.get("in_hand"):
        return {}  # its name is the cube's, not that of a signal in a file
    return {key: recorded[key] for key in _OPENING if recorded.get(key) is not None}


def _packed_input(
    result: Result,
    entry: Entry | None,
    source: Source | None,
    store: Path | None,
    known: tuple[Address, ...],
) -> PackagedInput:
    from emcube.store import is_store, kept_as_events

    recorded = result.provenance["input"]
    local = store
    if local is None and isinstance(source, str | Path) and "://" not in str(source):
        local = Path(source) if is_store(Path(source)) else None
    events = local is not None and kept_as_events(local)
    described = public_input({k: v for k, v in recorded.items() if k != "digest"})
    return PackagedInput(
        digest=recorded["digest"],
        included=None if store is None else "input/cube.zarr",
        addresses=known,
        opening=_opening(result),
        layout="events" if events else "dense",
        described={**described, "cube": result.provenance["cube"]},
    )


# ------------------------------------------------------------------------------------------- gathering


@dataclass(frozen=True)
class _Gathered:
    """All that is said of one package."""

    result: Result
    entry: Entry | None
    input: PackagedInput
    about: Publication
    cited: Cited

    @classmethod
    def of(
        cls,
        result: Result,
        entry: Entry | None,
        packed: PackagedInput,
        title: str | None,
        description: str | None,
        people: tuple[Creator, ...],
        terms: Any,
        day: str,
    ) -> _Gathered:
        # YAML knows dates, JSON does not.
        known = {} if entry is None else public_metadata(to_json(dict(entry.metadata), "metadata"))
        provenance = result.provenance
        version = version_of(result)
        cited = Cited.of(result, known, day)
        name = public_text(
            str(known.get("title") or result.metadata.get("title") or _input_name(packed))
        )
        creators = people or _entry_creators(known)
        about = Publication(
            title=title or f"Unmixing of {name}",
            description=description or summary(result, name, version),
            date=day,
            creators=creators,
            license=terms,
            run_id=result.run_id,
            version=version,
            python=str((provenance.get("stack") or {}).get("python", "?")),
            started=provenance.get("started"),
            finished=provenance.get("finished"),
            seeds=provenance.get("seeds") or {},
            input=packed,
            input_title=name,
            entry=known,
            references=cited.all,
            keywords=_keywords(result),
        )
        return cls(result, entry, packed, about, cited)

    # ------------------------------------------------------------------------------------- members

    def members(self, store: Path | None, *, figures: bool) -> dict[str, Content]:
        """Contents of all files but the crate's own and the manifest."""
        about, provenance = self.about, self.result.provenance
        lock = lock_environment(
            (provenance.get("stack") or {}).get("libraries") or {}, about.python
        )
        cited = self.cited
        methods = methods_paragraph(self.result, cited.methods, about.version, cited.data)
        found: dict[str, Content] = {
            names.DESCRIPTION: self._description().to_bytes(),
            names.LOCK: lock.to_bytes(),
            names.STACK: _json({"stack": provenance.get("stack"), "lock_is_exact": lock.exact}),
            names.REPORT: report_page(self.result, about, methods, figures=figures),
            names.README: readme_page(about, TEXTS),
            names.PREVIEW: preview_page(about, TEXTS),
            **derived_texts(self.result, cited),
        }
        if self.entry is not None:
            found[names.ENTRY] = _json(
                {"name": public_text(self.entry.name), "metadata": dict(about.entry)}
            )
        found |= _files_of(self.result.path, names.RESULT)
        found[f"{names.RESULT}/zarr.json"] = self._result_root()
        if store is not None:
            found |= _files_of(store, names.INPUT)
        return found

    def crate(self, members: Mapping[str, Content], digests: Mapping[str, str]) -> bytes:
        """The crate's linked data."""
        files = {}
        for name, (short, text, media) in TEXTS.items():
            if name == names.PREVIEW:
                continue  # it shows the crate, and is no part of it
            if name == names.MANIFEST:
                # One line a file: 64 digits, two spaces, the name and a line feed; this crate is in it, too.
                size = sum(67 + len(n.encode()) for n in (*members, names.CRATE))
                files[name] = Described(short, text, media, size, None)
            elif name in members:
                size = len(content) if isinstance(content := members[name], bytes) else 0
                files[name] = Described(short, text, media, size, digests[name])
        return crate_metadata(self.about, files)

    def _description(self) -> Description:
        from emcube import __version__

        provenance = self.result.provenance
        seeds = provenance.get("seeds") or {}
        return Description(
            emcube_package=FORMAT,
            created_with=__version__,
            title=self.about.title,
            run_id=self.result.run_id,
            seeds={step: int(seeds[step]) for step in provenance.get("drawn_seeds") or ()},
            input=self.input,
            stack=dict(provenance.get("stack") or {}),
            tolerances=TOLERANCES,
        )

    def _result_root(self) -> bytes:
        """The root of the result, with a public name of its input in place of a folder of this machine."""
        document = json.loads((self.result.path / "zarr.json").read_text(encoding="utf-8"))
        attributes = document["attributes"]
        attributes["provenance"] = public_provenance(attributes["provenance"])
        return _json(document)


def _input_name(packed: PackagedInput) -> str:
    known = packed.described
    for key in ("dataset", "path", "name"):
        value = known.get(key)
        if isinstance(value, list) and value:
            return f"{Path(str(value[0])).stem} and {len(value) - 1} more"
        if isinstance(value, str) and value:
            return Path(value.rstrip("/")).stem
    return f"a cube of digest {packed.digest[:19]}"


def _entry_creators(known: Mapping[str, Any]) -> tuple[Creator, ...]:
    """Creators of the data, as far as the entry's metadata are understood."""
    given = known.get("creators")
    try:
        return parse_creators(
            [
                {k: c[k] for k in ("name", "orcid", "affiliation") if isinstance(c.get(k), str)}
                if isinstance(c, Mapping)
                else c
                for c in given
            ]
            if isinstance(given, list | tuple)
            else given
        )
    except InputError:
        return ()  # a catalog may say it in another way; the entry itself is in the package


def _keywords(result: Result) -> tuple[str, ...]:
    known = result.metadata
    words = [str(known["modality"])] if known.get("modality") else []
    words += [str(e) for e in known.get("elements") or ()]
    return tuple(dict.fromkeys([*words, "spectral unmixing", "electron microscopy"]))


def _files_of(root: Path, place: str) -> dict[str, Content]:
    """Files of a store by their place in the package; what is no part of it is left out."""
    found: dict[str, Content] = {}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_symlink():
            raise StoreError(
                f"{str(path)!r} is a symbolic link, expected plain files only",
                hint="copy the store with its links followed (cp -rL), and publish the copy",
            )
        hidden = parts[0] == HIDDEN and len(parts) == 2 and parts[1] not in _SKIPPED
        if path.is_file() and (hidden or not any(part.startswith(".") for part in parts)):
            found["/".join((place, *parts))] = path
    return found


def _json(plain: Any) -> bytes:
    return (json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
