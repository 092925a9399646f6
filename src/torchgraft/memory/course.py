"""The course of memory over the steps: who holds what, and when it is most. Read from the events of a counter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from torchgraft.memory.counter import Block, Event, Kind, Phase

__all__ = ["Course", "Moment"]


@dataclass(frozen=True)
class Moment:
    """When something is: in which phase of which optimizer step, and in which module."""

    phase: Phase
    path: str
    step: int


@dataclass(frozen=True)
class Course:
    """All events of some optimizer steps; the last of them is one like all that follow."""

    events: tuple[Event, ...]

    @cached_property
    def sums(self) -> tuple[int, ...]:
        """Bytes alive after each event."""
        total, found = 0, list[int]()
        for event in self.events:
            total += event.sign * event.block.size
            found.append(total)
        return tuple(found)

    @cached_property
    def steps(self) -> int:
        """Count the optimizer steps."""
        return max((event.step for event in self.events), default=0)

    def peak(self, step: int | None = None) -> int:
        """Give the most bytes alive at once, over all or in one optimizer step."""
        return self.sums[place] if (place := self._top(step)) is not None else 0

    def moment(self) -> Moment:
        """Say when it is most."""
        place = self._top()
        event = self.events[place] if place is not None else Event(Block(0, "", "load"), 1, "load", "", 0)
        return Moment(event.phase, event.path, event.step)

    def _top(self, step: int | None = None) -> int | None:
        places = [n for n, event in enumerate(self.events) if step is None or event.step == step]
        return max(places, key=lambda place: self.sums[place], default=None)

    def at_peak(self) -> list[Block]:
        """List what is alive when it is most."""
        place = self._top()
        return [] if place is None else self._alive(place)

    def _alive(self, place: int) -> list[Block]:
        found: dict[int, Block] = {}
        for event in self.events[: place + 1]:
            if event.sign > 0:
                found[id(event.block)] = event.block
            else:
                found.pop(id(event.block), None)
        return list(found.values())

    def kept(self) -> list[Block]:
        """List what the last forward pass keeps: alive at its end, and made by it."""
        ends = [n for n, event in enumerate(self.events) if event.phase in ("forward", "loss")]
        alive = self._alive(ends[-1]) if ends else []
        return [one for one in alive if one.kept and one.what in ("activations", "copies")]

    def standing(self) -> list[Block]:
        """List what is there after the last step: weights, gradients, the state of the optimizer."""
        named = ("weights", "buffers", "gradients", "optimizer")
        return [one for one in self._alive(len(self.events) - 1) if one.what in named]

    def bump(self) -> int:
        """Give what the last step of the optimizer takes for itself, on top of what it finds."""
        places = [
            n for n, event in enumerate(self.events) if (event.phase, event.step) == ("optimizer", self.steps)
        ]
        if not places:
            return 0
        before = self.sums[places[0] - 1] if places[0] else 0
        return max(0, *(self.sums[place] - before for place in places))

    def line(self, points: int) -> tuple[tuple[Phase, int], ...]:
        """Give the course of the last optimizer step: the most bytes of each of so many stretches of it.

        Every phase has its own stretches, at least one, so that none is lost between two.
        """
        last = self.steps
        runs: list[tuple[Phase, list[int]]] = []
        for total, event in zip(self.sums, self.events, strict=True):
            if event.step != last:
                continue
            phase: Phase = "forward" if event.phase in ("load", "loss") else event.phase
            if not runs or runs[-1][0] != phase:
                runs.append((phase, []))
            runs[-1][1].append(total)
        every = sum(len(sums) for _, sums in runs) or 1
        return tuple(
            (phase, most) for phase, sums in runs for most in _thinned(sums, max(1, points * len(sums) // every))
        )


def _thinned(sums: Sequence[int], points: int) -> list[int]:
    count = len(sums)
    edges = [count * number // points for number in range(points + 1)]
    return [max(sums[start:end]) for start, end in pairwise(edges) if end > start]


def summed(blocks: Iterable[Block], by: Literal["what", "path"]) -> Mapping[str, int]:
    """Add the bytes of blocks up by what they are for, or by module."""
    found: dict[str, int] = defaultdict(int)
    for one in blocks:
        found[getattr(one, by)] += one.size
    return dict(found)


def of_kinds(blocks: Iterable[Block], *kinds: Kind) -> list[Block]:
    """Take the blocks of some kinds."""
    return [one for one in blocks if one.what in kinds]
