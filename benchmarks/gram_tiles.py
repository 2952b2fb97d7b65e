"""How the Gram matrix of rows depends on its two measured sizes: ``python -m benchmarks.gram_tiles [STORE]``.

As many blocks of the full jadeite map as there are threads are worked on at once, as in a fit: what cores
share decides as much as what they have. All sizes take turns, so that a slow minute of the machine falls on
all of them. Printed are milliseconds, medians, by the pairs of a tile and by the share of pixels from which
a channel goes to BLAS.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import emcube as em
from benchmarks.clock import load
from benchmarks.environments import ROOT
from emcube.engine.threads import single_threaded_blas
from emcube.kernels import gram
from emcube.kernels.poisson_nmf import as_rows
from emcube.models.labels import as_source

TILES = tuple(1 << power for power in range(15, 20))
DENSITIES = (0.12, 0.16, 0.2, 0.25)

Sizes = tuple[int, float]


def measure(store: Path, *, threads: int, repeat: int) -> dict[Sizes, float]:
    """Median seconds for each pair of sizes."""
    source, _ = as_source(em.open(store))
    rows = [as_rows(source.load(i % source.plan.n_blocks).data) for i in range(threads)]
    weights = [1.0 / np.maximum(one.pixel_totals(), 1.0) for one in rows]
    shipped = gram.TILE_PAIRS, gram.SCATTER_DENSITY
    taken: dict[Sizes, list[float]] = defaultdict(list)
    try:
        with single_threaded_blas(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(gram.weighted_gram, rows, weights))
            for _ in range(repeat):
                for sizes in ((tile, density) for tile in TILES for density in DENSITIES):
                    gram.TILE_PAIRS, gram.SCATTER_DENSITY = sizes
                    began = time.perf_counter()
                    list(pool.map(gram.weighted_gram, rows, weights))
                    taken[sizes].append(time.perf_counter() - began)
    finally:
        gram.TILE_PAIRS, gram.SCATTER_DENSITY = shipped
    return {sizes: statistics.median(seconds) for sizes, seconds in taken.items()}


def markdown(found: dict[Sizes, float]) -> str:
    """The table."""
    head = f"| pairs of a tile | {' | '.join(map(str, DENSITIES))} |\n"
    rule = f"|---|{'---:|' * len(DENSITIES)}\n"
    lines = (
        f"| 2^{tile.bit_length() - 1} | "
        + " | ".join(f"{1e3 * found[tile, density]:.0f}" for density in DENSITIES)
        + " |\n"
        for tile in TILES
    )
    return head + rule + "".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gram_tiles", description=__doc__)
    parser.add_argument(
        "store", type=Path, nargs="?", default=ROOT / ".bench" / "jadeite-1" / "counts.zarr"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=14)
    wanted = parser.parse_args(arguments)
    print(markdown(measure(wanted.store, threads=wanted.threads, repeat=wanted.repeat)), end="")
    print(f"\nload {load()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
