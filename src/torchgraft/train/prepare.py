"""How samples become batches: images stacked, texts cut into tokens and filled up, tensors as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from torchgraft.tokens import Texts
from torchgraft.train.feed import preparation
from torchgraft.train.feeds.reading import Collate
from torchgraft.train.texts import reader_of

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.preprocess import Preprocess
    from torchgraft.trainplan import TrainPlan

__all__ = ["Preparation", "preparation_of"]


@dataclass(frozen=True)
class Preparation:
    """Two steps from samples to what a model takes.

    Attributes:
        prepare: makes of one input what can be kept.
        collate: makes one batch of several of these, such as a dict of tensors by the model's names; None where
            tensors are stacked.
    """

    prepare: Callable[[Any], Any]
    collate: Collate | None = None

    def together(self, prepared: Sequence[Any]) -> Any:
        """Make one batch of inputs that are prepared."""
        return torch.stack(list(prepared)) if self.collate is None else self.collate(prepared)


def preparation_of(
    graft: Graft,
    preprocess: Preprocess | Texts | None,
    plan: TrainPlan | None = None,
    *,
    train: bool = False,
    paired: bool = False,
) -> Preparation:
    """Say how inputs are prepared for a model.

    Args:
        graft: the model.
        preprocess: of images or texts; None for tensors, which are taken as they are.
        plan: of the training, if one is prepared for.
        train: vary images as the plan says.
        paired: `prepare` takes a mask beside the image, and gives both.

    Raises:
        RecipeError: the texts' tokenizer can't be had.
        TrainError: images can't be varied so.
    """
    if isinstance(preprocess, Texts):
        reader = reader_of(graft, preprocess.tokens)
        return Preparation(reader.prepare, reader.collate)
    if preprocess is None:
        return Preparation(_as_it_is)
    return Preparation(
        preparation(preprocess, plan, train=train, paired=paired) if plan else preprocess.transform()
    )


def _as_it_is(value: Any) -> Any:
    return value
