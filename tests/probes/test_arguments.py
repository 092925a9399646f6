from __future__ import annotations

import pytest
import torch
from torch import nn

from torchgraft.probes.arguments import by_place, is_named, needed, several


def taking(forward) -> nn.Module:
    model = nn.Module()
    model.forward = forward
    return model


def test_what_has_no_default_is_needed():
    assert needed(taking(lambda a, b, c=1, *more, **rest: None)) == ["a", "b"]


def test_a_dict_is_named_where_all_its_keys_are():
    pair = taking(lambda a, b=1: None)
    assert is_named({"a": 1}, pair)
    assert not is_named({"a": 1, "c": 2}, pair)
    assert not is_named({}, pair)
    assert is_named({"any": 1}, taking(lambda **rest: None))
    assert not is_named({"any": 1}, taking(lambda *more, **rest: None))


def test_named_arguments_are_put_in_order():
    model = taking(lambda a, b=7, c=8, *, d=9: None)
    assert by_place({"c": 3, "a": 1}, model) == (1, 7, 3)
    assert by_place({"c": 3}, model) is None
    assert by_place({"a": 1, "d": 4}, model) is None


@pytest.mark.parametrize(
    ("forward", "is_several"),
    [
        (lambda a, b: None, True),
        (lambda a, b, c=None: None, True),
        (lambda pair: None, False),
        (lambda pair, mask=None: None, False),
        (lambda a, b, c: None, False),
    ],
)
def test_a_pair_stands_for_several_arguments_where_one_is_not_enough(forward, is_several):
    assert several((torch.zeros(2), torch.zeros(2)), taking(forward)) is is_several
