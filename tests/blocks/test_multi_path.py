"""Parallel branches: what they give is made to agree, and fused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.blocks import ECA, MultiPath, ResidualBlock
from torchgraft.errors import EditError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe

CHAPTER = """
base: torchvision:resnet18@none
input: [3, 64, 64]
edits:
- replace:
    at: conv1
    with:
      block.MultiPath:
        paths:
        - [{nn.Conv2d: {out_channels: 64, kernel_size: 3}}, {nn.MaxPool2d: {kernel_size: 2}}]
        - [{nn.Conv2d: {out_channels: 64, kernel_size: 5}}, {nn.AvgPool2d: {kernel_size: 2}}]
        out_channels: 64
"""


def test_the_two_branches_of_the_chapter_are_fused_though_their_sizes_differ():
    g = replay(Recipe.from_yaml(CHAPTER))
    block = g.module.conv1
    x = torch.randn(2, 3, 64, 64)
    assert [path(x).shape[-1] for path in block.paths.children()] == [31, 30]
    assert block(x).shape == (2, 64, 31, 31)
    assert block.fusion.weight.shape == (64, 128, 1, 1)
    small, want = block.paths.get_submodule("1")(x), block.paths.get_submodule("0")(x)
    grown = nn.functional.interpolate(small, size=(31, 31), mode="bilinear", align_corners=False)
    assert torch.allclose(block(x), block.fusion(torch.cat([want, grown], 1)), atol=1e-6)


def test_another_image_size_still_agrees_since_sizes_are_read_as_the_graph_runs():
    block = replay(Recipe.from_yaml(CHAPTER)).module.conv1
    for size in (32, 65, 97):
        assert block(torch.randn(1, 3, size, size)).shape[-1] == (size - 2) // 2


def placed(block: MultiPath, at: str = "layer1") -> nn.Module:
    g = tg.load("torchvision:resnet18@none", input=(3, 64, 64)).replace(at, block)
    return g.module.get_submodule(at)


CONVS = [{"nn.Conv2d": {"out_channels": 64, "kernel_size": k, "padding": k // 2}} for k in (1, 3, 5)]


def test_branches_may_be_blocks_classes_lists_modules_and_nothing_at_all():
    mine = nn.Conv2d(64, 64, 1)
    block = placed(MultiPath(paths=[ECA(), ResidualBlock(), [CONVS[0], {"nn.ReLU": {}}], mine, []], fuse="add"))
    assert block.paths.get_submodule("3") is mine
    x = torch.randn(2, 64, 16, 16)
    assert torch.allclose(block.eval()(x), sum(path(x) for path in block.paths.children()), atol=1e-5)


def test_attention_weighs_each_channel_of_the_branches_to_a_sum_of_one():
    block = placed(MultiPath(paths=CONVS, fuse="attention")).eval()
    x = torch.randn(2, 64, 16, 16)
    stacked = torch.stack([path(x) for path in block.paths.children()], 1)
    weights = block.fusion(stacked)
    assert weights.shape == (2, 3, 64, 1, 1)
    assert torch.allclose(weights.sum(1), torch.ones(2, 64, 1, 1))
    assert torch.allclose(block(x), (stacked * weights).sum(1), atol=1e-6)
    assert block.train()(x[:1]).shape == (1, 64, 16, 16)  # one sample alone can be trained on


def test_the_most_common_size_wins_and_larger_maps_are_pooled():
    paths = [{"nn.MaxPool2d": {"kernel_size": 2}}, {"nn.AvgPool2d": {"kernel_size": 2}}, []]
    block = MultiPath(paths=paths, fuse="add")
    halved = placed(block, at="maxpool")
    x = torch.randn(2, 64, 32, 32)
    mean = nn.functional.avg_pool2d(x, 2)
    assert torch.allclose(halved(x), nn.functional.max_pool2d(x, 2) + 2 * mean, atol=1e-6)


@pytest.mark.parametrize(("size", "gives"), [("place", 16), ([8, 8], 8)])
def test_the_size_can_be_that_of_the_place_or_fixed(size, gives):
    paths = [{"nn.MaxPool2d": {"kernel_size": 2}}, {"nn.AvgPool2d": {"kernel_size": 4}}]
    block = placed(MultiPath(paths=paths, size=size))
    assert block(torch.randn(2, 64, 16, 16)).shape == (2, 64, gives, gives)


def test_channels_that_differ_are_projected_where_they_are_added():
    paths = [CONVS[0], {"nn.Conv2d": {"out_channels": 24, "kernel_size": 1}}, []]
    block = placed(MultiPath(paths=paths, fuse="add"))
    assert [type(layer).__name__ for layer in block.even.children()] == ["Identity", "Conv2d", "Identity"]
    assert block(torch.randn(2, 64, 16, 16)).shape == (2, 64, 16, 16)


@pytest.mark.parametrize("fuse", ["concat", "add", "attention"])
@pytest.mark.parametrize("shape", [(4, 16), (4, 16, 6, 5)])
def test_features_and_maps_are_fused_in_every_way(fuse, shape):
    first = nn.Flatten() if len(shape) == 2 else nn.Identity()
    linear, conv = {"nn.Linear": {"out_features": 8}}, {"nn.Conv2d": {"out_channels": 8, "kernel_size": 1}}
    path = linear if len(shape) == 2 else conv
    g = tg.load(nn.Sequential(first, nn.Identity()), input=shape[1:])
    g.replace("1", MultiPath(paths=[path, path], fuse=fuse))
    assert g.module(torch.randn(shape)).shape[1] == (16 if fuse == "concat" else 8)


def test_an_inplace_branch_leaves_the_others_their_input():
    block = placed(MultiPath(paths=[{"nn.ReLU": {"inplace": True}}, []], fuse="add"))
    x = torch.randn(2, 64, 16, 16)
    assert torch.equal(block(x.clone()), x.relu() + x)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ({"nn.Flatten": {}}, r"paths\[1\] gives 2 dimensions for \[N, 64, 16, 16\]"),
        ({"nn.Conv2d": {"in_channels": 3, "out_channels": 8, "kernel_size": 17}}, r"paths\[1\] does not run"),
        ({"nn.Conv2d": {"out_channels": 8}}, "kernel_size"),
    ],
)
def test_a_branch_that_does_not_fit_is_named_and_the_model_is_as_it_was(resnet18, snapshot, path, reason):
    before = snapshot(resnet18.module)
    with pytest.raises(EditError, match=reason):
        resnet18.replace("layer1", MultiPath(paths=[[], path]))
    assert snapshot(resnet18.module) == before


def test_branches_may_branch_again():
    inner = MultiPath(paths=[CONVS[1], []], fuse="add")
    block = placed(MultiPath(paths=[inner, ECA()], start="identity")).eval()
    x = torch.randn(2, 64, 16, 16)
    assert torch.equal(block(x), x)
    assert block.get_submodule("block.paths.0.paths.0").kernel_size == (3, 3)


def test_it_says_that_it_is_built_for_a_place():
    with pytest.raises(EditError, match="built for its place"):
        MultiPath(paths=[[]]).fitted((2, 3, 8, 8)).build()
