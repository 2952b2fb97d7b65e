"""Exports: schema.org's vocabulary, DataCite's schema, and a page that shows text as text."""

from __future__ import annotations

import html.parser
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from emcube.catalog import add, open_catalog
from emcube.catalog.exports import to_datacite, to_schema_org
from emcube.catalog.page import write_page
from emcube.cli import main
from emcube.errors import CatalogError
from tests.catalog.helpers import COMPLETE

ROOT = Path(__file__).parents[2]
EVIL = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


@pytest.fixture
def catalog(tmp_path: Path, make_store: Callable[..., Path]) -> Path:
    path = tmp_path / "c.yaml"
    more = {
        "published": "2026",
        "publisher": "A facility",
        "instrument_id": "https://hdl.handle.net/21.T11148/abc",
        "session": "A12",
        "version": "1",
        "related": [
            {"relation": "described by", "identifier": "10.1038/sdata.2016.18", "title": "A paper"},
            {"relation": "image", "identifier": "https://host.example/haadf"},
            {"relation": "tilt", "entry": "bare"},
        ],
        "creators": [
            {
                "name": "Curie, Marie",
                "orcid": "0000-0002-1825-0097",
                "affiliation": "A lab",
                "affiliation_id": "https://ror.org/00b1c9541",
            },
            {"name": "A consortium"},
        ],
    }
    add(path, make_store(tmp_path / "full.zarr"), **{**COMPLETE, **more})
    add(path, make_store(tmp_path / "bare.zarr"), acquired="2026-03-01")
    add(path, "https://host.example/map.bcf", name="far", **COMPLETE, checksum="sha256:" + "0" * 64)
    return path


# --- DataCite ---------------------------------------------------------------------------------------


def test_datacite_metadata_hold_to_the_schema(catalog: Path) -> None:
    from datacite import schema45 as schema

    for entry in open_catalog(catalog).values():
        found = to_datacite(entry)
        schema.validator.validate(found)
        assert schema.tostring(found).startswith("<?xml")
    for entry in open_catalog(ROOT / "catalogs" / "public.yaml").values():
        entry.metadata.setdefault("published", "2026")
        schema.validator.validate(to_datacite(entry))
    # And the validator is one that can fail.
    assert not schema.validate({**found, "types": {"resourceTypeGeneral": "Cube"}})


def test_datacite_says_what_the_entry_says(catalog: Path) -> None:
    found = to_datacite(open_catalog(catalog)["full"])
    assert found["doi"] == "10.5281/zenodo.15490547"
    assert found["publicationYear"] == "2026"
    assert found["publisher"] == {"name": "A facility"}
    assert found["creators"][0]["nameIdentifiers"][0]["nameIdentifierScheme"] == "ORCID"
    assert found["creators"][0]["affiliation"][0]["affiliationIdentifierScheme"] == "ROR"
    assert found["rightsList"][0]["rightsIdentifier"] == "CC-BY-4.0"
    relations = {one["relationType"]: one for one in found["relatedIdentifiers"]}
    assert relations["IsDescribedBy"]["relatedIdentifierType"] == "DOI"
    assert relations["IsSupplementedBy"]["relatedIdentifierType"] == "URL"
    assert relations["IsCollectedBy"]["relatedIdentifierType"] == "Handle"
    assert "4 y x 5 x x 6 energy" in found["sizes"]
    bare = to_datacite(open_catalog(catalog)["bare"])
    assert bare["creators"] == [{"name": ":unkn"}]
    assert bare["publisher"] == {"name": ":unav"}
    assert "doi" not in bare


def test_datacite_needs_a_year(
    catalog: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    entry = add(catalog, make_store(tmp_path / "x.zarr"))
    with pytest.raises(CatalogError, match="expected a date for the year of publication"):
        to_datacite(entry)


# --- schema.org -------------------------------------------------------------------------------------


def test_schema_org_says_what_the_entry_says(catalog: Path) -> None:
    found = to_schema_org(open_catalog(catalog)["full"])
    assert found["@context"] == "https://schema.org/"
    assert found["@type"] == "Dataset"
    assert found["@id"] == "https://doi.org/10.5281/zenodo.15490547"
    assert found["license"] == "https://spdx.org/licenses/CC-BY-4.0.html"
    assert found["isAccessibleForFree"] is True
    assert found["creator"][0]["@id"] == "https://orcid.org/0000-0002-1825-0097"
    assert found["citation"][0]["@id"] == "https://doi.org/10.1038/sdata.2016.18"
    assert {
        "@type": "PropertyValue",
        "name": "beam energy",
        "value": 200.0,
        "unitText": "keV",
    } in found["variableMeasured"]
    # A path on this machine is nobody else's business.
    assert "distribution" not in found
    far = to_schema_org(open_catalog(catalog)["far"])
    assert far["distribution"][0]["contentUrl"] == "https://host.example/map.bcf"
    assert far["distribution"][0]["sha256"] == "0" * 64


def test_every_entry_has_what_search_engines_ask_for(catalog: Path) -> None:
    for path in (catalog, ROOT / "catalogs" / "public.yaml", ROOT / "catalogs" / "demo.yaml"):
        found = to_schema_org(open_catalog(path))
        assert found["@type"] == "DataCatalog"
        for one in found["dataset"]:
            assert one["name"]
            assert 50 <= len(one["description"]) <= 5000
        json.dumps(found, allow_nan=False)


def nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


class Vocabulary:
    """schema.org itself, as the package rocrate brings it."""

    def __init__(self, path: Path) -> None:
        graph = json.loads(path.read_text(encoding="utf-8"))["@graph"]
        self.terms = {self.short(node["@id"]): node for node in graph}

    @staticmethod
    def short(identifier: str) -> str:
        return identifier.removeprefix("schema:").rsplit("/", 1)[-1]

    def listed(self, term: str, key: str) -> set[str]:
        value = self.terms.get(term, {}).get(key, [])
        found = value if isinstance(value, list) else [value]
        return {self.short(one["@id"]) for one in found if isinstance(one, dict)}

    def ancestors(self, kind: str) -> set[str]:
        found, todo = set(), {kind}
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo |= self.listed(one, "rdfs:subClassOf")
        return found

    def allows(self, kind: str, key: str) -> bool:
        return bool(self.listed(key, "schema:domainIncludes") & self.ancestors(kind))

    def takes(self, key: str, value: Any) -> bool:
        ranges = self.listed(key, "schema:rangeIncludes")
        if isinstance(value, Mapping):
            return bool(ranges & self.ancestors(str(value["@type"])))
        if isinstance(value, bool):
            return "Boolean" in ranges
        if isinstance(value, (int, float)):
            return bool(ranges & {"Number", "Integer", "Float"})
        return bool(ranges & {"Text", "URL", "Date", "DateTime", "CreativeWork"})


def test_schema_org_holds_to_the_vocabulary(catalog: Path) -> None:
    import rocrate

    words = Vocabulary(Path(rocrate.__file__).parent / "data" / "schema.jsonld")
    for path in (catalog, ROOT / "catalogs" / "public.yaml"):
        for node in nodes(to_schema_org(open_catalog(path))):
            kind = node["@type"]
            assert kind in words.terms, kind
            for key, value in node.items():
                if key.startswith("@"):
                    continue
                assert words.allows(kind, key), (kind, key)
                for one in value if isinstance(value, list) else [value]:
                    assert words.takes(key, one), (kind, key, one)
    assert not words.allows("Dataset", "colour")
    assert not words.takes("isAccessibleForFree", "yes")


# --- the page ---------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Elements and their attributes, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_tells_entries_of_one_title_apart(
    tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    store = make_store(tmp_path / "a.zarr")
    for name in ("s1.map", "s2.map"):
        add(tmp_path / "c.yaml", store, name=name, title="EDX")
    page = write_page(open_catalog(tmp_path / "c.yaml"), tmp_path / "site", thumbnails=False)
    text = page.read_text(encoding="utf-8")
    assert text.count("<h2>EDX</h2>") == 2
    assert '<p class="name">s1.map</p>' in text
    assert '<p class="name">s2.map</p>' in text


def test_a_page_with_search_and_thumbnails(catalog: Path, tmp_path: Path) -> None:
    page = write_page(open_catalog(catalog), tmp_path / "site")
    parsed = Page(page.read_text())
    rows = [attrs for tag, attrs in parsed.found if tag == "li"]
    assert len(rows) == 3
    assert "chromium" in (rows[0]["data-text"] or "")
    assert "edx" in (rows[0]["data-text"] or "")
    assert any(tag == "input" and attrs["type"] == "search" for tag, attrs in parsed.found)
    images = [attrs["src"] for tag, attrs in parsed.found if tag == "img"]
    assert len(images) == 2
    for src in images:
        assert src is not None
        assert (page.parent / src).read_bytes().startswith(b"\x89PNG")
    # The page asks nobody for anything.
    for tag, attrs in parsed.found:
        assert tag not in ("link", "iframe", "object", "embed")
        assert "://" not in (attrs.get("src") or "")
    linked = next(text for text in parsed.texts if '"@context"' in text)
    assert json.loads(linked)["@type"] == "DataCatalog"
    assert (
        json.loads((page.parent / "datasets.jsonld").read_text())["dataset"][0]["@type"]
        == "Dataset"
    )
    assert "script-src" in page.read_text()


def test_what_a_catalog_says_is_never_markup(
    tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    path = tmp_path / "c.yaml"
    evil = {"title": EVIL, "description": EVIL, "specimen": EVIL, "creators": [{"name": EVIL}]}
    add(path, make_store(tmp_path / "a.zarr"), **evil, doi='10.1234/"><script>alert(1)</script>')
    text = write_page(open_catalog(path), tmp_path / "site").read_text()
    parsed = Page(text)
    # The page's own two scripts and no other; no picture but the thumbnail.
    assert len([tag for tag, _ in parsed.found if tag == "script"]) == 2
    assert [attrs.get("onerror") for tag, attrs in parsed.found if tag == "img"] == [None]
    assert all(not key.startswith("on") for _, attrs in parsed.found for key in attrs)


def test_the_verb(catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "export", str(catalog), str(tmp_path / "site")]) == 0
    assert (tmp_path / "site" / "index.html").is_file()
    out = tmp_path / "out" / "all.jsonld"
    assert main(["catalog", "export", str(catalog), str(out), "--to", "schema.org"]) == 0
    assert len(json.loads(out.read_text())["dataset"]) == 3
    one = tmp_path / "one.json"
    arguments = ["catalog", "export", str(catalog), str(one), "--to", "datacite", "--name", "full"]
    assert main(arguments) == 0
    assert json.loads(one.read_text())["schemaVersion"] == "http://datacite.org/schema/kernel-4"
    assert main(["catalog", "export", str(catalog), str(one), "--to", "bibtex"]) == 2
    assert main(["catalog", "export", str(catalog), str(one)]) == 2
    capsys.readouterr()


# --- what is there already ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["schema.org", "datacite"])
def test_an_export_replaces_nothing_but_an_export(
    catalog: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(out: Path, *more: str) -> int:
        return main(
            ["catalog", "export", str(catalog), str(out), "--to", kind, "--name", "full", *more]
        )

    link = tmp_path / "link.json"
    link.symlink_to(catalog)
    root = tmp_path / "full.zarr" / "zarr.json"
    notes, foreign = tmp_path / "notes.txt", tmp_path / "hand.json"
    notes.write_text("mine")
    foreign.write_text('{"@context": "https://schema.org/", "@type": "Dataset"}')
    before = {one: one.read_bytes() for one in (catalog, root, notes, foreign)}
    for path in (catalog, link, root, root.with_name("new.json"), notes, foreign, tmp_path):
        assert export(path) == 2
        assert "cannot write an export" in capsys.readouterr().err
    for path in (catalog, link, root, root.with_name("new.json"), tmp_path):
        assert export(path, "--overwrite") == 2
    assert {one: one.read_bytes() for one in before} == before
    assert not root.with_name("new.json").exists()
    assert export(tmp_path / "again.json") == export(tmp_path / "again.json") == 0
    assert export(notes, "--overwrite") == 0
    assert json.loads(notes.read_text())
    capsys.readouterr()


@pytest.mark.parametrize("name", ["index.html", "datasets.jsonld", "thumbnails"])
def test_a_page_replaces_nothing_but_a_page(catalog: Path, tmp_path: Path, name: str) -> None:
    opened, site = open_catalog(catalog), tmp_path / "site"
    site.mkdir()
    if name == "thumbnails":
        (site / name).mkdir()
        (site / name / "00000.png").write_text("mine")
    else:
        (site / name).write_text("mine")
    with pytest.raises(CatalogError, match="already"):
        write_page(opened, site)
    assert len(list(site.iterdir())) == 1
    write_page(opened, site, overwrite=True)
    write_page(opened, site)
    with pytest.raises(CatalogError, match="within the store"):
        write_page(opened, tmp_path / "full.zarr")
    with pytest.raises(CatalogError, match="within the store"):
        write_page(opened, tmp_path / "full.zarr" / "site")
    assert not (tmp_path / "full.zarr" / "site").exists()


def test_a_full_disk_is_told(catalog: Path, tmp_path: Path) -> None:
    """Files may not grow beyond 64 bytes: the real writer fails half-way, as on a full disk."""
    pytest.importorskip("resource", reason="limits on file sizes are POSIX")
    code = (
        "import resource, sys\nfrom emcube.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    before = sorted(tmp_path.rglob("*"))
    store = str(tmp_path / "full.zarr")
    for arguments in (
        ["add", str(tmp_path / "new" / "c.yaml"), store],
        ["add", str(catalog), store, "--name", "another"],
        ["export", str(catalog), str(tmp_path / "new" / "a.json"), "--to", "schema.org"],
        ["export", str(catalog), str(tmp_path / "new" / "site"), "--no-thumbnails"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, "catalog", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 1, done.stderr
        assert "cannot be written: File too large" in done.stderr
        assert "unexpected" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before
