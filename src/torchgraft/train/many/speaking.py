"""One voice for many processes: each error is told once, and torchrun is told as well."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path

__all__ = ["command", "is_first", "recorded"]


def command() -> str:
    """Give how torchgraft was started, so that it can be started so again."""
    machine, every = os.environ.get("LOCAL_WORLD_SIZE", "1"), os.environ.get("WORLD_SIZE", "1")
    if every == "1":
        return "torchgraft"
    return f"torchrun {f'--nproc-per-node {machine}' if machine == every else '…'} -m torchgraft"


def is_first(text: str) -> bool:
    """Tell whether no other process has said this; where they can't be asked, each says it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    from torch._C._distributed_c10d import TCPStore

    try:
        table = TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
            timeout=timedelta(seconds=5), wait_for_workers=False,
        )  # fmt: skip
        run = f"{os.environ.get('TORCHELASTIC_RUN_ID')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}"
        return bool(
            table.add(f"torchgraft/said/{run}/{blake2b(text.encode(), digest_size=8).hexdigest()}", 1) == 1
        )
    except (RuntimeError, KeyError, ValueError):
        return True


def recorded(error: Exception) -> None:
    """Leave an error where torchrun looks for it, so that its own last table has these words and no traceback."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place:
        extra = {"py_callstack": str(error), "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(place).write_text(json.dumps({"message": {"message": str(error), "extraInfo": extra}}))
