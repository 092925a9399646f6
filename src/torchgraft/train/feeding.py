"""The batches of one half of a data set, as a graft takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchgraft.data.loaders import Loaded
from torchgraft.tokens import Texts
from torchgraft.train.feed import Feed, Held, feed_of
from torchgraft.train.prepare import preparation_of
from torchgraft.train.world import ALONE, World

if TYPE_CHECKING:
    from torchgraft.data import DataSet
    from torchgraft.graft import Graft
    from torchgraft.preprocess import Preprocess
    from torchgraft.trainplan import TrainPlan

__all__ = ["feed_for"]


def feed_for(
    graft: Graft,
    data: DataSet,
    plan: TrainPlan,
    preprocess: Preprocess | Texts | None,
    *,
    train: bool,
    world: World = ALONE,
    device: torch.device | str = "cpu",
    held: Held | None = None,
) -> Feed:
    """Give the batches of the training or of the validation half.

    Args:
        graft: what takes them.
        data: their samples.
        plan: of the training.
        preprocess: of images or texts; None for tensors.
        train: the training half, shuffled and varied; else the other one, in its order.
        world: the processes that share them.
        device: where they are wanted.
        held: asked which inputs are needed by nobody; see `feed_of`.

    Raises:
        TrainError: the plan's way to vary samples does not go with the data.
    """
    half = data.train if train else data.val
    paired = data.task == "mask"
    ready = preparation_of(graft, preprocess, plan, train=train, paired=paired)
    feed = feed_of(
        half.loader if isinstance(half, Loaded) else half,
        plan,
        prepare=ready.prepare,
        collate=ready.collate,
        train=train,
        seed=graft.recipe.seed,
        world=world,
        device=device,
        held=held,
        classes=_outputs(graft) if data.task == "classes" else 0,
        paired=paired,
    )
    feed.uneven = isinstance(preprocess, Texts) and preprocess.tokens.padding == "longest"
    return feed


def _outputs(graft: Graft) -> int:
    shapes = graft.trace().output_shapes()
    return shapes[0][1] if shapes and len(shapes[0]) > 1 else 0
