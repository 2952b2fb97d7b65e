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
from dataclasses import dataclass

from emcube.deploy import machine
from emcube.deploy.process import main as serve

__all__ = ["Share", "host_of", "main", "share_of"]

THREADS = 4
"""Threads of a worker where nothing is said: what holds Python's lock stays a small part of the work."""

RESERVE = 2 * 2**30
"""Bytes of each node that are not the workers': Slurm counts scheduler, client and nannies as well."""


@dataclass(frozen=True)
class Share:
    """How a node's processors and memory are shared out.

    Attributes
    ----------
    workers : int
        Worker processes.
    threads : int
        Threads of each.
    memory : int
        Bytes of each.
    """

    workers: int
    threads: int
    memory: int


def share_of(cpus: int, memory: int, workers: int | None = None) -> Share:
    """Share out a node.

    Parameters
    ----------
    cpus : int
        Processors of the job on the node.
    memory : int
        Bytes of the job on the node. A quarter of it, 2 GiB at most, is kept back: the node may also
        run the scheduler and the client.
    workers : int, optional
        Worker processes; default one for four processors.
    """
    number = min(cpus, workers or -(-cpus // THREADS))
    usable = memory - min(RESERVE, memory // 4)
    return Share(number, max(1, cpus // number), usable // number)


def node_memory() -> int:
    """Bytes of memory that the job has on this node, as far as Slurm and control groups say."""
    found = machine.memory_limit()
    per_cpu = os.environ.get("SLURM_MEM_PER_CPU", "")
    if per_cpu.isdigit() and int(per_cpu):
        found = min(found, int(per_cpu) * machine.cores() * 2**20)
    return found


def host_of(nodes: int, interface: str | None = None) -> str:
    """Address or interface on which this node's processes listen.

    One node alone needs no network: its processes listen on loopback. Among several it is the address
    that leads out of this host, as Dask finds it too; hosts with several networks name the interface.
    """
    if interface:
        return interface
    if nodes == 1:
        return "127.0.0.1"
    # No packet is sent: connecting a datagram socket only asks the routing table.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))
            return str(probe.getsockname()[0])
        except OSError:
            # No route leads out of a closed cluster: what its own name stands for.
            return socket.gethostbyname(socket.gethostname())


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
    print(f"{socket.gethostname()}: {' '.join(command)}", file=sys.stderr, flush=True)
    serve(command)


if __name__ == "__main__":
    main()
