"""The command line: one small file a verb, no logic.

Exit status: 0 done; 1 the run failed; 2 the input or the usage is wrong; 3 a comparison found a
difference; 75 stopped by a signal with a checkpoint, the same command goes on; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        As typed after ``emcube``; default those of the process.
    """
    from emcube.cli.app import run_app
    from emcube.cli.collecting import own_process

    if arguments is None:
        own_process()

    return run_app(arguments)
