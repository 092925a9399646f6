from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import EditError, SelectionError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe


def deep(count: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()) for _ in range(count)))


def test_one_module_stands_in_all_places_and_the_base_loads_into_it():
    g = tg.load(deep(), input=(4,))
    base = {name: tensor.clone() for name, tensor in g.module.state_dict().items()}
    g.share("*", to="0")
    assert g.module[1] is g.module[0]
    assert list(g.module.state_dict()) == list(base)
    assert sum(one.numel() for one in g.module.parameters()) == 28
    g.module.load_state_dict({name: base[g.recipe.base_name(name)] for name in base})
    assert torch.equal(g.module[3][0].weight, base["0.0.weight"])
    assert copy.deepcopy(g.module)[3] is not g.module[3]


def test_gradients_of_all_places_come_together():
    g = tg.load(nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)), input=(3,))
    g.share("1", to="0")
    x = torch.randn(2, 3)
    g.module(x).sum().backward()
    weight = g.module[0].weight.detach().clone().requires_grad_()
    (x @ weight.T @ weight.T).sum().backward()
    torch.testing.assert_close(g.module[0].weight.grad, weight.grad)


def test_sharing_is_taken_back_exactly_and_replays(resnet18, snapshot):
    before = snapshot(resnet18.module)
    resnet18.share(["layer1.1", "layer1.0"], to="layer1.0")
    other = replay(Recipe.from_yaml(resnet18.recipe.to_yaml()))
    ours, theirs = resnet18.module.state_dict(), other.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert other.module.layer1[1] is other.module.layer1[0]
    resnet18.undo()
    assert snapshot(resnet18.module) == before


@pytest.mark.parametrize(
    ("at", "to", "error", "match"),
    [
        ("layer3.1", "layer2.1", EditError, r"conv1\.weight is \[256, 256, 3, 3\] in layer3\.1"),
        ("layer1.0", "layer1", EditError, "holds the other"),
        ("layer1.0", "layer1.0", EditError, "nothing but layer1.0 itself"),
        ("layer9", "layer1.0", SelectionError, "layer9"),
    ],
)
def test_what_does_not_fit_is_refused(resnet18, snapshot, at, to, error, match):
    before = snapshot(resnet18.module)
    with pytest.raises(error, match=match):
        resnet18.share(at, to=to)
    assert snapshot(resnet18.module) == before


def test_layers_with_a_slot_in_a_cache_share_tensors_and_generate_the_same_with_it():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        hidden_size=16,
        intermediate_size=32,
        vocab_size=50,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    words = torch.randint(0, 50, (2, 6))
    g = tg.load(model, input={"input_ids": words}).share("model.layers.*", to="model.layers.0")
    layers = model.model.layers
    assert layers[1] is not layers[0]
    assert layers[2].mlp.up_proj.weight is layers[0].mlp.up_proj.weight
    assert g.recipe.edits[0].by == "tensors"
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    cached, plain = (model.generate(words, use_cache=flag, **settings) for flag in (True, False))
    assert torch.equal(cached, plain)
