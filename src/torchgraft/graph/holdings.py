"""What the modules of a model hold: numbers of parameters, whether training changes them, who put them in."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torchgraft.graph.drawing import Mark, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.edits.base import Edit

__all__ = ["Holdings"]

_REPAIRS = frozenset({"resize", "reshape", "route"})
_PROJECTION = re.compile(r"(.*_)?fit(_\d+)?")
"""What a repair calls a projection."""


class Holdings:
    """The parameters of a model by module, each counted once, under its first name.

    Attributes:
        modules: every module by its first path.
        tensors: parameters and buffers by their first names.
        sizes: numbers of parameters below each path, and how many of them are trainable.
        tied: names of parameters that are held under another name too, which is given.
        marks: for what edits put in, by path: how, and the number of the edit.
    """

    def __init__(self, model: nn.Module, added: Mapping[str, int], edits: Sequence[Edit]) -> None:
        model = getattr(model, "_orig_mod", model)
        self.modules = dict(model.named_modules())
        self.tensors: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
        self.parameters = dict(model.named_parameters())
        self.sizes: dict[str, tuple[int, int]] = {}
        self._states: dict[str, set[bool]] = defaultdict(set)
        self._weights: dict[str, list[tuple[str, tuple[int, ...], bool]]] = defaultdict(list)
        for name, one in self.parameters.items():
            for path in _above(name):
                total, trainable = self.sizes.get(path, (0, 0))
                self.sizes[path] = (total + one.numel(), trainable + one.numel() * one.requires_grad)
        self._tie(model)
        self.marks = {
            **_resized(edits),
            **{path: (_mark(edits, number), number) for path, number in added.items()},
        }

    def _tie(self, model: nn.Module) -> None:
        firsts = {id(one): name for name, one in self.parameters.items()}
        self.tied: dict[str, str] = {}
        for name, one in model.named_parameters(remove_duplicate=False):
            for path in _above(name):
                self._states[path].add(one.requires_grad)
                self._weights[path].append((name[len(path) :], tuple(one.shape), one.requires_grad))
            home = name.rpartition(".")[0]
            if firsts[id(one)] != name and home in self.modules:
                self.tied[name] = firsts[id(one)]

    def size(self, path: str) -> tuple[int, int]:
        """Give how many numbers a module holds, and how many of them training changes."""
        return self.sizes.get(path, (0, 0))

    def state(self, path: str) -> State:
        """Tell whether training changes what a module holds."""
        return state_of(self._states.get(path, set()))

    def mark(self, path: str) -> tuple[Mark, int | None]:
        """Tell how an edit put in a module or parameter, or what holds it, and the number of that edit."""
        found: tuple[Mark, int | None] = ("", None)
        for above in reversed(_above(path) if path else []):
            found = self.marks.get(above, found)
        return self.marks.get(path, found)

    def weights(self, path: str) -> list[tuple[str, tuple[int, ...], bool]]:
        """List the parameters of a module by their names in it, with shapes and whether training changes them."""
        return self._weights[path]


def state_of(flags: set[bool]) -> State:
    """Name what flags of parameters say together."""
    if len(flags) > 1:
        return "partly"
    return "none" if not flags else "trainable" if flags == {True} else "frozen"


def _above(name: str) -> list[str]:
    """Give the paths of all that a parameter lies in, the nearest first."""
    paths = []
    while name:
        name = name.rpartition(".")[0]
        paths.append(name)
    return paths


def _mark(edits: Sequence[Edit], number: int) -> Mark:
    """Tell whether an edit is a repair: a projection, or sizes that follow an edit before it."""
    edit = edits[number - 1] if number <= len(edits) else None
    if edit is None:
        return "new"
    if edit.kind() in _REPAIRS:
        return "repaired" if _follows(edits, number) else "changed"
    name = getattr(edit, "name", None)
    projects = edit.kind() == "insert" and isinstance(name, str) and _PROJECTION.fullmatch(name)
    return "repaired" if projects else "new"


def _follows(edits: Sequence[Edit], number: int) -> bool:
    """Tell whether an edit stands behind one that is no repair, but needed it perhaps."""
    return any(one.structural and one.kind() not in _REPAIRS for one in edits[: number - 1])


def _resized(edits: Sequence[Edit]) -> dict[str, tuple[Mark, int | None]]:
    """Mark the layers and parameters that got another size, which keeps them what they are."""
    found: dict[str, tuple[Mark, int | None]] = {}
    for number, edit in enumerate(edits, 1):
        at = getattr(edit, "at", None)
        if edit.kind() in ("resize", "reshape") and isinstance(at, str):
            found[at] = (_mark(edits, number), number)
    return found
