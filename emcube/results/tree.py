"""Write a result: one Zarr v3 group, a node a step, a completion marker last.

zarr reads a missing chunk as fill values without a word, and a half-written tree looks like a small
whole one. Therefore every node notes, when it is done, how many chunks each of its arrays has and the
digest of its values; the root's marker follows when all nodes are done.
"""

from __future__ import annotations

import json
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
import xarray as xr

from emcube.disk import exclusive
from emcube.engine.states import fingerprint
from emcube.errors import EngineError, IncompleteError, InputError, StoreError
from emcube.results.digest import stored_digest
from emcube.results.variables import check_dataset
from emcube.store import to_json

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = [
    "FIELDS",
    "FORMAT",
    "Node",
    "ResultWriter",
    "begun_roots",
    "checkpoint_folder",
    "field_node",
    "frame",
    "is_result",
    "nodes_of",
]
__all__ += ["missing_chunks", "node_attributes", "read_root", "require_free", "require_own"]
__all__ += ["require_known_format", "root_attributes", "taken"]

FORMAT = 1
"""Version of the layout of a result."""


def read_root(path: Path) -> dict[str, Any] | None:
    """Root attributes of a result, or None where `path` is no result of emcube.

    Raises
    ------
    StoreError
        It is a result whose root cannot be read, or does not say what every root says.
    """
    file = path / "zarr.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the root of {str(path)!r} cannot be read: {error}",
            hint="check permissions; if the file is damaged, remove the folder and run again",
        ) from error
    return root_attributes(document, path)


def root_attributes(document: Any, place: Path | str) -> dict[str, Any] | None:
    """Root attributes in the root document of a result; None where it is none of emcube.

    Parameters
    ----------
    document : object
        What ``zarr.json`` holds.
    place : Path or str
        Where it lies, for messages.

    Raises
    ------
    StoreError
        It is one, but does not say what every root says.
    """
    attributes = document.get("attributes") if isinstance(document, dict) else None
    if not isinstance(attributes, dict):
        return None
    marker = attributes.get("emcube")
    if not isinstance(marker, dict) or marker.get("kind") != "result":
        return None
    _check_root(place, attributes)
    return attributes


def _check_root(path: Path | str, root: Mapping[str, Any]) -> None:
    """Refuse root attributes that someone else changed, before anything is concluded from them."""
    marker = root["emcube"]
    recipe = root.get("recipe")
    steps = recipe.get("steps") if isinstance(recipe, dict) else None
    for what, value, holds, expected in (
        # Nothing but true is complete: "no" is true as well.
        ("complete", marker.get("complete"), _is(bool), "true or false"),
        ("format", marker.get("format"), _is(int), "a number"),
        ("run_id", root.get("run_id"), _is(str), "a text"),
        ("recipe", recipe, lambda _: _are_steps(steps), "a recipe with named steps"),
        ("provenance", root.get("provenance"), _is(dict), "a mapping"),
    ):
        if not holds(value):
            raise StoreError(
                f"the root of the result at {str(path)!r} is damaged: its {what!r} is {value!r:.80}, "
                f"expected {expected}",
                hint="copy the result again; or remove the folder and run its recipe again",
            )


def require_known_format(place: Path | str, marker: Mapping[str, Any]) -> None:
    """Refuse a result of a newer format.

    Raises
    ------
    StoreError
        A newer emcube wrote it.
    """
    if int(marker.get("format", 0)) > FORMAT:
        raise StoreError(
            f"the result at {str(place)!r} has format {marker['format']}, this emcube reads up to {FORMAT}",
            hint="install a newer emcube",
        )


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _are_steps(steps: Any) -> bool:
    return isinstance(steps, list) and all(
        isinstance(step, dict)
        and len(step) == 1
        and all(isinstance(p, dict) and "name" in p for p in step.values())
        for step in steps
    )


def is_result(path: str | Path) -> bool:
    """Tell whether a folder holds a result, complete or not."""
    return read_root(Path(path)) is not None


def require_free(path: Path, run_id: str | None = None) -> None:
    """Refuse a folder that holds anything at all.

    Parameters
    ----------
    path : Path
    run_id : str, optional
        Of the run that is to be written there, for the message.

    Raises
    ------
    InputError
        It holds a result, complete or not, or something else.
    """
    root = read_root(path)
    if root is not None:
        raise taken(path, root, run_id)
    if path.exists() and not _is_empty(path):
        raise InputError(
            f"{str(path)!r} exists and is not a result of emcube, expected a new folder",
            hint="choose another place with --out; nothing was touched",
        )


def taken(place: Path | str, root: Mapping[str, Any], run_id: str | None) -> InputError:
    """The error for a place that holds the result of another run."""
    kind = "result" if root["emcube"]["complete"] else "unfinished result"
    this = "" if run_id is None else f", this one is {_short(run_id)}"
    return InputError(
        f"{str(place)!r} holds the {kind} of another run ({_short(root.get('run_id'))}{this})",
        hint="choose another place with --out, or replace it with --overwrite",
    )


def require_own(path: Path) -> None:
    """Refuse to replace a result in whose folder somebody has put something else.

    Raises
    ------
    InputError
        It holds files or folders that are no part of a result.
    """
    others = sorted(
        entry.name
        for entry in path.iterdir()
        if not entry.name.startswith(".")  # file managers leave these
        and entry.name != "zarr.json"
        and not (entry / "zarr.json").is_file()
    )
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise InputError(
            f"{str(path)!r} holds besides its result what would be lost with it: {named}",
            hint="move that elsewhere, or choose another place with --out; nothing was touched",
        )


class ResultWriter:
    """Writes the nodes of one result, and its marker last.

    Parameters
    ----------
    path : path-like
        Folder of the result.
    attributes : mapping
        Root attributes (``run_id``, ``recipe``, ``provenance``); JSON values.

    Notes
    -----
    A node is written whole or not at all: a node without its own marker is removed and written again, or
    goes on being filled where it was begun as it would be begun now.
    A complete result that is to be replaced stays until the new one is whole: that one grows in a hidden
    folder beside it (`path` while it is written) and takes its place in `finish`.
    """

    def __init__(self, path: str | Path, attributes: Mapping[str, Any]) -> None:
        self.path = Path(path)
        if self.path.is_symlink():
            # What it leads to is written and replaced, never the link.
            self.path = self.path.resolve()
        self.destination = self.path
        self.attributes = dict(attributes)

    # ------------------------------------------------------------------------------------- opening

    def create(self, *, overwrite: bool = False) -> None:
        """Start a new result, or go on with an incomplete one of the same ``run_id``.

        Raises
        ------
        StoreError
            The folder holds something else, or it cannot be written.
        InputError
            It holds another result and `overwrite` is False, or other files besides it.
        """
        root = read_root(self.path)
        if root is None:
            require_free(self.path)
        else:
            if root.get("run_id") == self.attributes["run_id"] and not root["emcube"]["complete"]:
                return
            if not overwrite:
                require_free(self.path, self.attributes["run_id"])
            require_own(self.path)
            if root["emcube"]["complete"]:
                self.path = self._beside("new")
                begun = read_root(self.path)
                if begun is not None and begun.get("run_id") == self.attributes["run_id"]:
                    return
            if self.path.exists():
                with _disk(self.path):
                    shutil.rmtree(self.path)
        # Checkpoints go with the unfinished result that they are of.
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        with _disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_root(complete=False)

    def settle(self) -> None:
        """Finish what a process left that was killed while it put a new result in its place.

        Call it under `lock`. Where nothing is in the place, the new result takes it if it is this run's and
        complete, and else the old one goes back. An old one that was replaced is removed.

        Raises
        ------
        StoreError
            The folders cannot be moved, or the root of one of them is damaged.
        """
        new, old = self._beside("new"), self._beside("old")
        with _disk(self.destination):
            if not self.destination.exists():
                root = read_root(new) or {"emcube": {"complete": False}}
                if root["emcube"]["complete"] and root["run_id"] == self.attributes["run_id"]:
                    new.rename(self.destination)
                elif is_result(old):
                    old.rename(self.destination)
            if is_result(self.destination) and old.exists():
                shutil.rmtree(old)

    @property
    def is_settled(self) -> bool:
        """Whether no replaced result is left beside this one."""
        return not self._beside("old").exists()

    def _beside(self, word: str) -> Path:
        return _beside(self.destination, word)

    @property
    def checkpoints(self) -> Path:
        """Hidden folder beside the result for checkpoints while it is unfinished."""
        return checkpoint_folder(self.destination)

    def _write_root(self, *, complete: bool) -> None:
        import zarr

        attributes = {
            "emcube": {"kind": "result", "format": FORMAT, "complete": complete},
            **to_json(self.attributes),
        }
        if not complete:
            # With its attributes at once: without them nobody knows it for a result.
            zarr.open_group(str(self.path), mode="w", zarr_format=3, attributes=attributes)
            return
        with warnings.catch_warnings():
            # Consolidated metadata let a result be opened over HTTP; readers that do not know them
            # read the plain ones beside.
            warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
            root = zarr.consolidate_metadata(str(self.path))
        root.update_attributes(attributes)

    # --------------------------------------------------------------------------------------- nodes

    def has_node(self, name: str) -> bool:
        """Tell whether a node is there and whole."""
        marker = node_attributes(self.path / name).get("emcube")
        if not isinstance(marker, dict) or marker.get("complete") is not True:
            return False
        return not missing_chunks(self.path / name, marker)

    def node(self, name: str) -> xr.Dataset:
        """Open a finished node, lazily.

        Raises
        ------
        IncompleteError
            The node is not there or not whole.
        """
        if not self.has_node(name):
            raise IncompleteError(
                f"the node {name!r} of {str(self.path)!r} is not finished", hint="run it again"
            )
        return _open_node(self.path, name)

    def write_node(
        self,
        name: str,
        dataset: xr.Dataset,
        *,
        verb: str,
        nav: Sequence[str],
        sig: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        maps: bool = True,
    ) -> Node:
        """Write a node's small variables and the frames of its large ones.

        Parameters
        ----------
        name : str
            The node.
        dataset : xarray.Dataset
            Small variables in memory; large ones as frames (see `frame`) that are filled block by
            block before `Node.finish`.
        verb : str
            Kind of step, for the register of variables.
        nav, sig : sequence of str
            Dims of the cube.
        attributes : mapping, optional
            More attributes of the node; JSON values.
        maps : bool
            Whether the node holds what its step says of pixels; of several cubes other nodes do.

        Returns
        -------
        Node
            A new one; or one that an earlier try began with the same contents and filled in part.
        """
        checked = check_dataset(dataset, verb, nav=nav, sig=sig, maps=maps)
        folder = self.path / name
        begun = _contents(checked, verb, attributes)
        marker = node_attributes(folder).get("emcube") or {}
        if begun is not None and marker.get("begun") == begun and not marker.get("complete"):
            return Node(self.path, name, _frames(checked), str(marker["attempt"]))
        with _disk(folder):
            if folder.exists():
                shutil.rmtree(folder)
            marker = {"verb": verb, "complete": False}
            checked.attrs = to_json(
                {"emcube": marker, **(attributes or {})}, f"attributes of {name}"
            )
            for variable in checked.variables.values():
                variable.attrs = to_json(variable.attrs, f"attributes in {name}")
                variable.encoding = {}
            encoding = {str(n): _encoding(v) for n, v in checked.variables.items()}
            _write_dataset(checked, self.path, name, encoding)
            # Only now: without this mark nobody goes on with it.
            attempt = uuid.uuid4().hex
            _mark(self.path, name, begun=begun, attempt=attempt)
        return Node(self.path, name, _frames(checked), attempt)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing the same result.

        Raises
        ------
        StoreError
            Another process is writing it.
        """
        with _disk(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.with_name(f".{self.path.name}.lock")
        with exclusive(file, f"the result {str(self.path)!r}"):
            try:
                yield
            finally:
                file.unlink(missing_ok=True)

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the last root attributes, and with them the marker of completion."""
        self.attributes.update(attributes)
        with _disk(self.path):
            self._write_root(complete=True)
            if self.path == self.destination:
                return
            old = self._beside("old")
            shutil.rmtree(old, ignore_errors=True)
            self.destination.rename(old)
            self.path.rename(self.destination)
            self.path = self.destination
            # What stays is removed by the next run (see `settle`).
            shutil.rmtree(old, ignore_errors=True)


class Node:
    """A node whose frames are being filled.

    Attributes
    ----------
    frames : tuple of str
        Variables whose values are written block by block.
    attempt : str
        Identity of the arrays: another one means that they are new.
    """

    def __init__(self, path: Path, name: str, frames: tuple[str, ...], attempt: str) -> None:
        self.path = path
        self.name = name
        self.frames = frames
        self.attempt = attempt

    def put(self, name: str, values: NDArray[Any]) -> None:
        """Fill a frame whose values are all in hand."""
        import zarr

        with _disk(self.path / self.name):
            array = zarr.open_array(str(self.path), path=f"{self.name}/{name}", mode="r+")
            array.with_config({"write_empty_chunks": True})[...] = values

    def finish(self, attributes: Mapping[str, Any] | None = None) -> xr.Dataset:
        """Note digests and chunks of every array, mark the node as whole, and open it.

        Parameters
        ----------
        attributes : mapping, optional
            More attributes of the node, known only now (how long it took).

        Raises
        ------
        StoreError
            Chunks of a frame are missing: its values would be read as fill values. The node is to be
            written anew.
        """
        import zarr

        group = zarr.open_group(str(self.path), path=self.name, mode="r+")
        chunks: dict[str, int] = {}
        digests: dict[str, str] = {}
        with _disk(self.path / self.name):
            for key, array in sorted(group.arrays()):
                chunks[key] = array.nchunks_initialized
                if key in self.frames and chunks[key] != array.nchunks:
                    self._refuse(key, chunks[key], array.nchunks)
                digests[key] = stored_digest(self.path, f"{self.name}/{key}", array)
            marker = dict(cast("dict[str, Any]", group.attrs["emcube"]))
            for key in ("begun", "attempt"):
                marker.pop(key, None)
            marker.update(complete=True, chunks=chunks, digests=digests)
            group.update_attributes({**to_json(attributes or {}), "emcube": marker})
        return _open_node(self.path, self.name)

    def _refuse(self, key: str, found: int, expected: int) -> NoReturn:
        # Another try must not go on from checkpoints that take the chunks for written.
        _mark(self.path, self.name, begun=None)
        raise StoreError(
            f"{self.name}/{key} of the result at {str(self.path)!r} has {found} chunks after all of it "
            f"was written, expected {expected}: files were lost or removed",
            hint="see that nothing else removes files there, then run the same again: finished steps "
            "stay, this one is written anew",
        )


FIELDS = "fields"
"""Group of a result that holds a group for each of several cubes."""


def field_node(field: str, node: str) -> str:
    """Where the node of a step lies that belongs to one of several cubes."""
    return f"{FIELDS}/{field}/{node}"


def nodes_of(tree: xr.DataTree) -> list[tuple[str, xr.DataTree]]:
    """Nodes of steps in a tree with their paths: its own, and those of several cubes."""
    found = [(str(name), node) for name, node in tree.children.items() if name != FIELDS]
    if FIELDS in tree.children:
        found += [
            (field_node(str(field), str(name)), node)
            for field, group in tree.children[FIELDS].children.items()
            for name, node in group.children.items()
        ]
    return found


def frame(
    dims: Sequence[str],
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: DTypeLike,
    attributes: Mapping[str, Any],
    coords: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Make the frame of a large variable: labels and layout without values.

    Parameters
    ----------
    dims, shape, chunks : sequence
        Its dims, their lengths, and the chunks, one a block of the engine.
    dtype : dtype-like
    attributes : mapping
        ``units`` and the like.
    coords : mapping, optional
        Its coordinates.
    """
    import dask.array as da

    fill = np.nan if np.dtype(dtype).kind == "f" else -1
    data = da.full(tuple(shape), fill, dtype=dtype, chunks=tuple(chunks))
    return xr.DataArray(data, dims=tuple(dims), coords=coords, attrs=dict(attributes))


def _write_dataset(
    dataset: xr.Dataset, path: Path, name: str, encoding: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write what is in memory and the layout of frames, as ``to_zarr(compute=False)`` does.

    Without the Dask graph that it returns for values of frames: nobody computes it, and to build it
    loads distributed. The files are made in memory first: Zarr starts a thread for each of its many small
    writes to a folder.
    """
    from xarray.backends import ZarrStore
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    store = ZarrStore.open_group(
        MemoryStore(files),
        mode="a",
        group=name,
        zarr_format=3,
        consolidated=False,
        consolidate_on_close=False,
    )
    dataset.dump_to_store(store, encoding=encoding)
    store.close()
    for key, value in files.items():
        file = path / key
        if not key.startswith(f"{name}/") and file.exists():
            continue  # a group that holds this one, with its own attributes
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(value.to_bytes())


def _frames(dataset: xr.Dataset) -> tuple[str, ...]:
    return tuple(str(n) for n, v in dataset.variables.items() if v.chunks is not None)


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    """Chunks and codecs; each chunk ends with a checksum, so that one that is damaged is not read."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    if variable.chunks is None:
        return {"compressors": (ZstdCodec(), Crc32cCodec())}
    return {"chunks": variable.data.chunksize, "compressors": block_codecs()}


def block_codecs() -> tuple[Any, ...]:
    """Codecs of what is written block by block: loadings are noise in their last digits.

    On those of 1.5 million pixels LZ4 on shuffled bytes is several times faster than Zarr's default
    (Zstandard) and, of PCA, as small; of NMF, with its many zeros, to 1.8 times the size.
    """
    from zarr.codecs import BloscCodec, Crc32cCodec

    return BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()


def _contents(dataset: xr.Dataset, verb: str, attributes: Mapping[str, Any] | None) -> str | None:
    """Fingerprint of a node as it is begun; None where it cannot be told."""
    parts = [
        (str(n), v.dims, v.shape, str(v.dtype), to_json(v.attrs), _values(v))
        for n, v in dataset.variables.items()
    ]
    try:
        return fingerprint(verb, to_json(attributes or {}), parts)
    except EngineError:
        return None


def _values(variable: xr.Variable) -> Any:
    """Values of a small variable, layout of a large one."""
    if variable.chunks is not None:
        return variable.chunks
    return variable.values.tolist() if variable.dtype.kind in "OT" else variable.values


def _mark(path: Path, name: str, **changed: Any) -> None:
    """Change the marker of a node."""
    import zarr

    group = zarr.open_group(str(path), path=name, mode="r+")
    marker = dict(cast("dict[str, Any]", group.attrs["emcube"]))
    group.update_attributes({"emcube": {**marker, **changed}})


def begun_roots(path: Path) -> list[dict[str, Any]]:
    """Root attributes of what lies at a place, and of what was to replace it; those that there are."""
    place = path.resolve() if path.is_symlink() else path
    found = (read_root(place), read_root(_beside(place, "new")))
    return [root for root in found if root is not None]


def checkpoint_folder(path: Path) -> Path:
    """Where the checkpoints of an unfinished result lie: in a hidden folder beside it."""
    return _beside(path.resolve() if path.is_symlink() else path, "checkpoint")


def _beside(destination: Path, word: str) -> Path:
    return destination.with_name(f".{destination.name}.emcube-{word}")


def missing_chunks(folder: Path, marker: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Arrays of a node that have another number of chunks than when it was finished.

    Returns
    -------
    dict
        Array to (found, expected).
    """
    import zarr

    expected = marker.get("chunks", {})
    group = zarr.open_group(str(folder), mode="r")
    found = {key: array.nchunks_initialized for key, array in group.arrays()}
    return {
        key: (found.get(key, 0), int(n)) for key, n in expected.items() if found.get(key, 0) != n
    }


def _open_node(path: Path, name: str) -> xr.Dataset:
    return xr.open_dataset(
        str(path),
        engine="zarr",
        group=name,
        chunks={},
        decode_timedelta=False,
        backend_kwargs={"consolidated": False},
    )


def node_attributes(folder: Path) -> dict[str, Any]:
    """Attributes of a node; empty where it is not there or cannot be read."""
    try:
        document = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    attributes = document.get("attributes") if isinstance(document, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _short(run_id: object) -> str:
    return f"run {str(run_id).removeprefix('sha256:')[:12]}"


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn a failing disk into an error that names the place."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{str(path)!r} cannot be written: {error.strerror or error}",
            hint="check permissions and free space; what was written so far stays incomplete",
        ) from error
