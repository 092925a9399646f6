"""From a graft, its data and a plan to a session that stands before its first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.train.feeding import feed_for
from torchgraft.train.named_rates import rates_by_name
from torchgraft.train.session import Feeds, Session
from torchgraft.train.tasks import task_for
from torchgraft.train.watch import Begin
from torchgraft.train.world import ALONE, World

if TYPE_CHECKING:
    from torchgraft.data import DataSet
    from torchgraft.graft import Graft
    from torchgraft.params.unfreezing import Step
    from torchgraft.preprocess import Preprocess
    from torchgraft.tokens import Texts
    from torchgraft.trainplan import TrainPlan

__all__ = ["begun", "session_for"]


def session_for(
    graft: Graft,
    data: DataSet,
    plan: TrainPlan,
    preprocess: Preprocess | Texts | None,
    device: torch.device,
    *,
    steps: tuple[Step, ...] = (),
    world: World = ALONE,
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> Session:
    """Put a training together.

    Args:
        graft: what is trained; it is moved to the device.
        data: its samples.
        plan: how.
        preprocess: makes tensors of samples; None where they are such.
        device: where to compute.
        steps: what is unfrozen on the way.
        world: the processes that train together.
        loss: one that was handed over from Python, or a trusted one that the plan names.

    Raises:
        TrainError: head and data are for different tasks, or samples can't be varied so.
    """
    task = task_for(graft, data, plan, device=device, loss=loss)

    def feed(*, train: bool) -> Any:
        return feed_for(graft, data, plan, preprocess, train=train, world=world, device=device)

    return Session(graft, plan, Feeds(feed(train=True), feed(train=False)), task, device, steps=steps, world=world)


def begun(session: Session) -> Begin:
    """Say what is about to be trained."""
    samples = sum(session.sizes) if session.sizes is not None else 0
    return Begin(
        epochs=session.epochs_asked if session.sizes is not None else 0,
        steps=len(session.turns),
        total=session.total,
        done=session.number,
        epoch=session.epoch,
        samples=samples,
        batch=session.plan.batch,
        effective=session.plan.batch * session.plan.accumulate,
        processes=session.world.size,
        device=str(session.device),
        metric=session.task.metric,
        higher=session.task.higher,
        rates=lambda: rates_by_name(session.optimizer.param_groups),
    )
