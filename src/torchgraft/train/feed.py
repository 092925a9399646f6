"""What trains a model, batch by batch: where every epoch begins again, and any batch of it can be the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from torchgraft.data.base import Stream
from torchgraft.errors import TrainError
from torchgraft.train.augment import Light
from torchgraft.train.feeds.base import Batch, Feed, moved
from torchgraft.train.feeds.finish import Finish
from torchgraft.train.feeds.loaders import LoaderFeed
from torchgraft.train.feeds.reading import Collate, Reader, Readers
from torchgraft.train.feeds.samples import Held, SampleFeed
from torchgraft.train.feeds.streams import StreamFeed
from torchgraft.train.mix import Mix
from torchgraft.train.pictures import preparation
from torchgraft.train.world import ALONE, World

if TYPE_CHECKING:
    from torchgraft.data.base import Samples
    from torchgraft.trainplan import TrainPlan

__all__ = ["Batch", "Feed", "Held", "feed_of", "moved", "preparation"]


def feed_of(
    samples: Samples | Stream | DataLoader[Any],
    plan: TrainPlan,
    *,
    prepare: Callable[..., Any],
    train: bool,
    seed: int,
    world: World = ALONE,
    held: Held | None = None,
    collate: Collate | None = None,
    device: torch.device | str = "cpu",
    classes: int = 0,
    paired: bool = False,
) -> Feed:
    """Give the feed of one half of the data; its batches are on the device, and varied as the plan says.

    Args:
        samples: what has places; a stream; or a DataLoader of the user's own, whose batches are taken as they are.
        plan: of the training: `batch`, `workers`, `augment`, `views`, `mixup`, `cutmix`, `strict`.
        prepare: from an input to what is collated, such as `preparation(preprocess, plan, train=True)`.
        train: samples are shuffled and varied.
        seed: of the order and of everything random.
        world: the processes that train together: each gets its part of every batch.
        held: asked as an epoch begins, with places of samples and their view: are these inputs needed by nobody?
            `Batch.inputs` is None then, and nothing is read.
        collate: makes a batch of a list of prepared inputs; tensors are stacked without it.
        device: where batches are wanted.
        classes: how many outputs the network has, asked by mixup and cutmix alone; 0 where the task is another.
        paired: the targets are masks, prepared and varied with their images: `prepare(image, mask)` gives both.

    Raises:
        TrainError: the plan's way to vary images does not go with the data; or several processes would get the
            same batches of a loader.
    """
    device = torch.device(device)
    if isinstance(samples, DataLoader):
        return LoaderFeed(samples, world=world, train=train, device=device)
    finish = _finish(plan, device, train=train, seed=seed, classes=classes, paired=paired)
    stream = samples if isinstance(samples, Stream) else None
    reader = Reader(
        samples if stream is None else None, prepare, seed=seed, paired=paired, stacked=collate is None
    )
    readers = Readers(reader, plan.workers, pin=device.type == "cuda")
    if stream is None:
        return SampleFeed(
            samples, readers, size=plan.batch, train=train, seed=seed, world=world,
            views=(plan.views or 0) if train else 0, held=held, collate=collate, finish=finish,
            strict=plan.strict, paired=paired,
        )  # fmt: skip
    if train and plan.views:
        hint = "leave it out, or train on a set that is not streamed"
        raise TrainError("a stream has no views: its samples have no numbers", "train.views", hint)
    return StreamFeed(
        stream, readers, size=plan.batch, train=train, seed=seed, world=world, collate=collate, finish=finish,
        strict=plan.strict,
    )  # fmt: skip


def _finish(
    plan: TrainPlan, device: torch.device, *, train: bool, seed: int, classes: int, paired: bool
) -> Finish:
    """Say what is done to whole batches."""
    if not train:
        return Finish(device, masks=paired)
    way = "mixup" if plan.mixup else "cutmix" if plan.cutmix else ""
    if way and not classes:
        hint = f"leave it out: train.{way}=0"
        raise TrainError(f"{way} blends classes, and the task has none", f"train.{way}", hint)
    return Finish(
        device,
        Light(seed) if plan.augment == "light" else None,
        Mix(plan.mixup, plan.cutmix, classes, seed) if way else None,
        paired,
    )
