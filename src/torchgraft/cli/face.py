"""What a training command shows: words and a live line for people, lines of JSON for programs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torchgraft.cli.console import count, say
from torchgraft.errors import TorchgraftError

if TYPE_CHECKING:
    from torchgraft.train.watch import Watch

__all__ = ["Face", "Words", "face"]


class Face:
    """Says nothing: that of every process of a torchrun but the first."""

    def say(self, word: str, sentence: str) -> None:
        """Tell one step of the job: a word, and what happened."""

    def progress(self, done: int, total: int) -> None:
        """Tell how far long reading is."""

    def watch(self) -> Watch:
        """Give what the training is to call."""
        from torchgraft.train.watch import SILENT

        return SILENT

    def result(self, **facts: Any) -> None:
        """Tell what came out, to a program."""

    def error(self, error: TorchgraftError) -> None:
        """Tell of a mistake, to a program; people read it on standard error."""

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show what moves while the block runs."""
        yield


class Words(Face):
    """For people."""

    def __init__(self) -> None:
        from torchgraft.cli.live import Live

        self._live = Live()

    def say(self, word: str, sentence: str) -> None:
        """Print it."""
        say(word, sentence)

    def progress(self, done: int, total: int) -> None:
        """Print it, on a terminal."""
        count(done, total)

    def watch(self) -> Watch:
        """Draw the live line."""
        return self._live.watch()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the live line below what is printed."""
        with self._live.shown():
            yield


class _Events(Face):
    """For programs: nothing but events on standard output."""

    def __init__(self, *, every_step: bool) -> None:
        from torchgraft.train.news import Lines

        self._lines = Lines(_printer(), every_step=every_step)
        self.watch = self._lines.watch  # type: ignore[method-assign]
        self.error = self._lines.error  # type: ignore[method-assign]

    def say(self, word: str, sentence: str) -> None:
        """Tell it as an event."""
        self._lines.event("told", word=word, text=sentence)

    def result(self, **facts: Any) -> None:
        """Tell it as an event."""
        self._lines.event("result", **facts)


def _printer() -> Callable[[str], object]:
    out = sys.stdout  # whatever else is printed while events are written goes to standard error

    def write(line: str) -> None:
        out.write(f"{line}\n")
        out.flush()

    return write


@contextlib.contextmanager
def face(*, json: bool = False, every_step: bool = False) -> Iterator[Face]:
    """Give what a command shows itself by.

    Args:
        json: events on standard output.
        every_step: an event for each batch.

    Raises:
        TorchgraftError: every_step without json; and whatever the block raises, after telling it.
    """
    if every_step and not json:
        raise TorchgraftError(
            "--every-step is about events", where="--every-step", hint="write --json --every-step"
        )
    if int(os.environ.get("RANK", "0") or 0):
        yield Face()
        return
    shown = _Events(every_step=every_step) if json else Words()
    try:
        with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
            yield shown
    except TorchgraftError as error:
        shown.error(error)
        raise
