"""How evenly a set's samples fall on its classes, and the weights that would make up for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torchgraft.data.base import DataSet, Stream
from torchgraft.data.words import listing

__all__ = ["FEW", "Balance", "balance"]

FEW = 10
"""A class with fewer training samples than this is said to be tiny."""
UNEVEN = 10.0
"""The ratio from which on a set is said to be uneven; rule D004 has the same."""


@dataclass(frozen=True)
class Balance:
    """Counts of a training half.

    Attributes:
        classes: names of the classes or labels.
        counts: for each, the samples that have it; for masks, its pixels.
        total: samples, or judged pixels.
        unit: what is counted.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    total: int
    unit: str = "samples"

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of 1 that each class has of the total; those of several labels do not add up to 1."""
        return tuple(count / max(self.total, 1) for count in self.counts)

    @property
    def ratio(self) -> float:
        """The largest class by the smallest that has any samples."""
        there = [count for count in self.counts if count]
        return max(there) / min(there) if there else 1.0

    @property
    def weights(self) -> tuple[float, ...]:
        """What weighs all classes alike: n / (k · n_c), k being the classes that have samples.

        It is scikit-learn's `compute_class_weight("balanced", …)`, after King and Zeng (2001). A class without
        samples has 1.
        """
        present = sum(count > 0 for count in self.counts)
        whole = sum(self.counts)
        return tuple(whole / (present * count) if count else 1.0 for count in self.counts)

    @property
    def positive_weights(self) -> tuple[float, ...]:
        """What weighs a label's samples like all that lack it, (n - n_c) / n_c: `pos_weight` of the BCE losses."""
        return tuple((self.total - count) / count if count else 1.0 for count in self.counts)

    @property
    def empty(self) -> tuple[str, ...]:
        """Classes without a training sample."""
        return tuple(name for name, count in zip(self.classes, self.counts, strict=True) if not count)

    @property
    def tiny(self) -> tuple[str, ...]:
        """Classes with a few training samples only; no pixels are few."""
        if self.unit != "samples":
            return ()
        return tuple(name for name, count in zip(self.classes, self.counts, strict=True) if 0 < count < FEW)

    def sentence(self) -> str:
        """Say how even the classes are, in a line."""
        low, high = min(self.counts, default=0), max(self.counts, default=0)
        said = [f"{low:,} to {high:,} {self.unit} each" if low != high else f"{low:,} {self.unit} each"]
        if self.ratio >= UNEVEN:
            said.append(
                f"the largest class has {self.ratio:.0f} times the smallest (class_weights: balanced weighs it)"
            )
        if self.empty:
            said.append(f"no {self.unit} at all of {listing(self.empty)}")
        if self.tiny:
            said.append(f"fewer than {FEW} of {listing(self.tiny)}")
        return "; ".join(said)

    def table(self) -> tuple[tuple[str, int, float, float], ...]:
        """Give name, count, share and balanced weight of each class, the largest first."""
        rows = zip(self.classes, self.counts, self.shares, self.weights, strict=True)
        return tuple(sorted(rows, key=lambda row: -row[1]))


def balance(data: DataSet) -> Balance | None:
    """Count the training half by class; None for quantities, and where nothing is known before it is read."""
    if data.task == "regression" or isinstance(data.train, Stream):
        return None
    if data.task == "mask":
        pixels = getattr(data.train, "pixels", ())
        return Balance(data.classes, tuple(pixels), sum(pixels), "pixels") if pixels else None
    counts: Counter[int] = Counter()
    for label in data.train.labels:
        counts.update([label] if data.task == "classes" else [place for place, on in enumerate(label) if on])
    found = tuple(counts[place] for place in range(len(data.classes)))
    return Balance(data.classes, found, len(data.train))
