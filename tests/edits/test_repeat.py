from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.errors import EditError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe

IMAGE = (3, 64, 64)


def causal(kind: str) -> nn.Module:
    """A small decoder of transformers."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        sizes = {"n_layer": 3, "n_head": 2, "n_embd": 16, "n_positions": 32}
        config = transformers.GPT2Config(**sizes, vocab_size=50, bos_token_id=1, eos_token_id=2)
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.Qwen2Config(
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        hidden_size=16,
        intermediate_size=32,
        vocab_size=50,
    )
    return transformers.Qwen2ForCausalLM(config).eval()


# copies


def test_copies_stand_behind_the_block_with_its_weights_in_new_tensors(resnet18):
    keys = list(resnet18.module.state_dict())
    resnet18.repeat("layer3.1", times=2)
    stage = resnet18.module.layer3
    assert list(stage._modules) == ["0", "1", "1_2", "1_3"]
    assert torch.equal(stage[2].conv1.weight, stage[1].conv1.weight)
    assert stage[2].conv1.weight is not stage[1].conv1.weight
    assert [
        name for name in resnet18.module.state_dict() if not name.startswith(("layer3.1_2.", "layer3.1_3."))
    ] == keys
    assert resnet18.recipe.base_name("layer3.1_3.bn1.weight") == "layer3.1.bn1.weight"


@pytest.mark.parametrize("start", ["copy", "identity", "shared"])
def test_repeating_replays_bit_for_bit_and_is_taken_back_exactly(resnet18, snapshot, start):
    before = snapshot(resnet18.module)
    resnet18.repeat("layer1[0:]", times=2, start=start)
    other = replay(Recipe.from_yaml(resnet18.recipe.to_yaml()))
    ours, theirs = resnet18.module.state_dict(), other.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert len(copy.deepcopy(resnet18.module).layer1) == 6
    resnet18.undo()
    assert snapshot(resnet18.module) == before


def test_neighbours_are_repeated_as_a_whole():
    g = tg.load(nn.Sequential(*(nn.Linear(4, 4) for _ in range(4))), input=(4,))
    g.repeat(["1", "2"])
    assert list(g.module._modules) == ["0", "1", "2", "1_2", "2_2", "3"]
    with pytest.raises(EditError, match="do not follow one another"):
        g.repeat(["0", "2"])


def test_the_same_weights_can_be_used_again(resnet18):
    count = sum(one.numel() for one in resnet18.module.parameters())
    resnet18.repeat("layer1.1", start="shared")
    assert resnet18.module.layer1[2] is resnet18.module.layer1[1]
    assert sum(one.numel() for one in resnet18.module.parameters()) == count


def test_a_block_that_its_parent_calls_by_name_is_put_into_a_sequential(resnet18):
    base = {name: tensor.clone() for name, tensor in resnet18.module.state_dict().items()}
    resnet18.repeat("layer1")
    assert [type(one).__name__ for one in resnet18.module.layer1] == ["Sequential", "Sequential"]
    keys = resnet18.module.state_dict()
    resnet18.module.load_state_dict({name: base[resnet18.recipe.base_name(name)] for name in keys})


def test_a_block_that_changes_the_size_is_refused(resnet18, snapshot):
    before = snapshot(resnet18.module)
    with pytest.raises(EditError, match="takes 128 channels, but gets 256"):
        resnet18.repeat("layer3.0")
    assert snapshot(resnet18.module) == before


def test_what_a_block_shares_with_others_stays_shared():
    relu = nn.ReLU()
    g = tg.load(nn.Sequential(nn.Sequential(nn.Linear(4, 4), relu), relu), input=(4,)).repeat("0")
    assert g.module[1][1] is relu
    assert g.module[1][0] is not g.module[0][0]


# starting as the identity


@pytest.mark.parametrize(
    ("base", "at"),
    [
        ("torchvision:resnet18@none", "layer3.1"),
        ("torchvision:convnext_tiny@none", "features.5[1:3]"),
        ("torchvision:vgg11@none", ["features.8", "features.9"]),
        ("timm:vit_tiny_patch16_224@none", "blocks[4:6]"),
    ],
)
def test_copies_that_start_as_the_identity_leave_the_function_as_it_is(base, at):
    size = (3, 224, 224) if "vit" in base else IMAGE
    g = tg.load(base, input=size)
    x = torch.randn(2, *size)
    wanted = g.module.eval()(x)
    g.repeat(at, start="identity")
    torch.testing.assert_close(g.module(x), wanted, rtol=0, atol=1e-6)
    added = [path for path in g.added if any(True for _ in g.module.get_submodule(path).parameters())]
    g.module(x).square().sum().backward()
    moved = {path for path in added for one in g.module.get_submodule(path).parameters() if one.grad.abs().sum()}
    assert moved == set(added)


def test_an_activation_is_the_identity_only_behind_itself():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), input=(4,))
    x = torch.randn(8, 4)
    wanted = g.module.eval()(x)
    g.repeat(["1", "2"], start="identity")
    assert torch.equal(g.module(x), wanted)
    g.undo().repeat(["0", "1"], start="identity")
    assert torch.equal(g.module(x), wanted)


# lists


class Indexed(nn.Module):
    def __init__(self, count: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.depth = 4
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        for number in range(self.count or len(self.blocks)):
            x = self.blocks[number](x)
        return x


class Iterated(Indexed):
    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_list_that_is_gone_through_keeps_its_keys_and_its_count_follows():
    g = tg.load(Iterated(None), input=(4,)).repeat("blocks.1")
    assert list(g.module.blocks._modules) == ["0", "1", "1_2", "2", "3"]
    assert g.module.depth == 5


def test_a_list_that_is_reached_by_number_is_renumbered_and_the_base_still_loads():
    g = tg.load(Indexed(None), input=(4,))
    base = {name: tensor.clone() for name, tensor in g.module.state_dict().items()}
    g.repeat("blocks.1", times=2)
    assert g.recipe.edits[0].numbered
    assert list(g.module.blocks._modules) == ["0", "1", "2", "3", "4", "5"]
    names = [g.recipe.base_name(f"blocks.{number}.bias") for number in range(6)]
    assert names == [f"blocks.{number}.bias" for number in (0, 1, 1, 1, 2, 3)]
    assert all(torch.equal(base[g.recipe.base_name(name)], one) for name, one in g.module.state_dict().items())


def test_code_that_counts_to_a_fixed_number_is_refused_since_it_would_drop_the_last_blocks(snapshot):
    g = tg.load(Indexed(4), input=(4,))
    before = snapshot(g.module)
    with pytest.raises(EditError, match="the forward pass goes past it"):
        g.repeat("blocks.1")
    assert snapshot(g.module) == before


# transformers


@pytest.mark.parametrize(("kind", "layers"), [("gpt2", "transformer.h"), ("qwen2", "model.layers")])
@pytest.mark.parametrize("start", ["copy", "identity", "shared"])
def test_decoders_get_deeper_and_find_their_slots_in_the_cache(kind, layers, start):
    model, words = causal(kind), torch.randint(0, 50, (2, 6))
    wanted = model(words).logits
    g = tg.load(model, input={"input_ids": words}).repeat(f"{layers}[1:]", start=start)
    numbers = [module.layer_idx for module in model.modules() if hasattr(module, "layer_idx")]
    assert numbers == [0, 1, 2, 3, 4]
    assert model.config.num_hidden_layers == 5
    if kind == "qwen2":
        assert len(model.config.layer_types) == 5
    if start == "identity":
        assert torch.equal(model(words).logits, wanted)
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    cached, plain = (model.generate(words, use_cache=flag, **settings) for flag in (True, False))
    assert torch.equal(cached, plain)
    g.undo()
    assert model.config.num_hidden_layers == 3
    assert torch.equal(model(words).logits, wanted)


def test_a_block_without_residual_branches_that_takes_several_tensors_can_not_start_as_the_identity():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=32, vocab_size=50
    )
    g = tg.load(transformers.BertModel(config), input={"input_ids": torch.randint(0, 50, (2, 6))})
    with pytest.raises(EditError, match="no residual branches"):
        g.repeat("encoder.layer.0", start="identity")
    g.repeat("encoder.layer.0")
    assert g.module.config.num_hidden_layers == 3
