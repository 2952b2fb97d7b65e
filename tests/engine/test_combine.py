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


def test_a_part_twice_a_part_missing_and_no_parts_are_errors():
    tree = TreeCombiner(3, lambda a, b: a + b)
    tree.add(1, 1)
    with pytest.raises(EngineError, match="part 1 of a round arrived twice"):
        tree.add(1, 1)
    with pytest.raises(EngineError, match="2 parts of a round are missing"):
        _ = tree.root
    with pytest.raises(EngineError, match="no blocks"):
        TreeCombiner(0, lambda a, b: a)
