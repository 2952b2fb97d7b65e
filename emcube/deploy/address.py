"""A scheduler that somebody else runs: its address, or the file that it wrote."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from emcube.deploy.connect import connect
from emcube.deploy.deployment import Deployment
from emcube.deploy.network import split_address, warn_if_plain
from emcube.deploy.options import AddressOptions
from emcube.errors import InputError

__all__ = ["address_deployment"]

CREDENTIALS_BESIDE = "tls"
"""Folder beside a scheduler file in which emcube puts the run's credentials."""


def address_deployment(options: AddressOptions) -> Deployment:
    """Connect to a scheduler; closing leaves it and its workers running.

    Raises
    ------
    InputError
        Not one of address and scheduler file, or neither is usable.
    EngineError
        It does not answer, has too few workers, or they run other versions.

    Warns
    -----
    InsecureWarning
        The connection goes beyond this machine's loopback and is not encrypted.
    """
    address, credentials = _address(options)
    protocol, host, port = split_address(address)
    if protocol not in ("tcp", "tls") or not host or port is None:
        raise InputError(
            f"deploy: got the address {address!r}, tcp://host:port or tls://host:port expected"
        )
    address = f"{protocol}://{address.partition('://')[2] or address}"
    warn_if_plain(address)
    client = connect(
        address,
        security=_security(protocol, credentials, address),
        workers=options.workers,
        timeout=options.timeout,
    )
    about = {"encrypted": protocol == "tls"}
    return Deployment("address", client=client, cleanup=ExitStack(), about=about)


def _address(options: AddressOptions) -> tuple[str, Path | None]:
    """Address, and the folder of credentials if there is one."""
    file = options.scheduler_file
    if (options.address is None) == (file is None):
        raise InputError("deploy 'address': give either address or scheduler_file")
    if options.address is not None or file is None:
        return str(options.address), options.credentials
    try:
        address = str(_content(file)["address"])
    except FileNotFoundError:
        raise InputError(
            f"deploy: there is no scheduler file {str(file)!r}",
            hint="the scheduler writes it when it starts: is it running?",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"deploy: {str(file)!r} is not a scheduler file: {error}",
            hint="it is written by dask scheduler --scheduler-file",
        ) from error
    beside = file.parent / CREDENTIALS_BESIDE
    return address, options.credentials or (beside if beside.is_dir() else None)


def _content(file: Path) -> Any:
    """What a scheduler file holds; a scheduler that starts just now may be writing it."""
    for _ in range(10):
        text = file.read_text()
        if text.rstrip().endswith("}"):
            break
        time.sleep(0.2)
    return json.loads(text)


def _security(protocol: str, credentials: Path | None, address: str) -> Any:
    if protocol == "tcp":
        if credentials is not None:
            raise InputError(
                f"deploy: credentials are given for {address!r}, which is not encrypted",
                hint="use the scheduler's tls:// address",
            )
        return None
    if credentials is not None:
        from emcube.deploy.tls import security_of

        return security_of(credentials)
    from distributed import Security

    security = Security()  # from Dask's own configuration
    found = security.get_tls_config_for_role("client")
    if not found["ca_file"] or not found["cert"]:
        raise InputError(
            f"deploy: {address!r} needs credentials, none are given",
            hint="credentials=FOLDER with ca.pem, cert.pem and key.pem, or Dask's own configuration "
            "(distributed.comm.tls)",
        )
    return security
