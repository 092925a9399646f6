from __future__ import annotations

import json
import random

import numpy as np
import torch

from torchgraft.train.random import random_state, seeded, set_random_state

CPU = torch.device("cpu")


def draws():
    return (
        torch.rand(3).tolist(),
        np.random.rand(3).tolist(),
        np.random.randn(),
        random.random(),
        random.gauss(0, 1),
    )


def test_every_generator_goes_on_where_it_was():
    draws()
    np.random.randn()
    random.gauss(0, 1)
    tensors, notes = random_state(CPU)
    kept = {name: one.clone() for name, one in tensors.items()}, json.loads(json.dumps(notes))
    first = draws()
    draws()
    set_random_state(*kept, CPU)
    assert draws() == first


def test_a_seed_draws_the_same_and_leaves_nothing_behind():
    tensors, notes = random_state(CPU)
    with seeded(3):
        first = draws()
    with seeded(3):
        assert draws() == first
    after, after_notes = random_state(CPU)
    assert all(torch.equal(one, after[name]) for name, one in tensors.items())
    assert notes == after_notes
