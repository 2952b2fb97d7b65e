"""Texts of a package that follow from its result alone, so that whoever reproduces can write them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from emcube.errors import PackageError
from emcube.package import names
from emcube.package.methods import methods_page
from emcube.package.names import printable
from emcube.package.references import (
    Reference,
    bibliography,
    dataset_reference,
    references_of,
    software_citation,
)
from emcube.package.stores import MAX_JSON, load_json

if TYPE_CHECKING:
    from emcube.results import Result

__all__ = ["Cited", "compare_texts", "derived_texts", "not_compared", "version_of"]

_CLAIMS = {
    names.REPORT: "figures and text of the report",
    names.README: "the page for readers",
    names.PREVIEW: "the page for readers",
    names.CRATE: "title, people, licence, dates",
    names.DESCRIPTION: "title, addresses, how the data were named",
    names.ENTRY: "what the catalog says of the data",
    names.LOCK: "versions of libraries that no number hangs on",
}
"""Files that nobody can confirm by running the recipe, and what they say."""


@dataclass(frozen=True)
class Cited:
    """References of an analysis, and of its data."""

    methods: tuple[Reference, ...]
    data: Reference | None

    @classmethod
    def of(cls, result: Result, entry: Mapping[str, Any], day: str = "") -> Cited:
        """Those of a result.

        Parameters
        ----------
        result : Result
            Complete.
        entry : mapping
            Metadata of the catalog entry, cleaned; empty where there is none.
        day : str
            Of publication; its year stands where the run did not note one.
        """
        steps = [(result.verb(step), dict(result[step].attrs)) for step in result.steps]
        year = str(result.provenance.get("finished") or day)[:4]
        found = references_of(steps, version_of(result), year)
        return cls(tuple(found), dataset_reference(entry))

    @property
    def all(self) -> tuple[Reference, ...]:
        """Both."""
        return self.methods if self.data is None else (*self.methods, self.data)


def version_of(result: Result) -> str:
    """Version of emcube in the run."""
    stack = result.provenance.get("stack") or {}
    return str((stack.get("libraries") or {}).get("emcube", "?"))


def derived_texts(result: Result, cited: Cited) -> dict[str, bytes]:
    """Files that are the same for the same result and the same emcube, always."""
    version = version_of(result)
    return {
        names.RECIPE: _yaml(result.recipe),
        names.CITATION: software_citation(version),
        names.METHODS: methods_page(result, cited.methods, version, cited.data),
        names.BIBLIOGRAPHY: bibliography(cited.all),
    }


def compare_texts(root: Path, result: Result, made_with: str) -> dict[str, str]:
    """Write the texts of a package again and compare.

    Parameters
    ----------
    root : Path
        The package, unpacked and checked.
    result : Result
        The one in it, whose numbers were compared with a new run's.
    made_with : str
        Version of emcube that made the package: another one writes other sentences.

    Returns
    -------
    dict of str to str
        "same", "differs" or "missing", or why it was not compared, for each file.
    """
    from emcube import __version__

    if made_with != __version__:
        why = f"not compared: written by emcube {printable(made_with, 40)}, this is {__version__}"
        return dict.fromkeys((names.RECIPE, names.CITATION, names.METHODS, names.BIBLIOGRAPHY), why)
    wanted = derived_texts(result, Cited.of(result, _entry(root)))
    same = _document(root, names.STACK).get("stack") == result.provenance.get("stack")
    return {name: _compared(root / name, text) for name, text in wanted.items()} | {
        names.STACK: "same" if same else "differs"
    }


def not_compared(root: Path) -> dict[str, str]:
    """Files that no run can confirm, and what they say."""
    return {name: text for name, text in _CLAIMS.items() if (root / name).is_file()}


def _compared(path: Path, text: bytes) -> str:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != len(text):
        return "differs"
    return "same" if path.read_bytes() == text else "differs"


def _entry(root: Path) -> dict[str, Any]:
    found = _document(root, names.ENTRY).get("metadata")
    return found if isinstance(found, dict) else {}


def _document(root: Path, name: str) -> dict[str, Any]:
    """A JSON file of a stranger; empty where it is not there."""
    path = root / name
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_JSON:
        raise PackageError(
            f"{name} of the package has {path.stat().st_size:,} bytes, expected at most {MAX_JSON:,}",
            hint="do not use this package, or ask who made it",
        )
    found = load_json(path.read_bytes(), f"{name} of the package")
    return found if isinstance(found, dict) else {}


def _yaml(plain: Mapping[str, Any]) -> bytes:
    text = yaml.safe_dump(
        dict(plain), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    head = (
        "# The analysis, every default filled in; runs on the data named in emcube-package.json.\n"
    )
    return (head + text).encode()
