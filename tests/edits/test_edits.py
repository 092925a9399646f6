from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.edits import kinds
from torchgraft.edits.input import fold
from torchgraft.errors import EditError, RecipeError, SelectionError


def test_every_edit_says_what_it_does_and_is_documented():
    for kind, cls in kinds().items():
        assert cls.__doc__, kind
        assert getattr(tg.Graft, kind).__doc__ == cls.__doc__
    assert {"head", "input", "replace", "insert", "append", "remove", "freeze", "unfreeze"} <= set(kinds())


# replace


def test_a_module_that_was_handed_over_is_taken_as_it_is(resnet18):
    mine = nn.Linear(512, 3)
    weight = mine.weight
    resnet18.replace("fc", mine)
    assert resnet18.module.fc is mine
    assert resnet18.module.fc.weight is weight


def test_code_of_ones_own_is_run_only_where_it_is_trusted(resnet18):
    spec = {"torch.nn:Identity": {}}
    with pytest.raises(EditError, match="runs code of your own"):
        resnet18.insert(spec, after="layer2")
    trusted = tg.load("resnet18@none", input=(3, 64, 64), trust=True)
    trusted.insert(spec, after="layer2", name="mine")
    assert isinstance(trusted.module.layer2.mine, nn.Identity)


def test_arguments_that_a_class_does_not_take_are_told(resnet18):
    with pytest.raises(EditError, match=r"nn\.Conv2d can't be built"):
        resnet18.replace("layer3", {"nn.Conv2d": {"out": 3}})


def test_a_class_that_torch_does_not_have_is_told_with_the_nearest(resnet18):
    with pytest.raises(RecipeError, match="did you mean Conv2d"):
        resnet18.replace("layer3", {"nn.Conv2D": {"out_channels": 3}})


def test_a_place_that_is_not_there_is_told_with_the_nearest(resnet18):
    with pytest.raises(SelectionError, match="did you mean layer3"):
        resnet18.replace("layr3", nn.Identity())


def test_new_modules_go_where_the_model_is():
    g = tg.load(
        models.resnet18(weights=None).double().eval(), input=torch.empty(2, 3, 64, 64, dtype=torch.float64)
    )
    g.head(3).insert(tg.blocks.SqueezeExcite(), after="layer2", name="se")
    assert {p.dtype for p in g.module.parameters()} == {torch.float64}
    assert not any(module.training for module in g.module.modules())


# input


@pytest.mark.parametrize("channels", range(1, 13))
def test_an_image_of_equal_channels_keeps_its_first_activation(channels):
    layer = nn.Conv2d(3, 8, 3, dtype=torch.float64)
    grey = torch.rand(2, 1, 9, 9, dtype=torch.float64)
    wide = nn.Conv2d(channels, 8, 3, dtype=torch.float64)
    wide.weight, wide.bias = nn.Parameter(fold(layer.weight.detach(), channels)), layer.bias
    torch.testing.assert_close(wide(grey.expand(-1, channels, -1, -1)), layer(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_the_first_convolution_takes_other_channels_and_the_base_tensor_is_not_written(resnet18, channels):
    before = resnet18.module.conv1.weight
    kept = before.clone()
    resnet18.input(channels=channels)
    assert resnet18.module(torch.randn(2, channels, 64, 64)).shape == (2, 1000)
    assert torch.equal(before, kept)
    assert resnet18.input_shape == (channels, 64, 64)


def test_another_size_that_the_model_refuses_is_told():
    g = tg.load("torchvision:vit_b_16@none")
    with pytest.raises(EditError, match="can't take images of 100×96: Wrong image height!"):
        g.input(size=(100, 96))


# freeze


def test_frozen_parameters_are_told_by_any_selector(resnet18):
    resnet18.freeze(["conv1", "layer[12].**", "**:BatchNorm2d"])
    frozen = {name for name, p in resnet18.module.named_parameters() if not p.requires_grad}
    assert "conv1.weight" in frozen
    assert "layer4.1.bn2.weight" in frozen
    assert "layer4.1.conv2.weight" not in frozen


def test_unfreezing_takes_a_part_back(resnet18):
    resnet18.freeze(all_but="head").unfreeze("layer4")
    assert resnet18.module.layer4[0].conv1.weight.requires_grad
    assert not resnet18.module.layer3[0].conv1.weight.requires_grad


def test_a_freeze_names_one_way_only(resnet18):
    with pytest.raises(RecipeError, match="either what it freezes"):
        resnet18.freeze("layer1", all_but="layer2")


def test_a_tied_parameter_is_frozen_under_any_of_its_names():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu())

    g = tg.load(Tied(), input=torch.empty(2, 4))
    g.freeze("b")
    assert not g.module.a.weight.requires_grad
    assert g.module.a.bias.requires_grad


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda g: g.head("ten"), "head: a whole number is needed"),
        (lambda g: g.head(10, hiden=[3]), r"there is no setting 'hiden'.*\n.*\n.*did you mean hidden"),
        (lambda g: g.replace("fc"), r"replace: 'with' is missing"),
        (lambda g: g.head(), "head: a head names its classes"),
        (lambda g: g.remove("a", "b"), "remove takes at most 1 arguments"),
        (lambda g: g.head(3, classes=4), "head got 'classes' twice"),
    ],
)
def test_a_wrong_call_is_told_without_a_traceback_of_pydantic(resnet18, call, match):
    with pytest.raises(RecipeError, match=match):
        call(resnet18)


def test_what_an_edit_put_in_can_be_taken_out_again(resnet18):
    resnet18.append("layer4", nn.Dropout(0.1), name="drop").remove("layer4.drop")
    assert "drop" not in resnet18.module.layer4._modules
    resnet18.insert(nn.GELU(), after="layer2", name="act").replace("layer2.act", nn.ReLU())
    assert isinstance(resnet18.module.layer2.act, nn.ReLU)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_types_are_edited(dtype):
    g = tg.load(models.resnet18(weights=None).to(dtype), input=(3, 64, 64))
    assert g.check() == ()
    g.head(3).insert(tg.blocks.SqueezeExcite(), after="layer2", name="se")
    assert {p.dtype for p in g.module.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda g: g.replace("fc", {"nn.Linear": {"out_features": -3}}), EditError, "can't be built"),
        (lambda g: g.replace("fc", {"nn.LazyLinear": {"out_features": 3}}), EditError, r"take nn\.Linear"),
        (lambda g: g.replace("fc", nn.ReLU), RecipeError, r"not its class: ReLU\(…\)"),
        (lambda g: g.replace("fc", g.module), EditError, "can't be put into itself"),
        (lambda g: g.insert(nn.ReLU(), after="layer2", name="a.b"), RecipeError, "insert"),
        (lambda g: g.append("layer2", {"block.MLP": {"widths": []}}), RecipeError, "append"),
        (lambda g: g.head(3, dropout=2.0), RecipeError, "a number of 1 or less is needed"),
    ],
)
def test_what_can_not_be_built_is_told(resnet18, snapshot, call, error, match):
    before = snapshot(resnet18.module)
    with pytest.raises(error, match=match):
        call(resnet18)
    assert snapshot(resnet18.module) == before


def test_a_scripted_module_can_not_be_edited():
    g = tg.load(torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.ReLU())), input=torch.empty(2, 3))
    with pytest.raises(EditError, match="a scripted module can't be edited"):
        g.remove("1")


def test_resizing_keeps_hooks_and_refuses_computed_weights():
    calls = []
    model = nn.Sequential(nn.Conv2d(3, 4, 1), torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 5, 1)))
    model[0].register_forward_hook(lambda *_: calls.append(1))
    g = tg.load(model, input=(3, 4, 4))
    with pytest.raises(EditError, match="computed from others"):
        g.resize("1", outputs=7)
    g.replace("1", {"nn.Conv2d": {"out_channels": 5, "kernel_size": 1}}).resize("1", outputs=7)
    assert g.module[0]._forward_hooks
    assert g.module.eval()(torch.randn(1, 3, 4, 4)).shape == (1, 7, 4, 4)


def test_layers_of_a_class_of_ones_own_keep_their_class_when_resized():
    class Mine(nn.Linear):
        def __init__(self, special):
            super().__init__(4, 4)
            self.special = special

        def forward(self, x):
            return super().forward(x) * self.special

    g = tg.load(nn.Sequential(Mine(2), nn.Linear(4, 3)), input=torch.empty(2, 4))
    g.resize("1", outputs=5)
    weight = g.module[0].weight.detach().clone()
    g.apply_all([tg.edits.Resize(at="0", outputs=6), tg.edits.Resize(at="1", inputs=6)])
    assert type(g.module[0]) is Mine
    assert torch.equal(g.module[0].weight[:4], weight)
    assert g.module[0].special == 2
