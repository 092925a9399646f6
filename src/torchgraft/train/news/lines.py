"""What happens in a training as lines of JSON, for a program to read: one object a line, an event each."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.errors import TorchgraftError
from torchgraft.history import Epoch, History
from torchgraft.train.pace import Pace
from torchgraft.train.watch import Begin, Moment, Watch

if TYPE_CHECKING:
    from torchgraft.rules import Finding

__all__ = ["Lines"]

EVERY = 1.0
"""Seconds between two events of steps, where not each is asked for."""


class Lines:
    """Writes events: `told`, `begin`, `step`, `epoch`, `saved`, `finding`, `end`, `result`, `error`.

    Every event has `event` and `time` (seconds since 1970); a number that JSON has no word for is null.

    Args:
        write: takes one line without its end.
        every_step: an event for each batch, instead of one a second.
        clock: gives seconds.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        every_step: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._write, self._clock = write, clock
        self._wait = 0.0 if every_step else EVERY
        self._due = -math.inf
        self._pace: Pace | None = None
        self._spoken = 0.0

    def watch(self) -> Watch:
        """Give what the training is to call."""
        return Watch(self.begin, self.step, self.epoch, self.saved, self.found, self.end, self.note)

    def event(self, name: str, **facts: Any) -> None:
        """Write one event."""
        self._write(json.dumps({"event": name, "time": round(time.time(), 3), **_plain(facts)}))

    def begin(self, begin: Begin) -> None:
        """Tell what is about to be trained."""
        self._pace = Pace(begin, self._clock)
        names = [one.name for one in fields(begin) if one.name != "rates"]
        self.event("begin", **{name: getattr(begin, name) for name in names}, rates=dict(begin.rates()))

    def step(self, moment: Moment) -> None:
        """Tell of a batch, now and then or each time."""
        assert self._pace is not None
        self._pace.step(moment)
        now = self._spoken = self._clock()
        if now < self._due:
            return
        self._due = now + self._wait
        self._pace.mark()
        seen = self._pace.now()
        known = {"smooth": seen.loss, "samples_per_second": seen.speed, "seconds_left": seen.left}
        self.event("step", **asdict(moment), **known)

    def epoch(self, epoch: Epoch) -> None:
        """Tell the figures of an epoch."""
        if self._pace is not None:
            self._pace.judged(self._clock() - self._spoken)
        self.event("epoch", **epoch.model_dump())

    def saved(self, place: Path) -> None:
        """Tell of a state that is whole on the disk."""
        self.event("saved", path=str(place))

    def found(self, finding: Finding) -> None:
        """Tell what is wrong."""
        self.event("finding", **json.loads(finding.to_json()))

    def note(self, words: str) -> None:
        """Tell how it is trained."""
        self.event("note", text=words)

    def end(self, history: History) -> None:
        """Tell how it ended; the epochs were told one by one."""
        own = history.model_dump(exclude={"epochs"})
        self.event("end", **own, epochs=len(history.epochs))

    def error(self, error: TorchgraftError) -> None:
        """Tell of a mistake that ended it."""
        findings = [json.loads(one.to_json()) for one in getattr(error, "findings", ())]
        self.event("error", what=error.what, where=error.where, hint=error.hint, findings=findings)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
