"""Weighted PCA of the real FePt map against an eager SVD of the scaled matrix in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

import emcube as em

pytest.importorskip("rsciio", reason="instrument files need the extra 'vendor'")


def test_fept_equals_the_eager_svd(data_dir):
    cube = em.open(data_dir / "eds_tem_fept" / "core_shell.hspy")
    d = cube.values.reshape(-1, cube.shape[-1]).astype(np.float64)
    g, h, n = d.sum(axis=1), d.sum(axis=0), d.sum()
    h = np.where(h == 0, 1, h)
    _, s, vt = np.linalg.svd(
        d * np.sqrt(n / np.outer(np.where(g == 0, 1, g), h)), full_matrices=False
    )
    for chunks in (None, {"y": (5, 20, 39), "x": 64}):
        pca = em.IncrementalPCA(20, noise="poisson").fit(cube.chunk(chunks) if chunks else cube)
        values = pca.singular_values_.values**2
        assert np.abs(values - s[:20] ** 2).max() < 1e-6 * s[0] ** 2
        found = pca.components_.values[:3] * np.sqrt(n / h)
        assert np.degrees(subspace_angles(found.T, vt[:3].T).max()) < 0.01
