"""Credentials for one run: whoever has them may join it, nobody else, and the wire is encrypted.

Dask runs what it is sent, so a scheduler that strangers reach is a shell that strangers reach. Each
deployment that crosses hosts makes its own key and certificate, which every part of it shows to
every other (mutual TLS). They lie in a folder that only its owner can enter.
"""

from __future__ import annotations

import os
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from emcube.errors import InputError, MissingDependencyError

__all__ = ["CA", "CERT", "KEY", "make_credentials", "security_of"]

CA, CERT, KEY = "ca.pem", "cert.pem", "key.pem"

_LIFE = timedelta(days=60)


def make_credentials(folder: Path) -> Path:
    """Make a key and a certificate in a private folder.

    Parameters
    ----------
    folder : Path
        Made with mode 0700; the files in it have mode 0600. All hosts of the run must see it.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        The folder exists and others can enter it or own it.
    MissingDependencyError
        The package ``cryptography`` is not installed.

    Notes
    -----
    The certificate names no host: whoever holds the key of this run is trusted, as only its members
    can read it. It is valid for 60 days, from an hour ago on (clocks of a cluster differ).
    """
    key, certificate = _self_signed()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_private(folder)
    for name, content in ((CA, certificate), (CERT, certificate), (KEY, key)):
        _write_private(folder / name, content)
    return folder


def security_of(folder: Path) -> Any:
    """What Dask needs to use the credentials of a folder.

    Returns
    -------
    distributed.Security
        For the client, the scheduler and the workers alike; connections without TLS are refused.

    Raises
    ------
    InputError
        A file is missing, or others than the owner can read the key.
    """
    from distributed import Security

    missing = [name for name in (CA, CERT, KEY) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"credentials {str(folder)!r}: {', '.join(missing)} missing, got no usable credentials",
            hint=f"the folder must hold {CA}, {CERT} and {KEY}",
        )
    _require_private(folder / KEY)
    ca, cert, key = (str(folder / name) for name in (CA, CERT, KEY))
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=cert,
        tls_client_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
    )


def _self_signed() -> tuple[bytes, bytes]:
    """A private key and the certificate that it signs for itself, in PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        raise MissingDependencyError(
            "encrypted connections between hosts need the package cryptography, which is not installed",
            hint='pip install "emcube[hpc]"',
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emcube run")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


def _write_private(file: Path, content: bytes) -> None:
    """Write a file that is private from its first byte on."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _require_private(path: Path) -> None:
    if sys.platform == "win32":  # permissions are inherited lists there, not modes
        return
    found = path.stat()
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(
            f"credentials: {str(path)!r} has mode {stat.S_IMODE(found.st_mode):o}, others than its "
            "owner can use it",
            hint=f"chmod go= {path}",
        )
    if found.st_uid != os.geteuid():
        raise InputError(
            f"credentials: {str(path)!r} belongs to user {found.st_uid}, not to you ({os.geteuid()})"
        )
