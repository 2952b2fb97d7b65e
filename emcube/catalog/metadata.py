"""What a catalog says of a dataset: the cube's own metadata, and who, where, when, on which terms.

The words are those of DataCite and schema.org where these have one, so that exports translate nothing.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from emcube.cube.metadata import Metadata, NonNegative
from emcube.cube.metadata import _Model as Model
from emcube.errors import CubeError

__all__ = ["ALIASES", "Creator", "EntryMetadata", "Related", "checked", "doi_of"]

#: Other spellings of a field, for what users and files write.
ALIASES = {
    "licence": "license",
    "beam_energy": "beam_energy_keV",
    "voltage_kV": "beam_energy_keV",
    "session_id": "session",
    "acquisition_date": "acquired",
    "embargo_date": "embargo_until",
    "instrument_pid": "instrument_id",
}

_DOI = re.compile(r"^10\.\d{4,9}/\S+$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_CHECKSUM = re.compile(
    r"^(md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
)
_IDENTIFIER = re.compile(
    r"^(https?://\S+|10\.\d{4,9}/\S+|hdl:\S+|urn:\S+|[a-z0-9]+:\S+)$", re.IGNORECASE
)


def doi_of(text: str) -> str:
    """A DOI without the address of its resolver.

    Raises
    ------
    ValueError
        It is none.
    """
    bare = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)", "", text.strip(), flags=re.IGNORECASE)
    if not _DOI.match(bare):
        raise ValueError("expected a DOI such as 10.5281/zenodo.15490547")
    return bare


def _orcid(text: str) -> str:
    bare = re.sub(r"^https?://orcid\.org/", "", text.strip())
    digits = bare.replace("-", "")
    if not re.fullmatch(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", bare):
        raise ValueError("expected an ORCID iD such as 0000-0002-1825-0097")
    total = 0
    for digit in digits[:-1]:
        total = (total + int(digit)) * 2
    check = (12 - total % 11) % 11
    if digits[-1] != ("X" if check == 10 else str(check)):
        raise ValueError("its check digit is wrong: a digit was mistyped")
    return bare


def _matching(pattern: re.Pattern[str], expected: str) -> Any:
    def check(text: str) -> str:
        if not pattern.match(text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


def _date(text: str) -> str:
    for length, form in ((4, "%Y"), (7, "%Y-%m"), (10, "%Y-%m-%d")):
        if len(text) == length:
            dt.datetime.strptime(text, form)
            return text
    raise ValueError("expected a date such as 2026-11-26, 2026-11 or 2026")


Doi = Annotated[str, AfterValidator(doi_of)]
Digest = Annotated[str, _matching(_DIGEST, "sha256: and 64 hexadecimal digits")]
Checksum = Annotated[
    str, _matching(_CHECKSUM, "md5:, sha1:, sha256: or sha512: and hexadecimal digits")
]
Identifier = Annotated[str, _matching(_IDENTIFIER, "a DOI, a handle or a URL")]
Date = Annotated[str, AfterValidator(_date)]


class Creator(Model):
    """Somebody who made the data.

    Attributes
    ----------
    name : str
        As "Family, Given", or of an organisation.
    orcid : str
        ORCID iD; its check digit is checked.
    affiliation : str
    affiliation_id : str
        Its identifier, as one of ROR.
    """

    name: str = Field(min_length=1)
    orcid: Annotated[str, AfterValidator(_orcid)] | None = None
    affiliation: str | None = None
    affiliation_id: Identifier | None = None


class Related(Model):
    """Something that belongs to the dataset.

    Attributes
    ----------
    relation : str
        "image" (as HAADF, taken with it), "tilt" (another angle), "dose" (another dose), "low loss",
        "reference", "same specimen", "part of", "derived from", "source", "described by".
    entry : str
        Name of an entry of this catalog.
    identifier : str
        DOI, handle or URL of something elsewhere.
    title : str
    """

    relation: Literal[
        "image", "tilt", "dose", "low loss", "reference", "same specimen",
        "part of", "derived from", "source", "described by",
    ]  # fmt: skip
    entry: str | None = None
    identifier: Identifier | None = None
    title: str | None = None

    @model_validator(mode="after")
    def _names_something(self) -> Related:
        if self.entry is None and self.identifier is None:
            raise ValueError("expected an entry of this catalog or an identifier")
        return self


class EntryMetadata(Metadata):
    """Everything an entry can say; all fields may be left out.

    Attributes
    ----------
    description : str
    creators : tuple of Creator
    license : str
        SPDX identifier ("CC-BY-4.0") or the address of its text.
    doi : str
    identifier : str
        Another persistent identifier.
    publisher : str
    published : str
        Date, or year.
    version : str
    keywords : tuple of str
    access : {"open", "embargoed", "restricted", "closed"}
    embargo_until : datetime.date
        Needed where access is "embargoed".
    contact : str
        Whom to ask where access is not open.
    instrument_id : str
        Persistent identifier of the instrument.
    session : str
        Session or proposal at the facility.
    specimen_id : str
        Persistent identifier of the specimen, as an IGSN.
    dims, sig_dims : tuple of str
    shape : tuple of int
    dtype, units : str
    axes : dict
        For each dim its first and last value and unit.
    counts_per_pixel : float
        Mean over the pixels.
    nbytes : int
        Decoded.
    size : int
        Of the file, bytes.
    size_about : str
        As the source states it, where nobody counted bytes.
    filename, format, signal : str
        Of the file, where it is one; which of its signals.
    member : str
        Which file of a zip archive.
    digest : str
        Of the cube (see docs/stores.md).
    checksum : str
        Of the file's bytes.
    checksum_status : {"checked", "published", "accepted", "unchecked"}
        "checked": whoever made the entry hashed the bytes; "published": the source states it;
        "accepted": that of the bytes that came when somebody fetched first and took them as they came;
        "unchecked": nobody has compared it with any bytes.
    related : tuple of Related
    get : str
        How to get the data, for people.
    crawled : dict
        What `emcube catalog crawl` remembers.
    """

    description: str | None = None
    creators: tuple[Creator, ...] = ()
    license: str | None = None
    doi: Doi | None = None
    identifier: Identifier | None = None
    publisher: str | None = None
    published: Date | None = None
    version: str | None = None
    keywords: tuple[str, ...] = ()
    access: Literal["open", "embargoed", "restricted", "closed"] | None = None
    embargo_until: dt.date | None = None
    contact: str | None = None
    instrument_id: Identifier | None = None
    session: str | None = None
    specimen_id: Identifier | None = None
    dims: tuple[str, ...] = ()
    sig_dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str | None = None
    units: str | None = None
    axes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    counts_per_pixel: NonNegative | None = None
    nbytes: Annotated[int, Field(ge=0)] | None = None
    size: Annotated[int, Field(ge=0)] | None = None
    size_about: str | None = None
    filename: str | None = None
    format: str | None = None
    signal: str | None = None
    member: str | None = None
    digest: Digest | None = None
    checksum: Checksum | None = None
    checksum_status: Literal["checked", "published", "accepted", "unchecked"] | None = None
    related: tuple[Related, ...] = ()
    get: str | None = None
    crawled: dict[str, Any] = Field(default_factory=dict)


def checked(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as JSON, with the fields that emcube knows checked and under their own names.

    Raises
    ------
    CubeError
        Names the field, what it held and what was expected.
    """
    from emcube.catalog.search import normal_modality
    from emcube.store import to_json

    given = {ALIASES.get(key, key): value for key, value in metadata.items()}
    if isinstance(given.get("modality"), str):
        given["modality"] = normal_modality(given["modality"])
    for key in ("elements", "keywords", "dims", "sig_dims"):
        if isinstance(given.get(key), str):
            between = "," if key == "keywords" else r"[,\s]+"
            given[key] = [part for part in re.split(between, given[key]) if part.strip()]
    if isinstance(given.get("creators"), (str, Mapping)):
        given["creators"] = [given["creators"]]
    if isinstance(given.get("creators"), (list, tuple)):
        given["creators"] = [
            {"name": one} if isinstance(one, str) else one for one in given["creators"]
        ]
    fields = {key: value for key, value in given.items() if key in EntryMetadata.model_fields}
    known = EntryMetadata.parse(to_json(fields, "metadata")).to_attrs()
    if known.get("access") == "embargoed" and "embargo_until" not in known:
        raise CubeError(
            "metadata: access is 'embargoed' without a date of its end",
            hint="say embargo_until='2027-01-31' or the like",
        )
    others = {key: value for key, value in given.items() if key not in fields}
    plain: dict[str, Any] = to_json({**known, **others}, "metadata")
    for key in plain:
        if not key.isidentifier():
            raise CubeError(f"metadata: {key!r} cannot be a key", hint="use letters, digits and _")
    return plain
