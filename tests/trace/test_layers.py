from __future__ import annotations

import pytest
import timm
import torch
from benchmarks.heads import built
from torchvision import models

import torchgraft as tg
from torchgraft.trace import input_layers, output_layers, trace

SAMPLE = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1",
    "swin_v2_t", "vgg11_bn", "vit_b_16",
]  # fmt: skip
"""One of each family; `-m slow` runs all of them."""

TIMM = [
    "resnet18d", "convnext_atto", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224", "mobilenetv4_conv_small",
    "levit_128s", "efficientnet_b0", "regnety_002", "mixer_s32_224", "nfnet_f0", "tf_efficientnet_lite0", "vit_tiny_patch16_224",
]  # fmt: skip


def image(name: str) -> torch.Tensor:
    size = 299 if name == "inception_v3" else 224
    return torch.empty(2, 3, size, size, device="meta")


def check_head(name: str) -> None:
    size = image(name).shape[-1]
    g = tg.load(built(name), input=(3, size, size))
    g.head(7)
    assert set(g.trace().output_shapes()) == {(2, 7)}
    assert set(g.trace(train=True).output_shapes()) == {(2, 7)}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_new_head_is_right_in_evaluation_and_in_training_mode(name):
    check_head(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(models.list_models(module=models)) - set(SAMPLE)))
def test_a_new_head_is_right_on_every_other_classifier_of_torchvision(name):
    check_head(name)


@pytest.mark.parametrize("name", TIMM)
def test_a_new_head_is_right_on_models_of_timm(name):
    g = tg.load(timm.create_model(name), input=timm.create_model(name).default_cfg["input_size"])
    g.head(7)
    assert set(g.trace().output_shapes()) == {(2, 7)}
    assert set(g.trace(train=True).output_shapes()) == {(2, 7)}


def test_auxiliary_heads_are_found_in_training_mode():
    model = built("googlenet")
    assert output_layers(trace(model, image("googlenet"))) == ["fc"]
    assert set(output_layers(trace(model, image("googlenet"), train=True))) == {"fc", "aux1.fc2", "aux2.fc2"}


def test_a_convolution_can_be_the_head():
    assert output_layers(trace(built("squeezenet1_1"), image(""))) == ["classifier.1"]


@pytest.mark.parametrize(
    ("name", "path"),
    [("resnet18", "conv1"), ("vit_b_16", "conv_proj"), ("swin_t", "features.0.0"), ("vgg11", "features.0")],
)
def test_the_layer_that_reads_the_input_is_found(name, path):
    assert input_layers(trace(built(name), image(name))) == [path]
