from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import RecipeError


def test_any_model_is_checked_in_one_line():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 6, 3))
    assert [finding.code for finding in tg.check(model, torch.randn(2, 3, 9, 9))] == ["S001"]
    assert tg.check("resnet18@none", (3, 64, 64)) == ()


def test_a_test_suite_asserts_that_a_model_fits():
    tg.testing.assert_fits(nn.Linear(3, 4), torch.randn(2, 3))
    with pytest.raises(AssertionError, match="features do not match"):
        tg.testing.assert_fits(nn.Linear(3, 4), torch.randn(2, 5))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, left, right):
        return self.a(left) + self.b(right)


def test_a_tuple_of_inputs_is_given_one_after_the_other():
    left, right, labels = torch.randn(8, 4), torch.randn(8, 5), torch.arange(8) % 3
    assert tg.check(Pair(), data=((left, right), labels)) == ()
    rows = [((left[row], right[row]), labels[row]) for row in range(8)]
    assert tg.check(Pair(), data=torch.utils.data.DataLoader(rows, batch_size=4, shuffle=True)) == ()


def given(name):
    model = nn.Linear(4, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    made = {
        "schedule": torch.optim.lr_scheduler.StepLR(sgd, 1),
        "class": torch.optim.SGD,
        "name": "adam",
        "among": [sgd, "adam"],
        "parameters": model.parameters(),
    }
    return model, made[name]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("schedule", r"a StepLR is no optimizer(.|\n)*its \.optimizer"),
        ("class", r"the class SGD is no optimizer(.|\n)*SGD\(model\.parameters"),
        ("name", "a str is no optimizer"),
        ("among", "a str is no optimizer"),
        ("parameters", "a Parameter is no optimizer"),
    ],
)
def test_what_is_no_optimizer_is_refused(name, match):
    model, optimizer = given(name)
    with pytest.raises(RecipeError, match=match):
        tg.check(model, (4,), optimizer=optimizer)


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (nn.CrossEntropyLoss, r"the class CrossEntropyLoss is no loss(.|\n)*CrossEntropyLoss\(\)"),
        ("cross", "a str is no loss"),
        (3, "an int is no loss"),
    ],
)
def test_what_is_no_loss_is_refused(loss, match):
    with pytest.raises(RecipeError, match=match):
        tg.check(nn.Linear(4, 3), (4,), loss=loss)
