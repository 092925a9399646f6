"""Where rows are kept: in memory, on disk, or nowhere, and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torchgraft.train.prefix.prefix import Refused

if TYPE_CHECKING:
    from torchgraft.trainplan import TrainPlan

__all__ = ["OFF", "free_memory", "place_of", "too_short"]

OFF = "the plan turns it off"

_GIB = 2**30


PAYS = 10
"""A prefix is found and proven in about so many passes of a batch."""


def too_short(plan: TrainPlan, epochs: int, batches: int) -> str:
    """Say why looking for a prefix takes longer than it saves; nothing where it pays, or was asked for.

    Args:
        plan: `cache`.
        epochs: that are still to come, this one included.
        batches: of an epoch.
    """
    if plan.cache != "auto" or (epochs - 1) * batches >= PAYS:
        return ""
    return f"it would not pay: epochs to come {epochs}, batches of each {batches}"


def place_of(plan: TrainPlan, size: int, folder: Path | None) -> Literal["memory", "disk"] | Refused:
    """Choose where to keep rows.

    Args:
        plan: `cache` and `cache_limit`, in GiB.
        size: bytes of all rows.
        folder: of the run; None where it has none.
    """
    if plan.cache == "off":
        return Refused(OFF)
    if size > plan.cache_limit * _GIB:
        limit = f"train.cache_limit is {plan.cache_limit:g}: raise it to keep them"
        return Refused(f"it would take {size / _GIB:.2f} GiB, and {limit}")
    if plan.cache == "disk":
        return _on_disk(size, folder)
    free = free_memory()
    if free is not None and size > free:
        return Refused(
            f"it would take {size / _GIB:.2f} GiB of memory, and {free / _GIB:.2f} are free: cache: disk"
        )
    return "memory"


def _on_disk(size: int, folder: Path | None) -> Literal["disk"] | Refused:
    if folder is None:
        return Refused("there is no folder of the run to keep it in")
    home = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(home).free
    if size > free:
        return Refused(f"it would take {size / _GIB:.2f} GiB, and {home} has {free / _GIB:.2f} left")
    return "disk"


def free_memory() -> int | None:
    """Read how many bytes of memory are free, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
