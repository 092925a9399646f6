"""`sklearn:digits`: images that scikit-learn brings along, for trying things out without a network."""

from __future__ import annotations

from torchgraft.data.base import ArraySamples, DataSet, DataSource, Progress
from torchgraft.errors import DataError, nearest

__all__ = ["Sklearn"]

KNOWN = ("digits",)
WHITE = 16
"""The largest value of a pixel of scikit-learn's digits."""


class Sklearn(DataSource):
    """1,797 handwritten digits of 8x8 pixels, split in the middle as in scikit-learn's own example."""

    def open(self, *, seed: int = 0, strict: bool = False, progress: Progress | None = None) -> DataSet:
        """Load the digits and scale their 0..16 to 0..255."""
        if self.rest not in KNOWN:
            hint = nearest(self.rest, KNOWN) or f"one of {', '.join(f'sklearn:{name}' for name in KNOWN)}"
            raise DataError(f"scikit-learn brings no images called '{self.rest}'", str(self), hint)
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError(
                "scikit-learn is not installed", str(self), "pip install 'torchgraft[demo]'"
            ) from error
        digits = load_digits()
        images = (digits.images * (255 / WHITE)).round().astype("uint8")
        half = len(images) // 2
        return DataSet(
            train=ArraySamples(images[:half], digits.target[:half]),
            val=ArraySamples(images[half:], digits.target[half:]),
            classes=tuple(str(name) for name in digits.target_names),
            channels=1,
            size=(8, 8),
            split="stated: the first half trains, the second validates, as in scikit-learn's example",
        )
