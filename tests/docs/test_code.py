"""The code of the pages runs, page by page, in the order in which it stands there.

A page may take for granted what its reader has: a store ``map.zarr``, a ``recipe.yaml`` with its result
``results/map``, and the names ``em``, ``cube``, ``result`` and ``nmf`` (not fitted). Blocks that need more
carry a comment before them, ``<!-- not run: REASON -->`` or ``<!-- run by tests/... -->``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

import emcube as em
from emcube.cli import main
from emcube.cli.app import app
from tests.docs.pages import PYTHON, ROOT, SHELL, Block, blocks, pages

RECIPE = """
emcube: 1
input: {path: map.zarr}
steps:
  - estimate_n_components
  - pca: {n_components: 4}
  - nmf: {n_components: auto, random_state: 0}
output: results/map
"""

ASSIGNMENT = re.compile(r"^([A-Z_]+)=(.*)$", re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the pages has in the folder."""
    folder = tmp_path_factory.mktemp("reader")
    em.ingest(em.scenes.srm2135c(scale=0.01, random_state=0).cube, folder / "map.zarr")
    (folder / "data").mkdir()
    (folder / "recipe.yaml").write_text(RECIPE)
    em.run(folder / "recipe.yaml")
    return folder


def typed(block: Block) -> list[str]:
    """Commands of a block: lines behind a prompt, or all of them."""
    text = block.text.replace("\\\n", " ")
    lines = text.splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def split(line: str) -> tuple[dict[str, str], list[str]]:
    """Environment and words of a command."""
    words = shlex.split(line, comments=True)
    given: dict[str, str] = {}
    while words and (found := ASSIGNMENT.match(words[0])):
        given[found[1]] = found[2]
        words.pop(0)
    return given, words


def run_python(block: Block, names: dict[str, Any]) -> None:
    # Line numbers of the page, so that an error shows where it stands.
    exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)


def run_shell(block: Block) -> None:
    for line in typed(block):
        given, words = split(line)
        assert words[0] == "emcube", f"{block.place}: say why {line!r} is not run, before the block"
        before = {name: os.environ.get(name) for name in given}
        os.environ.update(given)
        try:
            assert main(words[1:]) == 0, f"{block.place}: {line}"
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


WITH_CODE = [page for page in pages() if any(b.runs for b in blocks(page))]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.relative_to(ROOT / "docs").as_posix())
def test_the_code_runs(
    page: Path,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, Any] = {
        "em": em,
        "cube": em.open("map.zarr"),
        "result": em.open_result("results/map"),
        "nmf": em.MiniBatchNMF(3, random_state=0),
    }
    for block in blocks(page):
        if block.runs and block.language in PYTHON:
            run_python(block, names)
        elif block.runs:
            run_shell(block)


def test_commands_that_are_not_run_are_understood() -> None:
    """Their options and arguments exist all the same."""
    verbs = typer.main.get_command(app)
    lines = [
        (block, line)
        for page in pages()
        for block in blocks(page)
        if block.language in SHELL and not block.runs
        for line in typed(block)
    ]
    commands = [(b, words) for b, line in lines if (words := split(line)[1])[:1] == ["emcube"]]
    assert len(commands) > 5
    for block, words in commands:
        cut = [w for w in words[1:] if w != "|"]
        with verbs.make_context("emcube", cut) as context:
            name, verb, rest = verbs.resolve_command(context, cut)
            try:
                with verb.make_context(name, rest, parent=context):
                    pass
            except Exception as error:  # whatever typer raises, with the place
                raise AssertionError(f"{block.place}: {shlex.join(words)}: {error}") from error


def test_python_that_is_not_run_compiles() -> None:
    for page in pages():
        for block in blocks(page):
            if block.language in PYTHON and not block.runs:
                compile(block.text, block.place, "exec")
