"""Who made it, and under which licence: what a user writes, as linked data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from emcube.errors import InputError

__all__ = ["Creator", "License", "parse_creators", "parse_license"]

_ORCID = re.compile(r"(?:https?://orcid\.org/)?(\d{4}-\d{4}-\d{4}-\d{3}[\dX])")
_TEXT = re.compile(r"^\s*(?P<name>[^()<>]+?)\s*(?:[(<](?P<orcid>[^()<>]+)[)>])?\s*$")

NO_LICENSE = "No licence is stated: ask the creators before you use it."


@dataclass(frozen=True)
class Creator:
    """A person.

    Attributes
    ----------
    name : str
    orcid : str or None
        Sixteen digits in four groups.
    affiliation : str or None
    """

    name: str
    orcid: str | None = None
    affiliation: str | None = None

    @property
    def id(self) -> str:
        """Its identifier in linked data."""
        if self.orcid is not None:
            return f"https://orcid.org/{self.orcid}"
        return "#" + re.sub(r"[^a-z0-9]+", "-", self.name.casefold()).strip("-")

    def to_entities(self) -> list[dict[str, Any]]:
        """The person, and the organisation where one was named."""
        person: dict[str, Any] = {"@id": self.id, "@type": "Person", "name": self.name}
        if self.affiliation is None:
            return [person]
        place = "#" + re.sub(r"[^a-z0-9]+", "-", self.affiliation.casefold()).strip("-")
        person["affiliation"] = {"@id": place}
        return [person, {"@id": place, "@type": "Organization", "name": self.affiliation}]


@dataclass(frozen=True)
class License:
    """Terms of use: an address, or a text.

    Attributes
    ----------
    id : str or None
        Address that stands for it.
    name : str
    """

    id: str | None
    name: str


def parse_creators(given: str | Mapping[str, Any] | Iterable[Any] | None) -> tuple[Creator, ...]:
    """Read creators: ``"Ada Lovelace (0000-0002-1825-0097)"``, or mappings with name, orcid, affiliation.

    Raises
    ------
    InputError
        One has no name, or an ORCID whose check digit is wrong.
    """
    if given is None:
        return ()
    many = [given] if isinstance(given, str | Mapping) else list(given)
    return tuple(_creator(one) for one in many)


def _creator(given: Any) -> Creator:
    if isinstance(given, Creator):
        return given
    if isinstance(given, Mapping):
        name, orcid = given.get("name"), given.get("orcid")
        unknown = sorted(set(given) - {"name", "orcid", "affiliation"})
    else:
        match = _TEXT.match(str(given))
        name, orcid = (match["name"], match["orcid"]) if match else (None, None)
        unknown = []
    if not isinstance(name, str) or not name.strip() or unknown:
        raise InputError(
            f"creators: got {given!r}, expected a name, with or without an ORCID: "
            "'Ada Lovelace (0000-0002-1825-0097)'",
            hint="in Python also {'name': ..., 'orcid': ..., 'affiliation': ...}",
        )
    affiliation = given.get("affiliation") if isinstance(given, Mapping) else None
    return Creator(
        name.strip(),
        None if orcid is None else _orcid(str(orcid)),
        None if affiliation is None else str(affiliation),
    )


def _orcid(text: str) -> str:
    match = _ORCID.fullmatch(text.strip())
    if match is None or _check_digit(match[1]) != match[1][-1]:
        raise InputError(
            f"creators: got the ORCID {text!r}, expected sixteen digits in four groups, the last one a check "
            "digit",
            hint="copy it from orcid.org, or leave it out",
        )
    return match[1]


def _check_digit(orcid: str) -> str:
    """ISO 7064, mod 11-2."""
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    rest = (12 - total % 11) % 11
    return "X" if rest == 10 else str(rest)


def parse_license(given: str | None) -> License:
    """Read a licence: an SPDX identifier such as CC-BY-4.0, an address, or a text.

    Raises
    ------
    InputError
        It is empty.
    """
    if given is None:
        return License(None, NO_LICENSE)
    text = given.strip()
    if not text:
        raise InputError(
            "license: got an empty text, expected a name such as CC-BY-4.0, a URL or a sentence",
            hint="leave it out where none is chosen yet",
        )
    if re.match(r"https?://\S+$", text):
        return License(text, text.rstrip("/").rsplit("/", 1)[-1] or text)
    # Names of the SPDX list have neither spaces nor full stops at their end.
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*[A-Za-z0-9+]", text):
        return License(f"https://spdx.org/licenses/{text}", text)
    return License(None, text)
