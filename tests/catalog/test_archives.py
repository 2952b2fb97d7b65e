"""Zip archives that are fetched: unpacked within the cache, and refused where they are dangerous."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emcube.catalog import add
from emcube.catalog.fetch import fetch
from emcube.errors import CatalogError
from tests.catalog.helpers import SPECTRUM
from tests.catalog.servers import Server, serving

QUICK = {"pause": 0.01, "timeout": 20.0}
GOOD = SPECTRUM.format(title="a", kv=20, counts="1\n2\n3\n4").encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def packed(
    *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def entry_of(
    server: Server, folder: Path, content: bytes, name: str = "data.zip", **metadata: Any
) -> Any:
    url = server.put(f"/{name}", content)
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    said = {"checksum": checksum, "checksum_status": "checked", **metadata}
    return add(folder / "c.yaml", url, overwrite=True, **said)


@pytest.mark.parametrize(
    ("members", "more"),
    [
        ([("map.msa", GOOD), ("README.txt", b"hello")], {}),
        ([("deep/er/map.msa", GOOD), ("__MACOSX/._map.msa", b"x"), ("deep/.hidden.msa", b"x")], {}),
        ([("a.msa", GOOD), ("b.msa", b"another")], {"member": "a.msa"}),
        ([("Zürich μ.msa", GOOD), ("empty/", b"")], {}),
    ],
    ids=["one", "folders", "named", "unicode"],
)
def test_the_file_within_is_ingested(
    server: Server,
    tmp_path: Path,
    cache: Path,
    members: list[tuple[str, bytes]],
    more: dict[str, Any],
) -> None:
    entry = entry_of(server, tmp_path, packed(*members), **more)
    assert entry.kind == "file"
    found = fetch(entry, **QUICK)
    assert entry.open().values.tolist() == [1, 2, 3, 4]
    assert found.file.name == "data.zip"
    # What was unpacked for the ingest is not kept, the archive is.
    assert [p.name for p in cache.rglob("*.msa")] == []
    assert not fetch(entry, **QUICK).downloaded


@pytest.mark.parametrize(
    ("members", "more", "message"),
    [
        ([("a.msa", GOOD), ("b.msa", GOOD)], {}, "2 of its files could be meant, expected one"),
        ([("README.txt", b"x")], {}, "none of its files can be read"),
        ([("a.msa", GOOD)], {"member": "b.msa"}, "has no member 'b.msa': it has 'a.msa'"),
        ([("a.msa", GOOD)], {"member": "../../c.yaml"}, "has no member"),
        ([], {}, "holds nothing"),
    ],
)
def test_the_file_within_has_to_be_told(
    server: Server,
    tmp_path: Path,
    members: list[tuple[str, bytes]],
    more: dict[str, Any],
    message: str,
) -> None:
    entry = entry_of(server, tmp_path, packed(*members), **more)
    with pytest.raises(CatalogError, match=message) as caught:
        fetch(entry, **QUICK)
    assert caught.value.hint
    assert not entry.available


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def locked(content: bytes) -> bytes:
    """Set the flag of a password in both headers of an archive's first member."""
    spoilt = bytearray(content)
    spoilt[6] |= 1
    at = content.index(b"PK\x01\x02")
    spoilt[at + 8] |= 1
    return bytes(spoilt)


def bomb() -> bytes:
    """32 MB of zeros in 32 kB."""
    return packed(("a.msa", bytes(2**25)))


def lying(content: bytes, size: int) -> bytes:
    """Another size of the only member in the table of contents."""
    at = content.index(b"PK\x01\x02")
    return content[: at + 24] + size.to_bytes(4, "little") + content[at + 28 :]


def renamed(name: bytes, instead: bytes) -> bytes:
    assert len(name) == len(instead)
    return packed((name.decode(), GOOD)).replace(name, instead)


DANGEROUS: dict[str, tuple[Callable[[], bytes], str]] = {
    "upwards": (lambda: packed(("../../escape.msa", GOOD)), "has the member '../../escape.msa'"),
    "upwards within": (lambda: packed(("a/../../escape.msa", GOOD)), "has the member"),
    "absolute": (lambda: packed(("/tmp/escape.msa", GOOD)), "has the member '/tmp/escape.msa'"),
    "drive": (lambda: packed(("C:/escape.msa", GOOD)), "has the member"),
    "backslash": (lambda: packed(("..\\escape.msa", GOOD)), "has the member"),
    "NUL": (lambda: renamed(b"aXbc.msa", b"a\0bc.msa"), "has the member|damaged"),
    "beside a good one": (
        lambda: packed(("a.msa", GOOD), ("../b.txt", b"x")),
        "has the member '../b.txt'",
    ),
    "link": (
        lambda: packed((special("a.msa", stat.S_IFLNK | 0o777), b"/etc/passwd")),
        "link or device",
    ),
    "device": (lambda: packed((special("a.msa", stat.S_IFCHR | 0o666), b"")), "link or device"),
    "password": (lambda: locked(packed(("a.msa", GOOD))), "under a password"),
    "bomb": (bomb, r"would grow from .* to 33554432 bytes"),
    "bomb by its table": (lambda: lying(packed(("a.msa", GOOD)), 2**31), "would grow from"),
    "longer than it says": (lambda: lying(packed(("a.msa", GOOD)), 10), "damaged"),
    "shorter than it says": (lambda: lying(packed(("a.msa", GOOD)), 10**6), "damaged"),
    "a file within a file": (
        lambda: packed(("a.msa", GOOD), ("a.msa/b.txt", b"x")),
        "lies within a file",
    ),
    "cut short": (lambda: packed(("a.msa", GOOD))[:-30], "damaged"),
    "no archive": (lambda: b"<html>", "damaged"),
    "another byte": (
        lambda: packed(("a.msa", GOOD), method=zipfile.ZIP_STORED).replace(b"EMSA", b"EMSB"),
        "damaged",
    ),
}


@pytest.mark.parametrize(("make", "message"), DANGEROUS.values(), ids=DANGEROUS)
def test_what_is_dangerous_is_not_unpacked(
    server: Server,
    tmp_path: Path,
    cache: Path,
    make: Callable[[], bytes],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A bomb of a gigabyte takes too long to make.
    monkeypatch.setattr("emcube.catalog.archives._GROWTH_BYTES", 2**24)
    entry = entry_of(server, tmp_path, make())
    with pytest.raises(CatalogError, match=message) as caught:
        fetch(entry, **QUICK)
    assert caught.value.hint
    assert not entry.available
    assert not [p for top in (tmp_path, cache) for p in top.rglob("*escape*")]
    assert not list(cache.rglob("*unpacked*"))
    # One that is good beside it comes all the same.
    good = entry_of(server, tmp_path, packed(("b.msa", GOOD)), name="good.zip")
    assert fetch(good, **QUICK).store.is_dir()


def test_the_same_name_twice(server: Server, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        content = packed(("a.msa", GOOD), ("a.msa", b"x"))
    with pytest.raises(CatalogError, match=r"has 'a.msa' twice"):
        fetch(entry_of(server, tmp_path, content), **QUICK)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.7z", "a.rar"])
def test_other_archives_say_what_to_do(server: Server, tmp_path: Path, name: str) -> None:
    entry = entry_of(server, tmp_path, b"anything", name=name)
    with pytest.raises(CatalogError, match=r"is not unpacked, expected \.zip.*unpack it yourself"):
        fetch(entry, **QUICK)


def test_a_killed_unpacking_is_not_taken_for_whole(
    server: Server, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(server, tmp_path, packed(("a.msa", GOOD), ("b.txt", b"x" * 100)))

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch(entry, **QUICK)
    assert not entry.available
    assert fetch(entry, **QUICK).store.is_dir()
    assert not [p for p in cache.rglob("*") if "partial" in p.name]


def test_no_room_for_what_is_within(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(server, tmp_path, packed(("a.msa", GOOD), ("b.txt", b"x" * 100_000)))
    # Enough for the archive itself.
    full = type("Usage", (), {"free": 5000})
    monkeypatch.setattr("emcube.catalog.archives.shutil.disk_usage", lambda path: full)
    with pytest.raises(CatalogError, match=r"holds .* bytes, and 5000 are free"):
        fetch(entry, **QUICK)
