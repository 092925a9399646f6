"""One voice for many processes: the first prints, the others are silent, and each error is told once."""

from __future__ import annotations

import os
import sys
import warnings
from datetime import timedelta
from hashlib import blake2b

__all__ = ["hush", "is_first", "recorded"]


def hush() -> None:
    """Let every process but the first print nothing; errors are still told."""
    if int(os.environ.get("RANK", "0")) > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        warnings.simplefilter("ignore")


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
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    try:
        raise error.with_traceback(None) from None
    except Exception as told:
        get_error_handler().record_exception(told)
