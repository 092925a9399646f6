from __future__ import annotations

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torchvision import models

import torchgraft as tg
from torchgraft.trace import Tracer, trace

IMAGE = torch.empty(2, 3, 64, 64, device="meta")


def ran(tracer, example, **kwargs):
    """Trace, and tell how many modules really ran."""
    seen = []
    body = tracer._body
    before = body.disturbed
    body.disturbed = lambda keys: seen.append(len(keys)) or before(keys)
    tracer.trace(example, **kwargs)
    body.disturbed = before
    return seen[0]


class Block(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.b(torch.relu(self.a(x)))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "name", ["resnet18", "googlenet", "densenet121", "swin_v2_t", "vit_b_16", "shufflenet_v2_x0_5"]
)
def test_a_remembered_pass_is_the_same_as_one_that_really_runs(name, train):
    with torch.device("meta"):
        model = models.get_model(name, weights=None)
    image = torch.empty(2, 3, 224, 224, device="meta")
    tracer = Tracer(model)
    whole = trace(model, image, train=train, cached=False)
    assert tracer.trace(image, train=train) == whole
    assert tracer.trace(image, train=train) == whole
    assert tracer.trace(image, train=train, cached=False) == whole


@pytest.mark.parametrize(
    "name", ["levit_128s", "hrnet_w18_small", "ghostnet_100", "deit_tiny_distilled_patch16_224"]
)
def test_the_same_holds_for_models_of_timm(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    image = torch.empty(2, 3, 224, 224, device="meta")
    tracer = Tracer(model)
    for train in (False, True, False):
        assert tracer.trace(image, train=train) == trace(model, image, train=train, cached=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.list_models(module=models))
def test_the_same_holds_for_every_classifier_of_torchvision(name):
    from torchgraft.sources.torchvision import _random

    try:
        with torch.device("meta"):
            model = _random(name)
    except (RuntimeError, NotImplementedError):
        model = _random(name)
    size = 299 if name == "inception_v3" else 224
    image = torch.empty(2, 3, size, size, device="meta")
    for train in (False, True):
        assert trace(model, image, train=train) == trace(model, image, train=train, cached=False)


def test_identical_blocks_run_once():
    model = nn.Sequential(*[Block() for _ in range(9)])
    assert ran(Tracer(model), torch.empty(2, 4)) == 3  # the sequence, one block, and in it one layer


def test_after_a_change_only_the_place_and_what_holds_it_run_again():
    model = nn.Sequential(*[nn.Sequential(Block(), Block()) for _ in range(5)])
    tracer = Tracer(model)
    tracer.trace(torch.empty(2, 4))
    model[3][1].b = nn.Linear(4, 4, bias=False)
    assert ran(tracer, torch.empty(2, 4)) == 4  # the model, its part 3, block 1 in it, and b
    assert ran(tracer, torch.empty(2, 4)) == 0


def test_another_input_shape_is_another_question():
    model = nn.Sequential(Block(), Block())
    tracer = Tracer(model)
    tracer.trace(torch.empty(2, 4))
    assert tracer.trace(torch.empty(5, 4)).output_shapes() == [(5, 4)]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.conv1, "stride", (4, 4)),
        lambda m: setattr(m, "fc", nn.Linear(512, 7)),
        lambda m: setattr(m.fc.weight, "data", torch.zeros(9, 512)) or setattr(m.fc.bias, "data", torch.zeros(9)),
        lambda m: m.layer1.append(nn.MaxPool2d(2)),
        lambda m: m.layer2.register_forward_hook(lambda _m, _i, out: out[:, :, ::2]),
        lambda m: m.layer4[1].__setattr__("relu", nn.Softplus()),
        lambda m: m.double(),
    ],
)
def test_whatever_is_done_to_a_module_by_hand_is_seen(change):
    model = models.resnet18(weights=None)
    tracer = Tracer(model)
    for train in (False, True):
        tracer.trace(IMAGE, train=train)
    change(model)
    image = IMAGE.double() if model.conv1.weight.dtype is torch.float64 else IMAGE
    for train in (False, True):
        assert tracer.trace(image, train=train) == trace(model, image, train=train, cached=False)


def test_a_module_that_writes_to_itself_really_runs_every_time():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.times = nn.Linear(4, 4), 0

        def forward(self, x):
            self.times += 1
            return self.layer(x) if self.times % 2 else self.layer(self.layer(x))

    model = nn.Sequential(Counting(), nn.ReLU())
    tracer = Tracer(model)
    for _ in range(3):
        assert tracer.trace(torch.empty(2, 4)) == trace(model, torch.empty(2, 4), cached=False)
    assert model[0].times == 0


def test_a_module_that_puts_another_buffer_in_place_is_not_remembered():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(1, 1))

        def forward(self, x):
            if self.table.shape[1] != x.shape[1]:
                self.table = torch.arange(x.shape[1], dtype=x.dtype)[None]
            return x + self.table

    model = nn.Sequential(Lazy(), Lazy())
    tracer = Tracer(model)
    whole = trace(model, torch.empty(2, 4), cached=False)
    for cached in (True, True, False):
        assert tracer.trace(torch.empty(2, 4), cached=cached) == whole


def test_a_module_that_writes_to_another_is_not_remembered():
    class Meddler(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()
            self.block.twice = False

        def forward(self, x):
            self.block.scale = x.sum(-1, keepdim=True)
            return self.block(x)

    model = nn.Sequential(Meddler(), Meddler())
    tracer = Tracer(model)
    for _ in range(2):
        assert tracer.trace(torch.empty(2, 4)) == trace(model, torch.empty(2, 4), cached=False)
    assert not hasattr(model[0].block, "scale")


def test_modules_held_outside_of_the_tree_of_names_are_followed():
    class Peeking(nn.Module):
        def __init__(self, other):
            super().__init__()
            self.others = [other]

        def forward(self, x):
            return self.others[0](x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.peek = Peeking(self.layer)

        def forward(self, x):
            return self.peek(self.layer(x))

    model = Net()
    tracer = Tracer(model)
    tracer.trace(torch.empty(2, 4))
    model.layer.bias = None
    assert tracer.trace(torch.empty(2, 4)) == trace(model, torch.empty(2, 4), cached=False)


def test_tied_weights_and_shared_modules_keep_their_first_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Block(), Block()
            self.b.a.weight = self.a.a.weight
            self.c = self.a

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    model = Tied()
    assert trace(model, torch.empty(2, 4)) == trace(model, torch.empty(2, 4), cached=False)
    assert "b.a.weight" not in trace(model, torch.empty(2, 4)).used


def test_training_flags_that_a_model_sets_by_itself_hold():
    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, 4)

        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, x):
            return self.layer(self.norm(x))

    model = nn.Sequential(Still(), nn.BatchNorm1d(4))
    one = torch.empty(1, 4)
    run = trace(model, one, train=True)
    assert run.mismatch.path == "1"  # the norm within is still, this one is not
    assert run == trace(model, one, train=True, cached=False)


def test_outputs_of_any_structure_are_given_again():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, *, deep=True):
            return {"out": (self.layer(x), x), "n": 3, "flag": deep}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pairs = nn.ModuleList(Pair() for _ in range(3))

        def forward(self, x):
            for pair in self.pairs:
                found = pair(x, deep=False)
                assert found["n"] == 3
                assert found["flag"] is False
                assert found["out"][1] is x
                x = found["out"][0]
            return x

    model = Net()
    assert trace(model, torch.empty(2, 4)) == trace(model, torch.empty(2, 4), cached=False)


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 3), st.integers(2, 6)),
        st.tuples(st.just("replace"), st.integers(0, 3), st.integers(2, 6)),
        st.tuples(st.just("undo"), st.just(0), st.just(0)),
        st.tuples(st.just("redo"), st.just(0), st.just(0)),
        st.tuples(st.just("freeze"), st.integers(0, 3), st.just(0)),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(EDITS)
def test_through_any_edits_the_remembered_pass_stays_right(edits):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(Block(), Block()), Block(), nn.Sequential(Block(), nn.ReLU()), nn.Linear(4, 3)
    )
    g = tg.load(model, input=torch.empty(2, 4))
    for kind, place, width in edits:
        try:
            if kind == "insert":
                g.insert(
                    nn.Sequential(nn.Linear(4, width), nn.Linear(width, 4)),
                    after=str(place % 3),
                    name=f"n{len(g.recipe.edits)}",
                )
            elif kind == "replace":
                g.replace(str(place % 3), nn.Linear(4, width), fix="adapt")
            elif kind == "freeze":
                g.freeze(str(place))
            else:
                getattr(g, kind)()
        except tg.errors.EditError:
            pass
        for train in (False, True):
            assert g.trace(train=train) == g.trace(train=train, cached=False)


def test_hooks_of_the_user_keep_nothing_of_a_trace():
    seen = {}
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[0].register_forward_hook(lambda _m, _i, out: seen.update(out=out))
    tracer = Tracer(model)
    first = tracer.trace(torch.empty(2, 4))
    assert seen == {}
    assert tracer.trace(torch.empty(2, 4)) == first
    assert first.replaced == ()


def test_a_hook_that_gives_something_back_is_seen_and_followed():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(2, 3))
    model[0].register_forward_hook(lambda _m, _i, out: out[:, :2])
    run = trace(model, torch.empty(2, 4))
    assert run.output_shapes() == [(2, 3)]
    assert run.replaced == ("0",)


def test_nothing_of_the_model_is_held_on_to():
    import gc
    import weakref

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tracer = Tracer(model)
    tracer.trace(torch.empty(2, 4))
    gone = weakref.ref(model[0].weight)
    model[0] = nn.ReLU()
    tracer.trace(torch.empty(2, 4))
    gc.collect()
    assert gone() is None


def test_a_pass_on_real_tensors_leaves_the_model_as_it_was(snapshot):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.norm(x)
            return self.layer(x) if x.abs().sum() >= 0 else x

    model = Net()
    before = snapshot(model)
    run = trace(model, torch.randn(3, 4), train=True, values=True)
    assert run.mismatch is None
    assert run.real
    assert run.maker(run.outputs[0]).params == ("layer.weight", "layer.bias")
    assert snapshot(model) == before
    assert all(p.grad is None for p in model.parameters())


def test_a_deep_copy_of_a_traced_model_is_a_plain_model():
    model = nn.Sequential(Block(), Block())
    Tracer(model).trace(torch.empty(2, 4))
    assert "forward" not in model[0].__dict__
    assert copy.deepcopy(model)(torch.randn(2, 4)).shape == (2, 4)


# what a ghost shares with nobody


def test_an_index_out_of_range_is_told_every_time():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.table = nn.Flatten(), nn.Embedding(8, 4)

        def forward(self, words):
            return self.table(self.flat(words))

    tracer, words = Tracer(Words()), torch.tensor([[1, 9]])
    assert [tracer.trace(words).mismatch is not None for _ in range(3)] == [True] * 3


def test_a_module_that_two_blocks_share_keeps_its_name():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(nn.Sequential(layer, nn.ReLU()), nn.Sequential(layer, nn.ReLU()))
    assert trace(model, torch.empty(2, 4)) == trace(model, torch.empty(2, 4), cached=False)
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    tracer = Tracer(model)
    tracer.trace(torch.empty(2, 4))
    model[1] = model[0]
    assert tracer.trace(torch.empty(2, 4)) == trace(model, torch.empty(2, 4), cached=False)


def test_functions_that_come_and_go_are_not_mistaken_for_each_other():
    model = nn.Sequential(nn.Linear(4, 4), nn.Identity())
    tracer = Tracer(model)
    for round_ in range(30):
        model[1].forward = (lambda width: lambda x: x[:, :width])(round_ % 3 + 1)
        assert tracer.trace(torch.empty(2, 4)).output_shapes() == [(2, round_ % 3 + 1)]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[1].double(),
        lambda m: setattr(m[1].weight, "data", m[1].weight.data.double()),
        lambda m: m[0].sizes.__setitem__(0, 2),
        lambda m: m[0].nested["deep"].append(3),
        lambda m: setattr(m[0].settings, "width", 3),
        lambda m: m[0].layers[0].__setitem__(0, nn.Linear(4, 7)),
    ],
)
def test_what_changes_within_a_module_is_seen(change):
    class Settings:
        width = 4

        def __init__(self):
            self.width = 4

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.sizes, self.nested, self.settings = [4], {"deep": [1]}, Settings()
            self.layers = [[nn.Linear(4, 4)]]

        def forward(self, x):
            x = x[:, : self.sizes[0]] if self.sizes[0] != 4 else x
            x = x[:, : self.settings.width] if len(self.nested["deep"]) == 1 else x[:, :1]
            return self.layers[0][0](x) if x.shape[1] == 4 else x

    model = nn.Sequential(First(), nn.Linear(4, 4))
    tracer = Tracer(model)
    for _ in range(2):
        tracer.trace(torch.empty(2, 4))
    change(model)
    whole = trace(model, torch.empty(2, 4), cached=False)
    assert tracer.trace(torch.empty(2, 4)) == whole


def test_autocast_around_one_of_two_like_blocks_is_kept_apart():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                x = self.a(x)
            return self.b(x.float())

    model = Net()
    run = trace(model, torch.empty(2, 4))
    assert run == trace(model, torch.empty(2, 4), cached=False)
    assert [value.dtype for value in run.gave("a") + run.gave("b")] == ["bfloat16", "float32"]


def test_a_list_that_two_modules_share_is_shared_by_their_ghosts():
    class Push(nn.Module):
        def __init__(self, stack):
            super().__init__()
            self.stack = stack

        def forward(self, x):
            self.stack.append(x)
            return x * 2

    class Pop(Push):
        def forward(self, x):
            return x + self.stack.pop()

    stack: list[torch.Tensor] = []
    model = nn.Sequential(Push(stack), Pop(stack))
    tracer = Tracer(model)
    for _ in range(3):
        assert tracer.trace(torch.empty(2, 4)).mismatch is None
    assert stack == []


def test_modules_in_closures_and_beside_the_tree_run_as_ghosts():
    class Net(nn.Module):
        def __init__(self, teacher):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.run = lambda x: self.norm(x)
            self.__dict__["teacher"] = [teacher]

        def forward(self, x):
            return self.run(x) + self.teacher[0](x)

    teacher = nn.BatchNorm1d(4)
    model = Net(teacher)
    for _ in range(3):
        run = trace(model, torch.empty(3, 4), train=True)
    assert "norm.weight" in run.used
    assert (int(model.norm.num_batches_tracked), int(teacher.num_batches_tracked)) == (0, 0)


def test_caches_beside_the_model_keep_no_fake_tensor(monkeypatch):
    import functools

    @functools.lru_cache
    def table(size):
        return torch.arange(size)

    kept: dict[int, torch.Tensor] = {}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.memo = type("Memo", (), {})()
            self.memo.value = None

        def forward(self, x):
            if x.shape[1] not in kept:
                kept[x.shape[1]] = torch.ones(x.shape[1])
            if self.memo.value is None:
                self.memo.value = torch.ones(x.shape[1])
            return x + table(x.shape[1]) + kept[x.shape[1]] + self.memo.value

    import sys

    monkeypatch.setattr(sys.modules[Net.__module__], "TABLE", table, raising=False)
    monkeypatch.setattr(sys.modules[Net.__module__], "KEPT", kept, raising=False)
    model = Net()
    tracer = Tracer(model)
    for _ in range(2):
        assert tracer.trace(torch.empty(2, 4)).mismatch is None
    assert (kept, model.memo.value, table.cache_info().currsize) == ({}, None, 0)
    assert type(model(torch.randn(2, 4))) is torch.Tensor


def test_generators_that_modules_hold_do_not_advance():
    import random

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.dice, self.noise = random.Random(0), torch.Generator().manual_seed(0)

        def forward(self, x):
            self.dice.random()
            return x + torch.rand(4, generator=self.noise)

    model = Net()
    before = model.dice.getstate(), model.noise.get_state()
    trace(model, torch.empty(2, 4))
    assert model.dice.getstate() == before[0]
    assert torch.equal(model.noise.get_state(), before[1])


def test_a_pass_on_real_tensors_copies_what_it_writes_to():
    words = nn.Embedding(10, 4, max_norm=0.1)
    before = words.weight.detach().clone()
    trace(words, torch.arange(10), values=True)
    assert torch.equal(words.weight, before)


def test_a_pass_on_real_tensors_sees_new_values():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("wide", torch.zeros(()))

        def forward(self, x):
            return x if self.wide > 0 else x[:, :2]

    model = Net()
    tracer = Tracer(model, values=True)
    assert tracer.trace(torch.randn(2, 4)).output_shapes() == [(2, 2)]
    model.wide.fill_(1)
    assert tracer.trace(torch.randn(2, 4)).output_shapes() == [(2, 4)]


def test_an_edit_is_judged_against_the_model_as_it_is_now():
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])
    model[1] = nn.Linear(4, 5)
    g = tg.load(model, input=torch.empty(2, 4))
    g.trace()
    model[1] = nn.Linear(4, 4)  # mended by hand
    with pytest.raises(tg.errors.EditError):
        g.insert(nn.Linear(4, 9), after="0", name="r")


@pytest.mark.parametrize(
    ("forward", "is_told"),
    [
        (
            lambda net, x: functional.cross_entropy(net.scores(x[:, 0]), x[:, 1].clamp(max=2), ignore_index=9),
            False,
        ),
        (lambda net, x: net.small(x[:, 0]) + net.wide(x[:, 1]), False),
        (lambda net, x: net.wide(net.remap[x]), False),
        (lambda net, x: net.small(x), True),
        (lambda net, x: net.small(torch.arange(x.shape[1] + 9)), True),
    ],
)
def test_only_numbers_that_are_sure_to_be_there_are_refused(forward, is_told):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.wide, self.scores = nn.Embedding(3, 4), nn.Embedding(20, 4), nn.Embedding(20, 3)
            self.register_buffer("remap", torch.zeros(20, dtype=torch.long))

        def forward(self, x):
            return forward(self, x)

    run = trace(Net(), torch.tensor([[0, 15], [2, 3]]))
    assert (run.mismatch is not None) == is_told
