"""The event stream of JEOL ``.pts`` files, decoded frame by frame into compressed rows.

The stream is a sequence of 16-bit words; the upper four bits say what the lower twelve are: 8 a position
along x, 9 a line (both in 1/4096 of the field), 10 a reading of the electron detector, 11 the channel of
one X-ray. A line that lies above the one before begins the next frame. RosettaSciIO reads header and axes;
its own lazy decoder makes a Python list of every event, which costs seconds a million and gigabytes a long
acquisition.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcube.io.lazy import SparseArray

__all__ = ["Frames", "decode_events", "read_stream"]

_FIELD = 4096
_X, _LINE, _ELECTRONS, _XRAY = 8, 9, 10, 11
#: Words searched for the beginning of a frame at one time.
_SEARCH = 1 << 24
#: Summed events are merged when so many have come together.
_MERGE = 1 << 24


@dataclass(frozen=True)
class Frames:
    """What a stream holds, summed over its complete frames.

    Attributes
    ----------
    counts : SparseArray
        Shape (height, width, channels).
    image : ndarray or None
        The electron image, shape (height, width); None where the stream has none.
    n_frames : int
        Complete frames, from the first on.
    n_words : int
        Words of the stream that belong to a frame which was not completed, and were left out.
    """

    counts: SparseArray
    image: NDArray[Any] | None
    n_frames: int
    n_words: int


def read_stream(path: Path) -> NDArray[np.uint16]:
    """Map the event stream of a ``.pts`` file into memory."""
    with path.open("rb") as file:
        start = struct.unpack("<I", file.read(32)[28:32])[0]
    size = (path.stat().st_size - start) // 2
    words: NDArray[np.uint16] = np.memmap(path, dtype="<u2", mode="r", offset=start, shape=(size,))
    return words


def decode_events(
    words: NDArray[np.uint16],
    shape: tuple[int, int, int],
    path: Path,
    *,
    most_frames: int | None = None,
) -> Frames:
    """Sum the X-rays of all complete frames by pixel and channel.

    A frame that the acquisition did not finish is left out, and so is what follows it, so that every pixel
    was looked at equally often.

    Parameters
    ----------
    words : ndarray of uint16
        The stream.
    shape : tuple of int
        Height, width and channels of the map.
    path : Path
        Where it came from.
    most_frames : int, optional
        Frames beyond so many are left out.

    Notes
    -----
    Memory is that of the longest frame and of the summed events, never of the dense map.
    """
    height, width, n_channels = shape
    keys: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = []
    image = np.zeros((height, width), dtype=np.uint64)
    has_image = False
    n_frames = used = pending = 0
    for start, stop in _frames(words):
        if most_frames is not None and n_frames == most_frames:
            break
        frame = np.asarray(words[start:stop])
        kind, value = frame >> 12, (frame & 0xFFF).astype(np.int64)
        electrons = kind == _ELECTRONS
        if not _complete(kind, value, height, width, bool(electrons.any())):
            break
        y, x = _filled(kind == _LINE, value, height), _filled(kind == _X, value, width)
        inside = (y < height) & (x < width)
        xrays = (kind == _XRAY) & inside & (value < n_channels)
        flat = (y[xrays] * width + x[xrays]) * n_channels + value[xrays]
        found, times = np.unique(flat, return_counts=True)
        keys.append(found)
        counts.append(times.astype(np.int64))
        pending += found.size
        if pending > _MERGE:
            keys, counts = _merged(keys, counts)
            pending = 0
        if electrons.any():
            has_image = True
            lit = electrons & inside
            np.add.at(image, (y[lit], x[lit]), value[lit].astype(np.uint64))
        n_frames += 1
        used = stop
    keys, counts = _merged(keys, counts)
    smallest = np.uint16 if image.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32
    return Frames(
        counts=SparseArray.from_sums(path, shape, keys[0], counts[0]),
        image=image.astype(smallest) if has_image else None,
        n_frames=n_frames,
        n_words=int(words.size) - used,
    )


def _frames(words: NDArray[np.uint16]) -> Iterator[tuple[int, int]]:
    """Give first and last-plus-one word of each frame."""
    begin, previous = 0, -1
    for at in range(0, words.size, _SEARCH):
        part = np.asarray(words[at : at + _SEARCH])
        lines = np.flatnonzero(part >> 12 == _LINE)
        if not lines.size:
            continue
        values = (part[lines] & 0xFFF).astype(np.int64)
        upwards = np.flatnonzero(np.diff(values, prepend=previous) < 0)
        for word in lines[upwards] + at:
            yield begin, int(word)
            begin = int(word)
        previous = int(values[-1])
    if begin < words.size:
        yield begin, int(words.size)


def _complete(
    kind: NDArray[Any], value: NDArray[np.int64], height: int, width: int, electrons: bool
) -> bool:
    """Tell whether a frame reached its last line and, where every pixel leaves a word, its last pixel."""
    lines, places = np.flatnonzero(kind == _LINE), np.flatnonzero(kind == _X)
    if not lines.size or value[lines[-1]] < _FIELD - _FIELD // height:
        return False
    # Without electron readings a pixel without X-rays leaves no word at all.
    return not electrons or bool(places.size and value[places[-1]] >= _FIELD - _FIELD // width)


def _filled(here: NDArray[np.bool_], value: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Carry each position on until the next one comes; 0 before the first."""
    last = np.maximum.accumulate(np.where(here, np.arange(here.size), -1))
    return np.where(last >= 0, value[last] // (_FIELD // n), 0)


def _merged(
    keys: list[NDArray[np.int64]], counts: list[NDArray[np.int64]]
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    if not keys:
        return [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    found, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    sums = np.zeros(found.size, dtype=np.int64)
    np.add.at(sums, inverse, np.concatenate(counts))
    return [found], [sums]
