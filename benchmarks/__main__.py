"""The benchmarks' command line: ``python -m benchmarks [VERB]``, or ``make bench``.

Without a verb everything runs. ``start`` times starting up, ``compare`` runs emcube and HyperSpy on the
same map, ``table`` writes the last comparison as Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import bench_imports, comparison
from benchmarks.readme import write_table


def main(arguments: list[str] | None = None) -> None:
    wanted = _parser().parse_args(arguments)
    if wanted.verb in (None, "start"):
        start()
    if wanted.verb in (None, "compare"):
        compare(wanted)
    if wanted.verb == "table":
        show(json.loads(wanted.results.read_text()), wanted.write)


def start() -> None:
    """Print a line of JSON for each thing that is timed."""
    for name, function in vars(bench_imports).items():
        if name.startswith("bench_"):
            print(json.dumps({"bench": name, **function()}), flush=True)


def compare(wanted: argparse.Namespace) -> None:
    """Compare, keep the figures, and print the table."""
    found = comparison.compare(
        scale=wanted.scale,
        repeat=wanted.repeat,
        only=wanted.only,
        peer=not wanted.without_peer,
        say=lambda text: print(text, flush=True),
    )
    wanted.results.parent.mkdir(parents=True, exist_ok=True)
    wanted.results.write_text(json.dumps(found, indent=2) + "\n")
    show(found, wanted.write)


def show(found: dict[str, Any], readme: Path | None) -> None:
    """Print the table, or write it between the markers of a file."""
    table = comparison.markdown(found)
    if readme is None:
        print(table)
    else:
        write_table(readme, table)
        print(f"wrote the table into {readme}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    verbs = parser.add_subparsers(dest="verb")
    verbs.add_parser("start", help="time starting up")
    comparing = verbs.add_parser("compare", help="emcube and HyperSpy on the same map")
    for p in (parser, comparing):
        p.add_argument("--scale", type=float, default=0.25, help="share of 384 x 512 pixels")
        p.add_argument("--repeat", type=int, default=1, help="runs of each method")
        p.add_argument(
            "--only",
            action="append",
            default=[],
            choices=[m.name for m in comparison.METHODS],
            help="a method; may be repeated; default all but the slow ones",
        )
        p.add_argument("--without-peer", action="store_true", help="leave HyperSpy out")
    tabling = verbs.add_parser("table", help="the last comparison as Markdown")
    for p in (parser, comparing, tabling):
        p.add_argument("--results", type=Path, default=comparison.RESULTS, help="figures as JSON")
        p.add_argument("--write", type=Path, metavar="README.md", help="put the table in here")
    return parser


if __name__ == "__main__":
    main()
