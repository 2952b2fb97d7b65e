"""YAML as plain data and back: text, numbers, lists and mappings, nothing else, and fast.

PyYAML's safe loader builds no objects of strange classes, but a short file can still name itself a thousand
times (aliases of aliases) or nest so deeply that a parser runs out of stack. Here data are built from the
parser's events, one after the other, with limits; that is also several times faster, as catalogs of ten
thousand entries need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

__all__ = ["PlainError", "dump", "load"]

_MAX_DEPTH = 40
#: What aliases may add to the nodes that a file spells out. Intake writes a few, when an object occurs twice.
_MAX_REPEATED = 200_000
#: Texts whose type was looked up are remembered: most of a catalog's are the same few.
_MAX_REMEMBERED = 100_000

#: Longer numbers are none that anybody measured, and Python does not print all of them.
_MAX_DIGITS = 100

_TAG = "tag:yaml.org,2002:"
_TYPES = frozenset({"str", "int", "float", "bool", "null"})


class PlainError(ValueError):
    """A file that is YAML, but not plain data; says the line and what is there."""

    def __init__(self, event: Any, found: str) -> None:
        super().__init__(f"line {event.start_mark.line + 1} {found}")


class _Scalars:
    """Types of scalars as YAML 1.1 has them; dates stay text, as in JSON."""

    def __init__(self) -> None:
        import yaml

        class Resolver(yaml.resolver.Resolver):
            pass

        Resolver.yaml_implicit_resolvers = {
            first: [(tag, regex) for tag, regex in rules if not tag.endswith(":timestamp")]
            for first, rules in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
        }
        self._resolver: Any = Resolver()
        self._constructor = yaml.constructor.SafeConstructor()
        self._node = yaml.ScalarNode
        self._values: dict[str, Any] = {}

    def type_of(self, text: str) -> str:
        tag: str = self._resolver.resolve(self._node, text, (True, False))
        return tag.removeprefix(_TAG)

    def value(self, kind: str, text: str) -> Any:
        """The value of a text that is of a type; ValueError where it cannot be."""
        if kind == "str":
            return text
        if kind in ("int", "float") and len(text) > _MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} characters")
        build = getattr(self._constructor, f"construct_yaml_{kind}")
        return build(self._node(_TAG + kind, text))

    def plain(self, text: str) -> Any:
        """The value of a text without quotes or tag; one that looks like a number and is none stays text."""
        try:
            return self._values[text]
        except KeyError:
            pass
        kind = self.type_of(text)
        try:
            value = self.value(kind, text) if kind in _TYPES else text
        except (ValueError, OverflowError):
            value = text
        if len(self._values) < _MAX_REMEMBERED:
            self._values[text] = value
        return value


class _Builder:
    """Data from events: what is open is on a stack, so that nothing recurses."""

    def __init__(self) -> None:
        self.scalars = _Scalars()
        self.nodes = self.repeated = 0
        #: Anchor to its value and number of nodes; None while it is still open.
        self.anchors: dict[str, tuple[Any, int] | None] = {}
        #: Open collections: each, its anchor, the nodes before it, and the key that waits for a value.
        self.stack: list[list[Any]] = []
        self.root: Any = None

    def scalar(self, event: Any) -> None:
        tag = event.tag
        if tag is None or tag == "!":
            # Of the pair the first says that it has neither quotes nor tag.
            value = self.scalars.plain(event.value) if event.implicit[0] else event.value
        else:
            value = self._tagged(event, tag)
        self.nodes += 1
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        self._put(event, value)

    def _tagged(self, event: Any, tag: str) -> Any:
        kind = tag.removeprefix(_TAG)
        if not tag.startswith(_TAG) or kind not in _TYPES:
            raise PlainError(event, f"has the tag {tag!r}")
        try:
            return self.scalars.value(kind, event.value)
        except (ValueError, KeyError, OverflowError):
            found = event.value if len(event.value) <= _MAX_DIGITS else f"{event.value[:20]}..."
            raise PlainError(event, f"has {found!r} for a {kind}") from None

    def begin(self, event: Any, collection: Any) -> None:
        tag = event.tag
        if tag not in (None, "!", f"{_TAG}{'map' if isinstance(collection, dict) else 'seq'}"):
            raise PlainError(event, f"has the tag {tag!r}")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if len(self.stack) >= _MAX_DEPTH:
            raise PlainError(event, f"nests more than {_MAX_DEPTH} deep")
        self.stack.append([collection, event.anchor, self.nodes, _NO_KEY])
        self.nodes += 1

    def end(self, event: Any) -> None:
        collection, anchor, before, _ = self.stack.pop()
        if anchor is not None:
            self.anchors[anchor] = (collection, self.nodes - before)
        if isinstance(collection, dict) and _MERGE in collection:
            collection = _merged(event, collection)
            if anchor is not None:
                self.anchors[anchor] = (collection, self.nodes - before)
        self._put(event, collection)

    def alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            raise PlainError(event, f"has an alias of nothing, {event.anchor!r}")
        found = self.anchors[event.anchor]
        if found is None:
            raise PlainError(event, f"holds itself (alias {event.anchor!r})")
        value, size = found
        self.nodes += size
        self.repeated += size
        if self.repeated > _MAX_REPEATED:
            raise PlainError(event, "multiplies itself with aliases")
        # Its own copy: who changes one entry does not mean another.
        self._put(event, deepcopy(value))

    def _put(self, event: Any, value: Any) -> None:
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        collection = top[0]
        if isinstance(collection, list):
            collection.append(value)
        elif top[3] is _NO_KEY:
            top[3] = _key(event, value, collection)
        else:
            collection[top[3]] = value
            top[3] = _NO_KEY


_NO_KEY, _MERGE = object(), object()


def _key(event: Any, value: Any, collection: dict[Any, Any]) -> Any:
    """A key, which is text as it is spelt: an entry may be called 007, or no."""
    implicit = getattr(event, "implicit", None)
    if isinstance(implicit, tuple):
        value = _MERGE if event.value == "<<" and implicit[0] else event.value
    elif not isinstance(value, str):
        raise PlainError(event, "has something else than text for a key")
    if value in collection:
        raise PlainError(event, f"has the key {value!r} twice")
    return value


def _merged(event: Any, collection: dict[Any, Any]) -> dict[Any, Any]:
    """A mapping with what its ``<<`` brings; its own keys win, then those that come first."""
    brought = collection.pop(_MERGE)
    found: dict[Any, Any] = {}
    for one in brought if isinstance(brought, list) else [brought]:
        if not isinstance(one, Mapping):
            raise PlainError(event, "merges (<<) something that is no mapping")
        found = {**one, **found}
    return {**found, **collection}


def load(text: str) -> Any:
    """Read a YAML document as plain data.

    Parameters
    ----------
    text : str

    Returns
    -------
    object
        None for an empty text.

    Raises
    ------
    PlainError
        It is YAML, but names objects, nests too deeply, holds itself, multiplies itself, has a key twice, or
        holds several documents.
    yaml.YAMLError
        It is no YAML.
    """
    import yaml

    builder = _Builder()
    begin_map, begin_list = yaml.MappingStartEvent, yaml.SequenceStartEvent
    documents = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        kind = type(event)
        if kind is yaml.ScalarEvent:
            builder.scalar(event)
        elif kind is begin_map:
            builder.begin(event, {})
        elif kind is begin_list:
            builder.begin(event, [])
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            builder.end(event)
        elif kind is yaml.AliasEvent:
            builder.alias(event)
        elif kind is yaml.DocumentStartEvent:
            documents += 1
            if documents > 1:
                raise PlainError(event, "begins a second document")
    return builder.root


# --- writing --------------------------------------------------------------------------------------


class _Writer:
    """Events for plain data; lists and mappings of scalars go on one line."""

    def __init__(self) -> None:
        self.scalars = _Scalars()
        self._events: dict[tuple[type, Any], Any] = {}

    def events(self, value: Any) -> Iterator[Any]:
        import yaml

        if isinstance(value, Mapping):
            yield yaml.MappingStartEvent(None, None, True, flow_style=_flat(value.values()))
            for key, item in value.items():
                yield self.scalar(key)
                yield from self.events(item)
            yield yaml.MappingEndEvent()
        elif isinstance(value, (list, tuple)):
            yield yaml.SequenceStartEvent(None, None, True, flow_style=_flat(value))
            for item in value:
                yield from self.events(item)
            yield yaml.SequenceEndEvent()
        else:
            yield self.scalar(value)

    def scalar(self, value: Any) -> Any:
        # Zero and minus zero are equal, and are written differently.
        key = (type(value), repr(value) if isinstance(value, float) else value)
        found = self._events.get(key)
        if found is None:
            found = self._made(value)
            if len(self._events) < _MAX_REMEMBERED:
                self._events[key] = found
        return found

    def _made(self, value: Any) -> Any:
        import yaml

        if isinstance(value, str):
            # Quotes where it would be taken for a number or a date, by us or by others.
            plain = yaml.resolver.Resolver.yaml_implicit_resolvers
            first = plain.get(value[:1], []) + plain.get(None, [])
            bare = not any(regex.match(value) for _, regex in first)
            return yaml.ScalarEvent(None, None, (bare, True), value)
        node = yaml.representer.SafeRepresenter().represent_data(value)
        if not isinstance(node, yaml.ScalarNode) or node.tag.removeprefix(_TAG) not in _TYPES:
            raise TypeError(f"a catalog holds plain data only, not {type(value).__name__}")
        return yaml.ScalarEvent(None, None, (True, False), node.value)


def _flat(values: Iterable[Any]) -> bool:
    return not any(isinstance(value, (Mapping, list, tuple)) for value in values)


def dump(document: Mapping[str, Any], *, width: int = 100) -> str:
    """Write plain data as YAML, everything spelled out.

    Raises
    ------
    TypeError
        It holds something else than text, numbers, lists and mappings.
    """
    import yaml

    def events() -> Iterator[Any]:
        yield yaml.StreamStartEvent()
        yield yaml.DocumentStartEvent(explicit=False)
        yield from _Writer().events(document)
        yield yaml.DocumentEndEvent(explicit=False)
        yield yaml.StreamEndEvent()

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.emit(events(), Dumper=dumper, width=width, allow_unicode=True)
    return text
