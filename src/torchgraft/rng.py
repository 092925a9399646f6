"""Random numbers: drawn from a seed, and put back as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["drawn_from", "rng_kept"]


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draw on the CPU from a seed, and leave torch's generators as they were, those of other devices untouched.

    `torch.manual_seed` seeds every device, and takes some tenths of a millisecond for it.
    """
    import torch

    kept = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(kept)


@contextmanager
def rng_kept() -> Iterator[None]:
    """Put the random numbers of Python, numpy and torch, on every device in use, back as they were."""
    import numpy as np
    import torch

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
