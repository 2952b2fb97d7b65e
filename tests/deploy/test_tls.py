"""Credentials are private, and what is not private is not used."""

from __future__ import annotations

import stat
import sys
import warnings
from pathlib import Path

import pytest

from emcube.deploy.network import InsecureWarning, is_loopback, warn_if_plain
from emcube.deploy.tls import make_credentials, security_of
from emcube.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes of files are POSIX's")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    folder = make_credentials(tmp_path / "a" / "tls")
    assert mode(folder) == 0o700
    assert {f.name: mode(f) for f in folder.iterdir()} == {
        "ca.pem": 0o600,
        "cert.pem": 0o600,
        "key.pem": 0o600,
    }
    security = security_of(folder)
    assert security.require_encryption
    assert "PRIVATE" not in repr(security)
    key = (folder / "key.pem").read_text()
    make_credentials(folder)
    assert (folder / "key.pem").read_text() != key


def test_what_others_can_read_is_refused(tmp_path: Path) -> None:
    folder = make_credentials(tmp_path / "tls")
    (folder / "key.pem").chmod(0o640)
    with pytest.raises(InputError, match="has mode 640, others than its owner can use it"):
        security_of(folder)
    (folder / "key.pem").unlink()
    with pytest.raises(InputError, match=r"key\.pem missing"):
        security_of(folder)
    folder.chmod(0o755)
    with pytest.raises(InputError, match="has mode 755"):
        make_credentials(folder)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_plain(f"tcp://[{host}]:1" if ":" in host else f"tcp://{host}:1")
        warn_if_plain("tls://192.0.2.9:8786")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.9"])
def test_beyond_loopback_plain_connections_are_said(host: str) -> None:
    assert not is_loopback(host)
    with pytest.warns(InsecureWarning, match=f"connection to tcp://{host}:8786 is not encrypted"):
        warn_if_plain(f"tcp://{host}:8786")
