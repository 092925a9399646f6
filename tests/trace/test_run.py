from __future__ import annotations

import copy
import functools
import logging
import random
from collections import Counter, defaultdict, deque, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from torchgraft.errors import SourceError
from torchgraft.trace import trace

IMAGE = torch.empty(2, 3, 64, 64, device="meta")


@pytest.fixture(scope="module")
def resnet():
    return models.resnet18(weights=None)


def test_every_module_call_is_recorded_with_its_contract(resnet):
    t = trace(resnet, IMAGE)
    assert t.mismatch is None
    assert [value.shape for value in t.given("layer3.0.conv1")] == [(2, 128, 8, 8)]
    assert [value.shape for value in t.gave("layer3.0.conv1")] == [(2, 256, 4, 4)]
    assert t.output_shapes() == [(2, 1000)]
    assert t.called == {path for path, _ in resnet.named_modules()}


def test_every_tensor_names_the_operation_and_the_module_that_made_it(resnet):
    t = trace(resnet, IMAGE)
    (value,) = t.calls_of("layer3.0.conv1")[0].given
    assert (t.maker(value).path, t.maker(value).name) == ("layer2.1.relu", "relu")
    (logits,) = t.outputs
    assert (t.maker(logits).path, t.maker(logits).params) == ("fc", ("fc.weight", "fc.bias"))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnext_tiny", "swin_t", "efficientnet_b0"])
def test_macs_are_those_that_torchs_own_counter_finds(name):
    with torch.device("meta"):
        model = models.get_model(name, weights=None).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert trace(model, torch.empty(2, 3, 224, 224)).macs == counter.get_total_flops() // 2


def test_a_layer_called_several_times_is_recorded_each_time():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    assert len(trace(Twice(), torch.empty(2, 4)).calls_of("layer")) == 2


def test_the_mismatch_says_operation_module_shapes_and_maker(resnet):
    model = copy.deepcopy(resnet)
    model.layer3[0].conv1 = nn.Conv2d(99, 256, 3)
    t = trace(model, IMAGE)
    assert (t.mismatch.op, t.mismatch.path, t.mismatch.kind) == ("conv2d", "layer3.0.conv1", "Conv2d")
    assert t.mismatch.params == ("layer3.0.conv1.weight", "layer3.0.conv1.bias")
    (given,) = t.mismatch.inputs
    assert t.show(given) == "[N, 128, 8, 8]"
    assert t.maker(given).path == "layer2.1.relu"


def test_functional_operations_are_followed_to_their_makers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

        def forward(self, x):
            return torch.cat([functional.relu(self.a(x)), self.b(x)], dim=1)

    t = trace(Net(), torch.empty(2, 3, 8, 8))
    assert t.mismatch.op == "cat"
    assert [t.maker(value).path for value in t.mismatch.inputs] == ["", "b"]
    assert [t.show(value) for value in t.mismatch.inputs] == ["[N, 4, 6, 6]", "[N, 4, 4, 4]"]


def test_in_place_and_slice_assignments_make_a_new_value():
    class Net(nn.Module):
        def forward(self, x):
            y = torch.zeros_like(x)
            y[:, 0] = x[:, 1]
            return y.mul_(2)

    t = trace(Net(), torch.empty(2, 3))
    (out,) = t.outputs
    assert t.maker(out).name == "mul_"
    assert t.maker(t.maker(out).inputs[0]).name == "__setitem__"


def test_inputs_and_outputs_of_any_structure_are_seen():
    @dataclass
    class Out:
        logits: torch.Tensor
        features: dict

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, batch, *, scale):
            x = batch["a"] + batch["b"][0] * scale
            return Out(self.layer(x), {"x": x})

    batch = {"a": torch.empty(3, 4), "b": (torch.empty(3, 4),)}
    t = trace(Net(), (batch,), kwargs={"scale": torch.empty(1)})
    assert len(t.inputs) == 3
    assert t.output_shapes() == [(3, 2), (3, 4)]


def test_named_tuples_survive_as_inputs():
    pair = namedtuple("pair", "a b")

    class Net(nn.Module):
        def forward(self, both):
            return both.a + both.b

    assert trace(Net(), (pair(torch.empty(2), torch.empty(2)),)).output_shapes() == [(2,)]


@pytest.mark.parametrize("train", [False, True])
def test_the_model_its_buffers_and_every_generator_stay_as_they_were(resnet, snapshot, train):
    before = snapshot(resnet), random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    trace(resnet, IMAGE, train=train)
    assert snapshot(resnet) == before[0]
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert torch.equal(torch.get_rng_state(), before[3])


def test_what_a_forward_pass_caches_does_not_reach_the_model():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.seen, self.table = [], {}

        def forward(self, x):
            self.last = x
            self.seen.append(x)
            self.table["x"] = x
            return self.layer(x)

    model = Caching()
    trace(model, torch.empty(2, 2))
    assert not hasattr(model, "last")
    assert (model.seen, model.table) == ([], {})


def test_bound_methods_and_partials_kept_as_attributes_run_on_the_ghost():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)
            self.run = self.once
            self.again = functools.partial(self.once)

        def once(self, x):
            return self.layer(x)

        def forward(self, x):
            return self.run(x) + self.again(x)

    t = trace(Net(), torch.empty(2, 2))
    assert t.output_shapes() == [(2, 3)]
    assert len(t.calls_of("layer")) == 2


def test_tied_parameters_keep_one_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x):
            return self.out(self.embed(x))

    t = trace(Tied(), torch.zeros(2, 5, dtype=torch.long))
    assert t.output_shapes() == [(2, 5, 7)]
    assert {name for op in t.ops for name in op.params} == {"embed.weight"}


def test_old_weight_norm_and_parametrizations_are_traced():
    old = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 4)))
    new = nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)))
    assert trace(old, torch.empty(2, 3)).output_shapes() == [(2, 4)]
    assert trace(new, torch.empty(2, 3), train=True).output_shapes() == [(2, 4)]


def test_a_model_on_meta_is_traced_as_well():
    with torch.device("meta"):
        model = models.vit_b_16(weights=None)
    assert trace(model, torch.empty(2, 3, 224, 224)).output_shapes() == [(2, 1000)]


def test_flow_that_depends_on_values_breaks_off_and_says_so():
    class Net(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    assert trace(Net(), torch.empty(2)).mismatch.error == "DataDependentOutputException"


def test_an_error_in_python_is_placed_in_the_module_that_raised_it():
    with torch.device("meta"):
        model = models.vit_b_16(weights=None)
    t = trace(model, torch.empty(2, 3, 96, 96))
    assert (t.mismatch.error, t.mismatch.kind) == ("AssertionError", "VisionTransformer")


def test_torch_logs_nothing(resnet, caplog, capfd):
    model = copy.deepcopy(resnet)
    model.fc = nn.Linear(3, 3)
    with caplog.at_level(logging.WARNING):
        assert trace(model, IMAGE).mismatch is not None
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_layer_whose_sizes_are_not_known_yet_is_refused_and_left_whole():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(SourceError, match=r"the sizes of 1 \(LazyLinear\) are not known yet"):
        trace(model, torch.empty(2, 3, 4))
    assert model(torch.randn(2, 3, 4)).shape == (2, 5)


def test_a_compiled_model_is_traced_without_compiling():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model.compile()
    assert trace(model, torch.empty(2, 3)).output_shapes() == [(2, 4)]
    assert trace(torch.compile(nn.Linear(3, 4)), torch.empty(2, 3)).output_shapes() == [(2, 4)]


def test_a_scripted_part_is_not_changed():
    norm = torch.jit.script(nn.BatchNorm2d(3))
    assert trace(nn.Sequential(norm), torch.empty(2, 3, 4, 4), train=True).output_shapes() == [(2, 3, 4, 4)]
    assert norm.num_batches_tracked == 0


def test_a_model_of_fx_is_traced():
    model = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    assert trace(model, torch.empty(2, 3)).output_shapes() == [(2, 4)]


def test_containers_of_any_class_keep_nothing_of_a_trace():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.queue, self.table, self.count = deque(maxlen=3), defaultdict(list), Counter()

        def forward(self, x):
            self.queue.append(x)
            self.table["x"].append(x)
            self.count["calls"] += 1
            return x

    model = Net()
    trace(model, torch.empty(2))
    assert (list(model.queue), dict(model.table), dict(model.count)) == ([], {}, {})


def test_a_graph_that_breaks_off_prints_nothing_by_itself(capfd):
    broken = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 4)))
    broken.graph.output_node().prepend(
        call := broken.graph.call_function(torch.cat, (list(broken.graph.nodes)[1],))
    )
    broken.graph.output_node().args = (call,)
    broken.recompile()
    assert trace(broken, torch.empty(2, 3)).mismatch is not None
    assert capfd.readouterr().err == ""
    with pytest.raises(TypeError):
        broken(torch.empty(2, 3))
    assert "Traceback" in capfd.readouterr().err  # what torch does elsewhere is as it was
