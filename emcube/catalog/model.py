"""Catalogs and their entries: opening, looking, searching."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from emcube.catalog.display import catalog_html, catalog_text, nearest
from emcube.catalog.nesting import flatten
from emcube.catalog.places import Place, is_remote, place_of
from emcube.catalog.reading import read_document
from emcube.catalog.search import (
    Query,
    beam_energy_range,
    element_set,
    facet_counts,
    normal_modality,
    search_text,
)
from emcube.catalog.targets import Kind, Parameter, Target, parameters_of, plain_document, target_of
from emcube.errors import CatalogError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import DTypeLike

    from emcube.catalog.metadata import EntryMetadata

__all__ = ["Catalog", "Entry", "open_catalog", "resolve"]

_SUFFIXES = (".yaml", ".yml")
#: What a search counts unless it is told otherwise.
FACETS = ("modality", "elements", "instrument", "license", "access")

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Entry:
    """A dataset in a catalog.

    Attributes
    ----------
    name : str
    catalog : Path or str
        The file it is in.
    metadata : dict
        As the catalog says: modality, elements, beam energy, dims, digest and whatever was added.
    """

    name: str
    catalog: Place
    metadata: dict[str, Any]
    _document: dict[str, Any] = field(repr=False, compare=False, hash=False)
    _key: str = field(default="", repr=False, compare=False)
    _trust: bool = field(default=False, repr=False, compare=False)
    _values: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, hash=False)
    _text: str = field(default="", repr=False, compare=False)

    @property
    def target(self) -> Target:
        """What the entry points at.

        Raises
        ------
        CatalogError
            It is not one that is opened; the message says why.
        """
        return target_of(self.catalog, self._document, self._key or self.name, self._values)

    @property
    def kind(self) -> Kind | None:
        """What it points at: "zarr", "file" or "catalog"; None for an entry that is not opened."""
        try:
            return self.target.kind
        except CatalogError:
            return None

    @property
    def known(self) -> EntryMetadata:
        """The metadata as a typed model; what it does not know is under ``extra``."""
        from emcube.catalog.metadata import EntryMetadata

        return EntryMetadata.from_file(self.metadata)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """What picks one dataset of a family, as tilt or dose."""
        return parameters_of(self.catalog, self._document, self._key or self.name)

    @property
    def available(self) -> bool:
        """Whether the data are there: here, fetched, or a store behind a URL (which is taken to be)."""
        target = self.target
        if target.is_local:
            return Path(target.location).exists()
        return target.kind != "file" or self.fetched is not None

    @property
    def fetched(self) -> Path | None:
        """The store in the cache that `emcube catalog fetch` made; None where there is none."""
        from emcube.catalog.cache import fetched_store

        return fetched_store(self)

    def with_parameters(self, **values: Any) -> Entry:
        """The dataset of the family that has these values.

        Raises
        ------
        CatalogError
            There is no such parameter, or it cannot have this value.
        """
        picked = replace(self, _values={**self._values, **values})
        if not self._trust:
            _ = picked.target
        return picked

    def open(
        self, name: str | None = None, *, verify: bool | None = None, **parameters: Any
    ) -> xr.DataArray:
        """Open the dataset as a lazy cube.

        Parameters
        ----------
        name : str, optional
            Another variable of the store (a companion or a quicklook), or another signal of the file.
        verify : bool, optional
            Compare the files with their digests first, one pass over the bytes; by default for fetched
            data only.
        **parameters
            Which dataset of a family.

        Raises
        ------
        CatalogError
            The entry may not be opened, its data are not there, or they are not what the entry says.
        StoreError, ReadError
            They are incomplete or damaged.
        """
        picked = self.with_parameters(**parameters) if parameters else self
        return picked.open_with_companions(name, verify=verify)[0]

    def open_with_companions(
        self, name: str | None = None, *, verify: bool | None = None, dtype: DTypeLike | None = None
    ) -> tuple[xr.DataArray, list[xr.DataArray]]:
        """Open the dataset, with the images of a file that lie on other grids."""
        if self._trust and self.kind is None:
            return self._open_with_intake(), []
        place = self.location()
        if verify or (verify is None and self.fetched is not None):
            from emcube.catalog.verify import require_same

            require_same(self, place)
        elif verify is None:
            from emcube.catalog.verify import warn_if_replaced

            warn_if_replaced(self, place)
        if self.kind == "file" and Path(place) != self.fetched:
            from emcube.io.opening import open_file

            return open_file(Path(place), name or self.metadata.get("signal"), dtype=dtype)
        from emcube.store import open_cube

        return open_cube(place, name), []

    def _open_with_intake(self) -> xr.DataArray:
        """Let Intake do whatever the entry says; only for catalogs that the user trusts."""
        import xarray as xr

        from emcube.cube import validate_cube

        found = _intake_catalog(self.catalog, self._document)(**self._values)[self.name].read()
        if isinstance(found, xr.Dataset):
            most = max((array.ndim for array in found.data_vars.values()), default=0)
            arrays = [array for array in found.data_vars.values() if array.ndim == most]
            found = arrays[0] if len(arrays) == 1 else found
        if not isinstance(found, xr.DataArray):
            raise CatalogError(
                f"entry {self.name!r} of {self.catalog} gives {type(found).__name__}, expected one cube",
                hint="read it with Intake: catalog.to_intake()",
            )
        return validate_cube(found)

    def open_catalog(self) -> Catalog:
        """Open the catalog that the entry points at.

        Raises
        ------
        CatalogError
            It points at none, or this cannot be read.
        """
        target = self.target
        if target.kind != "catalog":
            raise CatalogError(
                f"entry {self.name!r} of {self.catalog} is a dataset, not a catalog",
                hint="open it with .open()",
            )
        return open_catalog(target.location, trust=self._trust)

    def location(self) -> str:
        """Path or URL of the data, which are there.

        Raises
        ------
        CatalogError
            The entry may not be opened, or its data are not there; the hint says how to get them.
        StoreError
            The store is here and holds a symbolic link that leads out of it.
        """
        target = self.target
        where = f"entry {self.name!r} of {self.catalog}"
        if target.kind == "catalog":
            raise CatalogError(
                f"{where} is a catalog: expected a dataset",
                hint=f"name one within: {self.name}/...",
            )
        if target.kind == "file" and (stored := self.fetched) is not None:
            return str(stored)
        if not self.available:
            what = "store" if target.kind == "zarr" else "file"
            is_file = target.kind == "file" and not target.is_local
            raise CatalogError(
                f"{where}: its {what} {target.location} "
                + ("has not been fetched" if is_file else "does not exist"),
                hint=f"run `emcube catalog fetch {self.catalog} {self.name!r}`"
                if is_file
                else str(self.metadata.get("get") or "ingest it again, or correct the entry"),
            )
        place = f"{target.location}/{target.group}" if target.group else target.location
        if target.kind == "zarr" and target.is_local and not self._trust:
            from emcube.store import check_links

            check_links(place, within=target.location)
        return place

    def to_json(self) -> dict[str, Any]:
        """Name, place and metadata; for an entry that is not opened the reason in place of the place."""
        described: dict[str, Any] = {"name": self.name, "catalog": str(self.catalog)}
        try:
            target = self.target
            described |= {
                "store": target.location,
                "kind": target.kind,
                "available": self.available,
            }
        except CatalogError as error:
            described["refused"] = str(error)
        return {**described, "metadata": self.metadata}


@dataclass(frozen=True)
class Catalog(Mapping[str, Entry]):
    """A catalog file: a mapping of names to entries.

    Attributes
    ----------
    path : Path or str
        The file, or its URL.
    entries : dict of str to Entry
    problems : tuple of str
        Nested catalogs that a search could not look into, and why.

    Examples
    --------
    >>> import numpy as np, tempfile, emcube as em
    >>> from emcube.catalog import add
    >>> from emcube.store import write_cube
    >>> folder = tempfile.TemporaryDirectory()
    >>> cube = em.make_cube(np.ones((3, 4), "uint8"), dims=("x", "energy"))
    >>> store = write_cube(cube, f"{folder.name}/line.zarr")
    >>> entry = add(f"{folder.name}/catalog.yaml", store, modality="EDX", elements=["Si"])
    >>> list(em.open_catalog(f"{folder.name}/catalog.yaml").search(modality="EDS"))
    ['line']
    >>> folder.cleanup()
    """

    path: Place
    entries: dict[str, Entry]
    _document: dict[str, Any] = field(repr=False, compare=False, hash=False)
    problems: tuple[str, ...] = ()
    _trust: bool = field(default=False, repr=False, compare=False)

    def __getitem__(self, name: str) -> Entry:
        if name in self.entries:
            return self.entries[name]
        first, slash, rest = name.partition("/")
        if slash and first in self.entries:
            # A name within a nested catalog.
            return self.entries[first].open_catalog()[rest]
        bare, mark, query = name.partition("?")
        if mark and bare in self.entries:
            return self.entries[bare].with_parameters(
                **dict(parse_qsl(query, keep_blank_values=True))
            )
        raise CatalogError(
            f"the catalog {self.path} has no entry {name!r}: it has {self._names()}",
            hint=nearest(name, self.entries) or "look for one with `emcube catalog search`",
        )

    def __repr__(self) -> str:
        return catalog_text(self)

    def _repr_html_(self) -> str:
        return catalog_html(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file says of the whole: title, description, publisher, ..."""
        return dict(self._document["metadata"])

    def _names(self) -> str:
        names = list(self.entries)
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return (", ".join(names[:20]) or "none") + more

    def search(
        self,
        text: str | None = None,
        *,
        modality: str | Sequence[str] | None = None,
        elements: str | Sequence[str] = (),
        any_elements: str | Sequence[str] = (),
        no_elements: str | Sequence[str] = (),
        beam_energy: float | tuple[float | None, float | None] | None = None,
        nested: bool = True,
        **fields: Any,
    ) -> Catalog:
        """Find entries that have everything that is asked for.

        Parameters
        ----------
        text : str, optional
            Words that all occur in the name or the metadata, whatever their case; EDX finds EDS.
        modality : str or list of str, optional
            "EDS", "EELS", ... or any of several; EDX, EDXS and XEDS are EDS.
        elements : list of str
            Elements that all occur; "Ni Cr" does as well.
        any_elements, no_elements : list of str
            At least one of these occurs; none of these does.
        beam_energy : float or (float, float), optional
            keV: one energy, or the lowest and the highest, of which one may be None.
        nested : bool
            Look into nested catalogs, too; their entries are then called ``catalog/entry``. One that occurs
            several times is listed once.
        **fields
            Any other field of the metadata. A tuple of two is a range with both ends included (None
            leaves an end open), a list is any of its values, and ``creators__name="Nord, Magnus"``
            reaches into nested metadata.

        Returns
        -------
        Catalog
            With the entries found; maybe none. ``problems`` tells of nested catalogs that were not read, or
            are listed under another name.

        Raises
        ------
        CatalogError
            A condition makes no sense, or no entry has such a field.

        Notes
        -----
        Looks at the catalog's own text; no data are read.
        """
        from emcube.catalog.metadata import ALIASES

        wanted = {ALIASES.get(key, key): value for key, value in fields.items()}
        modalities = [modality] if isinstance(modality, str) else list(modality or ())
        query = Query(
            words=tuple((text or "").casefold().split()),
            modalities=frozenset(map(normal_modality, modalities)),
            elements=element_set(elements),
            any_elements=element_set(any_elements),
            no_elements=element_set(no_elements),
            beam_energy=None if beam_energy is None else beam_energy_range(beam_energy),
            fields=tuple(wanted.items()),
        )
        entries, problems = flatten(self) if nested else (self.entries, ())
        self._check_fields(entries, wanted)
        found = {
            name: entry
            for name, entry in entries.items()
            if query.matches(entry._text or search_text(name, entry.metadata), entry.metadata)
        }
        return Catalog(self.path, found, self._document, problems, self._trust)

    def _check_fields(self, entries: Mapping[str, Entry], wanted: Mapping[str, Any]) -> None:
        def has(key: str) -> bool:
            first = key.split("__")[0]
            return any(key in one.metadata or first in one.metadata for one in entries.values())

        unknown = sorted(key for key in wanted if not has(key))
        if not unknown:
            return
        known = {key for entry in entries.values() for key in entry.metadata}
        if known:
            close = get_close_matches(unknown[0], sorted(known), 1)
            raise CatalogError(
                f"search by {unknown[0]!r}: no entry of {self.path} has it",
                hint=f"did you mean {close[0]!r}?"
                if close
                else f"entries have {', '.join(sorted(known))}",
            )

    def facets(self, *keys: str) -> dict[str, dict[str, int]]:
        """Count the values of fields: how many entries have each.

        Parameters
        ----------
        *keys : str
            Fields; by default modality, elements, instrument, license and access.

        Returns
        -------
        dict
            As ``{"modality": {"EDS": 12, "EELS": 3}}``, most first.
        """
        return facet_counts((entry.metadata for entry in self.entries.values()), keys or FACETS)

    def save(self, path: StrPath, *, title: str = "") -> Catalog:
        """Write the entries as a catalog of their own, as those that a search found.

        Raises
        ------
        CatalogError
            There is a file already, an entry is not one that is opened, or the new place cannot reach
            its data.
        """
        from emcube.catalog.adding import save_entries

        return save_entries(self, path, title=title)

    def to_intake(self) -> Any:
        """Open the catalog with Intake, if everything in it is known to be harmless.

        Unless the catalog was opened with ``trust=True``, Intake gets a catalog made anew of what was
        checked, without the file's other contents.

        Raises
        ------
        CatalogError
            An entry names something that is not on the list of what is opened, or is a catalog itself,
            which Intake would read without any check.
        """
        document = self._document if self._trust else plain_document(self.path, self._document)
        return _intake_catalog(self.path, document)


def _intake_catalog(place: Place, document: Mapping[str, Any]) -> Any:
    """Intake's catalog of what was read and checked, not of what the file may hold by now."""
    from copy import deepcopy

    from intake.readers.entry import Catalog as IntakeCatalog

    from emcube.catalog.places import folder_of

    plain = deepcopy(dict(document))
    for entry in plain["entries"].values():
        if isinstance(entry, dict):
            entry.setdefault("user_parameters", {})
    found = IntakeCatalog.from_dict(plain)
    folder = folder_of(place)
    # Absolute, since Intake would take a file that is called like a call for one.
    path = str(place) if is_remote(place) else str(Path(place).absolute())
    found.user_parameters["CATALOG_PATH"] = path
    found.user_parameters["CATALOG_DIR"] = folder if is_remote(place) else f"file://{folder}"
    found.user_parameters["STORAGE_OPTIONS"] = {}
    return found


def open_catalog(path: StrPath, *, trust: bool = False) -> Catalog:
    """Open a catalog.

    Parameters
    ----------
    path : path-like or URL
        An Intake 2 catalog (YAML), here or behind HTTP, S3 and the like.
    trust : bool
        Let entries run whatever code they name, through Intake. For your own catalogs only.

    Returns
    -------
    Catalog

    Raises
    ------
    CatalogError
        It does not exist or is not a catalog.

    Notes
    -----
    Reads the file and nothing that it names; no code that it names is run.
    """
    place = place_of(path)
    document = read_document(place)
    entries = {}
    # Intake lets an alias stand for an entry with a technical key.
    names = {str(token): alias for alias, token in document["aliases"].items()}
    for key, entry in document["entries"].items():
        found = entry.get("metadata") if isinstance(entry, Mapping) else None
        metadata = {str(k): v for k, v in found.items()} if isinstance(found, Mapping) else {}
        name = names.get(key, key)
        entries[name] = Entry(
            name, place, metadata, document, key, trust, _text=search_text(name, metadata)
        )
    return Catalog(place, entries, document, (), trust)


def resolve(text: StrPath) -> Entry | None:
    """Find the entry that ``catalog.yaml:name`` stands for.

    Parameters
    ----------
    text : str
        What a user pointed at; ``catalog.yaml:nested/name`` and ``catalog.yaml:family?tilt=30`` as well.

    Returns
    -------
    Entry or None
        None where this is not a reference to a catalog.

    Raises
    ------
    CatalogError
        The catalog or the entry does not exist, or a catalog was named without an entry.
    """
    if not isinstance(text, str):
        text = os.fspath(text)
    # From the right, so that the colon of a Windows drive is not taken for ours.
    path, colon, name = text.rpartition(":")
    if colon and path.lower().endswith(_SUFFIXES) and not Path(text).exists():
        return open_catalog(path)[name]
    if text.lower().endswith(_SUFFIXES):
        catalog = open_catalog(text)
        raise CatalogError(
            f"{text} is a catalog: expected one of its entries",
            hint=f"name one, as in {text}:{next(iter(catalog), 'NAME')} (it has {catalog._names()})",
        )
    return None
