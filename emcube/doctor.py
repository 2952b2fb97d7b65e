"""Examine an installation: what is there, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["examine", "render"]

_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")
_NAME = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)")
_BROUGHT_FOR = {
    "vendor": "instrument files (bcf, emd, spd, pts, dm3, ...)",
    "hpc": "Slurm and other queues",
    "report": "HTML reports",
    "explore": "the browser explorer",
    "remote": "cubes over HTTP and S3",
}


def examine() -> dict[str, Any]:
    """Look at the installation.

    Returns
    -------
    dict
        JSON values: ``healthy``, ``versions`` (core libraries; None where one is missing), ``extras``
        (each with what it is for, whether it is installed, what is missing and the command that
        brings it), ``machine`` (threads, memory, BLAS; None where a core library is missing),
        ``scratch``, ``kernel_cache``, ``deploy`` (where fits run and the profiles) and ``advice``.
    """
    from emcube import __version__

    core, extras = _requirements()
    versions = {name: _version(name) for name in core}
    missing = sorted(name for name, version in versions.items() if version is None)
    folder = tempfile.gettempdir()
    report: dict[str, Any] = {
        "emcube": __version__,
        "healthy": not missing,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "missing": missing,
        "extras": {extra: _extra(extra, names) for extra, names in extras.items()},
        "scratch": {"folder": folder, "free": shutil.disk_usage(folder).free},
        "kernel_cache": _cache(),
        "deploy": None if missing else _deploy(),
        # What the libraries say of the machine can only be asked where they are.
        "machine": None if missing else _machine(),
    }
    report["advice"] = list(_advice(report))
    return report


def render(report: dict[str, Any]) -> str:
    """Write the report as text for people."""
    rows = [
        f"emcube {report['emcube']}, Python {report['python']}, {report['platform']}",
        f"scratch    {report['scratch']['folder']} ({_gib(report['scratch']['free'])} free)",
        "kernels    "
        + (
            f"compiled once, kept in {report['kernel_cache']['folder']}"
            if report["kernel_cache"]["writable"]
            else "compiled anew in each process"
        ),
    ]
    if report["machine"] is not None:
        machine = report["machine"]
        rows.append(f"threads    {machine['threads']}")
        rows.append(
            f"memory     {_gib(machine['memory_total'])}, "
            f"a run may use {_gib(machine['memory_budget'])}"
        )
        rows += [
            f"BLAS       {b.get('internal_api', '?')} {b.get('version', '')} "
            f"for {b.get('architecture', '?')}"
            for b in machine["blas"]
        ]
    rows += _deploy_rows(report["deploy"]) if report["deploy"] is not None else []
    width = max(map(len, report["versions"]))
    rows.append("libraries")
    rows += [f"  {n:<{width}}  {v or 'MISSING'}" for n, v in sorted(report["versions"].items())]
    rows.append("extras")
    for extra, state in report["extras"].items():
        found = "installed" if state["installed"] else f"missing: {', '.join(state['missing'])}"
        rows.append(f"  {extra:<{width}}  {found} ({state['for']})")
    if report["advice"]:
        rows.append("advice")
        rows += [f"  {line}" for line in report["advice"]]
    else:
        rows.append("all is well")
    return "\n".join(rows)


def _gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB"


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the core requirements and of those of each extra that users install."""
    core: list[str] = []
    extras: dict[str, list[str]] = {extra: [] for extra in _BROUGHT_FOR}
    try:
        declared = importlib.metadata.requires("emcube") or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    for requirement in declared:
        name = _NAME.match(requirement)
        extra = _EXTRA.search(requirement)
        if name is None:
            continue
        if extra is None:
            core.append(name[1])
        elif extra[1] in extras:
            extras[extra[1]].append(name[1])
    return sorted(set(core)), extras


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extra(extra: str, names: list[str]) -> dict[str, Any]:
    missing = sorted({name for name in names if _version(name) is None})
    return {
        "for": _BROUGHT_FOR[extra],
        "installed": not missing,
        "missing": missing,
        "versions": {name: _version(name) for name in names},
        "install": f'pip install "emcube[{extra}]"',
    }


def _machine() -> dict[str, Any]:
    import psutil

    from emcube.engine import memory_budget
    from emcube.engine.threads import default_threads
    from emcube.results.provenance import blas

    return {
        "threads": default_threads(),
        "memory_total": int(psutil.virtual_memory().total),
        "memory_budget": memory_budget(),
        "blas": blas(),
    }


def _deploy() -> dict[str, Any]:
    """Where fits run, and the profiles that may be named; starts nothing."""
    from emcube.deploy.deployment import in_force
    from emcube.deploy.environment import wish
    from emcube.deploy.kinds import resolve
    from emcube.deploy.profiles import load_profiles, profile_files
    from emcube.errors import EmcubeError

    started = in_force()
    found: dict[str, Any] = {
        "in_force": None
        if started is None
        else {"kind": started.kind, "address": started.address, **started.about},
        "wish": wish() or None,
        "kind": "threads",
        "options": {},
        "files": [{"file": str(f), "there": f.exists()} for f in profile_files()],
        "profiles": {},
        "problems": [],
    }
    try:
        profiles = load_profiles()
        found["profiles"] = {
            p.name: {"kind": p.kind or None, "file": str(p.file)} for p in profiles.values()
        }
    except EmcubeError as error:
        found["problems"].append(str(error))
        profiles = {}
    found["problems"] += [str(p.fault) for p in profiles.values() if p.fault is not None]
    sound = [p.name for p in profiles.values() if p.fault is None]
    for text in dict.fromkeys([*sound, *([wish()] if wish() else [])]):
        try:
            wanted = resolve(text)
        except (EmcubeError, ImportError) as error:
            if str(error) not in found["problems"]:
                found["problems"].append(str(error))
            if text == wish():
                found["kind"] = None
            continue
        if text == wish():
            found["kind"] = wanted.kind.name
            found["options"] = wanted.options.model_dump(mode="json", exclude_unset=True)
    return found


def _deploy_rows(deploy: dict[str, Any]) -> list[str]:
    told = f"EMCUBE_DEPLOY={deploy['wish']}" if deploy["wish"] else "EMCUBE_DEPLOY is not set"
    rows = [f"deploy     {deploy['kind'] or 'NOT USABLE'} ({told})"]
    if deploy["in_force"] is not None:
        rows.append(f"in force   {deploy['in_force']['kind']} at {deploy['in_force']['address']}")
    for place in deploy["files"]:
        rows.append(f"profiles   {place['file']}{'' if place['there'] else ' (not there)'}")
        rows += [
            f"  {name}: {profile['kind'] or 'not usable, see below'}"
            for name, profile in sorted(deploy["profiles"].items())
            if profile["file"] == place["file"]
        ]
    return rows


def _cache() -> dict[str, Any]:
    """Folder where compiled kernels are kept, in the order in which Numba looks for one."""
    import emcube

    wish = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(emcube.__file__).parent / "kernels" / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    if sys.platform == "darwin":
        home = str(Path("~/Library/Caches").expanduser())
    elif sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA", home)
    candidates = [Path(wish)] if wish else [beside, Path(home) / "numba"]
    for folder in candidates:
        if _writable(folder):
            return {"folder": str(folder), "writable": True}
    return {"folder": None, "writable": False}


def _writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder, or the folder itself can be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _advice(report: dict[str, Any]) -> list[str]:
    advice = []
    if report["missing"]:
        advice.append(
            f"core libraries are missing ({', '.join(report['missing'])}): pip install --upgrade emcube"
        )
    advice += [
        f"for {state['for']}: {state['install']}"
        for state in report["extras"].values()
        if not state["installed"]
    ]
    if not report["kernel_cache"]["writable"]:
        advice.append(
            "no folder for compiled kernels can be written: set NUMBA_CACHE_DIR to one that can"
        )
    if report["deploy"] is not None:
        advice += report["deploy"]["problems"]
    if report["machine"] is not None and report["machine"]["memory_budget"] < 2**29:
        advice.append("little memory is free: close other programs, or set EMCUBE_MEMORY")
    return advice
