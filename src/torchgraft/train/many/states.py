"""The state of a training over several processes: taken down by all, and put up again by as many or by others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from torchgraft.train.many.apart import gathered, own, parted
from torchgraft.train.many.spread import alike
from torchgraft.train.snapshot import Snapshot

if TYPE_CHECKING:
    from torchgraft.train.session import Session

__all__ = ["fitted", "taken"]


def taken(session: Session) -> Snapshot:
    """Take the state down; every process calls it. Where the model is copied, the first one gets all of it."""
    assert session.spread is not None
    buffers = [f"model/{name}" for name, _ in session.model.named_buffers()]
    snapshot = parted(session.snapshot(), buffers, session.world)
    return snapshot if session.spread.shares else gathered(snapshot, session.world)


def fitted(session: Session, snapshot: Snapshot, best: Mapping[str, Tensor]) -> tuple[Snapshot, dict[str, Tensor]]:
    """Turn a saved state into what this process goes on with; it may be of other processes, copied or shared out.

    Args:
        session: that goes on.
        snapshot: as it was saved.
        best: the best state.
    """
    mine = own(snapshot, session.world)
    parts = dict(session.moving)
    known = {f"{home}/{name}": one for name, one in parts.items() for home in ("model", "average")}
    placed = [one for group in session.optimizer.param_groups for one in group["params"]]
    known |= {
        name: placed[int(name.split("/")[2])]
        for name in mine.tensors
        if name.startswith("optimizer/state/") and name.split("/")[2].isdecimal()
    }
    return Snapshot(alike(mine.tensors, known), mine.notes), alike(best, parts)
