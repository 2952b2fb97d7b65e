"""Simulated specimens with known truth: lazy, blockwise, and the same bits however they are asked for."""

from __future__ import annotations

from emcube.scenes.base import Scene
from emcube.scenes.jadeite import jadeite
from emcube.scenes.srm2135c import srm2135c

__all__ = ["Scene", "jadeite", "srm2135c"]
