from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcube.engine.combine import TreeCombiner
from emcube.errors import EngineError


@given(st.integers(1, 70).flatmap(lambda n: st.permutations(range(n))))
def test_the_tree_does_not_depend_on_the_order_of_arrival(order):
    def shape(arrivals):
        tree = TreeCombiner(len(arrivals), lambda a, b: f"({a} {b})")
        for i in arrivals:
            tree.add(i, str(i))
        return tree.root

    assert shape(order) == shape(sorted(order))


def test_known_tree():
    tree = TreeCombiner(5, lambda a, b: (a, b))
    for i in (4, 2, 0, 3, 1):
        tree.add(i, i)
    assert tree.root == (((0, 1), (2, 3)), 4)


@given(n=st.integers(1, 70), data=st.data())
def test_several_leaves_at_once_make_the_same_tree(n, data):
    def shape(first, size):
        tree = TreeCombiner(size, lambda a, b: f"({a} {b})")
        for i in range(size):
            tree.add(i, str(first + i))
        return tree.root

    tree, first, runs = TreeCombiner(n, lambda a, b: f"({a} {b})"), 0, []
    while first < n:
        fits = [s for s in (1, 2, 4, 8, 16, 32, 64) if first % s == 0 and first + s <= n]
        runs.append((first, data.draw(st.sampled_from(fits))))
        first += runs[-1][1]
    for first, size in data.draw(st.permutations(runs)):
        tree.add(first, shape(first, size), size)
    assert tree.root == shape(0, n)


@pytest.mark.parametrize(("first", "size"), [(0, 3), (2, 4), (8, 4), (4, 8)])
def test_leaves_that_are_no_node_are_refused(first, size):
    tree = TreeCombiner(10, lambda a, b: a + b)
    with pytest.raises(EngineError, match=f"parts {first} to {first + size - 1} are no node"):
        tree.add(first, 0, size)


def test_a_leaf_that_came_with_others_does_not_come_again():
    tree = TreeCombiner(4, lambda a, b: a + b)
    tree.add(0, 1, 2)
    with pytest.raises(EngineError, match="part 1 of a round arrived twice"):
        tree.add(1, 1)


def test_a_part_twice_a_part_missing_and_no_parts_are_errors():
    tree = TreeCombiner(3, lambda a, b: a + b)
    tree.add(1, 1)
    with pytest.raises(EngineError, match="part 1 of a round arrived twice"):
        tree.add(1, 1)
    with pytest.raises(EngineError, match="2 parts of a round are missing"):
        _ = tree.root
    with pytest.raises(EngineError, match="no blocks"):
        TreeCombiner(0, lambda a, b: a)
