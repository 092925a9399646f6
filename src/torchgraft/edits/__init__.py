"""The changes: one file each. Only this package changes a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.edits.base import AnyEdit, Edit, kinds

if TYPE_CHECKING:
    from typing import Any

__all__ = ["AnyEdit", "Edit", "kinds"]


def __getattr__(name: str) -> Any:
    for edit in kinds().values():
        if edit.__name__ == name:
            return edit
    raise AttributeError(f"module 'torchgraft.edits' has no attribute '{name}'")
