"""Random numbers that are a function of what they are for, and never of what was drawn before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

__all__ = ["Isolated", "generator", "isolated", "mixed"]


def mixed(*parts: int | str) -> int:
    """Make one seed of several numbers and words; near ones give seeds that have nothing in common."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def generator(*parts: int | str) -> torch.Generator:
    """Give a generator on the CPU for one purpose, such as ("order", seed, epoch)."""
    return torch.Generator().manual_seed(mixed(*parts))


class Isolated:
    """The global generators while they are lent: to be seeded for each sample."""

    def seed(self, number: int) -> None:
        """Seed torch's generator on the CPU, Python's and numpy's."""
        torch.default_generator.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)

    def drawn_by(self, number: int, read: Callable[[], object]) -> bool:
        """Tell whether `read` draws anything random from the global generators."""
        self.seed(number)
        before = _states()
        read()
        return _states() != before


def _states() -> tuple[bytes, object, object]:
    _, keys, *place = np.random.get_state(legacy=True)
    return (
        torch.default_generator.get_state().numpy().tobytes(),
        random.getstate(),
        (np.asarray(keys).tobytes(), place),
    )


@contextmanager
def isolated() -> Iterator[Isolated]:
    """Lend the global generators of the CPU, and put them back as they were: transforms draw from nothing else."""
    kept = torch.default_generator.get_state(), random.getstate(), np.random.get_state()
    try:
        yield Isolated()
    finally:
        torch.default_generator.set_state(kept[0])
        random.setstate(kept[1])
        np.random.set_state(kept[2])
