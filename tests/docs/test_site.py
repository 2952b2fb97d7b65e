"""The pages as `make docs` builds them, in a real browser, from disk, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import skip_or_fail
from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SITE = ROOT / "build" / "docs"
PAGES = [
    "docs/index",
    "docs/start/tutorial",
    "docs/methods/nmf",
    "docs/reference/estimators",
    "docs/reference/api/emcube.MiniBatchNMF",
    "docs/reference/cli",
    "docs/reference/recipe",
    "docs/comparison",
    "notebooks/01_first_look",
]
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="module")
def site() -> Path:
    if not (SITE / "docs" / "index.html").is_file():
        skip_or_fail("site", "the pages are not built (make docs)")
    return SITE


@pytest.fixture(scope="module")
def browser(site: Path) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        skip_or_fail("chromium", "Chromium is not installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip_or_fail("chromium", "playwright, which drives Chromium, is not installed")
    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser, site: Path) -> Iterator[Open]:
    """Open a page, offline; what it complains of, or asks for beyond the folder, fails the test."""
    contexts = []
    wrong: list[str] = []

    def asked(url: str) -> None:
        if not url.startswith((site.as_uri(), "data:", "blob:")):
            wrong.append(f"asked for {url}")

    def complained(kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            wrong.append(f"{kind}: {text}")

    def failed(request: Any) -> None:
        # What is left for the next page is not missing.
        if request.failure != "net::ERR_ABORTED":
            wrong.append(f"failed: {request.url} ({request.failure})")

    def open_it(name: str, query: str = "", **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda said: complained(said.type, said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked(request.url))
        page.on("requestfailed", lambda request: failed(request))
        page.goto((site / f"{name}.html").as_uri() + query)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_all_of_it(name: str, open_page: Open) -> None:
    page = open_page(name, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 391
    assert page.locator("h1").first.is_visible()


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("docs/index", "light"),
        ("docs/methods/nmf", "dark"),
        ("docs/reference/estimators", "light"),
        ("docs/reference/api/emcube.KMeans", "dark"),
        ("docs/comparison", "light"),
        ("notebooks/01_first_look", "light"),
    ],
)
def test_axe_finds_nothing_serious(name: str, scheme: Any, open_page: Open) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(name, color_scheme=scheme)
    # Not its own copies of the style sheets, which no page from disk may read.
    found = Axe().run(page, options={"preload": False}).response["violations"]
    serious = [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} ({len(v['nodes'])})"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_equations_are_drawn(open_page: Open) -> None:
    page = open_page("docs/methods/nmf")
    assert page.locator("math").count() > 10
    box = page.locator("math[display=block]").first.bounding_box()
    assert box is not None
    assert box["height"] > 30
    # Nothing of TeX is left in the text.
    assert "\\sum" not in page.locator("article").inner_text()


def test_search_works_from_disk(open_page: Open) -> None:
    page = open_page("search", query="?q=biwhitening")
    # Results come one after the other.
    page.locator("#search-results li", has_text="Number of components").first.wait_for()


def test_the_front_door_leads_in(open_page: Open) -> None:
    page = open_page("index")
    page.wait_for_selector("h1")
    assert page.url.endswith("docs/index.html")
    page.get_by_role("link", name="Methods").first.click()
    page.get_by_role("link", name="Poisson NMF").first.click()
    assert page.locator("h1").inner_text().startswith("Poisson NMF")


def test_every_public_name_has_a_page(site: Path) -> None:
    import importlib
    import inspect

    text = "".join(p.read_text(encoding="utf-8") for p in (site / "docs/reference").glob("*.html"))
    for package in (
        "",
        ".catalog",
        ".engine",
        ".errors",
        ".models",
        ".plot",
        ".results",
        ".scenes",
    ):
        module = importlib.import_module(f"emcube{package}")
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) or inspect.isroutine(found):
                homes = (f"emcube.{name}", f"emcube{package}.{name}")
                assert any(f'href="api/{h}.html' in text or f'id="{h}"' in text for h in homes), (
                    name
                )
