"""Reproduce a package: unpack with care, get the input, run the recipe, compare."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emcube.errors import EmcubeError, InputError, PackageError, RecipeError
from emcube.feedback.events import group
from emcube.feedback.events import step as tell_step
from emcube.package import names
from emcube.package.archive import open_archive
from emcube.package.compare import Difference, compare, stack_differences
from emcube.package.description import MAX_BYTES as MAX_DESCRIPTION
from emcube.package.description import Description, parse_description
from emcube.package.fetching import cache_folder, cached, fetch
from emcube.package.inputs import Source, Wanted, as_store, require_digest
from emcube.package.manifest import MAX_BYTES as MAX_MANIFEST
from emcube.package.manifest import check_files, parse_manifest
from emcube.package.names import printable
from emcube.package.records import compare_records
from emcube.package.stores import check_store
from emcube.package.texts import compare_texts, not_compared
from emcube.recipe import Recipe
from emcube.recipe.spectra import paths_of
from emcube.results import Result, open_result
from emcube.results.tree import read_root

__all__ = ["Package", "Reproduction", "reproduce", "unpacked"]

MAX_RECIPE = 2**20
IN_PACKAGE = "in the package"

_HINT = "do not use this package, or ask who made it; nothing of it was run"

#: What malformed attributes make the readers of a result raise.
_MALFORMED = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError),
    *(OSError, RuntimeError, MemoryError, ArithmeticError),
)


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What came of running a package again.

    Attributes
    ----------
    crate : Path
        The package.
    result : Result
        Of this run.
    published_run_id : str
    differences : tuple of Difference
        One for each variable, identical or not.
    stack : dict
        What differs of that on which bits depend: how it was, how it is here. Empty on the same stack.
    source : str
        Where the input came from.
    records : tuple of Difference
        One for each dim, unit and attribute of variables, coordinates and steps, identical or not; times are
        left out.
    texts : dict of str to str
        Files of the package that were written again: "same", "differs", "missing", or why not compared.
    claims : dict of str to str
        Files of the package that nothing confirms, and what they say.
    sealed : bool
        Whether the archive is as `publish` wrote it; else another program packed it.
    """

    crate: Path
    result: Result
    published_run_id: str
    differences: tuple[Difference, ...]
    stack: dict[str, tuple[str, str]] = field(default_factory=dict)
    source: str = ""
    records: tuple[Difference, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    claims: dict[str, str] = field(default_factory=dict)
    sealed: bool = True

    @property
    def same_stack(self) -> bool:
        """Whether libraries, processor type and block layout are those of the published run."""
        return not self.stack

    @property
    def same_run(self) -> bool:
        """Whether it is the same run, by its identity."""
        return self.result.run_id == self.published_run_id

    @property
    def identical(self) -> bool:
        """Whether every bit of every variable is the same."""
        return all(d.identical for d in self.differences)

    @property
    def same_records(self) -> bool:
        """Whether dims, units, and what the steps recorded are the same, times apart."""
        return all(d.identical for d in self.records)

    @property
    def same_texts(self) -> bool:
        """Whether no text that was written again differs."""
        return not set(self.texts.values()) & {"differs", "missing"}

    @property
    def ok(self) -> bool:
        """Whether it is reproduced: the same bits on the same stack, within tolerances on another.

        Records of the run are held to the same, and texts that follow from it have to be the same bytes.
        """
        if not self.same_texts:
            return False
        if self.same_stack and not (self.identical and self.same_run):
            return False
        if self.same_stack and any(not (d.identical or d.advisory) for d in self.records):
            return False
        return all(d.within for d in (*self.differences, *self.records))

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "kind": "reproduction",
            "crate": str(self.crate),
            "ok": self.ok,
            "identical": self.identical,
            "same_stack": self.same_stack,
            "run_id": self.result.run_id,
            "published_run_id": self.published_run_id,
            "result": str(self.result.path),
            "input": self.source,
            "stack": {key: {"published": a, "here": b} for key, (a, b) in self.stack.items()},
            "sealed": self.sealed,
            "differences": [_plain(d) for d in self.differences],
            "records": {
                "identical": sum(d.identical for d in self.records),
                "of": len(self.records),
                "differing": [_plain(d) for d in self.records if not d.identical],
            },
            "texts": dict(self.texts),
            "not_compared": dict(self.claims),
        }


def _plain(difference: Difference) -> dict[str, Any]:
    return {
        "variable": difference.name,
        "identical": difference.identical,
        "difference": difference.difference,
        "tolerance": difference.tolerance,
        "within": difference.within,
        "remark": difference.remark,
    }


def reproduce(
    crate: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    input: Source | None = None,  # noqa: A002
    cache: str | os.PathLike[str] | None = None,
    offline: bool = False,
    allow_local_addresses: bool = False,
) -> Reproduction:
    """Run a package again and compare with what it holds.

    Parameters
    ----------
    crate : path
        The archive.
    out : path, optional
        Folder of the new result; default in the present folder, named after it. A run that was stopped there
        goes on.
    input : path, paths, or DataArray, optional
        The analysed data, where the package does not hold them and they cannot be fetched, or should not be.
    cache : path, optional
        Folder in which fetched data are kept; default ``EMCUBE_CACHE``, else the user's cache folder.
    offline : bool
        Fetch nothing.
    allow_local_addresses : bool
        Fetch from hosts of this machine and of private networks, too, where the package names any.

    Returns
    -------
    Reproduction
        ``ok``, the new ``result``, and every variable's difference.

    Raises
    ------
    PackageError
        The package was changed, lacks a file, is of a newer version, names places outside of itself, or holds
        what could run; nothing of it was run, and nothing written outside of a scratch folder.
    InputError
        The data are not there, or not those of the run; or `out` holds a result already.
    CubeError, EngineError
        The run failed.

    Notes
    -----
    Nothing in a package is code, and nothing of it is imported or unpickled. The archive's own digest is
    compared first, then the digest of each file while it is unpacked into a scratch folder beside `out`; Zarr
    metadata may name only codecs of a short list. On the same stack every bit has to be the same; on another
    one (`Reproduction.stack` says what differs) the tolerances of `emcube.package.compare` hold.

    Examples
    --------
    >>> em.reproduce("crate.zip").ok  # doctest: +SKIP
    True
    """
    path = Path(os.fspath(crate)).expanduser()
    place = _place(path, out)
    with group(f"reproduce {path.name}", 4), unpacked(path, place.parent) as package:
        _require_given(package, input)
        _require_new(place)
        tell_step(1, "get the data")
        store, source = _input(
            package,
            input,
            cache_folder(cache),
            offline=offline,
            allow_local=allow_local_addresses,
        )
        _require_values(package, store)
        tell_step(2, "run")
        again = _run(package, store, place)
        tell_step(3, "compare")
        differences = compare(package.result, again)
        return Reproduction(
            path,
            again,
            package.description.run_id,
            tuple(differences),
            stack_differences(package.result.provenance, again.provenance),
            source,
            # What is said of the data comes with them: others' copies may say it otherwise.
            tuple(compare_records(package.result, again, metadata=source == IN_PACKAGE)),
            compare_texts(package.root, package.result, package.description.created_with),
            not_compared(package.root),
            package.sealed,
        )


def _place(path: Path, out: str | os.PathLike[str] | None) -> Path:
    """Folder of the new result: as given, or in the present folder, named after the package."""
    if out is None:
        return Path.cwd() / f"{path.stem}-reproduced"
    return Path(os.fspath(out)).expanduser().absolute()


def _require_given(package: Package, given: Source | None) -> None:
    """Refuse a store of other data by the digest that it states, before anything takes time."""
    from emcube.package.addresses import is_url
    from emcube.store import is_store, read_digest

    described = package.description.input
    if isinstance(given, str | Path) and not is_url(str(given)):
        place = Path(given).expanduser()
        if described.opening.get("name") is None and is_store(place):
            require_digest(read_digest(place), described.digest, str(place))


def _require_new(place: Path) -> None:
    """Refuse a folder with a complete result."""
    root = read_root(place)
    if root is not None and root["emcube"]["complete"]:
        raise InputError(
            f"{str(place)!r} holds a result already, expected a new folder: a result that is there would not "
            "be computed again",
            hint="choose another folder with --out (out= in Python), or remove this one",
        )


# -------------------------------------------------------------------------------------- the package


@dataclass(frozen=True, eq=False)
class Package:
    """A package that was unpacked and found whole and harmless.

    Attributes
    ----------
    path, root : Path
        The archive, and the folder with its files.
    description : Description
    recipe : Recipe
    result : Result
        As published.
    sealed : bool
        Whether the archive has a seal, which it then matches.
    """

    path: Path
    root: Path
    description: Description
    recipe: Recipe
    result: Result
    sealed: bool


@contextmanager
def unpacked(path: Path, beside: Path) -> Iterator[Package]:
    """Unpack a package into a scratch folder, checked, for as long as the context lasts.

    Parameters
    ----------
    path : Path
        The archive.
    beside : Path
        Folder in which the scratch folder is made.

    Raises
    ------
    PackageError
        It is not a whole and harmless package of a version that this emcube reads.
    """
    where = f"the package {str(path)!r}"
    with open_archive(path) as archive:
        description = parse_description(archive.read(names.DESCRIPTION, MAX_DESCRIPTION), path)
        digests = parse_manifest(archive.read(names.MANIFEST, MAX_MANIFEST), where)
        check_files(archive.files, digests, where)
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".emcube-package-", dir=beside) as scratch:
            root = Path(scratch)
            archive.extract(root, digests)
            yield _checked(path, root, description, sealed=archive.sealed)


def _checked(path: Path, root: Path, description: Description, *, sealed: bool) -> Package:
    where = f"the package {str(path)!r}"
    recipe = _recipe(root, where)
    check_store(root / names.RESULT, f"{names.RESULT} of {where}")
    result = _result(root / names.RESULT, where)
    digest = result.provenance.get("input", {}).get("digest")
    drawn = result.provenance.get("drawn_seeds") or []
    seeds = {str(step): result.provenance["seeds"][str(step)] for step in drawn}
    for what, first, second in (
        ("identity of the run", description.run_id, result.run_id),
        ("recipe", recipe.document.data, result.recipe),
        ("digest of the input", description.input.digest, digest),
        ("drawn seeds", dict(description.seeds), seeds),
    ):
        if first != second:
            place, one, two = _first_difference(first, second)
            named = f"{what}: {printable(place)}" if place else what
            raise PackageError(
                f"{where} contradicts itself: the {named} is {printable(two)} in its result and "
                f"{printable(one)} beside it",
                hint=_HINT,
            )
    included = description.input.included
    if included is not None:
        check_store(root.joinpath(*included.split("/")), f"{included} of {where}")
    return Package(path, root, description, recipe, result, sealed)


def _first_difference(first: Any, second: Any, place: str = "") -> tuple[str, Any, Any]:
    """Where two plain values differ, and what stands there; of long ones the rest would hide it."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys([*first, *second]):
            one, two = first.get(key, "nothing"), second.get(key, "nothing")
            if one != two:
                return _first_difference(one, two, f"{place}.{key}" if place else str(key))
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (one, two) in enumerate(zip(first, second, strict=True)):
            if one != two:
                return _first_difference(one, two, f"{place}[{number}]")
    return place, first, second


def _recipe(root: Path, where: str) -> Recipe:
    file = root / names.RECIPE
    if not file.is_file() or file.stat().st_size > MAX_RECIPE:
        raise PackageError(
            f"{where} has no {names.RECIPE} of at most {MAX_RECIPE:,} bytes", hint=_HINT
        )
    try:
        recipe = Recipe.read(file)
    except RecipeError as error:
        raise PackageError(
            f"{names.RECIPE} of {where} is not valid: {printable(error.message)}", hint=_HINT
        ) from error
    if recipe.model.input is not None or recipe.model.output is not None:
        raise PackageError(
            f"{names.RECIPE} of {where} names an input or an output of its own, expected neither: the "
            "package says what was analysed, and you say where the result goes",
            hint=_HINT,
        )
    outside = next(paths_of(recipe), None)
    if outside is not None:
        raise PackageError(
            f"{names.RECIPE} of {where} names spectra at {printable(outside)}, expected their digests: the "
            "package holds what was given to the run",
            hint=_HINT,
        )
    return recipe


def _result(folder: Path, where: str) -> Result:
    """Open the published result, every part of it as `emcube.run` writes it, and every value as noted."""
    try:
        result = open_result(folder)
        _require_markers(result, where)
        wrong = result.verify()
    except PackageError:
        raise
    except _MALFORMED as error:
        said = (
            printable(error)
            if isinstance(error, EmcubeError)
            else f"{type(error).__name__}: {printable(error)}"
        )
        raise PackageError(
            f"{names.RESULT} of {where} cannot be opened: {said}", hint=_HINT
        ) from error
    if wrong:
        name, what = next(iter(wrong.items()))
        raise PackageError(
            f"{names.RESULT} of {where} is damaged: {printable(name)}: {printable(what)}",
            hint=_HINT,
        )
    return result


def _require_markers(result: Result, where: str) -> None:
    """Refuse nodes that do not say of themselves what every node does."""
    expected = {"input", *result.steps}
    named = {next(iter(step.values()))["name"] for step in result.recipe["steps"]}
    if set(result.tree.children) != expected or set(result.steps) != named:
        raise PackageError(
            f"{names.RESULT} of {where} has the nodes {printable(sorted(result.tree.children))}, expected "
            f"{printable(sorted({'input', *named}))}",
            hint=_HINT,
        )
    for name, node in result.tree.children.items():
        marker = node.attrs.get("emcube")
        digests = marker.get("digests") if isinstance(marker, dict) else None
        good = (
            isinstance(marker, dict)
            and isinstance(marker.get("verb"), str)
            and isinstance(digests, dict)
            and set(digests) >= set(map(str, node.data_vars))
            and all(isinstance(d, str) for d in digests.values())
        )
        if not good:
            raise PackageError(
                f"the node {printable(name)!r} of {names.RESULT} of {where} lacks the digests of its arrays",
                hint=_HINT,
            )
    provenance: Mapping[str, Any] = result.provenance
    for key in ("input", "cube", "seeds", "stack"):
        if not isinstance(provenance.get(key), dict):
            raise PackageError(
                f"the provenance of {names.RESULT} of {where} has no {key!r}", hint=_HINT
            )
    drawn, seeds = provenance.get("drawn_seeds") or [], provenance["seeds"]
    if not isinstance(drawn, list) or not set(map(str, drawn)) <= set(seeds):
        raise PackageError(
            f"the provenance of {names.RESULT} of {where} lacks seeds: it has {printable(seeds)}",
            hint=_HINT,
        )


# ------------------------------------------------------------------------------------------ the input


def _input(
    package: Package, given: Source | None, cache: Path, *, offline: bool, allow_local: bool
) -> tuple[Path, str]:
    """A store with the analysed cube, and where it came from, in words."""
    described = package.description.input
    wanted = Wanted(described.digest, described.layout, described.opening)
    if given is not None:
        return as_store(given, wanted, package.root), "as given"
    if described.included is not None:
        store = package.root.joinpath(*described.included.split("/"))
        return as_store(
            store, Wanted(described.digest, described.layout, {}), package.root
        ), IN_PACKAGE
    there = cached(described.digest, cache)
    if there is not None:
        return there, "from the cache"
    if described.addresses and not offline:
        return fetch(wanted, described.addresses, cache, allow_local=allow_local), "fetched"
    known = ", ".join(address.url for address in described.addresses) or "none"
    raise InputError(
        f"the package {str(package.path)!r} does not hold the data of its run (digest {described.digest}, "
        f"addresses: {known}), and they are not in the cache at {str(cache)!r}",
        hint="give them with --input (input= in Python)"
        + (", or let them be fetched (without --offline)" if described.addresses else ""),
    )


def _require_values(package: Package, store: Path) -> None:
    """Compute the digest of the values: what a store says of itself may be wrong."""
    from emcube.store import compute_digest, open_cube

    expected = package.description.input.digest
    require_digest(compute_digest(open_cube(store)), expected, f"the cube in {str(store)!r}")


def _run(package: Package, store: Path, place: Path) -> Result:
    from emcube.recipe import run
    from emcube.store import open_cube

    # A cube in hand: the scratch folder's name is none that a result should remember.
    return run(
        package.recipe,
        open_cube(store),
        out=place,
        seeds=package.description.seeds,
        # Spectra that the recipe names by digest lie in the published result.
        spectra=package.result,
    )
