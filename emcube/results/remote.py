"""Results behind an address: opened in place, and written there when they are whole.

A run writes many small pieces, goes on from them after an interruption, and may have workers elsewhere:
it is done in a folder, and its finished result is copied, the root document last. See
docs/decisions/0019-remote-stores.md.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.storage import FsspecStore

from emcube.disk import exclusive
from emcube.errors import IncompleteError, InputError, StoreError
from emcube.results.tree import require_known_format, root_attributes, taken
from emcube.store.remote import PAUSES, Remote, may_pass, reading
from emcube.store.upload import staging_folder

if TYPE_CHECKING:
    import xarray as xr

    from emcube.results.result import Result

__all__ = ["RemoteResult", "RemoteStore", "open_remote_tree", "read_remote_root"]

_UPLOAD = ".emcube/upload.json"
#: Requests under way at one time.
_THREADS = 4


def read_remote_root(address: str) -> dict[str, Any] | None:
    """Root attributes of the result at an address; None where there is none of emcube.

    Raises
    ------
    InputError
        The address holds credentials.
    StoreError
        It cannot be read, or is damaged.
    """
    document = _root_document(Remote(address))
    return None if document is None else root_attributes(document, address)


def _root_document(there: Remote) -> dict[str, Any] | None:
    found = there.read("zarr.json")
    if found is None:
        return None
    try:
        document = json.loads(found)
    except ValueError as error:
        raise StoreError(
            f"the root of {there.address} cannot be read: it is not valid JSON: {error}",
            hint="copy the result there again",
        ) from None
    return document if isinstance(document, dict) else None


def open_remote_tree(address: str) -> tuple[str, xr.DataTree]:
    """Open the tree of the result at an address, lazily.

    Returns
    -------
    address : str
    tree : xarray.DataTree

    Raises
    ------
    InputError
        The address holds credentials.
    IncompleteError
        It was not copied whole.
    StoreError
        There is no result, it cannot be read, or a newer emcube wrote it.
    """
    import xarray as xr

    there = Remote(address)
    document = _root_document(there)
    root = None if document is None else root_attributes(document, there.address)
    if document is None or root is None:
        if there.read(_UPLOAD) is not None:
            raise IncompleteError(
                f"the result at {there.address} was never copied whole",
                hint="run its recipe again on the machine where it was run: it goes on there",
            )
        raise StoreError(
            f"there is no result at {there.address}",
            hint="check the address; open cubes with emcube.open",
        )
    require_known_format(there.address, root["emcube"])
    if root["emcube"]["complete"] is not True or "consolidated_metadata" not in document:
        raise IncompleteError(
            f"the result at {there.address} was never finished",
            hint="finish it where it was run, and copy it again",
        )
    with reading(there.address):
        tree = xr.open_datatree(
            RemoteStore.open_at(there.address, _expected(document)),  # type: ignore[arg-type]
            engine="zarr",
            chunks={},
            consolidated=True,
            decode_timedelta=False,
        )
    return there.address, tree


def _expected(document: Mapping[str, Any]) -> frozenset[str]:
    """Prefixes of the chunks that must all be there: of arrays none of whose chunks was left out."""
    documents = document["consolidated_metadata"]["metadata"]
    found = set()
    for name, node in documents.items():
        if node.get("node_type") != "group":
            continue
        written = (node.get("attributes", {}).get("emcube") or {}).get("chunks", {})
        for array, number in written.items():
            meta = documents[f"{name}/{array}"]
            lengths = meta["chunk_grid"]["configuration"]["chunk_shape"]
            grid = (-(-n // c) for n, c in zip(meta["shape"], lengths, strict=True))
            if int(number) == math.prod(grid):
                found.add(f"{name}/{array}/c")
    return frozenset(found)


class RemoteStore(FsspecStore):
    """A result behind an address, read only: patient, and strict about chunks that were written.

    Zarr reads a chunk that is gone as fill values; here it is an error.
    """

    address: str = ""
    expected: frozenset[str] = frozenset()

    @classmethod
    def open_at(cls, address: str, expected: frozenset[str]) -> RemoteStore:
        """Open the store at an address, of which these prefixes of chunks are whole."""
        store = cls.from_url(address, read_only=True)
        assert isinstance(store, RemoteStore)
        store.address, store.expected = address, expected
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        # By the address, not with the file system, which holds credentials.
        return RemoteStore.open_at, (self.address, self.expected)

    def with_read_only(self, read_only: bool = False) -> RemoteStore:
        """The same store; it is always read only."""
        if not read_only:
            raise StoreError(
                f"the result at {self.address} is read only here",
                hint="results are written by emcube.run",
            )
        return self

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """Read a file, several times where what goes wrong may pass.

        Raises
        ------
        StoreError
            A chunk that was written is not there, or it cannot be read.
        """
        with reading(f"{self.address}/{key}"):
            found = await self._patient_get(key, *args, **kwargs)
        prefix, _, _ = key.rpartition("/c/")
        if found is None and (f"{prefix}/c" in self.expected or key in self.expected):
            raise StoreError(
                f"{self.address}/{key} does not exist, and zarr would read it as fill values",
                hint="copy the result there again",
            )
        return found

    async def _patient_get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        for pause in PAUSES:
            try:
                return await super().get(key, *args, **kwargs)
            except Exception as error:
                if not may_pass(error):
                    raise
                await asyncio.sleep(pause)
        return await super().get(key, *args, **kwargs)


class RemoteResult:
    """A place for a result behind an address.

    Parameters
    ----------
    address : str
        Without credentials.

    Raises
    ------
    InputError
        The address holds credentials.
    StoreError
        It can only be read.
    """

    def __init__(self, address: str) -> None:
        self.there = Remote(address)
        self.there.require_writable()

    @property
    def address(self) -> str:
        """Where the result goes in the end."""
        return self.there.address

    @property
    def staging(self) -> Path:
        """Folder of this machine in which the run is done."""
        return staging_folder(self.address) / "result"

    def root(self) -> dict[str, Any] | None:
        """Root attributes of the result that is there now."""
        return read_remote_root(self.address)

    def kept(self, run_id: str, *, overwrite: bool) -> Result | None:
        """Open the result of this run, if it is there already.

        Raises
        ------
        InputError
            The address holds something else, and may not be replaced.
        """
        from emcube.results.result import open_result

        root = self.root()
        if root is not None:
            if root["run_id"] == run_id and root["emcube"]["complete"] is True:
                return open_result(self.address)
            if not overwrite:
                raise taken(self.address, root, run_id)
            self._require_own()
            return None
        begun = self.there.read(_UPLOAD)
        if begun is not None:
            if json.loads(begun).get("run_id") == run_id or overwrite:
                return None
            raise InputError(
                f"{self.address!r} holds a part of the result of another run",
                hint="choose another place with --out, or replace it with --overwrite",
            )
        if self.there.sizes():
            raise InputError(
                f"{self.address!r} holds something that is not a result of emcube, expected a new address",
                hint="choose another place with --out; nothing was touched",
            )
        return None

    def _require_own(self) -> None:
        """Refuse to replace a result beside which somebody has put something else."""
        names = self.there.sizes()
        others = sorted(
            name
            for name in names
            if name != "zarr.json"
            and not name.startswith(".")
            and f"{name.split('/')[0]}/zarr.json" not in names
        )
        if others:
            raise InputError(
                f"{self.address!r} holds besides its result what would be lost with it: {others[0]}",
                hint="move that elsewhere, or choose another place with --out; nothing was touched",
            )

    def publish(self, result: Result) -> Result:
        """Copy a whole result to the address and open it there; the folder it comes from is removed.

        Raises
        ------
        StoreError
            It cannot be written; the same call goes on from the finished result.
        """
        from emcube.results.result import open_result

        result.require_complete("publishing to an address")
        folder = result.path
        names = [
            file.relative_to(folder).as_posix()
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file != folder / "zarr.json"
        ]
        with exclusive(folder.parent / "upload.lock", self.address):
            # What is there was looked at by `kept`. Its mark of completeness goes first.
            self.there.remove("zarr.json")
            self.there.remove()
            self.there.put(_UPLOAD, json.dumps({"run_id": result.run_id}).encode())
            with ThreadPoolExecutor(_THREADS) as pool:
                list(
                    pool.map(lambda name: self.there.put(name, (folder / name).read_bytes()), names)
                )
            self.there.put("zarr.json", (folder / "zarr.json").read_bytes())
            self.there.remove(_UPLOAD)
        shutil.rmtree(folder.parent, ignore_errors=True)
        return open_result(self.address)
