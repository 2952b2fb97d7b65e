"""Speed-up on worker processes, and what would become of it on 1,000: ``python -m benchmarks.scaling``.

A whole recipe runs on the SRM 2135c scene with ten times the pixels, on 1, 2 and 4 worker processes of one
thread each. For every pass the time spent in map and combine is measured in the client (from handing out the
first group until the root is there), and what the workers did of it by Dask's task stream. Empty tasks tell
what client and scheduler take for one; large ones, what moving a statistic takes. From these a model is made:
seconds of a group's map and join by kind of pass, of a task, of a byte moved, of the client between passes,
of hashing what was written. `benchmarks.cluster` plays it event by event; it is held against the runs it
was fitted to, and then asked about other numbers of workers and of bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.clock import load, machine
from benchmarks.cluster import Cluster, Round, total, without

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
FULL = 10.0
"""Times the pixels of the talk's tilt series, 1.34e9 cells."""

WORKERS = (1, 2, 4)
STEPS = [
    {"estimate_n_components": {}},
    {"pca": {"n_components": 4}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 4, "random_state": 0}},
]
EMPTY_TASKS = 400
MAX_GROUPS = 4096
CELLS = {"1 TB": 1e12, "10 TB": 1e13, "100 TB": 1e14}
MANY = (1, 16, 64, 256, 1000, 4000)

FILE_SYSTEM = 20e9
"""Bytes a second of a shared file system, all workers together: a mid-sized Lustre or GPFS."""

NETWORK = 1e9
"""Bytes a second of one worker's link: a quarter of a 25 Gbit/s or a tenth of a 100 Gbit/s card."""

WORKER_MEMORY, SCARCE_MEMORY = 8 * 2**30, 2**30
"""Bytes of a worker, and of one that has little: a third is for blocks that stay."""


# ---------------------------------------------------------------------------------------- measuring


class _Timed:
    """An executor that notes how long each pass is under way."""

    def __init__(self, inner: Any, notes: list[dict[str, Any]]) -> None:
        self._inner, self._notes = inner, notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def reduce(self, tasks: Any, n_groups: int, join: Any, done: Any) -> Any:
        name = getattr(getattr(join, "sweep", None), "name", "reduce")
        with self._noting(name, n_groups) as note:
            root = self._inner.reduce(tasks, n_groups, join, done)
            note["statistic"] = _bytes_of(getattr(root, "value", root))
        return root

    def each(self, tasks: Any, n_groups: int, done: Any) -> None:
        with self._noting("write maps", n_groups) as note:
            self._inner.each(tasks, n_groups, done)
            note["statistic"] = 0

    @contextmanager
    def _noting(self, name: str, n_groups: int) -> Iterator[dict[str, Any]]:
        began = time.time()
        note = {"name": name, "groups": n_groups, "began": began}
        yield note
        note["seconds"] = time.time() - began
        self._notes.append(note)


def _bytes_of(value: Any) -> int:
    from emcube.engine.memory import arrays_of

    return sum(int(a.nbytes) for a in arrays_of(value))


@contextmanager
def _timed(notes: list[dict[str, Any]]) -> Iterator[None]:
    """Let every run inside note its passes."""
    from emcube.engine import loop

    plain = loop.current_executor
    # A recipe takes no executor of ours: it asks for the one in force.
    loop.current_executor = lambda: _Timed(plain(), notes)  # type: ignore[assignment]
    try:
        yield
    finally:
        loop.current_executor = plain


@contextmanager
def _cluster(workers: int, memory: str) -> Iterator[Any]:
    """Worker processes of one thread each, and a client of them."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=memory,
            dashboard_address="127.0.0.1:0",
            processes=True,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def measure_workers(store: Path, workers: int, scratch: Path, memory: str) -> dict[str, Any]:
    """Run the recipe once on so many workers that have used every kernel before."""
    import emcube as em

    recipe = {"emcube": 1, "input": {"path": str(store)}, "steps": STEPS}
    notes: list[dict[str, Any]] = []
    began = time.time()
    with _cluster(workers, memory) as client:
        started = time.time() - began
        _warm(client, scratch)
        client.get_task_stream()
        out = scratch / f"result-{workers}"
        before, began = load(), time.time()
        with _timed(notes):
            result = em.run(recipe, out=out, overwrite=True)
        seconds = time.time() - began
        stream = client.get_task_stream(start=began)
        hashing = client.submit(_digest_rate, out, pure=False).result()
        marker = {n: result.tree[n].attrs["emcube"]["digests"] for n in result.tree.children}
        overhead = measure_overhead(client)
    shutil.rmtree(out)
    return {
        "workers": workers,
        "seconds": seconds,
        "map_and_combine": sum(n["seconds"] for n in notes),
        "start_seconds": started,
        "load_before": before,
        "passes": _with_stream(notes, stream),
        "digests": marker,
        "hash_bytes_per_second": hashing,
        **overhead,
    }


def _digest_rate(out: Path) -> float:
    """Bytes a second at which one worker reads and hashes what was written, when a node is closed."""
    import zarr

    from emcube.results.digest import DigestChunks

    array: Any = zarr.open_array(str(out), path="nmf/loadings", mode="r")
    began = time.perf_counter()
    DigestChunks(str(out), "nmf/loadings", range(array.nchunks))()
    return float(array.nbytes) / (time.perf_counter() - began)


def _warm(client: Any, scratch: Path) -> None:
    """Run the same steps on a small scene, so that no worker compiles or imports while it is measured."""
    import emcube as em

    scene = em.scenes.srm2135c(scale=0.03, random_state=0)
    n = len(client.scheduler_info(n_workers=-1)["workers"])
    chunk = {"tilt": max(1, scene.cube.sizes["tilt"] // (3 * n)), "y": -1, "x": -1, "energy": -1}
    em.run(
        {"emcube": 1, "steps": STEPS}, scene.cube.chunk(chunk), out=scratch / "warm", overwrite=True
    )
    shutil.rmtree(scratch / "warm")


def _with_stream(notes: list[dict[str, Any]], stream: Any) -> list[dict[str, Any]]:
    """Passes with what the workers did in each, by the task stream."""
    edges = [n["began"] for n in notes] + [math.inf]
    for note in notes:
        note.update(map_seconds=[], join_seconds=[], transfer_seconds=0.0)
    for task in stream:
        spans = {s["action"]: (s["start"], s["stop"]) for s in task["startstops"]}
        if "compute" not in spans:
            continue
        start, stop = spans["compute"]
        place = next(i for i in range(len(notes) + 1) if i == len(notes) or edges[i + 1] > start)
        if place == len(notes) or start < edges[0]:
            continue
        key = str(task["key"])
        kind = "join_seconds" if "join" in key.split("-")[0].lower() else "map_seconds"
        if "shared" in key.split("-")[0]:
            continue
        notes[place][kind].append(stop - start)
        for action, (a, b) in spans.items():
            if action == "transfer":
                notes[place]["transfer_seconds"] += b - a
    for note in notes:
        for kind in ("map_seconds", "join_seconds"):
            found = note.pop(kind)
            note[kind] = sum(found)
            note[f"{kind.split('_')[0]}s"] = len(found)
        note.pop("began")
    return notes


class _Nothing:
    __name__ = "emcube_map"

    def __call__(self) -> int:
        return 0


def measure_overhead(client: Any) -> dict[str, float]:
    """Seconds of client and scheduler for one task, of an empty round, and bytes a second between workers."""
    from emcube.engine.executor import DistributedExecutor, Tasks

    executor = DistributedExecutor(client)

    def empty(n: int) -> float:
        began = time.perf_counter()
        executor.each(Tasks(lambda run: _Nothing()), n, lambda g: None)
        return time.perf_counter() - began

    empty(20)
    small = statistics.median(empty(1) for _ in range(5))
    return {
        "task_seconds": (empty(EMPTY_TASKS) - small) / (EMPTY_TASKS - 1),
        "round_seconds": small,
        "link_bytes_per_second": _link(client),
    }


def _link(client: Any, size: int = 32 << 20) -> float:
    """Bytes a second from one worker to another, 0 where there is one worker."""
    import numpy as np

    names = sorted(client.scheduler_info(n_workers=-1)["workers"])
    if len(names) < 2:
        return 0.0
    rates = []
    for _ in range(5):
        part = client.submit(np.ones, size // 8, workers=[names[0]], pure=False)
        part = client.submit(_kept, part, workers=[names[0]], pure=False)
        part.result(), time.sleep(0.05)
        began = time.perf_counter()
        client.submit(_size, part, workers=[names[1]], pure=False).result()
        rates.append(size / (time.perf_counter() - began))
    return statistics.median(rates)


def _kept(part: Any) -> Any:
    return part


def _size(part: Any) -> int:
    return int(part.nbytes)


def scene(scale: float, folder: Path) -> Path:
    """Write the scene as events unless it is there, and return its path."""
    import emcube as em

    store = folder / f"srm2135c-{scale:g}.zarr"
    if not store.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = em.scenes.srm2135c(scale=scale, random_state=0)
        em.ingest(made.cube, store, layout="events")
    return store


def measure(
    scale: float,
    folder: Path,
    workers: tuple[int, ...] = WORKERS,
    memory: str = "4GiB",
    partial: Path | None = None,
) -> dict[str, Any]:
    """Measure the recipe on each number of workers, one after the other.

    Parameters
    ----------
    scale : float
        Times the pixels of the full tilt series.
    folder : Path
        Keeps the scene.
    workers : tuple of int
    memory : str
        Of each worker.
    partial : Path, optional
        Where what is there is written after each run.
    """
    import numpy as np

    import emcube as em

    store = scene(scale, folder)
    cube = em.open(store)
    kept = em.plan(
        {"emcube": 1, "input": {"path": str(store)}, "steps": STEPS}, calibration=_no_rates()
    ).cube["kept_bytes"]
    on_disk = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
    total_counts = float(np.asarray(em.open(store, "total_counts")).sum())
    found: dict[str, Any] = {
        "scale": scale,
        "shape": list(cube.shape),
        "channels": int(cube.shape[-1]),
        "pixels": int(cube.size // cube.shape[-1]),
        "store_bytes": on_disk,
        "kept_bytes": total_counts * 4 + 8.0 * cube.size / cube.shape[-1],
        "kept_bytes_projected": kept,
        "memory": memory,
        "decode_seconds_per_pixel": _decode_seconds(store),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "runs": [],
    }
    digests: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="emcube-scaling-", dir=folder) as scratch:
        for n in workers:
            run = measure_workers(store, n, Path(scratch), memory)
            digests.append(run.pop("digests"))
            _require_same_bits(digests)
            found["runs"].append(run)
            print(n, round(run["map_and_combine"], 1), "s in map and combine", flush=True)
            if partial is not None:
                partial.parent.mkdir(parents=True, exist_ok=True)
                partial.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _require_same_bits(digests: list[Any]) -> None:
    """Refuse figures of runs that did not give the same answer."""
    if any(other != digests[0] for other in digests[1:]):
        raise RuntimeError(f"results on different numbers of workers differ: {digests}")


def _decode_seconds(store: Path) -> float:
    """Seconds to read and decode the blocks of one pixel, from files that the system holds in memory."""
    import emcube as em
    from emcube.models.labels import as_source

    source, _ = as_source(em.open(store))
    blocks = range(min(24, source.plan.n_blocks))
    pixels = sum(source.load(i).n_pixels for i in blocks)
    began = time.perf_counter()
    for i in blocks:
        source.load(i)
    return (time.perf_counter() - began) / pixels


def _no_rates() -> Any:
    from emcube.recipe.calibration import RATES, Calibration

    nothing = dict.fromkeys(RATES, 0.0)
    return Calibration(nothing, nothing, 0.0, 0, "")


# -------------------------------------------------------------------------------------------- model


def fit(found: dict[str, Any]) -> dict[str, Any]:
    """Constants of the model, from the measurement: what passes cost on one worker, and what is between."""
    runs = {r["workers"]: r for r in found["runs"]}
    one = runs[min(runs)]
    pixels = found["pixels"]
    passes = _kinds(one["passes"], pixels)
    links = [r["link_bytes_per_second"] for r in found["runs"] if r["link_bytes_per_second"]]
    output = OUTPUT_BYTES * pixels
    hashing = statistics.median(r["hash_bytes_per_second"] for r in found["runs"])
    cores = int(found["machine"]["cores"])
    between = statistics.median(
        r["seconds"] - r["map_and_combine"] - output / hashing / min(r["workers"], cores)
        for r in found["runs"]
    )
    return {
        "task_seconds": statistics.median(r["task_seconds"] for r in found["runs"]),
        "round_seconds": statistics.median(r["round_seconds"] for r in found["runs"]),
        "link": statistics.median(links) if links else NETWORK,
        "hash_bytes_per_second": hashing,
        "client_seconds": max(0.0, between),
        "decode_seconds_per_pixel": found["decode_seconds_per_pixel"],
        "stored_bytes_per_pixel": found["store_bytes"] / pixels,
        "kept_bytes_per_pixel": found["kept_bytes"] / pixels,
        "pixels_per_block": pixels / max(p["groups"] for p in one["passes"]),
        "channels": found["channels"],
        "passes": passes,
    }


OUTPUT_BYTES = 8 + 8 * 4 + 8 * 3 + 4
"""Of a pixel: total counts, scores of PCA, loadings of NMF, label."""

N_MAPS = 4


def _kinds(measured: list[dict[str, Any]], pixels: int) -> list[dict[str, Any]]:
    """Passes by kind: seconds a pixel, or altogether where it is not over the cube."""
    kinds: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for i, one in enumerate(measured):
        kinds.setdefault((i == 0, one["name"], one["statistic"]), []).append(one)
    made = []
    for (first, name, statistic), members in kinds.items():
        fixed = name == "parallel analysis"
        seconds = statistics.mean(m["map_seconds"] for m in members)
        joins = sum(m["joins"] for m in members)
        made.append(
            {
                "name": name,
                "first": first,
                "times": len(members),
                "groups": members[0]["groups"] if fixed else None,
                "map_seconds": seconds / (1 if fixed else pixels),
                "join_seconds": sum(m["join_seconds"] for m in members) / max(1, joins),
                "statistic": statistic,
            }
        )
    return made


def rounds(
    model: dict[str, Any], pixels: float, groups: int, resident: float, *, cached: bool = False
) -> list[tuple[Round, int]]:
    """Passes of the recipe over a cube of so many pixels.

    Parameters
    ----------
    resident : float
        Share of the blocks that stay in memory.
    cached : bool
        The files are in the memory of the system, as in the measured runs: reading is in the map's seconds.
    """
    made = []
    client = model["client_seconds"]
    stored = model["stored_bytes_per_pixel"] * pixels / groups
    decode = model["decode_seconds_per_pixel"] * pixels / groups
    for one in model["passes"]:
        first = one["first"]
        fixed = one["groups"] is not None
        n = one["groups"] or groups
        again = 0.0 if fixed or first else 1.0 - resident
        seconds = one["map_seconds"] / n if fixed else one["map_seconds"] * pixels / n
        made.append(
            (
                Round(
                    one["name"],
                    n,
                    seconds + again * decode,
                    0.0 if cached or fixed else stored * (1.0 if first else again),
                    float(one["statistic"]),
                    one["join_seconds"],
                    client / sum(p["times"] for p in model["passes"]),
                ),
                one["times"],
            )
        )
    return [*made, (_hashing(model, pixels, groups, cached=cached), N_MAPS)]


def _hashing(model: dict[str, Any], pixels: float, groups: int, *, cached: bool) -> Round:
    """What closing a node takes: its maps are read again and hashed, chunk by chunk."""
    size = OUTPUT_BYTES * pixels / N_MAPS / groups
    seconds = size / model["hash_bytes_per_second"]
    return Round("hash results", groups, seconds, 0.0 if cached else size, 32.0, 0.0, 0.0)


def cluster_of(model: dict[str, Any], workers: int, *, here: int | None = None) -> Cluster:
    """A cluster of so many workers: on this machine's cores (`here`), or one core each and a network."""
    return Cluster(
        workers,
        here,
        model["task_seconds"],
        model["round_seconds"],
        1e12 if here else FILE_SYSTEM,
        1e12 if here else NETWORK,
        model["link"] if here else min(NETWORK, model["link"]),
    )


def validate(found: dict[str, Any], model: dict[str, Any]) -> list[dict[str, Any]]:
    """The measured runs beside the simulated ones."""
    rows = []
    cores = int(found["machine"]["cores"])
    groups = max(p["groups"] for p in found["runs"][0]["passes"])
    for run in found["runs"]:
        made = rounds(model, found["pixels"], groups, 1.0, cached=True)
        spent = total(cluster_of(model, run["workers"], here=cores), made)
        rows.append(
            {
                "workers": run["workers"],
                "measured": run["map_and_combine"],
                "simulated": spent.rounds,
                "measured_whole": run["seconds"],
                "simulated_whole": spent.seconds,
            }
        )
    return rows


def extrapolate(model: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the recipe by size and number of workers, and what each limit takes of it."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, cells in CELLS.items():
        curves[name] = [_point(model, cells, n) for n in MANY]
    return {
        "curves": curves,
        "limits": _limits(model, CELLS["100 TB"], 1000),
        "scarce": _point(model, CELLS["100 TB"], 1000, SCARCE_MEMORY),
    }


def _setting(
    model: dict[str, Any], cells: float, workers: int, memory: float = WORKER_MEMORY
) -> tuple[float, int, float]:
    """Pixels, groups, and the share of the blocks that stays."""
    pixels = cells / model["channels"]
    groups = min(MAX_GROUPS, max(1, round(pixels / model["pixels_per_block"])))
    room = workers * memory / 3
    return pixels, groups, min(1.0, room / (model["kept_bytes_per_pixel"] * pixels))


def _point(
    model: dict[str, Any], cells: float, workers: int, memory: float = WORKER_MEMORY
) -> dict[str, Any]:
    pixels, groups, resident = _setting(model, cells, workers, memory)
    made = rounds(model, pixels, groups, resident)
    spent = total(cluster_of(model, workers), made)
    work = sum(r.map_seconds * r.groups * n for r, n in made)
    return {
        "workers": workers,
        "groups": groups,
        "resident": resident,
        "seconds": spent.seconds,
        "rounds": spent.rounds,
        "client": spent.client,
        "moved_bytes": spent.moved_bytes,
        "work": work,
        "efficiency": work / workers / spent.seconds,
    }


def _limits(model: dict[str, Any], cells: float, workers: int) -> list[dict[str, Any]]:
    """Seconds that would be gained if one limit were gone, others as they are."""
    pixels, groups, resident = _setting(model, cells, workers)
    made = rounds(model, pixels, groups, resident)
    plain = cluster_of(model, workers)
    whole = total(plain, made)
    even = sum(r.map_seconds * r.groups * n for r, n in made) / workers
    fine = [(_finer(r, 4), n) for r, n in made]
    found = [
        {"limit": "work, evenly shared", "seconds": even},
        {"limit": "client (steps)", "seconds": whole.client},
    ]
    for name, words in (
        ("storage", "file system"),
        ("scheduler", "scheduler's tasks"),
        ("links", "links (joins)"),
    ):
        found.append(
            {"limit": words, "seconds": whole.rounds - total(without(plain, name), made).rounds}
        )
    coarse = whole.rounds - total(without(plain, "scheduler"), fine).rounds
    found.append({"limit": f"{groups} tasks a pass", "seconds": max(0.0, coarse)})
    return [*found, {"limit": "whole", "seconds": whole.seconds}]


def _finer(one: Round, times: int) -> Round:
    """A pass whose groups are cut into so many."""
    return replace(
        one,
        groups=one.groups * times,
        map_seconds=one.map_seconds / times,
        read_bytes=one.read_bytes / times,
    )


# ------------------------------------------------------------------------------------------- report


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw what was measured, what follows, and what stops it."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    _draw_validation(left, found["validation"])
    _draw_curves(middle, found["extrapolation"]["curves"])
    _draw_limits(right, found["extrapolation"]["limits"])
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_validation(axes: Any, rows: list[dict[str, Any]]) -> None:
    places = range(len(rows))
    for shift, kind, colour in ((-0.2, "measured", "#2a7f62"), (0.2, "simulated", "#9fc9b9")):
        values = [r[kind] for r in rows]
        axes.bar([p + shift for p in places], values, 0.38, color=colour, label=kind)
        for p, v in zip(places, values, strict=True):
            axes.annotate(
                f"{v:.0f}",
                (p + shift, v),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    axes.set_xticks(list(places), [str(r["workers"]) for r in rows])
    axes.set_xlabel("worker processes (two cores)")
    axes.set_ylabel("map and combine (s)")
    axes.set_title("Measured here, and simulated", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _draw_curves(axes: Any, curves: dict[str, list[dict[str, Any]]]) -> None:
    colours = ("#9fc9b9", "#4f9d84", "#14523d")
    for colour, (name, points) in zip(colours, curves.items(), strict=True):
        n = [p["workers"] for p in points]
        axes.loglog(n, [p["seconds"] / 60 for p in points], "o-", color=colour, ms=4)
        axes.loglog(n, [p["rounds"] / 60 for p in points], "--", color=colour, lw=1)
        axes.loglog(n, [p["work"] / p["workers"] / 60 for p in points], ":", color=colour, lw=1)
        axes.annotate(
            name,
            (n[0], points[0]["seconds"] / 60),
            (4, 5),
            textcoords="offset points",
            fontsize=9,
            color=colour,
        )
    axes.axvline(1000, color="grey", lw=0.6)
    axes.set_xlabel("workers of one core (simulated)")
    axes.set_ylabel("whole recipe (min)")
    axes.set_title(
        "Extrapolated; dashed: map and combine; dotted: evenly shared", loc="left", fontsize=10
    )


def _draw_limits(axes: Any, limits: list[dict[str, Any]]) -> None:
    names = [x["limit"] for x in limits][::-1]
    values = [x["seconds"] / 60 for x in limits][::-1]
    colours = ["#9aa3a0" if n == "whole" else "#2a7f62" for n in names]
    least = 0.1
    axes.barh(range(len(names)), [max(v - least, 0.0) for v in values], left=least, color=colours)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.1f}",
            (max(value, least), place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(least, max(values) * 4)
    axes.set_xlabel("min (logarithmic)")
    axes.set_title("100 TB on 1,000 workers: what each limit takes", loc="left", fontsize=10)


def markdown(found: dict[str, Any]) -> str:
    """Write the figures as Markdown tables."""
    model = found["model"]
    whole = found["extrapolation"]
    speed = speed_up(found)
    lines = [
        _scene_words(found),
        "",
        "| workers | map, combine | simulated | whole run | simulated | speed-up: map and combine; whole |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row, faster in zip(found["validation"], speed, strict=True):
        lines.append(
            f"| {row['workers']} | {row['measured']:.1f} s | {row['simulated']:.1f} s | "
            f"{row['measured_whole']:.1f} s | {row['simulated_whole']:.1f} s | "
            f"{faster['map_and_combine']:.2f}, {faster['whole']:.2f} |"
        )
    lines += [
        "",
        _model_words(model),
        "",
        "| cells | " + " | ".join(f"{n:,}" for n in MANY) + " |",
        "|---|" + "---:|" * len(MANY),
    ]
    for name, points in whole["curves"].items():
        cells = " | ".join(_minutes(p["seconds"]) for p in points)
        lines.append(f"| {name}, time | {cells} |")
        lines.append(
            f"| {name}, share of ideal | "
            + " | ".join(f"{p['efficiency']:.0%}" for p in points)
            + " |"
        )
    lines += ["", "| 100 TB on 1,000 workers | |", "|---|---:|"]
    lines += [f"| {x['limit']} | {_minutes(x['seconds'])} |" for x in whole["limits"]]
    scarce = whole["scarce"]
    lines.append(
        f"| whole, with {SCARCE_MEMORY >> 30} GiB a worker: {scarce['resident']:.0%} of the blocks stay | "
        f"{_minutes(scarce['seconds'])} |"
    )
    return "\n".join(lines) + "\n"


def _scene_words(found: dict[str, Any]) -> str:
    shape, here = " x ".join(map(str, found["shape"])), found["machine"]
    cells = found["pixels"] * found["channels"]
    loads = ", ".join(str(r["load_before"]) for r in found["runs"])
    return (
        f"Scene: {shape} ({cells:.3g} cells), {here['cores']} cores of {here['processor']}, "
        f"{found['date']}, load before each run {loads}."
    )


def _model_words(model: dict[str, Any]) -> str:
    task, link = model["task_seconds"], model["link"]
    return (
        f"One task costs client and scheduler {1e3 * task:.1f} ms ({1 / task:.0f} tasks a second), an empty "
        f"pass {1e3 * model['round_seconds']:.0f} ms; bytes move between workers at {link / 1e9:.2f} GB/s; a "
        f"pixel is {model['stored_bytes_per_pixel']:.0f} bytes in files and "
        f"{model['kept_bytes_per_pixel']:.0f} in memory; a worker hashes results at "
        f"{model['hash_bytes_per_second'] / 1e9:.2f} GB/s."
    )


def _minutes(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.1f} s"


def speed_up(found: dict[str, Any]) -> list[dict[str, float]]:
    """How many times faster than on the fewest workers."""
    first = found["runs"][0]
    return [
        {
            "workers": r["workers"],
            "map_and_combine": first["map_and_combine"] / r["map_and_combine"],
            "whole": first["seconds"] / r["seconds"],
        }
        for r in found["runs"]
    ]


def analyse(found: dict[str, Any]) -> dict[str, Any]:
    """Fit, validate and extrapolate what was measured."""
    model = fit(found)
    return {
        **found,
        "model": model,
        "speed_up": speed_up(found),
        "validation": validate(found, model),
        "extrapolation": extrapolate(model),
    }


def write(found: dict[str, Any], folder: Path) -> None:
    """Write JSON, tables and figure."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "scaling.md").write_text(markdown(found))
    draw(found, folder / "scaling.png")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--scale", type=float, default=FULL, help="times the talk's pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--memory", default="4GiB", help="of each worker")
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".bench" / "scaling", help="keeps the scene"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--again", action="store_true", help="no measurement: analyse the last one anew"
    )
    parser.add_argument("--only-measure", action="store_true", help="leave the analysis to --again")
    wanted = parser.parse_args(arguments)
    if wanted.again:
        found = json.loads((wanted.results / "scaling.json").read_text())
    else:
        found = measure(
            wanted.scale,
            wanted.data,
            tuple(wanted.workers),
            wanted.memory,
            wanted.results / "scaling.json",
        )
        if wanted.only_measure:
            return
    found = analyse(found)
    write(found, wanted.results)
    print(markdown(found))


if __name__ == "__main__":
    main()
