"""Names of files in a package: the few that it has of its own, and what any name may be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from emcube.errors import PackageError

__all__ = [
    "BIBLIOGRAPHY",
    "CITATION",
    "CRATE",
    "DESCRIPTION",
    "ENTRY",
    "INPUT",
    "LOCK",
    "MANIFEST",
    "METHODS",
    "PREVIEW",
    "README",
    "RECIPE",
    "REPORT",
    "RESULT",
    "STACK",
    "check_name",
    "check_names",
    "printable",
]

CRATE = "ro-crate-metadata.json"
PREVIEW = "ro-crate-preview.html"
DESCRIPTION = "emcube-package.json"
MANIFEST = "manifest-sha256.txt"
RECIPE = "recipe.yaml"
REPORT = "report.html"
RESULT = "result"
INPUT = "input/cube.zarr"
ENTRY = "catalog-entry.json"
LOCK = "environment/requirements.txt"
STACK = "environment/stack.json"
CITATION = "CITATION.cff"
METHODS = "METHODS.md"
BIBLIOGRAPHY = "references.bib"
README = "README.md"

MAX_PART = 255
MAX_NAME = 1024

_HINT = "do not use this package; get it again from where it was published"


def check_name(name: str, where: str) -> str:
    """Return the name of a file within a folder if it cannot lead out of it, on any system.

    Parameters
    ----------
    name : str
        Path with forward slashes.
    where : str
        What holds the file, for the message.

    Raises
    ------
    PackageError
        It is absolute, climbs up, or holds something that a file system takes for more than a name.
    """
    shown = printable(name)
    for wrong, what in (
        (not name, "an empty name"),
        (name.startswith("/"), "an absolute path"),
        (re.match(r"[A-Za-z]:", name) is not None, "a path on a drive"),
        ("\\" in name, "a backslash"),
        (":" in name, "a colon"),
        (any(unicodedata.category(c) in ("Cc", "Cs") for c in name), "a control character"),
        (len(name.encode("utf-8", "replace")) > MAX_NAME, "an overlong path"),
    ):
        if wrong:
            raise PackageError(
                f"{where} names the file {shown!r}: {what}, expected a plain path within it",
                hint=_HINT,
            )
    for part in name.split("/"):
        if part in ("", ".", "..") or len(part.encode("utf-8")) > MAX_PART:
            raise PackageError(
                f"{where} names the file {shown!r}: its part {printable(part)!r} is not the name of "
                "a file or folder within it",
                hint=_HINT,
            )
    return name


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse names of which two would be one file on some system, or a file and a folder at once.

    Raises
    ------
    PackageError
        Names both.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = _folded(name)
        if key in seen:
            raise PackageError(
                f"{where} holds {printable(name)!r} and {printable(seen[key])!r}, which are one file "
                "where letters' case or their writing is not told apart",
                hint=_HINT,
            )
        seen[key] = name
    for name in list(seen.values()):
        for parent in _parents(_folded(name)):
            if parent in seen:
                raise PackageError(
                    f"{where} holds {printable(seen[parent])!r} as a file and as a folder",
                    hint=_HINT,
                )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _parents(name: str) -> Iterator[str]:
    for parent in PurePosixPath(name).parents:
        if str(parent) != ".":
            yield str(parent)


def printable(text: object, most: int = 200) -> str:
    """Text of a stranger for a terminal: control characters would move the cursor or worse."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return plain if len(plain) <= most else plain[:most] + "..."
