"""Fetching from a real web server: what it does wrong, going on where it stopped, digests, ingest."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emcube as em
from emcube.catalog import add, open_catalog
from emcube.catalog.download import Progress, download
from emcube.catalog.fetch import fetch
from emcube.cli import main
from emcube.errors import CatalogError, InputError, ReadError, StoreError
from tests.catalog.servers import Server, serving

ROOT = Path(__file__).parents[2]
QUICK = {"pause": 0.01, "timeout": 20.0}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def spectrum(n: int = 2000) -> bytes:
    """An EMSA spectrum, which is small and has a header and an end."""
    counts = np.random.default_rng(0).integers(0, 99, n)
    head = (
        f"#FORMAT : EMSA/MAS Spectral Data File\n#NPOINTS : {n}\n#XUNITS : keV\n#XPERCHAN : 0.01\n"
    )
    head += "#OFFSET : 0\n#SIGNALTYPE : EDS\n#BEAMKV : 20\n#SPECTRUM :\n"
    return (head + "\n".join(map(str, counts)) + "\n#ENDOFDATA :\n").encode()


CONTENT = spectrum()
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"


def entry_of(folder: Path, url: str, **metadata: Any) -> Any:
    said = {"checksum": SHA, "checksum_status": "checked", **metadata}
    return add(folder / "c.yaml", url, overwrite=True, **{k: v for k, v in said.items() if v})


# --- the way that it should go ----------------------------------------------------------------------


def test_fetch_checks_and_ingests(server: Server, tmp_path: Path, cache: Path) -> None:
    entry = entry_of(tmp_path, server.put("/lab/map.msa", CONTENT), size=len(CONTENT))
    assert entry.kind == "file"
    assert not entry.available
    with pytest.raises(CatalogError, match=r"has not been fetched; run `emcube catalog fetch"):
        entry.open()
    seen: list[Progress] = []
    found = fetch(entry, progress=seen.append, **QUICK)
    assert seen[-1].done == seen[-1].total == len(CONTENT)
    assert found.downloaded
    assert found.file.read_bytes() == CONTENT
    assert found.file.is_relative_to(cache)
    assert found.checksum == SHA
    # From then on the entry opens, and so does the reference.
    assert entry.available
    assert entry.open().dims == ("energy",)
    assert em.open(f"{tmp_path}/c.yaml:map").sizes["energy"] == 2000
    assert em.store.read_digest(found.store) == found.digest
    # A second time nothing is asked for.
    asked = server.asked.total()
    again = fetch(entry, **QUICK)
    assert not again.downloaded
    assert again.digest == found.digest
    assert server.asked.total() == asked
    assert [p.name for p in found.file.parent.iterdir() if "part" in p.name] == []


def test_md5_is_taken_where_the_source_gives_that(server: Server, tmp_path: Path) -> None:
    entry = entry_of(
        tmp_path, server.put("/a.msa", CONTENT), checksum=MD5, checksum_status="published"
    )
    found = fetch(entry, **QUICK)
    assert found.stated == MD5
    assert found.checksum == SHA


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    there = server.put("/there", CONTENT)
    entry = entry_of(tmp_path, server.put("/a.msa", b"", location=there))
    server.contents["/a.msa"] = b"x"
    assert fetch(entry, **QUICK).checksum == SHA
    # But not to files of this machine.
    bad = entry_of(tmp_path, server.put("/b.msa", b"x", location="file:///etc/passwd"))
    with pytest.raises(CatalogError, match="cannot be fetched"):
        fetch(bad, attempts=2, **QUICK)


# --- digests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [SHA[:-4] + "0000", MD5[:-4] + "0000"])
def test_a_wrong_digest_is_never_opened(
    server: Server, tmp_path: Path, checksum: str, cache: Path
) -> None:
    entry = entry_of(tmp_path, server.put("/a.msa", CONTENT), checksum=checksum)
    with pytest.raises(
        CatalogError, match=f"{len(CONTENT)} bytes with .*, expected {checksum}"
    ) as caught:
        fetch(entry, **QUICK)
    assert "removed" in caught.value.hint
    assert not list(cache.rglob("*.msa"))
    assert not list(cache.rglob("*.zarr"))
    with pytest.raises(CatalogError, match="has not been fetched"):
        entry.open()


def test_an_unchecked_digest_says_so_and_needs_consent(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT)
    entry = entry_of(tmp_path, url, checksum=None, checksum_status=None)
    assert entry.metadata["checksum_status"] == "unchecked"
    with pytest.raises(CatalogError, match=r"nobody has checked its digest.*--accept-digest"):
        fetch(entry, **QUICK)
    assert server.asked.total() == 0
    found = fetch(entry, accept_digest=True, **QUICK)
    assert found.stated == ""
    assert found.checksum == SHA
    # What was accepted is what is expected from then on.
    assert fetch(entry, **QUICK).checksum == SHA
    found.file.unlink()
    server.contents["/a.msa"] = spectrum(1999)
    with pytest.raises(CatalogError, match="as when it was fetched first"):
        fetch(entry, **QUICK)
    # A stated digest that nobody has checked is no better.
    stated = entry_of(tmp_path, server.put("/b.msa", CONTENT), checksum_status="unchecked")
    with pytest.raises(CatalogError, match="it states sha256"):
        fetch(stated, **QUICK)


def test_fetched_data_are_compared_when_they_are_opened(server: Server, tmp_path: Path) -> None:
    entry = entry_of(tmp_path, server.put("/a.msa", CONTENT))
    found = fetch(entry, **QUICK)
    chunk = next(p for p in (found.store / "data" / "c").rglob("*") if p.is_file())
    good = chunk.read_bytes()
    chunk.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(StoreError, match="not what was written"):
        entry.open()
    assert entry.open(verify=False).sizes["energy"] == 2000
    chunk.write_bytes(good)
    assert entry.open().sizes["energy"] == 2000


def test_the_digest_of_the_cube_is_compared_too(server: Server, tmp_path: Path) -> None:
    entry = entry_of(tmp_path, server.put("/a.msa", CONTENT), digest="sha256:" + "0" * 64)
    with pytest.raises(CatalogError, match=r"has the digest sha256:.*expected sha256:0000"):
        fetch(entry, **QUICK)
    assert not entry.available


def test_what_is_no_instrument_file_is_not_ingested(server: Server, tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><title>Log in</title>"
    digest = f"sha256:{hashlib.sha256(page).hexdigest()}"
    entry = entry_of(tmp_path, server.put("/a.msa", page), checksum=digest)
    with pytest.raises(ReadError, match="looks like an HTML page"):
        fetch(entry, **QUICK)
    assert not entry.available


# --- what servers do wrong ---------------------------------------------------------------------------


def test_a_cut_connection_is_continued(server: Server, tmp_path: Path) -> None:
    n = len(CONTENT)
    url = server.put("/a.msa", CONTENT, cuts=[n // 3, n // 3])
    found = fetch(entry_of(tmp_path, url), **QUICK)
    assert found.checksum == SHA
    ranges = [headers.get("Range") for path, headers in server.headers if path == "/a.msa"]
    assert ranges == [None, f"bytes={n // 3}-", f"bytes={2 * (n // 3)}-"]
    assert [h.get("If-Range") for _, h in server.headers] == [None, '"one"', '"one"']


def test_a_server_that_always_stops_is_given_up(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT, cuts=[100] * 50, ranges=False)
    with pytest.raises(
        CatalogError, match=rf"{url} cannot be fetched: .*ended after 100 of"
    ) as caught:
        download(url, tmp_path / "a.msa", attempts=3, **QUICK)
    assert "goes on where it stopped" in caught.value.hint
    assert (tmp_path / "a.msa.part").stat().st_size == 100
    assert not (tmp_path / "a.msa").exists()


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT, cuts=[500], ranges=False)
    assert download(url, tmp_path / "a.msa", **QUICK).read_bytes() == CONTENT


def test_another_version_is_not_continued(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", b"x" * len(CONTENT), cuts=[500] * 9)
    with pytest.raises(CatalogError):
        download(url, tmp_path / "a.msa", attempts=1, **QUICK)
    server.put("/a.msa", CONTENT, etag='"two"')
    assert download(url, tmp_path / "a.msa", **QUICK).read_bytes() == CONTENT


def test_a_length_that_nobody_tells(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT, length=False)
    assert download(url, tmp_path / "a.msa", **QUICK).read_bytes() == CONTENT
    # Where the catalog knows the size, a quiet end too early is noticed all the same.
    url = server.put("/b.msa", CONTENT, length=False, cuts=[500])
    assert download(url, tmp_path / "b.msa", size=len(CONTENT), **QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_passing_errors_are_tried_again(server: Server, tmp_path: Path, code: int) -> None:
    url = server.put("/a.msa", CONTENT, errors=[code, code])
    told: list[Progress] = []
    download(url, tmp_path / "a.msa", progress=told.append, **QUICK)
    assert server.asked["/a.msa"] == 3
    assert f"the server says {code}" in told[0].message


def test_an_error_that_stays_is_told(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT, errors=[500] * 50)
    with pytest.raises(CatalogError, match=r"the server says 500 .*, 3 times in a row"):
        download(url, tmp_path / "a.msa", attempts=3, **QUICK)
    assert server.asked["/a.msa"] == 3


@pytest.mark.parametrize(
    ("code", "hint"), [(404, "check the address"), (403, "restricted"), (410, "address")]
)
def test_what_is_not_there_is_not_tried_again(
    server: Server, tmp_path: Path, code: int, hint: str
) -> None:
    url = server.put("/a.msa", CONTENT, errors=[code])
    with pytest.raises(CatalogError, match=f"the server says {code}") as caught:
        download(url, tmp_path / "a.msa", **QUICK)
    assert hint in caught.value.hint
    assert server.asked["/a.msa"] == 1


def test_a_pause_that_the_server_asks_for(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT, errors=[429], retry_after="1")
    start = time.monotonic()
    download(url, tmp_path / "a.msa", **QUICK)
    assert time.monotonic() - start >= 1


def test_a_slow_server_is_given_up_and_tried_again(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT, waits=[3.0])
    told: list[Progress] = []
    download(url, tmp_path / "a.msa", pause=0.01, timeout=0.5, progress=told.append)
    assert any("time" in one.message.lower() for one in told)


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(
        CatalogError, match=r"http://127.0.0.1:9/a.msa cannot be fetched: .*refused"
    ):
        download("http://127.0.0.1:9/a.msa", tmp_path / "a.msa", attempts=2, **QUICK)


def test_another_size_is_told_before_it_comes(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT)
    with pytest.raises(CatalogError, match=f"a file of {len(CONTENT)} bytes, expected 10"):
        download(url, tmp_path / "a.msa", size=10, **QUICK)
    # And a stream that tells no length is cut off when it has brought enough.
    url = server.put("/b.msa", CONTENT, length=False)
    with pytest.raises(CatalogError, match="more than the 10 bytes"):
        download(url, tmp_path / "b.msa", size=10, **QUICK)
    assert (tmp_path / "b.msa.part").stat().st_size <= 10


def test_no_room(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.put("/a.msa", CONTENT)
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr("emcube.catalog.download.shutil.disk_usage", lambda path: full)
    with pytest.raises(CatalogError, match="10 are free"):
        download(url, tmp_path / "a.msa", **QUICK)


def test_a_killed_download_is_continued(server: Server, tmp_path: Path) -> None:
    """In a process of its own, which is killed half-way; the next one asks for the rest only."""
    n = len(CONTENT)
    # The first half comes, then nothing for a long time.
    url = server.put("/a.msa", CONTENT, cuts=[n // 2], waits=[0.0, 60.0])
    code = (
        "import sys; from pathlib import Path; from emcube.catalog.download import download\n"
        "download(sys.argv[1], Path(sys.argv[2]), pause=0.01, timeout=100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url, str(tmp_path / "a.msa")])
    part = tmp_path / "a.msa.part"
    until = time.monotonic() + 100
    while server.asked["/a.msa"] < 2 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert part.stat().st_size == n // 2
    server.manners["/a.msa"].waits.clear()
    assert download(url, tmp_path / "a.msa", **QUICK).read_bytes() == CONTENT
    assert server.headers[-1][1]["Range"] == f"bytes={n // 2}-"


def test_two_that_fetch_at_once(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.msa", CONTENT, waits=[2.0])
    code = (
        "import sys; from pathlib import Path; from emcube.catalog.download import download\n"
        "download(sys.argv[1], Path(sys.argv[2]), timeout=100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url, str(tmp_path / "a.msa")])
    until = time.monotonic() + 100
    while not server.asked["/a.msa"] and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(StoreError, match="another process"):
        download(url, tmp_path / "a.msa", **QUICK)
    assert process.wait(timeout=100) == 0
    assert (tmp_path / "a.msa").read_bytes() == CONTENT


# --- entries ----------------------------------------------------------------------------------------


def test_there_may_be_nothing_to_fetch(tmp_path: Path) -> None:
    (tmp_path / "a.msa").write_bytes(CONTENT)
    entry = add(tmp_path / "c.yaml", tmp_path / "a.msa")
    with pytest.raises(CatalogError, match="has nothing to fetch"):
        fetch(entry, **QUICK)


@pytest.mark.parametrize(
    "name", ["../../escape.msa", "/etc/escape.msa", "..\\escape.msa", ".hidden.msa", "a:b?.msa"]
)
def test_names_of_files_stay_names(server: Server, tmp_path: Path, name: str, cache: Path) -> None:
    entry = entry_of(tmp_path, server.put("/a.msa", CONTENT), filename=name)
    found = fetch(entry, **QUICK)
    assert found.file.parent.parent == cache / "datasets"
    assert found.file.suffix == ".msa"
    assert not found.file.name.startswith(".")


def test_a_checksum_of_an_unknown_kind(server: Server, tmp_path: Path) -> None:
    entry = entry_of(tmp_path, server.put("/a.msa", CONTENT))
    entry.metadata["checksum"] = "crc32:1234"
    with pytest.raises(InputError, match="expected md5, sha1, sha256 or sha512"):
        fetch(entry, **QUICK)


def test_the_verb(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry_of(tmp_path, server.put("/good.msa", CONTENT))
    entry_of(tmp_path, server.put("/new.msa", CONTENT), checksum=None, checksum_status=None)
    catalog = str(tmp_path / "c.yaml")
    assert main(["catalog", "show", catalog]) == 0
    shown = capsys.readouterr().out
    assert "to be fetched" in shown
    assert "digest unchecked" in shown
    assert main(["catalog", "fetch", catalog, "good", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["fetched"]
    assert found["checksum"] == SHA
    assert main(["catalog", "fetch", catalog, "new"]) == 2
    assert "--accept-digest" in capsys.readouterr().err
    assert main(["catalog", "fetch", catalog, "new", "--accept-digest"]) == 0
    assert "not checked by anybody" in capsys.readouterr().out
    assert main(["catalog", "show", catalog, "good"]) == 0
    assert "2000" in capsys.readouterr().out


def test_what_was_accepted_is_recorded_in_the_catalog(
    server: Server,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = entry_of(tmp_path, server.put("/new.msa", CONTENT), checksum=None, checksum_status=None)
    catalog = str(tmp_path / "c.yaml")
    assert main(["catalog", "fetch", catalog, "new", "--accept-digest"]) == 0
    assert f"recorded in {catalog} as accepted on first fetch" in capsys.readouterr().out
    known = open_catalog(catalog)["new"]
    assert known.metadata["checksum"] == SHA
    assert known.metadata["checksum_status"] == "accepted"
    assert known.metadata["size"] == len(CONTENT)
    assert known.metadata["shape"] == [2000]
    # What lies in the cache is what the entry means now, and an entry that was opened before knows it.
    assert known.open().shape == entry.open().shape == (2000,)
    asked = server.asked.total()
    assert not fetch(known, **QUICK).downloaded
    assert server.asked.total() == asked
    assert main(["catalog", "show", catalog]) == 0
    assert "EDS, 2000" in capsys.readouterr().out
    # A colleague gets other bytes under the same address, and is told.
    monkeypatch.setenv("EMCUBE_CACHE", str(tmp_path_factory.mktemp("colleague")))
    server.contents["/new.msa"] = CONTENT.replace(b"#SPECTRUM :\n8", b"#SPECTRUM :\n7")
    assert server.contents["/new.msa"] != CONTENT
    with pytest.raises(CatalogError, match=f"is not the file that was meant: .* expected {SHA}"):
        fetch(known, **QUICK)
    # One who had accepted these before, too; the right ones then take their place.
    early = fetch(entry, accept_digest=True, **QUICK)
    assert early.recorded == ""
    assert f"states {SHA} by now" in early.not_recorded
    with pytest.raises(CatalogError, match="has the digest"):
        known.open()
    server.contents["/new.msa"] = CONTENT
    with pytest.raises(CatalogError, match=f"expected {SHA}"):
        fetch(known, **QUICK)
    assert fetch(known, **QUICK).checksum == SHA
    assert known.open().shape == (2000,)


def test_a_catalog_that_cannot_be_written_is_named(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry_of(tmp_path, server.put("/new.msa", CONTENT), checksum=None, checksum_status=None)
    catalog = tmp_path / "c.yaml"
    before = catalog.read_text()

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr("emcube.catalog.document.replace_file", refuse)
    assert main(["catalog", "fetch", str(catalog), "new", "--accept-digest"]) == 0
    out = capsys.readouterr().out
    assert "only this cache compares from now on" in out
    assert "Permission denied" in out
    assert catalog.read_text() == before
    # The listing knows the form of what was fetched from its store.
    assert main(["catalog", "show", str(catalog)]) == 0
    assert "EDS, 2000" in capsys.readouterr().out


# --- published data ----------------------------------------------------------------------------------


def test_the_public_catalog_is_complete() -> None:
    catalog = open_catalog(ROOT / "catalogs" / "public.yaml")
    assert len(catalog) >= 8
    for name, entry in catalog.items():
        known = entry.known
        assert known.extra == {}, name
        assert entry.target.kind == "file"
        assert entry.target.location.startswith("https://")
        assert known.title
        assert known.description
        assert known.modality
        assert known.filename
        assert known.checksum
        assert known.checksum_status in ("checked", "published")
        assert known.size or known.size_about
        assert known.license or "No licence is stated" in known.description
        for one in known.related:
            assert one.entry in catalog
    assert len(catalog.search(modality="4D-STEM")) == 8
    assert "dacite-p45" in catalog.search("edx mineralogy")


@pytest.mark.realdata
def test_published_data_come_from_a_server_under_the_same_paths(
    server: Server, data_dir: Path, tmp_path: Path
) -> None:
    server.by_name = {p.name: p for p in data_dir.rglob("*") if p.is_file()}
    text = (ROOT / "catalogs" / "public.yaml").read_text()
    (tmp_path / "public.yaml").write_text(text.replace("https://", f"{server.address}/"))
    catalog = open_catalog(tmp_path / "public.yaml")
    shapes = {
        "dacite-p45": (75, 100, 2048),
        "k412-glass": (4096,),
        "sio2-standard": (4096,),
        "mgo-standard": (4096,),
        "fe-standard": (4096,),
        "cuzn-eels": (50, 40, 162),
        "cuzn-haadf": (50, 40),
        "lsmo-line": (40, 586),
        "lsmo-line-low-loss": (40, 1024),
    }
    for name, shape in shapes.items():
        found = fetch(catalog[name], **QUICK)
        assert found.stated == catalog[name].metadata["checksum"]
        assert em.open(f"{tmp_path}/public.yaml:{name}").shape == shape
    paths = [path for path, _ in server.headers]
    assert any(path.startswith("/github.com/hyperspy/rosettasciio/raw/") for path in paths)
    with pytest.raises(CatalogError, match="the server says 404"):
        fetch(catalog["mgo-nanocrystals"], **QUICK)
