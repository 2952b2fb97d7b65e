"""The gate, the visits and the messages of the explorer's server, without a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

import emcube
from emcube.cli import main
from emcube.errors import InputError, ReadError
from emcube.explore import Explorer, Session, explore, gate
from emcube.explore.jobs import Job
from emcube.explore.panes import curve_pane
from emcube.store import write_cube
from tests.explore.cubes_for_tests import three_phases

HOSTILE = "<script>document.documentElement.dataset.ran=1</script>\"'`${1}{{7*7}}<!-- 結晶 \u202e"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cubes") / "map.zarr"
    write_cube(three_phases(HOSTILE + "長" * 10_000), path)
    return path


@pytest.fixture(scope="module")
def explorer(store: Path) -> Iterator[Explorer]:
    with explore(store, browser=False, block=False) as served:
        yield served


def request(
    explorer: Explorer, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Ask for a path as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", explorer.port, timeout=60)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def base(explorer: Explorer) -> str:
    """Path of the page."""
    return "/" + explorer.url.split("/", 3)[3]


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Protocol": "bokeh, x",
}

PLACES = ["", "page/page.js", "static/js/bokeh.min.js", "ws", "visit", "files/a/b", "autoload.js"]


# ------------------------------------------------------------------------------------------------ the gate


@pytest.mark.parametrize("place", [*PLACES, "favicon.ico", "metadata", "no/such/thing"])
@pytest.mark.parametrize("token", ["", "wrong/", "{short}/", "{longer}/"])
def test_nothing_is_answered_without_the_token(explorer: Explorer, place: str, token: str) -> None:
    right = base(explorer).strip("/")
    wrong = token.format(short=right[:-1], longer=right + "x")
    status, headers, body = request(
        explorer, f"/{wrong}{place}", **UPGRADE if place == "ws" else {}
    )
    assert status == 403
    assert b"wrong token" in body
    assert right.encode() not in body
    assert "Content-Security-Policy" in headers


def test_with_the_token_all_parts_are_there(explorer: Explorer) -> None:
    for place in ("", "page/page.js", "page/page.css", "page/icon.svg", "static/js/bokeh.min.js"):
        status, headers, body = request(explorer, base(explorer) + place)
        assert (status, bool(body)) == (200, True), place
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "script-src 'self';" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
    assert request(explorer, base(explorer).rstrip("/"))[0] == 302


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:1"]
)
def test_another_host_is_refused(explorer: Explorer, host: str) -> None:
    # As after DNS rebinding: the name is the stranger's, the address is ours.
    status, _, body = request(explorer, base(explorer), Host=host.format(port=explorer.port))
    assert (status, b"unknown host" in body) == (403, True)


@pytest.mark.parametrize("place", ["visit", "ws", "page/page.js"])
def test_another_origin_is_refused(explorer: Explorer, place: str) -> None:
    method = "POST" if place == "visit" else "GET"
    more = UPGRADE if place == "ws" else {}
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{explorer.port + 1}"):
        status, _, body = request(explorer, base(explorer) + place, method, Origin=origin, **more)
        assert (status, b"another origin" in body) == (403, True), origin
    ours = f"http://127.0.0.1:{explorer.port}"
    expected = 101 if place == "ws" else 200
    if place == "ws":
        # The rest of the handshake is Bokeh's; it begins.
        with socket.create_connection(("127.0.0.1", explorer.port), timeout=60) as raw:
            lines = [f"GET {base(explorer)}ws HTTP/1.1", f"Host: 127.0.0.1:{explorer.port}"]
            lines += [f"{k.replace('_', '-')}: {v}" for k, v in {**UPGRADE, "Origin": ours}.items()]
            raw.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            assert f" {expected} ".encode() in raw.recv(200)
    else:
        assert request(explorer, base(explorer) + place, method, Origin=ours)[0] == expected


def test_an_origin_that_is_no_address_is_refused(explorer: Explorer) -> None:
    status, _, body = request(explorer, base(explorer), Origin="http://[")
    assert (status, b"another origin" in body) == (403, True)


def test_a_browser_is_started_with_an_address_that_works_once(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Everybody on the machine sees what a program is started with.
    started: list[str] = []
    monkeypatch.setattr("webbrowser.open", started.append)
    explorer.open_browser()
    path = "/" + started[0].split("/", 3)[3]
    assert base(explorer).strip("/") not in started[0]
    assert request(explorer, path, Host="evil.example")[0] == 403
    assert request(explorer, path, Origin="http://evil.example")[0] == 403
    assert request(explorer, path + "/page/page.js")[0] == 403
    assert request(explorer, path, "HEAD")[0] == 405
    status, headers, _ = request(explorer, path)
    assert (status, urljoin(started[0], headers["Location"])) == (303, explorer.url)
    status, headers, body = request(explorer, path)
    assert (status, "Location" in headers, b"wrong token" in body) == (403, False, True)


def test_an_address_that_works_once_does_not_work_for_long(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr("webbrowser.open", started.append)
    monkeypatch.setattr(gate, "TICKET_LIFE", -1.0)
    explorer.open_browser()
    assert request(explorer, "/" + started[0].split("/", 3)[3])[0] == 403


def test_only_loopback_is_listened_to(explorer: Explorer) -> None:
    import psutil

    mine = [c for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"]
    assert {c.laddr.ip for c in mine if c.laddr.port == explorer.port} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "path",
    [
        "page/../gate.py",
        "page/%2e%2e/gate.py",
        "page/..%2fgate.py",
        "page//etc/passwd",
        "static/../gate.py",
    ],
)
def test_no_other_file_is_served(explorer: Explorer, path: str) -> None:
    status, _, body = request(explorer, base(explorer) + path)
    assert status in (403, 404)
    assert b"import" not in body


def test_the_page_names_no_other_host() -> None:
    for part in resources.files("emcube.explore").joinpath("page").iterdir():
        found = re.findall(r"https?://[^\s\"'`]+", part.read_text(encoding="utf-8"))
        assert set(found) <= {"http://www.w3.org/2000/svg"}, part.name


def test_a_proxy_that_was_named_may_ask(store: Path) -> None:
    with Explorer(address="https://hub.example.org/user/me/proxy/{port}/") as served:
        assert served.url.startswith(f"https://hub.example.org/user/me/proxy/{served.port}/")
        path = "/" + served.url.rstrip("/").rsplit("/", 1)[1] + "/"
        told = {"Host": "hub.example.org", "Origin": "https://hub.example.org"}
        assert request(served, path, **told)[0] == 200
        assert request(served, path, Host="other.example.org")[0] == 403


# -------------------------------------------------------------------------------------------------- visits


def begin(explorer: Explorer, visit: str | None = None) -> dict[str, Any]:
    status, _, body = request(
        explorer, base(explorer) + "visit", "POST", json.dumps({"visit": visit})
    )
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


class Page:
    """A page without a browser: it asks and looks on the server's side of the socket."""

    def __init__(self, explorer: Explorer) -> None:
        before = explorer.visits
        self.name = begin(explorer)["visit"]
        self.visit = next(v for v in explorer.visits if v not in before)

    def ask(self, what: str, **more: Any) -> None:
        self.raw(json.dumps({"do": what, **more}))

    def raw(self, text: str) -> None:
        self.visit.document.add_next_tick_callback(lambda: self.visit.act(text))

    def pane(self, name: str) -> Any:
        return json.loads(getattr(self.visit.bridge, name))

    def until(self, pane: str, holds: Callable[[Any], Any], seconds: float = 120) -> Any:
        end = time.monotonic() + seconds
        while not holds(found := self.pane(pane)):
            assert time.monotonic() < end, (pane, str(found)[:2000], self.pane("notices"))
            time.sleep(0.01)
        return found


@pytest.fixture
def page(explorer: Explorer) -> Page:
    return Page(explorer)


def test_a_reload_finds_its_visit_and_others_do_not(explorer: Explorer) -> None:
    first = begin(explorer)
    again, other = begin(explorer, first["visit"]), begin(explorer, "made-up")
    assert (again["visit"], again["again"]) == (first["visit"], True)
    assert other["visit"] not in (first["visit"], "made-up")
    assert set(first["roots"]) == {"bridge", "image", "map", "spectrum", "pattern"}
    assert request(explorer, base(explorer) + "visit", "POST", "[1")[0] == 400


def test_looking_setting_and_running(explorer: Explorer, page: Page) -> None:
    cube = page.until("cube", lambda c: c and c["has"] and c["images"])
    assert cube["title"].startswith("<script>")
    assert len(cube["title"]) <= 200
    assert cube["images"] == ["total counts", "haadf"]
    page.until("view", lambda v: v["spectrum"]["note"].endswith("in 768 pixels"))
    page.ask("region", spans={"y": ["5", "9"], "x": ["6", "9"]})
    view = page.until("view", lambda v: v["spectrum"]["note"].endswith("in 20 pixels"))
    assert view["region"]["said"] == "20 pixels"
    assert [one["label"] for one in view["legend"]] == ["region", "all pixels"]
    page.ask("window", ends={"energy": ["1.5", "2"]})
    view = page.until("view", lambda v: v["map"]["scale"] and not v["reads"])
    assert view["map"]["title"] == "energy 1.5 to 2 keV"
    page.ask("use-window")
    page.ask("drop-region")
    found = page.until("settings", lambda s: s["used"])
    assert found["prepare"] == [
        "Window energy 1.5 to 2",
        "Leave out a rectangle of 5 × 4 pixels",
    ]
    assert found["used"] == "748 of 768 pixels are used"
    page.ask("clear-prepare")
    page.ask("set", step="nmf", name="n_components", value="3")
    page.ask("set", step="nmf", name="random_state", value="0")
    for step in ("kmeans", "pca", "estimate_n_components"):
        page.ask("step", step=step, on=False)
    page.until(
        "settings",
        lambda s: [x["values"] for x in s["steps"]] == [{"n_components": "3", "random_state": "0"}],
    )
    page.ask("preview")
    outcomes = page.until("outcomes", lambda o: o and o[0].get("chosen"))
    assert outcomes[0]["preview"]
    page.ask("run")
    outcomes = page.until("outcomes", lambda o: len(o) == 2 and o[0]["chosen"][0] == 2)
    assert [len(step["parts"]) for step in outcomes[0]["steps"]] == [3]
    assert outcomes[0]["steps"][0]["parts"][0]["thumb"].startswith("data:image/png;base64,")
    page.ask("compare", first=2, second=1)
    found = page.until("comparison", lambda c: c)
    assert len(found["pairs"]) == 3


def test_a_report_is_shown_in_an_origin_of_its_own(
    explorer: Explorer, page: Page, tmp_path: Path
) -> None:
    page.until("cube", lambda c: c and c["has"])
    for step in ("kmeans", "nmf", "estimate_n_components"):
        page.ask("step", step=step, on=False)
    page.until("settings", lambda s: s and [x["verb"] for x in s["steps"]] == ["pca"])
    page.ask("run")
    page.until("outcomes", lambda o: o)
    page.ask("report", outcome=1, path=str(tmp_path / "r.html"))
    notices = page.until("notices", lambda n: any(one.get("link") for one in n))
    link = f"{base(explorer)}files/{page.name}/{notices[-1]['link']}"
    status, headers, body = request(explorer, link)
    assert (status, body) == (200, (tmp_path / "r.html").read_bytes())
    assert headers["Content-Security-Policy"].startswith("sandbox")
    assert request(explorer, link.replace(page.name, "other"))[0] == 404
    assert request(explorer, link + "x")[0] == 404


def test_what_goes_wrong_is_a_message_and_the_page_lives(page: Page) -> None:
    page.until("view", lambda v: v["ready"])
    deeds: list[tuple[str, dict[str, Any], str]] = [
        ("no-such-deed", {}, "nothing that can be done"),
        ("__class__", {}, "nothing that can be done"),
        ("open", {"source": "/no/such/file.bcf"}, "/no/such/file.bcf"),
        ("window", {"ends": {"energy": ["a", "2"]}}, "expected a number"),
        ("window", {"ends": {"energy": ["900", "901"]}}, "energy"),
        ("region", {"spans": {"y": ["5", "999"], "x": ["0", "1"]}}, "0 to 23"),
        ("elements", {"elements": "Fe Qq"}, "Qq"),
        ("set", {"step": "pca", "name": "n_components", "value": "-3"}, "n_components"),
        ("part", {"outcome": 7, "step": "nmf", "k": 0}, "there is no result 7"),
        ("bins", {"factors": {"y": "0"}}, "cannot bin"),
    ]
    for what, more, said in deeds:
        page.ask(what, **more)
        found = page.until("notices", lambda n, said=said: any(said in one["what"] for one in n))
        one = next(one for one in found if said in one["what"])
        assert one["hint"] or "expected" in one["what"], one
    for text in ("not json", "[1, 2]", '"' + "x" * 300_000 + '"', '{"do": {"a": 1}}'):
        page.raw(text)
    page.ask("dismiss", id=-1)
    page.ask("scaling", scaling="log")
    page.until("view", lambda v: v["scaling"] == "log")


def test_a_run_that_is_asked_for_twice_runs_once(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.until("view", lambda v: v["ready"])
    session = page.visit.session
    assert session is not None
    starting, go, started = threading.Event(), threading.Event(), list[Job[Any]]()

    def until_cancelled(job: Job[Any]) -> None:
        while True:
            job.check()
            time.sleep(0.01)

    def slow() -> Job[Any]:
        starting.set()
        assert go.wait(60)
        started.append(Job("preview", until_cancelled).start())
        return started[-1]

    monkeypatch.setattr(session, "preview", slow)
    page.ask("preview")
    assert starting.wait(60)
    page.ask("preview")
    page.ask("no-such-deed")
    page.until("notices", lambda n: n)  # the page has heard of both
    go.set()
    page.until("notices", lambda n: any("still running" in one["what"] for one in n))
    page.until("job", lambda j: j["on"])
    page.ask("cancel")
    page.until("job", lambda j: not j["on"])
    assert [job.state for job in started] == ["cancelled"]


def test_a_dataset_that_does_not_open_leaves_the_other_one(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emcube.catalog import add
    from emcube.explore import session as module

    catalog = tmp_path / "catalog.yaml"
    add(catalog, store, name="good")
    with explore(catalog, browser=False, block=False) as served:
        page = Page(served)
        page.until("catalog", lambda c: c)
        making, go, really = threading.Event(), threading.Event(), module._coarse_of

        def slow(opened: Any, check: Callable[[], None]) -> Any:
            making.set()
            while not go.is_set():
                check()
                time.sleep(0.01)
            return really(opened, check)

        monkeypatch.setattr(module, "_coarse_of", slow)
        page.ask("choose", entry="good")
        assert making.wait(60)
        page.ask("choose", entry="no such entry")
        page.until("notices", lambda n: any("no such entry" in one["what"] for one in n))
        go.set()
        page.until("view", lambda v: v["ready"] and v["spectrum"]["note"].endswith("768 pixels"))


def test_a_curve_without_a_threshold_is_shown() -> None:
    # So few counts that no noise can be told from them.
    few = three_phases()[:2, :3, :8]
    estimate = emcube.estimate_n_components(few.copy(data=few.values * 0))
    assert estimate.threshold != estimate.threshold
    pane = curve_pane(estimate)
    assert json.loads(json.dumps(pane, allow_nan=False))["threshold"] is None


def test_visits_do_not_disturb_each_other(explorer: Explorer, page: Page) -> None:
    other = Page(explorer)
    for one in (page, other):
        one.until("cube", lambda c: c and c["has"])
    page.ask("step", step="pca", on=False)
    page.until("settings", lambda s: s and "pca" not in [x["verb"] for x in s["steps"]])
    page_scaling = page.pane("view")["scaling"]
    other.ask("scaling", scaling="log")
    other.until("view", lambda v: v["scaling"] == "log")
    assert "pca" in [x["verb"] for x in other.pane("settings")["steps"]]
    assert page.pane("view")["scaling"] == page_scaling


# ------------------------------------------------------------------------------------ beginning and ending


def test_a_port_that_is_taken_is_said(explorer: Explorer) -> None:
    with pytest.raises(InputError, match=f"port {explorer.port}"):
        Explorer(port=explorer.port)


def test_what_cannot_be_opened_is_said_before_anything_is_served(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises((ReadError, FileNotFoundError), match=r"nothing\.bcf"):
        explore(tmp_path / "nothing.bcf", browser=False, block=False)
    assert threading.active_count() <= before


def test_closing_ends_visits_and_serving(store: Path) -> None:
    served = emcube.explore(store, browser=False, block=False)
    page = Page(served)
    page.until("cube", lambda c: c and c["has"])
    visit, session = served.visits[0], served.visits[0].session
    assert session is not None
    folder = session.folder
    assert folder.is_dir()
    served.close()
    served.close()
    visit.join(60)
    assert not folder.exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", served.port), timeout=5)
    assert "closed" in repr(served)


def test_whatever_a_page_opens_is_closed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Session] = []
    began, go = threading.Semaphore(0), threading.Semaphore(0)
    really = Session.open

    def slow(source: str) -> Session:
        opened.append(really(source))
        began.release()
        assert go.acquire(timeout=60)
        return opened[-1]

    monkeypatch.setattr(Session, "open", slow)
    with Explorer() as served:
        page = Page(served)
        page.ask("open", source=str(store))
        assert began.acquire(timeout=60)
        # Another one is asked for before the first is there: that one is never shown.
        page.ask("open", source=str(store))
        page.ask("no-such-deed")
        page.until("notices", lambda n: n)
        go.release(2)
        assert began.acquire(timeout=60)
        page.until("cube", lambda c: c and c["has"])
        end = time.monotonic() + 60
        while opened[0].folder.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert opened[1].folder.is_dir()
        # The page goes while a third one is being opened.
        page.ask("open", source=str(store))
        assert began.acquire(timeout=60)
        page.visit.end()
        go.release()
        page.visit.join(60)
        assert [s.folder.exists() for s in opened] == [False] * 3


def test_what_nobody_closed_is_closed_at_the_end_of_the_program(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_end: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", at_end.append)
    monkeypatch.setattr("atexit.unregister", at_end.remove)
    served = explore(store, browser=False, block=False)
    page = Page(served)
    page.until("cube", lambda c: c and c["has"])
    session = page.visit.session
    assert session is not None
    assert session.folder.is_dir()
    # Libraries that are imported meanwhile may have something to do at the end, too.
    (end,) = [f for f in at_end if f == served.close]
    end()
    assert not session.folder.exists()
    assert served.close not in at_end


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_terminal_that_is_closed_ends_in_order(name: str) -> None:
    from emcube.cli.explore import _ending_in_order

    number = getattr(signal, name, None)
    if number is None:  # Windows has no SIGHUP
        assert os.name == "nt"
        return
    # Tests may run under nohup themselves.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit), _ending_in_order():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
        # As nohup has it.
        signal.signal(number, signal.SIG_IGN)
        with _ending_in_order():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_the_command_prints_the_address(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str]] = []

    def look(self: Explorer) -> None:
        status, _, body = request(self, base(self))
        asked.append((status, body.decode()))

    monkeypatch.setattr(Explorer, "wait", look)
    assert main(["explore", str(store), "--no-browser", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["url"].startswith(f"http://127.0.0.1:{printed['port']}/")
    assert len(printed["url"].split("/")[3]) >= 43
    assert asked[0][0] == 200
    assert "emcube explorer" in asked[0][1]


def test_the_command_refuses_what_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", str(tmp_path / "nothing.zarr"), "--no-browser"]) == 2
    assert "nothing.zarr" in capsys.readouterr().err
