"""What is left to say when the processes of a training lose each other: which one is gone, and how to go on."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import torch.distributed as dist

from torchgraft.errors import TorchgraftError, TrainError

if TYPE_CHECKING:
    from torchgraft.train.world import World

__all__ = ["fallen", "is_of_peers", "lost"]

_CALL = 3.0
"""Seconds in which processes say that they are still there; those that stop for one lost do so almost at once."""

_WORDS = (
    "gloo",
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL",
    "Timed out waiting",
)
"""What gloo says is a plain RuntimeError, so only its words tell it from others."""

_HINT = "start the same command again with --resume: it goes on from the last state that was saved"


def is_of_peers(error: BaseException | None) -> bool:
    """Tell whether an error is that of a process that waited for another one in vain."""
    while error is not None:
        if isinstance(error, dist.DistError):
            return True
        if isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS):
            return True
        error = error.__cause__
    return False


def fallen(world: World, error: Exception) -> None:
    """Let the others know with what error this process ends."""
    known = isinstance(error, TorchgraftError)
    words = [error.what, error.where, error.hint] if known else [f"{type(error).__name__}: {error}", "", ""]  # type: ignore[attr-defined]
    with suppress(RuntimeError):
        world.store.set(f"fallen/{world.rank}", json.dumps(words))


def lost(world: World, waited: float) -> TrainError:
    """Call the roll, and give the error that every process which is still there ends with.

    Args:
        world: the processes.
        waited: seconds that this one waits for another.
    """
    missing = list(range(world.size))
    with suppress(RuntimeError):  # the table itself is lost with the machine that holds it
        world.store.set(f"here/{world.rank}", "")
        until = time.monotonic() + _CALL
        while missing and time.monotonic() < until:
            time.sleep(0.05)
            for rank in missing:
                if world.store.check([f"fallen/{rank}"]):
                    what, where, hint = json.loads(world.store.get(f"fallen/{rank}"))
                    return TrainError(what, where=where, hint=hint)
            missing = [rank for rank in missing if not world.store.check([f"here/{rank}"])]
    return TrainError(_what(missing, world.size, waited), where="torchrun", hint=_HINT)


def _what(missing: list[int], size: int, waited: float) -> str:
    if not missing or len(missing) == size:
        return f"the {size} processes of this training lost each other"
    names = ", ".join(map(str, missing))
    who = f"process {names}" if len(missing) == 1 else f"processes {names}"
    verb = "was" if len(missing) == 1 else "were"
    return f"{who} of {size} {verb} lost: ended from outside, or silent for {waited:g} s"
