"""Run the benchmarks: ``python -m benchmarks [part of a name]``.

Every function ``bench_*`` of every module ``benchmarks/bench_*.py`` gives back what it measured, as
``{what: number}`` with the unit in the name; one line of JSON is printed for each, to be kept and
compared.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main(wanted: str) -> None:
    for file in sorted(Path(__file__).parent.glob("bench_*.py")):
        module = importlib.import_module(f"benchmarks.{file.stem}")
        for name, function in vars(module).items():
            if name.startswith("bench_") and wanted in f"{file.stem}.{name}":
                print(json.dumps({"bench": f"{file.stem}.{name}", **function()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
