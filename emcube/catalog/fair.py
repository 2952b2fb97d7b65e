"""What an entry lacks of the FAIR principles, by principle.

The principles are those of Wilkinson et al. 2016; what each asks of one entry of a catalog is written down in
`_CHECKS`, so that a reader can disagree with a line rather than with a score.

References
----------
.. [1] M. D. Wilkinson et al., "The FAIR Guiding Principles for scientific data management and stewardship",
   Scientific Data 3 (2016) 160018. https://doi.org/10.1038/sdata.2016.18
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from emcube.catalog.places import SCHEMES, is_remote
from emcube.catalog.search import MODALITIES, normal_modality
from emcube.errors import CatalogError

if TYPE_CHECKING:
    from emcube.catalog.model import Entry

__all__ = ["PRINCIPLES", "Finding", "fair_findings"]

PRINCIPLES: dict[str, str] = {
    "F1": "globally unique and persistent identifier",
    "F2": "rich metadata",
    "F3": "metadata name the data they describe",
    "F4": "registered where people search",
    "A1": "retrievable by a standard protocol",
    "A1.1": "the protocol is open and free",
    "A1.2": "the protocol allows for authorisation where needed",
    "A2": "metadata stay when the data are gone",
    "I1": "formal, shared language",
    "I2": "vocabularies that are FAIR themselves",
    "I3": "qualified references to other data",
    "R1": "many accurate attributes",
    "R1.1": "clear licence",
    "R1.2": "detailed provenance",
    "R1.3": "standards of the community",
}

#: Formats whose description is public, so that a reader can be written anew.
_OPEN_FORMATS = frozenset(
    {
        "zarr",
        "hspy",
        "hdf5",
        "h5",
        "emd",
        "msa",
        "emsa",
        "npy",
        "mrc",
        "zspy",
        "nxs",
        "blo",
        "tif",
        "csv",
    }
)
_SPDX = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")


@dataclass(frozen=True)
class Finding:
    """Something that an entry lacks.

    Attributes
    ----------
    principle : str
        "F1" to "R1.3".
    missing : str
        What is missing.
    hint : str
        What to do about it.
    """

    principle: str
    missing: str
    hint: str

    def __str__(self) -> str:
        return f"{self.principle} ({PRINCIPLES[self.principle]}): {self.missing}; {self.hint}"


Check = Callable[["Entry", Mapping[str, Any]], tuple[str, str] | None]


def _need(*keys: str, say: str = "", hint: str = "") -> Check:
    """A check that at least one of some fields is there."""

    def check(entry: Entry, known: Mapping[str, Any]) -> tuple[str, str] | None:
        if any(known.get(key) for key in keys):
            return None
        return say or f"no {' or '.join(keys)}", hint or f"add {keys[0]}"

    return check


def _all(*keys: str) -> Check:
    def check(entry: Entry, known: Mapping[str, Any]) -> tuple[str, str] | None:
        lacking = [key for key in keys if not known.get(key)]
        return (f"no {', '.join(lacking)}", f"add {', '.join(lacking)}") if lacking else None

    return check


def _address(entry: Entry, known: Mapping[str, Any]) -> tuple[str, str] | None:
    try:
        target = entry.target
    except CatalogError as error:
        return str(error.message), "correct the entry"
    if not target.is_local or known.get("doi") or known.get("identifier"):
        return None
    return (
        "only a path on this machine leads to the data",
        "put them on a web server or into a repository, and add its DOI",
    )


def _protocol(entry: Entry, known: Mapping[str, Any]) -> tuple[str, str] | None:
    try:
        location = entry.target.location
    except CatalogError:
        return None
    scheme = urlsplit(location).scheme.lower() if is_remote(location) else "file"
    if scheme in SCHEMES | {"file"}:
        return None
    return f"the protocol {scheme!r}", "offer the data over HTTP"


def _authorisation(entry: Entry, known: Mapping[str, Any]) -> tuple[str, str] | None:
    access = known.get("access")
    if access is None:
        return (
            "nothing says who may have the data",
            "add access: open, embargoed, restricted or closed",
        )
    if access != "open" and not (known.get("contact") or known.get("get")):
        return f"access is {access}, and nothing says whom to ask", "add contact"
    return None


def _language(entry: Entry, known: Mapping[str, Any]) -> tuple[str, str] | None:
    axes = known.get("axes")
    if not known.get("dims"):
        return "no dims", "add the dataset with `emcube catalog add`, which reads them"
    bare = [
        dim
        for dim in known["dims"]
        if isinstance(axes, Mapping) and dim in axes and not (axes[dim] or {}).get("units")
    ]
    if not axes or bare:
        return f"no units of {', '.join(bare) or 'the dims'}", "say units where the cube is made"
    return None


def _vocabulary(entry: Entry, known: Mapping[str, Any]) -> tuple[str, str] | None:
    modality, licence = known.get("modality"), known.get("license")
    if modality is None or normal_modality(str(modality)) not in MODALITIES:
        return f"modality is {modality!r}", f"expected one of {', '.join(MODALITIES)}"
    if licence and not _SPDX.match(str(licence)) and "://" not in str(licence):
        return f"the licence {licence!r} is no SPDX identifier", "for example CC-BY-4.0 or CC0-1.0"
    return None


def _standards(entry: Entry, known: Mapping[str, Any]) -> tuple[str, str] | None:
    try:
        target = entry.target
    except CatalogError:
        return None
    suffix = target.location.rsplit(".", 1)[-1].lower()
    if target.kind == "zarr" or suffix in _OPEN_FORMATS:
        return None
    return (
        f"the format .{suffix} belongs to a maker of instruments",
        "ingest the file, and add the store beside it",
    )


_CHECKS: tuple[tuple[str, Check], ...] = (
    ("F1", _need("doi", "identifier", hint="publish the data in a repository and add the DOI")),
    ("F2", _all("title", "description", "modality")),
    ("F2", _need("elements", "specimen", say="nothing says what the specimen is")),
    (
        "F3",
        _need(
            "digest",
            "checksum",
            say="no digest: the entry does not say which bytes it means",
            hint="ingest the file, or crawl its folder with --checksums",
        ),
    ),
    ("F4", _need("keywords", "description", say="no words to be found by")),
    ("A1", _address),
    ("A1.1", _protocol),
    ("A1.2", _authorisation),
    ("A2", _all("creators", "shape")),
    ("I1", _language),
    ("I2", _vocabulary),
    (
        "I3",
        _need(
            "related",
            "doi",
            say="no related entries or identifiers",
            hint="add related: the HAADF image, other tilts, the paper",
        ),
    ),
    ("R1", _all("units", "beam_energy_keV")),
    (
        "R1.1",
        _need(
            "license", say="no licence: nobody may use the data", hint="add license, as CC-BY-4.0"
        ),
    ),
    ("R1.2", _all("creators", "acquired", "instrument")),
    ("R1.3", _standards),
)


def fair_findings(entry: Entry) -> Iterator[Finding]:
    """Tell what an entry lacks; looks at the catalog only.

    Yields
    ------
    Finding
        In the order of the principles.
    """
    for principle, check in _CHECKS:
        found = check(entry, entry.metadata)
        if found is not None:
            yield Finding(principle, *found)
