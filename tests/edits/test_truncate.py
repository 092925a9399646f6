"""Truncate: a model up to some of its layers, the same values as torchvision's and timm's own ways give."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from tests.edits.again import again
from tests.net import Net
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, ViTConfig, ViTForImageClassification

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError, SelectionError

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def given(model: nn.Module, path: str, x: Tensor) -> Tensor:
    """Run a model and give what one of its modules gives."""
    found: list[Tensor] = []
    hook = model.get_submodule(path).register_forward_hook(lambda *all: found.append(all[2]))
    model.eval()(x)
    hook.remove()
    return found[0]


@pytest.mark.parametrize(
    ("name", "paths", "size"),
    [
        ("resnet18", ["layer2.0.conv1", "layer2.0", "layer3"], 64),
        ("efficientnet_b0", ["features.1", "features.3.0", "features.6"], 64),
        ("convnext_tiny", ["features.1", "features.3"], 64),
        ("swin_t", ["features.1", "features.3.0.norm1"], 64),
        ("vit_b_32", ["encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_3"], 224),
        ("googlenet", ["inception3a.branch2", "inception4b"], 96),
        ("densenet121", ["features.denseblock1", "features.transition2"], 64),
    ],
)
def test_features_equal_those_of_torchvisions_extractor(name, paths, size):
    g = tg.load(f"torchvision:{name}@none", input=(3, size, size))
    base, x = copy.deepcopy(g.module), torch.randn(2, 3, size, size)
    g.truncate(features={f"at_{n}": path for n, path in enumerate(paths)})
    assert set(g.module.state_dict()) < set(base.state_dict())
    theirs = create_feature_extractor(base, {path: f"at_{n}" for n, path in enumerate(paths)})
    assert count(g.module) <= count(theirs)
    if name in ("resnet18", "googlenet"):
        again(g)
    for train in (False, True):
        outputs = []
        for model in (g.module, theirs):
            torch.manual_seed(0)
            outputs.append(model.train(train)(x))
        assert list(outputs[0]) == [f"at_{n}" for n in range(len(paths))]
        assert all(torch.equal(outputs[0][key], outputs[1][key]) for key in outputs[0])


@pytest.mark.parametrize(
    ("name", "size", "last"),
    [
        ("resnet18", 64, False),
        ("efficientnet_b0", 64, False),
        ("convnext_atto", 64, False),
        ("swin_tiny_patch4_window7_224", 224, True),
    ],
)
def test_features_equal_those_of_timm_which_turns_channels_to_the_front(name, size, last):
    base = timm.create_model(name, pretrained=False).eval()
    x = torch.randn(1, 3, size, size)
    theirs = base.forward_intermediates(x, intermediates_only=True)[-3:]
    paths = [one["module"] for one in base.feature_info][-3:]
    g = tg.load(copy.deepcopy(base), input=(3, size, size)).truncate(features=paths)
    for path, feature in zip(paths, theirs, strict=True):
        ours = g.module(x)[path]
        assert torch.equal(ours.permute(0, 3, 1, 2) if last else ours, feature)


@pytest.mark.parametrize(
    ("text", "path", "size"),
    [
        ("torchvision:resnet18@none", "layer3.0.conv1", 64),
        ("torchvision:vgg11@none", "features.10", 64),
        ("timm:vit_tiny_patch16_224@none", "blocks.5", 224),
        ("timm:vit_tiny_patch16_224@none", "blocks.5.mlp.fc1", 224),
        ("timm:levit_128s@none", "stages.1", 224),
    ],
)
@torch.no_grad()  # LeViT keeps a tensor of the pass, and can't be copied with one that has a gradient
def test_a_model_that_ends_after_a_layer_gives_what_it_gave(text, path, size, snapshot):
    g = tg.load(text, input=(3, size, size))
    g.module.eval()
    x, before, whole = torch.randn(1, 3, size, size), snapshot(g.module), count(g.module)
    wanted = given(copy.deepcopy(g.module), path, x)
    kind = type(g.module)
    g.truncate(path)
    assert torch.equal(g.module(x), wanted)
    assert torch.equal(copy.deepcopy(g.module)(x), wanted)
    assert count(g.module) < whole
    assert g.check() == ()
    g.undo()
    assert type(g.module) is kind
    assert snapshot(g.module) == before
    assert torch.equal(given(g.redo().module, path, x), wanted)


def test_what_tells_the_width_follows():
    g = tg.load("timm:convnext_atto@none", input=(3, 64, 64)).truncate("stages.2")
    assert (g.module.num_classes, g.module.num_features) == (0, 160)
    again(g)


def test_parameters_that_are_not_needed_go_too():
    g = tg.load("torchvision:vit_b_32@none", input=(3, 224, 224)).truncate("conv_proj")
    assert list(g.module.state_dict()) == ["conv_proj.weight", "conv_proj.bias"]


def test_a_value_that_a_later_layer_overwrites_is_given_as_its_layer_gave_it(resnet18):
    x = torch.randn(2, 3, 64, 64)
    base = copy.deepcopy(resnet18.module).eval()
    resnet18.truncate(features={"norm": "bn1", "stage": "layer1"})
    out = resnet18.module.eval()(x)
    assert torch.equal(out["norm"], base.bn1(base.conv1(x)))
    assert torch.equal(out["stage"], base.layer1(base.maxpool(base.bn1(base.conv1(x)).relu())))


def test_a_new_head_stands_on_what_is_left(resnet18):
    top = [{"nn.AdaptiveAvgPool2d": {"output_size": 1}}, {"nn.Flatten": {}}, {"nn.Linear": {"out_features": 4}}]
    resnet18.truncate("layer3").insert(top, after="layer3", name="top")
    assert resnet18.trace().output_shapes() == [(2, 4)]
    assert resnet18.check() == ()
    again(resnet18)


@pytest.mark.parametrize(
    ("make", "path", "x"),
    [
        (lambda: BertModel(BertConfig(**SIZES, vocab_size=50)), "encoder.layer.1", torch.randint(0, 50, (2, 8))),
        (
            lambda: ViTForImageClassification(ViTConfig(**SIZES, image_size=32, patch_size=8)),
            "vit.layernorm",
            torch.randn(2, 3, 32, 32),
        ),
    ],
    ids=["bert", "vit"],
)
def test_models_of_transformers_end_early(make, path, x):
    model = make().eval()
    wanted = given(copy.deepcopy(model), path, x)
    g = tg.load(model, input=x).truncate(path)
    assert torch.equal(g.module(x), wanted)
    with pytest.raises(TypeError):  # what the new forward would leave out of account is refused
        g.module(x, attention_mask=torch.ones(2, 8))


def test_a_forward_that_looks_at_shapes_is_refused_with_what_would(snapshot):
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 16}
    g = tg.load(GPT2Model(GPT2Config(**sizes)), input=torch.randint(0, 50, (2, 8)))
    before = snapshot(g.module)
    with pytest.raises(EditError, match=r"can't end early(.|\n)*remove what comes behind h\.0"):
        g.truncate("h.0")
    assert snapshot(g.module) == before


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({}, RecipeError, "either the layer after which it ends, or features"),
        ({"after": "layr3"}, SelectionError, "did you mean layer3"),
        ({"after": "layer1.0.relu"}, EditError, "is called 2 times"),
        ({"features": {"a": "layer1.0.relu", "b": "layer2"}}, EditError, "is called 2 times"),
    ],
)
def test_layers_that_can_not_be_the_end_are_told(resnet18, snapshot, settings, error, match):
    before = snapshot(resnet18.module)
    with pytest.raises(error, match=match):
        resnet18.truncate(**settings)
    assert snapshot(resnet18.module) == before


def test_a_list_of_layers_is_no_end_itself():
    def forward(net, x):
        for layer in net.layers:
            x = layer(x)
        return x

    g = tg.load(Net(forward, layers=nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])), input=(4,))
    with pytest.raises(EditError, match=r"layers is not called itself(.|\n)*such as layers\.1"):
        g.truncate("layers")
    g.truncate("layers.0")
    assert list(g.module.layers._modules) == ["0"]


def test_other_types_and_flags_stay():
    model = models.resnet18(weights=None).bfloat16().eval()
    g = tg.load(model, input=(3, 64, 64)).truncate(features=["layer1", "layer2"])
    assert {p.dtype for p in g.module.parameters()} == {torch.bfloat16}
    assert not any(module.training for module in g.module.modules())


def test_a_model_ends_inside_a_wrapper_and_is_copied_so(resnet18):
    x = torch.randn(2, 3, 64, 64)
    wanted = given(copy.deepcopy(resnet18.module.eval()), "layer3.1.conv1", x)
    resnet18.wrap("layer3.1", "residual", start="identity").truncate("layer3.1.base.conv1")
    assert torch.equal(copy.deepcopy(resnet18.module)(x), wanted)
    assert resnet18.recipe.base_name("layer3.1.base.conv1.weight") == "layer3.1.conv1.weight"
    again(resnet18)


def test_truncations_follow_one_another(resnet18):
    x = torch.randn(2, 3, 64, 64)
    wanted = given(copy.deepcopy(resnet18.module.eval()), "layer2", x)
    resnet18.truncate(features=["layer2", "layer3"]).truncate("layer2")
    assert torch.equal(resnet18.module(x), wanted)
    again(resnet18)
