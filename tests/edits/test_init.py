from __future__ import annotations

import copy
import inspect
import math

import pytest
import timm
import torch
import transformers
from tests.net import Net
from torch import nn
from torch.nn.utils import parametrizations
from torchvision import models

import torchgraft as tg
from torchgraft.edits.init import Init
from torchgraft.errors import EditError, RecipeError, SelectionError, TorchgraftWarning
from torchgraft.loading import replay
from torchgraft.surgery.values.drawing import _seed
from torchgraft.surgery.values.follows import Followers
from torchgraft.surgery.values.initial import FUNCTIONS, Initial

LOSES = "ignore::torchgraft.errors.TorchgraftWarning"


def named(module):
    return dict(module.named_parameters())


def changed(before, module):
    after = module.state_dict(keep_vars=True)
    assert before.keys() == after.keys()
    return {name for name, one in after.items() if one is not before[name]}


def fresh():
    return tg.load("torchvision:resnet18@none", input=(3, 64, 64))


@pytest.fixture
def seen(resnet18):
    return resnet18.module.state_dict(keep_vars=True)


# by kind


def test_each_kind_is_drawn_by_its_rule_and_nothing_else_is_touched(resnet18, seen):
    resnet18.init("layer3.**", conv="ones", norm={"constant": 0.5}, bias={"constant": -4.6})
    part = {name for name in seen if name.startswith("layer3.")}
    assert changed(seen, resnet18.module) == {name for name in part if name.endswith(("weight", "bias"))}
    layer = resnet18.module.layer3[0]
    assert bool((layer.conv1.weight == 1).all())
    assert bool((layer.bn1.weight == 0.5).all())
    assert bool((layer.bn1.bias == -4.6).all())


def test_what_no_rule_names_stays(resnet18, seen):
    resnet18.init("fc", linear={"normal": {"std": 0.01}})
    assert changed(seen, resnet18.module) == {"fc.weight"}
    assert abs(float(resnet18.module.fc.weight.detach().std()) - 0.01) < 1e-4


def test_weight_means_every_kind_of_weight_that_has_no_rule_of_its_own(resnet18, seen):
    resnet18.init(["layer1.0", "fc"], weight="zeros", linear="ones")
    assert changed(seen, resnet18.module) == {"layer1.0.conv1.weight", "layer1.0.conv2.weight", "fc.weight"}
    assert bool((resnet18.module.fc.weight == 1).all())


def test_one_parameter_can_be_named(resnet18, seen):
    resnet18.init("layer4.1.bn2.weight", norm="zeros")
    assert changed(seen, resnet18.module) == {"layer4.1.bn2.weight"}


def test_the_table_of_functions_is_that_of_torch():
    theirs = {
        name.removesuffix("_"): tuple(inspect.signature(function).parameters)[1:]
        for name, function in vars(nn.init).items()
        if name.endswith("_") and not name.startswith("_")
    }
    assert {name: tuple(one for one in takes if one != "generator") for name, takes in theirs.items()} == FUNCTIONS


ARGUMENTS = {"constant": {"val": 2.0}, "sparse": {"sparsity": 0.5}}


def plain(*layers, example=(6,), seed=0):
    """A model whose weights are random, and said to be so, so that nothing is lost."""
    g = tg.load(nn.Sequential(*layers), input=example, seed=seed)
    g.recipe = g.recipe.model_copy(update={"base": "object:Sequential@none"})
    return g


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_torch_draws_what_torch_draws(name):
    layer, example = (nn.Conv2d(6, 8, 3), (6, 5, 5)) if name == "dirac" else (nn.Linear(6, 8), (6,))
    g = plain(layer, example=example, seed=3)
    shape = layer.weight.shape
    g.init("0", weight={name: ARGUMENTS[name]} if name in ARGUMENTS else f"{name}_")
    torch.manual_seed(_seed(3 * 1_000_003, "0.weight"))
    wanted = getattr(nn.init, f"{name}_")(torch.empty(shape), **ARGUMENTS.get(name, {}))
    assert torch.equal(g.module[0].weight, wanted)


def std(tensor):
    return float(tensor.detach().std())


def test_the_fan_is_the_one_that_is_asked_for():
    for mode, fan in (("fan_in", 8), ("fan_out", 512)):
        g = plain(nn.Linear(8, 512), example=(8,)).init("0", linear="kaiming_normal", mode=mode)
        assert abs(std(g.module[0].weight) - math.sqrt(2 / fan)) < 0.1 * math.sqrt(2 / fan)


def test_a_transposed_convolution_has_the_fan_of_its_inputs():
    g = plain(nn.ConvTranspose2d(512, 8, 3, groups=2), example=(512, 4, 4)).init("0", conv="kaiming_normal")
    wanted = math.sqrt(2 / (256 * 9))  # 256 channels and 9 taps reach one output; torch's rule would count 4 x 9
    assert abs(std(g.module[0].weight) - wanted) < 0.1 * wanted


def test_a_grouped_convolution_has_the_fan_that_torch_gives_it():
    g = plain(nn.Conv2d(64, 512, 3, groups=64), example=(64, 4, 4)).init("0", conv="kaiming_normal")
    assert abs(std(g.module[0].weight) - math.sqrt(2 / 9)) < 0.05


def test_dirac_knows_the_groups_of_its_convolution():
    g = plain(nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False), example=(4, 5, 5)).init("0", conv="dirac")
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(g.module(x), x)


def test_queries_keys_and_values_are_drawn_each_by_itself():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    g = tg.load(Attending(), input=(5, 64))
    with pytest.warns(TorchgraftWarning):
        g.init("attention", attention="orthogonal", bias="zeros")
    for part in (*g.module.attention.in_proj_weight.chunk(3), g.module.attention.out_proj.weight):
        assert torch.allclose(part @ part.T, torch.eye(64), atol=1e-5)
    assert not g.module.attention.in_proj_bias.any()


def recurrent(cls=nn.LSTM):
    return Net(lambda net, x: net.rnn(x)[0], rnn=cls(8, 16, num_layers=2, bidirectional=True, batch_first=True))


@pytest.mark.filterwarnings(LOSES)
@pytest.mark.parametrize(("cls", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_each_gate_of_a_recurrent_layer_is_orthogonal(cls, gates):
    g = tg.load(recurrent(cls), input=(5, 8)).init("rnn", recurrent="orthogonal")
    parts = g.module.rnn.weight_hh_l1_reverse.chunk(gates)
    assert all(torch.allclose(part @ part.T, torch.eye(16), atol=1e-5) for part in parts)


@pytest.mark.filterwarnings(LOSES)
def test_forget_gates_start_open_and_the_other_biases_stay():
    g = tg.load(recurrent(), input=(5, 8))
    before = {name: one.detach().clone() for name, one in named(g.module).items()}
    g.init("rnn", lstm_forget_bias=1.0)
    for end in ("l0", "l0_reverse", "l1", "l1_reverse"):
        total = getattr(g.module.rnn, f"bias_ih_{end}") + getattr(g.module.rnn, f"bias_hh_{end}")
        assert bool((total[16:32] == 1).all())
        assert torch.equal(getattr(g.module.rnn, f"bias_ih_{end}")[:16], before[f"rnn.bias_ih_{end}"][:16])
    assert torch.equal(g.module.rnn.weight_ih_l0, before["rnn.weight_ih_l0"])


def test_forget_gates_without_an_lstm_are_refused(resnet18):
    with pytest.raises(EditError, match="no LSTM with a bias"):
        resnet18.init("fc", lstm_forget_bias=1.0)


@pytest.mark.filterwarnings(LOSES)
def test_the_row_of_padding_stays_zero():
    g = tg.load(nn.Sequential(nn.Embedding(9, 4, padding_idx=2)), input=torch.zeros(2, 3, dtype=torch.long))
    g.init("0", embedding={"normal": {"std": 0.02}})
    assert not g.module[0].weight[2].any()
    assert bool(g.module[0].weight[[0, 1, *range(3, 9)]].all())


@pytest.mark.filterwarnings(LOSES)
def test_reset_draws_as_the_layer_itself_does(resnet18):
    resnet18.module.bn1.running_mean += 3
    resnet18.init(["fc", "bn1"], linear="reset", norm="reset", bias="reset")
    assert float(resnet18.module.fc.bias.detach().abs().max()) <= 1 / math.sqrt(512)
    assert not resnet18.module.bn1.running_mean.any(), "a norm that starts anew has statistics that do"


@pytest.mark.filterwarnings(LOSES)
def test_reset_writes_into_no_tensor_of_the_base():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    nn.init.ones_(attention.out_proj.bias)
    bias = attention.out_proj.bias
    g = tg.load(Net(lambda net, x: net.a(x, x, x)[0], a=attention), input=(3, 8)).init("a", attention="reset")
    assert g.module.a.out_proj.bias is bias
    assert bool((bias == 1).all())


# gain


def gains(*layers, example=(8,)):
    g = plain(*layers, example=example)
    g.init("**", weight="kaiming_normal", nonlinearity="auto")
    found = g.recipe.edits[0].nonlinearity
    assert next(iter(found.items())) == ("linear", ("**",))
    return {name: of for name, of in found.items() if name != "linear"}


FOLLOWING = {
    "ReLU": (lambda: nn.ReLU(), {"relu": ("0.weight",)}),
    "ReLU in place": (lambda: nn.ReLU(inplace=True), {"relu": ("0.weight",)}),
    "GELU": (lambda: nn.GELU(), {"relu": ("0.weight",)}),
    "a slope": (lambda: nn.LeakyReLU(0.2), {"leaky_relu(0.2)": ("0.weight",)}),
    "a slope that is learnt": (lambda: nn.PReLU(), {"leaky_relu(0.25)": ("0.weight",)}),
    "tanh": (lambda: nn.Tanh(), {"tanh": ("0.weight",)}),
    "SELU": (lambda: nn.SELU(), {"selu": ("0.weight",)}),
    "sigmoid": (lambda: nn.Sigmoid(), {"sigmoid": ("0.weight",)}),
    "dropout and ReLU": (lambda: nn.Sequential(nn.Dropout(), nn.ReLU()), {"relu": ("0.weight",)}),
    "a norm and ReLU": (lambda: nn.Sequential(nn.LayerNorm(8), nn.ReLU()), {}),
    "nothing": (lambda: nn.Identity(), {}),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_the_gain_is_that_of_what_really_follows(name):
    build, wanted = FOLLOWING[name]
    assert gains(nn.Linear(8, 8), build(), nn.Linear(8, 2)) == wanted


def test_the_slope_of_a_function_is_read_as_well():
    model = Net(lambda net, x: nn.functional.leaky_relu(net.a(x), 0.3), a=nn.Linear(4, 4))
    g = tg.load(model, input=(4,))
    assert Followers(g.trace(), dict(model.named_modules())).after("a.weight") == "leaky_relu(0.3)"


def test_a_gain_has_the_effect_that_torch_gives_it():
    g = plain(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 512), example=(64,))
    g.init("**", linear={"xavier_normal": {"gain": "auto"}})
    first, second = (std(g.module[n].weight) / math.sqrt(2 / (k + 512)) for n, k in ((0, 64), (2, 512)))
    assert abs(first - 5 / 3) < 0.05
    assert abs(second - 1) < 0.05


def test_a_rule_that_asks_for_no_gain_keeps_that_of_torch():
    g = plain(nn.Conv2d(32, 64, 3), nn.Flatten(), nn.Linear(64 * 9, 512), example=(32, 5, 5))
    g.init("**", conv="kaiming_normal", linear={"xavier_normal": {"gain": "auto"}})
    assert abs(std(g.module[0].weight) - math.sqrt(2 / (32 * 9))) < 0.002
    assert abs(std(g.module[2].weight) - math.sqrt(2 / (64 * 9 + 512))) < 0.002


def test_a_nonlinearity_that_is_named_is_taken_and_one_that_is_not_known_is_refused():
    g = plain(nn.Linear(64, 512), example=(64,)).init("0", linear="orthogonal", nonlinearity="relu")
    assert torch.allclose(g.module[0].weight.T @ g.module[0].weight, 2 * torch.eye(64), atol=1e-4)
    with pytest.raises(RecipeError, match="no gain for 'reul'; did you mean relu"):
        g.init("0", linear="orthogonal", nonlinearity="reul")


def test_an_auxiliary_head_that_only_training_runs_has_its_gain_too():
    g = tg.load("torchvision:googlenet@none", input=(3, 64, 64))
    g.init(["aux1.fc1", "aux1.fc2"], linear="kaiming_normal", nonlinearity="auto")
    assert g.recipe.edits[0].nonlinearity == {"linear": ("aux1.fc1", "aux1.fc2"), "relu": ("aux1.fc1.weight",)}


# the last norm of a branch

LAST = {
    "torchvision:resnet18@none": [f"layer{n}.{k}.bn2" for n in (1, 2, 3, 4) for k in (0, 1)],
    "timm:resnet26d@none": [f"layer{n}.{k}.bn3" for n in (1, 2, 3, 4) for k in (0, 1)],
    "timm:seresnet18@none": [f"layer{n}.{k}.bn2" for n in (1, 2, 3, 4) for k in (0, 1)],
}


@pytest.mark.parametrize("base", LAST)
def test_the_last_norms_of_residual_branches_are_found_by_the_trace(base):
    g = tg.load(base, input=(3, 64, 64)).init("**", zero_last=True)
    assert list(g.recipe.edits[0].zero_last) == LAST[base]
    zero = {name for name, one in named(g.module).items() if name.endswith("weight") and not one.any()}
    assert zero == {f"{path}.weight" for path in LAST[base]}


def test_what_is_zeroed_is_what_timm_zeroes():
    g = tg.load("timm:resnet18@none", input=(3, 64, 64)).init("**", norm="ones", zero_last=True)
    theirs = timm.create_model("resnet18", zero_init_last=True)
    norms = [name for name, one in named(theirs).items() if "bn" in name]
    ours = named(g.module)
    assert all(torch.equal(ours[name], named(theirs)[name]) for name in norms)


def test_branches_that_end_in_no_norm_are_said():
    g = tg.load("timm:vit_tiny_patch16_224@none")
    with pytest.raises(EditError, match="no residual branch"):
        g.init("blocks.0", zero_last=True)


def test_a_block_whose_branch_is_zero_passes_its_shortcut(resnet18):
    resnet18.init("layer1", zero_last=["layer1.0.bn2", "layer1.1.bn2"])
    x = torch.rand(1, 64, 8, 8)
    assert torch.equal(resnet18.module.eval().layer1(x), x)
    with pytest.raises(SelectionError, match=r"no norm 'layer1\.0\.bn9'"):
        resnet18.init("layer1", zero_last="layer1.0.bn9")


# like


@pytest.mark.filterwarnings(LOSES)
def test_a_tensor_may_be_like_its_own_or_like_another():
    g = tg.load(nn.Sequential(nn.Linear(64, 512), nn.Linear(512, 512)), input=(64,))
    nn.init.normal_(g.module[0].weight, mean=2, std=3)
    old = g.module[0].weight
    g.init("0", linear="like").init("1", linear={"like": "0"}).init("1.bias", bias={"like": "0.weight"})
    assert not torch.equal(g.module[0].weight, old)
    for one in (g.module[0].weight, g.module[1].weight):
        assert abs(float(one.detach().mean()) - 2) < 0.1
        assert abs(std(one) - 3) < 0.1
    with pytest.raises(SelectionError, match="did you mean"):
        g.init("1", linear={"like": "0.wieght"})


# LSUV


def outputs(model, batch):
    found, handles = {}, []
    for path, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            keep = lambda _m, _i, o, path=path: found.__setitem__(path, float(o.var(correction=0)))  # noqa: E731
            handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        model.eval()(batch)
    for handle in handles:
        handle.remove()
    return found


def test_lsuv_gives_every_layer_unit_variance_on_the_batch():
    torch.manual_seed(0)
    batch = torch.randn(16, 3, 32, 32) * 5 + 1
    model = models.vgg11(weights=None, init_weights=False, num_classes=10)
    model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Flatten(), nn.Linear(512, 10))
    g = tg.load(model, input=(3, 32, 32))
    with pytest.warns(TorchgraftWarning):
        g.init("**", weight={"lsuv": {"tolerance": 0.01}}, bias="zeros", batch=batch)
    assert all(abs(variance - 1) < 0.011 for variance in outputs(model, batch).values())
    assert set(g.recipe.edits[0].scales) == {name for name in named(model) if name.endswith("weight")}


def test_lsuv_leaves_no_trace_of_its_pass(resnet18, snapshot):
    model = resnet18.module.train()
    model.layer1.eval()
    caught = []
    model.conv1.register_forward_hook(lambda *_: caught.append(1))
    before, random = snapshot(model), torch.get_rng_state()
    buffers = {name: (one, one.clone()) for name, one in model.named_buffers()}
    resnet18.init("**", weight="lsuv")
    assert torch.equal(random, torch.get_rng_state())
    assert caught == []
    assert len(model.conv1._forward_hooks) == 1
    assert not model.fc._forward_hooks
    after = snapshot(model)
    assert (after.flags, after.training, after.plain) == (before.flags, before.training, before.plain)
    assert all(
        one is buffers[name][0] and torch.equal(one, buffers[name][1]) for name, one in model.named_buffers()
    )


def test_lsuv_that_fails_leaves_the_model_as_it_was(resnet18, snapshot):
    before = snapshot(resnet18.module)
    for batch, words in (
        (torch.randn(2, 5), "does not run on the batch"),
        (torch.zeros(2, 3, 64, 64), "variance 0 on the batch"),
    ):
        with pytest.raises(EditError, match=words):
            resnet18.init("**", weight="lsuv", bias="zeros", batch=batch)
        assert snapshot(resnet18.module) == before


def test_a_replay_of_lsuv_needs_no_batch(resnet18):
    resnet18.init("layer1", conv="lsuv", batch=torch.rand(4, 3, 64, 64))
    again = replay(tg.Recipe.from_yaml(resnet18.recipe.to_yaml()))
    assert all(torch.equal(one, named(again.module)[name]) for name, one in named(resnet18.module).items())


def test_lsuv_runs_a_language_model_on_tokens_of_its_own():
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=11, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    g = tg.load(model, input={"input_ids": torch.zeros(2, 5, dtype=torch.long)})
    with pytest.warns(TorchgraftWarning):
        g.init("transformer.h.*.mlp.**", linear="lsuv", bias="zeros")
    assert len(g.recipe.edits[0].scales) == 2


# tensors


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_new_tensors_have_the_dtype_flag_and_layout_of_the_old(dtype):
    g = fresh()
    g.module.to(dtype).to(memory_format=torch.channels_last)
    g.freeze("layer1").init("layer1", conv="orthogonal", norm="ones")
    new = g.module.layer1[0].conv1.weight
    assert (new.dtype, new.requires_grad) == (dtype, False)
    assert new.is_contiguous(memory_format=torch.channels_last)
    wide = fresh().freeze("layer1").init("layer1", conv="orthogonal", norm="ones").module.layer1[0].conv1.weight
    close = {torch.bfloat16: 1e-2, torch.float16: 1e-3, torch.float64: 1e-6}[dtype]
    if dtype != torch.float64:  # drawn in single precision and rounded; doubles are drawn as doubles
        assert torch.allclose(new.float(), wide, atol=close)


def test_a_model_on_meta_gets_parameters_on_meta():
    with torch.device("meta"):
        model = models.resnet18(weights=None)
    old = model.fc.weight
    with pytest.warns(TorchgraftWarning):
        tg.load(model, input=(3, 64, 64)).init("fc", linear="kaiming_normal")
    assert model.fc.weight.is_meta
    assert model.fc.weight is not old


@pytest.mark.filterwarnings(LOSES)
def test_every_holder_of_a_tied_parameter_follows():
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11))
    g = tg.load(model, input={"input_ids": torch.zeros(2, 5, dtype=torch.long)})
    g.init("lm_head", linear={"normal": {"std": 0.02}})
    assert model.lm_head.weight is model.transformer.wte.weight
    assert abs(std(model.lm_head.weight) - 0.02) < 0.005
    g.undo().init("transformer.wte", embedding={"normal": {"std": 0.5}})
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.filterwarnings(LOSES)
def test_a_linear_layer_that_keeps_inputs_first_has_its_fan():
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=2, n_embd=64, vocab_size=11))
    g = tg.load(model, input={"input_ids": torch.zeros(2, 5, dtype=torch.long)})
    g.init("transformer.h.0.mlp", linear="kaiming_normal")
    assert abs(std(model.transformer.h[0].mlp.c_proj.weight) - math.sqrt(2 / 256)) < 0.01


REFUSED = {
    "parametrized": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "with the old weight norm": lambda: nn.utils.weight_norm(nn.Linear(4, 4)),
    "scripted": lambda: torch.jit.script(nn.Linear(4, 4)),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_layers_whose_weights_are_not_their_own_are_refused(kind):
    g = tg.load(nn.Sequential(REFUSED[kind]()), input=(4,))
    before = {name: id(one) for name, one in named(g.module).items()}
    with pytest.raises(EditError, match="can't be initialised"):
        g.init("0", linear="zeros", other="zeros", weight="zeros")
    assert {name: id(one) for name, one in named(g.module).items()} == before


# as an edit


def equal(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


RECIPES = [
    "{at: 'layer3.**', conv: kaiming_normal, norm: ones, bias: zeros}",
    "{at: ['**'], weight: {xavier_uniform: {gain: auto}}, norm: reset, zero_last: true}",
    "{at: fc, linear: {normal: {std: 0.01}}, bias: {constant: -4.6}}",
    "{at: layer1, conv: lsuv}",
    "{at: layer1, conv: {like: layer2.0.conv2}, mode: fan_out}",
]


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_gives_the_same_tensors_every_time(text):
    recipe = tg.Recipe.from_yaml(f"base: resnet18@none\ninput: [3, 64, 64]\nedits:\n- init: {text}\n")
    first = replay(recipe)
    again = replay(tg.Recipe.from_yaml(first.recipe.to_yaml()))
    assert equal(first.module, again.module)
    assert again.recipe == first.recipe
    assert equal(copy.deepcopy(first.module), first.module)


def test_naming_more_changes_no_other_draw():
    few = fresh().init("layer3", conv="kaiming_normal").module
    many = fresh().init(["fc", "conv1", "layer3"], weight="kaiming_normal").module
    assert torch.equal(few.layer3[1].conv2.weight, many.layer3[1].conv2.weight)


def test_undo_and_redo_are_exact(resnet18, snapshot):
    before = snapshot(resnet18.module)
    resnet18.init("**", weight="kaiming_normal", norm="ones", bias="zeros", zero_last=True)
    after = snapshot(resnet18.module)
    assert resnet18.undo() is resnet18
    assert snapshot(resnet18.module) == before
    resnet18.redo()
    assert snapshot(resnet18.module) == after


WRONG = {
    "did you mean kaiming_normal": {"conv": "kaiming_norml"},
    "normal has no argument 'sdt'; did you mean std": {"linear": {"normal": {"sdt": 1}}},
    "say which argument of normal 0.1 is": {"linear": {"normal": 0.1}},
    "sparse needs sparsity": {"linear": "sparse"},
    "mode is one of fan_in, fan_out": {"conv": {"kaiming_normal": {"mode": "in"}}},
    "std is a number": {"conv": {"normal": {"std": "small"}}},
    "mode is a word": {"conv": {"kaiming_normal": {"mode": 1.0}}},
    "is needed": {},
    "lsuv scales convolutions and linear layers": {"bias": "lsuv"},
    "steps is more than 0": {"linear": {"lsuv": {"steps": 0}}},
    "a batch is for lsuv alone": {"linear": "zeros", "batch": torch.zeros(2, 3, 64, 64)},
    "a batch is handed over in Python": {"linear": "lsuv", "batch": 16},
}


@pytest.mark.parametrize("words", WRONG)
def test_a_rule_that_is_misspelt_is_refused_with_the_right_one(resnet18, words):
    with pytest.raises(RecipeError, match=words):
        resnet18.init("fc", **WRONG[words])


def test_what_can_not_be_drawn_leaves_the_model_as_it_was(resnet18, snapshot):
    before = snapshot(resnet18.module)
    with pytest.raises(EditError, match=r"can't draw bn1\.weight"):
        resnet18.init("**", conv="zeros", norm="kaiming_normal")
    with pytest.raises(EditError, match="no rule names any"):
        resnet18.init("fc", conv="zeros")
    assert snapshot(resnet18.module) == before


def test_a_rule_reads_and_writes_as_it_was_written():
    edit = Init(at="fc", linear={"constant": 2.0}, bias="zeros", norm={"normal": {"std": 0.1}})
    assert edit.brief() == {
        "at": ["fc"], "linear": {"constant": 2.0}, "bias": "zeros", "norm": {"normal": {"std": 0.1}},
    }  # fmt: skip
    assert Init.model_validate(edit.brief()) == edit
    assert str(Initial(name="normal", args={"std": 0.1})) == "normal(std=0.1)"


# what is lost


def told(g):
    return [finding for finding in g.check() if finding.code == "W019"]


def test_trained_weights_that_are_wiped_are_told_when_it_happens_and_in_every_check():
    g = tg.load(models.resnet18(weights=None), input=(3, 64, 64)).head(10)
    with pytest.warns(TorchgraftWarning, match=r"11,166,912 of 11,176,512 trained values \(100%\) are lost"):
        g.init("**", conv="kaiming_normal", linear="kaiming_normal")
    (found,) = told(g)
    assert found.severity == "warning"
    assert "edit 2 draws 11,166,912 trained values anew" in found.facts[0]
    assert told(g.undo()) == []


def test_new_modules_and_random_bases_have_nothing_to_lose():
    g = tg.load(models.resnet18(weights=None), input=(3, 64, 64)).head(10).init("fc", linear="xavier_normal")
    assert told(g) == []
    assert told(fresh().init("**", conv="kaiming_normal")) == []


@pytest.mark.filterwarnings(LOSES)
def test_what_was_drawn_before_is_not_lost_again():
    g = tg.load(models.resnet18(weights=None), input=(3, 64, 64)).init("layer4", conv="kaiming_normal")
    g.init("layer4", conv="orthogonal")
    assert [edit.wipes for edit in g.recipe.edits] == [8_388_608, 0]


def test_a_random_base_that_was_filled_has_something_to_lose():
    g = fresh()
    g.load_weights(models.resnet18(weights=None).state_dict())
    with pytest.warns(TorchgraftWarning, match="are lost"):
        g.init("layer1", conv="kaiming_normal")


@pytest.mark.filterwarnings(LOSES)
def test_an_output_layer_alone_is_a_note():
    g = tg.load(models.resnet18(weights=None), input=(3, 64, 64)).init("fc", linear="xavier_normal", bias="zeros")
    assert [finding.severity for finding in told(g)] == ["note"]


def test_a_replay_of_what_says_its_loss_warns_no_more():
    model = models.resnet18(weights=None)
    g = tg.load(copy.deepcopy(model), input=(3, 64, 64))
    with pytest.warns(TorchgraftWarning):
        g.init("layer1", conv="kaiming_normal")
    tg.load(model, input=(3, 64, 64)).apply(g.recipe.edits[0])
    assert equal(model, g.module)


def test_a_recipe_with_an_init_equals_itself_read_back():
    g = tg.load("torchvision:resnet18@none", input=(3, 32, 32)).init("fc", linear="zeros")
    assert tg.Recipe.from_yaml(g.recipe.to_yaml()) == g.recipe
