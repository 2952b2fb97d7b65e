"""Groups stay where they are as far as that can be."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from emcube.engine.placement import Homes, groups_of_task, take_first, take_last


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


def is_node(run, n):
    size = len(run)
    return size & (size - 1) == 0 and run.start % size == 0 and run.stop <= n


@given(
    pending=st.sets(st.integers(0, 99), min_size=1).map(sorted),
    wanted=st.integers(1, 64),
    take=st.sampled_from([take_first, take_last]),
)
def test_what_is_taken_is_the_largest_node_at_that_end(pending, wanted, take):
    left = deque(pending)
    run = take(left, wanted)
    assert sorted([*left, *run]) == pending
    assert is_node(run, 100)
    assert len(run) <= wanted
    assert (run[0] == pending[0]) if take is take_first else (run[-1] == pending[-1])
    size = 2 * len(run)
    larger = (
        range(run[0], run[0] + size)
        if take is take_first
        else range(run[-1] + 1 - size, run[-1] + 1)
    )
    assert size > wanted or not is_node(larger, 100) or not set(larger) <= set(pending)


def test_tasks_of_quick_groups_take_many_and_fewer_towards_the_end():
    assert groups_of_task(1000, 1, None, 2) == 1
    sizes, left = [], 1000
    while left:
        sizes.append(min(left, groups_of_task(left, 1, 200.0, 2)))
        left -= sizes[-1]
    assert sizes[0] == 100  # a second
    assert min(sizes[:-1]) == 10  # a tenth
    assert sizes == sorted(sizes, reverse=True)


def test_groups_that_take_long_go_alone():
    assert groups_of_task(1000, 1, 0.5, 1) == 1
    assert groups_of_task(1000, 2, 20.0, 4) == 5
    assert groups_of_task(9, 2, 20.0, 4) == 1


def test_many_workers_are_not_kept_waiting_by_the_handing_out():
    # A group of each thread in a second, or in seven: slow blocks, or a scheduler that does no more.
    assert groups_of_task(100, 1, 1000.0, 1000) == 20
    assert groups_of_task(40, 1, 150.0, 1000) == 3
    assert groups_of_task(4, 1, 150.0, 1000) == 2
