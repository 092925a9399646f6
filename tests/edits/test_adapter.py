from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError, SelectionError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe

peft = pytest.importorskip("peft")

IMAGE = (3, 64, 64)


def vit() -> nn.Module:
    """A small vision transformer of torchvision, whose head is not zero."""
    torch.manual_seed(0)
    model = VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


class Encoder(nn.Module):
    """Layers of torch's own transformer, which have a fast path of their own in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(1))


def shaken(model: nn.Module) -> None:
    """Move the trainable parameters, as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)


def test_the_model_computes_what_it_did_with_the_very_tensors_that_it_had(resnet18):
    base = resnet18.module.state_dict(keep_vars=True)
    x = torch.randn(2, *IMAGE)
    wanted = resnet18.module.eval()(x)
    resnet18.adapter("layer4.**:Conv2d", rank=4)
    assert torch.equal(resnet18.module(x), wanted)
    now = resnet18.module.state_dict(keep_vars=True)
    assert all(now[name] is base[resnet18.recipe.base_name(name)] for name in now if "lora" not in name)
    assert {resnet18.recipe.base_name(name) for name in now if "lora" not in name} == set(base)


def test_only_the_adapters_and_what_edits_put_in_are_trained():
    g = tg.load("resnet18@none", input=IMAGE).head(5).adapter("layer4.**:Conv2d", train="bn1")
    trained = {name.split(".")[0] for name, one in g.module.named_parameters() if one.requires_grad}
    assert trained == {"layer4", "fc", "bn1"}
    assert all("lora" in name for name, one in g.module.layer4.named_parameters() if one.requires_grad)


def test_flags_can_be_left_as_they_are():
    g = tg.load("resnet18@none", input=IMAGE).adapter("layer4.1.conv1", freeze=False)
    assert all(one.requires_grad for one in g.module.parameters())


def test_it_is_taken_back_exactly_with_all_flags(resnet18, snapshot):
    before = snapshot(resnet18.module)
    resnet18.adapter("layer4.**:Conv2d").undo()
    assert snapshot(resnet18.module) == before


def test_a_recipe_draws_the_same_adapters(resnet18):
    resnet18.adapter(["layer4", "layer3.1.conv2"], kind="dora", rank=2)
    other = replay(Recipe.from_yaml(resnet18.recipe.to_yaml()))
    ours, theirs = resnet18.module.state_dict(), other.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert other.recipe.edits == resnet18.recipe.edits


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "loha", "lokr", "ia3", "oft", "hra", "miss"])
def test_every_kind_starts_as_the_identity_trains_and_merges(kind):
    g = tg.load(vit(), input=IMAGE)
    keys, x = list(g.module.state_dict()), torch.randn(2, *IMAGE)
    wanted = g.module(x)
    g.adapter("encoder.**.mlp", kind=kind, rank=4)
    torch.testing.assert_close(g.module(x), wanted, rtol=1e-4, atol=1e-4)
    shaken(g.module)
    out = g.module(x)
    assert not torch.allclose(out, wanted, rtol=1e-3)
    out.square().sum().backward()
    assert all(one.grad.abs().sum() > 0 for one in g.module.parameters() if one.requires_grad)
    g.merge()
    torch.testing.assert_close(g.module(x), out, rtol=1e-4, atol=1e-5)
    assert list(g.module.state_dict()) == keys
    assert type(g.module.encoder.layers[0].mlp[0]) is nn.Linear


def test_merging_makes_new_tensors_of_what_changed_alone_and_is_taken_back(snapshot):
    g = tg.load(vit(), input=IMAGE)
    old = g.module.encoder.layers[0].mlp[0]
    g.adapter("encoder.**.mlp")
    shaken(g.module)
    before, weight = snapshot(g.module), old.weight.clone()
    g.merge()
    new = g.module.encoder.layers[0].mlp[0]
    assert new.weight is not old.weight
    assert new.bias is old.bias
    assert torch.equal(old.weight, weight)
    assert not new.weight.requires_grad
    g.undo()
    assert snapshot(g.module) == before


def test_merging_without_adapters_or_with_broken_ones_is_refused():
    g = tg.load(vit(), input=IMAGE)
    with pytest.raises(EditError, match="there is no adapter"):
        g.merge()
    g.adapter("encoder.**.mlp")
    with torch.no_grad():
        g.module.encoder.layers[0].mlp[0].lora_B["default"].weight.fill_(float("nan"))
    with pytest.raises(EditError, match="can't be merged"):
        g.merge()


# whether the adapter is used


def test_the_attention_of_torch_is_adapted_as_a_whole_and_used_in_evaluation_too():
    g = tg.load(vit(), input=IMAGE).adapter("encoder.**:MultiheadAttention")
    x = torch.randn(2, *IMAGE)
    wanted = g.module(x)
    shaken(g.module)
    weight = g.module.encoder.layers[0].self_attention.base_layer.in_proj_weight
    with torch.no_grad():
        quiet = g.module(x)
    assert not torch.allclose(quiet, wanted, rtol=1e-2)
    torch.testing.assert_close(g.module(x), quiet, rtol=1e-4, atol=1e-4)
    assert g.module.encoder.layers[0].self_attention.base_layer.in_proj_weight is weight
    assert torch.equal(copy.deepcopy(g.module)(x), g.module(x))
    g.merge()
    torch.testing.assert_close(g.module(x), quiet, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("base", "at"),
    [
        (vit, "encoder.layers.encoder_layer_0.self_attention.out_proj"),
        ("torchvision:swin_t@none", "features.1.0.attn.qkv"),
    ],
)
def test_a_layer_whose_weight_is_read_past_it_is_refused(base, at, snapshot):
    g = tg.load(base if isinstance(base, str) else base(), input=IMAGE)
    before = snapshot(g.module)
    with pytest.raises(EditError, match="would never be used"):
        g.adapter(at)
    assert snapshot(g.module) == before


def test_of_several_layers_those_that_would_not_be_used_stay_and_that_is_said():
    g = tg.load("torchvision:swin_t@none", input=IMAGE).adapter("features.1.**:Linear")
    assert g.recipe.edits[0].left == 4
    assert "4 stay" in g.recipe.edits[0].sentence()


def test_the_fast_path_of_encoder_layers_does_not_pass_their_adapters_by():
    g = tg.load(Encoder(), input=(5, 16)).adapter()
    x = torch.randn(2, 5, 16)
    wanted = g.module.eval()(x)
    shaken(g.module)
    with torch.no_grad():
        assert not torch.allclose(g.module(x), wanted, rtol=1e-3)
    with pytest.raises(EditError, match="reads the weights of its attention itself"):
        tg.load(Encoder(), input=(5, 16)).adapter("layers.layers.0.self_attn")


# what is chosen


def test_left_to_itself_it_takes_pointwise_layers_of_blocks_but_not_the_head():
    g = tg.load(vit(), input=IMAGE).adapter()
    assert "heads.head" not in g.recipe.edits[0].at
    assert "encoder.layers.encoder_layer_1.mlp.3" in g.recipe.edits[0].at


@pytest.mark.parametrize(("kind", "names"), [("gpt2", {"c_attn"}), ("llama", {"q_proj", "v_proj"})])
def test_models_of_transformers_get_adapters_where_peft_puts_them(kind, names):
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "vocab_size": 50}
    if kind == "gpt2":
        config = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)
        model = transformers.GPT2LMHeadModel(config).eval()
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, intermediate_size=32)).eval()
    words = {"input_ids": torch.randint(0, 50, (2, 6))}
    wanted = model(**words).logits
    g = tg.load(model, input=words).adapter()
    assert {path.rpartition(".")[2] for path in g.recipe.edits[0].at} == names
    torch.testing.assert_close(model(**words).logits, wanted, rtol=0, atol=1e-6)
    shaken(model)
    out = model(**words).logits
    g.merge()
    torch.testing.assert_close(model(**words).logits, out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"at": ["layer4", "layr"]}, SelectionError, "'layr' matches no module"),
        ({"at": "layer4.1.bn1"}, EditError, "selects nothing that can be adapted"),
        ({"at": "layer4", "kind": "oft"}, EditError, "oft serves Embedding, Linear"),
        ({"at": "layer4", "kind": "vera"}, RecipeError, "one of lora, rslora"),
        ({"at": "layer4", "kind": "hra", "dropout": 0.1}, RecipeError, "hra has no dropout"),
        ({"at": "layer4", "rank": 0}, RecipeError, "adapter"),
    ],
)
def test_what_can_not_be_adapted_is_told_and_nothing_changes(resnet18, snapshot, settings, error, match):
    before = snapshot(resnet18.module)
    with pytest.raises(error, match=match):
        resnet18.adapter(**settings)
    assert snapshot(resnet18.module) == before


def test_an_adapter_on_an_adapter_is_refused(resnet18):
    resnet18.adapter("layer4.1.conv1")
    with pytest.raises(EditError, match="merge that first"):
        resnet18.adapter("layer4.1.conv1")


def test_without_peft_it_says_what_to_install(resnet18, snapshot, monkeypatch):
    before = snapshot(resnet18.module)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EditError, match=r"pip install 'torchgraft\[peft\]'"):
        resnet18.adapter("layer4.1.conv1")
    assert snapshot(resnet18.module) == before


# dtype, versions


def test_adapters_have_the_dtype_and_training_flag_of_their_place():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).to(torch.bfloat16).eval(), input=(4,)).adapter("0")
    assert {one.dtype for one in g.module.parameters()} == {torch.bfloat16}
    assert not any(module.training for module in g.module.modules())


def test_a_version_holds_only_the_small_tensors_and_opens_with_them(tmp_path):
    g = tg.load("resnet18@none", input=IMAGE).adapter("layer4.**:Conv2d", rank=2).head(5)
    g.module.eval()
    shaken(g.module)
    g.save(tmp_path)
    size = sum(one.stat().st_size for one in tmp_path.rglob("*") if one.is_file())
    assert size < 400_000  # the base is 45 MB
    x = torch.randn(2, *IMAGE)
    opened = tg.open(f"{tmp_path}@v1")
    assert torch.equal(opened.module.eval()(x), g.module(x))
    opened.merge()
    torch.testing.assert_close(opened.module(x), g.module(x), rtol=1e-4, atol=1e-4)
