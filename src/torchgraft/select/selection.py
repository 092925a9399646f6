"""A selection as a value, which prints what it matched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Matched", "Selection"]

_SHOWN = 24
"""So many lines are printed; the rest is counted."""


@dataclass(frozen=True)
class Matched:
    """One module or parameter of a selection.

    Attributes:
        path: its name.
        kind: its class; the shape of a parameter.
        parameters: how many numbers it holds.
        trainable: how many of them training may change.
    """

    path: str
    kind: str
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Selection:
    """What selectors matched, in the model's own order.

    Attributes:
        asked: the selectors.
        paths: what they matched.
        matched: the same with classes and sizes, where it was asked for.
        noun: what was selected.
        parameters: how many numbers it holds in all, each counted once; and how many of them are trainable.
    """

    asked: tuple[str, ...]
    paths: tuple[str, ...]
    matched: tuple[Matched, ...] = ()
    noun: str = "module"
    parameters: tuple[int, int] = (0, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __contains__(self, path: object) -> bool:
        return path in self.paths

    def __str__(self) -> str:
        words = ", ".join(self.asked)
        if not self.matched:
            return f"{words} -> {len(self)}: {', '.join(self.paths)}"
        return "\n".join([f"{words}: {self._counted()}", *self._lines()])

    def _counted(self) -> str:
        total, trainable = self.parameters
        state = {total: "all trainable", 0: "all frozen"}.get(trainable, f"{trainable:,} trainable")
        things = f"{len(self)} {self.noun}{'s' if len(self) != 1 else ''}"
        return f"{things}, {total:,} {'numbers' if self.noun == 'parameter' else 'parameters'}, {state}"

    def _lines(self) -> Iterator[str]:
        shown = self.matched[:_SHOWN]
        wide, kinds = max(len(one.path) for one in shown), max(len(one.kind) for one in shown)
        for one in shown:
            state = (
                "" if one.trainable == one.parameters else "   frozen" if not one.trainable else "   partly frozen"
            )
            yield f"  {one.path:<{wide}}  {one.kind:<{kinds}}  {one.parameters:>12,}{state}"
        if self.matched[_SHOWN:]:
            yield f"  … and {len(self.matched) - _SHOWN} more"
