"""The stretches of a step by the clock, each under a span of the profiler's where one records."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from torchgraft.profile.machine import wait
from torchgraft.profile.spans import PHASE

__all__ = ["Clock", "Timed", "timed"]


@dataclass
class Clock:
    """Seconds of each stretch of one step."""

    device: torch.device
    spans: bool = False
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure a stretch; an accelerator is waited for at its end, where no one looks closer."""
        start = time.perf_counter()
        with torch.profiler.record_function(f"{PHASE}{name}") if self.spans else nullcontext():
            yield
            wait(self.device)
        self.seconds[name] += time.perf_counter() - start


@dataclass(frozen=True)
class Timed:
    """Steps by the clock: the median, the quartiles, stretches that add up to the median, CPU for wall time."""

    seconds: float
    spread: tuple[float, float]
    phases: dict[str, float]
    busy: float
    steps: int


PATIENCE = 6.0
"""So many seconds the measured steps of one kind take at most, but for the fewest."""


def timed(
    step: Callable[[Clock], None], device: torch.device, *, steps: int | None = None, warm: int = 2
) -> Timed:
    """Run a step again and again.

    Args:
        step: one step; it measures its stretches with the clock.
        device: where it runs.
        steps: how many are measured; as many as are worth it when left out, 3 to 20.
        warm: how many run before, at most.
    """
    begun = time.perf_counter()
    for _ in range(warm):
        step(Clock(device))
        if time.perf_counter() - begun > 1:
            break
    clocks, walls = list[Clock](), list[float]()
    cpu, begun = time.process_time(), time.perf_counter()
    while not _enough(len(walls), steps, time.perf_counter() - begun):
        clock, start = Clock(device), time.perf_counter()
        step(clock)
        walls.append(time.perf_counter() - start)
        clocks.append(clock)
    busy = (time.process_time() - cpu) / (time.perf_counter() - begun)
    names = list(dict.fromkeys(name for clock in clocks for name in clock.seconds))
    median = statistics.median(walls)
    raw = {name: statistics.median(clock.seconds[name] for clock in clocks) for name in names}
    scale = median / max(sum(raw.values()), 1e-12)
    low, _, high = statistics.quantiles(walls, n=4) if len(walls) > 1 else (median,) * 3
    return Timed(median, (low, high), {name: one * scale for name, one in raw.items()}, busy, len(walls))


def _enough(count: int, steps: int | None, passed: float) -> bool:
    if steps is not None:
        return count >= steps
    return count >= 20 or (count >= 3 and passed > PATIENCE)
