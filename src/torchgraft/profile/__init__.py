"""Where a training step and a prediction spend time and memory, by module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.profile.record import Profile

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["Profile", "profile"]


def profile(
    graft: Graft,
    *,
    device: str | None = None,
    batch: int | None = None,
    steps: int | None = None,
    fake: bool = False,
    tries: bool = True,
    trace: bool = False,
) -> Profile:
    """Say where a training step and a prediction spend time and memory: `print(g.profile(batch=32))`.

    It runs on a double: the model, its gradients and all random numbers are as they were afterwards. A recipe with
    a training plan is run as it would be trained, with its own data; another model with random inputs and SGD.

    Args:
        graft: whose model is run.
        device: `cpu`, `cuda`, …; that of the plan, or an accelerator where there is one, when left out.
        batch: samples in a step; that of the plan, or 8, when left out.
        steps: how many are measured; as many as are worth it when left out.
        fake: take random inputs where the plan names data.
        tries: try what may help, where a step is short enough.
        trace: keep the recording, for `torchgraft.profile.files.write_trace`.

    Raises:
        TrainError: the device is not here, or the weights are not in memory.
        EditError: the model does not run.
    """
    from torchgraft.profile.model import profiled

    return profiled(graft, device=device, batch=batch, steps=steps, fake=fake, tries=tries, trace=trace)
