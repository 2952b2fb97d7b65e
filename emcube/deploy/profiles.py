"""Named places to work, from TOML files: the user's own, and the site's for everybody."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emcube.errors import InputError

__all__ = ["Profile", "load_profiles", "profile_files"]

FILE = "deploy.toml"


@dataclass(frozen=True)
class Profile:
    """One table of a profile file."""

    name: str
    kind: str
    file: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    fault: InputError | None = None
    """What is wrong with it, told to whoever asks for it: others stay usable."""

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""
        return f"profile {self.name!r} of {str(self.file)!r}"


def profile_files() -> list[Path]:
    """Files that are read, the site's before the user's, which goes before it; they need not exist.

    ``EMCUBE_PROFILES`` names one file that takes the place of both.
    """
    wish = os.environ.get("EMCUBE_PROFILES", "").strip()
    if wish:
        try:
            return [Path(wish).expanduser().absolute()]
        except RuntimeError as error:  # ~name of nobody
            raise InputError(f"EMCUBE_PROFILES is {wish!r}: {error}") from error
    import platformdirs

    return [
        platformdirs.site_config_path("emcube") / FILE,
        platformdirs.user_config_path("emcube", appauthor=False) / FILE,
    ]


def load_profiles() -> dict[str, Profile]:
    """Profiles by name. The user's take the place of the site's of the same name.

    Raises
    ------
    InputError
        A file is not TOML or cannot be read. What is wrong with a profile alone is its ``fault``.
    """
    profiles: dict[str, Profile] = {}
    for file in profile_files():
        if file.exists():
            profiles |= {p.name: p for p in _read(file)}
        elif os.environ.get("EMCUBE_PROFILES", "").strip():
            raise InputError(f"EMCUBE_PROFILES: there is no file {str(file)!r}")
    return profiles


def _read(file: Path) -> list[Profile]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{str(file)!r} is not a TOML file: {error}") from error
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error}") from error
    return [_sound_or_not(name, table, file) for name, table in content.items()]


def _sound_or_not(name: str, table: Any, file: Path) -> Profile:
    try:
        return _profile(name, table, file)
    except InputError as error:
        return Profile(name, "", file, fault=error)


def _profile(name: str, table: Any, file: Path) -> Profile:
    from emcube.deploy.kinds import KINDS

    where = f"profile {name!r} of {str(file)!r}"
    if not isinstance(table, Mapping):
        raise InputError(
            f"{where}: got {table!r}, a table is expected",
            hint=f'write [{name}] on a line of its own and kind = "..." below it',
        )
    if name in KINDS:
        raise InputError(f"{where}: the name is that of a kind", hint="give it another name")
    options = dict(table)
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"{where}: kind is {kind!r}, expected one of {', '.join(KINDS)}")
    return Profile(name, kind, file, options)
