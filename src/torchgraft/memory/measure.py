"""Measure the memory of training: the same steps with real tensors, on a copy of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchgraft.memory.counter import Counter
from torchgraft.memory.course import Course
from torchgraft.memory.loss import Judge
from torchgraft.memory.steps import Job, walk
from torchgraft.rng import rng_kept
from torchgraft.trace.tree import mapped
from torchgraft.train.augment import augmentation
from torchgraft.train.checkpointing import checkpointed_modules
from torchgraft.train.rates import groups_of

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.recipe import TrainPlan

__all__ = ["allocated", "measured"]


def measured(graft: Graft, plan: TrainPlan, batch: Any, *, loss: Any = None, targets: Any = None) -> Course:
    """Run two optimizer steps with real tensors, and count what is alive; the model itself is only copied.

    Args:
        graft: whose model is trained.
        plan: how; the batch is that which is given.
        batch: positional arguments, or arguments by name.
        loss: the user's own, `loss(output)`, or `loss(output, targets)` where there are some.
        targets: for it.
    """
    counter = Counter()
    with rng_kept():
        job = _job(graft, plan, batch, torch.device("cpu"), loss, targets)
        _told_apart(job.model, counter)
        with counter:
            walk(job, counter)
    return Course(tuple(counter.events))


def allocated(graft: Graft, plan: TrainPlan, batch: Any, device: torch.device) -> int:
    """Run the same steps on a CUDA device, and give the most bytes that torch's allocator gave out at once.

    It includes what no counter of tensors sees: workspaces of cuDNN and cuBLAS, and sizes rounded up to 512 bytes.
    """
    before = torch.cuda.memory_allocated(device)
    with rng_kept():
        job = _job(graft, plan, batch, device, None, None)
        counter = _Quiet()
        torch.cuda.reset_peak_memory_stats(device)
        walk(job, counter)
        torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def _told_apart(model: nn.Module, counter: Counter) -> None:
    """Let a counter know which module is under way; the model is a copy that nobody else has."""
    for path, module in model.named_modules():
        module.__dict__["forward"] = partial(_inside, counter, path, module.forward)


def _inside(counter: Counter, path: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with counter.inside(path):
        return forward(*args, **kwargs)


class _Quiet(Counter):  # type: ignore[no-untyped-call]
    """Counts nothing, so that the run is what it is without a counter."""

    def name(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def keep(self) -> None:
        """Do nothing."""


def _job(graft: Graft, plan: TrainPlan, batch: Any, device: torch.device, loss: Any, targets: Any) -> Job:
    model: nn.Module = copy.deepcopy(graft.module).to(device)
    twins = dict(zip(graft.module.parameters(), model.parameters(), strict=True))
    names = {id(one): name for name, one in graft.module.named_modules()}
    again = checkpointed_modules(graft.module, plan.checkpointing, roles=graft.roles).values()
    parts = dict(model.named_modules())
    args, kwargs = ((), dict(batch)) if isinstance(batch, dict) else (batch, {})
    vary = augmentation(plan)

    def given() -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        fresh = mapped(lambda one: one.to(device, copy=True), (args, kwargs))
        if plan.augment == "none":
            return (*fresh, None)
        held: Tensor = fresh[0][0]
        return (vary(held),), fresh[1], held if device.type == "cpu" else None

    return Job(
        model=model,
        plan=plan,
        groups=[
            {**{k: v for k, v in group.items() if k != "names"}, "params": [twins[p] for p in group["params"]]}
            for group in groups_of(graft, plan)
        ],
        given=given,
        judge=Judge.of(graft, plan.label_smoothing, loss, targets),
        device=device,
        again=[parts[names[id(one)]] for one in again],
        fakes=False,
    )
