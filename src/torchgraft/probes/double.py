"""Doubles: real copies of a model that probes may run, train and spoil. Imported only when real data are given.

A double shares no tensor with the model, so what a pass writes in place, the gradients and the steps of an
optimizer stay with it. It takes the memory of the weights once more; training itself takes two to four times that.
"""

from __future__ import annotations

import random
import types
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchgraft.trace.ghost import HOOKS, Turn, fill, shell

__all__ = ["Double", "seeded"]


class Double:
    """A model's double: the copy itself, and which parameter of it stands for which of the model's."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._tensors: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []  # an id must not be used again while the double lives
        originals = _all(model)
        modules = {id(module): shell(module) for module in originals}
        turn = Turn.over(modules, self.twin, deep=False)
        for module in originals:
            if not isinstance(module, torch.jit.ScriptModule):
                fill(module, modules[id(module)], turn, _ignore)
                _unblocked(modules[id(module)])
                for kind in HOOKS:  # as they are: a loss may read what a hook caught, see `captures_kept`
                    hooks = {number: turn(hook) for number, hook in vars(module)[kind].items()}
                    vars(modules[id(module)])[kind] = OrderedDict(hooks)
        self.module = modules[id(model)]
        self.paths = {id(module): path for path, module in self.module.named_modules()}

    def twin(self, tensor: Tensor) -> Tensor:
        """Give the double's own version of a tensor of the model, made when it is first asked for."""
        if id(tensor) not in self._tensors:
            self._tensors[id(tensor)] = _copied(tensor)
            self._kept.append(tensor)
        return self._tensors[id(tensor)]

    def moved(self) -> list[str]:
        """Name parameters and buffers whose bytes differ from the model's; one of a new size is a cache."""
        own, found = self._state(self.module), []
        for name, tensor in self._state(self.model).items():
            sized = name in own and own[name].shape == tensor.shape
            if sized and not _same(tensor, own[name]):
                found.append(name)
        return found

    def restore(self) -> None:
        """Give the double the model's values again."""
        own = self._state(self.module)
        with torch.no_grad():
            for name, tensor in self._state(self.model).items():
                if name in own and not _same(tensor, own[name]) and own[name].shape == tensor.shape:
                    own[name].copy_(tensor)
        for parameter in self.module.parameters():
            parameter.grad = None

    @staticmethod
    def _state(module: nn.Module) -> dict[str, Tensor]:
        return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _all(model: nn.Module) -> list[nn.Module]:
    """List the modules of the tree, and those that hide in attributes, plain lists and methods of it."""
    found: dict[int, nn.Module] = {}
    queue: list[Any] = [model]
    while queue:
        module = queue.pop()
        if id(module) not in found:
            found[id(module)] = module
            queue += [one for value in vars(module).values() for one in _inside(value)]
    return list(found.values())


def _inside(value: Any, depth: int = 0) -> list[nn.Module]:
    if isinstance(value, nn.Module):
        return [value]
    if isinstance(value, types.MethodType):
        return _inside(value.__self__, 3)
    if depth > 2 or not isinstance(value, (dict, list, tuple, set, deque)):
        return []
    entries = value.values() if isinstance(value, dict) else value
    return [module for one in entries for module in _inside(one, depth + 1)]


def _unblocked(made: nn.Module) -> None:
    """Free `train` and `eval` where a flag was set over them: `module.train = False` is told by its rule."""
    for name in ("train", "eval"):
        if isinstance(vars(made).get(name), bool):
            del vars(made)[name]


def _ignore() -> None:
    """Take no note of a hook that gives something back: the trace has told it."""


def _copied(tensor: Tensor) -> Tensor:
    if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        return tensor
    made = tensor.detach().clone(memory_format=torch.preserve_format)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made.requires_grad_(tensor.requires_grad and tensor.is_leaf)


def _same(one: Tensor, other: Tensor | None) -> bool:
    """Compare byte for byte: NaN equals NaN, and -0.0 is not 0.0."""
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.layout != torch.strided or one.is_quantized or one.is_meta:
        return True
    kind = _BITS.get(one.element_size(), torch.uint8)
    return torch.equal(*[tensor.detach().contiguous().reshape(-1).view(kind) for tensor in (one, other)])


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def seeded(seed: int = 0) -> None:
    """Seed inside `rng_kept`, so that a check finds the same every time; CUDA only where it is in use already."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
