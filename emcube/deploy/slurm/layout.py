"""What a node of a job gives its processes: where they listen, and their processors and memory."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from emcube.deploy import machine

__all__ = ["Share", "host_of", "node_memory", "share_of"]

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
