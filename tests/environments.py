"""Packages that cannot be installed beside emcube's own, each set in a folder for processes of its own.

``python -m tests.environments`` installs them all, as ``make`` does; tests install what is missing.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["PACKAGES", "environment_of", "folder_of"]

HOME = Path(__file__).parents[1] / ".venv-test"

#: Only what emcube[all,test] does not bring; all else is taken from there.
PACKAGES = {
    # HyperSpy reads .zspy by zarr 2, and emcube needs zarr 3.
    "zarr2": (
        "zarr==2.18.7",
        "numcodecs==0.15.1",
        "asciitree==0.3.3",
        "deprecated==1.2.18",
        "fasteners==0.20",
        "wrapt==1.17.3",
    ),
    # moto wants the newest boto3, whose botocore is another one than that of s3fs: pip would go through all
    # releases of both, for minutes.
    "moto": (
        "moto==5.2.5",
        "blinker==1.9.0",
        "boto3==1.43.117",
        "flask==3.1.3",
        "flask-cors==6.0.5",
        "itsdangerous==2.2.0",
        "py-partiql-parser==0.6.3",
        "responses==0.26.3",
        "s3transfer==0.19.3",
        "werkzeug==3.1.9",
        "xmltodict==1.0.4",
    ),
}


def folder_of(name: str) -> Path:
    """Folder to put first on a process's PYTHONPATH, filled where it is missing or out of date.

    Raises
    ------
    RuntimeError
        It could not be filled; the text is pip's.
    """
    folder, wanted = HOME / name, "\n".join((sys.version, *PACKAGES[name]))
    HOME.mkdir(exist_ok=True)
    with (HOME / f"{name}.lock").open("w") as lock:
        # Several test processes may want it at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = HOME / f"{name}.txt"
        if stamp.exists() and stamp.read_text() == wanted:
            return folder
        stamp.unlink(missing_ok=True)
        _install(folder, PACKAGES[name])
        stamp.write_text(wanted)
    return folder


def _install(folder: Path, packages: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-compile", "--upgrade", "--target", str(folder), *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cannot install {', '.join(packages)}: {done.stderr.strip()[-1000:]}")


def environment_of(name: str) -> dict[str, str]:
    """This process's environment, with the packages of that name before all others."""
    return {**os.environ, "PYTHONPATH": str(folder_of(name))}


if __name__ == "__main__":
    for each in PACKAGES:
        print(folder_of(each))
