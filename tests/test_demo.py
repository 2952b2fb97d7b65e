"""`emcube demo`: the whole way, small, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.demo import render, run_demo
from emcube.engine.progress import listen
from emcube.errors import InputError

PICTURES = {
    "pca-denoised.png",
    "nmf-composite.png",
    "nmf-residuals.png",
    "estimate-scree.png",
    "pca-scree.png",
    "nmf-components.png",
    "nmf-loadings.png",
    "kmeans-labels.png",
    "raw-line-maps.png",
    "raw-overview.png",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside") / "demo"
    said, events = [], []
    with listen(events.append):
        report = run_demo(folder, scale=0.03, seed=0, say=said.append)
    return folder, report, said, events


def test_it_finds_what_was_put_in(demo):
    _, report, _, _ = demo
    assert report["n_components"] == report["n_components_true"] == 3
    assert set(report["angles_deg"]) == {"Ni", "Cr", "Si"}
    assert max(report["angles_deg"].values()) < 3.0


def test_it_leaves_stores_a_result_and_pictures(demo):
    folder, report, _, _ = demo
    store = xr.open_zarr(report["store"])
    assert store["data"].dims == ("tilt", "y", "x", "energy")
    truth = xr.open_zarr(report["truth"])
    np.testing.assert_allclose(truth["components"].sum("energy"), 1.0, rtol=1e-12)
    assert truth["loadings"].sizes["tilt"] == store.sizes["tilt"]
    result = em.open_result(report["result"])
    assert result.complete
    assert result.steps[-4:] == ("estimate_n_components", "pca", "nmf", "kmeans")
    pictures = {Path(p).name: Path(p) for p in report["pictures"]}
    assert set(pictures) >= PICTURES
    for path in pictures.values():
        assert path.parent == folder / "pictures"
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000


def test_it_shows_progress_and_says_where_things_are(demo):
    _, report, said, events = demo
    assert [line[:3] for line in said] == ["1/4", "2/4", "3/4", "4/4"]
    assert {e.name for e in events} >= {"ingest", "NMF"}
    assert {e.kind for e in events} >= {"block", "end"}
    text = render(report)
    for key in ("store", "truth", "result", "recipe", "catalog", "report"):
        assert report[key] in text
    page = Path(report["report"]).read_text(encoding="utf-8")
    assert "Three components describe this data" in page
    assert len(page) < 5_000_000
    assert "pictures" in text
    json.dumps(report)


def test_outside_a_clone_it_writes_a_catalog_that_opens(demo):
    folder, report, _, _ = demo
    assert Path(report["catalog"]) == folder / "catalog.yaml"
    import intake

    plain = intake.open_catalog(report["catalog"])["srm2135c"].read()
    assert plain["data"].sizes["energy"] == 900
    cube = em.open(report["entry"])
    assert cube.sizes == em.open(report["store"]).sizes


def test_in_a_clone_it_uses_the_catalog_of_the_clone(tmp_path):
    from emcube.demo import _catalog

    tracked = tmp_path / "catalogs" / "demo.yaml"
    tracked.parent.mkdir()
    tracked.write_text("version: 2\n")
    (tmp_path / "demo").mkdir()
    assert _catalog(tmp_path / "demo", "srm2135c") == tracked
    (tmp_path / "other").mkdir()
    assert _catalog(tmp_path / "other", "srm2135c") == tmp_path / "other" / "catalog.yaml"


def test_again_it_keeps_what_is_the_same(demo):
    folder, report, _, _ = demo
    said: list[str] = []
    again = run_demo(folder, scale=0.03, seed=0, say=said.append)
    assert again["run_id"] == report["run_id"]
    assert any("kept" in line for line in said)


def test_the_other_example_is_a_map_with_five_phases(tmp_path):
    report = run_demo(tmp_path / "rock", scene="jadeite", scale=0.01)
    assert report["n_components_true"] == 5
    pictures = {Path(p).name for p in report["pictures"]}
    four = {f"nmf_four-{what}.png" for what in ("components", "loadings", "residuals")}
    assert pictures >= {
        "estimate-scree.png",
        "pca-scree.png",
        "pca-denoised.png",
        "raw-line-maps.png",
    }
    assert pictures >= four
    result = em.open_result(report["result"])
    assert result["nmf_four"].sizes["component"] == 4
    assert em.open(report["entry"]).sizes["energy"] == 1564
    assert "nmf_four" in render(report)


def test_scenes_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match="srm2135c, jadeite"):
        run_demo(tmp_path / "demo", scene="moon")
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        run_demo(tmp_path / "demo")
    assert (tmp_path / "demo").read_text() == "mine"


def test_nothing_else_of_the_user_is_replaced(tmp_path):
    mine = tmp_path / "demo" / "srm2135c.zarr"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(OSError):
        run_demo(tmp_path / "demo", scale=0.01)
    assert (mine / "notes.txt").read_text() == "mine"
