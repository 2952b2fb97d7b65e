"""Addresses: which are some, and what is never shown of them."""

from __future__ import annotations

import pytest

from emcube.addresses import check_address, is_url, join, local_part, redact
from emcube.errors import InputError


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/map.zarr", True),
        ("https://host/a.zarr", True),
        ("file:///a.zarr", True),
        (r"C:\data\map.zarr", False),
        ("/data/map.zarr", False),
        ("map.zarr", False),
        ("c://data", False),
    ],
)
def test_what_is_an_address(path: str, expected: bool) -> None:
    assert is_url(path) is expected


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2@host/a.zarr",
        "https://hunter2@host/a.zarr",
        "s3://KEY:hunter2@bucket/a.zarr",
        "https://host/a.zarr?X-Amz-Signature=hunter2",
        "https://host/a.zarr?a=1&token=hunter2#part",
        "error at https://me:hunter2@host/a.zarr/zarr.json, and at s3://k:hunter2@b/x",
        "<https://me:hunter2@host:8080/a>",
        "ftp://me:hunter2:x@host/a",
        "https://me:hunter2/more@host/a.zarr",
    ],
)
def test_credentials_are_not_shown(text: str) -> None:
    shown = redact(text)
    assert "hunter2" not in shown
    assert "://" in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/a@b.zarr",
        "s3://bucket/x@y.zarr",
        "no address",
        "me@host",
        "a ? b",
        "/a/b",
    ],
)
def test_everything_else_is_shown_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("https://me:hunter2@host/a.zarr", "a user or a password"),
        ("s3://KEY:hunter2@bucket/a.zarr", "a user or a password"),
        ("https://host/a.zarr?token=hunter2", "a query"),
        ("https://host/my map.zarr?token=hunter2", "a query"),
        ("https://host/a'b.zarr?token=a hunter2", "a query"),
        ("https://host/a.zarr#hunter2", "a query"),
        ("https://host?hunter2", "a query"),
        ("s3://bucket/a.zarr?versionId=hunter2", "a query"),
        ("https://me:hunt er2@host/a.zarr?b", "a user or a password"),
        ("https://me:hunter2?@host/a.zarr", "a user or a password"),
        ("https://me:hunter2#@host/a.zarr", "a user or a password"),
        ("https:// me:hunter2@host/a.zarr", "a user or a password"),
        ("https://me:hunter2/x@host/a.zarr", "what is no host"),
        ("https://me:hunter2", "what is no host"),
        ("s3://bucket/a\nhunter2@b", "what is no host"),
        ("simplecache::https://me:hunter2@host/a.zarr", "a user or a password"),
        ("filecache::s3://bucket/a.zarr", "another address"),
        ("zip://a.zip::https://me:hunter2@host/a.zarr", "what is no host"),
        ("s3://b/https://me:hunter2@host/a.zarr", "another address"),
    ],
)
def test_addresses_with_credentials_are_refused(address: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        check_address(address)
    assert "hunter2" not in str(caught.value)
    assert "environment" in str(caught.value)


def test_plain_addresses_pass() -> None:
    for address in (
        "https://host:8080/a b/µ.zarr",
        "http://[::1]:80/a",
        "http://127.0.0.1:8080/a%20b%3F.zarr",
        "s3://my-bucket.with.dots/a#1/b@c.zarr",
        "gs://bucket",
    ):
        assert check_address(address) == address
    assert check_address("s3://bucket/a@b.zarr/") == "s3://bucket/a@b.zarr"
    assert join("s3://bucket/a/", "b/", "", "c") == "s3://bucket/a/b/c"
    assert local_part("file:///data/a%20b.zarr") == "/data/a b.zarr"
    assert local_part("s3://b/a") == "s3://b/a"
