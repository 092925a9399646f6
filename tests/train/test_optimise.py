from __future__ import annotations

import pytest
import torch
from torch import nn

from torchgraft.errors import TrainError
from torchgraft.recipe import TrainPlan
from torchgraft.train.loop import check_training
from torchgraft.train.optimise import optimizer_of


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"optimizer": "lbfgs"}, r"can't train with lbfgs: it evaluates the loss several times(.|\n)*adamw"),
        ({"optimizer": "SparseAdam"}, "can't train with SparseAdam: it takes sparse gradients only"),
        ({"optimizer": "adamm"}, "did you mean adam"),
        ({"optimizer": {"sgd": {"momentum": "x"}}}, "sgd does not take these settings"),
        ({"optimizer": {"adam": {"betas": 3}}}, "adam does not take these settings"),
        ({"device": "meta"}, "there is no device 'meta' here"),
        ({"device": "gpu"}, "there is no device 'gpu' here"),
    ],
)
def test_what_can_not_train_is_told_before_anything_is_loaded(settings, match):
    with pytest.raises(TrainError, match=match):
        check_training(TrainPlan(data="x", **settings))


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "adagrad", "nadam", "adafactor"])
def test_an_optimizer_of_torch_is_built_by_its_name_in_small_letters(name):
    groups = [{"params": [nn.Parameter(torch.zeros(2, 2))]}]
    assert type(optimizer_of(TrainPlan(data="x", optimizer=name), groups)).__name__.lower() == name
