"""The environment of a run: the version of every distribution that emcube stands on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Lock", "lock_environment"]

_ROOT = "emcube"
_NOT_USED = frozenset({"all", "dev", "test"})
"""Extras that are no part of what a run uses (``all`` is the others together)."""


@dataclass(frozen=True)
class Lock:
    """Versions of distributions.

    Attributes
    ----------
    versions : dict of str to str
        By normalised name, sorted.
    differing : dict of str to str
        Those of which the run recorded another version than is installed now: then the others may have
        been others, too.
    python : str
    """

    versions: dict[str, str]
    differing: dict[str, str]
    python: str

    @property
    def exact(self) -> bool:
        """Whether nothing speaks against this being what the run used."""
        return not self.differing

    def to_bytes(self) -> bytes:
        """A requirements file of pip."""
        head = [
            "# Every distribution that the run could use, with its version.",
            f"# Python {self.python}. Install with: pip install -r requirements.txt",
        ]
        if not self.exact:
            now = ", ".join(f"{name} {version}" for name, version in self.differing.items())
            head += [
                "# When this was packed, other versions were installed than the run recorded:",
                f"# {now}.",
                "# Below are those of the run where it recorded them, and else those installed.",
            ]
        lines = [f"{name}=={version}" for name, version in self.versions.items()]
        return ("\n".join([*head, *lines]) + "\n").encode()


def lock_environment(recorded: Mapping[str, str], python: str | None = None) -> Lock:
    """Find the version of every distribution that emcube depends on, directly or not.

    Parameters
    ----------
    recorded : mapping of str to str
        Versions that a run recorded, by name; they go before those that are installed now.
    python : str, optional
        Version of Python of the run; default this one.

    Returns
    -------
    Lock
        Extras that users install are followed where their distributions are there; those for tests and
        development are not.
    """
    from packaging.utils import canonicalize_name

    installed = _closure()
    ran = {str(canonicalize_name(name)): version for name, version in recorded.items()}
    differing = {
        name: installed[name]
        for name, version in sorted(ran.items())
        if name in installed and installed[name] != version
    }
    versions = dict(sorted({**installed, **ran}.items()))
    return Lock(versions, differing, python or platform.python_version())


def _closure() -> dict[str, str]:
    """Versions of emcube and of all it depends on, as far as they are installed."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    todo: list[tuple[str, frozenset[str]]] = [(_ROOT, _own_extras())]
    while todo:
        name, extras = todo.pop()
        key = str(canonicalize_name(name))
        if (key, extras) in done:
            continue
        done.add((key, extras))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[key] = distribution.version
        for text in distribution.requires or ():
            needed = Requirement(text)
            wanted = needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *sorted(extras))
            )
            if wanted:
                todo.append((needed.name, frozenset(needed.extras)))
    return found


def _own_extras() -> frozenset[str]:
    try:
        named = importlib.metadata.metadata(_ROOT).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return frozenset()
    return frozenset(map(str, named)) - _NOT_USED
