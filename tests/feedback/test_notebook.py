"""A bar in a notebook: one output, replaced as work goes on, of which one line stays."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from emcube.feedback.notebook import Notebook, closing_html, lines_html
from emcube.feedback.words import Line

EVIL = "<img src=x onerror=alert(1)>\"'</div><script>1</script>"

SETUP = (
    "import time, sys, emcube as em\n"
    "from emcube.feedback.events import group, working\n"
    "def fit(name, fails=False):\n"
    "    with group(name), working('sweep', n_blocks=4, n_pixels=400) as work:\n"
    "        for _ in range(4):\n"
    "            time.sleep(0.2)\n"
    "            work.advance(blocks=1, pixels=100)\n"
    "        if fails: raise ValueError('no')\n"
)
CELLS = (
    SETUP,
    f"fit({EVIL!r})",
    "try:\n    fit('Broken', fails=True)\nexcept ValueError: print('caught')",
    "em.progress(False)\nfit('Silent')",
    "print('ipywidgets' in sys.modules, 'rich' in sys.modules)",
)


@pytest.fixture(scope="module")
def outputs() -> list[list[Any]]:
    """Outputs of each cell, run by a real kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_line_stays(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[1]
    assert shown.output_type == "display_data"
    page, text = shown.data["text/html"], shown.data["text/plain"]
    assert "400 pixels" in text
    assert "progressbar" not in page
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;img" in page


def test_a_failure_is_said(outputs: list[list[Any]]) -> None:
    bar, printed = outputs[2]
    assert "failed after" in bar.data["text/plain"]
    assert printed.text == "caught\n"


def test_it_can_be_switched_off(outputs: list[list[Any]]) -> None:
    assert outputs[3] == []


def test_no_widgets_are_needed(outputs: list[list[Any]]) -> None:
    assert outputs[4][0].text == "False False\n"


def test_one_output_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    sent: list[tuple[dict[str, str], dict[str, Any]]] = []
    monkeypatch.setattr(
        IPython.display, "publish_display_data", lambda data, **more: sent.append((data, more))
    )
    display = Notebook()
    display.draw([Line("fit", 0.25, ((1, "0:03 left"),))])
    display.draw([Line("fit", 0.5, ())])
    display.close("fit: 3 s", failed=False)
    assert [more["update"] for _, more in sent] == [False, True, True]
    assert len({more["transient"]["display_id"] for _, more in sent}) == 1
    assert 'aria-valuenow="25"' in sent[0][0]["text/html"]
    assert "0:03 left" in sent[0][0]["text/plain"]


def test_names_are_escaped() -> None:
    for page in (lines_html([Line(EVIL, 0.5, ((1, EVIL),))]), closing_html(EVIL, failed=True)):
        assert "<img" not in page
        assert "<script" not in page
        assert page.count("</div>") == page.count("<div")
