"""Worker processes on this machine: how they start, what they are, and that nothing outlives them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import emcube as em
from emcube.deploy.deployment import Deployment, in_force
from emcube.deploy.network import InsecureWarning
from emcube.engine.executor import DistributedExecutor, ThreadExecutor, current_executor
from emcube.errors import EngineError, InputError
from tests.deploy.conftest import wait_until


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMCUBE_DEPLOY", "nowhere")
        deployment = em.deploy(
            "local",
            workers=2,
            memory="600 MiB",
            tls=True,
            dashboard="127.0.0.1:0",
            scratch=folder / "scratch",
            logs=folder / "logs",
        )
    with deployment:
        yield deployment
    assert list((folder / "scratch").iterdir()) == []


def test_workers_are_as_told(local: Deployment) -> None:
    workers = local.client.scheduler_info(n_workers=-1)["workers"]
    assert len(workers) == 2
    assert {w["nthreads"] for w in workers.values()} == {1}
    assert {w["memory_limit"] for w in workers.values()} == {600 * 2**20}


def test_libraries_have_one_thread_from_the_start_and_workers_do_not_deploy(
    local: Deployment,
) -> None:
    for env in local.client.run(lambda: dict(os.environ)).values():
        assert env["OPENBLAS_NUM_THREADS"] == env["OMP_NUM_THREADS"] == "1"
        assert env["NUMBA_NUM_THREADS"] == env["EMCUBE_THREADS"] == "1"
        assert "EMCUBE_DEPLOY" not in env


def test_it_is_in_force_until_it_is_closed(local: Deployment) -> None:
    assert in_force() is local
    executor = current_executor()
    assert isinstance(executor, DistributedExecutor)
    assert executor.client is local.client
    with em.deploy("threads", workers=3):
        inner = current_executor()
        assert isinstance(inner, ThreadExecutor)
        assert inner.slots == 3
    assert isinstance(current_executor(), DistributedExecutor)
    with em.deploy("auto") as same:
        assert same.client is local.client
    assert local.client.status == "running"


def test_a_fit_inside_a_task_stays_in_the_task(local: Deployment) -> None:
    def place() -> str:
        from emcube.engine.executor import current_executor

        return type(current_executor()).__name__

    assert local.client.submit(place, pure=False).result(timeout=60) == "ThreadExecutor"


def family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_everything_listens_on_loopback_alone(local: Deployment) -> None:
    pids = {process.pid for process in family()}
    listening = {
        c.laddr.ip
        for c in psutil.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN and c.pid in pids
    }
    assert listening
    assert all(ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1") for ip in listening), listening


def own_addresses() -> list[str]:
    return [
        a.address
        for addresses in psutil.net_if_addrs().values()
        for a in addresses
        if a.family == socket.AF_INET and not a.address.startswith("127.")
    ]


def test_the_dashboard_answers_here_and_not_on_the_network(local: Deployment) -> None:
    port = int(local.about["dashboard"].split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert b"200" in connection.recv(100)
    for address in own_addresses():  # a machine without a network has none to be reached at
        with pytest.raises(OSError):
            socket.create_connection((address, port), timeout=10)


def test_who_has_no_credentials_is_refused(local: Deployment, tmp_path: Path) -> None:
    from emcube.deploy.tls import make_credentials

    others = make_credentials(tmp_path / "tls")
    with pytest.raises(EngineError, match="no connection to the scheduler"):
        em.deploy(str(local.address), credentials=others, timeout=3)
    with pytest.raises(InputError, match="needs credentials"):
        em.deploy(str(local.address), timeout=3)
    with pytest.raises(EngineError, match="no connection to the scheduler"):
        em.deploy(str(local.address).replace("tls://", "tcp://"), timeout=3)
    assert in_force() is local
    assert isinstance(current_executor(), DistributedExecutor)


def test_no_secret_is_in_results_or_logs(local: Deployment, tmp_path: Path) -> None:
    key = next(Path(str(local.client.security.tls_client_key)).parent.glob("key.pem")).read_text()
    assert key.startswith("-----BEGIN PRIVATE KEY")
    rng = np.random.default_rng(0)
    cube = em.make_cube(
        rng.poisson(5.0, (12, 12, 16)).astype(np.uint8),
        dims=("y", "x", "energy"),
        coords={"energy": 0.1 * np.arange(16)},
        units={"energy": "keV"},
    )
    em.ingest(cube, tmp_path / "map.zarr")
    recipe = {
        "emcube": 1,
        "input": {"path": str(tmp_path / "map.zarr")},
        "steps": [{"pca": {"n_components": 2}}],
    }
    em.run(recipe, out=tmp_path / "result")
    written = [f for f in tmp_path.rglob("*") if f.is_file()]
    logs = [f for f in Path(local.about["logs"]).rglob("*") if f.is_file()]
    assert any(f.stat().st_size for f in logs)
    said = [json.dumps(local.about).encode(), repr(local).encode()]
    for content in [*said, *(f.read_bytes() for f in [*written, *logs])]:
        assert b"PRIVATE KEY" not in content
        assert not any(line.encode() in content for line in key.splitlines()[1:-1])


def test_listening_beyond_loopback_is_encrypted_and_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"listen='0\.0\.0\.0'.*tls is false"):
        em.deploy("local", listen="0.0.0.0", tls=False)
    with pytest.raises(InputError, match="dashboard is '8787', host:port expected"):
        em.deploy("local", dashboard="8787")
    address = (own_addresses() or ["0.0.0.0"])[0]
    with (
        pytest.warns(InsecureWarning, match="the scheduler listens on"),
        pytest.warns(InsecureWarning, match="the dashboard listens on 0.0.0.0:0"),
        em.deploy("local", workers=1, listen=address, dashboard="0.0.0.0:0") as deployment,
    ):
        assert str(deployment.address).startswith("tls://")


def test_workers_find_the_modules_that_the_script_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emcube.deploy.local import command_path

    monkeypatch.syspath_prepend(str(tmp_path))
    assert command_path()[0] == str(tmp_path)
    assert not any("site-packages" in entry for entry in command_path())


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for option in ("scratch", "logs"):
        with pytest.raises(InputError, match=f"{option}=.* is no folder and cannot be made one"):
            em.deploy("local", workers=1, **{option: blocked / "below"})
    with (
        pytest.warns(InsecureWarning),
        # An address that is kept for examples is none of this machine's.
        pytest.raises(
            EngineError, match=r"process ended with status 1 .* its last words: .*OSError"
        ),
    ):
        em.deploy("local", workers=1, listen="203.0.113.7")


CLIENT = """
import sys, time
import emcube as em
d = em.deploy("local", workers=1, scratch=sys.argv[1], tls=True)
print("ready", flush=True)
time.sleep(600)
"""


def test_nothing_outlives_a_client_that_is_killed(tmp_path: Path) -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path / "scratch")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        tree = psutil.Process(client.pid).children(recursive=True)
        assert len(tree) >= 3  # the scheduler, the host of the workers, a worker
        assert list((tmp_path / "scratch").iterdir())
        client.kill()
        client.wait(30)
        _, left = psutil.wait_procs(tree, timeout=60)
        assert left == []
        wait_until(lambda: not list((tmp_path / "scratch").iterdir()), "the folder is removed")
    finally:
        client.kill()
        client.wait()
        if client.stdout is not None:
            client.stdout.close()


def test_a_lost_scheduler_is_an_error_and_not_threads(tmp_path: Path) -> None:
    before: Any = set(family())
    with em.deploy("local", workers=1) as deployment:
        scheduler = next(p for p in set(family()) - before if "scheduler" in p.cmdline())
        scheduler.kill()
        wait_until(lambda: deployment.client.status != "running", "the client notices")
        with pytest.raises(EngineError, match="the local deployment is lost"):
            current_executor()
        with em.deploy("threads"):
            assert isinstance(current_executor(), ThreadExecutor)
    assert in_force() is not deployment
