from __future__ import annotations

from functools import partial

import pytest
import torch

from torchgraft.data.base import Stream
from torchgraft.errors import DataError, TorchgraftWarning, TrainError
from torchgraft.train.draws import generator
from torchgraft.train.feed import feed_of
from torchgraft.train.world import World
from torchgraft.trainplan import TrainPlan


def decode(place, torn):
    if place in torn:
        raise DataError(f"shard 0, sample {place}: truncated")
    return torch.arange(16.0).reshape(1, 4, 4) + place, place % 3


class Made(Stream):
    """A stream in memory, in another order each epoch."""

    def __init__(self, count, *, known=True, torn=()):
        self.count, self.torn = count, frozenset(torn)
        self.length = count if known else None

    def pending(self, epoch, seed, *, start=0):
        order = torch.randperm(self.count, generator=generator("made", seed, epoch)).tolist()
        for place in order[start:]:
            yield partial(decode, place, self.torn)


def noisy(x):
    return x + torch.rand(())


def feed(stream=None, *, world=None, prepare=noisy, train=True, **plan):
    whole = TrainPlan(data="x", **{"batch": 4, **plan})
    return feed_of(
        Made(18) if stream is None else stream,
        whole,
        prepare=prepare,
        train=train,
        seed=5,
        world=world or World(),
        classes=3,
    )


def same(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert list(first.indices) == list(second.indices)
        assert (first.whole, first.count) == (second.whole, second.count)
        assert torch.equal(first.inputs, second.inputs)
        assert torch.equal(first.targets, second.targets)
    return True


PLANS = [{}, {"augment": "light"}, {"mixup": 0.3, "cutmix": 1.0}]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_batches_of_a_stream_are_the_same_on_any_number_of_workers(plan):
    for epoch in (1, 2):
        alone = list(feed(**plan).batches(epoch))
        assert [batch.whole for batch in alone] == [4, 4, 4, 4, 2]
        for workers in (1, 2):
            assert same(list(feed(workers=workers, **plan).batches(epoch)), alone)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_any_batch_of_a_stream_can_be_the_first(plan):
    batches = list(feed(**plan).batches(2))
    for start in range(6):
        assert same(list(feed(**plan).batches(2, start=start)), batches[start:])


@pytest.mark.parametrize("plan", PLANS[:2], ids=str)
@pytest.mark.parametrize("size", [2, 4])
def test_the_parts_of_a_streams_batch_are_the_batch_of_one_process(plan, size):
    parts = [list(feed(world=World(rank, size), **plan).batches(1)) for rank in range(size)]
    for batch, *own in zip(feed(**plan).batches(1), *parts, strict=True):
        assert sum(part.share for part in own) == 1
        assert torch.equal(torch.cat([part.inputs for part in own if part.count]), batch.inputs)
        assert torch.equal(torch.cat([part.targets for part in own if part.count]), batch.targets)


def test_nothing_is_decoded_of_what_is_passed_over():
    decoded = []

    class Told(Made):
        def pending(self, epoch, seed, *, start=0):
            for fetch in super().pending(epoch, seed, start=start):
                yield partial(self.told, fetch)

        def told(self, fetch):
            decoded.append(fetch.args[0])
            return fetch()

    list(feed(Told(18), world=World(1, 2)).batches(1, start=3))
    assert len(decoded) == 2 + 1


@pytest.mark.parametrize(("count", "sizes"), [(16, [4] * 4), (17, [4] * 4), (18, [4] * 4 + [2]), (1, [1])])
def test_a_last_batch_of_one_is_left_out_of_a_stream(count, sizes):
    one = feed(Made(count))
    assert one.sizes() == sizes == [batch.whole for batch in one.batches(1)]
    assert feed(Made(count, known=False)).sizes() is None
    assert sum(batch.whole for batch in feed(Made(count), train=False).batches(1)) == count


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_of_a_stream_is_left_out_and_said_once(workers):
    torn = feed(Made(18, torn={3, 9}), workers=workers)
    with pytest.warns(TorchgraftWarning, match=r"sample \d: truncated") as said:
        batches = [batch for epoch in (1, 2) for batch in torn.batches(epoch)]
    assert len(said) == 1
    assert sorted(torn.skipped) == ["shard 0, sample 3: truncated", "shard 0, sample 9: truncated"]
    assert sum(batch.count for batch in batches) == 32
    assert sum(batch.whole for batch in batches) == 36


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
def test_a_part_of_which_nothing_can_be_read_is_lent_the_next_sample():
    first = [int(image[0, 0, 0]) for batch in feed(prepare=lambda x: x).batches(1) for image in batch.inputs]
    stream = Made(18, torn=first[2:5])
    lent, second, *_ = feed(stream, prepare=lambda x: x, world=World(1, 2)).batches(1)
    assert (lent.count, int(lent.inputs[0, 0, 0, 0])) == (0, first[0])
    assert second.count == 2
    with pytest.raises(DataError, match="no sample of the stream can be read"):
        list(feed(Made(5, torn=range(5))).batches(1))


def test_strict_refuses_a_stream_with_a_sample_that_cannot_be_read():
    with pytest.raises(DataError, match="sample 3: truncated"):
        list(feed(Made(18, torn={3}), strict=True).batches(1))


def test_a_stream_has_no_views():
    with pytest.raises(TrainError, match="a stream has no views"):
        feed(views=2)


def test_nothing_of_a_stream_is_kept():
    one = feed(prepare=lambda x: x)
    assert not one.fixed
