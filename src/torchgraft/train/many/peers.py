"""What is left to say when the processes of a training lose each other: which one is gone, and how to go on."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import torch.distributed as dist

from torchgraft.errors import TorchgraftError, TrainError

if TYPE_CHECKING:
    from torchgraft.train.world import World

__all__ = ["fallen", "is_of_peers", "lost", "place"]

_CALL = 2.0
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
    words = [f"{type(error).__name__}: {error}", f"rank {world.rank}", "its traceback stands above"]
    if isinstance(error, TorchgraftError):
        words = [error.what, error.where, error.hint]
    with suppress(RuntimeError):
        world.store.set(f"fallen/{world.rank}", json.dumps(words))


def lost(world: World, error: BaseException, waited: float) -> TrainError:
    """Call the roll, and give the error that every process which is still there ends with.

    Args:
        world: the processes.
        error: by which this one noticed.
        waited: seconds after which a silent process is given up.
    """
    verdict = [f"the {world.size} processes of this training lost each other", "torchrun", _HINT]
    with suppress(RuntimeError):  # the table itself is lost with the machine that holds it
        world.store.set(f"here/{world.rank}", "")
        told = _told(world, waited if _is_late(error) else None) or verdict
        verdict = json.loads(world.store.compare_set("verdict", "", json.dumps(told)))  # the first one's is all's
    what, where, hint = verdict
    return TrainError(what, where=where, hint=hint)


def _told(world: World, waited: float | None) -> list[str] | None:
    """Wait until every process has said that it is there, or with what error it fell; name those that have not."""
    missing = list(range(world.size))
    until = time.monotonic() + _CALL
    while missing and time.monotonic() < until:
        for rank in missing:
            if world.store.check([f"fallen/{rank}"]):
                return list(json.loads(world.store.get(f"fallen/{rank}")))
        missing = [rank for rank in missing if not world.store.check([f"here/{rank}"])]
        time.sleep(0.05)
    places = {rank: world.store.get(f"at/{rank}").decode() for rank in missing}
    gone = [rank for rank, place in places.items() if not _runs(place)]
    named = missing if waited is not None else gone
    if not named:
        return None
    who = f"process {named[0]}" if len(named) == 1 else f"processes {', '.join(map(str, named))}"
    how = f"no answer for {waited:g} s" if waited is not None else "killed, or cut off"
    return [f"{who} of {world.size}: {how}", "; ".join(places[rank] for rank in named), _HINT]


def place() -> str:
    """Say where this process runs."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _runs(place: str) -> bool:
    """Tell whether a process of this machine still runs; of another machine nobody here can say."""
    _, number, _, host = place.split(" ", 3)
    if host != socket.gethostname() or os.name == "nt":
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    return True


def _is_late(error: BaseException | None) -> bool:
    """Tell whether a process gave up waiting; else the other side closed the line."""
    while error is not None:
        if "timed out" in str(error).lower() or "timeout" in str(error).lower():
            return True
        error = error.__cause__
    return False
