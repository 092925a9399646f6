"""How many parameters a part of a model has, each counted once, and where else they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from torchgraft.paths import homes

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Held", "Size", "bytes_of"]


class Size(NamedTuple):
    """Numbers of a part, each counted once.

    Attributes:
        parameters: all of them.
        trainable: of these, what training may change.
        new: of these, what edits put in.
        elsewhere: of these, what stands in an earlier part as well.
    """

    parameters: int = 0
    trainable: int = 0
    new: int = 0
    elsewhere: int = 0


class Held:
    """The parameters of a model by all their names.

    Attributes:
        tensors: how many there are.
        ties: those with several names, by id: the names, and the size.
    """

    def __init__(self, model: nn.Module, added: Mapping[str, int]) -> None:
        self._added = added
        self._sizes: dict[int, Size] = {}
        names: dict[int, list[str]] = {}
        for name, one in model.named_parameters(remove_duplicate=False):
            known = names.setdefault(id(one), [])
            known.append(name)
            if len(known) == 1:
                size = one.numel()
                self._sizes[id(one)] = Size(size, size * one.requires_grad, size * (self.edit(name) is not None))
        self.tensors = len(names)
        self.ties = {key: (known, self._sizes[key]) for key, known in names.items() if len(known) > 1}

    def edit(self, path: str) -> int | None:
        """Give the number of the edit that put in a module or parameter, or the nearest module that holds it."""
        if not self._added:
            return None
        return next((self._added[home] for home in (path, *reversed(homes(path))) if home in self._added), None)

    def of(self, path: str, one: nn.Parameter) -> tuple[Size, tuple[str, ...]]:
        """Give the size of a parameter at one of its names, and its other names."""
        size = self._sizes[id(one)]
        if id(one) not in self.ties:
            return size, ()
        names = self.ties[id(one)][0]
        others = tuple([name for name in names if name != path])
        return (size if names[0] == path else size._replace(elsewhere=size.parameters)), others

    def again(self, module: nn.Module) -> Size:
        """Give the size of a module that stands in the model a second time."""
        sizes = [self._sizes[id(one)] for one in module.parameters()]
        total = sum([one.parameters for one in sizes])
        return Size(total, sum([one.trainable for one in sizes]), sum([one.new for one in sizes]), total)

    def together(self, path: str, parts: list[Size]) -> Size:
        """Add up the parts of a module: what stands in several of them counts once."""
        if not parts:
            return Size()
        if not self.ties:
            return Size(*[sum(column) for column in zip(*parts, strict=True)])
        total = [sum(column) for column in zip(*[part[:3] for part in parts], strict=True)]
        home, elsewhere = f"{path}." if path else "", 0
        for names, size in self.ties.values():
            inside = len({name[len(home) :].partition(".")[0] for name in names if name.startswith(home)})
            if inside:
                total = [all_ - (inside - 1) * one for all_, one in zip(total, size[:3], strict=True)]
                elsewhere += 0 if names[0].startswith(home) else size.parameters
        return Size(total[0], total[1], total[2], elsewhere)


_SPARSE = ("_indices", "_values", "crow_indices", "ccol_indices", "row_indices", "col_indices", "values")
"""What gives the pieces of a sparse tensor, of one layout or another."""


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Add up the memory of tensors; a sparse one takes that of its indices and values."""
    return sum([piece.nbytes for one in tensors for piece in _pieces(one)])


def _pieces(one: Tensor) -> list[Tensor]:
    import torch

    if one.layout == torch.strided:
        return [one]
    asked = _SPARSE[:2] if one.layout == torch.sparse_coo else _SPARSE[2:]
    found: list[Tensor] = []
    for name in asked:
        with suppress(RuntimeError):  # of another layout
            found.append(getattr(one, name)())
    return found
