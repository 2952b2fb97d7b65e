"""Event streams of JEOL files against a slow twin that goes word by word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emcube.io import jeol
from emcube.io.jeol import decode_events

HERE = Path("events.pts")


def stream(
    rng: np.random.Generator, height: int, width: int, frames: int, electrons: bool
) -> list[int]:
    words: list[int] = []
    for _ in range(frames):
        for y in range(height):
            words.append(0x9000 | (y * (4096 // height)))
            for x in range(width):
                events = rng.integers(0, 4096, rng.poisson(0.7))
                # Without electron readings a pixel without X-rays leaves no word.
                if electrons or events.size:
                    words.append(0x8000 | (x * (4096 // width)))
                if electrons:
                    words.append(0xA000 | int(rng.integers(0, 4096)))
                words.extend(0xB000 | int(e) for e in events)
                words.extend([0x6001, 0x7002][: rng.integers(0, 3)])
    return words


def slow(
    words: list[int], shape: tuple[int, int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Naive twin: one word after the other, complete frames summed."""
    height, width, channels = shape
    total = np.zeros(shape, dtype=np.int64)
    image = np.zeros(shape[:2], dtype=np.int64)
    frames, current = [], []
    line = -1
    for word in words:
        if word >> 12 == 9:
            if (word & 0xFFF) < line:
                frames.append(current)
                current = []
            line = word & 0xFFF
        current.append(word)
    frames.append(current)
    n = 0
    for frame in frames:
        lines = [w & 0xFFF for w in frame if w >> 12 == 9]
        places = [w & 0xFFF for w in frame if w >> 12 == 8]
        lit = any(w >> 12 == 10 for w in frame)
        if not lines or lines[-1] < 4096 - 4096 // height:
            break
        if lit and (not places or places[-1] < 4096 - 4096 // width):
            break
        y = x = 0
        for w in frame:
            kind, value = w >> 12, w & 0xFFF
            if kind == 9:
                y = value // (4096 // height)
            elif kind == 8:
                x = value // (4096 // width)
            elif kind == 10:
                image[y, x] += value
            elif kind == 11 and value < channels:
                total[y, x, value] += 1
        n += 1
    return total, image, n


@given(
    st.integers(0, 2**31),
    st.sampled_from([(2, 4), (8, 2), (4, 4)]),
    st.integers(1, 4),
    st.booleans(),
    st.floats(0.3, 1.0),
    st.sampled_from([4096, 1000]),
)
def test_against_the_slow_twin(
    seed: int, size: tuple[int, int], frames: int, electrons: bool, part: float, channels: int
) -> None:
    rng = np.random.default_rng(seed)
    words = stream(rng, *size, frames, electrons)
    words = words[: max(1, int(part * len(words)))]
    shape = (*size, channels)
    total, image, n = slow(words, shape)
    got = decode_events(np.array(words, dtype="<u2"), shape, HERE)
    assert got.n_frames == n
    assert (got.counts[:, :, :] == total).all()
    if electrons and n:
        assert got.image is not None
        assert (got.image == image).all()
    else:
        assert got.image is None


def test_frames_across_the_pieces_that_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    words = stream(rng, 8, 4, 5, True)
    whole = decode_events(np.array(words, dtype="<u2"), (8, 4, 4096), HERE)
    monkeypatch.setattr(jeol, "_SEARCH", 7)
    monkeypatch.setattr(jeol, "_MERGE", 3)
    pieces = decode_events(np.array(words, dtype="<u2"), (8, 4, 4096), HERE)
    assert pieces.n_frames == whole.n_frames == 5
    assert (pieces.counts[:, :, :] == whole.counts[:, :, :]).all()


def test_limits() -> None:
    words = np.array(stream(np.random.default_rng(6), 4, 4, 3, True), dtype="<u2")
    assert decode_events(words, (4, 4, 4096), HERE, most_frames=2).n_frames == 2
    nothing = decode_events(np.zeros(0, dtype="<u2"), (4, 4, 4096), HERE)
    assert nothing.n_frames == 0
    cut = decode_events(words[:-9], (4, 4, 4096), HERE)
    assert cut.n_frames == 2
    assert cut.n_words > 0
