"""Run notebooks as a reader would, and tell whether kept outputs are those of such a run.

``python -m tests.notebooks [NAME ...]`` runs all of them, or those whose names begin so, and rewrites them in
place (``make notebooks``).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from numpy.typing import NDArray

__all__ = [
    "FOLDER",
    "NOTEBOOKS",
    "differences",
    "execute",
    "fingerprint",
    "kernel",
    "read",
    "write",
]

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

IMAGE = "image/png"

_TAG = re.compile(r"<[^>]*>")
_VERSION = re.compile(r"\d+(?:\.\w+){2,}(?:\+\w+)?")
_IDENTITY = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{12,}\b")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")

_CLOSE = 0.05
"""Share by which a printed number may change with libraries or processor; small whole numbers may not."""

_ALIKE = 0.9
"""Least correlation of two pictures, coarsely seen: other fonts pass, other curves or maps do not."""

_COARSE = 48


def read(path: Path) -> NotebookNode:
    """Read a notebook, and check that it is one."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


@contextmanager
def kernel(folder: Path) -> Iterator[NotebookClient]:
    """Start a kernel whose files go into a folder, and which knows nothing of how the user works."""
    # Where and how the reader works must not show, nor change anything.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EMCUBE_")}
    environment["TMPDIR"] = str(folder)
    # How long something took is no output to keep.
    environment["EMCUBE_SHOW_PROGRESS"] = "off"
    paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    client = NotebookClient(
        new_notebook(),
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # in how many pieces a text comes is a matter of time
        resources={"metadata": {"path": str(folder)}},
    )
    with client.setup_kernel(env=environment):
        yield client


def execute(notebook: NotebookNode, client: NotebookClient) -> None:
    """Run all cells, beginning without any names; outputs are replaced.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell failed.
    """
    for one in (new_notebook(cells=[new_code_cell("%reset -f")]), notebook):
        client.nb = one
        client.execute(cleanup_kc=False)


def fingerprint(notebook: NotebookNode) -> str:
    """Digest of the code: what the kept outputs have to be of."""
    digest = hashlib.sha256()
    for cell in _code(notebook):
        digest.update(cell.source.encode() + b"\0")
    return digest.hexdigest()


def write(notebook: NotebookNode, path: Path) -> None:
    """Keep an executed notebook, without what differs from run to run or from machine to machine."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "emcube": {"code": fingerprint(notebook)},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        for output in cell.get("outputs", []):
            if IMAGE in output.get("data", {}):
                output.data[IMAGE] = _smaller(output.data[IMAGE])
    nbformat.write(notebook, path)


def differences(kept: NotebookNode, now: NotebookNode) -> list[str]:
    """What of the kept outputs is no longer so: a line for each, none where all is well.

    Words are compared to the letter, numbers to a few percent, pictures as they look from afar; versions and
    identities, which follow the libraries, are not compared.
    """
    found = []
    for number, (cell, again) in enumerate(zip(_code(kept), _code(now), strict=True), 1):
        for output, new in zip_longest(cell.outputs, again.outputs):
            what = "an output" if output is None or new is None else _difference(output, new)
            if what:
                found.append(f"cell [{number}] ({cell.source.splitlines()[-1][:60]}): {what}")
    return found


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _difference(output: NotebookNode, new: NotebookNode) -> str:
    a, b = _content(output), _content(new)
    if a.keys() != b.keys():
        return f"{sorted(a)} kept, {sorted(b)} now"
    if IMAGE in a:  # its text only tells the size
        return _pictures_differ(_picture(a[IMAGE]), _picture(b[IMAGE]))
    for kind in a:
        if what := _texts_differ(a[kind], b[kind]):
            return what
    return ""


def _content(output: NotebookNode) -> dict[str, str]:
    if output.output_type == "stream":
        return {output.name: output.text}
    found = {kind: str(value) for kind, value in output.data.items()}
    if "text/html" in found:  # what a page says, not how it is dressed
        found["text/html"] = _TAG.sub(" ", found["text/html"])
    return found


def _texts_differ(kept: str, now: str) -> str:
    a, b = _masked(kept), _masked(now)
    words, other = _NUMBER.split(a), _NUMBER.split(b)
    if words != other:
        return f"kept {kept[:200]!r}, now {now[:200]!r}"
    for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True):
        if not _numbers_agree(x, y):
            return f"{x} kept, {y} now, in {now[:200]!r}"
    return ""


def _masked(text: str) -> str:
    return _IDENTITY.sub("(identity)", _VERSION.sub("(version)", text))


def _numbers_agree(x: str, y: str) -> bool:
    last = 10.0 ** -len(x.partition(".")[2]) if "." in x and "e" not in x else 0.0
    return abs(float(x) - float(y)) <= _CLOSE * abs(float(x)) + last


def _pictures_differ(kept: NDArray[np.float64], now: NDArray[np.float64]) -> str:
    shapes = kept.shape, now.shape
    if any(abs(a / b - 1) > _CLOSE for a, b in zip(*shapes, strict=True)):
        return f"a picture of {shapes[0][:2]} pixels kept, of {shapes[1][:2]} now"
    a, b = (_coarse(picture) for picture in (kept, now))
    if not (a.std() and b.std()):
        return "" if a.std() == b.std() else "a blank picture"
    alike = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    return "" if alike >= _ALIKE else f"another picture (correlation {alike:.2f})"


def _picture(data: str) -> NDArray[np.float64]:
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(b64decode(data)), format="png")[..., :3], dtype=np.float64)


def _smaller(data: str) -> str:
    """The same picture in fewer bytes: without the opacity that it does not need, packed harder."""
    from PIL import Image

    picture = Image.open(io.BytesIO(b64decode(data)))
    if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):
        picture = picture.convert("RGB")
    packed = io.BytesIO()
    picture.save(packed, format="png", optimize=True)
    return b64encode(packed.getvalue()).decode()


def _coarse(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over a grid of a few dozen cells a side."""
    height, width = picture.shape[:2]
    rows = np.linspace(0, height, _COARSE, endpoint=False).astype(int)
    columns = np.linspace(0, width, _COARSE, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(picture, rows, axis=0), columns, axis=1)
    cells = np.add.reduceat(
        np.add.reduceat(np.ones((height, width)), rows, axis=0), columns, axis=1
    )
    return sums / cells[..., None]


def main(names: list[str]) -> None:
    """Run notebooks and rewrite them in place."""
    chosen = [p for p in NOTEBOOKS if not names or any(p.name.startswith(n) for n in names)]
    for path in chosen:
        began = time.perf_counter()
        kept, notebook = read(path), read(path)
        # A kernel for each, as readers have.
        with (
            tempfile.TemporaryDirectory(prefix="emcube-") as folder,
            kernel(Path(folder)) as client,
        ):
            execute(notebook, client)
        write(notebook, path)
        size = path.stat().st_size / 1e6
        print(f"{path.name}: {time.perf_counter() - began:.1f} s, {size:.2f} MB", flush=True)
        for line in differences(kept, notebook):
            print(f"    {line}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
