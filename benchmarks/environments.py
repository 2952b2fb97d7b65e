"""The peers' environments: one folder each under ``.venv-bench``, built on demand, deleted at will."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".venv-bench"


class Unavailable(Exception):
    """A peer's environment cannot be built, or the peer does not start in it. The text says why."""


def requirements(peer: str) -> Path:
    """The file that pins what a peer's environment holds."""
    return Path(__file__).parent / f"requirements-{peer}.txt"


def python_of(peer: str, say: Callable[[str], None]) -> str:
    """Return the Python of a peer, whose environment is built where it is missing or out of date.

    Raises
    ------
    Unavailable
        It could not be installed.
    """
    if peer == "emcube":
        return sys.executable
    home = HOME / peer
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, wanted = home / "installed.txt", requirements(peer).read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    say(f"building {peer}'s environment in {home.relative_to(ROOT)} (a minute or so, once)")
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*install, "-r", str(requirements(peer))], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [x for x in done.stderr.splitlines() if x.startswith("ERROR")] or ["pip failed"]
        raise Unavailable(f"does not install: {lines[-1]}")
    stamp.write_text(wanted)
    return str(python)
