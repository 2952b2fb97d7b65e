"""One model over several cubes: as over the one that they make together, without making it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.engine import ArraySource, BlockPlan, use_threads
from emcube.errors import InputError, SelectionError
from emcube.models.fields import Fields, several
from emcube.models.labels import as_source
from emcube.models.nmf_losses import PoissonLoss
from tests.contract.test_estimators import ESTIMATORS, answer, spectra_of


def field(seed: int, shape: tuple[int, int] = (14, 16), name: str = "data") -> xr.DataArray:
    """Three phases in stripes, wider or narrower; 60 counts in 40 channels."""
    rng = np.random.default_rng((7, seed))
    spectra = np.random.default_rng(3).dirichlet(np.full(40, 0.3), 3)
    edges = np.cumsum(rng.dirichlet([8.0, 8.0, 8.0]))[:2]
    phase = np.searchsorted(edges, (np.arange(shape[1]) + 0.5) / shape[1])
    mix = np.broadcast_to(0.85 * np.eye(3)[phase] + 0.05, (*shape, 3))
    counts = rng.poisson(60 * mix @ spectra).astype(np.uint16)
    return em.make_cube(
        counts,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": 0.1 * np.arange(40) + 0.2},
        units={"energy": "keV", "x": "nm", "y": "nm"},
    ).rename(name)


@pytest.fixture(scope="module")
def cubes() -> list[xr.DataArray]:
    return [field(0), field(1).chunk(y=5), field(2)]


@pytest.fixture(scope="module")
def joined(cubes) -> xr.DataArray:
    return em.make_cube(
        np.concatenate([c.values for c in cubes]),
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": cubes[0].energy.values},
        units={"energy": "keV", "x": "nm", "y": "nm"},
    )


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_model_takes_several_cubes_as_the_one_that_they_make(name, cubes, joined) -> None:
    model, whole = ESTIMATORS[name]().fit(cubes), ESTIMATORS[name]().fit(joined)
    spectra = spectra_of(model)
    assert spectra.energy.attrs["units"] == "keV"
    # Other blocks are other random numbers, of which chains of twenty draws are made.
    rtol = 0.1 if name.startswith("bayes") else 0.02
    np.testing.assert_allclose(spectra, spectra_of(whole), rtol=rtol, atol=2e-3)
    maps = answer(model, cubes)
    assert isinstance(maps, list)
    assert [m.sizes["y"] for m in maps] == [14, 14, 14]
    for one, cube in zip(maps, cubes, strict=True):
        xr.testing.assert_identical(one, answer(model, cube))
    assert hasattr(maps[1].data, "dask")
    assert isinstance(model.score(cubes), float)
    assert model.score(cubes) == pytest.approx(whole.score(joined), rel=1e-2)


@pytest.mark.parametrize(
    "name",
    [
        "pca-poisson",
        "nmf-frobenius",
        "ica-spatial",
        "mcr",
        "vca",
        "kmeans-profiles",
        "gaussian-mixture-profiles",
        "poisson-mixture",
    ],
)
def test_same_bits_on_any_number_of_threads(name, cubes) -> None:
    many = ESTIMATORS[name]().fit(cubes)
    with use_threads(1):
        one = ESTIMATORS[name]().fit(cubes)
    np.testing.assert_array_equal(spectra_of(one), spectra_of(many))


def test_workers_give_the_same_bits(cubes) -> None:
    from distributed import Client

    alone = em.MiniBatchNMF(3, random_state=0).fit(cubes)
    with Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None):
        spread = em.MiniBatchNMF(3, random_state=0).fit(cubes)
        maps = spread.transform(cubes)
    np.testing.assert_array_equal(spread.components_, alone.components_)
    for one, two in zip(maps, alone.transform(cubes), strict=True):
        np.testing.assert_array_equal(one, two)


def test_of_one_shape_it_is_the_stacked_cube_bit_by_bit(cubes) -> None:
    """The stacked cube, cut where the cubes end, has the same blocks."""
    plain = [c.compute() for c in cubes]
    chained, labels = as_source(plain)
    stacked = np.stack([c.values for c in plain])
    source = ArraySource.from_array(stacked, 3)
    source = ArraySource(
        BlockPlan(stacked.shape[:3], (1, 14, 16), 40, 2), source.selection, source.name, stacked
    )
    one, two = (em.MiniBatchNMF(3, random_state=0) for _ in range(2))
    one._fit_source(chained, labels, PoissonLoss())
    two._fit_source(source, labels, PoissonLoss())
    np.testing.assert_array_equal(one._values, two._values)
    np.testing.assert_array_equal(one.objective_path_, two.objective_path_)
    assert one.pool_ == two.pool_


def test_fields_may_have_any_shape(cubes) -> None:
    wide = field(3, (9, 31))
    pca = em.IncrementalPCA(3).fit([*cubes, wide])
    rows = np.concatenate([c.values.reshape(-1, 40) for c in [*cubes, wide]])
    np.testing.assert_allclose(
        pca.explained_variance_, em.IncrementalPCA(3).fit(rows).explained_variance_, rtol=1e-9
    )
    vca = em.VCA(3, random_state=0).fit([*cubes, wide])
    assert vca.purest_.shape == (3, 3)  # field, y, x
    assert set(vca.purest_[:, 0]) <= {0, 1, 2, 3}


def test_where_is_a_list_with_one_a_cube(cubes) -> None:
    upper = xr.DataArray(np.arange(14) < 6, dims="y").broadcast_like(cubes[0].isel(energy=0))
    chosen = [upper.reset_coords(drop=True), None, None]
    some = em.IncrementalPCA(3).fit(cubes, where=chosen)
    assert some.n_samples_seen_ == 6 * 16 + 2 * 14 * 16
    maps = em.MiniBatchNMF(3, random_state=0).fit_transform(cubes, where=chosen)
    assert np.isfinite(maps[0].values).all(axis=-1).sum() == 6 * 16
    assert np.isfinite(maps[1].values).all()
    channels = xr.DataArray(np.arange(40) > 3, dims="energy")
    model = em.MiniBatchNMF(3, random_state=0).fit(cubes, where=channels)
    assert np.isnan(model.components_.values[:, :4]).all()
    assert np.isfinite(model.transform(cubes, where=None)[0].values).all()


def test_partial_fit_and_clusters_take_several_cubes(cubes, joined) -> None:
    pca = em.IncrementalPCA(3).partial_fit(cubes[:2]).partial_fit(cubes[2:])
    np.testing.assert_allclose(
        pca.explained_variance_, em.IncrementalPCA(3).fit(cubes).explained_variance_, rtol=1e-9
    )
    kmeans = em.KMeans(3, random_state=0).fit(cubes)
    assert [one.dims for one in kmeans.labels_] == [("y", "x")] * 3
    np.testing.assert_array_equal(kmeans.labels_[2], kmeans.predict(cubes[2]))
    labels = em.KMeans(3, random_state=0).fit_predict(cubes)
    np.testing.assert_array_equal(labels[0], kmeans.labels_[0])
    assert em.cluster_quality(kmeans, cubes, n_samples=60, n_repeats=2)["silhouette"].size == 3
    assert em.estimate_n_components(cubes).reason == em.estimate_n_components(joined).reason
    loadings = em.MiniBatchNMF(3, random_state=0).fit(cubes).transform(cubes)
    again = em.KMeans(3, random_state=0).fit(loadings)
    agree = [float((a == b).mean()) for a, b in zip(again.labels_, kmeans.labels_, strict=True)]
    assert min(agree) > 0.95


def test_what_a_catalog_finds_is_opened_lazily(tmp_path, cubes) -> None:
    from emcube import catalog

    path = tmp_path / "catalog.yaml"
    catalog.create(path)
    for i, cube in enumerate(cubes):
        store = em.ingest(cube, tmp_path / f"f{i}.zarr")
        catalog.add(path, store, name=f"f{i}", modality="EDS" if i < 2 else "EELS")
    found = em.open_catalog(path).search(modality="EDS")
    fields = several(found)
    assert fields is not None
    assert fields.names == ("f0", "f1")
    assert all(hasattr(cube.data, "dask") for cube in fields.cubes)
    model = em.MiniBatchNMF(3, random_state=0).fit(found)
    np.testing.assert_array_equal(
        model.components_, em.MiniBatchNMF(3, random_state=0).fit(list(fields.cubes)).components_
    )
    assert len(model.transform(found)) == 2
    with pytest.raises(InputError, match="no entry that was searched for"):
        em.KMeans(3).fit(em.open_catalog(path).search(modality="4D-STEM"))


def with_axis(cube: xr.DataArray, values: Any, units: str = "keV") -> xr.DataArray:
    return cube.assign_coords(energy=("energy", np.asarray(values), {"units": units}))


@pytest.mark.parametrize(
    ("change", "said", "hint"),
    [
        (lambda c: with_axis(c, c.energy * 1e3, "eV"), "energy in eV and in keV", "convert"),
        (lambda c: with_axis(c, c.energy + 0.3), "from 0.5 on", r"energy=\(0.5, 4.1\)"),
        (lambda c: with_axis(c, c.energy + 0.03), "from 0.23 on", "calibrate the offset"),
        (lambda c: with_axis(c, c.energy * 2), "channels of 0.2 keV", r"em.bin\(energy=2\)"),
        (lambda c: with_axis(c, c.energy * 1.01), "channels of 0.101 keV", "interp"),
        (lambda c: with_axis(c, c.energy + 9), "from 9.2 on", "nothing in common"),
        (lambda c: c.isel(energy=slice(0, 30)), "has 30 channels", "window"),
        (lambda c: c.rename(energy="wavelength"), "signal dims", "rename"),
        (lambda c: c.rename(y="z"), "navigation dims", "expand_dims"),
        (lambda c: c.assign_attrs(units="counts/s"), "counts/s", "convert the values"),
    ],
)  # fmt: skip
def test_cubes_that_do_not_go_together_are_refused_with_a_way_out(
    cubes, change, said, hint
) -> None:
    other = change(cubes[1])
    if "sig_dims" in other.attrs and "wavelength" in other.dims:
        other.attrs["sig_dims"] = ["wavelength"]
    with pytest.raises(InputError, match=said) as caught:
        em.MiniBatchNMF(3).fit([cubes[0], other])
    assert "cube 1" in caught.value.message
    import re

    assert re.search(hint, caught.value.hint), caught.value.hint


def test_the_ways_out_work(cubes) -> None:
    shifted = with_axis(cubes[1], cubes[1].energy + 0.3)
    cut = [c.em.window(energy=(0.5, 4.1)) for c in (cubes[0], shifted)]
    assert em.IncrementalPCA(2).fit(cut).components_.sizes["energy"] == 37


def test_mistakes_are_named(cubes) -> None:
    with pytest.raises(InputError, match="entry 1 of 2 is a ndarray"):
        em.KMeans(2).fit([cubes[0], cubes[0].values])
    with pytest.raises(SelectionError, match="2 selections for 3 cubes"):
        em.KMeans(2).fit(cubes, where=[None, None])
    used = cubes[0].sum("energy") > 0
    with pytest.raises(SelectionError, match="one selection of pixels for 3 cubes"):
        em.KMeans(2).fit(cubes, where=used)
    channels = [xr.DataArray(np.arange(40) > n, dims="energy") for n in (1, 2, 1)]
    with pytest.raises(SelectionError, match="expected the same channels"):
        em.KMeans(2).fit(cubes, where=channels)
    with pytest.raises(InputError, match="navigation dim 'field'"):
        em.KMeans(2).fit([c.rename(y="field") for c in cubes])
    with pytest.raises(InputError, match="within one cube, got several"):
        em.MiniBatchNMF(3, smoothness=0.1).fit(cubes)
    model = em.MiniBatchNMF(3, random_state=0).fit(cubes)
    with pytest.raises(InputError, match="fitted on"):
        model.transform([cubes[0], cubes[0].isel(energy=slice(0, 30))])


def test_lists_of_numbers_stay_a_matrix() -> None:
    rows = np.random.default_rng(0).poisson(5.0, (30, 6))
    assert several(rows.tolist()) is None
    assert several([rows]) is None
    assert em.KMeans(2, random_state=0).fit(rows.tolist()).labels_.shape == (30,)


def test_metadata_that_all_have_go_with_the_spectra(cubes) -> None:
    known = [
        c.assign_attrs(metadata={"elements": ["Ni"], "beam_energy_keV": v})
        for c, v in zip(cubes[:2], (200.0, 300.0), strict=True)
    ]
    spectra = em.MiniBatchNMF(2, random_state=0).fit(known).components_
    assert spectra.attrs["metadata"] == {"elements": ["Ni"]}
    fields = Fields(tuple(cubes), ("a", "b", "c"))
    assert fields.dims == ("field", "y", "x", "energy")
    assert fields.shape == (3, 14, 16, 40)


# ------------------------------------------------------------------------------ how sure, and what is left


def numbers(dataset: xr.Dataset) -> dict[str, Any]:
    return {str(k): np.asarray(v) for k, v in dataset.data_vars.items()}


@pytest.fixture(scope="module")
def fitted(cubes) -> em.MiniBatchNMF:
    return em.MiniBatchNMF(3, random_state=0).fit(cubes)


def test_uncertainty_of_several_cubes_is_that_of_the_one_that_they_make(
    cubes, joined, fitted
) -> None:
    """Fisher's method draws nothing, so that another numbering of the blocks changes rounding alone."""
    one, *rest = em.uncertainty(fitted, cubes, method="fisher")
    whole = em.uncertainty(fitted, joined, method="fisher")
    np.testing.assert_allclose(one.components_std, whole.components_std, rtol=1e-9)
    parts = [np.asarray(part.loadings_std_counting) for part in (one, *rest)]
    np.testing.assert_allclose(np.concatenate(parts), whole.loadings_std_counting, rtol=1e-9)
    for part, cube in zip((one, *rest), cubes, strict=True):
        assert part.loadings_interval.shape == (*cube.shape[:2], 3, 2)
        assert hasattr(part.loadings_interval.data, "dask") == hasattr(cube.data, "dask")
        xr.testing.assert_identical(part.rotation_range, one.rotation_range)


@pytest.mark.parametrize("method", ["bootstrap", "area"])
def test_replicates_of_several_cubes_have_the_same_bits_everywhere(method, cubes, fitted) -> None:
    options = {"method": method, "n_replicates": 2}
    many = em.uncertainty(fitted, cubes, **options)
    with use_threads(1):
        one = em.uncertainty(fitted, cubes, **options)
    for first, second in zip(many, one, strict=True):
        for name, values in numbers(first).items():
            np.testing.assert_array_equal(values, np.asarray(second[name]), err_msg=name)
    assert float(many[0].components_std.max()) > 0


def test_areas_of_several_cubes_are_numbered_through() -> None:
    """Fields of other sizes have areas of their own; together they are about as many as those of one."""
    from emcube.kernels.resampling import AREAS
    from emcube.models.replicates import AreaDraw

    source, _ = as_source([field(0, (14, 16)), field(1, (9, 31)), field(2, (14, 16))])
    shapes = tuple(part.nav_shape for part in source.plan.parts)
    draw = AreaDraw.draw(0, 0, shapes, (1, 1, 1), counts=True, several=True)
    assert AREAS / 2 <= draw.times.sum() == draw.times.size <= AREAS
    met: dict[int, set[int]] = {}
    for i in range(source.plan.n_blocks):
        block = source.load(i)
        inside = np.column_stack(np.unravel_index(block.box_index(), block.nav_shape))
        areas = draw._areas(block.offset, inside + np.asarray(block.offset))
        met.setdefault(block.offset[0], set()).update(map(int, areas))
        weight = draw.times[areas][:, None]
        np.testing.assert_array_equal(draw(block).dense(), weight * block.dense())
    assert sum(map(len, met.values())) == draw.times.size
    assert set.union(*met.values()) == set(range(draw.times.size))


def test_selections_and_posteriors_of_several_cubes(cubes) -> None:
    upper = xr.DataArray(np.arange(14) < 6, dims="y").broadcast_like(cubes[0].isel(energy=0))
    chosen = [upper.reset_coords(drop=True), None, None]
    model = em.MiniBatchNMF(3, random_state=0).fit(cubes, where=chosen)
    sure = em.uncertainty(model, cubes, where=chosen, method="restarts", n_replicates=2)
    assert np.isnan(sure[0].loadings_interval[6:]).all()
    assert np.isfinite(sure[1].loadings_interval).all()
    bayes = em.BayesianUnmixing(3, n_chains=1, n_warmup=2, n_draws=4, random_state=0).fit(cubes)
    posterior = em.uncertainty(bayes, cubes, method="posterior")
    assert [p.sizes["y"] for p in posterior] == [14, 14, 14]
    ranges = em.rotation_range(model, cubes, where=chosen)
    assert len(ranges) == 3
    assert set(ranges[0].data_vars) == {
        "rotation_range", "rotation_share", "loadings_rotation_range",
    }  # fmt: skip
    errors = em.errors_by_counts(model, cubes, shares=(0.5,), n_pairs=1, where=chosen)
    assert errors.angle.shape == (2, 3)


def test_diagnostics_of_several_cubes_are_those_of_the_one_that_they_make(
    cubes, joined, fitted
) -> None:
    found = em.diagnostics(fitted, cubes)
    whole = em.diagnostics(fitted, joined)
    assert list(found[0]["axis"].values) == ["y", "x", "signal"]
    maps = np.concatenate([np.asarray(one.chi_square) for one in found])
    np.testing.assert_allclose(maps, whole.chi_square, rtol=1e-9)
    np.testing.assert_allclose(
        found[0].chi_square_spectrum, whole.chi_square_spectrum, rtol=1e-9, equal_nan=True
    )
    # Neighbours across the border of two fields are none.
    np.testing.assert_allclose(found[0].residual_correlation, whole.residual_correlation, atol=0.02)
    assert found[0].attrs["chi_square_mean"] == pytest.approx(whole.attrs["chi_square_mean"])
    assert found[0].attrs == found[2].attrs
    assert "denoised_variance" in found[1]
