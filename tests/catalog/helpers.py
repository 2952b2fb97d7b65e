"""Small instrument files, and metadata that lack nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

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
