from __future__ import annotations

import pytest
import torch

from torchgraft import blocks
from torchgraft.errors import RecipeError
from torchgraft.modulespec import ModuleSpec


def test_squeeze_excite_reads_its_channels_off_the_place_and_keeps_the_shape():
    block = blocks.SqueezeExcite(reduction=4).fitted((2, 32, 8, 8))
    assert block.channels == 32
    assert block.build()(torch.randn(2, 32, 8, 8)).shape == (2, 32, 8, 8)


def test_mlp_is_built_from_a_list_of_widths():
    mlp = blocks.MLP(widths=(256, 128), dropout=0.5).fitted((2, 784)).build()
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert mlp(torch.randn(2, 784)).shape == (2, 128)


def test_an_unknown_block_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean SqueezeExcite"):
        blocks.Block.named("SqueezExcite")


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        torch.nn.Linear(3, 4, bias=False),
        torch.nn.BatchNorm2d(4, eps=1e-3),
        torch.nn.LayerNorm([3, 4]),
        torch.nn.Dropout(0.3),
        torch.nn.AdaptiveAvgPool2d((1, 1)),
        torch.nn.Upsample(scale_factor=2),
        torch.nn.GroupNorm(2, 4),
        torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten()),
    ],
)
def test_a_plain_layer_that_was_handed_over_is_described_well_enough_to_be_built_again(module):
    spec = ModuleSpec.model_validate(module)
    assert spec.replays
    assert spec.module is module
    assert ModuleSpec.model_validate(spec.model_dump()) == spec


def test_a_class_of_ones_own_is_only_named():
    class Mine(torch.nn.Module):
        pass

    spec = ModuleSpec.model_validate(Mine())
    assert not spec.replays
    assert spec.model_dump() == {"object": {"class": "Mine"}}
