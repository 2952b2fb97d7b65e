"""Cubes that a dask.distributed client persisted: their blocks lie on its workers."""

from collections.abc import Iterator
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import emcube as em
from emcube.engine import ArraySource, DaskSource
from emcube.errors import InputError

COUNTS = np.random.default_rng(0).poisson(3.0, (12, 5, 40)).astype(np.uint8)


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as active:
        yield active


def lazy() -> xr.DataArray:
    array = da.from_array(COUNTS, chunks=(4, 5, 40))
    return em.make_cube(array, dims=("y", "x", "energy"))


@pytest.mark.parametrize("rows", [slice(None), slice(3, 10)])
def test_models_fit_a_persisted_cube_as_any_other(client: Client, rows: slice) -> None:
    cube = lazy().isel(y=rows)
    persisted = lazy().persist().isel(y=rows)
    for model, answer in (
        (em.IncrementalPCA(3), "components_"),
        (em.MiniBatchNMF(2, max_iter=3, random_state=0), "components_"),
        (em.KMeans(2, random_state=0), "labels_"),
    ):
        expected = getattr(model.fit(cube), answer).copy()
        got = getattr(model.fit(persisted), answer)
        xr.testing.assert_identical(got.compute(), expected.compute())


def test_persisted_where_and_transform(client: Client) -> None:
    cube, persisted = lazy(), lazy().persist()
    where = cube.em.total_counts() > 110
    pca = em.IncrementalPCA(2).fit(persisted, where=where)
    expected = em.IncrementalPCA(2).fit(cube, where=where)
    xr.testing.assert_identical(pca.components_, expected.components_)
    xr.testing.assert_identical(
        pca.transform(persisted).compute(), expected.transform(cube).compute()
    )


def test_part_holds_only_the_futures_it_needs(client: Client) -> None:
    persisted = da.from_array(COUNTS, chunks=(4, 5, 40)).persist()
    source = DaskSource.from_array(persisted, 2)
    assert len(source.futures) == 3
    assert len(source.part([0]).futures) <= len(source.futures)
    whole = ArraySource.from_array(COUNTS, 2).load(0)
    np.testing.assert_array_equal(source.load(0).dense()[:4], whole.dense()[:4])


def test_a_persisted_cube_is_ingested(client: Client, tmp_path: Path) -> None:
    path = em.ingest(lazy().persist(), tmp_path / "map.zarr")
    np.testing.assert_array_equal(em.open(path).values, COUNTS)


def test_blocks_gone_with_their_client_are_named() -> None:
    with Client(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as client:
        persisted = lazy().persist()
        assert client.status == "running"
    with pytest.raises(InputError, match="client that is gone"):
        em.IncrementalPCA(2).fit(persisted)
