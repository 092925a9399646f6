from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.filling import fill, load_into

TINY = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "num_classes": 10}


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return models.resnet18(weights=None).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def test_a_wrapped_and_prefixed_checkpoint_is_loaded_whole(trained):
    model = models.resnet18(weights=None)
    kept = dict(model.named_parameters())
    filled = fill(model, {"epoch": 3, "model": nn.DataParallel(trained).state_dict()})
    assert same(model, trained)
    assert filled.whole
    assert filled.changes == ('the weights lie in ["model"] of a checkpoint', "122 names with 'module.' too much")
    assert all(kept[name] is parameter for name, parameter in model.named_parameters())


def test_all_but_the_head_is_loaded_and_the_head_is_told(trained):
    model = models.resnet18(weights=None, num_classes=10)
    head = model.fc.weight.clone()
    with pytest.warns(TorchgraftWarning, match=r"fc.weight is left as it was: \[1000, 512\] is given"):
        filled = fill(model, trained.state_dict())
    assert set(filled.left) == {"fc.weight", "fc.bias"}
    assert torch.equal(model.fc.weight, head)
    assert torch.equal(model.conv1.weight, trained.conv1.weight)


def test_a_fourth_channel_starts_at_zero_so_the_trained_function_stays(trained):
    model = models.resnet18(weights=None).eval()
    model.conv1 = nn.Conv2d(4, 64, 7, 2, 3, bias=False)
    filled = fill(model, trained.state_dict(), resize=True)
    assert any("1 new ones start at zero" in how for how in filled.resized.values())
    image = torch.randn(1, 3, 64, 64)
    more = torch.cat([image, torch.randn(1, 1, 64, 64)], 1)
    assert torch.allclose(model(more), trained(image), atol=1e-5)


def test_one_channel_gets_the_sum_of_three(trained):
    model = models.resnet18(weights=None).eval()
    model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    filled = fill(model, trained.state_dict(), resize=True)
    assert any("summed to 1" in how for how in filled.resized.values())
    grey = torch.randn(1, 1, 64, 64)
    assert torch.allclose(model(grey), trained(grey.expand(1, 3, 64, 64)), atol=1e-4)


def test_position_embeddings_are_interpolated_as_torchvision_does():
    small, large = VisionTransformer(image_size=32, **TINY), VisionTransformer(image_size=64, **TINY)
    filled = fill(large, small.state_dict(), resize=True)
    assert any("interpolated from 4×4 to 8×8, 1 tokens kept" in how for how in filled.resized.values())
    wanted = interpolate_embeddings(64, 8, small.state_dict())["encoder.pos_embedding"]
    assert torch.allclose(large.encoder.pos_embedding, wanted)


def test_tables_of_relative_places_grow(trained):
    model = nn.Module()
    model.relative_position_bias_table = nn.Parameter(torch.zeros(25, 2))
    model.other = nn.Linear(2, 2)
    state = {
        "relative_position_bias_table": torch.ones(9, 2),
        **{f"other.{n}": t for n, t in nn.Linear(2, 2).state_dict().items()},
    }
    filled = fill(model, state, resize=True)
    assert any("from 3×3 to 5×5" in how for how in filled.resized.values())
    assert torch.allclose(model.relative_position_bias_table, torch.ones(25, 2))


def test_rows_of_a_longer_head_are_kept(trained):
    model = models.resnet18(weights=None, num_classes=1002)
    filled = fill(model, trained.state_dict(), resize=True)
    assert any("the first 1000 of 1000 rows" in how for how in filled.resized.values())
    assert torch.equal(model.fc.weight[:1000], trained.fc.weight)


def test_weights_of_another_model_are_refused_and_nothing_is_changed(trained, snapshot):
    model = models.resnet18(weights=None)
    before = snapshot(model)
    with pytest.raises(SourceError, match="not for this model: 102 missing"):
        fill(model, models.densenet121(weights=None).state_dict())
    assert snapshot(model) == before


def test_codes_of_a_quantised_model_are_left_out(trained):
    model = nn.Linear(2, 2)
    state = {"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.ones(2)}
    with pytest.warns(TorchgraftWarning, match="without their scale"):
        filled = fill(model, state)
    assert (set(filled.left), filled.loaded) == ({"weight"}, ("bias",))


def test_a_model_on_meta_is_refused(trained):
    with torch.device("meta"):
        model = models.resnet18(weights=None)
    with pytest.raises(SourceError, match="meta device"):
        fill(model, trained.state_dict())


def test_a_graft_is_filled_through_its_module(resnet18, trained):
    assert load_into(resnet18, trained.state_dict()).whole
    assert same(resnet18.module, trained)


def test_half_weights_are_cast(trained):
    model = models.resnet18(weights=None)
    fill(
        model, {name: one.half() if one.is_floating_point() else one for name, one in trained.state_dict().items()}
    )
    assert model.conv1.weight.dtype == torch.float32
    assert torch.equal(model.conv1.weight, trained.conv1.weight.half().float())


def test_values_that_are_not_finite_are_told():
    model, given = nn.Linear(4, 3), nn.Linear(4, 3).state_dict()
    given["weight"] = torch.full((3, 4), torch.nan)
    with pytest.warns(TorchgraftWarning, match="12 values are NaN or infinite: weight"):
        filled = fill(model, given)
    assert filled.broken == {"weight": 12}
