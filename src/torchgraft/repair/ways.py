"""The ways to make an edit fit, by name, in the order in which they are offered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torchgraft.edits.base import Edit
from torchgraft.errors import TorchgraftError
from torchgraft.repair.adapt import adapt
from torchgraft.repair.bench import Bench
from torchgraft.repair.propagate import propagate
from torchgraft.trace import Trace

__all__ = ["WAYS", "Way"]

Way = Literal["adapt", "propagate"]
_Apply = Callable[[Bench, Edit, list[str], Trace], None]


def _as_far_as_it_goes(apply: _Apply) -> _Apply:
    """Stop where a step is refused: the check that follows says what is still wrong."""

    def stopped(bench: Bench, edit: Edit, added: list[str], before: Trace) -> None:
        try:
            apply(bench, edit, added, before)
        except TorchgraftError:
            return

    return stopped


WAYS: dict[Way, _Apply] = {
    "adapt": _as_far_as_it_goes(adapt),
    "propagate": _as_far_as_it_goes(propagate),
}
