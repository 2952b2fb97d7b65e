"""The simulated cluster: what must come out of it, and that its figures are those of the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.cluster import Cluster, Round, simulate

ROOT = Path(__file__).parents[2]
PLAIN = Cluster(1, None, 1e-3, 0.01, 1e12, 1e12, 1e9, most=1)
ROUND = Round("gram", 64, 0.1, 0.0, 8e6, 1e-3, 0.5)


def test_one_worker_does_one_after_the_other() -> None:
    found = simulate(PLAIN, ROUND)
    assert found.map == pytest.approx(64 * 0.1 + 63 * 1e-3)
    assert found.map < found.rounds < found.map + 0.1
    assert found.moved_bytes == 0


def test_quick_groups_go_together_and_slow_ones_alone() -> None:
    together = replace(PLAIN, most=256, task_seconds=0.01)
    quick = replace(ROUND, map_seconds=1e-3)
    assert simulate(together, quick).rounds < simulate(replace(together, most=1), quick).rounds / 3
    slow = replace(ROUND, map_seconds=2.0)
    alone = simulate(replace(together, most=1), slow)
    assert simulate(together, slow).rounds == pytest.approx(alone.rounds, rel=0.01)


def test_two_workers_halve_it_and_move_one_statistic() -> None:
    one, two = simulate(PLAIN, ROUND), simulate(replace(PLAIN, workers=2), ROUND)
    assert 1.8 < one.rounds / two.rounds <= 2.0
    assert two.moved_bytes == ROUND.statistic
    dealt = simulate(replace(PLAIN, workers=2, runs=False), ROUND)
    assert dealt.moved_bytes >= 32 * ROUND.statistic


def test_cores_bound_what_processes_do() -> None:
    two = simulate(replace(PLAIN, workers=2, cores=2), ROUND)
    four = simulate(replace(PLAIN, workers=4, cores=2), ROUND)
    assert four.rounds == pytest.approx(two.rounds, rel=0.1)


def test_each_limit_is_a_bound() -> None:
    many = replace(PLAIN, workers=64)
    slow = simulate(replace(many, task_seconds=0.05), ROUND)
    assert slow.rounds >= 127 * 0.05
    read = simulate(replace(many, storage=1e8), replace(ROUND, read_bytes=1e7))
    assert read.rounds >= 64 * 1e7 / 1e8
    thin = simulate(replace(many, link=1e7), ROUND)
    assert thin.rounds >= ROUND.statistic / 1e7
    assert simulate(many, ROUND).rounds < min(slow.rounds, read.rounds, thin.rounds)


def test_workers_beyond_the_tasks_gain_nothing() -> None:
    at_most = simulate(replace(PLAIN, workers=64), ROUND)
    more = simulate(replace(PLAIN, workers=256), ROUND)
    assert more.rounds == pytest.approx(at_most.rounds, rel=0.05)


def test_page_holds_the_measured_figures() -> None:
    found = json.loads((scaling.RESULTS / "scaling.json").read_text())
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- figures -->\n(.*?)<!-- end of figures -->", page, re.DOTALL)
    assert block is not None
    assert block[1].strip() == scaling.markdown(found).strip()
    assert (scaling.RESULTS / "scaling.png").stat().st_size > 20_000


def test_model_agrees_with_what_it_was_fitted_to() -> None:
    """Analysed anew the measurement gives the same model, and that gives the measured times."""
    found = json.loads((scaling.RESULTS / "scaling.json").read_text())
    model = scaling.fit(found)
    assert model == found["model"]
    for row in scaling.validate(found, model):
        assert row["simulated"] == pytest.approx(row["measured"], rel=0.35)
