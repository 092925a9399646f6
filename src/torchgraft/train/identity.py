"""What a training must find as it was, to go on: its data, and the tensors that it does not change."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import Stream
from torchgraft.errors import TrainError
from torchgraft.store.tensors import state_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchgraft.data import DataSet
    from torchgraft.train.session import Session

__all__ = ["check_identity", "identity"]


def identity(session: Session, data: DataSet) -> dict[str, Any]:
    """Say in short what is trained on, and from which tensors."""
    frozen = session.frozen or state_digest(session.still())
    return {"data": [_samples(data.train), _samples(data.val)], "frozen": frozen}


def _samples(samples: Any) -> str:
    labels = getattr(samples, "labels", None)
    if labels is None or isinstance(samples, Stream):
        return "a stream"
    return f"{len(samples)} samples, {blake2b(repr(list(labels)).encode(), digest_size=6).hexdigest()}"


def _other(half: str, then: str, now: str) -> str:
    """Say in which way one half of the data is another."""
    before, after = then.partition(",")[0], now.partition(",")[0]
    return f"{half}: {before} then, {after} now" if before != after else f"{half}: {after}, with other targets"


def check_identity(now: Mapping[str, Any], then: Mapping[str, Any], where: str) -> None:
    """Refuse to go on from another state of things.

    Raises:
        TrainError: says what is another.
    """
    if now["data"] != then["data"]:
        halves = zip(("to train", "to validate"), then["data"], now["data"], strict=True)
        said = "; ".join(_other(*half) for half in halves if half[1] != half[2])
        raise TrainError(
            f"the data are not those that this training began with: {said}",
            where=where,
            hint="bring the data back as they were, or begin anew: leave --resume out",
        )
    if now["frozen"] != then["frozen"]:
        raise TrainError(
            "the frozen weights are not those that this training began with",
            where=where,
            hint="bring the base's old weights back, or begin anew: leave --resume out",
        )
