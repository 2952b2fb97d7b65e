"""The benchmark of the Gram matrix's sizes on a tiny scene."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gram_tiles import DENSITIES, TILES, main
from emcube.kernels import gram


def test_all_sizes_are_timed_and_those_shipped_stay(
    scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = gram.TILE_PAIRS, gram.SCATTER_DENSITY
    assert shipped[0] in TILES
    assert shipped[1] in DENSITIES
    assert main([str(scene / "counts.zarr"), "--repeat", "1"]) == 0
    assert shipped == (gram.TILE_PAIRS, gram.SCATTER_DENSITY)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 2^")]
    assert len(lines) == len(TILES)
    assert all(len(line.split("|")) == len(DENSITIES) + 3 for line in lines)
