from __future__ import annotations

import torch
from torch import nn
from torchvision import models

from torchgraft.params.still import still, train_mode


def test_frozen_batchnorm_does_not_move():
    model = models.resnet18(weights=None)
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.fc.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_mode(model)
    model(torch.randn(4, 3, 32, 32) * 3 + 5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_dropout_in_a_frozen_part_is_off_and_before_the_head_on():
    frozen = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).requires_grad_(False)
    model = nn.Sequential(frozen, nn.Dropout(), nn.Linear(2, 2))
    train_mode(model)
    assert not frozen[1].training
    assert model[1].training


def test_a_part_with_one_trainable_parameter_trains():
    model = models.resnet18(weights=None).requires_grad_(False)
    model.layer4[0].bn1.weight.requires_grad = True
    train_mode(model)
    assert model.layer4[0].bn1.training
    assert not model.layer4[0].bn2.training
    assert not model.layer3.training


def test_norms_that_are_frozen_alone_stand_still_and_their_neighbours_train():
    model = models.resnet18(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    train_mode(model)
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.layer1[0].conv1.training
    model.layer1[0].bn1.bias.requires_grad_(True)  # frozen in part: it is trained, and its statistics with it
    train_mode(model)
    assert model.layer1[0].bn1.training


def test_dropout_between_frozen_layers_is_off_and_before_a_trained_one_on():
    model = models.alexnet(weights=None).requires_grad_(False)
    model.classifier[6].requires_grad_(True)
    train_mode(model)
    assert not model.classifier[0].training
    assert not model.classifier[3].training
    last = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    train_mode(last)
    assert last[1].training, "what comes before it is trained"


def test_dropout_right_before_the_head_is_on():
    model = models.vgg11(weights=None).requires_grad_(False)
    model.classifier[6].requires_grad_(True)
    train_mode(model)
    assert not model.classifier[2].training
    assert model.classifier[5].training


def test_a_norm_without_parameters_goes_with_the_layer_before_it():
    def part(frozen):
        return [nn.Linear(2, 2).requires_grad_(not frozen), nn.BatchNorm1d(2, affine=False)]

    model = nn.Sequential(*part(True), *part(False))
    train_mode(model)
    assert [model[1].training, model[3].training] == [False, True]


def _frozen_first() -> nn.Sequential:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.BatchNorm2d(4))
    model[0].requires_grad_(False)
    return model


def test_still_keeps_frozen_parts_still_whoever_wakes_them() -> None:
    model = _frozen_first()
    before = model[0][1].running_mean.clone()
    with still(model):
        for _ in range(2):
            model.train()
            model(torch.randn(4, 3, 2, 2))
    assert torch.equal(model[0][1].running_mean, before)
    assert not torch.equal(model[1].running_mean, before)
    model.train()
    model(torch.randn(4, 3, 2, 2))
    assert not torch.equal(model[0][1].running_mean, before), "it has ended"
    assert not model._forward_pre_hooks


def test_what_is_unfrozen_meanwhile_trains_although_nobody_wakes_it() -> None:
    model = _frozen_first()
    with still(model):
        model.train()
        model(torch.randn(4, 3, 2, 2))
        assert not model[0].training
        model[0].requires_grad_(True)
        model(torch.randn(4, 3, 2, 2))
        assert model[0][1].training


def test_evaluation_mode_is_left_alone() -> None:
    model = _frozen_first()
    with still(model):
        model.eval()
        model[0].requires_grad_(True)
        model(torch.randn(4, 3, 2, 2))
        assert not any(one.training for one in model.modules())
