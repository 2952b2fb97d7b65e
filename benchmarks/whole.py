"""The whole recipe: number of components, PCA 20, NMF, k-means, as `emcube run` takes it."""

from __future__ import annotations

from typing import Any


def recipe(n_components: int, n_clusters: int) -> list[dict[str, Any]]:
    """Return the steps of the recipe."""
    return [
        {"estimate_n_components": {"method": "biwhitening"}},
        {"pca": {"n_components": 20, "noise": "poisson"}},
        {"nmf": {"n_components": n_components, "random_state": 0}},
        {"kmeans": {"n_clusters": n_clusters, "random_state": 0}},
    ]


STEPS = recipe(3, 4)


def settings(steps: list[dict[str, Any]]) -> str:
    """Steps in a line."""
    parts = []
    for step in steps:
        ((verb, options),) = step.items()
        parts.append(f"{verb}({', '.join(f'{k}={v!r}' for k, v in options.items())})")
    return " -> ".join(parts)
