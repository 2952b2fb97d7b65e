"""Where the work runs: threads here, processes here, Slurm, or a scheduler that is there already.

The package is also the function that users call (``em.deploy("local", workers=4)``):

>>> import emcube as em
>>> with em.deploy("threads", workers=2) as deployment:
...     deployment.kind
'threads'

Scripts need none of it: the environment variable ``EMCUBE_DEPLOY`` says where every fit of a process
runs.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcube.deploy.deployment import Deployment

__all__ = ["deploy"]


def deploy(where: str = "threads", **options: Any) -> Deployment:
    """Start a place to work and make it the one in force until it is closed.

    Parameters
    ----------
    where : str
        ``"threads"`` of this process, ``"local"`` worker processes on this machine, ``"slurm"``, the
        address of a scheduler (``"tls://host:8786"``), a scheduler file (a path), ``"auto"`` (a client
        that is active already, else Slurm inside an allocation, else threads), or the name of a profile.
        Options may follow as in ``"local workers=4"``.
    **options
        Options of that kind, in place of the profile's and the defaults; see ``docs/deploy.md``.

    Returns
    -------
    Deployment
        A context manager; `Deployment.close` does the same without ``with``.

    Raises
    ------
    InputError
        `where` is none of these, or an option is unknown or has a wrong value.
    EngineError
        The workers did not start, or run another emcube or Python than this process.
    MissingDependencyError
        A package for encryption or for a batch system is not installed.

    Notes
    -----
    Results have the same bits wherever they are computed.
    """
    from emcube.deploy.kinds import start

    return start(where, options)


class _CallableModule(ModuleType):
    """The package itself: importing any part of it binds ``emcube.deploy`` to the module."""

    def __call__(self, where: str = "threads", **options: Any) -> Deployment:
        return deploy(where, **options)


sys.modules[__name__].__class__ = _CallableModule
