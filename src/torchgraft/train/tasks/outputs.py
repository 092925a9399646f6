"""What of a model's output the loss is taken of: the main scores, and those of auxiliary heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torchgraft.probes.loss import main_of

__all__ = ["main_of", "with_auxiliary"]


def with_auxiliary(output: Any) -> tuple[Tensor, list[Tensor]]:
    """Give the main scores of whatever a model returns, and the scores of its auxiliary heads.

    Those of a dict or an object are named so (`aux`, `aux_logits`); of a tuple, all that have as many classes as
    the main ones. Hidden states and attentions are neither.

    Raises:
        TypeError: there is no tensor.
    """
    main = main_of(output)
    if isinstance(output, Tensor):
        return main, []
    held = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    named = [one for name, one in held.items() if str(name).startswith("aux")]
    rest = named or (list(output) if isinstance(output, (tuple, list)) else [])
    return main, [one for one in rest if one is not main and _alike(one, main)]


def _alike(one: Any, main: Tensor) -> bool:
    return isinstance(one, Tensor) and one.dim() == main.dim() > 1 and one.shape[1] == main.shape[1]
