from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
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


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, ids, mask=None):
        return self.layer(ids if mask is None else ids * mask)


def test_a_wrapper_takes_what_the_wrapped_model_takes():
    wrapped = nn.DataParallel(Pair())
    assert is_named({"ids": 1, "mask": 2}, wrapped)
    assert not is_named({"ids": 1, "other": 2}, wrapped)
    assert by_place({"mask": 2, "ids": 1}, wrapped) == (1, 2)
    assert tg.check(wrapped, {"ids": torch.zeros(3, 2), "mask": torch.ones(3, 2)}) == ()


def test_a_language_model_that_peft_wrapped_takes_named_arguments():
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=30
    )
    inner = transformers.BertForSequenceClassification(config)
    model = peft.get_peft_model(inner, peft.LoraConfig(target_modules=["query"], r=2))
    found = tg.check(model, {"input_ids": torch.zeros(2, 5, dtype=torch.long)})
    assert not [one for one in found if one.is_error]


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
