"""The linked data of a package: RO-Crate 1.2 with the profile of a process run.

References
----------
RO-Crate 1.2, https://w3id.org/ro/crate/1.2. Process Run Crate 0.5, https://w3id.org/ro/wfrun/process/0.5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emcube.package.description import PackagedInput
from emcube.package.names import CRATE, INPUT, LOCK, RECIPE, RESULT
from emcube.package.people import Creator, License, parse_license
from emcube.package.references import LICENSE, Reference, software_id

__all__ = ["Described", "Publication", "crate_metadata"]

SPECIFICATION = "https://w3id.org/ro/crate/1.2"
BASE_OF_PROFILE = "https://w3id.org/ro/crate/1.1"
"""The version on which the profile stands; a crate that keeps to what both have in common is one of both."""

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run#"
SPDX = "https://spdx.org/licenses/"


@dataclass(frozen=True)
class Described:
    """A file of the package, for people and for the crate.

    Attributes
    ----------
    name, text : str
        Short name, and what is in it.
    media_type : str
    n_bytes : int
    sha256 : str or None
        None for the file that holds the others' digests, and for the crate's own.
    """

    name: str
    text: str
    media_type: str
    n_bytes: int
    sha256: str | None


@dataclass(frozen=True)
class Publication:
    """What is said of a package as a whole.

    Attributes
    ----------
    title, description, date : str
        Date as YYYY-MM-DD.
    creators : tuple of Creator
    license : License
    run_id : str
    version : str
        Of emcube in the run.
    python : str
    started, finished : str or None
        Of the run, ISO 8601.
    seeds : mapping of str to int
    input : PackagedInput
    input_title : str
    entry : mapping
        Metadata of the catalog entry; empty where there is none.
    references : tuple of Reference
    keywords : tuple of str
    """

    title: str
    description: str
    date: str
    creators: tuple[Creator, ...]
    license: License
    run_id: str
    version: str
    python: str
    started: str | None
    finished: str | None
    seeds: Mapping[str, int]
    input: PackagedInput
    input_title: str
    entry: Mapping[str, Any]
    references: tuple[Reference, ...]
    keywords: tuple[str, ...]


def crate_metadata(about: Publication, files: Mapping[str, Described]) -> bytes:
    """Write ``ro-crate-metadata.json``.

    Parameters
    ----------
    about : Publication
    files : mapping of str to Described
        Files by their place in the package, this one left out.
    """
    sources = _input(about)
    parts = [{"@id": name} for name in sorted(files)]
    parts += [{"@id": f"{RESULT}/"}, *({"@id": e["@id"]} for e in sources if e["@id"][0] != "#")]
    graph = [
        {
            "@id": CRATE,
            "@type": "CreativeWork",
            "conformsTo": [{"@id": SPECIFICATION}, {"@id": BASE_OF_PROFILE}],
            "about": {"@id": "./"},
        },
        _root(about, parts),
        _profile(),
        _run(about, sources),
        *_software(about),
        *(_file(name, file) for name, file in sorted(files.items())),
        _result(about),
        *sources,
        *_seeds(about),
        *(entity for creator in about.creators for entity in creator.to_entities()),
        *_input_context(about),
        *_terms(about.license),
        *_references(about.references),
    ]
    document = {
        "@context": [
            f"{SPECIFICATION}/context",
            {"sha256": f"{TERMS}sha256"},
        ],
        "@graph": _each_once(graph),
    }
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _each_once(graph: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entities by identifier: two people of one institution share it."""
    return list({entity["@id"]: entity for entity in graph}.values())


def _root(about: Publication, parts: Sequence[dict[str, str]]) -> dict[str, Any]:
    terms = about.license
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": about.title,
        "description": about.description,
        "datePublished": about.date,
        "license": terms.name if terms.id is None else {"@id": terms.id},
        "conformsTo": {"@id": PROFILE},
        "identifier": about.run_id,
        "hasPart": list(parts),
        "mentions": {"@id": "#run"},
    }
    if about.creators:
        root["author"] = [{"@id": creator.id} for creator in about.creators]
    if about.keywords:
        root["keywords"] = list(about.keywords)
    cited = [{"@id": f"https://doi.org/{r.doi}"} for r in about.references if r.doi]
    if cited:
        root["citation"] = cited
    return root


def _profile() -> dict[str, Any]:
    return {
        "@id": PROFILE,
        "@type": ["CreativeWork", "Profile"],
        "name": "Process Run Crate",
        "version": "0.5",
    }


def _run(about: Publication, sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run: the tool, what went in, what came out, when."""
    action: dict[str, Any] = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Run of {RECIPE}",
        "description": f"emcube run {RECIPE}; identity of the run: {about.run_id}",
        "instrument": {"@id": software_id(about.version)},
        "object": [
            {"@id": RECIPE},
            *({"@id": source["@id"]} for source in sources),
            *({"@id": entity["@id"]} for entity in _seeds(about)),
        ],
        "result": {"@id": f"{RESULT}/"},
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }
    if about.started:
        action["startTime"] = about.started
    if about.finished:
        action["endTime"] = about.finished
    if about.creators:
        action["agent"] = {"@id": about.creators[0].id}
    return action


def _software(about: Publication) -> list[dict[str, Any]]:
    return [
        {
            "@id": software_id(about.version),
            "@type": "SoftwareApplication",
            "name": "emcube",
            "url": software_id(about.version),
            # RO-Crate 1.2 asks for the one, Process Run Crate for the other.
            "version": about.version,
            "softwareVersion": about.version,
            "description": "Unmixes electron-microscopy datacubes that are larger than memory.",
            "license": {"@id": f"{SPDX}{LICENSE}"},
            "softwareRequirements": [{"@id": LOCK}, {"@id": "https://www.python.org/"}],
        },
        {
            "@id": "https://www.python.org/",
            "@type": "SoftwareApplication",
            "name": "Python",
            "url": "https://www.python.org/",
            "version": about.python,
            "softwareVersion": about.python,
        },
        *_terms(License(f"{SPDX}{LICENSE}", LICENSE)),
    ]


def _file(name: str, file: Described) -> dict[str, Any]:
    entity: dict[str, Any] = {
        "@id": name,
        "@type": "File",
        "name": file.name,
        "description": file.text,
        "encodingFormat": file.media_type,
        "contentSize": str(file.n_bytes),
    }
    if file.sha256 is not None:
        entity["sha256"] = file.sha256
    return entity


def _result(about: Publication) -> dict[str, Any]:
    return {
        "@id": f"{RESULT}/",
        "@type": "Dataset",
        "name": "Result",
        "description": "A Zarr 3 group that xarray.open_datatree reads: a node a step, with components, "
        "loadings, labels and curves; recipe and provenance are its attributes.",
        "identifier": about.run_id,
    }


def _input(about: Publication) -> list[dict[str, Any]]:
    """The data that were analysed: in the package, at an address, or known by digest only."""
    known = about.entry
    entity: dict[str, Any] = {
        "@id": "#input",
        "@type": "Dataset",
        "name": about.input_title,
        "description": "The cube that was analysed; its identifier is the digest of its content.",
        "identifier": about.input.digest,
    }
    doi = known.get("doi")
    if isinstance(doi, str) and doi:
        entity["sameAs"] = {"@id": _doi_url(doi)}
    terms = _input_terms(known)
    if terms is not None:
        entity["license"] = terms.name if terms.id is None else {"@id": terms.id}
    if about.input.included is not None:
        return [{**entity, "@id": f"{INPUT}/"}]
    if not about.input.addresses:
        return [entity]
    kinds = {"store": "Dataset", "file": "File"}
    return [
        {**entity, "@id": address.url, "@type": kinds[address.kind]}
        for address in about.input.addresses
    ]


def _input_terms(known: Mapping[str, Any]) -> License | None:
    stated = known.get("license")
    return parse_license(stated) if isinstance(stated, str) and stated.strip() else None


def _input_context(about: Publication) -> list[dict[str, Any]]:
    """What the entity of the data refers to: terms of use, and the record of its DOI."""
    known, found = about.entry, []
    terms = _input_terms(known)
    if terms is not None:
        found += _terms(terms)
    doi = known.get("doi")
    if isinstance(doi, str) and doi:
        found.append({"@id": _doi_url(doi), "@type": "CreativeWork", "name": about.input_title})
    return found


def _doi_url(text: str) -> str:
    return "https://doi.org/" + text.removeprefix("https://doi.org/").removeprefix("doi:")


def _seeds(about: Publication) -> list[dict[str, Any]]:
    return [
        {
            "@id": f"#seed-{step}",
            "@type": "PropertyValue",
            "name": f"seed of {step}",
            "value": str(seed),
        }
        for step, seed in sorted(about.seeds.items())
    ]


def _terms(terms: License) -> list[dict[str, Any]]:
    if terms.id is None:
        return []
    return [
        {
            "@id": terms.id,
            "@type": "CreativeWork",
            "name": terms.name,
            "description": f"Terms of use: {terms.name}",
        }
    ]


def _references(references: Sequence[Reference]) -> list[dict[str, Any]]:
    return [
        {
            "@id": f"https://doi.org/{reference.doi}",
            # A data set would have to be a part of the crate.
            "@type": "CreativeWork" if reference.kind == "dataset" else "ScholarlyArticle",
            "name": reference.fields["title"],
        }
        for reference in references
        if reference.doi
    ]
