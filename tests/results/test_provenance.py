"""Identity of a run and the record of the stack."""

from __future__ import annotations

import json
from typing import Any

from emcube.results.provenance import ARITHMETIC, libraries, run_id, stack

GIVEN: dict[str, Any] = {
    "digest": "sha256:1",
    "recipe": {"steps": [{"nmf": {"n_components": 3}}]},
    "seeds": {"nmf": 0},
    "layout": {"block_shape": [1, 2]},
}


def test_run_id_hangs_on_each_of_its_parts() -> None:
    base = run_id(**GIVEN)
    assert base.startswith("sha256:")
    assert len(base) == 7 + 64
    others = {
        "digest": "sha256:2",
        "recipe": {"steps": []},
        "seeds": {"nmf": 1},
        "layout": {"block_shape": [2, 1]},
    }
    ids = {base} | {run_id(**{**GIVEN, key: value}) for key, value in others.items()}
    assert len(ids) == 5


def test_run_id_does_not_hang_on_the_order_of_keys() -> None:
    turned = {"b": 1, "a": {"d": 2, "c": 3}}
    ordered = {"a": {"c": 3, "d": 2}, "b": 1}
    assert run_id(**{**GIVEN, "recipe": turned}) == run_id(**{**GIVEN, "recipe": ordered})


def test_the_stack_is_json_without_paths() -> None:
    found = stack()
    text = json.dumps(found)
    assert "/home" not in text
    assert "site-packages" not in text
    assert found["blas"]
    assert all("architecture" in blas for blas in found["blas"])
    assert found["numba"]["cpu"]
    assert set(ARITHMETIC) <= set(libraries())
