"""The bare read pass, the unit of everything that starts from a store.

Every chunk of the cube is read and decoded through zarr-python on so many threads; nothing is done with it.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def read_pass(store: Path, threads: int) -> float:
    """Seconds that one bare read pass takes."""
    import zarr

    array = zarr.open_array(str(store), path="data", mode="r")
    step = array.chunks
    regions = [
        tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, step, strict=True))
        for index in itertools.product(
            *(range(-(-n // c)) for n, c in zip(array.shape, step, strict=True))
        )
    ]

    def read(region: tuple[slice, ...]) -> int:
        return int(array[region].nbytes)

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        total = sum(pool.map(read, regions))
        seconds = time.perf_counter() - began
    expected = array.dtype.itemsize
    for size in array.shape:
        expected *= size
    if total != expected:
        raise RuntimeError(f"{store}: read {total} bytes, expected {expected}")
    return seconds


def read_pass_apart(store: Path, threads: int) -> float:
    """Seconds of one bare read pass in a process of its own, after one that warms it up."""
    command = [sys.executable, "-m", "benchmarks.bare", str(store), str(threads), "2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)[-1])


if __name__ == "__main__":
    place, n_threads, times = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps([round(read_pass(place, n_threads), 4) for _ in range(times)]))
