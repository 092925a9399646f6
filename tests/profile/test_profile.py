from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import torchgraft as tg
from torchgraft.errors import EditError, TrainError
from torchgraft.profile.files import as_data
from torchgraft.recipe import Recipe

DIGITS = """
base: bundled:glyphs
edits:
- head: {classes: 10}
- freeze: {at: [stem, layer1]}
train: {data: "sklearn:digits", batch: 32, epochs: 2, optimizer: {adamw: {lr: 0.001}}}
"""


class Net(nn.Module):
    """A reused module, an in-place one, a part without gradients, and one that is computed again."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(32, 64)
        self.act = nn.ReLU(inplace=True)
        self.still = nn.Linear(64, 64)
        self.again = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        self.last = nn.Linear(64, 5)
        self.scale = nn.Parameter(torch.ones(64))

    def forward(self, x):
        x = self.act(self.first(x))
        with torch.no_grad():
            mask = self.still(x)
        x = checkpoint(self.again, x * mask.sigmoid(), use_reentrant=False)
        return self.last(self.act(x * self.scale))


@pytest.fixture(scope="module")
def net():
    g = tg.load(Net(), input=torch.zeros(2, 32))
    return g, g.profile(batch=16, steps=3, tries=False, trace=True)


def part(run, path):
    return next(one for one in run.parts if one.path == path)


@pytest.mark.parametrize("kind", ["training", "prediction"])
def test_the_parts_add_up_to_the_whole(net, kind):
    run = getattr(net[1], kind)
    assert sum(one.seconds for one in run.phases) == pytest.approx(run.seconds, rel=1e-6)
    inside = sum(one.seconds for one in (*run.parts, run.outside))
    assert inside == pytest.approx(run.phase("forward") + run.phase("backward"), rel=1e-6)
    for one in run.parts:
        assert one.products + one.moving + one.between == pytest.approx(one.seconds, rel=1e-6)
    split = run.split
    assert split.data + split.python + split.memory + split.compute == pytest.approx(1)


def test_every_module_is_a_part_once_and_a_reused_one_counts_its_calls(net):
    g, found = net
    run = found.training
    assert [one.path for one in run.parts] == [path for path, _ in g.module.named_modules()]
    assert part(run, "act").calls == 2
    assert part(run, "act").kind == "ReLU"


def test_backward_time_goes_to_the_module_whose_operation_it_undoes(net):
    run = net[1].training
    assert part(run, "last").backward > 0
    assert part(run, "act").backward > 0  # though it writes in place
    assert part(run, "").backward > 0  # the product with the bare parameter
    assert part(run, "still").backward == 0  # under no_grad


def test_what_is_computed_again_for_the_backward_pass_is_its_modules_backward_time(net):
    run = net[1].training
    again = [part(run, f"again.{number}") for number in (0, 2)]
    assert all(one.calls == 1 for one in again)
    assert all(one.backward > 0 for one in again)


def test_the_work_is_what_torch_counts():
    g = tg.load("bundled:glyphs")
    run = g.profile(batch=2, steps=1, tries=False).training
    model, x = g.module, torch.randn(2, *g.input_shape)
    with FlopCounterMode(display=False) as counter:
        model.eval()(x).sum().backward()
    model.zero_grad()
    assert sum(one.flops for one in run.parts) == counter.get_total_flops()


def test_the_model_is_not_changed_bit_for_bit(snapshot):
    model = Net().train()
    model.still.eval()
    model.first.weight.grad = torch.ones_like(model.first.weight)
    g = tg.load(model, input=torch.zeros(2, 32))
    before, states = snapshot(model), (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())
    hooks = [len(one) for one in global_hooks()]
    g.profile(batch=4, steps=1)
    assert snapshot(model) == before
    assert torch.equal(model.first.weight.grad, torch.ones_like(model.first.weight))
    assert all(one.grad is None for name, one in model.named_parameters() if name != "first.weight")
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert [len(one) for one in global_hooks()] == hooks


def global_hooks():
    from torch.nn.modules import module

    return (
        module._global_forward_hooks,
        module._global_forward_pre_hooks,
        module._global_forward_hooks_always_called,
    )


class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if type(x) is torch.Tensor and x.shape[0] == 7:
            raise RuntimeError("seven")
        return self.fc(x)


def test_nothing_is_left_behind_by_a_model_that_breaks(snapshot):
    g = tg.load(Breaks(), input=torch.zeros(2, 4))
    before, hooks = snapshot(g.module), [len(one) for one in global_hooks()]
    with pytest.raises(TrainError, match="seven"):
        g.profile(batch=7, steps=1)
    assert snapshot(g.module) == before
    assert [len(one) for one in global_hooks()] == hooks


def test_the_peak_is_told_by_kind_and_by_module(net):
    g, found = net
    peak = found.training.peak
    weights = sum(one.numel() * 4 for one in g.module.parameters())
    assert sum(peak.kinds.values()) == peak.bytes == sum(size for _, _, size in peak.holders)
    assert peak.kinds["weights"] == weights
    assert peak.kinds["inputs"] >= 16 * 32 * 4
    trained = weights - 4 * sum(one.numel() for one in g.module.still.parameters())
    assert peak.kinds["optimizer state"] == trained  # momentum; `still` gets no gradient
    assert peak.kinds.get("gradients", 0) <= trained
    assert "gradients" not in found.prediction.peak.kinds
    assert found.prediction.peak.bytes < peak.bytes


def test_activations_grow_with_the_batch():
    g = tg.load(nn.Sequential(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 4)), input=(16,))
    small, large = (g.profile(batch=size, steps=1, tries=False).training.peak for size in (64, 512))
    assert large.kinds["activations"] == pytest.approx(8 * small.kinds["activations"], rel=0.1)
    assert large.kinds["weights"] == small.kinds["weights"]


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        for _ in range(400):
            x = torch.tanh(x) * 0.9
        return self.fc(x)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(1024))

    def forward(self, x):
        for _ in range(3):
            x = x @ self.weight
        return x


class Chain(nn.Module):
    def forward(self, x):
        for _ in range(4):
            x = (x + 1) * 0.5
        return x.sum((2, 3))


@pytest.mark.parametrize(
    ("model", "example", "batch", "bound", "code"),
    [
        (Loop(), (4,), 2, "Python", "M102"),
        (Wide(), (1024,), 384, "compute", "M104"),
        (Chain(), (3, 512, 512), 4, "memory", "M103"),
    ],
)
def test_the_verdict_says_what_a_step_is_bound_by(model, example, batch, bound, code):
    found = tg.load(model, input=example).profile(batch=batch, steps=3, tries=False)
    assert found.runs[0].split.largest == bound
    assert found.runs[0].split.of(bound) > 0.4
    assert [one.code for one in found.findings if one.code in ("M102", "M103", "M104", "M105")] == [code]


def test_a_recipe_runs_as_it_is_trained_with_its_own_data():
    found = opened(DIGITS)
    profile = found.profile(steps=3, tries=False)
    run = profile.training
    assert run.samples == 32
    assert run.phase("data") > 0
    assert run.phase("optimizer") > 0
    assert dict(profile.facts)["data"].startswith("sklearn:digits")
    assert part(run, "stem.0").backward == 0  # frozen
    assert part(run, "stem.0").forward > 0
    kinds = profile.training.peak.kinds
    trained = sum(one.numel() for one in found.module.parameters() if one.requires_grad)
    assert kinds["optimizer state"] == pytest.approx(8 * trained, rel=0.01)  # two moments


def test_batches_that_are_gathered_and_blocks_that_are_computed_again_are_those_of_the_plan():
    plain = opened(DIGITS).profile(steps=1, tries=False, fake=True).training
    found = opened(DIGITS.replace("batch: 32", "batch: 32, accumulate: 3, checkpointing: [layer2, layer3]"))
    profile = found.profile(steps=1, tries=False, fake=True)
    run = profile.training
    assert run.samples == 3 * plain.samples == 96
    assert part(run, "fc").calls == 3
    assert profile.prediction.samples == 32
    assert run.peak.kinds["activations"] < plain.peak.kinds["activations"]
    assert sum(one.flops for one in run.parts) > 3 * sum(one.flops for one in plain.parts)
    assert dict(profile.facts)["checkpointing"] == "layer2, layer3"
    assert "forward" not in vars(found.module.layer2)


def test_what_the_plan_unfreezes_on_the_way_is_trained_from_the_start():
    late = DIGITS.replace("epochs: 2", "epochs: 2, accumulate: 9, unfreeze: {epoch: 2, at: [stem, layer1]}")
    g = opened(late)
    profile = g.profile(steps=1, tries=False, fake=True)
    run = profile.training
    assert part(run, "stem.0").backward > 0
    assert part(run, "stem.0").note == ""
    assert not g.module.stem[0].weight.requires_grad
    weights = sum(one.numel() for one in g.module.parameters())
    assert run.peak.kinds["optimizer state"] == pytest.approx(8 * weights, rel=0.01)
    assert run.samples == 4 * 32
    assert any("gathers 9 batches" in note for note in profile.notes)


def opened(text):
    from torchgraft.loading import replay

    return replay(Recipe.from_yaml(text))


def test_data_that_are_not_there_are_said_and_replaced():
    g = opened(DIGITS.replace("sklearn:digits", "folder:nowhere"))
    found = g.profile(steps=2, tries=False)
    assert any("not there" in note for note in found.notes)
    assert found.training.phase("data") == 0
    assert not any(one.code == "M101" for one in found.findings)


def test_a_frozen_model_has_a_prediction_alone():
    g = tg.load(nn.Sequential(nn.Linear(4, 4)), input=(4,)).freeze("**")
    found = g.profile(steps=1, tries=False)
    assert found.training is None
    assert any("frozen" in note for note in found.notes)


def test_a_model_that_trains_otherwise_has_a_prediction_and_a_note():
    class Picky(nn.Linear):
        def forward(self, x):
            if self.training:
                raise ValueError("targets, please")
            return super().forward(x)

    found = tg.load(Picky(4, 4), input=(4,)).profile(steps=1, tries=False)
    assert [run.kind for run in found.runs] == ["prediction"]
    assert any("targets, please" in note for note in found.notes)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids, mask=None):
        return {"logits": self.out(self.table(ids) * mask[..., None])}


def test_dicts_go_in_and_come_out_and_tied_weights_count_once():
    g = tg.load(Words(), input={"ids": torch.arange(12).reshape(2, 6), "mask": torch.ones(2, 6)})
    found = g.profile(batch=5, steps=1, tries=False)
    assert found.training.samples == 5
    assert found.training.peak.kinds["weights"] == 50 * 16 * 4
    assert dict(found.facts)["loss"].startswith("cross-entropy")


class Finder(nn.Module):
    """Gives scores and boxes."""

    def __init__(self):
        super().__init__()
        self.body, self.names, self.box = nn.Linear(4, 16), nn.Linear(16, 3), nn.Linear(16, 4)

    def forward(self, x):
        held = self.body(x)
        return {"boxes": self.box(held), "logits": self.names(held)}


def test_every_output_takes_part_in_the_loss():
    found = tg.load(Finder(), input=(4,)).profile(batch=5, steps=2, tries=False)
    said = dict(found.facts)["loss"]
    assert "cross-entropy of classes (logits)" in said
    assert "the mean of squares (boxes)" in said
    backward = {one.path: one.backward for one in found.training.parts}
    assert backward["box"] > 0
    assert backward["names"] > 0


def test_an_edited_graft_is_profiled_as_it_is_now():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), input=(4,))
    g.insert(nn.ReLU(), after="0", name="act")
    assert "ReLU" in {one.kind for one in g.profile(steps=1, tries=False).training.parts}


def test_what_may_help_is_tried_and_leaves_the_task_as_it_was(monkeypatch):
    from torchgraft.profile import tries

    monkeypatch.setattr(tries, "LONGEST", float("inf"))  # however slow the machine is
    monkeypatch.setattr(tries, "PATIENCE", float("inf"))
    g = tg.load("bundled:glyphs")
    found = g.profile(batch=4, steps=2)
    assert "bf16" in {one.name for one in found.tried}
    assert all(one.faster > 0 for one in found.tried)
    assert list(found.tried) == sorted(found.tried, key=lambda one: -one.faster)
    assert g.module.stem[0].weight.is_contiguous()


def test_a_model_that_does_not_run_is_told():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2)), input=(4,))
    with pytest.raises(EditError, match="can't be profiled") as told:
        g.profile()
    assert told.value.findings


def test_a_device_that_is_not_here_is_told():
    with pytest.raises(TrainError, match="no device"):
        tg.load(nn.Linear(4, 4), input=(4,)).profile(device="cuda:9")


def test_weights_that_are_not_in_memory_are_told():
    with torch.device("meta"):
        model = nn.Linear(4, 4)
    with pytest.raises(TrainError, match="meta"):
        tg.load(model, input=(4,)).profile()


def test_it_is_plain_data(net):
    import json

    data = json.loads(json.dumps(as_data(net[1])))
    assert data["runs"][0]["kind"] == "training step"
    assert {"path", "kind", "bytes"} == set(data["runs"][0]["peak"]["holders"][0])
    assert "trace" not in data


def test_the_trace_names_the_modules(net):
    import json

    events = json.loads(net[1].trace)["traceEvents"]
    names = {event["name"] for event in events if "name" in event}
    assert {"module again.2", "phase backward", "module ."} <= names


@pytest.mark.cuda
def test_a_cuda_device_is_profiled_by_its_own_seconds():
    g = tg.load("resnet18@none", input=(3, 64, 64))
    found = g.profile(device="cuda", batch=16, steps=3, tries=False)
    run = found.training
    assert 0 < run.device_busy <= 1.05
    assert part(run, "layer4.1.conv2").products > 0
    assert run.peak.kinds["weights"] == sum(
        one.numel() * one.element_size() for one in (*g.module.parameters(), *g.module.buffers())
    )
    assert run.peak.reserved >= run.peak.bytes


def test_a_span_that_is_too_short_to_measure_decides_nothing(machine):
    from dataclasses import replace

    from torchgraft.profile import measure
    from torchgraft.profile.events import Ledger
    from torchgraft.profile.record import Part
    from torchgraft.profile.work import Work

    best = replace(machine, device="cpu", flops=100e9)
    sure = Part("a", "Conv2d", forward=1e-3, products=1e-3, flops=80e6)
    short = Part("b", "Conv2d", forward=5e-3, products=1e-4, between=4.9e-3, flops=26e6)
    long = Part(
        "c", "Linear", forward=0.1, products=0.1, flops=26e9
    )  # the machine was busy when its rate was taken
    assert measure._bound(sure, Work(), best) == "compute"
    assert measure._bound(long, Work(), best) == "compute"
    assert measure._bound(short, Work(), best) == ""
    assert measure._bound(short, Work(), replace(best, flops=300e9)) == "Python"
    split = measure._split(6e-3, {}, (sure, short), Ledger(), 1.0, Work(), best)
    assert split.compute == pytest.approx(1)
