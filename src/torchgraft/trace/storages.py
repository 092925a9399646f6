"""The memory of a pass: which storages it has seen, and how many bytes of new ones an operation makes.

A view, a result in place and a tensor given back as it came lie in a storage that was seen before: they take none.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchgraft.trace.tree import tensors

__all__ = ["OPENED", "Inside", "Storages"]

OPENED = frozenset(["multi_head_attention_forward"])
"""Operations that are functions of others, written in Python: what these make on the way is counted as well."""


class Storages:
    """The storages that a pass has seen; whoever asks keeps the tensors alive, so that no place is used again."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def hold(self, tensor: Tensor) -> None:
        """Note the storage of a tensor that no operation made: an input, a parameter, what memory gives."""
        key = _place(tensor)
        if key is not None:
            self._seen.add(key)

    def new(self, tensor: Tensor) -> int:
        """Give the bytes of a tensor's storage where it was not seen before, else 0."""
        key = _place(tensor)
        if key is None or key in self._seen:
            return 0
        self._seen.add(key)
        return tensor.untyped_storage().nbytes()


class Inside(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees what operations make on the way within one that is made of them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = tensors((args, kwargs))
        self._alive += given
        known = {_place(one) for one in given}
        result = func(*args, **(kwargs or {}))
        for one in tensors(result):
            key = _place(one)
            if key is not None and key not in known and key not in self._made:
                self._made[key] = one.untyped_storage().nbytes()
                self._alive.append(one)
        return result

    def dropped(self, result: Any) -> int:
        """Give the bytes of what was made on the way and is not in the result."""
        kept = {_place(one) for one in tensors(result)}
        return sum(size for key, size in self._made.items() if key not in kept)


def _place(tensor: Tensor) -> int | None:
    """Give where a tensor's storage lies; sparse and nested tensors have none of one piece."""
    try:
        place: int = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None
    return place
