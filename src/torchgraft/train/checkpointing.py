"""Gradient checkpointing: modules whose activations are not kept for the backward pass but computed again.

The memory of a block's activations for one more forward pass of it (Chen et al., 2016, "Training deep nets with
sublinear memory cost"), on `torch.utils.checkpoint`. What a forward pass writes to buffers, such as the statistics
of BatchNorm, is written once: the second pass works on copies of what the first one found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from torchgraft.errors import TrainError
from torchgraft.select import Roles, modules

__all__ = ["checkpointed", "checkpointed_modules"]


def checkpointed_modules(
    model: nn.Module, asked: str | Iterable[str], *, roles: Roles | None = None
) -> dict[str, nn.Module]:
    """Find the modules whose activations are computed again: the outermost of those that are selected.

    A ModuleList or ModuleDict, which is never called itself, stands for its entries.

    Raises:
        SelectionError: a selector matches no module.
        TrainError: a module can't be checkpointed.
    """
    wanted = tuple((asked,) if isinstance(asked, str) else asked)
    if not wanted:
        return {}
    table = dict(model.named_modules(remove_duplicate=False))
    chosen = list(modules(model, wanted, roles=roles))
    found: dict[str, nn.Module] = {}
    while chosen:
        path = chosen.pop(0)
        if any(_under(path, one) for one in found):
            continue
        if isinstance(table[path], (nn.ModuleList, nn.ModuleDict)):
            entries = [f"{path}.{name}".lstrip(".") for name, one in table[path].named_children()]
            chosen = [*entries, *chosen]
        elif table[path] not in found.values():
            found[path] = table[path]
    for path, module in found.items():
        _check(path, module)
    return found


def _under(path: str, home: str) -> bool:
    return not home or path == home or path.startswith(f"{home}.")


def _check(path: str, module: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise TrainError(
            f"{path or 'the model'} is scripted, so its forward pass can't be run again in parts",
            where="train.checkpointing",
            hint="leave it out, or build the model without torch.jit.script",
        )


@contextmanager
def checkpointed(chosen: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules keep no activations while gradients are on; afterwards they are as they were."""
    chosen = list(chosen)
    before = [(one, one.__dict__.get("forward")) for one in chosen]
    try:
        for one in chosen:
            one.__dict__["forward"] = _Checkpointed(one, one.forward)
        yield
    finally:
        for one, forward in before:
            if forward is None:
                one.__dict__.pop("forward", None)
            else:
                one.__dict__["forward"] = forward


class _Checkpointed:
    """The forward of a module that is run again when the backward pass comes by."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self.module, self.forward = module, forward
        self.__wrapped__ = forward  # inspect.signature follows it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(_Pass(self.module, self.forward), *args, use_reentrant=False, **kwargs)


_Cell = tuple[nn.Module, str]


class _Pass:
    """One call of a module: the first run is real, every later one leaves the buffers as they are."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self.module, self.forward = module, forward
        self.found: dict[_Cell, Tensor] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._first(args, kwargs) if self.found is None else self._again(args, kwargs)

    def _first(self, args: Any, kwargs: Any) -> Any:
        """Run, and keep what the buffers held that were written to; norms write behind the version counter."""
        held = {cell: (one, one._version, one.clone()) for cell, one in _buffers(self.module)}
        result = self.forward(*args, **kwargs)
        now = dict(_buffers(self.module))
        self.found = {
            cell: kept
            for cell, (one, version, kept) in held.items()
            if now.get(cell) is not one or one._version != version or isinstance(cell[0], _NormBase)
        }
        return result

    def _again(self, args: Any, kwargs: Any) -> Any:
        """Run on copies of the buffers as the first run found them: their last state stays."""
        assert self.found is not None
        last = {cell: cell[0]._buffers.get(cell[1]) for cell in self.found}
        try:
            for (home, name), kept in self.found.items():
                home._buffers[name] = kept.clone()
            return self.forward(*args, **kwargs)
        finally:
            for (home, name), one in last.items():
                home._buffers[name] = one


def _buffers(module: nn.Module) -> list[tuple[_Cell, Tensor]]:
    """List the buffers that a training pass may write to."""
    parts = [part for part in module.modules() if part.training]
    return [((part, name), one) for part in parts for name, one in part._buffers.items() if one is not None]
