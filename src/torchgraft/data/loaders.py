"""A DataLoader of the user's own as one half of a data set: its batches, and their order, are his."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import Fetch, Stream
from torchgraft.data.known import generators_kept, known_targets
from torchgraft.errors import DataError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

__all__ = ["Loaded", "first_inputs", "targets_of_all"]

TARGETS = ("labels", "label", "targets", "target")
"""What the targets of a batch that is a dict may be called."""


class Loaded(Stream):
    """The batches of a loader; `train.feed` takes the loader itself."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    @property
    def length(self) -> int | None:  # type: ignore[override]
        """How many samples an epoch has, as its sampler says; None where it does not."""
        try:
            return len(self.loader.sampler)  # type: ignore[arg-type]
        except TypeError:
            return None

    def pending(self, epoch: int, seed: int, *, start: int = 0) -> Iterator[Fetch]:
        """Refuse: a loader has an order of its own, and gives whole batches."""
        raise DataError(
            "the samples of a DataLoader come in its own batches", "data", "hand over its dataset instead"
        )


def halves_of(value: Any) -> tuple[Any, Any]:
    """Tell the inputs of a batch from its targets.

    Raises:
        DataError: it is not said which are the targets.
    """
    if isinstance(value, Mapping):
        name = next((name for name in TARGETS if name in value), None)
        if name is not None:
            return {key: one for key, one in value.items() if key != name}, value[name]
    if isinstance(value, (tuple, list)) and len(value) >= 2:
        return (value[0] if len(value) == 2 else tuple(value[:-1])), value[-1]
    raise DataError(
        f"a batch of the loader is a {type(value).__name__}, and it is not said what its targets are",
        "data",
        "let it give (inputs, targets), or a dict with 'labels'",
    )


def first_inputs(loader: Any) -> Any:
    """Read the inputs of a batch, and leave the loader and every generator as they were."""
    with generators_kept(loader):
        value = next(iter(loader), None)
    if value is None:
        raise DataError("the loader gives no batch", "data", "check its length")
    return halves_of(value)[0]


def targets_of_all(loader: Any) -> list[Any]:
    """List the targets of an epoch: where they stand beside the dataset, or from every batch."""
    known = known_targets(loader.dataset)
    if known is not None and len(known):
        return list(known)
    with generators_kept(loader):
        return [one for value in loader for one in halves_of(value)[1]]
