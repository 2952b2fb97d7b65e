"""Limits, bounded calls, and who must go when workers cannot reach each other."""

import time

import pytest

from emcube.engine.health import Limits, bounded, outvoted
from emcube.errors import InputError


def test_limits_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("EMCUBE_LIMITS", "workers=600, task=900,deaths=20")
    assert Limits.from_environment() == Limits(workers=600, task=900, deaths=20)
    monkeypatch.setenv("EMCUBE_LIMITS", "")
    assert Limits.from_environment() == Limits()


@pytest.mark.parametrize(
    "text",
    [
        "worker=3",
        "workers",
        "task=soon",
        "silence=0",
        "deaths=-1",
        "deaths=inf",
        "deaths=0.5",
        "silence=inf",
        "silence=1e30",
        "workers=inf",
        "workers=nan",
        "task=604801",
        "deaths=2.5",
    ],
)
def test_limits_that_are_none_are_refused(text, monkeypatch):
    monkeypatch.setenv("EMCUBE_LIMITS", text)
    with pytest.raises(
        InputError, match="expected numbers above zero by name: workers, silence"
    ) as e:
        Limits.from_environment()
    assert repr(text) in str(e.value)
    assert "at most 604800" in str(e.value)
    assert e.value.hint


def test_a_bounded_call_ends():
    looks = []
    with pytest.raises(TimeoutError):
        bounded(lambda: time.sleep(60), 1.5, meanwhile=lambda: looks.append(1))
    assert looks
    assert bounded(lambda: 5, 60) == 5
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 / 0, 60)


def test_the_fewest_are_outvoted():
    assert outvoted([]) == []
    # One that nobody reaches.
    assert outvoted([("a", "c"), ("b", "c"), ("c", "a")]) == ["c"]
    # Two halves: one of them goes whole.
    split = [(x, y) for x in "ab" for y in "cd"]
    assert set(outvoted(split)) in ({"a", "b"}, {"c", "d"})
