"""What an unfinished store knows of itself: whose it is, which regions are done, and who writes.

Everything lies in a hidden folder of the store. ``ingest.json`` says what is being written, ``parts`` holds
one file a finished group of regions: its quicklooks, its hashes and the digests of its files, renamed into
place only when the group's chunks are on disk. A store is complete when its root ``zarr.json`` exists,
which is written last; the hidden folder then keeps only ``manifest.json``, the digests of all files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcube.disk import exclusive, replace_file, try_lock
from emcube.errors import StoreError
from emcube.store.quicklook import SpectrumSum

__all__ = [
    "BEGUN",
    "HIDDEN",
    "MANIFEST",
    "Journal",
    "Part",
    "bytes_digest",
    "exclusive",
    "file_digest",
    "parse_manifest",
    "read_json",
    "replace_file",
    "try_lock",
    "write_json",
]

HIDDEN = ".emcube"
_INGEST = "ingest.json"
_MANIFEST = "manifest.json"
_PARTS = "parts"
_LOCK = "lock"
#: Names within a store.
BEGUN, MANIFEST = f"{HIDDEN}/{_INGEST}", f"{HIDDEN}/{_MANIFEST}"


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    replace_file(path, json.dumps(value, indent=1, allow_nan=False).encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    StoreError
        It is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(
            f"{path} is not valid JSON: {error}",
            hint="the store is damaged: restore the file from a copy, or ingest again with overwrite=True",
        ) from None


def file_digest(path: Path) -> str:
    """Digest of a file as it lies on disk."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def parse_manifest(document: Any) -> dict[str, tuple[int, str]]:
    """Take the bytes and digest of each file out of a manifest."""
    return {name: (int(size), str(digest)) for name, (size, digest) in document["files"].items()}


def bytes_digest(data: bytes) -> str:
    """What `file_digest` gives for a file of these bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclass(eq=False)
class Part:
    """What is known of some finished regions.

    Attributes
    ----------
    regions : list of int
        Their numbers, ascending.
    totals, hashes : list of ndarray
        One a region: total counts of its pixels, hashes of its pieces.
    spectrum : SpectrumSum
        Sum over all of them.
    files : dict
        Path of each file, relative to the store, to ``[bytes, digest]``.
    """

    regions: list[int]
    totals: list[NDArray[Any]]
    hashes: list[NDArray[np.uint8]]
    spectrum: SpectrumSum
    files: dict[str, tuple[int, str]]

    def extend(self, other: Part) -> Part:
        """Take in a later part; returns this one."""
        self.regions += other.regions
        self.totals += other.totals
        self.hashes += other.hashes
        self.spectrum.add(other.spectrum)
        self.files |= other.files
        return self

    def save(self, path: Path) -> None:
        """Write the part, whole or not at all."""
        import io

        arrays: dict[str, Any] = {
            "regions": np.asarray(self.regions, np.int64),
            "spectrum": self.spectrum.total,
            "seen": self.spectrum.seen,
            "files": np.frombuffer(json.dumps(self.files).encode(), np.uint8),
        }
        for number, total, hashes in zip(self.regions, self.totals, self.hashes, strict=True):
            arrays[f"total_{number}"], arrays[f"hash_{number}"] = total, hashes
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        replace_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Part:
        """Read a part.

        Raises
        ------
        StoreError
            The file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                regions = [int(i) for i in arrays["regions"]]
                files = json.loads(arrays["files"].tobytes())
                return cls(
                    regions,
                    [arrays[f"total_{i}"] for i in regions],
                    [arrays[f"hash_{i}"] for i in regions],
                    SpectrumSum(arrays["spectrum"], arrays["seen"]),
                    {name: (int(size), str(digest)) for name, (size, digest) in files.items()},
                )
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError(
                f"the journal of an unfinished ingest is damaged: {path}: {error}",
                hint="start anew: delete the unfinished store and ingest again",
            ) from error


@dataclass(frozen=True)
class Journal:
    """The hidden folder of one store.

    Attributes
    ----------
    root : Path
        The store.
    """

    root: Path

    @property
    def folder(self) -> Path:
        """The hidden folder."""
        return self.root / HIDDEN

    @property
    def lock_file(self) -> Path:
        """File whose lock the writer holds."""
        return self.folder / _LOCK

    def begun(self) -> dict[str, Any] | None:
        """What is being written here; None where no ingest was begun or it was finished."""
        path = self.folder / _INGEST
        if not path.is_file():
            return None
        begun: dict[str, Any] = read_json(path)
        return begun

    def begin(self, begun: dict[str, Any]) -> None:
        """Note what is going to be written."""
        (self.folder / _PARTS).mkdir(parents=True, exist_ok=True)
        write_json(self.folder / _INGEST, begun)

    def parts(self) -> list[Part]:
        """Finished parts in the order of their regions."""
        return [Part.load(path) for path in sorted((self.folder / _PARTS).glob("*.npz"))]

    def add(self, part: Part) -> None:
        """Note that some regions are done: their files are on disk."""
        part.save(self.folder / _PARTS / f"{part.regions[0]:010d}.npz")

    def drop(self, first_region: int) -> None:
        """Forget the part that begins with a region."""
        (self.folder / _PARTS / f"{first_region:010d}.npz").unlink(missing_ok=True)

    def forget(self) -> None:
        """Give up what was begun."""
        (self.folder / _INGEST).unlink(missing_ok=True)
        for path in (self.folder / _PARTS).glob("*.npz"):
            path.unlink()

    def progress(self) -> tuple[int, int]:
        """Regions done, and of how many; reads names and headers only."""
        begun = self.begun() or {}
        done = 0
        for path in (self.folder / _PARTS).glob("*.npz"):
            with np.load(path, allow_pickle=False) as arrays:
                done += int(arrays["regions"].size)
        return done, int(begun.get("n_regions", 0))

    def manifest(self) -> dict[str, tuple[int, str]]:
        """Digests of all files of a finished store.

        Raises
        ------
        StoreError
            There is no manifest.
        """
        path = self.folder / _MANIFEST
        if not path.is_file():
            raise StoreError(
                f"{self.root} has no manifest: {path} does not exist",
                hint="copy stores whole, with their hidden folders, or ingest again",
            )
        return parse_manifest(read_json(path))

    def write_manifest(self, files: dict[str, tuple[int, str]]) -> None:
        """Write the digests of all files."""
        write_json(self.folder / _MANIFEST, {"format": 1, "files": dict(sorted(files.items()))})

    def finish(self, files: dict[str, tuple[int, str]], root_document: bytes) -> None:
        """Write the manifest, then the root document that makes the store complete; then tidy up."""
        self.write_manifest(files)
        replace_file(self.root / "zarr.json", root_document)
        (self.folder / _INGEST).unlink(missing_ok=True)
        shutil.rmtree(self.folder / _PARTS, ignore_errors=True)
