"""Reference pages: ``.. public::`` lists names, each with a page of its own made from its docstring.

``.. public:: emcube.open emcube.models.*`` takes names and whole packages (all that they export). A name
that ``emcube`` itself exports is written as users write it, and ``emcube.*`` stands for those that no other
page lists. So a function that joins ``__all__`` joins the reference without a change here.

``.. autoerrors:: MODULE`` puts a module's exceptions on one page.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.autosummary import Autosummary
from sphinx.ext.autosummary.generate import generate_autosummary_docs
from sphinx.util.docutils import SphinxDirective

FOLDER = "api"
"""Where the pages of single names go, beside those that list them."""

LISTING = re.compile(r"^\.\. public:: (.+)$", re.MULTILINE)

NAMES: dict[str, list[str]] = {}
"""What each pattern on the pages stands for."""

AUTHOR = re.compile(r"(?:[A-Z]\.[ -]?)+[A-Z]\w+")
"""How a reference begins: initials and a name."""

LITERAL = re.compile(r"(``[^`]+``|`[^`]+`)")

# scikit-learn adds these to every estimator; they say nothing of ours.
FOREIGN = re.compile(r"set_\w+_request|get_metadata_routing")


def names_of(pattern: str) -> list[str]:
    """Full names that a pattern stands for, as users write them.

    Raises
    ------
    ValueError
        It names something that is not there.
    """
    if not pattern.endswith(".*"):
        _object(pattern)
        return [pattern]
    package = pattern.removesuffix(".*")
    module = importlib.import_module(package)
    names = sorted(module.__all__, key=lambda name: (not name[0].isupper(), name.lower()))
    return [_shortest(package, name) for name in names if _is_documented(getattr(module, name))]


def listed(texts: list[str]) -> dict[str, list[str]]:
    """Names that each pattern in the texts of the pages stands for; ``emcube.*`` takes what is left."""
    patterns = {p for text in texts for line in LISTING.findall(text) for p in line.split()}
    found = {pattern: names_of(pattern) for pattern in sorted(patterns)}
    named = {name for pattern in patterns - {"emcube.*"} for name in found[pattern]}
    if "emcube.*" in found:
        found["emcube.*"] = [name for name in found["emcube.*"] if name not in named]
    return found


def bind_functions() -> None:
    """Let ``emcube.report`` be the function: users call the package, autodoc would describe the module."""
    import emcube

    for name in emcube.__all__:
        found = getattr(emcube, name)
        if isinstance(found, ModuleType) and callable(found):
            setattr(emcube, name, getattr(found, name))


def _object(name: str) -> Any:
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            found = getattr(found, part, None)
        if found is not None:
            return found
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ValueError(f"public: there is no {name!r}") from None


def _shortest(package: str, name: str) -> str:
    import emcube

    same = name in emcube.__all__ and getattr(emcube, name) is getattr(
        importlib.import_module(package), name
    )
    return f"emcube.{name}" if same else f"{package}.{name}"


def _is_documented(found: Any) -> bool:
    """Functions and classes; modules have pages of their own, constants none."""
    if isinstance(found, ModuleType):
        return callable(found)
    return inspect.isclass(found) or inspect.isroutine(found)


class Public(Autosummary):
    """A table of names with the first line of each description."""

    required_arguments = 1
    optional_arguments = 0
    final_argument_whitespace = True
    has_content = False

    def run(self) -> list[Any]:
        """List the names as autosummary does."""
        names = [name for pattern in self.arguments[0].split() for name in NAMES[pattern]]
        self.options["toctree"] = FOLDER
        self.options["nosignatures"] = None
        shown = [f"~{name}" if name.count(".") > 2 else name for name in names]
        self.content = StringList(shown, source=self.env.docname)
        return super().run()


class AutoErrors(SphinxDirective):
    """The exceptions of a module, the general ones first."""

    required_arguments = 1

    def run(self) -> list[Any]:
        """Write an ``autoexception`` for each."""
        module = importlib.import_module(self.arguments[0])
        classes = [getattr(module, name) for name in module.__all__]
        lines: list[str] = []
        for found in sorted(classes, key=lambda c: (len(c.__mro__), c.__name__)):
            lines += [
                f".. autoexception:: {module.__name__}.{found.__name__}",
                "   :show-inheritance:",
                "",
            ]
        return self.parse_text_to_nodes("\n".join(lines))


def write_stubs(app: Sphinx) -> None:
    """Write a page for each name, and remove those of names that are gone."""
    folder = Path(app.confdir) / "reference"
    bind_functions()
    NAMES.update(listed([p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.md"))]))
    names = sorted({name for several in NAMES.values() for name in several})
    out = folder / FOLDER
    out.mkdir(exist_ok=True)
    for stale in {p.name for p in out.iterdir()} - {f"{n}.rst" for n in names}:
        (out / stale).unlink()
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch) / "names.rst"
        body = "".join(f"   {n}\n" for n in names)
        listing.write_text(f".. autosummary::\n   :toctree: {out}\n\n{body}", encoding="utf-8")
        generate_autosummary_docs([str(listing)], app=app, imported_members=True, overwrite=True)


def skip_foreign(app: Sphinx, what: str, name: str, found: Any, skip: bool, options: Any) -> Any:
    """Leave out what scikit-learn and pydantic put into every class of theirs."""
    home = getattr(found, "__module__", "") or ""
    if FOREIGN.fullmatch(name) or home.split(".")[0] in ("pydantic", "sklearn"):
        return True
    return None


def separate_references(
    app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Make a list of the references of a docstring: an initial at the start of a line begins the next one."""
    for start, line in enumerate(lines[:-1]):
        if line.strip() == "References" and set(lines[start + 1].strip()) == {"-"}:
            break
    else:
        return
    for i in range(start + 2, len(lines)):
        if not lines[i].strip():
            continue
        if set(lines[i].strip()) == {"-"} and len(lines[i].strip()) > 3:  # the next section
            return
        if i + 1 < len(lines) and set(lines[i + 1].strip()) == {"-"}:
            return
        first = AUTHOR.match(lines[i])
        lines[i] = f"- {lines[i]}" if first or i == start + 2 else f"  {lines[i]}"
        lines[i] = re.sub(r"^- ([A-Z])\.", r"- \1\\.", lines[i])


def plain_bars(
    app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Leave ``|x|`` a modulus: docstrings know no substitutions."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "|", "+")):
            parts = LITERAL.split(line)
            parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
            lines[i] = "".join(parts)


def resolve_ours(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Lead a name to the page of what it names; what exists and has no page stays a word."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("emcube."):
        return None
    try:
        found = _object(target)
    except ValueError:
        return None
    for public in {name for several in NAMES.values() for name in several}:
        if public != target and _object(public) is found:
            return env.get_domain("py").resolve_xref(
                env, node["refdoc"], app.builder, "obj", public, node, content
            )
    return content


def setup(app: Sphinx) -> dict[str, Any]:
    """Register directives and the writing of pages."""
    app.setup_extension("sphinx.ext.autosummary")
    app.add_directive("public", Public)
    app.add_directive("autoerrors", AutoErrors)
    app.connect("builder-inited", write_stubs, priority=100)
    app.connect("autodoc-skip-member", skip_foreign)
    # Before numpydoc reads the sections.
    app.connect("autodoc-process-docstring", separate_references, priority=400)
    app.connect("autodoc-process-docstring", plain_bars, priority=410)
    app.connect("missing-reference", resolve_ours)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
