"""The benchmark of many blocks, with few of them."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.many_blocks import LIMITS, main, measure, over, plan_of, table
from emcube.engine import plan as planning


@pytest.fixture
def few_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_GROUPS", 40)


def test_it_measures_and_its_answers_are_right(few_groups: None) -> None:
    found = measure(1000, 1, state_size=80_000)
    plan = plan_of(1000)
    assert (found["n_blocks"], found["n_groups"]) == (plan.n_blocks, len(plan.groups))
    assert 10 <= len(plan.groups) <= 40
    assert [r["run"] for r in found["runs"]] == ["sums", "sums and maps", "maps"]
    for run in found["runs"]:
        # Quick groups share tasks; what joins them costs as many again at most.
        assert 0 < run["n_tasks"] <= 2 * len(plan.groups)
        assert 0 < run["longest_pause"] < run["seconds"]
        assert run["client_stood_still"] >= 0
        assert run["task_bytes"] > 100
    # Two arrays, of which each group writes one chunk.
    assert [r["n_files"] for r in found["runs"]] == [0, 2 * len(plan.groups), 2 * len(plan.groups)]
    assert set(found["peak_bytes"]) == {"client", "scheduler", "worker"}
    assert all(n > 1e7 for n in found["peak_bytes"].values())
    assert json.loads(json.dumps(found)) == found
    assert f"{plan.n_blocks} blocks in {len(plan.groups)} groups" in table(found)


def test_what_exceeds_the_limits_is_said() -> None:
    run = {
        "run": "maps",
        "longest_pause": 0.1,
        "client_stood_still": 0.1,
        "scheduler_stood_still": 0.0,
    }
    found = {"runs": [run], "peak_bytes": {"client": 10, "scheduler": 10, "worker": 10**12}}
    assert over(found) == []
    found["peak_bytes"] = {"client": 10, "scheduler": int(1.5 * LIMITS["memory"]), "worker": 1}
    run["longest_pause"] = 2.5
    assert over(found) == ["the scheduler held 1500 MB", "maps: longest pause 2.5 s"]


def test_a_million_blocks_make_a_few_thousand_tasks_and_files() -> None:
    plan = plan_of(1_000_000)
    assert plan.n_blocks == 1_000_000
    assert len(plan.groups) == 4000
    for pixel_bytes in (8, 8 * 20):
        shape = plan.output_shape(pixel_bytes)
        n_files = math.prod(-(-n // s) for n, s in zip(plan.nav_shape, shape, strict=True))
        assert n_files == 4000


def test_usage() -> None:
    with pytest.raises(SystemExit):
        main(["--blocks", "many"])
