"""Small instrument files, and metadata that lack nothing."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

SPECTRUM = """\
#FORMAT : EMSA/MAS Spectral Data File
#TITLE : {title}
#NPOINTS : 4
#XUNITS : keV
#XPERCHAN : 0.01
#OFFSET : 0
#SIGNALTYPE : EDS
#BEAMKV : {kv}
#SPECTRUM :
{counts}
#ENDOFDATA :
"""


def spectrum(path: Path, counts: str = "1\n2\n3\n4", title: str = "a", kv: float = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SPECTRUM.format(title=title, kv=kv, counts=counts))
    return aged(path)


def aged(path: Path, seconds: float = 3600) -> Path:
    """Let a file look as if nobody had touched it for a while."""
    then = time.time() - seconds
    for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
        os.utime(one, (then, then))
    return path


COMPLETE: dict[str, Any] = {
    "title": "Nickel and chromium discs",
    "description": "An EDS map of a multilayer of nickel and chromium.",
    "doi": "10.5281/zenodo.15490547",
    "creators": [{"name": "Curie, Marie", "orcid": "0000-0002-1825-0097"}],
    "license": "CC-BY-4.0",
    "access": "open",
    "modality": "EDS",
    "elements": ["Ni", "Cr"],
    "keywords": ["multilayer"],
    "beam_energy_keV": 200,
    "instrument": "Titan",
    "acquired": "2026-03-01",
    "related": [{"relation": "image", "entry": "haadf"}],
}


# --- plain Intake ---------------------------------------------------------------------------------

#: Finds no packages that are refused, as if they were not installed; emcube first of all.
_ALONE = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in REFUSED:
            return self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
import intake
"""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def refused(*more: str) -> frozenset[str]:
    """Modules of all packages but Intake, xarray, zarr, `more`, and what these require."""
    wanted, todo = set(), ["intake", "xarray", "zarr", *more]
    while todo:
        name = _plain(todo.pop())
        if name not in wanted:
            wanted.add(name)
            listed = map(Requirement, requires(name) or ())
            todo += [
                one.name
                for one in listed
                if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
    found = packages_distributions()
    return frozenset(
        {module for module, dists in found.items() if not wanted & set(map(_plain, dists))}
        | {"emcube"}
    )


def intake_says(code: str, *more: str) -> str:
    """What a process prints in which there are only Intake, xarray, zarr, `more` and what they require."""
    names = json.dumps(sorted(refused(*more)))
    done = subprocess.run(
        [sys.executable, "-c", f"REFUSED = set({names}){_ALONE}{code}"],
        capture_output=True,
        text=True,
        timeout=200,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
