"""What trains a model, batch by batch. PROVISIONAL, by the lead: FEEDS replaces it."""

from __future__ import annotations

from torchgraft.train.feeds.base import Batch, Feed

__all__ = ["Batch", "Feed", "feed_of"]


def feed_of(samples, plan, *, prepare, train, seed=0, world=None, held=None, collate=None):  # type: ignore  # PROVISIONAL, by the lead: FEEDS replaces it
    """Provisional."""
    import torch

    from torchgraft.train.world import ALONE

    world = world or ALONE
    images = torch.stack([prepare(samples[i][0]) for i in range(len(samples))])
    labels = torch.tensor(list(samples.labels))

    class Plain(Feed):
        def order(self, epoch):
            if not train:
                return torch.arange(len(labels))
            return torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed * 1000003 + epoch))

        def groups(self, epoch):
            groups = list(self.order(epoch).split(plan.batch))
            if train and len(groups) > 1 and len(groups[-1]) == 1:
                groups.pop()
            return groups

        def sizes(self):
            return [len(one) for one in self.groups(1)]

        def batches(self, epoch, *, start=0):
            for group in self.groups(epoch)[start:]:
                mine = group[world.part(len(group))]
                yield Batch(images[mine], labels[mine], len(group), mine.tolist())

    return Plain()
