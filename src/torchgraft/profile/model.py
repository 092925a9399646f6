"""A model profiled: the task set up, its runs measured, the verdict spoken."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from torchgraft.errors import DataError
from torchgraft.methods import running
from torchgraft.profile.machine import machine
from torchgraft.profile.measure import measured
from torchgraft.profile.planned import planned_task
from torchgraft.profile.record import Part, Profile, Run
from torchgraft.profile.task import KINDS, Random, Task, plain_task
from torchgraft.profile.tries import tried
from torchgraft.profile.verdict import judged, speed_of
from torchgraft.recipe import TrainPlan
from torchgraft.rng import rng_kept
from torchgraft.train.loop import device_of

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["profiled"]

BATCH = 8
"""Samples in a step of a model without a training plan."""


def profiled(
    graft: Graft, *, device: str | None, batch: int | None, steps: int | None, fake: bool, tries: bool, trace: bool
) -> Profile:
    """Profile a graft's model; see `torchgraft.profile.profile`."""
    running(graft, "profile")
    with rng_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task, random, notes = _task(graft, device, batch, fake=fake)
        return _profiled(graft, task, random, notes, steps=steps, tries=tries, keep=trace)


def _profiled(
    graft: Graft,
    task: Task,
    random: Random | None,
    notes: tuple[str, ...],
    *,
    steps: int | None,
    tries: bool,
    keep: bool,
) -> Profile:
    best = machine(task.device, KINDS[task.precision])
    runs, trace = [], b""
    if task.optimizer is not None:
        run, seen = measured(task, "training step", best, steps=steps)
        runs, trace = [run], seen.trace() if keep else b""
    else:
        notes = (*notes, "every parameter is frozen: there is no training step")
    run, seen = measured(task, "prediction", best, steps=steps)
    runs.append(run)
    trace = trace or (seen.trace() if keep else b"")
    found = tried(task, runs[0]) if tries else ()
    runs = [_noted(graft, run) for run in runs]
    facts = (*task.facts, *([("loss", random.words)] if random is not None else []))
    speed = speed_of(
        runs[0],
        best,
        found,
        precision=task.precision,
        workers=task.workers,
        images=any(isinstance(one, nn.Conv2d) for one in task.model.modules()),
        fused=_is_fused(task.optimizer),
        real=task.real,
    )
    return Profile(
        graft.name, best, facts, tuple(runs), judged(speed, graft.name, graft.module), found, notes, trace=trace
    )


def _noted(graft: Graft, run: Run) -> Run:
    """Note which modules are frozen, and which edit put one in."""
    added = graft.added
    table = dict(graft.module.named_modules())

    def noted(part: Part) -> Part:
        flags = {one.requires_grad for one in table[part.path].parameters()} if part.path in table else set()
        words = [f"edit {added[part.path]}"] if part.path in added else []
        return replace(part, note=", ".join([*words, *(["frozen"] if flags == {False} else [])]))

    return replace(run, parts=tuple(noted(part) for part in run.parts))


def _task(
    graft: Graft, device: str | None, batch: int | None, *, fake: bool
) -> tuple[Task, Random | None, tuple[str, ...]]:
    """Set up what runs: as the plan says, or plainly."""
    plan = graft.recipe.train
    where = device_of(TrainPlan(data="none", device=device or (plan.device if plan else "auto")))
    if plan is None:
        task, random = plain_task(graft, where, batch or BATCH)
        return task, random, ()
    plan = plan.model_copy(update={"batch": batch or plan.batch})
    if not fake:
        try:
            task, notes = planned_task(graft, plan, where)
            return task, None, notes
        except DataError as error:
            notes = (
                f"the plan's data are not there ({error.what}): the inputs are random, the wait not measured",
            )
    else:
        notes = ("the inputs are random: the wait for data was not measured",)
    task, _ = planned_task(graft, plan, where, data=False)
    return task, None, notes


def _is_fused(optimizer: torch.optim.Optimizer | None) -> bool | None:
    if optimizer is None or "fused" not in optimizer.defaults:
        return None
    return any(bool(group.get("fused")) for group in optimizer.param_groups)
