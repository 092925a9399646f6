"""Values as the layers gave them, and a model that is as it was."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18 as build_resnet18

import torchgraft as tg
from torchgraft.errors import SelectionError, TorchgraftError
from torchgraft.features import capture


def plain(model, x, *, path=None):
    """What every layer gives, copied at once by hooks."""
    found, handles = {}, []
    for name, module in model.named_modules():
        if name and (path is None or name == path):
            keep = lambda m, a, out, name=name: found.setdefault(name, []).append(out.detach().clone())  # noqa: E731
            handles.append(module.register_forward_hook(keep))
    model(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Reused(nn.Module):
    """One ReLU that writes in place, called three times, and an output that is written to afterwards."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.alias = self.relu
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.relu(self.a(x))
        y = self.b(x)
        y += x
        y[:, 0] = 7
        x = self.alias(self.relu(y) * 1)
        return self.out(x)


# values


def test_every_value_is_as_the_layer_gave_it_though_relus_write_in_place(resnet18, images):
    resnet18.module.eval()
    wanted = plain(resnet18.module, images)
    with resnet18.capture() as seen:
        resnet18.module(images)
    assert set(seen.paths) == set(wanted)
    assert all(
        torch.equal(one, other)
        for path in wanted
        for one, other in zip(seen.calls(path), wanted[path], strict=True)
    )
    assert float(seen["bn1"].min()) < 0, "the ReLU behind it wrote to it"


def test_every_call_of_a_reused_module_is_seen_under_each_of_its_names(images):
    model = Reused()
    wanted = plain(model, images)
    with capture(model) as seen:
        model(images)
    assert len(seen.calls("relu")) == len(seen.calls("alias")) == 3
    assert all(torch.equal(*pair) for pair in zip(seen.calls("relu"), wanted["relu"], strict=True))
    assert torch.equal(seen["b"], wanted["b"][0])
    with pytest.raises(SelectionError, match=r"called 3 times(.|\n)*calls\('relu'\)"):
        seen["relu"]


def test_what_nobody_writes_to_is_not_copied(images):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
    with capture(model, "0") as seen, torch.no_grad():
        model(images)
    assert torch._C._is_cow_tensor(seen["0"])


def test_what_is_captured_may_be_written_to_without_harm(images):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Identity())
    with capture(model, "0") as seen, torch.no_grad():
        out = model(images)
    before = out.clone()
    seen["0"].zero_()
    assert torch.equal(out, before)


def test_the_users_own_tensors_keep_their_memory(images):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.table

    model = nn.Sequential(nn.Identity(), Table())
    address, view = model[1].table.data_ptr(), images.numpy()
    with capture(model) as seen, torch.no_grad():
        model(images)
        model[1].table.add_(1)
        images.add_(1)
    assert model[1].table.data_ptr() == address
    assert view.flags.owndata is False
    assert torch.equal(torch.from_numpy(view), images)
    assert torch.equal(seen["1"], torch.ones(3))


def test_inputs_by_place_and_by_name():
    class Join(nn.Module):
        def forward(self, a, *, b):
            return a + b

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.join, self.line = Join(), nn.Linear(3, 3)

        def forward(self, x):
            return self.join(self.line(x), b=x)

    model, x = Net(), torch.randn(2, 3)
    with capture(model, inputs=True) as seen:
        model(x)
    assert torch.equal(seen["line"], x)
    assert torch.equal(seen["join.b"], x)
    assert set(seen["join"]) == {"0", "b"}


@dataclasses.dataclass
class Answer:
    scores: torch.Tensor
    layers: tuple


class Structured(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.inner = Inner()

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.inner(x=out)


class Inner(nn.Module):
    def forward(self, x):
        return {"best": x * 2, "all": Answer(x, (x + 1, None, x + 2))}


def test_tuples_dicts_and_dataclasses_come_as_they_are_and_tensor_by_tensor():
    model = Structured()
    with capture(model) as seen:
        out = model(torch.randn(2, 4, 3))
    assert isinstance(seen["inner"]["all"], Answer)
    assert torch.equal(seen["inner.all.layers.2"], out["all"].layers[2])
    assert [one.name for one in seen if one.path == "lstm"] == ["lstm.0", "lstm.1.0", "lstm.1.1"]
    assert seen["lstm.1.0"].shape == (1, 2, 5)
    with pytest.raises(SelectionError, match=r"'inner\.other' was not captured"):
        seen["inner.other"]


def test_a_transformers_model_with_arguments_by_name():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    given = {"input_ids": torch.randint(0, 50, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    g = tg.load(transformers.BertModel(config), input=given)
    with g.capture("encoder.layer.*", "pooler", stop=False) as seen:
        out = seen.run(given)
    assert torch.equal(seen["encoder.layer.1"], out.last_hidden_state)
    with g.capture("encoder.layer.0") as seen:
        assert "no output" in repr(seen.run(given))
    assert seen["encoder.layer.0"].shape == (2, 6, 16)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"samples": slice(0, 1)}, (1, 128, 8, 8)),
        ({"samples": [1], "channels": [5, 0]}, (1, 2, 8, 8)),
        ({"channels": slice(0, 128, 4)}, (2, 32, 8, 8)),
        ({"part": lambda one: one.mean((2, 3))}, (2, 128)),
    ],
)
def test_only_what_is_asked_for_is_kept(resnet18, images, settings, shape):
    with resnet18.capture("layer2", **settings) as seen:
        seen.run(images)
    assert seen["layer2"].shape == shape
    assert seen["layer2"].untyped_storage().nbytes() == seen["layer2"].numel() * 4


def test_the_channels_of_a_model_with_channels_last_are_its_last():
    g = tg.load("torchvision:swin_t@none", input=(3, 64, 64))
    x = torch.randn(1, 3, 64, 64)
    with g.capture("features.1", channels=[3, 1]) as seen:
        seen.run(x)
    with g.capture("features.1") as whole:
        whole.run(x)
    assert torch.equal(seen["features.1"], whole["features.1"][..., [3, 1]])


def test_values_go_to_another_device(images):
    model = nn.Sequential(nn.Conv2d(3, 2, 3))
    with capture(model, "0", device="meta") as seen:
        model(images)
    assert seen["0"].is_meta


@pytest.mark.cuda
def test_values_leave_a_cuda_device(images):
    model = Reused().cuda()
    with capture(model, device="cpu") as seen, torch.no_grad():
        model(images.cuda())
    wanted = plain(model, images.cuda())
    assert seen["a"].device.type == "cpu"
    assert torch.equal(seen["a"], wanted["a"][0].cpu())
    with capture(model) as seen, torch.no_grad():
        model(images.cuda())
    assert torch.equal(seen["b"], wanted["b"][0])


# gradients and live values


def test_gradients_are_those_of_autograd(images):
    model = Reused().eval()
    x = model.a(images).detach().requires_grad_()
    y = model.b(F.relu(x))
    z = y + F.relu(x)
    z = torch.cat([torch.full_like(z[:, :1], 7), z[:, 1:]], 1)
    wanted = torch.autograd.grad(model.out(F.relu(F.relu(z) * 1)).square().sum(), [x, y])
    with capture(model, "a", "b", gradients=True) as seen:
        model(images).square().sum().backward()
    assert torch.allclose(seen.gradients["a"], wanted[0], rtol=1e-4, atol=1e-6)
    assert torch.allclose(seen.gradients["b"], wanted[1], rtol=1e-4, atol=1e-6)
    assert not seen["a"].requires_grad


def test_a_gradient_comes_where_all_parameters_are_frozen(resnet18, images):
    resnet18.freeze("**")
    resnet18.module.eval()
    x = images.clone().requires_grad_()
    wanted = {}
    handle = resnet18.module.layer4.register_forward_hook(lambda m, a, out: wanted.update(out=out))
    out = resnet18.module(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(out[:, 3].sum(), [wanted["out"]])
    with resnet18.capture("layer1", "layer4", gradients=True) as seen:
        seen.pull(resnet18.module(images)[:, 3].sum())
    assert torch.allclose(seen.gradients["layer4"], gradient)
    assert seen.gradients["layer1"].abs().max() > 0
    assert all(one.grad is None for one in resnet18.module.parameters())


def test_a_loss_can_be_made_of_live_values(resnet18, images):
    with resnet18.capture("layer1.0.bn1", detach=False, stop=False) as seen:
        resnet18.module(images)
    seen["layer1.0.bn1"].square().mean().backward()
    assert resnet18.module.conv1.weight.grad.abs().max() > 0
    assert resnet18.module.layer4[0].conv1.weight.grad is None


def test_the_output_depends_on_live_values(resnet18, images):
    resnet18.module.eval()
    with resnet18.capture("layer1.0.bn1", "layer2", detach=False, stop=False) as seen:
        out = resnet18.module(images)
    first, second = torch.autograd.grad(out.sum(), [seen["layer1.0.bn1"], seen["layer2"]])
    assert first.abs().max() > 0
    assert second.abs().max() > 0


def test_gradients_with_the_parameters_are_those_without_a_capture(images):
    model = build_resnet18(weights=None)
    other = copy.deepcopy(model)
    with capture(model, gradients=True, detach=False):
        model(images).logsumexp(1).sum().backward()
    other(images).logsumexp(1).sum().backward()
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(one.grad, two.grad) for one, two in pairs)


def test_a_checkpoint_that_runs_again_is_seen_once(images):
    from torch.utils.checkpoint import checkpoint

    model = Reused()
    with capture(model, "a", gradients=True) as seen:
        checkpoint(model, images, use_reentrant=False).sum().backward()
    assert len(seen.calls("a")) == 1
    assert seen.gradients["a"].shape == seen["a"].shape


def test_a_pass_without_gradients_is_told(resnet18, images):
    with resnet18.capture("layer1", gradients=True) as seen, torch.no_grad():
        resnet18.module(images)
    with pytest.raises(SelectionError, match="no_grad"):
        seen.gradients["layer1"]


# stopping


def counted(model, path):
    runs = []
    model.get_submodule(path).register_forward_hook(lambda *_: runs.append(1))
    return runs


def test_the_pass_stops_after_the_last_layer_asked_for(resnet18, images):
    resnet18.module.eval()
    runs = counted(resnet18.module, "layer4")
    with resnet18.capture("layer2", "layer3.*") as seen:
        out = resnet18.module(images)
        after = "the block goes on"
    assert after
    assert not runs
    assert seen.paths == ("layer2", "layer3.0", "layer3.1")
    for use in (lambda: out.argmax(1), lambda: torch.softmax(out, 1), lambda: out + 1, lambda: out[0]):
        with pytest.raises(TorchgraftError, match=r"stopped after layer3.1(.|\n)*stop=False"):
            use()


def test_it_goes_on_where_asked_in_training_and_for_inputs_of_other_sizes(resnet18, images):
    for settings, train, size in (({"stop": False}, False, 64), ({}, True, 64), ({}, False, 96)):
        resnet18.module.train(train)
        with resnet18.capture("layer2", **settings), torch.no_grad():
            out = resnet18.module(torch.randn(4, 3, size, size))
        assert out.shape == (4, 1000)


def test_it_does_not_stop_before_the_last_call_of_a_reused_module(images):
    g = tg.load(Reused(), input=(3, 64, 64))
    g.module.eval()
    runs = counted(g.module, "out")
    with g.capture("relu") as seen:
        g.module(images)
    assert len(seen.calls("relu")) == 3
    assert not runs


def test_it_stops_before_a_layer_whose_input_is_asked_for(resnet18, images):
    resnet18.module.eval()
    runs = counted(resnet18.module, "layer3")
    with resnet18.capture("layer3", inputs=True) as seen:
        resnet18.module(images)
    assert not runs
    assert seen["layer3"].shape == (2, 128, 8, 8)


def test_it_does_not_stop_where_nothing_is_saved(resnet18, images):
    resnet18.module.eval()
    with resnet18.capture("fc") as seen:
        out = resnet18.module(images)
    assert torch.equal(out, seen["fc"])


def test_two_captures_at_once_each_see_all(resnet18, images):
    resnet18.module.eval()
    with resnet18.capture("layer1") as one, resnet18.capture("layer3") as other:
        out = resnet18.module(images)
    assert one.paths == ("layer1",)
    assert other.paths == ("layer3",)
    assert "layer3" in repr(out)


def test_a_capture_within_a_part_keeps_the_whole_from_stopping(resnet18, images):
    resnet18.module.eval()
    with resnet18.capture("layer1") as one, capture(resnet18.module.layer4, "1") as other:
        out = resnet18.module(images)
    assert one.paths == ("layer1",)
    assert other["1"].shape == (2, 512, 2, 2)
    assert out.shape == (2, 1000)


def test_captures_that_end_out_of_order_leave_nothing(resnet18, images, snapshot):
    before = snapshot(resnet18.module)
    first, second = resnet18.capture("layer1"), resnet18.capture("layer2")
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    second.seen.run(images)
    second.__exit__(None, None, None)
    assert second.seen["layer2"].shape == (2, 128, 8, 8)
    assert snapshot(resnet18.module) == before
    assert "forward" not in vars(resnet18.module)


# nothing is left behind


@pytest.mark.parametrize("settings", [{}, {"gradients": True}, {"detach": False}, {"inputs": True}])
def test_the_model_is_left_as_it_was(resnet18, images, snapshot, settings):
    resnet18.module.train()
    before, state = snapshot(resnet18.module), torch.get_rng_state()
    with resnet18.capture("layer1", "layer2.0", **settings) as seen:
        seen.run(images)
    assert len(seen) == 2
    assert snapshot(resnet18.module) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert "forward" not in vars(resnet18.module)
    assert all(one.grad is None for one in resnet18.module.parameters())


def test_after_an_error_too(resnet18, snapshot):
    before = snapshot(resnet18.module)
    with pytest.raises(RuntimeError, match="channels"), resnet18.capture("layer1") as seen:
        seen.run(torch.zeros(1, 2, 64, 64))
    assert snapshot(resnet18.module) == before
    assert "forward" not in vars(resnet18.module)
    with pytest.raises(KeyError), resnet18.capture("layer1"):
        raise KeyError("in the block")
    assert snapshot(resnet18.module) == before


def test_a_buffer_that_a_pass_writes_to_is_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(2, 2)
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x):
            self.passes += 1
            return self.line(x)

    model = Counting()
    with capture(model, "line") as seen:
        seen.run(torch.zeros(1, 2))
    assert float(model.passes) == 0


def test_a_buffer_that_a_pass_puts_another_for_is_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(2, 2)
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x):
            self.passes = self.passes + 1
            return self.line(x)

    model = Counting()
    before = model.passes
    with capture(model, "line") as seen:
        seen.run(torch.zeros(1, 2))
    assert model.passes is before
    assert float(before) == 0


def test_a_trace_within_the_block_is_none_of_its_passes(resnet18, images):
    resnet18.module.eval()
    whole = len(resnet18.trace(cached=False).calls)
    with resnet18.capture("layer2") as seen:
        resnet18.module(images)
        assert len(resnet18.trace(cached=False).calls) == whole
        assert resnet18.check() == resnet18.check()
    assert seen["layer2"].shape == (2, 128, 8, 8)


def test_another_pass_begins_anew(resnet18, images):
    with resnet18.capture("layer2", stop=False) as seen:
        seen.run(images)
        seen.run(images[:1])
    assert seen["layer2"].shape[0] == 1


# where it works


def test_autocast_and_inference_mode(resnet18, images):
    resnet18.module.eval()
    with torch.autocast("cpu", torch.bfloat16), resnet18.capture("layer1.0.conv1") as seen:
        resnet18.module(images)
    assert seen["layer1.0.conv1"].dtype == torch.bfloat16
    with torch.inference_mode(), resnet18.capture("bn1") as seen:
        resnet18.module(images)
    assert torch.equal(seen["bn1"], plain(resnet18.module, images, path="bn1")["bn1"][0])


def test_a_compiled_model_runs_uncompiled_meanwhile(images):
    model = Reused().eval()
    compiled = torch.compile(model, backend="eager")
    compiled(images)
    with capture(compiled, "_orig_mod.a", "relu") as seen:
        compiled(images)
    assert torch.equal(seen["a"], plain(model, images)["a"][0])
    assert len(seen.calls("relu")) == 3


def test_names_of_a_model_in_data_parallel(images):
    wrapped = nn.DataParallel(Reused())
    with capture(wrapped, "module.a", "b") as seen:
        wrapped(images)
    assert seen.paths == ("a", "b")


def test_modules_in_a_list_and_calls_of_a_part():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

        def features(self, x):
            for one in self.blocks:
                x = one(x)
            return x

        def forward(self, x):
            return self.features(x)

    g = tg.load(Net(), input=(3,))
    g.module.eval()
    x = torch.randn(2, 3)
    with g.capture("blocks[:2]") as seen:
        out = g.module.features(x)
    assert torch.equal(out, g.module(x))
    assert seen.paths == ("blocks.0", "blocks.1")


def test_roles_are_selectors_here_too(resnet18, images):
    with resnet18.capture("stem", "head") as seen:
        seen.run(images)
    assert seen.paths == ("conv1", "bn1", "fc")


# printing and mistakes


def test_it_prints_a_table(images):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    nn.init.constant_(model[0].weight, 0.0)
    nn.init.constant_(model[0].bias, 2.0)
    with capture(model) as seen:
        assert "nothing was seen yet" in str(seen)
        model(images)
    assert str(seen).splitlines() == [
        "layer  call  shape      mean  std",
        "0         1  2×8×62×62     2    0",
        "1         1  2×8×62×62     2    0",
    ]


def test_mistakes_are_told(resnet18, images):
    with pytest.raises(SelectionError, match="did you mean layer2"):
        resnet18.capture("layre2")
    with resnet18.capture("layer2") as seen:
        with pytest.raises(SelectionError, match=r"'layer2' was not called(.|\n)*run the model inside"):
            seen["layer2"]
        seen.run(images)
    with pytest.raises(SelectionError, match=r"'layer4' was not captured"):
        seen["layer4"]
    with pytest.raises(SelectionError, match="gradients=True"):
        seen.gradients["layer2"]
    with pytest.raises(TorchgraftError, match="open already"), (one := resnet18.capture("layer2")), one:
        pass
