"""One kind of step, measured: bare for the seconds, then watched for who takes them, then counted for the work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from torchgraft.probes.speed import Split
from torchgraft.profile import held
from torchgraft.profile.clock import Clock, Timed, timed
from torchgraft.profile.events import OUTSIDE, Ledger, Sums, middle, on_device, read
from torchgraft.profile.record import Machine, Operation, Part, Phase, Run
from torchgraft.profile.spans import PHASE, spanned
from torchgraft.profile.task import Task
from torchgraft.profile.watch import Watched, watching
from torchgraft.profile.work import Work, counting

__all__ = ["measured"]

STEP = f"{PHASE}step"

WATCHED, FEW = 5, 2
"""So many steps are watched; few where one takes more than a second."""

_FORWARD = ("forward", "loss")


_SHORT = 1e-3
"""Seconds below which the clock and the watching blur what a module takes."""


def measured(
    task: Task, kind: Literal["training step", "prediction"], machine: Machine, *, steps: int | None = None
) -> tuple[Run, Watched]:
    """Measure a training step or a prediction.

    Args:
        task: what runs.
        kind: which of the two.
        machine: what it runs on.
        steps: how many bare steps are measured; as many as are worth it when left out.
    """
    training = kind == "training step"
    step = task.training if training else task.prediction
    task.train_mode(task.model) if training else task.model.eval()
    bare = timed(step, task.device, steps=steps)
    names = {id(module): path for path, module in task.model.named_modules()}
    name_of: Callable[[nn.Module], str | None] = lambda module: names.get(id(module))  # noqa: E731
    if task.optimizer is not None:
        task.optimizer.zero_grad(set_to_none=True)
    there = held.before(task.model, task.optimizer if training else None, _given(task))
    clock, pauses = Clock(task.device, spans=True), list[float]()
    with spanned(name_of), watching(task.device, memory=True) as seen:
        for _ in range(WATCHED if bare.seconds < 1 else FEW):
            start, worked = time.perf_counter(), time.thread_time()
            with torch.profiler.record_function(STEP):
                step(clock)
            pauses.append(max(time.perf_counter() - start - (time.thread_time() - worked), 0.0))
    graded = held.gradients(task.model)
    ledger, watched = _typical(seen, machine, task.device, pauses)
    last = max(one.start_time_ns for one in seen.roots if one.name == STEP)
    peak = held.peak(ledger.allocations, there, graded, since=last, reserved=_reserved(task.device))
    work = _counted(task, step, name_of)
    run = _run(kind, task, bare, ledger, work, machine)
    return replace(run, peak=peak, watched=watched / max(bare.seconds, 1e-12)), seen


def _given(task: Task) -> Any:
    return (task.last.args, task.last.kwargs, task.last.targets) if task.last is not None else ()


def _typical(
    seen: Watched, machine: Machine, device: torch.device, pauses: Sequence[float]
) -> tuple[Ledger, float]:
    """Read the watched steps, and give the medians of each module's seconds, and of the steps'.

    One step of many has a pause in some module, since other programs run too; the median has none.
    """
    steps = sorted((one for one in seen.roots if one.name == STEP), key=lambda one: one.start_time_ns)
    did = seen.device() if device.type != "cpu" else []
    ledgers = []
    for step, paused in zip(steps, pauses, strict=True):
        end = step.start_time_ns + step.duration_time_ns
        within = [one for one in seen.roots if step.start_time_ns <= one.start_time_ns <= end]
        ledger = read(
            within,
            inside=machine.inside,
            watching=machine.watching,
            host=step.start_tid,
            paused=paused,
            device=device.type,
        )
        if device.type != "cpu":
            on_device(ledger, did)
        ledgers.append(ledger)
    return middle(ledgers), statistics.median(one.duration_time_ns for one in steps) / 1e9


def _reserved(device: torch.device) -> int:
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def _counted(task: Task, step: Callable[[Clock], None], name_of: Callable[[nn.Module], str | None]) -> Work:
    """Count the work of one more step."""
    with counting(name_of) as work:
        step(Clock(task.device))
    return work


def _run(
    kind: Literal["training step", "prediction"],
    task: Task,
    bare: Timed,
    ledger: Ledger,
    work: Work,
    machine: Machine,
) -> Run:
    """Fit what was watched to the seconds of the bare steps, phase by phase."""
    merged = {name: bare.phases.get(name, 0.0) for name in ("data", "forward", "backward", "optimizer")}
    merged["forward"] += bare.phases.get("loss", 0.0)
    if not task.real:  # there is nothing to wait for
        merged["forward"] += merged.pop("data")
    scales = {
        "forward": _scale(merged["forward"], ledger, _FORWARD),
        "backward": _scale(merged["backward"], ledger, ("backward",)),
        "optimizer": _scale(merged["optimizer"], ledger, ("optimizer",)),
    }
    table = {path: type(module).__name__ for path, module in task.model.named_modules()}
    paths = [*table, *(path for _, path in ledger.sums if path not in table)]
    parts = {
        path: _part(path, table.get(path, ""), ledger, scales, work, machine) for path in dict.fromkeys(paths)
    }
    outside = parts.pop(OUTSIDE, Part("", ""))
    busy = _useful(ledger) / bare.seconds if task.device.type != "cpu" else None
    return Run(
        kind=kind,
        seconds=bare.seconds,
        spread=bare.spread,
        steps=bare.steps,
        samples=task.last.size * (task.together if kind == "training step" else 1) if task.last is not None else 0,
        phases=tuple(Phase(name, seconds) for name, seconds in merged.items() if seconds),
        parts=tuple(parts.values()),
        outside=outside,
        split=_split(bare.seconds, merged, (*parts.values(), outside), ledger, scales["optimizer"], work, machine),
        busy=bare.busy,
        operations=_hottest(ledger),
        calls=work.calls,
        device_busy=busy,
    )


def _scale(seconds: float, ledger: Ledger, phases: Sequence[str]) -> float:
    """Give the factor that makes what was watched in some phases as long as bare steps are."""
    watched = sum(ledger.phase(name).total for name in phases)
    return seconds / watched if watched else 0.0


def _part(path: str, kind: str, ledger: Ledger, scales: dict[str, float], work: Work, machine: Machine) -> Part:
    found = {"forward": Sums(), "backward": Sums()}
    for phase in (*_FORWARD, "backward"):
        seen = ledger.sums.get((phase, path))
        if seen is None:
            continue
        name = "backward" if phase == "backward" else "forward"
        found[name].products += seen.products * scales[name]
        found[name].moving += seen.moving * scales[name]
        found[name].between += seen.between * scales[name]
        found[name].calls += seen.calls
    ahead, back = found["forward"], found["backward"]
    made = Part(
        path=path,
        kind=kind,
        calls=ahead.calls,
        forward=ahead.total,
        backward=back.total,
        products=ahead.products + back.products,
        moving=ahead.moving + back.moving,
        between=ahead.between + back.between,
        flops=work.flops.get(path, 0.0),
        bytes=work.bytes.get(path, 0.0),
    )
    return replace(made, bound=_bound(made, work, machine))


def _computes(path: str, work: Work, machine: Machine) -> bool:
    """Tell whether the products of a module do enough with each byte for computing to be their limit."""
    moved = work.product_bytes.get(path, 0.0)
    return not moved or work.flops.get(path, 0.0) / moved >= machine.ridge


def _too_short(part: Part, machine: Machine) -> bool:
    """Tell whether a module did more than the machine can in a span that is too short to measure.

    A long span above the machine's rate is no mistake of its own: the machine was busy when the rate was taken.
    """
    span = part.products or part.seconds
    return machine.device == "cpu" and span < _SHORT and part.flops > machine.flops * span


def _bound(part: Part, work: Work, machine: Machine) -> str:
    if not part.seconds or _too_short(part, machine):
        return ""
    if part.between > part.products + part.moving:
        return "Python"
    return "compute" if part.products > part.moving and _computes(part.path, work, machine) else "memory"


def _split(
    seconds: float,
    phases: dict[str, float],
    parts: Sequence[Part],
    ledger: Ledger,
    scale: float,
    work: Work,
    machine: Machine,
) -> Split:
    """Say what the whole step goes to."""
    told = [one for one in parts if not _too_short(one, machine)]
    unsure = sum(one.seconds for one in parts) - sum(one.seconds for one in told)
    compute = sum(one.products for one in told if _computes(one.path, work, machine))
    memory = sum(one.products + one.moving for one in told) - compute
    update = ledger.phase("optimizer")
    memory += update.useful * scale
    data = phases.get("data", 0.0)
    python = max(seconds - data - compute - memory - unsure, 0.0)
    whole = max(data + python + memory + compute, 1e-12)
    return Split(data / whole, python / whole, memory / whole, compute / whole)


def _useful(ledger: Ledger) -> float:
    return sum(one.useful for one in ledger.sums.values())


def _hottest(ledger: Ledger, most: int = 12) -> tuple[Operation, ...]:
    """List the operations that take most by themselves."""
    found: dict[str, list[float]] = {}
    for (phase, name), (seconds, calls) in ledger.operations.items():
        if phase != "data":
            seen = found.setdefault(name, [0.0, 0])
            seen[0] += seconds
            seen[1] += calls
    order = sorted(found.items(), key=lambda one: -one[1][0])
    return tuple(Operation(name, seconds, calls) for name, (seconds, calls) in order[:most])
