"""The benchmark of dense cubes runs at a tiny scale, and its components are those of the exact answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import cubes, dense


@pytest.mark.parametrize(
    "title", ["EELS PCA 20", "EELS NMF", "4D-STEM weighted PCA 6", "4D-STEM PCA 20"]
)
def test_each_work(tmp_path, title):
    found = dense.measure(0.002, tmp_path, repeat=1, threads=1, peers=False, only=(title,))[title]
    work = dense.WORKS[title]
    assert found["shape"] == list(cubes.CUBES[work["cube"]].shape_at(0.002))
    if work["model"] == "nmf":
        assert 1 <= found["residual_over_best_of_its_rank"] < 1.05
        return
    assert found["solver"] == ("randomized" if work["cube"] == "stem4d" else "gram")
    assert found["judged"] >= 3
    assert found["angle_deg"] < dense.TOLERANCE_DEG
    assert found["angle_deg"] < found["bound_deg"] + 1e-4


def test_peers_get_the_same_values(tmp_path, capsys):
    what = ["--folder", str(tmp_path), "--scale", "0.002", "--repeat", "1", "--threads", "1"]
    dense.main([*what, "--only", "EELS PCA 20, scikit-learn"])
    found = json.loads(capsys.readouterr().out)
    exact = found["EELS PCA 20, scikit-learn covariance_eigh"]
    assert exact["angle_deg"] < 2  # it works in float32
    assert found["EELS PCA 20, scikit-learn randomized"]["angle_deg"] < 90


def test_cubes_have_the_same_bits_however_they_are_cut():
    cube = cubes.STEM4D
    spectra = cubes.patterns(16, 12, cube.n_components)
    rows = (np.arange(9) + 0.5) / 9

    def draw(start, stop):
        info = [{"array-location": [(start, stop)]}]
        return cubes._draw(rows[start:stop], 7, spectra, 12.0, True, block_info=info)

    np.testing.assert_array_equal(draw(0, 9), np.concatenate((draw(0, 4), draw(4, 9))))
    np.testing.assert_allclose(spectra.mean(axis=(1, 2)), 1)
    assert draw(0, 9).dtype == np.uint16
