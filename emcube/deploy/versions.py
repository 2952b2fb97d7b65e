"""Workers must run what the client runs: other versions would give other bits, or none."""

from __future__ import annotations

import logging
import sys
import warnings
import weakref
from typing import Any

from emcube.engine.health import bounded
from emcube.errors import EngineError

__all__ = ["compare_versions", "installed"]

COMPARED = ("numpy", "scipy", "numba", "zarr", "numcodecs", "xarray", "dask", "distributed")

ANSWER_SECONDS = 60.0
"""Workers answer at once, unless they hang or are held up by the machine."""

_log = logging.getLogger(__name__)

_seen: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def installed() -> dict[str, str | None]:
    """Versions of emcube, Python and the libraries that results depend on, in this process."""
    from importlib.metadata import PackageNotFoundError, version

    from emcube import __version__

    found: dict[str, str | None] = {
        "emcube": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    for name in COMPARED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def compare_versions(client: Any) -> None:
    """Compare what workers run with what this process runs; each worker is asked once.

    Raises
    ------
    EngineError
        A worker has no emcube, another version of it, or another minor version of Python.

    Warns
    -----
    UserWarning
        Workers have other versions of numerical libraries: results may differ in their last bits.
    """
    seen = _seen.setdefault(client, set())
    try:
        answers = bounded(lambda: _ask(client, seen), ANSWER_SECONDS)
    except (TimeoutError, OSError) as error:
        # Who does not answer is dropped or waited for by the run itself, and asked at the next one.
        _log.warning("workers did not say what they run: %s", error)
        return
    if not answers:
        return
    here = installed()
    others: dict[str, str] = {}
    for worker, there in answers.items():
        _require_same(worker, here, there)
        if isinstance(there, BaseException):  # gone before it answered
            continue
        for name in COMPARED:
            if there[name] != here[name]:
                others[name] = f"{name} {there[name]} on {worker}, {here[name]} here"
        seen.add(worker)
    if others:
        warnings.warn(
            "workers run other libraries than this process, results may differ in their last bits: "
            + "; ".join(others.values()),
            UserWarning,
            stacklevel=2,
        )


def _ask(client: Any, seen: set[str]) -> dict[str, Any]:
    """What workers run that were not asked before."""
    fresh = sorted(set(client.scheduler_info(n_workers=-1)["workers"]) - seen)
    answers: dict[str, Any] = (
        client.run(installed, workers=fresh, on_error="return") if fresh else {}
    )
    return answers


def _require_same(worker: str, here: dict[str, str | None], there: Any) -> None:
    if isinstance(there, ModuleNotFoundError | ImportError | AttributeError):
        raise EngineError(
            f"the worker at {worker} has no emcube {here['emcube']}: {there}",
            hint="install the same emcube in the environment of the workers",
        ) from there
    if isinstance(there, OSError):  # it went away before it answered; another comes and is asked
        return
    if isinstance(there, BaseException):
        raise EngineError(f"the worker at {worker} could not say what it runs: {there}") from there
    if there["emcube"] != here["emcube"]:
        raise EngineError(
            f"the worker at {worker} runs emcube {there['emcube']}, {here['emcube']} expected as here",
            hint="install the same emcube on both sides",
        )
    if _minor(there["python"]) != _minor(here["python"]):
        raise EngineError(
            f"the worker at {worker} runs Python {there['python']}, {_minor(here['python'])} expected "
            f"as here ({here['python']})",
            hint="start the workers in the same environment as the client",
        )


def _minor(version: str | None) -> str:
    return ".".join((version or "").split(".")[:2])
