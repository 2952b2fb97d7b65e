"""What this machine takes for the work of a pass: a small measurement, kept for the next time.

It runs in a process of its own (``python -m emcube.recipe.calibration``), on one thread, so that it also
tells what such a process needs to begin: seconds and memory. A stored pair is a channel with its counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import EngineError

if TYPE_CHECKING:
    from emcube.engine import BlockSource
    from emcube.kernels.rows import CountRows

__all__ = ["RATES", "Calibration", "calibrate", "measure"]

FORMAT = 1
"""Measurements of another number are made again."""

RATES: dict[str, str] = {
    "read_cell": "byte of counts read from dense chunks, decoded and made rows",
    "read_pair": "stored pair read from events",
    "read_float": "byte of floating-point values read from dense chunks",
    "pair": "stored pair summed",
    "scaling_pair": "stored pair in a round of noise scaling",
    "pool_pair": "stored pair pooled",
    "gram_pixel": "pixel of a Gram matrix of rows",
    "gram_pair2": "product of two stored pairs of a pixel in a Gram matrix",
    "score_pair": "stored pair and column of a product",
    "nmf_pair": "stored pair and component of an NMF pass",
    "nmf_pixel": "pixel and component of an NMF pass",
    "solve_pair": "stored pair and component of loadings",
    "solve_pixel": "pixel and component of loadings",
    "lloyd": "pixel, feature, cluster and start of a k-means pass",
    "cell": "dense cell summed",
    "gram_flop": "multiply and add of a dense Gram matrix",
    "score_flop": "multiply and add of a dense product",
    "nmf_flop": "cell and component of a dense NMF pass",
    "join_byte": "byte of statistics added",
    "write_byte": "byte of results written, read again and hashed",
    "eigen": "cubed channel of an eigenvalue problem",
}
"""What each rate counts; all are seconds, on one thread."""

REPEATS = 5
COLD_SECONDS = 25.0
"""A first use of all kernels that takes longer has compiled them: then it is measured once more."""


@dataclass(frozen=True)
class Calibration:
    """Seconds for units of work on this machine.

    Attributes
    ----------
    fast, slow : dict
        Seconds a unit by the name of the rate (see `RATES`): the fastest and the middle one of some tries.
    start_seconds : float
        From the start of a process until every kernel has been used once (compiled before).
    process_bytes : int
        Memory of such a process, without data.
    machine : str
        Which machine and versions it is for.
    """

    fast: Mapping[str, float]
    slow: Mapping[str, float]
    start_seconds: float
    process_bytes: int
    machine: str


def calibrate(*, again: bool = False, folder: Path | None = None) -> Calibration:
    """Measure this machine in some seconds, or take what was measured before.

    Parameters
    ----------
    again : bool
        Measure even if there is a measurement.
    folder : Path, optional
        Where measurements are kept; default the user's cache.

    Raises
    ------
    EngineError
        The measurement failed.

    Notes
    -----
    The first measurement after an installation compiles all kernels, which takes about a minute and spares
    the first run as much.
    """
    file = (_cache() if folder is None else folder) / f"calibration-{_machine()}.json"
    if not again:
        known = _known(file)
        if known is not None:
            return known
    found = _in_a_process()
    if found.start_seconds > COLD_SECONDS:
        found = _in_a_process()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.{os.getpid()}")
        new.write_text(json.dumps({"format": FORMAT, **asdict(found)}, indent=1), encoding="utf-8")
        new.replace(file)
    except OSError:
        # Nowhere to keep it: the next plan measures again.
        return found
    return found


def _cache() -> Path:
    from platformdirs import user_cache_path

    return Path(user_cache_path("emcube"))


def _machine() -> str:
    """Digest of what the rates hang on: processor, cores, versions."""
    from importlib.metadata import version

    from emcube import __version__
    from emcube.engine.threads import default_threads

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0] if names else model
    parts = [platform.node(), model, str(os.cpu_count()), str(default_threads()), __version__]
    parts += [version(p) for p in ("numpy", "scipy", "numba", "zarr", "numcodecs")]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def _known(file: Path) -> Calibration | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if found.pop("format", None) != FORMAT or set(found["fast"]) != set(RATES):
        return None
    return Calibration(**found)


def _in_a_process() -> Calibration:
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "emcube.recipe.calibration", str(began)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise EngineError(
            f"this machine could not be measured: exit status {done.returncode}, {last[0]}",
            hint="run 'python -m emcube.recipe.calibration' to see it all, and 'emcube doctor'",
        )
    return Calibration(**json.loads(done.stdout.splitlines()[-1]), machine=_machine())


# ----------------------------------------------------------------------------------- the measurement


def measure(began: float) -> dict[str, Any]:
    """Measure all rates in this process.

    Parameters
    ----------
    began : float
        When the process was started, seconds since the epoch.

    Returns
    -------
    dict
        ``fast``, ``slow``, ``start_seconds``, ``process_bytes``.
    """
    import gc

    import psutil

    from emcube.engine.threads import single_threaded_blas

    with single_threaded_blas(), tempfile.TemporaryDirectory(prefix="emcube-calibrate-") as folder:
        works = list(_works(Path(folder)))
        at = time.time()
        for _, _, work in works:
            work()
        start = at - began + (time.time() - at)
        fast: dict[str, float] = {}
        slow: dict[str, float] = {}
        for names, units, work in works:
            seconds = []
            for _ in range(REPEATS):
                clock = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - clock)
            for rates, taken in ((fast, min(seconds)), (slow, float(np.median(seconds)))):
                _enter(rates, names, units, taken)
        works.clear()
        del work
    gc.collect()
    process = int(psutil.Process().memory_info().rss)
    return {"fast": fast, "slow": slow, "start_seconds": start, "process_bytes": process}


def _enter(
    rates: dict[str, float], names: tuple[str, ...], units: tuple[float, ...], seconds: float
) -> None:
    """Note seconds a unit; of two kinds of units the first is known already or gets a tenth."""
    if len(names) == 1:
        rates[names[0]] = seconds / units[0]
        return
    first, second = names
    if first not in rates:
        # Few counts in a pixel: nearly all of it is the pixel's.
        rates[first] = 0.8 * seconds / units[0]
        return
    left = max(seconds - rates[first] * units[0], 0.2 * seconds)
    rates[second] = left / units[1]


Work = tuple[tuple[str, ...], tuple[float, ...], Callable[[], Any]]


def _works(folder: Path) -> Iterator[Work]:
    yield from _row_works()
    yield from _dense_works()
    yield from _file_works(folder)


def _counts(n_pixels: int, n_channels: int, per_pixel: float) -> Any:
    """Poisson counts of a spectrum of lines over a background, as a detector would give them."""
    rng = np.random.default_rng(0)
    channel = np.arange(n_channels)
    spectrum = np.exp(-channel / (0.3 * n_channels))
    for centre in (0.1, 0.25, 0.5, 0.7):
        spectrum += 12 * np.exp(-0.5 * ((channel - centre * n_channels) / 6.0) ** 2)
    return rng.poisson(per_pixel * spectrum / spectrum.sum(), (n_pixels, n_channels)).astype(
        np.uint8
    )


def _rows(n_pixels: int, n_channels: int, per_pixel: float) -> CountRows:
    from emcube.kernels.rows import rows_from_dense

    rows = rows_from_dense(_counts(n_pixels, n_channels, per_pixel))
    if rows is None:
        raise EngineError("counts of the measurement are not rare")
    return rows


def _load_all(source: BlockSource) -> None:
    for i in range(source.plan.n_blocks):
        source.load(i)


def _row_works() -> Iterator[Work]:
    from emcube.kernels import biwhiten
    from emcube.kernels import kmeans as kernel
    from emcube.kernels.gram import add_upper, weighted_gram
    from emcube.kernels.products import pixel_products
    from emcube.models.nmf_losses import resolve_loss

    n_pixels, n_channels, k = 8192, 1024, 4
    rng = np.random.default_rng(1)
    loss = resolve_loss("kullback-leibler")
    components = rng.dirichlet(np.ones(n_channels), k)
    matrix = rng.standard_normal((n_channels, k))
    for per_pixel in (4.0, 80.0):
        rows = _rows(n_pixels, n_channels, per_pixel)
        lengths = np.diff(rows.indptr).astype(np.float64)
        pairs, squares = float(lengths.sum()), float(np.square(lengths).sum())
        weights = 1.0 / np.maximum(rows.pixel_totals(), 1)
        yield (
            ("gram_pixel", "gram_pair2"),
            (n_pixels, squares),
            partial(weighted_gram, rows, weights),
        )
        yield (
            ("nmf_pixel", "nmf_pair"),
            (n_pixels * k, pairs * k),
            partial(loss.evaluate, rows, components),
        )
        yield (
            ("solve_pixel", "solve_pair"),
            (n_pixels * k, pairs * k),
            partial(loss.loadings, rows, components),
        )
    full = _rows(n_pixels, n_channels, 80.0)
    yield ("pair",), (pairs,), lambda: (full.channel_totals(), full.pixel_totals())
    yield ("score_pair",), (pairs * k,), lambda: pixel_products(full, matrix)
    groups, n_groups = biwhiten.group_pixels(full.pixel_totals(), 100.0)
    channels, columns = np.arange(n_channels), np.ones(n_channels)
    yield (
        ("scaling_pair",),
        (pairs,),
        lambda: biwhiten.scaled_sums_of_groups(full, groups, channels, columns),
    )
    yield (
        ("pool_pair",),
        (pairs,),
        lambda: biwhiten.pool(full, groups, n_groups, channels, n_channels),
    )
    values, centers = rng.standard_normal((n_pixels, k)), rng.standard_normal((4, 4, k))
    even = np.ones(n_pixels)
    yield (
        ("lloyd",),
        (float(n_pixels * k * 16),),
        lambda: kernel.lloyd_sums(values, even, centers),
    )
    gram = rng.standard_normal((n_channels, n_channels))
    yield ("join_byte",), (float(gram.nbytes),), lambda: add_upper(gram, gram)


def _dense_works() -> Iterator[Work]:
    from scipy.linalg import eigh

    from emcube.kernels.gram import weighted_gram
    from emcube.kernels.products import pixel_products
    from emcube.kernels.slabs import cell_totals
    from emcube.models.nmf_losses import resolve_loss

    n_pixels, n_channels, k = 2048, 768, 4
    rng = np.random.default_rng(2)
    cells = rng.random((n_pixels, n_channels), dtype=np.float32)
    size = float(cells.size)
    components = rng.dirichlet(np.ones(n_channels), k)
    matrix = rng.standard_normal((n_channels, k))
    loss = resolve_loss("frobenius")
    yield ("cell",), (size,), lambda: cell_totals(cells)
    yield ("gram_flop",), (size * n_channels,), lambda: weighted_gram(cells, None)
    yield ("score_flop",), (size * k,), lambda: pixel_products(cells, matrix)
    yield ("nmf_flop",), (size * k,), lambda: loss.evaluate(cells, components)
    gram = (cells.T @ cells).astype(np.float64)
    yield ("eigen",), (float(n_channels) ** 3,), lambda: eigh(gram, driver="evd")


def _file_works(folder: Path) -> Iterator[Work]:
    import zarr

    from emcube.cube import make_cube
    from emcube.engine.loop import ZarrTarget
    from emcube.models.labels import as_source
    from emcube.results.digest import array_digest
    from emcube.results.tree import block_codecs
    from emcube.store import open_cube, write_cube

    counts = _counts(8192, 1024, 20.0).reshape(64, 128, 1024)
    noise = np.random.default_rng(3).random((32, 32, 1024), dtype=np.float32)
    kinds = (
        ("read_cell", counts, "dense", float(counts.nbytes)),
        ("read_pair", counts, "events", float(np.count_nonzero(counts))),
        ("read_float", noise, "dense", float(noise.nbytes)),
    )
    for name, values, layout, units in kinds:
        cube = make_cube(
            values,
            dims=("y", "x", "energy"),
            sig_dims=("energy",),
            units={"energy": "keV", "y": "nm", "x": "nm"},
            coords={"energy": 0.01 * np.arange(1024)},
        )
        path = write_cube(cube, folder / f"{name}.zarr", layout=layout)
        source, _ = as_source(open_cube(path))
        yield (
            (name,),
            (units,),
            partial(_load_all, source),
        )
    loadings = np.random.default_rng(4).random((4, 256, 256, 4))
    array = zarr.create_array(
        str(folder / "out.zarr"),
        name="loadings",
        shape=loadings.shape,
        chunks=(1, *loadings.shape[1:]),
        dtype=loadings.dtype,
        compressors=block_codecs(),
        fill_value=np.nan,
    )
    target = ZarrTarget(str(folder / "out.zarr"), "loadings")

    def write() -> None:
        for i, part in enumerate(loadings):
            target.write((slice(i, i + 1), slice(None), slice(None)), part[None])
        array_digest(array)

    yield ("write_byte",), (float(loadings.nbytes),), write


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(float(sys.argv[1]) if len(sys.argv) > 1 else time.time())))
