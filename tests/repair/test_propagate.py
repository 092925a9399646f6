"""Propagate resizes whatever meets a new shape, keeps what overlaps, and says what it could not resize."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import Permute, StochasticDepth

import torchgraft as tg
from torchgraft.edits import Edit
from torchgraft.edits.insert import Insert
from torchgraft.edits.reshape import Reshape
from torchgraft.edits.resize import Resize
from torchgraft.loading import replay
from torchgraft.repair.price import lost

X = torch.randn(2, 3, 16, 16)


class Scaled(nn.Module):
    """A residual block of ConvNeXt: depthwise, linear layers with channels last, a layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            Permute([0, 2, 3, 1]),
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
            Permute([0, 3, 1, 2]),
        )
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 0.5))
        self.drop = StochasticDepth(0.1, "row")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.layer_scale * self.block(x))


class Pooled(nn.Module):
    def __init__(self, *stages: nn.Module, width: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x).mean((2, 3))))


class Attention(nn.Module):
    """Attention as in timm: one layer for query, key and value, and views with the width of the input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        query, key, value = (
            self.qkv(x).reshape(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(seen.transpose(1, 2).reshape(n, length, width))


class Tokens(nn.Module):
    """A small ViT with a class token and a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 17, 8))
        self.norm1, self.attention = nn.LayerNorm(8), Attention(8, 2)
        self.norm2, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class Shuffled(nn.Module):
    """Two halves that a fixed view mixes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.stem(x).chunk(2, 1)
        x = torch.cat([one, self.branch(two)], 1)
        x = x.view(2, 2, 4, 16, 16).transpose(1, 2).reshape(2, 8, 16, 16)
        return self.head(x.mean((2, 3)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + self.one(x).relu()
        x = x + self.two(x).relu()
        return self.head(x.mean((2, 3)))


def proved(g: tg.Graft) -> tg.Graft:
    out = g.module(X)
    out.sum().backward()
    assert out.shape == (2, 5)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in g.module.parameters())
    return g


def loaded(model: nn.Module) -> tg.Graft:
    return tg.load(model.eval(), input=(3, 16, 16))


def steps(g: tg.Graft, kind: type[Edit]) -> dict[str, Edit]:
    return {str(edit.at): edit for edit in g.recipe.edits[1:] if isinstance(edit, kind)}


def test_depthwise_layers_norms_and_a_layer_scale_follow_the_stream():
    g = loaded(Pooled(nn.Conv2d(3, 8, 1), Scaled(8), Scaled(8), width=8))
    old = g.module.stages[2].layer_scale.detach().clone()
    proved(g.insert(nn.Conv2d(8, 16, 1), after="stages.1", fix="propagate"))
    assert not steps(g, Insert)
    block = g.module.stages[3]
    assert block.layer_scale.shape == (16, 1, 1)
    assert torch.equal(block.layer_scale[:8], old)
    assert block.block[0].groups == 16
    assert g.module.head.in_features == 16


def test_what_does_not_meet_the_new_shape_is_left_alone():
    g = loaded(Pooled(nn.Conv2d(3, 8, 1), Scaled(8), Scaled(8), width=8))
    before = {name: id(tensor) for name, tensor in g.module.stages[1].state_dict(keep_vars=True).items()}
    g.insert(nn.Conv2d(8, 16, 1), after="stages.1", fix="propagate")
    assert before == {name: id(t) for name, t in g.module.stages[1].state_dict(keep_vars=True).items()}


def test_all_partners_of_a_residual_stream_widen_together():
    g = loaded(Residual())
    old = g.module.stem.weight.detach().clone()
    proved(g.replace("two", nn.Conv2d(8, 11, 3, padding=1), fix="propagate"))
    assert (g.module.stem.out_channels, g.module.one.out_channels) == (11, 11)
    assert torch.equal(g.module.stem.weight[:8], old)
    assert g.module.norm.num_features == g.module.head.in_features == 11


def test_class_token_and_positions_widen_with_the_tokens():
    g = loaded(Tokens())
    old = g.module.positions.detach().clone()
    proved(g.replace("patch", nn.Conv2d(3, 12, 4, 4), fix="propagate"))
    assert g.module.token.shape == (1, 1, 12)
    assert torch.equal(g.module.positions[..., :8], old)
    assert not g.module.positions[..., 8:].any()


def test_positions_are_interpolated_for_another_number_of_tokens():
    g = loaded(Tokens())
    old = g.module.positions.detach().clone()
    proved(g.replace("patch", nn.Conv2d(3, 8, 8, 8), fix="propagate"))
    assert g.module.positions.shape == (1, 5, 8)
    assert torch.equal(g.module.positions[:, :1], old[:, :1])
    assert steps(g, Reshape)["positions"].drops == old.numel()


def test_an_attention_whose_views_do_not_part_the_new_width_is_given_the_old_one():
    g = proved(loaded(Tokens()).replace("mlp.2", nn.Linear(16, 11), fix="propagate"))
    assert g.module.head.in_features == 11
    told = [edit.sentence() for edit in g.recipe.edits[1:] if isinstance(edit, Insert)]
    assert told == ["a projection of [17, 11] to [17, 8] is inserted before attention as fit"]


def test_torchs_own_attention_gets_more_heads_and_keeps_the_old_ones():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2)
            return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))

    g = loaded(Model())
    old = g.module.attention.in_proj_weight.detach().clone()
    proved(g.insert(nn.Conv2d(8, 16, 1), after="patch", fix="propagate"))
    new = g.module.attention.in_proj_weight
    assert g.module.attention.num_heads == 4
    assert all(torch.equal(a[:8, :8], b) for a, b in zip(new.chunk(3), old.chunk(3), strict=True))
    assert not new[:8, 8:].any()


def test_a_fixed_view_is_said_by_a_projection_in_front_of_it():
    g = proved(loaded(Shuffled()).replace("branch", nn.Conv2d(4, 7, 1), fix="propagate"))
    told = [edit.sentence() for edit in g.recipe.edits[1:]]
    assert told == ["a projection of [7, 16, 16] to [4, 16, 16] is inserted after branch as fit"]


def test_a_branch_of_half_the_resolution_is_brought_back_before_the_add():
    halved = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2))
    g = proved(loaded(Residual()).replace("one", halved, fix="propagate"))
    assert g.trace().given("two")[0].shape == (2, 8, 16, 16)


def test_a_linear_layer_behind_a_flatten_follows_the_map():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 5))
    g = loaded(model)
    proved(g.insert(nn.MaxPool2d(2), after="1", fix="propagate"))
    assert g.module[4].in_features == 4 * 64


def test_branches_that_are_joined_may_differ():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1), nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.one(x), self.two(x)], 1).mean((2, 3)))

    g = proved(loaded(Model()).replace("one", nn.Conv2d(3, 9, 1), fix="propagate"))
    assert g.module.head.in_features == 15


def test_a_grouped_layer_that_is_widened_computes_the_same_from_the_old_channels():
    old = nn.Conv2d(8, 8, 3, padding=1, groups=4).eval()
    g = tg.load(nn.Sequential(nn.Conv2d(8, 8, 1), old, nn.Flatten(), nn.Linear(8 * 16, 2)), input=(8, 4, 4))
    x = torch.randn(2, 8, 4, 4)
    for size in (13, 16, 24):
        g.apply_all([Resize(at="0", outputs=size), Resize(at="1", inputs=size)])
        wide = torch.cat([x, torch.randn(2, size - 8, 4, 4)], 1)
        torch.testing.assert_close(g.module[1](wide), old(x))
        assert g.recipe.edits[-1].drops == 0
        g.undo().undo()


def test_the_price_counts_the_weights_that_find_no_place():
    g = loaded(Residual())
    g.replace("stem", nn.Conv2d(3, 6, 3, padding=1), fix="propagate")
    cut = lost(g.recipe.edits[1:])
    norm, layers, head = 2 * 2, 2 * (64 - 36) * 9 + 2 * 2, 2 * 5
    assert cut == norm + layers + head


KINDS = {
    "wide": lambda: nn.Conv2d(8, 11, 3, padding=1),
    "wrong": lambda: nn.Conv2d(5, 11, 3, padding=1),
    "half": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2)),
}


@pytest.mark.parametrize("way", ["adapt", "propagate"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["one", "two"])
def test_undoing_every_edit_gives_back_the_very_tensors(way, kind, place, snapshot):
    g = loaded(Residual())
    before = snapshot(g.module)
    proved(g.replace(place, KINDS[kind](), fix=way))
    while g.recipe.edits:
        g.undo()
    assert snapshot(g.module) == before


def test_undoing_raw_parameters_gives_back_the_very_tensors(snapshot):
    g = loaded(Tokens())
    before = snapshot(g.module)
    proved(g.replace("patch", nn.Conv2d(3, 12, 8, 8), fix="propagate"))
    while g.recipe.edits:
        g.undo()
    assert snapshot(g.module) == before


def test_a_propagated_recipe_replays_to_the_same_tensors():
    def made() -> tg.Graft:
        g = tg.load("torchvision:resnet18@none", input=(3, 64, 64))
        return g.insert({"nn.Conv2d": {"out_channels": 256, "kernel_size": 1}}, after="layer2", fix="propagate")

    ours = made()
    theirs = replay(tg.Recipe.from_yaml(ours.recipe.to_yaml()))
    pairs = zip(ours.module.state_dict().items(), theirs.module.state_dict().items(), strict=True)
    assert all(one[0] == two[0] and torch.equal(one[1], two[1]) for one, two in pairs)
