from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe

IMAGE = (3, 64, 64)


def decoder(*, tied: bool) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=32,
        vocab_size=50,
        tie_word_embeddings=tied,
    )
    return transformers.LlamaForCausalLM(config).eval()


def test_chosen_rows_are_kept_in_their_order_and_the_class_count_follows():
    g = tg.load("timm:resnet18@none", input=IMAGE)
    old = g.module.fc.weight.detach().clone()
    g.resize("fc", rows=[5, 2, 900])
    assert torch.equal(g.module.fc.weight, old[[5, 2, 900]])
    assert g.module.num_classes == 3
    other = replay(Recipe.from_yaml(g.recipe.to_yaml()))
    assert torch.equal(other.module.fc.weight, g.module.fc.weight)


@pytest.mark.parametrize("start", ["mean", "zero"])
def test_new_rows_start_as_asked(start):
    g = tg.load(nn.Sequential(nn.Linear(4, 3)), input=(4,))
    old = g.module[0].weight.detach().clone()
    g.resize("0", outputs=5, start=start)
    wanted = old.mean(0) if start == "mean" else torch.zeros(4)
    assert torch.equal(g.module[0].weight[:3], old)
    torch.testing.assert_close(g.module[0].weight[4], wanted)


def test_each_parameter_keeps_its_own_flag():
    g = tg.load(nn.Sequential(nn.Linear(4, 3)), input=(4,))
    g.module[0].weight.requires_grad = False
    g.resize("0", outputs=5)
    assert not g.module[0].weight.requires_grad
    assert g.module[0].bias.requires_grad


# words


@pytest.mark.parametrize("at", ["model.embed_tokens", "lm_head"])
def test_a_vocabulary_grows_in_both_layers_that_hold_it_and_stays_tied(at, snapshot):
    model, words = decoder(tied=True), torch.randint(0, 50, (2, 6))
    g = tg.load(model, input={"input_ids": words})
    before, wanted = snapshot(model), model(words).logits
    g.resize(at, **{"inputs" if "embed" in at else "outputs": 55}, start="mean")
    out = model(words).logits
    assert out.shape == (2, 6, 55)
    torch.testing.assert_close(out[..., :50], wanted)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.out_features == model.config.vocab_size == model.model.embed_tokens.num_embeddings == 55
    g.undo()
    assert snapshot(model) == before
    assert model.config.vocab_size == 50


def test_untied_layers_are_resized_one_by_one():
    model, words = decoder(tied=False), torch.randint(0, 50, (2, 6))
    g = tg.load(model, input={"input_ids": words})
    g.resize("model.embed_tokens", inputs=55)
    assert model.lm_head.out_features == 50
    assert model.config.vocab_size == 55


def test_the_padding_word_moves_with_its_row():
    model = nn.Sequential(nn.Embedding(10, 4, padding_idx=0), nn.Flatten(), nn.Linear(12, 3))
    g = tg.load(model, input=torch.randint(0, 3, (2, 3))).resize("0", rows=[4, 0, 2])
    assert g.module[0].padding_idx == 1
    assert g.module[0].weight[1].abs().sum() == 0
    g.resize("0", inputs=5)
    assert g.module[0].padding_idx == 1


def test_a_padding_word_that_is_dropped_is_padding_no_more():
    model = nn.Sequential(nn.Embedding(10, 4, padding_idx=9), nn.Flatten(), nn.Linear(12, 3))
    g = tg.load(model, input=torch.zeros(2, 3, dtype=torch.long)).resize("0", inputs=5)
    assert g.module[0].padding_idx is None


# pruning


@pytest.mark.parametrize(
    ("base", "at", "behind"),
    [
        ("torchvision:resnet18@none", "layer2.0.conv1", "layer2.0.conv2"),
        ("torchvision:mobilenet_v2@none", "features.3.conv.0.0", "features.3.conv.2"),
        ("torchvision:vgg11_bn@none", "features.25", "classifier.0"),
    ],
)
def test_channels_that_nothing_uses_can_be_taken_out_of_all_layers_that_carry_them(base, at, behind):
    g = tg.load(base, input=IMAGE)
    model, x = g.module.eval(), torch.randn(2, *IMAGE)
    count = model.get_submodule(at).out_channels
    weight = model.get_submodule(behind).weight
    wide = weight.shape[1] // count
    with torch.no_grad():
        weight[:, 5 * wide : 6 * wide] = 0
    wanted = model(x)
    g.resize(at, rows=[place for place in range(count) if place != 5], fix="propagate")
    torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-5)
    assert model.get_submodule(behind).weight.shape[1] == weight.shape[1] - wide


def test_rows_that_can_not_be_followed_through_a_join_are_refused(snapshot):
    g = tg.load("torchvision:densenet121@none", input=IMAGE)
    before = snapshot(g.module)
    with pytest.raises(EditError):
        g.resize("features.denseblock1.denselayer2.conv2", rows=list(range(1, 32)), fix="propagate")
    assert snapshot(g.module) == before


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"at": "fc", "rows": [1000]}, EditError, "fc has 1000 rows, so there is none 1000"),
        ({"at": "fc", "rows": [1, 2], "outputs": 1}, EditError, "2 rows do not fit into 1"),
        ({"at": "layer1.0.bn1", "columns": [1]}, EditError, "can't be chosen"),
        ({"at": "layer1.0", "outputs": 3}, EditError, "has no sizes that can be changed"),
        ({"at": "fc"}, RecipeError, "a resize names inputs, outputs or both, or the rows"),
        ({"at": "fc", "rows": [-1]}, RecipeError, "resize"),
    ],
)
def test_what_can_not_be_resized_is_told_and_nothing_changes(resnet18, snapshot, settings, error, match):
    before = snapshot(resnet18.module)
    with pytest.raises(error, match=match):
        resnet18.resize(**settings)
    assert snapshot(resnet18.module) == before


def test_an_adapted_layer_is_merged_before_it_is_resized(resnet18):
    resnet18.adapter("fc", rank=2)
    with pytest.raises(EditError, match="has no sizes that can be changed") as caught:
        resnet18.resize("fc", outputs=5)
    assert caught.value.hint == "merge its adapter first"
    assert resnet18.merge().resize("fc", outputs=5).module.fc.out_features == 5
