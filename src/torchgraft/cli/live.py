"""The live line of a training on a terminal; plain lines in a log."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pathlib import Path

    from torchgraft.history import Epoch, History
    from torchgraft.rules import Finding
    from torchgraft.train.pace import Pace
    from torchgraft.train.watch import Begin, Moment, Watch

__all__ = ["Live"]

REDRAW = 0.1
"""Seconds between two drawings of the live line."""

SAY = 30.0
"""Seconds between two lines of a log within an epoch."""

LONG = 60.0
"""Seconds from which an epoch is so long that lines are printed within it."""

_ERASE = "\r\033[K"


class Live:
    """One live line on a terminal, drawn ten times a second at most; elsewhere a line an epoch, and one every 30 s
    in epochs of more than a minute.

    Args:
        out: gets the lines that stay.
        screen: gets the live line, where it is a terminal.
        clock: gives seconds.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        screen: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._out, self._screen, self._clock = out or sys.stdout, screen or sys.stderr, clock
        self.live = self._screen.isatty() and os.environ.get("TERM") != "dumb"
        self._plain = not _shows("━╌…", self._screen)
        self._wait = REDRAW if self.live else SAY
        self._due, self._heard = math.inf, 0.0
        self._shown = False
        self._pace: Pace | None = None

    def watch(self) -> Watch:
        """Give what the training is to call."""
        from torchgraft.train.watch import Watch

        return Watch(
            begin=self.begin,
            step=self.step,
            epoch=self.epoch,
            saved=self.saved,
            found=self.found,
            note=self.note,
            end=self.end,
        )

    @contextlib.contextmanager
    def shown(self) -> Iterator[Live]:
        """While the block runs, whatever is printed stands above the live line."""
        if not self.live:
            yield self
            return
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Above(sys.stdout, self.erase), _Above(sys.stderr, self.erase)
        try:
            yield self
        finally:
            sys.stdout, sys.stderr = before
            self.erase()

    def begin(self, begin: Begin) -> None:
        """Begin to measure."""
        from torchgraft.train.pace import Pace

        self._pace = Pace(begin, self._clock)
        self._heard = self._clock()
        self._due = self._heard + (0.0 if self.live else SAY)
        if begin.done:
            self._say(f"resumed  at step {begin.done}{f' of {begin.total}' if begin.total else ''}")

    def step(self, moment: Moment) -> None:
        """Hear of a batch; between two drawings this costs about a microsecond."""
        assert self._pace is not None
        self._pace.step(moment)
        self._heard = now = self._clock()
        if now >= self._due:
            self._due = now + self._wait
            self._draw()

    def _draw(self) -> None:
        from torchgraft.train.telling import live_line, plain_line

        assert self._pace is not None
        self._pace.mark()
        now = self._pace.now()
        if not self.live:
            if now.long is None or now.long > LONG:
                self._say(plain_line(now))
            return
        width = _width(self._screen)
        self._screen.write(f"{_ERASE}{live_line(now, width, plain=self._plain)}")
        self._screen.flush()
        self._shown = True

    def epoch(self, epoch: Epoch) -> None:
        """Print the figures of an epoch."""
        from torchgraft.train.telling import epoch_line

        assert self._pace is not None
        self._pace.mark()
        now = self._clock()
        self._pace.judged(now - self._heard)
        self._due = now + self._wait
        self._say(epoch_line(epoch, self._pace.begin.epochs, speed=self._pace.now().speed))

    def saved(self, place: Path) -> None:
        """Print where the state of a training that was stopped lies."""
        self._say(f"saved    {place}")

    def found(self, finding: Finding) -> None:
        """Print what is wrong."""
        self._say(str(finding))

    def note(self, words: str) -> None:
        """Print how it is trained."""
        self._say(f"note     {words}")

    def end(self, history: History) -> None:
        """Take the live line away, and name the best epoch."""
        from torchgraft.train.telling import figure

        self.erase()
        self._due = math.inf
        best = next((epoch for epoch in history.epochs if epoch.number == history.best), None)
        if best is None or len(history.epochs) < 2:
            return
        value = best.val.get(history.metric, best.val_loss)
        why = " (no better one came, so training ended early)" if history.ended == "early" else ""
        self._say(f"best     epoch {best.number}: {figure(history.metric, value).replace('  ', ' ')}{why}")

    def erase(self) -> None:
        """Take the live line away, until it is drawn again."""
        if self._shown:
            self._shown = False
            self._screen.write(_ERASE)
            self._screen.flush()

    def _say(self, line: str) -> None:
        self.erase()
        self._out.write(f"{line}\n")
        self._out.flush()


class _Above:
    """A stream that takes the live line away before it prints."""

    def __init__(self, stream: TextIO, erase: Callable[[], object]) -> None:
        self._stream, self._erase = stream, erase

    def write(self, text: str) -> int:
        """Print."""
        self._erase()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _shows(letters: str, stream: TextIO) -> bool:
    try:
        letters.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
