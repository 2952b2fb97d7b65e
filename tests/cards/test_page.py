"""Cards in notebooks: what they show, what they cost, and that no text of a stranger becomes a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.cards.page import cube_page
from tests.cards.conftest import hostile_cube
from tests.report.conftest import make_map
from tests.report.test_browser import browser  # noqa: F401  (a fixture)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ALLOWED = frozenset(
    {
        *("div", "b", "span", "table", "thead", "tbody", "tr", "th", "td", "bdi", "img", "figure"),
        *("figcaption", "details", "summary", "svg", "polyline", "circle", "line"),
    }
)


class Tags(HTMLParser):
    """Tags and attributes, and whether all that was opened was closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "img":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def own(page: str) -> str:
    """The card without xarray's view of the variables."""
    return re.sub(r"<details.*?</summary>.*</details>", "", page, flags=re.DOTALL)


def test_a_stored_cube(stored: xr.DataArray) -> None:
    with dask.config.set(scheduler=_only_quicklooks(stored)):
        page = stored.em._repr_html_()
    for fact in ("Three discs", "EDS · Si Cr Ni", "0.5 to 9 keV", "per pixel", ", lazy", "on disk"):
        assert fact in page, fact
    assert page.count("data:image/png;base64,") == 1
    assert 'alt="total counts"' in page
    assert Tags(page).tags <= ALLOWED
    # The array itself is shown as xarray shows it.
    assert "xarray.DataArray" in stored._repr_html_()


def _only_quicklooks(cube: xr.DataArray) -> Any:
    """A scheduler that fails where the cube itself is asked for."""
    name = cube.data.name

    def get(dsk: Any, keys: Any, **options: Any) -> Any:
        from dask.threaded import get as threaded

        assert not any(isinstance(k, tuple) and k[0] == name for k in dict(dsk)), "the cube is read"
        return threaded(dsk, keys, **options)

    return get


def test_a_lazy_cube_is_not_computed() -> None:
    lazy = make_map((6, 8)).chunk({"y": 2})

    def fails(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed")

    with dask.config.set(scheduler=fails):
        page = lazy.em._repr_html_()
    assert "data:image/png" not in page
    assert ", lazy" in page


def test_kinds_of_cubes() -> None:
    """Spectra, line scans, series, patterns; with and without units."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(4.0, (3, 4, 5, 6, 7)).astype(np.uint8)
    for dims, sig in (
        (("energy",), ("energy",)),
        (("x", "energy"), ("energy",)),
        (("tilt", "y", "x", "energy"), ("energy",)),
        (("y", "x", "ky", "kx"), ("ky", "kx")),
        (("time", "y", "x", "ky", "kx"), ("ky", "kx")),
    ):
        cube = em.make_cube(counts[(0,) * (5 - len(dims))], dims=dims, sig_dims=sig)
        page = cube.em._repr_html_()
        assert Tags(page).open == []
        assert page.count("data:image/png") == (1 if len(dims) - len(sig) >= 2 else 0)
        assert "in memory" in page


def test_what_is_no_cube_is_shown_as_text() -> None:
    array = xr.DataArray(np.zeros((2, 3)), dims=("a", "b"), attrs={"sig_dims": [3]})
    assert cube_page(array) is None


def test_a_result(result: Any) -> None:
    page = result._repr_html_()
    for fact in (
        "Three discs",
        "3 components",
        "3 clusters",
        "run",
        "finished",
        "tilt at its middle",
    ):
        assert fact in own(page), fact
    assert own(page).count("data:image/png;base64,") == 3
    assert page.count("<polyline") == 3
    assert "All variables" in page
    assert Tags(own(page)).tags <= ALLOWED


def test_results_without_loadings(tmp_path: Path, store: Path) -> None:
    recipe = {
        "input": {"path": str(store)},
        "steps": [{"kmeans": {"n_clusters": 2, "random_state": 0}}],
    }
    page = em.run(recipe, out=tmp_path / "r")._repr_html_()
    assert own(page).count("data:image/png;base64,") == 1
    assert "kmeans: clusters" in page


def test_an_estimate(store: Path) -> None:
    page = em.estimate_n_components(em.open(store))._repr_html_()
    assert "3 components" in page
    assert "<circle" in page
    assert Tags(page).open == []


def test_strangers_inject_nothing() -> None:
    page = hostile_cube().em._repr_html_()
    found = Tags(page)
    assert found.open == []
    assert found.tags <= ALLOWED
    assert not {name for name in found.attributes if name.startswith("on")}
    assert len(page) < 60_000


@pytest.fixture
def sheet(tmp_path: Path, result: Any, stored: xr.DataArray) -> Path:
    from emcube.feedback.notebook import closing_html, lines_html
    from emcube.feedback.words import Line
    from tests.report.conftest import EVIL

    bars = lines_html([Line(EVIL, 0.4, ((1, EVIL),))]) + closing_html(EVIL, failed=True)
    cards = [hostile_cube().em._repr_html_(), stored.em._repr_html_(), own(result._repr_html_())]
    path = tmp_path / "sheet.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{bars}{''.join(cards)}", "utf-8")
    return path


def test_in_a_browser_nothing_runs_and_nothing_is_fetched(
    browser: Browser,  # noqa: F811
    sheet: Path,
) -> None:
    wrong: list[str] = []
    context = browser.new_context(offline=True, viewport={"width": 900, "height": 700})
    page = context.new_page()
    page.on("console", lambda said: wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on(
        "request",
        lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
    )
    page.goto(sheet.as_uri())
    assert page.evaluate("document.documentElement.dataset.ran") is None
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    # Neither a long name nor a long value makes the page wider than its window.
    for width in (900, 380):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert wrong == []
