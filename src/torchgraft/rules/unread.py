"""Family P, further: settings of groups that no optimizer reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.weights import by_module

__all__: list[str] = []


class UnreadSetting(Rule):
    """A group has a setting that its optimizer does not know: it is kept in the group, and never read.

    torch takes any key of a group. A rate under another name leaves the group at the rate of all others.
    """

    code = "P035"
    severity: ClassVar[Severity] = "warning"
    title = "a setting of a group that the optimizer never reads"
    case = "SGD([{'params': head, 'learning_rate': 0.1}, …], lr=1e-3): the head learns at 1e-3"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name the settings, and those that were meant."""
        held = evidence.sets.held if evidence.sets else None
        for group in held.groups if held else ():
            for name, meant in group.unread:
                yield self.found(
                    evidence.name,
                    f"group {group.number} ({by_module(group.names)}) has '{name}'; {group.kind} does not know it",
                    f"its {meant} is {group.settings.get(meant)}" if meant else "",
                    hint=f"write {meant}" if meant else f"leave it out, or take an optimizer that has a {name}",
                )
