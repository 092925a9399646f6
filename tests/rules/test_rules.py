from __future__ import annotations

import inspect

import pytest
import torch
from tests.net import Net
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import EditError
from torchgraft.rules.rule import DataFacts, rules


def findings(module, shape, data=None):
    return tg.load(module, input=shape).check(facts=data)


def codes(module, shape, data=None):
    return [finding.code for finding in findings(module, shape, data)]


def test_every_rule_has_a_code_a_title_and_an_explanation():
    for code, rule in rules().items():
        assert rule.code == code
        assert code[0] in "SWPHDTM"
        assert code[1:].isdigit()
        assert rule.title
        assert len(inspect.getdoc(rule)) > 40


@pytest.mark.parametrize(
    ("code", "module", "shape"),
    [
        ("S001", nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 6, 3)), (3, 9, 9)),
        ("S001", nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(5)), (3, 9, 9)),
        ("S001", nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 6)), (3, 9, 9)),
        ("S001", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(5, 6, 3)), (3, 9, 9)),
        ("S001", nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(8, 8, 3, groups=4)), (4, 9, 9)),
        ("S001", nn.Conv1d(3, 4, 3), (5, 9)),
        ("S002", nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5)), (3, 9, 9)),
        ("S002", nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 4, 4)),
        ("S002", nn.Sequential(nn.LayerNorm(7)), (3,)),
        ("S003", nn.Sequential(nn.Conv2d(3, 4, 7)), (3, 4, 4)),
        ("S003", nn.Sequential(nn.MaxPool2d(8)), (3, 4, 4)),
        ("S004", Net(lambda s, x: s.a(x) + s.b(x), a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 5, 3)), (3, 9, 9)),
        ("S004", Net(lambda s, x: torch.cat([s.a(x), s.b(x)], 1), a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 4, 5)), (3, 9, 9)),
        ("S007", nn.Sequential(nn.Flatten(), nn.Conv2d(3, 4, 3)), (3, 4, 4)),
        ("S099", nn.Sequential(nn.Unflatten(1, (2, 5))), (3,)),
    ],
)  # fmt: skip
def test_a_break_is_told_by_the_rule_of_its_cause(code, module, shape):
    assert codes(module, shape) == [code]


def test_batchnorm_with_one_value_a_channel_is_told():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    g = tg.load(model, input=torch.empty(1, 3, 9, 9))
    assert [finding.code for finding in g.check()] == ["S006"]


def test_a_finding_names_both_sides_and_the_maker():
    (found,) = findings(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(5, 6, 3)), (3, 9, 9))
    first, *others = str(found).splitlines()
    assert first.split("  ", 1)[0] == "error[S001] channels do not match"
    assert first.endswith("  Sequential / 2")
    assert others[:2] == ["  2 (Conv2d) takes 5 channels, but gets 4 of [N, 4, 7, 7]", "  made by  1 (ReLU)"]
    assert [line.split()[0] for line in others[2:-1]] == [fix.name for fix in found.fixes] != []
    assert others[-1].split(maxsplit=1) == ["do", "make the two agree: 5 channels out there, or 4 in here"]
    assert len({len(line) - len(line[2:].split(maxsplit=1)[1]) for line in others[2:]}) == 1  # one column


def test_the_model_that_fits_gives_no_finding():
    assert codes(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(196, 2)), (3, 9, 9)) == []


def test_an_input_of_the_wrong_channels_is_said_to_be_the_input():
    (found,) = findings(nn.Sequential(nn.Conv2d(3, 4, 3)), (1, 9, 9))
    assert "given as the model's input" in found.facts


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_a_softmax_at_the_end_is_told(last):
    assert codes(nn.Sequential(nn.Linear(3, 4), last), (3,)) == ["H001"]


def test_a_softmax_inside_is_not_told():
    assert codes(nn.Sequential(nn.Linear(3, 4), nn.Softmax(1), nn.Linear(4, 2)), (3,)) == []


def test_two_linear_layers_of_the_base_itself_are_not_told():
    assert codes(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), (3,)) == []


def test_everything_frozen_is_told():
    model = nn.Linear(3, 4).requires_grad_(False)
    assert codes(model, torch.empty(2, 3)) == ["P001"]


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("H003", DataFacts(classes=7, labels=(0, 6))),
        ("D002", DataFacts(classes=4, labels=(1, 4))),
        ("D003", DataFacts(classes=4, labels=(0, 3), counts=(9, 0, 0, 0))),
        ("D004", DataFacts(classes=4, labels=(0, 3), counts=(100, 9, 20, 20))),
        ("D005", DataFacts(classes=4, labels=(0, 3), shared=2)),
        ("D006", DataFacts(classes=4, labels=(0, 3), counts=(9, 9, 0, 9))),
        ("D001", DataFacts(4, (0, 3), normalisation=((0.5,), (0.5,)), trained_with=((0.485,), (0.225,)))),
    ],
)
def test_data_that_do_not_fit_are_told(code, data):
    assert code in codes(nn.Linear(3, 4), torch.empty(2, 3), data)


def test_labels_that_start_at_one_are_told_what_to_do():
    found = findings(nn.Linear(3, 4), torch.empty(2, 3), DataFacts(classes=4, labels=(1, 4)))
    assert any(finding.hint == "subtract 1 from every label" for finding in found)


def test_a_refusal_carries_its_findings(resnet18):
    with pytest.raises(EditError) as refused:
        resnet18.replace("layer4", nn.Conv2d(3, 4, 3))
    assert [finding.code for finding in refused.value.findings] == ["S001"]
    assert refused.value.findings[0].is_error


def test_a_layer_under_a_name_that_the_model_does_not_know_is_told():
    model = models.mobilenet_v3_small(weights=None)
    model.fc = nn.Linear(576, 10)
    (found,) = tg.check(model, (3, 64, 64))
    assert found.code == "P002"
    assert found.where.endswith("/ fc")
    assert "classifier.3" in found.hint


def test_a_layer_whose_attribute_was_set_is_told():
    model = models.resnet18(weights=None)
    model.fc.out_features = 10
    (found,) = tg.check(model, (3, 64, 64))
    assert found.code == "S011"
    assert "fc says 10 × 512, its weight is 1000 × 512" in found.facts


def test_one_image_without_its_batch_is_told():
    (found,) = tg.check(models.resnet18(weights=None), torch.empty(3, 64, 64))
    assert (found.code, found.hint) == ("S007", "add the batch dimension: x.unsqueeze(0)")


def test_a_shape_that_holds_the_batch_is_told():
    (found,) = tg.check(models.resnet18(weights=None), (1, 3, 64, 64))
    assert found.code == "S007"
    assert found.hint == "take a dimension out: a shape is given without the batch, such as (3, 64, 64)"


@pytest.mark.parametrize(
    ("op", "model", "shape"),
    [
        ("view", Net(lambda s, x: s.fc(s.conv(x).view(-1, 400)), conv=nn.Conv2d(3, 16, 3, padding=1), fc=nn.Linear(400, 10)), (3, 10, 10)),
        ("cat", Net(lambda s, x: s.fc(torch.cat([s.a(x), s.b(x)])), a=nn.Linear(8, 4), b=nn.Linear(8, 4), fc=nn.Linear(4, 5)), torch.empty(2, 8)),
    ],
)  # fmt: skip
def test_a_batch_that_is_folded_is_told_with_the_operation_that_did_it(op, model, shape):
    found = findings(model, shape)
    assert found[0].code == "S010"
    assert found[0].facts[0].startswith(f"{op} makes")


@pytest.mark.parametrize(
    "name", ["resnet18", "googlenet", "inception_v3", "vit_b_16", "swin_t", "squeezenet1_1", "densenet121"]
)
def test_models_as_they_come_give_no_finding(name):
    size = 299 if name == "inception_v3" else 224
    assert tg.check(f"{name}@none", (3, size, size)) == ()


def test_a_film_network_given_pictures_is_told_its_dimensions():
    (found,) = tg.check(models.video.r3d_18(weights=None), (3, 32, 32))
    assert (found.code, "[N, C, D, H, W]" in found.facts[0]) == ("S007", True)


@pytest.mark.parametrize("before", [False, True], ids=["hook", "pre-hook"])
def test_a_hook_that_changes_the_shape_is_the_cause_and_no_layer_is_bent_to_it(before):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    if before:
        model[1].register_forward_pre_hook(lambda module, given: (given[0][:, :4],))
    else:
        model[0].register_forward_hook(lambda module, given, output: output[:, :4])
    example = torch.randn(3, 8)
    finding = tg.check(model, example)[0]
    assert (finding.code, finding.severity, finding.fixes) == ("S024", "error", ())
    assert f"a hook of {int(before)} gave that, in place of what passes" in finding.facts
    with pytest.raises(tg.errors.EditError, match="let the hook return None"):
        tg.load(model, input=example).fix()
    words = [one.facts[0] for one in tg.check(model, example) if one.code == "S019"]
    assert [("pre-hook" in word) for word in words] == [before]


def test_a_hook_that_keeps_the_shape_is_not_blamed_for_a_break_behind_it():
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(8, 2))
    model[0].register_forward_hook(lambda module, given, output: output * 2)
    assert tg.check(model, torch.randn(3, 8))[0].code == "S002"


def test_an_assertion_about_no_image_asks_for_no_image():
    class Strict(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1] == 5, "five steps"
            return x

    (finding,) = tg.check(Strict(), torch.randn(2, 4, 3))
    assert finding.code == "S008"
    assert "image" not in finding.hint
    assert "images of the size" in tg.check(Strict(), torch.randn(2, 4, 3, 3))[0].hint


def test_an_embedding_that_is_given_no_whole_numbers_says_so():
    (finding,) = tg.check(nn.Sequential(nn.Embedding(50, 8)), torch.randn(3, 7))
    assert finding.code == "S012"
    assert "looks up whole numbers" in finding.facts[0]
    assert "x.long()" in finding.hint
