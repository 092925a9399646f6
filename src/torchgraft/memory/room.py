"""How much memory there is: a size in words, or what is free on a device here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from torchgraft.errors import TrainError

__all__ = ["CONTEXT", "FRAGMENTS", "Room", "read_size", "room_of", "spoken"]

CONTEXT = 600 * 2**20
"""Bytes that a CUDA context and the libraries in it take before the first tensor: an allowance, between 300 and
600 MiB by card and version. `torch.cuda.memory_allocated` does not count it, as its documentation says."""

FRAGMENTS = 0.05
"""The share on top of the tensors for rounding, fragmentation and workspaces of libraries: an allowance.

PyTorch's notes on CUDA semantics ("Memory management") tell how the caching allocator rounds and splits."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)B?|(\d+)\s*B", re.IGNORECASE)


@dataclass(frozen=True)
class Room:
    """The memory that training may take.

    Attributes:
        asked: as the user wrote it.
        size: in bytes.
        gpu: it is that of a GPU, or a size, which is taken as one's.
        context: bytes that are gone before the first tensor.
        words: what it is.
    """

    asked: str
    size: int
    gpu: bool
    context: int
    words: str

    def allowance(self, peak: int) -> int:
        """Give what is set aside beside tensors of `peak` bytes."""
        return self.context + int(FRAGMENTS * peak)

    @property
    def most(self) -> int:
        """Give the bytes of tensors that fit, the allowance beside them."""
        return int((self.size - self.context) / (1 + FRAGMENTS))

    def holds(self, peak: int) -> bool:
        """Tell whether tensors of `peak` bytes fit, the allowance beside them."""
        return peak + self.allowance(peak) <= self.size


def room_of(asked: str) -> Room:
    """Read a size (`24GB`, `24GiB`, `16000MiB`) or a device (`cuda`, `cuda:1`, `mps`, `cpu`: what is free there).

    Raises:
        TrainError: it is neither, or there is no such device here.
    """
    size = read_size(asked)
    if size is not None:
        return Room(asked, size, True, CONTEXT, f"{spoken(size)} ({asked})")
    kind, _, number = asked.strip().partition(":")
    if kind not in ("cuda", "cpu", "mps") or (number and not number.isdigit()):
        raise TrainError(
            f"'{asked}' is neither a size nor a device",
            where="device",
            hint="write 24GB, 24GiB or 16000MiB; or cuda, cuda:1, mps or cpu for what is free here",
        )
    return {"cuda": _cuda, "cpu": _cpu, "mps": _mps}[kind](asked.strip())


def read_size(text: str) -> int | None:
    """Read a number of bytes with its unit: GB are 10^9, GiB 2^30; None where it is no size."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    number, unit = float(found[1] or found[3]), (found[2] or "").upper()
    size = int(number * (_BINARY.get(unit) or _UNITS[unit]))
    return size or None


def spoken(size: float) -> str:
    """Write a number of bytes: `1.25 GiB`."""
    for unit, one in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size) >= one * 0.9995:
            number = size / one
            return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    return f"{size:.0f} B"


def _cuda(asked: str) -> Room:
    if not torch.cuda.is_available():
        raise _absent(asked)
    try:
        free, total = torch.cuda.mem_get_info(asked if ":" in asked else None)
    except (RuntimeError, AssertionError) as error:
        raise _absent(asked) from error
    return Room(asked, free, True, 0, f"{spoken(free)} free of {spoken(total)} on {asked}")


def _mps(asked: str) -> Room:
    if not torch.backends.mps.is_available():
        raise _absent(asked)
    size = int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    return Room(asked, size, True, 0, f"{spoken(size)} free on {asked}")


def _cpu(asked: str) -> Room:
    free = min(_system(), _limit())
    return Room(asked, free, False, 0, f"{spoken(free)} free here")


def _absent(asked: str) -> TrainError:
    return TrainError(
        f"there is no device '{asked}' here",
        where="device",
        hint="name the size instead: 24GB, 24GiB, 16000MiB",
    )


def _system() -> int:
    """Give what the system has free: memory that can be had without swapping, where Linux tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limit() -> int:
    """Give what the control group of this process has left; containers are limited by it."""
    home = Path("/sys/fs/cgroup")
    try:
        most, used = (home / "memory.max").read_text().strip(), int((home / "memory.current").read_text())
        cached = next(
            int(line.split()[1])
            for line in (home / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        return int(most) - used + cached if most != "max" else 2**62
    except (OSError, ValueError, StopIteration):
        return 2**62
