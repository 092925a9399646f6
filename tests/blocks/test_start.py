"""Every block that keeps the shape can start as the identity, and learns from there."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft import blocks
from torchgraft.blocks.layout import Laid
from torchgraft.errors import EditError, RecipeError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe

SHAPES = {"NCHW": (4, 16, 6, 5), "NHWC": (4, 6, 5, 16), "NLC": (4, 7, 16), "NCL": (4, 16, 7), "NC": (4, 16)}
PATHS = ({"nn.Conv2d": {"out_channels": 8, "kernel_size": 1}}, [])
KEEPING = [
    blocks.SqueezeExcite(reduction=2, start="identity"),
    blocks.ECA(start="identity"),
    blocks.CBAM(reduction=2, start="identity"),
    blocks.ResidualBlock(start="identity"),
    blocks.ResidualBlock(norm="group", start="identity"),
    blocks.Bottleneck(start="identity"),
    blocks.Bottleneck(norm="layer", groups=2, start="identity"),
    blocks.ConvNormAct(start="identity"),
    blocks.DepthwiseSeparable(kernel=5, activation="gelu", start="identity"),
    blocks.LayerScale(start="identity"),
    blocks.SelfAttention(start="identity"),
]
LAID = [(block, layout) for block in KEEPING for layout in block.layouts]


def named(value: object) -> str:
    return str(value).partition("(")[0]


@pytest.mark.parametrize(("block", "layout"), LAID, ids=named)
def test_a_block_gives_what_it_takes_and_its_weights_get_a_gradient(block: Laid, layout: str):
    x = torch.randn(SHAPES[layout])
    module = block.model_copy(update={"layout": layout}).fitted(x.shape).build()
    for mode in (True, False):
        assert torch.allclose(module.train(mode)(x.clone()), x, atol=1e-6, rtol=0)
    module.train()
    (module(x) * torch.randn_like(x)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(("block", "layout"), LAID, ids=named)
def test_a_few_steps_of_training_move_it_away_from_the_identity(block: Laid, layout: str):
    torch.manual_seed(0)
    x = torch.randn(SHAPES[layout])
    module = block.model_copy(update={"layout": layout}).fitted(x.shape).build()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    goal = torch.randn_like(x)
    losses = []
    for _ in range(8):
        loss = nn.functional.mse_loss(module(x), goal)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    still = [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not still


@pytest.mark.parametrize("block", KEEPING, ids=named)
def test_what_is_built_is_plain_survives_copies_and_its_state_dict_loads(block: Laid):
    x = torch.randn(SHAPES["NCHW"])
    module = block.fitted(x.shape).build().eval()
    assert not [type(part) for part in module.modules() if type(part).__module__.startswith("torchgraft")]
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), module(x))


@pytest.mark.parametrize("block", KEEPING, ids=named)
def test_torch_export_takes_it(block: Laid):
    x = torch.randn(SHAPES["NCHW"])
    module = block.fitted(x.shape).build().eval()
    exported = torch.export.export(module, (x,)).module()
    assert torch.allclose(exported(x), module(x), atol=1e-6)


MODELS = {
    "torchvision:resnet18@none": "layer2",
    "timm:convnext_atto@none": "stages.1",
    "torchvision:swin_t@none": "features.1",  # its maps are [N, H, W, C]
    "timm:vit_tiny_patch16_224@none": "blocks.1",
}


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name.partition(":")[2].partition("@")[0])
def trained(request):
    size = 224 if "vit" in request.param else 64
    x = torch.randn(2, 3, size, size)
    model = tg.load(request.param, input=(3, size, size)).module.eval()
    with torch.no_grad():
        return model, MODELS[request.param], x, model(x)


ALL = [
    *KEEPING,
    blocks.DropPath(start="identity"),
    blocks.MultiPath(paths=PATHS, start="identity"),
    blocks.MultiPath(paths=PATHS, fuse="attention", start="identity"),
]


@pytest.mark.parametrize("block", ALL, ids=named)
def test_a_model_does_what_it_did_after_the_insertion(block, trained):
    model, place, x, before = trained
    if isinstance(block, blocks.MultiPath) and place in ("features.1", "blocks.1"):  # channels last
        block = block.model_copy(update={"paths": ({"nn.Linear": {"out_features": 8}}, [])})
    g = tg.load(model, input=tuple(x.shape[1:]))
    if place == "blocks.1" and "NLC" not in getattr(block, "layouts", ("NLC",)):
        with pytest.raises(EditError, match=r"takes a feature map .* and is given \[N, 197, 192\]"):
            g.insert(block, after=place, name="new")
        return
    g.insert(block, after=place, name="new")
    with torch.no_grad():
        assert torch.allclose(g.module.eval()(x), before, atol=1e-6, rtol=0)
    assert any("new" in name.split(".") for name, _ in g.module.named_modules())
    g.undo()
    with torch.no_grad():
        assert torch.equal(g.module(x), before)


def test_gradients_of_a_whole_model_reach_an_inserted_block(resnet18):
    resnet18.insert(blocks.CBAM(start="identity"), after="layer2", name="attention")
    resnet18.module.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    got = {name for name, p in resnet18.module.layer2.attention.named_parameters() if p.grad.abs().sum() > 0}
    assert {"channel.fc2.weight", "spatial.conv.bn.weight"} <= got


@pytest.mark.parametrize("block", ALL, ids=named)
def test_a_recipe_replays_bit_for_bit(block):
    g = tg.load("torchvision:resnet18@none", input=(3, 64, 64)).insert(block, after="layer1", name="new")
    again = replay(Recipe.from_yaml(g.recipe.to_yaml()))
    mine, theirs = g.module.state_dict(), again.module.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: blocks.ResidualBlock(out_channels=32, start="identity").fitted((2, 16, 8, 8)), "another shape"),
        (lambda: blocks.Bottleneck(stride=2, start="identity").fitted((2, 16, 8, 8)), "another shape"),
        (lambda: blocks.ConvNormAct(kernel=2, start="identity").fitted((2, 16, 8, 8)), "another shape"),
        (lambda: blocks.MLP(widths=(8, 4), start="identity").fitted((2, 16)), "gives 4 features of 16"),
        (
            lambda: blocks.MultiPath(paths=([],), out_channels=8, start="identity").fitted((2, 16, 8, 8)),
            "gives 8 channels of 16",
        ),
    ],
)
def test_what_changes_the_shape_can_not_start_as_the_identity(make, reason):
    with pytest.raises(EditError, match=reason) as caught:
        make()
    assert "leave start out" in caught.value.hint


@pytest.mark.parametrize("name", ["GeM", "Head", "Projection"])
def test_a_block_that_never_keeps_the_shape_says_why_it_has_no_start(resnet18, name):
    with pytest.raises((EditError, RecipeError), match="can't start as the identity"):
        resnet18.insert({f"block.{name}": {"start": "identity"}}, after="layer1")


def test_a_perceptron_of_its_own_width_can():
    x = torch.randn(4, 16)
    mlp = blocks.MLP(widths=(32, 16), dropout=0.5, norm="batch", start="identity").fitted(x.shape).build()
    assert torch.equal(mlp(x), x)
    mlp(x).pow(2).sum().backward()
    assert mlp.get_submodule("body.4").weight.grad.abs().sum() > 0
