"""Caches beside the model: what a pass leaves in them would reach the user's own next pass as fake tensors.

A function with `functools.lru_cache`, or a dict of a Python file, may keep tables that a forward pass computes.
After a pass, what it added is taken out again.
"""

from __future__ import annotations

import functools
import sys
from types import TracebackType
from typing import Any

from torchgraft.trace.tree import tensors

__all__ = ["Caches"]

_CACHED = type(functools.lru_cache(maxsize=1)(len))


class Caches:
    """Caches in the files that a model's classes come from: as a context, it takes out what was added in it."""

    def __init__(self) -> None:
        self._files: frozenset[str] = frozenset()
        self._functions: list[Any] = []
        self._dicts: list[dict[Any, Any]] = []
        self._before: tuple[list[int], list[int]] = ([], [])

    def of(self, files: frozenset[str]) -> Caches:
        """Look into the files of these names from now on."""
        if files != self._files:
            self._files = files
            self._look()
        return self

    def __enter__(self) -> None:
        self._before = ([one.cache_info().currsize for one in self._functions], [len(one) for one in self._dicts])

    def _look(self) -> None:
        every = [vars(sys.modules[name]) for name in self._files if name in sys.modules and not _of_torch(name)]
        values = {id(value): value for scope in every for value in scope.values()}
        self._functions = [one for one in values.values() if isinstance(one, _CACHED)]
        self._dicts = [one for one in values.values() if type(one) is dict]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for function, size in zip(self._functions, self._before[0], strict=True):
            if function.cache_info().currsize > size:
                function.cache_clear()
        for held, size in zip(self._dicts, self._before[1], strict=True):
            if len(held) > size:
                for key in list(held)[size:]:
                    if tensors(held[key]):
                        del held[key]


def _of_torch(name: str) -> bool:
    return name == "torch" or name.startswith("torch.")
