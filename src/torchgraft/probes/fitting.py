"""A loss that fits outputs of which nothing says what they are for: every one of them takes part."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.probes.loss import _own_loss, main_of
from torchgraft.trace.tree import labelled, tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Fitted", "fitted"]

_SCORES = re.compile(r"logits|scores?\b|class|\bout(put)?s?\b|\baux", re.IGNORECASE)
"""Names of outputs that are scores of classes."""

_NUMBERS = re.compile(r"hidden|embed|feature|pool|box", re.IGNORECASE)
"""Names of outputs that are none, whatever their shape."""

_ASIDE = re.compile(r"^(past_key_values|hidden_states|attentions|.*_hidden_states|.*_attentions|mems)\b")
"""Names of what transformers hand out beside their outputs: nobody trains on these."""

_SQUARES = "the mean of squares"


@dataclass(frozen=True)
class Fitted:
    """A loss.

    Attributes:
        value: of all outputs.
        words: what it is of each.
        targets: class numbers that were made for it.
    """

    value: Tensor
    words: str
    targets: tuple[Tensor, ...] = ()


def fitted(
    output: Any, given: Any, classes: Callable[[int, Tensor, int], Tensor], *, smoothing: float = 0.0
) -> Fitted:
    """Give what the model says is its loss; else the sum of a loss that fits each output.

    Args:
        output: what a model gave.
        given: what it was given: token numbers `[N, L]` tell scores of tokens `[N, L, C]`.
        classes: makes class numbers: of the output's number, like a tensor `[N, …]`, below a count.
        smoothing: of classes.

    Raises:
        TypeError: the output holds no tensor.
    """
    own = _own_loss(output)
    if own is not None:
        return Fitted(own, "the model's own loss")
    named = _outputs(output)
    told = [name for name, _ in named if _SCORES.search(name)]
    main = next((one for name, one in named if name in told), main_of(output))
    value, words, targets = None, [], []
    for number, (name, one) in enumerate(named):
        known = name in told or (one.shape == main.shape and not _NUMBERS.search(name)) or not name
        kind, scores = _scores(one, given, sure=name in told) if known else (_SQUARES, None)
        if scores is not None:
            targets.append(classes(number, scores.detach()[:, 0], scores.shape[1]))
        loss = one.float().square().mean() if scores is None else _crossed(scores, targets[-1], smoothing)
        value = loss if value is None else value + loss
        words.append((name or str(number), kind))
    assert value is not None
    return Fitted(value, _spoken(words), tuple(targets))


def _outputs(output: Any) -> list[tuple[str, Tensor]]:
    """List the floating outputs that training can change, with their names; all where it changes none."""
    found = [pair for pair in labelled(output) if pair[1].is_floating_point() and not _ASIDE.match(pair[0])]
    trained = [pair for pair in found if pair[1].requires_grad]
    return trained or found or [("", main_of(output))]


def _scores(one: Tensor, given: Any, *, sure: bool) -> tuple[str, Tensor | None]:
    """Say what scores an output holds, and give them as `[N, C, …]`; none where its shape is of no scores."""
    if one.dim() == 3:
        ids = [two for two in tensors(given) if not two.is_floating_point()]
        if sure or any(two.shape == one.shape[:2] for two in ids):
            return "cross-entropy of tokens", one.flatten(0, 1)
    elif one.dim() > 1 and one.shape[1] > 1:
        return f"cross-entropy of {'classes' if one.dim() == 2 else 'pixels'}", one
    return _SQUARES, None


def _crossed(scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    from torch.nn import functional

    return functional.cross_entropy(scores.float(), targets, label_smoothing=smoothing)


def _spoken(words: list[tuple[str, str]]) -> str:
    if len(words) == 1:
        kind = words[0][1]
        return f"{kind}, since the output says no loss" if kind == _SQUARES else kind
    return "the sum over the outputs: " + ", ".join(f"{kind} ({name})" for name, kind in words)
