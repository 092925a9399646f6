"""Every error that a user can cause.

TorchgraftError(what, where, hint)
├── RecipeError      a recipe that can't be read: key, type, YAML
├── SourceError      a base model that can't be had
├── SelectionError   a selector that matches nothing, or too much
├── EditError        an edit that does not fit; carries `findings`
├── DataError        data that can't be read or do not fit the task
├── TrainError       training that can't start or go on
└── StoreError       a version that can't be kept or opened

The command line prints the three fields and exits with 2. Anything else that escapes is a bug of torchgraft.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchgraft.rules.finding import Finding

__all__ = [
    "DataError",
    "EditError",
    "RecipeError",
    "SelectionError",
    "SourceError",
    "StoreError",
    "TorchgraftError",
    "TorchgraftWarning",
    "TrainError",
    "nearest",
]


class TorchgraftError(Exception):
    """What is wrong, where, and what to do about it."""

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  do:    {self.hint}")
        return "\n".join(lines)


class RecipeError(TorchgraftError):
    """A recipe that can't be read."""


class SourceError(TorchgraftError):
    """A base model that can't be had."""


class SelectionError(TorchgraftError):
    """A selector that matches nothing, or more than it may."""


class EditError(TorchgraftError):
    """An edit that was refused; the model is as it was before. `findings` say why."""

    def __init__(self, what: str, where: str = "", hint: str = "", *, findings: Sequence[Finding] = ()) -> None:
        super().__init__(what, where, hint)
        self.findings = tuple(findings)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(str(finding) for finding in self.findings)])


class DataError(TorchgraftError):
    """Data that can't be read, or that do not fit the task."""


class TrainError(TorchgraftError):
    """Training that can't start or can't go on."""


class StoreError(TorchgraftError):
    """A version that can't be kept or opened."""


class TorchgraftWarning(UserWarning):
    """Something torchgraft noticed and went on from."""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Say which known names are nearest to `name`, as the end of a hint; empty when none is near."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=count, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, one, name).ratio() for one in close]
    close = [one for one, like in zip(close, likeness, strict=True) if like > likeness[0] - 0.1]
    return f"did you mean {' or '.join(close)}?" if close else ""
