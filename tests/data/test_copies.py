"""Samples of one content: they are never on both sides of a drawn split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torchgraft.data.base import hold_out
from torchgraft.data.copies import apart, copies

some = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["", "a", "b", "c", "d"])), min_size=8, max_size=30)


def drawn(targets: list[int], contents: list[str], seed: int = 0) -> tuple[list[int], list[int]]:
    keys = [f"{number}.png" for number in range(len(targets))]
    return apart(targets, contents, task="classes", seed=seed, where="here", keys=keys)


@given(some, st.integers(0, 3))
def test_no_sample_is_lost_and_no_content_of_a_class_is_on_both_sides(
    pairs: list[tuple[int, str]], seed: int
) -> None:
    targets, contents = [target for target, _ in pairs], [content for _, content in pairs]
    train, val = drawn(targets, contents, seed)
    assert sorted(train + val) == list(range(len(pairs)))
    assert val
    different = {pair if pair[1] else (pair[0], number) for number, pair in enumerate(pairs)}
    if len(different) > len(set(targets)):
        trained = {pairs[place] for place in train if pairs[place][1]}
        assert not trained & {pairs[place] for place in val}


def test_where_all_contents_differ_the_split_is_that_of_hold_out() -> None:
    targets, keys = [0, 1] * 10, [f"{number}.png" for number in range(20)]
    contents = [str(number) for number in range(20)]
    assert drawn(targets, contents) == hold_out(targets, seed=0, where="here", keys=keys)


def test_copies_are_counted_where_their_content_is_known() -> None:
    assert copies([b"x", b"", b"y"], [b"", b"y", b"y", b"z"]) == 2
