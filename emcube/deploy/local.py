"""``local``: a scheduler and worker processes on this machine, started as fresh commands."""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcube.deploy import machine
from emcube.deploy.connect import connect
from emcube.deploy.deployment import Deployment
from emcube.deploy.network import is_loopback, split_address, warn_open
from emcube.deploy.options import Bytes, Field, Folder, Place, PositiveInt
from emcube.deploy.process import DROPPED, GRACE, worker_environment
from emcube.errors import EngineError, InputError

__all__ = [
    "Command",
    "LocalOptions",
    "command_environment",
    "command_path",
    "dashboard_address",
    "dashboard_link",
    "local_deployment",
    "process_command",
    "security_from",
    "warn_of_dashboard",
]

LOOPBACK = "127.0.0.1"
DASHBOARD_PORT = 8787


class LocalOptions(Place):
    """Options of ``local``."""

    workers: PositiveInt | None = Field(None, description="Worker processes; default: the cores.")
    threads: PositiveInt = Field(1, description="Threads of each worker.")
    memory: Bytes | None = Field(
        None, description="Memory of each worker; default: its share of 80 % of what there is."
    )
    scratch: Folder | None = Field(
        None,
        description="Where a private folder for the workers' files is made; default: the system's.",
    )
    listen: str = Field(
        LOOPBACK, description="Address to listen on; others than loopback need TLS."
    )
    tls: bool | None = Field(
        None, description="Encrypted, and only for who has the run's key; default: beyond loopback."
    )


def local_deployment(options: LocalOptions) -> Deployment:
    """Start a scheduler and workers here, and a client of them.

    Raises
    ------
    EngineError
        A process ended before it was of use; the message has the end of its log.
    InputError
        It shall listen beyond loopback without TLS.
    """
    tls = _needs_tls(options)
    workers = options.workers or max(1, machine.cores() // options.threads)
    memory = options.memory or int(machine.memory_limit() * 0.8) // workers
    with ExitStack() as stack:
        folder = _private_folder(stack, options.scratch)
        credentials = _credentials(folder) if tls else None
        logs = _logs(options.logs, folder)
        address_file = folder / "scheduler.json"
        shared = ["--scheduler-file", str(address_file), "--host", options.listen]
        shared += ["--watch-parent", "--remove", str(folder)]
        shared += ["--credentials", str(credentials)] if credentials else []
        dashboard = dashboard_address(options)
        scheduler = [*shared, *(["--dashboard", dashboard] if dashboard else [])]
        many = [*shared, "--workers", str(workers), "--threads", str(options.threads)]
        many += ["--memory", str(memory), "--scratch", str(folder / "scratch")]
        commands = [
            Command(stack, "scheduler", scheduler, logs / "scheduler.log"),
            Command(stack, "worker", many, logs / "workers.log"),
        ]

        def still_there() -> None:
            for command in commands:
                command.require_running()

        until = time.monotonic() + options.timeout
        address = wait_for_address(address_file, until, still_there)
        client = connect(
            address,
            security=security_from(credentials),
            workers=workers,
            timeout=max(1.0, until - time.monotonic()),
            still_there=still_there,
        )
        about = {
            "workers": workers,
            "threads": options.threads,
            "memory": memory,
            "encrypted": tls,
            "dashboard": dashboard_link(client, options),
            "logs": None if options.logs is None else str(logs),
        }
        return Deployment("local", client=client, cleanup=stack.pop_all(), about=about)
    raise AssertionError("unreachable")


def _needs_tls(options: LocalOptions) -> bool:
    """Whether connections are encrypted; warn of what is open."""
    beyond = not is_loopback(options.listen)
    if beyond and options.tls is False:
        raise InputError(
            f"deploy 'local': listen={options.listen!r} can be reached from other machines and tls is "
            "false: anybody there could run code as you",
            hint="leave tls out, or listen on 127.0.0.1",
        )
    if beyond:
        warn_open("scheduler", options.listen, "only who has the key of this run can use it (TLS)")
    warn_of_dashboard(options)
    return beyond if options.tls is None else options.tls


def warn_of_dashboard(options: Place) -> None:
    """Warn of a dashboard that other machines can reach."""
    address = dashboard_address(options)
    if address is not None and not is_loopback(split_address(address)[1]):
        warn_open("dashboard", address, "it has no password and shows what is computed")


def dashboard_address(options: Place) -> str | None:
    """Where the dashboard listens: nowhere, on this host alone, or as told.

    Raises
    ------
    InputError
        Not ``host:port``: a bare port would open it to the network.
    """
    wish = options.dashboard
    if isinstance(wish, bool):
        return f"{LOOPBACK}:{DASHBOARD_PORT}" if wish else None
    _, host, port = split_address(wish)
    if not host or port is None:
        raise InputError(
            f"deploy: dashboard is {wish!r}, host:port expected",
            hint=f"dashboard=true is {LOOPBACK}:{DASHBOARD_PORT}",
        )
    return wish


def dashboard_link(client: Any, options: Place) -> str | None:
    """Where to look at the dashboard: where it listens, which need not be where the scheduler does."""
    address = dashboard_address(options)
    if address is None:
        return None
    port = client.scheduler_info(n_workers=-1)["services"].get("dashboard")
    return f"http://{split_address(address)[1]}:{port}/status"


def _private_folder(stack: ExitStack, parent: Path | None) -> Path:
    """A folder that only its owner can enter, removed at the end."""
    if parent is not None:
        _make(parent, "scratch")
    made = tempfile.TemporaryDirectory(prefix="emcube-", dir=parent, ignore_cleanup_errors=True)
    return Path(stack.enter_context(made))


def _credentials(folder: Path) -> Path:
    from emcube.deploy.tls import make_credentials

    return make_credentials(folder / "tls")


def security_from(credentials: Path | None) -> Any:
    """What Dask needs to use the credentials of a folder, or None without one."""
    if credentials is None:
        return None
    from emcube.deploy.tls import security_of

    return security_of(credentials)


def _logs(wish: Path | None, folder: Path) -> Path:
    if wish is None:
        return folder
    _make(wish, "logs")
    return wish


def _make(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"deploy 'local': {option}={str(folder)!r} is no folder and cannot be made one: {error}",
            hint="name another folder",
        ) from error


def wait_for_address(file: Path, until: float, still_there: Any) -> str:
    """Address in a scheduler file, once it is there whole."""
    while True:
        try:
            return str(json.loads(file.read_text())["address"])
        except (FileNotFoundError, json.JSONDecodeError):
            still_there()
        if time.monotonic() > until:
            raise EngineError(
                f"the scheduler has not written {str(file)!r} in time",
                hint="this host may be very busy: give it more time, timeout=...",
            )
        time.sleep(0.05)


# --------------------------------------------------------------------------------------- commands


def process_command(role: str, arguments: Sequence[str]) -> list[str]:
    """Command that starts a scheduler or workers with this Python, safe from files where it starts."""
    return [sys.executable, "-P", "-m", "emcube.deploy.process", role, *arguments]


def command_environment() -> dict[str, str]:
    """Environment of such a command: this one, one thread a library, and this process's own modules."""
    environment = {k: v for k, v in os.environ.items() if k not in DROPPED}
    environment["PYTHONPATH"] = os.pathsep.join(command_path())
    return environment | worker_environment()


def command_path() -> list[str]:
    """Folders of modules that a fresh interpreter would not know: the script's, a checkout's."""
    known = {Path(p) for p in sysconfig.get_paths().values()}
    known |= {Path(p) for p in [*site.getsitepackages(), site.getusersitepackages()]}
    zipped = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
    found: list[str] = []
    for entry in sys.path:
        path = Path(entry).absolute()
        if path in known or path.name in (zipped, "lib-dynload"):
            continue
        found.append(str(path))
    return found


@dataclass
class Command:
    """A scheduler or a host of workers that was started; ended, and its whole tree, with the stack.

    Parameters
    ----------
    stack : contextlib.ExitStack
    role : str
        ``"scheduler"`` or ``"worker"``.
    arguments : sequence of str
    log : Path
        Takes what it prints.
    """

    stack: ExitStack
    role: str
    arguments: Sequence[str]
    log: Path

    def __post_init__(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                process_command(self.role, self.arguments),
                # Nothing is written to it: it closes when this process ends, however it ends.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=command_environment(),
                # Ctrl-C is for this process, which says what becomes of the run.
                start_new_session=True,
            )
        self.stack.callback(self.end)

    @property
    def pid(self) -> int:
        """Process id of the command; workers are its children."""
        return self._process.pid

    def require_running(self) -> None:
        """Raise an error with the end of its log if it has ended."""
        status = self._process.poll()
        if status is None:
            return
        raise EngineError(
            f"the {self.role} process ended with status {status} before it was of use; its last "
            f"words: {_tail(self.log)}",
            hint="see the whole log with logs=FOLDER",
        )

    def end(self) -> None:
        """Ask it to end by closing its input; kill what has not ended in time."""
        import psutil

        try:
            tree = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            tree = []
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(GRACE + 2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, left = psutil.wait_procs(tree, timeout=2)
        for child in left:
            child.kill()


def _tail(log: Path, lines: int = 3) -> str:
    """What a log says of the end: its exceptions if there are any, else its last lines."""
    try:
        text = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "(no log)"
    raised = [line for line in text if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return " | ".join((raised or text)[-lines:]) or "(none)"
