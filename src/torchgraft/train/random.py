"""Random numbers of a training: drawn from its seed, and put back at its end; their state, as data."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchgraft.rng import rng_kept

__all__ = ["random_state", "seeded", "set_random_state"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed while the block runs: by torch on every device, by numpy and by Python."""
    with rng_kept():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield


def random_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give the state of every generator that a step may draw from: as tensors, and as plain data."""
    tensors = {"rng/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["rng/cuda"] = torch.cuda.get_rng_state(device)  # it need not be the current one
    if device.type == "mps":
        tensors["rng/mps"] = torch.mps.get_rng_state()
    kind, keys, *rest = np.random.get_state(legacy=True)
    tensors["rng/numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    version, numbers, gauss = random.getstate()
    tensors["rng/python"] = torch.tensor(numbers, dtype=torch.int64)
    return tensors, {"numpy": [str(kind), *(_plain(one) for one in rest)], "python": [version, gauss]}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def set_random_state(tensors: Mapping[str, Tensor], notes: Mapping[str, Any], device: torch.device) -> None:
    """Put every generator where `random_state` found it."""
    torch.set_rng_state(tensors["rng/cpu"].clone())
    if device.type == "cuda" and "rng/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng/cuda"].clone(), device)
    if device.type == "mps" and "rng/mps" in tensors:
        torch.mps.set_rng_state(tensors["rng/mps"].clone())
    kind, *rest = notes["numpy"]
    np.random.set_state((kind, tensors["rng/numpy"].numpy().astype(np.uint32), *rest))
    version, gauss = notes["python"]
    random.setstate((version, tuple(tensors["rng/python"].tolist()), gauss))
