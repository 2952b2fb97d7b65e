"""README: its Python runs, its recipe is valid, commands and links exist, the table is the measured one."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from benchmarks.readme import with_table
from benchmarks.report import RESULTS, readme
from emcube.cli import main
from emcube.cli.app import app
from emcube.recipe import Recipe
from emcube.results import open_result
from emcube.results.variables import registered

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """What is typed: behind a prompt in a console block, or indented."""
    typed = [
        line[2:] for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "
    ]
    typed += re.findall(r"^    ((?:emcube|make|pip) .*)$", README, re.MULTILINE)
    typed += [x for b in blocks("sh") for x in b.splitlines() if x.startswith("emcube ")]
    return [shlex.split(line, comments=True) for line in typed]


def test_the_two_commands_stand_on_the_first_screen():
    first = "\n".join(README.splitlines()[:20])
    for command in ('pip install "emcube[all]"', "make demo", "make test"):
        assert command in first


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    (block,) = blocks("python")
    assert len([line for line in block.splitlines() if line]) <= 10
    exec(compile(block, "README.md", "exec"), names)
    assert names["found"].n_components == 3
    for picture in ("components.png", "maps.png"):
        assert (tmp_path / picture).stat().st_size > 5000


def test_recipe_is_valid():
    (text,) = blocks("yaml")
    recipe = Recipe.parse(text)
    assert [s.label for s in recipe.steps] == ["estimate_n_components", "pca", "nmf", "kmeans"]


def test_emcube_commands_parse():
    verbs = typer.main.get_command(app)
    typed = [c for c in commands() if c[0] == "emcube"]
    assert {c[1] for c in typed} >= {"demo", "ingest", "estimate", "run", "info", "doctor"}
    for command in typed:
        with verbs.make_context("emcube", command[1:]) as context:
            name, verb, rest = verbs.resolve_command(context, command[1:])
            # Unknown options, missing arguments and wrong values are refused here.
            with verb.make_context(name, rest, parent=context):
                pass


def test_places_to_run_are_understood():
    from emcube.deploy.kinds import resolve

    (block,) = blocks("sh")
    places = re.findall(r"EMCUBE_DEPLOY=(\S+)|--deploy (\S+)", block)
    kinds = [resolve(a or b).kind.name for a, b in places]
    assert sorted(kinds) == ["address", "local", "local", "slurm"]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"\bmake ([a-z-]+)", README)
    assert set(targets) >= {"demo", "test", "bench"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_extras_exist():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in re.findall(r"emcube\[(\w+)\]", README):
        assert extra in project["optional-dependencies"]


def test_links_point_at_something():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_pictures_are_small():
    pictures = list((ROOT / "docs" / "images").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 300_000, picture


def test_what_a_result_keeps_is_what_steps_write():
    for node in ("input", "estimate_n_components", "pca", "nmf", "kmeans"):
        assert f"| `/{node}` |" in README
        assert registered(node)


def test_the_table_is_the_one_that_was_measured():
    table = readme(json.loads(RESULTS.read_text(encoding="utf-8")))
    assert with_table(README, table) == README


@pytest.mark.realdata
@pytest.mark.slow
def test_commands_run_on_an_instrument_file(data_dir, tmp_path, monkeypatch, capsys):
    (bcf,) = sorted((data_dir / "eds_sem_dacite_P45").glob("*.bcf"))
    for name in ("map.bcf", "m30.bcf", "0.bcf", "30.bcf"):
        shutil.copy(bcf, tmp_path / name)
    (tmp_path / "data").mkdir()
    for name in (
        "eds_tem_fept/core_shell.hspy",
        "eds_sem_dacite_P45/P45_the_default_job.bcf",
        "eels/EELS_signal.hdf5",
    ):
        place = tmp_path / "data" / Path(name).name
        shutil.copy(data_dir / name, place)
        os.utime(place, (0, 1e9))  # a crawl leaves out what may still be written
    (text,) = blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(text.replace("results/map", "results/again"))
    monkeypatch.chdir(tmp_path)
    for command in commands():
        if command[0] == "emcube" and command[1] not in ("demo", "submit"):
            assert main(command[1:]) == 0, command
    assert main(["run", "recipe.yaml"]) == 0
    capsys.readouterr()
    for place in ("results/map", "results/again"):
        assert open_result(tmp_path / place).complete
