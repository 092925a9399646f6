from __future__ import annotations

import math

import pytest
import torch
from tests.net import Net
from torch import nn
from torch.nn import functional as F
from torchvision.models import googlenet

import torchgraft as tg
from torchgraft.rules.rule import DataFacts

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(8) % 3


def found(model, data=None, **settings):
    return {finding.code: finding for finding in tg.check(model, X, data=data, **settings)}


def ending(*last, width=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), *last)


@pytest.mark.parametrize(
    "model",
    [
        ending(nn.Softmax(1)),
        ending(nn.Softmax(1), nn.Dropout(0.1), nn.Flatten()),
        nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 3), nn.Softmax(dim=-1))),
        Net(lambda s, x: F.softmax(s.a(x), 1), a=nn.Linear(6, 3)),
        Net(lambda s, x: torch.softmax(s.a(x), 1).squeeze(), a=nn.Linear(6, 3)),
    ],
)
def test_a_softmax_before_cross_entropy_is_told_with_its_floor(model):
    told = found(model, loss=nn.CrossEntropyLoss())["H001"]
    assert told.severity == "warning"
    assert any(f"{math.log(math.e + 2) - 1:.4f}" in fact for fact in told.facts)
    assert found(model, (X, CLASSES), loss=F.cross_entropy)["H001"] == told


def test_a_softmax_made_by_hand_is_told_by_its_values():
    def forward(s, x):
        raised = s.a(x).exp()
        return raised / raised.sum(1, keepdim=True)

    model = Net(forward, a=nn.Linear(6, 3))
    assert "H001" not in found(model, loss=F.cross_entropy)
    assert "adds up to 1" in found(model, (X, CLASSES), loss=F.cross_entropy)["H001"].facts[0]


@pytest.mark.parametrize(
    ("last", "loss", "severity"),
    [
        (nn.Softmax(1), None, "warning"),
        (nn.Softmax(1), nn.MSELoss(), None),
        (nn.LogSoftmax(1), None, "note"),
        (nn.LogSoftmax(1), nn.CrossEntropyLoss(), "note"),
        (nn.LogSoftmax(1), nn.NLLLoss(), None),
        (nn.LogSoftmax(1), F.nll_loss, None),
        (nn.Sigmoid(), None, "note"),
        (nn.Sigmoid(), nn.BCELoss(), None),
        (nn.Sigmoid(), nn.BCEWithLogitsLoss(), "warning"),
        (nn.Sigmoid(), F.cross_entropy, "warning"),
        (nn.ReLU(), None, None),
    ],
)
def test_what_ends_a_model_is_judged_by_its_loss(last, loss, severity):
    told = found(ending(last), loss=loss).get("H001")
    assert (told and told.severity) == severity


def test_the_title_says_what_stands_before_what():
    assert found(ending(nn.Sigmoid()), loss=nn.BCEWithLogitsLoss())["H001"].title == (
        "sigmoid before binary_cross_entropy_with_logits"
    )
    assert found(ending(nn.Softmax(1)))["H001"].title == "softmax before cross-entropy"


def test_a_sigmoid_before_a_loss_with_logits_is_told_by_its_values():
    model = Net(lambda s, x: 1 / (1 + (-s.a(x)).exp()), a=nn.Linear(6, 3))
    targets = F.one_hot(CLASSES, 3).float()
    assert "H001" in found(model, (X, targets), loss=lambda out, y: F.binary_cross_entropy_with_logits(out, y))


def test_scores_of_a_classifier_that_go_into_another_layer_are_told():
    model = nn.Sequential(nn.Linear(6, 1000), nn.Linear(1000, 3))
    assert "H002" in found(model)
    assert "H002" in found(nn.Sequential(nn.Linear(6, 1000), nn.Dropout(), nn.Linear(1000, 3)))
    assert "H002" not in found(nn.Sequential(nn.Linear(6, 1000), nn.ReLU(), nn.Linear(1000, 3)))


@pytest.mark.parametrize(("classes", "severity"), [(7, "error"), (2, "warning"), (3, None)])
def test_outputs_are_counted_against_the_classes(classes, severity):
    facts = DataFacts(classes=classes, labels=(0, classes - 1))
    told = {one.code: one for one in tg.load(ending(), input=(6,)).check(facts=facts)}.get("H003")
    assert (told and told.severity) == severity


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Dropout(0.5), nn.ReLU(inplace=True)])
def test_what_follows_the_output_layer_is_told_where_a_loss_is_known(last):
    assert "H004" in found(ending(last), loss=F.cross_entropy)
    assert "H004" in found(ending(last), (X, CLASSES))
    assert "H004" not in found(ending(last))


def test_a_quantity_may_be_positive_only():
    assert "H004" not in found(ending(nn.ReLU(), width=1), (X, torch.rand(8, 1)), loss=nn.MSELoss())


@pytest.mark.parametrize(
    ("loss", "wanted"), [(nn.NLLLoss(), "log-probabilities"), (nn.BCELoss(), "values in 0 … 1")]
)
def test_raw_scores_are_told_to_a_loss_that_wants_others(loss, wanted):
    targets = CLASSES if isinstance(loss, nn.NLLLoss) else F.one_hot(CLASSES, 3).float()
    told = found(ending(), (X, targets), loss=loss)
    assert wanted in told["H005"].facts[0]
    assert "T001" not in told
    assert found(ending(), loss=loss)["H005"].severity == "warning"


def test_probabilities_given_to_nll_are_told():
    assert "H005" in found(ending(nn.Softmax(1)), (X, CLASSES), loss=lambda out, y: F.nll_loss(out, y))


def test_cross_entropy_of_one_output_is_told():
    zeros = torch.zeros(8, dtype=torch.long)
    assert found(ending(width=1), (X, zeros), loss=F.cross_entropy)["H006"].is_error
    assert "H006" in found(ending(width=1), loss=nn.CrossEntropyLoss())
    assert "H006" not in found(ending(width=1), (X, zeros.float()), loss=lambda o, y: F.mse_loss(o[:, 0], y))


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return {"out": self.layer(x), "aux": self.layer(x)}


def test_an_output_that_the_loss_does_not_take_is_told():
    told = found(Several(), (X, CLASSES), loss=F.cross_entropy)
    assert told["H007"].is_error
    assert "T001" not in told
    assert found(Several(), (X, CLASSES))["H007"].severity == "note"
    assert "H007" not in found(Several(), (X, CLASSES), loss=lambda out, y: F.cross_entropy(out["out"], y))


def test_the_scores_are_taken_out_by_the_names_of_this_very_output():
    both = found(Several(), (X, CLASSES), loss=F.cross_entropy)["H007"].hint
    assert both.endswith('loss(out["out"], y) + 0.3 * loss(out["aux"], y)')
    pair = Net(lambda s, x: (s.a(x), x), a=nn.Linear(6, 3))
    assert found(pair, (X, CLASSES), loss=F.cross_entropy)["H007"].hint.endswith("loss(out[0], y)")


def test_auxiliary_heads_are_told_once_and_not_as_cut_off():
    model = googlenet(weights=None, init_weights=False, num_classes=5)
    data = torch.randn(4, 3, 64, 64), torch.arange(4)
    told = tg.check(model, data=data, loss=nn.CrossEntropyLoss())
    assert [(one.code, one.severity) for one in told if one.code != "P017"] == [("H007", "error")]


def test_auxiliary_heads_are_told_where_a_loss_is_given():
    model = googlenet(weights=None, init_weights=False, num_classes=5)
    (told,) = tg.check(model, (3, 64, 64), loss=nn.CrossEntropyLoss())
    assert (told.code, told.severity) == ("H007", "warning")


@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), F.l1_loss, nn.SmoothL1Loss(), lambda out, y: (out - y).pow(2).mean()]
)
def test_a_column_against_a_row_is_told(loss):
    torch.manual_seed(0)
    told = found(ending(width=1), (X, torch.randn(8)), loss=loss)
    assert "[8, 1] and [8]" in told["H008"].facts[0]
    assert "H008" not in found(ending(width=1), (X, torch.randn(8, 1)), loss=loss)


def test_class_numbers_in_a_distance_are_told():
    assert "H009" in found(ending(width=1), (X, CLASSES), loss=lambda out, y: F.mse_loss(out[:, 0], y))
    assert "H009" not in found(ending(width=1), (X, CLASSES / 3), loss=lambda out, y: F.mse_loss(out[:, 0], y))


def test_a_state_that_keeps_its_layers_first_is_told_to_be_spread():
    model = Net(lambda s, x: s.a(x[:, None])[1], a=nn.GRU(6, 1, num_layers=2, batch_first=True))
    told = found(model, (X, torch.randn(8, 1)), loss=nn.MSELoss())["H008"]
    assert (told.severity, "outputs[-1]" in told.hint) == ("warning", True)
    mixed = found(model, (X, torch.randn(8)), loss=nn.MSELoss())["H008"]
    assert (mixed.severity, "outputs[-1].reshape([8])" in mixed.hint) == ("error", True)


def test_one_target_for_several_outputs_is_told():
    told = found(ending(), (X, torch.randn(8, 1)), loss=nn.MSELoss())["H008"]
    assert (told.severity, told.facts[1]) == ("warning", "one target stands for several outputs")
    assert "H008" not in found(ending(), (X, torch.randn(8, 3)), loss=nn.MSELoss())
    assert "H008" not in found(ending(), (X, torch.randn(8, 3)), loss=lambda o, y: F.mse_loss(o, y.new_zeros(())))


def test_a_forward_without_return_is_told():
    def run(self, x):
        self.a(x)

    told = found(Net(run, a=nn.Linear(6, 3)))["H010"]
    assert (told.severity, told.facts[1]) == ("warning", "the last that is made is [N, 3], by a")
    real = found(Net(run, a=nn.Linear(6, 3)), (X, CLASSES), loss=nn.CrossEntropyLoss())
    assert (real["H010"].severity, "T001" in real) == ("error", False)
