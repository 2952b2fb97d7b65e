"""``threads``: this process does the work."""

from __future__ import annotations

from contextlib import ExitStack

from emcube.deploy.deployment import Deployment
from emcube.deploy.options import ThreadsOptions
from emcube.engine.threads import default_threads, use_threads

__all__ = ["threads_deployment"]


def threads_deployment(options: ThreadsOptions) -> Deployment:
    """Run on threads of this process, whatever client is active."""
    stack = ExitStack()
    if options.workers is not None:
        stack.enter_context(use_threads(options.workers))
    return Deployment("threads", cleanup=stack, about={"workers": default_threads()})
