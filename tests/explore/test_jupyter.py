"""`cube.em.explore()` in a kernel of Jupyter: the same page, in a frame in the cell."""

from __future__ import annotations

import html
import re
import urllib.request
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from emcube.store import write_cube
from tests.explore.cubes_for_tests import three_phases


def test_a_cell_shows_the_page(tmp_path: Path) -> None:
    write_cube(three_phases(), tmp_path / "map.zarr")
    code = (
        "import emcube as em\n"
        f"cube = em.open({str(tmp_path / 'map.zarr')!r})\n"
        "shown = cube.em.explore()\n"
        "shown"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = NotebookClient(book, timeout=240, kernel_name="python3")
    with client.setup_kernel():
        client.execute_cell(book.cells[0], 0)
        frame = book.cells[0].outputs[-1]["data"]["text/html"]
        address = html.unescape(re.search(r'src="([^"]+)"', frame)[1])  # type: ignore[index]
        # The kernel is idle, and serves all the same.
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"emcube explorer" in answer.read()
            policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'self' http://localhost:*" in policy
        closing = nbformat.v4.new_code_cell("shown.close(); shown")
        book.cells.append(closing)
        client.execute_cell(closing, 1)
        assert "closed" in closing.outputs[-1]["data"]["text/html"]
