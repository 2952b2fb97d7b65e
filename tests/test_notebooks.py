"""Notebooks run from top to bottom, and are kept with outputs that came of such a run."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_some():
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
# The kernel's own libraries warn of their own affairs.
@pytest.mark.filterwarnings("default")
def test_runs(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    kept = [_kinds(cell) for cell in notebook.cells]
    # What it writes to temporary folders goes away with the test.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent), prepend=os.pathsep)
    client = NotebookClient(
        notebook,
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    assert [_kinds(cell) for cell in notebook.cells] == kept, (
        "outputs are of other kinds than those kept: "
        "run `jupyter execute --inplace` on it and look at the pictures"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_kept_whole_and_small(path):
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text


def _kinds(cell) -> list[str]:
    """What sorts of output a cell has, which no version of a library should change."""
    if cell.cell_type != "code":
        return []
    return [
        "image" if "image/png" in output.get("data", {}) else output.output_type
        for output in cell.outputs
    ]
