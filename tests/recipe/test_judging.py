"""Steps that judge an earlier one: they write what the function gives, and show up everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emcube as em
from benchmarks.coverage import stripes as scene
from emcube.cards import describe, render
from emcube.engine import listen
from emcube.errors import RecipeError
from emcube.report.build import page_of

STEPS: list[Any] = [
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"uncertainty": {"method": "fisher"}},
    {"uncertainty": {"name": "again", "method": "bootstrap", "n_replicates": 4, "level": 0.8}},
    "diagnostics",
]


@pytest.fixture(scope="module")
def cube():
    return scene(150.0).draw(np.random.default_rng(0)).chunk(y=12)


@pytest.fixture(scope="module")
def result(cube, tmp_path_factory):
    return em.run({"emcube": 1, "steps": STEPS}, cube, out=tmp_path_factory.mktemp("r") / "result")


@pytest.mark.parametrize(
    ("step", "options"),
    [
        ("uncertainty", {"method": "fisher"}),
        ("again", {"method": "bootstrap", "n_replicates": 4, "level": 0.8}),
    ],
)
def test_a_step_writes_what_the_function_gives(result, cube, step, options):
    node = result[step]
    nmf = em.MiniBatchNMF(3, random_state=0).fit(cube)
    np.testing.assert_array_equal(nmf.components_, result["nmf"].components)
    direct = em.uncertainty(nmf, cube, **options)
    assert set(node.data_vars) == set(direct.data_vars)
    for name in direct.data_vars:
        np.testing.assert_allclose(node[name], direct[name], rtol=1e-6, atol=1e-9, err_msg=name)
        assert node[name].dims == direct[name].dims
        assert node[name].attrs["long_name"]
    assert node.attrs["on"] == "nmf"
    assert result.verify() == {}


def test_diagnostics_write_what_the_function_gives(result, cube):
    node = result["diagnostics"]
    direct = em.diagnostics(em.MiniBatchNMF(3, random_state=0).fit(cube), cube)
    assert set(node.data_vars) == set(direct.data_vars)
    for name in direct.data_vars:
        np.testing.assert_allclose(node[name], direct[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert node.attrs["axes"] == ["y", "x", "signal"]
    assert node.attrs["said"] == direct.attrs["said"]


def test_lines_of_a_step_stand_in_its_node_its_figure_and_the_report(tmp_path):
    scene = em.scenes.srm2135c(scale=0.002, random_state=0)
    steps = [STEPS[0], {"diagnostics": {"lines": ["Ni_Ka", "Cr_Ka"], "n_components": 1}}]
    own = em.run({"emcube": 1, "steps": steps}, scene.cube, out=tmp_path / "r")
    node = own["diagnostics"]
    assert node.line_bias.shape == (3, 2)
    assert node.attrs["lines"] == ["Ni_Ka", "Cr_Ka"]
    assert [t.get_text() for t in own.plot_diagnostics().axes[-1].get_xticklabels()] == [
        "Ni Kα", "Cr Kα",
    ]  # fmt: skip
    page = page_of(own)
    page = page[page.index("Lines before and after denoising") :]
    for k in range(3):
        value = 100 * float(node.line_bias[k, 0])
        told = page.split(f'<th scope="row">Component {k}</th><td>')[1].split(" ")[0]
        assert float(told.replace("−", "-")) == pytest.approx(value, abs=0.6)


def test_a_step_is_shown_wherever_steps_are(result, tmp_path):
    assert "of 3 components" in render(describe(str(result.path)))
    drawn = {path.name for path in result.save_figures(tmp_path)}
    assert {"uncertainty-bands.png", "again-bands.png", "diagnostics-diagnostics.png"} <= drawn
    page = page_of(result)
    for text in (
        "Do count statistics survive?",
        "How sure the components are",
        "Fisher information",
        "80 % intervals, bootstrap",
    ):
        assert text in page
    assert '"bands"' in page
    assert "10.1002/cem.667" in page  # MCR-BANDS
    assert "10.1214/aos/1176344552" in page  # the bootstrap


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["uncertainty"], "there is none before it"),
        ([{"pca": {}}, {"uncertainty": {"on": "pca"}}], "expected an earlier nmf step"),
        (
            [
                {"nmf": {"n_components": 2}},
                {"uncertainty": {"method": "fisher", "n_replicates": 5}},
            ],
            "'fisher' makes no replicates",
        ),
        (
            [
                {"nmf": {"n_components": 2, "beta_loss": "frobenius"}},
                {"uncertainty": {"method": "thinning"}},
            ],
            "deals counts to two halves",
        ),
        ([{"nmf": {"n_components": 2}}, {"uncertainty": {"level": 1.5}}], "below 1"),
    ],
)
def test_mistakes_are_found_before_anything_is_read(steps: list[Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        em.Recipe.from_dict({"emcube": 1, "steps": steps})


def test_an_interrupted_step_goes_on(cube, tmp_path: Path) -> None:
    recipe = {"emcube": 1, "steps": STEPS[:2]}
    whole = em.run(recipe, cube, out=tmp_path / "whole")
    from emcube.errors import InterruptedRunError

    def stop(event: Any) -> None:
        if event.name.startswith("uncertainty: write maps") and event.kind == "block":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError), listen(stop):
        em.run(recipe, cube, out=tmp_path / "again")
    again = em.run(recipe, cube, out=tmp_path / "again")
    for name in whole["uncertainty"].data_vars:
        np.testing.assert_array_equal(whole["uncertainty"][name], again["uncertainty"][name])
