"""What an entry points at, if every part of it is on a short list.

Intake imports whatever reader a file names and expands templates that call functions, read the environment
or load pickles. Here an entry is one of three kinds, of plain parts only; anything else is refused by name.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from emcube.catalog.places import CATALOG_DIR, Place, is_remote, locate
from emcube.errors import CatalogError

__all__ = ["Kind", "Parameter", "Target", "check_name", "halves_of", "parameters_of", "target_of"]

#: "zarr": a store; "file": an instrument file, as it is; "catalog": another catalog.
Kind = Literal["zarr", "file", "catalog"]

_DATA = "intake.readers.datatypes"
_READERS: dict[str, Kind] = {
    "intake.readers.readers:XArrayDatasetReader": "zarr",
    "intake.readers.readers:FileByteReader": "file",
    "intake.readers.readers:YAMLCatalogReader": "catalog",
}
_DATATYPES: dict[Kind, tuple[str, ...]] = {
    "zarr": (f"{_DATA}:Zarr",),
    "file": (f"{_DATA}:FileData", f"{_DATA}:HDF5"),
    "catalog": (f"{_DATA}:YAMLFile", f"{_DATA}:CatalogFile"),
}
_OUTPUTS: dict[Kind, str] = {
    "zarr": "xarray:Dataset",
    "file": "builtin:bytes",
    "catalog": "intake.readers.entry:Catalog",
}
#: Arguments of readers that only choose how lazily they read.
_READER_ARGUMENTS: dict[Kind, frozenset[str]] = {
    "zarr": frozenset({"args", "data", "chunks", "engine", "consolidated"}),
    "file": frozenset({"args", "data"}),
    "catalog": frozenset({"args", "data"}),
}
#: What Intake itself adds to a catalog that was loaded and saved again.
_INTAKE_PARAMETERS = frozenset({"CATALOG_PATH", "CATALOG_DIR", "STORAGE_OPTIONS"})
_PARAMETERS = {
    f"intake.readers.user_parameters:{name}UserParameter" for name in ("Simple", "Options")
}
_DTYPES: dict[str, type] = {"str": str, "int": int, "float": float}

_REFERENCE = re.compile(r"^\{?data\(([^(){},]+)\)\}?$")
_TEMPLATE = re.compile(r"\{([^{}]*)\}")
#: What a parameter may put into an address: no separators, no dots alone, no templates.
_VALUE = re.compile(r"[A-Za-z0-9_+\-][A-Za-z0-9_.+\- ]*")


@dataclass(frozen=True)
class Target:
    """What an entry points at.

    Attributes
    ----------
    location : str
        Path or URL.
    group : str
        Group within a store; "" for its root.
    kind : {"zarr", "file", "catalog"}
    """

    location: str
    group: str = ""
    kind: Kind = "zarr"

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's file system."""
        return not is_remote(self.location)


@dataclass(frozen=True)
class Parameter:
    """A value that picks one dataset of a family.

    Attributes
    ----------
    name : str
    default : str, int or float
    options : tuple
        What it may be; empty where anything of the type will do.
    dtype : {"str", "int", "float"}
    description : str
    """

    name: str
    default: str | int | float
    options: tuple[str | int | float, ...] = ()
    dtype: str = "str"
    description: str = field(default="", compare=False)

    def text(self, value: object) -> str:
        """A value as it goes into the address.

        Raises
        ------
        CatalogError
            It is none of the options, or not of the type.
        """
        try:
            plain = _DTYPES[self.dtype](value)
        except (TypeError, ValueError):
            plain = None
        if plain is None or (self.options and plain not in self.options):
            raise CatalogError(
                f"parameter {self.name}: got {value!r}, expected "
                + (f"one of {', '.join(map(str, self.options))}" if self.options else self.dtype),
                hint=f"leave it out for {self.default!r}",
            )
        if not _VALUE.fullmatch(str(plain)):
            raise CatalogError(
                f"parameter {self.name}: {plain!r} cannot be a part of a file's name",
                hint="expected letters, digits and . _ + -",
            )
        return str(plain)


def check_name(name: str) -> str:
    """Return the name of an entry if it can be one.

    Raises
    ------
    CatalogError
        It is empty or holds characters that stand for something else in ``catalog.yaml:name``.
    """
    plain = re.fullmatch(r"[^\s:/\\{}()'\",](?:[^:/\\{}()'\",]*[^\s:/\\{}()'\",])?", name)
    if plain is None or not name.isprintable():
        raise CatalogError(
            f"{name!r} cannot be the name of a catalog entry: expected text without : / \\ {{ }} ( ) , "
            "or quotes",
            hint="use letters, digits, spaces and . _ - +",
        )
    return name


def halves_of(
    name: str, kind: Kind, address: str, metadata: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two halves of an entry as Intake 2 writes them: the data, and the reader that refers to it.

    Parameters
    ----------
    name : str
        Of the entry.
    kind : {"zarr", "file", "catalog"}
    address : str
        As `emcube.catalog.places.address_of` gives it.
    metadata : mapping
    """
    local = kind == "file" and not is_remote(address)
    keywords: dict[str, Any] = {"url": _escape(address) if local else address}
    if kind == "zarr":
        keywords["root"] = ""
    data = {
        "datatype": _DATATYPES[kind][0],
        "kwargs": {**keywords, "storage_options": None},
        "metadata": {},
        "user_parameters": {},
    }
    if kind == "zarr" and "*" in address:
        raise CatalogError(
            f"cannot add {address} to a catalog: Intake takes stars in a store's path for patterns",
            hint="rename the folder",
        )
    entry = {
        "reader": next(reader for reader, found in _READERS.items() if found == kind),
        # Nothing more: chunks would need Dask, which plain Intake does not bring, and with an engine of ours
        # it would not look at the group. Who has Dask reads with read(chunks={}).
        "kwargs": {"args": [f"{{data({name}-data)}}"]},
        "metadata": dict(metadata),
        "output_instance": _OUTPUTS[kind],
        "user_parameters": {},
    }
    return data, entry


def _escape(address: str) -> str:
    """Escape what plain Intake would expand, but for the template at the beginning.

    It takes a path with a star for a pattern, and only then brackets and question marks mean something, too.
    """
    if "*" not in address:
        return address
    here = CATALOG_DIR if address.startswith(CATALOG_DIR) else ""
    return here + glob.escape(address.removeprefix(here))


def _unescape(address: str) -> str:
    return re.sub(r"\[([*?[])\]", r"\1", address) if "*" in address else address


# --- what an entry points at ----------------------------------------------------------------------


def target_of(
    place: Place, document: Mapping[str, Any], name: str, values: Mapping[str, Any] | None = None
) -> Target:
    """Find what an entry points at, if every part of it is known to be harmless.

    Parameters
    ----------
    place : Path or str
        The catalog; relative places start at its folder.
    document : mapping
        Its contents.
    name : str
        Key of the entry.
    values : mapping, optional
        Of the catalog's parameters; defaults for the rest.

    Raises
    ------
    CatalogError
        The entry is broken, or names a reader, argument, template, protocol or place that is not on the list.
    """
    where = f"entry {name!r} of {place}"
    entry = document["entries"][name]
    _expect(isinstance(entry, Mapping), where, f"is a {type(entry).__name__}", "a mapping")
    kind = _kind(entry, where)
    arguments = entry.get("kwargs") or {}
    _expect(isinstance(arguments, Mapping), where, "has no mapping of arguments", "kwargs")
    unknown = sorted(set(map(str, arguments)) - _READER_ARGUMENTS[kind])
    _expect(
        not unknown, where, f"has the arguments {unknown}", str(sorted(_READER_ARGUMENTS[kind]))
    )
    engine = arguments.get("engine", "zarr")
    _expect(engine == "zarr", where, f"has the engine {engine!r}", "'zarr'")
    for key in ("chunks", "consolidated"):
        _expect(_is_plain(arguments.get(key)), where, f"has a template in {key!r}", "plain values")
    parameters = _parameters(document, where)
    reference = arguments["data"] if "data" in arguments else arguments.get("args")
    url, root = _data(document, where, kind, reference)
    address = _filled(url, where, parameters, values or {})
    try:
        location = locate(place, _unescape(address) if kind == "file" else address)
    except ValueError as error:
        raise _refusal(where, f"has the address {url!r}", str(error)) from None
    return Target(location, root, kind)


def _kind(entry: Mapping[str, Any], where: str) -> Kind:
    reader = entry.get("reader")
    kind = _READERS.get(reader) if isinstance(reader, str) else None
    if kind is None:
        raise _refusal(where, f"uses the reader {reader!r}", f"one of {', '.join(_READERS)}")
    output = entry.get("output_instance")
    _expect(output in (_OUTPUTS[kind], None), where, f"gives {output!r}", _OUTPUTS[kind])
    _expect(not entry.get("user_parameters"), where, "has parameters of its own", "none")
    return kind


def _data(document: Mapping[str, Any], where: str, kind: Kind, reference: Any) -> tuple[str, str]:
    """Address and group of the data that an entry's reader reads."""
    if isinstance(reference, list) and len(reference) == 1:
        reference = reference[0]
    match = _REFERENCE.match(reference) if isinstance(reference, str) else None
    if match is None:
        raise _refusal(where, f"reads {reference!r}", "one reference such as '{data(name)}'")
    data = document["data"].get(match[1])
    if not isinstance(data, Mapping):
        raise _refusal(where, f"refers to the data {match[1]!r}", "data in this file")
    datatype = data.get("datatype")
    known = _DATATYPES[kind]
    _expect(datatype in known, where, f"has data of type {datatype!r}", " or ".join(known))
    _expect(not data.get("user_parameters"), where, "has data with parameters", "none")
    arguments = data.get("kwargs") or {}
    _expect(isinstance(arguments, Mapping), where, "has data without arguments", "kwargs")
    unknown = sorted(set(map(str, arguments)) - {"url", "root", "path", "storage_options"})
    _expect(not unknown, where, f"has data with {unknown}", "url, root and storage_options")
    options = arguments.get("storage_options")
    _expect(
        options in (None, {}),
        where,
        "has storage_options",
        "none: credentials and endpoints come from the environment or from fsspec's configuration",
    )
    root = arguments.get("root") or arguments.get("path") or ""
    plain = isinstance(root, str) and "{" not in root and ".." not in root.split("/")
    _expect(plain, where, f"has the group {root!r}", "a plain path within the store")
    url = arguments.get("url")
    _expect(isinstance(url, str) and bool(url), where, f"has the address {url!r}", "a path or URL")
    return str(url), str(root).strip("/")


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return "{" not in value
    if isinstance(value, Mapping):
        return all(_is_plain(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float))


def _refusal(where: str, found: str, expected: str) -> CatalogError:
    return CatalogError(
        f"{where} is not opened: it {found}, expected {expected}",
        hint="catalogs can name code to run, so only plain entries are opened: add the data anew with "
        "`emcube catalog add`, or open the catalog with trust=True if you know who made it",
    )


def _expect(holds: bool, where: str, found: str, expected: str) -> None:
    if not holds:
        raise _refusal(where, found, expected)


# --- parameters of families -----------------------------------------------------------------------


def parameters_of(place: Place, document: Mapping[str, Any], name: str) -> dict[str, Parameter]:
    """The catalog's parameters that the address of an entry has.

    Raises
    ------
    CatalogError
        As for `target_of`.
    """
    where = f"entry {name!r} of {place}"
    entry = document["entries"][name]
    _expect(isinstance(entry, Mapping), where, f"is a {type(entry).__name__}", "a mapping")
    known = _parameters(document, where)
    arguments = entry.get("kwargs") or {}
    reference = arguments["data"] if "data" in arguments else arguments.get("args")
    url, _ = _data(document, where, _kind(entry, where), reference)
    return {key: known[key] for key in _TEMPLATE.findall(url) if key in known}


def _parameters(document: Mapping[str, Any], where: str) -> dict[str, Parameter]:
    """All parameters of a catalog: one that is not plain makes Intake run what it names, for any entry."""
    found = {}
    for name, value in document["user_parameters"].items():
        if name not in _INTAKE_PARAMETERS:
            found[name] = _parameter(name, value, f"{where} (parameter {name!r} of the catalog)")
    return found


def _parameter(name: str, value: Any, where: str) -> Parameter:
    _expect(name.isidentifier(), where, "has no plain name", "letters, digits and _")
    if not isinstance(value, Mapping):
        raise _refusal(where, f"is {value!r}", "a mapping with cls, dtype and default")
    unknown = sorted(set(map(str, value)) - {"cls", "dtype", "default", "options", "description"})
    _expect(not unknown, where, f"has {unknown}", "cls, dtype, default, options and description")
    cls, dtype = value.get("cls"), value.get("dtype", "str")
    _expect(cls in _PARAMETERS, where, f"is of the class {cls!r}", " or ".join(sorted(_PARAMETERS)))
    _expect(dtype in _DTYPES, where, f"has the dtype {dtype!r}", " or ".join(_DTYPES))
    options = value.get("options") or []
    _expect(isinstance(options, list), where, f"has the options {options!r}", "a list")
    for one in [*options, value.get("default")]:
        plain = isinstance(one, (str, int, float)) and _VALUE.fullmatch(str(one)) is not None
        _expect(plain, where, f"can be {one!r}", "letters, digits and . _ + -, no template")
        fits = isinstance(one, (int, float) if dtype == "float" else _DTYPES[dtype])
        _expect(fits, where, f"can be {one!r}", f"values of {dtype}")
    description = value.get("description") or ""
    _expect(isinstance(description, str), where, f"has {description!r}", "a text")
    return Parameter(name, value["default"], tuple(options), dtype, description)


def _filled(
    url: str, where: str, parameters: Mapping[str, Parameter], values: Mapping[str, Any]
) -> str:
    """The address with the catalog's own parameters filled in; other templates stay, and are refused."""
    used = [key for key in _TEMPLATE.findall(url) if key in parameters]
    strange = sorted(set(values) - set(used))
    if strange:
        raise CatalogError(
            f"{where}: got the parameter {strange[0]!r}, expected {', '.join(used) or 'none'}",
            hint="leave it out" if not used else f"name one of {', '.join(used)}",
        )

    def fill(match: re.Match[str]) -> str:
        key = match[1]
        if key not in parameters:
            return match[0]
        return parameters[key].text(values.get(key, parameters[key].default))

    return _TEMPLATE.sub(fill, url)
