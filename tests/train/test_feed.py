from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.train.stripes import stripes
from torch.utils.data import get_worker_info
from torchvision.transforms import v2

from torchgraft.data.base import ArraySamples
from torchgraft.errors import DataError, TorchgraftWarning, TrainError
from torchgraft.preprocess import Preprocess
from torchgraft.train.feed import Batch, feed_of, moved
from torchgraft.train.feeds import samples as samples_module
from torchgraft.train.feeds.reading import Reader, Work, keys_of
from torchgraft.train.pictures import preparation
from torchgraft.train.world import World
from torchgraft.trainplan import TrainPlan

PREPROCESS = Preprocess(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))
SAMPLES = stripes(52, 0)
VARIED = [
    {},
    {"augment": "light"},
    {"augment": "trivial"},
    {"augment": [{"RandomRotation": {"degrees": 10}}], "views": 2},
    {"augment": "light", "views": 2},
    {"mixup": 0.4, "cutmix": 1.0},
]


def feed(samples=SAMPLES, *, train=True, world=None, held=None, seed=3, **plan):
    whole = TrainPlan(data="x", **{"batch": 16, **plan})
    prepare = preparation(PREPROCESS, whole, train=train)
    return feed_of(
        samples, whole, prepare=prepare, train=train, seed=seed, world=world or World(), held=held, classes=3
    )


def same(one, other):
    """Compare batches bit for bit."""
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert list(first.indices) == list(second.indices)
        assert (first.whole, first.count, first.view) == (second.whole, second.count, second.view)
        assert torch.equal(first.inputs, second.inputs)
        assert torch.equal(first.targets, second.targets)
    return True


def differ(one, other):
    return any(not torch.equal(a.inputs, b.inputs) for a, b in zip(one, other, strict=True))


# the order


def test_an_epoch_gives_every_sample_once_in_another_order_each_time():
    one = feed()
    orders = [[place for batch in one.batches(epoch) for place in batch.indices] for epoch in (1, 2)]
    assert [sorted(order) for order in orders] == [list(range(52))] * 2
    assert orders[0] != orders[1]
    assert orders[0] != [place for batch in feed(seed=4).batches(1) for place in batch.indices]


def test_validation_goes_in_the_order_of_the_set():
    val = feed(train=False, augment="trivial", mixup=0.2, views=3)
    assert [place for batch in val.batches(1) for place in batch.indices] == list(range(52))
    assert same(list(val.batches(1)), list(val.batches(2)))
    assert val.fixed


def test_inputs_and_targets_are_those_of_their_samples():
    transform = PREPROCESS.transform()
    for batch in feed().batches(1):
        assert batch.targets.tolist() == [SAMPLES.labels[place] for place in batch.indices]
        assert torch.equal(batch.inputs[0], transform(SAMPLES[batch.indices[0]][0]))


@pytest.mark.parametrize(("count", "sizes"), [(48, [16] * 3), (49, [16] * 3), (50, [16] * 3 + [2]), (1, [1])])
def test_a_last_training_batch_of_one_is_left_out_where_there_are_others(count, sizes):
    one = feed(stripes(count, 0))
    assert one.sizes() == sizes == [batch.whole for batch in one.batches(1)]
    assert sum(feed(stripes(count, 0), train=False).sizes()) == count


# the same batches, whoever makes them


@pytest.mark.parametrize("plan", VARIED, ids=str)
def test_batches_are_the_same_on_any_number_of_workers(plan):
    alone = [list(feed(**plan).batches(epoch)) for epoch in (1, 2)]
    for workers in (1, 2):
        other = feed(workers=workers, **plan)
        assert same(list(other.batches(1)), alone[0])
        assert same(list(other.batches(2)), alone[1])


@pytest.mark.parametrize("plan", VARIED, ids=str)
def test_any_batch_can_be_the_first(plan):
    whole = feed(**plan)
    for epoch in (1, 2, 3):
        batches = list(whole.batches(epoch))
        for start in range(len(batches) + 1):
            assert same(list(feed(**plan).batches(epoch, start=start)), batches[start:])


def test_the_batches_before_the_first_are_not_read():
    read = []

    class Told(ArraySamples):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    one = feed(Told(SAMPLES.images, SAMPLES.labels))
    last = list(one.batches(1, start=3))
    assert len(last) == 1
    assert set(read) <= {*last[0].indices, 0}  # the first sample shows whether reading draws random numbers


@pytest.mark.parametrize("paired", [False, True])
def test_a_reader_can_be_sent_to_a_worker_that_is_started_afresh(paired):
    """As workers are on macOS and Windows, and everywhere from Python 3.14 on."""
    plan = TrainPlan(data="x", augment=[{"RandomRotation": {"degrees": 10}}])
    prepare = preparation(PREPROCESS, plan, train=True, paired=paired)
    reader = Reader(_Masked() if paired else SAMPLES, prepare, seed=0, paired=paired, stacked=True)
    work = Work([1, 2], keys_of(1, [1, 2]))
    here, there = reader[work], pickle.loads(pickle.dumps(reader))[pickle.loads(pickle.dumps(work))]
    assert torch.equal(here.inputs, there.inputs)
    assert torch.equal(here.targets, there.targets)


def test_an_epoch_that_was_broken_off_leaves_nothing_behind():
    one = feed(workers=2, augment="trivial")
    for start in (0, 1):
        for _ in islice(one.batches(1, start=start), 1):
            pass
    assert same(list(one.batches(2)), list(feed(augment="trivial").batches(2)))


@pytest.mark.parametrize("plan", VARIED[:5], ids=str)
@pytest.mark.parametrize("size", [2, 4])
def test_the_parts_of_all_processes_are_the_batch_of_one(plan, size):
    parts = [list(feed(world=World(rank, size), **plan).batches(2)) for rank in range(size)]
    whole = list(feed(**plan).batches(2))
    for batch, *own in zip(whole, *parts, strict=True):
        assert {part.whole for part in own} == {batch.whole}
        assert sum(part.share for part in own) == 1
        assert torch.equal(torch.cat([part.inputs for part in own if part.count]), batch.inputs)
        assert torch.equal(torch.cat([part.targets for part in own if part.count]), batch.targets)


def test_a_process_that_has_none_of_a_batch_is_lent_two_that_do_not_count():
    parts = [list(feed(stripes(50, 0), world=World(rank, 4)).batches(1))[-1] for rank in range(4)]
    assert [(part.count, len(part.inputs)) for part in parts] == [(0, 2), (1, 1), (0, 2), (1, 1)]
    assert [part.share for part in parts] == [0, 0.5, 0, 0.5]


def test_nothing_is_drawn_from_the_global_generators():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for plan in VARIED:
        for workers in (0, 1):
            list(feed(workers=workers, **plan).batches(1))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 40),
    size=st.integers(1, 17),
    world=st.integers(1, 5),
    epoch=st.integers(1, 9),
    start=st.integers(0, 8),
    light=st.booleans(),
)
def test_what_comes_is_a_function_of_seed_epoch_and_batch(count, size, world, epoch, start, light):
    samples, plan = stripes(count, 1), {"batch": size, "augment": "light" if light else "none"}
    whole = list(feed(samples, **plan).batches(epoch))
    for rank in range(world):
        own = list(feed(samples, world=World(rank, world), **plan).batches(epoch, start=start))
        assert len(own) == max(len(whole) - start, 0)
        for part, batch in zip(own, whole[start:], strict=True):
            assert part.whole == batch.whole == len(batch.indices)
            assert part.inputs.shape[0] == len(part.indices) > 0
            rows = [list(batch.indices).index(place) for place in part.indices]
            assert torch.equal(part.inputs, batch.inputs[rows])
            if part.count:
                assert rows == list(range(batch.whole))[World(rank, world).part(batch.whole)]


# what is kept


def test_what_gives_the_same_each_time_is_prepared_once():
    read = []

    class Told(ArraySamples):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    told = Told(SAMPLES.images, SAMPLES.labels)
    one = feed(told)
    first = list(one.batches(1))
    assert len(read) == 52 + 1
    list(one.batches(2))
    assert len(read) == 52 + 1
    assert same(list(one.batches(1)), first)


def test_workers_are_let_go_once_everything_is_kept():
    one = feed(workers=2)
    list(one.batches(1))
    assert len(multiprocessing.active_children()) >= 2
    before = multiprocessing.active_children()
    list(one.batches(2))
    assert len(multiprocessing.active_children()) <= len(before) - 2


@pytest.mark.parametrize("plan", [{}, {"views": 2, "augment": "trivial"}], ids=str)
def test_where_memory_is_short_the_rest_is_read_again(plan, monkeypatch):
    batches = [list(feed(**plan).batches(epoch)) for epoch in (1, 2, 3)]
    monkeypatch.setattr(samples_module, "MEMORY", 20 * (8 * 8 * 4 + 8) * plan.get("views", 1))
    for workers in (0, 1):
        short = feed(workers=workers, **plan)
        for _ in range(2):
            assert all(same(list(short.batches(epoch)), batches[epoch - 1]) for epoch in (1, 2, 3))


class _Noisy:
    """A user's data set that varies its samples itself."""

    labels = ()

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.full((3,), float(index)) + self.draw(), index % 3


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.rand(()).item(), random.random, lambda: np.random.rand(), lambda: np.random.normal()],
    ids=["torch", "python", "numpy", "numpy's normal"],
)
def test_a_data_set_that_draws_random_numbers_itself_is_not_kept_and_goes_on_exactly(draw):
    def noisy(**more):
        plan = TrainPlan(data="x", batch=6, **more)
        return feed_of(_Noisy(draw), plan, prepare=lambda x: x, train=True, seed=1)

    one = noisy()
    epochs = [list(one.batches(epoch)) for epoch in (1, 2)]
    assert not one.fixed
    noise = {
        round(float(row[0]) - place, 6)
        for batch in epochs[0]
        for place, row in zip(batch.indices, batch.inputs, strict=True)
    }
    assert len(noise) > 15
    means = [torch.cat([batch.inputs for batch in epoch]).mean() for epoch in epochs]
    assert means[0] != means[1]
    assert same(list(noisy().batches(2, start=1)), epochs[1][1:])
    assert same(list(noisy(workers=2).batches(2)), epochs[1])


def test_views_come_one_after_the_other_and_again():
    one = feed(augment="trivial", views=2)
    assert one.fixed
    assert one.views == 2
    seen = [dict(_by_place(one.batches(epoch))) for epoch in (1, 2, 3)]
    assert [batch.view for epoch in (1, 2, 3) for batch in islice(one.batches(epoch), 1)] == [0, 1, 0]
    assert all(torch.equal(seen[0][place], seen[2][place]) for place in range(52))
    assert sum(torch.equal(seen[0][place], seen[1][place]) for place in range(52)) < 26


def _by_place(batches):
    for batch in batches:
        yield from zip(batch.indices, batch.inputs, strict=True)


def test_light_views_come_again_too():
    one = feed(augment="light", views=2)
    seen = [dict(_by_place(one.batches(epoch))) for epoch in (1, 2, 3)]
    assert all(torch.equal(seen[0][place], seen[2][place]) for place in range(52))
    assert not any(torch.equal(seen[0][place], seen[1][place]) for place in range(52))


@pytest.mark.parametrize(
    ("plan", "fixed"), list(zip(VARIED, [True, False, False, True, True, False], strict=True))
)
def test_it_is_told_whether_what_is_computed_of_samples_may_be_kept(plan, fixed):
    assert feed(**plan).fixed is fixed


def test_held_samples_are_not_read():
    asked = []

    def held(places, view):
        asked.append((list(places), view))
        return len(asked) > 1

    class Unread(ArraySamples):
        def __getitem__(self, index):
            assert index in {*first, 0}
            return super().__getitem__(index)

    plain = list(feed().batches(1))
    first = list(plain[0].indices)
    batches = list(feed(Unread(SAMPLES.images, SAMPLES.labels), held=held).batches(1))
    assert asked == [(list(batch.indices), 0) for batch in plain]
    assert torch.equal(batches[0].inputs, plain[0].inputs)
    for batch, before in zip(batches[1:], plain[1:], strict=True):
        assert batch.inputs is None
        assert torch.equal(batch.targets, before.targets)
        assert batch.indices == before.indices


def test_held_samples_have_the_targets_that_were_read_before():
    class Bare:
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.ones(2), torch.tensor([float(index), 0.5])

    cached = []
    plan = TrainPlan(data="x", batch=4)
    one = feed_of(Bare(), plan, prepare=lambda x: x, train=True, seed=0, held=lambda places, view: bool(cached))
    read = list(one.batches(1))
    cached.append(True)
    again = list(one.batches(1))
    assert all(batch.inputs is None for batch in again)
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(read, again, strict=True))


# what can't be read


class _Torn(ArraySamples):
    """Samples of which some can't be decoded."""

    def __init__(self, samples, torn):
        super().__init__(samples.images, samples.labels)
        self.torn = torn

    def __getitem__(self, index):
        if index in self.torn:
            raise DataError(f"photos/{index}.jpg can't be read any more: truncated")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_read_is_left_out_and_said_once(workers):
    torn = feed(_Torn(SAMPLES, {5, 17, 40}), workers=workers)
    whole = list(feed().batches(1))
    with pytest.warns(
        TorchgraftWarning, match=r"photos/\d+.jpg can't be read any more: truncated: it is left out"
    ) as said:
        batches = [list(torn.batches(epoch)) for epoch in (1, 2, 3)]
    assert len(said) == 1
    assert sorted(torn.skipped) == sorted(f"photos/{n}.jpg can't be read any more: truncated" for n in (5, 17, 40))
    for epoch in batches:
        assert sorted(place for batch in epoch for place in batch.indices) == [
            place for place in range(52) if place not in {5, 17, 40}
        ]
        assert [batch.whole for batch in epoch] == [16, 16, 16, 4]
    for batch, full in zip(batches[0], whole, strict=True):
        rows = [row for row, place in enumerate(full.indices) if place not in {5, 17, 40}]
        assert torch.equal(batch.inputs, full.inputs[rows])
        assert batch.count == len(rows)


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
def test_going_on_is_exact_where_samples_cannot_be_read():
    torn = _Torn(SAMPLES, {5, 17, 40})
    whole = feed(torn, augment="trivial")
    list(whole.batches(1))
    second = list(whole.batches(2))
    assert same(list(feed(torn, augment="trivial").batches(2, start=1)), second[1:])


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
def test_a_process_whose_samples_cannot_be_read_is_lent_another_one():
    order = [place for batch in feed(batch=4).batches(1) for place in batch.indices]
    torn = feed(_Torn(SAMPLES, set(order[2:5])), batch=4, world=World(1, 2))
    for _ in range(2):
        first, second = islice(torn.batches(1), 2)
        assert (first.count, list(first.indices), first.share) == (0, [order[0]], 0)
        assert (second.count, list(second.indices)) == (2, order[6:8])


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    torn=st.sets(st.integers(0, 22), max_size=20),
    size=st.integers(1, 9),
    world=st.integers(1, 4),
    light=st.booleans(),
)
def test_what_can_be_read_counts_once_on_any_number_of_processes(torn, size, world, light):
    samples, plan = _Torn(stripes(23, 1), torn), {"batch": size, "augment": "light" if light else "none"}
    whole = feed(samples, **plan)
    parts = [feed(samples, world=World(rank, world), **plan) for rank in range(world)]
    for epoch in (1, 2):
        for batch, *own in zip(whole.batches(epoch), *(part.batches(epoch) for part in parts), strict=True):
            counted = [part for part in own if part.count]
            assert all(len(part.inputs) > 0 for part in own)
            assert [place for part in counted for place in part.indices] == (
                list(batch.indices) if batch.count else []
            )
            if batch.count:
                assert torch.equal(torch.cat([part.inputs for part in counted]), batch.inputs)
            assert sum(part.share for part in own) == pytest.approx(batch.share)


def test_strict_refuses_a_sample_that_cannot_be_read():
    for workers in (0, 1):
        torn = feed(_Torn(SAMPLES, {5}), strict=True, workers=workers)
        with pytest.raises(DataError, match=r"photos/5.jpg can't be read any more"):
            list(torn.batches(1))


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
def test_a_set_of_which_nothing_can_be_read_is_refused():
    with pytest.raises(DataError, match="none of 52 samples can be read"):
        list(feed(_Torn(SAMPLES, set(range(52)))).batches(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_preparation_that_fails_is_an_error_that_names_the_sample(workers):
    def prepare(image):
        raise KeyError("colour")

    plan = TrainPlan(data="x", batch=4, workers=workers)
    broken = feed_of(SAMPLES, plan, prepare=prepare, train=False, seed=0)
    with pytest.raises(DataError, match="sample 0 can't be prepared: KeyError: 'colour'"):
        list(broken.batches(1))


def test_a_worker_that_dies_is_an_error_that_says_so():
    plan = TrainPlan(data="x", batch=4, workers=1)
    killed = feed_of(SAMPLES, plan, prepare=_die_in_a_worker, train=False, seed=0)
    with pytest.raises(TrainError, match="a worker that reads samples died") as caught:
        list(killed.batches(1))
    assert caught.value.where == "train.workers"


def _die_in_a_worker(image):
    if get_worker_info() is not None:
        os._exit(1)
    return torch.ones(1)


def test_tensors_of_several_shapes_are_refused():
    class Ragged(_Noisy):
        def __getitem__(self, index):
            return torch.ones(index + 1), 0

    with pytest.raises(DataError, match=r"inputs of shapes \[1\], \[2\]"):
        list(
            feed_of(Ragged(None), TrainPlan(data="x", batch=4), prepare=lambda x: x, train=False, seed=0).batches(
                1
            )
        )


# other kinds of inputs and targets


@pytest.mark.parametrize("workers", [0, 1])
def test_texts_are_collated_batch_by_batch(workers):
    words = ["a", "bcd", "ef", "ghij", "k"]

    class Texts:
        labels = (0, 1, 0, 1, 1)

        def __len__(self):
            return 5

        def __getitem__(self, index):
            return words[index], self.labels[index]

    def collate(texts):
        longest = max(map(len, texts))
        return {"ids": torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])}

    plan = TrainPlan(data="x", batch=2, workers=workers)
    one = feed_of(Texts(), plan, prepare=lambda text: list(text.encode()), train=False, seed=0, collate=collate)
    for _ in range(2):
        batches = list(one.batches(1))
        assert [batch.inputs["ids"].tolist() for batch in batches][:2] == [
            [[97, 0, 0], [98, 99, 100]],
            [[101, 102, 0, 0], [103, 104, 105, 106]],
        ]
        assert [batch.targets.tolist() for batch in batches] == [[0, 1], [0, 1], [1]]


@pytest.mark.parametrize(
    ("target", "expected"),
    [((1, 0, 1), torch.tensor([[1.0, 0, 1]] * 2)), ((0.5,), torch.tensor([[0.5]] * 2)), (0.5, torch.tensor([0.5] * 2)), (2, torch.tensor([2, 2]))],
)  # fmt: skip
def test_targets_become_one_tensor(target, expected):
    class Two:
        labels = (target, target)

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.ones(1), target

    (batch,) = feed_of(Two(), TrainPlan(data="x"), prepare=lambda x: x, train=False, seed=0).batches(1)
    assert torch.equal(batch.targets, expected)
    assert batch.targets.dtype == expected.dtype


class _Masked:
    """Images of a bright square, with its mask; the left edge is judged nowhere."""

    labels = ()

    def __len__(self):
        return 12

    def __getitem__(self, index):
        from PIL import Image

        image, mask = np.zeros((24, 24), np.uint8), np.zeros((24, 24), np.uint8)
        top, left = 4 + index % 5, 5 + index % 7
        image[top : top + 9, left : left + 9], mask[top : top + 9, left : left + 9] = 255, 1
        mask[:, 0] = 255
        return Image.fromarray(image), mask


@pytest.mark.parametrize(
    "augment",
    ["none", "light", [{"RandomRotation": {"degrees": [30, 30]}}, {"RandomHorizontalFlip": {"p": 1.0}}]],
    ids=str,
)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_and_its_mask_are_varied_alike(augment, workers):
    plan = TrainPlan(data="x", batch=6, augment=augment, workers=workers)
    preprocess = Preprocess(size=(24, 24), channels=1, mean=(0.0,), std=(1.0,))
    prepare = preparation(preprocess, plan, train=True, paired=True)
    one = feed_of(_Masked(), plan, prepare=prepare, train=True, seed=0, paired=True)
    for batch in one.batches(1):
        assert batch.targets.shape == (6, 24, 24)
        assert batch.targets.dtype == torch.long
        assert set(batch.targets.unique().tolist()) <= {0, 1, 255}
        judged = batch.targets != 255
        bright = batch.inputs[:, 0] > 0.5
        overlap = (bright & (batch.targets == 1)).sum() / (bright | (batch.targets == 1)).sum()
        assert overlap > 0.85
        assert not (batch.targets == 255).all()
        if isinstance(augment, list):
            assert not judged[:, 0, 0].any()  # the corner came in from outside


def test_trivial_augment_is_refused_for_masks():
    with pytest.raises(TrainError, match="TrivialAugmentWide does not vary a mask with its image"):
        preparation(PREPROCESS, TrainPlan(data="x", augment="trivial"), train=True, paired=True)


def test_mixup_without_classes_is_refused():
    plan = TrainPlan(data="x", mixup=0.2)
    with pytest.raises(TrainError, match="mixup blends classes"):
        feed_of(SAMPLES, plan, prepare=v2.ToImage(), train=True, seed=0)


# batches


def test_a_batch_counts_its_own_samples():
    assert Batch(None, None, 8).share == 1
    assert Batch(None, None, 8, indices=[1, 2]).share == 0.25
    assert Batch(None, None, 8, indices=[1, 2], count=0).share == 0


def test_tensors_are_moved_wherever_they_are():
    value = {"a": torch.ones(2), "b": (torch.ones(1), "word")}
    there = moved(value, torch.device("meta"))
    assert there["a"].device.type == there["b"][0].device.type == "meta"
    assert there["b"][1] == "word"
    assert moved(value["a"], torch.device("cpu")) is value["a"]


def test_no_warning_without_a_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(feed(workers=1, augment="trivial").batches(1))
