"""`em.open`, `em.ingest` and `signals`: whatever a user points at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import emcube as em
from emcube.errors import EmcubeError, InputError, ReadError
from emcube.sources import signals

COUNTS = np.random.default_rng(3).integers(0, 5, (6, 5, 12)).astype("u1")


@pytest.fixture
def cube() -> xr.DataArray:
    return em.make_cube(
        COUNTS,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": 0.01 * np.arange(12)},
        units={"energy": "keV", "x": "nm", "y": "nm"},
    )


def test_cube_in_hand_passes_through(cube: xr.DataArray) -> None:
    assert em.open(cube).identical(cube)
    bare = em.open(xr.DataArray(COUNTS, dims=("y", "x", "energy")))
    assert bare.attrs["sig_dims"] == ["energy"]
    with pytest.raises(EmcubeError):
        em.open(xr.DataArray(COUNTS, dims=("energy", "y", "x")))
    with pytest.raises(InputError, match="name='a' has no meaning"):
        em.open(cube, "a")


def test_ingest_and_open_again(cube: xr.DataArray, tmp_path: Path) -> None:
    seen = []
    place = em.ingest(cube, tmp_path / "c.zarr", progress=seen.append)
    assert place == tmp_path / "c.zarr"
    assert seen
    again = em.open(place)
    assert again.dims == cube.dims
    assert (again.values == COUNTS).all()
    assert again.dtype == np.uint8
    assert em.open(str(place)).identical(again)
    names = [s.name for s in signals(place)]
    assert {"data", "total_counts", "sum_spectrum"} <= set(names)
    other = cube.copy(data=cube.values + np.uint8(1))
    with pytest.raises(EmcubeError):
        em.ingest(other, place)
    em.ingest(other, place, overwrite=True)
    assert (em.open(place).values == COUNTS + 1).all()


def test_a_store_of_events_lists_its_cube(cube: xr.DataArray, tmp_path: Path) -> None:
    place = em.ingest(cube, tmp_path / "e.zarr", layout="events")
    found = {s.name: s for s in signals(place)}
    assert {"data", "total_counts", "sum_spectrum"} <= set(found)
    assert not [name for name in found if name.startswith("event")]
    assert found["data"].kind == "cube"
    assert found["data"].shape == cube.shape
    assert found["data"].dtype == cube.dtype
    assert em.open(place, "data").identical(em.open(place))


def test_ingest_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COUNTS)
    em.ingest(tmp_path / "a.npy", tmp_path / "a.zarr", dtype="u2")
    stored = em.open(tmp_path / "a.zarr")
    assert stored.dtype == np.uint16
    assert (stored.values == COUNTS).all()
    assert stored.attrs["metadata"]["source"]["file"] == "a.npy"


@pytest.mark.parametrize("version", [2, 3])
def test_foreign_zarr(tmp_path: Path, version: int) -> None:
    xr.Dataset({"counts": (("y", "x", "energy"), COUNTS)}).to_zarr(
        tmp_path / "f.zarr", zarr_format=version, consolidated=False
    )
    assert (em.open(tmp_path / "f.zarr").values == COUNTS).all()
    assert em.open(tmp_path / "f.zarr").attrs["sig_dims"] == ["energy"]


def test_zarr_array_with_dimension_names(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=COUNTS.shape, dtype="u1", dimension_names=["y", "x", "energy"]
    )
    array[:] = COUNTS
    assert (em.open(tmp_path / "a.zarr").values == COUNTS).all()


def test_missing_file_names_close_ones(tmp_path: Path) -> None:
    np.save(tmp_path / "map_01.npy", COUNTS)
    with pytest.raises(ReadError, match=r"no such file.*did you mean 'map_01\.npy'"):
        em.open(tmp_path / "map_1.npy")
    with pytest.raises(ReadError, match=r"did you mean 'map_01\.npy'"):
        em.open(tmp_path / "MAP_01.NPY")
    with pytest.raises(ReadError, match="no folder"):
        em.open(tmp_path / "nowhere" / "map.npy")
    with pytest.raises(ReadError, match=r"patterns are not expanded \(1 files match\)"):
        em.open(tmp_path / "map_*.npy")
    with pytest.raises(OSError, match="no such file"):
        em.open(str(tmp_path / "quite another.bcf"))


def test_brackets_in_a_name_are_no_pattern(tmp_path: Path) -> None:
    np.save(tmp_path / "K412[1][4].npy", COUNTS)
    assert em.open(tmp_path / "K412[1][4].npy").shape == COUNTS.shape


def test_parameters_without_meaning_are_refused(cube: xr.DataArray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COUNTS)
    with pytest.raises(InputError, match="stack several files"):
        em.open(tmp_path / "a.npy", dim="tilt")
    with pytest.raises(InputError, match="stack several files"):
        em.open(cube, values=[1])
    with pytest.raises(InputError, match="make_cube"):
        em.open(COUNTS)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="empty list"):
        em.open([])
    with pytest.raises(InputError, match=r"a list with ndarray"):
        em.open([COUNTS])  # type: ignore[list-item]
    with pytest.raises(InputError, match="occurs twice"):
        em.open([tmp_path / "a.npy", tmp_path / "a.npy"])
    with pytest.raises(InputError, match="does not hold every value"):
        em.open(cube, dtype="i1")


def test_folder_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(EmcubeError, match=str(tmp_path)):
        em.open(tmp_path)


def test_opening_reads_nothing(tmp_path: Path) -> None:
    import dask

    np.save(tmp_path / "a.npy", COUNTS)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=fail):
        em.open(tmp_path / "a.npy")
        info = signals(tmp_path / "a.npy")
    assert [(s.name, s.kind, s.dims, s.shape, s.dtype) for s in info] == [
        ("a", "cube", ("y", "x", "channel"), COUNTS.shape, np.dtype("u1"))
    ]


def test_catalog_without_an_entry(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "version: 2\nuser_parameters: {}\nentries: {}\naliases: {}\ndata: {}\n"
    )
    with pytest.raises(EmcubeError, match=r"c\.yaml"):
        em.open(tmp_path / "c.yaml")
    with pytest.raises(EmcubeError, match="there is no catalog"):
        em.open(f"{tmp_path}/other.yaml:srm2135c")
