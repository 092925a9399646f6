"""The real probes leave everything as it was, byte for byte, whatever they are given."""

from __future__ import annotations

import pickle
import random
import time
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import torchgraft as tg
from torchgraft.errors import DataError
from torchgraft.probes.batch import first_batch
from torchgraft.probes.real import real


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 8, 3),
            norm=nn.BatchNorm2d(8),
            relu=nn.ReLU(inplace=True),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.5),
            head=nn.Linear(8, 4),
        )
    )
    model.norm.eval()
    model.conv.bias.requires_grad_(False)
    return model


def data(samples=8):
    torch.manual_seed(1)
    return torch.randn(samples, 3, 9, 9), torch.arange(samples) % 4


def trained(model):
    """Take two steps, so that gradients, momenta and statistics are there."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(data()[0]), data()[1]).backward()
        optimizer.step()
    return optimizer


def fingerprint(model, optimizer, *inputs):
    """Everything that a probe could change, as bytes and identities."""

    def raw(tensor):
        return None if tensor is None else (id(tensor), tensor.detach().numpy().tobytes(), tensor._version)

    state = [(name, raw(one)) for name, one in model.state_dict(keep_vars=True).items()]
    grads = [(name, one.requires_grad, raw(one.grad)) for name, one in model.named_parameters()]
    flags = [(path, module.training, sorted(vars(module))) for path, module in model.named_modules()]
    hooks = [
        (path, list(module._forward_hooks), list(module._forward_pre_hooks))
        for path, module in model.named_modules()
    ]
    kept = [
        raw(one) for held in optimizer.state.values() for one in held.values() if isinstance(one, torch.Tensor)
    ]
    groups = [
        {name: str(value) for name, value in group.items() if name != "params"} for group in optimizer.param_groups
    ]
    owned = [[id(one) for one in group["params"]] for group in optimizer.param_groups]
    numbers = random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().numpy().tobytes()
    return state, grads, flags, hooks, kept, groups, owned, numbers, [raw(one) for one in inputs]


def raises(*_):
    raise ValueError("no such thing")


def interrupts(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "loss", [None, nn.CrossEntropyLoss(), raises, lambda out, y: out, lambda out, y: out.sum().item()]
)
def test_everything_is_as_it_was(loss):
    model, (x, y) = network(), data()
    optimizer = trained(model)
    before = fingerprint(model, optimizer, x, y)
    tg.check(model, data=(x, y), loss=loss, optimizer=optimizer)
    assert fingerprint(model, optimizer, x, y) == before


def test_everything_is_as_it_was_after_an_interrupt():
    model, (x, y) = network(), data()
    optimizer = trained(model)
    before = fingerprint(model, optimizer, x, y)
    with pytest.raises(KeyboardInterrupt):
        tg.check(model, data=(x, y), loss=interrupts, optimizer=optimizer)
    assert fingerprint(model, optimizer, x, y) == before


class Nasty(nn.Module):
    """Writes wherever it can: inputs, weights, buffers, lists, random numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.hidden = [nn.BatchNorm1d(6)]
        self.register_buffer("count", torch.zeros(()))
        self.log, self.last = [], None

    def forward(self, x):
        x.mul_(2)
        self.layer.weight.data.mul_(0.5)
        self.count += random.random() + np.random.rand()
        self.last = self.layer(self.hidden[0](x))
        self.log.append(self.last)
        self.layer.weight.requires_grad_(True)
        return self.last + torch.rand(3)


def test_a_model_that_writes_everywhere_is_as_it_was():
    model = Nasty()
    hidden = model.hidden[0]
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = fingerprint(model, optimizer, x, y)
    mean = hidden.running_mean.clone()
    tg.check(model, data=(x, y), optimizer=optimizer)
    assert fingerprint(model, optimizer, x, y) == before
    assert (model.log, model.last) == ([], None)
    assert torch.equal(hidden.running_mean, mean)
    assert hidden.weight.grad is None


def test_a_loss_that_reads_the_model_leaves_no_gradient():
    model, (x, y) = network(), data()
    tg.check(model, data=(x, y), loss=lambda out, y: F.cross_entropy(out, y) + model.head.weight.norm())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_hooks_keep_is_as_it_was_and_the_loss_can_read_it():
    model, kept, listed, last = network(), {}, [], None
    model.conv.register_forward_hook(lambda _m, _i, out: kept.update(h=out))

    def look(module, given, out):
        nonlocal last
        last = out
        listed.append(out)

    class Watcher:
        seen = None

        def watch(self, module, given, out):
            self.seen = out

    watcher = Watcher()
    model.norm.register_forward_hook(look)
    model.pool.register_forward_hook(watcher.watch)
    told = tg.check(model, data=data(), loss=lambda out, y: kept["h"].square().mean() + out.mean())
    assert not [finding for finding in told if finding.is_error]
    assert (kept, listed, last, vars(watcher)) == ({}, [], None, {})
    (cut,) = [
        one for one in tg.check(model, data=data(), loss=lambda out, y: kept["h"].detach().mean()) if one.is_error
    ]
    assert cut.code == "T006"


def test_a_loss_with_parameters_of_its_own_is_as_it_was():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, out, y):
            self.calls += 1
            return F.cross_entropy(out * self.scale, y)

    loss = Scaled()
    tg.check(network(), data=data(), loss=loss)
    assert (loss.scale.grad, float(loss.calls)) == (None, 0.0)


def test_an_input_that_wants_gradients_gets_none():
    x, y = data()
    x.requires_grad_(True)
    tg.check(network(), data=(x, y))
    assert x.grad is None


def test_a_loader_and_its_generator_are_as_they_were():
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(*data(40)), 8, shuffle=True, generator=generator, num_workers=2)
    before = generator.get_state()
    assert not any(one.is_error for one in tg.check(network(), data=loader))
    assert torch.equal(generator.get_state(), before)
    assert loader._iterator is None


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*data(), strict=True)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, picture):
        return self.body(picture)


@pytest.mark.parametrize(
    ("model", "given", "size"),
    [
        (network(), data(), 8),
        (network(), list(data()), 8),
        (network(), [data(), data()], 8),
        (network(), iter([data()]), 8),
        (network(), TensorDataset(*data(40)), 16),
        (network(), DataLoader(TensorDataset(*data(40)), 5), 5),
        (network(), DataLoader(Stream(), 4), 4),
        (network(), {"image": data()[0], "label": data()[1]}, 8),
        (Named(), {"picture": data()[0], "labels": data()[1], "id": torch.arange(8)}, 8),
        (network(), tuple(one.numpy() for one in data()), 8),
    ],
)
def test_data_of_every_form_are_read(model, given, size):
    batch = first_batch(given, model)
    assert batch.size == size
    assert len(batch.targets) == size
    shown = real(model, batch)
    assert shown.step.broke is None
    assert len(shown.step.losses) == 2


class Words(nn.Module):
    """Takes its arguments by name and gives its own loss, as models of transformers do."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, ids=None, position=None, mask=None, labels=None):
        scores = self.head((self.table(ids) * mask[..., None]).mean(1))
        return {"loss": None if labels is None else F.cross_entropy(scores, labels), "logits": scores}


def test_a_model_with_named_arguments_is_checked_without_an_example():
    given = {"ids": torch.randint(0, 20, (8, 5)), "mask": torch.ones(8, 5), "labels": torch.arange(8) % 3}
    assert tg.check(Words(), data=given) == ()
    given["labels"] += 1
    assert [one.code for one in tg.check(Words(), data=given)] == ["D002"]


@pytest.mark.parametrize("given", [[], 3, TensorDataset(torch.zeros(0, 3)), iter([])])
def test_what_is_no_data_is_refused(given):
    with pytest.raises(DataError):
        tg.check(network(), torch.zeros(2, 3, 9, 9), data=given)


def test_a_collate_function_that_fails_is_told():
    sizes = [(torch.zeros(3, 8, 8 + place % 2), 0) for place in range(16)]

    class Uneven(torch.utils.data.Dataset):
        def __len__(self):
            return len(sizes)

        def __getitem__(self, place):
            return sizes[place]

    with pytest.raises(DataError, match="no batch can be read: RuntimeError"):
        tg.check(network(), torch.zeros(2, 3, 9, 9), data=Uneven())


def test_a_batch_without_targets_is_run_all_the_same():
    shown = real(network(), first_batch(data()[0], network()))
    assert (shown.step.broke, len(shown.step.losses)) == (None, 2)


def test_a_detection_model_takes_its_targets_along():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, images, targets=None):
            boxes = [self.layer(image.mean((0, 1))) for image in images]
            if not self.training:
                return [{"boxes": box} for box in boxes]
            return {
                "loss_box": sum(F.mse_loss(box, one["boxes"]) for box, one in zip(boxes, targets, strict=True))
            }

    images = [torch.randn(3, 5, 4), torch.randn(3, 6, 4)]
    shown = real(Detector(), first_batch((images, [{"boxes": torch.zeros(4)} for _ in images]), Detector()))
    assert shown.step.broke is None
    assert all(one.norm for one in shown.step.gradients)


def test_a_model_without_values_is_told_and_not_run():
    with torch.device("meta"):
        model = nn.Linear(6, 3)
    (told,) = tg.check(model, data=(torch.randn(4, 6), torch.zeros(4, dtype=torch.long)))
    assert (told.code, told.severity) == ("T001", "note")


def test_the_same_check_finds_the_same_twice():
    model, given = network(), data()
    batch = first_batch(given, model)
    first = real(model, batch, optimizer=torch.optim.SGD(model.parameters(), 0.01))
    torch.rand(9)
    again = real(model, batch, optimizer=torch.optim.SGD(model.parameters(), 0.01))
    assert first == again


def test_many_small_samples_run_and_few_large_ones():
    small = real(nn.Linear(6, 3), first_batch((torch.randn(500, 6), torch.arange(500) % 3), nn.Linear(6, 3)))
    assert (small.step.samples, small.arrival.samples) == (64, 500)
    large = real(network(), first_batch((torch.randn(8, 3, 224, 224), torch.arange(8) % 4), network()))
    assert large.step.samples == 4


@pytest.mark.slow
def test_resnet18_takes_less_than_five_seconds():
    g = tg.load("resnet18@none")
    given = torch.randn(8, 3, 224, 224), torch.arange(8)
    start = time.process_time()
    g.check(given, optimizer=torch.optim.SGD(g.module.parameters(), 0.01))
    assert time.process_time() - start < 5
