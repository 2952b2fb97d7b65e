"""The manifest: SHA-256 of every file of a package, as `sha256sum --check` reads it.

It is read strictly: sorted, one line a file, nothing else. Then a change of any byte in it shows: a digest
that fits no file, a name that is not there, or a line that is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from emcube.errors import PackageError
from emcube.package.names import MANIFEST, check_name, printable

__all__ = ["MAX_BYTES", "check_files", "parse_manifest", "write_manifest"]

MAX_BYTES = 512 * 2**20
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_HINT = "get the package again from where it was published; nothing of it was run"


def write_manifest(digests: Mapping[str, str]) -> bytes:
    """Write the manifest of some files.

    Parameters
    ----------
    digests : mapping of str to str
        SHA-256 in hexadecimal digits by name.
    """
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode("utf-8")


def parse_manifest(data: bytes, where: str) -> dict[str, str]:
    """Read a manifest.

    Parameters
    ----------
    data : bytes
    where : str
        Whose it is, for messages.

    Raises
    ------
    PackageError
        It is not exactly what `write_manifest` writes.
    """
    digests: dict[str, str] = {}
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "?"
    for number, line in enumerate(text.split("\n")[:-1], 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise PackageError(
                f"{MANIFEST} of {where}, line {number}: {printable(line)!r}, expected a SHA-256, two "
                "spaces and a name",
                hint=_HINT,
            )
        digests[check_name(match[2], f"{MANIFEST} of {where}")] = match[1]
    if write_manifest(digests) != data:
        raise PackageError(
            f"{MANIFEST} of {where} was changed: expected each file once, in the order of their names",
            hint=_HINT,
        )
    return digests


def check_files(files: Iterable[str], digests: Mapping[str, str], where: str) -> None:
    """Refuse a package that lacks files of its manifest, or holds others.

    Raises
    ------
    PackageError
        Names the first that is missing, or the first that is too many.
    """
    there = set(files) - {MANIFEST}
    missing = sorted(set(digests) - there)
    others = sorted(there - set(digests))
    if missing:
        raise PackageError(
            f"{where} misses {len(missing)} of {len(digests)} files, the first is {printable(missing[0])!r}",
            hint=_HINT,
        )
    if others:
        raise PackageError(
            f"{where} holds {len(others)} files that its manifest does not name, the first is "
            f"{printable(others[0])!r}",
            hint=_HINT,
        )
