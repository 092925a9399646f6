"""Which parts of a model stand still when some of its parameters are frozen: one answer for edits and training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torchgraft.surgery.standing import is_sequence

if TYPE_CHECKING:
    from torch import nn

__all__ = ["still_parts"]


def still_parts(model: nn.Module, frozen: Callable[[nn.Parameter], bool]) -> Iterator[tuple[str, nn.Module]]:
    """Give the largest parts that stand still, with their paths.

    - A part that has parameters, all of them frozen.
    - A norm without parameters goes with the layer before it.
    - Dropout in a Sequential stands still where all that comes before it is frozen and the next layer is: between
      frozen layers it would only add noise. Dropout right before what is trained stays on: it keeps the new layer
      from leaning on single features (Srivastava et al., 2014).

    Args:
        model: whose parts they are.
        frozen: tells of a parameter whether it counts as frozen.
    """
    walk = _Walk(frozen)
    yield from walk.parts("", model)


class _Walk:
    """One walk through a model in the order in which its modules were registered."""

    def __init__(self, frozen: Callable[[nn.Parameter], bool]) -> None:
        self.frozen = frozen
        self.after_frozen = False
        self.learns = False

    def parts(self, path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Give the still parts of a module, itself or in it."""
        own = list(module.parameters())
        if own and all(map(self.frozen, own)):
            self.after_frozen = True
            self.learns |= any(one.requires_grad for one in own)
            yield path, module
            return
        direct = list(module.parameters(recurse=False))
        if direct:
            self.after_frozen = all(map(self.frozen, direct))
            self.learns |= any(one.requires_grad for one in direct)
        if not own and _is_norm(module) and self.after_frozen:
            yield path, module
            return
        quiet = self._between(module)
        for name, child in module.named_children():
            below = f"{path}.{name}" if path else name
            if child in quiet and not self.learns:
                yield below, child
            else:
                yield from self.parts(below, child)

    def _between(self, module: nn.Module) -> set[nn.Module]:
        """Give the dropouts of a Sequential that a frozen layer follows."""
        found: set[nn.Module] = set()
        before_frozen = False
        for child in reversed(list(module.children()) if is_sequence(module) else []):
            own = list(child.parameters())
            if own:
                before_frozen = all(map(self.frozen, own))
            elif before_frozen and _is_dropout(child):
                found.add(child)
        return found


def _is_norm(module: nn.Module) -> bool:
    from torch.nn.modules.batchnorm import _NormBase

    return isinstance(module, _NormBase) and module.running_mean is not None


def _is_dropout(module: nn.Module) -> bool:
    from torch.nn.modules.dropout import _DropoutNd

    return isinstance(module, _DropoutNd) or type(module).__name__ in ("StochasticDepth", "DropPath")
