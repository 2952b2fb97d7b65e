"""A visit: looking, setting, running, keeping; recipe and script do what a click does."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import emcube as em
from emcube.errors import (
    CatalogError,
    EmcubeError,
    InputError,
    ReadError,
    RecipeError,
    SelectionError,
)
from emcube.explore import coarse
from emcube.explore import session as module
from emcube.explore.jobs import Job
from emcube.explore.outcomes import Outcome
from emcube.explore.regions import Region
from emcube.explore.session import Session
from emcube.explore.settings import Settings
from emcube.store import write_cube
from tests.explore.cubes_for_tests import QUICK, SHAPE, got, three_phases

DISC = Region.box(y=(6, 13), x=(6, 13))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMCUBE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse cubes of a quarter of the pixels and half of the channels."""
    monkeypatch.setattr(coarse, "CELLS", math.prod(SHAPE) // 8)
    monkeypatch.setattr(coarse, "CHANNELS", 20)
    monkeypatch.setattr(coarse, "SIDE", 12)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "map.zarr"
    return Path(write_cube(three_phases().chunk({"y": 6}), place))


@pytest.fixture(scope="module")
def ran(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, Outcome]]:
    """A visit with a whole run, for tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMCUBE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Session.open(store) as session:
            session.settings = QUICK
            yield session, got(session.run())


# ------------------------------------------------------------------------------------------------ looking


def test_a_store_is_seen_without_reading_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("the cube was read")

    monkeypatch.setattr(module, "make_coarse", refuse)
    with Session.open(store) as session:
        assert session.title == "three phases"
        assert session.facts["shape"] == "y 24 x x 32 x energy 60"
        images = session.images()
        assert list(images) == ["total counts", "haadf"]
        np.testing.assert_array_equal(images["total counts"], three_phases().sum("energy"))
        assert images["total counts"].attrs["exact"]
        spectrum = session.spectrum()
        assert spectrum.exact
        np.testing.assert_array_equal(spectrum.values, three_phases().sum(["y", "x"]))
        np.testing.assert_allclose(spectrum.mean, three_phases().mean(["y", "x"]))


def test_quick_looks_are_near_and_exact_ones_are_right(store: Path, small: None) -> None:
    cube = three_phases()
    with Session.open(store) as session:
        quick = session.window_map({"energy": (1.9, 1.5)})
        assert not quick.exact
        assert quick.values.sizes == {"y": 12, "x": 16}
        assert quick.pixels_per_bin == 4
        exact = got(session.exact_map({"energy": (1.5, 1.9)}))
        assert exact.exact
        expected = cube.em.window(energy=(1.5, 1.9)).em.total_counts()
        np.testing.assert_array_equal(exact.values, expected)
        assert abs(float(quick.values.sum() / expected.sum()) - 1) < 0.25
        near = session.spectrum(DISC)
        assert (near.exact, near.n_pixels) == (False, 49)
        right = got(session.exact_spectrum(DISC))
        np.testing.assert_array_equal(right.values, cube[6:13, 6:13].sum(["y", "x"]))
        assert abs(float(near.values.sum() / right.values.sum()) - 1) < 0.1


def test_a_small_cube_is_exact_at_once(store: Path) -> None:
    with Session.open(store) as session:
        found = session.window_map({"energy": (1.5, 1.9)})
        assert found.exact
        expected = three_phases().em.window(energy=(1.5, 1.9)).em.total_counts()
        np.testing.assert_array_equal(found.values, expected)


def test_the_coarse_cube_is_made_once(
    store: Path, small: None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session.open(store) as session:
        first = session.window_map({"energy": (1.5, 1.9)})
        assert session.is_ready
        assert session.prepare().done
    monkeypatch.setattr(module, "make_coarse", None)
    with Session.open(store) as again:
        assert not again.is_ready
        got(again.prepare())
        found = again.window_map({"energy": (1.5, 1.9)})
    np.testing.assert_array_equal(found.values, first.values)
    assert list((cache / "coarse").glob("*.npy"))


def test_a_wrong_window_or_region_is_refused_at_once(store: Path) -> None:
    with Session.open(store) as session:
        for ask in (session.window_map, session.exact_map):
            with pytest.raises(SelectionError, match="no channel between"):
                ask({"energy": (50, 60)})
        with pytest.raises(SelectionError, match="has 24 positions"):
            session.spectrum(Region.box(y=(0, 99)))
        for ask_for in (session.spectrum, session.exact_spectrum):
            with pytest.raises(SelectionError, match="not a navigation dim"):
                ask_for(Region.box(z=(0, 9)))
        assert [a.verb for a in session.actions] == ["open"], "what was refused was not done"


def test_lines_lie_on_the_axis(store: Path) -> None:
    with Session.open(store) as session:
        marks = session.lines(["Si", "Ca"])
        assert marks[0].name == "Si_Ka"
        assert marks[0].energy == pytest.approx(1.74, abs=0.01)
        assert {m.element for m in marks} == {"Si", "Ca"}
        assert all(0.2 <= m.energy <= 6.1 for m in marks)
        near = session.lines_near(1.75)
        assert near[0].name == "Si_Ka", "an element of the metadata comes first"
        assert session.lines_near(4.51)[0].name == "Ti_Ka", "before weak lines that are nearer"
        with pytest.raises(InputError, match="unknown element"):
            session.lines(["Xx"])


def test_edges_lie_on_an_axis_in_electronvolts() -> None:
    cube = em.make_cube(
        np.ones((3, 4, 200), "float32"),
        dims=("y", "x", "energy"),
        coords={"energy": 80.0 + 0.5 * np.arange(200)},
        units={"energy": "eV"},
        metadata={"modality": "EELS"},
    )
    with Session.open(cube) as session:
        (mark,) = session.lines(["Si"])
        assert (mark.name, round(mark.energy)) == ("Si_L2,3", 99)
        assert "Si_L2,3" in [m.name for m in session.lines_near(100.0, most=20)]


def test_the_number_of_components_has_its_curve(store: Path, small: None) -> None:
    with Session.open(store) as session:
        found = got(session.curve())
        assert "singular_value" in found.curve
        assert found.reason
        before = found.noise["pixels"]
        session.mask(Region.box(y=(0, 12), x=(0, 32)), keep=True)
        assert got(session.curve()).noise["pixels"] < before
        session.settings = session.settings.counts(1e6)
        job = session.curve()
        assert job.wait(120)
        assert job.error is not None


# ------------------------------------------------------------------------------------------------ setting


def test_settings_are_checked_and_recorded(store: Path) -> None:
    with Session.open(store) as session:
        before = session.settings
        with pytest.raises(RecipeError):
            session.settings = before.with_step("nmf", n_components=0)
        assert session.settings == before
        session.settings = before.parts(4)
        session.settings = before.parts(4)
        assert [a.verb for a in session.actions] == ["open", "settings"]
        assert session.actions[-1].parameters["steps"][2]["nmf"]["n_components"] == 4


def test_masks_leave_out_and_keep(store: Path) -> None:
    with Session.open(store) as session:
        session.mask(DISC)
        expected = ~DISC.mask(session.cube)
        np.testing.assert_array_equal(session.selected(), expected)
        triangle = Region.polygon([(0.2, 0.3), (2.4, 20.1), (18.3, 7.7)])
        session.mask(triangle, keep=True)
        np.testing.assert_array_equal(session.selected(), expected & triangle.mask(session.cube))
        with pytest.raises(SelectionError):
            session.mask(Region.box(y=(0, 24), x=(0, 32)))
        with pytest.raises(SelectionError):
            session.mask(Region.box(y=(0, 99)))
        session.settings = session.settings.everywhere()
        assert bool(session.selected().all())


# ------------------------------------------------------------------------------------------------ running


def test_a_click_its_recipe_and_its_script_are_the_same_run(store: Path, tmp_path: Path) -> None:
    with Session.open(store, folder=tmp_path / "visit") as session:
        session.window_map({"energy": (1.5, 1.9)})
        session.settings = QUICK.window(energy=(0.4, 5.9)).bins(y=2)
        session.mask(DISC)
        session.mask(Region.polygon([(0.2, 0.3), (2.4, 25.1), (20.3, 7.7)]), keep=True)
        outcome = got(session.run())
        recipe, script = session.recipe_text(), session.script()
        assert outcome.recipe_text == recipe
        assert em.run(session.recipe(), out=tmp_path / "again").run_id == outcome.run_id
        (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
        (tmp_path / "script.py").write_text(script, encoding="utf-8")
        answer = run_cli(
            "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "r"), "--json"
        )
        assert json.loads(answer)["run_id"] == outcome.run_id
        said = subprocess.run(
            [sys.executable, str(tmp_path / "script.py")],
            capture_output=True, text=True, check=True, timeout=240,
        )  # fmt: skip
        assert said.stdout.strip() == outcome.run_id
        for folder in ("r", "result"):
            other = em.open_result(tmp_path / folder)
            for step in outcome.steps:
                for name, values in outcome.result[step].data_vars.items():
                    np.testing.assert_array_equal(other[step][name], values)


def run_cli(*arguments: str) -> str:
    from emcube.cli.app import app

    answer = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_the_same_run_is_not_run_again(store: Path, tmp_path: Path) -> None:
    with Session.open(store, folder=tmp_path) as session:
        session.settings = QUICK.only("pca")
        first = got(session.run())
        assert got(session.run()) is first
        assert session.outcomes == [first]
    with Session.open(store, folder=tmp_path) as session:
        session.settings = QUICK.only("pca")
        job = session.run()
        assert got(job).run_id == first.run_id
        assert not job.progress.n_blocks, "no block was read"
    assert [p.name[:4] for p in tmp_path.iterdir() if p.is_dir() and p.name != "cache"] == ["run-"]


def test_the_workers_in_force_do_it(store: Path, cluster_client: Any, tmp_path: Path) -> None:
    with cluster_client.as_current(), Session.open(store) as session:
        session.settings = QUICK.only("pca")
        outcome = got(session.run())
        image = got(session.exact_map({"energy": (1.5, 1.9)}))
        prepared = cluster_client.run(lambda dask_worker: list(dask_worker.periodic_callbacks))
        assert all("emcube-relief" in found for found in prepared.values())
        assert got(session.preview()).n_components("pca") == 3
        loadings, recipe = outcome.result["pca"]["loadings"].load(), session.recipe()
    expected = three_phases().em.window(energy=(1.5, 1.9)).em.total_counts()
    np.testing.assert_array_equal(image.values, expected)
    alone = em.run(recipe, out=tmp_path / "threads")
    assert alone.run_id == outcome.run_id
    np.testing.assert_array_equal(alone["pca"]["loadings"], loadings)


def test_progress_names_the_step(store: Path) -> None:
    told: list[Any] = []
    with Session.open(store) as session:
        session.settings = QUICK.without_step("kmeans")
        job = session.run()
        job.listen(lambda j: told.append(j.progress))
        got(job)
    parts = [(p.part, p.part_number, p.n_parts) for p in told if p.part]
    assert ("nmf", 2, 2) in parts
    assert any(p.objective is not None for p in told)
    assert all(p.n_pixels == 24 * 32 for p in told if p.n_pixels)


def test_a_run_is_cancelled_and_goes_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session.open(store) as session:
        session.settings = QUICK
        job = session.run()
        job.listen(lambda j: j.cancel() if j.progress.part == "nmf" else None)
        assert job.wait(120)
        assert job.state == "cancelled"
        assert not session.outcomes
        again = got(session.run())
        assert em.run(session.recipe(), out=session.folder / "whole").run_id == again.run_id
        whole = em.open_result(session.folder / "whole")
        np.testing.assert_array_equal(whole["nmf"]["loadings"], again.result["nmf"]["loadings"])


def test_two_visits_do_not_disturb_each_other(store: Path) -> None:
    with Session.open(store) as one, Session.open(store) as other:
        one.settings = QUICK
        other.settings = QUICK.with_step("nmf", n_components=2)
        jobs = [one.run(), other.run()]
        stop = threading.Event()
        jobs[0].listen(lambda j: (j.cancel(), stop.set()) if j.progress.part == "nmf" else None)
        assert stop.wait(120)
        found = got(jobs[1])
        assert jobs[0].wait(120)
        assert jobs[0].state == "cancelled"
        assert found.n_components("nmf") == 2
        assert one.outcomes == []
        assert one.settings != other.settings


def test_what_fails_is_a_message(store: Path) -> None:
    with Session.open(store) as session:
        session.settings = Settings.default().with_step("estimate_n_components", pixel_counts=1e9)
        job = session.run()
        assert job.wait(120)
        if job.state == "done":  # a number was found all the same
            return
        assert job.error is not None
        assert job.error.hint
        assert session.outcomes == []
        session.settings = QUICK.only("pca")
        got(session.run())


def test_a_preview_is_of_the_coarse_cube(store: Path, small: None) -> None:
    with Session.open(store) as session:
        session.settings = QUICK.window(energy=(0.4, 5.9))
        session.mask(DISC)
        found = got(session.preview())
        assert found.preview
        assert found.result["nmf"]["loadings"].sizes["x"] == 16
        assert found.n_components("kmeans") == 3
        assert session.outcomes == [found]
        assert found.recipe_text == session.recipe_text(), "of the whole run"
        for what in (session.save, session.report, session.publish):
            with pytest.raises(InputError, match="preview is of a coarse cube"):
                what(session.folder / "x", found)
            with pytest.raises(InputError, match="nothing was run yet"):
                what(session.folder / "x")


def test_a_preview_resembles_the_run(store: Path, small: None) -> None:
    with Session.open(store) as session:
        session.settings = QUICK.only("nmf")
        preview, whole = got(session.preview()), got(session.run())
        found = session.compare(whole, preview)
        assert found.first_step == found.second_step == "nmf"
        assert max(p.angle for p in found.pairs) < 30
        assert found.n_channels <= 60


# ------------------------------------------------------------------------------------------------ results


def test_components_are_matched(ran: tuple[Session, Outcome]) -> None:
    session, outcome = ran
    same = session.compare(outcome, outcome, "nmf")
    assert [(p.first, p.second) for p in same.pairs] == [(0, 0), (1, 1), (2, 2)]
    assert max(p.angle for p in same.pairs) < 1e-6
    assert same.angles.shape == (3, 3)
    crossed = session.compare(outcome, outcome, ("nmf", "kmeans"))
    assert len(crossed.pairs) == 3
    with pytest.raises(InputError, match="has no components"):
        session.compare(outcome, outcome, "estimate")


@pytest.mark.parametrize("step", ["pca", "nmf", "kmeans"])
def test_a_component_has_its_pixels(ran: tuple[Session, Outcome], step: str) -> None:
    session, outcome = ran
    view = session.component(outcome, step, 1)
    assert view.spectrum.dims == ("energy",)
    assert view.map.sizes == {"y": 24, "x": 32}
    assert view.rule
    own = view.own.values
    assert 0 < own.sum() < own.size
    exact = got(session.exact_component(outcome, step, 1))
    assert exact.mean is not None
    assert exact.mean.exact
    np.testing.assert_array_equal(exact.mean.values, three_phases().values[own].sum(axis=0))
    assert view.mean is not None
    assert view.mean.n_pixels == exact.mean.n_pixels == own.sum()
    with pytest.raises(InputError, match="no component 7"):
        session.component(outcome, step, 7)


def test_every_way_of_unmixing_is_looked_at_alike(store: Path) -> None:
    with Session.open(store) as session:
        session.settings = (
            Settings()
            .with_step("vca", n_components=3)
            .with_step("ica", n_components=3)
            .with_step("gaussian_mixture", n_clusters=3)
            .with_step("cluster_quality", of="gaussian_mixture", n_samples=200, n_repeats=2)
        )
        outcome = got(session.preview())
        assert outcome.steps == ("vca", "ica", "gaussian_mixture")
        for step in outcome.steps:
            view = session.component(outcome, step, 0)
            assert view.map.sizes == {"y": 24, "x": 32}
            assert view.mean is not None
        assert len(session.compare(outcome, outcome, ("vca", "gaussian_mixture")).pairs) == 3


def test_components_of_a_cropped_and_binned_run_are_found_in_the_cube(
    store: Path, small: None
) -> None:
    with Session.open(store) as session:
        session.settings = QUICK.only("nmf").bins(y=2, x=2)
        session.mask(Region.box(y=(3, 20), x=(5, 31)), keep=True)
        whole = got(session.run())
        view = got(session.exact_component(whole, "nmf", 0))
        own = np.repeat(np.repeat(view.own.values, 2, axis=0), 2, axis=1)
        inside = three_phases().values[3:19, 5:31][own]
        assert view.mean is not None
        np.testing.assert_array_equal(view.mean.values, inside.sum(axis=0))
        preview = got(session.preview())
        quick = session.component(preview, "nmf", 0)
        assert quick.mean is not None
        assert quick.mean.n_pixels <= 16 * 26 + 4 * (16 + 26)


# ------------------------------------------------------------------------------------------------ keeping


def test_what_is_saved_runs_again(ran: tuple[Session, Outcome], tmp_path: Path) -> None:
    session, outcome = ran
    place = session.save(tmp_path / "kept")
    assert sorted(p.name for p in place.iterdir()) == [
        *("recipe.yaml", "record.json", "result", "script.py")
    ]
    assert em.open_result(place / "result").verify() == {}
    answer = json.loads(run_cli("run", str(place / "recipe.yaml"), "--json"))
    assert answer["run_id"] == outcome.run_id
    record = json.loads((place / "record.json").read_text(encoding="utf-8"))
    assert record["run_id"] == outcome.run_id
    assert "run" in [a["verb"] for a in record["actions"]]
    with pytest.raises(InputError, match="saved before"):
        session.save(place)
    assert session.save(place, overwrite=True) == place
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds something else"):
        session.save(tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "thesis.tex").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "other"]


def test_report_and_package(ran: tuple[Session, Outcome], tmp_path: Path) -> None:
    session, _ = ran
    page = session.report(tmp_path / "report.html")
    assert "three phases" in page.read_text(encoding="utf-8")
    crate = session.publish(tmp_path / "crate.zip", figures=False, include_data=True)
    assert crate.stat().st_size > 0
    assert [a.verb for a in session.actions][-2:] == ["report", "publish"]


# ------------------------------------------------------------------------------------------------ sources


def test_a_cube_in_hand_is_kept_with_its_analysis(tmp_path: Path) -> None:
    with Session.open(three_phases(), folder=tmp_path / "visit") as session:
        session.settings = QUICK.only("pca")
        outcome = got(session.run())
        assert em.run(session.recipe(), out=tmp_path / "again").run_id == outcome.run_id
        assert "made in Python" in session.recipe_text()
        place = session.save(tmp_path / "kept")
    answer = json.loads(
        run_cli("run", str(place / "recipe.yaml"), "--out", str(tmp_path / "r"), "--json")
    )
    assert answer["run_id"] == outcome.run_id
    moved = place.rename(tmp_path / "moved")
    with Session.open(moved / "result") as session:
        xr.testing.assert_equal(session.cube.drop_vars("haadf"), three_phases().drop_vars("haadf"))


def test_a_cube_that_is_a_store_is_named_by_it(store: Path) -> None:
    cube = em.open(store)
    with Session.open(cube) as session:
        assert session.recipe_text().count(str(store))
    with Session.open(cube.isel(y=slice(0, 12))) as session:
        assert str(store) not in session.recipe_text(), "a part of it is another cube"
    with Session.open(cube.assign_coords(energy=cube.energy * 2)) as session:
        assert str(store) not in session.recipe_text()


def test_an_instrument_file_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "map.npy", three_phases().values)
    with Session.open(tmp_path / "map.npy") as session:
        session.settings = QUICK.only("pca")
        dims = session.cube.dims
        assert got(session.exact_spectrum()).values.sum() == three_phases().sum()
        import emcube.sources

        monkeypatch.setattr(emcube.sources, "ingest", None)
        outcome = got(session.run())
        monkeypatch.undo()
        assert outcome.result.provenance["input"]["path"] == str(tmp_path / "map.npy")
        again = em.run(session.recipe(), out=tmp_path / "again")
        assert again.run_id == outcome.run_id
        for name, values in again["pca"].data_vars.items():
            np.testing.assert_array_equal(outcome.result["pca"][name], values)
        assert dims == session.cube.dims
        folder = session.folder
    assert not folder.exists(), "nothing of the visit stays"


def test_a_catalog_is_browsed(store: Path, tmp_path: Path) -> None:
    from emcube.catalog import add

    catalog = tmp_path / "catalog.yaml"
    add(catalog, store, name="phases", title="Three phases")
    other = write_cube(three_phases("another", seed=1), tmp_path / "other.zarr")
    add(catalog, other, name="another", modality="EELS")
    with Session.open(catalog, folder=tmp_path / "visit") as session:
        assert not session.has_cube
        cards = {card.name: card for card in session.entries()}
        assert cards["phases"].title == "Three phases"
        assert cards["phases"].available
        assert cards["phases"].kind == "cube"
        assert [c.name for c in session.entries(modality="EELS")] == ["another"]
        assert [c.name for c in session.entries("three")] == ["phases"]
        with pytest.raises(InputError, match="no cube was chosen"):
            session.spectrum()
        with pytest.raises(CatalogError):
            session.choose("nothing")
        session.choose("phases")
        session.settings = QUICK.only("pca")
        outcome = got(session.run())
        assert em.run(session.recipe(), out=tmp_path / "again").run_id == outcome.run_id
        session.choose("another")
        assert session.title == "another"
        assert session.outcomes == []
        assert [a.verb for a in session.actions] == ["open"]


def test_jobs_of_an_earlier_dataset_are_waited_for(store: Path, tmp_path: Path) -> None:
    from emcube.catalog import add

    catalog = tmp_path / "catalog.yaml"
    for name in ("one", "two"):
        add(catalog, store, name=name)
    session = Session.open(catalog)
    session.choose("one")
    go = threading.Event()

    def work(job: Job[None]) -> None:
        # It hears late that it is to stop, and writes until then.
        assert go.wait(60)
        (session.folder / "late").mkdir(parents=True)

    job = session._read("slow", work)
    session.choose("two")
    timer = threading.Timer(0.3, go.set)
    timer.start()
    session.close()
    timer.join()
    assert job.done
    assert not session.folder.exists()


def test_a_window_without_an_end_is_in_the_script(store: Path, tmp_path: Path) -> None:
    with Session.open(store) as session:
        seen = session.window_map({"energy": (4.0, math.inf)})
        space: dict[str, Any] = {"__name__": "x", "__file__": str(tmp_path / "script.py")}
        exec(compile(session.script(), "script.py", "exec"), space)
        np.testing.assert_array_equal(space["map_1"], seen.values)


def test_only_what_can_be_drawn_over_the_cube_is_an_image(tmp_path: Path) -> None:
    cube = three_phases()
    grains = np.full(SHAPE[:2], "a grain")
    cube = cube.assign_coords(grain=(("y", "x"), grains))
    survey = xr.DataArray(np.zeros((50, 40)), dims=("y", "x"), name="survey")
    place = write_cube(cube, tmp_path / "map.zarr", companions=[survey])
    with Session.open(place) as session:
        assert list(session.images()) == ["total counts", "haadf"]
    series = xr.concat([cube.drop_vars(["grain", "haadf"])] * 2, "tilt")
    series = series.assign_coords(drift=(("tilt", "y"), np.zeros((2, SHAPE[0]))))
    with Session.open(series.assign_attrs(cube.attrs)) as session:
        assert list(session.images()) == ["total counts"]


def test_a_missing_dataset_says_what_to_do(store: Path, tmp_path: Path) -> None:
    import shutil

    from emcube.catalog import add

    gone = shutil.copytree(store, tmp_path / "gone.zarr")
    add(tmp_path / "catalog.yaml", gone, name="gone")
    shutil.rmtree(gone)
    with Session.open(tmp_path / "catalog.yaml") as session:
        (card,) = session.entries()
        assert not card.available
        assert "does not exist" in card.problem


def test_a_result_is_opened_with_its_cube(ran: tuple[Session, Outcome], tmp_path: Path) -> None:
    _, outcome = ran
    with Session.open(outcome.result.path, folder=tmp_path) as session:
        (opened,) = session.outcomes
        assert opened.run_id == outcome.run_id
        assert not opened.preview
        assert session.settings.names() == ("pca", "nmf", "kmeans")
        assert got(session.run()).run_id == outcome.run_id
        assert len(session.outcomes) == 1


def test_a_recipe_is_opened_with_its_settings(store: Path, tmp_path: Path) -> None:
    text = f"emcube: 1\ninput: {{path: {json.dumps(str(store))}}}\nsteps:\n  - pca: {{n_components: 2}}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    with Session.open(tmp_path / "recipe.yaml") as session:
        assert session.settings.steps == ({"pca": {"n_components": 2}},)


@pytest.mark.parametrize("source", ["nothing.bcf", "nothing.yaml", "catalog.yaml:x"])
def test_what_is_not_there_leaves_nothing(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EmcubeError) as caught:
        Session.open(source, folder=tmp_path / "visit")
    assert isinstance(caught.value, ReadError | CatalogError)
    assert not list((tmp_path / "visit").iterdir())


def test_an_image_is_refused(tmp_path: Path) -> None:
    image = em.make_cube(np.ones((4, 5)), dims=("y", "x"))
    with pytest.raises(InputError, match="none of them signal"):
        Session.open(image, folder=tmp_path)


@pytest.mark.parametrize(
    "title", ['<b>&"\' "); import os #\nnäme 名前', "x" * 10_000], ids=["signs", "long"]
)
def test_strange_names_stay_text(title: str, tmp_path: Path) -> None:
    folder = tmp_path / "ä 'b\" #1"
    folder.mkdir()
    place = write_cube(three_phases(title)[:8, :8], folder / "map.zarr")
    with Session.open(place, folder=tmp_path / "visit") as session:
        assert session.title == title
        session.settings = QUICK.only("pca")
        outcome = got(session.run())
        kept = session.save(tmp_path / "kept")
        script = compile((kept / "script.py").read_text(encoding="utf-8"), "script.py", "exec")
        space: dict[str, Any] = {"__name__": "x", "__file__": str(kept / "script.py")}
        exec(script, space)
        recipe = em.Recipe.from_dict(space["RECIPE"], folder=kept)
        assert em.run(recipe, out=tmp_path / "again").run_id == outcome.run_id
        assert em.Recipe.read(kept / "recipe.yaml").normalised() == recipe.normalised()


@pytest.mark.parametrize("dims", [("x",), ("tilt", "y", "x"), ("time", "tilt", "y", "x")], ids=len)
def test_one_to_four_navigation_dims(dims: tuple[str, ...]) -> None:
    shape = (40,) if len(dims) == 1 else (2, 3, 8, 9)[-len(dims) :]
    values = np.random.default_rng(0).poisson(1.0, (*shape, 30)).astype("uint8")
    cube = em.make_cube(
        values,
        dims=(*dims, "energy"),
        coords={"energy": 1 + 0.1 * np.arange(30)},
        units={"energy": "keV"},
    )
    with Session.open(cube) as session:
        session.settings = Settings(({"pca": {"n_components": 2}},))
        assert session.images()["total counts"].dims == dims
        assert session.window_map({"energy": (1.0, 2.0)}).values.dims == dims
        if len(dims) > 1:
            session.mask(
                Region.polygon([(0.5, 0.5), (0.5, 6.5), (5.5, 6.5), (5.5, 0.5)]), keep=True
            )
            assert int(session.selected().sum()) == 30 * math.prod(shape[:-2])
        outcome = got(session.run())
        view = session.component(outcome, "pca", 0)
        assert view.map.dims == dims
        assert view.mean is not None
