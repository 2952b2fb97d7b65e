"""Entries in the words of others: schema.org Dataset for search engines, DataCite 4 for repositories.

References
----------
.. [1] schema.org, Dataset: https://schema.org/Dataset
.. [2] DataCite Metadata Schema 4.5: https://schema.datacite.org/meta/kernel-4.5/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.catalog.metadata import Creator, EntryMetadata, Related, doi_of
from emcube.errors import CatalogError

if TYPE_CHECKING:
    from emcube.catalog.model import Catalog, Entry

__all__ = ["check_destination", "to_datacite", "to_schema_org", "write_json"]

#: Tells a page of ours from those of others.
GENERATOR = '<meta name="generator" content="emcube catalog export">'
#: How much of a file is looked at.
_LOOK_BYTES = 64 * 2**20

_TECHNIQUES = {
    "EDS": "energy-dispersive X-ray spectroscopy",
    "WDS": "wavelength-dispersive X-ray spectroscopy",
    "EELS": "electron energy-loss spectroscopy",
    "CL": "cathodoluminescence spectroscopy",
    "XRF": "X-ray fluorescence spectroscopy",
    "EBSD": "electron backscatter diffraction",
    "4D-STEM": "four-dimensional scanning transmission electron microscopy",
}
_FORMATS = {
    "zarr": "application/vnd.zarr; version=3",
    "hspy": "application/x-hdf5",
    "hdf5": "application/x-hdf5",
    "h5": "application/x-hdf5",
    "emd": "application/x-hdf5",
    "zspy": "application/vnd.zarr",
    "msa": "text/plain",
}
#: Our words for what belongs together, in DataCite's.
_RELATIONS = {
    "image": "IsSupplementedBy",
    "low loss": "IsSupplementedBy",
    "tilt": "IsVariantFormOf",
    "dose": "IsVariantFormOf",
    "reference": "References",
    "same specimen": "References",
    "part of": "IsPartOf",
    "derived from": "IsDerivedFrom",
    "source": "IsDerivedFrom",
    "described by": "IsDescribedBy",
}
#: DataCite's own words for what nobody knows.
_UNKNOWN_NAME, _UNKNOWN_PUBLISHER = ":unkn", ":unav"


def _technique(known: EntryMetadata) -> str | None:
    return None if known.modality is None else _TECHNIQUES.get(known.modality, known.modality)


def _title(entry: Entry, known: EntryMetadata) -> str:
    return known.title or entry.name


def _description(entry: Entry, known: EntryMetadata) -> str:
    """The entry's own, or what its form says: search engines ask for at least 50 characters."""
    if known.description:
        return known.description
    shape = ", ".join(f"{dim} {n}" for dim, n in zip(known.dims, known.shape, strict=False))
    parts = [
        _title(entry, known),
        _technique(known),
        f"of {', '.join(known.elements)}" if known.elements else None,
        f"at {known.beam_energy_keV:g} keV" if known.beam_energy_keV else None,
        f"on {known.instrument}" if known.instrument else None,
        f"specimen: {known.specimen}" if known.specimen else None,
        f"a cube of {shape} in {known.dtype or 'numbers'}, {known.units or 'no unit stated'}"
        if shape
        else None,
    ]
    return "; ".join(part for part in parts if part) + ". An electron-microscopy dataset."


def _licence_url(licence: str) -> str:
    return licence if "://" in licence else f"https://spdx.org/licenses/{licence}.html"


def _keywords(known: EntryMetadata) -> list[str]:
    words = [
        *known.keywords,
        "electron microscopy",
        known.modality,
        _technique(known),
        *known.elements,
    ]
    return list(dict.fromkeys(word for word in words if word))


def _url(entry: Entry) -> str | None:
    """Address from which everybody can get the data; None for a path on this machine."""
    try:
        target = entry.target
    except CatalogError:
        return None
    return None if target.is_local else target.location


def _format(entry: Entry, known: EntryMetadata) -> str:
    try:
        target = entry.target
    except CatalogError:
        return known.format or "unknown"
    suffix = target.location.split("?")[0].rsplit(".", 1)[-1].lower()
    if target.kind == "zarr":
        return _FORMATS["zarr"]
    return _FORMATS.get(suffix, known.format or "application/octet-stream")


def _bytes(known: EntryMetadata) -> str | None:
    if known.size is not None:
        return f"{known.size} B"
    return known.size_about or (f"{known.nbytes} B" if known.nbytes is not None else None)


def _without_none(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if value not in (None, [], {}, "")}


# --- schema.org -----------------------------------------------------------------------------------


def to_schema_org(what: Catalog | Entry) -> dict[str, Any]:
    """Describe an entry as a schema.org Dataset, or a catalog as a DataCatalog of them (JSON-LD).

    Parameters
    ----------
    what : Catalog or Entry

    Returns
    -------
    dict
        JSON-LD, for ``<script type="application/ld+json">`` or a file of its own.
    """
    from emcube.catalog.model import Entry

    if isinstance(what, Entry):
        return {"@context": "https://schema.org/", **_dataset(what)}
    about = what.metadata
    return {
        "@context": "https://schema.org/",
        **_without_none(
            {
                "@type": "DataCatalog",
                "name": str(about.get("title") or "Electron-microscopy datasets"),
                "description": about.get("description"),
                "license": _licence_url(str(about["license"])) if about.get("license") else None,
                "dataset": [_dataset(entry) for entry in what.values() if entry.kind != "catalog"],
            }
        ),
    }


def _dataset(entry: Entry) -> dict[str, Any]:
    known = entry.known
    doi = None if known.doi is None else f"https://doi.org/{known.doi}"
    identifiers = [one for one in (doi, known.identifier, known.digest, known.checksum) if one]
    return _without_none(
        {
            "@type": "Dataset",
            "@id": doi or known.identifier,
            "name": _title(entry, known),
            "alternateName": entry.name if known.title else None,
            "description": _description(entry, known),
            "identifier": identifiers,
            "url": doi or known.identifier,
            "creator": [_person(one) for one in known.creators],
            "publisher": {"@type": "Organization", "name": known.publisher}
            if known.publisher
            else None,
            "license": _licence_url(known.license) if known.license else None,
            "keywords": _keywords(known),
            "version": known.version,
            "datePublished": known.published,
            "temporalCoverage": None if known.acquired is None else known.acquired.isoformat(),
            "isAccessibleForFree": None if known.access is None else known.access == "open",
            "conditionsOfAccess": _conditions(known),
            "measurementTechnique": _technique(known),
            "variableMeasured": _variables(known),
            "size": _bytes(known),
            "distribution": _distribution(entry, known),
            "isPartOf": _related(known, ("part of",)),
            "isBasedOn": _related(known, ("derived from", "source")),
            "citation": _related(known, ("described by", "reference")),
        }
    )


def _person(creator: Creator) -> dict[str, Any]:
    place = creator.affiliation
    return _without_none(
        {
            "@type": "Person",
            "@id": f"https://orcid.org/{creator.orcid}" if creator.orcid else None,
            "name": creator.name,
            "affiliation": _without_none(
                {"@type": "Organization", "@id": creator.affiliation_id, "name": place}
            )
            if place
            else None,
        }
    )


def _conditions(known: EntryMetadata) -> str | None:
    if known.access in (None, "open"):
        return None
    until = f" until {known.embargo_until}" if known.embargo_until else ""
    contact = f"; contact: {known.contact}" if known.contact else ""
    return f"{known.access}{until}{contact}"


def _variables(known: EntryMetadata) -> list[dict[str, Any]]:
    """The values, the axes, and what was set."""
    found: list[dict[str, Any]] = []
    if known.units:
        found.append({"name": "intensity", "unitText": known.units})
    for dim in known.dims:
        axis = known.axes.get(dim) or {}
        numbers = {
            key: axis[end]
            for key, end in (("minValue", "first"), ("maxValue", "last"))
            if isinstance(axis.get(end), (int, float))
        }
        found.append({"name": dim, "unitText": axis.get("units"), **numbers})
    if known.beam_energy_keV is not None:
        found.append({"name": "beam energy", "value": known.beam_energy_keV, "unitText": "keV"})
    if known.counts_per_pixel is not None:
        found.append({"name": "counts per pixel", "value": known.counts_per_pixel})
    if known.instrument:
        found.append(
            {"name": "instrument", "value": known.instrument, "propertyID": known.instrument_id}
        )
    return [_without_none({"@type": "PropertyValue", **one}) for one in found]


def _distribution(entry: Entry, known: EntryMetadata) -> list[dict[str, Any]]:
    url = _url(entry)
    if url is None:
        return []
    checksum = known.checksum or ""
    return [
        _without_none(
            {
                "@type": "DataDownload",
                "contentUrl": url,
                "encodingFormat": _format(entry, known),
                "contentSize": _bytes(known),
                "sha256": checksum.removeprefix("sha256:")
                if checksum.startswith("sha256:")
                else None,
            }
        )
    ]


def _related(known: EntryMetadata, relations: Iterable[str]) -> list[dict[str, Any]]:
    return [
        _without_none(
            {
                "@type": "CreativeWork",
                "@id": _resolvable(one.identifier),
                "name": one.title or one.identifier,
            }
        )
        for one in known.related
        if one.relation in relations and one.identifier
    ]


def _resolvable(identifier: str | None) -> str | None:
    if identifier is None:
        return None
    return f"https://doi.org/{identifier}" if identifier.startswith("10.") else identifier


# --- DataCite -------------------------------------------------------------------------------------


def to_datacite(entry: Entry) -> dict[str, Any]:
    """Describe an entry by DataCite's metadata schema 4.5, as its JSON.

    Raises
    ------
    CatalogError
        The entry has no date from which a year of publication could come.

    Notes
    -----
    Creators and publisher that nobody knows become DataCite's own ``:unkn`` and ``:unav``; a DOI is
    left out where there is none, since a repository gives it.
    """
    known = entry.known
    if known.published is None and known.acquired is None:
        raise CatalogError(
            f"entry {entry.name!r} of {entry.catalog} cannot be written for DataCite: neither published nor "
            "acquired is known, expected a date for the year of publication",
            hint="add published='2026' to the entry",
        )
    year = known.published or (known.acquired.isoformat() if known.acquired else "")
    url = _url(entry)
    return _without_none(
        {
            "schemaVersion": "http://datacite.org/schema/kernel-4",
            "doi": known.doi,
            "url": url,
            "types": {
                "resourceTypeGeneral": "Dataset",
                "resourceType": f"{known.modality} data"
                if known.modality
                else "electron-microscopy data",
            },
            "creators": [_datacite_person(one) for one in known.creators]
            or [{"name": _UNKNOWN_NAME}],
            "titles": [{"title": _title(entry, known)}],
            "publisher": {"name": known.publisher or _UNKNOWN_PUBLISHER},
            "publicationYear": year[:4],
            "subjects": [{"subject": word} for word in _keywords(known)],
            "dates": _dates(known),
            "alternateIdentifiers": [
                {"alternateIdentifier": value, "alternateIdentifierType": kind}
                for kind, value in (
                    ("catalog entry", entry.name),
                    ("emcube digest", known.digest),
                    ("checksum", known.checksum),
                    ("identifier", known.identifier),
                )
                if value
            ],
            "relatedIdentifiers": _related_identifiers(known),
            "sizes": [text for text in (_bytes(known), _shape(known)) if text],
            "formats": [_format(entry, known)],
            "version": known.version,
            "rightsList": _rights(known),
            "descriptions": [
                {"description": _description(entry, known), "descriptionType": "Abstract"},
                *_technical(known),
            ],
        }
    )


def _datacite_person(creator: Creator) -> dict[str, Any]:
    identifiers = [
        {
            "nameIdentifier": f"https://orcid.org/{creator.orcid}",
            "nameIdentifierScheme": "ORCID",
            "schemeUri": "https://orcid.org",
        }
    ]
    affiliation = _without_none(
        {
            "name": creator.affiliation,
            "affiliationIdentifier": creator.affiliation_id,
            "affiliationIdentifierScheme": "ROR"
            if creator.affiliation_id and "ror.org" in creator.affiliation_id
            else None,
        }
    )
    return _without_none(
        {
            "name": creator.name,
            "nameType": "Personal" if creator.orcid or "," in creator.name else None,
            "nameIdentifiers": identifiers if creator.orcid else None,
            "affiliation": [affiliation] if creator.affiliation else None,
        }
    )


def _dates(known: EntryMetadata) -> list[dict[str, Any]]:
    pairs = (
        ("Collected", None if known.acquired is None else known.acquired.isoformat()),
        ("Issued", known.published),
        ("Available", None if known.embargo_until is None else known.embargo_until.isoformat()),
    )
    return [{"date": date, "dateType": kind} for kind, date in pairs if date]


def _related_identifiers(known: EntryMetadata) -> list[dict[str, Any]]:
    found = [(one, one.identifier) for one in known.related if one.identifier]
    listed = [
        {
            "relatedIdentifier": identifier,
            "relatedIdentifierType": _identifier_type(identifier),
            "relationType": _relation(one),
        }
        for one, identifier in found
    ]
    if known.instrument_id:
        listed.append(
            {
                "relatedIdentifier": known.instrument_id,
                "relatedIdentifierType": _identifier_type(known.instrument_id),
                "relationType": "IsCollectedBy",
                "resourceTypeGeneral": "Instrument",
            }
        )
    return listed


def _relation(related: Related) -> str:
    return _RELATIONS[related.relation]


def _identifier_type(identifier: str) -> str:
    try:
        doi_of(identifier)
    except ValueError:
        pass
    else:
        return "DOI"
    if identifier.startswith("hdl:") or "hdl.handle.net/" in identifier:
        return "Handle"
    return "URN" if identifier.startswith("urn:") else "URL"


def _shape(known: EntryMetadata) -> str | None:
    if not known.shape:
        return None
    return " x ".join(f"{n} {dim}" for dim, n in zip(known.dims, known.shape, strict=False))


def _rights(known: EntryMetadata) -> list[dict[str, Any]]:
    rights: list[dict[str, Any]] = []
    if known.license:
        spdx = "://" not in known.license
        rights.append(
            _without_none(
                {
                    "rights": known.license,
                    "rightsUri": _licence_url(known.license),
                    "rightsIdentifier": known.license if spdx else None,
                    "rightsIdentifierScheme": "SPDX" if spdx else None,
                    "schemeUri": "https://spdx.org/licenses/" if spdx else None,
                }
            )
        )
    access = {
        "open": "open access",
        "embargoed": "embargoed access",
        "restricted": "restricted access",
        "closed": "metadata only access",
    }.get(known.access or "")
    if access:
        rights.append({"rights": access})
    return rights


def _technical(known: EntryMetadata) -> list[dict[str, Any]]:
    parts = [
        f"instrument: {known.instrument}" if known.instrument else None,
        f"beam energy: {known.beam_energy_keV:g} keV" if known.beam_energy_keV else None,
        f"session: {known.session}" if known.session else None,
        f"dtype: {known.dtype}" if known.dtype else None,
        f"units of values: {known.units}" if known.units else None,
    ]
    text = "; ".join(part for part in parts if part)
    return [{"description": text, "descriptionType": "TechnicalInfo"}] if text else []


# --- files ----------------------------------------------------------------------------------------


def write_json(document: Any, path: Path, catalog: Catalog, *, overwrite: bool = False) -> Path:
    """Write a description to a file; an earlier one of emcube there is replaced.

    Parameters
    ----------
    document : dict or list of dict
        As `to_schema_org` and `to_datacite` give it.
    path : Path
        Its folder is made if it does not exist.
    catalog : Catalog
        What is described; never overwritten.
    overwrite : bool
        Replace a file of others, too.

    Raises
    ------
    CatalogError
        See `check_destination`; or the file cannot be written.
    """
    from emcube.catalog.document import writing
    from emcube.disk import replace_file

    real = check_destination(path, catalog, overwrite=overwrite)
    with writing(real.parent, f"the export {path}"):
        replace_file(real, _as_bytes(document))
    return path


def _as_bytes(document: Any) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def check_destination(path: Path, catalog: Catalog, *, overwrite: bool = False) -> Path:
    """Refuse to write an export where something else would be lost.

    Parameters
    ----------
    path : Path
        The file that is to be written.
    catalog : Catalog
        What is exported.
    overwrite : bool
        Let it replace a file that is no earlier export.

    Returns
    -------
    Path
        The file, with links followed.

    Raises
    ------
    CatalogError
        It would replace the catalog itself, lies within a store, is a folder, or holds something else than
        an earlier export.
    """
    from emcube.catalog.places import is_remote

    real = path.resolve()
    if real in {Path(one).resolve() for one in _files(catalog) if not is_remote(one)}:
        raise CatalogError(
            f"cannot write an export to {path}: it is the catalog itself, expected another file",
            hint="name another place",
        )
    store = next((one for one in (real, *real.parents) if _is_zarr(one)), None)
    if store is not None:
        raise CatalogError(
            f"cannot write an export to {path}: it lies within the store {store}, expected its own place",
            hint="name another place",
        )
    if real.is_dir():
        raise CatalogError(
            f"cannot write an export to {path}: it is a folder, expected a file",
            hint="name a file in it",
        )
    if not overwrite and real.exists() and not _is_export(real):
        raise CatalogError(
            f"cannot write an export to {path}: there is a file already, expected none or an earlier export",
            hint="name another place, or replace it with --overwrite (overwrite=True)",
        )
    return real


def _files(catalog: Catalog) -> set[Path | str]:
    return {catalog.path, *(entry.catalog for entry in catalog.values())}


def _is_zarr(folder: Path) -> bool:
    names = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
    return folder.is_dir() and (
        folder.suffix == ".zarr" or any((folder / name).is_file() for name in names)
    )


def _is_export(path: Path) -> bool:
    """Whether emcube wrote a file: a page with its mark, or one of its descriptions, byte by byte."""
    try:
        with path.open("rb") as file:
            data = file.read(_LOOK_BYTES)
    except OSError:
        return False
    if path.suffix == ".html":
        return GENERATOR.encode() in data
    try:
        found = json.loads(data)
        return _is_description(found) and _as_bytes(found) == data
    except (ValueError, RecursionError):
        return False


def _is_description(found: Any) -> bool:
    if isinstance(found, list):
        return all(map(_is_description, found))
    return isinstance(found, dict) and (
        found.get("@context") == "https://schema.org/"
        or found.get("schemaVersion") == "http://datacite.org/schema/kernel-4"
    )
