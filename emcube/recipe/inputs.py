"""Find the cube that a recipe names, with its digest; bring instrument files into a store first."""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from emcube.addresses import redact
from emcube.engine.stopping import stop_check
from emcube.errors import InputError
from emcube.models.fields import Fields, several
from emcube.recipe import schema
from emcube.recipe.recipe import Recipe

if TYPE_CHECKING:
    from emcube.store import IngestProgress

__all__ = ["Input", "find_input", "require_apart", "standing_in", "stopping", "stored_input"]


@dataclass(frozen=True, eq=False)
class Input:
    """A cube that is ready to be analysed.

    Attributes
    ----------
    cube : DataArray or Fields
        Lazy where it is in a store.
    digest : str
        Of its content; of several cubes that of their digests in order.
    address : dict
        How the recipe names it, for the record; no absolute paths that it does not hold itself.
    """

    cube: Any
    digest: str
    address: dict[str, Any] = field(default_factory=dict)


def require_one_input(recipe: Recipe, cube: Any) -> None:
    """Refuse a recipe that names no input where no cube is given, or one where a cube is given too."""
    named = recipe.model.input
    if (cube is None) == (named is None):
        raise InputError(
            "the recipe names no input, and no cube was given"
            if cube is None
            else f"{recipe.place(('input',))}: the recipe names an input, and a cube was given too",
            hint="write 'input: {path: map.zarr}' into the recipe"
            if cube is None
            else "leave one of them out",
        )


@contextmanager
def find_input(recipe: Recipe, cube: Any, scratch: Path) -> Iterator[Input]:
    """Open what a recipe names, for as long as the context lasts.

    Parameters
    ----------
    recipe : Recipe
    cube : DataArray, or several of them, optional
        A cube in hand, in place of the recipe's input.
    scratch : Path
        Folder where an instrument file may be ingested into a store for the time of the run. Reading a
        store in blocks costs a fraction of decoding the file again in every pass, and its digest comes
        with it.

    Raises
    ------
    InputError
        Neither or both of recipe and caller name a cube.
    """
    from emcube.store import compute_digest

    require_one_input(recipe, cube)
    if (given := several(cube)) is not None:
        yield _together(
            given.names, [Input(one, compute_digest(one), {"in_hand": True}) for one in given.cubes]
        )
        return
    if cube is not None:
        from emcube.cube import validate_cube

        cube = validate_cube(cube)
        yield Input(cube, compute_digest(cube), {"in_hand": True, "name": _name(cube)})
        return
    named = recipe.model.input
    if named is not None and named.several:
        with ExitStack() as stack:
            names, single = _fields_of(recipe, named)
            yield _together(
                names, [stack.enter_context(_named_input(recipe, one, scratch)) for one in single]
            )
        return
    with _named_input(recipe, named, scratch) as found:
        yield found


def _together(names: Sequence[str], found: Sequence[Input]) -> Input:
    """Several inputs as one: its digest is that of all, in their order."""
    digest = hashlib.sha256("\n".join(one.digest for one in found).encode()).hexdigest()
    called = _node_names(names)
    fields = [
        {**one.address, "digest": one.digest, "field": name}
        for name, one in zip(called, found, strict=True)
    ]
    cubes = tuple(one.cube for one in found)
    return Input(Fields(cubes, called), f"sha256:{digest}", {"fields": fields})


def _node_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names that may be folders, each another whatever the case of its letters."""
    plain = [re.sub(r"[^A-Za-z0-9_\-]+", "-", name).strip("-")[:48] or "field" for name in names]
    plain = [name if name[0].isalpha() else f"field-{name}" for name in plain]
    folded = [name.casefold() for name in plain]
    return tuple(
        name if folded.count(name.casefold()) == 1 else f"{name}-{i}"
        for i, name in enumerate(plain)
    )


def _fields_of(recipe: Recipe, named: schema.Input) -> tuple[list[str], list[schema.Input]]:
    """Names and inputs of the cubes that a recipe of several names, one each.

    Raises
    ------
    InputError
        A search finds nothing.
    CatalogError
        There is no such catalog, or the search asks for what it does not know.
    """
    if named.search is not None:
        return _searched(recipe, named)
    names, found = [], []
    for one in named.fields or ():
        names.append(one.field or one.dataset or Path(str(one.path)).name.split(".")[0])
        found.append(
            schema.Input(path=one.path, name=one.name, catalog=one.catalog, dataset=one.dataset)
        )
    return names, found


def _searched(recipe: Recipe, named: schema.Input) -> tuple[list[str], list[schema.Input]]:
    from emcube.catalog import open_catalog

    wanted = {k: _condition(v) for k, v in (named.search or {}).items()}
    text = str(wanted.pop("text", ""))
    catalog = open_catalog(recipe.locate(str(named.catalog)))
    try:
        found = catalog.search(text, **wanted) if text else catalog.search(**wanted)
    except TypeError as error:
        raise InputError(
            f"{recipe.place(('input', 'search'))}: the search cannot be made: {error}",
            hint="write it as for 'emcube catalog search': modality: EDS, elements: [Ni, Cr]",
        ) from error
    names = [str(name) for name in found.entries]
    if not names:
        raise InputError(
            f"{recipe.place(('input', 'search'))}: the search in {named.catalog!r} finds none of "
            f"{len(catalog)} entries, expected one at least",
            hint="look at 'emcube catalog show', and ask for less",
        )
    return names, [schema.Input(catalog=named.catalog, dataset=name) for name in names]


def _condition(value: Any) -> Any:
    """A range of a recipe, ``{from: 80, to: 300}``, as a search takes it."""
    if isinstance(value, dict) and set(value) <= {"from", "to"}:
        return (value.get("from"), value.get("to"))
    return value


_on_this_thread = threading.local()


@contextmanager
def standing_in(store: Path | None) -> Iterator[None]:
    """Inside this context runs of this thread read a store that was made of their input, in place of it.

    The answer is the same, and an instrument file is decoded once for many runs. None changes nothing.

    Parameters
    ----------
    store : Path or None
        As `emcube.ingest` makes it of what the recipe names.
    """
    before = getattr(_on_this_thread, "store", None)
    _on_this_thread.store = store
    try:
        yield
    finally:
        _on_this_thread.store = before


@contextmanager
def _named_input(recipe: Recipe, named: schema.Input | None, scratch: Path) -> Iterator[Input]:
    from emcube.sources import ingest
    from emcube.sources import open as open_cube
    from emcube.store import compute_digest, is_store, read_digest
    from emcube.store import open_cube as open_store

    if named is None:
        raise InputError("the recipe names no input")
    address = _recorded(named)
    there = getattr(_on_this_thread, "store", None)
    if there is not None:
        yield Input(open_store(there), read_digest(there), address)
        return
    where, options = _address(recipe, named)
    cube = open_cube(where, **options)
    place = cube.encoding.get("source")
    if place is not None:
        # It lies in chunks already. A companion opened by name has no digest of its own yet.
        whole = named.name is None and is_store(place)
        digest = read_digest(place) if whole else compute_digest(cube)
        yield Input(cube, digest, address)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".emcube-input-", dir=scratch) as folder:
        path = ingest(cube, Path(folder) / "input.zarr", progress=stopping())
        yield Input(open_store(path), read_digest(path), address)


def stored_input(recipe: Recipe) -> Input | None:
    """Open what a recipe names, if its digest is known without reading it: a whole cube in a store.

    Returns
    -------
    Input or None
        None for an instrument file and the like, which was found and can be opened.

    Raises
    ------
    InputError
        The recipe names no input.
    ReadError, StoreError, CatalogError
        It is not there or cannot be opened.
    """
    named = recipe.model.input
    if named is None:
        raise InputError(
            "the recipe names no input", hint="write 'input: {path: map.zarr}' into the recipe"
        )
    if named.several:
        names, single = _fields_of(recipe, named)
        found = [_stored(recipe, one) for one in single]
        known = [one for one in found if one is not None]
        return _together(names, known) if len(known) == len(found) else None
    return _stored(recipe, named)


def _stored(recipe: Recipe, named: schema.Input) -> Input | None:
    """Open one cube, if its digest is known without reading it."""
    from emcube.sources import open as open_cube
    from emcube.store import is_store, read_digest

    where, options = _address(recipe, named)
    cube = open_cube(where, **options)
    place = cube.encoding.get("source")
    if place is None or named.name is not None or not is_store(place):
        return None
    return Input(cube, read_digest(place), _recorded(named))


def require_apart(recipe: Recipe, cube: Any, path: Path | str) -> None:
    """Refuse a result whose place holds what its run reads, or lies in it.

    To replace the result would remove its own input; to write into the input would change it.

    Parameters
    ----------
    recipe : Recipe
    cube : DataArray, or several of them, optional
        A cube in hand; where it is lazy, the store that it comes from counts.
    path : Path or str
        Folder of the result, or its address (a str).

    Raises
    ------
    InputError
        Input, catalog or recipe lie in the folder, or the folder lies in the input. Nothing was read or
        written.
    CatalogError
        The recipe names an entry that its catalog does not have.
    """
    if isinstance(path, str):
        _require_other_address(recipe, cube, path)
        return
    place = path.resolve()
    for what, text in _read_from(recipe, cube):
        source = _on_this_machine(text)
        if source is None:
            continue
        inside = source.is_relative_to(place)
        if inside or place.is_relative_to(source):
            relation = "would hold" if inside else "lies in"
            raise InputError(
                f"the result at {str(path)!r} {relation} the {what} of its own run, {str(source)!r}, "
                "expected a folder apart from it",
                hint="choose another place with --out; nothing was touched",
            )


def _require_other_address(recipe: Recipe, cube: Any, address: str) -> None:
    """Refuse an address that holds what the run reads, or lies in it."""
    for what, text in _read_from(recipe, cube):
        source = text.rstrip("/")
        inside = f"{source}/".startswith(f"{address}/")
        if inside or f"{address}/".startswith(f"{source}/"):
            raise InputError(
                f"the result at {address!r} {'would hold' if inside else 'lies in'} the {what} of its own "
                f"run, {redact(source)!r}, expected an address apart from it",
                hint="choose another place with --out; nothing was touched",
            )


def _read_from(recipe: Recipe, cube: Any) -> Iterator[tuple[str, str]]:
    """What a run reads, and its path or URL."""
    if recipe.document.source is not None:
        yield "recipe", str(recipe.document.source)
    from emcube.recipe.spectra import paths_of

    for place in paths_of(recipe):
        yield "spectra", place
    given = several(cube)
    for one in () if cube is None else (cube,) if given is None else given.cubes:
        if one.encoding.get("source") is not None:
            yield "input", str(one.encoding["source"])
    named = recipe.model.input
    if named is None:
        return
    for single in _fields_of(recipe, named)[1] if named.several else (named,):
        yield from _named_places(recipe, single)


def _named_places(recipe: Recipe, named: schema.Input) -> Iterator[tuple[str, str]]:
    """What a run reads of one cube."""
    from emcube.catalog.model import resolve

    if named.catalog is not None:
        yield "catalog", recipe.locate(named.catalog)
        entry = resolve(f"{recipe.locate(named.catalog)}:{named.dataset}")
        if entry is not None:
            yield "input", entry.target.location
        return
    for one in named.path if isinstance(named.path, tuple) else (named.path,):
        yield "input", recipe.locate(str(one))


def _recorded(named: schema.Input) -> dict[str, Any]:
    """The input as the recipe names it, for the record.

    Addresses with credentials are refused where they are opened; should one ever get here, it shows none.
    """
    found: dict[str, Any] = named.model_dump(mode="json", exclude_none=True)
    for key in ("path", "catalog"):
        value = found.get(key)
        if isinstance(value, str):
            found[key] = redact(value)
        elif isinstance(value, list):
            found[key] = [redact(str(part)) for part in value]
    return found


def _on_this_machine(text: str) -> Path | None:
    """Path of what is read, links followed; None where it lies elsewhere."""
    if text.startswith("file://"):
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        return Path(url2pathname(urlsplit(text).path)).resolve()
    return None if "://" in text else Path(text).expanduser().resolve()


def _address(recipe: Recipe, named: schema.Input) -> tuple[str | list[str], dict[str, Any]]:
    """What to open, relative to the recipe's folder, and the options of `emcube.open`."""
    if named.catalog is not None:
        return f"{recipe.locate(named.catalog)}:{named.dataset}", {}
    if isinstance(named.path, tuple):
        options: dict[str, Any] = {"name": named.name, "dim": named.dim}
        if named.values is not None:
            options["values"] = list(named.values)
        return [recipe.locate(p) for p in named.path], options
    return recipe.locate(str(named.path)), {"name": named.name}


def stopping() -> Callable[[IngestProgress], None]:
    """What stops an ingest of this thread where its runs are to stop; it is asked on other threads."""
    check = stop_check()

    def look(state: IngestProgress) -> None:
        if state.regions_done < state.n_regions:
            check()

    return look


def _name(cube: xr.DataArray) -> str | None:
    name = cube.attrs.get("name") or cube.name
    return None if name is None else str(name)
