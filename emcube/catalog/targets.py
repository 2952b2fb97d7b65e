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

from emcube.catalog.places import CATALOG_DIR, Place, has_scheme, is_remote, locate, shown
from emcube.errors import CatalogError

__all__ = [
    "Kind",
    "Parameter",
    "Target",
    "check_name",
    "halves_of",
    "parameters_of",
    "plain_document",
    "target_of",
]

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
_ENTRY_KEYS = frozenset({"reader", "kwargs", "metadata", "output_instance", "user_parameters"})
_DATA_KEYS = frozenset({"datatype", "kwargs", "metadata", "user_parameters"})
_DATA_ARGUMENTS = frozenset({"url", "root", "path", "storage_options"})
#: Intake takes an argument that is called like a parameter for the parameter's value, and expands it as one.
_RESERVED = frozenset().union(
    *_READER_ARGUMENTS.values(), _DATA_ARGUMENTS, {"output_instance", "metadata"}
)
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
    return _checked(place, document, name, values or {})[0]


def _checked(
    place: Place, document: Mapping[str, Any], name: str, values: Mapping[str, Any]
) -> tuple[Target, str, dict[str, Any]]:
    """What an entry points at, its address as the catalog has it, and the reader's plain arguments."""
    where = f"entry {name!r} of {place}"
    entry = _entry(document, name, where)
    kind = _kind(entry, where)
    arguments = entry.get("kwargs") or {}
    _expect(isinstance(arguments, Mapping), where, "has no mapping of arguments", "kwargs")
    _only(arguments, _READER_ARGUMENTS[kind], where, "has the arguments")
    engine = arguments.get("engine", "zarr")
    _expect(engine == "zarr", where, f"has the engine {engine!r}", "'zarr'")
    for key in ("chunks", "consolidated"):
        _expect(_is_plain(arguments.get(key)), where, f"has a template in {key!r}", "plain values")
    parameters = _parameters(document, where)
    url, root = _data(document, where, kind, _reference(arguments, where))
    address = _filled(url, where, parameters, values)
    try:
        location = locate(place, _unescape(address) if kind == "file" else address)
    except ValueError as error:
        raise _refusal(where, f"has the address {shown(url)!r}", str(error)) from None
    kept = {key: arguments[key] for key in ("chunks", "engine", "consolidated") if key in arguments}
    return Target(location, root, kind), url, kept


def _entry(document: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    entry = document["entries"][name]
    if not isinstance(entry, Mapping):
        raise _refusal(where, f"is a {type(entry).__name__}", "a mapping")
    _only(entry, _ENTRY_KEYS, where, "has the keys")
    return entry


def _only(found: Mapping[Any, Any], known: frozenset[str], where: str, what: str) -> None:
    unknown = sorted(set(map(str, found)) - known)
    _expect(not unknown, where, f"{what} {unknown}", f"none but {sorted(known)}")


def _reference(arguments: Mapping[str, Any], where: str) -> Any:
    """What names the data: Intake evaluates both arguments, so there is one of them."""
    both = "data" in arguments and "args" in arguments
    _expect(not both, where, "has the arguments 'args' and 'data'", "one of them")
    return arguments["data"] if "data" in arguments else arguments.get("args")


def plain_document(place: Place, document: Mapping[str, Any]) -> dict[str, Any]:
    """A catalog made anew of what was checked, for Intake: what nobody looked at cannot get into it.

    Parameters
    ----------
    place : Path or str
        The catalog.
    document : mapping
        Its contents.

    Raises
    ------
    CatalogError
        As for `target_of`, for any entry; or an entry is a catalog, which Intake would read without a check.
    """
    plain: dict[str, Any] = {
        "version": 2,
        "metadata": _without_imports(document["metadata"]),
        "aliases": {str(key): str(value) for key, value in document["aliases"].items()},
        "data": {},
        "entries": {},
        "user_parameters": {},
    }
    for n, name in enumerate(document["entries"]):
        target, url, arguments = _checked(place, document, name, {})
        if target.kind == "catalog":
            raise CatalogError(
                f"entry {name!r} of {place} is a catalog: Intake would read it without any check, expected "
                "datasets only",
                hint="open that one with emcube and hand it to Intake by itself: "
                f"catalog[{name!r}].open_catalog().to_intake()",
            )
        entry = document["entries"][name]
        key = f"data-{n}"
        while key in plain["aliases"] or key in document["entries"]:
            key += "-"
        keywords: dict[str, Any] = {"url": _for_intake(url), "storage_options": None}
        if target.kind == "zarr":
            keywords["root"] = target.group
        plain["data"][key] = {
            "datatype": _DATATYPES[target.kind][0],
            "kwargs": keywords,
            "metadata": {},
            "user_parameters": {},
        }
        plain["entries"][name] = {
            "reader": entry["reader"],
            "kwargs": {"args": [f"{{data({key})}}"], **arguments},
            "metadata": _without_imports(entry.get("metadata")),
            "output_instance": _OUTPUTS[target.kind],
            "user_parameters": {},
        }
    for name, parameter in _parameters(document, f"the catalog {place}").items():
        plain["user_parameters"][name] = _parameter_for_intake(parameter)
    return plain


def _without_imports(metadata: Any) -> dict[str, Any]:
    """Metadata but for the packages that Intake imports when it is asked whether they are there."""
    if not isinstance(metadata, Mapping):
        return {}
    return {str(key): value for key, value in metadata.items() if str(key) != "imports"}


def _for_intake(url: str) -> str:
    """A checked address as Intake understands it: relative ones start at the catalog, not where one works.

    It begins with a folder or a protocol, so that Intake cannot take it for a call.
    """
    if url.startswith((CATALOG_DIR, "/")) or has_scheme(url) or re.match(r"[A-Za-z]:", url):
        return url
    return f"{CATALOG_DIR}/{url}"


def _parameter_for_intake(parameter: Parameter) -> dict[str, Any]:
    kind = "Options" if parameter.options else "Simple"
    plain: dict[str, Any] = {
        "cls": f"intake.readers.user_parameters:{kind}UserParameter",
        "dtype": parameter.dtype,
        "default": parameter.default,
        "description": parameter.description,
    }
    return {**plain, "options": list(parameter.options)} if parameter.options else plain


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
    _only(data, _DATA_KEYS, where, "has data with the keys")
    datatype = data.get("datatype")
    known = _DATATYPES[kind]
    _expect(datatype in known, where, f"has data of type {datatype!r}", " or ".join(known))
    _expect(not data.get("user_parameters"), where, "has data with parameters", "none")
    arguments = data.get("kwargs") or {}
    _expect(isinstance(arguments, Mapping), where, "has data without arguments", "kwargs")
    _only(arguments, _DATA_ARGUMENTS, where, "has data with")
    options = arguments.get("storage_options")
    _expect(
        options in (None, {}),
        where,
        "has storage_options",
        "none: credentials and endpoints come from the environment or from fsspec's configuration",
    )
    # Intake evaluates both names of the group, whichever is used.
    groups = [_group(arguments.get(key), where) for key in ("root", "path")]
    _expect("" in groups, where, f"has two groups, {groups}", "one, as root or path")
    url = arguments.get("url")
    _expect(isinstance(url, str) and bool(url), where, f"has the address {url!r}", "a path or URL")
    return str(url), "".join(groups)


def _group(root: Any, where: str) -> str:
    if root is None:
        return ""
    plain = isinstance(root, str) and "{" not in root and ".." not in root.split("/")
    _expect(plain, where, f"has the group {root!r}", "a plain path within the store")
    return str(root).strip("/")


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
    _, url, _ = _checked(place, document, name, {})
    known = _parameters(document, where)
    return {key: known[key] for key in _TEMPLATE.findall(url) if key in known}


def _parameters(document: Mapping[str, Any], where: str) -> dict[str, Parameter]:
    """All parameters of a catalog: one that is not plain makes Intake run what it names, for any entry."""
    found = {}
    for name, value in document["user_parameters"].items():
        here = f"{where} (parameter {name!r} of the catalog)"
        if name not in _INTAKE_PARAMETERS:
            found[name] = _parameter(name, value, here)
            continue
        # Where Intake loaded it from; set anew whenever a catalog is opened.
        plain = isinstance(value, str) and name != "STORAGE_OPTIONS"
        _expect(
            plain or value in (None, {}),
            where=here,
            found=f"is {value!r}",
            expected="a text (or no options), as Intake writes it",
        )
    return found


def _parameter(name: str, value: Any, where: str) -> Parameter:
    _expect(name.isidentifier(), where, "has no plain name", "letters, digits and _")
    _expect(name not in _RESERVED, where, "is called like an argument", "another name")
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
