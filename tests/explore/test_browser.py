"""A whole visit in a real browser: the demo's scene and the real map of FePt, catalog to recipe."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from emcube import scenes
from emcube.catalog import add, create
from emcube.cli import main
from emcube.explore import Explorer, explore
from emcube.store import write_cube
from tests.conftest import skip_or_fail
from tests.explore.cubes_for_tests import three_phases

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

HOSTILE = (
    "</script><script>document.documentElement.dataset.ran=1</script>"
    "<img src=x onerror='document.documentElement.dataset.ran=1'>\"'`${1}{{7*7}}<!-- 結晶 صورة"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
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


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """The demo's scene, the real map, and what a stranger called his."""
    folder = tmp_path_factory.mktemp("catalog")
    scene = scenes.srm2135c(scale=0.08, random_state=0)
    write_cube(scene.cube, folder / "srm2135c.zarr")
    write_cube(three_phases(HOSTILE + "長" * 10_000), folder / "strange.zarr")
    path = folder / "catalog.yaml"
    create(path, title=HOSTILE)
    add(path, folder / "srm2135c.zarr", name="srm2135c", title="Ni/Cr multilayer needle")
    # A catalog reaches its own folder only.
    shutil.copy(data_dir / "eds_tem_fept" / "core_shell.hspy", folder)
    add(path, folder / "core_shell.hspy", name="fept", title="FePt nanoparticles")
    add(path, folder / "strange.zarr", name="strange", title=HOSTILE + "長" * 10_000)
    return path


@pytest.fixture(scope="module")
def explorer(catalog: Path) -> Iterator[Explorer]:
    with explore(catalog, browser=False, block=False) as served:
        yield served


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser, explorer: Explorer) -> Iterator[Open]:
    """Open the page; whatever it complains of, or asks of another host, fails the test."""
    contexts = []
    wrong: list[str] = []

    def opened(url: str | None = None, **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 800})
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)
        ours = explorer.url.split("://", 1)[1]
        page.on(
            "console",
            lambda said: (
                wrong.append(f"{said.type}: {said.text}")
                if said.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                wrong.append(asked.url)
                if not asked.url.startswith((f"http://{ours}", "data:", "blob:"))
                else None
            ),
        )
        page.on(
            "websocket",
            lambda one: wrong.append(one.url) if not one.url.startswith(f"ws://{ours}") else None,
        )
        page.goto(url or explorer.url)
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def drag(page: Page, where: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over a plot, in shares of its sides."""
    box = page.locator(where).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0] * box["width"], box["y"] + end[1] * box["height"], steps=6)
    page.mouse.up()


def choose(page: Page, entry: str) -> None:
    """Choose a dataset of the catalog and wait until it is seen."""
    page.locator(f"[data-entry={entry}]").click()
    page.wait_for_selector(f"[data-entry={entry}][aria-current=true]")
    page.wait_for_selector("#spectrum-note:text('pixels')")


def only(page: Page, *steps: str) -> None:
    """Tick these methods and no other ones."""
    for box in page.locator("#methods > .method").all():
        name, tick = box.get_attribute("data-step"), box.locator("[data-on]")
        tick.set_checked(name in steps)
        page.wait_for_selector(
            f".method[data-step={name}]{':not(.off)' if name in steps else '.off'}"
        )


def give(page: Page, field: str, value: str) -> None:
    """Type a parameter, as `nmf-n_components`."""
    page.locator(f"#{field}").fill(value)
    page.locator(f"#{field}").press("Enter")


def run_ids(page: Page) -> list[str]:
    return page.locator("[data-run-id]").all_text_contents()


def violations(page: Page) -> list[tuple[str, str, str]]:
    """What axe finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(v["impact"], v["id"], v["nodes"][0]["html"][:200]) for v in found]


@pytest.mark.realdata
def test_a_whole_visit(open_page: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = open_page()
    choose(page, "fept")
    # A region, its spectrum; a window, its map.
    whole = page.locator("#spectrum-note").inner_text()
    assert whole.endswith("in 4,096 pixels")
    drag(page, "#plot-image", (0.4, 0.4), (0.6, 0.6))
    page.wait_for_selector("#region-said:not(:text('All pixels')):text('pixels')")
    assert page.locator("#spectrum-note").inner_text() != whole
    drag(page, "#plot-spectrum", (0.3, 0.5), (0.4, 0.5))
    page.wait_for_selector("#map-title:text(' keV')")
    page.wait_for_selector("#map-scale i.sequential")
    page.get_by_label("energy: start of the window").fill("9.2")
    page.get_by_label("energy: end of the window").fill("9.7")
    page.keyboard.press("Enter")
    page.wait_for_selector("#map-title:text('9.2 to 9.7 keV')")
    # A preview, then everything.
    page.locator("[data-do=clear-region]").click()
    only(page, "nmf")
    give(page, "nmf-n_components", "3")
    give(page, "nmf-random_state", "0")
    page.get_by_role("button", name="Preview").click()
    page.wait_for_selector("#tab-results[aria-selected=true]")
    page.wait_for_selector(".outcome .parts [aria-pressed=true]")
    page.locator("#tab-steps").click()
    page.get_by_role("button", name="Run on everything").click()
    page.wait_for_selector(".outcome:nth-child(1) [data-run-id='2']")
    page.locator(".outcome").first.locator("[data-part='1']").click()
    page.wait_for_selector("#map-title:text('component 1')")
    run_id = run_ids(page)[0]
    # The recipe alone gives the same run.
    page.get_by_role("button", name="Show recipe").click()
    page.wait_for_selector("#text-recipe:text('nmf')")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(page.locator("#text-recipe").text_content() or "")
    capsys.readouterr()
    assert main(["run", str(recipe), "--out", str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == run_id
    page.get_by_role("button", name="Show Python").click()
    assert "emcube" in (page.locator("#text-script").text_content() or "")
    # A reload finds all of it again.
    page.reload()
    page.wait_for_selector("[data-run-id='2']")
    assert run_ids(page)[0] == run_id
    assert violations(page) == []


def test_a_run_is_cancelled(open_page: Open) -> None:
    page = open_page()
    choose(page, "srm2135c")
    only(page, "nmf")
    give(page, "nmf-n_components", "3")
    page.locator("[data-step=nmf] details summary").click()
    give(page, "nmf-max_iter", "100000")
    give(page, "nmf-tol", "0")
    page.wait_for_selector(".method[data-step=nmf]")
    page.get_by_role("button", name="Run on everything").click()
    page.wait_for_selector("#progress-said:text('pass')")
    # The page answers while it runs.
    page.locator("#positions input").press("ArrowRight")
    page.wait_for_selector("#positions output:not(:text('0°'))")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.wait_for_selector(".notice:has-text('was cancelled')")
    assert page.get_by_role("button", name="Run on everything").is_enabled()
    # A wrong value is a message.
    give(page, "nmf-n_components", "-1")
    page.wait_for_selector(".notice.error:has-text('n_components')")


def test_names_of_strangers_break_and_run_nothing(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    choose(page, "strange")
    assert "</script><script>" in page.locator("#title").inner_text()
    page.get_by_role("button", name="Show recipe").click()
    assert page.evaluate("document.documentElement.dataset.ran") is None
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    for part in ("header.bar", "#left", "#right"):
        box = page.locator(part).bounding_box()
        assert box is not None
        assert box["height"] <= 800
    assert violations(page) == []


def test_two_browsers_have_two_visits_and_a_wrong_token_none(
    open_page: Open, browser: Browser, explorer: Explorer
) -> None:
    first, second = open_page(), open_page(viewport={"width": 1920, "height": 1080})
    choose(first, "srm2135c")
    choose(second, "fept")
    second.locator("#scaling").select_option("log")
    assert first.locator("[data-entry=srm2135c]").get_attribute("aria-current") == "true"
    assert first.locator("#scaling").input_value() == "sqrt"
    stranger = browser.new_context().new_page()
    wrong = re.sub(r"/[^/]+/$", "/guess/", explorer.url)
    answer = stranger.goto(wrong)
    assert answer is not None
    assert answer.status == 403
    # Nor does a page of somebody else reach the socket: its origin is not ours.
    found = stranger.evaluate(
        """(url) => new Promise((done) => {
            const socket = new WebSocket(url, ["bokeh", "x"]);
            socket.onopen = () => done("open"); socket.onerror = () => done("refused"); })""",
        re.sub("^http", "ws", wrong) + "ws",
    )
    assert found == "refused"
    stranger.context.close()
