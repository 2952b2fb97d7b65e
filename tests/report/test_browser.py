"""The page in a real browser, from disk, without a network: figures, keys, links between them, axe."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from emcube.recipe import run
from emcube.report import report
from emcube.results import Result
from tests.conftest import skip_or_fail
from tests.report.conftest import make_map

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


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


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a file, offline; whatever the page complains of or asks for fails the test."""
    contexts = []
    wrong: list[str] = []

    def open_file(path: Path, **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: (
                wrong.append(request.url)
                if request.url != path.as_uri() and not request.url.startswith("data:")
                else None
            ),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def file(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(result, tmp_path_factory.mktemp("page") / "report.html")


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def violations(page: Page, *rules: str) -> list[tuple[str, str, str]]:
    """What axe finds, by all its rules or by some."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"runOnly": list(rules)} if rules else None
    found = Axe().run(page, options=options).response["violations"]
    return [(v["impact"], v["id"], v["nodes"][0]["html"][:200]) for v in found]


def unfold(page: Page) -> None:
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    # Not wait_for_function: the page's policy lets nobody evaluate texts, the test included.
    waiting = "[data-parts]:not([data-ready]), [data-curve]:not([data-ready])"
    page.wait_for_selector(waiting, state="detached")


def test_figures_are_drawn(open_page: Open, file: Path, result: Result) -> None:
    page = open_page(file)
    main = page.locator("#answer [data-parts]")
    assert main.locator(".row").count() == 4
    assert main.locator(".row h3").all_text_contents()[-1] == "All together"
    assert "Si Kα" in main.locator(".plot text.peak").all_text_contents()
    colours = page.evaluate(
        """[...document.querySelectorAll('#answer canvas')].map(
            (c) => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)"""
    )
    assert all(n > 10 for n in colours), colours
    assert (
        page.locator("#number .dot.in").count()
        == result["estimate_n_components"].attrs["n_components"]
    )
    unfold(page)
    assert page.locator("[data-parts]").count() == 3


@pytest.mark.parametrize(("scheme", "rules"), [("light", ()), ("dark", ("color-contrast",))])
def test_axe_finds_nothing(
    open_page: Open, file: Path, scheme: Literal["light", "dark"], rules: tuple[str, ...]
) -> None:
    page = open_page(file, color_scheme=scheme)
    unfold(page)
    assert violations(page, *rules) == []


def test_values_under_the_cursor_are_those_of_the_result(
    open_page: Open, file: Path, result: Result
) -> None:
    page = open_page(file)
    loadings = result["nmf"]["loadings"].values
    box = page.locator("#answer .image").nth(0)
    size = box.bounding_box()
    assert size is not None
    y, x = 3, 9
    box.hover(position={"x": (x + 0.5) * size["width"] / 14, "y": (y + 0.5) * size["height"] / 10})
    here = page.locator("#answer .here").all_text_contents()
    step = np.nanmax(loadings) / 65534
    for k in range(3):
        assert numbers(here[k])[0] == pytest.approx(loadings[0, y, x, k], abs=2 * step, rel=1e-3)
    assert numbers(here[3])[0] == result["input"]["total_counts"].values[0, y, x]
    assert "tilt 0°, y 6 nm, x 18 nm" in page.locator("#answer .tip").inner_text()


def test_series_runs_through_its_positions(open_page: Open, file: Path, result: Result) -> None:
    page = open_page(file)
    slider = page.get_by_label("Position")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "tilt 4°"
    page.locator("#answer .image").nth(1).focus()
    page.keyboard.press("ArrowRight")
    here = page.locator("#answer .here").all_text_contents()
    assert numbers(here[1])[0] == pytest.approx(
        result["nmf"]["loadings"].values[2, 5, 8, 1], abs=0.01, rel=1e-3
    )
    # What is read aloud says the same.
    aloud = page.locator("#answer [aria-live]").text_content() or ""
    assert aloud.startswith("tilt 4°, y 10 nm, x 16 nm: Component 0 ")
    page.keyboard.press("Escape")
    assert page.locator("#answer .here").all_text_contents() == [""] * 4


def test_window_maps_what_the_model_has_there(open_page: Open, file: Path, result: Result) -> None:
    page = open_page(file)
    page.get_by_label("Start of the window").fill("5.0")
    page.get_by_label("End of the window").fill("5.8")
    page.keyboard.press("Enter")
    node = result["nmf"]
    shares = node["components"].sel(energy=slice(5.0, 5.8)).sum("energy").values
    expected = node["loadings"].values[0] @ shares
    page.locator("#answer .row.total .image").focus()
    page.keyboard.press("ArrowUp")
    here = page.locator("#answer .row.total .here").inner_text()
    assert numbers(here)[0] == pytest.approx(expected[4, 7], rel=2e-3, abs=0.02)
    assert "5 to 5.8 keV" in page.locator("#answer .row.total .share").inner_text()
    page.get_by_role("button", name="Reset").first.click()
    assert "sum over all pixels" in page.locator("#answer .row.total .share").inner_text()


def test_window_is_dragged_and_zoomed(open_page: Open, file: Path) -> None:
    page = open_page(file)
    plot = page.locator("#answer .row .plot").nth(0)
    box = plot.bounding_box()
    assert box is not None
    before = plot.locator(".tick text").all_text_contents()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    low, high = (
        float(page.get_by_label(f"{end} of the window").input_value()) for end in ("Start", "End")
    )
    assert 1.5 < low < 3.5 < 4.5 < high < 6.5
    assert page.locator("#answer .row.total.held").count() == 1
    page.get_by_role("button", name="Zoom").first.click()
    assert plot.locator(".tick text").all_text_contents() != before
    page.get_by_role("button", name="Reset").first.click()
    assert plot.locator(".tick text").all_text_contents() == before
    assert page.locator("#answer .row.total.held").count() == 0


def test_spectra_are_read_with_keys(open_page: Open, file: Path, result: Result) -> None:
    page = open_page(file)
    plot = page.get_by_role("slider", name="Spectrum of Component 0")
    plot.focus()
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    spectra = result["nmf"]["components"]
    energy, value = numbers(plot.get_attribute("aria-valuetext") or "")
    assert energy == pytest.approx(spectra["energy"].values[3], rel=1e-3)
    assert value == pytest.approx(spectra.values[0, 3], rel=1e-3)
    # All spectra are read at the same energy.
    told = page.locator("#answer .head .value").all_text_contents()
    assert len({text.split(":")[0] for text in told}) == 1
    for kind in ("log", "linear"):
        page.get_by_label("Intensity").first.select_option(kind)
    scree = page.get_by_role("slider", name="Singular values")
    scree.focus()
    page.keyboard.press("ArrowRight")
    assert numbers(scree.get_attribute("aria-valuetext") or "")[1] == pytest.approx(
        float(result["estimate_n_components"]["singular_value"][0]), rel=1e-3
    )


def test_pixels_show_their_own_spectrum(open_page: Open, file: Path, result: Result) -> None:
    page = open_page(file)
    image = page.locator("#answer .image").nth(0)
    size = image.bounding_box()
    assert size is not None
    image.click(position={"x": 7.5 * size["width"] / 14, "y": 5.5 * size["height"] / 10})
    assert page.locator("#answer .row.total.held").count() == 1
    total = page.get_by_role("slider", name="Sum spectrum.")
    total.focus()
    node = result["nmf"]
    model = node["loadings"].values[0, 5, 7] @ node["components"].values
    top = int(np.argmax(model))
    page.keyboard.press("Home")
    for _ in range(top):
        page.keyboard.press("ArrowRight")
    text = (total.get_attribute("aria-valuetext") or "").replace("model of this pixel", "")
    assert numbers(text) == pytest.approx([node["energy"].values[top], model[top]], rel=2e-3)
    page.locator("#answer .image").nth(0).focus()
    page.keyboard.press("Escape")
    assert page.locator("#answer .row.total.held").count() == 0


@pytest.mark.parametrize("width", [320, 1920])
def test_no_window_is_too_narrow(open_page: Open, file: Path, width: int) -> None:
    page = open_page(file, viewport={"width": width, "height": 800})
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints(open_page: Open, file: Path, tmp_path: Path) -> None:
    page = open_page(file, color_scheme="dark")
    data = page.pdf(format="A4", print_background=True)
    assert data.startswith(b"%PDF")
    # Not dark on paper, and nothing is left folded in.
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.get_by_role("button", name="Zoom").first.is_visible()


def test_names_of_strangers_break_and_run_nothing(
    open_page: Open, hostile: Result, tmp_path: Path
) -> None:
    page = open_page(report(hostile, tmp_path / "r.html"))
    assert page.evaluate("document.documentElement.dataset.ran") is None
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    box = page.locator("h1").bounding_box()
    assert box is not None
    assert box["height"] < 200
    assert "</script><script>" in page.locator("h1").inner_text()
    assert violations(page) == []


@pytest.mark.parametrize("shape", [(), (40,), (2, 2, 5, 6)])
def test_scans_spectra_and_series_of_series(
    open_page: Open, shape: tuple[int, ...], tmp_path: Path
) -> None:
    cube = make_map(shape[-3:])
    if len(shape) == 4:
        cube = cube.expand_dims(time=2).copy()
        cube = cube.assign_coords(time=("time", [0.0, 1.0], {"units": "s"}))
    steps = [{"nmf": {"n_components": 1, "random_state": 0}}]
    found = run({"emcube": 1, "steps": steps}, cube, out=tmp_path / "r")
    page = open_page(report(found, tmp_path / "r.html"))
    assert page.locator("#answer .row").count() == 2
    assert page.locator("#answer .image").count() == (2 if len(shape) > 1 else 0)
    if len(shape) == 1:
        assert page.locator("#answer .row .plot").count() == 4
    if len(shape) == 4:
        assert page.get_by_label("Position").get_attribute("aria-valuetext") == "time 0 s, tilt 0°"
    assert violations(page) == []


def test_without_scripts_texts_and_tables_stay(browser: Browser, file: Path) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    text = page.locator("main").inner_text()
    assert "turned off here" in text
    assert "Three components describe this data." in text
    context.close()
