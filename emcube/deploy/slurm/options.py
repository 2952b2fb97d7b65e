"""What an allocation may be told, in Slurm's own words where it has them."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from emcube.deploy.options import Folder, Place, PositiveInt, Seconds

__all__ = ["SlurmOptions", "format_time", "slurm_memory", "slurm_time"]

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_POWERS = {"K": -1, "M": 0, "G": 1, "T": 2}

OWN = {
    "account": "account",
    "A": "account",
    "cpus-per-task": "cpus_per_node",
    "c": "cpus_per_node",
    "error": None,
    "e": None,
    "exclusive": "cpus_per_node",
    "job-name": "job_name",
    "J": "job_name",
    "mem": "memory",
    "mem-per-cpu": "memory",
    "nodes": "nodes",
    "N": "nodes",
    "ntasks": None,
    "n": None,
    "ntasks-per-node": None,
    "open-mode": None,
    "output": None,
    "o": None,
    "partition": "partition",
    "p": "partition",
    "qos": "qos",
    "q": "qos",
    "requeue": None,
    "no-requeue": None,
    "signal": None,
    "time": "time",
    "t": "time",
    "array": None,
    "a": None,
    "wrap": None,
}
"""Options of sbatch that emcube sets, and by which option of its own a person sets them."""


def slurm_time(value: Any) -> Any:
    """Seconds of a time limit as Slurm writes it, or of a number with a unit.

    Slurm's forms are ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``,
    ``days-hours:minutes`` and ``days-hours:minutes:seconds``; ``90min``, ``2h`` and ``1d`` are read as well.

    Raises
    ------
    ValueError
        The text is none of these, or the time is shorter than a minute (Slurm's own resolution).
    """
    text = str(value).strip()
    found = re.fullmatch(
        r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?)"
        r"|(?P<plain>\d+(?::\d+){0,2})"
        r"|(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|m|min|h|d)",
        text,
    )
    if found is None:
        raise ValueError(
            "expected a time limit such as 90 (minutes), 2:30:00, 1-12:00:00 (days-hours:minutes:seconds) "
            "or 2h"
        )
    if found["unit"]:
        seconds = round(float(found["number"]) * _UNITS[found["unit"]])
    elif found["plain"]:
        parts = [int(p) for p in found["plain"].split(":")]
        # One or two parts begin with minutes, three with hours.
        hours, minutes, rest = parts if len(parts) == 3 else (0, *parts, 0)[:3]
        seconds = hours * 3600 + minutes * 60 + rest
    else:
        days, hours, minutes, rest = (
            int(found[n] or 0) for n in ("days", "hours", "minutes", "seconds")
        )
        seconds = days * 86400 + hours * 3600 + minutes * 60 + rest
    if seconds < 60:
        raise ValueError(
            f"that is {seconds} s, expected a minute at least (a number alone is minutes)"
        )
    return seconds


def format_time(seconds: int) -> str:
    """Write a time as Slurm does: ``days-hours:minutes:seconds``."""
    days, rest = divmod(int(seconds), 86400)
    return f"{days}-{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def slurm_memory(value: Any) -> Any:
    """MiB of a size: ``64G`` as Slurm means it (powers of 1024), ``64GB`` or ``64 GiB`` as they say.

    Raises
    ------
    ValueError
        The text is no size, has no unit, or is under 1 GiB, which no run fits into.
    """
    if isinstance(value, int):
        mib = value // 2**20
    else:
        text = str(value).strip()
        short = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])", text)
        full = re.fullmatch(r"\d+(?:\.\d+)?\s*[kKMGT]i?B", text)
        if short:
            mib = int(float(short[1]) * 1024.0 ** _POWERS[short[2]])
        elif full:
            from emcube.engine.memory import parse_bytes

            mib = parse_bytes(text) // 2**20
        else:
            raise ValueError(
                "expected a size with its unit, such as 64GiB, 64GB or 64G (as Slurm's)"
            )
    if mib < 1024:
        raise ValueError(f"that is {mib} MiB, expected 1 GiB at least for each node")
    return mib


def _word(value: str) -> str:
    if not re.fullmatch(r"[\w.,+@:/-]+", value) or value.startswith("-"):
        raise ValueError("expected a name of letters, digits and . , + @ : / _ -")
    return value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _extra(values: tuple[str, ...]) -> tuple[str, ...]:
    """Further options of sbatch: whole words, none that would take the place of emcube's own."""
    for value in values:
        found = re.fullmatch(r"(?:--([a-z][a-z-]*)(?:=.*)?|-([A-Za-z])(?:[ \t].*|\S*))", value)
        if found is None or not value.isprintable():
            raise ValueError(
                f"{value!r} is not one line with one option, such as --constraint=skylake"
            )
        name = found[1] or found[2]
        if name in OWN:
            instead = OWN[name]
            raise ValueError(
                f"{value!r} is set by emcube"
                + (f": give {instead.replace('_', '-')} instead" if instead else " and must stay")
            )
    return values


def _lines(values: tuple[str, ...]) -> tuple[str, ...]:
    if any("\0" in v for v in values):
        raise ValueError("expected lines of a shell script")
    return values


def _job_name(value: str) -> str:
    if not re.fullmatch(r"[\w.+@:-][\w.+@: -]{0,63}", value):
        raise ValueError("expected at most 64 letters, digits, blanks and . + @ : _ -")
    return value


SlurmTime = Annotated[int, BeforeValidator(slurm_time)]
SlurmMemory = Annotated[int, BeforeValidator(slurm_memory)]
Word = Annotated[str, AfterValidator(_word)]


class SlurmOptions(Place):
    """Options of ``slurm``: one allocation of whole nodes or of equal parts of nodes."""

    nodes: PositiveInt = Field(1, description="Nodes of the allocation.")
    time: SlurmTime = Field(
        3600, description="Time limit: minutes, hours:minutes:seconds, days-hours, or 2h."
    )
    memory: SlurmMemory | None = Field(
        None, description="Memory of each node, such as 64GiB; default: what the site gives."
    )
    cpus_per_node: PositiveInt | None = Field(
        None, description="Processors of each node; default: whole nodes (sbatch --exclusive)."
    )
    workers_per_node: PositiveInt | None = Field(
        None, description="Worker processes on each node; default: one for four processors."
    )
    partition: Word | None = Field(None, description="Partition (queue).")
    account: Word | None = Field(None, description="Account that is charged.")
    qos: Word | None = Field(None, description="Quality of service.")
    job_name: Annotated[str, AfterValidator(_job_name)] | None = Field(
        None, description="Name of the job."
    )
    sbatch: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_extra)] = Field(
        (), description="Further options of sbatch, such as --constraint=skylake."
    )
    setup: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_lines)] = Field(
        (), description="Lines of shell for the start of the job, such as module load."
    )
    interface: Word | None = Field(
        None,
        description="Network interface between nodes, such as ib0; default: the host's main one.",
    )
    python: str | None = Field(
        None, description="Python of the job; default: the one that submits it."
    )
    requeues: Annotated[int, Field(ge=0)] = Field(
        10, description="How often a run that the time limit or pre-emption stops is queued again."
    )
    folder: Folder | None = Field(
        None,
        description="Folder that all nodes see, for the workers' files; default: the current one.",
    )
    queue_timeout: Seconds = Field(
        86400.0, description="Seconds to wait in the queue for workers before giving up."
    )

    @property
    def warning(self) -> int:
        """Seconds before the time limit at which Slurm signals: a tenth of it, 60 to 600."""
        return max(60, min(600, self.time // 10))

    def directives(self, *, name: str, output: str) -> list[str]:
        """Options of sbatch, one a line.

        Parameters
        ----------
        name : str
            Name of the job where the options give none.
        output : str
            File of its output, in Slurm's patterns.
        """
        lines = [
            f"--job-name={shlex.quote(self.job_name or name)}",
            f"--nodes={self.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={self.cpus_per_node}" if self.cpus_per_node else "--exclusive",
            f"--time={format_time(self.time)}",
            f'--output="{output}"',
            "--open-mode=append",
        ]
        if self.memory is not None:
            lines.append(f"--mem={self.memory}M")
        lines += [
            f"--{word}={getattr(self, word)}"
            for word in ("partition", "account", "qos")
            if getattr(self, word) is not None
        ]
        return [*lines, *self.sbatch]
