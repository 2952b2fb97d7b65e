"""Making catalogs, and adding and removing entries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from emcube.catalog.document import change, put, take_out
from emcube.catalog.places import Place, address_of, check_texts, is_remote, place_of
from emcube.catalog.reading import new_document
from emcube.catalog.targets import Kind, check_name, halves_of
from emcube.errors import CatalogError

if TYPE_CHECKING:
    from emcube.catalog.model import Catalog, Entry

__all__ = ["add", "add_family", "create", "remove", "save_entries"]

StrPath = str | os.PathLike[str]


def create(path: StrPath, *, title: str = "", **metadata: Any) -> Catalog:
    """Make an empty catalog file.

    Parameters
    ----------
    path : path-like
    title : str
    **metadata
        More of the whole: description, publisher, license, contact, ...

    Raises
    ------
    CatalogError
        There is one already.
    """
    from emcube.catalog.metadata import checked
    from emcube.catalog.model import open_catalog

    path = Path(path)
    if path.exists():
        raise CatalogError(
            f"cannot make the catalog {path}: it exists already",
            hint="add to it with `emcube catalog add`",
        )
    about = {**({"title": title} if title else {}), **checked(metadata)}
    check_texts(about, f"the catalog {path}")

    def edit(document: dict[str, Any]) -> None:
        document.update(new_document())
        document["metadata"] = about

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
    """Add data to a catalog file, which is made if it does not exist.

    What the data say of themselves (dims, shape, digest, modality, elements, beam energy, ...) is copied, so
    that searching opens nothing.

    Parameters
    ----------
    path : path-like
        The catalog file.
    store : path-like or URL
        A complete cube store or Zarr group, an instrument file, or another catalog. Its place is
        written relative to the catalog, where that is possible.
    name : str, optional
        Name of the entry; by default the last part of the address without its suffix.
    overwrite : bool
        Replace an entry of that name.
    **metadata
        More to say, or to correct: ``elements=["Ni", "Cr"]``, ``beam_energy_keV=200``, ``title=...``; see
        `emcube.catalog.metadata.EntryMetadata`. ``signal`` picks one of a file's several signals.

    Returns
    -------
    Entry

    Raises
    ------
    CatalogError
        The name is taken or cannot be one, this is nothing that a catalog can hold, or the address or an
        address within the metadata holds a password or the like.
    CubeError
        Metadata are wrong: an unknown element, a negative energy.
    IncompleteError
        The store was never finished.
    ReadError
        The instrument file cannot be read.

    Notes
    -----
    The file is locked while it changes and replaced whole: two processes can add at the same time, and
    nobody ever reads half a file. Of an instrument file on this machine the whole is read once, for its
    checksum.
    """
    from emcube.catalog.describe import default_name, kind_of
    from emcube.catalog.metadata import checked
    from emcube.catalog.model import open_catalog

    place, text = place_of(path), os.fspath(store)
    key = check_name(name if name is not None else default_name(text))
    kind = cast(Kind, kind_of(text))
    # First of all: an address with a secret in it is not even tried.
    address = address_of(place, text)
    said = checked(metadata)
    check_texts(said, f"entry {key!r}")
    described = {**_describe(place, kind, text, metadata), **said}
    check_texts(described, f"entry {key!r}")
    data, entry = halves_of(key, kind, address, described)

    def edit(document: dict[str, Any]) -> None:
        _refuse_taken(document, place, key, overwrite)
        put(document, key, data, entry)

    change(place, edit)
    return open_catalog(place)[key]


def _describe(place: Place, kind: Kind, text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    from emcube.catalog.describe import describe_file, describe_store

    if kind == "zarr":
        return describe_store(text)
    if kind == "catalog":
        from emcube.catalog.model import open_catalog

        # A catalog that cannot be read is not added, and one within itself neither.
        found = open_catalog(text)
        if not is_remote(text) and Path(text).resolve() == Path(place).resolve():
            raise CatalogError(
                f"cannot add {text} to a catalog: it is that catalog itself", hint="name another"
            )
        return {
            key: found.metadata[key] for key in ("title", "description") if found.metadata.get(key)
        }
    if is_remote(text):
        # Its headers come with the file: `emcube catalog fetch` reads them.
        return {"checksum_status": "unchecked"} if "checksum" not in metadata else {}
    from emcube.catalog.download import file_checksum

    described = describe_file(Path(text), signal=metadata.get("signal"))
    if Path(text).is_file():
        described |= {"checksum": file_checksum(Path(text)), "checksum_status": "checked"}
    return described


def _refuse_taken(document: Mapping[str, Any], place: Place, key: str, overwrite: bool) -> None:
    if not overwrite and (key in document["entries"] or key in document["aliases"]):
        raise CatalogError(
            f"the catalog {place} has an entry {key!r} already",
            hint="choose another name, or replace it with overwrite=True (--overwrite)",
        )


def add_family(
    path: StrPath,
    name: str,
    pattern: str,
    parameters: Mapping[str, Iterable[str | int | float]],
    *,
    overwrite: bool = False,
    **metadata: Any,
) -> Entry:
    """Add a family of stores as one entry, whose parameters pick one of them.

    Parameters
    ----------
    path : path-like
        The catalog file.
    name : str
        Of the entry.
    pattern : str
        Path or URL of the stores, with each parameter in braces: ``"tilt_{tilt}.zarr"``.
    parameters : mapping of str to values
        What each may be, as the path spells it; the first value is the default.
    overwrite : bool
        Replace an entry of that name.
    **metadata
        As for `add`; the default's store is described.

    Returns
    -------
    Entry
        Open one with ``entry.open(tilt=30)``; plain Intake with ``catalog(tilt=30)[name].read()``.

    Raises
    ------
    CatalogError
        The pattern has not all parameters, a store of the family is not there, or the catalog has a
        parameter of that name with other values.
    """
    from emcube.catalog.describe import describe_store, kind_of
    from emcube.catalog.metadata import checked
    from emcube.catalog.model import open_catalog

    place, values = place_of(path), {key: list(found) for key, found in parameters.items()}
    missing = [key for key in values if f"{{{key}}}" not in pattern or not values[key]]
    if missing or not values:
        raise CatalogError(
            f"family {name!r}: the pattern {pattern!r} and the parameters {values} do not belong together",
            hint="each parameter has values, and stands in braces in the pattern: 'tilt_{tilt}.zarr'",
        )
    key = check_name(name)
    for combination in _combinations(values):
        one = _filled(pattern, combination)
        if not is_remote(one):
            kind_of(one)
    first = _filled(pattern, {one: found[0] for one, found in values.items()})
    described = {**describe_store(first), **checked(metadata)}
    check_texts(described, f"entry {key!r}")
    described.pop("digest", None)
    described["parameters"] = values
    kept = {one: f"\1{one}\2" for one in values}
    address = address_of(place, _filled(pattern, kept)).replace("\1", "{").replace("\2", "}")
    data, entry = halves_of(key, "zarr", address, described)

    def edit(document: dict[str, Any]) -> None:
        _refuse_taken(document, place, key, overwrite)
        for one, found in values.items():
            described_parameter = _parameter(found)
            if (
                document["user_parameters"].setdefault(one, described_parameter)
                != described_parameter
            ):
                raise CatalogError(
                    f"the catalog {place} has a parameter {one!r} with other values already",
                    hint="call it otherwise (tilt_b), or keep the family in a catalog of its own",
                )
        put(document, key, data, entry)

    change(place, edit)
    return open_catalog(place)[key]


def _filled(pattern: str, values: Mapping[str, Any]) -> str:
    for key, value in values.items():
        pattern = pattern.replace(f"{{{key}}}", str(value))
    return pattern


def _combinations(values: Mapping[str, list[Any]]) -> Iterable[dict[str, Any]]:
    from itertools import product

    return (dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))


def _parameter(values: list[Any]) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    dtype = kinds.pop().__name__ if len(kinds) == 1 else "str"
    if dtype not in ("str", "int", "float"):
        raise CatalogError(
            f"parameter values {values}: expected texts or numbers", hint="as the paths spell them"
        )
    # Intake keeps parameters of the whole catalog only, when it reads one from a file.
    return {
        "cls": "intake.readers.user_parameters:OptionsUserParameter",
        "dtype": dtype,
        "default": str(values[0]) if dtype == "str" else values[0],
        "options": [str(value) for value in values] if dtype == "str" else values,
        "description": "",
    }


def remove(path: StrPath, *names: str) -> list[str]:
    """Remove entries from a catalog file; the data stay where they are.

    Parameters
    ----------
    path : path-like
    *names : str

    Returns
    -------
    list of str
        The names.

    Raises
    ------
    CatalogError
        The catalog has no such entry: then none is removed.
    """
    place = place_of(path)
    if not is_remote(place) and not Path(place).exists():
        raise CatalogError(f"there is no catalog {place}", hint="check the path")

    def edit(document: dict[str, Any]) -> None:
        for name in names:
            if not take_out(document, name):
                raise CatalogError(
                    f"the catalog {place} has no entry {name!r}",
                    hint="nothing was removed; see its names with `emcube catalog show`",
                )

    change(place, edit)
    return list(names)


def save_entries(catalog: Catalog, path: StrPath, *, title: str = "") -> Catalog:
    """Write entries as a catalog of their own; see `Catalog.save`."""
    from emcube.catalog.model import open_catalog

    place = Path(path)
    if place.exists():
        raise CatalogError(
            f"cannot make the catalog {place}: it exists already", hint="choose another name"
        )
    halves = {}
    for name, entry in catalog.items():
        target = entry.target
        key = check_name(name.replace("/", " "))
        check_texts(entry.metadata, f"entry {name!r}")
        data, reader = halves_of(
            key, target.kind, address_of(place, target.location), entry.metadata
        )
        if target.group:
            data["kwargs"]["root"] = target.group
        halves[key] = (data, reader)

    def edit(document: dict[str, Any]) -> None:
        if title:
            document["metadata"] = {"title": title}
        for key, (data, reader) in halves.items():
            put(document, key, data, reader)

    change(place, edit)
    return open_catalog(place)
