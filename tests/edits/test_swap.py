from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import FrozenBatchNorm2d
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError, SelectionError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe
from torchgraft.surgery.journal import Surgery
from torchgraft.surgery.separable import low_rank, separable
from torchgraft.surgery.successor import groups_for


def again(g: tg.Graft) -> tg.Graft:
    """Replay the recipe, written and read as YAML, on a fresh base."""
    return replay(Recipe.from_yaml(g.recipe.to_yaml()))


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def trained_norms(model: nn.Module) -> None:
    """Give norms values that can be told apart."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "bn" in name and tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)


# norms


def test_batch_norms_become_group_norms_with_their_scale_and_shift(resnet18):
    trained_norms(resnet18.module)
    keys = [name for name in resnet18.module.state_dict() if "running" not in name and "num_batches" not in name]
    old = resnet18.module.layer1[0].bn1
    resnet18.swap("**:BatchNorm2d", to={"nn.GroupNorm": {"num_groups": 32}})
    new = resnet18.module.layer1[0].bn1
    assert type(new) is nn.GroupNorm
    assert (new.num_groups, new.num_channels, new.eps) == (32, 64, old.eps)
    assert torch.equal(new.weight, old.weight)
    assert new.weight is not old.weight
    assert list(resnet18.module.state_dict()) == keys
    assert resnet18.recipe.edits[0].count == 20


@pytest.mark.parametrize(
    ("at", "to"),
    [
        ("**:BatchNorm2d", {"nn.GroupNorm": {"num_groups": 8}}),
        ("**:BatchNorm2d", "FrozenBatchNorm2d"),
        ("**:BatchNorm2d", "LayerNorm2d"),
        ("**:ReLU", "nn.GELU"),
        ("layer4.**:Conv2d", {"separable": {"multiplier": 2}}),
        ("layer1.**:Conv2d", {"nn.Conv2d": {"padding_mode": "reflect"}}),
        ("fc", {"low_rank": {"rank": 16}}),
        ("**:BatchNorm2d", [{"nn.BatchNorm2d": {}}, {"nn.PReLU": {}}]),
    ],
)
def test_a_swap_replays_bit_for_bit_and_is_taken_back_exactly(resnet18, snapshot, at, to):
    before = snapshot(resnet18.module)
    resnet18.swap(at, to=to)
    assert same(resnet18.module, again(resnet18).module)
    assert same(copy.deepcopy(resnet18.module), resnet18.module)
    resnet18.undo()
    assert snapshot(resnet18.module) == before


def test_frozen_batch_norms_compute_what_the_norms_did_in_evaluation_and_hold_new_tensors(resnet18):
    trained_norms(resnet18.module)
    old, x = resnet18.module.bn1, torch.randn(2, 3, 64, 64)
    wanted = resnet18.module.eval()(x)
    resnet18.swap("**:BatchNorm2d", to="FrozenBatchNorm2d")
    torch.testing.assert_close(resnet18.module.train()(x), wanted, rtol=1e-4, atol=1e-4)
    assert isinstance(resnet18.module.bn1, FrozenBatchNorm2d)
    assert resnet18.module.bn1.weight.data_ptr() != old.weight.data_ptr()


def test_groups_that_do_not_divide_give_way_to_the_nearest_number_that_does_and_that_is_said():
    g = tg.load("torchvision:mobilenet_v3_small@none", input=(3, 64, 64))
    g.swap("**:BatchNorm2d", to={"nn.GroupNorm": {"num_groups": 32}})
    done = g.recipe.edits[0]
    assert done.groups[72] == 36
    assert "36 for 72 channels" in done.sentence()
    assert all(
        one.num_channels % one.num_groups == 0 for one in g.module.modules() if isinstance(one, nn.GroupNorm)
    )


@pytest.mark.parametrize(
    ("channels", "asked", "got"), [(64, 32, 32), (16, 32, 8), (72, 32, 36), (7, 4, 1), (8, 8, 8)]
)
def test_the_nearest_divisor_leaves_two_channels_a_group(channels, asked, got):
    assert groups_for(channels, asked) == got


def test_a_layer_norm_over_the_width_is_refused_and_the_right_one_named(resnet18, snapshot):
    before = snapshot(resnet18.module)
    with pytest.raises(EditError, match="LayerNorm2d"):
        resnet18.swap("**:BatchNorm2d", to="nn.LayerNorm")
    assert snapshot(resnet18.module) == before


def test_layer_norms_become_rms_norms_with_their_scale():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4, eps=1e-3)), input=(4,))
    nn.init.normal_(g.module[1].weight)
    old = g.module[1].weight
    g.swap("**:LayerNorm", to="nn.RMSNorm")
    assert torch.equal(g.module[1].weight, old)
    assert g.module[1].eps == 1e-3


@pytest.mark.parametrize("to", ["nn.GroupNorm", "FrozenBatchNorm2d", "nn.InstanceNorm2d", "LayerNorm2d"])
def test_norms_of_timm_keep_the_activation_that_they_hold(to):
    g = tg.load("timm:efficientnet_b0@none", input=(3, 64, 64))
    old = g.module.bn1
    g.swap("**:BatchNorm2d", to=to)
    assert any(one is old.act for one in g.module.bn1.modules())
    x = torch.randn(2, old.num_features, 4, 4)
    assert g.module.bn1(x).min() > -0.3  # of SiLU, not of a bare norm
    base = {name: one.shape for name, one in tg.load("timm:efficientnet_b0@none").module.state_dict().items()}
    assert all(base.get(g.recipe.base_name(name)) == one.shape for name, one in g.module.state_dict().items())


# flags, dtype, ties


def test_frozen_norms_give_frozen_norms_and_the_training_flag_follows():
    g = tg.load("resnet18@none", input=(3, 64, 64)).freeze(["layer1"])
    g.module.eval()
    g.swap("**:BatchNorm2d", to="nn.GroupNorm")
    assert not g.module.layer1[0].bn1.weight.requires_grad
    assert g.module.layer2[0].bn1.weight.requires_grad
    assert not any(module.training for module in g.module.modules())


@pytest.mark.parametrize("to", ["nn.GroupNorm", {"separable": {}}])
def test_new_modules_have_the_dtype_of_their_place(to):
    g = tg.load(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).to(torch.bfloat16), input=(4, 8, 8))
    g.swap("**:BatchNorm2d" if to == "nn.GroupNorm" else "**:Conv2d", to=to)
    assert {one.dtype for one in g.module.parameters()} == {torch.bfloat16}


def test_a_module_that_is_called_in_several_places_is_swapped_once_and_stays_one(resnet18):
    relu = nn.ReLU()
    g = tg.load(nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu), input=(4,))
    g.swap("**:ReLU", to="nn.GELU")
    assert g.module[1] is g.module[3]
    assert type(g.module[1]) is nn.GELU
    assert g.recipe.edits[0].count == 1


def test_flags_and_rates_of_the_old_modules_are_taken_over():
    layers = nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.Dropout(0.3))
    g = tg.load(layers, input=(2, 8, 8))
    g.swap("0", to="nn.SiLU").swap("1", to="nn.AvgPool2d").swap("2", to="nn.Dropout2d")
    assert g.module[0].inplace
    assert (g.module[1].kernel_size, g.module[1].stride, g.module[1].padding) == (3, 2, 1)
    assert g.module[2].p == 0.3
    g.swap("**:Dropout2d", to={"nn.Dropout": {"p": 0.1}})
    assert g.module[2].p == 0.1


# factors


def test_the_separable_pair_is_the_best_of_rank_one_for_each_channel():
    torch.manual_seed(0)
    old = nn.Conv2d(5, 7, 3, stride=2, padding=2, dilation=2)
    made, kept = separable(old, 1)
    joined = made.pointwise.weight[..., 0, 0].unsqueeze(-1).unsqueeze(-1) * made.depthwise.weight[:, 0].unsqueeze(
        0
    )
    left = (joined - old.weight).square().sum((0, 2, 3))
    values = torch.linalg.svdvals(old.weight.transpose(0, 1).flatten(2))
    torch.testing.assert_close(left, values[:, 1:].square().sum(1))
    assert kept == pytest.approx(1 - (left.sum() / old.weight.square().sum()).item(), abs=1e-5)
    x = torch.randn(2, 5, 11, 11)
    wanted = functional.conv2d(x, joined, old.bias, old.stride, old.padding, old.dilation)
    torch.testing.assert_close(made(x), wanted)


@pytest.mark.parametrize("settings", [{}, {"groups": 2}, {"groups": 2, "stride": 2, "padding_mode": "reflect"}])
def test_with_as_many_kernels_as_it_takes_the_pair_computes_the_same(settings):
    old = nn.Conv2d(4, 6, 3, padding=1, **settings)
    made, kept = separable(old, 9)
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(made(x), old(x), rtol=1e-4, atol=1e-5)
    assert kept == pytest.approx(1)


def test_two_linear_layers_are_the_truncated_decomposition_of_one():
    old = nn.Linear(20, 30)
    made, _ = low_rank(old, 5)
    left, values, right = torch.linalg.svd(old.weight, full_matrices=False)
    wanted = (left[:, :5] * values[:5]) @ right[:5]
    torch.testing.assert_close(made.up.weight @ made.down.weight, wanted)
    assert torch.equal(made.up.bias, old.bias)
    assert low_rank(old, 12) is None


def test_pointwise_and_depthwise_convolutions_stay_and_that_is_said():
    g = tg.load("torchvision:mobilenet_v2@none", input=(3, 64, 64))
    g.swap("**:Conv2d", to="separable")
    done = g.recipe.edits[0]
    assert (done.count, done.left) == (1, 51)
    assert "51 stay" in done.sentence()
    with pytest.raises(EditError, match="none of the 51 selected modules gains"):
        g.swap("features[1:].**:Conv2d", to="separable")


def test_the_bias_of_a_factored_layer_is_still_loaded_from_the_base():
    g = tg.load("torchvision:vgg11@none", input=(3, 64, 64)).swap("features.3", to="separable")
    assert g.recipe.base_name("features.3.pointwise.bias") == "features.3.bias"


# refusals


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.fc(x))


def test_a_kind_that_is_only_called_as_a_function_is_said_to_be():
    with pytest.raises(SelectionError, match="calls relu as a function"):
        tg.load(Functional(), input=(4,)).swap("**:ReLU", to="nn.GELU")


def test_a_selector_that_matches_nothing_is_an_error(resnet18):
    with pytest.raises(SelectionError, match="matches no module"):
        resnet18.swap("layer9", to="nn.GELU")


def test_one_object_can_not_stand_in_many_places(resnet18):
    with pytest.raises(RecipeError, match="every place needs"):
        resnet18.swap("**:ReLU", to=Functional())


@pytest.mark.parametrize("to", ["low_rank", {"separable": {"multiplier": 0}}, {"separable": {"rank": 1}}])
def test_settings_that_make_no_sense_are_told(resnet18, to):
    with pytest.raises(RecipeError, match="swap"):
        resnet18.swap("**:Conv2d", to=to)


def test_the_outermost_of_nested_modules_is_swapped(resnet18):
    resnet18.swap("layer1.1.**", to="nn.Identity")
    assert isinstance(resnet18.module.layer1[1], nn.Identity)


def test_151_norms_are_swapped_in_a_few_milliseconds():
    g = tg.load("torchvision:resnet152@none", input=(3, 64, 64))
    edit = tg.edits.Swap(at="**:BatchNorm2d", to={"nn.GroupNorm": {"num_groups": 32}})
    taken = []
    for _ in range(5):
        surgery = Surgery(g.module, look=lambda train: g.trace(train=train), roles={}, seed=1)
        start = time.process_time()
        edit.apply(surgery)
        taken.append(time.process_time() - start)
        surgery.undo()
    assert min(taken) < 0.1


def test_a_norm_over_channels_of_images_is_refused_even_where_the_width_fits(snapshot):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), LayerNorm2d(8))
    before = snapshot(model)
    with pytest.raises(EditError, match="normalises the last dimension, the LayerNorm2d the channels"):
        tg.load(model, input=(3, 8, 8)).swap("1", to="nn.RMSNorm")
    assert snapshot(model) == before


def test_a_norm_of_a_library_is_not_guessed_at():
    model = nn.Sequential(LlamaRMSNorm(8))
    with pytest.raises(EditError, match=r"that nn.RMSNorm can stand for a LlamaRMSNorm is not known") as caught:
        tg.load(model, input=(5, 8)).swap("0", to="nn.RMSNorm")
    assert "replace('0', 'nn.RMSNorm')" in caught.value.hint
