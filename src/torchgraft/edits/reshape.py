"""Reshape: another size of one raw parameter, such as a class token, a position table or a layer scale."""

from __future__ import annotations

from math import isqrt, prod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError, SelectionError, nearest
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Reshape"]


class Reshape(Edit):
    """Give the parameter or buffer `at` another shape of the same rank.

    What both shapes share keeps its values. New channels start at zero where the parameter is added or joined, at
    the mean of the old ones where it multiplies. A table of positions (`along`) is interpolated instead: as a
    square grid where both lengths are squares, behind as many class tokens as it takes, else along the line.

    Attributes:
        at: the name of the parameter or buffer.
        shape: the new shape.
        start: what new channels hold: `zero` or `mean`.
        along: the dimension of the positions, if their number changes.
        line: the positions follow one another as in a text: they are never read as a grid.
        drops: how many of the old values are not kept; written when the edit is applied.
    """

    written: ClassVar[frozenset[str]] = frozenset({"drops"})
    at: str
    shape: tuple[Count, ...]
    start: Literal["zero", "mean"] = "zero"
    along: int | None = None
    line: bool = False
    drops: Annotated[int, Field(ge=0)] = 0

    def apply(self, surgery: Surgery) -> Reshape:
        """Put a new tensor beside the old one, wherever that is held.

        Raises:
            SelectionError: there is no such parameter or buffer.
            EditError: the rank differs.
        """
        old = _named(surgery.model, self.at)
        if old.dim() != len(self.shape):
            raise EditError(
                f"{self.at} has {old.dim()} dimensions, the new shape {len(self.shape)}",
                where=self.at,
                hint="a reshape keeps the rank; give one size for each dimension",
            )
        new = self._made(old)
        for holder in surgery.model.modules():
            for box in ("_parameters", "_buffers"):
                held = vars(holder)[box]
                names = [name for name, tensor in held.items() if tensor is old]
                if names:
                    surgery.set(holder, box, {**held, **dict.fromkeys(names, new)})
        shared = prod(min(sizes) for sizes in zip(old.shape, self.shape, strict=True))
        return self.model_copy(update={"drops": old.numel() - (0 if self.along is not None else shared)})

    def _made(self, old: Tensor) -> Tensor:
        import torch
        from torch import nn

        with torch.no_grad():
            source = (
                old.detach()
                if self.along is None
                else _stretched(old.detach(), self.shape, self.along, line=self.line)
            )
            start = source.mean() if self.start == "mean" and source.is_floating_point() else source.new_zeros(())
            new = start.expand(self.shape).clone()
            shared = tuple(slice(min(sizes)) for sizes in zip(new.shape, source.shape, strict=True))
            if old.device.type != "meta":
                new[shared].copy_(source[shared])
        return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new

    def sentence(self) -> str:
        """Say what the shape is now."""
        return f"{self.at} is reshaped to {list(self.shape)}"


def _named(model: nn.Module, name: str) -> Tensor:
    known = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    if name not in known:
        raise SelectionError(
            f"the model has no parameter or buffer '{name}'",
            where=name,
            hint=nearest(name, known) or "state_dict() lists them",
        )
    return known[name]


def _stretched(old: Tensor, shape: tuple[int, ...], along: int, *, line: bool) -> Tensor:
    """Interpolate the positions of a table: `[…, L, …]` -> `[…, L', …]`."""
    import torch
    from torch.nn import functional

    rows = old.movedim(along, -1)
    flat = rows.reshape(1, -1, rows.shape[-1]).float()
    length = shape[along]
    for tokens in () if line else (0, 1, 2, 5):
        sides = isqrt(max(flat.shape[-1] - tokens, 0)), isqrt(max(length - tokens, 0))
        if all(side > 1 for side in sides) and (sides[0] ** 2, sides[1] ** 2) == (
            flat.shape[-1] - tokens,
            length - tokens,
        ):
            grid = flat[..., tokens:].reshape(*flat.shape[:2], sides[0], sides[0])
            grown = functional.interpolate(grid, (sides[1], sides[1]), mode="bicubic", align_corners=False)
            flat = torch.cat([flat[..., :tokens], grown.flatten(2)], -1)
            break
    else:
        flat = functional.interpolate(flat, length, mode="linear", align_corners=False)
    return flat.reshape(*rows.shape[:-1], length).to(old.dtype).movedim(-1, along)
