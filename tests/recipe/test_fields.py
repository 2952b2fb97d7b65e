"""Recipes of several cubes: one model, a group for each cube, fractions of phases; and the survey step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube import catalog
from emcube.cards import describe, render
from emcube.cli import main
from emcube.engine import listen
from emcube.errors import InputError, InterruptedRunError, RecipeError
from emcube.recipe.running import look_ahead
from emcube.report.build import page_of
from tests.models.test_fields import field

STEPS: list[Any] = [
    {"pca": {"n_components": 3}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 3, "on": "nmf", "random_state": 0}},
    {"phase_fractions": {"of": "nmf", "n_draws": 2}},
    {"phase_fractions": {"name": "areas"}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stores, and a catalog of them."""
    place = tmp_path_factory.mktemp("fields")
    for i, shape in enumerate([(14, 16), (12, 18), (14, 16)]):
        em.ingest(field(i, shape), place / f"f{i}.zarr")
        catalog.add(place / "c.yaml", place / f"f{i}.zarr", name=f"map {i}", modality="EDS")
    return place


def recipe(folder: Path, steps: list[Any], given: Any = None, **more: Any) -> em.Recipe:
    named = given or {"fields": ["f0.zarr", {"path": "f1.zarr", "field": "edge"}, "f2.zarr"]}
    data = {"emcube": 1, "input": named, "steps": steps, **more}
    return em.Recipe.from_dict(data, folder=folder)


@pytest.fixture(scope="module")
def cubes(folder: Path) -> list[xr.DataArray]:
    return [em.open(folder / f"f{i}.zarr") for i in range(3)]


@pytest.fixture(scope="module")
def result(folder: Path) -> Any:
    return em.run(recipe(folder, STEPS), out=folder / "result")


def test_the_model_is_that_of_all_cubes(result, cubes) -> None:
    model = em.MiniBatchNMF(3, random_state=0).fit(cubes)
    np.testing.assert_array_equal(result["nmf"].components, model.components_)
    assert "loadings" not in result["nmf"]
    assert result.fields == ("f0", "edge", "f2")
    for name, maps in zip(result.fields, model.transform(cubes), strict=True):
        one = result.field(name)
        np.testing.assert_array_equal(one["nmf"].loadings, maps)
        np.testing.assert_array_equal(one["nmf"].components, model.components_)
        assert one["kmeans"].labels.shape == maps.shape[:2]
        assert one["input"].total_counts.shape == maps.shape[:2]
    whole = sum(float(c.sum()) for c in cubes)
    assert float(result["input"].sum_spectrum.sum()) == pytest.approx(whole)
    with pytest.raises(KeyError, match="edge"):
        result.field("nowhere")


def test_fractions_are_those_of_the_function(result, cubes) -> None:
    model = em.MiniBatchNMF(3, random_state=0).fit(cubes)
    direct = em.phase_fractions(model, cubes, n_draws=2)
    node = result["phase_fractions"]
    assert set(node.data_vars) == set(direct.data_vars)
    for name in direct.data_vars:
        np.testing.assert_allclose(node[name], direct[name], rtol=1e-9, err_msg=name)
    assert node.attrs["said"] == direct.attrs["said"]
    assert node.attrs["fields"] == ["f0", "edge", "f2"]
    areas = result["areas"]
    labels = [result.field(name)["kmeans"].labels for name in result.fields]
    np.testing.assert_allclose(areas.fraction, em.phase_fractions(labels).fraction, rtol=1e-12)


def test_it_is_whole_and_read_by_xarray_alone(result) -> None:
    assert result.verify() == {}
    tree = xr.open_datatree(str(result.path), engine="zarr")
    assert set(tree["fields"].children) == {"f0", "edge", "f2"}
    assert tree["fields/edge/nmf"]["loadings"].shape == (12, 18, 3)
    again = em.open_result(result.path)
    assert again.fields == result.fields
    chunk = next((result.path / "fields/f2/nmf/loadings/c").rglob("*"))
    assert chunk.exists()


def test_a_lost_chunk_of_a_field_is_noticed(result, tmp_path) -> None:
    import shutil

    from emcube.errors import IncompleteError

    copy = tmp_path / "copy"
    shutil.copytree(result.path, copy)
    next(p for p in (copy / "fields/f2/nmf/loadings/c").rglob("*") if p.is_file()).unlink()
    with pytest.raises(IncompleteError, match="fields/f2/nmf/loadings"):
        em.open_result(copy)


def test_the_run_is_known_by_all_its_inputs(result, folder) -> None:
    named = result.provenance["input"]["fields"]
    assert [one["field"] for one in named] == ["f0", "edge", "f2"]
    assert len({one["digest"] for one in named}) == 3
    assert str(folder) not in str(result.provenance["input"])
    ahead = look_ahead(recipe(folder, STEPS), folder / "result")
    assert ahead.finished
    assert ahead.run_id == result.run_id
    order = {"fields": ["f1.zarr", "f0.zarr", "f2.zarr"]}
    assert look_ahead(recipe(folder, STEPS, order), folder / "other").run_id != result.run_id
    kept = em.run(recipe(folder, STEPS), out=folder / "result")
    assert kept.run_id == result.run_id


def test_a_search_finds_the_cubes(result, folder, tmp_path) -> None:
    found = em.run(
        recipe(folder, STEPS[1:2], {"catalog": "c.yaml", "search": {"modality": "EDS"}}),
        out=tmp_path / "r",
    )
    assert found.fields == ("map-0", "map-1", "map-2")
    np.testing.assert_array_equal(found["nmf"].components, result["nmf"].components)
    nothing = recipe(folder, STEPS[1:2], {"catalog": "c.yaml", "search": {"modality": "EELS"}})
    with pytest.raises(InputError, match="finds none of 3 entries"):
        em.run(nothing, out=tmp_path / "none")


def test_cubes_in_hand_and_selections(cubes, tmp_path) -> None:
    steps = {"emcube": 1, "steps": STEPS[1:3], "where": {"min_smoothed_counts": 50}}
    steps["prepare"] = [{"select": {"y": [0, 10]}}]
    found = em.run(steps, [c.compute() for c in cubes], out=tmp_path / "r")
    for name in found.fields:
        used = found.field(name)["input"].used
        assert used.sizes["y"] == 10
        loadings = found.field(name)["nmf"].loadings
        np.testing.assert_array_equal(np.isfinite(loadings).all("component"), used)
    assert [one["in_hand"] for one in found.provenance["input"]["fields"]] == [True] * 3


def test_it_shows_up_wherever_results_are_shown(result, tmp_path) -> None:
    text = render(describe(str(result.path)))
    assert "fractions of 3 phases in 3 fields" in text
    drawn = {path.name for path in result.save_figures(tmp_path / "figures")}
    assert {"nmf-components.png", "phase_fractions-phase_fractions.png"} <= drawn
    own = {path.name for path in result.field("edge").save_figures(tmp_path / "edge")}
    assert {"nmf-loadings.png", "kmeans-labels.png"} <= own
    page = page_of(result)
    assert "Is one image representative?" in page
    assert "10.1520/E0562-19" in page
    assert "from field to field" in page
    assert "nmf" in page_of(result.field("edge"))
    assert result.save_maps(tmp_path / "maps") == []
    assert result.field("f0").save_maps(tmp_path / "own")


def test_the_command_line_runs_it(folder, tmp_path, capsys) -> None:
    path = folder / "recipe.yaml"
    path.write_text(
        "emcube: 1\ninput: {fields: [f0.zarr, f1.zarr]}\nsteps:\n"
        "  - kmeans: {n_clusters: 3, random_state: 0}\n  - phase_fractions: {n_draws: 2}\n"
    )
    assert main(["run", str(path), "--out", str(tmp_path / "r")]) == 0
    assert "fractions of 3 phases in 2 fields" in capsys.readouterr().out
    assert main(["plan", str(path), "--out", str(tmp_path / "p")]) == 0
    assert "field 2, y 14, x 18, energy 40: 440 pixels" in capsys.readouterr().out
    with pytest.raises(InputError, match="a package holds the result of one"):
        em.publish(tmp_path / "r", tmp_path / "crate.zip", license="CC0-1.0")


def test_an_interrupted_run_goes_on(folder, result, tmp_path) -> None:
    wanted = recipe(folder, STEPS[1:4])

    def stop(event: Any) -> None:
        if event.name.startswith("fields/edge/nmf: write maps") and event.kind == "block":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError), listen(stop):
        em.run(wanted, out=tmp_path / "r")
    assert (tmp_path / "r/fields/f0/nmf/zarr.json").exists()
    again = em.run(wanted, out=tmp_path / "r")
    for name in again.fields:
        np.testing.assert_array_equal(
            again.field(name)["nmf"].loadings, result.field(name)["nmf"].loadings
        )
    np.testing.assert_array_equal(
        again["phase_fractions"].mean_fraction, result["phase_fractions"].mean_fraction
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input": {"fields": ["a.zarr"], "path": "b.zarr"}}, "'fields' alone"),
        ({"input": {"search": {"modality": "EDS"}}}, "'catalog' and 'search'"),
        ({"input": {"fields": []}}, "fields"),
        ({"input": {"fields": [{"field": "a"}]}}, "either 'path' or 'catalog'"),
        (
            {"input": {"fields": [{"path": "a", "field": "A"}, {"path": "b", "field": "a"}]}},
            "one name",
        ),
        ({"steps": ["phase_fractions"]}, "expected an earlier step with loadings"),
        ({"steps": [{"pca": {}}, {"phase_fractions": {"of": "pca"}}]}, "'of' of phase_fractions"),
        ({"steps": [*STEPS[1:2], {"phase_fractions": {"level": 1.0}}]}, "level"),
        ({"steps": [{"pca": {"name": "fields"}}]}, "taken by the result"),
        ({"steps": [{"survey_n_components": {"max_components": 1}}]}, "max_components"),
    ],
)
def test_mistakes_are_found_before_anything_is_read(change, said) -> None:
    data = {"emcube": 1, "input": {"fields": ["a.zarr", "b.zarr"]}, "steps": STEPS, **change}
    with pytest.raises(RecipeError, match=said):
        em.Recipe.from_dict(data)


@pytest.fixture(scope="module")
def judged(folder, tmp_path_factory) -> Any:
    steps = [
        *STEPS[1:2],
        {"uncertainty": {"method": "bootstrap", "n_replicates": 4}},
        {"diagnostics": {"max_lag": 2}},
    ]
    return em.run(recipe(folder, steps), out=tmp_path_factory.mktemp("judged") / "r")


def test_steps_that_judge_answer_field_by_field(judged, cubes) -> None:
    model = em.MiniBatchNMF(3, random_state=0).fit(cubes)
    sure = em.uncertainty(model, cubes, n_replicates=4)
    left = em.diagnostics(model, cubes, max_lag=2)
    shared = judged["uncertainty"]
    assert "loadings_interval" not in shared
    np.testing.assert_allclose(shared.rotation_share, sure[0].rotation_share, rtol=1e-6)
    assert judged["diagnostics"].attrs["said"] == left[0].attrs["said"]
    assert judged["diagnostics"].attrs["axes"] == ["y", "x", "signal"]
    for i, name in enumerate(judged.fields):
        own = judged.field(name)
        for key in ("loadings_std_counting", "loadings_std_shared", "loadings_interval"):
            np.testing.assert_allclose(
                own["uncertainty"][key], sure[i][key], rtol=1e-6, atol=1e-9, err_msg=key
            )
        np.testing.assert_array_equal(own["uncertainty"].components_std, shared.components_std)
        np.testing.assert_allclose(own["diagnostics"].chi_square, left[i].chi_square, rtol=1e-9)
    assert judged.verify() == {}


def test_what_judges_several_cubes_is_shown(judged, tmp_path) -> None:
    drawn = {path.name for path in judged.save_figures(tmp_path / "all")}
    assert {"uncertainty-bands.png", "diagnostics-diagnostics.png"} <= drawn
    page = page_of(judged)
    assert "How sure the components are" in page
    assert "Do count statistics survive?" in page
    own = judged.field("edge")
    assert {p.name for p in own.save_figures(tmp_path / "own")} >= drawn
    assert "How sure the components are" in page_of(own)


def test_a_run_that_judges_goes_on_with_the_field_it_was_at(folder, judged, tmp_path) -> None:
    wanted = recipe(folder, [*STEPS[1:2], {"uncertainty": {"n_replicates": 4}}])

    def stop(event: Any) -> None:
        if event.name.startswith("fields/edge/uncertainty: write maps") and event.kind == "block":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError), listen(stop):
        em.run(wanted, out=tmp_path / "r")
    assert (tmp_path / "r/fields/f0/uncertainty/zarr.json").exists()
    again = em.run(wanted, out=tmp_path / "r")
    for name in again.fields:
        np.testing.assert_array_equal(
            again.field(name)["uncertainty"].loadings_interval,
            judged.field(name)["uncertainty"].loadings_interval,
        )


def test_a_plan_counts_the_passes_over_all_fields(folder, result, cubes) -> None:
    planned = em.plan(recipe(folder, STEPS), out=folder / "other")
    one = em.plan(recipe(folder, STEPS[:5], {"path": "f0.zarr"}), out=folder / "other")
    assert planned.cube["pixels"] == sum(c.shape[0] * c.shape[1] for c in cubes)
    assert planned.cube["blocks"] == 3 * one.cube["blocks"]
    assert [p.least for s in planned.steps[:5] for p in s.passes] == [
        p.least for s in one.steps[:5] for p in s.passes
    ]
    done = sum(1 for path in result.path.rglob("*") if path.is_file())
    assert planned.files.low <= done <= planned.files.high
    assert "holds this very run" in str(
        em.plan(recipe(folder, STEPS), out=folder / "result").problems
    )
    held = em.plan({"steps": STEPS[1:2]}, [c.compute() for c in cubes])
    assert [s.name for s in held.steps if s.verb == "read"] == ["digest"] * 3


def test_the_recipe_in_a_report_names_the_fields_as_a_recipe_does(judged) -> None:
    from emcube.report.contents import contents_of

    text = contents_of(judged).recipe
    again = em.Recipe.parse(text, folder=".")
    assert [one.field for one in again.model.input.fields] == ["f0", "edge", "f2"]


# ------------------------------------------------------------------------------------- the survey step


@pytest.fixture(scope="module")
def surveyed(cubes, tmp_path_factory) -> Any:
    steps = [
        {"survey_n_components": {"max_components": 4, "n_restarts": 2}},
        {"nmf": {"n_components": "auto", "random_state": 0}},
    ]
    return em.run({"steps": steps}, cubes[0].compute(), out=tmp_path_factory.mktemp("s") / "r")


def test_the_survey_step_writes_what_the_function_gives(surveyed, cubes) -> None:
    node = surveyed["survey_n_components"]
    direct = em.survey_n_components(cubes[0].compute(), max_components=4, n_restarts=2)
    assert node.attrs["n_components"] == direct.n_components == 3
    assert node.attrs["numbers"] == direct.numbers
    assert node.attrs["reason"] == direct.reason
    for name in direct.table.data_vars:
        np.testing.assert_allclose(node[name], direct.table[name], rtol=1e-9, err_msg=name)
    assert surveyed["nmf"].sizes["component"] == 3


def test_the_survey_step_is_shown(surveyed, tmp_path) -> None:
    drawn = {path.name for path in surveyed.save_figures(tmp_path)}
    assert "survey_n_components-survey.png" in drawn
    page = page_of(surveyed)
    for text in ("Number of components, by several methods", "held-out counts", "found again"):
        assert text in page
    reason = surveyed["survey_n_components"].attrs["reason"]
    assert f"3: {reason}" in render(describe(str(surveyed.path)))


def test_a_refusal_stops_auto_with_its_reason(cubes, tmp_path) -> None:
    noise = cubes[0].compute()
    rng = np.random.default_rng(0)
    noise = noise.copy(data=(rng.random(noise.shape) ** 8 * 900).astype(np.uint16))
    steps = [
        {"survey_n_components": {"max_components": 2, "n_restarts": 2}},
        {"nmf": {"n_components": "auto", "random_state": 0}},
    ]
    survey = em.survey_n_components(noise, max_components=2, n_restarts=2)
    assert survey.refused
    with pytest.raises(InputError, match="names no number"):
        em.run({"steps": steps}, noise, out=tmp_path / "r")
