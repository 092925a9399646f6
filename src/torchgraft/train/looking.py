"""What a training sees of itself in the first steps of each epoch, told as findings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torchgraft.guard import look, read
from torchgraft.guard.gradients import trained
from torchgraft.guard.look import named_norms

if TYPE_CHECKING:
    from torchgraft.rules.finding import Finding
    from torchgraft.train.session import Session

__all__ = ["Looks"]

FIRST = 2
"""Steps of each epoch that are looked at: one alone does not show what never gets a gradient."""


class Looks:
    """The looks of one training; each finding is told once.

    Attributes:
        left: how many steps of this epoch are still to be looked at.
    """

    def __init__(self, session: Session, tell: Callable[[Finding], object], *, silent: bool = False) -> None:
        """Begin.

        Args:
            session: what is looked at; one that is shared out (`fsdp`) holds parts of gradients, and is not.
            tell: gets each finding.
            silent: nobody listens.
        """
        self.session, self.tell = session, tell
        self.none = silent or (session.spread is not None and session.plan.parallel == "fsdp")
        self.left = 0
        self.earlier: dict[str, float | None] = {}
        self.told: set[tuple[str, str]] = set()

    def open_epoch(self) -> None:
        """Look at the next steps."""
        self.left, self.earlier = 0 if self.none else FIRST, {}

    def take(self) -> None:
        """Look at the step that was just taken: its gradients are still there."""
        session = self.session
        self.left -= 1
        held = trained(session.optimizer)
        now = named_norms(session.model, read(held), among=held)
        found = look(session.model, session.optimizer, session.number, now=now, earlier=self.earlier, kept=True)
        self.earlier = now
        for one in found:
            if (one.code, one.where) not in self.told:
                self.told.add((one.code, one.where))
                self.tell(one)
