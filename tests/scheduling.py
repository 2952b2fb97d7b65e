"""Which tests stay together in one process, and which begin, where pytest-xdist spreads them over several.

Its own ``--dist loadgroup`` groups nothing where pytest is 9.2 or newer: the two no longer agree on how the
name of a group travels.
"""

from __future__ import annotations

from typing import Any

__all__ = ["FIRST", "PROCESSES", "by_group", "group", "rank"]

PROCESSES = (
    "tests/chaos/",
    "tests/deploy/",
    "tests/slurm/",
    "tests/recipe/test_going_on.py",
)
"""Tests of processes that are started, killed and waited for: never two of them at a time."""

FIRST = (
    "processes",
    "tests/recipe/test_every_method.py",
    "tests/realdata/test_every_method.py",
    "tests/recipe/test_planning.py",
    "tests/test_notebooks.py",
    "tests/test_demo.py",
    "tests/docs/test_code.py",
    "tests/test_readme.py",
)
"""Groups of minutes, longest first: at the end of all, one of them would leave the other processes idle."""


def group(nodeid: str) -> str:
    """What a test belongs to: its file, with its fixtures, or all tests of processes."""
    file = nodeid.partition("::")[0]
    return "processes" if file.startswith(PROCESSES) else file


def rank(nodeid: str) -> int:
    """Place of a test's group among those that begin; the same for all others."""
    name = group(nodeid)
    return FIRST.index(name) if name in FIRST else len(FIRST)


def by_group(config: Any, log: Any) -> Any:
    """Scheduler of pytest-xdist that gives out whole groups, in the order in which tests are collected."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    config.option.loadscopereorder = False  # else by the number of tests, whatever they take
    return ByGroup(config, log)
