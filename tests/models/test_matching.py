"""Matched components: the same as by hand, whatever their order and sign."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import emcube as em
from benchmarks.coverage import stripes as scene
from emcube.errors import InputError
from emcube.scenes.metrics import kk_angle, match_components


@pytest.fixture(scope="module")
def cube():
    return scene(200.0).draw(np.random.default_rng(0)).chunk(y=12)


@pytest.fixture(scope="module")
def models(cube):
    return {
        "likelihood": em.MiniBatchNMF(3, random_state=0).fit(cube),
        "squares": em.MiniBatchNMF(3, beta_loss="frobenius", random_state=0).fit(cube),
        "two": em.MiniBatchNMF(2, random_state=0).fit(cube),
    }


def test_angles_are_those_of_the_slow_measure():
    rng = np.random.default_rng(1)
    a, b = rng.gamma(1.0, size=(3, 30)), rng.gamma(1.0, size=(4, 30))
    found = em.match(a, b)
    for i in range(3):
        for j in range(4):
            expected = kk_angle(a[i], b[j], a.mean(axis=0))
            assert float(found.angles[i, j]) == pytest.approx(expected, abs=1e-9)
    order, angles = match_components(b, a, a.mean(axis=0))
    np.testing.assert_array_equal(found.partner, order)
    np.testing.assert_allclose(found.angle, angles, atol=1e-9)


def test_order_sign_scale_and_missing_partners_do_not_matter():
    rng = np.random.default_rng(2)
    a = rng.normal(size=(4, 25))
    b = np.vstack((-3.0 * a[2], a[0], 0.5 * a[3]))
    found = em.match(a, b)
    np.testing.assert_array_equal(found.partner, [1, -1, 0, 2])
    there = found.partner.values >= 0
    np.testing.assert_allclose(found.angle.values[there], 0.0, atol=1e-6)
    np.testing.assert_allclose(found.correlation.values[there], 1.0)
    assert np.isnan(found.angle.values[1])


def test_labelled_components_leave_unused_channels_out(models):
    some = models["likelihood"].components_
    gaps = (
        some.where(some.energy > 3)
        if "energy" in some.coords
        else some.where(xr.DataArray(np.arange(60) > 3, dims="energy"))
    )
    found = em.match(some, gaps.isel(component=[2, 0, 1]))
    np.testing.assert_array_equal(found.partner, [1, 2, 0])
    np.testing.assert_allclose(found.angle, 0.0, atol=1e-9)
    with pytest.raises(InputError, match="components over"):
        em.match(some, some.isel(energy=slice(30)))
    with pytest.raises(InputError, match="has no components"):
        em.match(some, "nmf")


def test_a_comparison_tells_methods_apart(models, cube):
    found = em.compare(models, cube)
    table = found.table
    assert found.methods == ("likelihood", "squares", "two")
    np.testing.assert_allclose(table.angle.sel(model="likelihood"), 0.0, atol=1e-9)
    assert float(table.angle.sel(model="squares").max()) < 10.0
    assert int((table.partner.sel(model="two") < 0).sum()) == 1
    assert list(table.n_components.values) == [3, 3, 2]
    np.testing.assert_allclose(table.share.sum("component")[:2], 1.0, rtol=1e-6)
    assert (table.map_correlation.sel(model="squares") > 0.9).all()
    # Two components predict what they have not seen less well than three.
    scores = table.held_out
    assert float(scores.sel(model="two")) < float(scores.sel(model="likelihood"))
    expected = models["likelihood"].score(cube)
    assert float(scores.sel(model="likelihood")) == pytest.approx(expected, rel=5e-3)
    assert "angles" in str(found)
    assert found.components.dims == ("model", "component", "energy")
    # Correlation of maps, by hand.
    a, b = (models[n].transform(cube).values.reshape(-1, 3) for n in ("likelihood", "squares"))
    partner = table.partner.sel(model="squares").values
    by_hand = [np.corrcoef(a[:, k], b[:, partner[k]])[0, 1] for k in range(3)]
    np.testing.assert_allclose(table.map_correlation.sel(model="squares"), by_hand, rtol=1e-9)


def test_signed_components_compare_too(models, cube):
    found = em.compare({"NMF": models["likelihood"], "PCA": em.IncrementalPCA(4).fit(cube)}, cube)
    assert np.isnan(float(found.table.held_out.sel(model="PCA")))
    assert np.isfinite(found.table.angle.values).all()


def test_a_comparison_becomes_a_page(models, cube, tmp_path):
    found = em.compare(models, cube)
    path = em.report(found, tmp_path / "compare.html")
    text = path.read_text(encoding="utf-8")
    for said in ("likelihood", "squares", "is within", "held-out score", "data:image/png"):
        assert said in text
    assert "http" not in text.replace("http-equiv", "")
    em.report(found, path)  # an earlier report is replaced
    other = tmp_path / "mine.html"
    other.write_text("mine")
    with pytest.raises(InputError, match="is no report"):
        em.report(found, other)


def test_results_compare_without_being_fitted_again(cube, tmp_path):
    steps = [{"nmf": {"n_components": 3, "random_state": 0}}]
    run = em.run({"emcube": 1, "steps": steps}, cube, out=tmp_path / "r")
    found = em.compare({"run": run, "node": run["nmf"]}, cube)
    np.testing.assert_allclose(found.table.angle, 0.0, atol=1e-9)
    np.testing.assert_allclose(found.table.map_correlation, 1.0)


def test_what_cannot_be_compared_is_refused(models, cube):
    with pytest.raises(InputError, match="two results or more"):
        em.compare({"one": models["two"]}, cube)
    with pytest.raises(InputError, match="has no components"):
        em.compare({"a": models["two"], "b": 3}, cube)
