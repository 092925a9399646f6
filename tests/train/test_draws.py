from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import torch

from torchgraft.train.draws import generator, isolated, mixed


def test_seeds_of_near_numbers_have_nothing_in_common():
    seeds = [mixed(seed, epoch, place) for seed in range(5) for epoch in range(5) for place in range(200)]
    assert len({seed % 2**32 for seed in seeds}) > 4990
    bits = torch.tensor([[seed >> place & 1 for place in range(64)] for seed in seeds]).float()
    assert (bits.mean(0) - 0.5).abs().max() < 0.05
    assert mixed("order", 1, 23) != mixed("order", 12, 3) != mixed("light", 12, 3)


def test_a_generator_is_the_same_for_the_same_purpose():
    one, two, other = (torch.rand(5, generator=generator(*parts)) for parts in [("a", 1), ("a", 1), ("b", 1)])
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def draw():
    return [torch.rand(3).tolist(), random.random(), np.random.rand(), np.random.normal()]


def test_what_is_drawn_apart_is_determined_and_leaves_no_trace():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with isolated() as chance:
        chance.seed(5)
        one = draw()
        chance.seed(6)
        other = draw()
        chance.seed(5)
        assert draw() == one != other
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_the_generators_are_put_back_after_an_error_too():
    before = torch.get_rng_state()
    with contextlib.suppress(KeyError), isolated() as chance:
        chance.seed(1)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("read", "draws"),
    [
        (lambda: None, False),
        (lambda: torch.ones(3).sum(), False),
        (lambda: torch.rand(3, generator=generator("own")), False),
        (lambda: np.random.default_rng(0).normal(), False),
        (lambda: torch.rand(()), True),
        (lambda: torch.nn.functional.dropout(torch.ones(3)), True),
        (lambda: random.random(), True),
        (lambda: np.random.rand(), True),
        (lambda: np.random.normal(), True),
    ],
)
def test_it_is_seen_whether_something_random_is_drawn(read, draws):
    with isolated() as chance:
        assert chance.drawn_by(3, read) is draws
