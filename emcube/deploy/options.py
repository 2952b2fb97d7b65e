"""What a kind of deployment may be told: parsed at the door, unknown words refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic import Field as Field
from pydantic import PositiveFloat as PositiveFloat
from pydantic import PositiveInt as PositiveInt

from emcube.errors import InputError

__all__ = ["Bytes", "Folder", "Options", "Place", "Seconds", "parse_options", "split_where"]


def _bytes(value: Any) -> Any:
    from emcube.engine.memory import parse_bytes

    return parse_bytes(value) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    """Seconds of a number, ``"90s"``, ``"5 min"``, ``"2 h"`` or ``"01:30:00"``."""
    if not isinstance(value, str):
        return value
    clock = re.fullmatch(r"\s*(?:(\d+):)?(\d+):(\d+)\s*", value)
    if clock:
        hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return hours * 3600.0 + minutes * 60.0 + seconds
    plain = re.fullmatch(r"\s*(\d+\.?\d*)\s*(s|min|h|)\s*", value)
    if not plain:
        raise ValueError('write seconds, or for example "90 s", "5 min" or "01:30:00"')
    return float(plain[1]) * {"": 1, "s": 1, "min": 60, "h": 3600}[plain[2]]


LEAST_MEMORY = 256 * 2**20
"""Less is no memory for a process that imports NumPy and Dask: most often the unit was forgotten."""


def _enough(n_bytes: int) -> int:
    if n_bytes < LEAST_MEMORY:
        raise ValueError(
            f"{n_bytes} bytes are too few for a process; write the unit, for example '8 GiB'"
        )
    return n_bytes


Bytes = Annotated[int, BeforeValidator(_bytes), AfterValidator(_enough)]
"""Memory of a process: a number of bytes, or text such as ``"4 GiB"``."""

Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=30 * 86400)]
"""A time: a number of seconds, or text such as ``"5 min"`` or ``"01:30:00"``."""


def _switch(value: Any) -> Any:
    """A truth value, or its text; other text stays."""
    words = {"true": True, "false": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # ~name of nobody
        raise ValueError(str(error)) from error


Folder = Annotated[Path, AfterValidator(_expanded)]
"""A folder; ``~`` is the home folder."""


class Options(BaseModel):
    """Options of one kind; subclasses add theirs. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout: Seconds = Field(
        120.0, description="Seconds to wait for the scheduler and the workers."
    )


class Place(Options):
    """Options of kinds that start a scheduler and workers."""

    dashboard: Annotated[bool | str, BeforeValidator(_switch)] = Field(
        False,
        description="Dask's dashboard: true for this host only, or host:port to open it further.",
    )
    logs: Folder | None = Field(None, description="Folder where logs of the processes are kept.")


class ThreadsOptions(Options):
    """Options of ``threads``."""

    workers: PositiveInt | None = Field(None, description="Number of threads; default: the cores.")


class AddressOptions(Options):
    """Options of ``address``: a scheduler that runs already."""

    address: str | None = Field(None, description="Such as tls://host:8786.")
    scheduler_file: Folder | None = Field(None, description="File that the scheduler wrote.")
    credentials: Folder | None = Field(
        None, description="Folder with ca.pem, cert.pem and key.pem for a tls:// address."
    )
    workers: PositiveInt = Field(1, description="Workers to wait for.")


class AutoOptions(Options):
    """Options of ``auto``: none but the time to wait."""


AnyOptions = TypeVar("AnyOptions", bound=Options)


def split_where(text: str) -> tuple[str, dict[str, str]]:
    """Split ``"local workers=4 memory='2 GiB'"`` into the place and its options.

    Raises
    ------
    InputError
        The text is empty, or a word after the first is not ``option=value``.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"deploy {text!r}: {error}", hint="close the quote") from error
    if not words:
        raise InputError("deploy: got an empty text, a place to work is expected")
    options: dict[str, str] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(
                f"deploy {text!r}: got {word!r} where option=value is expected",
                hint="write for example: local workers=4",
            )
        options[name] = value
    return words[0], options


def parse_options(model: type[AnyOptions], values: Mapping[str, Any], origin: str) -> AnyOptions:
    """Check options of one kind.

    Parameters
    ----------
    model : type of Options
    values : mapping
        As given, text values too (``"4"`` is 4).
    origin : str
        Where they come from, for messages: ``"deploy 'local'"`` or a profile with its file.

    Raises
    ------
    InputError
        Names each option that is unknown or has a wrong value, and those there are.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(
            f"{origin}: {'; '.join(_said(e) for e in error.errors())}",
            hint=f"options are {', '.join(sorted(model.model_fields))}",
        ) from None


def _said(error: Any) -> str:
    name = error["loc"][0] if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        return f"there is no option {name!r}"
    cause = (error.get("ctx") or {}).get("error")
    said = str(cause) if cause is not None else error["msg"]
    return f"{name}: got {error['input']!r}: {said[:1].lower()}{said[1:]}" if name else said
