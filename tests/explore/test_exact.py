"""Maps and spectra from the data: what NumPy sums, on threads and on workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from emcube.errors import SelectionError
from emcube.explore.exact import exact_image, exact_spectrum
from emcube.explore.regions import Region
from emcube.store import open_cube, write_cube
from tests.explore.cubes_for_tests import three_phases
from tests.explore.test_coarse import cube_of


@pytest.fixture(scope="module", params=["memory", "dense", "events"])
def cube(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> xr.DataArray:
    made = three_phases()
    if request.param == "memory":
        return made
    folder = tmp_path_factory.mktemp("exact")
    chunked = made.chunk({"y": 5, "x": 7})
    return open_cube(write_cube(chunked, folder / "cube.zarr", layout=request.param))


@pytest.mark.parametrize("window", [(1.5, 1.9), (0.0, 99.0), (2.6, 2.6)])
def test_a_map_is_the_sum_of_its_channels(
    cube: xr.DataArray, window: tuple[float, float], tmp_path: Path
) -> None:
    found = exact_image(cube, {"energy": window}, tmp_path)
    expected = three_phases().em.window(energy=window).em.total_counts()
    np.testing.assert_array_equal(found, expected)
    assert found.dims == ("y", "x")
    np.testing.assert_array_equal(found.y, cube.y)


def test_without_a_window_all_channels_count(cube: xr.DataArray, tmp_path: Path) -> None:
    found = exact_image(cube, {}, tmp_path)
    np.testing.assert_array_equal(found, three_phases().em.total_counts())


def test_a_pattern_has_windows_on_both_dims(tmp_path: Path) -> None:
    cube = cube_of((5, 6, 24, 20), "uint16", 2)
    found = exact_image(cube, {"ky": (2.0, 4.0), "kx": (1.0, 3.0)}, tmp_path)
    np.testing.assert_array_equal(found, cube.values[:, :, 4:9, 2:7].sum(axis=(2, 3)))


@pytest.mark.parametrize(
    "region",
    [
        None,
        Region.box(y=(3, 7), x=(10, 12)),
        Region.polygon([(0.2, 0.3), (2.4, 20.1), (18.3, 7.7)]),
        Region.pixel(y=0, x=31),
    ],
    ids=str,
)
def test_a_spectrum_is_the_sum_of_its_pixels(cube: xr.DataArray, region: Region | None) -> None:
    mask = None if region is None else region.mask(cube)
    found = exact_spectrum(cube, mask)
    inside = three_phases() if mask is None else three_phases().where(mask, 0)
    np.testing.assert_array_equal(found, inside.sum(["y", "x"]))
    assert found.attrs["units"] == "counts"
    np.testing.assert_array_equal(found.energy, cube.energy)


def test_missing_values_count_as_nothing(tmp_path: Path) -> None:
    cube = three_phases().astype("float32")
    cube.values[3, 4, 10:20] = np.nan
    expected = np.nansum(cube.values, axis=2, dtype=np.float64)
    np.testing.assert_allclose(exact_image(cube, {}, tmp_path), expected)
    np.testing.assert_allclose(exact_spectrum(cube, None), np.nansum(cube.values, axis=(0, 1)))


def test_a_window_elsewhere_is_refused(cube: xr.DataArray, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="no channel between"):
        exact_image(cube, {"energy": (50, 60)}, tmp_path)
    with pytest.raises(SelectionError, match="not a signal dim"):
        exact_image(cube, {"y": (0, 1)}, tmp_path)


def test_workers_give_the_same(cluster_client: Any, tmp_path: Path) -> None:
    place = write_cube(three_phases().chunk({"y": 5, "x": 7}), tmp_path / "cube.zarr")
    cube, region = open_cube(place), Region.box(y=(3, 17), x=(2, 30))
    with cluster_client.as_current():
        image = exact_image(cube, {"energy": (1.5, 1.9)}, tmp_path)
        spectrum = exact_spectrum(cube, region.mask(cube))
    np.testing.assert_array_equal(image, exact_image(cube, {"energy": (1.5, 1.9)}, tmp_path))
    np.testing.assert_array_equal(spectrum, exact_spectrum(cube, region.mask(cube)))
    assert [p.name for p in tmp_path.iterdir()] == ["cube.zarr"], "nothing is left"
