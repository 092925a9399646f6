"""Everything that moves in a training, taken down between two steps and put up again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.history import Epoch
from torchgraft.train.random import random_state, set_random_state
from torchgraft.train.rates import unfrozen
from torchgraft.train.snapshot import Snapshot, flat, nested

if TYPE_CHECKING:
    from torchgraft.train.session import Session

__all__ = ["set_state", "state_of"]


def state_of(session: Session) -> Snapshot:
    """Give everything that it takes to go on from here; the tensors are those of the training, not copies."""
    tensors = {f"model/{name}": one.detach() for name, one in session.moving.items()}
    random_tensors, random_notes = random_state(session.device)
    tensors |= random_tensors
    tensors |= {f"meter/{name}": one for name, one in session.meter.sums().items()}
    average = session.average
    if average is not None:
        tensors |= {f"average/{name}": one for name, one in average.values.items()}
    now = time.perf_counter()
    began = getattr(session, "began", now)
    notes = {
        "at": [session.epoch, session.batch, session.number],
        "sums": [session.loss_sum, session.count],
        "epochs": [epoch.model_dump() for epoch in session.epochs],
        "best": session.best,
        "rate": session.rate,
        "seconds": [session.seconds + now - session.since, session.epoch_seconds + now - began],
        "random": random_notes,
        "optimizer": flat(session.optimizer.state_dict(), "optimizer", tensors),
        "feed": flat(session.feeds.train.state(), "rng/feed", tensors),
        "course": session.course.state(),
        "schedule": [session.schedule.last_epoch, session.schedule.base_lrs],
        "scaler": session.stepper.scaler.state_dict(),
        "average": average.steps if average is not None else 0,
    }
    return Snapshot(tensors, notes)


@torch.no_grad()
def set_state(session: Session, snapshot: Snapshot, best: Mapping[str, Tensor]) -> None:
    """Go on from a snapshot: what was unfrozen by then is unfrozen again, in the same groups.

    Args:
        session: a new one, by the same plan.
        snapshot: of the training.
        best: what moved, as it was at the best epoch; empty where the plan keeps the last.
    """
    tensors, notes = snapshot.tensors, snapshot.notes
    session.epoch, session.batch, session.number = notes["at"]
    for epoch in range(1, session.epoch + bool(session.batch)):
        unfrozen(session.graft, session.plan, session.steps, epoch, session.optimizer, session.schedule)
    for name, one in session.moving.items():
        one.copy_(tensors[f"model/{name}"])
    session.optimizer.load_state_dict(nested(notes["optimizer"], tensors))
    session.course.restore(notes["course"])
    session.schedule.last_epoch, session.schedule.base_lrs = notes["schedule"]
    session.stepper.scaler.load_state_dict(notes["scaler"])
    if session.average is not None:
        session.average.join()
        kept = {name: tensors[f"average/{name}"] for name in session.average.values}
        session.average.restore(kept, notes["average"])
    session.epochs = [Epoch.model_validate(one) for one in notes["epochs"]]
    session.best, session.rate = notes["best"], notes["rate"]
    session.best_state = {name: one.to(session.device) for name, one in best.items()}
    _set_figures(session, tensors, notes)
    if notes["random"] is not None:  # of more processes than there were, some have none yet
        set_random_state(tensors, notes["random"], session.device)
        session.feeds.train.restore(nested(notes["feed"], tensors))


def _set_figures(session: Session, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    session.loss_sum, session.count = notes["sums"]
    session.seconds, session.epoch_seconds = notes["seconds"]
    for name, one in session.meter.sums().items():
        one.copy_(tensors[f"meter/{name}"])
