"""What a torch Dataset says of its targets without being read, and reading that leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["generators_kept", "known_targets"]


def known_targets(inner: Any) -> Any:
    """Find all targets where they stand beside the inputs and nothing changes them on their way, else None."""
    from torch.utils.data import Subset

    if isinstance(inner, Subset):
        whole = known_targets(inner.dataset)
        return None if whole is None else [whole[index] for index in inner.indices]
    if len(getattr(inner, "tensors", ())) == 2:
        return inner.tensors[1]
    found = next((getattr(inner, name) for name in ("targets", "labels") if hasattr(inner, name)), None)
    whole = (
        found is not None and hasattr(found, "__len__") and hasattr(inner, "__len__") and len(found) == len(inner)
    )
    return found if whole and getattr(inner, "target_transform", None) is None else None


@contextmanager
def generators_kept(loader: Any = None) -> Iterator[None]:
    """Put back what reading draws from: the global generators, and those of a loader and its samplers."""
    import numpy as np
    import torch

    batch = getattr(loader, "batch_sampler", None)
    holders = (loader, getattr(loader, "sampler", None), batch, getattr(batch, "sampler", None))
    own = [getattr(one, "generator", None) for one in holders]
    states = [(one, one.get_state()) for one in own if isinstance(one, torch.Generator)]
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
        for generator, state in states:
            generator.set_state(state)
