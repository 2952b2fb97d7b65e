"""What a package says of itself to emcube: one JSON file, checked before anything else is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from emcube.errors import PackageError
from emcube.package.names import DESCRIPTION, printable
from emcube.package.stores import load_json

__all__ = ["FORMAT", "Address", "Description", "PackagedInput", "parse_description"]

FORMAT = 1
"""Version of the layout of a package that this release writes, and the newest that it reads."""

MAX_BYTES = 2**20

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Address(_Model):
    """Where the input can be fetched.

    Attributes
    ----------
    url : str
        ``https://`` and the like; never a place on somebody's machine.
    kind : {"store", "file"}
        A cube store, or an instrument file.
    """

    url: Annotated[
        str, StringConstraints(pattern=r"^(https?|s3|gs|gcs|az|abfs)://\S+$", max_length=4096)
    ]
    kind: Literal["store", "file"]

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        from emcube.package.addresses import without_secrets

        if without_secrets(url) != url.partition("#")[0]:
            raise ValueError(
                "it holds a user, a password or a query that may let its holder in, expected a plain address"
            )
        return url


class PackagedInput(_Model):
    """The cube that was analysed.

    Attributes
    ----------
    digest : str
        Of its content, whatever the file.
    included : str or None
        Where it lies in the package.
    addresses : tuple of Address
    opening : dict
        Options of `emcube.open` for an instrument file: ``name``, ``dim``, ``values``.
    layout : {"dense", "events"}
        How its store keeps the values; blocks hang on it.
    described : dict
        How the recipe named it, and what is known of it; for people.
    """

    digest: Digest
    included: Literal["input/cube.zarr"] | None = None
    addresses: Annotated[tuple[Address, ...], Field(strict=False, max_length=64)] = ()
    opening: dict[str, Any] = {}
    layout: Literal["dense", "events"] = "dense"
    described: dict[str, Any] = {}


class Description(_Model):
    """A package.

    Attributes
    ----------
    emcube_package : int
        Version of the layout.
    created_with : str
        Version of emcube that made it.
    title : str
    run_id : str
        Of the result.
    seeds : dict
        Seeds that the recipe left open, as they were drawn, by step.
    input : PackagedInput
    stack : dict
        What the bits of the result depend on (`emcube.results.provenance.stack`).
    tolerances : dict
        Largest differences on another stack, by kind of step and variable; for the record, since whoever
        reproduces uses those of emcube's own.
    """

    emcube_package: int
    created_with: Text
    title: Text
    run_id: Digest
    seeds: dict[str, Annotated[int, Field(ge=0, le=2**32 - 1)]] = {}
    input: PackagedInput
    stack: dict[str, Any] = {}
    tolerances: dict[str, dict[str, float]] = {}

    def to_bytes(self) -> bytes:
        """The file."""
        data = self.model_dump(mode="json")
        return (json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def parse_description(data: bytes, path: Path) -> Description:
    """Read the description of a package.

    Parameters
    ----------
    data : bytes
    path : Path
        The package, for messages.

    Raises
    ------
    PackageError
        It is none, of a newer version, or does not say what it must.
    """
    where = f"{DESCRIPTION} of the package {str(path)!r}"
    plain = load_json(data, where)
    version = plain.get("emcube_package") if isinstance(plain, dict) else None
    if type(version) is not int or version < 1:
        raise PackageError(
            f"{where} does not say which version of the layout it has, expected 'emcube_package': {FORMAT}",
            hint="check that it is a package of emcube, and get it again",
        )
    if version > FORMAT:
        made = printable(plain.get("created_with", "a newer emcube"))
        raise PackageError(
            f"the package {str(path)!r} has the layout {version} (made with emcube {made}), this emcube "
            f"reads up to {FORMAT}",
            hint="install a newer emcube: pip install --upgrade emcube",
        )
    try:
        return Description.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise PackageError(
            f"{where}: {printable(place)!r}: {printable(first['msg'])}",
            hint="get the package again from where it was published",
        ) from None
