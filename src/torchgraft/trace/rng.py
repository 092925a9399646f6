"""Random numbers stay as they were: of Python, numpy and torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["rng_kept"]


@contextmanager
def rng_kept() -> Iterator[None]:
    """Put the random numbers of Python, numpy and torch, on every device in use, back as they were."""
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    kept: list[tuple[Callable[[Any], Any], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    if cuda:
        kept.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if torch.backends.mps.is_available():
        kept.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    try:
        yield
    finally:
        for put, state in kept:
            put(state)
