"""The file: whole, closed, the same every time, and never in the place of something else."""

from __future__ import annotations

import base64
import builtins
import hashlib
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import emcube
from emcube.cli import main
from emcube.errors import IncompleteError, InputError, MissingDependencyError, StoreError
from emcube.recipe import Recipe, run
from emcube.report import report
from emcube.report.build import page_of
from emcube.results import Result, open_result
from emcube.results.tree import read_root
from tests.report.conftest import EVIL, STEPS, make_map


class Reader(HTMLParser):
    """Elements, attributes and visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(result: Result) -> str:
    return page_of(result)


def test_the_answer_comes_first(page: str) -> None:
    body = page[page.index("<body>") :].replace("\xa0", " ")
    for words in (
        "Three phases",
        "Three components describe this data.",
        "Si Kα",
        "That many stand out of the noise (biwhitening).",
        "Counting noise explains all that the model leaves.",
    ):
        assert 0 < html.unescape(body).index(words) < 6000, words


def test_every_part_is_there(page: str, result: Result) -> None:
    text = html.unescape(page)
    ids = [a["id"] for _, a in Reader(page).tags if a.get("id")]
    assert {"answer", "number", "fit", "data", "steps", "provenance", "again", "cite"} <= set(ids)
    assert len(ids) == len(set(ids))
    for words in (
        result.run_id,
        result.provenance["input"]["digest"],
        result.provenance["stack"]["libraries"]["numpy"],
        "0 to 4°",
        "converged after",
        "kullback-leibler",
        "https://doi.org/10.1137/21M1456807",
        "emcube run recipe.yaml",
    ):
        assert words in text, words


def test_it_loads_nothing_and_runs_nothing_but_its_own(page: str) -> None:
    reader = Reader(page)
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset", "style", "action") or (name == "href" and tag != "a"):
                raise AssertionError((tag, name, value))
            if name == "href":
                assert str(value).startswith(("#", "data:", "https://doi.org/")), value
    (policy,) = [a["content"] for a in reader.all("meta") if a.get("http-equiv")]
    allowed = dict(part.strip().split(" ", 1) for part in str(policy).split(";"))
    assert allowed["default-src"] == "'none'"
    assert "unsafe" not in str(policy)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    for texts, source in ((scripts, "script-src"), (styles, "style-src")):
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        assert allowed[source].split() == [f"'sha256-{h}'" for h in hashes]


def test_recipe_of_the_page_makes_the_same_run(page: str, result: Result, tmp_path: Path) -> None:
    (link,) = [a for a in Reader(page).all("a") if a.get("download") == "recipe.yaml"]
    text = base64.b64decode(str(link["href"]).split(",", 1)[1]).decode()
    again = run(
        yaml.safe_load(text), make_map((3, 10, 14), title="Three phases"), out=tmp_path / "r"
    )
    assert again.run_id == result.run_id


def test_recipe_names_its_input_and_drawn_seeds(tmp_path: Path) -> None:
    from emcube.store import write_cube

    write_cube(make_map((6, 7)), tmp_path / "map.zarr")
    (tmp_path / "r.yaml").write_text(
        "emcube: 1\ninput: {path: map.zarr}\nprepare: [{window: {energy: [1.0, 8.5]}}]\n"
        "where: {min_smoothed_counts: 1}\nsteps:\n  - nmf: {n_components: 2, max_iter: 2}\noutput: result\n"
    )
    first = run(tmp_path / "r.yaml")
    page = page_of(first)
    (link,) = [a for a in Reader(page).all("a") if a.get("download") == "recipe.yaml"]
    (tmp_path / "again.yaml").write_bytes(base64.b64decode(str(link["href"]).split(",", 1)[1]))
    again = run(Recipe.read(tmp_path / "again.yaml"), out=tmp_path / "again")
    np.testing.assert_array_equal(again["nmf"]["loadings"].values, first["nmf"]["loadings"].values)
    text = html.unescape(page)
    for words in ("min smoothed counts 1", "energy 1, 8.5", "42 of 42", "Seeds that were drawn"):
        assert words in text, words


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        ((), [{"nmf": {"n_components": 1, "random_state": 0}}]),
        ((40,), [{"pca": {"n_components": 2}}, {"kmeans": {"n_clusters": 2, "random_state": 0}}]),
        ((6, 7), [{"estimate_n_components": {}}]),
        ((6, 7), [{"kmeans": {"n_clusters": 2, "random_state": 0}}]),
        ((6, 7), [{"pca": {"n_components": 2}}]),
        ((20, 20), [{"nmf": {"n_components": 20, "random_state": 0, "max_iter": 1}}]),
    ],
)
def test_every_shape_has_its_page(shape: tuple[int, ...], steps: list[Any], tmp_path: Path) -> None:
    found = run({"emcube": 1, "steps": steps}, make_map(shape), out=tmp_path / "r")
    page = page_of(found)
    assert (data := json.loads(re.findall(r'id="report-data">(.*?)</script>', page, re.DOTALL)[0]))
    assert len(data["groups"]) == sum("estimate_n_components" not in s for s in steps)
    assert (
        "nan"
        not in html.unescape(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
        .lower()
        .split()
    )


def test_patterns_have_their_page(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(3.0, (5, 6, 8, 9)).astype(np.uint16)
    cube = emcube.make_cube(
        counts,
        dims=("y", "x", "ky", "kx"),
        sig_dims=("ky", "kx"),
        units={"ky": "mrad", "kx": "mrad"},
    )
    found = run(
        {"emcube": 1, "steps": [{"nmf": {"n_components": 2, "random_state": 0}}]},
        cube,
        out=tmp_path / "r",
    )
    assert "where they are, and their patterns" in page_of(found)


def test_doubts_stand_on_the_first_screen(tmp_path: Path) -> None:
    steps = [
        {"estimate_n_components": {}},
        {"nmf": {"n_components": 2, "random_state": 0, "max_iter": 1}},
    ]
    page = page_of(run({"emcube": 1, "steps": steps}, make_map(), out=tmp_path / "r"))
    first = html.unescape(page[page.index('id="answer"') : page.index("data-parts")])
    for words in (
        "The data support three components (biwhitening); two were asked for.",
        "2 components were asked for; the data support 3.",
        "more than counting noise explains",
        "something is missing, such as a component",
        "did not converge in 1 pass: raise max_iter",
    ):
        assert words in first, words


def test_names_of_strangers_stay_text(hostile: Result) -> None:
    page = page_of(hostile)
    page.encode("utf-8")
    reader = Reader(page)
    assert "img" not in {tag for tag, _ in reader.tags}
    assert len(reader.all("script")) == 3
    shown = html.unescape(page)
    assert EVIL[:60] in shown
    assert "{{7*7}}" in shown
    assert "\u202e" not in page
    assert len(page) < 5_000_000
    (title,) = reader.texts["h1"]
    assert len(title.strip()) <= 160


def test_the_same_result_gives_the_same_bytes(result: Result, page: str, tmp_path: Path) -> None:
    path = report(result, tmp_path / "a" / "r.html")
    assert path.read_text(encoding="utf-8") == page == page_of(open_result(result.path))


# ------------------------------------------------------------------------------------------- refusals


def test_an_earlier_report_is_replaced_and_nothing_else(result: Result, tmp_path: Path) -> None:
    path = report(result, tmp_path / "r.html")
    report(result.path, path)
    path.write_text("<p>mine</p>")
    with pytest.raises(InputError, match=r"r\.html' exists and is no report.*overwrite"):
        report(result, path)
    assert path.read_text() == "<p>mine</p>"
    report(result, path, overwrite=True)
    assert path.stat().st_size > 10_000
    with pytest.raises(InputError, match="is a folder"):
        report(result, tmp_path)
    with pytest.raises(InputError, match="lies within the result"):
        report(result, result.path / "r.html")
    assert not (result.path / "r.html").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written"):
        report(result, tmp_path / "file" / "r.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "r.html"]


def test_an_unfinished_result_is_refused(result: Result, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(result.path, tmp_path / "half")
    root = tmp_path / "half" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["emcube"]["complete"] = False
    root.write_text(json.dumps(document))
    assert (read_root(tmp_path / "half") or {})["emcube"]["complete"] is False
    with pytest.raises(IncompleteError, match="never finished"):
        report(tmp_path / "half", tmp_path / "r.html")
    with pytest.raises(IncompleteError, match="report needs a whole result"):
        report(open_result(tmp_path / "half", allow_incomplete=True), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_without_jinja_the_error_says_what_to_install(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"emcube\[report\]"):
        page_of(result)


# --------------------------------------------------------------------------------------- command line


def test_command_writes_the_file(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.html"
    assert main(["report", str(result.path), str(path)]) == 0
    assert f"{path} (" in capsys.readouterr().out
    assert main(["report", str(result.path), str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"kind": "report", "path": str(path), "bytes": path.stat().st_size}


@pytest.mark.parametrize("what", ["nothing", "file"])
def test_command_refuses_what_is_no_result(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["report", str(tmp_path / what), str(tmp_path / "r.html")]) == 2
    assert "there is no result at" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_the_package_answers_a_call_too(result: Result, tmp_path: Path) -> None:
    # Python binds a package's name in its parent when it is imported; the promise is a function there.
    import importlib

    module = importlib.import_module("emcube.report")
    assert module(result, tmp_path / "m.html") == tmp_path / "m.html"
    assert emcube.report(os.fspath(result.path), tmp_path / "f.html") == tmp_path / "f.html"
    assert [next(iter(s)) for s in STEPS][-1] == "kmeans"
