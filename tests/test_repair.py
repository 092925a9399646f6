from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError
from torchgraft.loading import replay

X = torch.randn(2, 3, 64, 64)


def stage() -> nn.Module:
    return nn.Sequential(nn.Conv2d(256, 512, 3, padding=1), nn.BatchNorm2d(512), nn.ReLU(), nn.MaxPool2d(2))


class SE(nn.Module):
    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = channels // reduction
        self.f = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.f(x.mean((2, 3)))[:, :, None, None]


def told(g: tg.Graft) -> list[str]:
    return [edit.sentence() for edit in g.recipe.edits[1:]]


def others(g: tg.Graft, place: str) -> dict[str, int]:
    state = g.module.state_dict(keep_vars=True)
    return {name: id(tensor) for name, tensor in state.items() if not name.startswith(place)}


def test_a_refusal_offers_both_ways_with_their_price(resnet18, custom_block):
    with pytest.raises(EditError) as refused:
        resnet18.append("layer2", custom_block(128), name="attention")
    adapt, propagate = refused.value.findings[0].fixes
    assert adapt.name == "adapt"
    assert (
        "   +32,896 parameters, keeps every trained weight, starts as the identity on 128 channels"
        in adapt.sentence
    )
    assert propagate.sentence.startswith(
        "layer3.0.conv1 is resized to 256 inputs; layer3.0.downsample.0 is resized to 256 inputs   "
        "+327,680 parameters, keeps every trained weight, new input slices start at zero"
    )


def test_adapt_touches_no_other_parameter(resnet18, custom_block):
    before = others(resnet18, "layer2.attention")
    resnet18.append("layer2", custom_block(128), name="attention", fix="adapt")
    assert told(resnet18) == [
        "a projection of [256, 8, 8] to [128, 8, 8] is inserted after layer2.attention as fit"
    ]
    assert before.items() <= others(resnet18, "layer2.attention").items()
    assert resnet18.module(X).shape == (2, 1000)


def test_both_faults_of_the_chapters_layer3_are_mended(resnet18):
    before = others(resnet18, "layer3")
    resnet18.replace("layer3", stage(), fix="adapt")
    assert told(resnet18) == [
        "layer3.0 is resized to 128 inputs",
        "a projection of [512, 4, 4] to [256, 4, 4] is inserted after layer3 as fit",
    ]
    assert before == others(resnet18, "layer3")
    assert resnet18.module(X).shape == (2, 1000)


def test_propagate_widens_the_consumers_and_keeps_what_overlaps(resnet18, custom_block):
    old = resnet18.module.layer3[0].conv1.weight.detach().clone()
    resnet18.append("layer2", custom_block(128), name="attention", fix="propagate")
    new = resnet18.module.layer3[0].conv1.weight
    assert torch.equal(new[:, :128], old)
    assert not new[:, 128:].any()
    assert resnet18.module(X).shape == (2, 1000)


def test_the_inside_of_a_module_of_ones_own_is_fitted(resnet18):
    resnet18.append("layer2", SE(64), name="se", fix="adapt")
    assert told(resnet18) == ["layer2.se.f.0 is resized to 128 inputs", "layer2.se.f.2 is resized to 128 outputs"]
    assert resnet18.module(X).shape == (2, 1000)


@pytest.mark.parametrize("way", ["adapt", "propagate"])
def test_what_a_removed_stage_leaves_open_is_closed(resnet18, way):
    resnet18.remove("layer2", fix=way)
    assert resnet18.module(X).shape == (2, 1000)


def test_a_stage_removed_from_a_sequential_is_bridged():
    g = tg.load("torchvision:vgg11@none", input=(3, 64, 64))
    g.remove("features.3", fix="adapt")
    assert g.module(X).shape == (2, 1000)


def test_a_projection_starts_as_the_identity_on_the_channels_both_sides_share():
    x = torch.randn(2, 8, 4, 4)
    wide = tg.blocks.Projection(out=(12, 4, 4)).fitted(x.shape).build()(x)
    assert torch.equal(wide[:, :8], x)
    assert not wide[:, 8:].any()
    narrow = tg.blocks.Projection(out=(6, 2, 2)).fitted(x.shape).build()(x)
    torch.testing.assert_close(narrow, nn.functional.avg_pool2d(x, 2)[:, :6])


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ((8, 4, 4), (6, 8, 8)),
        ((8, 4, 4), (6, 5, 7)),
        ((8, 9, 9), (8, 4, 4)),
        ((8, 4, 4), (6,)),
        ((8,), (6, 3, 3)),
        ((8, 5), (4, 10)),
        ((8, 4, 4, 4), (2, 2, 2, 2)),
    ],
)
def test_a_projection_gives_the_shape_that_is_asked_for(given, out):
    module = tg.blocks.Projection(out=out).fitted((2, *given)).build()
    assert module(torch.randn(2, *given)).shape == (2, *out)


def test_undoing_takes_back_the_mending_too(resnet18, snapshot):
    before = snapshot(resnet18.module)
    resnet18.replace("layer3", stage(), fix="adapt")
    while resnet18.recipe.edits:
        resnet18.undo()
    assert snapshot(resnet18.module) == before


def test_a_mended_recipe_replays_to_the_same_tensors():
    def made() -> tg.Graft:
        g = tg.load("torchvision:resnet18@none", input=(3, 64, 64))
        parts = [
            {"nn.Conv2d": {"in_channels": 256, "out_channels": 512, "kernel_size": 3}},
            {"nn.BatchNorm2d": {}},
        ]
        return g.replace("layer3", parts[:1], fix="adapt").head(3)

    first, again = made(), replay(tg.Recipe.from_yaml(made().recipe.to_yaml()))
    ours, theirs = first.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_fix_that_does_not_mend_leaves_the_model_as_it_was(resnet18, snapshot):
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(x.shape[0], 7, -1)

    before = snapshot(resnet18.module)
    with pytest.raises(EditError, match="adapt does not mend it"):
        resnet18.append("layer2", Strange(), name="s", fix="adapt")
    assert snapshot(resnet18.module) == before


def test_an_unknown_fix_is_told(resnet18):
    with pytest.raises(RecipeError, match="there is no fix 'magic'"):
        resnet18.head(10, fix="magic")


def test_trying_the_fixes_leaves_the_model_and_a_handed_over_module_as_they_were(resnet18, snapshot):
    mine = stage()
    before = snapshot(resnet18.module), snapshot(mine)
    with pytest.raises(EditError):
        resnet18.replace("layer3", mine)
    assert (snapshot(resnet18.module), snapshot(mine)) == before


PLACES = [
    "layer1.0.conv1",
    "layer2.0.bn2",
    "layer2.1",
    "layer3",
    "layer4.0.downsample.0",
    "maxpool",
    "layer4.1.conv2",
]


@pytest.mark.parametrize("place", PLACES)
def test_wrong_channels_in_and_out_are_mended_anywhere_in_a_resnet(place):
    g = tg.load(copy.deepcopy(models.resnet18(weights=None)), input=(3, 64, 64))
    g.replace(place, nn.Sequential(nn.Conv2d(7, 9, 3, padding=1), nn.ReLU()), fix="adapt")
    out = g.module(X)
    assert out.shape == (2, 1000)
    out.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in g.module.parameters())


@pytest.mark.parametrize("place", PLACES)
def test_half_the_resolution_is_mended_anywhere_in_a_resnet(place):
    g = tg.load(models.resnet18(weights=None), input=(3, 64, 64))
    stage = place if place == "maxpool" else place.split(".")[0]  # a projection may follow the place in its stage
    before = [value.shape for value in g.trace().gave(stage)]
    contract = [value.shape for value in g.trace().gave(place)]
    channels = g.trace().given(place)[0].shape[1]
    g.replace(
        place, nn.Sequential(nn.Conv2d(channels, contract[0][1], 3, padding=1), nn.MaxPool2d(2)), fix="adapt"
    )
    assert [value.shape for value in g.trace().gave(stage)] == before
    assert g.module(X).shape == (2, 1000)
