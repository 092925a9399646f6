"""Insert and append: before, after, beside, into lists; and a refused one leaves the model as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.edits.again import again
from torch import Tensor, nn
from torchvision import models
from transformers import BertConfig, BertForSequenceClassification

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError

X = torch.randn(2, 3, 64, 64)
WORDS = torch.randint(0, 50, (2, 8))
NARROW = {"nn.Conv2d": {"out_channels": 7, "kernel_size": 1}}


class Layers(nn.Module):
    """Goes through a list of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.num_layers = 3

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Numbered(Layers):
    """Takes them by number."""

    def forward(self, x: Tensor) -> Tensor:
        for number in range(self.num_layers):
            x = self.layers[number](x)
        return x


def bert() -> tg.Graft:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(**sizes, vocab_size=50, max_position_embeddings=16))
    return tg.load(model.eval(), input=WORDS)


def test_inserting_between_the_layers_of_a_sequential_renumbers_nothing():
    g = tg.load("torchvision:vgg11@none", input=(3, 64, 64))
    keys = list(g.module.state_dict())
    g.insert(nn.BatchNorm2d(64), after="features.0", name="norm")
    assert list(g.module.features._modules)[:3] == ["0", "norm", "1"]
    assert [key for key in g.module.state_dict() if "norm" not in key] == keys


def test_inserting_before_the_first_layer_works(resnet18):
    g = tg.load("torchvision:vgg11@none", input=(3, 64, 64))
    g.insert(nn.Dropout2d(0.1), before="features.0")
    assert next(iter(g.module.features._modules)) == "dropout2d"


def test_inserting_beside_an_attribute_wraps_it_and_says_which_keys_moved(resnet18):
    base = resnet18.module.state_dict()
    resnet18.insert(nn.GELU(), after="bn1")
    assert resnet18.recipe.base_name("bn1.base.weight") == "bn1.weight"
    assert resnet18.recipe.base_name("layer1.0.bn1.weight") == "layer1.0.bn1.weight"
    edited = resnet18.module.state_dict()
    loaded = {name: base[resnet18.recipe.base_name(name)] for name in edited}
    resnet18.module.load_state_dict(loaded)


def test_keys_that_moved_twice_lead_back_to_the_base(resnet18):
    resnet18.insert(nn.GELU(), after="bn1").insert(nn.Identity(), before="conv1", name="first")
    resnet18.insert(nn.Identity(), after="bn1", name="again")
    names = {resnet18.recipe.base_name(name) for name in resnet18.module.state_dict()}
    assert names == set(models.resnet18(weights=None).state_dict())


def test_a_name_that_is_taken_is_refused(resnet18):
    with pytest.raises(EditError, match="exists already"):
        resnet18.append("layer2", nn.Identity(), name="0")


def test_appending_to_what_is_no_sequential_says_what_to_do_instead(resnet18):
    with pytest.raises(EditError, match="not a Sequential"):
        resnet18.append("layer1.0", nn.Identity())


def test_a_module_that_the_forward_pass_goes_past_is_refused(snapshot):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

        def forward(self, x):
            return self.stages[1](self.stages[0](x)).mean((2, 3))

    g = tg.load(Net(), input=(3, 8, 8))
    before = snapshot(g.module)
    with pytest.raises(EditError, match=r"stages\.extra was added by edit 1, but the forward pass goes past it"):
        g.append("stages", nn.Conv2d(4, 4, 1), name="extra")
    assert snapshot(g.module) == before


# beside


@pytest.mark.parametrize("at", ["layer3.1", "conv1"])
def test_a_module_beside_another_gets_the_same_and_is_added(at):
    g = tg.load("resnet18@none", input=(3, 64, 64))
    place = g.module.get_submodule(at)
    x = torch.randn(2, 256, 4, 4) if at == "layer3.1" else X
    before = place.eval()(x)
    settings = {} if at == "layer3.1" else {"stride": 2}
    out = before.shape[1]
    g.insert({"nn.Conv2d": {"out_channels": out, "kernel_size": 1, **settings}}, around=at, name="side")
    assert g.recipe.base_name(f"{at}.base.weight") == f"{at}.weight"
    new = g.module.get_submodule(at)
    torch.testing.assert_close(new.eval()(x), before + new.side(x))
    again(g)


def test_a_module_beside_another_may_start_at_zero_and_learns(resnet18):
    before = resnet18.module.eval()(X)
    resnet18.insert(nn.Identity(), around="layer3.1", start="identity")
    assert torch.equal(resnet18.module(X), before)
    resnet18.module(X).sum().backward()
    assert resnet18.module.layer3[1].identity.gate.grad != 0
    assert "starts at zero" in resnet18.recipe.edits[0].sentence()
    again(resnet18)


@pytest.mark.parametrize("start", [None, "identity"])
def test_sizes_that_do_not_agree_beside_another_are_mended(resnet18, snapshot, start):
    before = snapshot(resnet18.module)
    with pytest.raises(EditError, match=r"joins \[N, 256, 4, 4\] and \[N, 7, 8, 8\]"):
        resnet18.insert(NARROW, around="layer3")
    assert snapshot(resnet18.module) == before
    same = resnet18.module.eval()(X)
    resnet18.insert(NARROW, around="layer3", start=start, fix="adapt")
    assert torch.equal(resnet18.module(X), same) is (start is not None)
    again(resnet18)


def test_a_block_that_works_in_place_does_not_spoil_what_runs_beside_it():
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4)))
    g = tg.load(net, input=torch.empty(2, 4))
    x = torch.randn(2, 4)
    first = g.module[0](x).detach()
    wanted = first + g.module[1](first.clone())
    g.insert(nn.Identity(), around="1")
    torch.testing.assert_close(g.module(x), wanted)


# lists of layers


def test_a_list_that_is_gone_through_grows_by_order_and_its_length_follows(snapshot):
    g = tg.load(Layers(), input=torch.empty(2, 4))
    before = snapshot(g.module)
    g.insert(nn.ReLU(), after="layers.0", name="act").insert(nn.ReLU(), before="layers.0", name="first")
    assert list(g.module.layers._modules) == ["first", "0", "act", "1", "2"]
    assert g.module.num_layers == 5
    assert g.recipe.base_name("layers.1.weight") == "layers.1.weight"
    g.undo().undo()
    assert snapshot(g.module) == before


def test_a_list_that_is_read_by_number_is_left_and_the_layer_is_wrapped():
    g = tg.load(Numbered(), input=torch.empty(2, 4))
    g.insert(nn.ReLU(), after="layers.0", name="act")
    assert list(g.module.layers._modules) == ["0", "1", "2"]
    assert g.module.num_layers == 3
    assert g.recipe.base_name("layers.0.base.weight") == "layers.0.weight"


def test_the_second_list_that_a_model_goes_through_at_once_keeps_all_its_layers():
    class Paired(Layers):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(4) for _ in range(3)])

        def forward(self, x):
            for layer, norm in zip(self.layers, self.norms, strict=False):
                x = norm(layer(x))
            return x

    g = tg.load(Paired(), input=torch.empty(2, 4))
    g.insert(nn.ReLU(), after="layers.0", name="act")  # in the list it would leave the last layer without a norm
    assert list(g.module.layers._modules) == ["0", "1", "2"]


# arguments and tuples


@pytest.mark.parametrize("side", ["after", "before", "around"])
def test_a_layer_that_takes_any_arguments_keeps_its_keys_and_gets_a_forward_of_its_own(side):
    g = bert()
    keys, before = list(g.module.state_dict()), g.module(WORDS).logits
    mask = torch.tensor([[1] * 8, [1] * 4 + [0] * 4])
    masked = g.module(WORDS, attention_mask=mask).logits
    g.insert(nn.Linear(32, 32), **{side: "bert.encoder.layer.1"}, name="new", start="identity")
    assert torch.equal(g.module(WORDS).logits, before)
    assert torch.equal(copy.deepcopy(g.module)(WORDS, attention_mask=mask).logits, masked)
    assert [key for key in g.module.state_dict() if ".new." not in key] == keys
    assert g.check() == ()
    kind = type(g.module.bert.encoder.layer[1])
    g.undo()
    assert type(g.module.bert.encoder.layer[1]) is not kind
    assert list(g.module.state_dict()) == keys


def test_a_module_that_gives_a_pair_passes_its_first_tensor_on():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(4, 6, batch_first=True)

        def forward(self, x):
            out, state = self.rnn(x)
            return out[:, -1] + state[-1]

    g = tg.load(Net(), input=torch.empty(2, 5, 4))
    x = torch.randn(2, 5, 4)
    before = g.module(x)
    g.insert(nn.Linear(6, 6), after="rnn", name="new", start="identity")
    assert torch.equal(g.module(x), before)
    g.module.rnn.new.gate.data.fill_(1)
    assert not torch.equal(g.module(x), before)


def test_a_wrapper_keeps_what_it_tells_when_it_is_copied():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(4, 4)

        def forward(self, x):
            return self.part(x) * self.part.out_features

    g = tg.load(Net(), input=torch.empty(2, 4)).insert(nn.Identity(), around="part")
    assert copy.deepcopy(g.module).part.out_features == 4


def test_an_insert_names_one_place(resnet18):
    with pytest.raises(RecipeError, match="after, before or around"):
        resnet18.insert(nn.ReLU(), after="layer1", around="layer2")


def test_what_stands_after_a_wrapper_is_copied_with_it():
    g = tg.load(nn.TransformerEncoderLayer(8, 2, batch_first=True), input=(5, 8)).remove("self_attn")
    x = torch.randn(2, 5, 8)
    before = g.module.eval()(x)
    g.insert(nn.Linear(8, 8), after="self_attn", name="new")
    assert not torch.equal(g.module(x), before)
    assert torch.equal(copy.deepcopy(g.module)(x), g.module(x))


@pytest.mark.parametrize("side", ["around", "after"])
def test_a_gate_has_the_dtype_of_its_place(side):
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2)).bfloat16()
    g = tg.load(model, input=torch.zeros(2, 4, dtype=torch.bfloat16))
    g.insert(nn.Identity(), **{side: "0"}, start="identity")
    assert {one.dtype for one in g.module.parameters()} == {torch.bfloat16}
