"""A small training in both ways, and models that are awkward to take apart."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from torch import nn
from torchvision import models

from torchgraft.params.still import train_mode
from torchgraft.train.prefix import Cache, Set
from torchgraft.train.prefix.record import called
from torchgraft.trainplan import TrainPlan

PLAN = TrainPlan(data="digits", cache="memory")


def small():
    """Make a residual network with one block a stage."""
    return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)


def frozen_but(model, *free):
    """Freeze everything whose name does not begin with one of these, and put the model into the mode of training."""
    for name, one in model.named_parameters():
        one.requires_grad_(name.startswith(free) if free else False)
    train_mode(model)
    return model


def batches(count, size, epochs):
    for epoch in range(epochs):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch)).tolist()
        yield [order[start : start + size] for start in range(0, count, size)]


def rows(inputs, places):
    if isinstance(inputs, dict):
        return {name: one[places] for name, one in inputs.items()}
    return tuple(one[places] for one in inputs) if isinstance(inputs, tuple) else inputs[places]


def scores(output):
    """Give everything that a model says as one tensor."""
    if hasattr(output, "logits") and not hasattr(output, "aux_logits1"):
        return output.logits
    if isinstance(output, torch.Tensor):
        return output
    return torch.cat([one.flatten(1) for one in output if one is not None], 1)


def trained(model, inputs, count, cache=None, *, size=4, epochs=3, between=None, around=nullcontext):
    """Train in shuffled batches, the last one smaller, and give all that the model holds at the end."""
    torch.manual_seed(1)
    target = torch.randint(0, 3, (count,))
    optimizer = torch.optim.SGD(list(model.parameters()), lr=0.05, momentum=0.9)
    for epoch, parts in enumerate(batches(count, size, epochs)):
        if between is not None:
            between(epoch, model)
        if cache is not None:
            cache.renew(model, epochs - epoch)
        for places in parts:
            optimizer.zero_grad()
            with around():
                if cache is None:
                    output = called(model, rows(inputs, places))
                else:
                    given = None if cache.holds(places) else rows(inputs, places)
                    output = cache.output(model, model, given, places)
            nn.functional.cross_entropy(scores(output).float(), target[places]).backward()
            optimizer.step()
    return {name: one.clone() for name, one in model.state_dict().items()}


def both(model, inputs, count, *, size=4, epochs=3, plan=PLAN, folder=None, **settings):
    """Train one copy without a cache and one with it; gives both states and the cache."""
    other = copy.deepcopy(model)
    plain = trained(other, inputs, count, size=size, epochs=epochs, **settings)
    sizes = [size, count % size or size]

    def again(places, view):
        return rows(inputs, places)

    cache = Cache(plan, Set(count, sizes=sizes, again=again), epochs=epochs, folder=folder)
    ours = trained(model, inputs, count, cache, size=size, epochs=epochs, **settings)
    return plain, ours, cache


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


class Branches(nn.Module):
    """Two branches, one of them frozen, fused by a head."""

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.right = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        both = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(both.mean((2, 3)))


class Reused(nn.Module):
    """One module that is called before and after what is trained."""

    def __init__(self):
        super().__init__()
        self.body, self.between, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.act(self.body(x))
        return self.head(self.act(self.body(self.between(x))))


class Auxiliary(nn.Module):
    """A head in the middle that is there in training alone."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(16, 16), nn.Linear(16, 16)
        self.head, self.aux = nn.Linear(16, 3), nn.Linear(16, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        low = self.low(x).relu_()
        high = self.head(self.drop(self.high(low).relu_()))
        return (high, self.aux(low)) if self.training else high


class Mixing(nn.Module):
    """Its norm takes the statistics of each batch."""

    def __init__(self):
        super().__init__()
        self.body, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16, track_running_stats=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.norm(self.body(x)))


class Steered(nn.Module):
    """Goes another way where every sample is short, as models of texts do."""

    def __init__(self):
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(9, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, ids, mask):
        x = self.table(ids)
        if not mask.all():
            x = x * mask[..., None]
        return self.head(self.body(x).sum(1))


class Noisy(nn.Module):
    """Draws random numbers before what is trained."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.body(x + torch.randn_like(x)))


class Foreign(nn.Module):
    """Leaves torch on its way."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.from_numpy(self.body(x).detach().numpy() * 2)
        return self.head(x)


class Counted(nn.Module):
    """Does one operation more at each of its passes after some time."""

    def __init__(self, after):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)
        self.limits, self.passes = SimpleNamespace(after=after), 0  # objects are not looked into

    def forward(self, x):
        self.passes += self.training
        x = self.norm(self.body(x))
        if self.passes > self.limits.after:
            x = x * 1.0
        return self.head(nn.functional.dropout(x, 0.3, self.training))


class Asking(nn.Module):
    """Its frozen part goes another way where no sample is short."""

    def __init__(self):
        super().__init__()
        self.body, self.head = Masked(), nn.Linear(16, 3)

    def forward(self, ids, mask):
        return self.head(self.body(ids, mask))


class Masked(nn.Module):
    """Sums up what is not masked; by other operations where nothing is."""

    def __init__(self):
        super().__init__()
        self.table, self.dense = nn.Embedding(9, 16), nn.Linear(16, 16)

    def forward(self, ids, mask):
        x = self.dense(self.table(ids))
        return x.mean(1) if (mask > 0).all() else (x * mask[..., None]).sum(1)
