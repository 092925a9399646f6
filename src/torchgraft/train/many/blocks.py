"""The parts of a model that are shared out one by one: each is whole in memory only while it computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from torch import nn

__all__ = ["repeated"]


def repeated(model: nn.Module, called: Collection[str]) -> list[nn.Module]:
    """Find the blocks that a model repeats, such as the layers of a transformer; else its stages.

    Blocks stand side by side in one container, several of one class. A block whose parameter somebody outside
    holds as well, such as a tied embedding, stays with the rest of the model.

    Args:
        model: whose blocks are found.
        called: the modules that a pass calls; what is never called would never get its parameters together.
    """
    known = {path: one for path, one in model.named_modules() if path in called}
    blocks = _outermost({path: known[path] for path in _alike(model) if path in known})
    if not blocks:
        blocks = {path: one for path, one in known.items() if path and "." not in path}
    return [one for one in blocks.values() if _owns_some(one) and not _shares(one, model)]


def _alike(model: nn.Module) -> Iterator[str]:
    """Give the paths of modules that stand beside another of their class in one container."""
    for path, home in model.named_modules():
        if isinstance(home, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            kinds = Counter(type(one) for one in home.children())
            for name, one in home.named_children():
                if kinds[type(one)] > 1 and any(one.children()):
                    yield f"{path}.{name}".lstrip(".")


def _outermost(found: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Leave out what lies within another, and containers that hold nothing but blocks of their own."""
    return {
        path: one
        for path, one in found.items()
        if not any(path.startswith(f"{other}.") and not _is_stage(found[other], found, other) for other in found)
        and not _is_stage(one, found, path)
    }


def _is_stage(one: nn.Module, found: dict[str, nn.Module], path: str) -> bool:
    """Tell whether a container merely holds blocks: these are the smaller, and shared out themselves."""
    return isinstance(one, nn.Sequential) and any(other.startswith(f"{path}.") for other in found)


def _owns_some(block: nn.Module) -> bool:
    return any(True for _ in block.parameters())


def _shares(block: nn.Module, model: nn.Module) -> bool:
    inside = {id(one) for one in block.parameters()}
    within = {id(one) for one in block.modules()}
    outside = [one for one in model.modules() if id(one) not in within]
    return any(id(each) in inside for one in outside for each in one.parameters(recurse=False))
