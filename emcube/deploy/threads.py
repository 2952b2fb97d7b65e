"""``threads``: this process does the work."""

from __future__ import annotations

import os
from contextlib import ExitStack

from emcube.deploy import machine
from emcube.deploy.deployment import Deployment
from emcube.deploy.options import ThreadsOptions
from emcube.engine.threads import default_threads, use_threads

__all__ = ["threads_deployment"]


def threads_deployment(options: ThreadsOptions) -> Deployment:
    """Run on threads of this process, whatever client is active."""
    stack = ExitStack()
    if options.workers is not None:
        stack.enter_context(use_threads(options.workers))
    elif not os.environ.get("EMCUBE_THREADS", "").strip():
        stack.enter_context(use_threads(machine.cores()))
    return Deployment("threads", cleanup=stack, about={"workers": default_threads()})
