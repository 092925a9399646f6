from __future__ import annotations

import torchvision
from torch import nn

from torchgraft.train.many.blocks import repeated


def paths(model, called=None):
    known = {id(one): path for path, one in model.named_modules()}
    return [known[id(one)] for one in repeated(model, called or set(known.values()))]


def test_the_layers_of_a_transformer_and_the_blocks_of_a_resnet_are_found():
    vit = torchvision.models.VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    assert paths(vit) == ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"]
    resnet = torchvision.models.resnet18()
    assert paths(resnet) == [f"layer{stage}.{number}" for stage in (1, 2, 3, 4) for number in (0, 1)]


def test_without_repeated_blocks_stages_are_taken():
    assert paths(torchvision.models.alexnet()) == ["features", "classifier"]


def test_a_block_that_shares_a_parameter_with_the_rest_stays_with_it():
    def block():
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    model = nn.ModuleDict({"blocks": nn.Sequential(block(), block()), "head": nn.Linear(4, 4)})
    model["head"].weight = model["blocks"][0][0].weight
    assert paths(model) == ["blocks.1"]


def test_a_module_that_no_pass_calls_is_no_block():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4)))
    assert paths(model, {"", "1"}) == ["1"]
