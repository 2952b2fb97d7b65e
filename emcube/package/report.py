"""The report of a package: the page of its result, without places of anybody's machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emcube.package import names
from emcube.package.addresses import public_metadata, public_provenance
from emcube.package.crate import Publication

if TYPE_CHECKING:
    from emcube.results import Result

__all__ = ["public_result", "report_page"]


def report_page(result: Result, about: Publication, methods: str, *, figures: bool) -> bytes:
    """Write report.html.

    Parameters
    ----------
    result : Result
        Complete.
    about : Publication
        What the package says of itself.
    methods : str
        The Methods paragraph.
    figures : bool
        Draw maps, spectra and curves; without them the page has numbers and texts only.

    Notes
    -----
    The page of `emcube.report`: nothing in it is fetched from elsewhere, and nothing runs but its own script.
    The same bytes for the same result and installed versions.
    """
    from emcube.report.build import page_of

    page = page_of(public_result(result), package=about.title, methods=methods, figures=figures)
    return page.encode("utf-8")


def public_result(result: Result) -> Result:
    """The result as others may see it: folders of this machine are left out of what it says of itself."""
    tree = result.tree.copy()
    tree.attrs = {**tree.attrs, "provenance": public_provenance(result.provenance)}
    node = tree.children.get("input")
    if node is not None and node.attrs.get("metadata"):
        node.attrs = {**node.attrs, "metadata": public_metadata(node.attrs["metadata"])}
    return replace(result, location=names.RESULT, tree=tree)
