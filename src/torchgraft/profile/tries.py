"""What would help, tried: the same step with one thing changed, beside the step as it is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchgraft.profile.clock import Clock
from torchgraft.profile.machine import cores, wait
from torchgraft.profile.record import Run, Try
from torchgraft.profile.task import Task
from torchgraft.trace.tree import mapped

__all__ = ["tried"]

LONGEST = 0.7
"""A step that takes more seconds is not tried in other ways."""

PATIENCE = 4.0
"""Nothing more is begun to be tried after so many seconds."""

_FUSED = ("SGD", "Adam", "AdamW", "Adagrad")
"""The optimizers of torch that have a fused form on every device."""


def tried(task: Task, run: Run) -> tuple[Try, ...]:
    """Try what may help, where a step is short enough; best first. The task is as it was afterwards."""
    if run.seconds > LONGEST:
        return ()
    training = run.kind == "training step"
    step = task.training if training else task.prediction
    task.train_mode(task.model) if training else task.model.eval()
    found, begun = [], time.perf_counter()
    for name, sentence, change in _changes(task, run, training=training):
        if time.perf_counter() - begun > PATIENCE:
            break
        with contextlib.suppress(RuntimeError, TypeError, NotImplementedError, ValueError):
            found.append(Try(name, sentence, _faster(task, step, change), run.kind))
    return tuple(sorted(found, key=lambda one: -one.faster))


_Change = Callable[[], AbstractContextManager[None]]


def _changes(task: Task, run: Run, *, training: bool) -> Iterator[tuple[str, str, _Change]]:
    if task.device.type == "cpu" and torch.get_num_threads() < cores():
        yield f"{cores()} threads", "every core that the process may use", _threads
    if task.precision == "fp32":
        yield "bf16", "forward and backward in bfloat16, by autocast", lambda: _precision(task, "bf16")
    fused = training and type(task.optimizer).__name__ in _FUSED
    if fused and task.optimizer is not None and not task.optimizer.defaults.get("fused"):
        yield "fused optimizer", "all parameters updated in one pass", lambda: _fused(task)
    convolved = sum(part.seconds for part in run.parts if part.kind == "Conv2d")
    if convolved > 0.2 * run.seconds and task.last is not None:
        yield "channels_last", "model and images in the order that convolutions read", lambda: _channels_last(task)


def _faster(task: Task, step: Callable[[Clock], None], change: _Change, rounds: int = 2) -> float:
    """Give how many times as fast a step is with a change, both by their quickest; waiting for data left out."""
    bare, changed = [], []
    for _ in range(rounds):
        bare.append(_quickest(task, step))
        with change():
            changed.append(_quickest(task, step))
        if min(changed) > 1.5 * min(bare):  # once is enough to tell
            break
    return min(bare) / min(changed)


def _quickest(task: Task, step: Callable[[Clock], None]) -> float:
    seen = []
    for _ in range(3):
        clock = Clock(task.device)
        wait(task.device)
        start = time.perf_counter()
        step(clock)
        seen.append(time.perf_counter() - start - clock.seconds.get("data", 0.0))
    return min(seen[1:])


@contextmanager
def _channels_last(task: Task) -> Iterator[None]:
    def ordered(one: Tensor) -> Tensor:
        return one.contiguous(memory_format=torch.channels_last) if one.dim() == 4 else one

    last, batches = task.last, task.batches
    task.model.to(memory_format=torch.channels_last)
    task.batches = (replace(one, args=mapped(ordered, one.args)) for one in batches)
    task.last = replace(last, args=mapped(ordered, last.args)) if last is not None else None
    try:
        yield
    finally:
        task.model.to(memory_format=torch.contiguous_format)
        task.batches, task.last = batches, last


@contextmanager
def _precision(task: Task, kind: str) -> Iterator[None]:
    kept = task.precision
    task.precision = kind
    try:
        yield
    finally:
        task.precision = kept


@contextmanager
def _fused(task: Task) -> Iterator[None]:
    kept = task.optimizer
    assert kept is not None
    groups: list[dict[str, Any]] = [{**group, "fused": True, "foreach": False} for group in kept.param_groups]
    made: Any = type(kept)
    task.optimizer = made(groups)
    try:
        yield
    finally:
        task.optimizer = kept


@contextmanager
def _threads() -> Iterator[None]:
    kept = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(kept)
