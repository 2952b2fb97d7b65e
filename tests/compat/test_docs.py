"""The code of docs/scikit_learn.md runs, and what it says of its outcome holds."""

from __future__ import annotations

import re
from pathlib import Path

import dask.array as da
import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "scikit_learn.md"


def test_the_code_of_the_page_runs():
    text = PAGE.read_text(encoding="utf-8")
    names: dict = {}
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(code, PAGE.name, "exec"), names)
    assert names["labels"].shape == (600,)
    assert names["maps"].dims == ("y", "x")
    # Volumes that leave the components apart are as good as each other; one that does not is out.
    scores = names["gap"]
    assert abs(scores[0] - scores[1]) < 0.01
    assert scores[2] < min(scores[:2]) - 0.05
    assert names["search"].best_params_["volume"] < 10
    assert names["dealt"].best_params_ == {"volume": 1.0}
    assert isinstance(names["loadings"], da.Array)
    assert names["pca"].n_samples_seen_ == 600


def test_links_of_the_page_point_at_something():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).exists(), target


def test_the_scores_are_those_of_held_out_counts():
    """Dealing counts leaves two independent Poisson halves, and fractions are not lost."""
    from emcube.kernels.held_out import thin
    from emcube.kernels.poisson_nmf import as_rows

    rng = np.random.default_rng(0)
    counts = rng.poisson(20.0, (2000, 5))
    first, second = (part.to_dense() for part in thin(as_rows(counts), rng))
    np.testing.assert_array_equal(first + second, counts)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
    np.testing.assert_allclose([first.mean(), first.var()], 10.0, rtol=0.05)
    fractions = rng.gamma(0.5, size=(200, 5))
    first, second = (part.to_dense() for part in thin(as_rows(fractions), rng))
    np.testing.assert_allclose(first + second, fractions, rtol=1e-15)
    np.testing.assert_allclose(first.mean(), fractions.mean() / 2, rtol=0.2)
