"""What a session looks at: the cube, how a recipe names it, and a store in which its values are read fast."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from emcube.addresses import is_url, local_part
from emcube.cube import nav_dims, sig_dims
from emcube.errors import InputError, ReadError

if TYPE_CHECKING:
    from emcube.catalog import Catalog
    from emcube.recipe import Recipe
    from emcube.results import Result

    Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.DataArray | Result

__all__ = ["Found", "Opened", "Places", "find", "from_entry"]

Check = Callable[[], None]


@dataclass(frozen=True)
class Places:
    """Where a visit puts what it makes.

    Attributes
    ----------
    folder : Path
        Results, and cubes that have no other place.
    scratch : Path
        What nobody asks for after the visit.
    """

    folder: Path
    scratch: Path


@dataclass(eq=False)
class Opened:
    """A cube that is looked at.

    Attributes
    ----------
    cube : DataArray
        As it was opened: lazy, labels only.
    named : dict
        How a recipe names it; paths are absolute but for a cube that was made in Python, whose store lies in
        ``places.folder``.
    title : str
        The last part of its address; "" where it has none.
    places : Places
    """

    cube: xr.DataArray
    named: dict[str, Any]
    title: str
    places: Places
    _stored: xr.DataArray | None = None
    _own_store: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for what, dims in (("signal", sig_dims(self.cube)), ("navigation", nav_dims(self.cube))):
            if not dims:
                raise InputError(
                    f"the explorer shows spectra or patterns over positions: this cube has the dims "
                    f"{tuple(map(str, self.cube.dims))}, none of them {what}",
                    hint="open a map; a single image or spectrum is drawn by cube.plot()",
                )
        if self.cube.encoding.get("source") is not None and self._own_store is None:
            self._stored = self.cube

    @property
    def place(self) -> str | None:
        """Where its values are read: path or URL of a store; None before one is made."""
        return None if self._stored is None else str(self._stored.encoding["source"])

    @property
    def kept_by_visit(self) -> Path | None:
        """The store that this visit made of a cube without an address."""
        return self._own_store

    @property
    def ingested(self) -> Path | None:
        """The store that this visit made of an instrument file, in place of which runs read it."""
        if self.place is None or self._own_store is not None or self._stored is self.cube:
            return None
        return Path(self.place)

    def digest(self) -> str | None:
        """Digest of the cube, where it is known without reading it."""
        from emcube.store import is_store, read_digest

        if self.place is None or self.named.get("name") is not None or not is_store(self.place):
            return None if self.ingested is None else read_digest(self.ingested)
        return read_digest(self.place)

    def stored(self, check: Check) -> xr.DataArray:
        """The cube in a store; an instrument file and a cube in memory are brought into one, once.

        Parameters
        ----------
        check : callable
            Raises where this is to stop.

        Raises
        ------
        InterruptedRunError
            It was stopped.
        """
        while not self._lock.acquire(timeout=0.1):  # another job does it
            check()
        try:
            if self._stored is None:
                self._stored = self._ingest()
            return self._stored
        finally:
            self._lock.release()

    def _ingest(self) -> xr.DataArray:
        from emcube.recipe.inputs import stopping
        from emcube.sources import ingest
        from emcube.store import open_cube

        place = self._own_store or self.places.scratch / f"input-{uuid.uuid4().hex[:8]}.zarr"
        return open_cube(ingest(self.cube, place, progress=stopping()))


@dataclass(frozen=True, eq=False)
class Found:
    """What a source turned out to be.

    Attributes
    ----------
    opened : Opened or None
        None for a catalog, from which a cube is still to be chosen.
    catalog : Catalog or None
    result : Result or None
        Where a result was opened.
    recipe : Recipe or None
        Where a recipe was opened.
    """

    opened: Opened | None
    catalog: Catalog | None = None
    result: Result | None = None
    recipe: Recipe | None = None


def find(source: Source, name: str | None, places: Places) -> Found:
    """Open whatever a user points at; see `Session.open`."""
    from emcube.results import Result, open_result
    from emcube.results.tree import read_root

    if isinstance(source, xr.DataArray):
        return Found(_in_hand(source, places))
    if isinstance(source, Result):
        return _from_result(source, places)
    if not isinstance(source, str | os.PathLike):
        if not isinstance(source, Sequence):
            raise InputError(
                f"explore: got {type(source).__name__}, expected a path, several, a cube or a result",
                hint="label plain arrays with emcube.make_cube(counts, dims=...)",
            )
        paths = [str(Path(os.fspath(p)).absolute()) for p in source]
        return Found(
            _open({"path": paths}, paths, name, Path(paths[0]).name if paths else "", places)
        )
    text = local_part(os.fspath(source))
    if text.lower().endswith((".yaml", ".yml")) and (found := _from_yaml(text, places)) is not None:
        return found
    if not is_url(text) and read_root(Path(text).expanduser()) is not None:
        return _from_result(open_result(Path(text).expanduser()), places)
    catalog, _, entry = text.rpartition(":")
    if entry and catalog.lower().endswith((".yaml", ".yml")) and not Path(text).exists():
        from emcube.catalog import open_catalog

        return Found(from_entry(open_catalog(catalog), entry, places))
    where = text if is_url(text) else str(Path(text).expanduser().absolute())
    return Found(_open({"path": where}, where, name, _last(where), places))


def from_entry(catalog: Catalog, entry: str, places: Places) -> Opened:
    """Open a dataset of a catalog."""
    place = str(catalog.path)
    named = {"catalog": place if is_url(place) else str(Path(place).absolute()), "dataset": entry}
    return Opened(catalog[entry].open(), named, entry, places)


def _open(
    named: dict[str, Any], where: str | list[str], name: str | None, title: str, places: Places
) -> Opened:
    from emcube.sources import open as open_cube

    if name is not None:
        named = {**named, "name": name}
    return Opened(open_cube(where, name), named, title, places)


def _in_hand(cube: xr.DataArray, places: Places) -> Opened:
    """A cube from Python: named by its store if it is all that lies there, else a store is made of it."""
    from emcube.cube import validate_cube

    cube = validate_cube(cube)
    place = cube.encoding.get("source")
    if place is not None and _is_all_of(cube, str(place)):
        where = str(place) if is_url(str(place)) else str(Path(str(place)).absolute())
        return Opened(cube, {"path": where}, _last(where), places)
    name = f"cube-{uuid.uuid4().hex[:8]}.zarr"
    title = str(cube.attrs.get("name") or cube.name or "")
    return Opened(cube, {"path": name}, title, places, _own_store=places.folder / name)


def _is_all_of(cube: xr.DataArray, place: str) -> bool:
    """Whether a cube is what opening a store gives, unchanged."""
    from emcube.errors import EmcubeError
    from emcube.store import is_store, open_cube

    try:
        if not is_store(place):
            return False
        again = open_cube(place)
    except EmcubeError:
        return False
    # Dask names an array by what it is made of.
    same = getattr(cube.data, "name", None) == again.data.name
    return bool(same and cube.attrs == again.attrs and cube.coords.identical(again.coords))


def _from_yaml(text: str, places: Places) -> Found | None:
    """A catalog, or a recipe with its input; None where it is neither."""
    from emcube.catalog import open_catalog
    from emcube.recipe import Recipe

    if not is_url(text) and _says_steps(Path(text)):
        recipe = Recipe.read(text)
        named = recipe.model.input
        if named is None:
            raise InputError(
                f"the recipe {text!r} names no input",
                hint="write 'input: {path: map.zarr}' into it",
            )
        if named.several:
            raise InputError(
                f"the recipe {text!r} names several cubes, the explorer shows one",
                hint="open one of them, or the result of the recipe",
            )
        plain = named.model_dump(mode="json", exclude_none=True)
        if named.catalog is not None:
            catalog = open_catalog(recipe.locate(named.catalog))
            return Found(from_entry(catalog, str(named.dataset), places), recipe=recipe)
        from emcube.sources import open as open_cube

        paths = plain["path"]
        where = (
            [recipe.locate(p) for p in paths] if isinstance(paths, list) else recipe.locate(paths)
        )
        options = {k: plain[k] for k in ("name", "dim", "values") if k in plain}
        title = _last(where if isinstance(where, str) else where[0])
        cube = open_cube(where, **options)
        return Found(Opened(cube, {**plain, "path": where}, title, places), recipe=recipe)
    return Found(None, catalog=open_catalog(text))


def _says_steps(path: Path) -> bool:
    from emcube.errors import RecipeError
    from emcube.recipe.document import read_yaml

    if not path.is_file():
        return False
    try:
        data = read_yaml(path).data
    except RecipeError:
        return False  # a catalog may hold more of YAML than a recipe
    return isinstance(data, dict) and "steps" in data


def _from_result(result: Result, places: Places) -> Found:
    """A result and the cube that it is of, which is looked for where its recipe had it."""
    from emcube.package.inputs import find_entry, find_source

    recorded = result.provenance["input"]
    entry = find_entry(result)
    if entry is not None:
        from emcube.catalog import open_catalog

        opened = from_entry(open_catalog(entry.catalog), entry.name, places)
        return Found(opened, result=result)
    source = find_source(result, None)
    if source is None or isinstance(source, xr.DataArray):
        raise ReadError(
            f"the data of the result at {result.location!r} are not found: its recipe read "
            f"{recorded.get('path') or recorded.get('dataset') or 'a cube in hand'!r}",
            hint="open the cube itself, or put the data back beside the result",
        )
    where: Any
    if not isinstance(source, str | Path):
        where = [str(Path(p).absolute()) for p in source]
    else:
        where = str(source) if is_url(str(source)) else str(Path(source).absolute())
    options = {k: recorded[k] for k in ("name", "dim", "values") if recorded.get(k) is not None}
    from emcube.sources import open as open_cube

    title = _last(where if isinstance(where, str) else where[0])
    return Found(
        Opened(open_cube(where, **options), {"path": where, **options}, title, places),
        result=result,
    )


def _last(where: str) -> str:
    return where.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
