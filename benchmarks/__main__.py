"""The benchmarks' command line: ``python -m benchmarks [VERB]``, or ``make bench``.

``run`` (the default) measures emcube and its peers side by side on small scenes in minutes; with ``--full``
on the full ones, and the figures go where the README's table is written from. ``table`` writes the tables
and ``plot`` the pictures of results that are there; ``list`` names the methods.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import plots, report
from benchmarks.environments import ROOT
from benchmarks.methods import EXTRAS, METHODS, PATIENCE, SCENES, WORKS, key
from benchmarks.readme import write_table
from benchmarks.runner import Options, run

FOLDER = ROOT / ".bench"
"""Scenes, and results of small runs: kept between runs, ignored by git, deleted at will."""

SMALL = {"jadeite": 0.05, "srm2135c": 0.05}
SMALL_PATIENCE = 8.0


def main(arguments: list[str] | None = None) -> None:
    wanted = _parser().parse_args(arguments)
    results = wanted.results or (report.RESULTS if wanted.full else wanted.folder / "small.json")
    if wanted.verb == "list":
        for method in METHODS:
            print(f"{key(method):32} {method.work:16} {', '.join(method.scenes)}")
        return
    if wanted.verb == "run":
        scales = {n: 1.0 if wanted.full else s for n, s in SMALL.items()}
        if wanted.scale is not None:
            scales = dict.fromkeys(scales, wanted.scale)
        wanted.folder.mkdir(parents=True, exist_ok=True)
        patience = wanted.patience or (PATIENCE if wanted.full else SMALL_PATIENCE)
        options = Options(
            folder=wanted.folder,
            scales={n: s for n, s in scales.items() if n in (wanted.scene or scales)},
            only=tuple(wanted.only),
            without=tuple(wanted.without),
            repeat=wanted.repeat,
            patience=patience,
            threads=wanted.threads,
            linear=not wanted.no_linear,
            extras=not wanted.no_extras,
        )
        run(options, results, lambda text: print(text, flush=True))
    found = json.loads(results.read_text())
    if wanted.verb in ("run", "plot"):
        for path in plots.draw(found, results.parent):
            print(f"drew {path}")
    if wanted.verb in ("run", "table"):
        text = report.full(found)
        beside = results.with_suffix(".md")
        beside.write_text(text)
        print(f"wrote {beside}")
        for page in wanted.write:
            write_table(page, report.readme(found))
            print(f"wrote the table into {page}")
        if not wanted.write:
            print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("verb", nargs="?", default="run", choices=["run", "table", "plot", "list"])
    parser.add_argument("--full", action="store_true", help="the scenes at full size")
    parser.add_argument("--scale", type=float, help="share of the full size's pixels")
    parser.add_argument("--scene", action="append", choices=list(SCENES), help="default: all")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        choices=[*_names(), "linear", *EXTRAS],
        help="a method (see list), a work or a peer, measured anew; may be repeated",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        choices=[*_names(), "linear", *EXTRAS],
        help="leave out a method, a work or a peer",
    )
    parser.add_argument("--repeat", type=int, default=5, help="runs of each of our methods")
    parser.add_argument(
        "--patience",
        type=float,
        help=f"a peer is never stopped sooner (s); default {PATIENCE:g}, small {SMALL_PATIENCE:g}",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-linear", action="store_true", help="leave cost by size out")
    parser.add_argument("--no-extras", action="store_true", help="leave other modules out")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="scenes and small results")
    parser.add_argument("--results", type=Path, help="figures as JSON")
    parser.add_argument(
        "--write", type=Path, nargs="+", default=[], metavar="PAGE", help="put the table in here"
    )
    return parser


def _names() -> list[str]:
    return sorted({*map(key, METHODS), *WORKS, *(m.peer for m in METHODS)})


if __name__ == "__main__":
    main()
