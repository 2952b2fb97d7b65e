"""emcube against HyperSpy on the simulated jadeite map: time, memory, and how right the answer is.

Every method runs in a process of its own, HyperSpy's in an environment of its own, all one after the other
on one machine, each from its own chunked file to components and loadings in memory. What was
imported and compiled before is not timed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.clock import load, machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "comparison.json"
REQUIREMENTS = Path(__file__).parent / "requirements-hyperspy.txt"
PEER = ROOT / ".venv-bench"
"""HyperSpy's environment; ignored by git, made on demand, deleted at will."""

PURE_PIXELS = 0.01
"""Share of pixels that are pure, for each phase: with none, no method's NMF is determined."""


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    module: str
    key: str
    title: str
    kind: str  # "svd" or "nmf"
    slow: bool = False  # only where it is asked for


METHODS = (
    Method("emcube-pca", "method_emcube", "pca", "emcube `IncrementalPCA`", "svd"),
    Method("hyperspy-svd", "method_hyperspy", "svd", "HyperSpy `SVD`, in memory", "svd"),
    Method(
        "hyperspy-lazy-svd", "method_hyperspy", "lazy-svd", "HyperSpy `SVD`, lazy (default)", "svd"
    ),
    Method(
        "hyperspy-lazy-svd-incremental",
        "method_hyperspy",
        "lazy-svd-incremental",
        "HyperSpy `SVD`, lazy, incremental",
        "svd",
        slow=True,
    ),
    Method("emcube-nmf", "method_emcube", "nmf", "emcube `MiniBatchNMF`", "nmf"),
    Method("hyperspy-nmf", "method_hyperspy", "nmf", "HyperSpy `NMF`, in memory", "nmf"),
    Method("hyperspy-lazy-nmf", "method_hyperspy", "lazy-nmf", "HyperSpy `NMF`, lazy", "nmf"),
)


def compare(
    *,
    scale: float = 0.25,
    repeat: int = 1,
    only: Iterable[str] = (),
    peer: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run the methods one after the other and return everything that was measured.

    Parameters
    ----------
    scale : float
        Share of the full map's 384 x 512 pixels.
    repeat : int
        Runs of each method; the median of times and the largest memory are kept.
    only : iterable of str
        Names of methods; default all but the slow ones.
    peer : bool
        With HyperSpy. Its environment is built where it is missing, which needs a package index.
    say : callable
        Told in a line what comes next.

    Raises
    ------
    subprocess.CalledProcessError
        A method failed; what it said is on stderr.
    """
    wanted = list(only) or [m.name for m in METHODS if not m.slow]
    chosen = [m for m in METHODS if m.name in wanted]
    chosen = [m for m in chosen if peer or m.module == "method_emcube"]
    pythons = {"method_emcube": sys.executable}
    if any(m.module == "method_hyperspy" for m in chosen):
        pythons["method_hyperspy"] = str(peer_environment(say))
    with tempfile.TemporaryDirectory(prefix="emcube-bench-") as name:
        folder = Path(name)
        say(f"simulating the jadeite map at scale {scale:g}")
        # In a process of its own, like all that is large: this one must stay small.
        scene = _python(sys.executable, "benchmarks.reference", "simulate", name, str(scale))
        before = load()
        files = {"method_emcube": folder / "counts.zarr"}
        if "method_hyperspy" in pythons:
            files["method_hyperspy"] = folder / "counts.zspy"
            peer_python = pythons["method_hyperspy"]
            source, target = str(folder / "counts.npy"), str(files["method_hyperspy"])
            _python(peer_python, "benchmarks.method_hyperspy", "prepare", source, target)
        rows = []
        for method in chosen:
            found = folder / f"{method.name}.npy"
            runs = []
            for number in range(repeat):
                say(f"{method.name}" + (f", run {number + 1} of {repeat}" if repeat > 1 else ""))
                runs.append(
                    _python(
                        pythons[method.module],
                        f"benchmarks.{method.module}",
                        method.key,
                        str(files[method.module]),
                        str(found),
                        "-k",
                        str(scene["n_components"]),
                    )
                )
            rows.append({"method": method.name, **_summary(runs)})
        names = [row["method"] for row in rows]
        say("comparing with the exact answer")
        angles = _python(sys.executable, "benchmarks.reference", "judge", name, *names)
    for row in rows:
        row.update(angles[row["method"]])
    return {
        "scene": scene,
        "machine": machine(),
        "load_before_and_after": [before, load()],
        "repeat": repeat,
        "methods": rows,
    }


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **runs[0],
        "seconds": statistics.median(run["seconds"] for run in runs),
        "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
    }


def _python(python: str, module: str, *arguments: str) -> dict[str, Any]:
    """Run a module from the clone's root and read the JSON in the last line it prints."""
    done = subprocess.run(
        [python, "-W", "ignore", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def peer_environment(say: Callable[[str], None]) -> Path:
    """Build HyperSpy's environment where there is none, and return its Python."""
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = PEER / scripts / ("python.exe" if os.name == "nt" else "python")
    stamp = PEER / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"building HyperSpy's environment in {PEER.name} (some minutes, once)")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEER)], check=True)
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)], check=True
    )
    stamp.write_text(wanted)
    return python


def markdown(found: dict[str, Any]) -> str:
    """Write what `compare` returned as Markdown: a table, and what it was measured on."""
    titles = {m.name: m for m in METHODS}
    first = {
        kind: next((r for r in found["methods"] if titles[r["method"]].kind == kind), None)
        for kind in ("svd", "nmf")
    }
    lines = [
        "| method | time | CPU time | peak memory | error |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in found["methods"]:
        method, best = titles[row["method"]], first[titles[row["method"]].kind]
        assert best is not None
        error = row["subspace_deg"] if method.kind == "svd" else row["truth_deg"]
        lines.append(
            f"| {method.title} | {_times(row, best, 'seconds', ' s')} | "
            f"{_times(row, best, 'cpu_seconds', ' s')} | {row['peak_bytes'] / 1e9:.2f} GB | "
            f"{_degrees(error)} |"
        )
    scene, where = found["scene"], found["machine"]
    shape = " x ".join(map(str, scene["shape"]))
    versions: dict[str, str] = {}
    for row in found["methods"]:
        ours = row["method"].startswith("emcube")
        versions.setdefault("emcube" if ours else "HyperSpy", _versions(row["versions"], ours))
    before, after = found["load_before_and_after"]
    memory = "" if where["memory_GiB"] is None else f", {where['memory_GiB']:.0f} GiB"
    busy = "" if before is None else f", load {before:g} before and {after:g} after"
    runs = "one run each" if found["repeat"] == 1 else f"median of {found['repeat']} runs each"
    lines += [
        "",
        (
            f"Simulated jadeite map {shape} ({scene['counts_per_pixel']:.0f} counts a pixel, "
            f"{scene['dense_bytes'] / 1e6:.0f} MB as {scene['dtype']}; {PURE_PIXELS:.0%} of the "
            f"pixels pure, for each phase); {where['cores']} cores of "
            f"{where['processor']}{memory}, {where['system']}{busy}; {runs}, from file to components and "
            f"loadings. {'; '.join(versions.values())}."
        ),
    ]
    return "\n".join(lines)


def _times(row: dict[str, Any], best: dict[str, Any], key: str, unit: str) -> str:
    text = f"{row[key]:.1f}{unit}"
    return text if row is best else f"{text} ({row[key] / max(best[key], 0.01):.1f} x)"


def _degrees(angle: float) -> str:
    return "< 0.01°" if angle < 0.01 else f"{angle:.2f}°" if angle < 1 else f"{angle:.1f}°"


def _versions(known: dict[str, str], ours: bool) -> str:
    names = ("emcube", "numpy", "numba") if ours else ("hyperspy", "numpy", "scikit-learn")
    return ", ".join(f"{name} {known[name]}" for name in names)
