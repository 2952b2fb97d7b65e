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
    ],
)
def test_credentials_are_not_shown(text: str) -> None:
    shown = redact(text)
    assert "hunter2" not in shown
    assert "://" in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    ["https://host:8080/a.zarr", "s3://bucket/x@y.zarr", "no address", "me@host", "a ? b", "/a/b"],
)
def test_everything_else_is_shown_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("https://me:hunter2@host/a.zarr", "a user or a password"),
        ("s3://KEY:hunter2@bucket/a.zarr", "a user or a password"),
        ("https://host/a.zarr?token=hunter2", "a query"),
    ],
)
def test_addresses_with_credentials_are_refused(address: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        check_address(address)
    assert "hunter2" not in str(caught.value)
    assert "environment" in str(caught.value)


def test_plain_addresses_pass() -> None:
    assert check_address("s3://bucket/a@b.zarr/") == "s3://bucket/a@b.zarr"
    assert join("s3://bucket/a/", "b/", "", "c") == "s3://bucket/a/b/c"
    assert local_part("file:///data/a%20b.zarr") == "/data/a b.zarr"
    assert local_part("s3://b/a") == "s3://b/a"
