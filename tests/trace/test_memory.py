from __future__ import annotations

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
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
@pytest.mark.parametrize("name", ["resnet18", "googlenet", "densenet121", "swin_v2_t", "vit_b_16", "shufflenet_v2_x0_5"])
def test_a_remembered_pass_is_the_same_as_one_that_really_runs(name, train):
    with torch.device("meta"):
        model = models.get_model(name, weights=None)
    image = torch.empty(2, 3, 224, 224, device="meta")
    tracer = Tracer(model)
    whole = trace(model, image, train=train, cached=False)
    assert tracer.trace(image, train=train) == whole
    assert tracer.trace(image, train=train) == whole
    assert tracer.trace(image, train=train, cached=False) == whole


@pytest.mark.parametrize("name", ["levit_128s", "hrnet_w18_small", "ghostnet_100", "deit_tiny_distilled_patch16_224"])
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
    model = nn.Sequential(nn.Sequential(Block(), Block()), Block(), nn.Sequential(Block(), nn.ReLU()), nn.Linear(4, 3))
    g = tg.load(model, input=torch.empty(2, 4))
    for kind, place, width in edits:
        try:
            if kind == "insert":
                g.insert(nn.Sequential(nn.Linear(4, width), nn.Linear(width, 4)), after=str(place % 3), name=f"n{len(g.recipe.edits)}")
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
