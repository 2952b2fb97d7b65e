"""Real files written to stores of events: the counts of the instrument, by the reader's own arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import emcube as em
from emcube.io.lazy import SparseArray
from emcube.store import info, read_digest, verify

VELOX = {
    "velox_emd_version11.zip": "Test SI 16x16 215 kx.emd",
    "velox_EELS_EDS.zip": "example_velox_EELS_EDS.emd",
}


@pytest.fixture
def no_dense_blocks(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a dense block was made")

    return lambda: monkeypatch.setattr(SparseArray, "_read", refuse)


@pytest.mark.parametrize("archive", VELOX)
def test_velox_streams_of_several_segments(data_dir, tmp_path, archive, no_dense_blocks):
    with zipfile.ZipFile(data_dir / "vendor" / archive) as content:
        content.extractall(tmp_path)
    file = next(tmp_path.rglob(VELOX[archive]))
    cube = em.open(file, "EDS")
    from rsciio.emd import file_reader

    found = [d["data"] for d in file_reader(str(file), lazy=True)]
    theirs = next(d for d in found if d.shape == cube.shape).compute()
    assert cube.dtype == theirs.dtype
    np.testing.assert_array_equal(cube.values, theirs)
    dense = em.ingest(cube, tmp_path / "dense.zarr")
    no_dense_blocks()
    path = em.ingest(file, tmp_path / "events.zarr", name="EDS", layout="events")
    assert read_digest(path) == read_digest(dense)
    np.testing.assert_array_equal(em.open(path).values, theirs)


def test_jeol_streams(data_dir, tmp_path, no_dense_blocks):
    file = data_dir / "vendor" / "View000_0000006.pts"
    cube = em.open(file)
    total = cube.sum("energy").values
    some = cube.isel(y=slice(100, 120)).values
    no_dense_blocks()
    path = em.ingest(file, tmp_path / "events.zarr", layout="events")
    opened = em.open(path)
    assert opened.shape == (512, 512, 4096)
    np.testing.assert_array_equal(em.open(path, "total_counts").values, total)
    np.testing.assert_array_equal(opened.isel(y=slice(100, 120)).values, some)
    # A gigabyte of cells, in less than the instrument's own file.
    assert opened.nbytes > 1e9
    assert info(path).stored_bytes < file.stat().st_size
    assert verify(path).ok


@pytest.mark.parametrize(
    "name",
    ["eds_sem_dacite_P45/P45_the_default_job.bcf", "eds_tem_fept/core_shell.hspy"],
)
def test_maps_of_other_formats_there_and_back(data_dir: Path, tmp_path, name):
    dense = em.ingest(data_dir / name, tmp_path / "dense.zarr")
    path = em.ingest(dense, tmp_path / "events.zarr", layout="events")
    back = em.ingest(path, tmp_path / "back.zarr", layout="dense")
    assert read_digest(path) == read_digest(dense) == read_digest(back)
    cube, again = em.open(dense), em.open(path)
    assert again.attrs == cube.attrs
    assert again.name == cube.name
    assert set(again.coords) == set(cube.coords)
    np.testing.assert_array_equal(again.values, cube.values)
    assert verify(path, deep=True).ok
