"""Groups stay where they are as far as that can be."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from emcube.engine.placement import Homes


def homes(n, **threads):
    it = Homes(n)
    it.update(threads)
    return it


def placed(it):
    return [it[g] for g in range(it.n_groups)]


def test_neighbours_share_a_worker_and_shares_go_by_threads():
    it = homes(12, a=1, b=2, c=1)
    assert placed(it) == ["a"] * 3 + ["b"] * 6 + ["c"] * 3


def test_a_lost_worker_moves_its_own_groups_alone():
    it = homes(30, a=1, b=1, c=1)
    before = placed(it)
    it.update({"a": 1, "c": 1})
    after = placed(it)
    assert all(x == y for x, y in zip(before, after, strict=True) if x != "b")
    assert Counter(after) == {"a": 15, "c": 15}


def test_a_new_worker_gets_its_share_and_no_other_group_moves():
    it = homes(30, a=1, b=1)
    before = placed(it)
    it.update({"a": 1, "b": 1, "c": 1})
    after = placed(it)
    assert Counter(after) == {"a": 10, "b": 10, "c": 10}
    assert all(x == y or y == "c" for x, y in zip(before, after, strict=True))


def test_a_worker_that_takes_the_place_of_another_gets_its_groups():
    it = homes(30, a=1, b=1, c=1)
    before = placed(it)
    it.update({"a": 1, "c": 1, "d": 1})
    assert placed(it) == [{"b": "d"}.get(w, w) for w in before]


def test_all_lost_is_dealt_anew():
    it = homes(4, a=1)
    it.update({"x": 1, "y": 1})
    assert placed(it) == ["x", "x", "y", "y"]


@given(
    n=st.integers(1, 60),
    steps=st.lists(
        st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 4), min_size=1), min_size=1
    ),
)
def test_every_group_has_a_worker_that_is_there_whatever_comes_and_goes(n, steps):
    it = Homes(n)
    for threads in steps:
        it.update(threads)
        assert set(placed(it)) <= threads.keys()
