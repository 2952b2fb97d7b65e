"""The page of a catalog in a real browser: it searches, asks nobody for anything, and runs no text."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emcube.catalog import add, open_catalog
from emcube.catalog.page import write_page
from tests.catalog.helpers import COMPLETE
from tests.catalog.servers import Server, serving
from tests.conftest import skip_or_fail

EVIL = "</script><script>document.documentElement.dataset.ran=1</script><img src=x onerror='{}'>".format(
    "document.documentElement.dataset.ran=1"
)

#: Types into the box of the page in a frame, as a reader would, and writes down what is then shown.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><pre id="told"></pre><iframe src="site/index.html"></iframe>
<script>
const frame=document.querySelector("iframe");
frame.onload=()=>{
  const page=frame.contentDocument,box=page.getElementById("q"),told={};
  for(const words of %s){
    box.value=words;
    box.dispatchEvent(new frame.contentWindow.Event("input",{bubbles:true}));
    told[words]=[[...page.querySelectorAll("li")].filter(row=>row.offsetHeight>0)
      .map(row=>row.querySelector("h2").textContent),page.getElementById("count").textContent];
  }
  told.pictures=[...page.images].map(image=>image.complete&&image.naturalWidth);
  told.ran=page.documentElement.dataset.ran||null;
  document.getElementById("told").textContent=JSON.stringify(told);
};
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    skip_or_fail("chromium", "Chromium is not installed")
    raise AssertionError


@pytest.fixture
def site(tmp_path: Path, make_store: Callable[..., Path]) -> Iterator[Server]:
    """The page of a catalog on a web server, with the page that uses it."""
    path = tmp_path / "c.yaml"
    add(path, make_store(tmp_path / "discs.zarr"), **COMPLETE)
    add(
        path,
        make_store(tmp_path / "ore.zarr"),
        title="Erz aus Zürich",
        modality="EELS",
        elements=["Fe"],
    )
    add(
        path,
        make_store(tmp_path / "evil.zarr"),
        title=EVIL,
        description=EVIL,
        specimen="Fe " + EVIL,
    )
    page = write_page(open_catalog(path), tmp_path / "site")
    with serving() as server:
        for file in page.parent.rglob("*"):
            if file.is_file():
                server.put(f"/site/{file.relative_to(page.parent).as_posix()}", file)
        yield server


def dom(browser: str, url: str, folder: Path) -> str:
    """The document as it is after its scripts have run."""
    done = subprocess.run(
        [
            browser,
            "--headless",
            # Root's Chromium starts only so; what it opens here comes from this machine.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=200,
        check=True,
    )
    return done.stdout


def test_the_box_searches(browser: str, site: Server, tmp_path: Path) -> None:
    asked = ["", "edx", "chromium NI", "zürich", "fe", "nothing at all"]
    site.put("/harness.html", (HARNESS % json.dumps(asked)).encode())
    text = dom(browser, f"{site.address}/harness.html", tmp_path)
    match = re.search(r'<pre id="told">(.*?)</pre>', text, re.DOTALL)
    assert match is not None, text[:2000]
    told = json.loads(html.unescape(match[1]))
    discs, ore = COMPLETE["title"], "Erz aus Zürich"
    assert told[""] == [[discs, ore, EVIL], "3 of 3 datasets"]
    assert told["edx"] == [[discs], "1 of 3 datasets"]
    assert told["chromium NI"] == [[discs], "1 of 3 datasets"]
    assert told["zürich"] == [[ore], "1 of 3 datasets"]
    assert told["fe"] == [[ore, EVIL], "2 of 3 datasets"]
    assert told["nothing at all"] == [[], "0 of 3 datasets"]
    # The thumbnails came, what a catalog says did not run.
    assert len(told["pictures"]) == 3
    assert all(told["pictures"])
    assert told["ran"] is None
    # Nothing else was asked for than the page and its pictures.
    kinds = {Path(path).suffix for path in site.asked} - {".ico"}
    assert kinds == {".html", ".png"}
    assert not [path for path in site.asked if path.endswith("/x")]


def test_a_link_can_hold_the_question(browser: str, site: Server, tmp_path: Path) -> None:
    text = dom(browser, f"{site.address}/site/index.html?q=z%C3%BCrich", tmp_path)
    rows = re.findall(r"<li ([^>]*)>", text)
    assert len(rows) == 3
    assert [" hidden" in f" {row}" for row in rows] == [True, False, True]
    assert "1 of 3 datasets" in text
    assert "data-ran" not in re.search(r"<html[^>]*>", text)[0]  # type: ignore[index]
