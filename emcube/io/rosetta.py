"""Instrument files through RosettaSciIO: the one module that imports it, and only when a file is opened.

RosettaSciIO reads arrays, axes and metadata in the manner of HyperSpy. The adapter turns those into
labelled cubes: signal axes last, names and units normalised, elements and instrument in typed metadata.
Where its lazy arrays are not bounded in memory, other blocks are put in their place:

======================  =============================================================================
format                  how memory stays bounded
======================  =============================================================================
dm3, dm4, blo, mib,     memory maps: a block touches its own pages
mrc, spd, tvips
hspy, emd images        HDF5 chunks, the file opened for each block
pts, emd spectra        events, once summed, lie in memory as compressed rows (20 to 200 times smaller than
                        dense), and blocks are filled from them
bcf                     the packed stream (about the size of the file) is kept for the file at hand, and a
                        block decodes its own lines
ser, emi, tif, others   decoded whole, once
======================  =============================================================================
"""

from __future__ import annotations

import bz2
import contextlib
import importlib
import importlib.util
import inspect
import logging
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcube.errors import MissingDependencyError, ReadError
from emcube.io.axes import Axis, label_array
from emcube.io.hyperspy import axes_of, dig, merge_mapping, plan_of, sig_axes_of, signal_attrs
from emcube.io.lazy import (
    DaskArray,
    FileArray,
    H5Array,
    OnceArray,
    SparseArray,
    as_dask,
    cached,
    native,
)
from emcube.io.links import check_links
from emcube.io.sidecar import restore
from emcube.io.signals import Signal

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["plugin_names", "read_rosetta", "suffixes"]

#: Suffixes for which the plug-in's name is not what a search by suffix alone would give.
_PREFERRED = {
    "mrc": "MRC",
    "hdf5": "HSPY",
    "csv": "",
    "h5": "",
    "npy": "",
    "zspy": "",
    "img": "JEOL",
}


def _require() -> None:
    if importlib.util.find_spec("rsciio") is None:
        raise MissingDependencyError(
            "instrument files are read by RosettaSciIO, which is not installed",
            hint='pip install "emcube[vendor]"',
        )


def _plugins() -> list[dict[str, Any]]:
    _require()
    from rsciio import IO_PLUGINS

    # The list holds some formats twice.
    return list({p["name"]: dict(p) for p in IO_PLUGINS}.values())


def plugin_names() -> list[str]:
    """Return the names that ``reader=`` may take for RosettaSciIO's formats."""
    return sorted(p["name"] for p in _plugins())


def suffixes() -> frozenset[str]:
    """Return the suffixes, without dot and in lower case, that RosettaSciIO reads; empty without it."""
    if importlib.util.find_spec("rsciio") is None:
        return frozenset()
    return frozenset(e.lower() for p in _plugins() for e in p["file_extensions"])


def _find_plugin(path: Path, reader: str | None) -> dict[str, Any]:
    plugins = _plugins()
    if reader is not None:
        key = reader.lower()
        for plugin in plugins:
            names = [
                plugin["name"],
                *plugin.get("name_aliases", []),
                plugin["api"].rpartition(".")[2],
            ]
            if key in (n.lower() for n in names):
                return plugin
        raise ReadError(
            f"{path}: there is no reader {reader!r}; RosettaSciIO has {', '.join(plugin_names())}",
            hint="leave reader= out, or name one of these",
        )
    suffix = path.suffix[1:].lower()
    if preferred := _PREFERRED.get(suffix):
        return _find_plugin(path, preferred)
    for plugin in plugins:
        if suffix in (e.lower() for e in plugin["file_extensions"]):
            return plugin
    raise ReadError(
        f"{path}: no reader of RosettaSciIO takes files that end in {path.suffix!r}",
        hint=f"name one with reader=, for example one of {', '.join(plugin_names()[:6])}, ...",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the plug-ins' warnings and log lines off the user's terminal while a file is opened."""
    logger = logging.getLogger("rsciio")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_rosetta(
    path: Path, *, name: str | None = None, reader: str | None = None, **options: Any
) -> list[Signal]:
    """Read the signals of an instrument file, lazily.

    Parameters
    ----------
    path : Path
        The file.
    name : str, optional
        Not needed: all signals are listed at no cost.
    reader : str, optional
        Name of a RosettaSciIO plug-in, where the suffix does not tell.
    **options
        What else the plug-in takes.

    Returns
    -------
    list of Signal
        In the order of the file; names are the file's titles and may repeat.

    Raises
    ------
    MissingDependencyError
        RosettaSciIO, or a package one of its formats needs, is not installed.
    ReadError
        The file is not what its name says, or was cut short.
    """
    plugin = _find_plugin(path, reader)
    _precheck(path, plugin["name"])
    with _quiet():
        dicts = _call(path, plugin, options)
        if not dicts:
            raise _unreadable(path, plugin, "it holds no signal that this format's reader knows")
        signals = []
        for raw in dicts:
            try:
                signals.append(_to_signal(path, plugin, raw, dicts))
            except (ReadError, MissingDependencyError):
                raise
            except Exception as error:
                raise _unreadable(path, plugin, f"{type(error).__name__}: {error}") from error
    return signals


def _unreadable(path: Path, plugin: Mapping[str, Any], why: str) -> ReadError:
    return ReadError(
        f"{path}: cannot be read as a {plugin['name']} file ({path.stat().st_size} bytes): {why}",
        hint="the file is damaged, cut short or not of this format; fetch or export it again",
    )


def _call(
    path: Path, plugin: Mapping[str, Any], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Call the plug-in, lazily where it can; every failure becomes one error that names the file."""
    try:
        api = importlib.import_module(plugin["api"])
        options = dict(options)
        if "read_em_image" in inspect.signature(api.file_reader).parameters:
            options["read_em_image"] = True
        try:
            return list(api.file_reader(str(path.absolute()), lazy=True, **options))
        except NotImplementedError:
            return list(api.file_reader(str(path), lazy=False, **options))
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading {plugin['name']} files needs the package {error.name or error}",
            hint='pip install "emcube[vendor]"',
        ) from error
    # Plug-ins meet a broken file in every way there is, MemoryError of absurd lengths included.
    except (Exception, MemoryError) as error:
        raise _unreadable(path, plugin, f"{type(error).__name__}: {error}") from error


# --- checks before a plug-in sees the file ---------------------------------------------------------------


def _precheck(path: Path, plugin: str) -> None:
    """Refuse files whose own headers promise more than the file holds, where plug-ins would not notice."""
    size = path.stat().st_size
    if size == 0:
        raise ReadError(f"{path}: the file is empty (0 bytes)", hint="fetch or export it again")
    check_links(path)
    check = {
        "JEOL": _check_pts,
        "QuantumDetector": _check_mib,
        "Phenom": _check_elid,
    }.get(plugin)
    if check is not None:
        check(path, size)


def _short(path: Path, what: str, got: object, expected: object) -> ReadError:
    return ReadError(
        f"{path}: the file was cut short: {what}: got {got}, expected {expected}",
        hint="fetch or export it again",
    )


def _check_pts(path: Path, size: int) -> None:
    if path.suffix.lower() != ".pts":
        return
    with path.open("rb") as file:
        head = file.read(36)
    if len(head) < 36:
        raise _short(path, "header", f"{len(head)} bytes", "at least 36")
    start, length = struct.unpack("<II", head[28:36])
    if start + length > size:
        raise _short(path, "end of the event stream", f"{size} bytes", f"{start + length}")


def _check_mib(path: Path, size: int) -> None:
    """Compare the frames in the file with the number in the ``.hdr`` file beside it, or with whole frames."""
    with path.open("rb") as file:
        fields = file.read(384).decode("latin-1").split(",")
    try:
        offset, width, height, depth = int(fields[2]), int(fields[4]), int(fields[5]), fields[6]
        # R64 packs raw counts into 64-bit words; its plug-in checks those itself.
        itemsize = int(depth[1:]) // 8 if depth.startswith("U") else 0
    except (IndexError, ValueError):
        return  # not a Merlin header: the plug-in says so
    frame = offset + width * height * itemsize
    if itemsize and size % frame:
        raise _short(path, "frames", f"{size / frame:.3f}", "a whole number")
    header = path.with_suffix(".hdr")
    if itemsize and header.is_file():
        for line in header.read_text("latin-1").splitlines():
            if line.startswith("Frames in Acquisition"):
                with contextlib.suppress(ValueError):
                    promised = int(line.partition(":")[2].strip())
                    if size // frame < promised:
                        raise _short(path, "frames", size // frame, f"{promised} ({header.name})")


def _check_elid(path: Path, size: int) -> None:
    # The plug-in waits for ever for the end of a stream that was cut short.
    try:
        with bz2.open(path) as stream:
            while stream.read(1 << 22):
                pass
    except (EOFError, OSError, ValueError) as error:
        raise _short(path, f"compressed stream ({error})", f"{size} bytes", "its end") from error


# --- one signal ------------------------------------------------------------------------------------------


def _to_signal(
    path: Path,
    plugin: Mapping[str, Any],
    raw: dict[str, Any],
    dicts: list[dict[str, Any]],
) -> Signal:
    original = raw.get("original_metadata") or {}
    meta = merge_mapping(raw.get("metadata") or {}, original, raw.get("mapping") or {})
    data = raw["data"]
    if 0 in data.shape:
        raise _unreadable(
            path, plugin, f"the reader gives an empty array of shape {tuple(data.shape)}"
        )
    axes = axes_of(raw["axes"], data.shape, path, meta)
    if plugin["name"] == "Bruker" and data.ndim == 3:
        axes = _mend_bruker_axes(axes, dicts)
    plan = plan_of(axes, meta)
    array = _lazy_array(path, plugin["name"], data, sig_axes_of(plan))
    attrs = signal_attrs(path, plugin["name"], "rosettasciio", plan, meta, original, array.dtype)
    cube = restore(label_array(array, plan, attrs), axes, plan, meta)
    return Signal.of(cube, str(dig(meta, "General.title") or ""))


def _mend_bruker_axes(axes: list[Axis], dicts: list[dict[str, Any]]) -> list[Axis]:
    """Take the width's scale from the file's images: the reader gives maps the height's for both."""
    for other in dicts:
        scales = {a["name"]: float(a["scale"]) for a in other["axes"]}
        if other["data"].ndim == 2 and "width" in scales and scales.get("height") == axes[0].scale:
            return [replace(a, scale=scales["width"]) if a.name == "width" else a for a in axes]
    return axes


def _lazy_array(path: Path, plugin: str, data: Any, sig_axes: list[int]) -> Any:
    """Return blocks of whole signals, bounded in memory as the module's table says."""
    if not hasattr(data, "dask"):
        # Small, or of a format that is only read whole.
        array = np.ascontiguousarray(data)
        return array.astype(native(array.dtype), copy=False)
    sources = _graph_sources(data)
    source: FileArray | None = None
    grain: tuple[int, ...] | None = None
    if plugin == "Bruker" and data.ndim == 3:
        source = _bruker_source(path, data)
        grain = None
    elif (
        len(sources["sparse"]) == 1
        and sources["sparse"][0].shape == data.shape
        and sig_axes == [data.ndim - 1]
    ):
        coo = sources["sparse"][0]
        return as_dask(SparseArray.from_events(path, data.shape, coo.coords, coo.data), sig_axes)
    elif _sums_events(data, sources["sparse"]) and sig_axes == [data.ndim - 1]:
        coords = np.concatenate([coo.coords for coo in sources["sparse"]], axis=1)
        counts = np.concatenate([coo.data for coo in sources["sparse"]])
        summed = SparseArray.from_events(path, data.shape, coords, counts)
        return as_dask(summed.astype(data.dtype), sig_axes)
    elif (
        len(sources["h5"]) == 1
        and sources["h5"][0].shape == data.shape
        and len(data.dask) <= data.npartitions + 2
    ):
        dataset = sources["h5"][0]
        source = H5Array(Path(dataset.file.filename), dataset.name, data.shape, dataset.dtype)
        grain = dataset.chunks
    elif sources["h5"]:
        data = _detach_h5(data)
    if source is None:
        # One block of one task is decoded whole; anything else is cut into memory maps by its reader.
        whole = data.npartitions == 1 and not any("memmap" in str(k) for k in data.dask)
        source = OnceArray(path, data) if whole else DaskArray(path, data)
        if not whole:
            _touch_end(source)
    return as_dask(source, sig_axes, grain)


def _touch_end(source: FileArray) -> None:
    # A memory map longer than its file fails here, at the door, and not hours later.
    source[tuple(slice(n - 1, n) for n in source.shape)]


def _graph_sources(data: da.Array) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"sparse": [], "h5": []}
    for node in dict(data.dask).values():
        value = getattr(node, "value", node)
        module = type(value).__module__.partition(".")[0]
        if module == "h5py":
            found["h5"].append(value)
        elif "COO" in type(value).__name__:
            found["sparse"].append(value)
    return found


def _sums_events(data: da.Array, events: list[Any]) -> bool:
    """Whether an array is nothing but the sum of sparse ones of its shape: a detector with segments."""
    kinds = {str(name).split("-")[0] for name in data.dask.layers}
    return (
        len(events) > 1
        and kinds <= {"original", "array", "add", "astype"}
        and all(coo.shape == data.shape for coo in events)
    )


def _detach_h5(data: da.Array) -> da.Array:
    """Put arrays that open the file for each block in place of open HDF5 datasets, which do not pickle."""
    import dask.array as da
    from dask._task_spec import DataNode

    graph: dict[Any, Any] = dict(data.dask)
    for key, node in graph.items():
        value = getattr(node, "value", node)
        if type(value).__module__.startswith("h5py"):
            array = H5Array(Path(value.file.filename), value.name, value.shape, value.dtype)
            graph[key] = DataNode(key, array)
    return da.Array(graph, data.name, data.chunks, dtype=data.dtype)


# --- Bruker maps -----------------------------------------------------------------------------------------

#: Where the first line of pixels begins within the stream; the bytes before it hold height and width.
_BCF_START = 0x1A0
_BCF_PIXEL = struct.Struct("<IHHIHHHI")
#: Bunches of packed channels are decoded before their length is checked; none is longer than this.
_BCF_PAD = 1 << 16


class _BcfStream:
    """The packed spectra of a map: the bytes, and where each line of pixels begins."""

    def __init__(self, stream: bytes, height: int, width: int, path: Path) -> None:
        self.stream = stream
        self.lines = self._index(stream, height, width, path)

    @staticmethod
    def _index(stream: bytes, height: int, width: int, path: Path) -> NDArray[np.int64]:
        """Walk from pixel to pixel without decoding, and refuse what does not fit.

        The decoder itself is compiled without checks: a wrong position would write outside of the array.
        """
        end = len(stream)
        if end < _BCF_START:
            raise _short(path, "packed spectra", f"{end} bytes", f"at least {_BCF_START}")
        found = struct.unpack_from("<II", stream)
        if found != (height, width):
            raise ReadError(
                f"{path}: the packed spectra are of {found[0]} x {found[1]} pixels, expected "
                f"{height} x {width}",
                hint="the file is damaged; fetch or export it again",
            )
        lines = np.zeros(height + 1, dtype=np.int64)
        at = _BCF_START
        unpack, head = _BCF_PIXEL.unpack_from, _BCF_PIXEL.size
        for line in range(height):
            lines[line] = at
            if at + 4 > end:
                raise _short(path, "packed spectra", f"{line} lines", f"{height}")
            n_pixels = int.from_bytes(stream[at : at + 4], "little")
            at += 4
            if n_pixels > width:
                raise ReadError(
                    f"{path}: line {line} of the map claims {n_pixels} pixels, expected at most {width}",
                    hint="the file is damaged; fetch or export it again",
                )
            for _ in range(n_pixels):
                if at + head > end:
                    raise _short(path, "packed spectra", f"{line} lines", f"{height}")
                x, _chan1, _chan2, _static, flag, _size1, pulses, size = unpack(stream, at)
                at += head
                need = 2 * pulses if flag == 0 else -(-pulses // 4) * 6 if flag == 1 else 4
                # The last group of four 12-bit pulses may be cut where its words end.
                if x >= width or size + 6 < need:
                    raise ReadError(
                        f"{path}: line {line} of the map holds pixel {x} with {pulses} pulses "
                        f"in {size} bytes, "
                        f"expected pixels 0 to {width - 1} and at least {need} bytes",
                        hint="the file is damaged; fetch or export it again",
                    )
                at += size
                if flag > 1 and pulses:
                    # The four bytes of the list's length are counted in `size`.
                    at += 2 * pulses
            if at > end:
                raise _short(path, "packed spectra", f"{line} lines", f"{height}")
        lines[height] = at
        return lines


class _BcfLines:
    """Some lines of a map, in the form in which the decoder takes a whole one."""

    def __init__(self, stream: _BcfStream, start: int, stop: int) -> None:
        head = struct.pack("<I", stop - start) + stream.stream[4:_BCF_START]
        body = stream.stream[stream.lines[start] : stream.lines[stop]]
        self.bytes = head + body + bytes(_BCF_PAD)

    def get_iter_and_properties(self) -> tuple[Iterator[bytes], int, int]:
        return iter([self.bytes]), len(self.bytes), 1


class BcfArray(FileArray):
    """A Bruker map, of which a block decodes its own lines."""

    # From the mean of the sum spectrum.
    dtype_guessed = True

    def __init__(
        self, path: Path, index: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        super().__init__(path, shape, dtype)
        self.index = index

    def _identity(self) -> tuple[Any, ...]:
        return (*super()._identity(), self.index)

    def _stream(self) -> _BcfStream:
        from rsciio.bruker._api import SFS_reader

        item = SFS_reader(str(self.path)).get_file(f"EDSDatabase/SpectrumData{self.index}")
        stream = b"".join(item.get_iter_and_properties()[0])
        return _BcfStream(stream, self.shape[0], self.shape[1], self.path)

    def _read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        from rsciio.bruker import unbcf_fast

        stream: _BcfStream = cached(("bcf", *self._identity()), self._stream)
        start, stop, step = index[0].indices(self.shape[0])
        # Wider than the map: a pixel brighter than the reader's guess from the mean must not wrap round.
        wide = {1: np.dtype("u2"), 2: np.dtype("u4")}.get(self.dtype.itemsize, np.dtype("u4"))
        lines = _BcfLines(stream, start, stop)
        block: NDArray[Any] = unbcf_fast.parse_to_numpy(
            lines, (stop - start, *self.shape[1:]), wide
        )
        block = block[(slice(None, None, step), *index[1:])]
        most = np.iinfo(self.dtype).max
        if block.size and int(block.max()) > most:
            raise ReadError(
                f"{self.path}: lines {start} to {stop - 1} hold {int(block.max())} counts in a "
                "channel, expected at "
                f"most {most} ({self.dtype})",
                hint=f"open the map with dtype='{wide}'",
            )
        return block.astype(self.dtype)


def _bruker_source(path: Path, data: da.Array) -> FileArray:
    """Return the map as an array of lines; whole, once, where RosettaSciIO has no compiled decoder."""
    if importlib.util.find_spec("rsciio.bruker.unbcf_fast") is None:
        return OnceArray(path, data)
    from rsciio.bruker._api import BCF_reader

    reader = BCF_reader(str(path))
    ends = [
        int(item.pointers[-1]) + (item.size % item.sfs.usable_chunk or item.sfs.usable_chunk)
        for item in (reader.get_file(f"EDSDatabase/SpectrumData{reader.def_index}"),)
    ]
    if max(ends) > path.stat().st_size:
        raise _short(
            path, "end of the packed spectra", f"{path.stat().st_size} bytes", f"{max(ends)}"
        )
    return BcfArray(path, int(reader.def_index), data.shape, data.dtype)
