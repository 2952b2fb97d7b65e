"""Look whether a store is still what was written, and say what is in one."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.addresses import is_url
from emcube.errors import StoreError
from emcube.feedback.events import working
from emcube.store.events import EVENT_ARRAYS
from emcube.store.journal import MANIFEST, Journal, bytes_digest, file_digest, parse_manifest
from emcube.store.open import StorePath, open_cube, read_digest, root_attributes
from emcube.store.remote import Remote
from emcube.store.write import DATA, compute_digest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["StoreInfo", "Verification", "digest", "info", "verify"]


def digest(source: StorePath | xr.DataArray) -> str:
    """Digest of a cube, or of the cube in a store.

    Parameters
    ----------
    source : path-like or xarray.DataArray
        Of a store the digest is read; of a cube it is computed, one pass over its values.

    Returns
    -------
    str
        ``"sha256:..."``; the same for a cube and for its store.

    Raises
    ------
    IncompleteError
        The store was never finished.
    StoreError
        It is not a cube store.
    """
    import xarray as xr

    return compute_digest(source) if isinstance(source, xr.DataArray) else read_digest(source)


@dataclass(frozen=True)
class Verification:
    """What was found in a store.

    Attributes
    ----------
    path : str
    n_files : int
        Files looked at.
    missing, damaged : tuple of str
        Files that are not there, or not what was written, relative to the store.
    digest : str
        As the store says.
    recomputed : str or None
        As its values say; None where only files were looked at.
    """

    path: str
    n_files: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    digest: str
    recomputed: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the store is whole."""
        same = self.recomputed in (None, self.digest)
        return same and not self.missing and not self.damaged

    def check(self) -> None:
        """Raise unless the store is whole.

        Raises
        ------
        StoreError
            Names the first file that is missing or damaged.
        """
        if self.ok:
            return
        if self.missing or self.damaged:
            kind, first = ("missing", self.missing) if self.missing else ("damaged", self.damaged)
            n_bad = len(self.missing) + len(self.damaged)
            what = f"{n_bad} of {self.n_files} files are missing or damaged, the first: {first[0]} is {kind}"
        else:
            what = f"its values have the digest {self.recomputed}, expected {self.digest}"
        raise StoreError(
            f"{self.path} is not what was written: {what}",
            hint="restore it from a copy, or ingest the source again with overwrite=True (--overwrite)",
        )


def verify(
    path: StorePath, *, deep: bool = False, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Compare every file of a store with the digest it had when it was written.

    Parameters
    ----------
    path : path-like or URL
        A cube store; one behind a URL is read whole, over the network.
    deep : bool
        Also decode all values and compute the cube's digest anew. Only then is a store known to be whole
        whose manifest was changed together with its files.
    progress : callable, optional
        Gets the number of files done and of all files.

    Returns
    -------
    Verification

    Raises
    ------
    IncompleteError
        The store was never finished.
    StoreError
        It is not a cube store, or has no manifest.

    Notes
    -----
    One pass over the compressed bytes; with `deep` another over the values, unless files are bad.
    """
    document = root_attributes(path)
    manifest, state = _remote_state(str(path)) if is_url(path) else _local_state(Path(path))
    states: dict[str, str] = {}
    n_bytes = sum(size for size, _ in manifest.values())
    with working("verify", n_bytes=n_bytes) as work, ThreadPoolExecutor(2) as pool:
        for name, found in zip(manifest, pool.map(state, manifest), strict=True):
            states[name] = found
            work.advance(bytes=manifest[name][0])
            if progress is not None:
                progress(len(states), len(manifest))
    missing = tuple(name for name, found in states.items() if found == "missing")
    damaged = tuple(name for name, found in states.items() if found == "damaged")
    recomputed = None
    if deep and not missing and not damaged:
        recomputed = compute_digest(open_cube(path))
    return Verification(
        str(path), len(manifest), missing, damaged, str(document["digest"]), recomputed
    )


_State = tuple[dict[str, tuple[int, str]], Callable[[str], str]]


def _local_state(root: Path) -> _State:
    """Manifest of a store here, and what looks at one of its files."""
    manifest = Journal(root).manifest()

    def state(name: str) -> str:
        size, expected = manifest[name]
        file = root / name
        if not file.is_file():
            return "missing"
        same = file.stat().st_size == size and file_digest(file) == expected
        return "whole" if same else "damaged"

    return manifest, state


def _remote_state(address: str) -> _State:
    """The same of a store behind an address."""
    there = Remote(address)
    found = there.read(MANIFEST)
    if found is None:
        raise StoreError(
            f"{address} has no manifest: {MANIFEST} does not exist",
            hint="put stores there whole, with their hidden folders, or ingest again",
        )
    manifest = parse_manifest(json.loads(found))

    def state(name: str) -> str:
        size, expected = manifest[name]
        data = there.read(name, patient=True)
        if data is None:
            return "missing"
        return "whole" if len(data) == size and bytes_digest(data) == expected else "damaged"

    return manifest, state


@dataclass(frozen=True)
class StoreInfo:
    """What is in a cube store.

    Attributes
    ----------
    path, name, digest : str
    dims, sig_dims : tuple of str
    shape, chunks : tuple of int
    shards : tuple of int or None
    layout : str
        "dense" or "events".
    dtype, units : str
    axes : dict
        For each dim its first and last value and unit.
    metadata : dict
    companions : tuple of str
    nbytes, stored_bytes : int
        Decoded, and on disk.
    """

    path: str
    name: str
    digest: str
    dims: tuple[str, ...]
    sig_dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    layout: str
    dtype: str
    units: str
    axes: dict[str, dict[str, Any]]
    metadata: dict[str, Any]
    companions: tuple[str, ...]
    nbytes: int
    stored_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        from dataclasses import asdict

        from emcube.store.attributes import to_json

        found: dict[str, Any] = to_json(asdict(self), "info")
        return found


def info(path: StorePath) -> StoreInfo:
    """Describe a cube store; reads metadata only.

    Raises
    ------
    IncompleteError
        The store was never finished.
    StoreError
        It is not a cube store.
    """
    own = root_attributes(path)
    cube = open_cube(path)
    stored = None
    if not is_url(path):
        manifest = Journal(Path(path)).manifest()
        kept = EVENT_ARRAYS if "cube" in own else (DATA,)
        stored = sum(size for name, (size, _) in manifest.items() if name.split("/")[0] in kept)
    axes = {}
    for dim in cube.dims:
        values = cube.coords[dim].values
        first, last = (v.item() if hasattr(v, "item") else v for v in (values[0], values[-1]))
        axes[str(dim)] = {"first": first, "last": last, "units": cube[dim].attrs.get("units")}
    shards = own["layout"]["shards"]
    return StoreInfo(
        path=str(path),
        name=str(cube.name),
        digest=str(own["digest"]),
        dims=tuple(str(dim) for dim in cube.dims),
        sig_dims=tuple(cube.attrs["sig_dims"]),
        shape=cube.shape,
        chunks=tuple(own["layout"]["chunks"]),
        shards=tuple(shards) if shards else None,
        layout=str(own["layout"].get("kind", "dense")),
        dtype=str(cube.dtype),
        units=str(cube.attrs["units"]),
        axes=axes,
        metadata=dict(cube.attrs.get("metadata") or {}),
        companions=tuple(own["companions"]),
        nbytes=int(cube.nbytes),
        stored_bytes=stored,
    )
