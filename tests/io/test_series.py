"""Several files as one cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.errors import InputError
from emcube.io.series import angles_from_names, stack_cubes, with_angles_beside


def cube(
    value: float, *, offset: float = 0.0, step: float = 1.0, tilt: float | None = None, **more: Any
) -> xr.DataArray:
    metadata: dict[str, Any] = {
        "source": {"file": "x"},
        "elements": ["Si"],
        "live_time_s": 2.0,
        **more,
    }
    if tilt is not None:
        metadata["tilt_deg"] = tilt
    made = em.make_cube(
        np.full((2, 3, 4), value),
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={
            "energy": offset + 0.01 * np.arange(4),
            "y": step * np.arange(2),
            "x": step * np.arange(3),
        },
        units={"energy": "keV", "x": "nm", "y": "nm"},
    )
    image = xr.DataArray(np.full((2, 3), value), dims=("y", "x"), attrs={"units": "counts"})
    return made.assign_coords(HAADF=image).assign_attrs(metadata=metadata)


def paths(*names: str) -> list[Path]:
    return [Path(f"{name}.bcf") for name in names]


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("-30", "0", "15"), [-30, 0, 15]),
        (("map_-30.5", "map_+10"), [-30.5, 10]),
        (("L2083_tilt_-30deg", "L2083_tilt_30deg"), [-30, 30]),
        (("scan-10", "scan-20"), [10, 20]),
        (("a", "b"), None),
        (("1_1", "2_2"), None),
        (("5", "5"), None),
        (("a1", "b"), None),
    ],
)
def test_angles_from_names(names: tuple[str, ...], values: list[float] | None) -> None:
    got = angles_from_names(paths(*names))
    assert (None if got is None else got.tolist()) == values


def test_given_values_and_order() -> None:
    series = stack_cubes([cube(3), cube(1), cube(2)], paths("c", "a", "b"), "tilt", [30, -30, 0])
    assert series.dims == ("tilt", "y", "x", "energy")
    assert series.tilt.values.tolist() == [-30, 0, 30]
    assert series.tilt.attrs["units"] == "deg"
    assert series[:, 0, 0, 0].values.tolist() == [1, 2, 3]
    assert series.HAADF.dims == ("tilt", "y", "x")
    assert series.HAADF[:, 0, 0].values.tolist() == [1, 2, 3]
    metadata = series.attrs["metadata"]
    assert metadata["source"]["files"] == ["a.bcf", "b.bcf", "c.bcf"]
    assert metadata["live_time_s"] == 6.0
    assert "tilt_deg" not in metadata
    assert series.em.nav_dims == ("tilt", "y", "x")


def test_stored_zero_everywhere_gives_way_to_the_names() -> None:
    series = stack_cubes([cube(1, tilt=0.0), cube(2, tilt=0.0)], paths("15", "-15"), "tilt", None)
    assert series.tilt.values.tolist() == [-15, 15]
    (note,) = series.attrs["metadata"]["extra"]["notes"]
    assert "file names" in note
    assert "store 0, 0" in note


def test_stored_angles_win_where_they_are_whole() -> None:
    series = stack_cubes(
        [cube(1, tilt=14.96), cube(2, tilt=-15.02)], paths("15", "-15"), "tilt", None
    )
    assert series.tilt.values.tolist() == [-15.02, 14.96]


def test_contradiction_asks() -> None:
    with pytest.raises(InputError, match=r"contradict.*15\.bcf stores -15 degrees.*values="):
        stack_cubes([cube(1, tilt=-15.0), cube(2, tilt=15.0)], paths("15", "-15"), "tilt", None)


def test_no_angles_at_all_asks() -> None:
    with pytest.raises(InputError, match=r"neither the files nor their names.*values="):
        stack_cubes([cube(1), cube(2)], paths("a", "b"), "tilt", None)


def test_other_dims_number_the_files() -> None:
    series = stack_cubes([cube(1), cube(2)], paths("a", "b"), "run", None)
    assert series.run.values.tolist() == [0, 1]


def test_rawtlt_gives_the_values(tmp_path: Path) -> None:
    (tmp_path / "t.rawtlt").write_text("-5\n5\n")
    series = stack_cubes([cube(1), cube(2)], paths("a", "b"), "tilt", tmp_path / "t.rawtlt")
    assert series.tilt.values.tolist() == [-5, 5]


def test_what_does_not_match_is_refused() -> None:
    with pytest.raises(InputError, match=r"2 values|1 values for 2 files"):
        stack_cubes([cube(1), cube(2)], paths("a", "b"), "tilt", [1.0])
    with pytest.raises(InputError, match="occurs twice"):
        stack_cubes([cube(1), cube(2)], paths("a", "b"), "tilt", [1.0, 1.0])
    with pytest.raises(InputError, match=r"b\.bcf has the shape"):
        stack_cubes([cube(1), cube(2)[:, :2]], paths("a", "b"), "tilt", [0, 1])
    with pytest.raises(
        InputError, match=r"energy of b\.bcf: channel \d lies at .* within 0\.1 channel"
    ):
        stack_cubes([cube(1), cube(2, offset=0.002)], paths("a", "b"), "tilt", [0, 1])
    stack_cubes([cube(1), cube(2, offset=0.0005)], paths("a", "b"), "tilt", [0, 1])
    with pytest.raises(InputError, match="one magnification"):
        stack_cubes([cube(1), cube(2, step=2.0)], paths("a", "b"), "tilt", [0, 1])
    with pytest.raises(InputError, match="already"):
        stack_cubes([cube(1), cube(2)], paths("a", "b"), "x", [0, 1])


def stack(n: int, unit: str) -> xr.DataArray:
    return em.make_cube(
        np.arange(n)[:, None, None] * np.ones((n, 2, 2)),
        dims=("z", "y", "x"),
        sig_dims=(),
        units={"z": unit},
    )


def test_angles_beside_a_stack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "s.rawtlt").write_text("10\n-10\n0\n")
    tilted = with_angles_beside(stack(3, "1"), tmp_path / "s.dm3")
    assert tilted.dims == ("tilt", "y", "x")
    assert tilted.tilt.values.tolist() == [-10, 0, 10]
    assert tilted[:, 0, 0].values.tolist() == [1, 2, 0]
    kept = with_angles_beside(stack(4, "1"), tmp_path / "s.dm3")
    assert kept.dims == ("z", "y", "x")
    assert "3 angles for 4 images" in kept.attrs["metadata"]["extra"]["notes"][0]
    assert "3 angles for 4 images" in caplog.text


def test_series_of_files(tmp_path: Path) -> None:
    for angle in (30, -30, 0):
        np.save(tmp_path / f"{angle}.npy", np.full((2, 3, 5), angle + 30, dtype="u1"))
    files = [tmp_path / f"{a}.npy" for a in (30, -30, 0)]
    series = em.open(files, dim="tilt")
    assert series.tilt.values.tolist() == [-30, 0, 30]
    assert series.dtype == np.uint8
    assert series.chunks is not None
    assert series[:, 0, 0, 0].values.tolist() == [0, 30, 60]
    assert em.open([str(f) for f in files], values=[1, 2, 3]).tilt.values.tolist() == [1, 2, 3]
    store = em.ingest(files, tmp_path / "series.zarr")
    assert em.open(store).identical(em.open(store))
    assert (em.open(store).values == series.values).all()
