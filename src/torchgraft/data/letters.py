"""`letters:COUNT`: letters of nine alphabets, rendered on the spot in the look of scikit-learn's digits."""

from __future__ import annotations

import importlib.util

from torchgraft.data.base import ArraySamples, DataSet, DataSource, Progress
from torchgraft.errors import DataError

__all__ = ["Letters"]

VALIDATION = 10_000
"""Letters rendered to validate on."""


class Letters(DataSource):
    """COUNT rendered letters of 8x8 pixels to train on, and 10,000 others to validate on.

    The classes are the letters themselves: 297 of the fonts that matplotlib ships, none of which looks like a
    digit. Rendering is done anew each time: 5,000 letters take about a second.
    """

    def open(self, *, seed: int = 0, strict: bool = False, progress: Progress | None = None) -> DataSet:
        """Render both halves, each from a seed of its own."""
        count = self._count()
        if importlib.util.find_spec("scipy") is None:
            raise DataError("scipy is not installed", str(self), "pip install 'torchgraft[demo]'")
        from torchgraft.data.lettering.classes import CLASSES
        from torchgraft.data.lettering.render import render

        # 2n and 2n + 1: no seed's validation half is another seed's training half.
        train = render(count, 2 * seed, progress=progress)
        val = render(VALIDATION, 2 * seed + 1)
        return DataSet(
            train=ArraySamples(*train),
            val=ArraySamples(*val),
            classes=CLASSES,
            channels=1,
            size=(8, 8),
            split=f"made: rendered from seed {2 * seed}, validated on letters rendered from seed {2 * seed + 1}",
        )

    def _count(self) -> int:
        if not (self.rest.isascii() and self.rest.isdigit()) or int(self.rest) < 1:
            raise DataError(
                f"'{self.rest}' is no number of letters", str(self), "write how many to render: letters:5000"
            )
        return int(self.rest)
