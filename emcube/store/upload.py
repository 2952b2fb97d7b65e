"""Write a cube to an address: through a small folder of this machine, region by region, resumable.

The folder holds what a local store holds while it is written, its journal above all, but each region's
files only until they have arrived. The root document is uploaded last, as it is written last here: a
store without it opens as incomplete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.cube import validate_cube
from emcube.errors import StoreError
from emcube.store.events import EVENT_ARRAYS, PER_PIXEL
from emcube.store.journal import BEGUN, HIDDEN, MANIFEST, Part, exclusive, read_json, write_json
from emcube.store.remote import Remote
from emcube.store.write import _NO_SPACE, DATA, IngestProgress, _Ingest, check_layout

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["staging_folder", "write_remote_cube"]

_TOKEN = "upload.json"


def staging_folder(address: str) -> Path:
    """Folder of this machine through which things are written to an address.

    Below the one that the environment variable EMCUBE_STAGING names, or the user's cache. Its name is a
    hash of the address, which it does not show.
    """
    base = os.environ.get("EMCUBE_STAGING", "").strip()
    if not base:
        import platformdirs

        base = str(platformdirs.user_cache_path("emcube") / "staging")
    return Path(base).expanduser() / hashlib.sha256(address.encode()).hexdigest()[:20]


def write_remote_cube(
    cube: xr.DataArray,
    address: str,
    *,
    layout: str = "auto",
    overwrite: bool = False,
    companions: Sequence[xr.DataArray] = (),
    progress: Callable[[IngestProgress], None] | None = None,
    threads: int | None = None,
) -> str:
    """Write a cube to a store behind an address, such as ``s3://bucket/map.zarr``.

    Parameters
    ----------
    cube : xarray.DataArray
    address : str
        Without credentials: these come from the environment or from fsspec's configuration.
    layout, companions, progress, threads
        As for `emcube.store.write_cube`.
    overwrite : bool
        Replace a cube store that is there. It is removed before the new one is written: an address knows no
        renaming, so that, unlike here, there is no store for the time between.

    Returns
    -------
    str
        The address.

    Raises
    ------
    InputError
        The address holds credentials, or there is no such layout.
    StoreError
        The address cannot be written, or is taken; nothing was changed. Or the local disk is full.
    MissingDependencyError
        The client of the protocol is not installed.
    InterruptedRunError
        Stopped from the keyboard; the same call goes on.

    Notes
    -----
    One pass over the source. On this machine's disk (see `staging_folder`) lie a few regions at a time,
    and of the layout "events" two bytes a pixel. The same digest and files as `emcube.store.write_cube`.
    An interrupted call is continued on the same machine.
    """
    check_layout(layout)
    there = Remote(address)
    there.require_writable()
    cube = validate_cube(cube)
    staging = staging_folder(there.address) / "cube"
    ingest = _RemoteIngest(
        cube,
        staging,
        there.address,
        tuple(companions),
        progress,
        threads,
        overwrite,
        layout == "events",
    )
    ingest.there = there
    (staging / HIDDEN).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(exclusive(staging / HIDDEN / "lock", there.address))
        try:
            ingest.take_place()
            ingest.run()
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise ingest.disk_full() from error
    shutil.rmtree(staging.parent, ignore_errors=True)
    return there.address


@dataclass(eq=False)
class _RemoteIngest(_Ingest):
    """An ingest whose files do not stay here."""

    there: Any = None
    arrived: dict[str, int] = field(default_factory=dict)

    @property
    def _note(self) -> Path:
        return self.root / HIDDEN / _TOKEN

    def take_place(self) -> None:
        """Make sure that the address is free, or holds what was begun here and what may be replaced.

        Raises
        ------
        StoreError
            It holds anything else; nothing was changed.
        """
        found = self.there.read("zarr.json")
        if found is not None:
            self._require_replaceable(found)
            self._empty()
        elif not self._is_ours():
            if self.there.read(BEGUN) is not None:
                if not self.overwrite:
                    raise StoreError(
                        f"cannot write a store to {self.shown}: it holds an ingest that another machine "
                        "began and has not finished",
                        hint="go on there, choose another address, or give it up with overwrite=True "
                        "(--overwrite)",
                    )
                self._empty()
            elif self.there.sizes():
                raise StoreError(
                    f"cannot write a store to {self.shown}: it holds something else, which is never replaced",
                    hint="choose another address, or remove what is there yourself",
                )
        self._note_ours()

    def _require_replaceable(self, document: bytes) -> None:
        try:
            own = json.loads(document).get("attributes", {}).get("emcube")
        except (ValueError, AttributeError):
            own = None
        if not isinstance(own, dict) or own.get("kind") != "cube":
            raise StoreError(
                f"cannot write a store to {self.shown}: it holds Zarr data that is not a cube store, "
                "which is never replaced",
                hint="choose another address, or remove what is there yourself",
            )
        if not self.overwrite:
            raise StoreError(
                f"cannot write a store to {self.shown}: a complete store is there already "
                f"({own.get('digest')})",
                hint="choose another address, or replace it with overwrite=True (--overwrite)",
            )

    def _empty(self) -> None:
        """Remove everything at the address, the mark of completeness first."""
        self.there.remove("zarr.json")
        self.there.remove()
        for name in (DATA, *EVENT_ARRAYS):
            shutil.rmtree(self.root / name, ignore_errors=True)
        self.journal.forget()
        self._note.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        """Whether what was begun at the address was begun from this folder."""
        begun = self.there.read(BEGUN)
        if begun is None or not self._note.is_file():
            return False
        try:
            return bool(json.loads(begun)["token"] == read_json(self._note)["token"])
        except (ValueError, KeyError, TypeError):
            return False

    def _note_ours(self) -> None:
        if self._is_ours():
            return
        # Regions of which this folder knows are not at an address that holds nothing.
        self.journal.forget()
        note = {"token": uuid.uuid4().hex}
        write_json(self._note, note)
        self.there.put(BEGUN, json.dumps(note).encode())

    # ---------------------------------------------------------------------- what differs from an ingest here

    def _take_over(self, begun: dict[str, Any], identity: str) -> list[Part]:
        self.arrived = self.there.sizes()
        return super()._take_over(begun, identity)

    def _on_disk(self, part: Part) -> bool:
        if any(self.arrived.get(name) != size for name, (size, _) in part.files.items()):
            return False
        stay = [name for name in part.files if self._stays(name)]
        return all((self.root / name).is_file() for name in stay)

    def _clear(self) -> None:
        self._empty()
        self._note_ours()

    def _stays(self, name: str) -> bool:
        # The length of the longest row of events is found from all of them at the end.
        return name.startswith(f"{PER_PIXEL}/")

    def _keep(self, files: list[Path]) -> None:
        for file in files:
            name = file.relative_to(self.root).as_posix()
            self.there.put(name, file.read_bytes())
            if not self._stays(name):
                file.unlink()

    def _complete(self, files: dict[str, tuple[int, str]], root: bytes) -> None:
        sent = {name for part in self.journal.parts() for name in part.files}
        for name in sorted(files.keys() - sent):
            self.there.put(name, (self.root / name).read_bytes())
        self.journal.write_manifest(files)
        self.there.put(MANIFEST, (self.root / MANIFEST).read_bytes())
        self.there.put("zarr.json", root)
        self.there.remove(BEGUN)
