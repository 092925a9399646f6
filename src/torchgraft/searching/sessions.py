"""A session of a planned training, to try settings in; the model is as it was when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torchgraft.plan import Planned
from torchgraft.searching.untouched import untouched
from torchgraft.train.checkpointing import checkpointed, checkpointed_modules
from torchgraft.train.loop import device_of
from torchgraft.train.opening import session_for
from torchgraft.train.random import seeded
from torchgraft.train.rates import starting
from torchgraft.train.session import Session
from torchgraft.trainplan import TrainPlan

__all__ = ["tried"]


@contextmanager
def tried(job: Planned, plan: TrainPlan) -> Iterator[Session]:
    """Give a session of the job with a plan of its own, from the recipe's seed; no generator is moved.

    Raises:
        TrainError: it can't be trained so.
    """
    device = device_of(plan)
    again = checkpointed_modules(job.graft.module, plan.checkpointing, roles=job.graft.roles)
    with untouched(job.graft.module), starting(job.graft, plan) as steps, seeded(job.graft.recipe.seed):
        session = session_for(job.graft, job.data, plan, job.preprocess, device, steps=steps)
        with checkpointed(tuple(again.values())):
            yield session
