from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError, SelectionError, TorchgraftWarning
from torchgraft.loading import replay
from torchgraft.params.still import train_mode
from torchgraft.recipe import Recipe


def fresh(source="torchvision:resnet18@none", size=64):
    return tg.load(source, input=(3, size, size))


def trainable(g):
    return [name for name, one in g.module.named_parameters() if one.requires_grad]


def tops(g):
    return list(dict.fromkeys(name.split(".")[0] for name in trainable(g)))


# which


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ({"depth": 0.5}, ["layer3", "layer4", "fc"]),
        ({"depth": 0.01}, ["layer1", "layer2", "layer3", "layer4", "fc"]),
        ({"stages": 2}, ["layer3", "layer4", "fc"]),
        ({"before": "layer3"}, ["layer3", "layer4", "fc"]),
        ({"before": "head"}, ["fc"]),
        ({"all_but": ["head", "norms"]}, ["bn1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ({"at": "backbone"}, ["fc"]),
        ({"at": "stem"}, ["layer1", "layer2", "layer3", "layer4", "fc"]),
        ({"at": "not fc"}, ["fc"]),
    ],
)
def test_a_share_of_the_model_is_frozen_from_the_input_on(how, left):
    assert tops(fresh().freeze(**how)) == left


@pytest.mark.parametrize(
    ("source", "size", "how", "left"),
    [
        ("torchvision:convnext_tiny@none", 64, {"stages": 3}, ["features.6", "features.7", "classifier"]),
        (
            "torchvision:vgg11@none",
            64,
            {"stages": 2},
            ["features.11", "features.13", "features.16", "features.18", "classifier"],
        ),
        ("timm:swin_tiny_patch4_window7_224@none", 224, {"stages": 3}, ["layers.3", "norm", "head"]),
        ("timm:mobilenetv3_small_050@none", 64, {"before": "blocks[-1]"}, ["blocks.5", "conv_head", "classifier"]),
        ("timm:vit_tiny_patch16_224@none", 224, {"depth": 13 / 14}, ["norm", "head"]),
    ],
)
def test_every_kind_of_model_is_frozen_by_its_own_order(source, size, how, left):
    g = fresh(source, size).freeze(**how)
    assert {name for name in trainable(g) if not name.startswith(tuple(left))} == set()
    assert all(any(name.startswith(one) for name in trainable(g)) for one in left)


def test_what_is_frozen_stands_in_the_recipe_by_path():
    g = fresh().freeze(depth=0.5)
    assert g.recipe.edits[0].at == ("conv1", "bn1", "layer1", "layer2")
    assert g.recipe.edits[0].sentence() == "conv1, bn1, layer1, layer2 frozen"


@pytest.mark.parametrize(
    "how", [{"depth": 0.3}, {"stages": 3}, {"before": "layer2.1"}, {"at": ["norms", "not bn1"]}]
)
def test_a_recipe_freezes_the_same_again(how):
    g = fresh().freeze(**how)
    again = replay(Recipe.from_yaml(g.recipe.to_yaml()))
    assert trainable(again) == trainable(g)


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        ({"stages": 9}, EditError, r"has 4 stages, not 9(.|\n)*depth: 0\.5"),
        ({"before": "conv1"}, EditError, "no parameters run before conv1"),
        ({"before": "layer9"}, SelectionError, "did you mean layer"),
        ({}, RecipeError, "names either what it freezes"),
        ({"at": "fc", "depth": 0.5}, RecipeError, "names either what it freezes"),
        ({"depth": 1.5}, RecipeError, "1 or less"),
    ],
)
def test_what_can_not_be_frozen_is_refused_and_nothing_is_changed(how, error, match):
    g = fresh()
    with pytest.raises(error, match=match):
        g.freeze(**how)
    assert len(trainable(g)) == 62
    assert not g.recipe.edits


def test_a_module_that_the_pass_does_not_call_has_nothing_before_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(EditError, match="does not call spare"):
        tg.load(Net(), input=(4,)).freeze(before="spare")


def test_a_model_that_does_not_run_has_no_order():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2)), input=(4,))
    with pytest.raises(EditError, match="its layers have no order"):
        g.freeze(depth=0.5)
    assert g.freeze("0").recipe.edits[0].at == ("0",)


# still


def moved(model, part, steps=2):
    """The names of the tensors of a part that a loop as anybody writes it moves."""
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    for _ in range(steps):
        model.train()
        model(torch.randn(4, 3, 64, 64) * 3 + 1).sum().backward()
        optimizer.step()
    return [name for name, tensor in part.state_dict().items() if not torch.equal(tensor, before[name])]


def test_by_default_the_modules_stay_and_their_statistics_move_in_a_loop_of_ones_own():
    g = fresh().freeze(stages=2)
    assert type(g.module.bn1) is nn.BatchNorm2d
    assert {name.rpartition(".")[2] for name in moved(g.module, g.module.layer1)} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


@pytest.mark.parametrize("source", ["torchvision:resnet18@none", "timm:mobilenetv3_small_050@none"])
def test_a_still_part_does_not_move_in_any_loop(source):
    g = fresh(source).freeze(stages=2, still=True)
    frozen = [one for one in g.module.children() if not any(p.requires_grad for p in one.parameters())]
    assert frozen
    for part in frozen:
        assert moved(g.module, part, steps=1) == []
    last = list(g.module.modules())[-1]
    assert last.training


def test_a_still_model_is_plain_and_computes_the_same():
    g = fresh()
    image = torch.randn(2, 3, 64, 64)
    expected = g.module.eval()(image)
    keys = set(g.module.state_dict())
    g.freeze(before="layer4", still=True)
    assert torch.allclose(g.module.eval()(image), expected, atol=1e-5)
    assert torch.allclose(copy.deepcopy(g.module)(image), expected, atol=1e-5)
    assert keys - set(g.module.state_dict()) == {
        key for key in keys if "num_batches" in key and not key.startswith("layer4")
    }
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in g.module.modules())
    base = fresh()
    g.module.load_state_dict(base.module.state_dict())  # the base's keys still load


def test_dropout_of_a_still_part_is_off_and_that_before_the_head_stays():
    g = fresh("torchvision:vgg11@none").freeze(all_but="head", still=True)
    assert type(g.module.classifier[2]) is nn.Identity, "it lies between frozen layers"
    assert type(g.module.classifier[5]) is nn.Dropout, "what is trained reads it"
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Dropout()), nn.Dropout(), nn.Linear(4, 2))
    g = tg.load(model, input=(4,)).freeze("0", still=True)
    assert isinstance(g.module[0][1], nn.Identity)
    assert isinstance(g.module[1], nn.Dropout)


def test_frozen_norms_alone_stand_still():
    g = fresh().freeze("norms", still=True)
    assert len(g.select("**:FrozenBatchNorm2d")) == 20
    assert g.module.layer1[0].conv1.weight.requires_grad
    assert moved(g.module, g.module.layer1[0].bn1) == []


def test_a_norm_that_is_frozen_in_part_goes_on():
    g = fresh().freeze("**.bn1.bias", still=True)
    assert type(g.module.bn1) is nn.BatchNorm2d
    assert g.module.bn1.weight.requires_grad


def test_a_still_freeze_is_taken_back_exactly_and_replays(snapshot):
    g = fresh()
    before = snapshot(g.module)
    g.freeze(stages=1, still=True)
    text = g.recipe.to_yaml()
    state = g.module.state_dict()
    g.undo()
    assert snapshot(g.module) == before
    again = replay(Recipe.from_yaml(text)).module
    assert isinstance(again.bn1, FrozenBatchNorm2d)
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize("source", ["torchvision:resnet18@none", "timm:mobilenetv3_small_050@none"])
def test_what_stood_still_moves_again_when_it_is_unfrozen_so(source):
    g, plain = fresh(source), fresh(source)
    kinds = {path: type(one) for path, one in g.module.named_modules()}
    g.freeze(before="head", still=True).unfreeze("**", moving=True)
    assert {path: type(one) for path, one in g.module.named_modules()} == kinds
    assert len(trainable(g)) == len(trainable(plain))
    g.module.train()(torch.ones(4, 3, 64, 64))
    plain.module.train()(torch.ones(4, 3, 64, 64))
    norm, same = (next(m for m in one.module.modules() if isinstance(m, nn.BatchNorm2d)) for one in (g, plain))
    assert int(norm.num_batches_tracked) == int(same.num_batches_tracked) == 1
    assert torch.allclose(norm.running_mean, same.running_mean)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)), (4,)),
        (nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6, affine=False), nn.Conv1d(6, 2, 1)), (4, 8)),
        (nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2, momentum=None), nn.Conv3d(2, 2, 1)), (1, 5, 5, 5)),
    ],
)
def test_norms_of_other_dimensions_stand_still_in_plain_torch(model, shape):
    given = torch.randn(4, *shape)
    model(given)
    expected = model.eval()(given)
    keys = set(model.state_dict())
    g = tg.load(model.train(), input=shape).freeze("[:2]", still=True)
    assert torch.allclose(g.module.train()(given), expected, atol=1e-5)
    assert torch.allclose(copy.deepcopy(g.module)(given), expected, atol=1e-5)
    assert set(g.module.state_dict()) == keys
    mean = g.module[1].running_mean
    g.unfreeze("**", moving=True)
    assert type(g.module[1]) in (nn.BatchNorm1d, nn.BatchNorm3d)
    assert g.module[1].running_mean is mean or torch.equal(g.module[1].running_mean, mean)
    g.undo().undo()
    assert all(one.requires_grad for one in g.module.parameters())


def test_unfreezing_says_that_norms_still_stand_still():
    g = fresh().freeze(stages=1, still=True)
    with pytest.warns(TorchgraftWarning, match=r"layer1: 4 norms .* go on doing so; unfreeze\(…, moving=True\)"):
        g.unfreeze("layer1")
    assert g.module.layer1[0].conv1.weight.requires_grad
    assert isinstance(g.module.layer1[0].bn1, FrozenBatchNorm2d)


def test_what_torchvision_built_with_frozen_norms_stays_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4))
    g = tg.load(model, input=(3, 8, 8)).unfreeze("**", moving=True)
    assert isinstance(g.module[1], FrozenBatchNorm2d)


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("torchvision:alexnet@none", {"all_but": "head"}),
        ("torchvision:vgg11@none", {"at": "features"}),
        ("torchvision:mobilenet_v3_small@none", {"all_but": "head"}),
        ("torchvision:resnet18@none", {"at": ["norms", "layer1"]}),
        ("timm:vit_tiny_patch16_224@none", {"before": "blocks.9"}),
    ],
)
def test_what_a_still_freeze_stops_is_what_train_mode_stops(source, how):
    size = 224 if "vit" in source else 64
    plain, stopped = fresh(source, size).freeze(**how), fresh(source, size).freeze(**how, still=True)
    train_mode(plain.module)
    moves = (nn.Dropout, nn.BatchNorm2d)
    kept = {path for path, one in stopped.module.named_modules() if isinstance(one, moves)}
    awake = {path for path, one in plain.module.named_modules() if isinstance(one, moves) and one.training}
    at_rest = {path for path, one in plain.module.named_modules() if getattr(one, "p", None) == 0}
    assert kept - at_rest == awake - at_rest


def test_a_model_that_is_frozen_as_a_whole_has_no_dropout_left():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4))
    g = tg.load(model, input=(4,)).freeze("**", still=True)
    assert not [one for one in g.module.modules() if isinstance(one, (nn.Dropout, nn.BatchNorm1d))]


# torchgraft's own mode, for a loop of one's own


def test_train_mode_keeps_whole_frozen_parts_still():
    g = fresh().freeze(stages=3)
    train_mode(g.module)
    assert not g.module.layer3.training
    assert g.module.layer4.training


# peers


@pytest.mark.parametrize("part", ["layer1", "layer2"])
def test_a_still_freeze_does_what_timms_freeze_does(part):
    from timm.utils import model as timm_utils

    ours, theirs = fresh(), fresh()
    parts = ["conv1", "layer1", "layer2"]
    ours.freeze(parts, still=True)
    timm_utils.freeze(theirs.module, parts)
    assert moved(ours.module, getattr(ours.module, part)) == []
    assert moved(theirs.module, getattr(theirs.module, part)) == []
    ours_kinds = {p: type(m).__name__ for p, m in ours.module.named_modules() if p.startswith(part)}
    theirs_kinds = {p: type(m).__name__ for p, m in theirs.module.named_modules() if p.startswith(part)}
    assert ours_kinds == theirs_kinds
