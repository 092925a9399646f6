"""Settings that are found by trying: the learning rate, and the size of a batch."""

from __future__ import annotations

from torchgraft.searching.batch import BatchSearch, Size
from torchgraft.searching.rate import RateSearch
from torchgraft.searching.verbs import find_batch, find_rate

__all__ = ["BatchSearch", "RateSearch", "Size", "find_batch", "find_rate"]
