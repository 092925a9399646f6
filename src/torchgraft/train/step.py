"""One step of training: forward, loss, backward, and the optimizer's move. The loop runs it, and so does the
prediction of its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.guard.gradients import Reading, read
from torchgraft.guard.gradients import clip as clipped
from torchgraft.trainplan import TrainPlan

__all__ = ["KINDS", "Stepper", "move"]

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The number formats of the forward pass, by the word of the plan."""

Guard = Callable[[Reading], object]
"""Sees the norms of all gradients before anything moves, and may raise."""


class Stepper:
    """Steps of one optimizer, as a plan says: precision, scaling of the loss, clipping.

    Args:
        plan: says how.
        optimizer: what moves the parameters.
        device: where they are.
        scaled: scale the loss where the precision needs it; on fake tensors there is no value to scale by.
    """

    def __init__(
        self, plan: TrainPlan, optimizer: torch.optim.Optimizer, device: torch.device, *, scaled: bool = True
    ) -> None:
        self.plan, self.optimizer, self.device = plan, optimizer, device
        scaled = scaled and plan.precision == "fp16" and device.type != "cpu"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def forward(self, run: Callable[[], Any], judge: Callable[[Any], Tensor]) -> tuple[Any, Tensor]:
        """Run the model and its loss in the precision of the plan.

        Args:
            run: the forward pass.
            judge: gives the loss of what it gave.

        Returns:
            the output and the loss.
        """
        if self.plan.precision == "fp32":
            output = run()
            return output, judge(output)
        with self.cast():
            output = run()
            return output, judge(output)

    def cast(self) -> torch.autocast:
        """Compute in the precision of the plan while the block runs."""
        kind = KINDS[self.plan.precision]
        return torch.autocast(self.device.type, dtype=kind, enabled=self.plan.precision != "fp32")

    def backward(self, loss: Tensor, share: float = 1.0) -> None:
        """Add the gradients of a batch to those that there are.

        Args:
            loss: of the batch.
            share: of the samples of this optimizer step; 1 where the batch is all of them.
        """
        weighed = loss if share == 1.0 else loss * share
        self.scaler.scale(weighed).backward()  # type: ignore[no-untyped-call]

    def open(self) -> None:
        """Begin an optimizer step: old gradients go."""
        self.optimizer.zero_grad(set_to_none=True)

    def close(self, guard: Guard | None = None) -> None:
        """End an optimizer step: clip the gradients as the plan says, and move."""
        move(self.optimizer, self.scaler, self.plan.clip, self.plan.clip_value, guard)


def move(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clip: float | None = None,
    clip_value: float | None = None,
    guard: Guard | None = None,
) -> None:
    """Clip the gradients and let the optimizer move.

    Args:
        optimizer: what moves.
        scaler: of the loss.
        clip: the largest norm of all gradients together; None leaves them.
        clip_value: the largest number in a gradient; None leaves them.
        guard: sees the norms before they are clipped. Without one no value is read, so fake tensors do.
    """
    if clip is not None or clip_value is not None or guard is not None:
        scaler.unscale_(optimizer)
        trained = [one for group in optimizer.param_groups for one in group["params"]]
        if guard is not None:
            reading = read(trained)
            guard(reading)
            if clip is not None and reading.finite:
                clipped(reading, clip)
        elif clip is not None:
            nn.utils.clip_grad_norm_(trained, clip)
        if clip_value is not None:
            nn.utils.clip_grad_value_(trained, clip_value)
    scaler.step(optimizer)
    scaler.update()
