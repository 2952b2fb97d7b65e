"""Start emcube's scheduler or workers on a node: ``python -m emcube.deploy.slurm.node scheduler|worker``.

Run by srun, once a node. What the node has comes from Slurm's variables; then the processes of every
other deployment start (`emcube.deploy.process`).
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from emcube.deploy import machine
from emcube.deploy.process import main as serve
from emcube.deploy.slurm.layout import host_of, node_memory, share_of

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Start what this node has to run, and stay until it ends."""
    parser = argparse.ArgumentParser(prog="python -m emcube.deploy.slurm.node", description=__doc__)
    parser.add_argument("role", choices=("scheduler", "worker"))
    parser.add_argument("--folder", required=True, help="folder of the run, seen by all nodes")
    parser.add_argument("--interface", default="", help="network interface; default: the main one")
    parser.add_argument("--nodes", type=int, help="nodes of the run; default: those of the job")
    parser.add_argument("--workers", type=int, help="worker processes of each node")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds without a scheduler")
    options = parser.parse_args(arguments)
    nodes = options.nodes or int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    command = [
        options.role,
        f"--scheduler-file={options.folder}/scheduler.json",
        f"--credentials={options.folder}/tls",
        f"--host={host_of(nodes, options.interface or None)}",
    ]
    if options.role == "worker":
        share = share_of(machine.cores(), node_memory(), options.workers)
        command += [
            f"--workers={share.workers}",
            f"--threads={share.threads}",
            f"--memory={share.memory}",
            f"--name={os.environ.get('SLURMD_NODENAME') or socket.gethostname()}",
            f"--death-timeout={options.patience:g}",
        ]
        if scratch := os.environ.get("SLURM_TMPDIR") or os.environ.get("TMPDIR"):
            command.append(f"--scratch={scratch}")
    sys.stderr.write(f"{socket.gethostname()}: {' '.join(command)}\n")
    serve(command)


if __name__ == "__main__":
    main()
