"""The kinds of deployment, by name: what each may be told and what starts it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from emcube.deploy.deployment import Deployment
from emcube.deploy.options import parse_options, split_where
from emcube.errors import InputError

__all__ = ["KINDS", "Kind", "Wanted", "resolve", "start"]


@dataclass(frozen=True)
class Kind:
    """One kind: ``module:name`` of its options and of the function that starts it."""

    name: str
    options: str
    starter: str
    what: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "threads",
            "emcube.deploy.options:ThreadsOptions",
            "emcube.deploy.threads:threads_deployment",
            "threads of this process",
        ),
        Kind(
            "local",
            "emcube.deploy.local:LocalOptions",
            "emcube.deploy.local:local_deployment",
            "worker processes on this machine",
        ),
        Kind(
            "slurm",
            "emcube.deploy.slurm:SlurmOptions",
            "emcube.deploy.slurm:slurm_deployment",
            "workers in a Slurm allocation",
        ),
        Kind(
            "address",
            "emcube.deploy.options:AddressOptions",
            "emcube.deploy.address:address_deployment",
            "a scheduler that runs already",
        ),
        Kind(
            "jobqueue",
            "emcube.deploy.jobqueue:JobqueueOptions",
            "emcube.deploy.jobqueue:jobqueue_deployment",
            "jobs of a batch system, by dask-jobqueue",
        ),
        Kind(
            "auto",
            "emcube.deploy.options:AutoOptions",
            "emcube.deploy.auto:auto_deployment",
            "an active client, else Slurm inside an allocation, else threads",
        ),
    )
}

_ADDRESS = re.compile(r"(?:[a-z0-9]+://.+|[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+)")


@dataclass(frozen=True)
class Wanted:
    """A place to work that was asked for and checked, not started.

    Attributes
    ----------
    kind : Kind
    options : Options
        Of that kind.
    profile : str or None
        The profile that it comes from.
    """

    kind: Kind
    options: Any
    profile: str | None = None

    def start(self) -> Deployment:
        """Start it."""
        deployment: Deployment = _named(self.kind.starter)(self.options)
        if self.profile is not None:
            deployment.about["profile"] = self.profile
        return deployment


def start(where: str, options: Mapping[str, Any] | None = None) -> Deployment:
    """Check what is asked for, and start it."""
    return resolve(where, options).start()


def resolve(where: str, options: Mapping[str, Any] | None = None) -> Wanted:
    """Check a place to work without starting it.

    Parameters
    ----------
    where : str
        Kind, address, scheduler file or profile; ``option=value`` words may follow.
    options : mapping, optional
        Given beside; they go before those words, which go before a profile's.

    Raises
    ------
    InputError
        No such place, or an option that it has not.
    """
    if not isinstance(where, str):
        raise InputError(
            f"deploy: got {type(where).__name__}, a text is expected",
            hint='write for example em.deploy("local", workers=4)',
        )
    place, values = split_where(where)
    given: dict[str, Any] = {**values, **(options or {})}
    if place in KINDS:
        return _wanted(place, given, f"deploy {place!r}")
    if _ADDRESS.fullmatch(place):
        return _wanted("address", {"address": place, **given}, f"deploy {place!r}")
    if place.endswith(".json") or "/" in place or "\\" in place:
        found = {"scheduler_file": Path(place), **given}
        return _wanted("address", found, f"deploy {place!r}")
    return _from_profile(place, given)


def _from_profile(name: str, given: Mapping[str, Any]) -> Wanted:
    from emcube.deploy.profiles import load_profiles

    profiles = load_profiles()
    if name not in profiles:
        named = ", ".join(sorted(profiles)) or "none are defined"
        raise InputError(
            f"deploy: got {name!r}, which is neither a kind ({', '.join(KINDS)}), an address "
            f"(host:port), a scheduler file (.json) nor a profile ({named})"
            f"{_meant(name, [*KINDS, *profiles])}",
            hint="emcube doctor shows the profiles and the files that they are read from",
        )
    profile = profiles[name]
    if profile.fault is not None:
        raise profile.fault
    return _wanted(profile.kind, {**profile.options, **given}, profile.origin, name)


def _meant(name: str, known: list[str]) -> str:
    near = get_close_matches(name.lower(), known, 1)
    return f": did you mean {near[0]!r}?" if near else ""


def _wanted(
    kind: str, values: Mapping[str, Any], origin: str, profile: str | None = None
) -> Wanted:
    row = KINDS[kind]
    return Wanted(row, parse_options(_named(row.options), values, origin), profile)


def _named(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(importlib.import_module(module), name)
