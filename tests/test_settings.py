from __future__ import annotations

import pytest

from torchgraft.errors import RecipeError
from torchgraft.settings import check_settings, settings_of, taken


def refusal(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as refused:
        check_settings(settings_of([text]), where="--set {}=…")
    return refused.value


@pytest.mark.parametrize(
    ("text", "what", "do"),
    [
        ("seed=x", "seed: a whole number is needed, not 'x'", "from 0 to 4294967295"),
        ("seed=1.5", "seed: a whole number is needed, not 1.5", "from 0 to 4294967295"),
        ("seed=99999999999999999999", "seed: a number of 4294967295 or less", "from 0 to 4294967295"),
        ("seed=-1", "seed: a number of 0 or more is needed, not -1", "from 0 to 4294967295"),
        ("seed=" + "9" * 5000, "seed: a whole number is needed", "from 0"),
        ("input=[3,32,-1]", "input.2: a number of 1 or more is needed, not -1", "a list of positive sizes"),
        ("input=x", "input: a list is needed, not 'x'", "a list of positive sizes"),
        ("input=5", "input: a list is needed, not 5", "a list of positive sizes"),
        ("input=[0,3]", "input.0: a number of 1 or more is needed, not 0", "a list of positive sizes"),
        ("input=[3,32", "input: a list is needed, not '[3,32'", "a list of positive sizes"),
        ("train.epochs=0", "train.epochs: a number of 1 or more is needed, not 0", "write 1 or more"),
        ("train.schedule=slow", "one_cycle, step or plateau is needed, not 'slow'", "write cosine, constant"),
        ("train.optimizer={sgd: {lr: x}}", "train.optimizer.lr: a number is needed, not 'x'", "write a number"),
        ("train.optimizer={sgd: {}, adam: {}}", "an optimizer is one key", ""),
        ("train.groups=[{at: x, lrr: 1}]", "there is no key 'lrr'", "did you mean lr?"),
        ("preprocess.std=[0,1,1]", "a number of more than 0 is needed, not 0", "write more than 0"),
        ("preprocess.size=16", "preprocess.size: a list is needed, not 16", "write [a, b]"),
        ("head.hidden=3", "head.hidden: a list is needed, not 3", "write [a, b]"),
    ],
)
def test_a_value_that_its_place_does_not_take_is_told(text, what, do):
    told = refusal(text)
    assert what in told.what
    assert told.where == f"--set {text.partition('=')[0]}=…"
    assert do in told.hint


@pytest.mark.parametrize(
    ("text", "do"),
    [
        ("epochs=3", "did you mean train.epochs?"),
        ("epoch=3", "did you mean train.epochs?"),
        ("train.epoch=3", "did you mean train.epochs"),
        ("trian.epochs=3", "did you mean train.epochs?"),
        ("hidden=[3]", "did you mean head.hidden?"),
        ("at=x", "did you mean head.at or freeze.at?"),
        ("train.size=[3,3]", "did you mean preprocess.size?"),
        ("data=foo", "the data are named by --data"),
        ("train.data=foo", "the data are named by --data"),
        ("input.channels=5", "input=[3, 64, 64]"),
        ("train.optimizer.lr=1", "train.optimizer={sgd: {lr: 0.001}}"),
        ("head=3", "set one of head.classes, head.hidden, head.dropout, head.at"),
        ("unfreeze.at=fc", "head and freeze are the edits that can be set"),
        ("insert=x", "head and freeze are the edits that can be set"),
        ("=3", "one of seed, input"),
    ],
)
def test_a_path_that_can_not_be_set_names_one_that_can(text, do):
    told = refusal(text)
    assert told.what == f"there is no setting '{text.partition('=')[0]}'"
    assert do in told.hint


def test_every_member_is_named_once():
    assert refusal("frozen.at=x").hint.count("freeze.at") == 1


def test_a_value_that_is_not_yaml_is_taken_as_it_is():
    assert settings_of(["freeze.at=**"]) == {"freeze.at": "**"}


def test_a_group_is_taken_out_of_the_settings():
    given = {"train.batch": 3, "train.epochs": 2, "seed": 1}
    assert taken(given, "train") == {"batch": 3, "epochs": 2}
    assert given == {"seed": 1}
