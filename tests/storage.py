"""Storage that speaks S3: a real server in a process of its own on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.environments import environment_of

__all__ = ["KEY", "SECRET", "storage"]

SECRET = "wJalrXUtnFEMIbPxRfiCYhunter2"
KEY = "AKIAHUNTER2EXAMPLE"


@contextmanager
def storage(log: Path) -> Iterator[dict[str, str]]:
    """Environment in which ``s3://`` leads to a server here; it keeps everything in its memory."""
    if find_spec("s3fs") is None:
        skip_or_fail("remote", "s3fs is not installed: pip install emcube[remote]")
    port = _free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment_of("moto"),
        ) as process,
    ):
        try:
            _wait_for(port, process, log)
            _forget_clients()
            yield {
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            }
        finally:
            process.kill()
            _forget_clients()


def _forget_clients() -> None:
    """s3fs keeps its clients, with the addresses that the environment gave them."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.fail(f"the S3 server ended: {log.read_text(errors='replace')[-2000:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the S3 server does not answer")
