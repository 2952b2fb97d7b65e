"""``auto``: a client that is active already, else Slurm inside an allocation, else threads."""

from __future__ import annotations

import os

from emcube.deploy.deployment import Deployment
from emcube.deploy.kinds import resolve
from emcube.deploy.options import AutoOptions
from emcube.engine.executor import active_client

__all__ = ["auto_deployment"]


def auto_deployment(options: AutoOptions) -> Deployment:
    """Take the best place that is there without asking anybody for more."""
    client = active_client()
    if client is not None:
        return Deployment("auto", client=client, owned=False, about={"uses": "the active client"})
    if os.environ.get("SLURM_JOB_ID"):
        return resolve("slurm", {"timeout": options.timeout}).start()
    return resolve("threads").start()
