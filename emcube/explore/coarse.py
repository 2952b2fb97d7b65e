"""A coarse copy of a cube: what quick maps, quick spectra and previews are made of.

Sums over small boxes of pixels and channels, some ten million cells, made in one pass over the blocks and
kept in the user's cache by the digest of the cube. Sums of integers are exact, so that they do not depend
on the blocks.

Letters: P pixels and E channels of the cube; p and e of the coarse one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.catalog.places import cache_folder
from emcube.cube import nav_dims, sig_dims
from emcube.disk import replace_file
from emcube.errors import SelectionError
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = ["Coarse", "Factors", "channel_weights", "choose_factors"]
__all__ += ["keep_coarse", "make_coarse", "stored_coarse"]

CELLS = 2**25
"""Cells of a coarse cube at most: some tens of megabytes, a window of which is summed in a few hundredths
of a second."""

CHANNELS = 192
"""Channels that a spectrum keeps at least, where it has them: X-ray lines are still apart."""

SIDE = 24
"""Pixels that a side of the image keeps at least, where it has them."""

KEPT_BYTES = 2 * 2**30
"""Coarse cubes stay in the cache up to this size together; those that were not used for longest go first."""

SLAB = 2**20
"""Cells that are made floats at once."""

FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Factors:
    """Pixels and channels that are summed, by dim; 1 for those that stay as they are.

    Attributes
    ----------
    nav, sig : tuple of int
        In the order of the cube's navigation and signal dims.
    """

    nav: tuple[int, ...]
    sig: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Pixels in one coarse pixel."""
        return math.prod(self.nav)

    @property
    def whole(self) -> bool:
        """Whether nothing is summed: the coarse cube is the cube."""
        return self.pixels * math.prod(self.sig) == 1


def choose_factors(
    nav_shape: tuple[int, ...], sig_shape: tuple[int, ...], cells: int = CELLS
) -> Factors:
    """Choose what is summed so that the cells fit: pure arithmetic.

    Channels are halved first, since neighbouring ones say nearly the same, then the last two navigation dims,
    then whatever is longest.

    Parameters
    ----------
    nav_shape, sig_shape : tuple of int
    cells : int
        Of the coarse cube, at most.

    Examples
    --------
    >>> choose_factors((73, 124, 165), (900,))
    Factors(nav=(1, 4, 4), sig=(4,))
    """
    nav, sig = [1] * len(nav_shape), [1] * len(sig_shape)

    def shape() -> list[int]:
        pairs = [*zip(nav_shape, nav, strict=True), *zip(sig_shape, sig, strict=True)]
        return [-(-n // f) for n, f in pairs]

    image = range(max(0, len(nav) - 2), len(nav))
    least = CHANNELS if len(sig) == 1 else SIDE
    while math.prod(now := shape()) > cells:
        sides, channels = now[: len(nav)], now[len(nav) :]
        if channels and min(channels) >= 2 * least:
            sig = [2 * f for f in sig]
        elif len(image) and min(sides[d] for d in image) >= 2 * SIDE:
            for d in image:
                nav[d] *= 2
        else:
            longest = max(range(len(now)), key=now.__getitem__)
            if longest < len(nav):
                nav[longest] *= 2
            else:
                sig[longest - len(nav)] *= 2
    return Factors(tuple(nav), tuple(sig))


@dataclass(frozen=True, eq=False)
class Coarse:
    """A coarse cube.

    Attributes
    ----------
    values : ndarray, shape (e..., p...)
        Sums; channels first, so that a window is one piece of memory. Read-only.
    factors : Factors
    cube : DataArray
        The cube that it is of: for labels alone, its values are not read.
    """

    values: NDArray[Any]
    factors: Factors
    cube: xr.DataArray

    @property
    def n_sig(self) -> int:
        """Number of signal dims."""
        return len(self.factors.sig)

    @property
    def nav_coords(self) -> dict[str, xr.Variable]:
        """Coordinates of the navigation dims: means over the pixels of a coarse one."""
        return self._coords(nav_dims(self.cube), self.factors.nav)

    @property
    def sig_coords(self) -> dict[str, xr.Variable]:
        """Coordinates of the signal dims: means over the channels of a coarse one."""
        return self._coords(sig_dims(self.cube), self.factors.sig)

    def _coords(self, dims: tuple[str, ...], factors: tuple[int, ...]) -> dict[str, xr.Variable]:
        import xarray as xr

        found = {}
        for dim, factor in zip(dims, factors, strict=True):
            coord = self.cube.coords.get(dim)
            if coord is None or (factor > 1 and coord.dtype.kind not in "iuf"):
                continue  # text has no mean
            values = coord.values
            if factor > 1:
                starts = np.arange(0, values.size, factor)
                counts = np.diff(np.append(starts, values.size))
                values = np.add.reduceat(values.astype(np.float64), starts) / counts
            found[dim] = xr.Variable((dim,), values, dict(coord.attrs))
        return found

    # --------------------------------------------------------------------------------------------- looks

    def image(self, windows: Mapping[str, tuple[float, float]]) -> xr.DataArray:
        """Sum over windows of the signal dims, (p...); a channel that a window cuts counts in part.

        Raises
        ------
        SelectionError
            A window is of no signal dim, or outside of its axis.
        """
        import xarray as xr

        weights = channel_weights(self.cube, windows, self.factors.sig)
        total = np.zeros(self.values.shape[self.n_sig :])
        used = [np.flatnonzero(w) for w in weights]
        for at in itertools.product(*used):
            weight = math.prod(float(w[i]) for w, i in zip(weights, at, strict=True))
            plane = self.values[at]
            total += plane if weight == 1 else weight * plane
        return xr.DataArray(
            total,
            dims=nav_dims(self.cube),
            coords=self.nav_coords,
            attrs={"units": self.cube.attrs.get("units", "1"), "sig_dims": []},
        )

    def spectrum(self, mask: xr.DataArray | None) -> xr.DataArray:
        """Sum over pixels, (e...); a coarse pixel of which some pixels are selected counts in part.

        Parameters
        ----------
        mask : DataArray of bool over the cube's navigation dims, or None
            None: all pixels.
        """
        import xarray as xr

        shape, grid = self.values.shape[: self.n_sig], self.values.shape[self.n_sig :]
        flat = self.values.reshape(math.prod(shape), *grid)
        weights = np.ones(grid) if mask is None else self.share(mask.values)
        box = tuple(_used_span(weights, axis) for axis in range(weights.ndim))
        sums = np.empty(flat.shape[0])
        # A few channels at a time become floats.
        step = max(1, SLAB // max(1, weights[box].size))
        for start in range(0, sums.size, step):
            part = flat[(slice(start, start + step), *box)]
            sums[start : start + step] = part.reshape(part.shape[0], -1) @ weights[box].reshape(-1)
        return xr.DataArray(
            sums.reshape(shape),
            dims=sig_dims(self.cube),
            coords=self.sig_coords,
            attrs={
                **{k: v for k, v in self.cube.attrs.items() if k == "metadata"},
                "units": self.cube.attrs.get("units", "1"),
                "sig_dims": list(sig_dims(self.cube)),
            },
        )

    def share(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Share of the pixels of each coarse pixel that a selection holds, (p...)."""
        held: NDArray[Any] = mask.astype(np.float64)
        cells = np.ones_like(held)
        for axis, factor in enumerate(self.factors.nav):
            if factor > 1:
                starts = np.arange(0, held.shape[axis], factor)
                held = np.add.reduceat(held, starts, axis=axis)
                cells = np.add.reduceat(cells, starts, axis=axis)
        share: NDArray[np.float64] = held / cells
        return share

    def as_cube(self) -> xr.DataArray:
        """A cube in memory like the one that it is of, navigation dims first."""
        import xarray as xr

        order = (*range(self.n_sig, self.values.ndim), *range(self.n_sig))
        values = np.ascontiguousarray(self.values.transpose(order))
        return xr.DataArray(
            values,
            dims=self.cube.dims,
            coords={**self.nav_coords, **self.sig_coords},
            attrs=dict(self.cube.attrs),
            name=self.cube.name,
        )


def _used_span(weights: NDArray[np.float64], axis: int) -> slice:
    """From the first to the last position along an axis at which a weight is not zero."""
    others = tuple(a for a in range(weights.ndim) if a != axis)
    at = np.flatnonzero(weights.any(axis=others))
    return slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0)


def channel_weights(
    cube: xr.DataArray,
    windows: Mapping[str, tuple[float, float]],
    factors: tuple[int, ...] | None = None,
) -> list[NDArray[np.float64]]:
    """Share of the channels of each coarse channel within windows, for each signal dim.

    Raises
    ------
    SelectionError
        A window is of no signal dim, or outside of its axis.
    """
    from emcube.cube import channel_slice

    sig = sig_dims(cube)
    foreign = [dim for dim in windows if dim not in sig]
    if foreign:
        raise SelectionError(
            f"window: {foreign[0]!r} is not a signal dim of the cube, which has {sig}",
            hint="choose a window of one of those",
        )
    weights = []
    for dim, factor in zip(sig, factors or (1,) * len(sig), strict=True):
        inside = np.zeros(cube.sizes[dim])
        inside[channel_slice(cube, dim, windows[dim]) if dim in windows else slice(None)] = 1
        starts = np.arange(0, inside.size, factor)
        counts = np.diff(np.append(starts, inside.size))
        weights.append(np.add.reduceat(inside, starts) / counts)
    return weights


# ------------------------------------------------------------------------------------------------- making


@dataclass(frozen=True, eq=False)
class _Piece:
    """Sums of one block: where they belong in the coarse grid, shape (p..., e...)."""

    corner: tuple[int, ...]
    sums: NDArray[Any]


@dataclass(frozen=True)
class BinSweep:
    """Sums over boxes of pixels and channels, in one round.

    Parameters
    ----------
    factors : Factors
    sig_shape : tuple of int
    piece_bytes : int
        Of the sums of a block, about.

    Notes
    -----
    A statistic is the list of its blocks' sums; those of a coarse pixel that blocks share are added when
    all are there, in the order of the blocks.
    """

    factors: Factors
    sig_shape: tuple[int, ...]
    piece_bytes: int
    name: str = "coarse cube"

    def start(self) -> None:
        """Nothing is known before the first block."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> tuple[_Piece, ...]:
        """Sums of one block."""
        corner = tuple(o // f for o, f in zip(block.offset, self.factors.nav, strict=True))
        groups, grid = _coarse_pixels(block, self.factors.nav)
        e_shape = tuple(-(-n // f) for n, f in zip(self.sig_shape, self.factors.sig, strict=True))
        channels = _coarse_channels(self.sig_shape, self.factors.sig)
        sums = _sum_cells(block.data, groups, math.prod(grid), channels, math.prod(e_shape))
        return (_Piece(corner, _narrow(sums).reshape(*grid, *e_shape)),)

    def combine(self, a: tuple[_Piece, ...], b: tuple[_Piece, ...]) -> tuple[_Piece, ...]:
        """Keep both."""
        return (*a, *b)

    def step(
        self, state: Any, statistic: tuple[_Piece, ...], round_number: int
    ) -> tuple[tuple[_Piece, ...], bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a block's sums."""
        return self.piece_bytes


def _coarse_pixels(
    block: Block, factors: tuple[int, ...]
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Flat number of the coarse pixel of each pixel of a block, and how many there are along each dim."""
    along = [
        (o + np.arange(n)) // f - o // f
        for o, n, f in zip(block.offset, block.nav_shape, factors, strict=True)
    ]
    grid = tuple(int(a[-1]) + 1 for a in along)
    index = np.zeros((1,) * len(grid), dtype=np.int64)
    for d, a in enumerate(along):
        index = index + (a * math.prod(grid[d + 1 :])).reshape(
            [-1 if i == d else 1 for i in range(len(grid))]
        )
    flat = np.broadcast_to(index, block.nav_shape).reshape(-1).astype(np.int64)
    return flat[block.box_index()], grid


def _coarse_channels(shape: tuple[int, ...], factors: tuple[int, ...]) -> NDArray[np.int64]:
    """Flat number of the coarse channel of each channel, (E,)."""
    from emcube.kernels.pooling import tile_index

    return tile_index(shape, factors)


def _sum_cells(
    data: CountRows | NDArray[Any],
    groups: NDArray[np.int64],
    n_groups: int,
    channels: NDArray[np.int64],
    n_channels: int,
) -> NDArray[Any]:
    """Sums over groups of pixels and of channels, (n_groups, n_channels); NaN counts as nothing."""
    if isinstance(data, CountRows):
        pixels = np.repeat(groups, np.diff(data.indptr))
        cells = pixels * n_channels + channels[data.channels]
        # Sums of counts in float64 are exact up to 2^53.
        found = np.bincount(cells, weights=data.counts, minlength=n_groups * n_channels)
        return found.astype(np.int64).reshape(n_groups, n_channels)
    from emcube.kernels.pooling import pool

    if data.dtype.kind == "f":
        data = np.where(np.isnan(data), 0, data)
    pooled = np.asarray(pool(data, groups, n_groups))
    if n_channels == pooled.shape[1]:
        return pooled
    order = np.argsort(channels, kind="stable")
    starts = np.searchsorted(channels[order], np.arange(n_channels))
    return np.asarray(np.add.reduceat(pooled[:, order], starts, axis=1))


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Integers in the smallest dtype that holds them; floats as they are."""
    if values.dtype.kind == "f":
        return values
    return values.astype(_kind(int(values.min(initial=0)), int(values.max(initial=0))))


def _kind(low: int, high: int) -> np.dtype[Any]:
    """The smallest dtype of integers that holds both."""
    kinds = ("u1", "u2", "u4", "u8") if low >= 0 else ("i1", "i2", "i4", "i8")
    return np.dtype(next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max))


def make_coarse(cube: xr.DataArray, cells: int | None = None) -> Coarse:
    """Sum a cube into a coarse one, in one pass over its blocks on the deployment in force.

    Parameters
    ----------
    cube : DataArray
    cells : int, optional
        Of the coarse cube, at most; default `CELLS`.

    Notes
    -----
    Memory: the coarse cube twice. The sums are the same for any blocks and workers; those of floats are added
    in the order of the blocks, which depends on nothing but the cube and its chunks.
    """
    from emcube.engine import run_sweep
    from emcube.models.labels import as_source

    nav, sig = nav_dims(cube), sig_dims(cube)
    shape = tuple(cube.sizes[d] for d in nav), tuple(cube.sizes[d] for d in sig)
    factors = choose_factors(*shape, cells or CELLS)
    source, _ = as_source(cube)
    coarse = tuple(
        -(-n // f)
        for n, f in zip((*shape[1], *shape[0]), (*factors.sig, *factors.nav), strict=True)
    )
    piece = 8 * math.prod(coarse) // max(1, source.plan.n_blocks)
    pieces = run_sweep(BinSweep(factors, shape[1], piece), source).state
    values = _assembled(pieces, coarse, len(sig), cube.dtype)
    values.flags.writeable = False
    return Coarse(values, factors, cube)


def _assembled(
    pieces: tuple[_Piece, ...], shape: tuple[int, ...], n_sig: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """All pieces in one array (e..., p...)."""
    n_nav = len(shape) - n_sig
    if dtype.kind == "f":
        kind = np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
        out = np.zeros(shape, np.float64)
    else:
        # Up to 2^n blocks meet in a coarse pixel.
        high = max((int(p.sums.max(initial=0)) for p in pieces), default=0) << n_nav
        low = min((int(p.sums.min(initial=0)) for p in pieces), default=0) << n_nav
        kind = _kind(low, high)
        out = np.zeros(shape, kind)
    to_back = tuple(range(n_nav, n_nav + n_sig)) + tuple(range(n_nav))
    for piece in pieces:
        sums = piece.sums.transpose(to_back)
        part = out[
            (slice(None),) * n_sig
            + tuple(slice(c, c + n) for c, n in zip(piece.corner, sums.shape[n_sig:], strict=True))
        ]
        np.add(part, sums, out=part, casting="unsafe")
    return out.astype(kind) if dtype.kind == "f" else _narrow(out)


# ------------------------------------------------------------------------------------------------ keeping


def stored_coarse(cube: xr.DataArray, digest: str, folder: Path | None = None) -> Coarse | None:
    """The coarse cube of an earlier visit, mapped into memory; None where there is none that is whole.

    Parameters
    ----------
    cube : DataArray
    digest : str
        Of its content.
    folder : Path, optional
        Default: in the user's cache (``EMCUBE_CACHE``).
    """
    values_path, about_path = _files(cube, digest, folder)
    try:
        about = json.loads(about_path.read_text(encoding="utf-8"))
        values = np.load(values_path, mmap_mode="r", allow_pickle=False)
        whole = about["format"] == FORMAT and about["crc"] == zlib.crc32(_bytes(values))
        if not whole or list(values.shape) != about["shape"]:
            raise ValueError("it is not what was written")
        factors = Factors(tuple(about["nav"]), tuple(about["sig"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the coarse cube in %s is not used: %s; it is made again", values_path, error)
        return None
    with contextlib.suppress(OSError):  # a cache that others keep
        about_path.touch()
    return Coarse(values, factors, cube)


def keep_coarse(coarse: Coarse, digest: str, folder: Path | None = None) -> None:
    """Keep a coarse cube for the next visit; where that fails, it is made again then."""
    values_path, about_path = _files(coarse.cube, digest, folder)
    about = {
        "format": FORMAT,
        "nav": coarse.factors.nav,
        "sig": coarse.factors.sig,
        "shape": coarse.values.shape,
        "crc": zlib.crc32(_bytes(coarse.values)),
    }
    try:
        values_path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(values_path, _npy(coarse.values))
        # Last: without it the values are not looked at.
        replace_file(about_path, json.dumps(about).encode())
        _make_room(values_path.parent)
    except OSError as error:
        _log.warning("the coarse cube is not kept in %s: %s", values_path.parent, error)


def _npy(values: NDArray[Any]) -> list[bytes | memoryview]:
    import io

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(values))
    return [head.getvalue(), _bytes(values)]


def _bytes(values: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).data.cast("B")


def _files(cube: xr.DataArray, digest: str, folder: Path | None) -> tuple[Path, Path]:
    """Where values and description lie: another cube or another way to sum is another name."""
    token = digest.removeprefix("sha256:")[:40]
    kind = "-".join(map(str, (FORMAT, CELLS.bit_length() - 1, CHANNELS, SIDE)))
    stem = (folder or cache_folder() / "coarse") / f"{token}-{kind}"
    return stem.with_name(f"{stem.name}.npy"), stem.with_name(f"{stem.name}.json")


def _make_room(folder: Path) -> None:
    """Remove what was not used for longest until the rest fits."""
    kept = sorted(folder.glob("*.json"), key=os.path.getmtime, reverse=True)
    held = 0
    for about in kept:
        values = about.with_suffix(".npy")
        held += values.stat().st_size if values.exists() else 0
        if held > KEPT_BYTES and about != kept[0]:
            about.unlink(missing_ok=True)
            values.unlink(missing_ok=True)
