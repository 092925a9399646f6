from __future__ import annotations

import torch
from torch import nn

import torchgraft as tg

IMAGE = (3, 16, 16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.fc = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def told(model, **given):
    return {finding.code: finding for finding in tg.check(model, IMAGE, **given)}


def frozen(model, *, but):
    model.requires_grad_(False)
    for name in but:
        model.get_submodule(name).requires_grad_(True)
    return model


def test_parameters_over_one_memory_are_named_with_the_way_to_tie_them():
    model = Net()
    model.features[2].bias.data = model.features[0].bias.data
    found = told(model)["P026"]
    assert found.facts == ("features.0.bias and features.2.bias are 2 parameters over the same values",)
    assert "features.2.bias = features.0.bias" in found.hint
    model.features[2].bias = model.features[0].bias
    assert "P026" not in told(model), "a parameter under two names is one"


def test_parameters_without_values_lie_in_no_memory():
    with torch.device("meta"):
        model = Net()
    assert told(model) == {}


def test_a_buffer_that_is_learnt_is_named():
    model = Net()
    model.register_buffer("scale", torch.ones(2, requires_grad=True))
    assert told(model)["P029"].facts == ("1 buffers: scale",)


def test_a_new_head_that_is_frozen_is_told():
    model = frozen(Net(), but=["features.2"])
    held = {name: one.clone() for name, one in Net().state_dict().items() if "fc" not in name}
    model.load_state_dict(held, strict=False)
    assert "P030" in told(model, weights=held)
    assert "P030" not in told(frozen(model, but=["fc"]), weights=held)


def test_an_edit_that_is_frozen_right_after_is_told():
    g = tg.load(Net(), input=IMAGE).head(7).freeze("**").unfreeze("features.2")
    (found,) = [finding for finding in g.check() if finding.code == "P030"]
    assert found.facts == ("2 parameters that nothing was loaded into are frozen: fc.weight, fc.bias",)
    g.apply_all(found.fixes[0].edits)
    assert {n for n, one in g.module.named_parameters() if one.requires_grad} >= {"fc.weight", "fc.bias"}
    assert "P030" not in {finding.code for finding in g.check()}


def test_a_second_head_that_a_freeze_forgot_is_told_and_trained():
    g = tg.load("timm:deit_tiny_distilled_patch16_224@none").head(7).freeze(all_but="head")
    (found,) = g.check()
    assert (found.code, found.severity) == ("P030", "warning")
    g.apply_all(found.fixes[0].edits)
    assert {n.partition(".")[0] for n, one in g.module.named_parameters() if one.requires_grad} == {
        "head",
        "head_dist",
    }


def test_a_module_that_was_trained_elsewhere_may_be_frozen():
    described = {"nn.Linear": {"out_features": 4}}
    for module, told_of in ((Net().fc, False), (tg.ModuleSpec.model_validate(described), True)):
        g = tg.load(Net(), input=IMAGE).replace("fc", module).freeze("fc")
        assert ("P030" in {finding.code for finding in g.check()}) is told_of
