from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset, WeightedRandomSampler

from torchgraft.errors import DataError, TrainError
from torchgraft.train.feed import feed_of
from torchgraft.train.snapshot import flat, nested
from torchgraft.train.world import World
from torchgraft.trainplan import TrainPlan

SET = TensorDataset(torch.arange(30.0)[:, None], torch.arange(30) % 3)


class Noisy(Dataset):
    """Varies its samples by whatever generator a user may draw from."""

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return torch.tensor([index + random.random() + np.random.rand() + torch.rand(()).item()]), index % 3


def feed(loader, world=None, *, train=True):
    return feed_of(loader, TrainPlan(data="x"), prepare=None, train=train, seed=0, world=world or World())


def loaders():
    def seeded():
        return torch.Generator().manual_seed(1)

    yield "in order", lambda: DataLoader(SET, 4)
    yield "shuffled", lambda: DataLoader(SET, 4, shuffle=True)
    yield "shuffled by a generator of its own", lambda: DataLoader(SET, 4, shuffle=True, generator=seeded())
    yield "weighted", lambda: DataLoader(SET, 4, sampler=WeightedRandomSampler([1.0] * 30, 30))
    yield "varied", lambda: DataLoader(Noisy(), 4, shuffle=True)
    yield "varied in workers", lambda: DataLoader(Noisy(), 4, shuffle=True, num_workers=2)


MADE = dict(loaders())


def train(given, epoch, *, start=0, stop=99):
    """Take batches as a training does, which draws random numbers in between."""
    seen = []
    for batch in given.batches(epoch, start=start):
        torch.rand(3), random.random(), np.random.rand()
        seen.append((batch.inputs, batch.targets))
        if start + len(seen) == stop:
            break
    return seen


def states():
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def put(kept):
    torch.set_rng_state(kept[0]), random.setstate(kept[1]), np.random.set_state(kept[2])


@pytest.mark.parametrize("name", MADE)
def test_going_on_in_the_middle_of_an_epoch_is_exact(name):
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    whole = feed(MADE[name]())
    train(whole, 1)
    second = train(whole, 2)
    after = states()

    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    stopped = feed(MADE[name]())
    train(stopped, 1)
    train(stopped, 2, stop=3)
    tensors = {}
    noted, kept = flat(stopped.state(), "feed", tensors), states()

    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    other = feed(MADE[name]())
    other.restore(nested(noted, tensors))
    put(kept)
    rest = train(other, 2, start=3)
    assert len(rest) == len(second) - 3
    for one, two in zip(rest, second[3:], strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])
    assert torch.equal(torch.get_rng_state(), after[0])
    assert random.getstate() == after[1]


@pytest.mark.parametrize("name", MADE)
def test_going_on_between_two_epochs_is_exact(name):
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    whole = feed(MADE[name]())
    train(whole, 1)
    tensors = {}
    noted, kept = flat(whole.state(), "feed", tensors), states()
    tensors = {path: tensor.clone() for path, tensor in tensors.items()}
    second = train(whole, 2)

    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    other = feed(MADE[name]())
    other.restore(nested(noted, tensors))
    put(kept)
    rest = train(other, 2)
    assert all(torch.equal(one[0], two[0]) for one, two in zip(rest, second, strict=True))


@pytest.mark.parametrize(
    ("loader", "sizes"),
    [
        (DataLoader(SET, 8), [8, 8, 8, 6]),
        (DataLoader(SET, 8, drop_last=True), [8, 8, 8]),
        (DataLoader(SET, 8, sampler=WeightedRandomSampler([1.0] * 30, 10)), [8, 2]),
        (DataLoader(SET, batch_sampler=[[1, 2], [3]]), None),
    ],
)
def test_sizes_are_known_where_the_loader_cuts_evenly(loader, sizes):
    given = feed(loader)
    assert given.sizes() == sizes
    assert [batch.whole for batch in given.batches(1)] == (sizes or [2, 1])


@pytest.mark.parametrize(
    ("batch", "inputs"),
    [
        ((torch.ones(2, 3), torch.ones(2)), torch.ones(2, 3)),
        ([torch.ones(2, 3), torch.zeros(2), torch.ones(2)], (torch.ones(2, 3), torch.zeros(2))),
        ({"ids": torch.ones(2, 3), "labels": torch.ones(2)}, {"ids": torch.ones(2, 3)}),
    ],
)
def test_a_batch_is_taken_apart_into_inputs_and_targets(batch, inputs):
    (one,) = feed(DataLoader([batch], batch_size=None)).batches(1)
    assert str(one.inputs) == str(inputs)
    assert torch.equal(one.targets, torch.ones(2))
    assert (one.whole, one.count) == (2, 2)


@pytest.mark.parametrize(
    ("batch", "what"),
    [(torch.ones(2), "a batch of the loader is a Tensor"), ({"a": torch.ones(2), "b": torch.ones(2)}, "a batch of the loader is a dict")],
)  # fmt: skip
def test_a_batch_without_targets_is_refused(batch, what):
    with pytest.raises(DataError, match=what):
        list(feed(DataLoader([batch], batch_size=None)).batches(1))


def test_several_processes_need_a_sampler_that_shares_out():
    with pytest.raises(TrainError, match="each of 2 processes would train on every batch"):
        feed(DataLoader(SET, 4, shuffle=True), World(0, 2))
    seen = []
    for rank in range(2):
        shared = DataLoader(SET, 4, sampler=DistributedSampler(SET, num_replicas=2, rank=rank))
        given = feed(shared, World(rank, 2))
        assert given.sizes() == [8, 8, 8, 6]
        epochs = [[int(x) for batch in given.batches(epoch) for x in batch.inputs] for epoch in (1, 2)]
        assert epochs[0] != epochs[1]  # set_epoch was called
        assert [batch.share for batch in given.batches(1)] == [0.5] * 4
        seen += epochs[0]
    assert sorted(seen) == list(range(30))


def test_every_process_may_judge_on_the_whole_of_a_loader():
    for rank in range(2):
        batches = list(feed(DataLoader(SET, 8), World(rank, 2), train=False).batches(1))
        assert [(batch.whole, batch.count) for batch in batches] == [(8, 8), (8, 8), (8, 8), (6, 6)]
