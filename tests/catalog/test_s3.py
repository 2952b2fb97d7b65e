"""Catalogs, stores and files in storage that speaks S3: a real server in a process of its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import emcube as em
from emcube.catalog import add, open_catalog
from emcube.catalog.fetch import fetch
from emcube.errors import CatalogError
from tests.catalog.helpers import spectrum
from tests.storage import SECRET, storage


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment in which ``s3://`` leads to a server here."""
    with storage(tmp_path_factory.mktemp("s3") / "server.log") as environment:
        yield environment


@pytest.fixture
def bucket(
    server: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_store: Callable[..., Path],
) -> Iterator[str]:
    """A bucket with a catalog, a nested one, stores, and an instrument file."""
    import s3fs

    for key, value in server.items():
        monkeypatch.setenv(key, value)
    s3fs.S3FileSystem.clear_instance_cache()
    site = tmp_path / "site"
    add(site / "top.yaml", make_store(site / "a.zarr", elements=["Ni"]))
    add(site / "below" / "inner.yaml", make_store(site / "below" / "b.zarr", elements=["Cr"]))
    add(site / "top.yaml", site / "below" / "inner.yaml", name="inner")
    spectrum(site / "point.msa")
    files = s3fs.S3FileSystem(use_listings_cache=False)
    name = f"lab-{os.getpid()}-{abs(hash(tmp_path)) % 10**8}"
    files.mkdir(name)
    files.put(str(site), f"{name}/data", recursive=True)
    yield f"s3://{name}/data"
    files.rm(name, recursive=True)


def test_a_catalog_in_s3(bucket: str, tmp_path: Path) -> None:
    catalog = open_catalog(f"{bucket}/top.yaml")
    assert catalog["a"].target.location == f"{bucket}/a.zarr"
    assert catalog["a"].open().sum() == 120
    assert em.open(f"{bucket}/top.yaml:inner/b").shape == (4, 5, 6)
    assert list(catalog.search(elements="Cr")) == ["inner/b"]
    add(tmp_path / "mine.yaml", f"{bucket}/top.yaml", name="theirs")
    assert em.open(f"{tmp_path}/mine.yaml:theirs/a").shape == (4, 5, 6)
    assert SECRET not in (tmp_path / "mine.yaml").read_text()
    with pytest.raises(CatalogError, match="there is no catalog s3"):
        open_catalog(f"{bucket}/none.yaml")


def test_a_file_is_fetched_from_s3(bucket: str, tmp_path: Path) -> None:
    digest = hashlib.sha256((tmp_path / "site" / "point.msa").read_bytes()).hexdigest()
    entry = add(tmp_path / "c.yaml", f"{bucket}/point.msa", checksum=f"sha256:{digest}")
    assert fetch(entry).checksum == f"sha256:{digest}"
    assert entry.open().values.tolist() == [1, 2, 3, 4]
    gone = add(tmp_path / "c.yaml", f"{bucket}/none.msa", checksum=f"sha256:{digest}")
    with pytest.raises(CatalogError, match="cannot be fetched: FileNotFoundError"):
        fetch(gone)
