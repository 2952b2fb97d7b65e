"""Run the plan: each method in a process of its own, one after the other, results kept as they come in."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.child import BEGIN, END
from benchmarks.clock import cpu_seconds, load, machine, peak_bytes
from benchmarks.environments import ROOT, Unavailable, python_of
from benchmarks.methods import (
    ENOUGH,
    EXTRAS,
    LINEAR,
    METHODS,
    N_CLUSTERS,
    PATIENCE,
    WARM_SCALE,
    Method,
    key,
)

MODULES = {
    "emcube": "method_emcube",
    "sklearn": "method_sklearn",
    "dask-ml": "method_dask_ml",
    "hyperspy": "method_hyperspy",
    "espm": "method_espm",
}

SMALL_EXTRA = 0.01
"""Scale that other modules are asked for where the scenes are small."""

MARGIN = 1.02
"""A peer is stopped a little past the target, so that "at least" is not missed by a rounding."""

SETUP_LIMIT = 1800.0
"""Seconds that reading, converting and warming up may take; they are not part of any figure."""


@dataclass(frozen=True)
class Options:
    """What is run, and how.

    Attributes
    ----------
    scales : dict
        Share of the full size's pixels, by scene.
    only : tuple of str
        Names of methods ("sklearn-nmf", see `benchmarks.methods`), works ("pca"), "linear" or extras.
    linear : bool
        Also 0.1 and 10 times the pixels.
    """

    folder: Path
    scales: dict[str, float]
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    repeat: int = 5
    patience: float = PATIENCE
    threads: int = 2
    linear: bool = True
    extras: bool = True
    environments: Callable[[str, Callable[[str], None]], str] = field(
        default=python_of, compare=False, repr=False
    )

    def wants(self, *names: str) -> bool:
        """Whether a thing is to be run that goes by these names."""
        return (not self.only or any(n in self.only for n in names)) and not any(
            n in self.without for n in names
        )

    def record(self) -> dict[str, Any]:
        """What of it decides whether results of two runs belong together."""
        return {
            "scales": self.scales,
            "repeat": self.repeat,
            "patience": self.patience,
            "threads": self.threads,
            "enough": ENOUGH,
        }


def run(options: Options, results: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run what is wanted and return all results.

    They are written after each method. A run that was stopped goes on where it stood when it is started
    again with the same options and the same code; with ``only``, what is chosen is measured anew and
    put in its place among the results that are there.
    """
    found = _begin(options, results)
    progress = found
    if options.only:
        # What is chosen has its own progress: that of the whole run stays.
        names = sorted(options.only)
        if found.get("only", {}).get("names") != names:
            found["only"] = {"names": names, "done": []}
        progress = found["only"]
    done = set(progress["done"])

    def keep(name: str, put: Callable[[], None]) -> None:
        put()
        progress["done"] = sorted({*progress["done"], name})
        _write(results, found)

    found["load"].append(load())
    for name, scale in options.scales.items():
        chosen = [
            m for m in METHODS if name in m.scenes and options.wants(key(m), m.work, m.peer, name)
        ]
        if not chosen or all(_label(name, m) in done for m in chosen):
            continue
        scene = _scene(options, name, scale, True, say)
        scene["exact"] = _exact(options, scene, say) if _needs_exact(chosen) else None
        found["scenes"][name] = scene["about"] | {"exact": scene["exact"]}
        bare = _bare(options, scene)
        for method in chosen:
            label = _label(name, method)
            if label in done:
                continue
            row = _one(options, scene, method, found["methods"], say)
            after = _bare(options, scene)
            if not method.ours:
                row["bare_reads"] = bare + after
            bare = after
            keep(label, lambda label=label, row=row: found["methods"].__setitem__(label, row))
    if options.linear and options.wants("linear") and LINEAR[0] in options.scales:
        _linear(options, found, done, keep, say)
    if options.extras:
        _extras(options, found, done, keep, say)
    if options.only:
        del found["only"]
    else:
        found["finished"] = True
    found["load"].append(load())
    _write(results, found)
    return found


def _begin(options: Options, results: Path) -> dict[str, Any]:
    """Results to go on with, or empty ones."""
    stamp = {"options": options.record(), "code": code_digest()}
    if results.exists():
        found: dict[str, Any] = json.loads(results.read_text())
        if options.only:
            if found.get("options") != stamp["options"]:
                raise ValueError(
                    f"{results}: these results were measured with other options, "
                    f"{found.get('options')}; got {stamp['options']}; choose another file (--results)"
                )
            return found
        if {name: found.get(name) for name in stamp} == stamp and not found["finished"]:
            return found
    return {
        **stamp,
        "machine": machine(),
        "started": time.strftime("%Y-%m-%d %H:%M"),
        "finished": False,
        "load": [],
        "done": [],
        "scenes": {},
        "methods": {},
        "linear": {},
        "extras": {},
    }


def code_digest() -> str:
    """Digest of emcube's source and of what runs the methods: results of other code are not gone on with."""
    digest = hashlib.sha256()
    files = sorted((ROOT / "emcube").rglob("*.py"))
    here = Path(__file__).parent
    files += [here / f"{name}.py" for name in (*MODULES.values(), "methods", "whole")]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _write(results: Path, found: dict[str, Any]) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    new = results.with_suffix(".part")
    new.write_text(json.dumps(found, indent=1) + "\n")
    new.replace(results)


def _label(scene: str, method: Method) -> str:
    return f"{scene}/{key(method)}"


def _needs_exact(chosen: Iterable[Method]) -> bool:
    return any(
        m.work in ("pca", "pca-scores", "nmf", "nmf-race") or "kmeans" in m.work for m in chosen
    )


# -- scenes -------------------------------------------------------------------------------------------


def _scene(
    options: Options, name: str, scale: float, full: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make a scene and its small twin for warming up where they are missing."""
    folder = options.folder.absolute() / f"{name}-{scale:g}"
    small_scale = min(scale, WARM_SCALE)
    warm = options.folder.absolute() / f"{name}-{small_scale:g}"
    say(f"{name} at scale {scale:g}: made where it is missing")
    _child(options, "benchmarks.data", str(warm), name, f"{small_scale:g}", "full")
    about = _child(
        options, "benchmarks.data", str(folder), name, f"{scale:g}", "full" if full else "store"
    )
    return {"folder": folder, "warm": warm, "about": about}


def _exact(options: Options, scene: dict[str, Any], say: Callable[[str], None]) -> Any:
    say("exact answers (once for each scene)")
    return _child(options, "benchmarks.reference", "exact", str(scene["folder"]))


def _bare(options: Options, scene: dict[str, Any]) -> list[float]:
    place = str(scene["folder"] / "counts.zarr")
    found: list[float] = _child(options, "benchmarks.bare", place, str(options.threads), "2")
    return found


# -- methods ------------------------------------------------------------------------------------------


def _one(
    options: Options,
    scene: dict[str, Any],
    method: Method,
    rows: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure a method and judge its answer."""
    name = scene["about"]["name"]
    row: dict[str, Any] = {
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "load": load(),
        "scene": name,
        "work": method.work,
        "peer": method.peer,
        "title": method.title,
        "target": None if method.ours else method.target,
    }
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as out:
        try:
            python = options.environments(method.peer, say)
            say(f"{name}: {key(method)}")
            row |= _measured(options, scene, method, rows, python, Path(out))
        except (Unavailable, ChildFailed) as problem:
            say(f"  {problem}")
            return row | {"failed": str(problem)}
        if scene.get("exact") is not None and (not row.get("killed") or method.work == "nmf-race"):
            centred = "centred" if method.centred else "plain"
            where = (str(scene["folder"]), out, method.work, centred)
            row["quality"] = _child(options, "benchmarks.reference", "judge", *where)
    say(f"  {_short(row)}")
    return row


def _measured(
    options: Options,
    scene: dict[str, Any],
    method: Method,
    rows: dict[str, Any],
    python: str,
    out: Path,
) -> dict[str, Any]:
    if method.work == "start":
        where = (str(scene["warm"] / "counts.zarr"), str(out))
        return _summary(_child(options, "benchmarks.startup", *where))
    limit = _limit(options, scene["about"]["name"], method, rows)
    exact = scene.get("exact")
    job = {
        "method": method.name,
        "scene": str(scene["folder"]),
        "warm": str(scene["warm"]),
        "out": str(out),
        "k": scene["about"]["n_components"],
        "n_clusters": N_CLUSTERS,
        "threads": options.threads,
        "repeat": 1 if method.once else options.repeat,
        "enough": None if method.ours else ENOUGH,
        "target": exact["target"] if exact else None,
        "limit": limit,
    }
    # A method that is watched stops itself between two steps, and is killed only where a step is very long.
    killed_after = None if limit is None else limit * 1.5 + 10 if method.once else limit
    module = f"benchmarks.{MODULES[method.peer]}"
    threads = method.blas or options.threads
    found = measured_child(
        [python, "-W", "ignore", "-m", module, json.dumps(job)],
        _environment(options, threads),
        killed_after,
    )
    return _summary(found) | {"limit": limit}


def _limit(options: Options, scene: str, method: Method, rows: dict[str, Any]) -> float | None:
    """Seconds after which a peer has lost: so many times ours, but never less than the patience."""
    if method.ours:
        return None
    mine = next((m for m in METHODS if m.ours and m.work == method.work), None)
    row = rows.get(f"{scene}/{key(mine)}", {}) if mine else {}
    return float(max(options.patience, MARGIN * method.target * row.get("seconds", 0.0)))


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    runs = found.get("runs", [])
    rest = {k: v for k, v in found.items() if k not in ("components", "labels")}
    if not runs:
        return rest
    return rest | {
        "seconds": statistics.median(runs),
        "spread": [min(runs), max(runs)],
        "cpu_seconds": statistics.median(found["cpu_runs"]) if "cpu_runs" in found else None,
        "lap_seconds": {name: statistics.median(s) for name, s in found["laps"].items()},
    }


def _short(row: dict[str, Any]) -> str:
    time_text = f"{row['seconds']:.2f} s" if "seconds" in row else "no time"
    if row.get("killed"):
        time_text = f"stopped after {time_text}"
    return f"{time_text}, {row.get('peak_bytes', 0) / 1e9:.2f} GB, {row.get('quality', '')}"


class ChildFailed(Exception):
    """A measuring process did not bring an answer. The text is the last thing that it said."""


def _environment(options: Options, threads: int) -> dict[str, str]:
    blas = {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    }
    n = str(options.threads)
    return {
        **os.environ,
        **blas,
        "EMCUBE_THREADS": n,
        "NUMBA_NUM_THREADS": n,
        "PYTHONPATH": str(ROOT),
        "TQDM_DISABLE": "1",
        "QT_QPA_PLATFORM": "offscreen",
        "MPLBACKEND": "agg",
    }


def _child(options: Options, module: str, *arguments: str) -> Any:
    """Run a module of this environment and read the JSON in the last line it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *arguments],
        cwd=ROOT,
        env=_environment(options, options.threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured_child(
    command: list[str], environment: dict[str, str], limit: float | None
) -> dict[str, Any]:
    """Run a measuring process; stop it where a timed run takes longer than the limit.

    Returns
    -------
    dict
        What the process printed last. Of one that was stopped: the limit as its time, ``killed``, and
        processor time and peak memory as they stood then.

    Raises
    ------
    ChildFailed
    """
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        reader.start()
        last, began, cpu = "", None, 0.0
        deadline = time.monotonic() + SETUP_LIMIT
        runs: list[float] = []
        try:
            while True:
                try:
                    line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    if began is None:
                        raise ChildFailed(f"not ready after {SETUP_LIMIT:.0f} s") from None
                    return {
                        "killed": True,
                        "runs": [*runs, round(time.monotonic() - began, 2)][:1],
                        "cpu_runs": [round((cpu_seconds(child.pid) or 0.0) - cpu, 2)],
                        "laps": {},
                        "peak_bytes": peak_bytes(child.pid),
                    }
                if line is None:
                    break
                if line == BEGIN:
                    began, cpu = time.monotonic(), cpu_seconds(child.pid) or 0.0
                    deadline = began + (limit or 3600.0 * 4)
                elif line == END:
                    runs.append(time.monotonic() - (began or 0.0))
                    began, deadline = None, time.monotonic() + SETUP_LIMIT
                elif line:
                    last = line
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait()
            reader.join()
            child.stdout.close()  # type: ignore[union-attr]
        errors.seek(0)
        said = errors.read()
        if child.returncode and not last.startswith("{"):
            tail = [x for x in said.splitlines() if x.strip()]
            died = f"ended with status {child.returncode}" + (
                " (out of memory?)" if child.returncode == -9 else ""
            )
            raise ChildFailed(f"does not run: {tail[-1] if tail else died}")
        try:
            found: dict[str, Any] = json.loads(last)
        except json.JSONDecodeError:
            raise ChildFailed(f"does not run: it printed no answer but {last!r}") from None
        return found


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line.strip())
    lines.put(None)


# -- cost by size, and others' modules ------------------------------------------------------------------


def _linear(
    options: Options,
    found: dict[str, Any],
    done: set[str],
    keep: Callable[[str, Callable[[], None]], None],
    say: Callable[[str], None],
) -> None:
    """Time the whole recipe on the scene at 0.1, 1 and 10 times its pixels."""
    name, factors = LINEAR
    whole = next(m for m in METHODS if m.ours and m.work == "whole")
    for factor in factors:
        label = f"linear/{factor:g}"
        if label in done:
            continue
        scene = _scene(options, name, options.scales[name] * factor, False, say)
        row = _one(options, scene, whole, {}, say)
        pixels = 1
        for size in scene["about"]["shape"][:-1]:
            pixels *= size
        row |= {"pixels": pixels, "shape": scene["about"]["shape"]}
        row |= {"processor": machine()["processor"]}
        keep(label, lambda label=label, row=row: found["linear"].__setitem__(label[7:], row))


def _extras(
    options: Options,
    found: dict[str, Any],
    done: set[str],
    keep: Callable[[str, Callable[[], None]], None],
    say: Callable[[str], None],
) -> None:
    """Measure what other modules of this folder measure themselves, each in a process of its own."""
    small = max(options.scales.values()) < 1.0
    for name in EXTRAS:
        if importlib.util.find_spec(f"benchmarks.{name}") is None:
            continue
        if not options.wants(name) or name in done:
            continue
        say(f"{name}")
        wanted = {"folder": str(options.folder.absolute()), "threads": options.threads}
        wanted |= {"scale": SMALL_EXTRA} if small else {}
        code = (
            "import inspect, json, sys\n"
            f"from benchmarks.{name} import measure\n"
            "known = inspect.signature(measure).parameters\n"
            "wanted = {k: v for k, v in json.loads(sys.argv[1]).items() if k in known}\n"
            f"print({BEGIN!r}, flush=True)\n"
            "print(json.dumps(measure(**wanted)))"
        )
        try:
            row = measured_child(
                [sys.executable, "-W", "ignore", "-c", code, json.dumps(wanted)],
                _environment(options, options.threads),
                None,
            )
        except ChildFailed as problem:
            row = {"failed": str(problem)}
        row["measured"] = time.strftime("%Y-%m-%d %H:%M")
        row["processor"] = machine()["processor"]
        keep(name, lambda name=name, row=row: found["extras"].__setitem__(name, row))
