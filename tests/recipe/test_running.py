"""Whole analyses: identity, continuation, seeds, selections, and results that open anywhere."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.cube import make_cube
from emcube.errors import InputError, InterruptedRunError, SelectionError, StoreError
from emcube.recipe import running
from emcube.results.tree import Node
from emcube.store import write_cube

STEPS: list[Any] = [
    "estimate_n_components",
    {"pca": {"n_components": 6}},
    {"nmf": {"n_components": "auto", "random_state": 0}},
    {"kmeans": {"n_clusters": 3, "random_state": 0}},
    {"kmeans": {"name": "on_loadings", "n_clusters": 3, "on": "nmf", "random_state": 0}},
]
QUICK: list[Any] = [{"pca": {"n_components": 3}}]


def simulated(seed: int = 0) -> xr.DataArray:
    """Three phases with pure pixels, 100 counts a pixel, and a corner without specimen."""
    rng = np.random.default_rng(seed)
    channel = np.arange(100)
    spectra = np.stack([np.exp(-((channel - c) ** 2) / 50.0) for c in (20, 50, 80)])
    spectra /= spectra.sum(axis=1, keepdims=True)
    loadings = rng.dirichlet([0.2, 0.2, 0.2], size=(24, 30)) * 100
    loadings[:6, :6] = 0.05
    return make_cube(
        rng.poisson(loadings @ spectra).astype(np.uint8),
        dims=("y", "x", "energy"),
        coords={"energy": 0.5 + 0.02 * channel, "y": 2.0 * np.arange(24)},
        units={"energy": "keV", "y": "nm", "x": "nm"},
        metadata={"modality": "EDS", "elements": ["Si", "O"], "beam_energy_keV": 200},
        companions={"HAADF": rng.random((24, 30), dtype=np.float32)},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cube(simulated(), tmp_path_factory.mktemp("store") / "map.zarr")


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> em.results.Result:  # type: ignore[name-defined]
    out = tmp_path_factory.mktemp("whole") / "result"
    return em.run({"input": {"path": str(store)}, "steps": STEPS}, out=out)


def test_the_whole_way(whole: Any) -> None:
    assert whole.steps == ("estimate_n_components", "pca", "nmf", "kmeans", "on_loadings")
    assert whole["estimate_n_components"].attrs["n_components"] == 3
    nmf = whole["nmf"]
    assert nmf["components"].sizes == {"component": 3, "energy": 100}
    assert nmf["loadings"].sizes == {"y": 24, "x": 30, "component": 3}
    np.testing.assert_allclose(nmf["components"].sum("energy"), 1.0, rtol=1e-6)
    assert nmf["loadings"].attrs["units"] == "counts"
    assert nmf["components"].attrs["units"] == "1 per channel"
    assert nmf["components"].energy.attrs["units"] == "keV"
    np.testing.assert_array_equal(nmf["y"], 2.0 * np.arange(24))
    total = simulated().sum("energy").astype(float)
    used = total > 50
    ratio = nmf["loadings"].load().sum("component") / total.where(used)
    assert abs(float(ratio.mean()) - 1) < 0.02
    assert nmf["objective_path"].size == nmf.attrs["n_iter"]
    found = whole["input"]
    np.testing.assert_array_equal(found["total_counts"], total)
    np.testing.assert_array_equal(found["sum_spectrum"], simulated().sum(["y", "x"]))
    assert found["HAADF"].dims == ("y", "x")
    assert whole["on_loadings"].sizes["cluster"] == 3
    assert whole["on_loadings"].attrs["on"] == "nmf"
    assert whole["kmeans"]["labels"].dtype.kind == "i"
    assert whole.verify() == {}


def test_mixtures_and_their_quality(store: Path, tmp_path: Path) -> None:
    steps: list[Any] = [
        {"pca": {"n_components": 3}},
        {"gaussian_mixture": {"n_clusters": 3, "on": "pca", "random_state": 0}},
        {"poisson_mixture": {"n_clusters": 3, "random_state": 0}},
        {"cluster_quality": {"of": "poisson_mixture", "n_samples": 200, "n_repeats": 2}},
    ]
    found = em.run({"input": {"path": str(store)}, "steps": steps}, out=tmp_path / "r")
    for step in ("gaussian_mixture", "poisson_mixture"):
        node = found[step].load()
        assert node["probabilities"].sizes == {"y": 24, "x": 30, "cluster": 3}
        np.testing.assert_allclose(node["probabilities"].sum("cluster"), 1.0)
        held = node["labels"].values >= 0
        np.testing.assert_array_equal(
            node["labels"].values[held], node["probabilities"].values.argmax(axis=-1)[held]
        )
        np.testing.assert_allclose(node["cluster_weights"].sum(), 1.0)
    assert found["gaussian_mixture"]["covariances"].shape == (3, 3, 3)
    alone = em.PoissonMixture(3, random_state=0).fit(em.open(store))
    np.testing.assert_array_equal(found["poisson_mixture"]["labels"], alone.labels_)
    assert float(found["poisson_mixture"]["bic"]) == alone.bic_
    quality = found["cluster_quality"]
    assert quality.attrs["of"] == "poisson_mixture"
    assert quality.attrs["n_samples"] == 200
    assert found.verify() == {}
    saved = {p.name for p in found.save_figures(tmp_path / "figures")}
    assert {"poisson_mixture-probabilities.png", "cluster_quality-cluster_quality.png"} <= saved
    page = em.report(found, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Bayesian information criterion" in page
    assert "3 of 3 clusters stable" in page
    # A run that goes on fits the clusters again, to the same quality.
    more = [
        *steps[:3],
        {"cluster_quality": {"of": "gaussian_mixture", "n_samples": 100, "n_repeats": 1}},
    ]
    again = em.run({"input": {"path": str(store)}, "steps": more}, out=tmp_path / "again")
    assert again["cluster_quality"].sizes["cluster"] == 3


def test_plain_xarray_opens_it_with_every_unit(whole: Any) -> None:
    with xr.open_datatree(str(whole.path), engine="zarr") as tree:
        assert set(tree.children) == {"input", *whole.steps}
        for node in tree.children.values():
            for variable in node.data_vars.values():
                assert "units" in variable.attrs
                assert "long_name" in variable.attrs
        assert tree.attrs["provenance"]["input"]["digest"].startswith("sha256:")
        assert tree.attrs["provenance"]["seeds"]["nmf"] == 0
        assert tree.attrs["provenance"]["finished"]


def test_figures(whole: Any, tmp_path: Path) -> None:
    saved = whole.save_figures(tmp_path)
    assert {p.name for p in saved} >= {"pca-scree.png", "nmf-components.png", "nmf-loadings.png"}
    assert all(p.stat().st_size > 1000 for p in saved)
    assert whole.plot_labels() is not None
    with pytest.raises(KeyError, match="no step of"):
        whole.step_of("umap")


def test_identity(store: Path, tmp_path: Path) -> None:
    recipe = {"input": {"path": str(store)}, "steps": QUICK}
    one = em.run(recipe, out=tmp_path / "one")
    same = em.run(recipe, out=tmp_path / "two")
    in_hand = em.run({"steps": QUICK}, em.open(store), out=tmp_path / "three")
    assert one.run_id == same.run_id == in_hand.run_id
    for variable in one["pca"].data_vars:
        np.testing.assert_array_equal(one["pca"][variable], same["pca"][variable])
    markers = [r.tree["pca"].attrs["emcube"]["digests"] for r in (one, same, in_hand)]
    assert markers[0] == markers[1] == markers[2]
    noisier = em.run({"steps": QUICK}, simulated(1), out=tmp_path / "other")
    more = em.run({"steps": [{"pca": {"n_components": 4}}]}, em.open(store), out=tmp_path / "more")
    assert len({one.run_id, noisier.run_id, more.run_id}) == 3


def test_a_drawn_seed_is_kept_by_the_same_result(store: Path, tmp_path: Path) -> None:
    recipe = {"input": {"path": str(store)}, "steps": [{"kmeans": {"n_clusters": 3}}]}
    first = em.run(recipe, out=tmp_path / "a")
    again = em.run(recipe, out=tmp_path / "a")
    elsewhere = em.run(recipe, out=tmp_path / "b")
    assert first.run_id == again.run_id != elsewhere.run_id
    assert first.provenance["drawn_seeds"] == ["kmeans"]
    seed = first.provenance["seeds"]["kmeans"]
    told = {**recipe, "steps": [{"kmeans": {"n_clusters": 3, "random_state": seed}}]}
    same = em.run(told, out=tmp_path / "c")
    np.testing.assert_array_equal(same["kmeans"]["labels"], first["kmeans"]["labels"])


def test_an_interrupted_run_goes_on_after_its_finished_steps(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {
        "input": {"path": str(store)},
        "steps": ["estimate_n_components", *QUICK, {"kmeans": {"n_clusters": 2}}],
    }
    ran: list[str] = []
    real = running.run_step

    def stopping(step: Any, run: Any) -> Any:
        ran.append(step.label)
        if step.verb == "kmeans" and ran.count("kmeans") == 1:
            raise InterruptedRunError("stopped")
        return real(step, run)

    monkeypatch.setattr(running, "run_step", stopping)
    with pytest.raises(InterruptedRunError) as caught:
        em.run(recipe, out=tmp_path / "r")
    assert "finished: estimate_n_components, pca" in caught.value.__notes__[-1]
    with pytest.raises(em.errors.IncompleteError):
        em.open_result(tmp_path / "r")
    result = em.run(recipe, out=tmp_path / "r")
    assert ran == ["estimate_n_components", "pca", "kmeans", "kmeans"]
    assert result.complete


def test_where_uses_smoothed_counts(store: Path, tmp_path: Path) -> None:
    recipe = {
        "input": {"path": str(store)},
        "where": {"min_smoothed_counts": 50},
        "steps": [*QUICK, {"kmeans": {"n_clusters": 3, "random_state": 0}}],
    }
    result = em.run(recipe, out=tmp_path / "r")
    used = result["input"]["used"].values
    assert not used[:4, :4].any()
    assert used[10:, 10:].all()
    scores = result["pca"]["loadings"].values
    np.testing.assert_array_equal(np.isnan(scores[..., 0]), ~used)
    # A pixel that is used but holds no count has no cluster either.
    clustered = used & (simulated().sum("energy").values > 0)
    np.testing.assert_array_equal(result["kmeans"]["labels"].values == -1, ~clustered)
    expected = simulated().where(xr.DataArray(used, dims=("y", "x"))).sum(["y", "x"])
    np.testing.assert_array_equal(result["input"]["sum_spectrum"], expected)
    assert em.run(recipe, out=tmp_path / "r").run_id == result.run_id
    too_much = {**recipe, "where": {"min_smoothed_counts": 1e6}}
    with pytest.raises(SelectionError, match="no pixel reaches 1e\\+06 smoothed counts"):
        em.run(too_much, out=tmp_path / "none")


def test_preparation_is_part_of_the_run(store: Path, tmp_path: Path) -> None:
    recipe = {
        "input": {"path": str(store)},
        "prepare": [
            {"window": {"energy": [0.7, 2.3]}},
            {"select": {"region": [[0, 0], [0, 30], [24, 0]]}},
            {"bin": {"y": 2, "x": 2}},
        ],
        "steps": QUICK,
    }
    result = em.run(recipe, out=tmp_path / "r")
    assert result["pca"].sizes["y"] == 12
    assert result["input"]["used"].dims == ("y", "x")
    assert bool(result["input"]["used"][0, 0])
    assert not bool(result["input"]["used"][-1, -1])
    assert np.isnan(result["pca"]["loadings"].values[-1, -1]).all()
    plain = em.run({**recipe, "prepare": []}, out=tmp_path / "plain")
    assert plain.run_id != result.run_id
    assert plain.provenance["input"]["digest"] == result.provenance["input"]["digest"]


def test_a_polygon_is_the_same_at_each_tilt(tmp_path: Path) -> None:
    one = simulated()
    series = (
        xr.concat([one, one], dim="tilt").assign_coords(tilt=[0.0, 10.0]).assign_attrs(one.attrs)
    )
    recipe = {
        "prepare": [{"select": {"outside": [[-0.5, -0.5], [-0.5, 9.5], [9.5, 9.5], [9.5, -0.5]]}}],
        "steps": QUICK[:1],
    }
    result = em.run(recipe, series, out=tmp_path / "r")
    used = result["input"]["used"]
    assert used.dims == ("tilt", "y", "x")
    assert not bool(used[:, :10, :10].any())
    assert bool(used[:, 10:].all())


def test_an_instrument_file_runs_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", simulated().values)
    recipe = {"input": {"path": str(tmp_path / "map.npy")}, "steps": QUICK}
    result = em.run(recipe, out=tmp_path / "out" / "r")
    assert result["pca"].sizes["component"] == 3
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["r"]
    assert em.run(recipe, out=tmp_path / "out" / "r").run_id == result.run_id


def test_the_default_recipe_runs_on_a_path_and_on_a_cube(store: Path, tmp_path: Path) -> None:
    by_path = em.run(store, out=tmp_path / "a")
    assert by_path.steps == ("estimate_n_components", "pca", "nmf", "kmeans")
    assert by_path["nmf"].sizes["component"] == 3
    by_hand = em.run(em.open(store), out=tmp_path / "b")
    assert by_hand.run_id == by_path.run_id
    fixed = em.run(store, out=tmp_path / "c", n_components=2)
    assert fixed["nmf"].sizes["component"] == 2


def test_a_refused_estimate_stops_what_needs_its_number(tmp_path: Path) -> None:
    tiny = simulated().isel(y=slice(8, 12), x=slice(8, 12))
    recipe = {"steps": ["estimate_n_components", {"pca": {"n_components": "auto"}}]}
    with pytest.raises(InputError, match="the estimate names no number") as caught:
        em.run(recipe, tiny, out=tmp_path / "r")
    assert "give n_components as a number" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (({"steps": QUICK},), "the recipe names no input, and no cube was given"),
        ((3,), "a recipe or a cube is expected, got int"),
        (({"input": {"path": "nowhere.zarr"}, "steps": QUICK},), "there is no such file"),
    ],
)
def test_what_cannot_run(tmp_path: Path, arguments: Any, said: str) -> None:
    with pytest.raises((InputError, em.errors.ReadError), match=said):
        em.run(*arguments, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_recipe_and_call_must_agree(store: Path, tmp_path: Path) -> None:
    recipe = {"input": {"path": str(store)}, "steps": QUICK}
    with pytest.raises(InputError, match="a cube was given too"):
        em.run(recipe, simulated(), out=tmp_path / "r")
    with pytest.raises(InputError, match="'n_components' belongs to a run without a recipe"):
        em.run(recipe, out=tmp_path / "r", n_components=3)
    with pytest.raises(InputError, match="a cube was given twice"):
        em.run(simulated(), simulated(), out=tmp_path / "r")
    with pytest.raises(InputError, match="where the result goes"):
        em.run(recipe)


@pytest.mark.slow
def test_two_processes_give_the_bits_of_threads(
    store: Path, tmp_path: Path, cluster_client: Any
) -> None:
    recipe = {
        "input": {"path": str(store)},
        "steps": [
            "estimate_n_components",
            {"pca": {"n_components": 4}},
            {"nmf": {"n_components": "auto", "random_state": 0, "max_iter": 5}},
            {"kmeans": {"n_clusters": 3, "random_state": 0}},
            {"kmeans": {"name": "on_loadings", "n_clusters": 3, "on": "nmf", "random_state": 0}},
        ],
    }
    here = em.run(recipe, out=tmp_path / "here")
    with cluster_client.as_current():
        there = em.run(recipe, out=tmp_path / "there")
    assert there.run_id == here.run_id
    for step in here.steps:
        one, other = (r.tree[step].attrs["emcube"]["digests"] for r in (here, there))
        assert one == other, step


def test_loadings_are_a_cube_of_a_recipe_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    loadings = em.make_cube(
        rng.gamma(1.0, 50.0, (12, 10, 4)), dims=("y", "x", "component"), sig_dims=("component",)
    )
    steps = [{"pca": {"n_components": 2}}, {"nmf": {"n_components": 3, "random_state": 0}}]
    result = em.run({"steps": steps}, loadings, out=tmp_path / "r")
    assert result["pca"]["components"].sizes == {"component": 2, "input_component": 4}
    assert result["pca"]["mean"].dims == ("input_component",)
    assert result["nmf"]["components"].sizes == {"component": 3, "input_component": 4}
    assert result["nmf"]["loadings"].dims == ("y", "x", "component")
    assert result["input"]["sum_spectrum"].dims == ("component",)
    assert result.verify() == {}


@pytest.mark.parametrize("dims", [("energy",), ("x", "energy"), ("y", "x", "energy")])
def test_too_little_data_still_make_a_result_with_figures(
    dims: tuple[str, ...], tmp_path: Path
) -> None:
    counts = np.random.default_rng(0).poisson(4, (2, 3, 60)[-len(dims) :])
    cube = make_cube(counts, dims=dims, sig_dims=("energy",))
    steps = ["estimate_n_components", {"pca": {"n_components": 1}}, {"nmf": {"n_components": 1}}]
    result = em.run({"emcube": 1, "steps": steps}, cube, out=tmp_path / "result")
    assert result["estimate_n_components"].attrs["n_components"] is None
    assert result["nmf"]["loadings"].shape == (*counts.shape[:-1], 1)
    names = {path.name for path in result.save_figures(tmp_path / "figures")}
    assert {"pca-scree.png", "nmf-components.png"} <= names
    assert "estimate_n_components-scree.png" not in names
    with pytest.raises(InputError, match="no curve to draw: there are only"):
        em.estimate_n_components(cube).plot()


def test_a_result_stays_until_its_replacement_is_whole(store: Path, tmp_path: Path) -> None:
    recipe = {"input": {"path": str(store)}, "steps": QUICK}
    kept = em.run(recipe, out=tmp_path / "keep")
    too_many = {**recipe, "steps": [{"nmf": {"n_components": 5000, "random_state": 0}}]}
    with pytest.raises(InputError):
        em.run(too_many, out=tmp_path / "keep", overwrite=True)
    assert em.open_result(tmp_path / "keep").run_id == kept.run_id
    other = {**recipe, "steps": [{"pca": {"n_components": 2}}]}
    replaced = em.run(other, out=tmp_path / "keep", overwrite=True)
    assert replaced.run_id != kept.run_id
    assert replaced["pca"].sizes["component"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["keep"]


def test_a_chunk_lost_before_the_end_of_its_node(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"input": {"path": str(store)}, "steps": QUICK}
    finish = Node.finish

    def lose(node: Node, *args: Any) -> xr.Dataset:
        next(p for p in (node.path / "input/total_counts/c").rglob("*") if p.is_file()).unlink()
        return finish(node, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Node, "finish", lose)
        with pytest.raises(StoreError, match=r"input/total_counts .* has 0 chunks .* expected 1"):
            em.run(recipe, out=tmp_path / "r")
    again = em.run(recipe, out=tmp_path / "r")
    assert again.verify() == {}
    assert np.isfinite(again["input"]["total_counts"]).all()


def test_a_result_never_takes_the_place_of_what_it_is_made_of(tmp_path: Path) -> None:
    result = tmp_path / "r"
    made = em.run({"steps": QUICK}, simulated(), out=result)
    inner = write_cube(simulated(1), result / "map.zarr")
    other = [{"pca": {"n_components": 2}}]
    (result / "recipe.yaml").write_text("emcube: 1\nsteps:\n- pca: {n_components: 2}\n")
    em.catalog.create(tmp_path / "catalog.yaml")
    em.catalog.add(tmp_path / "catalog.yaml", inner, name="map")
    (tmp_path / "link").symlink_to(result)
    from_catalog = {"catalog": str(tmp_path / "catalog.yaml"), "dataset": "map"}
    for what, out, said in (
        (({"input": {"path": str(inner)}, "steps": other},), result, "would hold the input"),
        (({"input": {"path": str(inner)}, "steps": other},), tmp_path / "link", "would hold the"),
        (({"input": from_catalog, "steps": other},), result, "would hold the input"),
        (({"steps": other}, em.open(inner)), result, "would hold the input"),
        ((result / "recipe.yaml", simulated()), result, "would hold the recipe"),
        ((str(inner),), inner / "res", "lies in the input"),
    ):
        with pytest.raises(InputError, match=said):
            em.run(*what, out=out, overwrite=True)
    assert em.open_result(result).run_id == made.run_id
    assert em.open(inner).sizes["y"] == 24
    assert not (inner / "res").exists()


def test_a_replacement_that_was_not_moved_is_taken(store: Path, tmp_path: Path) -> None:
    drawn = {"input": {"path": str(store)}, "steps": [{"kmeans": {"n_clusters": 2}}]}
    drawn["steps"][0]["kmeans"]["random_state"] = None
    made = em.run(drawn, out=tmp_path / "r")
    (tmp_path / "r").rename(tmp_path / ".r.emcube-new")
    shutil.copytree(tmp_path / ".r.emcube-new", tmp_path / ".r.emcube-old")
    again = em.run(drawn, out=tmp_path / "r")
    assert again.run_id == made.run_id
    assert again.provenance["finished"] == made.provenance["finished"]
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_a_result_that_is_gone_or_replaced_gives_no_values(store: Path, tmp_path: Path) -> None:
    recipe = {"input": {"path": str(store)}, "steps": QUICK}
    opened = em.run(recipe, out=tmp_path / "r")["pca"]["loadings"]
    assert np.isfinite(pickle.loads(pickle.dumps(opened)).values).all()
    em.run({**recipe, "steps": [{"pca": {"n_components": 2}}]}, out=tmp_path / "r", overwrite=True)
    with pytest.raises(StoreError, match="replaced or removed since it was opened"):
        _ = opened.values
    shutil.rmtree(tmp_path / "r")
    with pytest.raises(StoreError, match="replaced or removed since it was opened"):
        _ = opened.values
