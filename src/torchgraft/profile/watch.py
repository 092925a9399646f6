"""torch's profiler over a block, without what its library writes to the screen."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.autograd import profiler

__all__ = ["Watched", "hushed", "start", "stop", "watching"]

_CHATTER = re.compile(
    rb"^(USDT|ERROR|WARNING|INFO|STAGE)?:?\d{4}-\d\d-\d\d .*\.cpp:\d+\]"
    rb"|^\[W\d+ .*(CPUAllocator|profiler_kineto)\.cpp"
)
"""Lines of the profiler's library about itself: that it starts, that there is no GPU, what it can't see."""


@dataclass
class Watched:
    """What was recorded: the roots of the tree of events, and the profiler that holds them."""

    roots: list[Any] = field(default_factory=list)
    profiler: Any = None

    def trace(self) -> bytes:
        """Give the recording as Chrome trace JSON, for Perfetto."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self.profiler.export_chrome_trace(str(path))
            return path.read_bytes()

    def device(self) -> list[tuple[int, float]]:
        """List what an accelerator did: the number of the operation that asked for it, and seconds."""
        cpu = torch._C._autograd.DeviceType.CPU
        return [
            (event.linked_correlation_id(), event.duration_ns() / 1e9)
            for event in self.profiler.kineto_results.events()
            if event.device_type() != cpu and not event.is_user_annotation()
        ]


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep lines of the profiler's library about itself off standard error; all others are written after."""
    sys.stderr.flush()
    try:
        own = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)
            kept.seek(0)
            for line in kept:
                if not _CHATTER.search(line):
                    os.write(own, line)
            os.close(own)


def start(device: torch.device, *, memory: bool = False) -> Any:
    """Start the profiler: that of torch.autograd, since torch.profiler's imports the compiler, over a second."""
    accelerator = device.type if device.type != "cpu" else None
    made = profiler.profile(use_kineto=True, use_device=accelerator, profile_memory=memory)
    made.__enter__()  # type: ignore[no-untyped-call]
    return made


def stop(made: Any) -> Watched:
    """Stop the profiler and give what it recorded."""
    made.__exit__(None, None, None)
    return Watched(list(made.kineto_results.experimental_event_tree()), made)


@contextlib.contextmanager
def watching(device: torch.device, *, memory: bool = False) -> Iterator[Watched]:
    """Record what the block does; what was recorded is there after it."""
    found = Watched()
    with hushed():
        made = start(device, memory=memory)
        try:
            yield found
        finally:
            ended = stop(made)
            found.roots, found.profiler = ended.roots, ended.profiler
