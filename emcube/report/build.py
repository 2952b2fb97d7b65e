"""Write the page: collect, render, and put the file in place whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from emcube.errors import InputError, MissingDependencyError, StoreError
from emcube.feedback.events import group

if TYPE_CHECKING:
    from emcube.models.matching import Comparison
    from emcube.report.contents import Contents
    from emcube.results import Result

__all__ = ["MARK", "page_of", "render", "report", "report_target"]

MARK = '<meta name="generator" content="emcube '
"""How a page of ours is known: only such a file is replaced without being asked."""


def report(
    result: Result | Comparison | str | os.PathLike[str],
    path: str | os.PathLike[str] = "report.html",
    *,
    overwrite: bool = False,
) -> Path:
    """Write a result as one HTML file that needs no network, no server and no emcube.

    Parameters
    ----------
    result : Result or path-like
        Complete. Or a comparison of several methods (`emcube.compare`).
    path : path-like
        The file. An earlier report is replaced.
    overwrite : bool
        Replace a file that is no report, too.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    IncompleteError
        The run was never finished.
    InputError
        `path` is a folder, lies within the result, or holds something else.
    StoreError
        There is no result, or the file cannot be written.
    MissingDependencyError
        jinja2 is not installed.

    Notes
    -----
    Loadings are read once, in parts; maps larger than a page can hold are shown at a lower resolution or for
    some positions of a series, and the page says so. The same result and the same emcube give the same bytes.

    Examples
    --------
    >>> em.report(em.open_result("results/map"), "report.html")  # doctest: +SKIP
    """
    from emcube.results import open_result

    # By what it can do, not by its class: importing that costs seconds before a path is looked at.
    if isinstance(result, str | os.PathLike):
        result = open_result(os.fspath(result))
    if hasattr(result, "table"):
        from emcube.report.comparison import comparison_page

        place = report_target(Path(path).expanduser(), None, overwrite=overwrite)
        _write(
            place,
            comparison_page(cast("Comparison", result), _asset("page.css"), MARK).encode("utf-8"),
        )
        return place
    result.require_complete("report")
    target = report_target(Path(path).expanduser(), result.path, overwrite=overwrite)
    with group("report"):
        _write(target, page_of(result).encode("utf-8"))
    return target


def page_of(
    result: Result, *, package: str | None = None, methods: str = "", figures: bool = True
) -> str:
    """Write the page of a result as text, for those who put it elsewhere than into a file.

    Parameters
    ----------
    result : Result
    package : str, optional
        Title of the package for publication in which the page will lie. It then tells how to run the
        package again, not the recipe.
    methods : str
        The paragraph for a paper, in a package.
    figures : bool
        In a package: draw maps, spectra and curves.

    Raises
    ------
    IncompleteError
        The run was never finished.
    MissingDependencyError
        jinja2 is not installed.
    """
    from emcube.report.contents import contents_of, of_package

    result.require_complete("report")
    _require_jinja()
    contents = contents_of(result)
    if package is not None:
        contents = of_package(contents, package, methods, figures=figures)
    return render(contents)


def render(contents: Contents) -> str:
    """Fill the template; every text is escaped, and only scripts and styles of ours are let run."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("emcube.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, scripts = _asset("page.css"), [_asset("vendor/d3.min.js"), _asset("page.js")]
    data = {"figures": contents.figures, "groups": contents.groups}
    return environment.get_template("page.html.jinja").render(
        c=contents,
        style=style,
        scripts=scripts,
        data=_script_json(data),
        recipe_link=_download(contents.recipe, "application/yaml"),
        bibtex_link=_download(contents.bibtex, "application/x-bibtex"),
        policy=_policy(style, scripts),
    )


def _require_jinja() -> None:
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "a report needs jinja2, which is not installed",
            hint='pip install "emcube[report]"',
        ) from error


def report_target(path: Path, source: Path | None, *, overwrite: bool) -> Path:
    """Refuse a place where a report would destroy something."""
    if path.is_dir():
        raise InputError(
            f"the report's place is a folder: {str(path)!r}, expected a file",
            hint=f"name a file, such as {str(path / 'report.html')!r}",
        )
    if source is not None and path.resolve().is_relative_to(source.resolve()):
        raise InputError(
            f"{str(path)!r} lies within the result {str(source)!r}, which stays as its run left it",
            hint="write the report beside it",
        )
    if path.exists() and not overwrite and not _is_report(path):
        raise InputError(
            f"{str(path)!r} exists and is no report of emcube, expected a new file or an earlier report",
            hint="choose another name, or replace it with --overwrite (overwrite=True); nothing was touched",
        )
    return path


def _is_report(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(4096)
    except OSError as error:
        raise StoreError(
            f"{str(path)!r} cannot be read: {error.strerror or error}", hint="check its permissions"
        ) from error


def _write(path: Path, data: bytes) -> None:
    from emcube.disk import replace_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What a link leads to is written, never the link.
        replace_file(path.resolve() if path.is_symlink() else path, data)
    except OSError as error:
        raise StoreError(
            f"the report {str(path)!r} cannot be written: {error.strerror or error}",
            hint="check permissions and space; what was there before still is",
        ) from error


@lru_cache(maxsize=8)
def _asset(name: str) -> str:
    """Read a file of this package."""
    text = files("emcube.report").joinpath(*name.split("/")).read_text(encoding="utf-8")
    # An end tag in a script or style would end it in the page.
    if "</script" in text.lower() or "</style" in text.lower():
        raise AssertionError(f"{name} holds an end tag and cannot stand within a page")
    return text


def _script_json(data: Any) -> str:
    """JSON that may stand within a script element, whatever its texts are."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _download(text: str, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(text.encode("utf-8")).decode("ascii")


def _policy(style: str, scripts: list[str]) -> str:
    """Content security policy: nothing is loaded, and nothing runs but what is named by its hash."""

    def named(text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    return "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(map(named, scripts)),
            f"style-src {named(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
