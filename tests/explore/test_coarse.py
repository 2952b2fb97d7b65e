"""Coarse cubes: the sums that a slow twin gives, kept whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from emcube.cube import make_cube, nav_dims, sig_dims
from emcube.errors import SelectionError
from emcube.explore import coarse as module
from emcube.explore.coarse import (
    Coarse,
    Factors,
    choose_factors,
    keep_coarse,
    make_coarse,
    stored_coarse,
)
from emcube.store import write_cube


def binned(cube: xr.DataArray, factors: Factors) -> np.ndarray:
    """Slow twin: sum boxes one by one, (e..., p...)."""
    every = (*factors.nav, *factors.sig)
    shape = [-(-n // f) for n, f in zip(cube.shape, every, strict=True)]
    out = np.zeros(shape)
    values = np.nan_to_num(np.asarray(cube.values, dtype=np.float64))
    for at in np.ndindex(*shape):
        out[at] = values[
            tuple(slice(i * f, (i + 1) * f) for i, f in zip(at, every, strict=True))
        ].sum()
    n_nav = len(factors.nav)
    return out.transpose((*range(n_nav, out.ndim), *range(n_nav)))


def cube_of(
    shape: tuple[int, ...], dtype: str = "uint8", n_sig: int = 1, rate: float = 0.4
) -> xr.DataArray:
    rng = np.random.default_rng(sum(shape))
    values = rng.poisson(rate, shape).astype(dtype)
    names = ("tilt", "y", "x")[-(len(shape) - n_sig) :]
    signal = ("energy",) if n_sig == 1 else ("ky", "kx")
    coords = {d: 0.5 * np.arange(n) for d, n in zip((*names, *signal), shape, strict=True)}
    return make_cube(values, dims=(*names, *signal), sig_dims=signal, coords=coords)


CASES = {
    "map": ((13, 18, 50), "uint8", 1, 300),
    "series": ((3, 11, 14, 30), "uint16", 1, 200),
    "line": ((40, 60), "uint8", 1, 300),
    "patterns": ((5, 6, 24, 20), "uint16", 2, 400),
    "wide counts": ((9, 8, 40), "uint32", 1, 100),
    "full of counts": ((9, 8, 40), "int64", 1, 100),
}


@pytest.mark.parametrize("name", CASES)
def test_sums_are_those_of_the_slow_twin(name: str, tmp_path: Path) -> None:
    shape, dtype, n_sig, cells = CASES[name]
    cube = cube_of(shape, dtype, n_sig, rate=40 if name == "full of counts" else 0.4)
    made = make_coarse(cube, cells)
    assert not made.factors.whole
    assert made.values.size <= cells
    np.testing.assert_array_equal(made.values, binned(cube, made.factors))
    assert made.values.dtype.kind in "ui"
    again = made.as_cube()
    assert again.dims == cube.dims
    assert int(again.sum()) == int(cube.sum()), "no count is lost"


@pytest.mark.parametrize("layout", ["dense", "events"])
def test_blocks_that_cut_bins_change_nothing(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cube = cube_of((13, 18, 50))
    place = write_cube(cube.chunk({"y": 3, "x": 5}), tmp_path / "cube.zarr", layout=layout)
    from emcube.engine import plan
    from emcube.store import open_cube

    monkeypatch.setattr(plan.plan_blocks, "__kwdefaults__", {"target_bytes": 400})
    stored = open_cube(place)
    made = make_coarse(stored, 300)
    np.testing.assert_array_equal(made.values, make_coarse(cube, 300).values)


def test_missing_values_count_as_nothing() -> None:
    cube = cube_of((9, 8, 40), "float32")
    cube.values[2, 3] = np.nan
    made = make_coarse(cube, 200)
    np.testing.assert_allclose(made.values, binned(cube, made.factors), rtol=1e-6)
    assert np.isfinite(made.values).all()


def test_negative_integers_keep_their_sign() -> None:
    cube = cube_of((9, 8, 40), "int16") - 3
    cube.attrs["sig_dims"] = ["energy"]
    made = make_coarse(cube.astype("int16"), 200)
    np.testing.assert_array_equal(made.values, binned(cube, made.factors))


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=4).map(tuple),
    st.lists(st.integers(1, 5000), min_size=1, max_size=2).map(tuple),
    st.integers(1, 10**8),
)
def test_factors_fit_whatever_the_shape(
    nav: tuple[int, ...], sig: tuple[int, ...], cells: int
) -> None:
    found = choose_factors(nav, sig, cells)
    both = zip((*nav, *sig), (*found.nav, *found.sig), strict=True)
    assert math.prod(-(-n // f) for n, f in both) <= cells
    assert found.whole or math.prod((*nav, *sig)) > cells


def test_a_window_that_cuts_a_channel_counts_it_in_part() -> None:
    cube = cube_of((4, 4, 64))
    made = Coarse(make_coarse(cube, 4 * 4 * 16).values, Factors((1, 1), (4,)), cube)
    exact = cube.em.window(energy=(2.0, 13.0)).em.total_counts()  # channels 4 to 26
    quick = made.image({"energy": (2.0, 13.0)})
    # Bins 1 to 5 (channels 4 to 23) whole, bin 6 (24 to 27) for three quarters.
    flat = cube.values.reshape(4, 4, 16, 4).sum(-1)
    np.testing.assert_allclose(quick, flat[..., 1:6].sum(-1) + 0.75 * flat[..., 6])
    assert abs(float(quick.sum()) / float(exact.sum()) - 1) < 0.05
    with pytest.raises(SelectionError, match="not a signal dim"):
        made.image({"y": (0, 1)})
    with pytest.raises(SelectionError, match="no channel between"):
        made.image({"energy": (900, 901)})


def test_a_pattern_has_windows_on_both_dims() -> None:
    cube = cube_of((5, 6, 24, 20), "uint16", 2)
    made = make_coarse(cube)
    assert made.factors.whole
    found = made.image({"ky": (2.0, 4.0), "kx": (1.0, 3.0)})
    np.testing.assert_array_equal(found, cube.values[:, :, 4:9, 2:7].sum(axis=(2, 3)))


def test_a_region_counts_coarse_pixels_in_part() -> None:
    cube = cube_of((12, 12, 40))
    made = Coarse(binned(cube, Factors((4, 4), (1,))), Factors((4, 4), (1,)), cube)
    mask = xr.zeros_like(cube.isel(energy=0, drop=True), dtype=bool)
    mask[:4, :6] = True  # one coarse pixel whole, a second by half
    expected = cube.values[:4, :4].sum((0, 1)) + cube.values[:4, 4:8].sum((0, 1)) / 2
    np.testing.assert_allclose(made.spectrum(mask), expected)
    np.testing.assert_allclose(made.spectrum(None), cube.sum(nav_dims(cube)))
    assert made.spectrum(None).attrs["sig_dims"] == list(sig_dims(cube))


def test_coordinates_are_the_middles() -> None:
    made = make_coarse(cube_of((13, 18, 50)), 300)
    for dim, factor in zip(("y", "x"), made.factors.nav, strict=True):
        middles = made.nav_coords[dim].values
        assert middles[0] == pytest.approx(0.5 * (factor - 1) / 2)


# ------------------------------------------------------------------------------------------------ keeping


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    cube = cube_of((13, 18, 50))
    made = make_coarse(cube, 300)
    assert stored_coarse(cube, "sha256:ab", tmp_path) is None
    keep_coarse(made, "sha256:ab", tmp_path)
    found = stored_coarse(cube, "sha256:ab", tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.values, made.values)
    assert found.factors == made.factors
    assert stored_coarse(cube, "sha256:cd", tmp_path) is None


@pytest.mark.parametrize("how", ["a byte", "cut short", "no description", "another format"])
def test_what_is_damaged_is_not_used(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    cube = cube_of((13, 18, 50))
    keep_coarse(make_coarse(cube, 300), "sha256:ab", tmp_path)
    (values,) = tmp_path.glob("*.npy")
    (about,) = tmp_path.glob("*.json")
    raw = bytearray(values.read_bytes())
    if how == "a byte":
        raw[-1] ^= 1
        values.write_bytes(raw)
    elif how == "cut short":
        values.write_bytes(raw[:-7])
    elif how == "no description":
        about.unlink()
    else:
        about.write_text(json.dumps({**json.loads(about.read_text()), "format": 99}))
    assert stored_coarse(cube, "sha256:ab", tmp_path) is None
    assert ("is not used" in caplog.text) == (how != "no description")


def test_what_was_not_used_for_longest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    cube = cube_of((13, 18, 50))
    made = make_coarse(cube, 300)
    size = made.values.nbytes + 128
    monkeypatch.setattr(module, "KEPT_BYTES", 2 * size)
    for age, digest in ((300, "aa"), (200, "bb"), (100, "cc")):
        keep_coarse(made, digest, tmp_path)
        for file in tmp_path.glob(f"{digest}-*"):
            os.utime(file, (1e9 - age, 1e9 - age))
    keep_coarse(made, "dd", tmp_path)
    assert {f.name[:2] for f in tmp_path.glob("*.npy")} == {"cc", "dd"}
    assert {f.name[:2] for f in tmp_path.glob("*.json")} == {"cc", "dd"}


def test_a_cache_that_cannot_be_written_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    keep_coarse(make_coarse(cube_of((13, 18, 50)), 300), "sha256:ab", blocked / "coarse")
    assert "is not kept" in caplog.text
