from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchgraft.train.feed import feed_of
from torchgraft.train.mix import Mix, cutmix, mixup
from torchgraft.train.world import World
from torchgraft.trainplan import TrainPlan

SHARE = st.floats(0, 1)


def numbered(count, side=6):
    """Images of which each is its own number all over, so that a blend shows its shares."""
    return torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, side, side).clone()


def test_mixup_blends_each_image_with_the_one_before():
    images = numbered(4)
    assert mixup(images, 0.75)[:, 0, 0, 0].tolist() == [0.75, 0.75, 1.75, 2.75]
    assert torch.equal(images, numbered(4))


@given(share=SHARE, across=SHARE, down=SHARE)
def test_cutmix_says_what_share_of_an_image_is_left(share, across, down):
    images = numbered(3, side=9)
    mixed, kept = cutmix(images, share, min(across, 0.999), min(down, 0.999))
    own = (mixed == images).float().mean((1, 2, 3))
    assert torch.allclose(own, torch.full((3,), kept), atol=1e-6)
    assert set(mixed[1].unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(images, numbered(3, side=9))


@given(
    mixup=st.sampled_from([0.0, 0.2, 1.0]), cutmix=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99), epoch=st.integers(1, 9), number=st.integers(0, 99),
)  # fmt: skip
def test_targets_are_blended_as_the_images_are(mixup, cutmix, seed, epoch, number):
    if mixup == cutmix == 0:
        return
    images, targets = numbered(5), torch.arange(5)
    mixed, shares = Mix(mixup, cutmix, 7, seed)(images, targets, epoch, number)
    assert shares.shape == (5, 7)
    assert torch.allclose(shares.sum(1), torch.ones(5))
    assert torch.allclose(mixed.mean((1, 2, 3)), shares @ torch.arange(7, dtype=torch.float32), atol=1e-5)


def test_shares_are_drawn_anew_for_each_batch_and_alike_from_the_same_seed():
    images, targets = numbered(2), torch.arange(2)
    drawn = [
        Mix(1.0, 0.0, 2, 0)(images, targets, epoch, number)[1][0, 0].item()
        for epoch in (1, 2)
        for number in range(50)
    ]
    assert len(set(drawn)) == 100
    assert 0.4 < sum(drawn) / 100 < 0.6
    assert drawn[:50] == [Mix(1.0, 0.0, 2, 0)(images, targets, 1, number)[1][0, 0].item() for number in range(50)]


def test_a_strong_mixup_is_near_one_half_and_a_weak_one_near_one_image():
    def spread(strength):
        shares = [Mix(strength, 0.0, 2, 0)(numbered(2), torch.arange(2), 1, n)[1][0, 0].item() for n in range(200)]
        return sum(abs(share - 0.5) for share in shares) / 200

    assert spread(0.1) > 0.4
    assert spread(50.0) < 0.1


def test_both_ways_take_turns():
    """A patch leaves whole numbers in an image; a blend hardly ever does."""
    mix = Mix(1.0, 1.0, 4, 0)
    patched = [bool((mix(numbered(4), torch.arange(4), 1, n)[0] % 1 == 0).all()) for n in range(100)]
    assert 30 < sum(patched) < 70


class _Numbered:
    labels = tuple(range(4)) * 4

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return torch.full((1, 4, 4), float(index % 4)), index % 4


def batches(world=None, **plan):
    whole = TrainPlan(data="x", batch=8, **plan)
    feed = feed_of(_Numbered(), whole, prepare=lambda x: x, train=True, seed=0, world=world or World(), classes=4)
    return list(feed.batches(1))


@pytest.mark.parametrize("plan", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}], ids=str)
def test_each_process_blends_within_its_part_by_the_same_share(plan):
    for rank in range(2):
        for part, alone in zip(batches(World(rank, 2), **plan), batches(**plan), strict=True):
            assert part.targets.shape == (4, 4)
            assert torch.allclose(part.inputs.mean((1, 2, 3)), part.targets @ torch.arange(4.0), atol=1e-5)
            assert set(part.indices) <= set(alone.indices)


def test_validation_is_not_blended():
    plan = TrainPlan(data="x", mixup=0.4)
    (batch,) = feed_of(_Numbered(), plan, prepare=lambda x: x, train=False, seed=0).batches(1)
    assert batch.targets.dtype == torch.long
