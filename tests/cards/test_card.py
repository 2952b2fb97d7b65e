"""Cards choose what people look for, at any width, whatever strangers wrote."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from rich.console import Console

import emcube as em
from emcube.cards import describe, describe_cube, describe_entry, describe_estimate, render
from emcube.cards.card import card_of, shorten
from emcube.cards.terminal import print_card
from tests.cards.conftest import hostile_cube


def printed(described: dict[str, Any], columns: int = 80, encoding: str = "utf-8") -> str:
    """The card as a terminal shows it."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    console = Console(
        file=file, width=columns, force_terminal=True, color_system=None, markup=False
    )
    print_card(card_of(described), console)
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def described(folder: Path, store: Path, result: Any) -> dict[str, dict[str, Any]]:
    """One description of each kind."""
    from emcube.catalog import add
    from emcube.package.rendering import describe_package

    catalog = folder / "catalog.yaml"
    add(catalog, store, name="discs")
    add(catalog, "https://example.org/far.bcf", name="far", title="Far away", size=3_000_000)
    crate = em.publish(result, folder / "crate.zip", figures=False, date="2026-11-26")
    return {
        "cube": describe(str(store)),
        "result": describe(str(folder / "result")),
        "catalog": describe(str(catalog)),
        "entry here": describe_entry(catalog, "discs"),
        "entry": describe_entry(catalog, "far"),
        "package": describe_package(crate),
        "estimate": describe_estimate(em.estimate_n_components(em.open(store))),
    }


KINDS = ("cube", "result", "catalog", "entry here", "entry", "package", "estimate")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [100, 80, 40, 24])
def test_a_card_fits(described: dict[str, dict[str, Any]], kind: str, columns: int) -> None:
    lines = printed(described[kind], columns).splitlines()
    assert lines[0].startswith("╭")
    frame = [line for line in lines if line[0] in "│╭╰"]
    assert {len(line) for line in frame} == {min(columns, 100)}
    assert len(lines) < 60


def test_what_a_cube_says(described: dict[str, dict[str, Any]]) -> None:
    text = printed(described["cube"])
    for fact in (
        "Three discs  cube",
        "EDS · Si Cr Ni · 200 keV · needle",
        "0 to 78 nm",
        "0.5 to 9 keV",
        "navigation",
        "uint16, counts",
        "on disk",
        "per pixel",
    ):
        assert fact in text, fact
    counts = float(described["cube"]["counts_per_pixel"])
    assert counts == pytest.approx(150, rel=0.05)
    assert f"counts per pixel: {counts:.6g}" in render(described["cube"])


def test_what_a_result_says(described: dict[str, dict[str, Any]]) -> None:
    text = printed(described["result"])
    for fact in (
        "Three discs  result",
        "3 components",
        "3 clusters",
        "emcube report",
        "tilt 3, y 30",
    ):
        assert fact in text, fact


def test_what_goes_on_from_here(described: dict[str, dict[str, Any]]) -> None:
    assert "emcube catalog fetch" in printed(described["entry"])
    assert "emcube reproduce" in printed(described["package"])
    assert "2 entries" in printed(described["catalog"])
    assert "3 components" in printed(described["estimate"])


def test_an_incomplete_result_says_so(folder: Path, store: Path, monkeypatch: Any) -> None:
    from emcube.recipe import running

    real = running.run_step

    def stops(step: Any, run: Any) -> Any:
        if step.label == "nmf":
            raise KeyboardInterrupt
        return real(step, run)

    monkeypatch.setattr(running, "run_step", stops)
    steps = [{"pca": {"n_components": 2}}, {"nmf": {"n_components": 2, "random_state": 0}}]
    with pytest.raises(KeyboardInterrupt):
        em.run({"input": {"path": str(store)}, "steps": steps}, out=folder / "stopped")
    text = printed(describe(str(folder / "stopped")))
    assert "! Incomplete:" in text
    assert "emcube report" not in text


@pytest.mark.parametrize("columns", [80, 30])
def test_strangers_steer_and_flood_nothing(columns: int) -> None:
    described = {"kind": "cube", **describe_cube(hostile_cube())}
    text = printed(described, columns)
    assert len(text) < 12_000
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "</script><script>" in text.replace("\n", "").replace("│", "").replace(" ", "")[:4000]
    assert printed({**described, "name": "[red]x[/red]", "metadata": {}}).startswith(
        "╭─ [red]x[/red]  cube"
    )


def test_commands_and_shapes_of_strangers_steer_nothing() -> None:
    name, dim = "\x1b]0;x\x07 a; rm -rf ~", "y\x1b[2J"
    known = {
        "name": name,
        "kind": "file",
        "store": "https://x/y",
        "available": False,
        "metadata": {},
    }
    entry = card_of({"kind": "entry", "address": f"c.yaml:{name}", "entry": known})
    signal = {"name": "a", "kind": "cube", "dims": [dim], "shape": [3], "dtype": "u1"}
    file = card_of({"kind": "signals", "address": name, "signals": [signal]})
    for card in (entry, file):
        out = io.StringIO()
        print_card(card, Console(file=out, width=80))
        assert not {"\x1b", "\x07"} & set(out.getvalue())
    package = {"addresses": [], "included": True, "digest": "sha256:0"}
    about = {"title": "t", "files": 1, "bytes": 1, "run_id": "sha256:0", "sha256": "0"}
    packed = card_of({"kind": "package", "address": "a b;c.zip", "input": package, **about})
    assert packed.then == "emcube reproduce 'a b;c.zip'"


def test_terminals_without_signs_get_plain_frames(described: dict[str, dict[str, Any]]) -> None:
    text = printed(described["cube"], 80, "ascii")
    assert text.startswith("+")
    assert "\\u2500" not in text


def test_long_texts_say_that_they_were_cut() -> None:
    assert shorten("a" * 1000, 20) == "a" * 19 + "…"
    assert shorten(" two\nlines\t", 20) == "two lines"


def test_a_part_of_a_store_has_no_quicklook_of_the_whole(stored: xr.DataArray) -> None:
    from emcube.cards.quicklooks import counts_per_pixel, store_of, total_counts

    assert store_of(stored) is not None
    assert counts_per_pixel(stored) == pytest.approx(float(stored.em.total_counts().mean()))
    mirrored = stored.isel(x=slice(None, None, -1))
    doubled = stored.copy(data=stored.data * 2)
    for other in (mirrored, doubled, stored.isel(y=slice(5)), stored.sum("energy")):
        assert store_of(other) is None
    assert total_counts(doubled) is None
    small = stored.isel(tilt=0).compute()
    xr.testing.assert_equal(total_counts(small), small.em.total_counts())
