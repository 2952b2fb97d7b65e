"""Catalogs and their entries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.catalog.document import (
    CATALOG_DIR,
    Target,
    change,
    check_name,
    data_and_entry,
    new_document,
    read_document,
    target_of,
)
from emcube.catalog.search import beam_energy_range, element_set, matches, normal_modality
from emcube.errors import CatalogError, CubeError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Catalog", "Entry", "add", "create", "open_catalog", "resolve"]

_SUFFIXES = (".yaml", ".yml")

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Entry:
    """A dataset in a catalog.

    Attributes
    ----------
    name : str
    catalog : Path
        The file it is in.
    metadata : dict
        As the catalog says: modality, elements, beam energy, dims, digest and whatever was added.
    """

    name: str
    catalog: Path
    metadata: dict[str, Any]
    _document: dict[str, Any] = field(repr=False, compare=False, hash=False)

    @property
    def target(self) -> Target:
        """What the entry points at.

        Raises
        ------
        CatalogError
            It is not one that is opened; the message says why.
        """
        return target_of(self.catalog, self._document, self.name)

    @property
    def available(self) -> bool:
        """Whether the store is there (one behind a URL is taken to be)."""
        target = self.target
        return not target.is_local or Path(target.location).exists()

    def open(self, name: str | None = None) -> xr.DataArray:
        """Open the dataset as a lazy cube.

        Parameters
        ----------
        name : str, optional
            Another variable of the store: a companion or a quicklook.

        Raises
        ------
        CatalogError
            The entry may not be opened, or its store is not there.
        StoreError
            The store is incomplete or damaged.
        """
        from emcube.store import open_cube

        return open_cube(self.location(), name)

    def location(self) -> str:
        """Path or URL of the store, which is there.

        Raises
        ------
        CatalogError
            The entry may not be opened, or its store is not there; the hint says how to get it.
        """
        target = self.target
        if not self.available:
            raise CatalogError(
                f"entry {self.name!r} of {self.catalog}: its store {target.location} does not exist",
                hint=str(self.metadata.get("get") or "ingest it again, or correct the entry"),
            )
        if not target.group:
            return target.location
        return f"{target.location}/{target.group}"

    def to_json(self) -> dict[str, Any]:
        """Name, place and metadata; for an entry that is not opened the reason in place of the place."""
        described: dict[str, Any] = {"name": self.name, "catalog": str(self.catalog)}
        try:
            described |= {"store": self.target.location, "available": self.available}
        except CatalogError as error:
            described["refused"] = str(error)
        return {**described, "metadata": self.metadata}


@dataclass(frozen=True)
class Catalog(Mapping[str, Entry]):
    """A catalog file: a mapping of names to entries.

    Attributes
    ----------
    path : Path
    entries : dict of str to Entry

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

    path: Path
    entries: dict[str, Entry]
    _document: dict[str, Any] = field(repr=False, compare=False, hash=False)

    def __getitem__(self, name: str) -> Entry:
        if name not in self.entries:
            raise CatalogError(
                f"the catalog {self.path} has no entry {name!r}: it has {self._names()}",
                hint="look for one with `emcube catalog search`",
            )
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def _names(self) -> str:
        return ", ".join(self.entries) or "none"

    def search(
        self,
        text: str | None = None,
        *,
        modality: str | None = None,
        elements: str | list[str] | tuple[str, ...] = (),
        beam_energy: float | tuple[float, float] | None = None,
        **fields: Any,
    ) -> Catalog:
        """Find entries that have everything that is asked for.

        Parameters
        ----------
        text : str, optional
            Words that all occur in the name or the metadata, whatever their case.
        modality : str, optional
            "EDS", "EELS", ...; EDX, EDXS and XEDS are EDS.
        elements : list of str
            Elements that all occur; "Ni Cr" does as well.
        beam_energy : float or (float, float), optional
            keV: one energy, or the lowest and the highest.
        **fields
            Other metadata that must be equal.

        Returns
        -------
        Catalog
            With the entries found; maybe none.

        Raises
        ------
        CatalogError
            A condition makes no sense, or no entry has such a field.
        """
        known = {key for entry in self.entries.values() for key in entry.metadata}
        unknown = sorted(set(fields) - known)
        if unknown and known:
            close = get_close_matches(unknown[0], sorted(known), 1)
            raise CatalogError(
                f"search by {unknown[0]!r}: no entry of {self.path} has it",
                hint=f"did you mean {close[0]!r}?"
                if close
                else f"entries have {', '.join(sorted(known))}",
            )
        wanted = element_set(elements)
        energies = None if beam_energy is None else beam_energy_range(beam_energy)
        found = {
            name: entry
            for name, entry in self.entries.items()
            if matches(
                name,
                entry.metadata,
                modality=modality,
                elements=wanted,
                text=text,
                beam_energy=energies,
                fields=fields,
            )
        }
        return Catalog(self.path, found, self._document)

    def to_intake(self) -> Any:
        """Open the file with Intake, if everything in it is known to be harmless.

        Raises
        ------
        CatalogError
            An entry names something that is not on the list of what is opened.
        """
        import intake

        for name in self._document["entries"]:
            target_of(self.path, self._document, name)
        return intake.open_catalog(str(self.path))


def open_catalog(path: StrPath) -> Catalog:
    """Open a catalog file.

    Parameters
    ----------
    path : path-like
        An Intake 2 catalog (YAML).

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
    path = Path(path)
    document = read_document(path)
    entries = {}
    # Intake lets an alias stand for an entry with a technical key.
    names = {token: alias for alias, token in document["aliases"].items()}
    for key, entry in document["entries"].items():
        metadata = entry.get("metadata") if isinstance(entry, Mapping) else None
        name = str(names.get(key, key))
        renamed = document if name == key else _under(document, key, name)
        entries[name] = Entry(
            name, path, dict(metadata) if isinstance(metadata, Mapping) else {}, renamed
        )
    return Catalog(path, entries, document)


def _under(document: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    return {**document, "entries": {name: document["entries"][key]}}


def create(path: StrPath, *, title: str = "") -> Catalog:
    """Make an empty catalog file.

    Raises
    ------
    CatalogError
        There is one already.
    """
    path = Path(path)
    if path.exists():
        raise CatalogError(
            f"cannot make the catalog {path}: it exists already",
            hint="add to it with `emcube catalog add`",
        )

    def edit(document: dict[str, Any]) -> None:
        document.update(new_document())
        if title:
            document["metadata"] = {"title": title}

    change(path, edit)
    return open_catalog(path)


def add(
    path: StrPath,
    store: StrPath,
    *,
    name: str | None = None,
    overwrite: bool = False,
    **metadata: Any,
) -> Entry:
    """Add a store to a catalog file, which is made if it does not exist.

    What the store says of itself (dims, shape, digest, modality, elements, beam energy, ...) is copied, so
    that searching opens nothing.

    Parameters
    ----------
    path : path-like
        The catalog file.
    store : path-like or URL
        A complete cube store. Its place is written relative to the catalog, where that is possible.
    name : str, optional
        Name of the entry; by default the store's own without its suffix.
    overwrite : bool
        Replace an entry of that name.
    **metadata
        More to say, or to correct: ``elements=["Ni", "Cr"]``, ``beam_energy_keV=200``, ``title=...``.

    Returns
    -------
    Entry

    Raises
    ------
    CatalogError
        The name is taken or cannot be one, or this is not a cube store.
    CubeError
        Metadata are wrong: an unknown element, a negative energy.
    IncompleteError
        The store was never finished.

    Notes
    -----
    The file is locked while it changes and replaced whole: two processes can add at the same time, and
    nobody ever reads half a file.
    """
    path = Path(path)
    described = {**_describe(store), **_checked(metadata)}
    key = check_name(name if name is not None else _default_name(store))
    data, entry = data_and_entry(key, _address(path, store), described)

    def edit(document: dict[str, Any]) -> None:
        if not overwrite and (key in document["entries"] or key in document["aliases"]):
            raise CatalogError(
                f"the catalog {path} has an entry {key!r} already",
                hint="choose another name, or replace it with overwrite=True (--overwrite)",
            )
        document["entries"][key] = entry
        document["data"][f"{key}-data"] = data
        # Intake lists aliases only: each entry is its own.
        document["aliases"][key] = key

    change(path, edit)
    return open_catalog(path)[key]


def _describe(store: StrPath) -> dict[str, Any]:
    from emcube.store import info, is_store, is_url

    text = os.fspath(store)
    if not is_url(text) and not Path(text).exists():
        raise CatalogError(
            f"cannot add {text} to a catalog: it does not exist",
            hint="check the path, or ingest the file first: `emcube ingest FILE STORE`",
        )
    if not is_store(text):
        raise CatalogError(
            f"cannot add {text} to a catalog: it is not a cube store of emcube",
            hint="ingest it first: `emcube ingest FILE STORE`, then add the store",
        )
    found = info(text)
    own = {key: value for key, value in found.metadata.items() if key != "source"}
    if "modality" in own:
        own["modality"] = normal_modality(str(own["modality"]))
    return {
        **own,
        "dims": list(found.dims),
        "sig_dims": list(found.sig_dims),
        "shape": list(found.shape),
        "dtype": found.dtype,
        "units": found.units,
        "axes": {dim: dict(axis) for dim, axis in found.axes.items()},
        "digest": found.digest,
        "nbytes": found.nbytes,
    }


def _checked(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as JSON, with those that emcube knows checked."""
    from emcube.cube.metadata import Metadata
    from emcube.store import to_json

    given = dict(metadata)
    if isinstance(given.get("modality"), str):
        given["modality"] = normal_modality(given["modality"])
    if isinstance(given.get("elements"), str):
        given["elements"] = given["elements"].replace(",", " ").split()
    known = {key: value for key, value in given.items() if key in Metadata.model_fields}
    checked = Metadata.parse(known).to_attrs()
    others = {key: value for key, value in given.items() if key not in known}
    plain: dict[str, Any] = to_json({**checked, **others}, "metadata")
    for key in plain:
        if not key.isidentifier():
            raise CubeError(f"metadata: {key!r} cannot be a key", hint="use letters, digits and _")
    return plain


def _default_name(store: StrPath) -> str:
    last = os.fspath(store).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return Path(last).stem or last


def _address(path: Path, store: StrPath) -> str:
    """Address of a store as the catalog keeps it: relative to the catalog where there is a way."""
    from emcube.store import is_url

    text = os.fspath(store)
    if is_url(text):
        return text
    full = Path(text).resolve()
    if "{" in str(full) or "}" in str(full):
        raise CatalogError(
            f"cannot add {full} to a catalog: Intake takes braces in a path for templates",
            hint="rename the folder",
        )
    try:
        relative = os.path.relpath(full, path.resolve().parent)
    except ValueError:
        # Another drive of Windows.
        return full.as_uri()
    return f"{CATALOG_DIR}/{Path(relative).as_posix()}"


def resolve(text: StrPath) -> Entry | None:
    """Find the entry that ``catalog.yaml:name`` stands for.

    Parameters
    ----------
    text : str
        What a user pointed at.

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
