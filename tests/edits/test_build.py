"""Modules from data: the user's own classes, nested modules, arguments by order, functions of torch."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError
from torchgraft.loading import replay
from torchgraft.modulespec import ModuleSpec
from torchgraft.recipe import Recipe

OWN = '''
import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """The chapter's: it doubles the channels."""

    def __init__(self, in_ch, factor=2):
        super().__init__()
        self.conv = nn.Conv2d(in_ch, in_ch * factor, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


class Around(nn.Module):
    def __init__(self, inner, act=torch.relu, layers=()):
        super().__init__()
        self.inner, self.act, self.layers = inner, act, nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.act(self.inner(x))


class DynamicNet(nn.Module):
    """The chapter's list of layers."""

    def __init__(self, in_features, widths, rate=0.5):
        super().__init__()
        sizes = [in_features, *widths]
        self.blocks = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.rate = rate

    def forward(self, x):
        for layer in self.blocks[:-1]:
            x = functional.dropout(functional.relu(layer(x)), self.rate, self.training)
        return self.blocks[-1](x)


class Normed(nn.Module):
    def __init__(self, channels, norm_layer):
        super().__init__()
        self.norm = norm_layer(channels)

    def forward(self, x):
        return self.norm(x)


class Broken(nn.Module):
    def __init__(self, width, depth):
        raise OSError("no such file")


def no_module(channels):
    return channels
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of the user's own."""
    (tmp_path / "ownmodels.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def fresh() -> tg.Graft:
    return tg.load("torchvision:resnet18@none", input=(3, 64, 64), trust=True)


def replayed(g: tg.Graft) -> nn.Module:
    """Replay a recipe through YAML, and hold it against the tensors that it made the first time."""
    again = replay(Recipe.from_yaml(g.recipe.to_yaml()), trust=True).module
    mine, theirs = g.module.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    return again


def test_an_open_size_of_a_class_of_ones_own_is_read_off_the_place(own):
    g = fresh().insert({"ownmodels:Attention": {"factor": 1}}, after="layer2", name="attention")
    assert g.module.layer2.attention.conv.in_channels == 128
    assert g.recipe.edits[-1].module.args == {"in_ch": 128, "factor": 1}
    replayed(g)


def test_the_attention_of_the_chapter_goes_into_its_stage_and_the_fix_stands_in_the_recipe(own):
    g = fresh().append("layer2", {"ownmodels:Attention": {}}, name="attention", fix="adapt")
    assert g.trace().output_shapes() == [(2, 1000)]
    replayed(g)


def test_the_dynamic_network_of_the_chapter_becomes_a_head(own):
    g = fresh().replace("fc", {"ownmodels:DynamicNet": {"widths": [256, 128, 10]}})
    assert [layer.in_features for layer in g.module.fc.blocks] == [512, 256, 128]
    replayed(g)


def test_arguments_may_be_a_list_by_their_order(own):
    g = fresh().insert({"ownmodels:Attention": [128, 1]}, after="layer2", name="attention")
    assert g.recipe.edits[-1].module.model_dump() == {"ownmodels:Attention": {"in_ch": 128, "factor": 1}}
    g.insert({"nn.Conv2d": [128, 128, 3, 1, 1]}, after="layer2", name="conv")
    assert g.module.layer2.conv.padding == (1, 1)
    g.insert({"nn.Dropout2d": 0.25}, after="layer2", name="drop")
    assert g.module.layer2.drop.p == 0.25
    replayed(g)


def test_a_module_may_hold_others_given_as_arguments(own):
    inner = {"nn.Conv2d": {"out_channels": 64, "kernel_size": 1}}
    spec = {
        "ownmodels:Around": {
            "inner": {"nn.Sequential": [inner, {"block.ECA": {}}]},
            "act": "torch.tanh",
            "layers": [inner, inner],
        }
    }
    g = fresh().insert(spec, after="layer1", name="around")
    made = g.module.layer1.around
    assert made.act is torch.tanh
    assert [type(one) for one in made.layers] == [nn.Conv2d, nn.Conv2d]
    assert made.inner[0].in_channels == 64
    replayed(g)


def test_classes_and_functions_of_torch_are_named(own):
    spec = {
        "nn.TransformerEncoderLayer": {"nhead": 4, "batch_first": True, "activation": "torch.nn.functional.silu"}
    }
    g = tg.load("timm:vit_tiny_patch16_224@none", input=(3, 224, 224), trust=True)
    g.insert({"nn.TransformerEncoder": {"num_layers": 1, "encoder_layer": spec}}, after="blocks.0", name="more")
    assert g.module.blocks.more.layers[0].activation is nn.functional.silu
    replayed(g)
    h = fresh().insert({"ownmodels:Normed": {"norm_layer": "nn.BatchNorm2d"}}, after="layer1", name="norm")
    assert h.module.layer1.norm.norm.num_features == 64
    replayed(h)


@pytest.mark.parametrize("name", ["torch.load", "torch.nn.functional.gelo", "nn.Nothing", "torch.os.system"])
def test_what_is_no_class_or_function_that_computes_is_not_looked_up(own, name):
    with pytest.raises(EditError, match="is no class, function or dtype of torch"):
        fresh().insert({"ownmodels:Normed": {"norm_layer": name}}, after="layer1")


@pytest.mark.parametrize(
    ("spec", "reason", "hint"),
    [
        ({"ownmodels:Nothing": {}}, "can't be imported", "package.module:Class"),
        ({"ownmodels:Broken": [1, 2]}, "no such file", r"correct its arguments: .*\(width, depth\)"),
        ({"ownmodels:Broken": {}}, "missing 2 required", r"\(width, depth\)"),
        ({"ownmodels:Attention": {"in_chs": 3}}, "unexpected keyword argument 'in_chs'", r"\(in_ch, factor=2\)"),
        ({"ownmodels:Attention": [1, 2, 3]}, "3 arguments by their order and takes 2", "in_ch, factor"),
        ({"ownmodels:Attention": {"*": [1], "in_ch": 1}}, "'in_ch' twice", "leave one"),
        ({"ownmodels:no_module": {}}, "which is no module", "subclass of torch.nn.Module"),
        ({"block.ECA": [3]}, "by name: channels", ""),
        (
            {"nn.Conv2d": [64, 64]},
            "missing 1 required",
            r"Conv2d\(in_channels, out_channels, kernel_size, stride=1",
        ),
        ({"block.MultiPath": {"paths": {"nn.ReLU": {}}}}, "paths is a list of modules", ""),
        ({"block.MultiPath": {"paths": [[], {"block.ECA": {"kernl": 3}}]}}, r"paths\[1\].*no setting 'kernl'", ""),
        ({"block.MultiPath": {"paths": [{"block.ECAA": {}}]}}, "did you mean ECA", ""),
        ({"ownmodels:Around": {"inner": {"nn.Conv2d": {"kernel_size": 3}}}}, "missing 1 required", "out_channels"),
        ({"ownmodels:Around": {"inner": {"block.CBAM": {"start": "yes"}}}}, "identity is needed", ""),
    ],
)
def test_a_wrong_description_is_told_and_the_model_is_as_it_was(own, snapshot, spec, reason, hint):
    g = fresh()
    before = snapshot(g.module)
    with pytest.raises((EditError, RecipeError), match=reason) as caught:
        g.insert(spec, after="layer1")
    assert re.search(hint, caught.value.hint)
    assert snapshot(g.module) == before


def test_nested_code_of_ones_own_needs_trust_too(own):
    spec = {"block.MultiPath": {"paths": [[], {"ownmodels:Attention": {}}]}}
    assert ModuleSpec.model_validate(spec).foreign
    with pytest.raises(EditError, match="runs code of your own"):
        tg.load("torchvision:resnet18@none", input=(3, 64, 64)).insert(spec, after="layer1")


def test_a_class_that_is_handed_over_is_told_what_it_wants():
    with pytest.raises(
        RecipeError, match=r"hand over a module, not its class: Linear\(in_features=…, out_features=…\)"
    ):
        fresh().append("layer1", nn.Linear)


class Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


def test_modules_handed_over_within_a_list_are_taken_as_they_are():
    mine, conv = Shift(), nn.Conv2d(64, 64, 1)
    g = fresh().insert([conv, mine, {"nn.ReLU": {}}], after="layer1", name="new")
    assert g.module.layer1.new[0] is conv
    assert g.module.layer1.new[1] is mine


def test_where_the_channels_stand_is_read_off_the_pass():
    turned = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.Flatten(2), nn.Identity(), Turned(), nn.Identity())
    g = tg.load(turned, input=(3, 32, 32))
    for place, layout in (("0", "NCHW"), ("2", "NCL"), ("4", "NLC")):
        g.insert(tg.blocks.SelfAttention(), after=place, name=f"attention{place}")
        args = g.recipe.edits[-1].module.args
        assert (args["layout"], args["channels"]) == (layout, 16)


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def test_blocks_stand_in_lists_of_a_recipe_and_pass_their_sizes_on():
    text = """
base: torchvision:resnet18@none
input: [3, 64, 64]
edits:
- replace:
    at: layer4
    with:
    - {block.ConvNormAct: {out_channels: 96, stride: 2, activation: silu}}
    - {block.SqueezeExcite: {reduction: 8, start: identity}}
    - {block.Bottleneck: {out_channels: 512}}
- replace: {at: avgpool, with: {block.GeM: {}}}
- replace: {at: fc, with: {block.Head: {classes: 10, hidden: [64], norm: layer}}}
"""
    g = replay(Recipe.from_yaml(text))
    assert g.trace().output_shapes() == [(2, 10)]
    assert g.module.layer4[2].conv1.in_channels == 96
    replayed(g)


def test_dtype_training_flag_and_undo_follow_for_a_block():
    g = tg.load(tg.load("torchvision:resnet18@none").module.double().eval(), input=(3, 64, 64))
    tree = [id(one) for one in g.module.modules()]
    g.insert(tg.blocks.ResidualBlock(start="identity"), after="layer1", name="more")
    assert {p.dtype for p in g.module.layer1.more.parameters()} == {torch.float64}
    assert not any(one.training for one in g.module.layer1.more.modules())
    g.undo()
    assert [id(one) for one in g.module.modules()] == tree
