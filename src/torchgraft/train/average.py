"""A moving average of the weights: what is judged and kept where the plan asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """The exponential moving average of what is trained (Polyak and Juditsky, 1992); buffers are the model's own.

    The first steps count more: the decay is at most (1 + n) / (10 + n) after n steps, so that a short training is
    not held back by the weights that it began with.

    Args:
        model: whose trainable parameters are averaged; those that are unfrozen later join as they are then.
        decay: of the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.values: dict[str, Tensor] = {}
        self.join()

    def join(self) -> None:
        """Take in what is trainable by now."""
        for name, one in self.model.named_parameters():
            if one.requires_grad and name not in self.values:
                self.values[name] = one.detach().clone()

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights as they are."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        known = dict(self.model.named_parameters())
        torch._foreach_lerp_(list(self.values.values()), [known[name].detach() for name in self.values], 1 - decay)

    @contextmanager
    def put(self) -> Iterator[None]:
        """Let the model have the averages while the block runs."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        known = dict(self.model.named_parameters())
        for name, value in self.values.items():
            held = known[name].detach().clone()
            known[name].copy_(value)
            value.copy_(held)

    def restore(self, values: Mapping[str, Tensor], steps: int) -> None:
        """Go on from values that were saved."""
        self.steps = steps
        for name, value in values.items():
            self.values[name].copy_(value)
