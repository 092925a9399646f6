"""Where rows are kept: in memory, on disk, or nowhere, and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torchgraft.train.prefix.prefix import Refused

if TYPE_CHECKING:
    from torchgraft.trainplan import TrainPlan

__all__ = ["OFF", "place_of"]

OFF = "the plan turns it off"

_GIB = 2**30


def place_of(plan: TrainPlan, size: int, epochs: int, folder: Path | None) -> Literal["memory", "disk"] | Refused:
    """Choose where to keep rows.

    Args:
        plan: `cache` and `cache_limit`, in GiB.
        size: bytes of all rows.
        epochs: that are still to come, this one included.
        folder: of the run; None where it has none.
    """
    if plan.cache == "off":
        return Refused(OFF)
    if epochs < 2 and plan.cache == "auto":
        return Refused("one epoch is all there is, and each sample comes once")
    if size > plan.cache_limit * _GIB:
        return Refused(
            f"it would take {size / _GIB:.2f} GiB, and train.cache_limit is {plan.cache_limit:g}: raise it to keep them"
        )
    if plan.cache == "disk":
        return _on_disk(size, folder)
    free = _free()
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


def _free() -> int | None:
    """Read how many bytes of memory are free, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
