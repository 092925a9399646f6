"""A model profiled: the task set up, its runs measured, the verdict spoken."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from torchgraft.errors import DataError, EditError, TorchgraftError, TrainError
from torchgraft.profile.machine import machine
from torchgraft.profile.measure import measured
from torchgraft.profile.planned import planned_task
from torchgraft.profile.record import Machine, Part, Profile, Run
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
    with rng_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task, random, notes = _task(graft, device, batch, fake=fake)
        best = machine(task.device, KINDS[task.precision])
        runs, traces, more = _runs(graft, task, best, steps, keep=trace)
        found = tried(task, runs[0]) if tries else ()
    facts = (*task.facts, *([("loss", random.words)] if random is not None and task.optimizer else []))
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
    findings = judged(speed, graft.name, graft.module)
    runs = [_noted(graft, run, task.model) for run in runs]
    return Profile(graft.name, best, facts, tuple(runs), findings, found, (*notes, *more), trace=traces[0])


def _runs(
    graft: Graft, task: Task, best: Machine, steps: int | None, *, keep: bool
) -> tuple[list[Run], list[bytes], list[str]]:
    """Measure a training step, where there is one, and a prediction; give their recordings and notes too."""
    runs, traces, notes = list[Run](), list[bytes](), list[str]()
    if task.optimizer is None:
        notes.append("every parameter is frozen: there is no training step")
    for kind in ("training step", "prediction"):
        if kind == "training step" and task.optimizer is None:
            continue
        try:
            run, seen = measured(task, kind, best, steps=steps)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
            if task.real or kind == "prediction":
                raise _broken(graft, kind, error) from error
            notes.append(f"there is no training step, since it breaks off: {_words(error)}")
            continue
        runs.append(run)
        traces.append(seen.trace() if keep else b"")
    return runs, traces, notes


def _broken(graft: Graft, kind: str, error: Exception) -> TorchgraftError:
    """Say that a step breaks off: with what fake tensors show of it, if they show a fault."""
    faults = graft._faults()
    if faults:
        return EditError(
            "the model does not run on its input as it is, so it can't be profiled",
            where=graft.name,
            hint="see the finding; mend the model or its input first",
            findings=faults,
        )
    return TrainError(
        f"the {kind} breaks off: {_words(error)}",
        where=graft.name,
        hint="torchgraft check says more; where memory is short, take a smaller batch: --batch 1",
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _noted(graft: Graft, run: Run, model: nn.Module) -> Run:
    """Note which modules are frozen in what ran, and which edit put one in."""
    added = graft.added
    table = dict(model.named_modules())

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
    task, more = planned_task(graft, plan, where, data=False)
    return task, None, (*notes, *more)


def _is_fused(optimizer: torch.optim.Optimizer | None) -> bool | None:
    if optimizer is None or "fused" not in optimizer.defaults:
        return None
    return any(bool(group.get("fused")) for group in optimizer.param_groups)
