"""Windows of torch's profiler over a script of any length: short and ever rarer, so that memory stays small."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from torchgraft.profile.clocks import Clocks, around
from torchgraft.profile.events import OUTSIDE, Ledger, on_device, read
from torchgraft.profile.record import Machine
from torchgraft.profile.watch import hushed, start, stop

__all__ = ["Windows"]

FIRST, LENGTH = 0.1, 0.5
"""Seconds of the first window and of a later one, at least."""

EVENTS = 40_000
"""So many events a window should come to, by the last one's count: reading takes ten microseconds each."""

LONG = 5.0
"""Seconds after which a window ends in the middle of a step."""

PAUSE = 1.0
"""Seconds to the second window; each pause after is half as long again."""

TICK = 0.1
"""Seconds between two looks at the clock, for a script that calls no module."""

NEWS = 30.0
"""Seconds between two lines that say how far a long script is, on a terminal."""

_TOLD_BY = ("_prepare_profiler", "_disable_profiler")
"""Functions in torch.autograd.profiler that every profiler of torch calls when it starts and when it ends."""


@dataclass
class Windows:
    """What the windows showed so far.

    Attributes:
        clocks: tell when a step ends.
        machine: what the script runs on.
        ledger: the sums of all windows.
        seconds: that were recorded.
        spent: seconds that opening and reading the windows took: no time of the script.
        before: of these, the ones before the script first called a model, a loader or an optimizer.
        trace: the first window as Chrome trace JSON.
        failed: why the windows ended before the script, if they did.
    """

    clocks: Clocks
    machine: Machine
    keep_trace: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    seconds: float = 0.0
    spent: float = 0.0
    before: float = 0.0
    trace: bytes = b""
    failed: str = ""
    _open: Any = None
    _opened: float = 0.0
    _worked: float = 0.0
    _next: float = 0.0
    _pause: float = PAUSE
    _told: float = 0.0
    _started: float = 0.0
    _busy: bool = False
    _early: bool = True
    _unready: bool = True
    _ours: bool = False
    _theirs: bool = False
    _length: float = FIRST

    @contextmanager
    def running(self) -> Iterator[None]:
        """Open and close windows while the block runs."""
        self.clocks.calm, self.clocks.forking = self.look, self.close
        self._told = self._started = time.perf_counter()
        own = torch.autograd.profiler
        if not all(hasattr(own, one) for one in _TOLD_BY):
            self._theirs, self.failed = True, "this torch does not tell whether the script uses it too"

        def prepare(function: Callable[..., Any], *args: Any, **settings: Any) -> Any:
            if not self._ours:  # the script has a profiler of its own: there can be only one
                self._theirs = True
                self.close()
            return function(*args, **settings)

        def disable(function: Callable[..., Any]) -> Any:
            if not self._ours:
                self._theirs = bool(self.failed)
            return function()

        with (
            around(own, _TOLD_BY[0], prepare),
            around(own, _TOLD_BY[1], disable),
            _ticking(lambda: self.look(False) if self.clocks.is_calm else None),
        ):
            try:
                yield
            finally:
                self.clocks.calm, self.clocks.forking = lambda _: None, lambda: None
                self._busy = True  # a last tick must not open a window that no one closes
                self.close()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Let a profiler that is started or stopped meanwhile be ours."""
        self._ours = True
        try:
            with hushed():
                yield
        finally:
            self._ours = False

    def look(self, updated: bool) -> None:
        """Open or close a window where it is time: best right after a step of the optimizer."""
        if self._busy or self._theirs:  # the clock ticked while a window was opened or read
            return
        self._busy = True
        try:
            self._look(updated)
        except Exception as error:  # whatever it is, the script goes on
            self.failed, self._theirs = f"{type(error).__name__}: {error}", True
        finally:
            self._busy = False

    def _look(self, updated: bool) -> None:
        if self._unready and self.clocks.begun is not None:
            self._forget()
        now = time.perf_counter()
        if self._open is None:
            if now >= self._next and (updated or not self.clocks.steps or now > self._next + LONG):
                self._begin()
        elif now - self._opened >= (self._length if updated or not self.clocks.steps else LONG):
            self.close()
        if now - self._told > NEWS and sys.stderr.isatty():
            self._told = now
            words = f"{now - self._started:.0f} s, {self.clocks.steps:,} optimizer steps"
            print(f"\ntorchgraft profile: {words}; Ctrl-C ends the script and reports", file=sys.stderr)

    def _begin(self) -> None:
        begun = time.perf_counter()
        with self._working():
            self._open = start(torch.device(self.machine.device))
        self._opened, self._worked = time.perf_counter(), time.thread_time()
        self._early = self.clocks.begun is None
        self._spend(self._opened - begun)

    def _spend(self, seconds: float) -> None:
        self.spent += seconds
        self.clocks.away += seconds
        if self.clocks.begun is None:
            self.before += seconds

    def _forget(self) -> None:
        """Let what was seen before the script was at work not count."""
        self._unready = False
        if self._open is not None and self._early:
            self._drop()
        self.ledger, self.seconds, self.trace = Ledger(), 0.0, b""
        self._next, self._pause = 0.0, PAUSE

    def _drop(self) -> None:
        """End a window that saw the script get ready: what it imports is no part of its work."""
        begun = time.perf_counter()
        with self._working():
            stop(self._open)
        self._open = None
        self._spend(time.perf_counter() - begun)

    def close(self) -> None:
        """Close the window that is open, if one is, and add up what it showed."""
        if self._open is None:
            return
        busy, self._busy = self._busy, True  # a tick must not open the next window meanwhile
        try:
            self._close()
        finally:
            self._busy = busy

    def _close(self) -> None:
        made, self._open = self._open, None
        ended = time.perf_counter()
        paused = max(ended - self._opened - (time.thread_time() - self._worked), 0.0)
        with self._working():
            seen = stop(made)
        if self._early and not seen.roots:
            self._spend(time.perf_counter() - ended)
            return
        self.seconds += ended - self._opened
        if self.keep_trace and not self.trace:
            self.trace = seen.trace()
        host = min((one.start_tid for one in seen.roots), default=None)
        one = self.machine
        found = read(seen.roots, inside=one.inside, watching=one.watching, host=host, paused=paused)
        if self.machine.device != "cpu":
            on_device(found, seen.device())
        rate = len(found.owners) / max(ended - self._opened, 1e-3)
        self._length = min(LENGTH, max(EVENTS / max(rate, 1.0), 0.02))
        self._add(found, sum(one.duration_time_ns for one in seen.roots if one.start_tid == host) / 1e9, ended)
        took = time.perf_counter() - ended
        self._spend(took)
        self._next = time.perf_counter() + max(self._pause, 5 * took)
        self._pause *= 1.5

    def _add(self, found: Ledger, covered: float, ended: float) -> None:
        """Add a window; what lies between its roots is Python outside of modules."""
        found.of("other", OUTSIDE).between += max(ended - self._opened - covered, 0.0)
        for (phase, path), one in found.sums.items():
            sums = self.ledger.of(phase, path)
            sums.products += one.products
            sums.moving += one.moving
            sums.between += one.between
            sums.calls += one.calls
        for key, (seconds, calls) in found.operations.items():
            known = self.ledger.operations.setdefault(key, [0.0, 0])
            known[0] += seconds
            known[1] += calls


@contextmanager
def _ticking(look: Callable[[], None]) -> Iterator[None]:
    """Call a function on the main thread every so often, between two of its bytecodes.

    The signal is only simulated, so no system call of the script's is cut short; where the script runs on another
    thread than the main one, or has a use for the signal itself, nothing ticks.
    """
    number = getattr(signal, "SIGVTALRM", None)
    free = number is not None and threading.current_thread() is threading.main_thread()
    if not free or number is None or signal.getsignal(number) is not signal.SIG_DFL:
        yield
        return
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK):
            if signal.getsignal(number) is handler:
                _thread.interrupt_main(number)

    def handler(number: int, frame: Any) -> None:
        if not ended.is_set():
            look()

    signal.signal(number, handler)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if signal.getsignal(number) is handler:
            signal.signal(number, signal.SIG_DFL)
