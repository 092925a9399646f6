"""The caches of one training: one for the samples it trains on, one for those it is judged on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.train.prefix.cache import Cache, Set

if TYPE_CHECKING:
    from torchgraft.train.feeds.base import Feed
    from torchgraft.train.world import World
    from torchgraft.trainplan import TrainPlan

__all__ = ["cache_of"]


def cache_of(
    feed: Feed,
    plan: TrainPlan,
    world: World,
    *,
    epochs: int,
    moved: Callable[[Any], Any] = lambda inputs: inputs,
    folder: Path | None = None,
) -> Cache:
    """Make the cache of one feed, and let the feed leave out what nobody needs to read.

    Args:
        feed: its batches say which samples they hold.
        plan: `cache` and `cache_limit`.
        world: the part of each batch that is run here.
        epochs: that there will be.
        moved: brings inputs to the device, laid out as the plan says.
        folder: where files may be mapped.
    """
    sizes = feed.sizes() or []
    own = [len(range(size)[world.part(size)]) for size in sizes]
    shared = plan.parallel == "fsdp" and world.size > 1
    known = plan.cache != "off" and feed.places > 0 and not shared and not feed.uneven
    samples = Set(
        count=feed.places,
        views=feed.views,
        sizes=[size for size in own if size > 0],
        copies=world.size,
        fixed=known and feed.fixed,
        uneven=feed.uneven,
        again=lambda places, view: moved(feed.again(places, view)),
    )
    cache = Cache(plan, samples, epochs=epochs, folder=folder)
    if known and samples.fixed:
        feed.spare(cache.holds)
    elif not feed.places and plan.cache != "off":
        cache.why = "the samples have no places by which they could be told"
    if shared:
        cache.why = "the processes bring every layer together by turns, so none may leave one out"
    if plan.compile:
        cache.why = "the model is compiled, and a compiled pass can't be run in parts"
    return cache
