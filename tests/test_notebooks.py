"""Notebooks run from top to bottom, and are kept with outputs that came of such a run."""

from __future__ import annotations

import io
import re
from base64 import b64encode

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.notebooks import FOLDER, NOTEBOOKS, differences, execute, fingerprint, kernel, read

ANEW = "run `make notebooks`, and look at the pictures"

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_they_are_numbered():
    assert [p.name[:3] for p in NOTEBOOKS] == [f"{n:02d}_" for n in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) >= 6


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """One kernel for all notebooks: to start one takes longer than to run most of them."""
    with kernel(tmp_path_factory.mktemp("notebooks")) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(900)
@each
# The kernel's own libraries warn of their own affairs.
@pytest.mark.filterwarnings("default")
def test_runs_to_the_outputs_that_are_kept(path, client):
    notebook = read(path)
    kept = read(path)
    execute(notebook, client)
    found = differences(kept, notebook)
    assert not found, "\n".join([*found, ANEW])


@each
def test_is_kept_whole_and_small(path):
    assert path.stat().st_size < 1_500_000
    notebook = read(path)
    assert notebook.metadata.emcube.code == fingerprint(notebook), (
        f"the code has changed since the outputs were made: {ANEW}"
    )
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert len(cell.source.splitlines()) <= 16, f"a long cell: {cell.source}"
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text


@each
def test_outputs_name_no_place_of_a_machine(path):
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            texts = [output.get("text", "")]
            texts += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
            for text in texts:
                place = re.search(r"(?<![\w.}])/(?:tmp|home|root|Users|var|work|mnt)/\S*", text)
                assert place is None, f"{place.group()} in the output of: {cell.source}"


@each
def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type != "markdown":
            continue
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", cell.source):
            if not target.startswith("https://"):
                assert (FOLDER / target).exists(), target


# ------------------------------------------------------------------------- the comparison itself


def _notebook(*outputs):
    return new_notebook(cells=[new_code_cell("look()", outputs=list(outputs))])


def _text(text):
    return _notebook(new_output("stream", name="stdout", text=text))


def _picture(values):
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, values, cmap="viridis", format="png")
    data = {"image/png": b64encode(buffer.getvalue()).decode(), "text/plain": "<Figure>"}
    return _notebook(new_output("execute_result", data=data, execution_count=1))


@pytest.mark.parametrize(
    ("kept", "now"),
    [
        ("3 components, 412.1 % above", "3 components, 409.8 % above"),
        ("angles 2.8 and 0.1", "angles 2.7 and 0.2"),
        ("run sha256:1f0a2b3c4d5e6f708192", "run sha256:00ffee11dd22cc33bb44"),
        ("emcube 0.1.0, numpy 2.4.6", "emcube 0.2.0.dev1, numpy 2.5.0"),
    ],
)
def test_what_follows_the_libraries_is_no_difference(kept, now):
    assert differences(_text(kept), _text(now)) == []


@pytest.mark.parametrize(
    ("kept", "now"),
    [
        ("3 components", "4 components"),
        ("the same bits: True", "the same bits: False"),
        ("angle 2.8", "angle 12.8"),
        ("Ni, Cr", "Cr, Ni"),
    ],
)
def test_other_words_and_numbers_are_differences(kept, now):
    assert len(differences(_text(kept), _text(now))) == 1


def test_of_html_its_words_are_compared():
    def page(text):
        data = {"text/html": text, "text/plain": "<em: y 86>"}
        return _notebook(new_output("execute_result", data=data, execution_count=1))

    kept = page('<b style="color:red">cube</b><img src="data:image/png;base64,iVBO12/a+9=">')
    assert differences(kept, page('<b class="x">cube</b><img src="other.png">')) == []
    assert differences(kept, page('<b style="color:red">file</b><img src="other.png">'))


def test_pictures_are_compared_as_they_look():
    rows, columns = np.mgrid[0:240, 0:320]
    map_ = np.sin(rows / 30) + np.cos(columns / 40)
    noise = np.random.default_rng(0).normal(0, 0.05, map_.shape)
    kept = _picture(map_)
    assert differences(kept, _picture(map_ + noise)) == []
    assert differences(kept, _picture(map_[::-1]))
    assert differences(kept, _picture(map_[:, :200]))
    assert differences(kept, _text("no picture"))


def test_an_output_more_or_less_is_a_difference():
    assert differences(_text("one"), _notebook())
    assert differences(_notebook(), _text("one"))
