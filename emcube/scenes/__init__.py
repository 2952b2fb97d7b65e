"""Simulated specimens with known truth: lazy, blockwise, and the same bits however they are asked for."""

from __future__ import annotations

from emcube.scenes import metrics
from emcube.scenes.base import Scene
from emcube.scenes.eels import eels
from emcube.scenes.jadeite import jadeite
from emcube.scenes.srm2135c import srm2135c
from emcube.scenes.stem4d import stem4d

__all__ = ["Scene", "eels", "jadeite", "metrics", "srm2135c", "stem4d"]
