"""What a machine can do at most: a short calibration, once a process."""

from __future__ import annotations

import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torchgraft.profile.record import Machine
from torchgraft.profile.watch import watching

__all__ = ["cores", "machine", "wait"]

_SIDE = {"cpu": 1024}
_COPY = {"cpu": 2**26}
"""Bytes that are copied: more than any cache holds."""


def machine(device: torch.device, dtype: torch.dtype = torch.float32) -> Machine:
    """Measure a device: operations a second, bytes a second, the cost of a call.

    Args:
        device: where.
        dtype: of the products.
    """
    return _measured(device, dtype, torch.get_num_threads())


@functools.cache
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> Machine:
    with torch.no_grad():
        rates = _flops(device, dtype), _bandwidth(device)
        return Machine(str(device), _name(device), threads, cores(), *rates, *_call(device))


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _best(device: torch.device, work: Callable[[], Any], runs: int = 8) -> float:
    """Give the seconds of the quickest run, the first left out."""
    seen = []
    for _ in range(runs + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        seen.append(time.perf_counter() - start)
    return min(seen[1:])


def _flops(device: torch.device, dtype: torch.dtype) -> float:
    side = _SIDE.get(device.type, 8192)
    one, other = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _best(device, lambda: one @ other)


def _bandwidth(device: torch.device) -> float:
    size = _COPY.get(device.type, 2**29)
    one, other = (torch.ones(size, device=device, dtype=torch.uint8) for _ in range(2))
    return 2 * size / _best(device, lambda: other.copy_(one))


def _call(device: torch.device, count: int = 300) -> tuple[float, float, float]:
    """Give the seconds of the smallest operation, what of them the profiler sees inside, and of recording it."""
    one = torch.zeros(1, device=device)

    def loop() -> None:
        for _ in range(count):
            one.add_(1)

    bare = _best(device, loop) / count
    with watching(device) as seen:
        watched = _best(device, loop, runs=3) / count
    inside = [root.duration_time_ns / 1e9 for root in seen.roots if root.name == "aten::add_"]
    within = min(statistics.median(inside), watched) if inside else bare
    return bare, within, max(watched - bare, 0.0)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
