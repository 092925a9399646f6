from __future__ import annotations

import pytest
import torch

from torchgraft import blocks
from torchgraft.errors import EditError, RecipeError
from torchgraft.modulespec import ModuleSpec


def test_squeeze_excite_reads_its_channels_off_the_place_and_keeps_the_shape():
    block = blocks.SqueezeExcite(reduction=4).fitted((2, 32, 8, 8))
    assert block.channels == 32
    assert block.build()(torch.randn(2, 32, 8, 8)).shape == (2, 32, 8, 8)


def test_mlp_is_built_from_a_list_of_widths():
    mlp = blocks.MLP(widths=(256, 128), dropout=0.5).fitted((2, 784)).build()
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert mlp(torch.randn(2, 784)).shape == (2, 128)


def test_a_perceptron_may_choose_its_activation_norm_and_shortcuts():
    mlp = (
        blocks.MLP(widths=(64, 64, 10), activation="gelu", norm="layer", residual=True).fitted((2, 9, 32)).build()
    )
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "LayerNorm", "GELU", "Residual", "Linear"]
    x = torch.randn(2, 9, 32)
    step = mlp[3]
    assert torch.equal(step(mlp[:3](x)), mlp[:3](x) + step.body(mlp[:3](x)))
    assert mlp(x).shape == (2, 9, 10)
    with pytest.raises(EditError, match="norm over"):
        blocks.MLP(widths=(4,), norm="batch").fitted((2, 9, 32))


def test_a_block_of_torchvision_or_timm_is_that_very_block():
    from timm.layers import EcaModule, LayerScale2d
    from timm.layers.cbam import CbamModule
    from torchvision.models.resnet import BasicBlock
    from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck
    from torchvision.ops import SqueezeExcitation

    kinds = {
        blocks.ECA(): EcaModule, blocks.CBAM(): CbamModule, blocks.LayerScale(): LayerScale2d,
        blocks.ResidualBlock(): BasicBlock, blocks.Bottleneck(): TorchvisionBottleneck,
        blocks.SqueezeExcite(): SqueezeExcitation,
    }  # fmt: skip
    for block, kind in kinds.items():
        assert type(block.fitted((2, 64, 8, 8)).build()) is kind


def test_a_residual_block_of_another_width_has_the_weights_of_torchvisions_own():
    from torchvision.models import resnet18

    theirs = resnet18().layer2[0].state_dict()
    mine = blocks.ResidualBlock(out_channels=128, stride=2).fitted((2, 64, 8, 8)).build()
    assert {name: t.shape for name, t in mine.state_dict().items()} == {
        name: t.shape for name, t in theirs.items()
    }


def test_generalised_mean_pooling_is_the_average_at_one_and_near_the_maximum_far_up():
    x = torch.rand(2, 5, 7, 6) + 0.1
    average = blocks.GeM(p=1.0).fitted(x.shape).build()
    assert torch.allclose(average(x), x.mean((2, 3)))
    largest = blocks.GeM(p=60.0).fitted(x.shape).build()
    assert torch.allclose(largest(x), x.amax((2, 3)), rtol=0.08)
    last = blocks.GeM(p=1.0, layout="NHWC").fitted((2, 7, 6, 5)).build()
    assert torch.allclose(last(x.permute(0, 2, 3, 1)), x.mean((2, 3)))
    average(x).sum().backward()
    assert average.p.grad.abs() > 0


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "gem"])
@pytest.mark.parametrize("shape", [(2, 16, 5, 4), (2, 16)])
def test_a_head_takes_maps_and_vectors(pool, shape):
    head = blocks.Head(classes=3, hidden=(8,), dropout=0.2, pool=pool, norm="batch").fitted(shape).build()
    assert head(torch.rand(shape)).shape == (2, 3)
    assert [type(layer).__name__ for layer in head][-5:] == ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]


@pytest.mark.parametrize("layout", ["NHWC", "NLC", "NCL"])
def test_a_head_pools_wherever_the_channels_are(layout):
    maps = torch.rand(2, 16, 5, 4)
    turned = {"NHWC": maps.permute(0, 2, 3, 1), "NLC": maps.flatten(2).transpose(1, 2), "NCL": maps.flatten(2)}[
        layout
    ]
    head = blocks.Head(classes=3, layout=layout).fitted(turned.shape).build()
    plain = blocks.Head(classes=3).fitted(maps.shape).build()
    plain.load_state_dict(head.state_dict(), strict=False)
    plain[-1].load_state_dict(head[-1].state_dict())
    assert torch.allclose(head(turned), plain(maps), atol=1e-6)


def test_attention_sees_every_place_whatever_the_layout():
    maps = torch.randn(2, 64, 3, 4)
    module = blocks.SelfAttention(heads=4).fitted(maps.shape).build().eval()
    tokens = maps.flatten(2).transpose(1, 2)
    seen = module.norm(tokens)
    by_hand = tokens + module.attention(seen, seen, seen)[0]
    assert torch.allclose(module(maps).flatten(2).transpose(1, 2), by_hand, atol=1e-6)
    last = blocks.SelfAttention(heads=4, layout="NHWC").fitted((2, 3, 4, 64)).build().eval()
    last.load_state_dict(module.state_dict())
    assert torch.allclose(last(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), module(maps), atol=1e-6)


def test_channel_attention_over_maps_with_channels_last_is_the_same():
    maps = torch.randn(2, 16, 5, 4)
    for kind in (blocks.SqueezeExcite, blocks.ECA, blocks.CBAM):
        plain = kind().fitted(maps.shape).build().eval()
        turned = kind(layout="NHWC").fitted((2, 5, 4, 16)).build().eval()
        turned[1].load_state_dict(plain.state_dict())
        assert torch.allclose(turned(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), plain(maps), atol=1e-6)


def test_dropped_paths_are_whole_samples_and_only_in_training():
    module = blocks.DropPath(rate=0.5).fitted((64, 3)).build()
    x = torch.ones(64, 3)
    assert torch.equal(module.eval()(x), x)
    given = module.train()(x)
    assert set(given.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(given, given[:, :1].expand(-1, 3))


@pytest.mark.parametrize(
    ("block", "shape", "what"),
    [
        (blocks.CBAM(), (2, 512), r"CBAM takes a feature map \[N, C, H, W\] or .* and is given \[N, 512\]"),
        (blocks.ECA(), (2, 512), r"ECA takes .* tokens \[N, L, C\]"),
        (blocks.ConvNormAct(), (2, 9, 64), r"is given \[N, 9, 64\]"),
        (blocks.GeM(), (2, 3, 4, 5, 6), r"is given \[N, 3, 4, 5, 6\]"),
        (blocks.CBAM(layout="NHWC"), (2, 512), r"\[N, 512\] as NHWC"),
        (blocks.SelfAttention(heads=5), (2, 64, 8, 8), "5 heads, which do not divide 64"),
        (blocks.Bottleneck(out_channels=30), (2, 64, 8, 8), "a multiple of 4 channels, not 30"),
        (blocks.ConvNormAct(groups=7), (2, 64, 8, 8), "7 groups, which do not divide 64"),
    ],
)
def test_a_block_refuses_where_it_can_not_stand_and_says_what_it_needs(block, shape, what):
    with pytest.raises(EditError, match=what) as caught:
        block.fitted(shape)
    assert caught.value.hint


def test_a_block_with_open_sizes_can_not_be_built():
    for block in (blocks.CBAM(), blocks.MLP(widths=(3,)), blocks.Head(classes=2)):
        with pytest.raises(EditError, match="has open sizes"):
            block.build()


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


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (
            lambda: blocks.SqueezeExcite(reductoin=4),
            "there is no setting 'reductoin'(.|\n)*did you mean reduction",
        ),
        (lambda: blocks.SqueezeExcite(reduction="x"), "a whole number is needed, not 'x'"),
        (lambda: blocks.MLP(), "'widths' is missing"),
        (lambda: blocks.MLP(widths=8), r"a list is needed, not 8(.|\n)*write \[8\]"),
    ],
)
def test_a_wrong_setting_in_python_is_told_as_in_a_recipe(made, told):
    with pytest.raises(RecipeError, match=told):
        made()


def test_a_misspelt_block_names_the_nearest():
    with pytest.raises(AttributeError, match="did you mean SqueezeExcite"):
        _ = blocks.SqueezExcite
