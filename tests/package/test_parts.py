"""The small parts: names, people, licences, addresses, references."""

from __future__ import annotations

import pytest

from emcube.errors import InputError, PackageError
from emcube.package.addresses import (
    address_of,
    public_input,
    public_metadata,
    without_secrets,
)
from emcube.package.names import check_name, check_names, printable
from emcube.package.people import Creator, License, parse_creators, parse_license
from emcube.package.references import Reference, dataset_reference


@pytest.mark.parametrize(
    "name", ["a", "a/b.c", "result/nmf/loadings/c/0/0", ".emcube/manifest.json", "größe/x y"]
)
def test_plain_names(name: str) -> None:
    assert check_name(name, "it") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "..",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "\\a",
        "C:a",
        "a:b",
        "a\0b",
        "a\nb",
        "\udc80",
    ],
)
def test_names_that_could_mean_more(name: str) -> None:
    with pytest.raises(PackageError, match="it names the file"):
        check_name(name, "it")


def test_names_together() -> None:
    check_names(["a/b", "a/c", "ab"], "it")
    for names in (["a", "A"], ["a", "a/b"], ["A/b", "a"], ["\u00e9", "e\u0301"]):
        with pytest.raises(PackageError, match="it holds"):
            check_names(names, "it")


def test_texts_of_strangers() -> None:
    assert printable("\x1b[2Jabc\n") == "\ufffd[2Jabc\ufffd"
    assert printable("x" * 300) == "x" * 200 + "..."


def test_creators() -> None:
    ada = Creator("Ada Lovelace", "0000-0002-1825-0097")
    assert parse_creators("Ada Lovelace <https://orcid.org/0000-0002-1825-0097>") == (ada,)
    assert parse_creators(["Ada Lovelace (0000-0002-1825-0097)", "B"]) == (ada, Creator("B"))
    assert parse_creators({"name": "C", "affiliation": "D"}) == (Creator("C", None, "D"),)
    assert parse_creators(None) == ()
    assert parse_creators("X (0000-0002-1694-233X)")[0].orcid == "0000-0002-1694-233X"
    assert Creator("B. C").id == "#b-c"
    for wrong in (
        "",
        "A (1234)",
        {"name": ""},
        {"name": "A", "mail": "x"},
        "A (0000-0002-1825-0098)",
    ):
        with pytest.raises(InputError, match="creators"):
            parse_creators([wrong])


def test_licences() -> None:
    assert parse_license("CC-BY-4.0") == License("https://spdx.org/licenses/CC-BY-4.0", "CC-BY-4.0")
    assert parse_license("https://example.org/terms/") == License(
        "https://example.org/terms/", "terms"
    )
    assert parse_license("Ask us first.").id is None
    assert parse_license(None).id is None
    with pytest.raises(InputError, match="license"):
        parse_license("  ")


def test_secrets_are_taken_out() -> None:
    for url, clean in (
        ("https://u:p@host:8443/a.zarr", "https://host:8443/a.zarr"),
        ("https://host/a?download=1", "https://host/a?download=1"),
        ("https://host/a?download=1&token=x", "https://host/a"),
        ("https://host/a?sv=1&sig=x", "https://host/a"),
        ("https://host/a?download=1&x=y", "https://host/a"),
        ("s3://key:secret@bucket/a.zarr#x", "s3://bucket/a.zarr"),
        ("https://u:p#w?d@host/a", "https://host/a"),
        ("https://u:p/w@host/a", "https://***"),
        ("https://host/@me/a", "https://host/@me/a"),
        (
            "https://web.archive.org/2020/https://host/a",
            "https://web.archive.org/2020/https://host/a",
        ),
        ("https://proxy/https://u:p@host/a", "https://***"),
    ):
        assert without_secrets(url) == clean
    assert address_of("https://host/a.bcf?download=1").kind == "file"
    assert address_of("s3://bucket/a.zarr/").kind == "store"


def test_places_of_this_machine_are_taken_out() -> None:
    recorded = {"digest": "d", "path": ["/home/me/a.bcf", "b/c.bcf", "../d.bcf", "C:\\me\\e.bcf"]}
    assert public_input(recorded)["path"] == ["a.bcf", "b/c.bcf", "d.bcf", "e.bcf"]
    assert public_input({"path": "file:///home/me/a.bcf"})["path"] == "a.bcf"
    assert public_input({"path": "https://u:p@host/a.zarr"})["path"] == "https://host/a.zarr"
    assert public_input({"catalog": "~/me/lab.yaml", "dataset": "x"}) == {
        "catalog": "lab.yaml",
        "dataset": "x",
    }


def test_what_an_entry_says_is_cleaned_everywhere() -> None:
    known = {
        "url": "https://bob:hunter2@data.example.org/x?token=SEKRIT",
        "description": "from https://bob:hunter3@h.example/x?sig=SEKRIT3 please, or "
        "../secretproj/userA/x.bcf; 3 e-/A and 2 /nm",
        "related": [
            {"https://u:hunter4@h/": ["see s3://k:hunter5@b/c", {"get": "cp /home/userA/x.bcf ."}]}
        ],
        "storage_options": {"key": "SEKRIT4"},
        "crawled": {"size": 3, "modified_ns": 4, "copies": {"data/userA/x.hspy": {}}},
        "doi": "https://doi.org/10.5281/zenodo.1",
        "elements": ["Si"],
        "nested": {
            "crawled": {"a": 1},
            "file": "file:///home/userA/y.bcf",
            "z": "C:\\userA\\z.bcf",
        },
    }
    assert public_metadata(known) == {
        "url": "https://data.example.org/x",
        "description": "from https://h.example/x please, or x.bcf; 3 e-/A and 2 /nm",
        "related": [{"https://h/": ["see s3://b/c", {"get": "cp x.bcf ."}]}],
        "doi": "https://doi.org/10.5281/zenodo.1",
        "elements": ["Si"],
        "nested": {"file": "y.bcf", "z": "z.bcf"},
    }


def test_bibtex() -> None:
    entry = Reference("k", "article", "K 2026", {"title": "100 % of {a} & b_c", "doi": "10.1/a_b"})
    text = entry.to_bibtex()
    assert text.startswith("@article{k,\n")
    assert r"title = {{100 \% of \{a\} \& b\_c}}" in text
    assert "doi = {10.1/a_b}" in text


def test_data_are_cited_where_enough_is_known() -> None:
    assert dataset_reference({"title": "T"}) is None
    known = {
        "title": "T",
        "doi": "https://doi.org/10.5281/zenodo.1",
        "creators": [{"name": "A"}, "B"],
        "published": "2024-05-01",
    }
    found = dataset_reference(known)
    assert found is not None
    assert found.fields == {
        "author": "A and B",
        "title": "T",
        "year": "2024",
        "doi": "10.5281/zenodo.1",
    }
