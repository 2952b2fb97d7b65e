"""The benchmarks run and judge rightly; without HyperSpy, which has an environment of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import comparison
from benchmarks.__main__ import main
from benchmarks.readme import BEGIN, END, with_table
from benchmarks.reference import weighted_directions, worst_angle


def test_smoke(tmp_path, capsys):
    results = tmp_path / "figures.json"
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    what = ["--scale", "0.005", "--without-peer", "--only", "emcube-pca"]
    main(["compare", *what, "--results", str(results), "--write", str(readme)])
    capsys.readouterr()
    (row,) = json.loads(results.read_text())["methods"]
    assert row["subspace_deg"] < 0.01
    assert row["seconds"] > 0
    assert 20e6 < row["peak_bytes"] < 4e9
    assert row["versions"]["emcube"]
    text = readme.read_text()
    assert "IncrementalPCA" in text
    assert "old" not in text
    assert text.startswith("before")
    main(["table", "--results", str(results)])
    assert capsys.readouterr().out.strip() in text


def test_exact_directions_are_those_of_the_dense_matrix():
    rng = np.random.default_rng(0)
    shapes = rng.dirichlet(np.full(30, 0.5), 3)
    counts = rng.poisson(80 * rng.dirichlet(np.ones(3), 500) @ shapes)
    vectors, h = weighted_directions(counts, 3)
    g = counts.sum(axis=1, keepdims=True)
    weighted = counts / np.sqrt(np.maximum(g, 1)) / np.sqrt(np.maximum(h, 1))
    _, _, expected = np.linalg.svd(weighted, full_matrices=False)
    np.testing.assert_allclose(np.abs(vectors @ expected[:3].T), np.eye(3), atol=1e-9)
    assert worst_angle(expected[:3] * np.sqrt(np.maximum(h, 1)), vectors, h) < 1e-5


def test_worst_angle_sees_a_turned_direction():
    vectors = np.eye(4)[:2]
    turned = np.array([[1.0, 0, 0, 0], [0, np.cos(0.1), np.sin(0.1), 0]])
    assert worst_angle(turned, vectors, np.ones(4)) == pytest.approx(np.rad2deg(0.1))


def test_ratios_are_to_our_own_method():
    def row(name: str, seconds: float, **rest: float) -> dict[str, object]:
        versions = {
            "numpy": "2",
            "numba": "1",
            "emcube": "0",
            "hyperspy": "2.5",
            "scikit-learn": "1",
        }
        angles = {"subspace_deg": 0.001, "truth_deg": 12.0, **rest}
        used = {"seconds": seconds, "cpu_seconds": seconds, "peak_bytes": 10**9}
        return {"method": name, **used, **angles, "versions": versions}

    text = comparison.markdown(
        {
            "scene": {
                "shape": [4, 5, 6],
                "counts_per_pixel": 300,
                "dense_bytes": 120,
                "dtype": "uint8",
            },
            "machine": {"cores": 2, "processor": "P", "memory_GiB": 4.0, "system": "S"},
            "load_before_and_after": [0.5, 0.6],
            "repeat": 1,
            "methods": [row("emcube-pca", 2.0), row("hyperspy-svd", 9.0, subspace_deg=35.0)],
        }
    )
    assert "| 2.0 s | 2.0 s | 1.00 GB | < 0.01° |" in text
    assert "| 9.0 s (4.5 x) | 9.0 s (4.5 x) | 1.00 GB | 35.0° |" in text


def test_a_file_without_markers_is_refused():
    with pytest.raises(ValueError, match="0 times"):
        with_table("no markers", "table")
