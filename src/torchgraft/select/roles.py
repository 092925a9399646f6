"""Roles that a model shows without a trace: norms, biases, vectors, embeddings, trainable, frozen."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BUILT_IN", "MODULE_ROLES", "PARAMETER_ROLES", "Roles", "is_norm"]

Roles = Mapping[str, Sequence[str]]
"""Names that stand for paths: `{"head": ("fc",)}`."""


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a normalisation layer: by its class, or by a name of it and no matrix inside."""
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase

    if isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
        return True
    named = any("norm" in base.__name__.lower() for base in type(module).__mro__[:-2])
    return named and all(one.dim() <= 1 for one in module.parameters())


def _is_embedding(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, (nn.Embedding, nn.EmbeddingBag))


MODULE_ROLES: dict[str, Callable[[nn.Module], bool]] = {"norms": is_norm, "embeddings": _is_embedding}


def _norms(model: nn.Module) -> set[str]:
    return _inside(model, is_norm)


def _embeddings(model: nn.Module) -> set[str]:
    tables = {name for name, _ in _named(model) if re.search(r"embed|token", name.rpartition(".")[2])}
    return tables | _inside(model, _is_embedding)


def _inside(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> set[str]:
    """Give the names of the parameters of all modules of a kind."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules(remove_duplicate=False)
        if wanted(module)
        for name, _ in module.named_parameters(remove_duplicate=False)
    }


def _biases(model: nn.Module) -> set[str]:
    return {name for name, _ in _named(model) if re.search(r"^bias|bias$", name.rpartition(".")[2])}


def _named(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(model.named_parameters(remove_duplicate=False))


PARAMETER_ROLES: dict[str, Callable[[nn.Module], set[str]]] = {
    "norms": _norms,
    "biases": _biases,
    "vectors": lambda model: {name for name, one in _named(model) if one.dim() <= 1},
    "embeddings": _embeddings,
    "trainable": lambda model: {name for name, one in _named(model) if one.requires_grad},
    "frozen": lambda model: {name for name, one in _named(model) if not one.requires_grad},
}
"""What a role means among parameters. `vectors` have one dimension or none: biases, scales, gates."""

BUILT_IN = (*PARAMETER_ROLES, "backbone")
"""Roles that may match nothing where they are negated; `backbone` is everything but the head."""
