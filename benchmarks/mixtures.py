"""What mixtures and the quality of clusters cost: ``python -m benchmarks.mixtures STORE K``.

Each is timed from opening the store to the answer, labels not included, with warm kernels, beside bare read
passes of the same store before and after; written is the ratio of the medians, and the rounds over blocks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bare import read_pass


def measure(store: Path, n_clusters: int, *, threads: int = 2, repeats: int = 3) -> dict[str, Any]:
    """Time the methods.

    Parameters
    ----------
    store : Path
        Of counts, as dense chunks.
    n_clusters : int
        K.
    threads, repeats : int

    Returns
    -------
    dict
        For each method the seconds, the bare read passes that they are worth, and the rounds.
    """
    import emcube as em
    from emcube.engine import listen, use_threads

    def quality(cube: Any) -> None:
        model = em.KMeans(n_clusters, random_state=0)
        model.find_clusters(cube)
        em.cluster_quality(model, cube)

    fits: dict[str, Callable[[Any], Any]] = {
        "GaussianMixture": lambda c: em.GaussianMixture(n_clusters, random_state=0).find_clusters(
            c
        ),
        "PoissonMixture": lambda c: em.PoissonMixture(n_clusters, random_state=0).find_clusters(c),
        "KMeans and cluster_quality": quality,
    }
    found: dict[str, Any] = {}
    for name, fit in fits.items():
        with use_threads(threads):
            fit(em.open(str(store)))  # compiled kernels
            bare, taken, rounds = [read_pass(store, threads)], [], [0]

            def hear(event: Any, rounds: list[int] = rounds) -> None:
                rounds[0] += event.kind == "round"

            for _ in range(repeats):
                rounds[0] = 0
                began = time.perf_counter()
                with listen(hear):
                    fit(em.open(str(store)))
                taken.append(time.perf_counter() - began)
                bare.append(read_pass(store, threads))
        seconds, unit = statistics.median(taken), statistics.median(bare)
        found[name] = {
            "seconds": round(seconds, 2),
            "bare_read_seconds": round(unit, 2),
            "bare_read_passes": round(seconds / unit, 1),
            "rounds": rounds[0],
        }
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("n_clusters", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    found = measure(given.store, given.n_clusters, threads=given.threads, repeats=given.repeats)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
